"""Grids as they come: what is wrong with them is told, with the next move, whether they lie in memory or in files."""

import warnings

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import bayesens as be

MEMBERS = ["a", "b"]


@pytest.fixture(scope="module")
def fit():
    """A fit in mm, with two groups, of rows west of Greenwich; the bias follows the longitude."""
    rng = np.random.default_rng(5)
    truth = rng.gamma(4.0, 1.0, 80)
    frame = pd.DataFrame({"a": truth + rng.normal(0, 0.3, 80), "b": truth + rng.normal(0, 0.5, 80), "y": truth})
    frame = frame.assign(net=np.where(np.arange(80) < 40, "g0", "g1"), lon=rng.uniform(-12, -8, 80), lat=51.0)
    table = be.Ensemble.from_frame(
        frame, members=MEMBERS, observation="y", group="net", lon="lon", lat="lat", units="mm"
    )
    model = be.BMA(group=True, site=False, bias_covariates=("lon",))
    return be.fit(model, table, method="laplace", draws=20, random_seed=1)


def region(shape=(2, 4, 5)):
    rng = np.random.default_rng(6)
    dims = ("time", "lat", "lon")
    values = rng.gamma(4.0, 1.0, shape)[..., None] + rng.normal(0.0, 0.3, (*shape, 2))
    coords = {
        "time": np.arange(shape[0]),
        "lat": np.linspace(52.0, 50.0, shape[1]),
        "lon": np.linspace(-12.0, -8.0, shape[2]),
    }
    grid = xr.Dataset({"prediction": ((*dims, "member"), values)}, coords | {"member": MEMBERS})
    return grid.assign(net=(("lat", "lon"), np.full(shape[1:], "g0")))


def said(fit, grid, **options):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = be.predict(fit, grid, **{"group": "net", "lon": "lon"} | options).compute()
    return found, [str(one.message) for one in caught]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda g: g.assign_coords(member=["a", "a"]), r"has 'a' more than once, among 'a', 'a'; wanted each once"),
        (lambda g: g.rename(member="model"), r"Its dimension 'model' has their names: rename\(\{'model': 'member'\}\)"),
        (lambda g: g["prediction"].rename(member="band").rename("rain").to_dataset().assign(net=g["net"]),
         r"rename\(\{'band': 'member', 'rain': 'prediction'\}\)"),
        (lambda g: g.isel(member=0), "It was cut to the member 'a': give all of them, along a dimension 'member'"),
        (lambda g: g.isel(member=0, drop=True), "An array of predictions has a dimension 'member' with their names"),
        (lambda g: g.assign_coords(member=["A", "B"]), "none of the members of the fit, 'a', 'b'; it has 'A', 'B'"),
        (lambda g: g.assign_coords(lon=g["lon"] % 360), r"its 'lon' are 348 to 352 .* turn them, \(lon \+ 180\) % 360 - 180"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused_with_the_next_move(fit, change, words):
    with pytest.raises(ValueError, match=words):
        be.predict(fit, change(region()), group="net", lon="lon")


def test_the_move_that_is_named_is_the_right_one(fit):
    grid = region()
    wanted, none = said(fit, grid)
    assert none == []
    renamed = grid.rename(member="model").rename({"model": "member"})
    turned = grid.assign_coords(lon=grid["lon"] % 360)
    turned = turned.assign_coords(lon=(turned["lon"] + 180) % 360 - 180).sortby("lon")
    for same in (renamed, turned, grid.isel(member=[1, 0])):
        xr.testing.assert_allclose(said(fit, same)[0], wanted, rtol=1e-12)


@pytest.mark.parametrize("form", ["array", "variables"])
def test_members_that_lack_name_those_that_may_be_meant(fit, form):
    grid = region()
    if form == "array":
        grid = grid.assign_coords(member=["a", "B"])
    else:
        grid = grid["prediction"].to_dataset("member").rename(b="B").assign(net=grid["net"])
    texts = said(fit, grid)[1]
    assert texts[0].endswith("missing in all cells. It has 'B', which the fit does not know: rename what is meant.")


def test_a_grid_with_north_at_the_end_is_the_same_turned_over(fit):
    grid = region()
    wanted = said(fit, grid)[0]
    south = grid.isel(lat=slice(None, None, -1))
    np.testing.assert_array_equal(said(fit, south)[0]["mean"], wanted["mean"].isel(lat=slice(None, None, -1)))
    mask = xr.ones_like(grid["net"], dtype=bool)
    words = r"'where' has other coordinates than the grid; its 'lat' are .* another order: .* sel\(lat=grid\['lat'\]\)"
    with pytest.raises(ValueError, match=words):
        be.predict(fit, south, group="net", lon="lon", where=mask)
    assert said(fit, south, where=mask.sel(lat=south["lat"]))[1] == []


def test_thresholds_in_another_unit_are_refused(fit):
    grid = region()
    wilting = xr.full_like(grid["net"], 0.2, dtype=float).assign_attrs(units="m")
    with pytest.raises(ValueError, match="below= has a map in 'm' and the fit is in 'mm'; convert the map to 'mm'"):
        be.predict(fit, grid, group="net", lon="lon", below=[3.0, wilting])
    assert said(fit, grid, below=[3.0, wilting.assign_attrs(units="mm")])[1] == []


@pytest.mark.parametrize("chunks", [None, {"time": 1}, {"lat": 2, "lon": 2}])
def test_members_in_another_unit_are_told_once_of_lazy_grids_too(fit, chunks):
    grid = region((2, 8, 8))
    grid["prediction"] = grid["prediction"] * 1000
    grid = grid if chunks is None else grid.assign(prediction=grid["prediction"].chunk(chunks))
    texts = said(fit, grid)[1]
    assert len(texts) == 2
    for name, text in zip(MEMBERS, texts, strict=True):
        assert text.startswith(f"member {name!r} is far outside of the range that the fit has seen, ")
        assert text.endswith(f"; if it is in another unit here, convert it by {name!r} * 0.001")
        assert ("in 128 of 128 cells" in text) == (chunks is None)


@pytest.mark.parametrize("lazy", [False, True])
def test_labels_that_are_not_known_are_told_of_lazy_grids_too(fit, lazy):
    grid = region().assign(net=(("lat", "lon"), np.full((4, 5), "elsewhere")))
    found, texts = said(fit, grid.chunk(lat=2) if lazy else grid)
    assert [("elsewhere" in text, "has not seen" in text) for text in texts] == [(not lazy, True)]
    xr.testing.assert_allclose(found, said(fit, grid.assign(net=(("lat", "lon"), np.full((4, 5), "x"))))[0])


def test_chunks_along_members_and_chunks_without_a_value(fit):
    grid = region()
    grid["prediction"][0] = np.nan
    wanted = said(fit, grid)[0]
    found, texts = said(fit, grid.chunk(time=1, member=1))
    assert texts == []
    xr.testing.assert_allclose(found, wanted)
    assert found["mean"][0].isnull().all()
    assert found["mean"][1].notnull().all()


@pytest.mark.parametrize("chunks", [None, {"lat": 2}])
def test_codes_in_what_biases_follow_are_refused_or_read(fit, chunks):
    """As in members and in tables: a height or a longitude of -9999 would move the prediction by thousands."""
    grid = region()
    wanted = said(fit, grid)[0]
    given = grid.assign(place=grid["lon"].broadcast_like(grid["net"]).copy())
    given["place"][0, 0] = -9999.0
    given = given if chunks is None else given.chunk(chunks)
    with pytest.raises(ValueError, match=r"'lon' holds -9999 in 1 of .*; read it as missing by missing=-9999"):
        said(fit, given, lon="place")
    for missing in (-9999, {"lon": -9999}):
        found = said(fit, given, lon="place", missing=missing)[0]
        assert found["mean"][:, 0, 0].isnull().all()
        np.testing.assert_allclose(found["mean"][:, 1:], wanted["mean"][:, 1:], rtol=1e-12)
    with pytest.raises(KeyError, match="no member or covariate 'lom' in the fit; did you mean 'lon'"):
        said(fit, given, lon="place", missing={"lom": -9999})


def test_what_biases_follow_is_told_where_it_is_far_from_the_rows_of_the_fit(fit):
    grid = region()
    texts = said(fit, grid.assign_coords(lon=grid["lon"] * 10))[1]
    assert len(texts) == 1
    assert texts[0].startswith("covariate 'lon' is far outside of the range that the rows of the fit have, -11.")
