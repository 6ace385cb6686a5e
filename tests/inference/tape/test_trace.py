"""Tapes: every elementary operation, what moves numbers about, and densities against PyTensor's own evaluation of the graph."""

import gc

import numpy as np
import pandas as pd
import pymc as pm
import pytensor
import pytensor.tensor as pt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pytensor.compile.mode import Mode
from scipy import special

import bayesens as be
from bayesens.inference.compiled import Compiled
from bayesens.inference.log_density import compile_target
from bayesens.inference.tape.tape import OPS
from bayesens.inference.tape.trace import Untraceable, trace

X = np.array([0.3, -0.7, 1.9, 0.05, -2.4, 3.3])


def both(build, x=X):
    """A tape's value and gradient of the sum, and those of PyTensor without any rewriting but its own."""
    variable = pt.tensor("x", dtype="float64", shape=(len(x),))
    out = build(variable)
    tape = trace([out.sum(), out], variable)
    plain = pytensor.function([variable], out, mode=Mode(linker="py", optimizer=None))
    points = np.stack([x, x * 1.01])
    value, gradient = tape.gradients(points)
    every = tape.values(points)[1]
    np.testing.assert_allclose(every, np.stack([plain(p) for p in points]), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(value, every.reshape(2, -1).sum(axis=1), rtol=1e-12, atol=1e-14)
    one, slope = tape.function()(x)
    assert one == pytest.approx(value[0], rel=1e-14, abs=1e-14)
    np.testing.assert_allclose(slope, gradient[0], rtol=1e-13, atol=1e-14)
    step = 1e-6 * np.eye(len(x))
    numeric = [(plain(x + s).sum() - plain(x - s).sum()) / 2e-6 for s in step]
    np.testing.assert_allclose(gradient[0], numeric, rtol=2e-6, atol=2e-8)
    return every[0]


POSITIVE = ["log", "sqrt", "gammaln", "psi", "reciprocal"]
ANY = ["exp", "expm1", "sigmoid", "softplus", "tanh", "sin", "cos", "arctan", "erf", "erfc", "erfcx", "sqr", "abs", "neg",
       "floor", "ceil", "sign"]  # fmt: skip


@pytest.mark.parametrize("name", POSITIVE)
def test_functions_of_positive_numbers(name):
    both(lambda x: getattr(pt, name)(pt.exp(x) + 0.1))


@pytest.mark.parametrize("name", ANY)
def test_functions_of_any_number(name):
    both(lambda x: 1.5 * getattr(pt, name)(1.1 * x))


def test_functions_near_the_ends_of_their_range():
    both(lambda x: pt.log1p(pt.exp(x)) + pt.log1mexp(-pt.exp(x)) + pt.log1p(-pt.sigmoid(x)))
    both(lambda x: pt.erfcx(6.0 * x[0:1]) + pt.erfcx(20.0 * x[2:3]) + pt.erfcx(9.99 * pt.ones(1)))


@pytest.mark.parametrize(("name", "domain"), [("gammaln", 1.0), ("psi", 1.0), ("erfcx", 0.0)])
def test_special_functions_are_those_of_scipy(name, domain):
    """Values and derivatives over many orders of magnitude."""
    x = np.concatenate([np.geomspace(1e-3, 1e3, 40), -np.linspace(0.1, 4.0, 9) if domain == 0.0 else np.zeros(0)])
    variable = pt.tensor("x", dtype="float64", shape=(len(x),))
    out = getattr(pt, name)(variable)
    tape = trace([out.sum(), out], variable)
    exact = {"gammaln": special.gammaln, "psi": special.digamma, "erfcx": special.erfcx}[name]
    slope = {
        "gammaln": special.digamma, "psi": lambda v: special.polygamma(1, v),
        "erfcx": lambda v: 2 * v * special.erfcx(v) - 2 / np.sqrt(np.pi),
    }[name]  # fmt: skip
    np.testing.assert_allclose(tape.values(x[None])[1][0], exact(x), rtol=2e-13, atol=1e-13)
    close = {"rtol": 1e-12, "atol": 1e-9 if name == "erfcx" else 1e-12}
    np.testing.assert_allclose(tape.gradients(x[None])[1][0], slope(x), **close)


@pytest.mark.parametrize("build", [
    lambda x: x[:3] + x[3:] * x[0] - x[1] / x[5],
    lambda x: pt.exp(x[:2]) ** x[2:4] + pt.exp(x) [4:] ** 2.0 + pt.exp(x[1]) ** -1.0 + pt.exp(x[1]) ** 0.5,
    lambda x: pt.maximum(x, 0.2) + pt.minimum(x[::-1], 0.25) + pt.clip(x, -1.0, 1.0),
    lambda x: pt.switch(pt.and_(x > 0.0, x < 2.0), pt.exp(x), x**2) + pt.switch(pt.or_(x >= 3.0, x <= -2.0), x, 1.0),
    lambda x: pt.switch(x > 0.0, pt.log(x), 0.0),  # the branch that is not taken is not finite
    lambda x: pt.switch(pt.isinf(x) | pt.isnan(x) | pt.eq(x, 3.0) | pt.neq(x, x), 0.0, x),
    lambda x: x.reshape((2, 3)).sum(axis=0) * x.reshape((2, 3)).prod(axis=1).sum(),
    lambda x: x.reshape((2, 3)).max(axis=1) + x.reshape((2, 3)).min(axis=0)[:2] + x.max(),
    lambda x: pt.dot(x.reshape((2, 3)), x.reshape((3, 2))) + pt.dot(x[:2], x[2:4]),
    lambda x: pt.dot(x.reshape((2, 3)), x[:3]) + pt.dot(x[:2], x.reshape((2, 3)))[:2],
    lambda x: pt.special.softmax(x) + pt.special.log_softmax(x.reshape((2, 3)), axis=1).ravel(),
    lambda x: pt.concatenate([x[1:], x[:1], pt.ones(2)]) + pt.stack([x[0], x[1], x[0], x[0], x[0], x[2], x[3], x[4]]),
    lambda x: pt.set_subtensor(pt.zeros((3, 3))[1:, 1:], x[:4].reshape((2, 2))) + pt.diag(x[:3]),
    lambda x: pt.inc_subtensor(pt.outer(x, x)[1:, 1:], pt.exp(x[:5])),
    lambda x: pt.set_subtensor(x[np.array([0, 3])], x[np.array([1, 1])]),
    lambda x: x[np.array([0, 0, 5, 2])][:, None] * x[None, :2],
    lambda x: pt.zeros((2, 3)) + x[:3] + pt.second(pt.ones((2, 3)), x[3]),
    lambda x: pt.diagonal(x.reshape((2, 3))) * x.shape[0],
    lambda x: pt.sum(pt.zeros(0)) + x * pt.prod(x[:1]),
    lambda x: pt.linalg.cholesky(pt.outer(x[:3], x[:3]) + 2.0 * pt.eye(3)),
    lambda x: pt.linalg.solve_triangular(pt.tril(x[1:5].reshape((2, 2))), pt.exp(x[:2]), lower=True),
    lambda x: x * np.array([0.0, 1.0, 2.0, 0.0, 1.0, 3.0]) - np.zeros(6) + 1.0 * x / np.ones(6),
    lambda x: (pt.tril(pt.outer(x[:3], x[:3])) * np.array([0.0, 1.0, 2.0])).sum(axis=1) + pt.exp(x[1]) + pt.exp(x[1]),
    lambda x: pt.set_subtensor(pt.exp(x)[:2], pt.log(pt.exp(x)[2:4])),
])  # fmt: skip
def test_graphs(build):
    both(build)


def instructions(build):
    variable = pt.tensor("x", dtype="float64", shape=(6,))
    code = trace([build(variable)], variable).code
    names = {number: name for name, (number, _) in OPS.items()}
    return [(names[int(line[0])], int(line[1])) for line in code]


def test_tapes_have_nothing_twice_nothing_unneeded_and_like_steps_in_one():
    assert instructions(lambda x: pt.exp(x)[1] * pt.exp(x)[1]) == [("exp", 1), ("mul", 1)]
    assert instructions(lambda x: (pt.exp(x[0]) + pt.exp(x[1])) * pt.exp(x[2])) == [("exp", 3), ("add", 1), ("mul", 1)]
    assert instructions(lambda x: 0.0 * pt.exp(x[0]) + 1.0 * x[1] - 0.0) == []
    assert instructions(lambda x: (np.array([0.0, 1.0, 0.0, 1.0, 0.0, 0.0]) * x).sum()) == [("total", 1)]


def test_tapes_of_long_tables_are_the_same_as_of_short_ones():
    """Above some thousand elements an instruction's are no longer looked up one by one."""
    rows = np.random.default_rng(1).normal(size=(6, 2000))
    both(lambda x: pt.log(pt.exp(-((rows - x[:, None]) ** 2)) + pt.exp(x[0])).sum(axis=1) / 2000.0 + 0.0 * rows[:, 0])


@given(st.lists(st.floats(-700.0, 700.0), min_size=3, max_size=6))
@settings(max_examples=60, deadline=None)
def test_logarithms_of_weights_never_underflow(logits):
    x = np.array(logits)
    variable = pt.tensor("x", dtype="float64", shape=(len(x),))
    tape = trace(
        [pt.log(pt.special.softmax(variable)), pt.log(pt.exp(variable)), pt.log(pt.sigmoid(variable))], variable
    )
    softmax, same, sigmoid = (a[0] for a in tape.values(x[None]))
    np.testing.assert_allclose(softmax, special.log_softmax(x), rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(same, x)
    np.testing.assert_allclose(sigmoid, special.log_expit(x), rtol=1e-12)


def test_parameters_out_of_their_domain_have_no_density():
    with pm.Model() as model:
        sd = pm.Flat("sd")
        pm.Normal("y", 0.0, sd, observed=np.array([0.1, 0.2]))
    target = compile_target(model)
    assert target.tape is not None
    logp, gradient = target.logp_and_gradient(np.array([[1.0], [-1.0]]))
    assert np.isfinite(logp[0])
    assert logp[1] == -np.inf
    assert np.all(np.isfinite(gradient))


def sorted_model():
    """A density with a sort, which tapes do not know."""
    with pm.Model(coords={"place": [1, 2, 3]}) as model:
        x = pm.Normal("x", 0.0, 1.0, dims="place")
        s = pm.HalfNormal("s", 1.0)
        pm.Deterministic("ordered", pt.sort(x), dims="place")
        pm.Normal("y", pt.sort(x), s, observed=np.array([-1.0, 0.5, 1.0]))
    return model


@pytest.mark.slow
def test_a_graph_that_tapes_do_not_know_is_compiled_by_pytensor():
    model = sorted_model()
    target = compile_target(model)
    assert target.tape is None
    x = np.array([[0.3, -0.2, 1.0, 0.4], [1.0, 2.0, 0.0, -1.0]])
    reference = model.compile_logp(mode=Mode(linker="py", optimizer=None))
    wanted = [float(reference({"x": p[:3], "s_log__": p[3]})) for p in x]
    np.testing.assert_allclose(target.logp(x), wanted, rtol=1e-12)
    np.testing.assert_allclose(target.functions.one(x[0])[0], wanted[0], rtol=1e-12)
    ordered = target.expand(x[None])[0]["ordered"]
    np.testing.assert_array_equal(ordered.values[0], np.sort(x[:, :3], axis=1))


@pytest.mark.slow
def test_compiling_a_graph_of_hbm_by_pytensor_prints_no_traceback(caplog):
    """PyTensor reports a rewrite that fails, and goes on without it."""
    rng = np.random.default_rng(0)
    y = rng.normal(size=80)
    frame = pd.DataFrame({name: y + rng.normal(size=80) for name in "abc"} | {"y": y, "s": np.arange(80) // 8})
    frame["g"] = frame["s"] // 2
    ensemble = be.Ensemble.from_frame(frame, members=list("abc"), observation="y", site="s", group="g")
    model = be.HBM().resolve(ensemble)
    target = compile_target(model.build(model.summarise(ensemble)))
    graph, x = target._graph, target.start + 0.1
    value, _ = Compiled(graph.x, graph.outputs).one(x)
    assert value == pytest.approx(target.logp(x[None])[0], rel=1e-10)
    assert not [record for record in caplog.records if record.name.startswith("pytensor")]


@pytest.mark.parametrize("build", [
    lambda x: pt.sort(x), lambda x: x[pt.argmax(x)], lambda x: pt.cumsum(x),
    lambda x: pt.linalg.cholesky(x[:, None, None] * np.eye(2)), lambda x: pt.linalg.cholesky(pt.diag(x), lower=False),
    lambda x: pt.linalg.solve_triangular(pt.diag(x), np.eye(3), lower=True),
    lambda x: pt.linalg.solve_triangular(pt.diag(x), x, lower=False),
])  # fmt: skip
def test_what_tapes_do_not_know_is_said(build):
    variable = pt.tensor("x", dtype="float64", shape=(3,))
    with pytest.raises(Untraceable):
        trace([build(variable).sum()], variable)


PRIORS = ["Normal", "StudentT", "Laplace", "Logistic", "Cauchy", "Gumbel", "SkewNormal", "Uniform", "Moyal"]
SCALES = ["HalfNormal", "HalfCauchy", "HalfStudentT", "Exponential", "Gamma", "InverseGamma", "LogNormal", "Weibull",
          "Kumaraswamy", "Beta", "LogitNormal"]  # fmt: skip
PARAMETERS = {
    "StudentT": {"nu": 4, "mu": 0, "sigma": 1}, "SkewNormal": {"mu": 0, "sigma": 1, "alpha": 1}, "HalfCauchy": {"beta": 1},
    "Laplace": {"mu": 0, "b": 1}, "Logistic": {"mu": 0, "s": 1}, "Cauchy": {"alpha": 0, "beta": 1},
    "Gumbel": {"mu": 0, "beta": 1}, "Uniform": {"lower": -2, "upper": 2}, "HalfNormal": {"sigma": 1},
    "HalfStudentT": {"nu": 4, "sigma": 1}, "Exponential": {"lam": 1}, "Gamma": {"alpha": 2, "beta": 3},
    "InverseGamma": {"alpha": 3, "beta": 2}, "Weibull": {"alpha": 2, "beta": 1}, "Kumaraswamy": {"a": 2, "b": 3},
    "Beta": {"alpha": 2, "beta": 3},
}  # fmt: skip


@pytest.mark.parametrize("family", PRIORS + SCALES)
def test_priors_of_many_families_are_taped_and_are_those_of_the_rows(family):
    """The tape of the fused model against PyMC's own evaluation of the row-by-row one."""
    rng = np.random.default_rng(3)
    y = rng.normal(2.0, 3.0, size=40)
    frame = {"y": y, "a": y + rng.normal(size=40), "b": 0.5 * y + rng.normal(size=40)}
    ens = be.Ensemble.from_frame(pd.DataFrame(frame), members=["a", "b"], observation="y")
    prior = be.Prior(family, **PARAMETERS.get(family, {"mu": 0, "sigma": 1}))
    model = be.BMA(**{"bias_prior" if family in PRIORS else "sigma_prior": prior})
    target, rows = compile_target(model.build(ens)), model.build(ens, likelihood="rows")
    assert target.tape is not None
    reference = rows.compile_logp(mode=Mode(linker="py", optimizer=None))
    info = pm.blocking.DictToArrayBijection.map(rows.initial_point(random_seed=0)).point_map_info
    for _ in range(3):
        x = target.start + rng.normal(scale=0.3, size=len(target.start))
        point = pm.blocking.DictToArrayBijection.rmap(pm.blocking.RaveledVars(x * target.unit, info))
        assert target.logp(x[None])[0] == pytest.approx(float(reference(point)), rel=1e-8)
        gradient, step = target.logp_and_gradient(x[None])[1][0], 1e-6 * np.eye(len(x))
        numeric = (target.logp(x + step) - target.logp(x - step)) / 2e-6
        np.testing.assert_allclose(gradient, numeric, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", [be.BMA, be.LinearPool, be.EMOS])
def test_a_graph_that_nobody_uses_any_more_is_not_taken_for_one_with_dimensions_of_other_lengths(kind):
    rng = np.random.default_rng(5)
    y = rng.gamma(4.0, 1.0, 60)
    frame = pd.DataFrame(y[:, None] + rng.normal(0.0, 0.5, (60, 3)), columns=list("abc"))
    frame = frame.assign(y=y, day=pd.date_range("2020", periods=60))
    table = be.Ensemble.from_frame(frame, members=list("abc"), observation="y", time="day")
    for scale in (("mean", "season"), ("mean",)):
        target = compile_target(kind(scale=scale).build(table))
        assert len(target.start) == len(target.unit) == sum(target._graph.sizes)
        del target
        gc.collect()
