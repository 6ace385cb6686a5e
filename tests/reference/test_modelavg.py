"""Raftery's fit of eight watershed models against independent maximum-likelihood fits of the same rows.

Data: Vrugt and Robinson (2007), Water Resources Research 43, W01411, as distributed with MODELAVG (CC0).
"""

import json
import warnings

import numpy as np
import pandas as pd
import pytest

import bayesens as be
from shared_data import shared_data

JOINT = {"correction": "joint", "group": False, "site": False}  # the mixture of regressions

MEMBERS = ["ABC", "GR4J", "HYMOD", "TOPMO", "AWBM", "NAM", "HBV", "SACSMA"]


@pytest.fixture(scope="module")
def ensemble():
    table = np.loadtxt(shared_data("modelavg", "discharge_data.txt"), max_rows=3000)
    frame = pd.DataFrame(table, columns=[*MEMBERS, "discharge"])
    return be.Ensemble.from_frame(frame, members=MEMBERS, observation="discharge")


@pytest.fixture(scope="module")
def published():
    return json.loads(shared_data("modelavg", "reference_rows_1_3000.json").read_text())


@pytest.fixture(scope="module", params=["shared", "member"])
def case(request, ensemble, published):
    """The fit from the standard start, what it warned of, and the published fit."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        tree = be.fit(be.BMA(**JOINT, sigma=request.param), ensemble, method="em")
    name = {"shared": "normal, shared sigma", "member": "normal, sigma by member"}[request.param]
    return tree, [str(w.message) for w in caught], published["maximum_likelihood"][name]


def parameters(tree, *names):
    posterior = tree["posterior"].to_dataset().squeeze().sel(member=MEMBERS)
    return [posterior[name].values for name in names]


def test_weights_and_sigma_are_the_published_ones(case):
    tree, _, expected = case
    weight, sigma = parameters(tree, "weight", "sigma")
    np.testing.assert_allclose(weight, expected["weight"], atol=1e-4)
    np.testing.assert_allclose(sigma, expected["sigma_or_c"], atol=1e-3)


def test_log_likelihood_is_the_published_one(case):
    tree, _, expected = case
    assert tree.attrs["loglik"] == pytest.approx(expected["loglik"], abs=1e-3)


def test_bias_correction_is_the_published_one(case, published):
    tree, *_ = case
    bias, slope = parameters(tree, "bias", "slope")
    center = json.loads(tree.attrs["bayesens_options"])["center"]
    np.testing.assert_allclose(slope, published["bias_slope"], atol=1e-9)
    np.testing.assert_allclose(center * (1.0 - slope) - bias, published["bias_intercept"], atol=1e-9)


def test_mean_crps_is_the_published_one(case, ensemble):
    tree, _, expected = case
    assert float(be.score(tree, ensemble)["crps"].mean()) == pytest.approx(expected["mean_crps"], abs=1e-6)


def test_log_score_is_the_log_likelihood(case, ensemble):
    tree, *_ = case
    assert float(-be.score(tree, ensemble)["log_score"].sum()) == pytest.approx(tree.attrs["loglik"], abs=1e-6)


def test_other_optima_of_member_sigma_are_reported_with_a_warning(case):
    tree, messages, _ = case
    optima = json.loads(tree.attrs["optima"])
    assert optima[0]["start"] == "standard"
    if tree.attrs["bayesens_options"].find('"sigma": "shared"') >= 0:
        assert len(optima) == 1
        assert not [m for m in messages if "optima" in m]
        return
    best = max(o["loglik"] for o in optima)
    assert best > -640.0
    assert all(len(o["weight"]) == len(o["sigma"]) == 8 for o in optima)
    [message] = [m for m in messages if "optima" in m]
    assert "-652.58" in message
    assert f"{best:.2f}" in message
    assert "select='best'" in message


def test_select_best_returns_the_best_optimum(ensemble):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        tree = be.fit(be.BMA(**JOINT, sigma="member"), ensemble, method="em", select="best")
    optima = json.loads(tree.attrs["optima"])
    best = max(optima, key=lambda o: o["loglik"])
    assert tree.attrs["loglik"] == best["loglik"] > -640.0
    weight, sigma = parameters(tree, "weight", "sigma")
    np.testing.assert_array_equal(weight, best["weight"])
    np.testing.assert_array_equal(sigma, best["sigma"])
    assert not [w for w in caught if "optima" in str(w.message)]
    assert float(-be.score(tree, ensemble)["log_score"].sum()) == pytest.approx(best["loglik"], abs=1e-6)
