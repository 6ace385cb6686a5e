"""Simulated worlds in which one thing alone decides which combination of members is right, and that thing is known.

A comparison of models says what a change is worth; in these worlds the answer is known beforehand. Two members or three
predict y at stations and times, row by row:

    mixture       f_k = 2 c + e_k, and y = f_z + error with z drawn anew in every row: one member is right, the other is
                  not, and none can tell which. p(y | f) is a mixture of kernels, and a normal density around any average
                  of the members is too wide where they agree and too narrow where they do not.
    dependence    f_k = y + loading_k u + small error: the members share an error u that each has in another size, so that
                  differences of members tell it and weights below zero remove it.
    offsets       f_k = y + bias_s + error: all members miss what is peculiar to a station, by the same amount at all times.
    exchangeable  f_k = E(y | x_k) with signals x_k of their own, equally weak: nothing sets the members apart.

Why the exchangeable members must be weak: if they are informative and their errors independent given y, an average has a
smaller error than each of them, and to average or to mix does matter; if they share their errors, to take these for
independent does. Where both are to be without harm, each member alone must say little.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from bayesens.messages import check_known
from bayesens.simulate import Simulation

__all__ = ["WORLDS", "World", "world"]

Rows = tuple[np.ndarray, np.ndarray]  # y (site, time), members (site, time, member)
MIXTURE_SD = 0.1  # of y about the member that is right
LOADING, OWN_SD = np.array([1.0, 1.2, 2.0]), 0.15  # of the shared error, and what each member adds
OFFSET_SD, NOISE_SD = 1.0, 0.5
SIGNAL = 0.08  # correlation of each exchangeable member with y
SD = 1.5  # of y


@dataclass(frozen=True)
class World:
    """What is right in a world, and where to look for it.

    Parameters
    ----------
    effects : tuple of str
        Effects of the ladder that change what matters here; none where nothing does. Two where the same change, random
        effects of stations, is made to two families of models.
    estimand : str
        What is new in the rows to score: effects of stations only show at known ones.
    members : int
        Number of members.

    Examples
    --------
    >>> WORLDS["dependence"].effects
    ('dependence',)
    """

    effects: tuple[str, ...]
    estimand: str
    members: int


WORLDS = {
    "mixture": World(("mixture",), "time", 2),
    "dependence": World(("dependence",), "site", 3),
    "offsets": World(("effects", "levels"), "time", 3),
    "exchangeable": World((), "time", 3),
}


def world(
    name: str, *, sites: int = 24, times: int = 30, offset: pd.DataFrame | None = None, random_seed: int
) -> Simulation:
    """Draw rows of a world.

    Parameters
    ----------
    name : {"mixture", "dependence", "offsets", "exchangeable"}
        See the head of this file.
    sites, times : int
        Stations, and rows of each.
    offset : DataFrame (site, member), optional
        ``truth["bias_site"]`` of rows drawn before: the same stations at new times, or some of them. None draws stations.
    random_seed : int
        Equal seeds give equal rows.

    Returns
    -------
    Simulation
        ``frame`` has ``site, time, y`` and ``m1`` to ``mK``. ``truth`` has ``bias_site``, zero but in the world of offsets,
        and the law of y given members (less their offsets): ``weight`` and ``sigma`` by member of the mixture, elsewhere
        ``linear_weight`` by member and ``sd`` of a normal density, for y and members of mean zero; with ``error_corr``,
        the correlation of the members' errors apart from offsets, where errors are not a mixture.

    Raises
    ------
    KeyError
        An unknown world.
    ValueError
        No station or no time, or offsets of other members.

    Examples
    --------
    >>> simulated = world("offsets", sites=2, times=50, random_seed=1)
    >>> simulated.frame.columns.tolist()
    ['site', 'time', 'y', 'm1', 'm2', 'm3']
    >>> bias = (simulated.frame["m1"] - simulated.frame["y"]).groupby(simulated.frame["site"]).mean()
    >>> bool((bias - simulated.truth["bias_site"]["m1"]).abs().max() < 0.3)  # four standard errors
    True
    """
    check_known([name], list(WORLDS), kind="world", where="bayesens.worlds")
    if sites < 1 or times < 1:
        raise ValueError(f"a world of {sites} stations and {times} times has no rows; ask for at least one of each")
    rng = np.random.default_rng(random_seed)
    member = pd.Index([f"m{k + 1}" for k in range(WORLDS[name].members)], name="member")
    if offset is None:
        size = OFFSET_SD if name == "offsets" else 0.0
        site = pd.Index([f"s{s + 1:02d}" for s in range(sites)], name="site")
        offset = pd.DataFrame(np.repeat(size * rng.standard_normal((sites, 1)), len(member), 1), site, member)
    elif list(offset.columns) != list(member):
        raise ValueError(f"offset has the members {list(offset.columns)}, and the world {name!r} {list(member)}; "
                         "give truth['bias_site'] of rows of the same world")  # fmt: skip
    y, f = _ROWS[name](rng, (len(offset), times))
    f = f + offset.to_numpy()[:, None]
    frame = pd.DataFrame({
        "site": np.repeat(offset.index.to_numpy(), times), "time": np.tile(np.arange(times), len(offset)), "y": y.ravel(),
    } | {name: f[..., k].ravel() for k, name in enumerate(member)})  # fmt: skip
    return Simulation(frame, {"bias_site": offset} | _law(name, member))


# ---------------------------------------------------------------------------------------------------------- rows of worlds
def _mixture(rng: np.random.Generator, shape: tuple[int, int]) -> Rows:
    """Either member in turn: both are as good, and neither is right all the time."""
    f = 2.0 * rng.standard_normal((*shape, 1)) + rng.standard_normal((*shape, 2))
    right = rng.integers(2, size=shape)[..., None]
    return np.take_along_axis(f, right, -1)[..., 0] + MIXTURE_SD * rng.standard_normal(shape), f


def _joint(name: str) -> Callable[[np.random.Generator, tuple[int, int]], Rows]:
    def rows(rng: np.random.Generator, shape: tuple[int, int]) -> Rows:
        y = SD * rng.standard_normal(shape)
        slope, error = _errors(name)
        root = np.linalg.cholesky(error)
        return y, slope * y[..., None] + rng.standard_normal((*shape, len(root))) @ root.T

    return rows


def _errors(name: str) -> tuple[float, np.ndarray]:
    """Slope of the members on y, and the covariance of their errors given y."""
    one = np.eye(3)
    if name == "dependence":
        return 1.0, np.outer(LOADING, LOADING) + OWN_SD**2 * one
    if name == "offsets":
        return 1.0, NOISE_SD**2 * one
    return SIGNAL**2, SIGNAL**2 * (1.0 - SIGNAL**2) * SD**2 * one


_ROWS = {"mixture": _mixture} | {name: _joint(name) for name in ("dependence", "offsets", "exchangeable")}


def _law(name: str, member: pd.Index) -> dict[str, Any]:
    """Law of y given the members, less their offsets."""
    if name == "mixture":
        return {"weight": pd.Series(0.5, member), "sigma": pd.Series(MIXTURE_SD, member)}
    slope, error = _errors(name)
    both = SD**2 * slope * np.ones(len(member))
    members = SD**2 * slope**2 + error
    linear = np.linalg.solve(members, both)
    spread = SD**2 * (1.0 - slope) ** 2 + error  # of f - y
    size = np.sqrt(np.diagonal(spread))
    return {
        "linear_weight": pd.Series(linear, member),
        "sd": float(np.sqrt(SD**2 - linear @ both)),
        "error_corr": pd.DataFrame(spread / np.outer(size, size), member, member),
    }
