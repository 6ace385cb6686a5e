"""Variance components against statsmodels, closed forms and a dense likelihood; what follows, by loops and simulation."""

import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy import linalg, stats

from bayesens.geo.reml import Reduced, inflation_of, sweep
from bayesens.geo.representativeness import cell_means, rmse_to_truth, temporal_stability, variance_components
from bayesens.geo.station_cells import paired_cells
from shared_data import shared_data

COLUMNS = {"value": "sm", "station": "station", "time": "day"}


def frame(cells):
    """A table from arrays (time, station), NaN where missing, by cell."""
    rows = []
    for name, y in cells.items():
        t, s = np.indices(y.shape)
        part = pd.DataFrame({"sm": y.ravel(), "day": t.ravel(), "station": [f"{name}{i}" for i in s.ravel()]})
        rows.append(part.assign(cell=name))
    return pd.concat(rows, ignore_index=True)


def simulated(rng, shapes, *, offset=0.04, residual=0.03, gaps=0.0, phi=0.0):
    """Stations about a truth that wanders."""
    cells = {}
    for name, (times, stations) in shapes.items():
        e = rng.normal(0.0, 1.0, (times, stations))
        for t in range(1, times):
            e[t] = phi * e[t - 1] + np.sqrt(1.0 - phi**2) * e[t]
        truth = 0.2 + np.cumsum(rng.normal(0.0, 0.01, times))
        y = truth[:, None] + rng.normal(0.0, offset, stations) + residual * e
        y[rng.random(y.shape) < gaps] = np.nan
        cells[name] = y
    return frame(cells)


def by_statsmodels(table):
    from statsmodels.regression.mixed_linear_model import MixedLM

    table = table.dropna(subset="sm")
    truth = pd.get_dummies(table["cell"] + table["day"].astype(str)).to_numpy(dtype=float)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = MixedLM(1e2 * table["sm"].to_numpy(), truth, groups=table["station"]).fit(
            reml=True, method=["bfgs", "lbfgs"]
        )
    return found.cov_re.item() * 1e-4, found.scale * 1e-4


# REML ----------------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:residuals one time step apart")
@pytest.mark.parametrize("seed", range(4))
def test_estimates_are_those_of_statsmodels(seed):
    table = simulated(np.random.default_rng(seed), {"a": (15, 6), "b": (9, 3), "c": (12, 4)}, gaps=0.3)
    found = variance_components(table, **COLUMNS, cell="cell", errors="independent")
    assert_allclose([found.offset, found.residual], by_statsmodels(table), rtol=1e-3)


@pytest.mark.filterwarnings("ignore:residuals one time step apart")
def test_estimates_on_real_stations_are_those_of_statsmodels():
    table = pd.read_csv(shared_data("oznet", "oznet_daily.csv.gz"), parse_dates=["time"])
    table = table[~table["insitu_is_copy_of_y7"] & table["cluster"].isin(["A", "B"])]
    table = table[table["time"].isin(table["time"].drop_duplicates().sort_values()[::80])]
    table = pd.DataFrame(
        {"sm": table["insitu_sm"], "station": table["station"], "day": table["time"], "cell": table["cluster"]}
    )
    found = variance_components(table, **COLUMNS, cell="cell", errors="independent")
    table["alone"] = table.dropna().groupby(["cell", "day"])["sm"].transform("size").reindex(table.index) < 2
    assert_allclose([found.offset, found.residual], by_statsmodels(table[~table["alone"]]), rtol=1e-3)
    assert found.n_stations == 24


def test_balanced_estimates_are_those_of_anova():
    rng = np.random.default_rng(5)
    y = rng.normal(size=(7, 4)) + 2.0 * rng.normal(size=4) + rng.normal(size=(7, 1))
    apart = y - y.mean(axis=1, keepdims=True)
    between = 7 * np.square(apart.mean(axis=0)).sum() / 3
    within = np.square(apart - apart.mean(axis=0)).sum() / (6 * 3)
    found = variance_components(frame({"a": y}), **COLUMNS, errors="independent")
    assert_allclose([found.residual, found.offset], [within, (between - within) / 7], rtol=1e-9)


def test_deviance_is_that_of_the_dense_restricted_likelihood():
    """The reduced form against the density of contrasts of all rows, with a random basis of them."""
    table = simulated(np.random.default_rng(8), {"a": (6, 4), "b": (5, 2)}, gaps=0.3)
    cells = paired_cells(table, "sm", "station", "day", "cell")
    reduced = Reduced.of([sweep(part.y) for part in cells])
    rows = [
        (c.y[t, s], f"{c.name}{t}", f"{c.name}{s}")
        for c in cells
        for t, s in zip(*np.isfinite(c.y).nonzero(), strict=True)
    ]
    y, truth, station = (np.array(x) for x in zip(*rows, strict=True))
    truth, station = (pd.get_dummies(x).to_numpy(dtype=float) for x in (truth, station))
    basis = linalg.null_space(truth.T)

    def dense(offset, residual):
        covariance = basis.T @ (residual * np.eye(len(y)) + offset * station @ station.T) @ basis
        return -2.0 * stats.multivariate_normal.logpdf(basis.T @ y, cov=covariance)

    values = [(0.0, 1e-3), (2e-3, 1e-3), (1e-2, 5e-4), (1e-4, 4e-3)]
    ours, theirs = ([f(*pair) for pair in values] for f in (reduced.deviance, dense))
    assert_allclose(np.diff(ours), np.diff(theirs), rtol=1e-9)


def test_equal_stations_sit_at_zero_and_it_is_said():
    y = np.array([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    with pytest.warns(UserWarning, match="offset is estimated as zero.*upper limit"):
        found = variance_components(frame({"a": y}), **COLUMNS, errors="independent")
    assert found.at_zero == ("offset",)
    assert found.offset == 0.0
    # All four days' differences, of mean square 1, are residual: 1 / 2.
    assert_allclose(found.residual, 0.5)
    assert found.table.at["offset", "low"] == 0.0 < found.table.at["offset", "high"]


def test_profile_limits_are_where_the_deviance_rises_by_the_quantile():
    """The interval of the residual variance where the offset is large is close to that of chi-square."""
    rng = np.random.default_rng(2)
    y = rng.normal(size=(60, 8)) + 100.0 * rng.normal(size=8)
    found = variance_components(frame({"a": y}), **COLUMNS, errors="independent").table.loc["residual"]
    dof = 59 * 7
    expected = dof * found["variance"] / stats.chi2.ppf([0.95, 0.05], dof)
    assert_allclose([found["low"], found["high"]], expected, rtol=2e-3)


@given(st.integers(0, 10**6), st.floats(0.0, 0.5), st.floats(1e-3, 1e3), st.floats(-100.0, 100.0))
@settings(derandomize=True, max_examples=25, deadline=None)
def test_no_variance_is_negative_and_units_and_truth_do_not_matter(seed, gaps, unit, truth):
    rng = np.random.default_rng(seed)
    table = simulated(rng, {"a": (8, 4), "b": (5, 3)}, offset=rng.choice([0.0, 0.05]), gaps=gaps)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = variance_components(table, **COLUMNS, cell="cell", errors="independent")
        moved = table.assign(sm=unit * (table["sm"] + truth * np.sin(table["day"])))
        other = variance_components(moved, **COLUMNS, cell="cell", errors="independent")
    assert (found.table[["variance", "low"]] >= 0.0).all(axis=None)
    assert (found.table["low"] <= found.table["variance"]).all()
    assert (found.table["variance"] <= found.table["high"]).all()
    assert_allclose(other.table["variance"], unit**2 * found.table["variance"], rtol=1e-6, atol=1e-9 * unit**2)


@pytest.mark.parametrize("phi", [0.0, 0.3, 0.9])
def test_contrasts_under_lasting_residuals_have_their_dense_variance(phi):
    """Variances of contrasts and the expected rest against the full covariance of all rows, with gaps in time."""
    table = simulated(np.random.default_rng(8), {"a": (14, 4), "b": (9, 3)}, gaps=0.3)
    cells = paired_cells(table, "sm", "station", "day", "cell")
    swept = [sweep(part.y) for part in cells]
    found, repeated = inflation_of(cells, swept, phi)
    start, rest, pairs, rows = 0, 0.0, 0.0, 0
    for cell, one in zip(cells, swept, strict=True):
        t, s = np.isfinite(cell.y).nonzero()
        lasting = np.where(s[:, None] == s, phi ** np.abs(cell.time[t][:, None] - cell.time[t]), 0.0)
        truth = pd.get_dummies(t).to_numpy(dtype=float)
        centre = np.eye(len(t)) - truth @ np.linalg.pinv(truth)
        w = centre @ pd.get_dummies(s).to_numpy(dtype=float) @ one.contrast
        assert_allclose(found[start : start + w.shape[1]], np.diag(w.T @ lasting @ w), rtol=1e-9)
        rest += np.trace((centre - w @ w.T) @ lasting)
        pairs, rows, start = pairs + np.square(lasting).sum(), rows + len(t), start + w.shape[1]
    reduced = Reduced.of(swept)
    after = reduced.lasting(found, repeated)
    assert_allclose(after.rest / after.rest_dof * rest, reduced.rest, rtol=1e-9)
    assert_allclose(repeated, pairs / rows, rtol=1e-9)
    if phi == 0.0:
        assert_allclose(after.deviance(1e-3, 1e-3), reduced.deviance(1e-3, 1e-3))


@pytest.mark.slow
def test_lasting_residuals_do_not_count_as_offset_and_lengthen_intervals():
    """Means over 40 simulations; plain REML takes 15 % of the residual variance for offset. Standard errors of the means are
    about 3 % of the residual and 1e-5 for the offset (1e-4), so that a correct program fails with a chance below 1e-3."""
    found = {"ar1": [], "independent": []}
    for seed in range(40):
        table = simulated(np.random.default_rng(seed), {"a": (60, 6), "b": (60, 4)}, offset=0.01, phi=0.8, gaps=0.1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for errors, kept in found.items():
                kept.append(variance_components(table, **COLUMNS, cell="cell", errors=errors).table)
    mean = {errors: sum(kept)["variance"] / 40 for errors, kept in found.items()}
    assert_allclose(mean["ar1"]["residual"], 0.03**2, rtol=0.1)
    assert_allclose(mean["ar1"]["offset"], 0.01**2, atol=4e-5)
    assert mean["independent"]["offset"] > 1.7 * 0.01**2
    extent = [np.log(kept[0].loc["residual", "high"] / kept[0].loc["residual", "low"]) for kept in found.values()]
    assert extent[0] > 1.8 * extent[1]


def test_residuals_taken_for_independent_are_warned_of():
    table = simulated(np.random.default_rng(1), {"a": (80, 6)}, phi=0.9)
    with pytest.warns(UserWarning, match="residuals one time step apart have a correlation of 0.[89].*errors='ar1'"):
        variance_components(table, **COLUMNS, errors="independent")


@pytest.mark.parametrize(("times", "atol"), [(400, 0.03), (60, 0.12)])
def test_autocorrelation_is_recovered_over_gaps(times, atol):
    """Standard errors are about .006 and .025 for 40 x 400 and 12 x 60 residuals with gaps (20 seeds): four or more of them."""
    table = simulated(np.random.default_rng(1), {"a": (times, 40 if times == 400 else 12)}, phi=0.7, gaps=0.3)
    assert_allclose(variance_components(table, **COLUMNS).autocorrelation, 0.7, atol=atol)


@pytest.mark.calibration
@pytest.mark.parametrize(("phi", "offset"), [(0.0, 0.03), (0.8, 0.03), (0.8, 0.01), (0.95, 0.03)])
def test_intervals_cover(phi, offset):
    """300 simulations; a coverage of .9 falls below .84 with a chance of 1e-3. Longer than nominal is allowed."""
    hits = np.zeros(3)
    for seed in range(300):
        shapes = {"a": (60 if phi < 0.9 else 300, 6), "b": (60 if phi < 0.9 else 300, 4)}
        table = simulated(np.random.default_rng(seed), shapes, offset=offset, phi=phi, gaps=0.1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = variance_components(table, **COLUMNS, cell="cell").table
        truth = np.array([offset**2, 0.03**2, offset**2 + 0.03**2])
        hits += ((found["low"] <= truth) & (truth <= found["high"])).to_numpy()
    assert (hits / 300 > 0.84).all(), hits / 300


def test_bad_tables_are_refused():
    good = simulated(np.random.default_rng(1), {"a": (5, 3)})

    def fails(table, text, **options):
        with pytest.raises(ValueError, match=text):
            variance_components(table, **COLUMNS | options)

    fails(pd.concat([good, good.iloc[:2]]), "2 of 17 rows repeat a station and time")
    fails(good.assign(cell=np.arange(15) % 2), r"lie in two cells; wanted one: correct 'cell'", cell="cell")
    fails(good[good["station"] == "a0"], "no cell has two stations at the same time")
    fails(good[good["day"] == 0], "cannot tell offset from residual; wanted more times")
    fails(good.assign(station=""), "15 row.s. with a value have no station")
    fails(good, "errors='iid'; wanted 'ar1' or 'independent'", errors="iid")
    fails(good, "the level lies inside", level=90)
    copies = good.assign(sm=good["day"] + good["station"].str[1:].astype(float))
    fails(copies, "agree to rounding.*a copy of another")


@pytest.mark.filterwarnings("ignore:residuals one time step apart")
def test_a_copied_station_is_named():
    table = simulated(np.random.default_rng(1), {"a": (9, 3)})
    table.loc[table["station"] == "a2", "sm"] = table.loc[table["station"] == "a1", "sm"].to_numpy()
    with pytest.warns(UserWarning, match="'a1' and 'a2' have the same values throughout"):
        variance_components(table, **COLUMNS, errors="independent")


# What follows from them ----------------------------------------------------------------------------------------------


def test_the_error_of_a_mean_of_stations_is_what_simulation_says():
    """Root mean square of 20,000 simulated means: within 2 % of the formula with a chance of failure of about 6e-5."""
    found = variance_components(simulated(np.random.default_rng(1), {"a": (20, 9)}), **COLUMNS, errors="independent")
    rng = np.random.default_rng(2)
    stations = np.sqrt(found.offset) * rng.normal(size=(20_000, 5)) + np.sqrt(found.residual) * rng.normal(
        size=(20_000, 5)
    )
    error = stations.mean(axis=1)
    assert_allclose(np.sqrt(np.mean(error**2)), found.upscaled(5).loc[5, "sd"], rtol=0.02)
    needed = int(found.stations_needed(0.02, level=0.9).loc[0.02, "stations"])
    half = stats.norm.ppf(0.95) * np.sqrt(found.total / np.array([needed, needed - 1]))
    assert half[0] <= 0.02 < half[1]


def test_numbers_of_stations_and_errors_are_checked():
    found = variance_components(simulated(np.random.default_rng(1), {"a": (20, 9)}), **COLUMNS, errors="independent")
    for stations in (0, 1.5, []):
        with pytest.raises(ValueError, match="wanted whole numbers from 1"):
            found.upscaled(stations)
    with pytest.raises(ValueError, match="wanted positive numbers"):
        found.stations_needed([0.1, -1.0])


def test_temporal_stability_is_that_of_a_loop():
    y = np.abs(np.random.default_rng(3).normal(0.2, 0.05, (12, 4)))
    y[2, 1] = y[5, 3] = np.nan
    found = temporal_stability(frame({"a": y}), **COLUMNS, cell="cell").loc["a"]
    for s in range(4):
        apart = [(y[t, s] - np.nanmean(y[t])) / np.nanmean(y[t]) for t in range(12) if np.isfinite(y[t, s])]
        row = found.loc[f"a{s}"]
        assert_allclose([row["mean"], row["sd"]], [np.mean(apart), np.std(apart, ddof=1)])
        assert row["times"] == len(apart)
    assert found["rank"].sort_values().tolist() == [1, 2, 3, 4]
    assert found["rank"].idxmin() == found["index"].idxmin()
    with pytest.raises(ValueError, match="mean of cell 'a' is not positive at 12 of 12 times"):
        temporal_stability(frame({"a": -y}), **COLUMNS, cell="cell")


def test_rmse_to_truth_takes_the_error_of_the_stations_out():
    """200 cells with 5 stations: the result is within 10 % of the truth; seeds 0 to 199 of this design strayed by 5 % at most."""
    rng = np.random.default_rng(4)
    truth = rng.normal(0.2, 0.05, (200, 20))
    y = truth[..., None] + rng.normal(0.0, 0.06, (200, 1, 5)) + rng.normal(0.0, 0.04, (200, 20, 5))
    prediction = truth + rng.normal(0.0, 0.03, truth.shape)
    table = frame({f"c{i:03d}": y[i] for i in range(200)})
    components = variance_components(table, **COLUMNS, cell="cell", errors="independent")
    means = cell_means(table, components, **COLUMNS, cell="cell")
    found = rmse_to_truth(prediction.ravel(), reference=means["mean"], variance=means["variance"])
    assert_allclose(found["rmse"], np.sqrt(0.03**2 + (0.06**2 + 0.04**2) / 5), rtol=0.05)
    assert_allclose(found["rmse_truth"], 0.03, rtol=0.1)
    with pytest.raises(ValueError, match="smaller than the variance of the reference's error"):
        rmse_to_truth(means["mean"] + 0.001, reference=means["mean"], variance=means["variance"])
    with pytest.raises(ValueError, match="no row has both"):
        rmse_to_truth([np.nan], reference=[1.0], variance=0.1)
    with pytest.raises(ValueError, match="wanted one length"):
        rmse_to_truth([1.0, 2.0], reference=[1.0, 2.0, 3.0], variance=0.1)
    with pytest.raises(ValueError, match="negative or missing"):
        rmse_to_truth([1.0, 2.0], reference=[1.0, 3.0], variance=np.nan)
