"""Grids are predicted as tables are: the same law cell by cell, whatever the order, chunks and precision of the arrays."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import bayesens as be
from bayesens import models
from bayesens.inference.grid_law import GridLaw
from bayesens.inference.predict import distribution
from bayesens.messages import UnknownName

MEMBERS = ["a", "b", "c"]
TIMES, SOUTH, EAST = 3, 4, 5
QUANTILES = [0.05, 0.5, 0.95]
OPTIONS = {
    "BMA": [
        {},
        {"transform": "sqrt", "scale": ("mean",)},
        {"weights": "group", "site": False},
        {"bias_covariates": ("wet",), "scale": ("mean", "wet", "season"), "kernel": "student_t"},
        {"correction": "joint", "group": True, "site": False},
    ],
    "HBM": [{"site": False, "group": False}, {"transform": "log", "site": False}],
    "LinearPool": [{}],
    "EMOS": [{}],
    "Climatology": [{"group": True}],
}
CASES = [(name, options) for name in models.__all__ for options in OPTIONS.get(name, [{}])]
TRANSFORMED = [(name, {"transform": transform}) for name in models.__all__ if name != "IDR"
               for transform in ("sqrt", "log")] + [
    ("BMA", {"transform": "log", "bias_covariates": ("wet",), "scale": ("mean", "wet", "season"), "kernel": "student_t"}),
    ("BMA", {"transform": "log", "correction": "joint", "site": False}),
    ("HBM", {"transform": "sqrt", "group": False, "site": False}),
]  # fmt: skip
AT_A_POINT = [
    ("BMA", {}),
    ("BMA", {"bias_covariates": ("wet",), "scale": ("mean", "wet", "season"), "kernel": "student_t"}),
    ("BMA", {"transform": "log", "kernel": "student_t"}),
    ("BMA", {"correction": "joint", "site": False, "group": False}),
    ("SingleMember", {"bias": "additive"}),
    ("LinearPool", {"transform": "sqrt"}),
    ("Climatology", {}),
    ("EMOS", {}),
    ("EMOS", {"transform": "log", "scale": ("wet", "season")}),
]


def training(n=150):
    rng = np.random.default_rng(3)
    site = rng.integers(0, 8, n)
    truth = rng.gamma(4.0, 1.0, n) + 0.3 * site
    f = np.abs(truth[:, None] * [0.9, 1.1, 1.0] + [0.5, -0.3, 0.2] + rng.normal(0.0, [0.5, 0.7, 0.9], (n, 3)))
    f[rng.random((n, 3)) < 0.1] = np.nan
    f[np.isnan(f).all(axis=1), 0] = 3.0
    day = pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.permutation(360)[:n], unit="D")
    frame = pd.DataFrame(f, columns=MEMBERS)
    return frame.assign(
        y=truth, station=[f"s{i}" for i in site], net=[f"g{i % 3}" for i in site], day=day, wet=rng.normal(size=n)
    )


def region():
    """A grid with three members, of which some or all are missing in some cells; two of its groups are known and one is not."""
    rng = np.random.default_rng(8)
    shape = (TIMES, SOUTH, EAST)
    truth = rng.gamma(4.0, 1.0, shape) + 1.0
    values = np.abs(truth[..., None] + rng.normal(0.0, 0.7, (*shape, 3)))
    values[rng.random(values.shape) < 0.15] = np.nan
    values[0, 0, 0] = np.nan
    coords = {
        "time": pd.date_range("2021-03-01", periods=TIMES, freq="MS"), "lat": [51.0, 50.0, 49.0, 48.0],
        "lon": np.arange(EAST, dtype=float), "member": MEMBERS,
    }  # fmt: skip
    grid = xr.Dataset({"prediction": (("time", "lat", "lon", "member"), values)}, coords)
    grid["wet"] = ("lat", "lon"), rng.normal(size=(SOUTH, EAST))
    grid["net"] = ("lat", "lon"), rng.choice(["g0", "g1", "new"], size=(SOUTH, EAST))
    return grid.assign_coords(spatial_ref=0)


def as_table(grid, group):
    stacked = grid.stack(obs=("time", "lat", "lon"))
    frame = pd.DataFrame(stacked["prediction"].transpose("obs", "member").values, columns=MEMBERS)
    frame["day"] = stacked["time"].values
    frame["wet"] = np.broadcast_to(grid["wet"].values, (TIMES, SOUTH, EAST)).ravel()
    frame["net"] = np.broadcast_to(grid["net"].values, (TIMES, SOUTH, EAST)).ravel()
    return be.Ensemble.from_frame(
        frame, members=MEMBERS, time="day", covariates=["wet"], group="net" if group else None
    )


@pytest.fixture(scope="module")
def table():
    return be.Ensemble.from_frame(
        training(),
        members=MEMBERS,
        observation="y",
        site="station",
        group="net",
        time="day",
        covariates=["wet"],
        units="mm",
    )


@pytest.fixture(scope="module")
def fits(table):
    kept = {}

    def fit_of(name, options, method="auto"):
        key = name, repr(sorted(options.items())), method
        if key not in kept:
            rows = table.select(rows=table.available.all(axis=1)) if name == "EMOS" else table
            kept[key] = be.fit(getattr(models, name)(**options), rows, method=method, draws=100, random_seed=1)
        return kept[key]

    return fit_of


@pytest.fixture(scope="module")
def bma(fits):
    return fits("BMA", {})


def laid_out(values):
    return np.moveaxis(values.reshape(TIMES, SOUTH, EAST, -1), -1, 0).squeeze()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("name", "options", "method"),
    [(*case, "auto") for case in CASES + TRANSFORMED] + [(*case, "em") for case in AT_A_POINT],
)
def test_a_cell_is_predicted_as_the_row_of_a_table_with_the_same_members(fits, name, options, method):
    fit, grid = fits(name, options, method), region()
    found = be.predict(fit, grid, quantiles=QUANTILES, group="net", time="time")
    rows = be.predict(fit, as_table(grid, group=True), quantiles=QUANTILES)
    sd = laid_out(rows["sd"].values)
    for variable in ("mean", "sd", "sd_within", "sd_between", "sd_parameter", "quantile_value"):
        apart = np.abs(found[variable].values - laid_out(rows[variable].values)) / sd
        assert np.nanmax(apart) < 1e-6
        np.testing.assert_array_equal(np.isnan(found[variable].values), np.isnan(laid_out(rows[variable].values)))
    assert found["quantile_value"].dims == ("quantile", "time", "lat", "lon")


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("name", "options", "method"), [("BMA", {"transform": "sqrt"}, "auto"), ("HBM", {"transform": "log"}, "auto"),
                                    ("BMA", {"transform": "log"}, "em")],
)  # fmt: skip
def test_on_another_scale_thresholds_and_chunks_are_those_of_the_law(fits, name, options, method):
    fit, grid = fits(name, options, method), region()
    limit = (xr.full_like(grid["wet"], 1.5) + grid["wet"]).rename("dry")
    limit[0, 0] = np.nan
    found = be.predict(fit, grid, group="net", below=[0.0, -1.0, 2.5, limit])
    law = distribution(fit, as_table(grid, group=True))
    nothing = np.where(np.isnan(law.cdf(1.0)), np.nan, 0.0)  # what is zero exactly does not lie below
    dry = np.broadcast_to(limit.values, (TIMES, SOUTH, EAST)).ravel()
    for n, wanted in enumerate([nothing, nothing, law.cdf(2.5), np.where(np.isnan(dry), np.nan, law.cdf(dry))]):
        np.testing.assert_allclose(found["probability_below"][n], laid_out(wanted), atol=1e-9)
    if options["transform"] == "sqrt":
        np.testing.assert_allclose(found["mass_at_zero"], laid_out(law.mass_at_zero()), rtol=1e-6, atol=1e-12)
    lazy = be.predict(fit, grid.chunk(time=1, lon=2), group="net", below=[0.0, -1.0, 2.5, limit.chunk(lat=2)])
    xr.testing.assert_identical(lazy.compute(), found)


@pytest.mark.parametrize("method", ["auto", "em"])
@pytest.mark.parametrize("transform", ["identity", "sqrt", "log"])
def test_laws_that_have_coefficients_take_no_rows_of_a_table(fits, transform, method, monkeypatch):
    fit, grid = fits("BMA", {"transform": transform}, method), region()
    monkeypatch.setattr(GridLaw, "_by_rows", None)
    assert np.isfinite(be.predict(fit, grid, group="net")["sd"]).sum() > 50


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("options", [{}, {"scale": ()}, {"scale": ("mean", "wet")}])
def test_mean_and_parts_of_emos_take_no_rows_and_quantiles_do_not_hang_on_the_rows_beside(fits, options, monkeypatch):
    fit, grid = fits("EMOS", options), region().fillna(2.0)
    rows = be.predict(fit, as_table(grid, group=False), quantiles=QUANTILES)
    lazy = be.predict(fit, grid.chunk(time=1, lon=2), quantiles=QUANTILES).compute()
    np.testing.assert_allclose(lazy["quantile_value"], laid_out(rows["quantile_value"].values), rtol=1e-9)
    monkeypatch.setattr(GridLaw, "_by_rows", None)
    found = be.predict(fit, grid, quantiles=[])
    for variable in ("mean", "sd", "sd_within", "sd_between", "sd_parameter"):
        np.testing.assert_allclose(found[variable], laid_out(rows[variable].values), rtol=2e-7)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_values_that_the_transform_cannot_take_are_refused(fits):
    grid = region()["prediction"]
    grid[1, 2, 3, 0] = -1.0
    with pytest.raises(ValueError, match=r"Column 'a' has 1 of \d+ values below 0, which transform='sqrt'"):
        be.predict(fits("BMA", {"transform": "sqrt"}), grid)
    only = fits("SingleMember", {"transform": "sqrt", "member": "b"})  # what other members say is no matter
    xr.testing.assert_identical(be.predict(only, grid), be.predict(only, region()["prediction"]))


def test_chunks_threads_and_order_of_the_dimensions_change_nothing(bma):
    grid = region().drop_vars(["wet", "net"])
    whole = be.predict(bma, grid, quantiles=QUANTILES, group=region()["net"], below=4.0)
    for chunks in ({"time": 1, "lat": 3}, {"lon": 2}):
        lazy = be.predict(bma, grid.chunk(chunks), quantiles=QUANTILES, group=region()["net"], below=4.0)
        assert lazy["mean"].chunks is not None
        for scheduler in ("synchronous", "threads"):
            xr.testing.assert_identical(lazy.compute(scheduler=scheduler), whole)
    turned = be.predict(
        bma, grid.transpose("member", "lon", "time", "lat"), quantiles=QUANTILES, group=region()["net"], below=4.0
    )
    assert turned["mean"].dims == ("lon", "time", "lat")
    xr.testing.assert_identical(turned.transpose("quantile", "threshold", "time", "lat", "lon"), whole)


def test_members_are_found_by_name_and_a_variable_a_member_is_the_same(bma):
    grid = region()
    group = grid["net"]
    whole = be.predict(bma, grid, group=group)
    xr.testing.assert_identical(be.predict(bma, grid["prediction"].sel(member=["c", "a", "b"]), group=group), whole)
    apart = xr.Dataset({name: grid["prediction"].sel(member=name, drop=True) for name in MEMBERS[::-1]})
    xr.testing.assert_identical(be.predict(bma, apart, group=group), whole)


def test_a_grid_in_chunks_along_its_members_is_read_member_by_member(bma):
    grid = region()
    lazy = be.predict(bma, grid["prediction"].chunk(member=1, time=1), group=grid["net"])
    assert lazy["mean"].chunks[1:] == ((SOUTH,), (EAST,))
    xr.testing.assert_identical(lazy.compute(), be.predict(bma, grid["prediction"], group=grid["net"]))


def test_labels_that_the_fit_has_not_seen_are_told(bma):
    grid = region()
    with pytest.warns(UserWarning, match=r"1 of 3 labels of a group are of one that the fit has not seen \('new'\)"):
        be.predict(bma, grid, group="net")


def test_single_precision_stays_single(bma):
    grid = region()
    single = be.predict(bma, grid["prediction"].astype(np.float32), group=grid["net"])
    double = be.predict(bma, grid["prediction"], group=grid["net"])
    assert all(variable.dtype == np.float32 for variable in single.data_vars.values())
    np.testing.assert_allclose(single["mean"], double["mean"], rtol=1e-5)


@pytest.mark.filterwarnings("ignore:.*have no member at all:UserWarning")
def test_probabilities_below_numbers_and_maps_are_those_of_the_law(bma):
    grid = region()
    limit = xr.full_like(grid["wet"], 3.5) + grid["wet"]
    found = be.predict(bma, grid, group="net", below=[4.0, limit.rename("dry")])
    assert found["threshold"].values.tolist() == ["4.0", "dry"]
    law = distribution(bma, as_table(grid, group=True))
    np.testing.assert_allclose(found["probability_below"][0], laid_out(law.cdf(4.0)), atol=1e-12)
    dry = np.broadcast_to(limit.values, (TIMES, SOUTH, EAST)).ravel()
    np.testing.assert_allclose(found["probability_below"][1], laid_out(law.cdf(dry)), atol=1e-12)
    alone = be.predict(bma, grid, group="net", below=4.0)
    assert alone["threshold"].values.tolist() == [4.0]
    np.testing.assert_array_equal(alone["probability_below"][0], found["probability_below"][0])


def test_coordinates_units_and_the_grid_mapping_are_kept(bma):
    grid = region()
    grid["prediction"].attrs |= {"units": "mm", "grid_mapping": "spatial_ref"}
    found = be.predict(bma, grid, group="net")
    assert set(found.coords) >= {"time", "lat", "lon", "spatial_ref", "quantile"}
    assert found["mean"].attrs["grid_mapping"] == "spatial_ref"
    assert found["mean"].attrs["units"] == "mm"
    assert found["lat"].values.tolist() == [51.0, 50.0, 49.0, 48.0]


def test_cells_that_are_not_wanted_are_nan_and_the_others_as_they_were(bma):
    grid = region()
    where = grid["wet"] > 0.0
    found, whole = (be.predict(bma, grid, group="net", where=some) for some in (where, None))
    xr.testing.assert_identical(found["mean"], whole["mean"].where(where))


def test_packed_numbers_are_unpacked_and_codes_are_read_or_refused(bma):
    grid = region()
    whole = be.predict(bma, grid["prediction"].round(2), group=grid["net"])
    packed = (grid["prediction"].round(2) * 100).fillna(-32768).round().astype(np.int16)
    packed.attrs = {"scale_factor": 0.01, "_FillValue": np.int16(-32768)}
    np.testing.assert_allclose(be.predict(bma, packed, group=grid["net"])["mean"], whole["mean"], rtol=1e-6)
    coded = grid["prediction"].round(2).fillna(-9999.0)
    with pytest.raises(ValueError, match="-9999"):
        be.predict(bma, coded, group=grid["net"])
    with pytest.raises(ValueError, match="-9999"):
        be.predict(bma, coded.chunk(time=1), group=grid["net"]).compute()
    xr.testing.assert_identical(be.predict(bma, coded, group=grid["net"], missing=-9999), whole)


def test_what_does_not_fit_is_refused_with_a_sentence(bma, table):
    grid = region()
    with pytest.raises(ValueError, match="none of the members"):
        be.predict(bma, grid["prediction"].assign_coords(member=["x", "y", "z"]))
    with pytest.raises(ValueError, match="without names"):
        be.predict(bma, grid["prediction"].drop_vars("member"))
    with pytest.raises(ValueError, match="convert the grid to 'mm'"):
        be.predict(bma, grid["prediction"].assign_attrs(units="m"))
    with pytest.raises(ValueError, match="other coordinates"):
        be.predict(bma, grid, group=grid["net"].assign_coords(lat=[1.0, 2.0, 3.0, 4.0]))
    with pytest.raises(KeyError, match="nett"):
        be.predict(bma, grid, group="nett")
    with pytest.raises(TypeError, match="belov"):
        be.predict(bma, grid, belov=3.0)
    with pytest.raises(TypeError, match="below"):
        be.predict(bma, table, below=3.0)


def test_a_member_that_the_grid_lacks_is_missing_and_a_grid_without_groups_is_told(bma):
    grid = region()
    with pytest.warns(UserWarning, match="lacks 'b'"), pytest.warns(UserWarning, match="'b' is empty"):
        found = be.predict(bma, grid["prediction"].sel(member=["a", "c"]), group=grid["net"])
    without = grid["prediction"].where(grid["member"] != "b")
    with pytest.warns(UserWarning, match="'b' is empty"):
        same = be.predict(bma, without, group=grid["net"])
    xr.testing.assert_identical(found, same)
    with pytest.warns(UserWarning, match="as in a new group"):
        be.predict(bma, grid)


@pytest.mark.parametrize("options", [{}, {"transform": "log"}])
def test_a_few_numbers_may_be_asked_for_and_no_quantiles(fits, options):
    grid = region()["prediction"]
    fit = fits("BMA", {"group": False} | options)
    found = be.predict(fit, grid, quantiles=[], variables=["sd"])
    assert list(found.data_vars) == ["sd"]
    np.testing.assert_allclose(found["sd"], be.predict(fit, grid)["sd"], rtol=1e-9)
    with pytest.raises(UnknownName, match=r"no variable 'spread' in a prediction; did you mean 'sd'"):
        be.predict(fit, grid, variables=["spread"])
