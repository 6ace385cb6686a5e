"""Maps in one pass: what `predict` says of the members' predictions of a grid, some cells at a time."""

import tracemalloc

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from sklearn.tree import DecisionTreeRegressor

import bayesens as be

QUIET = {"progressbar": False}
TIMES, SOUTH, EAST = 3, 6, 8


pytestmark = pytest.mark.filterwarnings("ignore:.*far outside of the range:UserWarning")


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(1)
    n = 400
    X = pd.DataFrame({"rain": rng.gamma(2.0, size=n), "dem": 100 * rng.random(n), "month": rng.integers(1, 13, n)})
    y = 0.2 * X["rain"] + 0.01 * X["dem"] + rng.normal(0, 0.2, n)
    X["gldas"] = y + rng.normal(0, 0.3, n)
    return X.assign(y=y, station=np.arange(n) % 20, network=np.where(np.arange(n) % 20 < 10, "a", "b"))


def made(table, model, products=("gldas",)):
    """Members fitted to all rows, and what combines their predictions of rows that they have not seen."""
    estimators = {"mlr": be.default_estimators()["mlr"], "tree": DecisionTreeRegressor(min_samples_leaf=20)}
    members = be.Members(estimators, table.drop(columns=[] if products else ["gldas"]), "y", site="station", group="network",
                         products=list(products) or None, units="mm", keep=["dem"])  # fmt: skip
    ens = be.cross_fit(members, random_seed=1, **QUIET)
    return members.fit(random_seed=1, **QUIET), be.fit(model, ens, method="laplace", draws=50, random_seed=1, **QUIET)


@pytest.fixture(scope="module")
def bma(table):
    return made(table, be.BMA(bias_covariates=("dem",)))


def region(seed=2):
    rng = np.random.default_rng(seed)
    dims = ("time", "lat", "lon")
    rain = rng.gamma(2.0, size=(TIMES, SOUTH, EAST))
    rain[:, :2, :2] = np.nan
    return xr.Dataset(
        {
            "rain": (dims, rain, {"units": "mm"}),
            "dem": (("lat", "lon"), 100 * rng.random((SOUTH, EAST))),
            "gldas": (dims, rng.gamma(2.0, size=rain.shape), {"units": "mm"}),
            "net": (("lat", "lon"), np.where(rng.random((SOUTH, EAST)) < 0.5, "a", "b")),
        },
        {"time": pd.date_range("2020-01-30", periods=TIMES), "lat": np.linspace(50.0, 45.0, SOUTH),
         "lon": np.arange(100.0, 108.0)},
    )  # fmt: skip


def in_two_steps(members, fit, grid, **options):
    """The same by the two calls that it stands for."""
    where = options.get("where")
    prediction = members.predict(grid, where=where)
    return be.predict(fit, grid.assign(prediction=prediction), **options)


@pytest.mark.parametrize("block", [2**18, 50, 24])
def test_it_equals_the_two_calls(bma, monkeypatch, block):
    monkeypatch.setattr("bayesens.members.grids.mapping.BLOCK", block)
    grid = region()
    grid = grid.assign(wet=grid["dem"] / 50)
    for options in ({"group": "net"}, {"group": grid["net"], "where": grid["rain"].notnull(), "quantiles": [0.1, 0.9]},
                    {"group": "net", "below": [1.0, grid["wet"]]}):  # fmt: skip
        found = be.map(*bma, grid, **options, **QUIET)
        xr.testing.assert_allclose(found, in_two_steps(*bma, grid, **options), rtol=1e-12)
        assert found.attrs == in_two_steps(*bma, grid, **options).attrs
        assert found["mean"].dims == ("time", "lat", "lon")
        assert found["quantile_value"].dims[0] == "quantile"


def test_a_grid_of_dask_is_lazy_and_the_same(bma):
    grid = region()
    whole = be.map(*bma, grid, group="net", **QUIET)
    for chunks in ({"time": 1}, {"lat": 2, "lon": 3}):
        lazy = be.map(*bma, grid.chunk(chunks), group=grid["net"])
        assert lazy["mean"].chunks is not None
        xr.testing.assert_allclose(lazy.compute(), whole, rtol=1e-9)
    some = be.map(*bma, grid, group=grid["net"].chunk(lat=2))
    assert some["mean"].chunks is not None
    xr.testing.assert_allclose(some.compute(), whole, rtol=1e-9)


def test_single_precision_stays_single(bma):
    grid = region()
    single = grid.assign({name: grid[name].astype(np.float32) for name in ("rain", "dem", "gldas")})
    found = be.map(*bma, single, group="net", **QUIET)
    assert all(variable.dtype == np.float32 for variable in found.data_vars.values())


@pytest.mark.parametrize("method", ["nearest", "linear"])
@pytest.mark.parametrize("lazy", [False, True])
def test_products_on_other_grids_are_brought_to_the_cells(bma, monkeypatch, method, lazy):
    monkeypatch.setattr("bayesens.members.grids.mapping.BLOCK", 50)
    grid = region()
    rng = np.random.default_rng(3)
    coarse = xr.DataArray(rng.gamma(2.0, size=(TIMES, 4, 5)), {"time": grid["time"].values, "lat": [44.0, 47.0, 49.0, 51.0],
                          "lon": np.linspace(99.0, 108.0, 5)}, ("time", "lat", "lon"), attrs={"units": "mm"})  # fmt: skip
    brought = coarse.interp(lat=grid["lat"], lon=grid["lon"], method=method)
    whole = in_two_steps(*bma, grid.assign(gldas=brought), group="net")
    without = grid.drop_vars("gldas")
    given = coarse.to_dataset(name="gldas")
    cells = without.chunk(time=1, lat=4) if lazy else without
    found = be.map(*bma, cells, products=given, interpolate=method, group=grid["net"], **QUIET)
    assert found.attrs["products"] == f"gldas: {method} along lat, lon"
    if lazy:
        assert found["mean"].chunksizes["lat"] == (4, 2)
        assert found["mean"].chunksizes["time"] == (1, 1, 1)
    xr.testing.assert_allclose(found.compute(), whole.assign_attrs(found.attrs), rtol=1e-9)
    packed = (coarse * 100).round().astype(np.int16).assign_attrs(scale_factor=0.01)
    near = be.map(*bma, without, products={"gldas": packed}, interpolate=method, group="net", **QUIET)
    np.testing.assert_allclose(near["mean"], whole["mean"], atol=0.01)
    coded = coarse.where(coarse > 0.5, -9999.0)
    with pytest.raises(ValueError, match="'gldas' holds -9999"):
        be.map(*bma, without, products={"gldas": coded}, interpolate=method, group="net", **QUIET)
    gaps = be.map(
        *bma, without, products={"gldas": coarse.where(coarse > 0.5)}, interpolate=method, group="net", **QUIET
    )
    read = be.map(
        *bma, without, products={"gldas": coded}, missing={"gldas": -9999}, interpolate=method, group="net", **QUIET
    )
    xr.testing.assert_identical(gaps, read)


def test_a_member_of_the_fit_that_is_a_variable_of_the_grid_is_found(table):
    """The members were trained without the product; the fit has it."""
    _, fit = made(table, be.BMA(group=False, site=False))
    members, _ = made(table, be.BMA(group=False, site=False), products=())
    grid = region()
    found = be.map(members, fit, grid, **QUIET)
    array = xr.concat([members.predict(grid), grid["gldas"].expand_dims(member=["gldas"], axis=-1)], "member")
    xr.testing.assert_allclose(found, be.predict(fit, array), rtol=1e-12)


def test_a_grid_of_several_blocks_in_one_call(bma):
    """More cells than one block of members or of laws has: both share out their work to the same threads."""
    small = region()
    wide = xr.concat([small.drop_vars("lat")] * 1000, "lat")
    assert wide["rain"].size == 144_000
    many = be.map(*bma, wide, group="net", **QUIET)
    few = be.map(*bma, small.drop_vars("lat"), group="net", **QUIET)
    for name in ("mean", "sd", "quantile_value"):
        for at in (0, 499, 999):
            part = many[name].isel(lat=slice(at * SOUTH, (at + 1) * SOUTH))
            np.testing.assert_allclose(part, few[name].transpose(*part.dims), rtol=1e-9)


def test_predictions_of_members_are_never_held_for_the_whole_grid(bma, monkeypatch):
    """The map of 2e5 cells takes less beside itself than the predictions of its three members would."""
    monkeypatch.setattr("bayesens.members.grids.mapping.BLOCK", 10_000)
    n = 200_000
    rng = np.random.default_rng(1)
    grid = xr.Dataset({name: (("y", "x"), rng.gamma(2.0, size=(n // 500, 500)).astype(np.float32)) for name in
                       ("rain", "dem", "gldas", "month")})  # fmt: skip
    with pytest.warns(UserWarning, match="as in a new group"):
        be.map(*bma, grid.isel(y=slice(2)), **QUIET)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    with pytest.warns(UserWarning, match="as in a new group"):
        found = be.map(*bma, grid, quantiles=[0.5], where=xr.DataArray(np.arange(500) < 5, dims="x"), **QUIET)
    peak = tracemalloc.get_traced_memory()[1] - before - found.nbytes
    tracemalloc.stop()
    assert peak < 3 * 4 * n, f"{peak / n:.1f} bytes a cell"


def test_what_blocks_say_is_said_once(bma, monkeypatch):
    monkeypatch.setattr("bayesens.members.grids.mapping.BLOCK", 50)
    grid = region()
    with pytest.warns(
        UserWarning, match=r"In 3 of 3 blocks of cells .* every cell is predicted as in a new group"
    ) as said:
        be.map(*bma, grid, **QUIET)
    assert len(said) == 1
    odd = grid.assign(net=grid["net"].where(grid["dem"] > 50, "new"))
    with pytest.warns(UserWarning, match="are of one that the fit has not seen") as said:
        be.map(*bma, odd, group="net", **QUIET)
    assert len(said) == 1


def test_codes_in_covariates_are_read_or_refused(bma):
    grid = region()
    coded = grid.assign(rain=grid["rain"].fillna(-9999.0))
    with pytest.raises(ValueError, match="'rain' holds -9999"):
        be.map(*bma, coded, group="net", **QUIET)
    whole = be.map(*bma, grid, group="net", **QUIET)
    xr.testing.assert_identical(be.map(*bma, coded, group="net", missing={"rain": -9999}, **QUIET), whole)


def test_what_does_not_fit_is_refused_with_a_sentence(bma, table):
    members, fit = bma
    grid = region()
    coarse = grid["gldas"].isel(lat=slice(2))
    with pytest.raises(TypeError, match="members first and the fit second"):
        be.map(fit, members, grid)
    with pytest.raises(TypeError, match=r"members is dict; wanted FittedMembers.*be.Members\(...\).fit\(\)"):
        be.map({}, fit, grid)
    with pytest.raises(TypeError, match="in place of a fit"):
        be.map(members, be.BMA(), grid)
    with pytest.raises(TypeError, match=r"covariates is DataFrame; wanted an xarray.Dataset"):
        be.map(members, fit, table)
    with pytest.raises(TypeError, match=r"map\(\) got an unexpected keyword argument 'belov'. Did you mean 'below'"):
        be.map(members, fit, grid, belov=1.0)
    with pytest.raises(KeyError, match=r"no member 'gldaz' in the fit \(3 members\); did you mean 'gldas'"):
        be.map(members, fit, grid, products={"gldaz": coarse})
    with pytest.raises(ValueError, match="products= has 'mlr', which the members were trained to predict"):
        be.map(members, fit, grid, products={"mlr": coarse})
    with pytest.raises(KeyError, match="no method 'cubic' in interpolate"):
        be.map(members, fit, grid, products={"gldas": coarse}, interpolate="cubic")
    with pytest.raises(ValueError, match=r"product 'gldas' has the dimension 'level'; .* isel\(level=0\)"):
        be.map(members, fit, grid, products={"gldas": coarse.expand_dims("level")})
    with pytest.raises(ValueError, match=r"'gldas' has 2 cells along 'lat' and the grid 6.*assign_coords\(lat=...\)"):
        be.map(members, fit, grid, products={"gldas": coarse.drop_vars("lat")})
    with pytest.raises(ValueError, match="product 'gldas' is in 'm' and in the members in 'mm'"):
        be.map(members, fit, grid, products={"gldas": coarse.assign_attrs(units="m")})
    with pytest.raises(TypeError, match=r"product 'gldas' is list; wanted an xarray.DataArray"):
        be.map(members, fit, grid, products={"gldas": [1.0]})
    with pytest.raises(TypeError, match=r"products is DataArray; wanted arrays by the names of members"):
        be.map(members, fit, grid, products=coarse)
    with pytest.raises(KeyError, match="no covariate 'dem' in the grid"):
        be.map(members, fit, grid.drop_vars("dem"))


def elsewhere(grid, **shift):
    """A product on half as many longitudes, moved."""
    one = grid["gldas"].isel(lon=slice(None, None, 2))
    return {"gldas": one.assign_coords({dim: one[dim] + by for dim, by in shift.items()})}


@pytest.mark.parametrize(
    ("shift", "words"),
    [
        ({"lon": -360}, r"product 'gldas' does not lie on the grid; its 'lon' are -110 .* turn them, lon % 360"),
        ({"lat": 40}, r"has no cell of the grid: its 'lat' are 85.0 to 90.0 and those of the grid 45.0 to 50.0; give"),
    ],
)
def test_products_that_lie_elsewhere_are_refused(bma, shift, words):
    grid = region()
    grid = grid.assign_coords(lon=grid["lon"] + 150)  # 250 to 257
    with pytest.raises(ValueError, match=words):
        be.map(*bma, grid.drop_vars("gldas"), products=elsewhere(grid, **shift), **QUIET)


@pytest.mark.filterwarnings("ignore:.*as in a new group:UserWarning")
def test_products_may_go_northwards_where_the_grid_goes_southwards(bma):
    grid = region()
    turned = {"gldas": grid["gldas"].isel(lat=slice(None, None, -1))}
    found = be.map(*bma, grid.drop_vars("gldas"), products=turned, **QUIET)
    xr.testing.assert_allclose(found.drop_attrs(), be.map(*bma, grid, **QUIET).drop_attrs())


@pytest.mark.filterwarnings("ignore:.*as in a new group:UserWarning")
@pytest.mark.parametrize("lazy", [False, True])
def test_codes_are_read_for_members_and_for_the_biases_of_the_fit(bma, lazy):
    """The height is a covariate of the members, and what the biases follow: a cell without it has neither."""
    grid = region()
    grid["dem"][3, 3] = np.nan
    wanted = be.map(*bma, grid, **QUIET)
    coded = grid.fillna({"dem": -9999.0})
    coded = coded.chunk(lat=2) if lazy else coded
    for missing in (-9999, {"dem": -9999}, {"dem": -9999, "rain": -999}):
        xr.testing.assert_allclose(be.map(*bma, coded, missing=missing, **QUIET).compute(), wanted)
    assert wanted["mean"][:, 3, 3].isnull().all()
