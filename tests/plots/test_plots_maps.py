"""Maps show the cells that were given, where they are, in colours that stations share; refusals name the next move."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

mpl.use("Agg")
from drawn import degrees, maps_from, mesh, said
from matplotlib import pyplot as plt
from matplotlib.collections import PathCollection

import bayesens as be
from bayesens import plots
from bayesens.plots.maps.cells import cells_of
from shared_data import shared_data


def turned(rows=5, columns=7, angle=0.1):
    """A grid in kilometres with coordinates on both dimensions, turned by an angle."""
    column, row = np.meshgrid(np.arange(columns) * 12.0, np.arange(rows) * 12.0)
    x, y = column * np.cos(angle) - row * np.sin(angle), column * np.sin(angle) + row * np.cos(angle)
    coords = {"x": (("row", "col"), x, {"units": "km"}), "y": (("row", "col"), y, {"units": "km"})}
    mean = xr.DataArray(0.1 + 0.001 * x + 0.002 * y, coords, ("row", "col"))
    return maps_from(mean, 0.0 * mean + 0.05)


def at(ax, x, y):
    """The value drawn at a place."""
    corners = mesh(ax).get_coordinates()
    for row, column in np.ndindex(mesh(ax).get_array().shape):
        quad = corners[[row, row, row + 1, row + 1], [column, column + 1, column + 1, column]]
        if mpl.path.Path(quad).contains_point((x, y)):
            return mesh(ax).get_array()[row, column]
    return None


class TestMap:
    def test_mean_and_width_lie_where_their_cells_are(self):
        maps = degrees()
        mean, width = plots.map(maps, label="Soil moisture")
        for lat, lon in ((-34.05, 146.05), (-34.55, 146.75), (-34.15, 146.35)):
            cell = maps.sel(lat=lat, lon=lon, method="nearest")
            assert at(mean, lon, lat) == pytest.approx(cell["mean"].item())
            assert at(width, lon, lat) == pytest.approx(2 * norm.ppf(0.95) * cell["sd"].item())
        assert mean.child_axes[0].get_ylabel() == "Soil moisture: mean [m³ m⁻³]"
        assert width.child_axes[0].get_ylabel().replace("\n", " ") == "Width of the 90 % interval [m³ m⁻³]"
        assert (mean.get_xlim(), mean.get_ylim()) == (pytest.approx((146.0, 146.8)), pytest.approx((-34.6, -34.0)))

    def test_shapes_are_true(self):
        mean, _ = plots.map(degrees())
        assert mean.get_aspect() == pytest.approx(1 / np.cos(np.radians(34.3)))
        mean, _ = plots.map(turned())
        assert mean.get_aspect() == 1.0
        assert mean.get_xlabel() == "x [km]"

    @pytest.mark.parametrize("turn", [{"lat": slice(None, None, -1)}, {"lon": slice(None, None, -1)}])
    def test_coordinates_that_fall_or_rise_give_one_picture(self, turn):
        maps = degrees()
        pictures = []
        for one in (maps, maps.isel(turn), maps.transpose("lon", "quantile", "lat", "threshold")):
            figure = plots.map(one, inside=one["mean"] > 0.2)[0].figure
            figure.canvas.draw()
            pictures.append(np.asarray(figure.canvas.buffer_rgba()).copy())
            plt.close(figure)
        for one in pictures[1:]:
            assert (one != pictures[0]).mean() < 1e-3  # the edge of a cell may fall on the next dot

    def test_cells_of_two_dimensional_coordinates_lie_at_their_centres(self):
        maps = turned()
        mean, _ = plots.map(maps)
        for row, column in ((0, 0), (4, 6), (2, 3)):
            cell = maps.isel(row=row, col=column)
            assert at(mean, cell["x"].item(), cell["y"].item()) == pytest.approx(cell["mean"].item())
        # Corners are those of the turned squares: sides of 12 km.
        side = np.diff(mesh(mean).get_coordinates(), axis=1)
        np.testing.assert_allclose(np.hypot(side[..., 0], side[..., 1]), 12.0)

    def test_a_plane_is_preferred_to_degrees_where_a_grid_has_both(self):
        maps = turned()
        both = maps.assign_coords(
            lon=(("row", "col"), maps["x"].values / 90), lat=(("row", "col"), maps["y"].values / 111)
        )
        mean, _ = plots.map(both)
        assert (mean.get_aspect(), mean.get_xlabel()) == (1.0, "x [km]")
        mean, _ = plots.map(both.drop_vars(["x", "y"]))
        assert mean.get_xlabel() == "Longitude [°]"

    def test_without_coordinates_rows_are_counted_from_the_top(self):
        maps = degrees().drop_vars(["lat", "lon"])
        mean, _ = plots.map(maps)
        assert (mean.get_xlabel(), mean.get_ylabel(), mean.get_ylim()) == ("Column", "Row", (5.5, -0.5))
        assert at(mean, 2, 0) == maps["mean"][0, 2]

    def test_stations_have_the_colours_of_the_map(self):
        table = pd.DataFrame({"lon": [146.1, 146.5, 146.6], "lat": [-34.1, -34.2, -34.4], "sm": [0.05, 0.6, np.nan]})
        mean, width = plots.map(degrees(), stations=table, value="sm")
        (dots,) = [one for one in mean.collections if isinstance(one, PathCollection)]
        assert (dots.norm is mesh(mean).norm, dots.cmap.name) == (True, mesh(mean).cmap.name)
        np.testing.assert_allclose(dots.get_offsets(), [[146.1, -34.1], [146.5, -34.2]])
        assert dots.get_edgecolor().tolist() == [[1, 1, 1, 1]]
        assert (mean.lines[0].get_xdata().tolist(), mean.lines[0].get_markerfacecolor()) == ([146.6], "white")
        assert len(width.lines[0].get_xdata()) == 3
        assert said(mean) == ["stations (3)"]
        # The scale reaches the stations too.
        assert mesh(mean).norm.vmin < 0.07 < 0.58 < mesh(mean).norm.vmax

    def test_an_ensemble_is_shown_at_the_time_of_the_map(self):
        days = pd.date_range("2016-02-05", periods=3)
        frame = pd.DataFrame({"sm": [0.0, 0.1, 0.5, 0.3, 0.4, 0.45], "s": list("aaabbb"), "t": [*days, *days]})
        frame = frame.assign(rf=0.2, lon=np.repeat([146.1, 146.5 - 360], 3), lat=-34.2)
        ensemble = be.Ensemble.from_frame(
            frame, members=["rf"], observation="sm", site="s", time="t", lon="lon", lat="lat"
        )
        mean, _ = plots.map(degrees(days=3), stations=ensemble, time="2016-02-06")
        (dots,) = [one for one in mean.collections if isinstance(one, PathCollection)]
        np.testing.assert_allclose(dots.get_array(), [0.1, 0.4])
        np.testing.assert_allclose(dots.get_offsets()[:, 0], [146.1, 146.5])
        assert mean.get_title(loc="left") == "2016-02-06"
        again, _ = plots.map(degrees(days=3).isel(time=1), stations=ensemble)  # selected before
        (dots,) = [one for one in again.collections if isinstance(one, PathCollection)]
        np.testing.assert_allclose(dots.get_array(), [0.1, 0.4])
        assert again.get_title(loc="left") == "2016-02-06"
        with pytest.raises(ValueError, match=r"no rows at 2016-02-08, .* go from 2016-02-05 to 2016-02-07; give"):
            plots.map(degrees(days=4), stations=ensemble, time="2016-02-08")

    def test_cells_outside_are_hatched_and_no_others(self):
        maps = degrees()
        inside = xr.ones_like(maps["mean"])
        inside[1, 2:4] = 0
        inside[4, 7] = 0
        inside[0, 0] = np.nan  # nobody knows
        mean, width = plots.map(maps, inside=inside)
        for ax in (mean, width):
            shapes = [patch for patch in ax.patches if patch.get_hatch()]
            assert len(shapes) == 2  # dark lines on white ones
            path = shapes[0].get_path()
            hatched = [path.contains_point((lon, lat)) for lat in maps["lat"].values for lon in maps["lon"].values]
            assert np.flatnonzero(hatched).tolist() == [10, 11, 39]
        assert said(mean) == ["outside the area of applicability"]
        assert not [patch for patch in plots.map(maps, inside=xr.ones_like(inside))[0].patches if patch.get_hatch()]

    def test_cells_without_a_value_are_grey_and_explained(self):
        maps = degrees()
        hole = maps.where(maps["mean"] < maps["mean"].max())
        mean, _ = plots.map(hole)
        assert mesh(mean).get_array().mask.sum() == 1
        assert mesh(mean).cmap.get_bad()[:3] == pytest.approx([0.86] * 3)
        assert said(mean) == ["no value"]
        assert not plots.map(maps)[0].figure.legends

    def test_large_grids_are_drawn_as_block_means_where_they_lie(self):
        maps = degrees(2500, 3)
        mean, _ = plots.map(maps)
        drawn = mesh(mean).get_array()
        assert drawn.shape == (834, 3)
        np.testing.assert_allclose(drawn[0, 0], maps["mean"][:3, 0].mean())
        np.testing.assert_allclose(drawn[-1, -1], maps["mean"][-1, -1])
        np.testing.assert_allclose(mesh(mean).get_coordinates()[[0, 1, -1], 0, 1], [-34.0, -34.3, -284.0])
        maps = degrees(3, 1203)
        maps["mean"][0, :2] = np.nan
        wide, _ = plots.map(maps)
        drawn = mesh(wide).get_array()
        assert (drawn.shape, drawn.mask.sum()) == ((3, 602), 1)
        np.testing.assert_allclose(drawn[1, 0], maps["mean"][1, :2].mean())
        np.testing.assert_allclose(mesh(wide).get_coordinates()[0, [0, 1, -1], 0], [146.0, 146.2, 266.3])

    def test_lazy_maps_are_drawn_as_those_in_memory(self):
        pytest.importorskip("dask")
        maps = degrees(days=2)
        lazy, plain = (plots.map(one, time="2016-02-05")[0] for one in (maps.chunk({"lat": 4}), maps))
        np.testing.assert_array_equal(mesh(lazy).get_array(), mesh(plain).get_array())

    def test_ends_of_colours(self):
        maps = degrees(50, 50)
        maps["mean"][0, 0] = 90.0  # a wild cell
        mean, width = plots.map(maps, width_limits=(0.0, 1.0))
        assert mesh(mean).norm.vmax < 0.5
        assert mesh(mean).colorbar.extend == "both"
        assert (mesh(width).norm.vmin, mesh(width).norm.vmax, mesh(width).colorbar.extend) == (0.0, 1.0, "neither")
        flat = maps.assign(mean=0 * maps["mean"] + 0.2)
        assert mesh(plots.map(flat)[0]).norm(0.2) == pytest.approx(0.5)

    def test_axes_of_ones_own(self):
        axes = plt.subplots(1, 2)[1]
        assert [*plots.map(degrees(), axes=axes)] == [*axes]
        with pytest.raises(ValueError, match="got 3 axes; wanted two: mean and width"):
            plots.map(degrees(), axes=plt.subplots(1, 3)[1])

    @given(st.integers(1, 4), st.integers(1, 4), st.booleans(), st.booleans())
    @settings(max_examples=8, deadline=None)
    def test_any_size_of_grid(self, rows, columns, up, left):
        maps = degrees(rows, columns).isel(
            lat=slice(None, None, -1 if up else 1), lon=slice(None, None, -1 if left else 1)
        )
        mean, _ = plots.map(maps)
        for lat, lon in (
            (maps["lat"].values[0], maps["lon"].values[-1]),
            (maps["lat"].values[-1], maps["lon"].values[0]),
        ):
            assert at(mean, lon, lat) == pytest.approx(maps["mean"].sel(lat=lat, lon=lon).item())
        plt.close("all")


@pytest.mark.slow
def test_what_predict_gives_is_drawn_as_it_is(tmp_path):
    """From a fit to figures, in memory, of dask, and read back from a file."""
    rng = np.random.default_rng(1)
    frame = pd.DataFrame({"rf": rng.uniform(0.1, 0.4, 60), "svr": rng.uniform(0.1, 0.4, 60)})
    frame["sm"] = frame.mean(axis=1) + rng.normal(0, 0.03, 60)
    ensemble = be.Ensemble.from_frame(frame, members=["rf", "svr"], observation="sm", units="m3 m-3")
    fit = be.fit(be.EqualWeights(), ensemble, method="em")
    coords = {
        "time": pd.date_range("2016-02-05", periods=3),
        "lat": -34 - 0.1 * np.arange(5),
        "lon": 146 + 0.1 * np.arange(4),
    }
    grid = xr.Dataset({name: (list(coords), rng.uniform(0.1, 0.4, (3, 5, 4))) for name in ("rf", "svr")}, coords)
    maps = be.predict(fit, grid.chunk({"lat": 2}), below=0.2)
    be.write_map(maps, tmp_path / "maps.nc", crs="EPSG:4326", progressbar=False)
    with xr.open_dataset(tmp_path / "maps.nc") as written:
        for one, tol in ((maps, 0), (maps.compute(), 0), (written, 2e-4)):
            mean, width = plots.map(one, time="2016-02-06", label="Soil moisture")
            np.testing.assert_allclose(mesh(mean).get_array(), maps["mean"][1], atol=tol)
            wanted = maps["quantile_value"].sel(quantile=0.95) - maps["quantile_value"].sel(quantile=0.05)
            np.testing.assert_allclose(mesh(width).get_array(), wanted[1], atol=2 * tol)
            assert mean.child_axes[0].get_ylabel() == "Soil moisture: mean [m³ m⁻³]"
            every = [*plots.variance_parts(one, time="2016-02-06"), *plots.maps_by_time(one, "sd_between"),
                     plots.vsup(one, time="2016-02-06"), plots.probability_map(one, threshold=0.2, time="2016-02-06"),
                     plots.pixel_series(one, {"lon": 146.1, "lat": -34.2}), plots.variability(one)]  # fmt: skip
            assert len(every) == 10
            plt.close("all")


class TestRefusals:
    def test_of_times(self):
        maps = degrees(days=3)
        with pytest.raises(ValueError, match=r"3 steps of time; wanted one: time='2016-02-05', .*plots\.maps_by_time"):
            plots.map(maps)
        with pytest.raises(
            ValueError, match="no time '2016-03-01' in the maps, which have 3 from '2016-02-05' to '2016-02-07'"
        ):
            plots.map(maps, time="2016-03-01")
        with pytest.raises(ValueError, match="no time 'soon'"):
            plots.map(maps, time="soon")
        with pytest.raises(ValueError, match="time is '2016-02-05', and the maps have no time; leave it out"):
            plots.map(degrees(), time="2016-02-05")
        with pytest.raises(ValueError, match=r"dimensions 'run', 'time' beside .*maps\.isel\(run=0\)"):
            plots.map(maps.expand_dims(run=2))

    def test_of_quantiles(self):
        few = degrees().isel(quantile=[1, 2])
        with pytest.raises(
            ValueError,
            match=r"quantiles 0\.25, 0\.5; wanted 0\.05, 0\.95 too: .*quantiles=\[0\.05, 0\.25, 0\.5, 0\.95\]",
        ):
            plots.map(few)
        with pytest.raises(ValueError, match="have the quantiles none; wanted"):
            plots.map(few.drop_dims("quantile"))

    def test_of_cells(self):
        maps = degrees()
        with pytest.raises(ValueError, match=r"dimensions 'up', 'lon'; wanted rows and columns .* maps\.rename"):
            plots.map(maps.rename(lat="up"))
        with pytest.raises(
            ValueError, match=r"'lon' neither rises nor falls throughout; sort it: maps\.sortby\('lon'\)"
        ):
            plots.map(maps.isel(lon=[0, 2, 1]))
        with pytest.raises(ValueError, match="the maps have no cells: lat 0 by lon 8"):
            plots.map(maps.isel(lat=[]))
        with pytest.raises(ValueError, match="no value in any cell at this time"):
            plots.map(maps.where(False))
        odd = turned()
        odd["x"][0, 0] = np.nan
        with pytest.raises(ValueError, match="some cells have no 'x' or no 'y'"):
            plots.map(odd)

    def test_of_areas(self):
        maps = degrees()
        with pytest.raises(TypeError, match=r"inside is a ndarray; wanted a map .* area\.grid"):
            plots.map(maps, inside=np.ones((6, 8)))
        with pytest.raises(ValueError, match=r"inside has the sizes \{'lat': 5, 'lon': 8\} and the maps"):
            plots.map(maps, inside=maps["mean"].isel(lat=slice(5)))
        with pytest.raises(ValueError, match="inside has other coordinates than the maps"):
            plots.map(maps, inside=maps["mean"].isel(lat=slice(None, None, -1)))

    def test_of_stations(self):
        table = pd.DataFrame({"lon": [10.0], "lat": [50.0], "sm": [0.1]})
        with pytest.raises(ValueError, match=r"none of 1 stations is on the map, with lon from 146 to 146\.8 and lat"):
            plots.map(degrees(), stations=table)
        with pytest.raises(KeyError, match="no column 'x', 'y' in the table of stations"):
            plots.map(turned(), stations=table)
        with pytest.raises(KeyError, match="no column 'sn' in the table of stations; did you mean 'sm'"):
            plots.map(degrees(), stations=table, value="sn")
        with pytest.raises(TypeError, match="stations is a list; wanted an ensemble, or a table"):
            plots.map(degrees(), stations=[1])
        bare = be.Ensemble.from_frame(pd.DataFrame({"rf": [1.0], "s": ["x"]}), members=["rf"], site="s")
        with pytest.raises(ValueError, match=r"no 'lon' and no 'lat'; name the columns in Ensemble\.from_frame: site="):
            plots.map(degrees(), stations=bare)
        far = pd.concat([table, table.assign(lon=146.2, lat=-34.2)])
        assert said(plots.map(degrees(), stations=far)[0]) == ["stations (1; 1 off the map)"]

    def test_of_other_things(self):
        with pytest.raises(TypeError, match=r"rows of a table; wanted one of a grid"):
            plots.map(xr.Dataset({"mean": ("obs", [1.0])}))
        for limits in ((2, 1), (1, 1), (0, np.nan), 3, "ab", (1, 2, 3)):
            with pytest.raises(ValueError, match=r"limits is .*; wanted the lowest and the highest"):
                plots.map(degrees(), limits=limits)


def test_metres_are_counted_in_kilometres():
    maps = (
        degrees().rename(lat="y", lon="x").assign_coords(y=4e6 - 1000 * np.arange(6.0), x=3e5 + 1000 * np.arange(8.0))
    )
    maps["x"].attrs = maps["y"].attrs = {"units": "m"}
    mean, _ = plots.map(maps)
    mean.figure.canvas.draw()
    assert mean.get_xlabel() == "x [km]"
    assert {text.get_text() for text in mean.get_xticklabels()} & {"300", "302", "304"}


def test_a_real_grid_of_curvilinear_coordinates():
    grid = xr.open_dataset(shared_data("atlanta", "grid_200406.nc"))
    maps = maps_from(grid["ctm"].astype(float), 1 + 0 * grid["ctm"].astype(float), units="ug m-3")
    mean, _ = plots.map(maps, time="2004-06-03")
    cell = maps.isel(row=20, col=30).sel(time="2004-06-03")
    assert at(mean, cell["x"].item(), cell["y"].item()) == pytest.approx(cell["mean"].item())
    sides = np.diff(mesh(mean).get_coordinates(), axis=0)
    np.testing.assert_allclose(np.hypot(sides[..., 0], sides[..., 1]), 12.0, rtol=0.02)  # cells of 12 km
    assert cells_of(maps["mean"]).names == ("x", "y")
