"""Raftery's fit: the likelihood only rises, missing members are counted exactly, the order of rows does not matter."""

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize
from scipy.special import logsumexp
from scipy.stats import norm

import bayesens as be
from bayesens.likelihoods.em import em, em_starts, least_squares

JOINT = {"correction": "joint", "group": False, "site": False}  # the mixture of regressions


def loglik(squares, available, weight, sigma):
    """Log likelihood with the weights renormalised over the members of each row."""
    with np.errstate(divide="ignore"):
        log_weight = np.where(available, np.log(weight), -np.inf)
    term = log_weight + norm.logpdf(np.sqrt(squares), 0.0, sigma)
    return np.sum(logsumexp(term, axis=1) - logsumexp(log_weight, axis=1))


def rows(n=300, k=3, missing=0.3, seed=1):
    """Squared distances from kernels, and which members each row has."""
    rng = np.random.default_rng(seed)
    squares = (rng.normal(size=(n, k)) * rng.uniform(0.5, 2.0, size=k)) ** 2
    available = rng.random((n, k)) >= missing
    available[~available.any(axis=1), 0] = True
    return squares, available


def start(k, seed=None, sigma=1.0):
    rng = np.random.default_rng(seed)
    weight = np.full(k, 1 / k) if seed is None else rng.dirichlet(np.ones(k))
    return {"weight": weight, "sigma": np.full(k, sigma), "cluster": np.arange(k)}


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("missing", [0.0, 0.4])
@pytest.mark.parametrize("cluster", [[0, 1, 2], [0, 1, 1]])
def test_likelihood_never_falls(shared, missing, cluster):
    squares, available = rows(missing=missing)
    begin = start(3, seed=3) | {"cluster": np.array(cluster)}
    begin["weight"] = begin["weight"][cluster] / begin["weight"][cluster].sum()
    path = [em(squares, available, **begin, shared=shared, tolerance=0.0, max_iterations=i) for i in range(1, 40)]
    values = [o.loglik for o in path]
    assert values[0] >= loglik(squares, available, begin["weight"], begin["sigma"])
    assert values[-1] > values[0] + 1.0
    assert np.all(np.diff(values) >= -1e-9)


@pytest.mark.parametrize("shared", [True, False])
def test_likelihood_that_is_reported_is_that_of_the_parameters(shared):
    squares, available = rows(seed=2)
    found = em(squares, available, **start(3), shared=shared)
    assert found.converged
    assert found.weight.sum() == pytest.approx(1.0, abs=1e-12)
    assert found.loglik == pytest.approx(loglik(squares, available, found.weight, found.sigma), abs=1e-8)


def optimum(squares, available, x0):
    """The maximum by another road: weights by softmax, sigma by its logarithm."""
    k = squares.shape[1]

    def negative(x):
        return -loglik(squares, available, np.exp(x[:k] - logsumexp(x[:k])), np.exp(x[k:]))

    found = minimize(negative, x0, method="L-BFGS-B", options={"ftol": 1e-14, "gtol": 1e-7, "maxfun": 100_000})
    return np.exp(found.x[:k] - logsumexp(found.x[:k])), np.exp(found.x[k:]), -found.fun


def test_end_is_the_optimum_that_a_general_optimiser_finds():
    squares, available = rows(seed=2)
    found = em(squares, available, **start(3), shared=False, tolerance=1e-14)
    weight, sigma, value = optimum(squares, available, np.zeros(6))
    assert found.loglik == pytest.approx(value, abs=1e-6)
    np.testing.assert_allclose(found.weight, weight, atol=1e-3)
    np.testing.assert_allclose(found.sigma, sigma, rtol=1e-3)


# ------------------------------------------------------------------------------------------------------ missing members
def equally_good(n=8000, seed=5):
    """Two equally good members, the second missing at random in half of the rows."""
    rng = np.random.default_rng(seed)
    y = 3.0 * rng.normal(size=n)
    f = y[:, None] + rng.normal(size=(n, 2))
    available = np.column_stack([np.ones(n, dtype=bool), rng.random(n) < 0.5])
    return (y[:, None] - f) ** 2, available, y, f


def naive(squares, available, passes=400):
    """EM with the mean responsibility as weight, which is wrong with missing members."""
    weight, sigma = np.full(2, 0.5), 1.0
    for _ in range(passes):
        term = np.where(available, np.log(np.maximum(weight, 1e-300)) - 0.5 * squares / sigma**2, -np.inf)
        share = np.exp(term - logsumexp(term, axis=1, keepdims=True))
        weight, sigma = share.mean(axis=0), np.sqrt(np.sum(share * np.where(available, squares, 0.0)) / len(share))
    return weight


def weight_error(squares, available, sigma):
    """Standard error of the first weight, from its Fisher information at one half."""
    both = squares[available.all(axis=1)] / sigma**2
    first, second = np.exp(-0.5 * both).T
    return 1.0 / np.sqrt(np.sum(((first - second) / (0.5 * first + 0.5 * second)) ** 2))


def test_of_two_equally_good_members_one_often_missing_each_gets_half_of_the_weight():
    # Four standard errors: a right fit fails with probability 6e-5, and the seed is fixed.
    squares, available, *_ = equally_good()
    found = em(squares, available, **start(2), shared=True)
    error = weight_error(squares, available, found.sigma[0])
    assert error < 0.02
    assert abs(found.weight[0] - 0.5) < 4.0 * error
    assert naive(squares, available)[0] > 0.99


def test_missing_members_through_fit():
    _, available, y, f = equally_good(seed=6)
    frame = pd.DataFrame(np.where(available, f, np.nan), columns=["a", "b"]).assign(y=y)
    ens = be.Ensemble.from_frame(frame, members=["a", "b"], observation="y")
    tree = be.fit(be.BMA(**JOINT, bias="none", sigma="shared"), ens, method="em")
    weight, sigma = (tree["posterior"][name].values.ravel() for name in ("weight", "sigma"))
    assert abs(weight[0] - 0.5) < 4.0 * weight_error((y[:, None] - f) ** 2, available, sigma[0])


@pytest.mark.parametrize("seed", [1, 3, 4])
def test_em_converges_where_a_poor_member_stands_alone_in_some_rows(seed):
    squares, available = rows(seed=seed)
    found = em(squares, available, **start(3), shared=False)
    assert found.converged
    # The search ends at a relative change of 1e-10; a weight that goes to zero like 1/t leaves this much behind.
    assert found.loglik >= optimum(squares, available, np.zeros(6))[2] - 5e-3


# ------------------------------------------------------------------------------------------------------------- options
def test_exchangeable_members_share_all_parameters():
    squares, available = rows(k=4)
    found = em(squares, available, **start(4) | {"cluster": np.array([0, 1, 0, 1])}, shared=False)
    for values in (found.weight, found.sigma):
        assert values[0] == values[2] != values[1] == values[3]
    free = em(squares, available, **start(4), shared=False)
    assert free.loglik > found.loglik
    # No other weight or sigma that is shared within the sets does better.
    for i in range(4):
        for step in (0.98, 1.02):
            w, s = found.weight.copy(), found.sigma.copy()
            (w, s)[i // 2][[i % 2, i % 2 + 2]] *= step
            assert loglik(squares, available, w / w.sum(), s) <= found.loglik + 1e-9


def test_fixed_weights_stay_where_they_are():
    squares, available = rows()
    weight = np.array([0.2, 0.5, 0.3])
    found = em(squares, available, **start(3) | {"weight": weight}, shared=False, fixed_weight=True)
    np.testing.assert_array_equal(found.weight, weight)
    assert found.loglik > loglik(squares, available, weight, np.ones(3))


def test_a_member_that_reproduces_observations_exactly_is_an_error_that_says_what_to_do():
    squares, available = rows(missing=0.0)
    squares[:, 1] = 0.0
    with pytest.raises(ValueError, match=r"reproduces observations exactly.*sigma='shared', or method='nuts'"):
        em(squares, available, **start(3), shared=False)


@pytest.mark.parametrize("shared", [True, False])
def test_one_row_of_log_density_minus_800_under_all_members_leaves_the_right_answer(shared):
    squares, available = rows(n=400, missing=0.0)
    squares[7] = 1600.0 + np.arange(3)
    found = em(squares, available, **start(3), shared=shared, tolerance=1e-14)
    assert loglik(squares[7:8], available[7:8], np.full(3, 1 / 3), np.ones(3)) < -800.0
    assert np.all(found.weight > 0.0)
    if shared:
        x0 = np.r_[np.log(found.weight) + 0.3 * np.arange(3), 0.0]
        value = minimize(
            lambda x: -loglik(squares, available, np.exp(x[:3] - logsumexp(x[:3])), np.exp(x[3])), x0,
            method="L-BFGS-B", options={"ftol": 1e-14, "gtol": 1e-8},
        )  # fmt: skip
        assert found.loglik == pytest.approx(-value.fun, abs=1e-5)
    else:
        _, _, value = optimum(squares, available, np.r_[np.log(found.weight), np.log(found.sigma)] + 0.01)
        assert found.loglik == pytest.approx(value, abs=1e-5)


def test_starts_find_other_optima_and_keep_the_standard_one_first():
    rng = np.random.default_rng(8)
    wide, narrow = rng.normal(size=(2, 400))
    mixed = np.where(rng.random(400) < 0.5, 0.02 * narrow, wide)
    squares, available = np.column_stack([mixed, mixed + 0.01 * narrow]) ** 2, np.ones((400, 2), dtype=bool)
    found = em_starts(squares, available, cluster=np.arange(2), shared=False, starts=20, seed=1)
    assert found[0].start == "standard"
    assert len({o.start for o in found}) == len(found) > 1
    values = [o.loglik for o in found[1:]]
    assert values == sorted(values, reverse=True)
    assert np.min(np.abs(np.subtract.outer(values, [found[0].loglik]))) >= 0.01
    again = em_starts(squares, available, cluster=np.arange(2), shared=False, starts=20, seed=1)
    assert [o.loglik for o in again] == [o.loglik for o in found]


@pytest.mark.parametrize("missing", [0.0, 0.4])
def test_a_very_large_table_ends_where_its_rows_lead_without_the_way_by_some_of_them(missing):
    rng = np.random.default_rng(10)
    error = np.sqrt(0.5) * rng.normal(size=(60_000, 1)) + np.sqrt(0.5) * rng.normal(size=(60_000, 3))
    error *= np.array([1.0, 1.1, 1.2])
    available = rng.random(error.shape) >= missing
    available[~available.any(axis=1), 0] = True
    squares = np.where(available, error**2, 0.0)
    best = np.sqrt(np.min(squares.sum(axis=0) / available.sum(axis=0)))
    straight = em(squares, available, **start(3, sigma=best), shared=True)
    found, *_ = em_starts(squares, available, cluster=np.arange(3), shared=True, starts=0)
    assert found.loglik == pytest.approx(straight.loglik, abs=1e-6)
    np.testing.assert_allclose(found.weight, straight.weight, atol=1e-7)
    np.testing.assert_allclose(found.sigma, straight.sigma, rtol=1e-7)


def test_a_member_that_some_rows_hardly_have_is_fitted_on_all():
    squares, available = rows(60_000, missing=0.2, seed=11)
    available[:, 2] = False
    available[:30, 2] = available[~available.any(axis=1), 0] = True
    found, *_ = em_starts(squares, available, cluster=np.arange(3), shared=True, starts=2)
    straight = em(squares, available, **start(3), shared=True)
    assert found.converged
    assert found.loglik == pytest.approx(straight.loglik, abs=1e-6)


@pytest.mark.parametrize(("bias", "degree"), [("linear", 1), ("additive", 0), ("none", None)])
def test_bias_correction_is_least_squares_over_the_rows_that_have_the_member(bias, degree):
    rng = np.random.default_rng(9)
    y, f, available = rng.normal(size=50), rng.normal(size=(50, 2)), rng.random((50, 2)) < 0.7
    intercept, slope = least_squares(y, np.where(available, f, 0.0), available, bias=bias, cluster=np.arange(2))
    for k in range(2):
        use = available[:, k]
        if degree is None:
            expected = [1.0, 0.0]
        else:
            expected = np.polyfit(f[use, k], y[use], 1) if degree else [1.0, np.mean(y[use] - f[use, k])]
        np.testing.assert_allclose([slope[k], intercept[k]], expected, atol=1e-12)
    both = available.any(axis=1)
    pooled = least_squares(y[both], f[both], available[both], bias="linear", cluster=np.zeros(2, dtype=int))
    x, target = f[both][available[both]], np.broadcast_to(y[both][:, None], (both.sum(), 2))[available[both]]
    np.testing.assert_allclose([pooled[1], pooled[0]], np.polyfit(x, target, 1)[:, None] * np.ones(2), atol=1e-12)


# --------------------------------------------------------------------------------------------------------- equivalence
def soil(n=200, seed=10):
    rng = np.random.default_rng(seed)
    truth = rng.uniform(0.1, 0.4, size=n)
    frame = pd.DataFrame({"sm": truth + rng.normal(0.0, 0.01, n)})
    for name, size in zip("abc", (0.02, 0.03, 0.05)):
        frame[name] = 0.03 + 0.8 * truth + rng.normal(0.0, size, n)
        frame.loc[rng.random(n) < 0.15, name] = np.nan
    return frame


MEMBERS = ["a", "b", "c"]


def predicted(frame, model, members=MEMBERS, new=None):
    tree = be.fit(model, be.Ensemble.from_frame(frame, members=members, observation="sm"), method="em")
    table = be.Ensemble.from_frame(frame if new is None else new, members=members, observation="sm")
    out = be.predict(tree, table, quantiles=[0.01, 0.5, 0.99])
    return np.column_stack([out["mean"], out["sd"], out["quantile_value"]])


@pytest.fixture(scope="module", params=["shared", "member"])
def equivalence(request):
    model = be.BMA(**JOINT, sigma=request.param)
    frame = soil()[lambda f: f[MEMBERS].notna().any(axis=1)].reset_index(drop=True)
    return model, frame, predicted(frame, model)


def test_em_predictions_follow_a_change_of_units(equivalence):
    model, frame, out = equivalence
    np.testing.assert_allclose(predicted(100.0 * frame, model), 100.0 * out, rtol=1e-10)


def test_em_predictions_follow_a_change_of_origin(equivalence):
    model, frame, out = equivalence
    shift = np.array([273.15, 0.0, *[273.15] * 3])
    np.testing.assert_allclose(predicted(frame + 273.15, model), out + shift, rtol=1e-10, atol=1e-8)


def test_em_predictions_do_not_depend_on_the_order_of_members(equivalence):
    model, frame, out = equivalence
    np.testing.assert_allclose(predicted(frame, model, members=["c", "a", "b"]), out, rtol=1e-10)


def test_em_predictions_do_not_depend_on_the_order_of_rows(equivalence):
    model, frame, out = equivalence
    mixed = frame.sample(frac=1.0, random_state=1)
    np.testing.assert_allclose(predicted(mixed, model, new=frame), out, rtol=1e-10)


def test_an_exact_copy_of_a_member_leaves_the_predictive_cdf_as_it_is():
    frame = soil().dropna(ignore_index=True)
    with pytest.warns(UserWarning, match="'a' and 'd' are exact copies"):
        copied = predicted(
            frame.assign(d=frame.a),
            be.BMA(**JOINT, sigma="shared"),
            members=[*MEMBERS, "d"],
        )
    np.testing.assert_allclose(copied, predicted(frame, be.BMA(**JOINT, sigma="shared")), atol=1e-6)


def test_em_refuses_effects_by_name():
    ens = be.Ensemble.from_frame(soil().dropna().assign(s="x"), members=MEMBERS, observation="sm", site="s")
    with pytest.raises(ValueError, match="has no site effects in a joint fit; use method='auto' or 'nuts'"):
        be.fit(be.BMA(correction="joint", group=False, site=True), ens, method="em")
