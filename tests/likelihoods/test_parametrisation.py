"""Coordinates of a correlation with a common factor: there and back, the Jacobian, the density, and what they are for."""

from functools import cache

import numpy as np
import pandas as pd
import pymc as pm
import pytensor
import pytensor.tensor as pt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymc.blocking import DictToArrayBijection, RaveledVars
from pymc.distributions.transforms import CholeskyCorrTransform
from pytensor.compile.mode import Mode

import bayesens as be
from bayesens import worlds
from bayesens.inference.log_density import compile_target
from bayesens.inference.sampling.laplace import curvature, find_modes
from bayesens.inference.tape.trace import trace
from bayesens.likelihoods.parametrisation import CholeskyCorr, EffectCoordinates, FactorCoordinates

PLAIN = Mode(linker="py", optimizer=None)


@pytest.mark.parametrize("k", [2, 3, 4, 7])
def test_plain_transform_is_that_of_pymc(k):
    x = pt.tensor("x", dtype="float64", shape=(k * (k - 1) // 2,))
    found = []
    for transform in (CholeskyCorr(k), CholeskyCorrTransform(k)):
        root = transform.backward(x)
        outputs = [root, transform.log_jac_det(x), transform.forward(root)]
        function = pytensor.function([x], [*outputs, pt.grad(outputs[1], x)], mode=PLAIN)
        found.append(function(np.random.default_rng(k).normal(scale=2.0, size=x.type.shape)))
    for ours, theirs in zip(*found):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-14)


def coordinates(k):
    with pm.Model() as model:
        rest = pm.LKJCorr("rest", n=k, eta=2.0)
        common = pm.Beta("common", 2.0, 3.0)
    changes = (model.rvs_to_transforms[rv] for rv in (common, rest))
    return FactorCoordinates(*changes, common.owner.inputs, rest.owner.inputs)


@cache  # tracing takes a second, and every example asks for it
def functions(k):
    """Both ways as functions of one vector, and the correlation and the factor that a point stands for."""
    found, size = coordinates(k), 1 + k * (k - 1) // 2
    x = pt.tensor("x", dtype="float64", shape=(size,))
    common, rest, jacobian = found.backward(x[0], x[1:])
    back = trace([jacobian, pt.concatenate([common[None], rest])], x)
    there = trace([pt.concatenate([part.reshape((-1,)) for part in found.forward(x[0], x[1:])])], x)
    r, root = found.common.backward(common, *found.common_inputs), found.rest.backward(rest, *found.rest_inputs)
    whole = found.rest.backward(x[1:], *found.rest_inputs)
    matrices = trace([r, r + (1.0 - r) * root @ root.T, whole @ whole.T], x)
    return back, there, matrices


@pytest.mark.parametrize("k", [2, 3, 4, 7])
def test_there_and_back_and_what_they_stand_for(k):
    back, there, matrices = functions(k)
    x = np.random.default_rng(k).normal(scale=1.5, size=(50, back.size))
    np.testing.assert_allclose(there.values(back.values(x)[1])[0], x, rtol=1e-7, atol=1e-7)
    r, mixed, whole = matrices.values(x)
    np.testing.assert_allclose(mixed, whole, atol=1e-12)
    largest = 1.0 / np.linalg.inv(whole).sum(axis=(1, 2))
    np.testing.assert_allclose(r / largest, 1.0 / (1.0 + np.exp(-x[:, 0])), rtol=1e-9)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), k=st.sampled_from([2, 3, 5]))
def test_jacobian_is_the_determinant_of_finite_differences(seed, k):
    back, _, _ = functions(k)
    x = np.random.default_rng(seed).normal(size=back.size)
    step = 1e-5 * np.eye(back.size)
    slope = (back.values(x + step)[1] - back.values(x - step)[1]) / 2e-5
    sign, logarithm = np.linalg.slogdet(slope)
    assert sign > 0
    assert back.values(x[None])[0][0] == pytest.approx(logarithm, abs=1e-5)


def table(rows, k=3, correlation=0.8):
    rng = np.random.default_rng(5)
    y = rng.normal(size=rows)
    errors = np.sqrt(correlation) * rng.normal(size=(rows, 1)) + np.sqrt(1 - correlation) * rng.normal(size=(rows, k))
    frame = pd.DataFrame(0.8 * y[:, None] + 0.5 * errors, columns=[f"m{i}" for i in range(k)]).assign(y=y)
    return be.Ensemble.from_frame(frame, members=[f"m{i}" for i in range(k)], observation="y")


def test_density_of_a_target_is_that_of_pymc_at_the_point_times_the_jacobian():
    """With priors of other families too, one of which has another transform."""
    for model in (be.HBM(), be.HBM(common_prior=be.Prior("Kumaraswamy", a=2, b=3)), be.HBM.preset("vague")):
        built = model.build(table(50))
        target = compile_target(built)
        x = target.start + np.random.default_rng(2).normal(scale=0.5, size=(4, len(target.start)))
        values, jacobian = target.unconstrained(x)
        layout = DictToArrayBijection.map(built.initial_point(random_seed=0)).point_map_info
        logp = built.compile_logp(mode=PLAIN)
        expected = [logp(DictToArrayBijection.rmap(RaveledVars(v, layout))) + j for v, j in zip(values, jacobian)]
        np.testing.assert_allclose(target.logp(x), expected, rtol=1e-10)
        assert np.any(np.abs(jacobian) > 0.1)


def test_start_is_the_initial_point_of_pymc():
    built = be.HBM().build(table(50))
    target = compile_target(built)
    values = target.unconstrained(target.start[None])[0][0]
    initial = DictToArrayBijection.map(built.initial_point(random_seed=0)).data
    np.testing.assert_allclose(values, initial, atol=1e-8)


def test_with_many_rows_the_posterior_is_nearly_normal_in_these_coordinates():
    """The log density 1 sd away from the optimum in any direction falls by 1/2, which along the old ridge it does not."""
    built = be.HBM().build(table(200_000))
    target = compile_target(built)
    mode = find_modes(target, start=target.start, starts=0, rng=np.random.default_rng(1))[0]
    root = curvature(target, mode.x)
    u = np.random.default_rng(2).normal(size=(500, len(mode.x)))
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    fall = mode.logp - target.logp(mode.x + u @ root.T)
    assert np.max(np.abs(fall - 0.5)) < 0.25


def test_a_correlation_without_pymcs_transforms_keeps_its_own_coordinates():
    """A model that someone has built with transforms of their own is sampled as it is."""
    with pm.Model() as model:
        rest = pm.LKJCorr("rest", n=3, eta=2.0)
        common = pm.Uniform("common", 0.0, 0.9, default_transform=None)
        common.tag.rest = rest
        pm.Potential("loglik", -((rest[1, 0] - 0.2) ** 2) - common**2)
    x = np.array([[0.3, -0.2, 0.4, 0.5]])
    values, jacobian = compile_target(model).unconstrained(x)
    np.testing.assert_array_equal(values, x)
    np.testing.assert_array_equal(jacobian, [0.0])
    assert pytensor.config.floatX == "float64"


def test_coordinates_of_effects_and_their_jacobian():
    variance = np.array([0.04, 0.5, 3.0])
    own = EffectCoordinates(variance)
    value, sd = pt.dvector("value"), pt.dscalar("sd")
    inputs = None, None, None, sd
    effect = own.backward(value, *inputs)
    back, jacobian = own.forward(effect, *inputs), own.log_jac_det(value, *inputs)
    run = pytensor.function([value, sd], [effect, back, jacobian], mode="FAST_COMPILE")
    x = np.array([0.3, -2.0, 1.1])
    for tau in (1e-6, 0.3, 1e3):
        effects, again, log = run(x, tau)
        np.testing.assert_allclose(effects, x / np.sqrt(1 / tau**2 + 1 / variance), rtol=1e-12)
        np.testing.assert_allclose(again, x, rtol=1e-12)
        np.testing.assert_allclose(log, np.log(effects / x), rtol=1e-9)


@pytest.mark.parametrize("between", [0.0, 1.5])
def test_effects_have_the_posterior_of_a_grid(between):
    """Site effects of a normal mean, integrated out by hand and their sd over a grid, with offsets and without any."""
    rng = np.random.default_rng(7)
    site = np.repeat(np.arange(12), rng.integers(3, 9, size=12))
    y = rng.normal(size=12)[site] * between + rng.normal(size=len(site))
    frame = pd.DataFrame({"a": rng.normal(size=len(y)), "y": y, "site": site.astype(str)})
    ensemble = be.Ensemble.from_frame(frame, members=["a"], observation="y", site="site")
    model = be.Climatology(site=True, center=0.0, unit=1.0)
    tree = be.fit(model, ensemble, random_seed=1, progressbar=False, log_likelihood=False)
    n, mean = np.bincount(site), np.bincount(site, y) / np.bincount(site)
    within = np.sum((y - mean[site]) ** 2)
    grid = np.meshgrid(
        np.linspace(-2.0, 2.0, 60), np.linspace(0.6, 1.8, 60), np.linspace(0.002, 3.0, 160), indexing="ij"
    )
    mu, sd, tau = (part.ravel()[:, None] for part in grid)
    spread = tau**2 + sd**2 / n
    log = -0.5 * np.sum(np.log(spread) + (mean - mu) ** 2 / spread, axis=1)
    log += (-(len(y) - 12) * np.log(sd) - 0.5 * within / sd**2 - 0.5 * mu**2 - 0.5 * (sd / 2) ** 2 - 0.5 * tau**2)[:, 0]
    weight = np.exp(log - log.max()) / np.exp(log - log.max()).sum()
    draws = tree["posterior"]
    for name, values in (("mean", mu), ("sd", sd), ("offset_site_sd", tau)):
        wanted = weight @ values[:, 0]
        error = np.sqrt(weight @ (values[:, 0] - wanted) ** 2)
        # An effective sample size of 400 gives a Monte Carlo error of .05 sd: four of them, and the grid's own.
        assert abs(float(draws[name].mean()) - wanted) < 0.22 * error
        assert float(draws[name].std()) == pytest.approx(error, rel=0.15)
    first = weight @ ((mean[0] - mu) * tau**2 / (tau**2 + sd**2 / n[0]))[:, 0]
    assert float(draws["offset_site"].sel(site="0").mean()) == pytest.approx(first, abs=0.05)


@pytest.mark.filterwarnings("ignore:The fit has not converged")
def test_a_mixture_whose_sites_have_no_offset_does_not_fall_into_the_spike():
    """Centred effects sent sigma to 1e22 here: the density has no bound where the effects' sd goes to zero."""
    frame = worlds.world("exchangeable", sites=16, times=15, random_seed=2).frame
    members = [name for name in frame if name.startswith("m")]
    ensemble = be.Ensemble.from_frame(frame, members=members, observation="y", site="site")
    tree = be.fit(be.BMA(site=True), ensemble, draws=500, random_seed=1, progressbar=False, log_likelihood=False)
    plain = be.fit(be.BMA(), ensemble, draws=500, random_seed=1, progressbar=False, log_likelihood=False)
    assert tree.attrs.get("rhat_max", 1.0) < 1.05
    assert float(tree["posterior"]["sigma"].max()) < 3 * float(plain["posterior"]["sigma"].max())
    assert float(tree["posterior"]["offset_site_sd"].mean()) < 0.5 * float(plain["posterior"]["sigma"].mean())
