"""What the figures show: positions of what is drawn, labels, and refusals. How they look is for eyes."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy.stats import binom

mpl.use("Agg")
from drawn import markers, spans, texts
from matplotlib import pyplot as plt

from bayesens import plots


def posterior(name="weight", members=("rf", "mlr"), seed=0, **attrs):
    draws = np.random.default_rng(seed).normal(np.arange(len(members)), 0.1, size=(2, 300, len(members)))
    return xr.Dataset({name: (("chain", "draw", "member"), draws, attrs)}, {"member": list(members)})


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
