"""Small multiples, parts of the variance, maps of probabilities and of any variable show the cells that were given."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

mpl.use("Agg")
from drawn import degrees, maps_from, mesh, said
from matplotlib import pyplot as plt

from bayesens import plots
from bayesens.plots.maps.multiples import columns_for


class TestMultiples:
    def test_a_month_has_one_scale(self):
        maps = degrees(days=30)
        panels = plots.maps_by_time(maps, inside=maps["mean"].isel(time=0) > 0.2)
        assert [ax.get_title(loc="left") for ax in panels][::29] == ["2016-02-05", "2016-03-05"]
        assert len({(mesh(ax).norm.vmin, mesh(ax).norm.vmax) for ax in panels}) == 1
        every = maps["mean"].to_numpy()
        norm_of_all = mesh(panels[0]).norm
        np.testing.assert_allclose((norm_of_all.vmin, norm_of_all.vmax), np.quantile(every, [0.01, 0.99]))
        for k in (0, 17):
            np.testing.assert_array_equal(mesh(panels[k]).get_array(), maps["mean"][k])
        assert len(panels[0].figure.axes) == 31  # and one colour bar
        assert sum(bool(ax.get_xlabel()) for ax in panels) == 1
        assert all(any(patch.get_hatch() for patch in ax.patches) for ax in panels)

    @pytest.mark.parametrize("size", [1, 2, 5, 31, pytest.param(100, marks=pytest.mark.slow)])
    def test_any_number_of_panels(self, size):
        maps = degrees(3, 3, days=size)
        panels = plots.maps_by_time(maps)
        assert len(panels) == size
        panels[0].figure.draw_without_rendering()
        boxes = [ax.get_window_extent() for ax in panels]
        wide = {round(box.width) for box in boxes}
        assert max(wide) - min(wide) <= 1
        assert min(wide) > 30
        assert not any(one.overlaps(other) for k, one in enumerate(boxes) for other in boxes[:k])

    def test_columns_fill_a_page(self):
        for size in range(1, 101):
            for shape in (0.3, 1.0, 3.0):
                columns = columns_for(size, shape)
                rows = -(-size // columns)
                assert (columns - 1) * rows < size <= columns * rows
        assert columns_for(1, 3.0) == 1

    def test_other_variables(self):
        maps = degrees(days=2)
        width = plots.maps_by_time(maps, "width")
        np.testing.assert_allclose(mesh(width[1]).get_array(), 2 * norm.ppf(0.95) * maps["sd"][1])
        assert len(plots.maps_by_time(maps, "probability_below")) == 2

    def test_parts_of_the_variance(self):
        shares = plots.variance_parts(degrees())
        for ax, share in zip(shares, (64, 36, 0), strict=True):
            np.testing.assert_allclose(mesh(ax).get_array(), share, atol=1e-9)
            assert (mesh(ax).norm.vmin, mesh(ax).norm.vmax) == (0, 100)
        maps = degrees()
        sd = plots.variance_parts(maps, shares=False)
        np.testing.assert_allclose(mesh(sd[1]).get_array(), maps["sd_between"])
        assert len({mesh(ax).norm for ax in sd}) == 1
        assert sd[0].figure.axes[-1].get_ylabel() == "Standard deviation [m³ m⁻³]"

    def test_refusals(self):
        with pytest.raises(ValueError, match=r"no time, or one alone; draw it by be\.plots\.map"):
            plots.maps_by_time(degrees())
        with pytest.raises(
            ValueError, match=r"101 steps .* up to 100; select some: maps\.isel\(time=slice\(0, None, 2\)\)"
        ):
            plots.maps_by_time(degrees(2, 2, days=101))
        with pytest.raises(KeyError, match="no variable 'meen' in the maps; did you mean 'mean'"):
            plots.maps_by_time(degrees(days=2), "meen")
        with pytest.raises(ValueError, match="quantile_value has several maps at a time; select one"):
            plots.maps_by_time(degrees(days=2), "quantile_value")
        with pytest.raises(KeyError, match="no variable 'sd_within'"):
            plots.variance_parts(degrees().drop_vars("sd_within"))


class TestProbabilities:
    def test_colours_turn_at_the_centre(self):
        maps = degrees()
        ax = plots.probability_map(maps)
        np.testing.assert_array_equal(mesh(ax).get_array(), maps["probability_below"][0])
        assert [mesh(ax).norm(one) for one in (0, 0.5, 1)] == [0, 0.5, 1]
        assert ax.child_axes[0].get_ylabel() == "Probability of less than 0.15 m³ m⁻³"
        assert mesh(plots.probability_map(maps, center=0.1)).norm(0.1) == 0.5
        assert mesh(plots.probability_map(maps, center=None)).norm(0.1) == pytest.approx(0.1)

    def test_thresholds_by_value(self):
        sd = degrees()["sd"]
        maps = maps_from(degrees()["mean"], sd, below=(0.1, 0.2))
        np.testing.assert_array_equal(
            mesh(plots.probability_map(maps, threshold=0.2)).get_array(), maps["probability_below"][1]
        )
        with pytest.raises(ValueError, match=r"thresholds 0\.1, 0\.2; wanted one: threshold=0\.1"):
            plots.probability_map(maps)
        with pytest.raises(ValueError, match=r"no threshold 0\.3, only 0\.1, 0\.2; predict it: .*below=0\.3"):
            plots.probability_map(maps, threshold=0.3)
        with pytest.raises(
            ValueError, match=r"no probabilities; wanted a threshold: be\.predict\(fit, grid, below=0\.3\)"
        ):
            plots.probability_map(maps.drop_dims("threshold"), threshold=0.3)
        with pytest.raises(ValueError, match="center is 2; wanted a probability between 0 and 1"):
            plots.probability_map(maps, threshold=0.2, center=2)
        named = maps.assign_coords(threshold=["wilting", "q10"])
        assert "less than wilting" in plots.probability_map(named, threshold="wilting").child_axes[0].get_ylabel()


class TestOneMap:
    def test_any_variable_with_stations(self):
        maps = degrees()
        error = maps["sd"].assign_attrs(long_name="expected absolute error")
        table = pd.DataFrame({"lon": [146.1], "lat": [-34.1], "error": [0.03]})
        ax = plots.map_of(error, stations=table, value="error", inside=maps["mean"] > 0.2)
        np.testing.assert_array_equal(mesh(ax).get_array(), maps["sd"])
        assert ax.child_axes[0].get_ylabel() == "Expected absolute error [m³ m⁻³]"
        assert said(ax) == ["stations (1)", "outside the area of applicability"]
        assert plots.map_of(maps["sd_within"]).child_axes[0].get_ylabel() == "Sd within [m³ m⁻³]"

    def test_refusals(self):
        with pytest.raises(TypeError, match=r"got Dataset; wanted one map, a DataArray .*maps\['sd'\]"):
            plots.map_of(degrees())
        with pytest.raises(ValueError, match="2 steps of time; wanted one"):
            plots.map_of(degrees(days=2)["sd"])


@pytest.mark.parametrize("shape", [(4, 16), (8, 8), (30, 4)])
def test_all_figures_keep_to_the_page_whatever_the_shape_of_the_map(shape):
    maps = degrees(*shape, days=5)
    now = maps.isel(time=0)
    every = [plots.map(now)[0], plots.variance_parts(now)[0], plots.probability_map(now), plots.map_of(now["sd"]),
             plots.maps_by_time(maps)[0], plots.maps_by_time(maps, "width")[0]]  # fmt: skip
    for ax in every:
        ax.figure.draw_without_rendering()
        box, (wide, high) = ax.figure.get_tightbbox(), ax.figure.get_size_inches()
        assert min(box.x0, box.y0) > -0.02
        assert max(box.x1 - wide, box.y1 - high) < 0.02
        assert wide <= 180 / 25.4 + 1e-9
        assert high <= 235 / 25.4 + 1e-9
        assert box.height > 0.7 * high  # and fill it


def test_maps_in_axes_of_a_caller_share_one_legend():
    axes = plt.subplots(1, 2, layout="constrained")[1]
    maps = degrees()
    plots.probability_map(maps, inside=maps["mean"] > 0.2, ax=axes[0])
    plots.map_of(maps["sd"].where(maps["mean"] > 0.15), ax=axes[1])
    (legend,) = axes[0].figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["outside the area of applicability", "no value"]
