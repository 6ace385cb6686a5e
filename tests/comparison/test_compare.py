"""Models on rows held out: against the same chain by hand, and what must not reach the rows that are scored."""

import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from sklearn.linear_model import LinearRegression
from sklearn.neighbors import KNeighborsRegressor

import bayesens as be
from bayesens.comparison.compare import compare, held_out
from bayesens.comparison.folds.runs import OnMembers
from bayesens.comparison.steps import Steps
from bayesens.comparison.tables import score_table
from bayesens.ensemble.files import write_table
from simulated import gappy_region

COLUMNS = {"members": ["rf", "mlr", "svr", "xgb"], "observation": "sm", "site": "station", "group": "network",
           "time": "date", "units": "m3 m-3"}  # fmt: skip
MODELS = {"BMA": be.BMA(sigma="shared"), "Equal": be.EqualWeights()}
QUICK = {"method": "em", "random_seed": 1, "progressbar": False}


@pytest.fixture(scope="module")
def frame():
    return gappy_region(12, 3, 20)


@pytest.fixture(scope="module")
def ensemble(frame):
    return be.Ensemble.from_frame(frame, **COLUMNS)


@pytest.fixture(scope="module")
def members(frame):
    X = frame.assign(wet=frame["truth"].round(1), noise=np.random.default_rng(1).normal(size=len(frame)))
    estimators = {"mlr": LinearRegression(), "memory": KNeighborsRegressor(1)}
    return be.Members(estimators, X[["wet", "noise"]], frame["sm"], site=frame["station"], group=frame["network"],
                      time=frame["date"])  # fmt: skip


@pytest.mark.filterwarnings("ignore:.* that the fit has not seen")
def test_equals_the_chain_by_hand(ensemble):
    rows = compare(MODELS, ensemble, estimand="site", folds=3, **QUICK)
    fold = np.full(ensemble.n_obs, -1)
    fold[rows["obs"].values] = rows["fold"].values
    for k in range(3):
        stations = set(rows["site"].values[rows["fold"].values == k])
        held = np.isin(ensemble.labels("site"), list(stations))
        for name, model in MODELS.items():
            tree = be.fit(model, ensemble.select(rows=~held), method="em", random_seed=1)
            by_hand = be.score(tree, ensemble.select(rows=held))
            mine = rows.sel(model=name).isel(obs=rows["fold"].values == k)
            np.testing.assert_allclose(mine["crps"].values, by_hand["crps"].values, rtol=1e-6)
            np.testing.assert_allclose(mine["log_score"].values, by_hand["log_score"].values, rtol=1e-6)


def test_rows_are_those_that_were_observed_with_all_that_tables_need(ensemble):
    found = held_out(MODELS, ensemble, estimand="time", folds=3, below=np.full(len(ensemble), 0.2),
                     products={"RF": ensemble.prediction[:, 0]}, labels={"half": np.arange(len(ensemble)) % 2},
                     **QUICK)  # fmt: skip
    rows = found.rows
    assert (rows["obs"].values == np.flatnonzero(ensemble.observed)).all()
    assert set(found.predictions) == {*MODELS, "RF, corrected"}
    assert found.predictions["BMA"].sizes["obs"] == ensemble.n_obs
    assert found.predictions["BMA"]["mean"].notnull().all()
    np.testing.assert_array_equal(rows["member_prediction"].values, ensemble.prediction[ensemble.observed])
    np.testing.assert_allclose(
        rows["coverage90"].values[:2], rows["covered"].sel(level=0.9, model=list(MODELS)).values, rtol=0
    )
    below = rows["probability_below"].sel(model="BMA").values
    inside = rows["quantile_value"].sel(model="BMA", quantile=0.5).values < 0.2
    assert (below[inside] > 0.5).all()
    assert (below[~inside] <= 0.5).all()
    table = score_table(rows, by=["group", "half"])
    assert set(table["model"]) == {"BMA", "Equal", "RF", "RF, corrected"}
    error = np.abs(rows["prediction"].sel(model="RF").values - rows["observation"].values)
    low, high = rows["twcrps"].attrs["lower"], rows["twcrps"].attrs["upper"]
    clipped = np.abs(
        np.clip(rows["prediction"].sel(model="RF").values, low, high) - np.clip(rows["observation"].values, low, high)
    )
    np.testing.assert_allclose(rows["crps"].sel(model="RF").values, error)
    np.testing.assert_allclose(rows["twcrps"].sel(model="RF").values, clipped, atol=1e-12)


@pytest.mark.parametrize("estimand", ["time", "site", "site-time", "group"])
def test_what_is_observed_in_a_fold_changes_nothing_there(frame, estimand):
    """Another truth in the rows held out leaves every prediction of them as it was, members and all."""
    X = frame.assign(wet=frame["truth"].round(1))[["wet"]]
    place = {"site": frame["station"], "group": frame["network"], "time": frame["date"]}
    options = QUICK | {"estimand": estimand, "folds": 3}

    def predictions(y):
        return held_out(
            {"BMA": be.BMA(sigma="shared")}, be.Members({"mlr": LinearRegression()}, X, y, **place), **options
        )

    before = predictions(frame["sm"])
    fold = before.members.dataset["fold"].values
    changed = np.where(fold == 1, 1.0 - frame["sm"], frame["sm"])
    after = predictions(changed)
    same = fold == 1
    np.testing.assert_array_equal(after.members.dataset["fold"].values, fold)
    np.testing.assert_array_equal(after.members.prediction[same], before.members.prediction[same])
    np.testing.assert_array_equal(
        after.predictions["BMA"]["mean"].values[same], before.predictions["BMA"]["mean"].values[same]
    )
    assert (after.members.prediction[~same] != before.members.prediction[~same]).any()


def test_cross_fitted_and_in_sample_ensembles_are_refused(members):
    for made, word in ((be.cross_fit(members, folds=3, progressbar=False), "cross-fitted"),
                       (members.insample(progressbar=False), "in-sample")):  # fmt: skip
        with pytest.raises(ValueError, match=f"are {word}: they have learnt from rows .* be.Members"):
            compare(MODELS, made, estimand="site", **QUICK)


@pytest.mark.slow
def test_a_run_goes_on_from_what_is_kept(members, tmp_path, monkeypatch):
    from bayesens.comparison.folds import runs as module

    options = QUICK | {"estimand": "site", "folds": 3, "cache": tmp_path}
    fitted, fit = [], module.fit

    def counted(model, *args, **kwargs):
        fitted.append(type(model).__name__)
        if len(fitted) == 4:
            raise KeyboardInterrupt
        return fit(model, *args, **kwargs)

    monkeypatch.setattr(module, "fit", counted)
    with pytest.raises(KeyboardInterrupt):
        compare(MODELS, members, **options)
    kept = sorted(path.name[:-20] for path in tmp_path.iterdir())
    assert kept == sorted([
        "site-1-bma", "site-1-equal", "site-2-bma", *(f"site-{k}-members-{half}" for k in (1, 2) for half in ("train", "test")),
    ])  # fmt: skip
    resumed = compare(MODELS, members, **options)
    assert len(fitted) == 4 + 3
    fresh = compare(MODELS, members, **(options | {"cache": None}))
    xr.testing.assert_identical(resumed.drop_attrs(), fresh.drop_attrs())
    compare({"BMA": be.BMA()}, members, **options)
    assert fitted[-3:] == ["BMA"] * 3
    assert len(list(tmp_path.glob("site-1-bma-*"))) == 1  # another option takes the place of the former result


@pytest.mark.filterwarnings("ignore:Best failed and is left out")
def test_a_model_that_fails_is_reported_and_the_others_go_on(ensemble):
    models = MODELS | {"Best": be.SingleMember(member="cci")}
    with pytest.warns(UserWarning, match="Best failed and is left out: fold 1 of 3: .*cci"):
        rows = compare(models, ensemble, estimand="site", folds=3, **QUICK)
    assert rows["model"].values.tolist() == ["BMA", "Equal"]
    assert list(json.loads(rows.attrs["failed"])) == ["Best"]
    with pytest.raises(ValueError, match="no model could be fitted; Best: fold 1 of 3"):
        compare({"Best": be.SingleMember(member="cci")}, ensemble, estimand="site", folds=3, **QUICK)


def test_results_can_be_written(ensemble, tmp_path):
    rows = compare(MODELS, ensemble, estimand="group", **QUICK)
    write_table(rows, tmp_path / "rows.nc")
    again = xr.load_dataset(tmp_path / "rows.nc", engine="h5netcdf")
    np.testing.assert_array_equal(again["crps"].values, rows["crps"].values)


def test_a_damaged_file_is_made_anew(tmp_path):
    made = []

    def make():
        made.append(1)
        return xr.Dataset({"mean": ("obs", [1.0])})

    steps = Steps(tmp_path)
    steps.dataset("one", {}, make)
    next(tmp_path.iterdir()).write_bytes(b"half a fi")
    assert steps.dataset("one", {}, make)["mean"].values.tolist() == [1.0]
    assert len(made) == 2
    Steps(tmp_path, "other").dataset("one", {}, make)
    assert len(made) == 3


def test_the_digest_of_members_is_that_of_their_contents(frame, members):
    def made(**change):
        options = {"site": frame["station"], "group": frame["network"], "time": frame["date"]} | change
        X = pd.DataFrame({"wet": frame["truth"].round(1)})
        return be.Members({"mlr": LinearRegression()}, X, frame["sm"], **options).digest

    assert made() == made()
    assert len({made(), made(site=frame["station"] + "x"), made(min_rows=7), members.digest}) == 4


@pytest.mark.slow  # each process imports everything
def test_several_processes_give_the_same(members, ensemble, tmp_path):
    models = {"BMA": be.BMA(sigma="shared"), "Best": be.SingleMember(member="cci"), "Pool": be.LinearPool()}
    options = {"estimand": "site", "folds": 3, "random_seed": 1, "progressbar": False, "draws": 200}
    for data in (ensemble, members):
        with pytest.warns(UserWarning, match="Best failed and is left out: fold 1 of 3"):
            one = compare(models, data, **options)
        with pytest.warns(UserWarning, match="Best failed and is left out: fold 1 of 3"):
            two = compare(models, data, workers=2, cache=tmp_path, **options)
        xr.testing.assert_identical(one, two)


def test_folds_begin_where_the_first_one_ended(ensemble, monkeypatch):
    from bayesens.comparison.folds import runs as module

    warm, fit = [], module.fit

    def seen(*args, **kwargs):
        tree = fit(*args, **kwargs)
        warm.append((kwargs["warm"], json.loads(tree.attrs["optimum"])))
        return tree

    monkeypatch.setattr(module, "fit", seen)
    options = {"estimand": "site", "folds": 3, "random_seed": 1, "progressbar": False, "draws": 100}
    compare({"Pool": be.LinearPool()}, ensemble, **options)
    (first, optimum), *others = warm
    assert first is None
    assert [begun for begun, _ in others] == [optimum, optimum]


def test_a_model_on_some_members_is_that_of_an_ensemble_with_these(ensemble):
    options = QUICK | {"estimand": "site", "folds": 3}
    model, some = be.BMA(sigma="shared"), ["xgb", "rf"]
    mine = compare({"some": OnMembers(model, some)}, ensemble, **options)
    wanted = compare({"some": model}, ensemble.select(members=some), **options)
    np.testing.assert_array_equal(mine["crps"].values, wanted["crps"].values)
    with pytest.raises(KeyError, match=r"no member 'rg' in the ensemble .*did you mean 'rf'"):
        compare({"some": OnMembers(model, ("rg",))}, ensemble, **options)
    with pytest.raises(ValueError, match="workers is the number of processes, 1 for this one alone; got 0"):
        compare({"some": model}, ensemble, workers=0, **options)


def test_comparisons_of_several_names_share_a_cache(ensemble, tmp_path):
    options = QUICK | {"estimand": "site", "folds": 3, "cache": tmp_path}
    compare({"BMA": be.BMA(sigma="shared")}, ensemble, **options)
    before = sorted(tmp_path.iterdir())
    compare({"BMA": be.BMA(sigma="shared", bias="none")}, ensemble, part="the ladder", **options)
    assert set(before) < set(tmp_path.iterdir())
    assert len(list(tmp_path.glob("the_ladder-site-*-bma-*"))) == 3


def test_a_power_of_the_likelihood_reaches_the_fits(ensemble):
    options = {"estimand": "site", "folds": 3, "random_seed": 1, "progressbar": False, "draws": 200}
    model = {"Pool": be.LinearPool(correction="joint")}
    plain, weak = (compare(model, ensemble, likelihood_power=power, **options) for power in (1.0, 0.02))
    fold = weak["fold"].values == 0
    held = np.isin(np.arange(len(ensemble)), weak["obs"].values[fold])
    train = ensemble.select(rows=~np.isin(ensemble.labels("site"), ensemble.labels("site")[held]))
    tree = be.fit(model["Pool"], train, likelihood_power=0.02, random_seed=1, progressbar=False)
    by_hand = be.score(tree, ensemble.select(rows=held))
    assert float(weak["width90"][0, fold].mean()) == pytest.approx(
        float(be.score(tree, ensemble.select(rows=held), levels=[0.9])["width"].mean()), rel=0.03
    )
    assert float(weak["crps"][0, fold].mean()) == pytest.approx(float(by_hand["crps"].mean()), rel=0.03)
    assert float(weak["width90"].mean()) > 1.02 * float(plain["width90"].mean())


@pytest.mark.slow
@pytest.mark.parametrize(
    "model", [be.EMOS(), be.EMOS(scale=()), be.HBM(), be.BMA(site=False)], ids=lambda m: repr(m)[:14]
)
def test_rows_without_an_observation_are_predicted_beside_those_that_are_scored(model):
    frame = be.simulate.region(8, 2, 20, random_seed=5).frame
    some = frame["sm"].where(np.arange(len(frame)) % 7 > 0)
    options = {"observation": "sm", "site": "station", "time": "date"}
    gaps, whole = (be.Ensemble.from_frame(one, members=["rf", "mlr", "xgb"], **options) for one in
                   (frame.assign(sm=some), frame[some.notna()]))  # fmt: skip
    rows = [be.compare({"model": model}, table, estimand="site", folds=2, method="em" if model.baseline else "auto",
                       random_seed=1, draws=200, progressbar=False) for table in (gaps, whole)]  # fmt: skip
    np.testing.assert_allclose(rows[0]["crps"].mean(), rows[1]["crps"].mean(), rtol=0.02)
