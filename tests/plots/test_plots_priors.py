"""What the figures of priors show: where marks stand, names, and refusals. How they look is for eyes."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from numpy.testing import assert_allclose

mpl.use("Agg")
from matplotlib import pyplot as plt

import bayesens as be
from bayesens.plots.priors import power_scaled, power_sensitivity, prior_implied, tornado


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def texts(labels):
    return [label.get_text() for label in labels]


def marks(ax):
    return np.concatenate([line.get_xydata() for line in ax.lines if line.get_marker() not in ("None", None)])


def grid(**columns):
    table = pd.DataFrame({
        "point": ["base", "w1", "w2", "s1", "s2"], "option": ["", "weight_prior", "weight_prior", "sigma_spread", "sigma_spread"],
        "value": ["", "Dirichlet(a=0.1)", "Dirichlet(a=10)", "0.1", "1"], "crps_change": [0.0, 0.2, -0.1, 3.0, np.nan],
        "crps_change_low": [0.0, -0.5, -0.3, 1.0, np.nan], "crps_change_high": [0.0, 0.7, 0.2, 5.0, np.nan],
        "weight[rf]": [0.4, 0.7, 0.35, 0.41, 0.42], "difference": [-2.0, -1.0, -3.0, -2.5, -2.0],
    } | columns)  # fmt: skip
    table.attrs["against"] = "HBM"
    return table


def test_the_option_with_the_largest_effect_is_on_top_and_every_value_has_a_mark():
    ax = tornado(grid())
    assert texts(ax.get_yticklabels()) == ["sigma_spread", "weight_prior"]
    bottom, top = ax.get_ylim()
    assert bottom > top
    found = marks(ax)
    assert sorted(found[:, 0].tolist()) == [-0.1, 0.2, 3.0]  # a point without a score has none
    assert_allclose(found[np.argmax(found[:, 0]), 1], 0.0)
    assert {text.get_text() for text in ax.texts} == {"a=0.1", "a=10", "0.1"}
    ends = np.sort(np.concatenate([np.array(lines.get_segments())[:, :, 0] for lines in ax.collections]), axis=0)
    assert_allclose(ends[-1], [1.0, 5.0])


def test_weights_and_differences_have_the_base_at_their_own_value():
    ax = tornado(grid(), effect="weight[rf]")
    assert texts(ax.get_yticklabels()) == ["weight_prior", "sigma_spread"]
    assert ax.lines[0].get_xdata()[0] == 0.4
    assert ax.get_xlabel() == "Posterior mean weight of rf"
    assert tornado(grid(), effect="difference").get_xlabel() == "CRPS against HBM [%]"


def test_tornadoes_refuse_combinations_unknown_columns_and_nothing():
    with pytest.raises(KeyError, match="no column 'crps_chnage' in the table; did you mean 'crps_change'"):
        tornado(grid(), effect="crps_chnage")
    with pytest.raises(
        ValueError, match="the table holds combinations of options; draw a grid that was made with full=False"
    ):
        tornado(grid(option=["", "a, b", "a", "b", "b"]))
    with pytest.raises(ValueError, match="no point of the grid beside the base has a value of 'crps_change'"):
        tornado(grid(crps_change=[0.0] + 4 * [np.nan]))


def test_sensitivities_stand_at_their_values_with_the_threshold():
    table = pd.DataFrame(
        {"variable": ["a", "b"], "prior": [0.02, np.nan], "likelihood": [0.1, 0.3], "diagnosis": ["-", "-"]}
    )
    table.attrs["threshold"] = 0.08
    ax = power_sensitivity(table)
    assert texts(ax.get_yticklabels()) == ["a", "b"]
    assert texts(ax.get_legend().get_texts()) == ["below 0.08", "priors", "likelihood"]
    assert_allclose(ax.lines[0].get_xdata(), [0.02, np.nan])
    assert_allclose(ax.lines[1].get_xdata(), [0.1, 0.3])
    assert ax.lines[0].get_marker() != ax.lines[1].get_marker()


@pytest.fixture(scope="module")
def tree():
    rng = np.random.default_rng(1)
    y = rng.normal(size=60)
    frame = pd.DataFrame({"a": y + 0.4 * rng.normal(size=60), "b": y + 0.6 * rng.normal(size=60), "y": y})
    ensemble = be.Ensemble.from_frame(frame, members=["a", "b"], observation="y")
    return be.fit(be.HBM(), ensemble, draws=500, random_seed=1, progressbar=False)


def test_power_scaled_moments_are_those_of_the_joint_likelihood(tree):
    collection = power_scaled(tree, var_names=["slope"], backend="none", quantities=["mean", "sd"])
    lines = collection.viz["likelihood_lines"]["slope"].sel(member="a", quantities="mean").item()
    x, y = np.asarray(lines["x"]), np.asarray(lines["y"])
    from bayesens.sensitivity.importance_weights import weighted_moments
    from bayesens.sensitivity.power import scaled_draws

    posterior = tree["posterior"].to_dataset()[["slope"]]
    wanted = [
        float(weighted_moments(posterior, scaled_draws(tree, component="likelihood", power=power))["slope"].sel(
            statistic="mean", member="a")) for power in x
    ]  # fmt: skip
    # ArviZ resamples the draws, 2000 of them: five standard errors of the mean.
    assert_allclose(y, wanted, atol=5 * float(posterior["slope"].sel(member="a").std()) / np.sqrt(2000))
    default = power_scaled(tree, backend="none")
    assert list(default.viz["likelihood_lines"].data_vars) == ["linear_weight"]


def test_power_scaling_that_cannot_be_trusted_is_not_drawn(tree):
    with pytest.raises(ValueError, match="the importance weights cannot be trusted"):
        power_scaled(tree, alphas=(0.01, 1.25))


def implied(**more):
    rng = np.random.default_rng(1)
    values = {
        "relative_sd": ("draw", rng.gamma(2, 1, 400)),
        "relative_width": ("obs", rng.gamma(2, 1, 50)),
        "coverage90": 0.93,
    }
    return xr.Dataset(values | more, attrs={"members": '["a", "b", "c"]'})


def test_implied_quantities_have_their_medians_and_intervals():
    r = np.linspace(-0.5, 0.9, 400)
    axes = prior_implied(implied(error_corr=("draw", r)))
    assert axes[0].get_xlabel() == "Mean correlation of errors f - y"
    assert_allclose(marks(axes[0])[:, 0], np.median(r))
    segment = np.array(axes[0].collections[0].get_segments())[0, :, 0]
    assert_allclose(segment, np.quantile(r, [0.05, 0.95]))
    assert axes[2].get_title(loc="left") == "93 % of observations inside"
    weights = prior_implied(implied(effective_members=("draw", r)))
    assert weights[0].get_xlabel() == "Effective number of members"
    assert 3 in [line.get_xdata()[0] for line in weights[0].lines]  # of three members
    assert prior_implied(implied())[0].texts[0].get_text() == "no weights, no error correlations"


def test_axes_can_be_given_and_must_be_three():
    axes = plt.subplots(1, 3)[1]
    assert prior_implied(implied(), axes=axes)[1] is axes[1]
    with pytest.raises(ValueError, match="got 2 axes; wanted three"):
        prior_implied(implied(), axes=plt.subplots(1, 2)[1])
