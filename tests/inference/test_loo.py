"""loo: ArviZ's own numbers on a stored log likelihood, exact and refitted answers, subsamples, refusals, and bounded memory."""

import subprocess
import sys

import arviz as az
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from regressions import JOINT, MEMBERS, quiet
from scipy.stats import norm
from scipy.stats import t as student

import bayesens as be
from bayesens.inference.fit import _describe
from bayesens.inference.fit_tree import log_likelihood_of, model_of
from bayesens.inference.sampling.psis import good_k


def table(n, seed=1):
    rng = np.random.default_rng(seed)
    y = rng.normal(5.0, 1.0, n)
    frame = pd.DataFrame({name: y + rng.normal(0.1 * k, 0.5 + 0.1 * k, n) for k, name in enumerate(MEMBERS)})
    return frame.assign(y=y, site=rng.choice(["s1", "s2", "s3", "s4"], n))


def ensemble(frame):
    return be.Ensemble.from_frame(frame, members=MEMBERS, observation="y", site="site")


def with_gaps(n, seed=1):
    """A row without an observation and one without a member."""
    frame = table(n, seed)
    frame.loc[3, "y"], frame.loc[7, "m2"] = np.nan, np.nan
    return frame


def chains(value, rng, spread=0.05, draws=150):
    """Four chains about a value whose draws hang together: (chain, draw, ...)."""
    value = np.asarray(value, float)
    noise = rng.normal(size=(4, draws, *value.shape))
    for t in range(1, draws):
        noise[:, t] = 0.6 * noise[:, t - 1] + 0.8 * noise[:, t]
    return value * np.exp(spread * noise)


def posterior_of(model, ens, values, **constant):
    """A posterior made up of chains about given values; effects of an HBM as its own `complete` draws them."""
    rng = np.random.default_rng(3)
    dims = ("chain", "draw", "member", "member_")
    variables = {n: (dims[: 2 + np.ndim(v)], chains(v, rng)) for n, v in values.items()}
    for name, value in constant.items():
        variables[name] = (dims[: 2 + np.ndim(value)], np.broadcast_to(value, (4, 150, *np.shape(value))))
    posterior = xr.Dataset(variables, {"member": MEMBERS})
    if "weight" in posterior:
        posterior["weight"] = posterior["weight"] / posterior["weight"].sum("member")
    if isinstance(model, be.HBM):
        return model.complete(posterior.assign_coords(model.coordinates(ens)), ens, rng)
    if model.site:
        effects = chains(np.ones(4), rng, 0.3) - 1.0
        posterior = posterior.assign(offset_site=(("chain", "draw", "site"), effects))
        posterior = posterior.assign_coords(site=["s1", "s2", "s3", "s4"])
    return posterior


def tree_of(model, ens, posterior):
    model = model.resolve(ens)
    tree = xr.DataTree.from_dict({"posterior": posterior(model, ens) if callable(posterior) else posterior})
    tree.attrs = _describe(model, ens) | {"method": "nuts"}
    return be.add(tree, ens, "log_likelihood")


BMA = {"bias": [0.1, 0.2, 0.3], "slope": [0.95, 1.0, 0.9], "weight": [0.5, 0.3, 0.2], "sigma": [0.5, 0.6, 0.8]}
HBM = {"truth_mean": 5.0, "truth_sd": 1.0, "truth_site_sd": 0.1, "bias": [0.1, 0.2, 0.3], "slope": [1.0, 1.0, 1.1],
       "slope_site": [1.0, 1.1, 0.9], "error_sd": [0.5, 0.6, 0.7], "bias_site_sd": [0.1, 0.1, 0.2]}  # fmt: skip
INDEPENDENT = {"residual_corr": np.eye(3), "bias_site_corr": np.eye(3)}


@pytest.fixture(scope="module")
def zeros():
    """Many of the observations at the point mass of the square root."""
    frame = table(120)
    frame[MEMBERS] = np.maximum(frame[MEMBERS] - 4.0, 0.0)
    return frame.assign(y=np.maximum(frame["y"] - 4.5, 0.0))


@pytest.fixture(scope="module")
def fits(zeros):
    """Two models with effects and missing values, and one on a transformed scale."""
    gaps = ensemble(with_gaps(120))
    sqrt, hbm = be.BMA(**JOINT, transform="sqrt"), be.HBM(site=True)
    return {
        "BMA": (
            tree_of(
                be.BMA(correction="joint", group=False, site=True),
                gaps,
                lambda m, e: posterior_of(m, e, BMA | {"offset_site_sd": 0.3}),
            ),
            gaps,
        ),
        "HBM": (tree_of(hbm, gaps, lambda m, e: posterior_of(m, e, HBM, **INDEPENDENT)), gaps),
        "sqrt": (tree_of(sqrt, ensemble(zeros), lambda m, e: posterior_of(m, e, BMA)), ensemble(zeros)),
    }


def assert_same(got, wanted):
    for name in ("elpd", "se", "p"):
        assert got[name] == pytest.approx(wanted[name], abs=1e-10)
    for name in ("elpd_i", "pareto_k"):
        xr.testing.assert_allclose(got[name], wanted[name], rtol=0.0, atol=1e-10)
    for name in ("n_samples", "n_data_points", "good_k", "scale", "kind"):
        assert got[name] == wanted[name]


# ------------------------------------------------------------------------------------------------------- arviz's numbers
@pytest.mark.parametrize("name", ["BMA", "HBM", "sqrt"])
def test_loo_is_that_of_arviz_on_the_stored_log_likelihood(fits, name):
    tree, ens = fits[name]
    wanted = quiet(az.loo, tree)
    assert wanted.p > 0.1
    assert_same(quiet(be.loo, tree, ens), wanted)
    got = quiet(be.loo, tree.drop_nodes("log_likelihood"), ens, memory=1.0)  # a row at a time
    assert_same(got, wanted)
    assert float(got.p_loo_i.sum()) == pytest.approx(wanted.p, abs=1e-10)


def test_one_chain_counts_as_independent_draws(fits):
    tree, ens = fits["BMA"]
    one = tree.isel(chain=[0])
    assert_same(quiet(be.loo, one, ens), quiet(az.loo, one))


def test_arviz_compares_what_loo_returns(fits):
    results = {name: quiet(be.loo, *fits[name]) for name in ("BMA", "HBM")}
    stored = {name: fits[name][0] for name in results}
    pd.testing.assert_frame_equal(quiet(az.compare, results), quiet(az.compare, stored))


def test_log_likelihood_of_zeros_is_the_mass_below_zero(fits, zeros):
    tree, ens = fits["sqrt"]
    assert (zeros["y"] == 0.0).sum() > 20
    posterior, model = tree["posterior"].to_dataset(), model_of(tree)
    row = int(np.argmax(zeros["y"] == 0.0))
    p, f = posterior.isel(chain=1, draw=7), np.sqrt(zeros.loc[row, MEMBERS].to_numpy(float))
    mean = model.center - p["bias"].values + p["slope"].values * (f - model.center)
    below = norm.cdf(-mean / p["sigma"].values)
    got = log_likelihood_of(model, posterior, ens).isel(chain=1, draw=7, obs=row)
    assert float(got) == pytest.approx(np.log(p["weight"].values @ below), abs=1e-10)


# ------------------------------------------------------------------------------------------------------ leaving rows out
def exact_climatology(y, rng, draws=1000):
    """Independent draws of mean and sd of a normal under the prior 1 / sd^2: the posterior without a sampler."""
    sd = np.sqrt(np.sum((y - y.mean()) ** 2) / rng.chisquare(len(y) - 1, size=(4, draws)))
    mean = y.mean() + sd / np.sqrt(len(y)) * rng.normal(size=(4, draws))
    return xr.Dataset({"mean": (("chain", "draw"), mean), "sd": (("chain", "draw"), sd)})


def test_left_out_density_is_the_student_t_of_all_other_rows():
    """p(y_i | all others) in closed form, with 4,000 independent draws: within .1 for each of 40 rows.

    Over 40 seeds of the draws the largest difference was .064, the median of them .016.
    """
    frame = table(40)
    ens, y = ensemble(frame), frame["y"].to_numpy()
    tree = tree_of(be.Climatology(), ens, exact_climatology(y, np.random.default_rng(1)))
    got = be.loo(tree, ens, progressbar=False).elpd_i.values
    for i in range(len(y)):
        rest = np.delete(y, i)
        scale = rest.std(ddof=1) * np.sqrt(1.0 + 1.0 / len(rest))
        assert got[i] == pytest.approx(student.logpdf(y[i], len(rest) - 1, rest.mean(), scale), abs=0.1)


@pytest.mark.slow
def test_plain_loo_is_right_for_a_laplace_fit():
    """The draws of a Laplace fit are already weighted: elpd within .1 of its standard error of that of NUTS."""
    ens = ensemble(table(1000, seed=2))
    laplace = be.fit(be.BMA(**JOINT), ens, method="laplace", random_seed=1, progressbar=False)
    one = quiet(be.loo, laplace, ens, progressbar=False)
    other = quiet(
        be.loo,
        quiet(
            be.fit,
            be.BMA(**JOINT),
            ens,
            method="nuts",
            random_seed=2,
            progressbar=False,
        ),
        ens,
    )
    assert abs(one.elpd - other.elpd) < 0.1 * other.se
    assert float(abs(one.elpd_i - other.elpd_i).max()) < 0.1


# ------------------------------------------------------------------------------------------------------------ subsamples
def test_a_subsample_is_that_of_arviz(fits):
    """The same rows for the same seed, the same estimator, with the density at the posterior mean from another route."""
    tree, ens = fits["BMA"]
    model, used = model_of(tree), ens.select(rows=ens.observed)
    observed = xr.Dataset({"y": ("obs", used.observation)}, {"obs": np.nonzero(ens.observed)[0]})
    tree = tree.assign(observed_data=xr.DataTree(observed))

    def at_mean(observed, data):
        mean = data.posterior.expand_dims(chain=[0], draw=[0])
        labels = tree["posterior"]["site"]
        return log_likelihood_of(model, mean.assign_coords(site=labels), used).values[0, 0]

    wanted = quiet(az.loo_subsample, tree, observations=40, seed=5, method="plpd", log_lik_fn=at_mean, pointwise=True)
    got = quiet(be.loo, tree, ens, subsample=40, random_seed=5)
    assert_same(got, wanted)
    assert got.subsampling_se == pytest.approx(wanted.subsampling_se, abs=1e-10)
    assert got.subsample_size == 40
    np.testing.assert_array_equal(got.loo_subsample_observations, wanted.loo_subsample_observations)
    np.testing.assert_allclose(got.elpd_loo_approx, wanted.elpd_loo_approx, atol=1e-10)
    again = quiet(be.loo, tree, ens, subsample=40, random_seed=5, memory=1.0)
    xr.testing.assert_identical(got.elpd_i, again.elpd_i)


@pytest.mark.slow
def test_subsamples_spread_about_the_whole_as_they_say(fits):
    """200 subsamples of 40 in 119 rows: bias within four standard errors, and their spread within 25 % of the stated one."""
    tree, ens = fits["HBM"]
    whole = quiet(be.loo, tree, ens)
    parts = [quiet(be.loo, tree, ens, subsample=40, random_seed=seed, progressbar=False) for seed in range(200)]
    error = np.array([part.elpd - whole.elpd for part in parts])
    stated = np.sqrt(np.mean([part.subsampling_se**2 for part in parts]))
    assert abs(error.mean()) < 4.0 * error.std() / np.sqrt(len(error))
    assert error.std() == pytest.approx(stated, rel=0.25)
    assert np.mean([part.se for part in parts]) == pytest.approx(whole.se, rel=0.05)


def test_a_subsample_of_all_rows_is_the_whole(fits):
    tree, ens = fits["HBM"]
    whole, part = quiet(be.loo, tree, ens), quiet(be.loo, tree, ens, subsample=119, random_seed=1)
    assert (part.elpd, part.p) == pytest.approx((whole.elpd, whole.p), abs=1e-9)
    assert part.se == pytest.approx(whole.se * np.sqrt(118 / 119), abs=1e-9)  # by N in place of N - 1
    assert part.subsampling_se == 0.0


def test_arviz_compares_subsamples(fits):
    results = {name: quiet(be.loo, *fits[name], subsample=60, random_seed=1) for name in ("BMA", "HBM")}
    compared = quiet(az.compare, results, round_to="none")
    assert compared["elpd"]["HBM"] == results["HBM"].elpd
    assert compared["subsampling_dse"].max() > 0.0


# --------------------------------------------------------------------------------------------------- refusals and notes
def test_rows_without_a_member_are_left_out_with_their_number(fits):
    frame = table(60)
    frame.loc[[4, 9], MEMBERS] = np.nan
    ens, without = ensemble(frame), ensemble(frame.drop(index=[4, 9]))
    tree = tree_of(be.BMA(**JOINT), ens, lambda m, e: posterior_of(m, e, BMA))
    with pytest.warns(UserWarning, match=r"2 of 60 rows with an observation have no member at all.*Leave them out"):
        got = be.loo(tree, ens, progressbar=False)
    assert got.n_data_points == 58
    assert got.elpd_i["obs"].values.tolist() == [i for i in range(60) if i not in (4, 9)]
    same = tree.copy()
    same.attrs = tree.attrs | {"data_digest": without.digest}
    np.testing.assert_array_equal(got.elpd_i.values, quiet(be.loo, same, without).elpd_i.values)


def test_high_pareto_k_warns_with_the_number_of_rows():
    frame = table(40)
    frame.loc[0, "y"] = 40.0
    ens = ensemble(frame)
    tree = tree_of(be.Climatology(), ens, exact_climatology(frame["y"].to_numpy(), np.random.default_rng(1), draws=150))
    with pytest.warns(UserWarning, match=r"Pareto k is above 0\.64, or cannot be fitted, in 1 of 40 rows.*held out\.$"):
        result = be.loo(tree, ens, progressbar=False)
    assert result.warning
    assert float(result.pareto_k[0]) > good_k(600)


def test_what_loo_refuses(fits):
    tree, ens = fits["BMA"]
    with pytest.raises(ValueError, match="not the one that was fitted"):
        be.loo(tree, ens.select(rows=slice(0, 100)))
    point = be.fit(be.BMA(**JOINT), ens, method="em")
    with pytest.raises(ValueError, match=r"one point \(method='em'\).*fit with method='auto'"):
        be.loo(point, ens)
    few = tree.isel(draw=slice(0, 5))
    with pytest.raises(ValueError, match=r"The fit has 20 draws, and leave-one-out needs at least 25"):
        be.loo(few, ens)
    for size in (1, 120, 2.5):
        with pytest.raises(ValueError, match=r"subsample is a whole number of rows from 2 to the 119 of the fit; got"):
            be.loo(tree, ens, subsample=size)
    with pytest.raises(ValueError, match="memory is a number of bytes above zero"):
        be.loo(tree, ens, memory=0)
    with pytest.raises(TypeError, match="wanted an Ensemble, got DataFrame"):
        be.loo(tree, table(120))


def test_effects_drawn_at_a_power_of_one_are_refused(fits):
    tree, ens = fits["HBM"]
    raised = tree.copy()
    raised.attrs = tree.attrs | {"likelihood_power": 0.1}
    with pytest.raises(
        ValueError, match=r"no weights take a row out of both. Use be.compare\(..., likelihood_power=0.1\)"
    ):
        be.loo(raised, ens)
    tempered_bma = fits["BMA"][0].copy()  # its effects are parameters like others, at the power of the likelihood
    tempered_bma.attrs = tempered_bma.attrs | {"likelihood_power": 0.5}
    assert quiet(be.loo, tempered_bma, ens).elpd != quiet(be.loo, fits["BMA"][0], ens).elpd


def test_what_a_model_says_of_its_densities_stands_in_the_result(fits, monkeypatch):
    tree, ens = fits["BMA"]
    assert "note" not in quiet(be.loo, tree, ens).elpd_i.attrs
    monkeypatch.setattr(be.BMA, "loo_note", "given the corrections of the members", raising=False)
    assert quiet(be.loo, tree, ens).elpd_i.attrs["note"] == "given the corrections of the members"
    table = quiet(be.loo_table, {"mixture": tree, "joint": fits["HBM"][0]}, ens)
    assert table.attrs["notes"] == {"mixture": "given the corrections of the members"}


# ---------------------------------------------------------------------------------------------------------------- memory
MEMORY = """
import resource, sys, warnings
import numpy as np, pandas as pd, bayesens as be
warnings.simplefilter("ignore")
task, transform = sys.argv[1:]

def table(n):
    rng = np.random.default_rng(n)
    y = np.maximum(rng.normal(1.0, 1.0, n), 0.0)
    frame = {f"m{k}": np.abs(y + rng.normal(0.1 * k, 0.5, n)) for k in range(4)}
    return be.Ensemble.from_frame(pd.DataFrame(frame | {"y": y}), members=list(frame), observation="y")

small, large = table(300), table(100_000)
tree = be.fit(be.BMA(correction="joint", transform=transform), small, method="laplace", draws=250, random_seed=1,
              log_likelihood=False)
be.score(tree, small), be.loo(tree, small, progressbar=False)
tree.attrs["data_digest"] = large.digest
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
result = be.score(tree, large)["log_score"].sum() if task == "score" else be.loo(tree, large, progressbar=False).elpd
assert np.isfinite(result)
growth = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(growth * (1 if sys.platform == "darwin" else 1024))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not tell a process's peak memory")
@pytest.mark.parametrize(("task", "transform"), [("loo", "identity"), ("loo", "sqrt"), ("score", "sqrt")])
def test_memory_stays_bounded_at_100_000_rows_and_1_000_draws(task, transform):
    """The array (row, draw) alone would take 0.8 GB; the log likelihood in it and its weights, several times that."""
    done = subprocess.run([sys.executable, "-c", MEMORY, task, transform], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 0.6e9
