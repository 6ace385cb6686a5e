"""The expected error by dissimilarity: rising, that of scikit-learn, with bands of stations, and silent beyond what was seen."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LinearRegression

import bayesens as be
from bayesens.members.error_profile import error_profile
from shared_data import shared_data


def world(n_sites=30, each=40, seed=1, spread=0.0):
    """Errors whose mean size is 1 + 2 times the index; sites share a factor of their errors."""
    rng = np.random.default_rng(seed)
    site = np.repeat(np.arange(n_sites), each)
    index = rng.uniform(0, 1, n_sites * each)
    own = np.exp(spread * rng.normal(size=n_sites) - spread**2 / 2)[site]
    error = (1.0 + 2.0 * index) * own * rng.normal(size=len(index)) * np.sqrt(np.pi / 2)  # mean size of a normal is .80
    return error, index, site


# ------------------------------------------------------------------------------------------------------------- the profile
@pytest.mark.parametrize("measure", ["absolute", "squared", "crps"])
def test_it_is_the_isotonic_regression_of_the_means_of_bins(measure):
    error, index, _ = world()
    error = np.abs(error) if measure == "crps" else error
    profile = error_profile(error, index, measure=measure, bins=15, replicates=0)
    loss = error**2 if measure == "squared" else np.abs(error)
    order = np.argsort(index)
    x, y, w = (np.array([f(part) for part in np.array_split(order, 15)])
               for f in (lambda p: index[p].mean(), lambda p: loss[p].mean(), len))  # fmt: skip
    wanted = IsotonicRegression().fit(x, y, sample_weight=w).predict(x)
    root = np.sqrt if measure == "squared" else np.asarray
    assert np.allclose(profile.dissimilarity, x)
    assert np.allclose(profile.observed, root(y))
    assert np.allclose(profile.expected, root(wanted))
    assert (profile.rows, profile.sites, profile.highest) == (1200, 1200, index.max())


def test_what_falls_is_pooled_by_numbers_of_rows():
    """30 rows of error 3, then 10 of error 1 and 10 of error 4: the first 40 have a mean of 2.5."""
    error, index = np.repeat([3.0, -1.0, 4.0], [30, 10, 10]), np.repeat([0.1, 0.2, 0.3], [30, 10, 10])
    profile = error_profile(error, index, bins=5, replicates=0)
    assert profile.dissimilarity == pytest.approx([0.1, 0.2, 0.3])
    assert profile.observed == pytest.approx([3.0, 1.0, 4.0])
    assert profile.expected == pytest.approx([2.5, 2.5, 4.0])


def test_a_known_profile_is_found():
    """Errors of mean size 1 + 2 DI at 4,000 rows: bins of 200 rows have a standard error of .06 of theirs at most.

    Five of these are .3 of the size; that one of 20 bins is further off has a chance below 1e-4.
    """
    error, index, _ = world(100, 40)
    profile = error_profile(error, index, replicates=0)
    assert np.allclose(profile.expected, 1.0 + 2.0 * profile.dissimilarity, rtol=0.3)
    assert profile.rank_correlation > 0.1
    # Root mean squares are sqrt(pi / 2) of mean sizes.
    root = error_profile(error, index, measure="squared", replicates=0)
    assert np.allclose(root.expected, (1.0 + 2.0 * root.dissimilarity) * np.sqrt(np.pi / 2), rtol=0.35)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 200), st.integers(0, 1000), st.integers(1, 30), st.booleans())
def test_it_rises_and_does_not_depend_on_the_order_of_rows(n, seed, bins, ties):
    rng = np.random.default_rng(seed)
    error, index = rng.standard_t(3, n), rng.uniform(0, 1, n)
    index = index.round(1) if ties else index
    profile = error_profile(error, index, bins=bins, replicates=0)
    order = rng.permutation(n)
    again = error_profile(error[order], index[order], bins=bins, replicates=0)
    assert (np.diff(profile.expected) >= -1e-12).all()
    assert (np.diff(profile.dissimilarity) > 0).all()
    assert np.allclose(again.expected, profile.expected)
    assert profile.expected.min() >= np.abs(error).min() - 1e-12
    assert profile.expected.max() <= np.abs(error).max() + 1e-12
    found = profile.predict(np.sort(rng.uniform(0, 1.2, 30)))["expected_error"].values
    assert (np.diff(found[np.isfinite(found)]) >= -1e-12).all()


@pytest.mark.slow
def test_bands_hold_the_truth_as_often_as_they_say_and_need_the_stations():
    """60 worlds of 30 sites that share a factor of their errors (its logarithm has sd .5); nominal 90 %.

    At the middle bin bands of resampled stations held the truth in 84 % of 400 other worlds; fewer than 42 of 60 has a chance
    of .2 %. Bands of rows, the broken twin, held it in 60 %; more than 44 of 60 has a chance below 1 %.
    """
    held = {True: 0, False: 0}
    for seed in range(60):
        error, index, site = world(seed=seed, spread=0.5)
        for whole in held:
            profile = error_profile(error, index, site=site if whole else None, bins=8, replicates=60, random_seed=seed)
            truth = 1.0 + 2.0 * profile.dissimilarity[4]
            held[whole] += bool(profile.low[4] <= truth <= profile.high[4])
    assert held[True] >= 42
    assert held[False] <= 44


# ------------------------------------------------------------------------------------------------------------------ the map
def test_a_map_is_silent_beyond_the_rows_held_out_and_where_the_index_is_missing():
    error, index, site = world()
    profile = error_profile(error, index, site=site, replicates=50, random_seed=1)
    values = np.array([[0.0, 0.5, index.max()], [1.001 * index.max(), 2.0, np.nan]])
    grid = xr.DataArray(values, dims=("y", "x"), coords={"x": [1, 2, 3]})
    found = profile.predict(grid)
    assert found["expected_error"].dims == ("y", "x")
    assert np.isnan(found["expected_error"].values).tolist() == [[False] * 3, [True] * 3]
    assert found["beyond"].values[0].tolist() == [0, 0, 0]
    assert found["beyond"].values[1, :2].tolist() == [1, 1]
    assert np.isnan(found["beyond"].values[1, 2])
    assert found["share_beyond"].item() == pytest.approx(2 / 5)
    assert (found["low"] <= found["expected_error"]).values[0].all()
    assert (found["expected_error"] <= found["high"]).values[0].all()
    lazy = profile.predict(grid.chunk({"x": 2}).to_dataset(name="dissimilarity"))
    assert lazy["expected_error"].chunks is not None
    assert lazy.compute().equals(found)
    frame = pd.DataFrame({"dissimilarity": [0.5, 9.0]})
    assert np.isnan(profile.predict(frame)["expected_error"].values).tolist() == [False, True]
    again = error_profile(error, index, site=site, replicates=50, random_seed=1)
    assert (again.low == profile.low).all()


def test_rows_of_a_comparison_are_found_by_their_numbers():
    rng = np.random.default_rng(3)
    frame = pd.DataFrame({"site": np.repeat(list("abcdefgh"), 15), "sm": rng.normal(size=120)})
    frame = frame.assign(rf=frame.sm + rng.normal(size=120), mlr=frame.sm + rng.normal(size=120))
    frame.loc[::11, "sm"] = np.nan
    ensemble = be.Ensemble.from_frame(frame, members=["rf", "mlr"], observation="sm", site="site", units="m")
    rows = be.compare({"BMA": be.BMA(), "Equal": be.EqualWeights()}, ensemble, estimand="site", folds=4, method="em",
                      progressbar=False)  # fmt: skip
    index = pd.Series(rng.uniform(0, 1, 120))
    found = error_profile(rows, index, model="BMA", measure="crps", replicates=20, random_seed=1)
    one = rows.sel(model="BMA")
    wanted = error_profile(one["crps"].values, index.to_numpy()[rows["obs"].values], measure="crps", site=rows["site"].values,
                           replicates=20, random_seed=1)  # fmt: skip
    assert (found.expected == wanted.expected).all()
    assert (found.high == wanted.high).all()
    assert (found.units, found.sites) == ("m", 8)
    errors = (one["prediction"] - one["observation"]).values
    plain = error_profile(errors, index.to_numpy()[rows["obs"].values], replicates=0)
    assert (error_profile(rows, index, model="BMA", replicates=0).expected == plain.expected).all()
    with pytest.raises(
        ValueError, match="the rows hold the models 'BMA', 'Equal', and one has a profile; name it: model='BMA'"
    ):
        error_profile(rows, index)
    with pytest.raises(KeyError, match=r"no model 'bma' in the rows\. It has 'BMA', 'Equal'"):
        error_profile(rows, index, model="bma")
    with pytest.raises(ValueError, match="rows of a comparison are some of the table's, and their obs says which"):
        error_profile(rows, index.to_numpy(), model="BMA")


# ------------------------------------------------------------------------------------------- the index of rows held out
def test_the_index_of_rows_held_out_is_that_of_a_loop_over_pairs():
    rng = np.random.default_rng(2)
    site = np.repeat([f"s{i}" for i in range(12)], 5)
    at = np.repeat(rng.uniform(0, 10, (12, 2)), 5, axis=0)
    X = pd.DataFrame(rng.normal(size=(60, 3)), columns=list("abc"))
    X.loc[7, "b"] = np.nan
    fold = np.repeat(np.arange(12) % 3, 5)
    with pytest.warns(UserWarning, match="1 of 60 training rows have a missing covariate"):
        area = be.applicability.applicability(
            X, fold=fold, importance={"a": 2.0, "b": 1.0, "c": 0.5}, progressbar=False
        )
    points = (X[list("abc")].to_numpy() - area.center) * area.scale
    known = np.isfinite(points).all(axis=1)
    mean = cdist(points[known], points[known])[np.triu_indices(59, 1)].mean()
    for buffer in (None, 3.0):
        wanted = np.full(60, np.nan)
        for i in np.flatnonzero(known):
            fold_of = at[(fold == fold[i]) & known]
            train = [j for j in np.flatnonzero(known & (fold != fold[i]))
                     if buffer is None or np.hypot(*(at[j] - fold_of).T).min() >= buffer]  # fmt: skip
            wanted[i] = min(np.linalg.norm(points[i] - points[j]) for j in train) / mean
        places = {"x": at[:, 0], "y": at[:, 1]}
        more = {} if buffer is None else {"buffer": buffer, "site": site, "places": places}
        found = area.held_out(X, fold=fold, **more)
        assert np.allclose(found, wanted, equal_nan=True)
    assert np.allclose(area.held_out(X, fold=fold).dropna(), area.train_index)
    with pytest.raises(ValueError, match=r"buffer=3 lies around stations; wanted site=... and places=..."):
        area.held_out(X, fold=fold, buffer=3)
    with pytest.raises(ValueError, match="fold 1 of 3: buffer=99 leaves no observed row to learn from"):
        area.held_out(X, fold=fold, buffer=99, site=site, places=places)
    with pytest.raises(ValueError, match="the 59 complete rows lie in one fold or none"):
        area.held_out(X, fold=np.zeros(60))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"error": [1.0], "dissimilarity": [0.1, 0.2]}, r"error has shape \(1,\), dissimilarity \(2,\)"),
        ({"error": [np.nan], "dissimilarity": [0.1]}, "none of the 1 rows has both"),
        ({"error": [1.0, 1.0], "dissimilarity": [0.1, -0.2]}, "a dissimilarity index is -0.2; wanted 0 or more"),
        (
            {"error": [1.0, -1.0], "dissimilarity": [0.1, 0.2], "measure": "crps"},
            "a CRPS is -1; wanted 0 or more: did you give",
        ),
        (
            {"error": [1.0, 1.0], "dissimilarity": [0.1, 0.2], "site": ["a", "a"]},
            "there is one, 'a'; wanted two or more",
        ),
        ({"error": [1.0, 1.0], "dissimilarity": [0.1, 0.2], "bins": 0}, "bins is 0; wanted a whole number"),
    ],
)
def test_what_makes_no_profile_is_refused(options, text):
    with pytest.raises(ValueError, match=text):
        error_profile(**options)


def test_other_kinds_are_refused():
    with pytest.raises(KeyError, match="no measure 'rmse' in error profiles"):
        error_profile([1.0], [0.1], measure="rmse")
    with pytest.raises(TypeError, match=r"model='BMA' goes with the rows of be.compare"):
        error_profile([1.0], [0.1], model="BMA")
    with pytest.raises(TypeError, match=r"error is a Dataset with 'a'; wanted the rows of be\.compare"):
        error_profile(xr.Dataset({"a": 1.0}), [0.1])
    profile = error_profile([1.0, 2.0], [0.1, 0.2], replicates=0)
    with pytest.raises(TypeError, match=r"no 'dissimilarity' in the DataFrame; wanted what area\.grid"):
        profile.predict(pd.DataFrame({"index": [1.0]}))
    with pytest.raises(TypeError, match="2 dimensions without names"):
        profile.predict(np.zeros((2, 2)))


def test_oznet_far_from_its_conditions_errors_are_larger():
    """Linear regression of soil moisture on six covariates, 4 matched folds of 26 stations, every 5th day of the month.

    The absolute error rises from .062 m3 m-3 to .114, and 55 % of the cells of 5 February 2016 are beyond what the
    stations have seen.
    """
    names = ["dem", "awc", "rain", "tavg", "vpd", "srad"]
    frame = pd.read_csv(shared_data("oznet", "oznet_daily.csv.gz"), parse_dates=["time"])
    frame = frame[~frame["station"].isin(["y8", "y9"]) & (frame["time"].dt.day % 5 == 1)].dropna(subset=["insitu_sm"])
    frame = frame.reset_index(drop=True)
    grid = xr.open_dataset(shared_data("oznet", "grid_20160205_1km.nc"))
    ensemble = be.cross_fit({"mlr": LinearRegression()}, frame[[*names, "station", "time", "lon", "lat"]], frame["insitu_sm"],
                            site="station", time="time", lon="lon", lat="lat", folds="knndm 4", map_points=grid,
                            progressbar=False)  # fmt: skip
    fold = ensemble.dataset["fold"].values
    area = be.applicability.applicability(frame[names], fold=fold, progressbar=False)
    error = ensemble.prediction[:, 0] - frame["insitu_sm"].to_numpy()
    profile = error_profile(
        error, area.held_out(frame[names], fold=fold), site=frame["station"], replicates=50, random_seed=1
    )
    made = profile.predict(area.grid(grid))
    assert profile.expected[[0, -1]] == pytest.approx([0.062, 0.114], abs=0.003)
    assert made["share_beyond"].item() == pytest.approx(0.55, abs=0.02)
