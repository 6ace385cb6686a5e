"""ArviZ finds in a fit what it needs, after one call where the group is large."""

import arviz as az
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

mpl.use("Agg")
from matplotlib import pyplot as plt

import bayesens as be

NEEDED = ("plot_loo_interval", "plot_loo_pit", "plot_ppc_dist", "plot_ppc_interval", "plot_ppc_pit", "plot_ppc_tstat")


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="module", params=[be.BMA(site=False), be.BMA(site=False, transform="sqrt"), be.EMOS()],
                ids=["BMA", "BMA-sqrt", "EMOS"])  # fmt: skip
def fitted(request):
    rng = np.random.default_rng(1)
    y = rng.normal(size=80) ** 2 + 1
    frame = pd.DataFrame({"rf": y * rng.uniform(0.8, 1.2, 80), "svr": y * rng.uniform(0.7, 1.4, 80), "sm": y})
    frame.loc[3, "sm"] = np.nan  # a row that the fit leaves out
    ensemble = be.Ensemble.from_frame(frame, members=["rf", "svr"], observation="sm")
    return be.fit(request.param, ensemble, random_seed=1, draws=100, progressbar=False), ensemble


def test_loo_and_summaries_work_on_a_fit_as_it_is(fitted):
    tree, ensemble = fitted
    assert az.loo(tree).elpd == pytest.approx(be.loo(tree, ensemble, progressbar=False).elpd, abs=1e-6)
    assert "sigma" in " ".join(map(str, az.summary(tree).index)) or "sigma" not in tree["posterior"]


def test_one_call_gives_what_checks_against_the_observations_need(fitted):
    tree, ensemble = fitted
    whole = be.add(tree, ensemble, "posterior_predictive", random_seed=1)
    drawn = whole["posterior_predictive"]["y"]
    assert drawn["obs"].equals(whole["observed_data"]["obs"])
    assert drawn.dims == ("chain", "draw", "obs")
    pit = az.loo_pit(whole)["y"].values
    assert pit.shape == (79,)
    assert ((pit >= 0) & (pit <= 1)).all()
    assert 0.3 < pit.mean() < 0.7
    for name in NEEDED:
        getattr(az, name)(whole, backend="matplotlib")
    assert "posterior_predictive" not in tree.children


def test_the_manual_of_fit_names_that_call():
    assert 'be.add(tree, ensemble, "posterior_predictive")' in be.fit.__doc__
