"""Recovery of HBM: truths drawn from its prior, data from the truths; do 90 % intervals hold them 90 % of the time?

With truths from the prior that the model states, intervals of every parameter cover at their nominal level exactly, so a
pooled coverage outside 85-95 % is a fault of the likelihood, of a Jacobian, or of the sampler. 40 simulations give about
1,000 intervals; those of one simulation hang together, so the pooled share has a standard deviation of about 1.3 %, and a
correct program leaves 85-95 % with a chance below .1 %. One variable's share below 75 % has a chance below .5 % for all.
The broken twin forgets the site level, as a likelihood that takes rows for independent would.
"""

from __future__ import annotations

import json
import platform
import sys
import warnings
from importlib.metadata import version
from pathlib import Path

import numpy as np

import bayesens as be
from bayesens import simulate

K = 3
MODEL = be.HBM(center=0.0, unit=1.0, group=False, site=True)
TWIN = be.HBM(center=0.0, unit=1.0, group=False, site=False)
VARIABLES = (
    "truth_mean",
    "truth_sd",
    "truth_site_sd",
    "bias",
    "slope",
    "slope_site",
    "error_sd",
    "bias_site_sd",
    "residual_corr",
)
RESULT = Path(__file__).with_name("recovery.json")


def correlation(rng: np.random.Generator) -> np.ndarray:
    """Draw from the prior of a correlation matrix: a common factor and an LKJ(4) rest, by the C-vine of LKJ (2009)."""
    rest = np.eye(K)
    partial = np.zeros((K, K))
    for i in range(K - 1):
        beta = 4.0 + (K - 2 - i) / 2.0
        for j in range(i + 1, K):
            partial[i, j] = value = 2.0 * rng.beta(beta, beta) - 1.0
            for m in range(i - 1, -1, -1):
                value = (
                    value * np.sqrt((1 - partial[m, i] ** 2) * (1 - partial[m, j] ** 2)) + partial[m, i] * partial[m, j]
                )
            rest[i, j] = rest[j, i] = value
    common = rng.beta(2.0, 2.0)
    return common + (1.0 - common) * rest


def draw_truth(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Draw the parameters from the default priors of HBM, with centre 0 and scale 1."""
    return {
        "truth_mean": rng.normal(0, 1), "truth_sd": abs(rng.normal(0, 1)), "truth_site_sd": abs(rng.normal(0, 1)),
        "bias": rng.normal(0, 0.3, K), "slope": rng.normal(0.7, 0.3, K), "slope_site": rng.normal(0.7, 0.4, K),
        "error_sd": rng.lognormal(-0.7, 0.5, K), "bias_site_sd": np.abs(rng.normal(0, 0.5, K)),
        "residual_corr": correlation(rng), "bias_site_corr": correlation(rng),
    }  # fmt: skip


def simulated(truth: dict[str, np.ndarray], rng: np.random.Generator) -> be.Ensemble:
    """Draw a table of 25 sites with 3 to 20 rows, a tenth of the first member missing."""

    def covariance(sd: str, corr: str) -> np.ndarray:
        return truth[sd][:, None] * truth[corr] * truth[sd]

    frame = simulate.hbm(
        n_sites=25, n_groups=1, n_times=rng.integers(3, 21, size=25).tolist(), truth_mean=truth["truth_mean"],
        truth_sd=truth["truth_sd"], truth_site_sd=truth["truth_site_sd"], truth_group_sd=0.0, center=0.0, bias=truth["bias"],
        slope=truth["slope"], slope_site=truth["slope_site"], slope_group=np.zeros(K),
        error_cov=covariance("error_sd", "residual_corr"), bias_site_cov=covariance("bias_site_sd", "bias_site_corr"),
        bias_group_cov=np.zeros((K, K)), random_seed=int(rng.integers(2**31)),
    ).frame  # fmt: skip
    frame = simulate.with_missing(frame, ["m1"], 0.1, random_seed=int(rng.integers(2**31)))
    return be.Ensemble.from_frame(frame, members=[f"m{k + 1}" for k in range(K)], observation="y", site="site")


def covered(model: be.HBM, seed: int) -> dict[str, list[bool]]:
    """Fit one simulation and say which central 90 % intervals hold the truth."""
    rng = np.random.default_rng(seed)
    truth = draw_truth(rng)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        tree = be.fit(model, simulated(truth, rng), method="nuts", draws=400, tune=500, chains=2, random_seed=seed,
                      progressbar=False, log_likelihood=False)  # fmt: skip
    out = {}
    for name in VARIABLES:
        if name in tree["posterior"]:
            lower, upper = tree["posterior"][name].quantile([0.05, 0.95], ("chain", "draw")).values
            hit = (lower <= truth[name]) & (truth[name] <= upper)
            out[name] = hit[np.triu_indices(K, 1)].tolist() if np.ndim(hit) == 2 else np.ravel(hit).tolist()
    return out


def run(model: be.HBM, seeds: range) -> dict[str, float]:
    """Share of intervals that hold the truth, by variable and pooled."""
    hits: dict[str, list[bool]] = {}
    for seed in seeds:
        for name, values in covered(model, seed).items():
            hits.setdefault(name, []).extend(values)
        print(
            f"simulation {seed}: {np.mean([v for values in hits.values() for v in values]):.3f}",
            file=sys.stderr,
            flush=True,
        )
    shares = {name: float(np.mean(values)) for name, values in hits.items()}
    return shares | {"pooled": float(np.mean([v for values in hits.values() for v in values]))}


def main(simulations: int = 40) -> None:
    """Run the long form and write its result."""
    result = {
        "simulations": simulations, "seeds": [0, simulations - 1], "nominal": 0.9,
        "model": run(MODEL, range(simulations)), "twin": run(TWIN, range(10)),
        "versions": {name: version(name) for name in ("bayesens", "pymc", "pytensor", "nutpie", "numba", "numpy")},
        "python": platform.python_version(),
    }  # fmt: skip
    RESULT.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
