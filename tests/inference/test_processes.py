"""Fits in processes that were forked off after a fit, and under settings of the environment that others need."""

import json
import os
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytensor
import pytest

import bayesens as be
from bayesens.parallel import in_processes

FORKS = hasattr(os, "fork")
FLAT = {"site": False, "group": False}

# Each part has a limit of its own: a child that hangs is an answer that lacks, and no test that never ends.
FORKED = """
import json, multiprocessing as mp, threading
import bayesens as be
from tests.inference.test_processes import FLAT, rows, weight

context, found = mp.get_context("fork"), {}

def answer(function, *arguments):
    pool = context.Pool(1)
    try:
        return pool.apply_async(function, arguments).get(timeout=100)
    except mp.TimeoutError:
        return "hangs"
    finally:
        pool.terminate()

def of_process(target, *arguments):
    queue = context.Queue()
    child = context.Process(target=target, args=(queue, *arguments))
    child.start()
    try:
        return queue.get(timeout=100)
    except Exception:
        child.kill()
        return "hangs"
    finally:
        child.join(20)

for method in ("laplace", "nuts", "em"):
    found[method] = [weight(method), answer(weight, method)]

def nested(queue):
    weight("em")
    queue.put(of_process(lambda inner: inner.put(weight("laplace"))))
found["grandchild"] = [found["laplace"][0], of_process(nested)]

from bayesens.inference.log_density import _POOL
held, done = threading.Event(), threading.Event()
def hold():
    with _POOL.lock:
        held.set()
        done.wait(200)
threading.Thread(target=hold, daemon=True).start()
held.wait()
found["lock"] = [found["laplace"][0], answer(weight, "laplace")]
done.set()

def folds():
    rows_held_out = be.compare({"a": be.EqualWeights(**FLAT)}, rows(), estimand="site", folds=2, method="em", workers=2,
                               progressbar=False)
    return float(rows_held_out["crps"].mean())
found["workers"] = [folds(), of_process(lambda queue: queue.put(folds()))]
found["parent"] = [found["laplace"][0], weight("laplace")]
print("FOUND", json.dumps(found), flush=True)
"""


def rows(seed=0, n=120, far=0.0):
    rng = np.random.default_rng(seed)
    y = rng.normal(size=n)
    frame = pd.DataFrame({"rf": y + 0.3 * rng.normal(size=n), "svr": 0.2 + y + 0.6 * rng.normal(size=n), "sm": y})
    frame.loc[0, "sm"] += far
    frame["site"] = np.arange(n) // 20
    return be.Ensemble.from_frame(frame, members=["rf", "svr"], observation="sm", site="site")


def weight(method, model=None, **options):
    tree = be.fit(
        model or be.BMA(**FLAT), rows(), method=method, random_seed=1, draws=100, progressbar=False, **options
    )
    return tree["posterior"]["weight"].mean(("chain", "draw")).values.round(6).tolist()


def ran(code, timeout=500, **environment):
    """Run code in a new process, from the folder of the tests' own."""
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False, timeout=timeout,
        env=os.environ | environment, cwd=Path(__file__).parents[2],
    )  # fmt: skip


@pytest.fixture(scope="module")
def forked():
    if not FORKS:
        pytest.skip("this system does not fork")
    done = ran(FORKED)
    assert "FOUND" in done.stdout, done.stderr
    return json.loads(done.stdout.split("FOUND", 1)[1])


@pytest.mark.slow
@pytest.mark.parametrize("what", ["laplace", "nuts", "em", "grandchild", "lock", "workers", "parent"])
def test_a_child_forked_after_a_fit_gives_what_its_parent_gives(forked, what):
    """After threads, after a lock that another thread holds, after processes of the parent's own."""
    parent, child = forked[what]
    assert child == parent


@pytest.mark.filterwarnings("ignore:The approximation around:UserWarning", "ignore:The fit has not:UserWarning")
@pytest.mark.parametrize(
    "model", [be.BMA(**FLAT), be.LinearPool(**FLAT), be.EqualWeights(**FLAT)], ids=lambda m: type(m).__name__
)
def test_single_precision_asked_of_pytensor_changes_no_fit(model):
    plain = weight("laplace", model)
    with pytensor.config.change_flags(floatX="float32"):
        assert weight("laplace", model) == plain


@pytest.mark.filterwarnings("ignore:The fit has not:UserWarning")
@pytest.mark.parametrize("model", [be.HBM(site=False), be.EMOS(), be.Climatology(), be.BMA(**FLAT, correction="joint")],
                         ids=lambda m: type(m).__name__)  # fmt: skip
def test_single_precision_leaves_variables_and_prior_draws_alone(model):
    options = {"random_seed": 1, "draws": 100}
    plain = be.fit(model, rows(), progressbar=False, **options)
    prior = be.sensitivity.prior_predictive(model, rows(), **options)
    with pytensor.config.change_flags(floatX="float32"):
        again = be.fit(model, rows(), progressbar=False, **options)
        assert again["posterior"].to_dataset().equals(plain["posterior"].to_dataset())
        assert be.sensitivity.prior_predictive(model, rows(), **options).equals(prior)


@pytest.mark.slow
def test_single_precision_asked_of_pytensor_by_the_environment():
    code = "from tests.inference.test_processes import weight; print(weight('laplace'))"
    done = ran(code, PYTENSOR_FLAGS="floatX=float32")
    assert done.stdout.strip() == str(weight("laplace")), done.stderr


def test_without_compilation_there_is_one_sentence():
    done = ran("from tests.inference.test_processes import weight; weight('em')", NUMBA_DISABLE_JIT="1")
    assert done.returncode != 0
    said = done.stderr.strip().splitlines()[-1]
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


QUIET = """
import bayesens as be
from tests.inference.test_processes import rows
for name in be.models.__all__:
    be.fit(getattr(be.models, name)(), rows(n=400), random_seed=1, draws=250, progressbar=False)
    print(name)
be.fit(be.Climatology(), rows(n=400), method="nuts", random_seed=1, progressbar=False)
"""


@pytest.mark.slow
def test_fits_of_all_models_in_a_new_process_write_nothing_beside():
    """Neither a warning of a library at its import, nor a remark of a compiler; also where NUTS runs."""
    done = subprocess.run([sys.executable, "-c", QUIET], capture_output=True, text=True, check=True,
                          cwd=Path(__file__).parents[2])  # fmt: skip
    assert done.stdout.split() == list(be.models.__all__)
    assert not done.stderr


def everything(model, method):
    """Numbers of all that is done with a fit."""
    tree = be.fit(model, rows(), method=method, random_seed=1, draws=100, progressbar=False)
    new = rows(2, far=100.0)  # a row so far out that its density underflows, as it should
    found = [be.predict(tree, new)["quantile_value"].values.sum(), be.score(tree, new)["log_score"].values.sum()]
    found += [be.draw(tree, new, size=10, random_seed=1).values.sum()]
    found += [be.add(tree, rows(), "posterior_predictive", random_seed=1)["posterior_predictive"]["y"].values.sum()]
    return (
        found
        if method == "em" or not getattr(model, "sampled", True)
        else [*found, be.loo(tree, rows(), progressbar=False).elpd]
    )


MODELS = [getattr(be.models, name)() for name in be.models.__all__]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("method", ["auto", "em"])
@pytest.mark.parametrize("model", MODELS, ids=lambda m: type(m).__name__)
def test_settings_of_floating_point_errors_change_nothing(model, method):
    if method == "em" and not hasattr(model, "em"):
        pytest.skip("this model has no fit by EM")
    plain = everything(model, method)
    with np.errstate(all="raise"):
        np.testing.assert_array_equal(everything(model, method), plain)  # NaN where there is no density
        assert set(np.geterr().values()) == {"raise"}


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_settings_of_floating_point_errors_let_folds_and_tables_be():
    def found():
        held_out = be.compare([be.BMA(), be.Climatology()], rows(), estimand="site", folds=3, method="em", draws=100,
                              random_seed=1, progressbar=False)  # fmt: skip
        tables = [be.score_table(held_out, replicates=50, random_seed=1)["crps"].sum(),
                  be.paired_differences(held_out, "BMA", replicates=50, random_seed=1)["difference"].sum(),
                  be.coverage_table(held_out)["coverage"].sum()]  # fmt: skip
        return [*tables, float(be.dependence(rows(), random_seed=1)["mean_correlation"].sum())]

    plain = found()
    with np.errstate(all="raise"):
        assert found() == plain


@pytest.mark.slow
def test_processes_that_have_grown_leave_without_a_word():
    def grow(k):
        sys.modules.setdefault("grown", []).append(np.ones(60_000_000))  # 480 MB, which joblib takes for a leak
        time.sleep(1.2)  # it looks once a second
        return k

    calls = ((k, grow, (k,)) for k in range(6))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert sorted(result for _, result in in_processes(2, calls, lambda name: None)) == list(range(6))
    assert not said
