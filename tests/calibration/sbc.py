"""Simulation-based calibration: truths drawn from the prior, data from the truths; are the truths' ranks uniform?

Every simulation draws the parameters from the priors that the models' docstrings state (here in plain NumPy, apart from
the library), draws a table from them, fits it, and counts how many of 99 nearly independent posterior draws lie below
the truth. With `center`, `unit` or `scale`, and `sigma_scale` fixed, the prior is the same for every table, and the rank
of a correct program is uniform on 0..99 for every quantity: for parameters, for an effect that is drawn back, and for the
log likelihood, which notices a posterior that ignores the data (Modrák et al. 2023). BMA conditions on the members, so these
come from a distribution of their own; HBM simulates them.

BMA takes two steps, and each has a posterior of its own: "correction" is the first, the mixed model of one member in closed
form; "mixture" the second, around members that are right as they are. The two together are a cut, whose posterior is that of
no joint model, so that ranks say nothing of it: what the whole covers is for `predictive.py` to count. "joint" is the
mixture of regressions that is fitted at once.

The rule. A quantity's ranks lie inside the simultaneous 95 % band of the ECDF (Säilynoja, Bürkner and Vehtari 2022) where
`p_value` is above .05; each is reported. Of many quantities some lie outside by chance: the program fails where the
smallest p-value is below FAMILY divided by the number of all quantities of all kinds. A correct program fails with a
chance below .5 % then, whatever the dependence between quantities. The twins fit with a prior other than the generating
one and must fail by the same rule.

`python tests/calibration/sbc.py --work FILE` keeps every finished simulation in FILE and goes on from there,
unless the code has changed. `--kinds correction mixture` renews these kinds alone and keeps what the result has of others.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

import arviz as az
import numpy as np
import pandas as pd
import xarray as xr
from rich.console import Console
from rich.progress import track
from scipy import stats

import bayesens as be
from bayesens.tables.atomic import write_atomically

RANKS = 100  # values of a rank, from 99 draws
FAMILY = 0.005
SIMULATIONS, TWINS = 200, 40
DRAWS = 250  # a chain, of two
ROWS = (150, 600)  # of BMA, in turn: the normal approximation is seldom trusted at the first and often at the second
SITES, GROUPS = 25, 5
SCALE = 0.5  # of BMA's residuals, which is a choice of the prior here
MEMBER, LON = (2.0, 3.0), (10.0, 5.0)  # mean and standard deviation of a member and of a covariate, in every table
PACKAGES = ("bayesens", "pymc", "pytensor", "nutpie", "numba", "numpy")
RESULT = Path(__file__).with_name("sbc.json")
WORK = Path(__file__).parents[2] / ".cache" / "sbc.jsonl"

Truth = dict[str, np.ndarray]


# ---------------------------------------------------------------------------------------------------- the ECDF and its band
@cache
def _tails(n: int) -> np.ndarray:
    """Smaller tail (point, count): chance that a binomial count is as far out, on its side, as each of 0..n."""
    share, count = np.arange(1, RANKS)[:, None] / RANKS, np.arange(n + 1)
    return np.minimum(stats.binom.cdf(count, n, share), stats.binom.sf(count - 1, n, share))


def _inside(n: int, tail: float) -> float:
    """Chance that n uniform ranks have, at every point of the ECDF, a smaller tail above the given one.

    The counts are those of a Poisson process given its total, so that the recursion over points is a convolution.
    """
    step = stats.poisson.pmf(np.arange(n + 1), n / RANKS)
    chance = np.eye(n + 1)[0]
    for allowed in _tails(n) > tail * (1 + 1e-9):
        chance = np.convolve(chance, step)[: n + 1] * allowed
    return float(chance @ step[::-1] / stats.poisson.pmf(n, n))


def p_value(ranks: np.ndarray) -> float:
    """Chance that the ECDF of uniform ranks leaves a narrower simultaneous band than the one that these ranks touch."""
    below = (np.asarray(ranks)[:, None] < np.arange(1, RANKS)).sum(axis=0)
    n = len(ranks)
    return max(0.0, 1.0 - _inside(n, float(_tails(n)[np.arange(RANKS - 1), below].min())))


def band(n: int, level: float = 0.95) -> tuple[np.ndarray, np.ndarray, float]:
    """Return the least and the greatest counts below 1..99 inside the band, and the pointwise tail that it cuts off."""
    tails = np.unique(_tails(n))
    low, high = 0, len(tails) - 1  # the tail of `low` is cut off at the level, that of `high` would be too much
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _inside(n, tails[middle]) >= level else (low, middle)
    allowed = _tails(n) > tails[low] * (1 + 1e-9)
    return allowed.argmax(axis=1), n - allowed[:, ::-1].argmax(axis=1), float(tails[low])


# ------------------------------------------------------------------------------------------------- BMA: one member's correction
def _frame(f: np.ndarray, y: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame(f, columns=[f"m{k + 1}" for k in range(f.shape[1])]).assign(y=y)


def correction_truth(rng: np.random.Generator) -> Truth:
    """Draw from the priors of one member's mixed model with centre 0, unit 1 and sigma_scale SCALE; the effects from theirs.

    The priors of level and slope are in units of the residual, and those of the slopes in standard deviations of their columns.
    """
    tau = np.sqrt(0.5 * SCALE**2 / rng.gamma(0.5))
    level, gain, own = rng.normal([0.0, 0.7, 0.0], tau / SCALE * np.array([3.0, 0.5, 0.5]))
    slope, sd = gain / MEMBER[1], tau * np.abs(rng.standard_t(3, 2))
    return {
        "bias": np.array([slope * MEMBER[0] - level]), "slope": np.array([slope]),
        "covariate_slope": np.array([[own / LON[1]]]), "residual_sd": np.array([tau]),
        "offset_site_sd": sd[:1], "offset_group_sd": sd[1:],
        "offset_site": sd[0] * rng.standard_normal((SITES, 1)), "offset_group": sd[1] * rng.standard_normal((GROUPS, 1)),
    }  # fmt: skip


def _sites(rng: np.random.Generator) -> np.ndarray:
    """Draw 2 to 8 rows a site."""
    return np.repeat(np.arange(SITES), rng.integers(2, 9, SITES))


def _spread_out(rng: np.random.Generator, n: int, moments: tuple[float, float]) -> np.ndarray:
    """Draw a column that has exactly this mean and standard deviation, on which the priors depend."""
    z = rng.standard_normal(n)
    return moments[0] + moments[1] * (z - z.mean()) / z.std()


def _correction_mean(draw: Truth, frame: pd.DataFrame) -> np.ndarray:
    """Mean of y (draw, row) given the effects."""
    lon, code = frame["lon"].to_numpy() - LON[0], _codes(frame)
    mean = -draw["bias"] + draw["slope"] * frame["m1"].to_numpy() + draw["covariate_slope"][:, :, 0] * lon
    return mean + sum(draw[f"offset_{level}"][:, code[level], 0] for level in code)


def correction_table(truth: Truth, seed: int, rng: np.random.Generator) -> pd.DataFrame:
    """Draw a member, a covariate, and observations from the mixed model."""
    site = _sites(rng)
    frame = pd.DataFrame({"m1": _spread_out(rng, len(site), MEMBER), "lon": _spread_out(rng, len(site), LON)})
    frame = frame.assign(site=[f"s{s:02d}" for s in site], group=[f"g{s % GROUPS}" for s in site])
    mean = _correction_mean({name: value[None] for name, value in truth.items()}, frame)[0]
    return frame.assign(y=mean + truth["residual_sd"] * rng.standard_normal(len(site)))


def correction_loglik(draw: Truth, frame: pd.DataFrame) -> np.ndarray:
    """Log likelihood (draw) of a table given the effects."""
    return stats.norm.logpdf(frame["y"].to_numpy(), _correction_mean(draw, frame), draw["residual_sd"]).sum(axis=1)


# ------------------------------------------------------------------------------------------------------- BMA: the mixtures
def sigma_truth(rng: np.random.Generator, k: int) -> Truth:
    """Draw sigmas from their default prior with sigma_scale SCALE."""
    sigma_mean = SCALE * rng.lognormal(0.0, 0.5)
    return {"sigma": sigma_mean * rng.lognormal(0.0, 0.3, k), "sigma_mean": np.array(sigma_mean)}


def mixture_truth(rng: np.random.Generator, k: int = 3) -> Truth:
    """Draw from the default priors of the mixture around corrected members."""
    return {"weight": rng.dirichlet(np.ones(k)), "scale_slope": rng.normal(0, 0.3, 2)} | sigma_truth(rng, k)


def joint_truth(rng: np.random.Generator, k: int = 3) -> Truth:
    """Draw from the default priors of the mixture of regressions with centre 0 and unit 1."""
    return {
        "weight": rng.dirichlet(np.ones(k)), "bias": rng.normal(0, 0.3, k), "slope": rng.normal(1, 0.25, k),
    } | sigma_truth(rng, k)  # fmt: skip


def kernels(draw: Truth, f: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means (draw, row, member) and widths (draw, row, member) of either mixture."""
    if "bias" in draw:
        return -draw["bias"][:, None] + draw["slope"][:, None] * np.nan_to_num(f), draw["sigma"][:, None]
    wide = np.exp(draw["scale_slope"] @ width_covariates(f).T)
    return np.nan_to_num(f)[None], wide[:, :, None] * draw["sigma"][:, None]


def width_covariates(f: np.ndarray) -> np.ndarray:
    """Mean and log spread of the members that a row has, standardised, (row, 2)."""
    spread = np.nanstd(f, axis=1, ddof=1)
    x = np.column_stack([np.nanmean(f, axis=1), np.log(spread + 0.25 * np.median(spread))])
    return (x - x.mean(axis=0)) / x.std(axis=0)


def mixture_table(truth: Truth, seed: int, rng: np.random.Generator) -> pd.DataFrame:
    """Draw members that correlate, a tenth of the first one missing, and observations from the mixture of those present."""
    shape = n, _ = ROWS[seed % len(ROWS)], len(truth["weight"])
    f = np.sqrt(0.7) * rng.standard_normal((n, 1)) + np.sqrt(0.3) * rng.standard_normal(shape)
    present = np.ones(shape, dtype=bool)
    present[:, 0] = rng.random(n) > 0.1
    f = np.where(present, f, np.nan)
    share = np.where(present, truth["weight"], 0.0).cumsum(axis=1)
    k = (rng.random((n, 1)) * share[:, -1:] > share).sum(axis=1)
    mean, sd = (np.broadcast_to(a, (1, *shape))[0, np.arange(n), k]
                for a in kernels({name: value[None] for name, value in truth.items()}, f))  # fmt: skip
    return _frame(f, mean + sd * rng.standard_normal(n))


def mixture_loglik(draw: Truth, frame: pd.DataFrame) -> np.ndarray:
    """Log likelihood (draw) of a table."""
    f = frame.filter(like="m").to_numpy()
    share = np.where(np.isfinite(f), draw["weight"][:, None], 0.0)
    share = share / share.sum(axis=2, keepdims=True)
    density = stats.norm.pdf(frame["y"].to_numpy()[:, None], *kernels(draw, f))
    return np.log((share * density).sum(axis=2)).sum(axis=1)


# ------------------------------------------------------------------------------------------------------------------- HBM
def correlation(rng: np.random.Generator, k: int) -> np.ndarray:
    """Draw from r 1 1' + (1 - r) R0 with r ~ Beta(2, 2) and R0 ~ LKJ(4), of 2 or 3 members.

    By partial correlations (Joe 2006); of three members two have an LKJ prior again, with half more.
    """
    eta = 4.0 if k == 3 else 3.5
    r12, r13 = 2 * rng.beta(eta + 0.5, eta + 0.5, 2) - 1
    r23 = r12 * r13 + (2 * rng.beta(eta, eta) - 1) * np.sqrt((1 - r12**2) * (1 - r13**2))
    common = rng.beta(2, 2)
    return common + (1 - common) * np.array([[1, r12, r13], [r12, 1, r23], [r13, r23, 1]])[:k, :k]


def hbm_truth(rng: np.random.Generator, k: int, levels: tuple[str, ...]) -> Truth:
    """Draw from the default priors of HBM with centre 0 and scale 1, and the effects from theirs."""
    truth = {
        "truth_mean": rng.normal(0, 1), "truth_sd": abs(rng.normal(0, 1)), "bias": rng.normal(0, 0.3, k),
        "slope": rng.normal(0.7, 0.3) + 0.1 * rng.standard_t(4, k),
        "error_sd": rng.lognormal(-0.7, 0.5) * np.exp(0.1 * rng.standard_t(4, k)), "residual_corr": correlation(rng, k),
    }  # fmt: skip
    prior = {"site": (1.0, 0.5, SITES), "group": (0.5, 0.3, GROUPS)}
    for level in levels:
        truth_scale, bias_scale, size = prior[level]
        sd, bias_sd, corr = abs(rng.normal(0, truth_scale)), np.abs(rng.normal(0, bias_scale, k)), correlation(rng, k)
        truth |= {
            f"truth_{level}_sd": sd, f"slope_{level}": rng.normal(0.7, 0.4, k), f"bias_{level}_sd": bias_sd,
            f"bias_{level}_corr": corr, f"truth_{level}": rng.normal(0, sd, size),
            f"bias_{level}": bias_sd * (rng.standard_normal((size, k)) @ np.linalg.cholesky(corr).T),
        }  # fmt: skip
    return {name: np.asarray(value, dtype=float) for name, value in truth.items()}


def _member_mean(draw: Truth, y: np.ndarray, code: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Mean of y (draw, row) and of the members given y (draw, row, member); `draw` has a dimension of draws in front."""
    mean = draw["truth_mean"][:, None] + np.zeros(len(y))
    member = (draw["bias"] + draw["slope"] * draw["truth_mean"][:, None])[:, None] + np.zeros((len(y), 1))
    for level, index in code.items():
        effect = draw[f"truth_{level}"][:, index]
        mean = mean + effect
        member = member + effect[..., None] * draw[f"slope_{level}"][:, None] + draw[f"bias_{level}"][:, index]
    return mean, member + (y - mean)[..., None] * draw["slope"][:, None]


def _codes(frame: pd.DataFrame) -> dict[str, np.ndarray]:
    return {level: frame[level].str[1:].to_numpy().astype(int) for level in ("site", "group") if level in frame}


def hbm_table(truth: Truth, seed: int, rng: np.random.Generator) -> pd.DataFrame:
    """Draw 2 to 8 rows a site, a tenth of the first member missing."""
    site = _sites(rng)
    frame = pd.DataFrame({"site": [f"s{s:02d}" for s in site]})
    if "truth_group" in truth:
        frame["group"] = [f"g{s % GROUPS}" for s in site]
    one, code = {name: value[None] for name, value in truth.items()}, _codes(frame)
    mean, _ = _member_mean(one, np.zeros(len(site)), code)
    y = mean[0] + truth["truth_sd"] * rng.standard_normal(len(site))
    k = len(truth["bias"])
    error = truth["error_sd"] * (rng.standard_normal((len(site), k)) @ np.linalg.cholesky(truth["residual_corr"]).T)
    f = _member_mean(one, y, code)[1][0] + error
    f[rng.random(len(site)) < 0.1, 0] = np.nan
    return frame.join(_frame(f, y))


def hbm_loglik(draw: Truth, frame: pd.DataFrame) -> np.ndarray:
    """Log likelihood (draw) of a table given the effects."""
    y, f = frame["y"].to_numpy(), frame.filter(like="m").to_numpy()
    mean, member = _member_mean(draw, y, _codes(frame))
    total = stats.norm.logpdf(y, mean, draw["truth_sd"][:, None]).sum(axis=1)
    covariance = draw["error_sd"][:, :, None] * draw["residual_corr"] * draw["error_sd"][:, None]
    for first in (0, 1):  # the first member is there, or is missing
        columns, rows = slice(first, None), np.isfinite(f[:, 0]) == (first == 0)
        root = np.linalg.cholesky(covariance[:, columns, columns])
        z = np.linalg.solve(root, (f - member)[:, rows, columns].transpose(0, 2, 1))
        log_det = np.log(np.diagonal(root, axis1=1, axis2=2)).sum(axis=1)
        total += stats.norm.logpdf(z).sum(axis=(1, 2)) - rows.sum() * log_det
    return total


# ---------------------------------------------------------------------------------------------------- what is calibrated
@dataclass(frozen=True)
class Kind:
    """A model with a way to fit it, what it is tested with, and a prior that is wrong; "closed" draws a correction."""

    model: Any
    method: str
    truth: Callable[[np.random.Generator], Truth]
    table: Callable[[Truth, int, np.random.Generator], pd.DataFrame]
    loglik: Callable[[Truth, pd.DataFrame], np.ndarray]
    wrong: dict[str, Any]
    simulations: int = SIMULATIONS


_FIXED = {"center": 0.0, "unit": 1.0, "sigma_scale": SCALE}
_HBM = be.HBM(center=0.0, unit=1.0, site=True, group=False)
_WRONG = {"bias_prior": be.Prior("Normal", mu=0, sigma=0.06)}  # a fifth of the models' .3
KINDS = {
    "correction": Kind(be.BMA(bias_covariates=("lon",), scale=(), **_FIXED), "closed", correction_truth,
                       correction_table, correction_loglik, {"gain_prior": be.Prior("Normal", mu=0.7, sigma=0.1)}, 1000),
    "mixture": Kind(be.BMA(bias="none", **_FIXED), "auto", mixture_truth, mixture_table, mixture_loglik,
                    {"scale_slope_prior": be.Prior("Normal", mu=0, sigma=0.06)}, 1000),
    "joint": Kind(be.BMA(correction="joint", group=False, site=False, **_FIXED), "auto", joint_truth, mixture_table,
                  mixture_loglik, _WRONG),
    "hbm": Kind(_HBM, "nuts", lambda rng: hbm_truth(rng, 2, ("site",)), hbm_table, hbm_loglik, _WRONG),
    "hbm_group": Kind(replace(_HBM, group=True), "nuts", lambda rng: hbm_truth(rng, 3, ("group", "site")), hbm_table,
                      hbm_loglik, _WRONG),
}  # fmt: skip


def quantities(draw: Truth, loglik: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Name every scalar of the draws: of an effect its first site or group alone, of a correlation matrix its triangle."""
    for name, value in draw.items():
        if name.endswith("_corr"):
            yield from (
                (f"{name}[{i + 1},{j + 1}]", value[:, i, j]) for i, j in zip(*np.triu_indices(value.shape[1], 1))
            )
        elif name.startswith("truth_") and value.ndim == 2:
            yield f"{name}[1]", value[:, 0]
        elif value.ndim == 3:
            yield f"{name}[1,1]", value[:, 0, 0]
        elif value.ndim == 2:
            yield from ((f"{name}[{k + 1}]", value[:, k]) for k in range(value.shape[1]))
        else:
            yield name, value
    yield "log_likelihood", loglik


def ensemble_of(frame: pd.DataFrame) -> be.Ensemble:
    """The table with those labels and the covariate that it has."""
    given: dict[str, Any] = {level: level for level in ("site", "group") if level in frame}
    given |= {"lon": "lon"} if "lon" in frame else {}
    return be.Ensemble.from_frame(frame, members=list(frame.filter(regex="^m")), observation="y", **given)


def fitted(model: Any, method: str, ensemble: be.Ensemble, draws: int, seed: int) -> tuple[xr.Dataset, str, float]:
    """Posterior of two chains, the method that made it, and how many independent draws it is worth."""
    if method == "closed":  # the correction's own draws, which are independent
        empty = xr.Dataset(coords={"chain": np.arange(2), "draw": np.arange(draws)})
        model = model.resolve(ensemble)
        return model.complete(empty, model.prepare(ensemble), np.random.default_rng(seed)), method, 2.0 * draws
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        tree = be.fit(model, ensemble, method=method, draws=draws, tune=300, chains=2, random_seed=seed,
                      progressbar=False, log_likelihood=False)  # fmt: skip
    posterior, made = tree["posterior"].to_dataset(), str(tree.attrs["method"])
    return posterior, made, _ess(posterior) if made == "nuts" else float(tree.attrs["importance_ess"])


def simulate(name: str, seed: int, *, wrong: bool = False, draws: int = DRAWS) -> dict[str, Any]:
    """Fit one simulation and rank its truth among 99 draws.

    A fit whose quantities have fewer than 99 independent draws is made again with four times as many, once.
    """
    kind, begin = KINDS[name], time.perf_counter()
    rng = np.random.default_rng([seed, list(KINDS).index(name)])
    truth = kind.truth(rng)
    frame = kind.table(truth, seed, rng)
    model = replace(kind.model, **kind.wrong) if wrong else kind.model
    posterior, method, ess = fitted(model, kind.method, ensemble_of(frame), draws, seed)
    posterior = posterior[list(truth)]
    if ess < RANKS - 1 and draws == DRAWS:
        return simulate(name, seed, wrong=wrong, draws=4 * DRAWS)
    every = np.linspace(0, 2 * draws - 1, RANKS - 1).round().astype(int)
    drawn = {n: v.stack(sample=("chain", "draw")).transpose("sample", ...).values[every] for n, v in posterior.items()}
    true = {n: v[None] for n, v in truth.items()}
    ranks = {
        quantity: int((values < value[0]).sum())
        for (quantity, values), (_, value) in zip(
            quantities(drawn, kind.loglik(drawn, frame)), quantities(true, kind.loglik(true, frame)), strict=True
        )
    }
    return {"kind": name, "wrong": wrong, "seed": seed, "ranks": ranks, "method": method, "draws": draws,
            "ess": round(ess), "seconds": round(time.perf_counter() - begin, 2)}  # fmt: skip


def _ess(posterior: xr.Dataset) -> float:
    """Least bulk effective sample size of the parameters, the diagonals of correlation matrices aside."""
    ess = az.ess(posterior[[name for name in posterior if not str(name).endswith("_corr")]], method="bulk")
    return min(float(values.min()) for values in ess.values())


# ------------------------------------------------------------------------------------------------------- many simulations
@cache
def code_digest() -> str:
    """Digest of the library's source and of this file."""
    files = [*Path(be.__file__).parent.rglob("*.py"), *Path(be.models.__file__).parent.glob("*.py"), Path(__file__)]
    return sha256(b"".join(file.read_bytes() for file in sorted(files))).hexdigest()[:16]


def run(todo: list[tuple[str, bool, int]], work: Path | None = None) -> list[dict[str, Any]]:
    """Make the simulations (kind, wrong, seed) that the work file does not have; it is written whole after each.

    Those that another state of the code has made are not taken up.
    """
    records = {}
    if work and work.exists():
        found = [r for r in map(json.loads, work.read_text().splitlines()) if r["code"] == code_digest()]
        records = {(r["kind"], r["wrong"], r["seed"]): r for r in found}
    for one in track([one for one in todo if one not in records], "simulations", console=Console(stderr=True)):
        name, wrong, seed = one
        records[one] = simulate(name, seed, wrong=wrong) | {"code": code_digest()}
        if work:
            with write_atomically(work) as path:
                path.write_text("".join(json.dumps(r) + "\n" for r in records.values()))
    return [records[one] for one in todo]


def ranks_of(records: list[dict[str, Any]], name: str, wrong: bool = False) -> dict[str, list[int]]:
    """Ranks of each quantity over the simulations of one kind, in their order."""
    own = [r["ranks"] for r in records if (r["kind"], r["wrong"]) == (name, wrong)]
    return {quantity: [ranks[quantity] for ranks in own] for quantity in own[0]}


def p_values(ranks: dict[str, list[int]]) -> dict[str, float]:
    """p-value of every quantity."""
    return {quantity: p_value(np.array(values)) for quantity, values in ranks.items()}


def passes(*kinds: dict[str, float]) -> bool:
    """Whether no p-value is below FAMILY over the number of all."""
    values = [value for p in kinds for value in p.values()]
    return min(values) >= FAMILY / len(values)


def summary(records: list[dict[str, Any]], name: str, wrong: bool) -> dict[str, Any]:
    """Ranks and p-values of one kind, and how its fits went."""
    own, ranks = [r for r in records if (r["kind"], r["wrong"]) == (name, wrong)], ranks_of(records, name, wrong)
    p = p_values(ranks)
    return {
        "simulations": len(own), "seeds": [own[0]["seed"], own[-1]["seed"]],
        "laplace": sum(r["method"] == "laplace" for r in own), "made_again": sum(r["draws"] > DRAWS for r in own),
        "ess_below_99": sum(r["ess"] < RANKS - 1 for r in own), "seconds": round(sum(r["seconds"] for r in own)),
        "pointwise_tail": band(len(own))[2], "passes": passes(p), "outside_95": [q for q, value in p.items() if value <= 0.05],
        "p": {q: float(f"{value:.3g}") for q, value in p.items()}, "ranks": ranks,
    }  # fmt: skip


def main(
    share: float = 1.0,
    twins: int = TWINS,
    kinds: Sequence[str] = tuple(KINDS),
    work: Path = WORK,
    result: Path = RESULT,
) -> None:
    """Run the long form of some kinds and write its result; what is there of other kinds stays."""
    work.parent.mkdir(exist_ok=True)
    sizes = {(name, wrong): twins if wrong else round(share * KINDS[name].simulations)
             for wrong in (False, True) for name in kinds}  # fmt: skip
    records = run([(*case, seed) for case, size in sizes.items() for seed in range(size)], work)
    before = json.loads(result.read_text()) if result.exists() else {}
    made = {
        "versions": {name: version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "code": code_digest(),
    }
    out = {"level": 0.95, "family": FAMILY, "ranks": RANKS}
    for which, wrong in (("model", False), ("twin", True)):
        new = {name: summary(records, name, wrong) | made for name in kinds}
        known = before.get(which, {}) | new
        out[which] = {name: known[name] for name in KINDS if name in known}
    text = re.sub(r"\[[\d\s,]*\]", lambda numbers: re.sub(r"\s+", " ", numbers[0]), json.dumps(out, indent=1))
    with write_atomically(result) as path:
        path.write_text(text + "\n")
    work.unlink()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--share", type=float, default=1.0, help="of each kind's simulations")
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--twins", type=int, default=TWINS, help="simulations of each kind with a wrong prior")
    parser.add_argument(
        "--work", type=Path, default=WORK, help="where finished simulations are kept; remove it to begin anew"
    )
    parser.add_argument("--result", type=Path, default=RESULT)
    main(**vars(parser.parse_args()))
