"""What the site's pages of decisions have measured: kernels at new sites, what is resampled, tapes, starts, loops of our own.

``BAYESENS_DATA=... python tests/reference/decisions.py [PART ...]`` writes ``decisions.json``, from which the pages have their
figures, in about ten minutes on two idle cores. ONNX Runtime (with skl2onnx) and treelite are timed where they are installed:
``uv run --with onnxruntime --with skl2onnx --with treelite python tests/reference/decisions.py``.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

import bayesens as be

HERE = Path(__file__).parent
sys.path += [str(HERE.parent / name) for name in ("benchmarks", "calibration", "helpers")]
import predictive  # noqa: E402
from cases import bma_ensemble, hbm_ensemble  # noqa: E402
from folds_by_place import members as members_of_oznet  # noqa: E402
from gross_errors import WEIGHTS, density_of, gross_errors  # noqa: E402

RESULT = HERE / "decisions.json"
SEED = 1
PLAIN: dict[str, Any] = {"site": False, "group": False}


def median_seconds(run: Callable[[], Any], rounds: int = 3) -> float:
    """Median of the seconds that some runs take, after one that compiles what is compiled."""
    run()
    seconds = []
    for _ in range(rounds):
        begin = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - begin)
    return float(np.median(seconds))


def half_way(simulations: int = 100) -> dict[str, float]:
    """Coverage at new sites, by the share of the members' new spread for which kernels are narrower.

    A share of -1 makes kernels as wide as one member's error would have them, 1 gives the mixture the right variance on average.
    """
    import bayesens.likelihoods.corrected.predictive as law

    case, kept, found = predictive.CASES[5], law.GIVING_WAY, {}
    assert (case.members, case.alike) == (4, False)
    for name, share in {"one member": -1.0, "half way": 0.5, "right variance": 1.0}.items():
        law.GIVING_WAY = share
        covered = [predictive.simulate(case, seed)["coverage"][1] for seed in range(simulations)]
        found[name] = float(np.mean(covered))
    law.GIVING_WAY = kept
    return found | {"simulations": simulations}


def resampled(replicates: int = 100) -> dict[str, Any]:
    """Standard deviations of BMA's weights at OzNet, over resampled rows, resampled months, and resampled stations."""
    with tempfile.TemporaryDirectory() as folder:
        source = members_of_oznet(Path(folder))
    ensemble = be.cross_fit(source, random_seed=SEED, progressbar=False)
    train = ensemble.select(rows=np.flatnonzero(ensemble.observed))
    rng = np.random.default_rng(SEED)
    month = train.to_frame()["time"].to_numpy().astype("datetime64[M]").astype(int)
    labels = {"rows": np.arange(train.n_obs), "months": month, "stations": train.labels("site")}
    found: dict[str, Any] = {"rows": train.n_obs, "replicates": replicates}
    for name, label in labels.items():
        order = np.argsort(label, kind="stable")
        blocks = np.split(order, np.flatnonzero(np.diff(np.unique(label[order], return_inverse=True)[1])) + 1)
        weights = []
        for _ in range(replicates):
            rows = np.concatenate([blocks[i] for i in rng.integers(0, len(blocks), len(blocks))])
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                tree = be.fit(be.BMA(**PLAIN), train.select(rows=rows), method="em", starts=0, progressbar=False)
            weights.append(tree["posterior"]["weight"].values.ravel())
        found[f"over {name}"] = np.std(weights, axis=0, ddof=1).tolist()
    return found


def tapes() -> dict[str, dict[str, float]]:
    """Seconds until a model's density has its first gradient: by a tape, and compiled by PyTensor for numba."""
    from bayesens.inference.compiled import Compiled, lean
    from bayesens.inference.fit import _prepared
    from bayesens.inference.log_density import _POOL, Target, compile_target

    table, plain = hbm_ensemble(2000, SEED), bma_ensemble(2000, SEED)
    cases = {"BMA": (be.BMA(), plain), "BMA with effects": (be.BMA(), table), "LinearPool": (be.LinearPool(), plain),
             "EMOS": (be.EMOS(), plain), "HBM": (be.HBM(), table)}  # fmt: skip
    found = {}
    for name, (model, ensemble) in cases.items():
        data = _prepared(model, ensemble)
        with lean():
            built = model.resolve(data).build(data)

        def by_tape(built: Any = built) -> Target:
            _POOL.kept.clear()  # a model of a new structure
            target = compile_target(built)
            target.logp_and_gradient(target.start[None])
            return target

        seconds, graph = median_seconds(by_tape), by_tape()._graph
        begin = time.perf_counter()
        Compiled(graph.x, graph.outputs).gradients(by_tape().start[None])
        found[name] = {"tape": seconds, "pytensor": time.perf_counter() - begin}
    return found


def starts(tables: int = 6, at_random: int = 24) -> dict[str, dict[str, float]]:
    """How often starts lead to the highest optimum of BMA, where 3 or 12 % of the observations have gross errors.

    ``at random`` is the share of the random starts, ``wide`` that of the tables where three starts with one wide kernel, and the
    standard start, have it; ``missed`` is the share of searches from three random starts, and the standard one, that end lower,
    and ``below`` the log density by which they then do, at least and at most.
    """
    from bayesens.inference.sampling.laplace import JITTER, find_modes, starts_of

    found = {}
    for name, model in WEIGHTS.items():
        share, wide, missed, below = [], [], [], []
        for seed, gross in ((seed, gross) for seed in range(tables) for gross in (0.03, 0.12)):
            resolved, target = density_of(model, gross_errors(seed, gross))
            rng = np.random.default_rng(SEED)
            points = target.start + JITTER * rng.normal(size=(at_random, len(target.start)))
            heights = [find_modes(target, start=x, starts=0, rng=rng) for x in points]
            each = np.array([modes[0].logp for modes in heights if modes])
            standard = find_modes(target, start=target.start, starts=0, rng=rng)[0].logp
            others = starts_of(resolved, target, 3)[1]
            ours = find_modes(target, start=target.start, starts=3, rng=rng, others=others)[0].logp
            best = max(each.max(), standard, ours)
            share.append(np.mean(each > best - 1.0))
            wide.append(ours > best - 1.0)
            for triple in each[: len(each) // 3 * 3].reshape(-1, 3):
                lower = best - max(triple.max(), standard)
                missed.append(lower > 1.0)
                below += [lower] if lower > 1.0 else []
        found[name] = {"at random": float(np.mean(share)), "wide": float(np.mean(wide)), "missed": float(np.mean(missed)),
                       "least below": min(below), "most below": max(below), "tables": len(wide)}  # fmt: skip
    return found


def loops() -> dict[str, Any]:
    """What one core does, by our loops and by those of libraries."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        return {"loo": leave_one_out(), **members()}
    finally:
        os.sched_setaffinity(0, cores)


def leave_one_out(rows: int = 100_000) -> dict[str, Any]:
    """Seconds of PSIS leave-one-out under 1,000 draws: by blocks from the posterior, and by ArviZ from stored values."""
    import arviz as az

    ensemble = bma_ensemble(rows, SEED)
    tree = be.fit(
        be.BMA(), ensemble, method="laplace", draws=250, random_seed=SEED, log_likelihood=False, progressbar=False
    )
    ours = median_seconds(lambda: be.loo(tree, ensemble), 1)
    stored = be.add(tree, ensemble, "log_likelihood")
    begin = time.perf_counter()
    az.loo(stored)
    return {"rows": rows, "bayesens": ours, "arviz": time.perf_counter() - begin}


def members(rows: int = 20_000) -> dict[str, Any]:
    """Cells a second of a forest and of support vectors."""
    import pandas as pd
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVR

    from bayesens.members.fast.forms import form_of

    rng = np.random.default_rng(SEED)
    names = [f"x{j}" for j in range(10)]
    X = pd.DataFrame(rng.standard_normal((rows, 10)), columns=names)
    train = X.iloc[:5000]
    y = np.sin(train["x0"]) + train["x1"] * train["x2"] + 0.5 * rng.standard_normal(len(train))
    forest = RandomForestRegressor(200, min_samples_leaf=10, max_features=1 / 3, random_state=SEED).fit(train, y)
    vectors = make_pipeline(StandardScaler(), SVR(C=0.3, epsilon=0.2)).fit(train, y)
    found: dict[str, Any] = {"support vectors": int(vectors[-1].n_support_[0])}
    for name, fitted in {"forest": forest, "vectors": vectors}.items():
        form = form_of(fitted, len(names))
        assert form.steps
        np.testing.assert_allclose(form.predict(X), fitted.predict(X), rtol=1e-4, atol=1e-4)
        ways = {"bayesens": lambda form=form: form.predict(X), "scikit-learn": lambda fitted=fitted: fitted.predict(X)}
        ways |= other_libraries(fitted, X, trees=name == "forest")
        found[name] = {way: rows / median_seconds(run) for way, run in ways.items()}
    return found


def other_libraries(fitted: Any, X: Any, *, trees: bool) -> dict[str, Callable[[], Any]]:
    """Predictions by libraries that are no dependency of ours, where they are installed."""
    ways: dict[str, Callable[[], Any]] = {}
    if importlib.util.find_spec("onnxruntime") and importlib.util.find_spec("skl2onnx"):
        import onnxruntime
        import skl2onnx

        values = X.to_numpy(np.float32)
        model = skl2onnx.to_onnx(fitted, values[:1])
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        ways["ONNX Runtime"] = lambda: session.run(None, {session.get_inputs()[0].name: values})
    if trees and importlib.util.find_spec("treelite"):
        import treelite

        trees_of, exact = treelite.sklearn.import_model(fitted), X.to_numpy(np.float64)
        ways["treelite"] = lambda: treelite.gtil.predict(trees_of, exact, nthread=1)
    return ways


PARTS: dict[str, Callable[[], Any]] = {
    "half_way": half_way, "resampled": resampled, "tapes": tapes, "starts": starts, "loops": loops,
}  # fmt: skip


def main(parts: list[str]) -> None:
    """Measure some parts anew, or all; the others stay."""
    names = ("bayesens", "numpy", "pymc", "pytensor", "arviz", "scikit-learn", "onnxruntime", "treelite")
    for part in parts or PARTS:
        found = PARTS[part]()
        result = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {"seed": SEED}
        installed = {
            name: version(name) for name in names if importlib.util.find_spec(name.replace("scikit-learn", "sklearn"))
        }
        result[part] = found | {"versions": installed}
        RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        print(json.dumps({part: result[part]}, indent=1), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
