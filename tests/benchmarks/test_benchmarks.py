"""Timings: `make bench`, or some of them by `uv run pytest tests/benchmarks -m benchmark -n 0 -s -k "bma and not naive"`.

Every case runs in a process of its own, so that its peak memory is its own; see cases.py. All figures of results.json come
from one run of all cases at full size; BENCH_SCALE=0.01 tries them on fewer rows, and BENCH_OUT names another file. Cases of
grids (`-k "cells or members_grid"`) are in grids.json, written so.
"""

import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import threading
from importlib.metadata import version
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

import bayesens as be

HERE = Path(__file__).parent
SPEC = importlib.util.spec_from_file_location("cases", HERE / "cases.py")
cases = sys.modules["cases"] = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(cases)

RESULT = HERE / "results.json"
PACKAGES = ("bayesens", "pymc", "pytensor", "nutpie", "numba", "numpy", "arviz")
SCALE = float(os.environ.get("BENCH_SCALE", "1"))
FIRST = """
import sys, numpy as np, pandas as pd, bayesens as be
from bayesens import simulate
model = sys.argv[1]
if model == "BMA":
    frame = simulate.bma(1000, weight=[.4, .3, .2, .1], bias=0, slope=1, sigma=.5, random_seed=1)
else:
    one, zero = .04 * np.eye(4) + .06, np.zeros((4, 4))
    frame = simulate.hbm(n_sites=50, n_groups=1, n_times=20, truth_mean=0, truth_sd=1, truth_site_sd=.5, truth_group_sd=0,
        center=0, bias=[0] * 4, slope=[.8] * 4, slope_site=[.8] * 4, slope_group=[0] * 4, error_cov=one, bias_site_cov=one,
        bias_group_cov=zero, random_seed=1).frame
ensemble = be.Ensemble.from_frame(frame, members=["m1", "m2", "m3", "m4"], observation="y",
    **({} if model == "BMA" else {"site": "site"}))
be.fit(getattr(be, model)(), ensemble, random_seed=1, progressbar=False)
"""


@pytest.fixture(scope="module")
def results():
    """Filled in with an entry a case; printed and written when the last one has run."""
    entries, load = {}, os.getloadavg()[0]
    yield entries
    show(entries)
    names = {name for name in cases.CASES if hasattr(be, "loo") or not name.startswith("loo")}
    everything = names <= set(entries) and len(entries) == len(names) + 4 and SCALE == 1
    if not (given := os.environ.get("BENCH_OUT")) and not everything:
        print("results.json is left as it is: its figures come from one run of all cases at full size")
        return
    out = {"machine": machine() | {"load_before": load}, "scale": SCALE, "python": platform.python_version(),
           "versions": {name: version(name) for name in PACKAGES}, "cases": entries}  # fmt: skip
    Path(given or RESULT).write_text(json.dumps(out, indent=1) + "\n")


def machine():
    """Processor, cores and memory."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        processor = platform.processor()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "processor": processor,
        "cores": os.cpu_count(),
        "memory_gib": round(memory, 1),
        "system": platform.system(),
    }


def show(entries):
    """Print one table."""
    heads = ("rows", "median s", "rows/s", "peak MiB", "ESS", "ESS/s")
    table = Table("case", *heads, "what else", title="make bench")
    for column in table.columns[1 : 1 + len(heads)]:
        column.justify = "right"
    told = ("method", "iterations", "sampling_seconds", "statistics_seconds", "rhat_max", "pareto_k", "before_mib")
    for own in entries.values():
        cells = [f"{own['seconds']:.3g}" if own["ended"] else f"> {own['limit_seconds']:.0f}"]
        cells += [f"{own['rows'] / own['seconds']:.2g}" if own["ended"] else ""]
        cells += [f"{own[key]:.0f}" if key in own else "" for key in ("peak_mib", "ess", "ess_per_second")]
        rest = ", ".join(
            f"{key} {own[key] if isinstance(own[key], str) else f'{own[key]:.4g}'}" for key in told if key in own
        )
        table.add_row(own["title"], f"{own['rows']:,}", *cells, rest)
    Console(width=170).print(table)


class Worker:
    """A process that runs a case whenever it is told to."""

    def __init__(self, name, limit):
        self.process = subprocess.Popen([sys.executable, HERE / "cases.py", name, str(SCALE)], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)  # fmt: skip
        self.limit, self.late = limit, False
        self.answer()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()

    def answer(self):
        if not (line := self.process.stdout.readline()) and not self.late:
            raise RuntimeError(f"the process of the case ended with status {self.process.wait()}")
        return line

    def run(self):
        """Run the case once, unless it has taken too long."""

        def stop():
            self.late = True
            self.process.kill()

        clock = threading.Timer(self.limit, stop)
        clock.start()
        self.process.stdin.write("run\n")
        self.process.stdin.flush()
        self.answer()
        clock.cancel()

    def end(self):
        self.process.stdin.write("end\n")
        self.process.stdin.flush()
        return json.loads(self.answer())


@pytest.mark.benchmark
@pytest.mark.parametrize("name", cases.CASES)
def test_case(name, benchmark, results):
    case = cases.CASES[name]
    if name.startswith("loo") and not hasattr(be, "loo"):
        pytest.skip("there is no bayesens.loo")
    if case.needs and not (cases.DATA / case.needs).exists():
        pytest.skip(f"the development data have no {case.needs} here; set BAYESENS_DATA to their folder")
    own = {"title": case.title, "rows": case.size(SCALE)}
    with Worker(name, case.limit) as worker:
        benchmark.pedantic(worker.run, rounds=case.rounds)
        if worker.late:
            results[name] = own | {"ended": False, "limit_seconds": case.limit}
            return
        results[name] = own | timing(benchmark.stats.stats.data) | worker.end()
    if "ess" in results[name]:
        results[name]["ess_per_second"] = results[name]["ess"] / results[name]["seconds"]


@pytest.mark.benchmark
@pytest.mark.parametrize("model", ["BMA", "HBM"])
def test_first_fit(model, benchmark, results, tmp_path):
    """A whole process with empty caches of numba and PyTensor, and the same again in new processes."""
    flags = ",".join(filter(None, [os.environ.get("PYTENSOR_FLAGS"), f"base_compiledir={tmp_path / 'pytensor'}"]))
    env = os.environ | {"PYTENSOR_FLAGS": flags, "NUMBA_CACHE_DIR": str(tmp_path / "numba")}

    def process():
        subprocess.run([sys.executable, "-c", FIRST, model], env=env, check=True, stderr=subprocess.DEVNULL)

    benchmark.pedantic(process, rounds=4)
    assert any((tmp_path / "numba").rglob("*.*")), "the cache is elsewhere"  # PyTensor compiles nothing for our models
    first, *again = benchmark.stats.stats.data
    results[f"first_{model}"] = {"title": f"First {model} fit ever, as a process", "rows": 1000} | timing([first])
    results[f"again_{model}"] = {"title": f"{model} fit in a new process", "rows": 1000} | timing(again)


def timing(seconds):
    """Entry of a case that ended."""
    return {"ended": True, "seconds": statistics.median(seconds), "all_seconds": list(seconds)}
