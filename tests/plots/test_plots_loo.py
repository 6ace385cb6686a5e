"""Figures of leave-one-out: what is drawn, and what is refused. How they look is for eyes."""

import arviz_stats
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy.stats import norm

mpl.use("Agg")
from matplotlib import pyplot as plt

from bayesens.plots.leave_one_out import loo_differences, loo_pit


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def fitted(shift=0.0, n=150, draws=400):
    """A normal with known sd, and draws of its mean: the predictions may be too high by a shift."""
    rng = np.random.default_rng(3)
    y = norm.ppf((np.arange(n) + 0.5) / n)
    mean = shift + rng.normal(0, 1 / np.sqrt(n), (2, draws, 1))
    dims = ("chain", "draw", "obs")
    return xr.DataTree.from_dict({
        "posterior": xr.Dataset({"mean": (dims[:2], mean[..., 0])}),
        "observed_data": xr.Dataset({"y": ("obs", y)}),
        "log_likelihood": xr.Dataset({"y": (dims, norm.logpdf(y, mean, 1.0))}),
        "posterior_predictive": xr.Dataset({"y": (dims, rng.normal(mean, 1.0, (2, draws, n)))}),
    })  # fmt: skip


def line(collection):
    """The drawn step line: share of rows up to a probability, less that probability."""
    ax = collection.get_viz("plot")
    return max((one.get_xydata() for one in ax.lines), key=len)


class TestPit:
    def test_draws_the_distribution_of_arviz_loo_pit(self):
        tree = fitted()
        values = np.sort(arviz_stats.loo_pit(tree, pareto_pit=True)["y"].values)
        x, y = line(loo_pit(tree)).T
        np.testing.assert_allclose(y, np.searchsorted(values, x, side="right") / len(values) - x, atol=1e-9)
        assert np.abs(y).max() < 0.06  # quantiles of the model itself

    def test_is_above_zero_where_predictions_are_too_high(self):
        """By one sd: at most Phi(1/2) - Phi(-1/2) = 0.38 above, and the marked points say that it is no chance."""
        collection = loo_pit(fitted(shift=1.0))
        _, y = line(collection).T
        assert y.max() == pytest.approx(0.383, abs=0.03)
        assert y.min() > -0.02
        marked = np.concatenate([points.get_offsets() for points in collection.get_viz("plot").collections])
        assert len(marked) > 10
        assert (marked[:, 1] > 0).all()

    def test_coverage_of_central_intervals(self):
        """Shifted by one sd, intervals of p hold less than p: the line runs below zero."""
        collection = loo_pit(fitted(shift=1.0), coverage=True)
        _, y = line(collection).T
        assert y.max() < 0.02
        assert y.min() < -0.1
        assert collection.get_viz("plot").get_xlabel() == "Central interval [%]"

    def test_options_go_to_arviz(self):
        collection = loo_pit(fitted(), visuals={"xlabel": {"text": "mine"}}, figure_kwargs={"figsize": (7, 2)})
        assert collection.get_viz("plot").get_xlabel() == "mine"
        assert collection.get_viz("figure").get_size_inches().tolist() == [7, 2]

    def test_refuses_a_posterior_made_with_a_power(self):
        tree = fitted()
        tree.attrs["likelihood_power"] = 0.1
        with pytest.raises(ValueError, match=r"likelihood_power=0.1; score rows that were held out with be.score"):
            loo_pit(tree)

    def test_says_which_group_lacks(self):
        tree = fitted()
        del tree["posterior_predictive"]
        with pytest.raises(
            ValueError, match=r"lacks posterior_predictive; tree = be.add\(tree, ensemble, 'posterior_pred"
        ):
            loo_pit(tree)
        with pytest.raises(ValueError, match=r"level lies inside \(0, 1\)"):
            loo_pit(fitted(), level=95)


def table(clustered=(0.0, 6.0, 4.0), by="30 sites"):
    return pd.DataFrame({
        "model": ["HBM", "BMA", "mean"], "difference": [0.0, -9.0, -30.0], "difference_se": [0.0, 2.0, 3.0],
        "difference_se_clustered": clustered, "clustered_by": by,
    })  # fmt: skip


class TestDifferences:
    def test_draws_two_of_each_error_either_way(self):
        ax = loo_differences(table())
        rows, clustered = (np.array(lines.get_segments())[:, :, 0] for lines in ax.collections)
        np.testing.assert_allclose(rows, [[0, 0], [-13, -5], [-36, -24]])
        np.testing.assert_allclose(clustered, [[0, 0], [-21, 3], [-38, -22]])
        assert [text.get_text() for text in ax.get_yticklabels()] == ["HBM", "BMA", "mean"]
        assert ax.get_xlabel().startswith("elpd less that of HBM")
        thick, thin = (lines.get_linewidth()[0] for lines in ax.collections)
        assert thick > 2 * thin  # apart in grey too

    def test_says_why_there_is_no_clustered_error(self):
        ax = loo_differences(table((np.nan,) * 3, "none: 3 sites, wanted 5"))
        assert len(ax.collections) == 1
        assert [text.get_text() for text in ax.get_legend().get_texts()][1] == "clustered: none: 3 sites, wanted 5"

    def test_draws_where_it_is_told(self):
        ax = plt.subplots()[1]
        assert loo_differences(table(), ax=ax) is ax

    def test_refuses_another_table(self):
        with pytest.raises(KeyError, match="difference_se_clustered"):
            loo_differences(table().drop(columns="difference_se_clustered"))
