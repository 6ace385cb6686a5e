"""Priors are values: they survive JSON, and scaled and shifted they keep the density that scipy gives."""

import json
from keyword import iskeyword

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytensor.compile.mode import Mode
from scipy import stats

from bayesens import Prior

# Graphs as they are written, in Python: quick to compile, and nothing is rewritten on the way.
PLAIN = Mode(linker="py", optimizer=None)
finite = st.floats(allow_nan=False, allow_infinity=False)
names = st.from_regex(r"[a-z][a-z_]{0,8}", fullmatch=True).filter(lambda n: n != "family" and not iskeyword(n))

# Prior and scipy's law of the unscaled quantity, for every family that moves within itself and for some that do not.
WHOLE_LINE = {
    "Normal": (Prior("Normal", mu=0.3, sigma=0.7), stats.norm(0.3, 0.7)),
    "Normal, defaults": (Prior("Normal"), stats.norm()),
    "Laplace": (Prior("Laplace", mu=0.3, b=0.7), stats.laplace(0.3, 0.7)),
    "Logistic": (Prior("Logistic", mu=0.3, s=0.7), stats.logistic(0.3, 0.7)),
    "Cauchy": (Prior("Cauchy", alpha=0.3, beta=0.7), stats.cauchy(0.3, 0.7)),
    "StudentT": (Prior("StudentT", nu=4, mu=0.3, sigma=0.7), stats.t(4, 0.3, 0.7)),
    "StudentT, no mu": (Prior("StudentT", nu=4, sigma=0.7), stats.t(4, 0.0, 0.7)),
    "Gumbel": (Prior("Gumbel", mu=0.3, beta=0.7), stats.gumbel_r(0.3, 0.7)),
    "SkewNormal": (Prior("SkewNormal", mu=0.3, sigma=0.7, alpha=2), stats.skewnorm(2, 0.3, 0.7)),
    "TruncatedNormal": (
        Prior("TruncatedNormal", mu=0.3, sigma=0.7, lower=-0.5, upper=2.0),
        stats.truncnorm(-0.8 / 0.7, 1.7 / 0.7, 0.3, 0.7),
    ),
    "TruncatedNormal, one bound": (
        Prior("TruncatedNormal", mu=0.3, sigma=0.7, lower=0.0),
        stats.truncnorm(-3 / 7, np.inf, 0.3, 0.7),
    ),
    "Uniform": (Prior("Uniform", lower=-1, upper=2), stats.uniform(-1, 3)),
    "Moyal": (Prior("Moyal", mu=0.3, sigma=0.7), stats.moyal(0.3, 0.7)),
    "Normal by precision": (Prior("Normal", mu=0.3, tau=4.0), stats.norm(0.3, 0.5)),
}  # fmt: skip
POSITIVE = {
    "HalfNormal": (Prior("HalfNormal", sigma=0.7), stats.halfnorm(0, 0.7)),
    "HalfNormal, defaults": (Prior("HalfNormal"), stats.halfnorm()),
    "HalfCauchy": (Prior("HalfCauchy", beta=0.7), stats.halfcauchy(0, 0.7)),
    "Weibull": (Prior("Weibull", alpha=2, beta=0.7), stats.weibull_min(2, 0, 0.7)),
    "InverseGamma": (Prior("InverseGamma", alpha=3, beta=0.7), stats.invgamma(3, 0, 0.7)),
    "LogNormal": (Prior("LogNormal", mu=-0.7, sigma=0.5), stats.lognorm(0.5, 0, np.exp(-0.7))),
    "LogNormal, defaults": (Prior("LogNormal"), stats.lognorm(1.0)),
    "Gamma": (Prior("Gamma", alpha=2, beta=4), stats.gamma(2, 0, 0.25)),
    "Gamma by mean": (Prior("Gamma", mu=0.5, sigma=0.25), stats.gamma(4, 0, 0.125)),
    "Exponential": (Prior("Exponential", lam=2), stats.expon(0, 0.5)),
    "Exponential by scale": (Prior("Exponential", scale=0.5), stats.expon(0, 0.5)),
    "ChiSquared": (Prior("ChiSquared", nu=3), stats.chi2(3)),
    "Beta": (Prior("Beta", alpha=2, beta=3), stats.beta(2, 3)),
    "Uniform from 0": (Prior("Uniform", lower=0, upper=2), stats.uniform(0, 2)),
    "Uniform, defaults": (Prior("Uniform"), stats.uniform(0, 1)),
    "Wald": (Prior("Wald", mu=0.5, lam=1.5), stats.invgauss(0.5 / 1.5, 0, 1.5)),
}
CASES = [
    *((name, *pair, *move) for name, pair in WHOLE_LINE.items() for move in ((1.0, 0.0), (0.02, 0.0), (40.0, -3.0))),
    *((name, *pair, scale, 0.0) for name, pair in POSITIVE.items() for scale in (1.0, 0.02, 40.0)),
]
# PyMC's own densities of these hold a constant (a logarithm or a root of 2) in single precision.
SINGLE_PRECISION = {"SkewNormal", "TruncatedNormal", "TruncatedNormal, one bound", "HalfCauchy", "ChiSquared"}


@pytest.mark.slow
@given(st.builds(lambda family, p: Prior(family, **p), st.from_regex(r"[A-Z][A-Za-z]{0,12}", fullmatch=True),
                 st.dictionaries(names, finite | st.lists(finite, max_size=4), max_size=4)))  # fmt: skip
def test_priors_survive_json_text_and_are_values(prior):
    again = Prior.from_json(json.loads(json.dumps(prior.to_json())))
    assert again == prior
    assert hash(again) == hash(prior)
    assert eval(repr(prior), {"Prior": Prior}) == prior


def test_priors_that_differ_are_not_equal_and_the_order_of_parameters_does_not_matter():
    assert Prior("Normal", mu=0, sigma=1) == Prior("Normal", sigma=1.0, mu=np.float64(0.0))
    assert Prior("Normal", mu=0, sigma=1) != Prior("Normal", mu=0, sigma=2)
    assert Prior("Normal", mu=0, sigma=1) != Prior("Laplace", mu=0, sigma=1)
    assert Prior("Dirichlet", a=[1, 2]).parameters == (("a", (1.0, 2.0)),)


@pytest.mark.parametrize(
    ("name", "prior", "law", "scale", "shift"), CASES, ids=[f"{c[0]} x {c[3]} + {c[4]}" for c in CASES]
)
def test_density_scaled_and_shifted_is_that_of_scipy(name, prior, law, scale, shift):
    unscaled = law.rvs(6, random_state=1)
    with pm.Model():
        variable = prior.create("x", scale=scale, shift=shift)
    value = pt.dvector()
    density = pytensor.function([value], pm.logp(variable, value), mode=PLAIN, on_unused_input="ignore")
    got = density(shift + scale * unscaled)
    tolerance = 1e-8 if name in SINGLE_PRECISION else 1e-10
    np.testing.assert_allclose(got, law.logpdf(unscaled) - np.log(scale), rtol=1e-10, atol=tolerance)


@pytest.mark.parametrize(("name", "prior", "law"), [(n, *p) for n, p in POSITIVE.items()], ids=list(POSITIVE))
def test_every_unconstrained_point_of_a_scaled_positive_prior_lies_in_its_support(name, prior, law):
    scale = 40.0
    with pm.Model() as model:
        prior.create("x", scale=scale)
    [value] = model.value_vars
    natural = model.rvs_to_transforms[model.free_RVs[0]]
    points = pt.dvector()
    back = natural.backward(points, *model.free_RVs[0].owner.inputs) if natural else points
    x = pytensor.function([points], back, mode=PLAIN, on_unused_input="ignore")(np.linspace(-4.0, 4.0, 9))
    low, high = law.support()
    assert np.all((x > scale * low) & (x < scale * high))
    assert np.all(np.diff(x) > 0)
    logp = model.compile_logp(mode=PLAIN)
    assert all(np.isfinite(logp({value.name: p})) for p in np.linspace(-2.0, 2.0, 5))


def test_vector_priors_and_dims_reach_pymc():
    with pm.Model(coords={"member": ["a", "b", "c"]}) as model:
        weight = Prior("Dirichlet", a=[1, 2, 3]).create("weight", dims="member")
        bias = Prior("ChiSquared", nu=2).create("bias", scale=2.0, dims="member")
    density = pytensor.function([], pm.logp(weight, np.array([0.2, 0.3, 0.5])), mode=PLAIN)
    assert density() == pytest.approx(stats.dirichlet([1, 2, 3]).logpdf([0.2, 0.3, 0.5]))
    assert model.named_vars_to_dims["bias"] == ("member",)
    assert pm.draw(bias, random_seed=1, mode=PLAIN).shape == (3,)


@pytest.mark.parametrize(("build", "error", "text"), [
    (lambda: Prior("Half Normal"), TypeError, "name of a PyMC distribution, such as 'Normal'; got 'Half Normal'"),
    (lambda: Prior(3), TypeError, "such as 'Normal'; got 3"),
    (lambda: Prior("Normal", mu="wide"), TypeError, "Parameter 'mu' of a prior must be a number .* got 'wide'"),
    (lambda: Prior("Normal", mu=None), TypeError, "Parameter 'mu' .* got None"),
    (lambda: Prior("Normal", sigma=np.inf), TypeError, "Parameter 'sigma' of a prior must be finite; got inf"),
    (lambda: Prior("Dirichlet", a=[1.0, np.nan]), TypeError, "Parameter 'a' of a prior must be finite"),
])  # fmt: skip
def test_bad_priors_say_what_came_and_what_was_wanted(build, error, text):
    with pytest.raises(error, match=text):
        build()


@pytest.mark.parametrize("scale", [1.0, 2.0])
@pytest.mark.parametrize(("prior", "text"), [
    (Prior("HalfNorml", sigma=1), "no distribution 'HalfNorml' .*prior of 'x'"),
    (Prior("Model"), "no distribution 'Model'"),
    (Prior("HalfNormal", sd=1), "prior of 'x', .*sd=1.0.* cannot be built.*parameter names of pymc.HalfNormal"),
    (Prior("Normal", mu=0, sgima=5), "prior of 'x', .*sgima=5.0.* cannot be built.*parameter names of pymc.Normal"),
    (Prior("Gamma", alpha=1, beta=1, gamma=1), "prior of 'x'.* cannot be built.*parameter names of pymc.Gamma"),
    (Prior("Gamma", alpha=1), "prior of 'x'"),
], ids=repr)  # fmt: skip
def test_a_prior_that_pymc_cannot_build_is_a_clear_error(prior, text, scale):
    with pm.Model(), pytest.raises(ValueError, match=text):
        prior.create("x", scale=scale)
