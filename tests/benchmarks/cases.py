"""What is timed, and the process that it is timed in.

`python cases.py NAME SCALE` prepares a case (imports, its table, a fit of the same model to another table, so that nothing is
left to compile), says so, runs it at each line that it reads, and says at the end how much memory it took and what came out.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Run = Callable[[], Any]
# Where the data for development lie, as in tests/helpers.
DATA = Path(os.environ.get("BAYESENS_DATA") or Path(__file__).parents[3] / "shared" / "data")
QUANTITIES = ("weight", "bias", "slope", "sigma", "truth_mean", "truth_sd", "truth_site_sd", "truth_group_sd", "slope_site",
              "slope_group", "error_sd", "bias_site_sd", "bias_group_sd")  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A case: what prepares it, with how many rows, how often it is run, and after how many seconds it is given up."""

    title: str
    prepare: Callable[[int], Run]
    rows: int
    rounds: int = 1
    limit: float = 1800.0
    needs: str = ""  # a folder of the development data, without which there is nothing to time

    def size(self, scale: float) -> int:
        """Rows at a scale."""
        return max(1000, round(self.rows * scale))


# ------------------------------------------------------------------------------------------------------------- the tables
def bma_ensemble(n: int, seed: int) -> Any:
    """Rows of four members from the mixture of BMA."""
    import bayesens as be
    from bayesens import simulate

    frame = simulate.bma(n, weight=[0.4, 0.3, 0.2, 0.1], bias=[0.2, -0.1, 0.0, 0.3], slope=[0.9, 1.0, 1.1, 0.8],
                         sigma=[0.4, 0.5, 0.6, 0.7], random_seed=seed)  # fmt: skip
    return be.Ensemble.from_frame(frame, members=["m1", "m2", "m3", "m4"], observation="y")


def correlated_ensemble(n: int, seed: int) -> Any:
    """Rows of eight members whose errors have a correlation of .94, as from one model at several lead times."""
    import numpy as np
    import pandas as pd

    import bayesens as be

    rng = np.random.default_rng(seed)
    y = rng.standard_normal((n, 1))
    error = np.sqrt(0.94) * rng.standard_normal((n, 1)) + np.sqrt(0.06) * rng.standard_normal((n, 8))
    frame = pd.DataFrame(y + np.linspace(0.4, 0.6, 8) * error, columns=[f"m{k + 1}" for k in range(8)])
    return be.Ensemble.from_frame(frame.assign(y=y), members=list(frame), observation="y")


def hbm_ensemble(n: int, seed: int) -> Any:
    """Rows of four members in 20 groups at 500 sites, or at fewer that have 20 rows each."""
    import numpy as np

    import bayesens as be
    from bayesens import simulate

    sites = min(500, max(40, n // 20))
    correlation = 0.6 + 0.4 * np.eye(4)
    frame = simulate.hbm(
        n_sites=sites, n_groups=20, n_times=max(1, n // sites), truth_mean=0.2, truth_sd=0.8, truth_site_sd=0.5,
        truth_group_sd=0.3, center=0.0, bias=[0.2, -0.1, 0.0, 0.3], slope=[0.7, 0.8, 0.6, 0.9],
        slope_site=[0.6, 0.7, 0.5, 0.8], slope_group=[0.8, 0.7, 0.9, 0.6], error_cov=0.16 * correlation,
        bias_site_cov=0.04 * correlation, bias_group_cov=0.01 * correlation, random_seed=seed,
    ).frame  # fmt: skip
    return be.Ensemble.from_frame(frame, members=["m1", "m2", "m3", "m4"], observation="y", site="site", group="group")


# -------------------------------------------------------------------------------------------------------------- the cases
def fit(model: str, table: Callable[[int, int], Any], **options: Any) -> Callable[[int], Run]:
    """`be.fit` as a whole, in a process that has fitted the same model to another table."""

    def prepare(n: int) -> Run:
        import bayesens as be

        ensemble, value = table(n, 1), getattr(be, model)()
        short = {} if options["method"] == "em" else {"draws": 50, "tune": 100}
        for method in ("laplace", "nuts") if options["method"] == "auto" else (options["method"],):
            be.fit(value, table(1000, 2), random_seed=2, progressbar=False, **options | short | {"method": method})
        return lambda: be.fit(value, ensemble, random_seed=1, progressbar=False, **options)

    return prepare


def naive(model: str, table: Callable[[int, int], Any], **options: Any) -> Callable[[int], Run]:
    """The plain PyMC model, compiled and sampled by nutpie with its own settings."""

    def prepare(n: int) -> Run:
        import nutpie

        import bayesens as be

        ensemble = table(n, 1)
        value = getattr(be, model)(**options).resolve(ensemble)

        def run() -> Any:
            compiled = nutpie.compile_pymc_model(value.build(ensemble, likelihood="rows"))
            return nutpie.sample(compiled, draws=1000, chains=4, seed=1, progress_bar=False)

        return run

    return prepare


def score(function: str) -> Callable[[int], Run]:
    """Log score, CRPS and intervals of new rows, or LOO of the rows that were fitted, under 1,000 draws."""

    def prepare(n: int) -> Run:
        import bayesens as be

        def fitted(rows: Any) -> Any:
            return be.fit(be.BMA(), rows, method="laplace", draws=250, chains=4, random_seed=1, log_likelihood=False)

        small, ensemble, call = bma_ensemble(5000, 2), bma_ensemble(n, 1), getattr(be, function)
        call(fitted(small), small)
        tree = fitted(ensemble if function == "loo" else small)
        return lambda: call(tree, ensemble) and None

    return prepare


def density(by: str) -> Callable[[int], Run]:
    """HBM's log density and gradient at 1,000 points, from PyTensor's graph on: written out as a tape, or compiled by numba."""

    def prepare(n: int) -> Run:
        import numpy as np

        import bayesens as be
        from bayesens.inference.compiled import Compiled, lean
        from bayesens.inference.log_density import compile_target
        from bayesens.inference.tape.trace import trace

        ensemble = hbm_ensemble(n, 1)
        model = be.HBM().resolve(ensemble)
        with lean():
            built = model.build(model.summarise(ensemble))
        target = compile_target(built)
        graph = target._graph
        points = target.start + 0.1 * np.random.default_rng(1).standard_normal((1000, len(target.start)))
        target.logp_and_gradient(points[:2])  # the interpreter and the kernel are on disk from now on
        if by == "tape":
            return lambda: trace(graph.outputs[:2], graph.x).gradients(points) and None
        return lambda: Compiled(graph.x, graph.outputs).gradients(points) and None

    return prepare


def on_grid(which: str, form: str) -> Callable[[int], Run]:
    """Members trained on 11,099 days at monitors around Atlanta predict cells of that region, as a grid or as a table."""

    def prepare(n: int) -> Run:
        import numpy as np
        import pandas as pd
        import xarray as xr

        import bayesens as be

        table = pd.read_csv(DATA / "atlanta" / "atlanta_daily.csv.gz")
        with xr.open_dataset(DATA / "atlanta" / "grid_200406.nc") as month:
            days = np.arange(-(-n // (month.sizes["row"] * month.sizes["col"]))) % month.sizes["time"]
            grid = month.isel(time=days).load()
        names = [str(name) for name in grid.data_vars]
        every = be.default_estimators(random_seed=1)
        chosen = every if which == "all" else {which: every[which]}
        members = be.Members(chosen, table[[*names, "monitor"]], table["pm25"], site="monitor")
        fitted = members.fit(random_seed=1, progressbar=False)
        cells = grid if form == "grid" else grid[names].to_dataframe()[names]
        fitted.predict(grid.isel(time=slice(1)))  # compiled from now on
        return lambda: fitted.predict(cells) is None

    return prepare


def cells(model: str, *, rows: int = 10_000, quantiles: tuple[float, ...] = (), variables: tuple[str, ...] = ("mean", "sd"),
          by: str = "law", method: str = "auto", **options: Any) -> Callable[[int], Run]:  # fmt: skip
    """Cells of four members in single precision: by the law; a copy of the same numbers; or 100 posterior draws in numpy."""

    def prepare(n: int) -> Run:
        import numba
        import numpy as np
        import xarray as xr

        import bayesens as be

        rng = np.random.default_rng(3)
        truth = rng.normal(size=n)
        values = (truth + rng.normal(0.0, 0.5, (4, n))).astype(np.float32)
        grid = xr.Dataset({f"m{k + 1}": ("cell", one) for k, one in enumerate(values)})
        out = np.empty((len(variables) + len(quantiles), n), dtype=np.float32)

        @numba.njit(parallel=True)
        def copied(values: Any, out: Any) -> None:
            for i in numba.prange(values.shape[1]):
                value = values[0, i] + values[1, i] + values[2, i] + values[3, i]
                for j in range(len(out)):
                    out[j, i] = value

        if by == "copy":
            copied(values, out)
            return lambda: copied(values, out)
        tree = be.fit(
            getattr(be, model)(**options), bma_ensemble(rows, 2), method=method, random_seed=1, progressbar=False
        )
        if by == "numpy":
            draws = tree["posterior"].to_dataset().stack(sample=("chain", "draw")).isel(sample=slice(None, None, 40))
            slope, bias = draws["slope"].values.T[:100], draws["bias"].values.T[:100]  # (draw, member)

            def plain() -> None:
                total, square = np.zeros(n, dtype=np.float32), np.zeros(n, dtype=np.float32)
                for a, b in zip(slope.astype(np.float32), bias.astype(np.float32), strict=True):
                    mean = (a[:, None] * values - b[:, None]).mean(axis=0)
                    total += mean
                    square += mean**2

            return plain
        be.predict(tree, grid.isel(cell=slice(1000)), quantiles=quantiles, variables=variables)
        # The law of cells itself: a look through the grid for codes and strange values comes once before it.
        from bayesens.inference.fit_tree import history_of, model_of
        from bayesens.inference.grid import GridInputs

        inputs = GridInputs.of(tree, model_of(tree, None), grid, {})
        law = inputs.law(tree, model_of(tree, None), history_of(tree), levels=np.array(quantiles), parts=variables)
        law.of_cells(*(one[:1000] for one in values))
        return lambda: law.of_cells(*values) and None

    return prepare


def drawn(n: int) -> Run:
    """One draw of a map of n cells and of 30 days."""
    import numpy as np
    import pandas as pd
    import xarray as xr

    import bayesens as be

    rng, side = np.random.default_rng(3), int(np.sqrt(n / 30))
    coords = {"time": pd.date_range("2004-06-01", periods=30), "y": np.arange(side) * 12.0, "x": np.arange(side) * 12.0}
    values = {f"m{k + 1}": (("time", "y", "x"), rng.normal(size=(30, side, side)).astype(np.float32)) for k in range(4)}
    grid, tree = xr.Dataset(values, coords), be.fit(be.BMA(), bma_ensemble(10_000, 2), method="auto", random_seed=1)
    field = be.ResidualField(range=100.0, nugget=0.2, persistence=0.5, places=("x", "y"))
    be.draw(tree, grid.isel(time=slice(2)), size=1, random_seed=1, field=field)
    return lambda: be.draw(tree, grid, size=1, random_seed=2, field=field) is None


QUARTILES = (0.05, 0.5, 0.95)
ALL = ("mean", "sd", "sd_within", "sd_between", "sd_parameter")
CASES = {
    "bma_auto_10k": Case("BMA auto", fit("BMA", bma_ensemble, method="auto"), 10_000, 5),
    "bma_auto_100k": Case("BMA auto", fit("BMA", bma_ensemble, method="auto"), 100_000, 3),
    "bma_auto_1m": Case("BMA auto", fit("BMA", bma_ensemble, method="auto"), 1_000_000),
    "bma_nuts_10k": Case("BMA NUTS", fit("BMA", bma_ensemble, method="nuts"), 10_000, 3),
    "bma_naive_10k": Case("BMA as pm.NormalMixture", naive("BMA", bma_ensemble, correction="joint"), 10_000, limit=300),
    "bma_naive_100k": Case(
        "BMA as pm.NormalMixture", naive("BMA", bma_ensemble, correction="joint"), 100_000, limit=300
    ),
    "em_18k": Case("BMA EM, 8 members", fit("BMA", correlated_ensemble, method="em"), 18_000, 3),
    "em_18k_one": Case(
        "BMA EM, 8 members, one start", fit("BMA", correlated_ensemble, method="em", starts=0), 18_000, 5
    ),
    "em_1m": Case("BMA EM", fit("BMA", bma_ensemble, method="em"), 1_000_000),
    "em_1m_one": Case("BMA EM, one start", fit("BMA", bma_ensemble, method="em", starts=0), 1_000_000, 3),
    "hbm_nuts_10k": Case("HBM NUTS", fit("HBM", hbm_ensemble, method="nuts"), 10_000, 3),
    "hbm_nuts_1m": Case("HBM NUTS", fit("HBM", hbm_ensemble, method="nuts"), 1_000_000),
    "hbm_nuts_2k": Case("HBM NUTS", fit("HBM", hbm_ensemble, method="nuts"), 2000, 3),
    "hbm_naive_2k": Case("HBM with its effects sampled", naive("HBM", hbm_ensemble), 2000, limit=300),
    "density_2k": Case("HBM density, 1,000 points", density("tape"), 2000, 3),
    "density_pytensor_2k": Case("the same density by PyTensor's numba mode", density("pytensor"), 2000),
    "score_100k": Case("score under 1,000 draws", score("score"), 100_000, 3),
    "loo_100k": Case("LOO under 1,000 draws", score("loo"), 100_000, 3),
    "cells_copy": Case("a copy of four numbers to two", cells("BMA", by="copy"), 20_000_000, 5),
    "cells_copy_5": Case("a copy of four numbers to five", cells("BMA", by="copy", variables=ALL), 20_000_000, 5),
    "cells_numpy": Case("means under 100 draws in numpy", cells("BMA", by="numpy"), 1_000_000, 3),
    "cells_bma": Case("mean and sd of BMA", cells("BMA"), 20_000_000, 5),
    "cells_bma_parts": Case("and the parts of the sd", cells("BMA", variables=ALL), 20_000_000, 5),
    "cells_bma_quantiles": Case("and three quantiles", cells("BMA", quantiles=QUARTILES), 5_000_000, 5),
    "cells_bma_few": Case("the same, fitted to 200 rows", cells("BMA", rows=200, quantiles=QUARTILES), 200_000, 3),
    "cells_one": Case("mean and sd of BMA with one width", cells("BMA", scale=()), 20_000_000, 5),
    "cells_one_parts": Case("and the parts of the sd", cells("BMA", variables=ALL, scale=()), 20_000_000, 5),
    "cells_one_quantiles": Case("and three quantiles", cells("BMA", quantiles=QUARTILES, scale=()), 2_000_000, 3),
    "cells_em": Case("mean and sd of BMA by EM", cells("BMA", method="em"), 10_000_000, 3),
    "cells_em_parts": Case("and the parts of the sd", cells("BMA", method="em", variables=ALL), 10_000_000, 3),
    "cells_em_quantiles": Case("and three quantiles", cells("BMA", method="em", quantiles=QUARTILES), 5_000_000, 3),
    "cells_emos": Case("mean and sd of EMOS", cells("EMOS"), 10_000_000, 3),
    "cells_emos_parts": Case("and the parts of the sd", cells("EMOS", variables=ALL), 10_000_000, 3),
    "cells_emos_quantiles": Case("and three quantiles", cells("EMOS", quantiles=QUARTILES), 100_000, 3),
    "cells_hbm": Case("mean and sd of HBM", cells("HBM"), 20_000_000, 5),
    "cells_hbm_parts": Case("and the parts of the sd", cells("HBM", variables=ALL), 20_000_000, 5),
    "cells_hbm_quantiles": Case("and three quantiles", cells("HBM", quantiles=QUARTILES), 20_000_000, 5),
    "cells_draw": Case("one draw of a map of 30 days", drawn, 300_000, 3),
    "members_grid": Case("four members on a grid", on_grid("all", "grid"), 216_000, 5, needs="atlanta"),
    "members_grid_rf": Case("its random forest", on_grid("rf", "grid"), 216_000, 5, needs="atlanta"),
    "members_grid_mlr": Case("its linear model", on_grid("mlr", "grid"), 216_000, 5, needs="atlanta"),
    "members_grid_svr": Case("its support vectors", on_grid("svr", "grid"), 216_000, 5, needs="atlanta"),
    "members_grid_xgb": Case("its boosted trees", on_grid("xgb", "grid"), 216_000, 5, needs="atlanta"),
    "members_table": Case("four members on a table", on_grid("all", "table"), 24_000, 3, needs="atlanta"),
}


# -------------------------------------------------------------------------------------------------------- the process
def outcome(result: Any) -> dict[str, Any]:
    """What a fit says about itself, and the least bulk effective sample size of its parameters."""
    import arviz as az

    if not hasattr(result, "children"):
        return {}
    attrs = result.attrs
    out = {key: attrs[key] for key in ("method", "pareto_k", "iterations", "rhat_max", "divergences") if key in attrs}
    posterior = result["posterior"].to_dataset()
    if posterior.sizes["draw"] == 1:
        return out
    own = posterior[[name for name in QUANTITIES if name in posterior]]
    if attrs.get("method") in ("laplace", "importance"):
        return out | {"ess": float(attrs["importance_ess"])}
    return out | {
        "ess": min(float(v.min()) for v in az.ess(own, method="bulk").values()),
        "rhat_max": max(float(v.max()) for v in az.rhat(own).values()),
    }


def peak_mib() -> float:
    """Largest memory that this process has held."""
    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20, 1)


def main(name: str, scale: float) -> None:
    """Serve one case."""
    from bayesens.ensemble import sufficient
    from bayesens.inference import fit as inference

    spent: dict[str, float] = {}

    def timed(module: Any, function: str, key: str) -> None:
        """Note how long a part of the fit takes."""
        inner = getattr(module, function)

        def outer(*args: Any, **kwargs: Any) -> Any:
            begin = time.perf_counter()
            try:
                return inner(*args, **kwargs)
            finally:
                spent[key] = spent.get(key, 0.0) + time.perf_counter() - begin

        setattr(module, function, outer)

    warnings.simplefilter("ignore")
    timed(inference, "sample", "sampling")
    timed(sufficient, "statistics", "statistics")
    case = CASES[name]
    run = case.prepare(case.size(scale))
    before, result = peak_mib(), None
    print("ready", flush=True)
    for line in sys.stdin:
        if line.strip() == "end":
            break
        spent.clear()
        del result
        result = run()
        print("done", flush=True)
    parts = {f"{key}_seconds": round(value, 3) for key, value in spent.items()}
    print(json.dumps({"peak_mib": peak_mib(), "before_mib": before} | outcome(result) | parts), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
