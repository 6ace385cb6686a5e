"""A report with tables, figures and sections as studies have them, and what its page holds."""

import base64
import datetime as dt
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure as Canvas

from bayesens import plots
from bayesens.app.report.page import Figure, Listing, Note, Report, Section, Table, literal, render, with_interval

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def product_frame():
    """Products side by side: metrics and networks down; products, bands, and estimates with limits across."""
    rng = np.random.default_rng(3)
    index = pd.MultiIndex.from_product(
        [["R", "RMSE", "MAE"], ["NZW", "CERN", "QXZ", "all"]], names=["metric", "network"]
    )
    columns = [("number", "all", "rows"), ("number", "mid", "rows")] + [
        (model, band, part)
        for model in ("RF", "MLR", "SVR", "XGB", "BMA", "HBM")
        for band in ("all", "mid")
        for part in ("estimate", "low", "high")
    ]
    frame = pd.DataFrame(0.0, index=index, columns=pd.MultiIndex.from_tuples(columns, names=["model", "band", "part"]))
    level = np.repeat([0.5, 0.13, 0.11], 4)
    for model, band, part in columns[2:]:
        if part == "estimate":
            frame[model, band, part] = level * rng.normal(1, 0.06, 12)
            frame[model, band, "low"] = frame[model, band, part] * 0.95
            frame[model, band, "high"] = frame[model, band, part] * 1.05
    frame["number", "all", "rows"] = [5044, 263, 1204, 16511] * 3
    frame["number", "mid", "rows"] = [3530, 184, 842, 11557] * 3
    return frame.astype({("number", "all", "rows"): int, ("number", "mid", "rows"): int})


def score_frame():
    rng = np.random.default_rng(4)
    models = ["HBM", "BMA", "Best member", "Equal weights", "Climatology"]
    frame = pd.DataFrame({"estimand": np.repeat(["new site", "new time"], 5), "model": models * 2})
    frame["crps"] = np.array([0.0366, 0.0371, 0.0378, 0.0386, 0.0521] * 2) * rng.normal(1, 0.01, 10)
    frame["crps_low"], frame["crps_high"] = frame["crps"] * 0.93, frame["crps"] * 1.08
    frame["rmse"] = frame["crps"] * 1.8
    frame["bias"] = rng.normal(0, 0.004, 10)
    frame["coverage90"] = rng.normal(0.9, 0.01, 10)
    frame["width90"] = frame["crps"] * 6
    frame.loc[9, ["rmse", "bias"]] = np.nan
    frame["n"] = 21_884
    return frame


def drawn(folder):
    """Figures of the package from simulated numbers."""
    rng = np.random.default_rng(5)
    member = ["rf", "mlr", "svr", "xgb"]
    weight = xr.Dataset(
        {"weight": (("chain", "draw", "member"), rng.dirichlet([8, 3, 4, 6], (4, 200)))}, {"member": member}
    )
    day = np.arange("2019-01-01", "2019-12-31", dtype="datetime64[D]").astype("datetime64[ns]")
    middle = 0.22 + 0.08 * np.cos(np.arange(len(day)) / 58) + 0.01 * rng.normal(size=len(day)).cumsum() / 4
    level = np.array([0.05, 0.25, 0.5, 0.75, 0.95])
    quantile = xr.DataArray(
        middle[:, None] + 0.03 * np.array([-1.645, -0.674, 0, 0.674, 1.645]),
        dims=("obs", "quantile"),
        coords={"quantile": level, "time": ("obs", day)},
        attrs={"units": "m3 m-3"},
    )
    out = {}
    for name, size in {"weights": (6.2, 2.8), "pit": (5.2, 3.0), "intervals": (10.0, 3.4)}.items():
        canvas = Canvas(figsize=size, layout="constrained")
        ax = canvas.subplots()
        if name == "weights":
            plots.weights(weight, ax=ax)
        elif name == "pit":
            plots.pit(rng.beta(1.1, 1.1, 900), ax=ax)
        else:
            plots.intervals(quantile, middle + 0.03 * rng.normal(size=len(day)), label="Soil moisture", ax=ax)
        out[name] = folder / f"{name}.{'png' if name == 'pit' else 'svg'}"
        canvas.savefig(out[name], dpi=150)
    return out


def document(folder):
    drawing = drawn(folder)
    scores = with_interval(score_frame(), "crps")
    wide = with_interval(product_frame(), "estimate", "low", "high", digits=3)
    plain = product_frame().xs("estimate", axis=1, level=2)
    stations = pd.DataFrame(
        {
            "station": [f"st{k:02d}" for k in range(60)],
            "network": np.repeat(["Adelong", "Kyeamba", "Yanco"], 20),
            "lon": np.linspace(145.9, 148.1, 60),
            "lat": np.linspace(-35.3, -34.6, 60),
            "observations": np.arange(60) * 37 + 950,
        }
    )
    prior = pd.DataFrame(
        {
            "model": ["BMA", "BMA", "BMA", "HBM", "HBM"],
            "parameter": ["weight", "bias", "sigma", "bias", "error_corr"],
            "prior": ["Dirichlet(1)", "Normal(0, 0.5)", "HalfNormal(1)", "Normal(0, 0.5)", "LKJ(2)"],
            "why": ["Every split of weight is as likely.", "Half of the spread of the observations.", "Weakly informative.",
                    "As BMA's, so that the two differ in their errors alone.", "Mildly against correlations near one."],
        }
    )  # fmt: skip
    text = (
        "Every model was fitted without the rows that it is scored on, fold after fold, and all were scored on the same "
        "rows. CRPS and RMSE are better the lower they are; coverage should be .90; of two models with that coverage the "
        "one with the narrower intervals knows more."
    )
    return Report(
        "Soil moisture at stations in the Murrumbidgee catchment",
        [
            "*HBM and BMA cannot be told apart* at new stations: the CRPS of HBM is 1.3 % lower than that of BMA (90 % "
            "interval −3.1 to +0.4 %). Both are better than the best member, and much better than equal weights ([#scores]).",
            Listing(
                [
                    "Of 21,884 held-out observations, 89.6 % lie in HBM's 90 % intervals.",
                    "Random forest has most of the weight (.38, 90 % interval .21 to .56); see [#weights].",
                ]
            ),
        ],
        [
            Section("Data", [f"The data are those of {literal('OzNet')}. " + text,
                             Table(stations, "Stations.", fold=True, source="tables/stations.csv", digits={"lon": 2, "lat": 2})]),
            Section(
                "Scores",
                [
                    text,
                    Note("HBM is better than equal weights at new sites and at new times."),
                    Table(scores, "Scores on rows held out, with 90 % intervals from resampling whole stations.",
                          "All models on the same rows.", highlight={"crps": "min", "rmse": "min", "bias": "zero"},
                          digits={"coverage90": 3}, source="tables/scores.csv", id="scores"),
                    Note("Bands by observation flatter forecasts that avoid extremes.", kind="caution"),
                    Section("By network", [
                        Table(plain, "Correlation, RMSE and MAE of members and models, over all rows and those of the middle "
                              "70 %.", digits=3, highlight={"R": "max", "RMSE": "min", "MAE": "min"}, head_columns=2),
                        Table(wide, "The same with 90 % intervals.", highlight={"R": "max", "RMSE": "min"}, head_columns=2),
                    ]),
                ],
            ),
            Section(
                "Posterior",
                [
                    "Weights are those of " + "`BMA(kernel=\"normal\")`, fitted to all rows.",
                    Figure(drawing["weights"], "Posterior weights: median, 50 % and 90 % intervals.",
                           "Forest of four members; the random forest has the largest weight.", id="weights"),
                    Section("Calibration", [
                        Figure(drawing["pit"], "Probability integral transform of HBM on rows held out.",
                               "Histogram that is nearly flat within its band.")]),
                    Section("Through time", [
                        Figure(drawing["intervals"], "Predictive intervals at a station held out.",
                               "Median and intervals through 2019 with the observations, wet in winter.", wide=True)]),
                ],
            ),
            Section("Priors and what was assumed", [
                Table(prior, "Priors."),
                Listing(["Stations are exchangeable within a network.",
                         "Members' errors are not independent: they share their covariates."])]),
        ],
        facts={"Data": "OzNet, surface (0–5 cm), 2016 to 2019", "Rows": "21,884 at 38 stations in 3 networks",
               "Members": "random forest, linear regression, support vectors, boosted trees"},
        subtitle="Four members combined by BMA and HBM, evaluated at stations that they have not seen",
        version="0.1.0", date=dt.date(2026, 11, 23),
    )  # fmt: skip


class Seen(HTMLParser):
    """What a page holds: tags with their attributes, and the text of each."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.texts, self.open = [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.texts.append("")
        self.open.append(len(self.tags) - 1)
        if tag in ("meta", "link", "img", "br"):
            self.open.pop()

    def handle_endtag(self, tag):
        while self.open and self.tags[self.open.pop()][0] != tag:
            pass

    def handle_data(self, data):
        for k in self.open:
            self.texts[k] += data

    def all(self, *names):
        return [(attrs, text) for (tag, attrs), text in zip(self.tags, self.texts, strict=True) if tag in names]


def shown(*parts, **report):
    return Seen(render(Report("Title", sections=[Section("Part", parts)], **report)))


def rows_of(seen):
    """Texts of all rows of the tables of a page, merged cells once."""
    out, last = [], None
    for (tag, _), text in zip(seen.tags, seen.texts, strict=True):
        if tag == "tr":
            out.append([])
            last = out[-1]
        elif tag in ("th", "td"):
            last.append(text)
    return out
