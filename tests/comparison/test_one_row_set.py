"""One method and one set of rows for all models: baselines decide neither, and every chapter states the same numbers."""

import re
from importlib.resources import files

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import bayesens as be
from bayesens import simulate
from bayesens.app.study.data import study_models
from bayesens.app.study.file import study_from_text
from bayesens.app.study.template import study_template
from bayesens.comparison.common_rows import SEASONS, in_season_order
from bayesens.comparison.compare import held_out
from studies import run_quietly, study_text

# Some warn of rows left out where that is what is looked at.
pytestmark = pytest.mark.filterwarnings("ignore:.*observed rows are left out for all")

COLUMNS = {"members": ["rf", "mlr", "xgb"], "observation": "sm", "site": "station", "group": "network", "time": "date"}
QUICK = {"estimand": "site", "folds": 3, "method": "em", "random_seed": 1, "progressbar": False}
MODELS = {"BMA": be.BMA(), "Best": be.SingleMember(), "Climatology": be.Climatology()}


def gappy(kind):
    """A table whose members have gaps: here and there, at whole stations, or with rows that no member has."""
    frame = simulate.region(9, 3, 16, random_seed=1).frame.drop(columns="truth")
    rng = np.random.default_rng(1)
    if kind == "here and there":
        frame.loc[rng.random(len(frame)) < 0.3, "xgb"] = np.nan
        frame.loc[rng.random(len(frame)) < 0.1, "rf"] = np.nan
    elif kind == "whole stations":
        frame.loc[frame["station"].isin(["s01", "s02", "s03", "s04"]), "xgb"] = np.nan
        frame.loc[frame["station"].isin(["s01", "s02"]), "rf"] = np.nan
    else:
        frame.loc[rng.random(len(frame)) < 0.3, "xgb"] = np.nan
        frame.loc[3:9, ["rf", "mlr", "xgb"]] = np.nan
        frame.loc[::11, "sm"] = np.nan
    return frame


def with_a_member(frame):
    return int((frame["sm"].notna() & frame[COLUMNS["members"]].notna().any(axis=1)).sum())


# ------------------------------------------------------------------------------------------------------------- one method
def test_the_template_and_the_demos_fit_all_models_by_one_method():
    frame = simulate.region(4, 2, 6, random_seed=1).frame.drop(columns="truth")
    texts = [study_template(frame, "t.csv")]
    texts += [
        files("bayesens.app").joinpath(f"demo_{name}.toml").read_text(encoding="utf-8") for name in ("region", "oznet")
    ]
    for text in texts:
        study = study_from_text(text)
        assert {"SingleMember", "EqualWeights", "Climatology"} <= {
            type(one).__name__ for one in study_models(study).values()
        }
        assert set(study.methods.values()) == {"auto"}


def test_a_method_of_the_evaluation_is_that_of_all_models_and_one_of_a_model_its_own():
    text = '[data]\ntable="t.csv"\nobservation="y"\nsite="s"\n[members]\ncolumns=["a"]\n[evaluation]\nmethod = "nuts"\n'
    text += '[models.A]\nmodel="bma"\n[models.B]\nmodel="equal"\nmethod="em"\n'
    assert study_from_text(text).methods == {"A": "nuts", "B": "em"}


# ----------------------------------------------------------------------------------------------------------- one row set
@pytest.mark.parametrize("kind", ["here and there", "whole stations", "no member"])
def test_the_best_member_takes_no_row_from_the_others(kind):
    frame = gappy(kind)
    ensemble = be.Ensemble.from_frame(frame, **COLUMNS)
    rows = be.compare(MODELS, ensemble, **QUICK)
    assert rows.sizes["obs"] == with_a_member(frame)
    assert rows.attrs["rows_dropped"] == frame["sm"].notna().sum() - with_a_member(frame)


def test_where_the_best_member_is_missing_the_best_of_the_others_predicts():
    frame = gappy("here and there")
    ensemble = be.Ensemble.from_frame(frame, **COLUMNS)
    held = held_out(MODELS, ensemble, **QUICK)
    one = held.predictions["Best"]
    fold = held.members.dataset["fold"].values
    for k in range(3):
        train, test = ensemble.select(rows=fold != k), ensemble.select(rows=fold == k)
        best = (
            be.fit(be.SingleMember(), train, method="em", random_seed=1)["posterior"].to_dataset()["member"].values[0]
        )
        rest = [name for name in COLUMNS["members"] if name != best]
        second = be.fit(be.SingleMember(), train.select(members=rest), method="em", random_seed=1)
        by_hand = be.predict(second, test.select(members=rest))["mean"].values
        used = one["used_member"].values[fold == k]
        missing = test.dataset["prediction"].sel(member=best).isnull().values
        assert missing.any()
        assert set(used[~missing]) == {best}
        assert not set(used[missing]) & {best}
        next_one = second["posterior"].to_dataset()["member"].values[0]
        where = used == next_one
        np.testing.assert_allclose(one["mean"].values[fold == k][where], by_hand[where], rtol=1e-8)


@pytest.mark.slow
def test_a_member_that_is_named_and_a_product_with_gaps_are_set_apart():
    frame = gappy("here and there")
    ensemble = be.Ensemble.from_frame(frame, **COLUMNS)
    models = MODELS | {"Named": be.SingleMember(member="xgb")}
    product = frame["svr"].where(np.arange(len(frame)) % 4 > 0)
    held = held_out(
        models, ensemble, apart=True, products={"Coarse": product, "Whole": frame["svr"].fillna(0.2)}, **QUICK
    )
    assert held.rows.sizes["obs"] == with_a_member(frame)
    assert held.rows["model"].values.tolist() == ["BMA", "Best", "Climatology", "Whole, corrected", "Whole"]
    assert {name: rows.sizes["obs"] for name, rows in held.apart.items()} == {
        "Named": int(frame["xgb"].notna().sum()), "Coarse, corrected": int(product.notna().sum()),
        "Coarse": int(product.notna().sum()),
    }  # fmt: skip
    pair = held.apart["Coarse"].sel(model="BMA")
    np.testing.assert_array_equal(pair["crps"], held.rows["crps"].sel(model="BMA").sel(obs=pair["obs"]))
    with pytest.warns(UserWarning, match="observed rows are left out for all"):  # compare keeps saying what it drops
        be.compare(models, ensemble, products={"Coarse": product}, **QUICK)


STUDY = study_text(
    products={"Coarse input": "svr"},
    models={"BMA": "bma", "Equal weights": "equal", "Best member": "single", "Climatology": "climatology"},
    folds=3,
    by=["season", "group"],
    replicates=100,
)
PRODUCT = ["Coarse input", "Coarse input, corrected"]  # which lack rows and stand apart


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gaps")
    frame = gappy("no member")
    days = pd.to_datetime(frame["date"])
    frame["date"] = days + pd.to_timedelta(90 * (np.arange(len(frame)) % 4), unit="D")
    frame["svr"] = frame["svr"].where(np.arange(len(frame)) % 5 > 0)
    frame.to_csv(folder / "t.csv", index=False)
    return frame, folder / "out", *run_quietly(folder, STUDY)


def read(folder, name):
    return pd.read_csv(folder / "tables" / f"{name}.csv")


def test_every_chapter_states_the_same_number_of_rows(whole):
    frame, folder, _, page = whole
    n = with_a_member(frame)
    assert n < frame["sm"].notna().sum() < len(frame)
    chapters = re.split(r"<h2 id=", page.partition("<main")[2])[1:]
    for title in ("Data", "The members", "Scores", "Calibration", "Coverage by predicted value"):
        text = next(part for part in chapters if title in part.partition("</h2>")[0])
        assert re.search(rf"\b{n} (observations at|of them are scored)", text), title
    scores = read(folder, "scores").query("group == 'all'").set_index("model")
    inside = scores.drop(PRODUCT)
    assert set(inside["n"]) == {n}
    both = frame["sm"].notna() & frame["svr"].notna() & frame[COLUMNS["members"]].notna().any(axis=1)
    assert (scores.loc[PRODUCT, "n"] == both.sum()).all()
    assert set(read(folder, "calibration")["n"]) == {n}
    fifths = read(folder, "coverage_by_predicted").query("by == 'predicted'")
    assert (fifths.groupby(["model", "level"])["n"].sum() == n).all()
    pairs = read(folder, "differences").query("group == 'all' and metric == 'crps'").set_index("model")["n"]
    assert pairs.to_dict() == {name: int(both.sum()) if name in PRODUCT else n for name in pairs.index}


def test_coverage_is_the_same_wherever_it_is_given(whole):
    _, folder, done, page = whole
    scores = read(folder, "scores").query("group == 'all'").set_index("model")["coverage90"].drop(PRODUCT)
    levels = read(folder, "calibration").query("level == 0.9").set_index("model")["coverage"]
    np.testing.assert_allclose(levels[scores.index], scores)
    text = f"The 90 % intervals of BMA hold {100 * scores['BMA']:.1f} % of"
    assert page.count(text) == 2  # on the first page, and in the chapter on calibration
    assert any(one.startswith(text) for one in done.findings)


def test_seasons_stand_in_the_order_of_the_year(whole):
    _, folder, _, page = whole
    groups = read(folder, "scores").query("model == 'BMA' and by == 'season'")["group"].tolist()
    assert groups == ["DJF", "MAM", "JJA", "SON", "macro"]
    table = page.partition("Mean CRPS by season")[2].partition("</table>")[0]
    assert re.findall(r">(DJF|MAM|JJA|SON)<", table) == ["DJF", "MAM", "JJA", "SON"]


@given(st.permutations(list(SEASONS)), st.integers(0, 4))
def test_any_order_of_seasons_becomes_that_of_the_year(names, n):
    assert in_season_order(names[:n]) == [name for name in SEASONS if name in names[:n]]
    assert in_season_order([*names[:n], "net"]) == sorted([*names[:n], "net"])


@pytest.mark.slow
def test_a_best_member_by_em_beside_a_posterior_is_said_wherever_the_two_are_compared(tmp_path):
    gappy("here and there").to_csv(tmp_path / "t.csv", index=False)
    text = STUDY.replace('method = "em"\n', "draws = 100\n").replace(
        'model = "single"', 'model = "single"\nmethod = "em"'
    )
    text = text.replace('[models."Equal weights"]\nmodel = "equal"\n\n', "")
    done, page = run_quietly(tmp_path, text)
    clause = "Best member was fitted by EM and BMA by its posterior, which may be the difference"
    assert clause in done.findings[1]
    assert page.count(clause) == 2  # on the first page and among the scores
    assert "a difference between the two kinds is one of the method, too" in page


def test_em_is_a_rung_of_its_own_where_it_is_asked_for():
    frame = pd.DataFrame({"a": [1.0, 2.0, 4.0], "b": [1.5, 2.5, 3.0], "y": [1.5, 2.0, 3.0], "site": ["s", "t", "u"]})
    ensemble = be.Ensemble.from_frame(frame, members=["a"], observation="y", site="site")
    rows = be.common_rows({}, ensemble, estimand="site", products={"BMA": frame["a"], "BMA by EM": frame["b"]})
    line = be.ladder_effects(rows, replicates=10).iloc[0]
    assert (line["effect"], line["before"], line["after"]) == ("method", "BMA", "BMA by EM")
    assert "BMA by EM" not in be.ladder()
    text = STUDY + "[ladder]\nem = true\n"
    assert study_from_text(text).ladder.em
    assert not study_from_text(text.replace("em = true\n", "")).ladder.em
