"""Members on grids: cells are what the rows of a table of them are, whatever the dimensions, chunks and files."""

import warnings

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.dummy import DummyRegressor
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.linear_model import LinearRegression
from sklearn.neighbors import KNeighborsRegressor

import bayesens as be
from bayesens.members.fitted import FittedMembers, MemberError
from bayesens.members.members import Members

QUIET = {"progressbar": False}
TIMES, SOUTH, EAST = 3, 5, 7
pytestmark = pytest.mark.filterwarnings("ignore:covariates are missing throughout")


def training(n=400, seed=1):
    """A table with gaps in one covariate, and units."""
    rng = np.random.default_rng(seed)
    X = pd.DataFrame({"rain": rng.gamma(2.0, size=n), "dem": 100 * rng.random(n), "heat": rng.normal(size=n),
                      "month": rng.integers(1, 13, n), "lon": 100 + 5 * rng.random(n)})  # fmt: skip
    y = 0.1 * X["rain"] + np.sin(X["heat"]) + 0.002 * X["dem"] + 0.05 * X["month"] + rng.normal(0, 0.1, n)
    X.loc[rng.random(n) < 0.1, "heat"] = np.nan
    X.attrs["units"] = {"rain": "mm", "dem": "m"}
    return X, y, np.arange(n) % 20


def trained(estimators=None, **options):
    X, y, site = training()
    return Members(be.default_estimators(random_seed=1) if estimators is None else estimators, X, y, site=site, units="mm",
                   **options).fit(random_seed=1, **QUIET)  # fmt: skip


@pytest.fixture(scope="module")
def fitted():
    return trained()


@pytest.fixture(scope="module")
def linear():
    X, y, site = training()
    only = {"mlr": be.default_estimators()["mlr"]}
    return Members(only, X[["rain", "dem", "heat"]], y, site=site).fit(**QUIET)


def region(seed=2):
    """Covariates on three, two and one dimensions; a sea without rain, heat and height."""
    rng = np.random.default_rng(seed)
    dims = ("time", "lat", "lon")
    rain = rng.gamma(2.0, size=(TIMES, SOUTH, EAST))
    heat = np.where(rng.random(rain.shape) < 0.2, np.nan, rng.normal(size=rain.shape))
    sea = np.zeros((SOUTH, EAST), dtype=bool)
    sea[:2, :2] = True
    return xr.Dataset(
        {
            "dem": (("lat", "lon"), np.where(sea, np.nan, 100 * rng.random((SOUTH, EAST))), {"units": "m"}),
            "rain": (dims, np.where(sea, np.nan, rain), {"units": "mm", "grid_mapping": "crs"}),
            "heat": (dims, np.where(sea, np.nan, heat)),
            "unused": ("layer", [1.0, 2.0]),
        },
        {"time": pd.date_range("2020-01-30", periods=TIMES), "lat": np.linspace(50.0, 48.0, SOUTH),
         "lon": 100 + np.linspace(0, 5, EAST), "crs": 0},
    )  # fmt: skip


def as_table(grid):
    """The same cells as rows, by pandas."""
    cells = grid[["rain", "heat", "dem"]].to_dataframe(dim_order=["time", "lat", "lon"]).reset_index()
    return cells.assign(month=cells["time"].dt.month)


def laid_out(table):
    return table.to_numpy().reshape(TIMES, SOUTH, EAST, -1)


def test_cells_are_the_rows_of_a_table(fitted):
    grid = region()
    found = fitted.predict(grid)
    rows = laid_out(fitted.predict(as_table(grid)))
    assert found.name == "prediction"
    assert found.dims == ("time", "lat", "lon", "member")
    assert found["member"].values.tolist() == ["rf", "mlr", "svr", "xgb"]
    assert found.attrs["units"] == "mm"
    assert found.attrs["grid_mapping"] == "crs"
    assert found.attrs["from_dates"] == "month"
    assert set(found.coords) == {"time", "lat", "lon", "crs", "member"}
    np.testing.assert_allclose(found, rows, atol=1e-5 * training()[1].std(), rtol=0)


def test_cells_without_any_covariate_and_those_that_are_not_wanted_are_nan():
    X, y, site = training()
    fitted = Members(be.default_estimators(random_seed=1), X[["rain", "dem", "heat"]], y, site=site).fit(**QUIET)
    grid = region()
    sea = grid["dem"].isnull()
    found = fitted.predict(grid)
    np.testing.assert_array_equal(found.isnull(), sea.broadcast_like(found))
    where = (grid["rain"] > 1.0) & (grid["lat"] > 48.6)
    some = fitted.predict(grid, where=where)
    xr.testing.assert_identical(some, found.where(where).transpose(*found.dims))


def test_chunks_schedulers_and_order_of_the_dimensions_change_nothing(fitted):
    grid = region()
    whole = fitted.predict(grid)
    for chunks in ({"time": 1, "lat": 2}, {"lon": 3}, {}):
        lazy = fitted.predict(grid.chunk(chunks))
        assert lazy.chunks is not None
        assert {dim: size for dim, size in lazy.chunksizes.items() if dim in chunks} == {
            dim: grid.chunk(chunks).chunksizes[dim] for dim in chunks
        }
        for scheduler in ("synchronous", "threads"):
            xr.testing.assert_allclose(lazy.compute(scheduler=scheduler), whole, rtol=1e-12)
    some = fitted.predict(grid.assign(rain=grid["rain"].chunk(time=1)))
    xr.testing.assert_allclose(some.compute(), whole, rtol=1e-12)
    turned = fitted.predict(grid.transpose("lon", "layer", "time", "lat"))
    assert turned.dims == ("lon", "time", "lat", "member")
    xr.testing.assert_allclose(turned.transpose(*whole.dims), whole, rtol=1e-12)


@pytest.mark.slow
def test_other_processes_change_nothing(fitted):
    """Compiled forms and boosters get there, too."""
    grid = region()
    lazy = fitted.predict(grid.chunk(time=2))
    xr.testing.assert_allclose(lazy.compute(scheduler="processes"), fitted.predict(grid), rtol=1e-12)


@pytest.mark.filterwarnings("ignore:covariate .* is far outside of the range:UserWarning")
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_any_dimensions_of_any_variable(linear, data):
    """Each covariate on some of the dimensions in some order, in memory or in chunks, of any kind of number."""
    sizes = {dim: data.draw(st.integers(1, 4)) for dim in ("t", "y", "x")}
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    grid = xr.Dataset()
    for name in linear.covariates:
        dims = data.draw(st.permutations(list(sizes)))[: data.draw(st.integers(0, 3))]
        values = rng.normal(size=[sizes[dim] for dim in dims]) * 10
        kind = data.draw(st.sampled_from([np.float64, np.float32, np.int16]))
        if kind != np.int16:
            values = np.where(rng.random(values.shape) < 0.2, np.nan, values)
        grid[name] = (dims, values.astype(kind))
        if dims and data.draw(st.booleans()):
            grid[name] = grid[name].chunk({dims[0]: data.draw(st.integers(1, 3))})
    found = linear.predict(grid)
    dims = list(found.dims[:-1])
    assert set(dims) == set(grid.dims)
    cells = xr.broadcast(grid.compute())[0]
    columns = {name: cells[name].transpose(*dims).values.reshape(-1) for name in linear.covariates}
    wanted = linear.predict(pd.DataFrame(columns)).to_numpy().reshape(found.shape)
    np.testing.assert_allclose(found, wanted, rtol=1e-6 if found.dtype == np.float32 else 1e-12, atol=1e-6)


def test_blocks_of_cells_change_nothing(fitted, monkeypatch):
    grid = region()
    whole = fitted.predict(grid, where=grid["rain"] > 1.0)
    monkeypatch.setattr("bayesens.members.grids.predict.BLOCK", 11)
    xr.testing.assert_allclose(fitted.predict(grid, where=grid["rain"] > 1.0), whole, rtol=1e-12)


def test_single_precision_stays_single_and_one_double_variable_makes_it_double(fitted):
    grid = region()
    single = grid.astype(np.float32)
    found = fitted.predict(single)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, laid_out(fitted.predict(as_table(single))), atol=1e-5)
    assert fitted.predict(single.assign(dem=grid["dem"])).dtype == np.float64
    assert fitted.predict(single.chunk(time=1)).dtype == np.float32


@pytest.mark.parametrize("lazy", [False, True])
def test_packed_numbers_are_unpacked_and_codes_are_read_or_refused(fitted, lazy):
    grid = region()
    grid["rain"] = grid["rain"].round(2)
    whole = fitted.predict(grid)
    rain = (grid["rain"] * 100).fillna(-32768).round().astype(np.int16)
    packed = grid.assign(rain=rain.assign_attrs(scale_factor=0.01, _FillValue=np.int16(-32768), units="mm"))
    coded = grid.assign(rain=grid["rain"].fillna(-9999.0))
    if lazy:
        packed, coded = packed.chunk(time=1), coded.chunk(time=1)
    np.testing.assert_allclose(fitted.predict(packed), whole, rtol=1e-5)
    with pytest.raises(ValueError, match=r"'rain' holds -9999"):
        fitted.predict(coded).compute()
    for missing in (-9999, {"rain": -9999}, {"*": [-9999]}):
        xr.testing.assert_allclose(fitted.predict(coded, missing=missing).compute(), whole, rtol=1e-12)
    endless = (grid if not lazy else grid.chunk()).assign(dem=grid["dem"].fillna(np.inf))
    with pytest.raises(ValueError, match=r"'dem' is infinite in 4 of 35 cells"):
        fitted.predict(endless).compute()


def test_dates_and_places_may_have_other_names(fitted):
    grid = region()
    whole = fitted.predict(grid)
    other = grid.rename(time="day", lon="x")
    found = fitted.predict(other, time="day", lon="x")
    np.testing.assert_array_equal(found, whole)
    given = fitted.predict(other, time=other["day"], lon=other["x"])
    xr.testing.assert_identical(given, found)
    own = grid.assign(month=("time", [1.0, 1.0, 2.0]))  # a variable goes before what dates say
    assert "from_dates" not in fitted.predict(own).attrs
    late = fitted.predict(grid.assign(month=("time", [7.0, 7.0, 7.0])))
    assert not np.allclose(late.sel(member="mlr"), whole.sel(member="mlr"), equal_nan=True)


def test_products_are_passed_through():
    X, y, site = training()
    other = X.assign(gldas=y + 0.1)
    fitted = Members(
        {"mlr": LinearRegression()}, other[["rain", "gldas"]], y, site=site, products=["gldas"], units="mm"
    ).fit(**QUIET)
    grid = region()
    grid["gldas"] = (("lat", "lon"), np.arange(35.0).reshape(SOUTH, EAST), {"units": "mm"})
    found = fitted.predict(grid)
    assert found["member"].values.tolist() == ["mlr", "gldas"]
    np.testing.assert_array_equal(found.sel(member="gldas"), np.broadcast_to(grid["gldas"], (TIMES, SOUTH, EAST)))
    assert bool(found.sel(member="mlr").isel(lat=0, lon=0).isnull().all())
    alone = Members({}, other[["gldas"]], y, site=site, products=["gldas"]).fit(**QUIET)
    np.testing.assert_array_equal(alone.predict(grid)[..., 0], grid["gldas"])
    with pytest.raises(ValueError, match=r"product 'gldas' is in 'm' and in the members in 'mm'; convert it"):
        fitted.predict(grid.assign(gldas=grid["gldas"].assign_attrs(units="m")))


def regional(blend=None):
    X, y, site = training(n=900)
    where = np.where(site < 8, "west", "east")
    place = {"lon": 100.0 + site, "lat": 48.0 + 0 * site} if blend else {}
    return Members({"mlr": LinearRegression(), "mean": DummyRegressor()}, X[["rain", "dem"]], y, site=site, by=where, blend=blend,
                   **place).fit(**QUIET)  # fmt: skip


def test_fits_of_regions_by_label_membership_and_distance():
    grid = region().isel(time=0, drop=True)
    cells = grid[["rain", "dem"]].to_dataframe(dim_order=["lat", "lon"]).reset_index()
    label = np.where(cells["lon"] < 102, "west", np.where(cells["lon"] < 104, "east", "north"))
    fitted = regional()
    grid["part"] = (("lat", "lon"), label.reshape(SOUTH, EAST))
    rows = fitted.predict(cells, region=label).to_numpy()
    np.testing.assert_allclose(fitted.predict(grid, region="part").values.reshape(rows.shape), rows, rtol=1e-12)
    lazy = fitted.predict(grid.chunk(lat=2), region=grid["part"])
    np.testing.assert_allclose(lazy.values.reshape(rows.shape), rows, rtol=1e-12)
    share = np.random.default_rng(1).random(len(cells))
    soft = pd.DataFrame({"west": share, "east": 1 - share})
    maps = xr.DataArray(soft.to_numpy().reshape(SOUTH, EAST, 2), {"region": ["west", "east"]}, ("lat", "lon", "region"))
    rows = fitted.predict(cells, membership=soft).to_numpy()
    for own in (maps, maps.transpose("region", "lon", "lat"), maps.chunk(region=1, lat=2)):
        np.testing.assert_allclose(fitted.predict(grid, membership=own).values.reshape(rows.shape), rows, rtol=1e-12)
    near = regional(blend=50.0)
    rows = near.predict(cells, lon="lon", lat="lat").to_numpy()
    np.testing.assert_allclose(near.predict(grid).values.reshape(rows.shape), rows, rtol=1e-12)
    with pytest.raises(ValueError, match=r"wanted region=... for the cells"):
        fitted.predict(grid)
    with pytest.raises(ValueError, match=r"the grid has no 'lat'; wanted the places of the cells: lon=..., lat=..."):
        near.predict(grid.rename(lat="y"))
    with pytest.raises(ValueError, match=r"wanted one more, 'region', with the names 'east', 'west' as its coordinate"):
        fitted.predict(grid, membership=maps.isel(region=0, drop=True))


@pytest.mark.parametrize(
    "estimator", [KNeighborsRegressor(3), GradientBoostingRegressor(n_estimators=5), DummyRegressor()]
)
def test_estimators_of_ones_own(estimator):
    X, y, site = training()
    fitted = Members({"own": estimator}, X[["rain", "dem"]], y, site=site).fit(random_seed=1, **QUIET)
    grid = region()
    rows = fitted.predict(as_table(grid))
    np.testing.assert_allclose(fitted.predict(grid), laid_out(rows), rtol=1e-12)


def test_an_estimator_that_refuses_missing_covariates_does_so_here():
    X, y, site = training()
    fitted = Members({"own": KNeighborsRegressor(3)}, X[["rain", "lon"]], y, site=site).fit(**QUIET)
    grid = region()
    for some in (grid, as_table(grid)):
        with pytest.raises(MemberError, match=r"'own' failed in the fit to all rows(?s:.*)SimpleImputer"):
            fitted.predict(some)
    assert int(fitted.predict(grid, where=grid["rain"].notnull()).isnull().sum()) == TIMES * 4


def test_what_does_not_fit_is_refused_with_a_sentence(fitted):
    grid = region()
    with pytest.raises(KeyError, match=r"no covariate 'heat' in the grid \(lat: 5, .*\); did you mean 'hea'"):
        fitted.predict(grid.rename(heat="hea"))
    with pytest.raises(KeyError, match="no covariate 'month'") as caught:
        fitted.predict(grid.rename(time="day"))
    assert "name them: time=..." in caught.value.__notes__[0]
    with pytest.raises(TypeError, match="'time' has dtype int64; wanted dates"):
        fitted.predict(grid.assign_coords(time=[1, 2, 3]))
    with pytest.raises(
        ValueError, match=r"'rain' is in 'm' and in the training table in 'mm'; convert it, and say so: grid"
    ):
        fitted.predict(grid.assign(rain=grid["rain"].assign_attrs(units="m")))
    with pytest.raises(
        TypeError, match=r"'dem' of the grid has dtype bool; wanted numbers: grid\['dem'\].astype\(float\)"
    ):
        fitted.predict(grid.assign(dem=grid["dem"] > 50))
    with pytest.raises(ValueError, match="have the dimension 'member'"):
        fitted.predict(grid.assign(dem=grid["dem"].expand_dims(member=2)))
    with pytest.raises(ValueError, match="'where' has the dimension 'layer'; wanted some of those of the grid, 'time'"):
        fitted.predict(grid, where=grid["unused"] > 1)
    with pytest.raises(TypeError, match="where= has dtype float64; wanted True or False"):
        fitted.predict(grid, where=grid["dem"])
    with pytest.raises(ValueError, match="'where' has other coordinates"):
        fitted.predict(grid, where=(grid["dem"] > 0).assign_coords(lat=np.arange(5.0)))
    with pytest.raises(TypeError, match="lon= is the name of a variable or a DataArray; got ndarray"):
        fitted.predict(grid, lon=np.arange(7.0))
    with pytest.raises(KeyError, match="no variable 'daet' in the grid"):
        fitted.predict(grid, time="daet")
    with pytest.raises(KeyError, match=r"no variable 'rian' in the grid.*did you mean 'rain'"):
        fitted.predict(grid, missing={"rian": -9999})
    with pytest.raises(TypeError, match="predict has 'where' for grids alone, and got a DataFrame"):
        fitted.predict(as_table(grid), where=grid["dem"] > 0)
    with pytest.raises(TypeError, match=r"X is DataArray; wanted a pandas.DataFrame .* or an xarray.Dataset"):
        fitted.predict(grid["rain"])


def test_units_are_kept_in_files(fitted, tmp_path):
    fitted.save(tmp_path / "members")
    again = FittedMembers.load(tmp_path / "members")
    assert again.covariate_units == {"rain": "mm", "dem": "m"}
    xr.testing.assert_identical(again.predict(region()), fitted.predict(region()))


def test_the_area_of_applicability_lies_on_the_same_cells(fitted):
    X, _, site = training()
    area = be.applicability.applicability(X[["rain", "dem"]], fold=site % 5, **QUIET)
    grid = region()
    beside = area.grid(grid).assign(prediction=fitted.predict(grid))
    assert {"prediction", "inside"} <= {*beside}
    assert dict(beside["inside"].sizes) == {"time": TIMES, "lat": SOUTH, "lon": EAST}


def test_longitudes_that_are_counted_in_another_way_are_refused():
    rng = np.random.default_rng(1)
    X = pd.DataFrame({"lon": rng.uniform(-12, -8, 60), "rain": rng.gamma(2.0, size=60)})
    fitted = Members({"mlr": LinearRegression()}, X, X["lon"] + X["rain"], site=np.arange(60) % 6).fit(**QUIET)
    grid = xr.Dataset({"rain": (("lat", "lon"), np.ones((2, 3)))}, {"lat": [1.0, 0.0], "lon": [-11.0, -10.0, -9.0]})
    wanted = fitted.predict(grid)
    turned = grid.assign_coords(lon=grid["lon"] % 360)
    with pytest.raises(ValueError, match=r"covariate 'lon' .* 'lon' are 349 to 351 .* turn them, \(lon \+ 180\) % 360"):
        fitted.predict(turned)
    again = turned.assign_coords(lon=(turned["lon"] + 180) % 360 - 180).sortby("lon")
    xr.testing.assert_allclose(fitted.predict(again), wanted)


@pytest.mark.parametrize("chunks", [None, {"lat": 2}])
def test_covariates_far_outside_of_the_training_rows_are_told_once(fitted, chunks, tmp_path):
    grid = region()
    grid["dem"] = grid["dem"] * 1000
    cells = grid if chunks is None else grid.chunk(chunks)
    fitted.save(tmp_path / "members")
    low, high = fitted.covariate_ranges["dem"]
    text = ("covariate 'dem' is far outside of the range that the members were trained on, "
            f"{low:.4g} to {high:.4g}; if it is in another unit here, convert it by 'dem' * 0.001")  # fmt: skip
    for members in (fitted, FittedMembers.load(tmp_path / "members")):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            members.predict(cells).compute()
        assert [str(one.message) for one in caught] == [text]
