"""The report: what a page says, that hostile text and files stay harmless, and how it stands in a browser and on paper."""

import base64
import datetime as dt
import html
import re
import shutil
import subprocess
from html.parser import HTMLParser
from importlib.resources import files

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.figure import Figure as Canvas

from bayesens import plots
from bayesens.app.report.page import (
    Figure,
    Listing,
    Note,
    Paragraph,
    Report,
    Section,
    Table,
    literal,
    render,
    with_interval,
    write,
)
from bayesens.app.report.tables import lay_out

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), ""
)
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
HOSTILE = "<script>document.title='broken'</script>\"'><img src=http://x.example/ onerror=alert(1)> & *a* {{ 7*7 }} \0"


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


# ------------------------------------------------------------------------------------------------- a document as they are
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


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return render(document(tmp_path_factory.mktemp("figures")))


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


def covered(rows):
    """Which cells rows of Cell cover, by the algorithm of HTML: each goes to the first free place."""
    place = {}
    for i, row in enumerate(rows):
        j = 0
        for cell in row:
            while (i, j) in place:
                j += 1
            for a in range(cell.rows):
                for b in range(cell.columns):
                    assert (i + a, j + b) not in place, "two cells overlap"
                    place[i + a, j + b] = cell.text
    return place


# ------------------------------------------------------------------------------------------------------------- the page
class TestPage:
    def test_numbers_titles_and_anchors(self, page):
        seen = Seen(page)
        assert [text.split() for _, text in seen.all("h1", "h2", "h3")][1:] == [
            words.split() for words in ("Summary", "Contents", "1 Data", "2 Scores", "2.1 By network", "3 Posterior",
                                        "3.1 Calibration", "3.2 Through time", "4 Priors and what was assumed")
        ]  # fmt: skip
        captions = [text.split(".")[0] for _, text in seen.all("figcaption")]
        assert captions == ["Table 1", "Table 2", "Table 3", "Table 4", "Figure 1", "Figure 2", "Figure 3", "Table 5"]

    def test_every_anchor_is_there_once_and_every_link_leads_to_one(self, page):
        seen = Seen(page)
        ids = [attrs["id"] for _, attrs in seen.tags if "id" in attrs]
        assert len(ids) == len(set(ids))
        links = [attrs["href"] for attrs, _ in seen.all("a") if attrs["href"].startswith("#")]
        assert {link[1:] for link in links} <= set(ids)
        assert len([attrs for attrs, text in seen.all("a") if attrs["href"] == "#scores" and text == "Table 2"]) == 1

    def test_headings_go_down_one_level_at_a_time(self, page):
        level = [int(tag[1]) for tag, _ in Seen(page).tags if re.fullmatch("h[1-6]", tag)]
        assert level[0] == 1
        assert level.count(1) == 1
        assert (np.diff(level) <= 1).all()

    def test_landmarks_language_and_names(self, page):
        seen = Seen(page)
        assert seen.all("html")[0][0]["lang"] == "en"
        assert [len(seen.all(tag)) for tag in ("header", "nav", "main", "footer")] == [1, 1, 1, 1]
        assert all(attrs["alt"] and int(attrs["width"]) and int(attrs["height"]) for attrs, _ in seen.all("img"))
        assert len(seen.all("caption")) == len(seen.all("table")) == 5
        assert all(attrs["scope"] in ("row", "rowgroup", "col", "colgroup") for attrs, _ in seen.all("th"))
        ids = {attrs["id"] for _, attrs in seen.tags if "id" in attrs}
        named = [
            attrs[key] for _, attrs in seen.tags for key in ("aria-labelledby", "aria-describedby") if key in attrs
        ]
        assert set(named) <= ids

    def test_nothing_is_fetched(self, page):
        seen = Seen(page)
        leads = [
            attrs[key] for _, attrs in seen.tags for key in ("src", "href", "srcset", "data", "action") if key in attrs
        ]
        away = [lead for lead in leads if not lead.startswith(("#", "data:"))]
        assert away == ["tables/stations.csv", "tables/scores.csv"]
        style = seen.all("style")[0][1]
        assert "@import" not in style
        assert "url(" not in style
        assert not seen.all("script", "iframe", "object", "embed", "base")
        policy = next(attrs["content"] for attrs, _ in seen.all("meta") if "http-equiv" in attrs)
        assert policy.startswith("default-src 'none'; img-src data:;")
        assert "script" not in policy

    def test_head_and_date(self):
        seen = shown("Text.", facts={"Rows": 12}, date=dt.date(2026, 3, 1), version="1.2", subtitle="Under it")
        pairs = zip(seen.all("dt"), seen.all("dd"), strict=True)
        assert [(name, value) for (_, name), (_, value) in pairs] == [
            ("Rows", "12"), ("Date", "1 March 2026"), ("Made with", "bayesens 1.2")
        ]  # fmt: skip
        assert ({"class": "subtitle"}, "Under it") in seen.all("p")

    def test_a_report_of_a_title_alone(self):
        seen = Seen(render(Report("Nothing yet")))
        assert not seen.all("nav")
        assert [text for _, text in seen.all("h1", "h2", "h3")] == ["Nothing yet"]

    def test_template_is_found_beside_the_code(self):
        assert files("bayesens.app.report").joinpath("report.html.j2").is_file()


class TestText:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("*emphasis* and `code`", "<em>emphasis</em> and <code>code</code>"),
            ("2*3*4 and * alone *", "2*3*4 and * alone *"),
            ("a < b & c", "a &lt; b &amp; c"),
            ("`<b>` *<i>*", "<code>&lt;b&gt;</code> <em>&lt;i&gt;</em>"),
            ("`*not*`", "<code>*not*</code>"),
            (r"\*plain\* \`too\`", "*plain* `too`"),
            ("see [#part]", 'see <a href="#part">Section 1</a>'),
            ("see [1]", "see [1]"),
        ],
    )
    def test_marks(self, text, expected):
        for part in (text, Paragraph(text)):
            assert f"<p>{expected}</p>" in render(Report("T", sections=[Section("Part", [part])]))
        assert f"<li>{expected}</li>" in render(Report("T", sections=[Section("Part", [Listing([text])])]))

    def test_literal_takes_every_meaning(self):
        text = r"*a* `b` [#nowhere] \*c\* st_*1*"
        page = render(Report("T", sections=[Section("Part", [literal(text)])]))
        assert f"<p>{text}</p>" in page

    def test_hostile_text_is_text_in_every_field(self, tmp_path):
        (tmp_path / "a.png").write_bytes(PIXEL)
        bad = literal(HOSTILE)
        frame = pd.DataFrame({HOSTILE: [HOSTILE, "b"], "x": [1.0, 2.0]}, index=pd.Index([HOSTILE, "c"], name=HOSTILE))
        frame.columns = pd.MultiIndex.from_tuples([(HOSTILE, HOSTILE), (HOSTILE, "x")])
        parts = [bad, Paragraph(bad), Listing([bad]), Note(bad, "caution"), Section(HOSTILE, [bad]),
                 Figure(tmp_path / "a.png", bad, HOSTILE),
                 Table(frame, bad, bad, source="tables/" + re.sub(r"[/:\0]", "", HOSTILE))]  # fmt: skip
        report = Report(HOSTILE, [bad], [Section(HOSTILE, parts)], {HOSTILE: HOSTILE}, HOSTILE, HOSTILE, HOSTILE)
        page = render(report)
        seen = Seen(page)
        assert not seen.all("script")
        assert [set(attrs) for attrs, _ in seen.all("img")] == [{"src", "alt", "width", "height"}]
        assert seen.all("img")[0][0]["src"].startswith("data:image/png;base64,")
        assert not [name for _, attrs in seen.tags for name in attrs if name.startswith("on")]
        text = HOSTILE.replace("\0", "\N{REPLACEMENT CHARACTER}")
        assert seen.all("h1")[0][1] == seen.all("title")[0][1] == text
        assert seen.all("img")[0][0]["alt"] == text
        assert [t for _, t in seen.all("li")][-1] == text
        assert rows_of(seen)[-2][:2] == [text, text]
        assert "\0" not in page

    def test_what_utf8_cannot_hold_is_replaced(self, tmp_path):
        write(Report("a\ud800b\x1bc"), tmp_path / "r.html")
        assert "<h1>a\ufffdb\ufffdc</h1>" in (tmp_path / "r.html").read_text(encoding="utf-8")


class TestFigures:
    def test_figures_are_inside_at_their_own_size(self, tmp_path):
        drawing = drawn(tmp_path)
        seen = shown(*(Figure(path, name, name) for name, path in drawing.items()))
        size = {"weights": (6.2, 2.8), "pit": (5.2, 3.0), "intervals": (10.0, 3.4)}
        for name, (attrs, _) in zip(drawing, seen.all("img"), strict=True):
            head, _, content = attrs["src"].partition(",")
            assert head == f"data:image/{'png' if name == 'pit' else 'svg+xml'};base64"
            assert base64.b64decode(content) == drawing[name].read_bytes()
            assert (int(attrs["width"]), int(attrs["height"])) == pytest.approx(np.multiply(size[name], 96), abs=1)

    @pytest.mark.parametrize(
        ("attributes", "size"),
        [('width="72pt" height="1in"', (96, 96)), ('width="300" height="20px"', (300, 20)),
         ('width="100%" viewBox="0 0 400 300"', (400, 300)), ('viewBox="0,0,40,30"', (40, 30))],
    )  # fmt: skip
    def test_size_of_an_svg(self, tmp_path, attributes, size):
        path = tmp_path / "a.svg"
        path.write_text(f'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" {attributes}/>')
        attrs = shown(Figure(path, "c", "a")).all("img")[0][0]
        assert (int(attrs["width"]), int(attrs["height"])) == size

    @pytest.mark.parametrize(
        ("name", "content", "text"),
        [
            ("a.svg", b"<html/>", r"a\.svg is no SVG file .*<html>.* draw it again"),
            ("a.svg", b"<svg", "a\\.svg is no SVG file"),
            ("a.svg", b"", "a\\.svg is no SVG file"),
            ("a.png", b"GIF89a", "a\\.png is no PNG file .*does not begin"),
            ("a.png", PIXEL[:12], "a\\.png is no PNG file"),
        ],
    )
    def test_other_files_are_refused(self, tmp_path, name, content, text):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=text):
            shown(Figure(tmp_path / name, "c", "a"))

    def test_refusals(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"nothing\.png is not there; draw it first"):
            shown(Figure(tmp_path / "nothing.png", "c", "a"))
        with pytest.raises(ValueError, match=r"\.svg or \.png file; got 'a\.pdf'"):
            Figure("a.pdf", "c", "a")
        with pytest.raises(ValueError, match="no alt text; say in a sentence"):
            Figure("a.png", "c", "  ")


# ---------------------------------------------------------------------------------------------------------------- tables
class TestTables:
    def test_the_page_holds_the_numbers_of_the_frame(self):
        frame = score_frame().drop(columns=["estimand", "n"])
        head, *rows = rows_of(shown(Table(frame, "c", digits=6)))
        assert head == list(frame.columns)
        assert [row[0] for row in rows] == list(frame["model"])
        back = [[np.nan if text == "–" else float(text.replace("−", "-")) for text in row[1:]] for row in rows]
        np.testing.assert_allclose(back, frame.iloc[:, 1:].to_numpy(), atol=5.1e-7, rtol=0)

    def test_merged_headings_cover_every_column_once(self):
        frame = product_frame()
        grid = lay_out(frame, heads=2)
        place = covered(grid.head)
        assert set(place) == {(i, j) for i in range(3) for j in range(frame.shape[1] + 1)}
        assert [[place[i, j + 1] for i in range(3)] for j in range(frame.shape[1])] == [list(c) for c in frame.columns]
        assert place[0, 0] == place[2, 0] == "network"
        assert sum(grid.spans) == frame.shape[1] + 1
        assert grid.spans == (1, 2, 6, 6, 6, 6, 6, 6)

    @settings(max_examples=100, deadline=None)
    @given(
        columns=st.lists(st.tuples(*[st.sampled_from(["", "a", "b"])] * 3), min_size=1, max_size=7),
        labels=st.lists(st.tuples(*[st.sampled_from(["u", "v"])] * 3), min_size=0, max_size=7),
        heads=st.integers(0, 4),
        shows_index=st.booleans(),
    )
    def test_cells_cover_any_table_once(self, columns, labels, heads, shows_index):
        frame = pd.DataFrame([[f"{i}{j}" for j in range(len(columns))] for i in range(len(labels))], dtype=object,
                             columns=pd.MultiIndex.from_tuples(columns))  # fmt: skip
        if shows_index and labels:
            frame.index = pd.MultiIndex.from_tuples(labels, names=["one", "two", "three"])
        heads = min(heads, len(columns) + 3 * bool(shows_index and labels))
        grid = lay_out(frame, heads=heads)
        width = sum(cell.columns for cell in grid.head[0])
        assert set(covered(grid.head)) == {(i, j) for i in range(3) for j in range(width)}
        assert not grid.spans or sum(grid.spans) == width
        values = []
        for body in grid.bodies:
            place = covered(body)
            assert set(place) == {(i, j) for i in range(len(body)) for j in range(width)}
            values += [place[i, width - 1] for i in range(len(body)) if body[i][0].style != "panel stub"]
        if heads < len(columns) and labels:
            assert values == [f"{i}{len(columns) - 1}" for i in range(len(labels))]

    def test_panels_stand_over_their_rows(self):
        frame = pd.DataFrame({"metric": ["R", "R", "MAE", "MAE"], "net": list("abab"), "x": [0.5, 0.6, 0.1, 0.2]})
        assert rows_of(shown(Table(frame, "c"))) == [
            ["net", "x"], ["R"], ["a", "0.500"], ["b", "0.600"], ["MAE"], ["a", "0.100"], ["b", "0.200"]
        ]  # fmt: skip
        assert rows_of(shown(Table(frame[::2], "c")))[1] == ["R", "a", "0.500"]  # no panel of a single row

    @pytest.mark.parametrize(
        ("values", "digits", "texts"),
        [
            ([0.0367, 0.05, 0.1], None, ["0.0367", "0.0500", "0.1000"]),
            ([1234.5, 20000.25], None, ["1234", "20,000"]),
            ([1.0, 2.0, np.nan], None, ["1", "2", "–"]),
            ([-0.0004, 0.5], 3, ["0.000", "0.500"]),
            ([-0.25, np.inf], 1, ["−0.2", "∞"]),
            ([0.123, 0.9], ".0%", ["12%", "90%"]),
            ([1.25, -2.0], "{:.1f} mm", ["1.2 mm", "−2.0 mm"]),
            ([2019, 123456], 3, ["2019", "123,456"]),
            ([2019, 123456], {"x": 1}, ["2019.0", "123,456.0"]),
            ([True, False], None, ["yes", "no"]),
            (pd.to_datetime(["2020-01-02", None]), None, ["2020-01-02", "–"]),
            (pd.Categorical(["a", None]), None, ["a", "–"]),
            (pd.array([1, None], dtype="Int64"), None, ["1", "–"]),
            (["a", None, ""], None, ["a", "–", ""]),
        ],
    )
    def test_what_values_look_like(self, values, digits, texts):
        grid = lay_out(pd.DataFrame({"x": values}), digits=digits, heads=0)
        assert [row[0].text for row in grid.bodies[0]] == texts

    def test_numbers_stand_to_the_right_and_text_to_the_left(self):
        frame = pd.DataFrame(
            {"r": [0.5], "said": ["0.04 [0.03, 0.05]"], "share": ["12 %"], "year": ["2016-2019"], "t": ["a 1"]}
        )
        frame = pd.concat([frame, pd.DataFrame({name: [""] for name in ("said", "share", "year", "t")})])
        grid = lay_out(frame.reset_index(drop=True), heads=0)
        head, body = grid.head[0], grid.bodies[0]
        assert [cell.style for cell in body[0]] == ["number", "number", "number", "", ""]
        assert [cell.style for cell in head] == ["right", "right", "right", "", ""]
        assert (body[0][1].text, body[0][1].more) == ("0.04", "[0.03, 0.05]")

    def test_missing_values_say_so(self):
        seen = shown(Table(pd.DataFrame({"x": [1.0, np.nan]}), "c"))
        assert ({"title": "missing", "role": "img", "aria-label": "missing"}, "–") in seen.all("span")

    def test_columns_of_one_name_have_the_same_digits(self):
        columns = pd.MultiIndex.from_product([["BMA", "HBM"], ["rmse", "n"]])
        seen = shown(Table(pd.DataFrame([[0.0512, 12, 0.102, 1500]], columns=columns), "c"))
        assert rows_of(seen)[-1] == ["0.0512", "12", "0.1020", "1500"]

    def test_best_in_each_panel_and_what_reads_the_same(self):
        frame = pd.DataFrame({"net": list("aabb"), "model": list("xyxy"), "rmse": [1.0, 2.0, 0.50, 0.501],
                              "bias": [-0.1, 0.2, np.nan, 3.0], "r": [0.1, 0.9, 0.5, 0.2]})  # fmt: skip
        best = {"rmse": "min", "r": "max", "bias": "zero", "absent": "min"}
        grid = lay_out(frame, digits=2, highlight=best)
        bold = [[cell.text for cell in row if "best" in cell.style] for body in grid.bodies for row in body]
        assert bold == [[], ["1.00", "−0.10"], ["0.90"], [], ["0.50", "0.50"], ["0.50"]]

    def test_best_along_the_rows_of_a_panel(self):
        grid = lay_out(with_interval(product_frame(), "estimate", "low", "high", digits=3), highlight={"RMSE": "min"})
        frame = product_frame().xs("estimate", axis=1, level=2).loc["RMSE"].round(3)
        bold = [[j for j, cell in enumerate(row[3:]) if "best" in cell.style] for row in grid.bodies[1][1:]]
        for (_, row), where in zip(frame.iterrows(), bold, strict=True):
            expected = [j for j, (_, band) in enumerate(frame.columns) if row.iloc[j] == row.xs(band, level=1).min()]
            assert where == expected
        assert not [cell for row in (*grid.bodies[0], *grid.bodies[2]) for cell in row if "best" in cell.style]
        assert not [cell for row in grid.bodies[1][1:] for cell in row[:3] if "best" in cell.style]

    def test_source_is_offered_and_stays_below_the_report(self):
        frame = pd.DataFrame({"x": [1]})
        links = shown(Table(frame, "c", source="tables/a b#1?.csv")).all("a")
        assert links[-1] == ({"href": "tables/a%20b%231%3F.csv", "download": None}, "tables/a b#1?.csv")
        for away in (
            "http://x.example/a.csv",
            "//x/a",
            "/etc/a",
            "../a",
            "a/../../b",
            "javascript:x",
            "a\\b",
            "",
            "a\nb",
        ):
            with pytest.raises(ValueError, match="a path below the report"):
                Table(frame, "c", source=away)

    def test_a_table_may_stand_in_its_file_alone(self):
        seen = shown(Table(pd.DataFrame(), "c", source="tables/x.csv", whole=pd.DataFrame({"x": [1]})))
        assert rows_of(seen) == []
        assert seen.all("a")[-1][0]["href"] == "tables/x.csv"

    def test_refusals(self):
        with pytest.raises(ValueError, match="highlight takes 'min', 'max', 'zero'; got 'lowest'"):
            Table(pd.DataFrame({"x": [1]}), "c", highlight={"x": "lowest"})
        with pytest.raises(TypeError, match=r"made from a pandas\.DataFrame; got Series"):
            Table(pd.Series([1]), "c")
        with pytest.raises(ValueError, match="has no columns; leave it out"):
            Table(pd.DataFrame(), "c")
        with pytest.raises(ValueError, match="head_columns is a number from 0 to 2 here; got 5"):
            Table(pd.DataFrame({"x": [1]}), "c", head_columns=5)

    def test_a_table_without_rows_has_its_head(self):
        assert rows_of(shown(Table(pd.DataFrame({"x": [], "y": []}), "c"))) == [["x", "y"]]


class TestIntervals:
    frame = pd.DataFrame({"model": ["a", "b", "c"], "r": [0.5, -0.25, np.nan], "r_low": [0.4, np.nan, 0.1],
                          "r_high": [0.62, np.nan, 0.2], "n": [3, 4, 5]})  # fmt: skip

    def test_three_columns_become_one(self):
        made = with_interval(self.frame, "r", digits=2)
        assert list(made.columns) == ["model", "r", "n"]
        assert rows_of(shown(Table(made, "c")))[1:] == [
            ["a", "0.50 (0.40 to 0.62)", "3"], ["b", "−0.25", "4"], ["c", "–", "5"]
        ]  # fmt: skip
        assert made["r"].astype(float).round(2).tolist()[:2] == [0.5, -0.25]

    def test_digits_follow_the_width(self):
        frame = pd.DataFrame({"r": [0.5, 0.6], "r_low": [0.4981, 0.5983], "r_high": [0.5017, 0.6019]})
        assert [str(v) for v in with_interval(frame, "r")["r"]] == [
            "0.5000 (0.4981 to 0.5017)",
            "0.6000 (0.5983 to 0.6019)",
        ]

    def test_columns_of_several_levels_lose_the_one_that_says_nothing(self):
        frame = product_frame()
        made = with_interval(frame, "estimate", "low", "high", digits=3)
        assert list(made.columns)[:3] == [("number", "all", "rows"), ("number", "mid", "rows"), ("RF", "all", "")]
        alone = with_interval(frame.drop(columns="number", level=0), "estimate", "low", "high")
        assert list(alone.columns)[:2] == [("RF", "all"), ("RF", "mid")]
        assert alone.columns.names == ["model", "band"]
        low, high = (frame["BMA", "mid", end].iloc[5] for end in ("low", "high"))
        assert str(made["BMA", "mid", ""].iloc[5]).endswith(f"({low:.3f} to {high:.3f})")

    def test_refusals(self):
        with pytest.raises(KeyError, match="no column 'rr' in the table \\(3 rows\\); did you mean 'r'"):
            with_interval(self.frame, "rr")
        with pytest.raises(KeyError, match="no column 'n_low', 'n_high' in the table, beside 'n'"):
            with_interval(self.frame, "n")


# --------------------------------------------------------------------------------------------------- refusals and writing
class TestValues:
    def test_one_part_needs_no_list(self):
        assert Section("S", "text").parts == ("text",)
        assert Report("T", "text").summary == ("text",)
        assert Listing(["a"]).items == ("a",)

    def test_refusals(self):
        with pytest.raises(TypeError, match="section 'S' holds int \\('3'\\); wanted str, Paragraph"):
            Section("S", [3])
        with pytest.raises(TypeError, match="the report holds str"):
            Report("T", sections=["text"])
        with pytest.raises(ValueError, match="a note is 'finding' or 'caution'; got kind='tip'"):
            Note("x", "tip")
        deep = Section("A", [Section("B", [Section("C", [])])])
        with pytest.raises(ValueError, match="section 'C' is three deep"):
            render(Report("T", sections=[deep]))
        with pytest.raises(ValueError, match="the id 'a' is used more than once, or is the page's own; give each"):
            render(Report("T", sections=[Section("A", [], "a"), Section("B", [], "a")]))
        with pytest.raises(ValueError, match="the id 'main'"):
            render(Report("T", sections=[Section("A", [], "main")]))
        with pytest.raises(ValueError, match="got 'a b'"):
            render(Report("T", sections=[Section("A", [], "a b")]))
        with pytest.raises(ValueError, match=r"'\[#scores\]' leads nowhere: the report has 'a'; .* literal"):
            render(Report("T", sections=[Section("A", ["see [#scores]"])]))

    def test_titles_that_are_alike_have_anchors_of_their_own(self):
        seen = Seen(render(Report("T", sections=[Section("Où?", []), Section("Ou", []), Section("土壤", []), Section("2 b", []),
                                                  Section("Main", []), Section("x", [], "ou-2")])))  # fmt: skip
        anchors = [attrs["id"] for attrs, _ in seen.all("h2") if attrs["id"] != "contents"]
        assert anchors == ["ou", "ou-3", "section", "section-2-b", "main-2", "ou-2"]


class TestWrite:
    def test_written_whole(self, tmp_path):
        report = Report("Été, 土壤", ["text"])
        write(report, tmp_path / "report.html")
        assert (tmp_path / "report.html").read_bytes() == render(report).encode()
        assert [path.name for path in tmp_path.iterdir()] == ["report.html"]

    def test_what_was_there_stays_where_the_new_one_fails(self, tmp_path):
        (tmp_path / "report.html").write_text("old")
        with pytest.raises(FileNotFoundError, match="draw it first"):
            write(
                Report("T", sections=[Section("S", [Figure(tmp_path / "a.svg", "c", "a")])]), tmp_path / "report.html"
            )
        assert (tmp_path / "report.html").read_text() == "old"
        assert len(list(tmp_path.iterdir())) == 1

    def test_refusals(self, tmp_path):
        with pytest.raises(ValueError, match=r"an \.html file; got"):
            write(Report("T"), tmp_path / "report.pdf")
        with pytest.raises(FileNotFoundError, match="does not exist; create it first"):
            write(Report("T"), tmp_path / "no" / "report.html")


# ----------------------------------------------------------------------------------------------------------- how it looks
def luminance(color):
    """Relative luminance of WCAG 2."""
    share = np.array([int(color[k : k + 2], 16) / 255 for k in (1, 3, 5)])
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_contrast_of_text_is_that_of_wcag_aa(page, theme):
    blocks = re.findall(r":root \{(.*?)\n *\}", page, flags=re.S)
    assert len(blocks) == 2
    color = dict(re.findall(r"--([\w-]+): (#\w{6});", blocks[theme == "dark"]))
    on = {"paper": ("ink", "muted", "link"), "soft": ("ink", "muted", "link"), "finding-soft": ("ink", "finding", "link"),
          "caution-soft": ("ink", "caution", "link")}  # fmt: skip
    for back, fronts in on.items():
        for front in fronts:
            dark, light = sorted([luminance(color[back]), luminance(color[front])])
            assert (light + 0.05) / (dark + 0.05) >= 4.5, (front, back)


@pytest.fixture(scope="module")
def browse(tmp_path_factory):
    """Run Chromium on a page; returns what it wrote to stdout and stderr."""
    if not CHROMIUM:
        pytest.skip("there is no chromium, chromium-browser or google-chrome here")
    home = tmp_path_factory.mktemp("browser")

    def run(page, *options):
        (home / "page.html").write_text(page, encoding="utf-8")
        switches = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
                    "--disable-background-networking", "--hide-scrollbars", "--virtual-time-budget=3000",
                    "--enable-logging=stderr", f"--user-data-dir={home / 'profile'}"]  # fmt: skip
        command = [CHROMIUM, *switches, *options, (home / "page.html").as_uri()]
        done = subprocess.run(command, capture_output=True, timeout=120, check=True, cwd=home)
        return done.stdout.decode(), done.stderr.decode(errors="replace")

    run.home = home
    return run


def complaints(log):
    return [line for line in log.splitlines() if "CONSOLE" in line]


def widths(browse, page, viewport):
    """Width of all there is on a page, and of the viewport, measured in the browser [CSS pixels]."""
    ask = "<script>document.title = [document.documentElement.scrollWidth, innerWidth, document.images.length, " \
          "[...document.images].filter(one => one.complete && one.naturalWidth).length].join()</script>"  # fmt: skip
    free = re.sub(r'<meta http-equiv="Content-Security-Policy".*?>', "", page)  # this copy has a script
    inner = free.replace("</body>", f"{ask}</body>")
    frame = f'<iframe id="f" style="border:0;width:{viewport}px;height:800px" srcdoc="{html.escape(inner)}"></iframe>'
    tell = "<script>onload = () => { document.title = document.getElementById('f').contentDocument.title }</script>"
    dom, _ = browse(f"<!DOCTYPE html><title>none</title><body>{frame}{tell}</body>", "--dump-dom")
    return [int(number) for number in re.search("<title>([0-9,]+)</title>", dom)[1].split(",")]


class TestBrowser:
    def test_page_shows_without_a_complaint(self, browse, page):
        dom, log = browse(page, "--dump-dom")
        assert not complaints(log)
        assert "Table 5" in Seen(dom).all("main")[0][1]

    def test_no_script_of_a_page_or_a_figure_runs(self, browse, tmp_path):
        """What a figure or a slip in the template might bring is refused, and the console says so."""
        (tmp_path / "a.svg").write_text(
            '<svg xmlns="http://www.w3.org/2000/svg" width="10" height="10" onload="parent.document.title=\'broken\'">'
            "<script>top.document.title='broken'; document.title='broken'</script></svg>"
        )
        page = render(Report("Whole", sections=[Section("S", [Figure(tmp_path / "a.svg", "c", "a")])]))
        dom, log = browse(page, "--dump-dom")
        assert "<title>Whole</title>" in dom
        assert not complaints(log)
        dom, log = browse(page.replace("</body>", "<script>document.title='broken'</script></body>"), "--dump-dom")
        assert "<title>Whole</title>" in dom
        assert "Content Security Policy" in " ".join(complaints(log))

    @pytest.mark.slow
    @pytest.mark.parametrize("viewport", [375, 1280])
    def test_nothing_is_wider_than_the_page(self, browse, page, viewport):
        wide = Section("W" * 300, ["w" * 400, Table(pd.DataFrame([[1.5] * 60]), "w" * 300),
                                   Table(pd.DataFrame({"n" * 90: ["v" * 300]}), "c", "w" * 300), Note("w" * 300)])  # fmt: skip
        hostile = render(Report("W" * 300, ["w" * 300], [wide], {"f" * 90: "w" * 300}, subtitle="w" * 300))
        for each in (page, hostile):
            width, inner, images, loaded = widths(browse, each, viewport)
            assert inner == viewport
            assert width == viewport
            assert images == loaded
        if viewport == 375:  # the measure itself sees what is too wide
            assert widths(browse, page.replace("overflow-x: auto", "overflow-x: visible"), viewport)[0] > viewport

    def test_folded_tables_are_open_on_paper(self, browse):
        frame = pd.DataFrame({"station": [f"st{k}" for k in range(200)], "x": np.arange(200) / 7})
        pages = {}
        for rows in (3, 200):
            page = render(Report("T", sections=[Section("S", [Table(frame.head(rows), "Stations.", fold=True)])]))
            browse(page, f"--print-to-pdf={browse.home / 'page.pdf'}")
            content = (browse.home / "page.pdf").read_bytes()
            assert content.startswith(b"%PDF")
            pages[rows] = len(re.findall(rb"/Type /Page\b", content))
        assert pages[3] == 1
        assert 3 <= pages[200] <= 8
