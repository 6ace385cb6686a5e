"""The ladder: one change a rung, and effects that are the paired differences of their rungs."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import bayesens as be
from bayesens import plots
from bayesens.comparison.ladder import EFFECTS, ladder, ladder_effects, ladder_words


def rows(rungs, stations=24, days=40):
    rng = np.random.default_rng(3)
    n = stations * days
    y = rng.normal(size=n)
    frame = pd.DataFrame({"y": y, "a": y, "station": np.repeat(np.arange(stations), days).astype(str)})
    ensemble = be.Ensemble.from_frame(frame, members=["a"], observation="y", site="station")
    noise = rng.normal(size=n)
    products = {name: y + spread * noise * rng.choice([0.8, 1.2], size=n) for name, spread in rungs.items()}
    return be.common_rows({}, ensemble, estimand="site", products=products)


@pytest.mark.parametrize(("one", "other", "changed"), [
    ("BMA without effects", "BMA", {"group", "site"}),
    ("BMA", "BMA with own sigmas", {"sigma"}),
    ("BMA", "BMA with widths", {"scale"}),
    ("Equal weights", "BMA", {"weights"}),
    ("HBM without levels", "HBM independent", {"group", "site"}),
    ("HBM independent", "HBM", {"errors"}),
    ("BMA", "BMA with group weights", {"weights"}),
    ("BMA", "BMA with weights by covariates", {"weights", "weight_covariates"}),
    ("HBM", "HBM on whole series", {"series"}),
])  # fmt: skip
def test_rungs_of_one_family_differ_in_what_the_effect_names(one, other, changed):
    rungs = ladder(weight_covariates=["dem", "season"])
    before, after = (dataclasses.asdict(rungs[name]) for name in (one, other))
    assert {key for key in before if before[key] != after[key]} == changed


def test_the_linear_pool_differs_from_bma_in_the_mixture_and_from_hbm_in_no_level():
    """Options that both have are alike, but for the weights, which are of other kinds."""
    rungs = ladder()
    pool, bma, hbm = (dataclasses.asdict(rungs[name]) for name in ("Linear pool", "BMA", "HBM independent"))
    assert {key for key in pool.keys() & bma.keys() if pool[key] != bma[key]} == {"weights"}
    assert all(pool[level] == hbm[level] for level in ("group", "site"))
    assert ("Linear pool", "HBM independent") in [(one, other) for _, one, other, _ in EFFECTS]


def test_rungs_without_labels_have_no_effects_of_them():
    rungs = ladder(group=False, site=False)
    assert not any(getattr(rungs[name], level) for name in ("BMA", "HBM") for level in ("group", "site"))
    assert {"BMA with group weights", "HBM on whole series"}.isdisjoint(rungs)
    every = ladder(members=["rf", "neighbours"], weight_covariates=["dem"])
    assert {name for _, one, other, _ in EFFECTS for name in (one, other)} == set(every)
    assert {model.transform for name, model in ladder(transform="sqrt").items() if name != "Isotonic regression"} == {
        "sqrt"
    }


def test_rungs_of_the_day_are_told_of_it_and_no_others_are():
    rungs, plain = ladder(members=["rf", "mlr", "neighbours"]), ladder()
    assert list(rungs)[: len(plain)] == list(plain)
    assert all(rungs[name] == be.OnMembers(model, ("rf", "mlr")) for name, model in plain.items())
    assert rungs["BMA of the day"] == plain["BMA"]
    assert rungs["HBM of the day"] == plain["HBM"]
    assert rungs["Neighbours alone"].members == ("neighbours",)
    assert ladder(members=["rf", "mlr"]) == plain
    with pytest.raises(ValueError, match="no other member"):
        ladder(members=["neighbours"])


@pytest.mark.slow
def test_weights_follow_covariates_where_they_are_named():
    """One member is good in half of the rows and the other one in the rest: a gain of about a sixth, eight standard errors."""
    rng = np.random.default_rng(5)
    y, half = rng.normal(size=800), np.tile([0.0, 1.0], 400)
    noise = rng.normal(size=(2, 800)) * np.where([half == 0.0, half == 1.0], 0.2, 1.5)
    frame = pd.DataFrame({"y": y, "a": y + noise[0], "b": y + noise[1], "half": half, "station": np.arange(800) % 24})
    names = {"members": ["a", "b"], "observation": "y", "site": "station"}
    rungs = ladder(group=False, site=False, weight_covariates=["half"])
    some = _, other = "BMA", "BMA with weights by covariates"
    options = {
        "estimand": "site",
        "folds": 2,
        "method": "laplace",
        "draws": 100,
        "random_seed": 1,
        "progressbar": False,
    }
    table = be.Ensemble.from_frame(frame, covariates=["half"], **names)
    rows = be.compare({name: rungs[name] for name in some}, table, **options)
    line = ladder_effects(rows, replicates=200, random_seed=1).iloc[0]
    assert line["effect"] == "weights by covariates"
    assert line["high"] < 0.0
    with (
        pytest.warns(UserWarning, match="failed and is left out"),
        pytest.raises(ValueError, match="asks for the column 'half', and the table has no covariates; name it"),
    ):
        be.compare({other: rungs[other]}, be.Ensemble.from_frame(frame, **names), **options)
    assert other not in ladder()
    assert other not in ladder(weight_covariates=[])
    with pytest.raises(TypeError, match=r"BMA\(weight_covariates=...\) is a sequence of names"):
        ladder(weight_covariates="half")


def test_rungs_of_the_day_are_climbed_and_their_effects_found():
    frame = be.simulate.region(9, 3, 12, random_seed=2).frame
    columns = {"site": "station", "time": "date", "lon": "lon", "lat": "lat"}
    frame = frame.drop(columns=["network", "truth", "svr", "xgb"])
    members = be.Members({}, frame, "sm", products=["rf", "mlr"], neighbours=True, **columns)
    rungs = ladder(group=False, site=False, members=members.names)
    some = ["BMA", "BMA of the day", "BMA of the day with widths", "Neighbours alone"]
    found = be.compare({name: rungs[name] for name in some}, members, estimand="site", folds=3, method="em", random_seed=1,
                       progressbar=False)  # fmt: skip
    assert found["crps"].notnull().all()
    effects = ladder_effects(found, replicates=50, random_seed=1)
    assert effects["effect"].tolist() == ["day", "widths by the day", "members"]


def test_effects_are_paired_differences_of_their_rungs():
    found = ladder_effects(rows({"Equal weights": 1.0, "BMA": 0.8, "HBM": 0.4, "BMA without effects": 0.8}), replicates=200,
                           random_seed=1).set_index("effect")  # fmt: skip
    assert list(found.index) == ["weights", "effects", "HBM or BMA"]
    assert found.loc["weights", "difference"] == pytest.approx(-20, abs=1.5)
    assert found.loc["HBM or BMA", "difference"] == pytest.approx(-50, abs=1.5)
    assert found.loc[["weights", "HBM or BMA"], "clear"].all()
    assert not found.loc["effects", "clear"]
    same = rows({"Equal weights": 1.0, "BMA": 0.8})
    wanted = be.paired_differences(same, "Equal weights", replicates=200, random_seed=3).set_index("metric").loc["rmse"]
    got = ladder_effects(same, metric="rmse", replicates=200, random_seed=3).iloc[0]
    assert_allclose([got["difference"], got["low"], got["high"]], [wanted["difference"], wanted["low"], wanted["high"]])


def test_rows_without_two_rungs_and_unknown_metrics_are_refused():
    with pytest.raises(KeyError, match="no rung 'BMA' in the rows"):
        ladder_effects(rows({"Equal weights": 1.0, "RF": 0.8}))
    with pytest.raises(KeyError, match=r"no metric 'crsp'.*did you mean 'crps'"):
        ladder_effects(rows({"Equal weights": 1.0, "BMA": 0.8}), metric="crsp", replicates=10)


def test_words_and_figure_say_what_the_intervals_allow():
    found = ladder_effects(
        rows({"Equal weights": 1.0, "BMA": 0.8, "HBM": 0.9, "BMA without effects": 0.8}), replicates=200, random_seed=1
    )
    text = ladder_words(found)
    assert text.startswith("With the same group and site effects, HBM against BMA: +1")
    assert "What helps, the largest first: weights (Equal weights to BMA, -" in text
    assert "What hurts, the largest first: HBM or BMA" in text
    assert text.endswith("Not told apart from no change, or of no importance: effects.")
    ax = plots.ladder({"site": found, "time": found})
    names = [label.get_text() for label in ax.get_yticklabels()]
    assert names[0] == "weights: Equal weights → BMA"
    drawn = np.concatenate([line.get_xdata() for line in ax.lines if line.get_marker() not in ("None", "x")])
    assert set(np.round(found["difference"], 6)) <= set(np.round(np.asarray(drawn, float), 6))
    with pytest.raises(KeyError, match="no column 'before'"):
        plots.ladder(found.drop(columns="before"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The fit has not converged", "ignore:.*that the fit has not seen")
def test_the_whole_ladder_is_climbed():
    """Every rung is fitted and scored on the same rows, and every effect is in the table."""
    frame = be.simulate.region(9, 3, 12, random_seed=2).frame
    ensemble = be.Ensemble.from_frame(
        frame, members=["rf", "mlr", "xgb"], observation="sm", site="station", group="network"
    )
    found = be.compare(ladder(), ensemble, estimand="site", folds=3, draws=100, random_seed=1, progressbar=False)
    assert found["model"].values.tolist() == list(ladder())
    assert found["crps"].notnull().all()
    effects = ladder_effects(found, replicates=50, random_seed=1)
    there = set(ladder())
    assert effects["effect"].tolist() == [effect for effect, one, other, _ in EFFECTS if {one, other} <= there]
