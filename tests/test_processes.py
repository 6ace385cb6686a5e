"""Fits in processes that were forked off after a fit, and under settings of the environment that others need."""

import os
import subprocess
import sys

import pytest

DATA = """
import sys, warnings
import numpy as np, pandas as pd
import bayesens as be

def rows(seed=0, n=120):
    rng = np.random.default_rng(seed)
    y = rng.normal(size=n)
    frame = pd.DataFrame({"rf": y + 0.3 * rng.normal(size=n), "svr": 0.2 + y + 0.6 * rng.normal(size=n), "sm": y})
    frame["site"] = np.arange(n) // 20
    return be.Ensemble.from_frame(frame, members=["rf", "svr"], observation="sm", site="site")

FLAT = {"site": False, "group": False}
def weight(model=None, **options):
    tree = be.fit(model or be.BMA(**FLAT), rows(), random_seed=1, progressbar=False, **options)
    return tree["posterior"]["weight"].mean(("chain", "draw")).values.round(3).tolist()
"""
FORKS = hasattr(os, "fork")


def answer(code, timeout=240, **environment):
    """Run code in a new process; its last line, and its standard error where it failed."""
    done = subprocess.run(
        [sys.executable, "-c", DATA + code], capture_output=True, text=True, check=False, timeout=timeout,
        env=os.environ | environment,
    )  # fmt: skip
    return done.returncode, done.stdout.strip(), done.stderr.strip()


@pytest.mark.skipif(not FORKS, reason="this system does not fork")
@pytest.mark.parametrize("method", ["auto", "nuts", "em"])
def test_children_forked_after_a_fit_give_the_fit_of_the_parent(method):
    code = f"""
import multiprocessing as mp
def child(_): return weight(method={method!r}, draws=100)
if __name__ == "__main__":
    parent = weight(method={method!r}, draws=100)
    with mp.get_context("fork").Pool(2) as pool:
        found = pool.map_async(child, [1, 2]).get(timeout=120)
    print(found == [parent, parent], flush=True)
"""
    assert answer(code)[:2] == (0, "True")


@pytest.mark.skipif(not FORKS, reason="this system does not fork")
def test_a_grandchild_predicts_and_the_parent_goes_on():
    code = """
import multiprocessing as mp
tree = be.fit(be.HBM(site=False), rows(), random_seed=1, draws=100, progressbar=False)
def mean(): return float(be.predict(tree, rows(1))["mean"].mean())
def nested(queue):
    mean()
    inner = mp.get_context("fork").Process(target=lambda: queue.put(mean()))
    inner.start(); inner.join(60)
parent = mean()
queue = mp.get_context("fork").Queue()
child = mp.get_context("fork").Process(target=nested, args=(queue,))
child.start()
print(queue.get(timeout=120) == parent == mean(), flush=True)
child.join(60)
"""
    assert answer(code)[:2] == (0, "True")


@pytest.mark.skipif(not FORKS, reason="this system does not fork")
def test_a_lock_held_at_the_fork_is_free_in_the_child():
    code = """
import multiprocessing as mp, threading
first = weight(draws=100)
from bayesens.target import _POOL
held, done = threading.Event(), threading.Event()
def hold():
    with _POOL.lock:
        held.set(); done.wait(60)
threading.Thread(target=hold, daemon=True).start()
held.wait()
pool = mp.get_context("fork").Pool(1)
print(pool.apply_async(weight, (), {"draws": 100}).get(timeout=120) == first, flush=True)
done.set(); pool.terminate()
"""
    assert answer(code)[:2] == (0, "True")


@pytest.mark.skipif(not FORKS, reason="this system does not fork")
def test_a_child_may_share_out_folds_as_its_parent_did():
    code = """
import multiprocessing as mp
def scores(): return be.compare({"a": be.EqualWeights(**FLAT)}, rows(), estimand="site", folds=2, method="em", workers=2,
                                progressbar=False)["crps"].values.mean().round(6)
def put(queue): queue.put(scores())
parent = scores()
queue = mp.get_context("fork").Queue()
child = mp.get_context("fork").Process(target=put, args=(queue,))
child.start()
print(queue.get(timeout=150) == parent, flush=True)
child.join(60)
"""
    assert answer(code)[:2] == (0, "True")


@pytest.mark.parametrize("method", ["laplace", "nuts"])
def test_single_precision_asked_of_pytensor_changes_no_fit(method):
    code = f"print(weight(method={method!r}, draws=100), weight(be.BMA(weights='equal', **FLAT), draws=100))"
    plain, single = answer(code), answer(code, PYTENSOR_FLAGS="floatX=float32")
    assert single[0] == 0, single[2]
    assert single[1] == plain[1]


def test_single_precision_asked_of_pytensor_leaves_prior_draws_alone():
    code = """
found = be.sensitivity.prior_predictive(be.HBM(site=False), rows(), draws=50, random_seed=1)
print(found["relative_sd"].values.mean().round(6))
"""
    plain, single = answer(code), answer(code, PYTENSOR_FLAGS="floatX=float32")
    assert single[0] == 0, single[2]
    assert single[1] == plain[1]


def test_without_compilation_there_is_one_sentence():
    code, out, error = answer("weight(method='em')", NUMBA_DISABLE_JIT="1")
    assert code != 0
    assert out == ""
    said = error.splitlines()[-1]
    assert said.startswith("OSError: NUMBA_DISABLE_JIT is set")
    assert said.endswith("start Python again")


def test_without_compilation_the_command_line_says_the_same(tmp_path):
    table = tmp_path / "rows.csv"
    table.write_text("rf,svr,sm\n" + "\n".join(f"{i % 7},{i % 5},{i % 6}.5" for i in range(40)))
    command = [sys.executable, "-m", "bayesens", "fit", str(table), "--members", "rf,svr", "--observation", "sm"]
    done = subprocess.run([*command, "--out", str(tmp_path / "fit.nc")], capture_output=True, text=True, check=False,
                          env=os.environ | {"NUMBA_DISABLE_JIT": "1"})  # fmt: skip
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "Error: NUMBA_DISABLE_JIT is set" in done.stderr


@pytest.mark.parametrize("model", ["BMA", "HBM", "LinearPool", "EMOS", "EqualWeights", "SingleMember", "Climatology"])
def test_settings_of_floating_point_errors_change_nothing(model):
    code = f"""
model = be.{model}()
def all_of_it(method):
    tree = be.fit(model, rows(), method=method, random_seed=1, draws=100, progressbar=False)
    found = [be.predict(tree, rows(2))["quantile_value"].values.sum(), be.score(tree, rows(2))["log_score"].values.sum()]
    found += [be.draw(tree, rows(2), size=10, random_seed=1).values.sum()]
    if method != "em":
        found += [be.loo(tree, rows(), progressbar=False).elpd]
        found += [be.add(tree, rows(), "posterior_predictive", random_seed=1)["posterior_predictive"]["y"].values.sum()]
    return np.array(found)
warnings.simplefilter("ignore", UserWarning)
methods = ["auto"] if {model!r} == "HBM" else ["auto", "em"]
if {model!r} in ("Climatology", "EMOS"): methods = ["auto"]
plain = [all_of_it(method) for method in methods]
before = np.seterr(all="raise")
again = [all_of_it(method) for method in methods]
print(all((a == b).all() for a, b in zip(plain, again)), np.geterr() == dict.fromkeys(before, "raise"))
"""
    code, out, error = answer(code)
    assert (code, out) == (0, "True True"), error


def test_settings_of_floating_point_errors_let_folds_and_tables_be():
    code = """
warnings.simplefilter("ignore", UserWarning)
np.seterr(all="raise")
found = be.compare([be.BMA(), be.Climatology()], rows(), estimand="site", folds=3, method="em", draws=100, random_seed=1,
                   progressbar=False)
tables = be.score_table(found, replicates=50, random_seed=1), be.paired_differences(found, "BMA", replicates=50, random_seed=1)
print(len(tables[0]), bool(np.isfinite(be.dependence(rows(), random_seed=1)["mean_correlation"]).all()))
be.sensitivity.power_scaling(be.fit(be.BMA(**FLAT), rows(), random_seed=1, progressbar=False))
import matplotlib; matplotlib.use("Agg")
be.plots.scores(found); be.plots.pit(found, model="BMA"); be.plots.differences(found)
"""
    code, out, error = answer(code)
    assert (code, out) == (0, "2 True"), error
