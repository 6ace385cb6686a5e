"""Sampled posteriors: HBM against its row-by-row form, what must not change a fit, and ArviZ on fits as they are."""

import warnings

import arviz as az
import numpy as np
import pytest
import xarray as xr

import bayesens as be
from bayesens import simulate
from bayesens.inference.convergence import DIVERGING

JOINT = {"correction": "joint", "group": False, "site": False}  # the mixture of regressions

MEMBERS = ["m1", "m2", "m3"]
VALUES = ["y", *MEMBERS]
OTHER_ORDER = ["m3", "m1", "m2"]


def sampled(model, ens, **kwargs):
    """A fit without its notes on convergence: the comparisons below take the effective sample size into account."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return be.fit(model, ens, random_seed=kwargs.pop("random_seed", 1), progressbar=False, **kwargs)


# ------------------------------------------------------------------------------------------------- Monte Carlo errors
def resampling(tree):
    """Factor on the variance of a mean over draws that were resampled from proposals of limited effective size."""
    if tree.attrs.get("method") != "laplace":
        return 1.0
    return 1.0 + tree["posterior"].sizes["chain"] * tree["posterior"].sizes["draw"] / tree.attrs["importance_ess"]


def same_posterior(one, other, name, *, unit=1.0, errors=5.0, ratio=1.25):
    """Means within so many combined Monte Carlo errors, and standard deviations within a ratio, label by label."""
    a = one["posterior"][name]
    b = other["posterior"][name] / unit
    b = b.sel({d: a[d].values for d in a.dims if d in a.coords and d not in ("chain", "draw")})
    assert a.sizes.keys() == b.sizes.keys()
    sd, other_sd = (v.std(("chain", "draw")) for v in (a, b))
    free = sd > 1e-9 * np.abs(a).max()  # the diagonal of a correlation matrix has no error to compare with
    variance = sum(
        resampling(tree) * az.mcse(v.to_dataset(name=name), method="mean")[name].drop_vars("mcse", errors="ignore") ** 2
        for tree, v in ((one, a), (other, b))
    )
    difference = np.abs(a.mean(("chain", "draw")) - b.mean(("chain", "draw")))
    z = (difference / np.sqrt(variance)).where(free, 0.0)
    assert float(z.max()) <= errors, (name, z.values.round(1))
    np.testing.assert_allclose(difference.where(~free, 0.0), 0.0, atol=1e-9)
    share = (sd / other_sd).where(free, 1.0)
    assert 1.0 / ratio < float(share.min()) <= float(share.max()) < ratio, (name, share.values.round(2))


def outputs(tree, ens):
    """Predictive mean, sd and five quantiles (row, output)."""
    out = be.predict(tree, ens)
    return np.column_stack([out["mean"], out["sd"], out["quantile_value"]])


def output_errors(tree, ens, batches=20):
    """Monte Carlo errors of the outputs, from how they differ between batches of consecutive draws."""
    posterior = tree["posterior"].to_dataset()
    chains, draws = posterior.sizes["chain"], posterior.sizes["draw"]
    length = chains * draws // batches
    each = []
    for chain in range(chains):
        for start in range(0, draws - length + 1, length):
            batch = posterior.isel(chain=[chain], draw=slice(start, start + length))
            part = tree.copy()  # HBM also looks at the training rows that the tree holds
            part["posterior"] = xr.DataTree(batch)
            each.append(outputs(part, ens))
    assert len(each) == batches
    return np.sqrt(resampling(tree) / batches) * np.std(each, axis=0, ddof=1)


def same_predictions(one, ens, other, other_ens, *, unit=1.0, errors=6.0):
    a, b = outputs(one, ens), outputs(other, other_ens) / unit
    error = np.hypot(output_errors(one, ens), output_errors(other, other_ens) / unit)
    z = np.abs(a - b) / error
    assert z.max() <= errors, z.max(axis=0).round(1)


def nearly_identical(one, ens, other, other_ens, names, *, unit=1.0, shift=0.0):
    """The same seed: draw by draw but for rounding, and predictions within half of the Monte Carlo error of one fit.

    Rounding may tip a draw to the neighbouring proposal, so one draw in twenty may be another one.
    """
    for name in names:
        a, b = one["posterior"][name], other["posterior"][name]
        in_units = name not in ("weight", "slope") and not name.startswith("slope_") and not name.endswith("_corr")
        moved = (a - b / (unit if in_units else 1.0)) / a.std(("chain", "draw")).max()
        assert float((np.abs(moved) > 1e-3).mean()) < 0.05, name
    away = np.array([shift, 0.0, *[shift] * 5])
    difference = np.abs(outputs(one, ens) - (outputs(other, other_ens) - away) / unit) / output_errors(one, ens)
    assert difference.max() < 0.5, difference.max(axis=0)


# ------------------------------------------------------------------------------------------------ BMA, sampled by "auto"
def table(frame, members=MEMBERS, **columns):
    return be.Ensemble.from_frame(frame, members=members, observation="y", **columns)


@pytest.fixture(scope="module")
def mixture():
    """2,000 rows of soil moisture in m3/m3, one member missing in 15 % of them; ``auto`` takes Laplace."""
    frame = simulate.bma(
        2000, weight=[0.5, 0.3, 0.2], bias=[0.01, -0.02, 0.015], slope=[0.9, 1.0, 0.8], sigma=[0.02, 0.025, 0.035],
        center=0.22, member_sd=0.06, member_correlation=0.8, random_seed=11,
    )  # fmt: skip
    frame = simulate.with_missing(frame, ["m2"], 0.15, random_seed=11)
    tree = sampled(be.BMA(**JOINT), table(frame, units="m3 m-3"), log_likelihood=False)
    assert tree.attrs["method"] == "laplace"
    assert frame[:20]["m2"].isna().any()  # the rows that are predicted below
    return frame, tree


BMA_NAMES = ("weight", "bias", "slope", "sigma")


@pytest.mark.parametrize(("change", "unit", "shift"), [
    ("row order", 1.0, 0.0), ("units", 100.0, 0.0), ("origin", 1.0, 10.0),
])  # fmt: skip
def test_bma_with_the_same_seed_follows_row_order_units_and_origin_draw_by_draw(mixture, change, unit, shift):
    """4,000 draws a fit with the same seed: no chance is left, only rounding, which tips less than one draw in a hundred."""
    frame, tree = mixture
    moved = unit * frame + shift
    rows = moved.sample(frac=1.0, random_state=2) if change == "row order" else moved
    label = "%" if change == "units" else "m3 m-3"
    other = sampled(be.BMA(**JOINT), table(rows, units=label), log_likelihood=False)
    old, new = table(frame[:20], units="m3 m-3"), table(moved[:20], units=label)
    nearly_identical(tree, old, other, new, BMA_NAMES, unit=unit, shift=shift)
    assert be.predict(other, new)["mean"].attrs["units"] == label


def test_bma_follows_the_order_of_members_by_label(mixture):
    """Two fits of 4,000 draws; the order moves the draws, so means are compared within 5 Monte Carlo errors and outputs of 20
    rows within 6 (errors from 20 batches each). Twelve means and 140 outputs: a correct program fails once in 10,000 times.
    """
    frame, tree = mixture
    other = sampled(
        be.BMA(**JOINT),
        table(frame, OTHER_ORDER, units="m3 m-3"),
        random_seed=2,
        log_likelihood=False,
    )
    assert other["posterior"]["member"].values.tolist() == OTHER_ORDER
    for name in BMA_NAMES:
        same_posterior(tree, other, name)
    rows = table(frame[:20], units="m3 m-3")
    same_predictions(tree, rows, other, table(frame[:20], OTHER_ORDER, units="m3 m-3"))


# ------------------------------------------------------------------------------------------------ HBM, sampled by NUTS
def levels_table(seed=31):
    """Four groups of three sites with 15 rows, effects at every level as large as the errors, a member missing in 15 %."""

    def alike(sd):
        return sd**2 * (0.5 + 0.5 * np.eye(3))

    frame = simulate.hbm(
        n_sites=12, n_groups=4, n_times=15, truth_mean=2.0, truth_sd=1.0, truth_site_sd=0.6, truth_group_sd=0.6,
        center=2.0, bias=[0.1, -0.3, 0.2], slope=[0.9, 0.8, 0.7], slope_site=[0.9, 0.7, 0.8], slope_group=[0.8, 0.8, 0.8],
        error_cov=alike(0.5), bias_site_cov=alike(0.5), bias_group_cov=alike(0.5), random_seed=seed,
    ).frame  # fmt: skip
    return simulate.with_missing(frame, ["m2"], 0.15, random_seed=seed)


def levels_ensemble(frame, members=MEMBERS):
    return table(frame, members, site="site", group="group")


# Standard deviations of effects kept away from zero: there the row-by-row form, whose effects are centred, mixes badly.
AWAY_FROM_ZERO = {
    f"{what}_{level}_sd_prior": be.Prior("LogNormal", mu=mu, sigma=0.4)
    for what, mu in (("truth", -0.5), ("bias", -1.0))
    for level in ("site", "group")
}
HBM_NAMES = (
    "truth_mean", "truth_sd", "bias", "slope", "error_sd", "residual_corr",
    "truth_group_sd", "slope_group", "bias_group_sd", "bias_group_corr", "truth_group", "bias_group",
    "truth_site_sd", "slope_site", "bias_site_sd", "bias_site_corr", "truth_site", "bias_site",
)  # fmt: skip


@pytest.fixture(scope="module")
def levels():
    frame, model = levels_table(), be.HBM(**AWAY_FROM_ZERO)
    return frame, model, sampled(model, levels_ensemble(frame), method="nuts", draws=750, log_likelihood=False)


@pytest.mark.slow
def test_hbm_posterior_is_that_of_the_model_row_by_row(levels):
    """Also of the effects, which one form draws back and the other samples.

    180 rows, 3,000 draws against 4,000, effective sizes above 1,000. Means within 5 combined Monte Carlo errors: that one of
    107 quantities misses has a chance of 1e-4, of 2e-3 if the errors are put 15 % too small. Standard deviations within a
    ratio of 1.25, which is more than six of their errors.
    """
    import nutpie

    frame, model, tree = levels
    ens = levels_ensemble(frame)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of a BLAS for the C compiler, which is not used
        compiled = nutpie.compile_pymc_model(model.resolve(ens).build(ens, likelihood="rows"), backend="numba")
    rows = nutpie.sample(compiled, draws=2000, tune=1000, chains=2, cores=2, seed=3, target_accept=0.9,
                         save_warmup=False, progress_bar=False)  # fmt: skip
    # PyTensor's compiler gives sums another last digit from one process to the next, and a chain that meets one transition
    # that diverges in 4,000 is no other posterior: 107 quantities are compared below.
    assert float(rows["sample_stats"]["diverging"].mean()) <= DIVERGING
    shared = set(tree["posterior"].data_vars) & set(rows["posterior"].data_vars)
    own = {name for name in shared if not name.endswith(("_common", "_rest"))}
    assert own == {*HBM_NAMES, "slope_mean", "error_sd_mean"}
    for name in HBM_NAMES:
        for draws in (tree, rows):
            values = draws["posterior"][name]
            size = az.ess(values.to_dataset(name=name))[name].where(values.std(("chain", "draw")) > 1e-9)
            assert float(size.min()) > 1000, (name, size.values)
        same_posterior(tree, rows, name)


@pytest.fixture(scope="module")
def levels_laplace(levels):
    frame, model, _ = levels
    return sampled(model, levels_ensemble(frame), method="laplace", log_likelihood=False)


@pytest.mark.slow
@pytest.mark.parametrize("change", ["row order", "units"])
def test_hbm_with_the_same_seed_follows_row_order_and_units_draw_by_draw(levels, levels_laplace, change):
    """4,000 draws of the normal approximation, the same seed, so no chance is left; NUTS would turn rounding into other draws."""
    frame, model, _ = levels
    unit = 100.0 if change == "units" else 1.0
    moved = frame.assign(**unit * frame[VALUES])
    rows = moved.sample(frac=1.0, random_state=2) if change == "row order" else moved
    other = sampled(model, levels_ensemble(rows), method="laplace", log_likelihood=False)
    old, new = levels_ensemble(frame[::9]), levels_ensemble(moved[::9])
    nearly_identical(levels_laplace, old, other, new, HBM_NAMES, unit=unit)


@pytest.mark.slow
def test_hbm_by_nuts_follows_member_order_row_order_and_units_by_label(levels):
    """All three at once: two fits of 3,000 draws by NUTS, means of 107 quantities within 5 Monte Carlo errors, outputs of 20
    rows within 6 (errors from 20 batches each). A correct program fails once in 5,000 times,
    or once in 400 if the errors are put 15 % too small.
    """
    frame, model, tree = levels
    moved = frame.assign(**100.0 * frame[VALUES])
    mixed = levels_ensemble(moved.sample(frac=1.0, random_state=2), OTHER_ORDER)
    other = sampled(model, mixed, method="nuts", draws=750, random_seed=2, log_likelihood=False)
    for name in HBM_NAMES:
        plain = name.startswith("slope") or name.endswith("_corr")
        same_posterior(tree, other, name, unit=1.0 if plain else 100.0)
    rows, new = levels_ensemble(frame[::9]), levels_ensemble(moved[::9], OTHER_ORDER)
    same_predictions(tree, rows, other, new, unit=100.0)


# --------------------------------------------------------------------------------------------------------------- ArviZ
@pytest.fixture(scope="module")
def two_fits():
    """BMA and HBM of one table that HBM's own density made: 180 rows at 12 sites in 4 groups."""
    ens = levels_ensemble(levels_table())
    return ens, {
        "BMA": sampled(be.BMA(**JOINT), ens, method="nuts", draws=250, tune=400),
        "HBM": sampled(be.HBM(**AWAY_FROM_ZERO), ens, method="nuts", draws=250, tune=400),
    }


@pytest.fixture
def notes():
    """Warnings of the body, less those of a division by zero that ArviZ gives for constants, such as a diagonal of ones."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.filterwarnings("ignore", "invalid value encountered in scalar divide", RuntimeWarning)
        yield caught


@pytest.mark.parametrize("kind", ["BMA", "HBM"])
def test_arviz_summary_has_every_quantity_of_a_fit(two_fits, notes, kind):
    tree = two_fits[1][kind]
    rows = az.summary(tree, round_to="none")
    draws = tree["posterior"].to_dataset()
    assert len(rows) == sum(v.size for v in draws.mean(("chain", "draw")).data_vars.values())
    assert np.isfinite(rows[["mean", "sd", "ess_bulk", "mcse_mean"]].to_numpy()).all()
    assert np.isfinite(rows["r_hat"][rows["sd"] > 1e-9]).all()
    for member in MEMBERS:
        assert rows.loc[f"bias[{member}]", "mean"] == pytest.approx(float(draws["bias"].sel(member=member).mean()))
    assert not notes


@pytest.mark.parametrize("kind", ["BMA", "HBM"])
def test_arviz_psense_finds_prior_and_likelihood_in_a_fit(two_fits, notes, kind):
    rows = az.psense_summary(two_fits[1][kind])
    assert {f"bias[{member}]" for member in MEMBERS} <= set(rows.index)
    found = rows.loc[[f"bias[{member}]" for member in MEMBERS], ["prior", "likelihood"]].to_numpy(dtype=float)
    assert np.isfinite(found).all()
    assert (found > 0).all()
    assert not notes


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["BMA", "HBM"])
def test_arviz_forest_draws_every_variable_of_a_fit(two_fits, notes, kind):
    tree = two_fits[1][kind]
    plot = az.plot_forest(tree, backend="none")
    assert set(plot.viz["trunk"].data_vars) == set(tree["posterior"].data_vars)
    assert not notes


@pytest.mark.parametrize(("kind", "rel"), [("BMA", 1e-9), ("HBM", 2e-3)])
def test_arviz_loo_is_the_in_sample_score_less_the_penalty(two_fits, notes, kind, rel):
    """Exactly for BMA; the score of HBM integrates out the effects, which the log likelihood takes as drawn."""
    ens, fits = two_fits
    loo = az.loo(fits[kind])
    in_sample = -float(be.score(fits[kind], ens)["log_score"].sum())
    assert loo.p > 1.0
    assert loo.elpd == pytest.approx(in_sample - loo.p, rel=rel)
    assert (loo.pareto_k.values < 0.7).all()
    assert not notes


def test_arviz_compare_takes_bma_and_hbm_and_finds_the_one_that_made_the_data(two_fits, notes):
    """The data are one seed; HBM, which has the sites, is ahead by many standard errors."""
    table = az.compare(two_fits[1], round_to="none")
    assert table.index.tolist() == ["HBM", "BMA"]
    assert np.isfinite(table[["elpd", "p", "elpd_diff", "weight", "se", "dse"]].to_numpy(dtype=float)).all()
    assert table.loc["BMA", "elpd_diff"] < -4 * table.loc["BMA", "dse"]
    assert not notes


@pytest.mark.parametrize("kind", ["BMA", "HBM"])
def test_arviz_loo_pit_is_near_the_pit_of_the_score(two_fits, notes, kind):
    """From 1,000 draws: Monte Carlo errors up to .016 and what one row in 180 changes; 0.12 is more than both together."""
    ens, fits = two_fits
    pit = az.loo_pit(be.add(fits[kind], ens, "posterior_predictive", random_seed=1), random_state=1)["y"]
    scored = be.score(fits[kind], ens)["pit"]
    np.testing.assert_array_equal(pit["obs"], scored["obs"])
    np.testing.assert_allclose(pit, scored, atol=0.12)
    assert not notes
