"""One observation with log density of about -800 under every member: weights and scores stay right, not uniform, not NaN.

exp(-800) is zero in double precision: weights that are divided by sums of such densities become NaN, which code is tempted
to replace by equal weights. The answers here are compared with maxima and integrals of the log-sum-exp likelihood.
"""

import json
import warnings

import numpy as np
import pandas as pd
import pytest
from scipy.linalg import helmert
from scipy.optimize import minimize
from scipy.special import log_softmax, logsumexp, softmax
from scipy.stats import norm

import bayesens as be
from bayesens import BMA, Prior

JOINT = {"correction": "joint", "group": False, "site": False}  # the mixture of regressions

MEMBERS = ["a", "b", "c"]
TRUE = np.array([0.6, 0.3, 0.1])
SIGMA, AWAY = 0.3, 40.0  # the last observation lies so many sigmas above the highest member
HELD = Prior("LogNormal", mu=0, sigma=0.001)  # sigma as it is: it would rather grow


def table(n, seed=1):
    """Rows of a mixture of three members, by turns in three groups, and one row far away from all of them."""
    rng = np.random.default_rng(seed)
    f = rng.normal(size=(n, 3))
    y = f[np.arange(n), rng.choice(3, size=n, p=TRUE)] + SIGMA * rng.normal(size=n)
    f[-1] = [0.01, 0.02, 0.0]
    y[-1] = 0.02 + AWAY * SIGMA
    return f, y, np.arange(n) % 3


def ensemble(f, y, group):
    frame = pd.DataFrame(f, columns=MEMBERS).assign(y=y, g=[f"g{g}" for g in group])
    return be.Ensemble.from_frame(frame, members=MEMBERS, observation="y", group="g")


def quiet(model, rows, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return be.fit(model, rows, progressbar=False, random_seed=1, **kwargs)


def log_kernels(f, y, sigma):
    return norm.logpdf(y[:, None], f, sigma)


def test_em_finds_the_maximum_of_the_likelihood():
    """100,000 rows, so that sigma hardly grows by the one."""
    f, y, group = table(100_000)
    squares = (y[:, None] - f) ** 2

    def loss(x):
        log_sigma = x[2]
        terms = log_softmax([0.0, x[0], x[1]]) - log_sigma - 0.5 * squares * np.exp(-2 * log_sigma)
        return -logsumexp(terms, axis=1).mean()

    best = minimize(loss, [0.0, 0.0, np.log(0.5)], method="BFGS", options={"gtol": 1e-7})
    weight, sigma = softmax([0.0, *best.x[:2]]), np.exp(best.x[2])
    assert -860 < log_kernels(f, y, sigma)[-1].min() < log_kernels(f, y, sigma)[-1].max() < -740
    tree = quiet(
        BMA(**JOINT, bias="none", sigma="shared"),
        ensemble(f, y, group),
        method="em",
    )
    found = tree["posterior"].to_dataset().squeeze(drop=True)
    np.testing.assert_allclose(found["weight"], weight, atol=1e-4)
    np.testing.assert_allclose(found["sigma"], sigma, rtol=1e-4)
    assert tree.attrs["loglik"] == pytest.approx(-best.fun * len(y) - len(y) * np.log(2 * np.pi) / 2, abs=0.01)
    assert (
        np.abs(found["weight"] - TRUE).max() < 0.01
    )  # five standard errors: a correct program fails once in 1e6 times


@pytest.fixture(scope="module")
def few():
    """300 rows, few enough for one to count."""
    f, y, group = table(300)
    assert np.all(np.abs(log_kernels(f, y, SIGMA)[-1] + 800) < 10)
    return f, y, group


def test_sampled_weights_are_the_integral_over_the_simplex(few):
    """Three means within 5 Monte Carlo errors (sd / 20, an ESS of 400): a correct program fails once in 1e6 times."""
    f, y, group = few
    side = (np.arange(80) + 0.5) / 80
    grid = np.array([[a, b, 1 - a - b] for a in side for b in side if a + b < 1 - 1e-9])
    kernels = log_kernels(f, y, SIGMA)
    mass = softmax([logsumexp(np.log(w) + kernels, axis=1).sum() for w in grid])
    tree = quiet(
        BMA(
            **JOINT,
            bias="none",
            sigma="shared",
            sigma_scale=SIGMA,
            sigma_prior=HELD,
        ),
        ensemble(f, y, group),
    )
    weight = tree["posterior"]["weight"]
    mean, sd = (getattr(weight, name)(("chain", "draw")).values for name in ("mean", "std"))
    assert np.all(np.abs(mean - mass @ grid) < 5 * sd / 20)
    loglik = tree["log_likelihood"]["y"]
    assert bool(np.isfinite(loglik).all())
    assert np.all(np.abs(loglik.isel(obs=-1) + 800) < 20)


def test_weights_by_group_are_at_the_maximum_of_the_posterior(few):
    """Written out with normals on orthonormal contrasts of the logits."""
    f, y, group = few
    contrast = helmert(3)

    def parts(x):
        mu, tau = x[:2] @ contrast, np.exp(x[2])
        eta = mu + tau * (x[3:9].reshape(3, 2) @ contrast)
        kernels = log_kernels(f, y, SIGMA * np.exp(0.001 * x[9]))
        return mu, tau, logsumexp(log_softmax(eta, axis=1)[group] + kernels, axis=1).sum()

    def loss(x):
        _, tau, rows = parts(x)
        return -rows - norm.logpdf(x[[0, 1, *range(3, 10)]]).sum() - norm.logpdf(tau, scale=0.5) - x[2]

    best = minimize(loss, np.r_[0.0, 0.0, -1.0, np.zeros(7)], method="BFGS", options={"gtol": 1e-5})
    mu, tau, rows = parts(best.x)
    model = BMA(
        **JOINT,
        weights="group",
        bias="none",
        sigma="shared",
        sigma_scale=SIGMA,
        sigma_prior=HELD,
    )
    tree = quiet(model, ensemble(f, y, group))
    optimum, point = json.loads(tree.attrs["modes"])[0], json.loads(tree.attrs["optimum"])
    np.testing.assert_allclose(optimum["weight"], softmax(mu), atol=1e-4)
    assert optimum["loglik"] == pytest.approx(rows, abs=0.02)
    assert np.exp(point["weight_spread"][0]) == pytest.approx(tau, rel=1e-2)
    mean = tree["posterior"]["weight_group"].mean(("chain", "draw"))
    assert np.abs(mean - TRUE).max() < 0.2  # four standard errors of a hundred rows
    assert bool((mean.argmax("member") == 0).all())


@pytest.mark.parametrize("weights", ["global", "group"])
def test_score_is_the_log_of_the_mean_density(few, weights):
    f, y, group = few
    rows = ensemble(f, y, group)
    tree = quiet(
        BMA(
            **JOINT,
            weights=weights,
            bias="none",
            sigma="shared",
            sigma_scale=SIGMA,
            sigma_prior=HELD,
        ),
        rows,
    )
    draw = tree["posterior"].to_dataset().stack(sample=("chain", "draw")).transpose("sample", ...)
    share = draw["weight"] if weights == "global" else draw["weight_group"].sel(group=f"g{group[-1]}")
    each = logsumexp(np.log(share.values) + norm.logpdf(y[-1], f[-1], draw["sigma"].values), axis=1)
    score = be.score(tree, rows)
    assert float(score["log_score"][-1]) == pytest.approx(np.log(len(each)) - logsumexp(each), rel=1e-9)
    assert 780 < float(score["log_score"][-1]) < 820
    for name in ("log_score", "crps", "error"):
        assert bool(np.isfinite(score[name]).all()), name
    assert float(score["crps"][-1]) == pytest.approx(AWAY * SIGMA, rel=0.03)
