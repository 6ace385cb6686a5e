"""Simulated ensembles whose truth is known: a soil-moisture region, and rows drawn from either model's own density.

A bias is member minus observation everywhere, as in the models.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

REGION_MEMBER = ("rf", "mlr", "svr", "xgb")


@dataclass(frozen=True)
class Simulation:
    """A simulated table and what it was made of.

    Parameters
    ----------
    frame : DataFrame
        One row per site and time.
    truth : dict
        The true values by their names in a posterior, such as ``bias``: a number, a Series or a DataFrame labelled by
        member, group and site.

    Examples
    --------
    >>> simulated = region(n_sites=3, n_groups=1, n_times=2, random_seed=1)
    >>> simulated.frame.shape, sorted(simulated.truth)[:3]
    ((6, 11), ['bias', 'bias_group', 'bias_site'])
    """

    frame: pd.DataFrame
    truth: dict[str, Any]


def region(
    n_sites: int = 28, n_groups: int = 3, n_times: int = 60, *, error_correlation: float = 0.7, random_seed: int
) -> Simulation:
    """Simulate a soil-moisture region: stations of several networks, and four members whose errors are correlated.

    The truth has a climate by network and station, one season and an autoregressive weather that the stations share in
    part. The members see it with a bias, a slope below one, offsets by network and by station, and errors; the
    observations with a small sensor error. 5 % of ``svr`` is missing.

    Parameters
    ----------
    n_sites, n_groups, n_times : int
        Stations, networks that they are shared out to, and dates six days apart.
    error_correlation : float
        Correlation of the errors of any two members in a row, and of their offsets by network and station; in [0, 1].
    random_seed : int
        Equal seeds give equal regions.

    Returns
    -------
    Simulation
        ``frame`` has ``date, station, network, lon, lat`` [degrees], ``truth, sm`` (what is there and what the station
        says) and the members ``rf, mlr, svr, xgb`` [m3 m-3]. ``truth`` has ``center, bias, slope, bias_group,
        bias_site, error_sd, error_corr, observation_sd``: the members against what is there.

    Raises
    ------
    ValueError
        If there are fewer stations than networks, no date, or a correlation outside [0, 1].

    Examples
    --------
    >>> frame = region(random_seed=1).frame
    >>> len(frame), frame.station.nunique(), frame.network.nunique(), int(frame.svr.isna().sum())
    (1680, 28, 3, 84)
    >>> bool(frame[["sm", "rf"]].stack().between(0.02, 0.5).all())
    True
    """
    if not 1 <= n_groups <= n_sites or n_times < 1:
        raise ValueError(
            f"a region of {n_sites} stations, {n_groups} networks and {n_times} dates cannot be made; "
            "ask for at least one date and one station per network"
        )
    if not 0 <= error_correlation <= 1:
        raise ValueError(f"error_correlation is {error_correlation}; give a number from 0 to 1")
    rng = np.random.default_rng(random_seed)
    member = pd.Index(REGION_MEMBER, name="member")
    group = pd.Index([f"net{g + 1}" for g in range(n_groups)], name="network")
    site = pd.Index([f"s{s + 1:02d}" for s in range(n_sites)], name="station")
    group_of = np.repeat(np.arange(n_groups), _share_out(n_sites, n_groups))
    center, observation_sd = 0.22, 0.008
    truth = _soil_moisture(rng, center, group_of, n_groups, n_times)

    bias = np.array([0.008, -0.012, 0.020, -0.004])
    slope = np.array([0.80, 0.68, 0.74, 0.86])
    error_sd = np.array([0.026, 0.034, 0.031, 0.028])
    correlation = error_correlation + (1 - error_correlation) * np.eye(4)
    bias_group = 0.012 * _normal(rng, correlation, (n_groups,))
    bias_site = 0.016 * _normal(rng, correlation, (n_sites,))
    error = error_sd * _normal(rng, correlation, (n_sites, n_times))
    f = center + bias + slope * (truth[..., None] - center) + (bias_group[group_of] + bias_site)[:, None] + error

    date = pd.date_range("2020-01-01", periods=n_times, freq="6D")
    lonlat = _coordinates(rng, group_of, n_groups)
    frame = pd.DataFrame(
        {
            "date": np.tile(date, n_sites),
            "station": np.repeat(site, n_times),
            "network": np.repeat(group[group_of], n_times),
            "lon": np.repeat(lonlat[:, 0], n_times),
            "lat": np.repeat(lonlat[:, 1], n_times),
            "truth": truth.ravel(),
            "sm": _physical(truth + observation_sd * rng.standard_normal(truth.shape)).ravel(),
        }
        | {name: _physical(f[..., k]).ravel() for k, name in enumerate(member)}
    )
    frame = _drop(frame, ["svr"], 0.05, rng)
    frame.attrs["units"] = "m3 m-3"
    return Simulation(
        frame,
        {
            "center": center,
            "bias": pd.Series(bias, member),
            "slope": pd.Series(slope, member),
            "bias_group": pd.DataFrame(bias_group, group, member),
            "bias_site": pd.DataFrame(bias_site, site, member),
            "error_sd": pd.Series(error_sd, member),
            "error_corr": pd.DataFrame(correlation, member, member),
            "observation_sd": observation_sd,
        },
    )


def bma(
    n: int,
    *,
    weight: ArrayLike,
    bias: ArrayLike,
    slope: ArrayLike,
    sigma: ArrayLike,
    center: float = 0.0,
    member_sd: float = 1.0,
    member_correlation: float = 0.8,
    random_seed: int,
) -> pd.DataFrame:
    """Draw rows from the mixture that BMA assumes: members first, then ``y`` from the kernel of one of them.

    The kernel of member ``k`` is normal with mean ``center - bias_k + slope_k (f_k - center)`` and sd ``sigma_k``.

    Parameters
    ----------
    n : int
        Number of rows.
    weight, bias, slope : array (member)
        Weights, which must sum to one; biases [units of y]; slopes.
    sigma : float or array (member)
        Kernel sd [units of y].
    center, member_sd : float
        Mean and sd of every member [units of y].
    member_correlation : float
        Correlation of any two members' values, in [0, 1].
    random_seed : int
        Equal seeds give equal rows.

    Returns
    -------
    DataFrame
        Columns ``m1`` to ``mK`` and ``y``.

    Raises
    ------
    ValueError
        If the weights are negative or do not sum to one.

    Examples
    --------
    A kernel without spread returns its member, less the bias:

    >>> frame = bma(3, weight=[0, 1], bias=[0, 0.5], slope=[1, 1], sigma=0, random_seed=1)
    >>> (frame.m2 - frame.y).round(12).tolist()
    [0.5, 0.5, 0.5]
    """
    w = np.atleast_1d(np.asarray(weight, float))
    if (w < 0).any() or not np.isclose(w.sum(), 1):
        raise ValueError(f"weight is {w.tolist()}; give weights of at least zero that sum to one")
    rng = np.random.default_rng(random_seed)
    shared, own = rng.standard_normal((n, 1)), rng.standard_normal((n, len(w)))
    f = center + member_sd * (np.sqrt(member_correlation) * shared + np.sqrt(1 - member_correlation) * own)
    mean = center - np.asarray(bias, float) + np.asarray(slope, float) * (f - center)
    kernel = rng.choice(len(w), size=n, p=w)
    y = mean[np.arange(n), kernel] + np.broadcast_to(np.asarray(sigma, float), w.shape)[kernel] * rng.standard_normal(n)
    return pd.DataFrame(f, columns=_member_names(len(w))).assign(y=y)


def hbm(
    *,
    n_sites: int | Sequence[int],
    n_groups: int,
    n_times: int | Sequence[int],
    truth_mean: float,
    truth_sd: float,
    truth_site_sd: float,
    truth_group_sd: float,
    center: float,
    bias: ArrayLike,
    slope: ArrayLike,
    slope_site: ArrayLike,
    slope_group: ArrayLike,
    error_cov: ArrayLike,
    bias_site_cov: ArrayLike,
    bias_group_cov: ArrayLike,
    random_seed: int,
) -> Simulation:
    """Draw rows from the anchored multilevel joint Gaussian that HBM assumes.

    With ``v`` standard normal in every row, group ``g`` and site ``s``::

        y   = truth_mean + truth_group[g] + truth_site[s] + truth_sd v
        f_k = center + bias_k + slope_k (truth_mean - center) + slope_group_k truth_group[g]
              + slope_site_k truth_site[s] + slope_k truth_sd v + bias_group[g, k] + bias_site[s, k] + error_k

    Parameters
    ----------
    n_sites : int or sequence (group) of int
        All sites, shared out to the groups as evenly as can be, or the number of each group.
    n_groups : int
        Number of groups.
    n_times : int or sequence (site) of int
        Rows of every site, or of each.
    truth_mean, truth_sd, truth_site_sd, truth_group_sd, center : float
        Mean of ``y``, its sd within sites, between sites and between groups, and the common centre [units of y].
    bias, slope, slope_site, slope_group : array (member)
        Biases [units of y] and slopes of each level.
    error_cov, bias_site_cov, bias_group_cov : array (member, member)
        Covariances of the errors and of the sources' offsets by site and by group [units of y, squared]; singular
        ones, such as all zero, are allowed.
    random_seed : int
        Equal seeds give equal rows.

    Returns
    -------
    Simulation
        ``frame`` has ``site, group, time, y`` and ``m1`` to ``mK``; ``truth`` the drawn effects ``truth_group,
        truth_site, bias_group, bias_site``.

    Raises
    ------
    ValueError
        If the sequences of numbers do not have an entry per group, or per site, or a matrix is no covariance.

    Examples
    --------
    Without spread at any level there is the mean, and a member off by its bias and its slope's share of the centre:

    >>> zero = [[0.0]]
    >>> simulated = hbm(n_sites=[2, 1], n_groups=2, n_times=1, truth_mean=3, truth_sd=0, truth_site_sd=0,
    ...     truth_group_sd=0, center=2, bias=[0.25], slope=[0.5], slope_site=[1], slope_group=[1], error_cov=zero,
    ...     bias_site_cov=zero, bias_group_cov=zero, random_seed=1)
    >>> simulated.frame[["group", "site", "y", "m1"]].values.tolist()
    [['g1', 's1', 3.0, 2.75], ['g1', 's2', 3.0, 2.75], ['g2', 's3', 3.0, 2.75]]
    """
    given = np.asarray(n_sites)
    sites = _counts(given if given.ndim else _share_out(int(given), n_groups), n_groups, "n_sites", "group")
    times = _counts(n_times, int(sites.sum()), "n_times", "site")
    group_of = np.repeat(np.arange(n_groups), sites)
    row = np.repeat(np.arange(len(group_of)), times)  # the site of each row
    rng = np.random.default_rng(random_seed)
    truth_group = truth_group_sd * rng.standard_normal(n_groups)
    truth_site = truth_site_sd * rng.standard_normal(len(group_of))
    bias_group = _normal(rng, bias_group_cov, (n_groups,))
    bias_site = _normal(rng, bias_site_cov, (len(group_of),))
    anomaly = truth_sd * rng.standard_normal(len(row))
    y = truth_mean + (truth_group[group_of] + truth_site)[row] + anomaly

    slope = np.asarray(slope, float)
    level = np.multiply.outer(truth_group[group_of], slope_group) + np.multiply.outer(truth_site, slope_site)
    f = center + np.asarray(bias, float) + slope * (truth_mean - center + anomaly[:, None])
    f = f + (level + bias_group[group_of] + bias_site)[row] + _normal(rng, error_cov, (len(row),))

    group = pd.Index([f"g{g + 1}" for g in range(n_groups)], name="group")
    site = pd.Index([f"s{s + 1}" for s in range(len(group_of))], name="site")
    member = pd.Index(_member_names(len(slope)), name="member")
    time = np.arange(len(row)) - np.repeat(np.cumsum(times) - times, times)  # counted from 0 at each site
    frame = pd.DataFrame({"site": site[row], "group": group[group_of[row]], "time": time, "y": y})
    return Simulation(
        frame.join(pd.DataFrame(f, columns=member.tolist())),
        {
            "truth_group": pd.Series(truth_group, group),
            "truth_site": pd.Series(truth_site, site),
            "bias_group": pd.DataFrame(bias_group, group, member),
            "bias_site": pd.DataFrame(bias_site, site, member),
        },
    )


def with_missing(frame: pd.DataFrame, columns: Sequence[str], share: float, random_seed: int) -> pd.DataFrame:
    """Return the table with a share of some columns missing completely at random, each column on its own.

    Parameters
    ----------
    frame : DataFrame
        Any table; it is left as it is.
    columns : sequence of str
        Columns that lose values.
    share : float
        Share of the rows, from 0 to 1; the number is rounded, not drawn.
    random_seed : int
        Equal seeds give equal gaps.

    Returns
    -------
    DataFrame

    Raises
    ------
    ValueError
        If the share is not between 0 and 1.

    Examples
    --------
    >>> frame = pd.DataFrame({"a": [1.0, 2, 3, 4], "b": [1.0, 2, 3, 4]})
    >>> with_missing(frame, ["a"], 0.5, random_seed=1).isna().sum().to_dict()
    {'a': 2, 'b': 0}
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share is {share}; give the share of rows that lose their value, from 0 to 1")
    return _drop(frame, columns, share, np.random.default_rng(random_seed))


def _drop(frame: pd.DataFrame, columns: Sequence[str], share: float, rng: np.random.Generator) -> pd.DataFrame:
    """Set the share of each column to missing."""
    out = frame.copy()
    for name in columns:
        gone = rng.choice(len(out), size=round(share * len(out)), replace=False)
        out[name] = out[name].where(~np.isin(np.arange(len(out)), gone))
    return out


def _normal(rng: np.random.Generator, cov: ArrayLike, shape: tuple[int, ...]) -> np.ndarray:
    """Normal vectors (*shape, member), by the symmetric root of a covariance, which may be singular.

    It is the one root that is unique: eigenvectors of equal eigenvalues, and the signs of all, hang on the processor.
    """
    cov = np.asarray(cov, float)
    value, vector = np.linalg.eigh(cov)
    if not np.allclose(cov, cov.T) or value[0] < -1e-8 * abs(value[-1]):
        raise ValueError(f"{cov.tolist()} is no covariance; wanted a symmetric matrix without negative eigenvalues")
    rounding = len(value) * np.finfo(float).eps * value[-1]  # its root would be a million times as large
    root = (vector * np.sqrt(np.where(value < rounding, 0.0, value))) @ vector.T
    return rng.standard_normal((*shape, len(value))) @ root


def _soil_moisture(
    rng: np.random.Generator, center: float, group_of: np.ndarray, n_groups: int, n_times: int
) -> np.ndarray:
    """True soil moisture (site, time) [m3 m-3]: climates, one season, and weather that stations share in part."""
    n_sites = len(group_of)
    climate = 0.022 * rng.standard_normal(n_groups)[group_of] + 0.028 * rng.standard_normal(n_sites)
    season = 0.050 * np.cos(2 * np.pi * (np.arange(n_times) * 6 - 210) / 365.25)  # wettest at the end of July
    weather = np.sqrt(0.6) * _ar1(rng, 1, n_times) + np.sqrt(0.4) * _ar1(rng, n_sites, n_times)
    return _physical(center + climate[:, None] + season + 0.034 * weather)


def _ar1(rng: np.random.Generator, n: int, n_times: int, memory: float = 0.75) -> np.ndarray:
    """Stationary autoregressive series (n, time) of unit variance; ``memory`` is the correlation over six days."""
    out = rng.standard_normal((n, n_times))
    for t in range(1, n_times):
        out[:, t] = memory * out[:, t - 1] + np.sqrt(1 - memory**2) * out[:, t]
    return out


def _coordinates(rng: np.random.Generator, group_of: np.ndarray, n_groups: int) -> np.ndarray:
    """Longitude and latitude (site, 2) [degrees]: networks a degree apart, their stations scattered around them."""
    across = np.arange(n_groups) - (n_groups - 1) / 2
    middle = np.column_stack([115 + across, 40 + 0.5 * (-1.0) ** np.arange(n_groups)])
    return np.round(middle[group_of] + 0.18 * rng.standard_normal((len(group_of), 2)), 4)


def _physical(moisture: np.ndarray) -> np.ndarray:
    """Soil moisture between air-dry and saturated [m3 m-3]."""
    return np.clip(moisture, 0.02, 0.5)


def _share_out(n: int, parts: int) -> np.ndarray:
    """Share ``n`` out to ``parts`` as evenly as can be, the first ones getting one more."""
    return n // parts + (np.arange(parts) < n % parts)


def _counts(n: ArrayLike, length: int, name: str, unit: str) -> np.ndarray:
    """One count per group or site, from one for all or one for each."""
    n = np.asarray(n)
    if n.ndim and len(n) != length:
        raise ValueError(f"{name} has {len(n)} entries for {length} {unit}s; give one number, or one for each {unit}")
    return np.broadcast_to(n, (length,))


def _member_names(k: int) -> list[str]:
    return [f"m{i + 1}" for i in range(k)]
