"""Folds of sites by their places: as far from the rest as a map is from its stations, or in blocks; and buffers.

References
----------
Linnenbrink, Milà, Ludwig & Meyer (2024), Geosci. Model Dev. 17, 5897, doi:10.5194/gmd-17-5897-2024: k-fold nearest-neighbour
distance matching (kNNDM). Milà et al. (2022), Methods Ecol. Evol. 13, 1304: the idea, one site left out at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bayesens.ensemble.places import Places

__all__ = ["Matched", "block_folds", "matched_folds", "outside_buffer", "spread_like_the_map"]

Array = NDArray[np.float64]
Index = NDArray[np.int64]
ALIKE = 0.05  # p of the Kolmogorov-Smirnov test from which the stations count as spread like the map
CANDIDATES, WITH_K_MEANS = 100, 40  # numbers of clusters tried, denser among small ones
LARGEST = 0.5  # share of the sites that one fold may hold
MOST_FOR_HIERARCHY = 5000  # sites; the distances of all pairs of them take 100 MB
MOST_K_MEANS = 500  # clusters of more sites than these


@dataclass(frozen=True, eq=False)
class Matched:
    """Folds of sites whose distances match those of the map.

    Attributes
    ----------
    fold : numpy.ndarray (site), int
    clusters : int
        Of sites, which were merged into the folds.
    wasserstein : float
        Of held-out-to-training and map-to-station distances, in the units of the latter.
    """

    fold: Index
    clusters: int
    wasserstein: float


def spread_like_the_map(sites: Places, map_distance: Array) -> float:
    """Return the p-value of the test that stations are as far from each other as the map is from them.

    One-sided Kolmogorov-Smirnov test of the distances of stations to the nearest other one against those of the cells to
    the nearest station; small where stations are nearer to each other: they are clustered. At 0.05 and above folds at
    random represent the map.

    Parameters
    ----------
    sites : Places
    map_distance : numpy.ndarray (cell)

    Examples
    --------
    >>> sites = Places(("x", "y"), np.array([[0.0, 0.0], [3.0, 0.0], [0.0, 3.0], [3.0, 3.0]]))
    >>> spread_like_the_map(sites, np.array([1.0, 2.0, 1.5])), round(spread_like_the_map(sites, np.full(50, 9.0)), 5)
    (1.0, 0.0)
    """
    from scipy.stats import ks_2samp

    return float(ks_2samp(sites.to_nearest_other(), map_distance, alternative="greater").pvalue)


def matched_folds(sites: Places, map_distance: Array, *, folds: int, random_seed: int | None = None) -> Matched:
    """Merge clusters of sites into folds, and choose the number of clusters whose distances match those of the map.

    For each number of clusters (a hierarchy by Ward's criterion; beyond 5,000 sites k-means): clusters that hold a fold's share
    of the sites are folds of their own; the others, sorted along the first principal component of the sites' places, are
    dealt to the folds that are left, one after the other. The candidate counts whose nearest-neighbour distances from held-out
    to training sites have the smallest Wasserstein-1 distance to those from the map to its stations. No fold holds more than
    half of the sites. Every site counts once, however many rows it has.

    Parameters
    ----------
    sites : Places
        Of different places at least as many as folds.
    map_distance : numpy.ndarray (cell)
        From each cell to the nearest station.
    folds : int
    random_seed : int, optional
        Of k-means.

    Returns
    -------
    Matched

    Examples
    --------
    Pairs of stations, and a map far away from them: no pair is torn.

    >>> sites = Places(("x", "y"), np.array([[0.0, 0.0], [1.0, 0.0], [50.0, 0.0], [51.0, 0.0], [90.0, 0.0], [91.0, 0.0]]))
    >>> matched_folds(sites, np.full(9, 45.0), folds=3).fold.tolist()
    [0, 0, 1, 1, 2, 2]
    """
    from scipy.stats import wasserstein_distance

    axis, numbers = _first_component(sites.points), _numbers(folds, sites)
    largest = max(int(LARGEST * len(sites)), -(-len(sites) // folds))
    best: Matched | None = None
    for number, cluster in zip(numbers, _clusters(sites, numbers, random_seed), strict=True):
        fold = _merged(cluster, axis, folds)
        if np.bincount(fold).max() > largest:
            continue
        found = float(wasserstein_distance(sites.to_nearest_of_other_folds(fold), map_distance))
        if best is None or found < best.wasserstein:
            best = Matched(fold, number, found)
    assert best is not None  # the last candidate deals sites one by one
    return best


def block_folds(sites: Places, *, folds: int, random_seed: int | None = None) -> Index:
    """Cluster sites into blocks, by k-means of their places: each block is a fold, numbered along the first component.

    Blocks may hold different numbers of sites.

    Parameters
    ----------
    sites : Places
    folds : int
    random_seed : int, optional
        Of the starts of k-means. None: one choice, always the same.

    Examples
    --------
    >>> block_folds(Places(("x", "y"), np.array([[0.0, 0.0], [9.0, 9.0], [1.0, 0.0], [9.0, 8.0]])), folds=2).tolist()
    [0, 1, 0, 1]
    """
    return _in_order(_k_means(sites.points, folds, random_seed, starts=10), _first_component(sites.points))


def outside_buffer(sites: Places, held: NDArray[np.bool_], buffer: float) -> NDArray[np.bool_]:
    """Return the sites that are not held out and not nearer than a distance to any that is.

    Parameters
    ----------
    sites : Places
    held : numpy.ndarray (site), bool
    buffer : float
        km on the sphere, else in the units of the coordinates. A site at this very distance is outside.

    Examples
    --------
    >>> sites = Places(("x", "y"), np.array([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0]]))
    >>> outside_buffer(sites, np.array([True, False, False]), 2.0).tolist()
    [False, False, True]
    """
    return ~held & (sites.to_nearest(sites.at(held)) >= buffer)


# Inside --------------------------------------------------------------------------------------------------------------


def _numbers(folds: int, sites: Places) -> list[int]:
    """Numbers of clusters that are tried, and last every site by itself."""
    n, most, tried = len(sites), len(sites) - 2, CANDIDATES
    if n > MOST_FOR_HIERARCHY:  # k-means finds no more clusters than places
        most, tried = min(MOST_K_MEANS, len(np.unique(sites.values, axis=0))), WITH_K_MEANS
    grid = np.rint(np.exp(np.linspace(np.log(folds), np.log(max(most, folds)), tried)))
    return [*np.unique(grid[grid < n]).astype(int).tolist(), n]


def _clusters(sites: Places, numbers: list[int], random_seed: int | None) -> Iterator[Index]:
    """The cluster (site) of each site, for each number of clusters; the last one is every site by itself."""
    *fewer, _ = numbers  # cut_tree mistakes as many clusters as sites, where it is asked for others too
    if len(sites) <= MOST_FOR_HIERARCHY:
        from scipy.cluster.hierarchy import cut_tree, linkage

        yield from cut_tree(linkage(sites.points, "ward"), fewer).T if fewer else ()
    else:
        yield from (_k_means(sites.points, number, random_seed, starts=1) for number in fewer)
    yield np.arange(len(sites))


def _merged(cluster: Index, axis: Array, folds: int) -> Index:
    """Large clusters are folds; the rest, along the axis, are dealt in turn to the folds that are left."""
    cluster = _in_order(cluster, axis)
    size = np.bincount(cluster)
    large = np.flatnonzero(size >= len(cluster) / folds)
    rest = np.setdiff1d(np.arange(len(size)), large)
    of_cluster = np.empty(len(size), dtype=np.int64)
    of_cluster[large] = np.arange(len(large))
    of_cluster[rest] = len(large) + np.arange(len(rest)) % max(folds - len(large), 1)
    return of_cluster[cluster]


def _in_order(cluster: Index, axis: Array) -> Index:
    """Number clusters by their mean along an axis; those of one mean by their first site."""
    _, first, code = np.unique(cluster, return_index=True, return_inverse=True)
    mean = np.bincount(code, axis) / np.bincount(code)
    rank = np.empty(len(mean), dtype=np.int64)
    rank[np.lexsort((first, mean))] = np.arange(len(mean))
    return rank[code]


def _first_component(points: Array) -> Array:
    """Return the places along the direction in which they vary most; its largest loading is positive."""
    centred = points - points.mean(axis=0)
    loading = np.linalg.svd(centred, full_matrices=False)[2][0]
    out: Array = centred @ (loading * np.sign(loading[np.argmax(np.abs(loading))]))
    return out


def _k_means(points: Array, number: int, random_seed: int | None, *, starts: int) -> Index:
    from sklearn.cluster import KMeans

    seed = 0 if random_seed is None else int(np.random.SeedSequence(random_seed).generate_state(1)[0])
    # To a fixed scale: k-means stops by changes that are small beside 1.
    scaled = (points - points.mean(axis=0)) / np.ptp(points, axis=0).max()
    return np.asarray(KMeans(number, n_init=starts, random_state=seed).fit_predict(scaled), dtype=np.int64)
