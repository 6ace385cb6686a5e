"""A proposal that follows the draws of chains: a mixture of t distributions that is fitted to them.

Chains find where the probability lies, also in lobes and along ridges that no approximation around an optimum sees, and take
long to tell how much of it each part has: where members hardly weigh anything, their weights and scales are known by the prior
alone, and chains cross from there to the rest of the posterior slowly. A mixture covers wherever the chains have been, and
weights by the density say what each part is worth.
"""

from __future__ import annotations

import warnings

import numpy as np
from scipy import linalg, stats

from bayesens.inference.log_density import Target
from bayesens.inference.sampling.laplace import Laplace, weighted
from bayesens.threads import one_openmp_thread

__all__ = ["sample_around_chains"]

PARTS = 8  # of the mixture; 4 and 16 are worth about as much
FREEDOM = 8.0  # degrees of freedom of the parts: tails that are longer than those of the draws keep weights bounded
BATCHES = 5  # of proposals at most
PASSES = 100  # of the fit, which need not end at the optimum: it is a proposal


class _Parts:
    """The mixture, in coordinates in which the draws have a covariance of one."""

    def __init__(self, x: np.ndarray, rng: np.random.Generator) -> None:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.mixture import BayesianGaussianMixture

        self.rng, self.center = rng, x.mean(axis=0)
        self.root = linalg.cholesky(np.cov(x.T).reshape(x.shape[1], -1), lower=True)
        z = linalg.solve_triangular(self.root, (x - self.center).T, lower=True).T
        size = z.shape[1]
        mixture = BayesianGaussianMixture(
            n_components=PARTS, covariance_prior=PARTS ** (-2.0 / size) * np.eye(size), degrees_of_freedom_prior=2.0 * size,
            weight_concentration_prior_type="dirichlet_distribution", max_iter=PASSES, random_state=int(rng.integers(2**31)),
        )  # fmt: skip
        with one_openmp_thread(), warnings.catch_warnings():  # sums of one thread are the same each time
            warnings.simplefilter("ignore", ConvergenceWarning)
            mixture.fit(z)
        self.share, normals = mixture.weights_, zip(mixture.means_, mixture.covariances_, strict=True)
        self.parts = [stats.multivariate_t(mean, covariance, df=FREEDOM) for mean, covariance in normals]

    def sample(self, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Draws, of which each part has its number, and their log density up to a constant."""
        counts = np.diff(np.round(np.cumsum(self.share) * size).astype(int), prepend=0)
        used = [(int(count), part) for count, part in zip(counts, self.parts, strict=True) if count]
        z = np.concatenate([part.rvs(count, random_state=self.rng).reshape(count, -1) for count, part in used])
        each = [np.log(count / size) + np.atleast_1d(part.logpdf(z)) for count, part in used]
        return self.center + z @ self.root.T, np.asarray(np.logaddexp.reduce(each, axis=0))


def sample_around_chains(
    target: Target, x: np.ndarray, *, ess: float, pareto_k: float, rng: np.random.Generator
) -> Laplace | None:
    """Sample a mixture around the draws of chains, and weight its draws by the density, smoothed by a Pareto tail.

    Parameters
    ----------
    target : Target
    x : array (draw, parameter)
    ess, pareto_k : float
        Importance ESS, and shape of the weights' tail below which it counts, at which proposals end; there are at most 10,000.
    rng : numpy.random.Generator

    Returns
    -------
    Laplace or None
        None where draws have no covariance, as of chains that stand still.
    """
    try:
        proposal = _Parts(x, rng)
    except linalg.LinAlgError:
        return None
    return weighted(target, proposal.sample, "chains", ess=ess, pareto_k=pareto_k, batches=BATCHES)
