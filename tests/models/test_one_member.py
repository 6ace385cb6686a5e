"""One member, and equal weights: `weight` is in the posterior by every method, and figures and tables take it."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

mpl.use("Agg")
from matplotlib import pyplot as plt

import bayesens as be
from bayesens import plots

FLAT = {"site": False, "group": False}


def ensemble(members=("rf",), n=90):
    rng = np.random.default_rng(3)
    y = rng.normal(size=n)
    frame = pd.DataFrame({name: y + rng.normal(size=n) for name in members}).assign(sm=y, site=np.arange(n) // 10)
    return be.Ensemble.from_frame(frame, members=list(members), observation="sm", site="site")


def fitted(model, rows, method):
    return be.fit(model, rows, method=method, draws=100, random_seed=1, progressbar=False)


MODELS = [be.BMA(**FLAT), be.BMA(**FLAT, correction="joint"), be.EqualWeights(**FLAT), be.SingleMember(**FLAT),
          be.LinearPool(**FLAT), be.LinearPool(correction="joint")]  # fmt: skip


@pytest.mark.filterwarnings("ignore:The approximation around:UserWarning", "ignore:The fit has not:UserWarning")
@pytest.mark.parametrize("method", ["em", "laplace", "nuts"])
@pytest.mark.parametrize("model", MODELS, ids=lambda m: f"{type(m).__name__}-{m.correction}")
def test_one_member_has_a_weight_of_one(model, method):
    rows = ensemble()
    tree = fitted(model, rows, method)
    weight = tree["posterior"]["weight"]
    assert weight.dims == ("chain", "draw", "member")
    assert weight["member"].values.tolist() == ["rf"]
    np.testing.assert_array_equal(weight.values, 1.0)
    ax = plots.weights(tree)
    assert [text.get_text() for text in ax.get_yticklabels()] == ["rf"]
    assert ax.get_xlabel() == "Weight"
    plt.close(ax.figure)
    assert any("weight" in table for table in be.summary(tree).tables.values())
    assert np.isfinite(be.predict(tree, rows)["mean"].values).all()


@pytest.mark.filterwarnings("ignore:The approximation around:UserWarning")
@pytest.mark.parametrize("method", ["em", "laplace"])
def test_equal_weights_are_there_by_every_method(method):
    tree = fitted(be.EqualWeights(**FLAT), ensemble(("rf", "svr", "xgb")), method)
    np.testing.assert_allclose(tree["posterior"]["weight"].values, 1 / 3)


@pytest.mark.filterwarnings("ignore:The approximation around:UserWarning")
@pytest.mark.parametrize("method", ["em", "laplace"])
def test_a_single_member_of_several_is_named(method):
    tree = fitted(be.SingleMember(member="svr", **FLAT), ensemble(("rf", "svr")), method)
    assert tree["posterior"]["weight"]["member"].values.tolist() == ["svr"]


def test_what_takes_weights_takes_those_that_do_not_vary():
    rows = ensemble()
    tree = fitted(be.BMA(**FLAT), rows, "auto")
    table = be.sensitivity.power_scaling(tree)
    assert "weight[rf]" not in set(table["variable"])
    assert np.isfinite(table[["prior", "likelihood"]].to_numpy()).all()
    assert np.isfinite(be.loo(tree, rows, progressbar=False).elpd)
    assert np.isfinite(
        be.sensitivity.prior_predictive(be.BMA(**FLAT), rows, draws=100, random_seed=1)["relative_sd"]
    ).all()
    regressor = be.EnsembleRegressor({"one": _Mean()}, method="auto", draws=100, random_state=1)
    x = np.random.default_rng(1).normal(size=(80, 1))
    assert regressor.fit(x, x[:, 0] + np.random.default_rng(2).normal(size=80)).weights_ == {"one": 1.0}


def _Mean():
    from sklearn.linear_model import LinearRegression

    return LinearRegression()
