"""Power-scaling: weights of draws against closed forms, against numerical integration, and against refits."""

import warnings

import arviz as az
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from numpy.testing import assert_allclose
from scipy.stats import lognorm, norm

import bayesens as be
from bayesens.sensitivity.importance_weights import importance_weights, weighted_moments
from bayesens.sensitivity.power import power_scaling, power_words, scaled_draws
from simulated import hierarchy, mixture

JOINT = {"correction": "joint", "group": False, "site": False}  # the mixture of regressions

SAMPLE = ("chain", "draw")


def quiet(*args, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return be.fit(*args, progressbar=False, **kwargs)


def a_fit(posterior, log_prior, log_joint, model="BMA", **attrs):
    """A tree with given draws, as a fit would be."""
    numbers = {dim: np.arange(size) for dim, size in posterior.sizes.items()}
    posterior = posterior.assign_coords(numbers)
    tree = xr.DataTree.from_dict({
        "posterior": posterior, "log_prior": log_prior, "sample_stats": xr.Dataset({"log_joint": (SAMPLE, log_joint)}),
    })  # fmt: skip
    tree.attrs = {"bayesens_format": 2, "bayesens_model": model, "bayesens_options": "{}", "bayesens_members": "[]",
                  "columns": "{}", "units": "", "point_estimate": 0} | attrs  # fmt: skip
    return tree


# ------------------------------------------------------------------------------------------------------- closed forms
def conjugate(seed=1, draws=4000, n=20, ybar=0.6, prior_sd=0.5):
    """Mean of normal data of sd 1 with a normal prior: independent draws of its posterior."""
    rng = np.random.default_rng(seed)
    variance = 1.0 / (n + prior_sd**-2)
    x = (n * ybar * variance + np.sqrt(variance) * rng.standard_normal(draws)).reshape(4, -1)
    log_prior = norm.logpdf(x, 0.0, prior_sd)
    log_joint = -0.5 * n * (ybar - x) ** 2
    return a_fit(xr.Dataset({"mean": (SAMPLE, x)}), xr.Dataset({"mean": (SAMPLE, log_prior)}), log_joint)


@pytest.mark.parametrize("component", ["prior", "likelihood"])
@pytest.mark.parametrize("power", [0.8, 1.25])
def test_a_conjugate_posterior_with_a_power_is_the_one_that_algebra_gives(component, power):
    n, ybar, sd = 20, 0.6, 0.5
    tree = conjugate(draws=40_000)
    got = weighted_moments(tree["posterior"].to_dataset(), scaled_draws(tree, component=component, power=power))["mean"]
    a, b = (power, 1.0) if component == "prior" else (1.0, power)
    variance = 1.0 / (b * n + a / sd**2)
    # Five standard errors of 40,000 draws, taken as 30,000 for the weights: below 1e-5 for correct code over all seeds.
    error = np.sqrt(variance / 30_000)
    assert abs(float(got.sel(statistic="mean")) - b * n * ybar * variance) < 5 * error
    assert abs(float(got.sel(statistic="sd")) - np.sqrt(variance)) < 5 * error / np.sqrt(2)


@pytest.fixture(scope="module")
def sigma():
    """A joint SingleMember without bias has a single parameter; its posterior on a fine grid beside a fit."""
    rng = np.random.default_rng(2)
    f = rng.normal(size=30)
    y = f + 0.4 * rng.normal(size=30)
    ensemble = be.Ensemble.from_frame(pd.DataFrame({"a": f, "y": y}), members=["a"], observation="y")
    model = be.SingleMember(**JOINT, bias="none", center=0.0, unit=1.0, sigma_scale=0.7)
    tree = quiet(model, ensemble, method="nuts", random_seed=1)
    grid = np.linspace(0.15, 1.5, 20_001)
    log_prior = lognorm.logpdf(grid, 0.5, scale=0.7)
    log_likelihood = norm.logpdf((y - f)[:, None], 0.0, grid).sum(axis=0)
    return tree, grid, {"prior": log_prior, "likelihood": log_likelihood}


def density(grid, parts, **power):
    log = sum(power.get(name, 1.0) * part for name, part in parts.items())
    p = np.exp(log - log.max())
    return p / np.trapezoid(p, grid)


@pytest.mark.parametrize("component", ["prior", "likelihood"])
@pytest.mark.parametrize("power", [0.8, 1.25])
def test_weights_give_the_moments_of_numerical_integration(sigma, component, power):
    tree, grid, parts = sigma
    weight = scaled_draws(tree, component=component, power=power)
    got = weighted_moments(tree["posterior"].to_dataset()[["sigma_mean"]], weight)["sigma_mean"]
    p = density(grid, parts, **{component: power})
    mean = np.trapezoid(grid * p, grid)
    sd = np.sqrt(np.trapezoid((grid - mean) ** 2 * p, grid))
    size = (
        float(az.ess(tree["posterior"].to_dataset()[["sigma_mean"]])["sigma_mean"]) * weight.attrs["ess"] / weight.size
    )
    # Five standard errors: below 1e-5 for correct code; the sd of a skewed posterior varies more than a normal one's.
    assert abs(float(got.sel(statistic="mean")) - mean) < 5 * sd / np.sqrt(size)
    assert abs(float(got.sel(statistic="sd")) - sd) < 5 * sd / np.sqrt(size)


def exact_sensitivity(grid, parts, component):
    """Cumulative Jensen-Shannon distance by integration of the definition (Kallioinen et al. 2024), on the range of x."""
    step = grid[1] - grid[0]

    def cjs(p, q):
        middle = 0.5 * (p + q)
        with np.errstate(divide="ignore", invalid="ignore"):
            inside = np.where(p > 0, p * np.log2(p / middle), 0.0)
        return np.sum(inside) * step + np.sum(q - p) * step / (2 * np.log(2))

    gradient = 0.0
    for alpha in (0.99, 1.01):
        both = []
        for side in (1, -1):
            one, other = (np.cumsum(density(grid, parts, **power)[::side]) * step for power in ({}, {component: alpha}))
            both.append(np.sqrt((cjs(one, other) + cjs(other, one)) / np.sum((one + other) * step)))
        gradient += max(both) / abs(np.log2(alpha)) / 2
    return gradient


def test_sensitivities_are_those_of_numerical_integration(sigma):
    tree, grid, parts = sigma
    table = power_scaling(tree).set_index("variable")
    x = tree["posterior"]["sigma_mean"].values
    inside = (grid >= x.min()) & (grid <= x.max())  # the distance is relative to the range of what it integrates over
    cut = {name: part[inside] for name, part in parts.items()}
    for component in ("prior", "likelihood"):
        wanted = exact_sensitivity(grid[inside], cut, component)
        # Of 3000 independent draws the ratio to this has mean 1.00 and sd .02 for the prior, 1.03 and .055 for the
        # likelihood, over 200 seeds: 1.3 is five sds away.
        assert_allclose(table.loc["sigma_mean", component], wanted, rtol={"prior": 0.12, "likelihood": 0.3}[component])
    assert_allclose(table.loc["sigma_mean", "mean"], np.trapezoid(grid * density(grid, parts), grid), rtol=0.02)


# ------------------------------------------------------------------------------------------------------------- refits
def agree(base, refit, weight, names, errors=5.0):
    """Means and sds of a reweighted fit and a refit within so many Monte Carlo standard errors."""
    first, second = (tree["posterior"].to_dataset()[list(names)] for tree in (base, refit))
    moments = weighted_moments(first, weight)
    share = weight.attrs["ess"] / weight.size
    compared = 0
    for name in names:
        mean, sd = (moments[name].sel(statistic=s).values for s in ("mean", "sd"))
        mean_2, sd_2 = second[name].mean(SAMPLE).values, second[name].std(SAMPLE).values
        size = share * np.minimum(az.ess(first)[name].values, weight.size)
        size_2 = np.minimum(az.ess(second)[name].values, weight.size)
        error = np.sqrt(sd**2 / size + sd_2**2 / size_2)
        assert (np.abs(mean - mean_2) < errors * error).all(), (name, mean, mean_2, error)
        # The variance of a sample sd is (kurtosis - 1) sd^2 / 4 size; squares mix slower than the values: half the size.
        centred = ((second[name] - second[name].mean(SAMPLE)) ** 2).values
        kurtosis = np.mean(centred**2, axis=(0, 1)) / np.mean(centred, axis=(0, 1)) ** 2
        error = sd_2 * np.sqrt((kurtosis - 1.0) / 2.0 * (1.0 / size + 1.0 / size_2))
        assert (np.abs(sd - sd_2) < errors * error).all(), (name, sd, sd_2, error)
        compared += 2 * mean.size
    return compared


@pytest.fixture(scope="module")
def bma():
    ensemble = mixture()
    return ensemble, quiet(be.BMA(**JOINT), ensemble, method="nuts", random_seed=1)


def test_a_refit_with_a_tempered_likelihood_agrees(bma):
    ensemble, base = bma
    refit = quiet(
        be.BMA(**JOINT),
        ensemble,
        method="nuts",
        random_seed=2,
        likelihood_power=0.8,
        log_likelihood=False,
    )
    weight = scaled_draws(base, component="likelihood", power=0.8)
    # 24 comparisons of five standard errors each: below 1e-4 for correct code over all seeds.
    assert agree(base, refit, weight, ["weight", "bias", "slope", "sigma"]) == 24
    # The change is there to be seen: the tempered sd of the weights is larger by more than three such errors.
    sd, sd_2 = (tree["posterior"]["weight"].std(SAMPLE).values for tree in (base, refit))
    assert (sd_2 > 1.03 * sd).all()


@pytest.mark.slow
@pytest.mark.parametrize("component", ["prior", "likelihood"])
@pytest.mark.parametrize("power", [0.8, 1.25])
@pytest.mark.parametrize("kind", ["BMA", "HBM"])
def test_refits_with_prior_and_likelihood_to_a_power_agree(kind, component, power):
    if kind == "BMA":  # a prior that pulls, or its power would move nothing
        ensemble, model = (
            mixture(),
            be.BMA(
                **JOINT,
                weight_prior=be.Prior("Dirichlet", a=4),
                slope_prior=be.Prior("Normal", mu=1.2, sigma=0.1),
            ),
        )
        names = ["weight", "bias", "slope", "sigma"]
    else:
        ensemble, model = hierarchy(), be.HBM(slope_prior=be.Prior("Normal", mu=1.1, sigma=0.1))
        names = ["bias", "slope", "error_sd", "linear_weight", "truth_sd", "slope_site"]
    base = quiet(model, ensemble, method="nuts", random_seed=1, log_likelihood=False)
    refit = quiet(model, ensemble, method="nuts", random_seed=2, log_likelihood=False, **{f"{component}_power": power})
    weight = scaled_draws(base, component=component, power=power)
    # At most 24 comparisons of five standard errors each in eight cases: below 2e-4 for correct code over all seeds.
    assert agree(base, refit, weight, names) >= 22


def test_powers_of_the_fit_come_first(bma):
    base = bma[1]
    tempered = base.copy()
    tempered.attrs["likelihood_power"] = 0.5
    one, half = (scaled_draws(tree, component="likelihood", power=1.1) for tree in (base, tempered))
    other = scaled_draws(base, component="likelihood", power=1.05)
    assert_allclose(half.values, other.values, rtol=1e-6)
    assert not np.allclose(half.values, one.values, rtol=1e-3)


# ------------------------------------------------------------------------------------------------------ arviz, and HBM
def test_bma_has_the_numbers_of_arviz(bma):
    table = power_scaling(bma[1]).set_index("variable")
    wanted = az.psense_summary(bma[1], var_names=["weight", "bias", "sigma_mean"], round_to=12)
    columns = ["prior", "likelihood"]
    assert_allclose(table.loc[wanted.index, columns].to_numpy(float), wanted[columns].to_numpy(float), rtol=1e-6)
    assert "weight[m1]" in table.index


@pytest.fixture(scope="module")
def hbm():
    ensemble = hierarchy()
    return ensemble, quiet(be.HBM(site=False), ensemble, method="auto", draws=500, random_seed=1)


def test_the_joint_likelihood_of_hbm_is_scaled_and_not_its_conditional_part(hbm):
    tree = hbm[1]
    joint, part = (power_scaling(tree, joint=joint, var_names=["bias", "slope"]) for joint in (True, False))
    conditional = az.psense(tree, group="likelihood", var_names=["bias", "slope"])
    assert_allclose(part["likelihood"], np.concatenate([conditional["bias"], conditional["slope"]]), rtol=1e-6)
    made = tree.copy()
    made["log_likelihood"] = xr.DataTree(xr.Dataset({"joint": tree["sample_stats"]["log_joint"]}))
    whole = az.psense(made, group="likelihood", var_names=["bias", "slope"])
    assert_allclose(joint["likelihood"], np.concatenate([whole["bias"], whole["slope"]]), rtol=1e-6)
    assert not np.allclose(joint["likelihood"], part["likelihood"], rtol=0.05)
    assert "p(y, f)" in power_words(joint)
    assert "arviz.psense on log_likelihood/y scales p(y | f) only" in power_words(joint)
    assert "the conditional part only" in power_words(part)
    assert "rows count as independent" in power_words(power_scaling(conjugate()))


def test_a_log_likelihood_that_was_left_out_is_computed_from_the_rows_or_asked_for(hbm):
    ensemble, tree = hbm
    left_out = xr.DataTree.from_dict(
        {name: node.to_dataset() for name, node in tree.children.items() if name != "log_likelihood"}
    )
    left_out.attrs = tree.attrs
    stored, made = (
        scaled_draws(one, ensemble, component="likelihood", power=1.1, joint=False) for one in (tree, left_out)
    )
    assert_allclose(stored.values, made.values, rtol=1e-6)
    with pytest.raises(
        ValueError, match="has left out its log_likelihood, which joint=False scales; pass the training rows"
    ):
        power_scaling(left_out, joint=False)


def test_labels_name_members_and_symmetric_matrices_stand_once(hbm):
    variables = list(power_scaling(hbm[1])["variable"])
    assert "error_corr[m1, m2]" in variables
    assert not {"error_corr[m2, m1]", "error_corr[m1, m1]"} & set(variables)
    assert not any(name.startswith(("residual_corr", "residual_common")) for name in variables)
    assert list(power_scaling(hbm[1], var_names=["slope"])["variable"]) == ["slope[m1]", "slope[m2]"]


# ----------------------------------------------------------------------------------------------------- words, refusals
def test_a_prior_that_fights_the_data_is_told_apart_from_a_strong_one():
    conflict = power_scaling(conjugate(n=20, ybar=3.0, prior_sd=0.2)).iloc[0]
    assert conflict["diagnosis"] == "prior-data conflict"
    assert power_scaling(conjugate(n=400, ybar=0.1, prior_sd=5.0)).iloc[0]["diagnosis"] == "-"
    strong = power_scaling(conjugate(n=1, ybar=0.0, prior_sd=0.05))
    assert strong.iloc[0]["diagnosis"] == "strong prior or weak likelihood"
    assert "Strong prior or weak likelihood (the priors say more there than the data do): mean" in power_words(strong)


def test_a_flat_prior_has_no_sensitivity():
    tree = conjugate()
    tree["log_prior"]["mean"] = tree["log_prior"]["mean"] * 0.0 + 1.5
    line = power_scaling(tree).iloc[0]
    assert line["prior"] == 0.0
    assert line["k_prior_low"] == -np.inf
    assert line["diagnosis"] == "-"


def test_weights_that_cannot_be_trusted_are_refused_and_sensitivities_are_not_given():
    tree = conjugate()
    with pytest.raises(
        ValueError, match=r"Pareto k is .*, wanted at most 0.70 for 4000 draws; fit again with likelihood_power=0.02"
    ):
        scaled_draws(tree, component="likelihood", power=0.02)
    rng = np.random.default_rng(5)
    heavy = 500.0 * rng.standard_t(1, size=(4, 1000))
    table = power_scaling(a_fit(tree["posterior"].to_dataset(), tree["log_prior"].to_dataset(), heavy))
    assert np.isnan(table["likelihood"]).all()
    assert table["diagnosis"].str.startswith("none: Pareto k").all()
    assert "fit again with prior_power=0.8 and 1.25" in power_words(table)
    with pytest.raises(ValueError, match="1 of 40 draws have no finite density"):
        importance_weights(xr.DataArray(np.r_[np.zeros(39), -np.inf][None], dims=SAMPLE))


def test_points_few_draws_and_unknown_names_are_refused(bma):
    ensemble, base = bma
    with pytest.raises(ValueError, match="a fit by method='em' is one point and has no draws to weigh"):
        power_scaling(quiet(be.BMA(**JOINT), ensemble, method="em"))
    few = conjugate(draws=20)
    with pytest.raises(ValueError, match="the fit has 20 draws, and a Pareto tail needs 25 or more"):
        scaled_draws(few, component="prior", power=1.1)
    with pytest.raises(KeyError, match=r"no component 'priors' in a posterior; did you mean 'prior'\?"):
        scaled_draws(base, component="priors", power=1.1)
    with pytest.raises(KeyError, match="no variable 'wieght' in the posterior; did you mean 'weight'"):
        power_scaling(base, var_names=["wieght"])
    with pytest.raises(ValueError, match="power is above zero, and 1 for no change; got 0"):
        scaled_draws(base, component="prior", power=0)
    with pytest.raises(ValueError, match="this is no bayesens fit"):
        power_scaling(xr.DataTree())
