"""What the figures show: positions of what is drawn, labels, and refusals. How they look is for eyes."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy.stats import binom

mpl.use("Agg")
from matplotlib import pyplot as plt

from bayesens import plots


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def posterior(name="weight", members=("rf", "mlr"), seed=0, **attrs):
    draws = np.random.default_rng(seed).normal(np.arange(len(members)), 0.1, size=(2, 300, len(members)))
    return xr.Dataset({name: (("chain", "draw", "member"), draws, attrs)}, {"member": list(members)})


def markers(ax):
    """Points drawn with a marker: one array (point, xy) per series."""
    return [line.get_xydata() for line in ax.lines if line.get_marker() not in ("None", None)]


def texts(labels):
    return [label.get_text() for label in labels]


class TestForest:
    def test_shows_quantiles_of_the_draws(self):
        data = posterior()
        ax = plots.weights(data)
        expected = np.quantile(data.weight, [0.05, 0.25, 0.5, 0.75, 0.95], axis=(0, 1))
        np.testing.assert_allclose(markers(ax)[0], np.column_stack([expected[2], [0, 1]]))
        thin, thick = (np.array(lines.get_segments())[:, :, 0].T for lines in ax.collections)
        np.testing.assert_allclose(thin, expected[[0, 4]])
        np.testing.assert_allclose(thick, expected[[1, 3]])

    def test_first_member_is_on_top_and_series_do_not_overlap(self):
        ax = plots.weights({"a": posterior(seed=1), "b": posterior(seed=2), "c": posterior(seed=3)})
        bottom, top = ax.get_ylim()
        assert bottom > top
        height = np.array([xy[:, 1] for xy in markers(ax)])
        assert (np.diff(height, axis=0) > 0.2).all()
        assert np.abs(height - [0, 1]).max() < 0.4
        assert texts(ax.get_legend().get_texts()) == ["a", "b", "c"]
        assert len({line.get_marker() for line in ax.lines if line.get_label() in "abc"}) == 3

    def test_linear_weight_is_named_and_members_are_matched_by_name(self):
        ax = plots.weights({"BMA": posterior(), "HBM": posterior("linear_weight", ("mlr", "xgb"))})
        assert texts(ax.get_legend().get_texts()) == ["BMA", "HBM (linear weight)"]
        assert texts(ax.get_yticklabels()) == ["rf", "mlr", "xgb"]
        np.testing.assert_allclose(np.round(markers(ax)[1][:, 1]), [1, 2])

    def test_dimension_order_does_not_matter(self):
        data = posterior()
        np.testing.assert_array_equal(
            markers(plots.weights(data))[0], markers(plots.weights(data.transpose("member", "draw", "chain")))[0]
        )

    def test_a_tree_of_a_fit_is_read_as_it_is(self):
        tree = xr.DataTree.from_dict({"posterior": posterior()})
        assert texts(plots.weights(tree["posterior"]).get_yticklabels()) == ["rf", "mlr"]

    def test_bias_takes_its_units_from_the_posterior(self):
        assert plots.biases(posterior("bias", units="%")).get_xlabel() == "Bias, member minus observation [%]"

    def test_refusals(self):
        with pytest.raises(ValueError, match="no 'bias', only \\['weight'\\]"):
            plots.biases(posterior())
        with pytest.raises(ValueError, match="select down to chain, draw and member"):
            plots.weights(posterior().expand_dims(group=2))


class TestIntervals:
    time = np.array(["2020-03-01", "2020-01-01", "2020-02-01"], "datetime64[ns]")
    quantile = xr.DataArray(
        [[3.0, 5, 7], [1, 2, 3], [2, 3, 4]],
        dims=("obs", "quantile"),
        coords={"quantile": [0.05, 0.5, 0.95], "time": ("obs", time)},
        attrs={"units": "m3 s-1"},
    )

    def test_rows_are_put_in_the_order_of_time(self):
        ax = plots.intervals(xr.Dataset({"mean": ("obs", np.zeros(3)), "q": self.quantile}), [5.0, 2.5, np.nan])
        np.testing.assert_array_equal(ax.lines[0].get_ydata(), [2, 3, 5])
        np.testing.assert_array_equal(ax.lines[1].get_ydata(), [2.5, np.nan, 5])
        band = ax.collections[0].get_paths()[0].vertices
        assert band[:, 1].min() == 1
        assert band[:, 1].max() == 7
        assert ax.get_ylabel() == "Prediction [m³ s⁻¹]"

    def test_one_band_for_each_pair_of_levels(self):
        level = [0.05, 0.25, 0.75, 0.95, 0.99]
        quantile = xr.DataArray(np.sort(np.random.default_rng(0).normal(size=(4, 5))), dims=("obs", "quantile"))
        ax = plots.intervals(quantile.assign_coords(quantile=level))
        assert texts(ax.get_legend().get_texts()) == ["90 % interval", "50 % interval"]
        wide, narrow = (band.get_alpha() for band in ax.collections)
        assert wide < narrow

    def test_refusals(self):
        with pytest.raises(ValueError, match="no quantiles"):
            plots.intervals(xr.Dataset({"mean": ("obs", [1.0])}))
        with pytest.raises(ValueError, match="select one station"):
            plots.intervals(self.quantile.expand_dims(x=2))
        with pytest.raises(ValueError, match=r"\[0\.05\] hold no pair"):
            plots.intervals(self.quantile.isel(quantile=[0]))


class TestPit:
    def test_bars_are_shares_and_the_band_is_binomial(self):
        u = np.r_[np.full(30, 0.05), np.full(70, 0.95), np.nan]
        ax = plots.pit(u, bins=5)
        assert [bar.get_height() for bar in ax.patches[:5]] == pytest.approx([0.3, 0, 0, 0, 0.7])
        low, high = binom.ppf([0.025, 0.975], 100, 0.2) / 100
        band = ax.patches[5]
        assert (band.get_y(), band.get_y() + band.get_height()) == pytest.approx((low, high))

    @pytest.mark.parametrize("values", [[], [np.nan], [0.5, 1.2]])
    def test_refuses_what_is_not_a_probability(self, values):
        with pytest.raises(ValueError, match="between 0 and 1"):
            plots.pit(values)


class TestCoverage:
    def test_levels_are_sorted_and_in_percent(self):
        ax = plots.coverage([0.9, 0.5], [0.85, 0.4])
        np.testing.assert_allclose(markers(ax)[0], [[50, 40], [90, 85]])

    def test_difference_from_what_was_promised_lies_about_zero(self):
        ax = plots.coverage([0.9, 0.5], {"BMA": [0.85, 0.53]}, difference=True)
        np.testing.assert_allclose(markers(ax)[0], [[50, 3], [90, -5]])
        low, high = ax.get_ylim()
        assert low == -high
        assert high < 10  # a gap of five points is to be seen
        table = pd.DataFrame(
            {"model": "BMA", "by": "season", "group": ["DJF", "JJA"], "level": 0.9, "coverage": [0.95, 0.8]}
        )
        ax = plots.coverage_by_class(table, by="season", difference=True)
        np.testing.assert_allclose(markers(ax)[0][:, 1], [5, -10])

    def test_band_is_binomial(self):
        ax = plots.coverage([0.5], [0.5], n=50, level=0.9)
        band = ax.collections[0].get_paths()[0].vertices
        at_half = np.unique(band[np.isclose(band[:, 0], 50), 1])
        np.testing.assert_allclose(at_half, 100 * binom.ppf([0.05, 0.95], 50, 0.5) / 50)

    def test_refuses_series_of_another_length(self):
        with pytest.raises(ValueError, match="'HBM': \\(1,\\)"):
            plots.coverage([0.5, 0.9], {"BMA": [0.5, 0.9], "HBM": [0.5]})


class TestScores:
    table = pd.DataFrame({"crps": [2.0, 1.0], "lower": [1.5, 0.8], "upper": [2.5, 1.2]}, index=["BMA", "HBM"])

    def test_dots_and_intervals(self):
        ax = plots.scores(self.table)
        np.testing.assert_array_equal(markers(ax)[0], [[2, 0], [1, 1]])
        np.testing.assert_array_equal(
            np.array(ax.collections[0].get_segments())[:, :, 0], self.table[["lower", "upper"]]
        )
        assert ax.lines[1].get_xdata()[0] == 1.0  # the line at the lowest

    def test_table_without_intervals(self):
        assert not plots.scores(self.table[["crps"]]).collections

    def test_refuses_a_score_that_is_not_there(self):
        with pytest.raises(KeyError, match="no column 'rmse'"):
            plots.scores(self.table, score="rmse")


@pytest.mark.parametrize(
    "draw",
    [
        lambda ax: plots.weights(posterior(), ax=ax),
        lambda ax: plots.biases(posterior("bias"), ax=ax),
        lambda ax: plots.intervals(TestIntervals.quantile, ax=ax),
        lambda ax: plots.pit([0.5], ax=ax),
        lambda ax: plots.coverage([0.5], [0.5], ax=ax),
        lambda ax: plots.scores(TestScores.table, ax=ax),
    ],
    ids=["weights", "biases", "intervals", "pit", "coverage", "scores"],
)
def test_draws_into_given_axes(draw):
    figure, ax = plt.subplots()
    assert draw(ax) is ax
    assert plt.get_fignums() == [figure.number]
    figure.canvas.draw()


class TestTables:
    def differences(self):
        return pd.DataFrame({
            "model": ["HBM", "Equal", "HBM"], "reference": "BMA", "estimand": ["site", "site", "time"], "metric": ["crps"] * 3,
            "unit": "percent", "difference": [-2.0, 5.0, 1.0], "low": [-5.0, 3.0, -1.0], "high": [0.5, 7.0, 3.0],
        })  # fmt: skip

    def test_differences_show_intervals_and_which_leave_out_zero(self):
        ax = plots.differences(self.differences())
        segments = np.array(ax.collections[0].get_segments())
        np.testing.assert_allclose(segments[:, :, 0], [[-5, 0.5], [3, 7], [-1, 3]])
        clear, held = markers(ax)
        np.testing.assert_allclose(clear, [[5, 1]])
        np.testing.assert_allclose(held, [[-2, 0], [1, 2]])
        assert texts(ax.get_yticklabels()) == ["HBM (site)", "Equal (site)", "HBM (time)"]
        assert texts(ax.get_legend().get_texts()) == ["within 1 %", "interval leaves out 0", "interval holds 0"]
        with pytest.raises(ValueError, match=r"no differences of 'r' in percent; it has \['crps'\]"):
            plots.differences(self.differences(), metric="r")

    def test_importance_is_ordered_by_its_mean_and_shows_sds(self):
        table = pd.DataFrame({
            "member": ["rf", "rf", "mlr", "mlr"], "covariate": ["dem", "rain", "dem", "rain"], "percent": [5.0, 40.0, 7.0, 20.0],
            "loss": [0.5, 0.5, 1.0, 1.0], "rise_sd_fold": [0.01, 0.1, 0.02, 0.05],
        })  # fmt: skip
        ax = plots.importance(table)
        assert texts(ax.get_yticklabels()) == ["rain", "dem"]
        rf, mlr = markers(ax)
        np.testing.assert_allclose(rf[:, 0], [5, 40])
        assert (np.round(rf[:, 1]) == [1, 0]).all()
        assert (rf[:, 1] < mlr[:, 1]).all()
        np.testing.assert_allclose(np.array(ax.collections[0].get_segments())[:, :, 0], [[3, 7], [20, 60]])

    def test_bands_are_side_by_side_with_their_intervals(self):
        index = pd.MultiIndex.from_product([["Moran's I", "low", "high"], ["0-50 %", "50-100 %"]])
        table = pd.DataFrame(
            {"BMA": [0.9, 0.8, 0.85, 0.75, 0.95, 0.85], "rf": [0.7, 0.6, 0.6, 0.5, 0.8, 0.7]}, index=index
        )
        ax = plots.band_curve(table)
        one, other = markers(ax)
        np.testing.assert_allclose(one[:, 1], [0.9, 0.8])
        assert (one[:, 0] < other[:, 0]).all()
        np.testing.assert_allclose(np.array(ax.collections[1].get_segments())[:, :, 1], [[0.6, 0.8], [0.5, 0.7]])
        with pytest.raises(KeyError):
            plots.band_curve(table, statistic="Geary's C")


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


def test_source_biases_add_the_shift_of_each_group():
    rng = np.random.default_rng(1)
    bias = xr.DataArray(rng.normal([0.1, -0.1], 0.01, (2, 200, 2)), dims=("chain", "draw", "member"))
    shift = xr.DataArray(rng.normal(0, 0.01, (2, 200, 3, 2)), dims=("chain", "draw", "group", "member"))
    data = xr.Dataset({"bias": bias, "bias_group": shift}, {"member": ["rf", "mlr"], "group": ["a", "b", "c"]})
    ax = plots.source_biases(data)
    found = markers(ax)
    assert len(found) == 3
    np.testing.assert_allclose(found[2][:, 0], (bias + shift[:, :, 2]).median(("chain", "draw")))
    with pytest.raises(ValueError, match="no 'bias_group'"):
        plots.source_biases(data[["bias"]])


def test_a_reliability_curve_stands_over_the_histogram_of_its_forecasts():
    table = pd.DataFrame(
        {"forecast": [0.1, 0.9], "frequency": [0.2, 0.8], "n": [30, 10], "low": [0, 0.5], "high": [0.4, 1]}
    )
    ax = plots.reliability(table)
    curve = next(line for line in ax.lines if line.get_linewidth() == 1.5)
    np.testing.assert_allclose(curve.get_xydata(), [[0.1, 0.2], [0.9, 0.8]])
    heights = [bar.get_height() for bar in ax.patches]
    assert (max(heights), sorted(heights)[-2]) == (pytest.approx(0.2), pytest.approx(0.2 / 3))


def test_daily_observations_through_years_are_dots():
    quantile = xr.DataArray(
        np.tile([0.1, 0.2, 0.3], (400, 1)), dims=("obs", "quantile"), coords={"quantile": [0.05, 0.5, 0.95]}
    )
    few, many = (plots.intervals(quantile[:n], np.full(n, 0.2)) for n in (100, 400))
    size = [next(line.get_markersize() for line in ax.lines if line.get_label() == "observation") for ax in (few, many)]
    assert size[0] > 2 * size[1]


def spans(lines):
    """Both ends of every line of a collection, along the one that differs."""
    segments = np.array(lines.get_segments())
    return segments[:, :, 0 if np.ptp(segments[0, :, 0]) > 0 else 1]


class TestLook:
    def test_forty_nine_series_differ(self):
        from bayesens.plots.axes import look

        assert len({look(i)[:2] for i in range(49)}) == 49
        assert len({look(i).color for i in range(7)}) == len({look(i).marker for i in range(7)}) == 7

    def test_more_groups_than_colours_stay_apart(self):
        table = pd.DataFrame({"lon": np.arange(9.0), "lat": 0.0, "net": list("abcdefghi")})
        lines = [line for line in plots.stations(table, group="net").lines if line.get_label() != "_"]
        assert len({(line.get_color(), line.get_marker()) for line in lines}) == 9

    @pytest.mark.parametrize("width", [3.35, 6.9])
    def test_a_legend_stays_inside_the_figure(self, width):
        figure, ax = plt.subplots(figsize=(width, 3), layout="constrained")
        plots.differences(TestTables().differences(), ax=ax)
        figure.canvas.draw()
        # A few points more than estimated are taken from the axes by the layout.
        assert ax.get_legend().get_window_extent().x1 <= figure.bbox.width + 1
        assert ax.xaxis.label.get_window_extent().x1 <= figure.bbox.width + 1


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


class TestMoreTables:
    scores = pd.DataFrame({
        "model": ["BMA"] * 4 + ["HBM"] * 4, "group": ["all", "a", "b", "DJF"] * 2, "by": ["", "net", "net", "season"] * 2,
        "stations": [5, 2, 3, 5] * 2, "crps": [3.0, 1.0, 2.0, 4.0, 3.5, 1.5, 2.5, 4.5],
    }).assign(crps_low=lambda t: t["crps"] - 0.5, crps_high=lambda t: t["crps"] + 1)  # fmt: skip

    def test_scores_by_group_stand_side_by_side_and_the_pooled_ones_last(self):
        ax = plots.scores_by_group(self.scores, by="net", units="mm")
        assert texts(ax.get_yticklabels()) == ["a (2)", "b (3)", "all (5)"]
        bma, hbm = markers(ax)
        np.testing.assert_allclose(bma[:, 0], [3, 1, 2])
        np.testing.assert_array_equal(np.round(bma[:, 1]), [2, 0, 1])
        assert (bma[:, 1] < hbm[:, 1]).all()
        np.testing.assert_allclose(spans(ax.collections[1]), [[3, 4.5], [1, 2.5], [2, 3.5]])
        assert ax.get_xlabel() == "CRPS [mm]"

    def test_what_has_no_units_has_none_and_an_aim_is_a_line(self):
        ax = plots.scores_by_group(self.scores.assign(coverage90=0.8), score="coverage90", units="mm")
        assert ax.get_xlabel() == "Coverage of 90 % intervals"
        assert 0.9 in [line.get_xdata()[0] for line in ax.lines]
        assert not ax.collections

    def test_refusals_of_scores(self):
        with pytest.raises(ValueError, match="several lines of group 'all'; select one estimand"):
            plots.scores_by_group(pd.concat([self.scores, self.scores]))
        with pytest.raises(ValueError, match="no groups by 'region'"):
            plots.scores_by_group(self.scores, by="region")
        with pytest.raises(KeyError, match="no column 'rmse'"):
            plots.scores_by_group(self.scores, score="rmse")

    def test_a_score_table_is_read_as_it_is(self):
        from bayesens import Ensemble, common_rows, score_table

        frame = pd.DataFrame({"rf": [1.0, 2.0, 4.0, 3.0], "sm": [1.5, 2.5, 3.0, 3.0], "net": list("aabb")})
        ensemble = Ensemble.from_frame(frame, members=["rf"], observation="sm", group="net")
        rows = common_rows({}, ensemble, estimand="site", products={"RF": frame["rf"]})
        ax = plots.scores_by_group(score_table(rows, by="group"), score="mae")
        assert texts(ax.get_yticklabels()) == ["a", "b", "all", "macro"]
        np.testing.assert_allclose(markers(ax)[0][:, 0], 0.5)

    def test_differences_without_an_interval_say_so_and_groups_are_named(self):
        table = TestTables().differences().assign(estimand="site", group=["all", "a", "b"])
        table.loc[1, ["low", "high"]] = np.nan
        ax = plots.differences(table)
        assert texts(ax.get_yticklabels()) == ["HBM (all)", "Equal (a)", "HBM (b)"]
        assert texts(ax.get_legend().get_texts())[1:] == ["interval holds 0", "no interval"]
        held, none = markers(ax)
        np.testing.assert_allclose(held, [[-2, 0], [1, 2]])
        np.testing.assert_allclose(none, [[5, 1]])

    def test_intervals_of_morans_i_are_no_intervals_of_another_statistic(self):
        index = pd.MultiIndex.from_tuples([(name, "0-100 %") for name in ("CV", "Moran's I", "low", "high")])
        table = pd.DataFrame({"BMA": [0.3, 0.9, 0.8, 0.95]}, index=index)
        assert not plots.band_curve(table, statistic="CV").collections
        np.testing.assert_allclose(spans(plots.band_curve(table).collections[0]), [[0.8, 0.95]])
        with pytest.raises(KeyError, match="Geary's C"):
            plots.band_curve(table, statistic="Geary's C")

    def test_importance_names_the_column_that_is_not_there(self):
        with pytest.raises(KeyError, match="no column 'loss'"):
            plots.importance(pd.DataFrame({"member": ["rf"], "covariate": ["dem"], "percent": [1.0]}))


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


class TestThroughTime:
    time = pd.date_range("2020-01-01", periods=6).to_numpy()
    late = np.r_[time[:3], time[3:] + np.timedelta64(60, "D")]

    def quantile(self, n=6):
        value = np.arange(n, dtype=float)[:, None] + [-1.0, 0.0, 1.0]
        return xr.DataArray(value, dims=("obs", "quantile"), coords={"quantile": [0.05, 0.5, 0.95]})

    def test_no_line_crosses_a_gap_and_every_row_is_drawn(self):
        whole, broken = (plots.intervals(self.quantile(), None, time) for time in (self.time, self.late))
        np.testing.assert_array_equal(whole.lines[0].get_ydata(), np.arange(6))
        np.testing.assert_array_equal(broken.lines[0].get_ydata(), [0, 1, 2, np.nan, 3, 4, 5])
        assert len(broken.collections[0].get_paths()) == 2

    def test_a_row_alone_between_gaps_is_a_bar(self):
        time = self.time.copy()
        time[5] += np.timedelta64(90, "D")
        ax = plots.intervals(self.quantile(), None, time)
        np.testing.assert_allclose(spans(ax.collections[1]), [[4, 6]])
        assert ax.lines[1].get_ydata() == [5]
        assert len(plots.intervals(self.quantile(1), None, self.time[:1]).collections) == 2

    def ensemble(self, **roles):
        from bayesens import Ensemble

        frame = pd.DataFrame({
            "rf": np.arange(6.0), "sm": np.arange(6.0) + 0.5, "station": list("bababa"), "date": self.time[[0, 0, 1, 1, 2, 2]],
        })  # fmt: skip
        roles = {"site": "station", "time": "date"} | roles
        return Ensemble.from_frame(frame, members=["rf"], observation="sm", units="mm", **roles)

    def test_panels_have_the_rows_of_their_station_the_axes_and_a_legend_in_common(self):
        panels = plots.intervals_by_station(self.quantile(), self.ensemble(), ["a", "b"])
        assert [panel.get_title(loc="left") for panel in panels] == ["a", "b"]
        for panel, rows in zip(panels, ([1, 3, 5], [0, 2, 4]), strict=True):
            np.testing.assert_array_equal(panel.lines[0].get_ydata(), rows)
            np.testing.assert_array_equal(panel.lines[1].get_ydata(), np.add(rows, 0.5))
            assert panel.get_legend() is None
        assert panels[0].get_ylim() == panels[1].get_ylim()
        figure = panels[0].figure
        assert texts(figure.legends[0].get_texts()) == ["median", "90 % interval", "observation"]
        assert figure.get_supylabel() == "Prediction [mm]"

    def test_panels_in_a_given_figure_without_empty_ones(self):
        figure = plt.figure(figsize=(3.35, 3))
        panels = plots.intervals_by_station(self.quantile(), self.ensemble(), ["a", "b", "a"], columns=2, figure=figure)
        assert figure.axes == list(panels)
        assert plt.get_fignums() == [figure.number]
        figure.canvas.draw()
        assert figure.legends[0].get_window_extent().x1 <= figure.bbox.width

    def test_refusals_of_panels(self):
        with pytest.raises(ValueError, match="has 5 rows and the ensemble 6"):
            plots.intervals_by_station(self.quantile(5), self.ensemble(), ["a"])
        with pytest.raises(ValueError, match="no sites or no times"):
            plots.intervals_by_station(self.quantile(), self.ensemble(time=None), ["a"])
        with pytest.raises(KeyError, match="no station 'c'"):
            plots.intervals_by_station(self.quantile(), self.ensemble(), ["c"])
        with pytest.raises(ValueError, match="wanted a list of one station"):
            plots.intervals_by_station(self.quantile(), self.ensemble(), "a")

    def test_events_are_strips_of_a_row_each_and_unknown_ones_blank(self):
        ax = plots.event_probability([0.1, 0.7, 0.8, 0.2, 0.3, 0.4], [0, 1, 1, np.nan, 0, 1])
        np.testing.assert_allclose(ax.lines[0].get_ydata(), [0.1, 0.7, 0.8, 0.2, 0.3, 0.4])
        ends = [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in ax.patches]
        assert ends == [(0.5, 2.5), (4.5, 5.5), (-0.5, 0.5), (3.5, 4.5)]
        assert {bar.get_y() + bar.get_height() < 0 for bar in ax.patches} == {True}

    def test_strips_of_dates_end_at_gaps(self):
        from matplotlib.dates import date2num

        p = xr.DataArray(np.full(6, 0.5), dims="obs", coords={"time": ("obs", self.late)})
        ax = plots.event_probability(p[::-1], np.ones(6))
        day = date2num(self.late)
        ends = [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in ax.patches]
        np.testing.assert_allclose(ends, [(day[0] - 0.5, day[2] + 0.5), (day[3] - 0.5, day[5] + 0.5)])
        assert np.isnan(ax.lines[0].get_ydata()).sum() == 1

    @pytest.mark.parametrize(
        ("probability", "event", "text"),
        [([0.5, 1.5], None, "between 0 and 1"), ([np.nan], None, "there must be some"), ([0.5], [2], "event has the value 2"),
         ([0.5], [1, 0], "wanted one length")],
    )  # fmt: skip
    def test_refusals_of_probabilities(self, probability, event, text):
        with pytest.raises(ValueError, match=text):
            plots.event_probability(probability, event)


class TestQuantileReliability:
    quantile = xr.DataArray(np.tile([3.0, 1.0], (4, 1)), dims=("obs", "quantile"), coords={"quantile": [0.75, 0.25]})

    def test_shares_over_rows_and_their_quartiles_over_stations(self):
        y, site = [0.0, 2.0, 2.0, 4.0], ["a", "a", "b", "b"]
        ax = plots.quantile_reliability({"BMA": self.quantile, "HBM": self.quantile - 1.5}, y, site=site)
        bma, hbm = markers(ax)[:2]
        np.testing.assert_allclose(bma, [[25, 25], [75, 75]])
        np.testing.assert_allclose(hbm, [[25, 0], [75, 25]])
        # Shares of the stations are 50 and 0 % below the lower one, 100 and 50 % below the upper one.
        np.testing.assert_allclose(spans(ax.collections[0]), [[12.5, 37.5], [62.5, 87.5]])
        assert texts(ax.get_legend().get_texts()) == ["BMA", "HBM", "middle half of stations", "calibrated"]

    def test_rows_without_an_observation_are_left_out(self):
        ax = plots.quantile_reliability(self.quantile, [0.0, 2.0, np.nan, np.nan])
        np.testing.assert_allclose(ax.lines[0].get_ydata(), [50, 100])

    def test_refusals(self):
        with pytest.raises(ValueError, match="of 'HBM' has 4 rows, observation shape \\(3,\\)"):
            plots.quantile_reliability({"HBM": self.quantile}, [1.0, 2.0, 3.0])
        with pytest.raises(ValueError, match="none of 4 rows"):
            plots.quantile_reliability(self.quantile, np.full(4, np.nan))
