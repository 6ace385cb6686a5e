"""Recalibration of held-out rows: simulated forecasts whose faults are known, and what is refused."""

import numpy as np
import pandas as pd
import pytest
import scoringrules
import xarray as xr
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import ndtr, ndtri

import bayesens as be

LEVEL = np.array([0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.975])
STATIONS, DAYS = 60, 40


def rows_of(errors, sd=1.0, stations=STATIONS, **attrs):
    """Rows as `compare` gives them, of normal distributions around 10 and observations with these standardised errors."""
    n, there = len(errors), ("model", "obs")
    y, station = 10.0 + errors, np.arange(n) % stations
    mu, sd = np.full(n, 10.0), np.full(n, sd)
    coverage = np.abs(y - mu) < ndtri(0.95) * sd
    values = {
        "pit": (there, [ndtr((y - mu) / sd)]), "crps": (there, [scoringrules.crps_normal(y, mu, sd)]),
        "prediction": (there, [mu]),
        "log_score": (there, [0.5 * ((y - mu) / sd) ** 2 + np.log(sd) + 0.5 * np.log(2.0 * np.pi)]), "sd": (there, [sd]),
        "coverage90": (there, [coverage.astype(float)]), "width90": (there, [2.0 * ndtri(0.95) * sd]), "observation": ("obs", y),
        "quantile_value": ((*there, "quantile"), [mu[:, None] + sd[:, None] * ndtri(LEVEL)]),
    }  # fmt: skip
    coords = {
        "model": ["Normal"], "point": ("model", [False]), "quantile": LEVEL, "obs": np.arange(n),
        "site": ("obs", np.char.add("s", station.astype(str))), "group": ("obs", np.char.add("g", (station % 4).astype(str))),
        "time": ("obs", np.datetime64("2020-01-01", "ns") + np.arange(n) // stations * np.timedelta64(1, "D")),
    }  # fmt: skip
    return xr.Dataset(values, coords, {"estimand": "site", "units": "m"} | attrs)


def drawn(bias=0.0, scale=1.0, own=0.3, seed=1, stations=STATIONS):
    """Errors (day, station) with a common bias, and biases of stations' own."""
    rng = np.random.default_rng(seed)
    own_bias = own * rng.normal(size=stations)
    rest = np.sqrt(1.0 - own**2) * rng.normal(size=(DAYS, stations))
    return (bias + scale * (own_bias + rest)).ravel()


# ---------------------------------------------------------------------------------------------------------- what it mends
@pytest.mark.parametrize("method", ["beta", "isotonic"])
@pytest.mark.parametrize(("bias", "scale"), [(0.0, 2.0), (0.0, 0.5), (1.0, 1.0), (-1.0, 0.7)])
def test_coverage_is_restored_at_other_stations(method, bias, scale):
    table = be.recalibration_table(rows_of(drawn(bias, scale)), method=method)
    (line,) = table.to_dict("records")
    assert abs(line["coverage50_after"] - 0.5) < 0.05
    assert abs(line["coverage90_after"] - 0.9) < 0.035  # with 60 stations, a step towards it
    assert max(abs(line["coverage50_before"] - 0.5), abs(line["coverage90_before"] - 0.9)) > 0.08
    assert_allclose(line["width90_before"], 2.0 * ndtri(0.95))
    assert_allclose(line["width90_after"], 2.0 * ndtri(0.95) * scale, rtol=0.12)
    assert line["crps_after"] < 0.99 * line["crps_before"]
    assert_allclose(line["crps_after"], scale / np.sqrt(np.pi), rtol=0.06)  # of the distribution that errors come from
    assert (line["n"], line["stations"], line["group"], line["estimand"]) == (STATIONS * DAYS, STATIONS, "all", "site")


@pytest.mark.parametrize(("method", "most"), [("beta", 0.003), ("isotonic", 0.012)])
def test_calibrated_forecasts_lose_little(method, most):
    change = []
    for seed in range(6):
        line = be.recalibration_table(rows_of(drawn(seed=seed)), method=method).iloc[0]
        change.append(line["crps_after"] / line["crps_before"] - 1.0)
    assert np.mean(change) < most


def test_table_has_a_line_for_each_group_and_means_over_its_rows():
    rows = rows_of(drawn(1.0))
    table, both = be.recalibration_table(rows, by="group"), be.recalibrated_rows(rows)
    assert table["group"].tolist() == ["all", "g0", "g1", "g2", "g3"]
    assert table["stations"].tolist() == [60, 15, 15, 15, 15]
    where = rows["group"].values == "g2"
    for when, name in (("before", "Normal"), ("after", "Normal, recalibrated")):
        assert_allclose(table["crps_" + when][3], both["crps"].sel(model=name).values[where].mean())
        assert_allclose(table["coverage90_" + when][3], both["coverage90"].sel(model=name).values[where].mean())
    several = be.recalibration_table(rows, by=["site", "group"])
    assert several["by"].unique().tolist() == ["", "site", "group"]
    pd.testing.assert_frame_equal(several[several["by"] != "site"].reset_index(drop=True), table)


# ------------------------------------------------------------------------------------------------------------ what rows have
@pytest.fixture(scope="module")
def narrow():
    return rows_of(drawn(0.3, 1.8))


def test_no_station_is_in_its_own_map(narrow):
    """Observations of one station that are far off change nothing in its own recalibrated distributions."""
    mine = narrow["site"].values == "s7"
    off = narrow.assign(pit=narrow["pit"].where(~mine, 0.999999))
    told, untold = (
        be.recalibrated_rows(each)["quantile_value"].sel(model="Normal, recalibrated").values for each in (off, narrow)
    )
    assert_array_equal(told[mine], untold[mine])
    assert np.abs(told[~mine] - untold[~mine]).max() > 1e-4


def test_scores_are_those_of_the_recalibrated_distribution(narrow):
    """By the map of the other folds: quantiles of the normal at other levels, densities by a difference, CRPS by an integral."""
    both = be.recalibrated_rows(narrow, folds=STATIONS)  # each station alone
    for i in (5, 1003):
        rest = narrow.isel(obs=narrow["site"].values != narrow["site"].values[i])
        made, one = be.recalibrate(rest), both.sel(model="Normal, recalibrated").isel(obs=i)
        y, x = float(one["observation"]), np.linspace(-10.0, 30.0, 40_001)
        level = made.cdf(ndtr(x - 10.0))
        assert_allclose(one["quantile_value"], 10.0 + ndtri(made.quantile(LEVEL)), rtol=1e-9)
        assert_allclose(one["pit"], made.cdf(ndtr(y - 10.0)), rtol=1e-12)
        assert_allclose(one["crps"], np.trapezoid((level - (x >= y)) ** 2, x), rtol=2e-3)
        assert_allclose(one["prediction"], 10.0 + np.trapezoid(ndtr(x - 10.0) - level, x), atol=1e-3)
        density = np.diff(made.cdf(ndtr(y - 10.0 + np.array([-1e-5, 1e-5]))))[0] / 2e-5
        assert_allclose(one["log_score"], -np.log(density), rtol=1e-6)


def test_rows_are_kept_and_every_table_takes_them(narrow):
    both = be.recalibrated_rows(narrow)
    for name in narrow.data_vars:
        assert_array_equal(both[name].sel(model=["Normal"]) if "model" in both[name].dims else both[name], narrow[name])
    assert both["model"].values.tolist() == ["Normal", "Normal, recalibrated"]
    assert both.attrs == narrow.attrs
    assert np.isnan(both["sd"].sel(model="Normal, recalibrated")).all()
    scores = be.score_table(both, replicates=0).set_index("model")
    assert scores.loc["Normal, recalibrated", "crps"] < scores.loc["Normal", "crps"]
    difference = be.paired_differences(both, "Normal", replicates=200, block=None, random_seed=1)
    assert (difference.query("metric == 'crps' and group == 'all'")["high"] < 0.0).all()
    assert len(be.coverage_table(both, by="group", levels=[0.9])) == 10


def test_the_deal_of_stations_follows_the_seed(narrow):
    first, again, other = (be.recalibrated_rows(narrow, random_seed=seed)["crps"].values for seed in (1, 1, 2))
    assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_rows_of_compare_with_a_product_by_group():
    rng, n = np.random.default_rng(2), 600
    y = rng.normal(size=n)
    frame = pd.DataFrame(
        {"a": y + rng.normal(size=n), "y": y, "station": np.arange(n) % 20, "network": np.arange(n) % 5}
    )
    ensemble = be.Ensemble.from_frame(frame, members=["a"], observation="y", site="station", group="network")
    rows = be.compare({"A": be.SingleMember(), "C": be.Climatology()}, ensemble, estimand="group", method="em", progressbar=False,
                      products={"raw": frame["a"]}, below=np.zeros(n))  # fmt: skip
    both, models = be.recalibrated_rows(rows), ["A", "C", "raw, corrected", "raw"]
    assert rows["model"].values.tolist() == models
    assert both["model"].values.tolist() == [
        *models,
        *(f"{name}, recalibrated" for name in models[:2]),
        "raw, corrected, recalibrated",
    ]
    assert both["point"].values.tolist() == [False] * 3 + [True] + [False] * 3
    made = be.recalibrate(rows, "C")
    assert (made.model, made.estimand, made.stations, made.rows) == ("C", "group", 5, n)  # groups are what was held out
    table = be.recalibration_table(rows, by="group")
    assert table["model"].unique().tolist() == models[:3]
    assert (table["coverage90_after"] - table["coverage90_before"]).abs().max() < 0.1
    with pytest.raises(ValueError, match=r"'A', 'C', 'raw, corrected'; name one: recalibrate\(rows, 'A'\)"):
        be.recalibrate(rows)
    with pytest.raises(KeyError, match=r"no model with PITs 'raw'"):
        be.recalibrate(rows, "raw")
    with pytest.raises(ValueError, match="recalibrated already"):
        be.recalibrated_rows(both)


def test_rows_without_stations_stand_for_themselves_where_single_rows_were_held_out(narrow):
    rows = narrow.drop_vars("site").assign_attrs(estimand="row")
    assert be.recalibrate(rows).stations == STATIONS * DAYS
    (line,) = be.recalibration_table(rows).to_dict("records")
    assert line["stations"] == 0
    assert abs(line["coverage90_after"] - 0.9) < 0.02
    with pytest.raises(ValueError, match="have no site, and those of one station err alike"):
        be.recalibration_table(rows.assign_attrs(estimand="site"))


def test_pits_by_hand_and_of_score_make_the_same_map(narrow):
    pit = narrow["pit"].sel(model="Normal")
    by_hand = be.recalibrate(pit.values, site=narrow["site"].values)
    assert be.recalibrate(pit) == by_hand
    assert be.recalibrate(narrow).parameters == by_hand.parameters
    assert be.recalibrate(narrow.isel(model=0).drop_vars("model")).parameters == by_hand.parameters


# ------------------------------------------------------------------------------------------------------------------ refused
SITES = np.array(["a", "b", "c", "d"])


@pytest.mark.parametrize(
    ("pit", "options", "text"),
    [
        ([0.1, 1.2, -0.3, 0.5], {}, r"2 of 4 PITs lie outside \[0, 1\] \(first: 1.2\); wanted F\(y\)"),
        ([0.1, np.nan, 0.3, 0.5], {}, "1 of 4 PITs are missing"),
        ([[0.1, 0.2, 0.3, 0.5]], {}, r"shape \(1, 4\)"),
        ([0.1, 0.2, 0.3, 0.5], {"site": ["a"] * 4}, r"all 4 PITs are of one site \('a'\)"),
        ([0.1, 0.2, 0.3, 0.5], {"site": ["a", "b"]}, "2 labels; wanted one for each of 4 rows"),
        ([0.1, 0.2, 0.3, 0.5], {"site": ["a", "b", None, "c"]}, "1 of 4 rows have no site"),
        ([0.1, 0.2, 0.3, 0.5], {"site": None}, "have no site, and those of one station err alike; give site="),
        ([0.1, 0.2, 0.3, 0.5], {"prior": 0.0}, "at least 1, such as 20; got 0.0"),
        ([0.1, 0.2, 0.3, 0.5], {"prior": np.nan}, "at least 1"),
        ([0.1, 0.2, 0.3, 0.5], {"method": "isotone"}, "no method 'isotone' in recalibrate; did you mean 'isotonic'"),
        ([0.1, 0.2, 0.3, 0.5], {"model": "BMA"}, "names a model of rows, and got list"),
    ],
)
def test_bad_pits_are_refused(pit, options, text):
    with pytest.raises((ValueError, KeyError, TypeError), match=text):
        be.recalibrate(pit, **({"site": SITES} | options))


def test_rows_that_cannot_be_recalibrated_are_refused(narrow):
    with pytest.raises(KeyError, match="no model with PITs 'BMA' in the rows"):
        be.recalibrate(narrow, "BMA")
    with pytest.raises(ValueError, match="common_rows keeps none"):
        be.recalibrated_rows(narrow.drop_vars("pit"))
    with pytest.raises(ValueError, match="'Normal' are point predictions"):
        be.recalibrated_rows(narrow.assign(pit=narrow["pit"] * np.nan))
    with pytest.raises(ValueError, match="have no quantiles"):
        be.recalibrated_rows(narrow.drop_vars("quantile_value"))
    with pytest.raises(KeyError, match="no label 'region'"):
        be.recalibration_table(narrow, by="region")
    two = narrow.isel(obs=np.isin(narrow["site"].values, ["s1", "s2"]))
    with pytest.raises(ValueError, match="2 sites; wanted three or more"):
        be.recalibration_table(two)
