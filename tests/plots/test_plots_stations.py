"""Figures of stations show their places, values and groups, and how many of them a cell needs."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import xarray as xr

mpl.use("Agg")

from drawn import markers, spans, texts

from bayesens import plots


class TestPlaces:
    def test_stations_by_group_with_their_numbers_and_true_shape(self):
        table = pd.DataFrame({"lon": [114.0, 115.0, 116.0], "lat": [60.0, 60.0, 60.0], "net": ["a", "b", "a"]})
        ax = plots.stations(table, group="net")
        np.testing.assert_allclose(markers(ax)[0], [[114, 60], [116, 60]])
        assert texts(ax.get_legend().get_texts()) == ["a (2)", "b (1)"]
        assert ax.get_aspect() == pytest.approx(2.0)  # at 60 degrees a degree of longitude is half one of latitude
        assert plots.stations(table).get_legend() is None
        with pytest.raises(KeyError, match="no column 'network'"):
            plots.stations(table, group="network")

    def test_error_of_a_cell_falls_with_the_root_of_the_stations(self):
        from bayesens.geo.representativeness import NAMES, Components

        table = pd.DataFrame(
            {"variance": [3.0, 1.0, 4.0], "low": [2.0, 1.0, 4.0], "high": [9.0, 1.0, np.inf]}, index=NAMES
        )
        ax = plots.representativeness(Components(table, (), 0.0, 1, 5, 9, 45, 0.9), units="m3 m-3")
        curve = markers(ax)[0]
        np.testing.assert_allclose(curve[:, 1], 2 / np.sqrt(curve[:, 0]))
        assert ax.get_ylabel() == "Error of their mean [m³ m⁻³]"


class TestStationValues:
    table = pd.DataFrame(
        {"lon": [0.0, 1.0, 2.0], "lat": [0.0, 1.0, 0.0], "net": ["a", None, "a"], "sm": [0.1, 0.3, np.nan]}
    )
    grid = xr.DataArray(
        [[0.0, 0.2], [0.4, 0.6]], coords={"lat": [0.0, 1.0], "lon": [0.0, 2.0]}, dims=("lat", "lon"), name="mean"
    )

    def test_values_are_colours_of_their_places(self):
        ax = plots.stations(self.table, value="sm", label="Soil moisture", units="m3 m-3")
        points = ax.collections[0]
        np.testing.assert_allclose(points.get_offsets(), self.table[["lon", "lat"]])
        np.testing.assert_allclose(points.get_array()[:2], [0.1, 0.3])
        assert np.ma.getmaskarray(points.get_array())[2] or np.isnan(points.get_array()[2])  # not coloured, but open:
        np.testing.assert_allclose(markers(ax)[0], self.table[["lon", "lat"]])
        assert ax.figure.axes[1].get_ylabel() == "Soil moisture [m³ m⁻³]"

    def test_map_and_stations_share_one_scale(self):
        ax = plots.stations(self.table, value="sm", background=self.grid.transpose())
        mesh, points = ax.collections[:2]
        np.testing.assert_allclose(np.ravel(mesh.get_array()), [0, 0.2, 0.4, 0.6])
        assert mesh.get_clim() == points.get_clim() == (0, pytest.approx(0.6))
        assert mesh.get_cmap().name == points.get_cmap().name == "viridis_r"

    def test_a_background_alone_is_grey_and_named_by_its_attributes(self):
        named = self.grid.assign_attrs(long_name="Elevation", units="m")
        ax = plots.stations(self.table, background=named)
        assert ax.collections[0].get_cmap().name == "Greys"
        assert ax.figure.axes[1].get_ylabel() == "Elevation [m]"

    def test_stations_without_a_group_are_counted(self):
        ax = plots.stations(self.table, group="net")
        assert texts(ax.get_legend().get_texts()) == ["a (2)", "no group (1)"]

    def test_refusals(self):
        with pytest.raises(ValueError, match="wanted a grid with 'lat' and 'lon'"):
            plots.stations(self.table, background=self.grid.rename(lat="y"))
        with pytest.raises(KeyError, match="no column 'mean'"):
            plots.stations(self.table, value="mean")
        with pytest.raises(ValueError, match="lat"):
            plots.stations(self.table.assign(lat=[0.0, 95.0, 0.0]))
        with pytest.raises(ValueError, match="no stations"):
            plots.stations(self.table[:0])


class TestRepresentativeness:
    def components(self, high):
        from bayesens.geo.representativeness import NAMES, Components

        table = pd.DataFrame(
            {"variance": [3.0, 1.0, 4.0], "low": [2.0, 1.0, 3.0], "high": [9.0, 1.0, high]}, index=NAMES
        )
        return Components(table, (), 0.0, 1, 5, 9, 45, 0.9)

    def test_stations_needed_are_marked_on_the_curve_with_their_interval(self):
        found = self.components(9.0)
        ax = plots.representativeness(found, error=0.5, units="mm")
        needed = found.stations_needed(0.5).iloc[0]
        assert needed["stations"] == 62  # 1.96^2 * 4 / 0.25 = 61.5
        (place,) = (line.get_xydata()[0] for line in ax.lines if line.get_marker() == "D")
        np.testing.assert_allclose(place, [62, 2 / np.sqrt(62)])
        np.testing.assert_allclose(spans(ax.collections[1]), [[needed["low"], needed["high"]]])
        assert ax.get_xlim()[1] > 62
        assert ax.texts[0].get_text() == "62 stations: within 0.5 mm\nwith 95 % probability"

    def test_an_interval_without_an_upper_end_leaves_the_axes(self):
        ax = plots.representativeness(self.components(np.inf), error=1.0)
        band = ax.collections[0].get_paths()[0].vertices[:, 1]
        np.testing.assert_allclose(band.min(), np.sqrt(3 / 20))
        assert band.max() > ax.get_ylim()[1] > 2
        with pytest.raises(ValueError, match="the error is -1"):
            plots.representativeness(self.components(9.0), error=-1.0)
