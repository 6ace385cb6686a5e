"""A cell through time, errors by distance and the variability of maps show the numbers that were given."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy.stats import norm

mpl.use("Agg")
from matplotlib import pyplot as plt

import bayesens as be
from bayesens import plots

LEVELS = [0.05, 0.25, 0.5, 0.75, 0.95]
DAYS = pd.date_range("2016-02-05", periods=6)


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture
def maps():
    coords = {"time": DAYS, "lat": [-34.0, -34.1, -34.2], "lon": [146.0, 146.1, 146.2, 146.3]}
    mean = xr.DataArray(np.random.default_rng(1).uniform(0.1, 0.4, (6, 3, 4)), coords, ("time", "lat", "lon"))
    quantile = xr.concat([mean + 0.05 * norm.ppf(level) for level in LEVELS], "quantile").assign_coords(quantile=LEVELS)
    return xr.Dataset({"mean": mean, "quantile_value": quantile.assign_attrs(units="m3 m-3")})


def named(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


PLACE = {"lon": 146.12, "lat": -34.08}


class TestPixel:
    def test_the_nearest_cell_is_drawn(self, maps):
        cell = maps.sel(lat=-34.1, lon=146.1)
        for one in (maps, maps.isel(lat=slice(None, None, -1), time=slice(None, None, -1)), maps.chunk({"lat": 1})):
            ax = plots.pixel_series(one, PLACE)
            np.testing.assert_allclose(ax.lines[0].get_ydata(), cell["quantile_value"].sel(quantile=0.5))
            assert ax.get_ylabel() == "Prediction [m³ m⁻³]"
            # 0.02 degrees up, and as many to the side, where they are shorter by the cosine of 34 degrees.
            assert ax.get_xlabel() == "cell at lon 146.1°, lat -34.1°; its centre is 2.9 km from the place"
        assert np.hypot(2.224, 2.224 * np.cos(np.radians(34.09))) == pytest.approx(2.9, abs=0.05)

    def test_observations_inside_are_counted(self, maps):
        median = maps["mean"].sel(lat=-34.1, lon=146.1).to_numpy()
        off = np.array([0.0, 0.06, -0.3, 0.02, -0.06, np.nan])  # the intervals reach 0.034 and 0.082
        seen = pd.Series(median + off, DAYS)
        ax = plots.pixel_series(maps, PLACE, seen.sample(frac=1, random_state=1))
        assert named(ax)[-1] == "observation (4 of 5 within 90 %, 2 within 50 %)"
        np.testing.assert_allclose(ax.lines[1].get_ydata(), seen)

    def test_cells_of_two_dimensional_coordinates(self, maps):
        column, row = np.meshgrid(np.arange(4) * 12.0, np.arange(3) * 12.0)
        x, y = column - 0.3 * row, 100 + row + 0.3 * column
        places = {name: (("row", "col"), one, {"units": "km"}) for name, one in (("x", x), ("y", y))}
        flat = maps.drop_vars(["lat", "lon"]).rename(lat="row", lon="col").assign_coords(places)
        ax = plots.pixel_series(flat, {"x": x[1, 2] + 3, "y": y[1, 2] + 4})
        np.testing.assert_allclose(ax.lines[0].get_ydata(), maps["mean"][:, 1, 2])
        assert ax.get_xlabel() == f"cell at x {x[1, 2]:.6g}, y {y[1, 2]:.6g}; its centre is 5 km from the place"

    def test_an_ensemble_has_place_and_observations(self, maps):
        frame = pd.DataFrame({"rf": 0.2, "sm": 0.2, "s": "y1", "lon": 146.12, "lat": -34.08, "t": DAYS[1:]})
        made = {"members": ["rf"], "observation": "sm", "site": "s", "time": "t", "lon": "lon", "lat": "lat"}
        ax = plots.pixel_series(maps, None, be.Ensemble.from_frame(frame, **made))
        assert " of 5 within 90 %" in named(ax)[-1]
        two = pd.concat([frame, frame.assign(s="y2")])
        with pytest.raises(ValueError, match=r"2 sites, and one is drawn; select it: ensemble\.select\(.* == 'y1'\)"):
            plots.pixel_series(maps, None, be.Ensemble.from_frame(two, **made))

    def test_refusals(self, maps):
        seen = pd.Series([0.2], DAYS[:1])
        with pytest.raises(
            ValueError, match=r"no place was given; wanted that of a cell: place=\{'lon': \.\.\., 'lat'"
        ):
            plots.pixel_series(maps)
        with pytest.raises(ValueError, match=r"place is \{'x': 1\}; wanted the coordinates"):
            plots.pixel_series(maps, {"x": 1})
        with pytest.raises(
            ValueError, match=r"off the map, which has lon from 145\.95 to 146\.35 and lat from -34\.25"
        ):
            plots.pixel_series(maps, {"lon": 140.0, "lat": -34.0})
        with pytest.raises(
            ValueError, match="none of 1 observations is at a time of the maps, which go from 2016-02-05 to"
        ):
            plots.pixel_series(maps, PLACE, seen.set_axis(DAYS[:1] + pd.Timedelta("1h")))
        with pytest.raises(ValueError, match="two values at 2016-02-05; wanted one at a time"):
            plots.pixel_series(maps, PLACE, pd.concat([seen, seen]))
        with pytest.raises(TypeError, match="observation is a ndarray; wanted a Series with times as its index"):
            plots.pixel_series(maps, PLACE, np.ones(6))
        with pytest.raises(ValueError, match="the maps have no time; wanted several"):
            plots.pixel_series(maps.isel(time=0), PLACE)
        with pytest.raises(ValueError, match=r"quantiles 0\.05, 0\.95; wanted 0\.25, 0\.5, 0\.75 too"):
            plots.pixel_series(maps.isel(quantile=[0, -1]), PLACE)


class TestErrorByDistance:
    def test_bins_have_equal_counts_and_their_quantiles(self):
        rng = np.random.default_rng(2)
        error, far = rng.normal(size=400), rng.exponential(30, 400)
        ax = plots.error_by_distance(xr.Dataset({"error": ("obs", error)}), far, bins=5, units="km")
        order = np.argsort(far).reshape(5, 80)
        x, y = ax.lines[0].get_data()
        np.testing.assert_allclose(x, np.median(far[order], axis=1))
        np.testing.assert_allclose(y, np.median(np.abs(error[order]), axis=1))
        wide = ax.collections[0].get_paths()[0].vertices[:, 1]
        assert wide.max() == pytest.approx(np.quantile(np.abs(error[order]), 0.95, axis=1).max())
        assert ax.texts[0].get_text() == "n = 80"

    def test_a_station_is_never_in_two_bins(self):
        far = np.repeat([1.0, 2.0, 3.0], [50, 3, 47])
        ax = plots.error_by_distance(xr.Dataset({"error": ("obs", np.ones(100))}), far, bins=10)
        assert ax.lines[0].get_xdata().tolist() == [1.0, 2.0, 3.0]
        assert [text.get_text() for text in ax.texts] == ["n = 50", "3", "47"]

    def test_distances_of_stations_are_found_by_their_names(self):
        error = xr.DataArray([1.0, -2.0, 3.0], {"site": ("obs", ["b", "a", "b"])}, ("obs",))
        held = xr.DataArray([5.0, 7.0], {"station": ["a", "b"]}, ("station",), attrs={"units": "km"})
        distances = xr.Dataset({"held_out_to_training": held})
        ax = plots.error_by_distance(xr.Dataset({"error": error}), distances, bins=2)
        assert ax.lines[0].get_xydata().tolist() == [[5.0, 2.0], [7.0, 2.0]]
        assert ax.get_xlabel() == "Distance to the nearest training station [km]"
        with pytest.raises(
            ValueError, match="'b' of the rows' sites have no distance; give the distances of the same data"
        ):
            plots.error_by_distance(xr.Dataset({"error": error}), distances.isel(station=[0]))
        with pytest.raises(ValueError, match="the rows have no sites to find their distances by; wanted"):
            plots.error_by_distance(xr.Dataset({"error": error.drop_vars("site")}), distances)

    def test_rows_of_a_comparison(self):
        frame = pd.DataFrame({"sm": np.arange(6.0), "rf": np.arange(6.0) + 1, "cci": 0.0})
        ensemble = be.Ensemble.from_frame(frame, members=["rf"], observation="sm")
        rows = be.common_rows({}, ensemble, estimand="site", products={"RF": frame["rf"], "CCI": frame["cci"]})
        ax = plots.error_by_distance(rows, np.arange(6), model="CCI", bins=3)
        assert ax.lines[0].get_ydata().tolist() == [0.5, 2.5, 4.5]
        with pytest.raises(ValueError, match="models 'RF', 'CCI', and one is drawn; name it: model='RF'"):
            plots.error_by_distance(rows, np.arange(6))
        with pytest.raises(
            ValueError, match=r"distance has shape \(5,\) and the rows are 6; wanted one number for each"
        ):
            plots.error_by_distance(rows, np.arange(5), model="CCI")
        with pytest.raises(TypeError, match=r"distance is missing; wanted .* be\.fold_distances"):
            plots.error_by_distance(rows, model="CCI")


class TestVariability:
    def test_areas_are_one_and_coefficients_of_variation_are_said(self):
        rng = np.random.default_rng(3)
        mean = xr.DataArray(rng.gamma(50.0, 0.02, (40, 50)), dims=("y", "x"), attrs={"units": "mm"})
        draw = mean * rng.gamma(4.0, 0.25, mean.shape)
        stations = rng.gamma(3.0, 0.3, 25)
        ax = plots.variability(xr.Dataset({"mean": mean}), draw, stations, label="Rain")
        for steps in ax.patches:
            values, edges, _ = steps.get_data()
            assert (values * np.diff(edges)).sum() == pytest.approx(1.0)
        cv = [float(one.std() / one.mean()) for one in (mean, draw, stations)]
        assert cv[0] < 0.5 * cv[1]
        assert named(ax) == [f"mean (2,000 cells), CV {cv[0]:.2f}", f"one draw (2,000 cells), CV {cv[1]:.2f}",
                             f"stations (25 values), CV {cv[2]:.2f}"]  # fmt: skip
        assert ax.get_xlabel() == "Rain [mm]"

    def test_values_about_zero_have_standard_deviations(self):
        assert named(plots.variability(np.array([-1.0, 1.0, np.nan]))) == ["mean (2 cells), SD 1"]

    def test_refusals(self):
        with pytest.raises(ValueError, match="the draw has 3 cells and the mean 2; wanted one of the same cells"):
            plots.variability([1.0, 2.0], [1.0, 2.0, 3.0])
        with pytest.raises(ValueError, match="stations has no finite number; wanted some"):
            plots.variability([1.0, 2.0], None, [np.nan])
