"""Errors of three independent sources without knowing the truth: extended triple collocation.

References
----------
McColl et al. (2014), Geophys. Res. Lett. 41, 6229.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bayesens.comparison.bootstrap import interval as central_interval
from bayesens.comparison.bootstrap import pigeonhole, time_blocks
from bayesens.ensemble.checks import check_columns
from bayesens.ensemble.ensemble import Ensemble
from bayesens.messages import check_known, listed, warn
from bayesens.tables.columns import labels, numbers, times

__all__ = ["check_origins", "triple_collocation"]

Array = NDArray[np.float64]


def triple_collocation(
    table: pd.DataFrame | Ensemble,
    *,
    sources: Sequence[str],
    origin: Mapping[str, str | Iterable[str]],
    station: str,
    time: str,
    by: str = "pooled",
    min_rows: int = 30,
    block: float = 30.0,
    replicates: int = 500,
    level: float = 0.9,
    random_seed: int | None = None,
) -> pd.DataFrame:
    """Error of three independent sources without knowing the truth: extended triple collocation.

    Each source is ``a + b * truth + error``, with errors independent of the truth and of each other. The mean of every station
    is taken out first, so that lasting offsets do not count as errors.

    Parameters
    ----------
    table : pandas.DataFrame or Ensemble
        One row a station and time; rows where a source is missing are passed over. Of an ensemble, columns have the names
        of `Ensemble.to_frame`.
    sources : sequence of str
        Three columns. The first is the reference of ``scaling``.
    origin : mapping of source to str or iterable of str
        What each source is made of, e.g. ``{"rf": "era5+stations", "ascat": "ascat", "insitu": {"probes"}}``. Two sources that
        share anything are refused: their errors are not independent. Members trained on one table share that table.
    station, time : str
        Columns.
    by : {"pooled", "station"}
        One result over all stations, or one a station.
    min_rows : int
        Of a station; those with fewer are passed over, with a warning.
    block : float
        Length of the time blocks of the bootstrap: days, or units of numeric times.
    replicates : int
        Of the bootstrap by stations (when pooled) and time blocks; 0 for no intervals.
    level : float
        Of the intervals, inside (0, 1).
    random_seed : int, optional
        For the bootstrap.

    Returns
    -------
    pandas.DataFrame (source) or (station, source)
        ``error_var`` as estimated, which may be negative (squared units of the source), ``error_sd``, ``r2`` and ``correlation``
        with the truth (signed as ``scaling`` is), ``snr_db`` (ten times the log10 of signal to noise variance), ``scaling``
        (its b over that of the first source), intervals ``error_var_low``, ``error_var_high``, ``r2_low``, ``r2_high``,
        ``valid`` (r2 inside [0, 1]) and ``n`` rows. Where not valid, ``error_sd``, ``correlation`` and ``snr_db`` are NaN.

    Raises
    ------
    ValueError
        Sources that share an origin or have none, not three sources, no station with enough rows, a constant source.

    Examples
    --------
    A truth of 1, -1 in pairs, and errors that are orthogonal to it and to each other by design:

    >>> truth, x, y = (np.tile(np.repeat([1.0, -1.0], k), 32 // k) for k in (1, 2, 4))
    >>> table = pd.DataFrame({"probe": truth, "radar": 2 * truth + x, "model": truth + 0.5 * y, "station": "s", "day": range(64)})
    >>> origin = {"probe": "probe", "radar": "radar", "model": "weather"}
    >>> found = triple_collocation(table, sources=list(origin), origin=origin, station="station", time="day", replicates=0)
    >>> found[["r2", "scaling"]]
             r2 scaling
    source
    probe   1.0     1.0
    radar   0.8     2.0
    model   0.8     1.0
    """
    names = _check_triple(sources, by, replicates, level)
    frame, shared = _table_and_training(table)
    check_origins(names, origin, shared)
    x, stations, codes, when = _triple_rows(frame, names, station, time, min_rows)
    blocks = time_blocks(when, block) if replicates else np.zeros(len(x), dtype=np.intp)
    drawn = pigeonhole(codes, blocks, replicates=replicates, random_seed=random_seed)
    moments = _moments(x, codes, blocks, len(stations), drawn.block)
    if by == "pooled":
        weights: Array = drawn.station
        covariance = (
            np.einsum("sr,srij->rij", weights, moments[0])[None]
            / np.einsum("sr,sr->r", weights, moments[1])[:, None, None]
        )
    else:
        with np.errstate(invalid="ignore", divide="ignore"):  # a replicate may take no block of a station
            covariance = moments[0] / moments[1][..., None, None]
    found = _etc(covariance)
    index = pd.Index(names, name="source")
    if by == "station":
        index = pd.MultiIndex.from_product([stations, names], names=["station", "source"])
    rows = np.bincount(codes) if by == "station" else np.array([len(x)])
    return _report(found, index, np.repeat(rows, 3), level)


def check_origins(
    sources: Sequence[str], origin: Mapping[str, str | Iterable[str]], trained: Iterable[str] = ()
) -> None:
    """Refuse sources that share an origin, naming them.

    Parameters
    ----------
    sources : sequence of str
        Their names.
    origin : mapping of source to str or iterable of str
        What each is made of; ``+`` separates several in one text. Case and blanks do not matter.
    trained : iterable of str
        Sources that are known to share one training table.

    Raises
    ------
    ValueError
        Two that share anything, or one without an origin.

    Examples
    --------
    >>> check_origins(["rf", "lsm"], {"rf": "era5+stations", "lsm": "ERA5"})
    Traceback (most recent call last):
    ...
    ValueError: 'rf' and 'lsm' share 'era5': their errors are not independent, ...
    """
    check_known(origin, sources, kind="source", where="sources")
    parts: dict[str, set[str]] = {}
    for name in sources:
        given = origin.get(name, ())
        texts = given.split("+") if isinstance(given, str) else [str(part) for part in given]
        parts[name] = {text.strip().lower() for text in texts if text.strip()}
        if not parts[name]:
            raise ValueError(
                f"{name!r} has no origin; wanted what it is made of: origin={{{name!r}: 'era5+stations', ...}}"
            )
    for name in set(trained) & set(sources):
        parts[name].add("one training table")
    found = [(a, b, sorted(parts[a] & parts[b])) for a, b in combinations(sources, 2) if parts[a] & parts[b]]
    if found:
        pairs = "; ".join(f"{a!r} and {b!r} share {listed(common)}" for a, b, common in found)
        raise ValueError(
            f"{pairs}: their errors are not independent, and triple collocation would call what they have in common truth; "
            "wanted three sources with nothing in common, such as probes, a radar product and a land-surface model"
        )


def _check_triple(sources: Sequence[str], by: str, replicates: int, level: float) -> list[str]:
    names = [sources] if isinstance(sources, str) else list(sources)
    if len(names) != 3 or len(set(names)) != 3:
        raise ValueError(f"sources={names!r}; wanted three different columns")
    if by not in ("pooled", "station"):
        raise ValueError(f"by={by!r}; wanted 'pooled' or 'station'")
    if replicates < 0 or 0 < replicates < 50:
        raise ValueError(f"replicates={replicates}; wanted 50 or more, or 0 for no intervals")
    if not 0.0 < level < 1.0:
        raise ValueError(f"the level lies inside (0, 1), such as 0.9; got {level!r}")
    return names


def _table_and_training(table: pd.DataFrame | Ensemble) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """The table, and the columns that were trained together: cross-fitted members, and the observation that they learned."""
    if not isinstance(table, Ensemble):
        return table, ()
    trained = bool(table.dataset["prediction"].attrs.get("trained"))
    observation = table.columns.get("observation")
    return table.to_frame(), (*table.members, *([observation] if observation else [])) if trained else ()


def _triple_rows(
    frame: pd.DataFrame, names: list[str], station: str, time: str, min_rows: int
) -> tuple[Array, list[str], NDArray[np.intp], NDArray[Any]]:
    """Values (obs, 3) of complete rows of stations that have enough, their stations' names and codes, and their times."""
    check_columns(frame, names, {"station": station, "time": time})
    x, site, when = (
        np.column_stack([numbers(frame[name]) for name in names]),
        labels(frame[station]),
        times(frame[time]),
    )
    kept = np.isfinite(x).all(axis=1) & (site != "") & ~pd.isna(when)
    found, codes, count = np.unique(site[kept], return_inverse=True, return_counts=True)
    few = [str(name) for name in found[count < max(min_rows, 2)]]
    if len(few) == len(found):
        raise ValueError(
            f"no station has {max(min_rows, 2)} rows with all of {listed(names)} ({len(frame)} rows, {len(found)} station(s)); "
            "wanted more rows, or a smaller min_rows"
        )
    if few:
        warn(
            f"{len(few)} of {len(found)} stations have fewer than {min_rows} complete rows and are left out: {listed(few)}"
        )
    enough = np.isin(codes, np.flatnonzero(count >= max(min_rows, 2)))
    x, site, when = x[kept][enough], site[kept][enough], when[kept][enough]
    constant = [name for name, values in zip(names, x.T, strict=True) if np.ptp(values) == 0.0]
    if constant:
        raise ValueError(f"source(s) {listed(constant)} are constant; wanted sources that vary with the truth")
    stations, codes = np.unique(site, return_inverse=True)
    return x - x.mean(axis=0), stations.tolist(), codes, when


def _moments(x: Array, codes: NDArray[np.intp], blocks: NDArray[np.intp], n: int, drawn: Array) -> tuple[Array, Array]:
    """Centred squares (station, replicate, 3, 3) and degrees of freedom (station, replicate) of every bootstrap replicate."""
    terms = np.column_stack([np.ones(len(x)), x, (x[:, :, None] * x[:, None, :]).reshape(-1, 9)])
    cell = codes * len(drawn) + blocks
    sums = np.column_stack([np.bincount(cell, term, minlength=n * len(drawn)) for term in terms.T])
    sums = np.einsum("sbm,br->srm", sums.reshape(n, len(drawn), 13), drawn, optimize=True)
    count, first, second = sums[..., 0], sums[..., 1:4], sums[..., 4:].reshape(*sums.shape[:2], 3, 3)
    mean = first / np.maximum(count, 1.0)[..., None]
    return second - mean[..., :, None] * first[..., None, :], np.maximum(count - 1.0, 0.0)


def _etc(covariance: Array) -> dict[str, Array]:
    """Estimates (set, replicate, source) from covariances (set, replicate, 3, 3)."""
    c = covariance
    shared, scale = np.empty(c.shape[:-1]), np.ones(c.shape[:-1])
    with np.errstate(divide="ignore", invalid="ignore"):  # a covariance of zero leaves no estimate: NaN or infinite
        for i, (j, k) in enumerate(((1, 2), (0, 2), (0, 1))):
            shared[..., i] = c[..., i, j] * c[..., i, k] / c[..., j, k]
        scale[..., 1] = c[..., 1, 2] / c[..., 0, 2]
        scale[..., 2] = c[..., 1, 2] / c[..., 0, 1]
        own = np.diagonal(c, axis1=-2, axis2=-1)
        return {"error_var": own - shared, "r2": shared / own, "scaling": scale, "snr": shared / (own - shared)}


def _report(found: Mapping[str, Array], index: pd.Index, n: NDArray[np.int64], level: float) -> pd.DataFrame:
    """The table: the sample itself is replicate 0, intervals come from the others."""
    point = {name: values[:, 0].reshape(-1) for name, values in found.items()}
    # Rounding leaves a source without error at a hair beyond 1.
    valid = (point["r2"] >= 0.0) & (point["r2"] <= 1.0 + 1e-12)
    root = {name: np.sqrt(np.where(valid, np.maximum(point[name], 0.0), np.nan)) for name in ("error_var", "r2")}
    with np.errstate(divide="ignore", invalid="ignore"):
        db = 10.0 * np.log10(np.where(valid, np.abs(point["snr"]), np.nan))
    columns: dict[str, Any] = {
        "error_var": point["error_var"], "error_sd": root["error_var"], "r2": point["r2"],
        "correlation": root["r2"] * np.sign(point["scaling"]), "snr_db": db, "scaling": point["scaling"],
    }  # fmt: skip
    for name in ("error_var", "r2"):
        drawn = np.moveaxis(found[name], 1, -1)[..., 1:]
        none = np.full(drawn.shape[:-1], np.nan)
        low, high = central_interval(drawn, level) if drawn.shape[-1] else (none, none)
        columns |= {f"{name}_low": low.reshape(-1), f"{name}_high": high.reshape(-1)}
    if not valid.all():
        warn(
            f"{int((~valid).sum())} of {len(valid)} estimates are not possible (a negative error variance, or correlations of "
            f"different signs): {listed(index[~valid])}; errors may depend on each other, or the sample is too small"
        )
    return pd.DataFrame(columns | {"valid": valid, "n": n}, index=index)
