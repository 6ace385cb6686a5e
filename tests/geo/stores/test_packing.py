"""Packed numbers: off by half a step at most, never wrapped; chosen without a pass over the maps."""

import numpy as np
import pytest
import rasterio
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import bayesens as be
from bayesens.geo.stores.packing import FILL, Packing, packings

FINITE = st.floats(-1e12, 1e12)


@settings(deadline=None, max_examples=200)
@given(st.tuples(FINITE, FINITE).map(sorted))
def test_a_range_is_held(ends):
    low, high = ends
    packing = Packing.over(low, high)
    numbers, clipped = packing.pack(np.array([low, high]))
    assert not clipped.any()
    assert np.all(
        np.abs(packing.unpack(numbers) - [low, high])
        <= packing.scale / 2 * (1 + 1e-6) + 1e-12 * max(abs(low), abs(high))
    )
    wide = (high - low) or max(abs(high), 1.0)
    assert packing.scale <= 5.01 * wide / 65534 * 1.5  # not much coarser than it must be


@settings(deadline=None, max_examples=200)
@given(
    arrays(np.float64, 20, elements=st.floats(allow_nan=True, allow_infinity=True)),
    st.floats(1e-6, 1e3),
    st.floats(-1e3, 1e3),
)
def test_nothing_wraps(values, scale, offset):
    packing = Packing(scale, offset)
    numbers, clipped = packing.pack(values)
    back = packing.unpack(numbers)
    np.testing.assert_array_equal(np.isnan(back), np.isnan(values))
    low, high = packing.limits
    beyond = (values > high + scale / 2) | (values < low - scale / 2)
    assert np.all(clipped[beyond])
    inside = ~clipped & ~np.isnan(values)
    assert np.all(np.abs(back[inside] - values[inside]) <= scale / 2 * (1 + 1e-9) + 1e-9)
    assert np.all(np.isin(numbers[clipped], [-32767, 32767]))


def test_zero_stays_zero():
    for ends in ((0.0, 1.0), (-0.3, 7.1), (-2.0, 312.4)):
        packing = Packing.over(*ends)
        assert packing.unpack(packing.pack(np.zeros(1))[0])[0] == pytest.approx(0.0, abs=1e-12 * ends[1])


def maps(rng, low=0.0, high=0.5, shape=(2, 20, 30)):
    dims = ("time", "lat", "lon")
    values = rng.uniform(low, high, shape).astype(np.float32)
    values[:, :2] = np.nan
    return xr.Dataset(
        {"mean": (dims, values, {"units": "m3 m-3"}), "sd": (dims, values / 5),
         "quantile_value": (("quantile", *dims), values[None] - 0.1),
         "probability_below": (("threshold", *dims), rng.uniform(size=(1, *shape)).astype(np.float32))},
        {"time": [0, 1], "lat": 50.0 - np.arange(shape[1]), "lon": np.arange(shape[2], dtype=float), "quantile": [0.05],
         "threshold": [0.2]},
    )  # fmt: skip


def fit(low=0.02, high=0.48):
    observed = xr.Dataset({"y": ("obs", [low, high])})
    tree = xr.DataTree.from_dict({"/posterior": xr.Dataset({"sigma": 1.0}), "/observed_data": observed})
    tree.attrs = {"bayesens_model": "BMA", "bayesens_members": '["a"]', "bayesens_options": "{}"}
    tree.attrs["member_range"] = '{"a": [0.01, 0.5]}'
    return tree


@pytest.mark.parametrize("suffix", [".zarr", ".nc", ""])
def test_packed_maps(tmp_path, suffix):
    given = maps(np.random.default_rng(0))
    path = tmp_path / f"soil{suffix}"
    be.write_map(given, path, fit=fit(), crs="EPSG:4326", packed=True, progressbar=False)
    if suffix:
        engine = "zarr" if suffix == ".zarr" else "h5netcdf"
        with xr.open_dataset(path, engine=engine) as back, xr.open_dataset(path, engine=engine, decode_cf=False) as raw:
            for name in given.data_vars:
                assert raw[name].dtype == np.int16
                error = float(np.abs(back[name] - given[name]).max())
                assert error <= raw[name].attrs["packing_error"] * 1.001
                assert raw[name].attrs["packing_error"] == raw[name].attrs["scale_factor"] / 2
                np.testing.assert_array_equal(np.isnan(back[name]), np.isnan(given[name]))
            assert raw["mean"].attrs["scale_factor"] == 2e-5  # a range of 0.98 in 65,534 steps, rounded up
            assert raw["mean"].attrs["_FillValue"] == FILL
        return
    with rasterio.open(path / "soil_1.tif") as file:
        assert set(file.dtypes) == {"int16"}
        assert file.nodata == FILL
        values = file.read(1, masked=True) * file.scales[0] + file.offsets[0]
        np.testing.assert_array_equal(np.ma.getmaskarray(values), np.isnan(given["mean"].values[1]))
        assert np.abs(values - given["mean"].values[1]).max() <= 1.001 * file.scales[0] / 2
        assert file.scales[-1] == 1.0
        assert (file.read(file.count)[:2] == 8).all()  # no value


def test_clipped_cells_are_counted_flagged_and_told(tmp_path):
    given = maps(np.random.default_rng(0))
    given["mean"][0, 5, 5], given["mean"][1, 6, 6] = 1e9, -np.inf
    for suffix in (".zarr", ".nc", ""):
        path = tmp_path / f"soil{suffix}"
        with pytest.warns(
            UserWarning, match=r"2 of 1200 numbers of 'mean' lay beyond .* give it a wider packed=\{'mean': "
        ):
            found = be.write_map(given, path, crs="EPSG:4326", packed={"mean": (1e-5, 0.25)}, progressbar=False)
        assert found.clipped == {"mean": 2}
        if suffix:
            with xr.open_dataset(path, engine="zarr" if suffix == ".zarr" else "h5netcdf") as back:
                assert int(back["mean"].attrs["clipped_cells"]) == 2
                assert sorted(np.argwhere((back["quality"].values & 16) > 0).tolist()) == [[0, 5, 5], [1, 6, 6]]
                assert float(back["mean"][0, 5, 5]) == pytest.approx(0.25 + 32767e-5)
                assert float(back["mean"][1, 6, 6]) == pytest.approx(0.25 - 32767e-5)
                assert back["sd"].dtype == np.float32  # no fit and no word of it: as it was
        else:
            with rasterio.open(path / "soil_0.tif") as file:
                assert file.dtypes[0] == "float32"  # one type a file: what is packed beside others is unpacked
                assert file.read(1)[5, 5] == pytest.approx(0.25 + 32767e-5)
                assert file.tags(1)["clipped_cells"] == "2"


def test_what_packing_asks_for():
    given = maps(np.random.default_rng(0))
    names = list(given.data_vars)
    with pytest.raises(ValueError, match="takes the ranges of 'mean' and others from the fit, and fit= was not given"):
        packings(given, names, True, None)
    with pytest.raises(KeyError, match="no variable to pack 'maen' in the maps; did you mean 'mean'"):
        packings(given, names, {"maen": (1, 0)}, None)
    with pytest.raises(TypeError, match=r"packed\['mean'\] is 0.1; wanted \(scale, offset\)"):
        packings(given, names, {"mean": 0.1}, None)
    with pytest.raises(ValueError, match="a finite scale above zero"):
        packings(given, names, {"mean": (0.0, 1.0)}, None)
    found = packings(given, names, {"mean": (0.5, 1.0)}, fit())
    assert found["mean"] == Packing(0.5, 1.0)
    assert found["probability_below"].limits[0] <= 0.0
    assert found["sd"].limits[0] <= 0.0
    assert list(packings(given, names, {"mean": (0.5, 1.0)}, None)) == ["mean", "probability_below"]
    assert packings(given, names, False, fit()) == {}
