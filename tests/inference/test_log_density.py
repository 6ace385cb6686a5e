"""Compiled log densities that share a graph, or nearly, against PyMC's own evaluation and a formula."""

import numpy as np
import pymc as pm
import pytest
from pymc.blocking import DictToArrayBijection, RaveledVars
from pytensor.compile.mode import Mode
from regressions import JOINT, mixture
from scipy.stats import norm

import bayesens as be
from bayesens.inference.log_density import compile_target


def test_a_second_table_of_the_same_structure_takes_the_graph_of_the_first():
    """The structure leaves out the data; the graph of one table gives the density of the other."""
    one, other = (mixture(300, seed).select(rows=slice(None, n)) for seed, n in ((1, 300), (2, 170)))
    model = be.BMA(**JOINT)
    x = np.random.default_rng(1).normal(scale=0.3, size=(3, 16))

    def logp(ensemble):
        target = compile_target(model.resolve(ensemble).build(ensemble))
        return id(target._graph), target.logp(target.start + x), [target.functions.one(target.start + p)[0] for p in x]

    first, second, again = logp(one), logp(other), logp(one)
    assert first[0] == second[0] == again[0]
    np.testing.assert_array_equal(first[1], again[1])
    for _, many, single in (first, second, again):
        np.testing.assert_allclose(many, single, rtol=1e-12)
    rows = model.build(other, likelihood="rows")
    target = compile_target(model.build(other))
    expected = [
        rows.compile_logp(mode=Mode(linker="py", optimizer=None))(point_of(rows, (target.start + p) * target.unit))
        for p in x
    ]
    np.testing.assert_allclose(second[1], expected, rtol=1e-10)
    del target
    busy = compile_target(model.build(one))  # while it is in use, the next one gets its own
    assert compile_target(model.build(other))._graph is not busy._graph
    assert compile_target(be.BMA(**JOINT, sigma="shared").build(one))._graph is not busy._graph


def point_of(model, x):
    info = DictToArrayBijection.map(model.initial_point(random_seed=0)).point_map_info
    return DictToArrayBijection.rmap(RaveledVars(x, info))


def test_transforms_with_other_constants_are_other_structures():
    def build(bound):
        with pm.Model() as model:
            pm.Normal("x", 0.0, 1.0, transform=pm.distributions.transforms.Interval(-bound, bound))
            pm.Potential("none", 0.0 * model["x"])
        return model

    for bound in (1.0, 5.0):  # the first one is kept when the second comes
        target = compile_target(build(bound))
        x = -bound + 2.0 * bound / (1.0 + np.exp(-2.0))
        jacobian = np.log(x + bound) + np.log(bound - x) - np.log(2.0 * bound)
        assert target.logp(np.array([[2.0]]))[0] == pytest.approx(norm.logpdf(x) + jacobian, rel=1e-8)
        del target


@pytest.mark.parametrize("family", [("Kumaraswamy", {"a": 2, "b": 3}), ("Gamma", {"alpha": 2, "beta": 3})])
def test_a_prior_in_the_units_of_a_second_table_has_its_own_density(family):
    """One that PyMC scales itself, with bounds in its transform, and one that keeps its family."""
    model = be.BMA(correction="joint", sigma_prior=be.Prior(family[0], **family[1]))
    one, other = mixture(100, 1), mixture(100, 2)
    other = be.Ensemble.from_frame(7.0 * other.to_frame() + 3.0, members=list(other.members), observation="y")
    compile_target(model.build(one))
    target, rows = compile_target(model.build(other)), model.build(other, likelihood="rows")
    x = target.start + np.random.default_rng(1).normal(scale=0.1, size=len(target.start))
    expected = rows.compile_logp(mode=Mode(linker="py", optimizer=None))(point_of(rows, x * target.unit))
    assert target.logp(x[None])[0] == pytest.approx(float(expected), rel=1e-10)
