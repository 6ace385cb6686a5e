"""The first page and the typography of a report: four answers, one sentence each, and nothing said beyond the interval."""

import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import bayesens as be
from bayesens import plots, simulate
from bayesens.app.report.parts import Note
from bayesens.app.study.chapters import headline as page
from bayesens.app.study.chapters.assumptions import priors_table
from bayesens.app.study.chapters.chapter import finding
from bayesens.app.study.chapters.scores import _unequal_effects
from bayesens.app.study.chapters.through_time import MOST, WINDOW, _window
from bayesens.app.study.priors_in_use import has_part
from bayesens.app.study.report import _text
from studies import run_quietly, study_text

pytestmark = pytest.mark.filterwarnings("ignore:product 'Far away' .* differ", "ignore:Far away, corrected failed")

STUDY = study_text(
    products={"Far away": "far"},
    models={"BMA": "bma", "Linear pool": "linear_pool", "Equal weights": "equal", "Best member": "single",
            "Climatology": "climatology"},
    folds=4, by=["group"], replicates=200,
)  # fmt: skip


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    frame = simulate.region(12, 3, 24, random_seed=4).frame.drop(columns="truth")
    frame.assign(far=frame["sm"] + 3.0).to_csv(folder / "t.csv", index=False)
    done, page = run_quietly(folder, STUDY, drawn=("headline", "pit"))
    return done, folder / "out", page


# ---------------------------------------------------------------------------------------------------------- the first page
@pytest.mark.parametrize(("ends", "found"), [((0.80, 0.88), "too narrow"), ((0.93, 0.97), "wider than they need be"),
                                             ((0.88, 0.92), "can be trusted"), ((0.7, 0.95), "do not tell apart")])  # fmt: skip
@pytest.mark.parametrize(("asked", "stations", "move"), [
    (True, 12, "; the chapter Recalibration has"), (False, 12, "; add [recalibration] to the study file"), (False, 2, "."),
])  # fmt: skip
def test_intervals_that_do_not_hold_have_a_next_move_where_the_table_allows_one(ends, found, asked, stations, move):
    pooled = pd.DataFrame({"coverage90": [0.9], "coverage90_low": ends[0], "coverage90_high": ends[1], "n": 500},
                          index=pd.Index(["BMA"], name="model"))  # fmt: skip
    frame = simulate.region(12, 3, 24, random_seed=4).frame
    rows = frame[frame["station"].isin(frame["station"].unique()[:stations])]
    ensemble = be.Ensemble.from_frame(rows, members=["rf", "mlr"], observation="sm", site="station")
    results = SimpleNamespace(
        headline="BMA", recalibrated={"site": None} if asked else {}, ensemble=ensemble, estimand="site"
    )
    said = page._trust(results, pooled)
    assert said.endswith(".")
    assert found + (move if ends[1] < 0.9 or ends[0] > 0.9 else "") in said
    if move == "." or ends == (0.88, 0.92):
        assert "ecalibration" not in said


def test_the_first_page_answers_in_words_a_figure_a_table_and_what_is_not_told_apart(study):
    done, _, text = study
    head, _, rest = text.partition("<main")
    order = [
        head.index(mark)
        for mark in ("Best member.", "Combining.", "Which model.", "Intervals.", "Figure 1.", "Table 1.")
    ]
    assert order == sorted(order)
    assert len(done.findings) == 4
    assert re.match(
        r"The best single member, bias-corrected, is (rf|mlr|xgb)\b.* CRPS \(continuous ranked", done.findings[0]
    )
    assert "BMA (Bayesian model averaging)" in done.findings[1]
    table = head.partition("Table 1.")[2].partition("</table>")[0]
    assert table.count("<tr>") == 4  # three rows and the headings
    assert re.search(r"Not told apart from BMA|Every model is told apart from BMA", head)
    assert "Random seed" not in head
    assert rest.index("Glossary") < rest.index("Random seed")


def test_findings_are_one_sentence(study):
    done, _, text = study
    notes = re.findall(r'class="note finding".*?</b>(.*?)</p>', text, re.DOTALL)
    assert len(notes) >= 3
    for said in [*done.findings, *(re.sub("<[^>]+>", "", note).strip() for note in notes)]:
        assert said.endswith(".")
        assert not re.search(r"[a-z0-9%)]{2}\. [A-Z]", said), said


@given(st.text(alphabet="ab.% ", max_size=20))
def test_a_finding_loses_no_word(text):
    parts = finding(f"It holds {text} % here. {text}The rest.")
    assert isinstance(parts[0], Note)
    assert " ".join([parts[0].text, *parts[1:]]) == f"It holds {text} % here. {text}The rest."


def results():
    """As much of a study as sentences on differences need."""
    return SimpleNamespace(
        headline="BMA", reference="BMA", estimand="site", models={"BMA": be.BMA()}, combining=["BMA"], of_kind=lambda _: [],
        study=SimpleNamespace(methods={"BMA": "auto", "Best member": "auto"}), held={"site": SimpleNamespace(rows=None)},
    )  # fmt: skip


@given(st.floats(-20, 20), st.floats(0, 10), st.floats(0, 10))
def test_combining_helps_only_where_the_interval_leaves_out_zero(value, below, above):
    low, high = value - below, value + above
    line = {"model": "BMA", "reference": "Best member", "estimand": "site", "difference": value, "low": low, "high": high,
            "clear": bool(low > 0 or high < 0), "not_converged": "none", "interval": "bootstrap over 30 stations"}  # fmt: skip
    gains = pd.DataFrame([line]).set_index("model", drop=False)
    text = page._gain(results(), gains)
    small = low > -1 and high < 1
    assert ("lowers" in text) == (high < 0 and not small)
    assert ("raises" in text) == (low > 0 and not small)
    assert ("nothing for practical purposes" in text) == small
    assert ("do not tell whether it helps" in text) == (low <= 0 <= high and not small)


def test_climatology_and_far_products_do_not_flatten_the_figure(study):
    _, folder, text = study
    caption = re.search(r"<b>Figure 1\.</b>(.*?)</figcaption>", text, re.DOTALL)[1]
    assert re.search(r"Off the figure, .* Climatology \(\+\d+\.\d %\) and Far away \(\+\d+\.\d %\)", caption)
    svg = (folder / "figures" / "headline.svg").read_text(encoding="utf-8")
    assert "<!-- Best member -->" in svg
    assert "<!-- Climatology -->" not in svg
    assert "<!-- Far away -->" not in svg


# ------------------------------------------------------------------------------------------------------------- typography
@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (
            "changes by -3.8 % (90 % interval -9.7 to +2.1 %)",
            "changes by −3.8\xa0% (90\xa0% interval −9.7 to +2.1\xa0%)",
        ),
        ("from 2020-01-01 at site-3, band 15-85", "from 2020-01-01 at site-3, band 15-85"),
        ("1,680 of 21,884 rows, 0.0183 m³ m⁻³", "1680 of 21,884 rows, 0.0183\xa0m³ m⁻³"),
        ("soil_*temp* [cm]", r"soil_\*temp\* \[cm]"),
    ],
)
def test_numbers_have_one_typography(text, wanted):
    assert _text(text) == wanted


def test_no_share_stands_beside_percents(study):
    _, _, text = study
    tables = re.findall(r"<table.*?</table>", text, re.DOTALL)
    for table in tables:
        if "inside 90 %" in table or "inside intervals" in table:
            assert not re.search(r">0?\.[89]\d*\b", table.partition("mean width")[0])


def test_wide_tables_stand_in_the_appendix_and_are_linked_from_their_place(study):
    _, _, text = study
    before, _, appendix = text.partition('id="appendix"')
    assert re.search(r'<a href="#appendix-1">Table \d+</a> in the appendix: Correlation, RMSE and MAE', before)
    assert 'id="appendix-1"' in appendix
    assert "turned" not in re.sub(r"<style>.*?</style>", "", before, flags=re.DOTALL)


def test_the_glossary_has_the_words_of_the_report_and_no_others(study):
    _, _, text = study
    glossary = text.partition('id="glossary"')[2].partition("</ul>")[0]
    for term in ("CRPS:", "PIT:", "BMA:", "Climatology:"):
        assert f"<li>{term}" in glossary
    assert "<li>EMOS" not in glossary


# ----------------------------------------------------------------------------------------------------------------- priors
@pytest.mark.parametrize(
    ("model", "wanted"),
    [
        (be.BMA(), {"level", "gain", "site_ratio", "group_ratio", "scale_slope", "weight", "sigma"}),
        (be.BMA(correction="joint", site=False, group=False, scale=()), {"bias", "slope", "sigma", "weight"}),
        (be.BMA(bias="additive", scale=(), site=False, group=False), {"level", "sigma", "weight"}),
        (
            be.BMA(weights="group", scale=()),
            {"level", "gain", "site_ratio", "group_ratio", "sigma", "weight_logit", "weight_spread"},
        ),
        (be.EqualWeights(scale=(), site=False, group=False), {"level", "gain", "sigma"}),
        (be.Climatology(), {"mean", "sd"}),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_priors_are_those_of_parameters_that_the_model_has(model, wanted):
    frame = simulate.region(6, 2, 12, random_seed=1).frame.dropna()
    ensemble = be.Ensemble.from_frame(frame, members=["rf", "xgb"], observation="sm", site="station", group="network")
    method = (
        "laplace" if getattr(model, "weights", "") == "group" or getattr(model, "correction", "") == "joint" else "em"
    )
    fit = be.fit(model, ensemble, method=method, draws=50, random_seed=1, progressbar=False)
    one = SimpleNamespace(models={"M": model}, fits={"M": fit}, ensemble=ensemble)
    assert set(priors_table(one)["parameter"]) == wanted


def test_a_single_member_has_no_prior_of_weights_or_of_what_members_share():
    assert not has_part(be.BMA(), "weight", {"weight"}, 1)
    assert not has_part(be.HBM(), "common", set(), 1)
    assert not has_part(be.HBM(errors="independent"), "correlation", set(), 4)
    assert has_part(be.HBM(), "correlation", set(), 4)


# ---------------------------------------------------------------------------------------------------------------- figures
@pytest.mark.parametrize("days", [MOST - 1, 2000])
def test_a_long_series_is_drawn_where_it_has_most_observations(days):
    time = np.arange(np.datetime64("2016-01-01"), np.datetime64("2016-01-01") + np.timedelta64(days, "D"))
    y = np.where(np.arange(days) >= days - 400, 1.0, np.nan)
    frame = pd.DataFrame({"a": np.linspace(0, 1, days), "y": y, "s": "one", "t": time})
    ensemble = be.Ensemble.from_frame(frame, members=["a"], observation="y", site="s", time="t")
    one = SimpleNamespace(estimand="site", held={"site": SimpleNamespace(members=ensemble)})
    rows = _window(one, "one")
    if days < MOST:
        assert len(rows) == days
    else:
        assert len(rows) == WINDOW
        assert np.isfinite(y[rows]).all()


def test_a_long_series_of_single_seasons_is_drawn_for_one_year():
    days = pd.date_range("2003-07-01", periods=70).append(
        [pd.date_range(f"{y}-07-01", periods=120) for y in range(2004, 2010)]
    )
    frame = pd.DataFrame({"a": np.linspace(0, 1, len(days)), "y": 1.0, "s": "one", "t": days})
    ensemble = be.Ensemble.from_frame(frame, members=["a"], observation="y", site="s", time="t")
    one = SimpleNamespace(estimand="site", held={"site": SimpleNamespace(members=ensemble)})
    assert len(days) > MOST
    assert days[_window(one, "one")][[0, -1]].astype(str).tolist() == ["2004-07-01", "2004-10-28"]


def test_labels_of_pit_panels_do_not_meet(study):
    _, folder, _ = study
    svg = (folder / "figures" / "pit.svg").read_text(encoding="utf-8")
    names = re.findall(r"<!-- ([^>]+) -->", svg)
    assert names.count("0.5") == 3  # one a column, below the last panel of each
    assert names.count("PIT") == 1


def test_a_gap_in_coverage_of_two_points_is_to_be_seen():
    ax = plots.coverage([0.5, 0.9], {"BMA": [0.52, 0.88]}, difference=True)
    low, high = ax.get_ylim()
    assert 2 / (high - low) > 0.1


# Effects of sites


def effects_told(held=("time",), **models):
    given = {"Equal weights": be.EqualWeights(site=False), "Climatology": be.Climatology(), **models}
    study = SimpleNamespace(data=SimpleNamespace(site="station"))
    return _unequal_effects(SimpleNamespace(study=study, held=dict.fromkeys(held), models=given))


def test_models_that_have_all_effects_of_the_table_are_compared_without_a_word():
    assert effects_told(BMA=be.BMA(), HBM=be.HBM()) == ""
    assert effects_told(BMA=be.BMA(site=False), HBM=be.HBM(site=False)) == ""
    assert effects_told(held=("site",), BMA=be.BMA(site=False), HBM=be.HBM()) == ""


def test_models_without_effects_beside_others_with_them_are_named():
    told = effects_told(BMA=be.BMA(site=False), HBM=be.HBM())
    assert told.startswith("Effects of each site are in 'HBM' and not in 'BMA': what they differ by at known sites is ")
    assert told.endswith("Give 'BMA' the same effects (site = true) before comparing them.")
    told = effects_told(BMA=be.BMA(), EMOS=be.EMOS())  # which has no such option
    assert "are in 'BMA' and not in 'EMOS'" in told
    assert "Give" not in told
