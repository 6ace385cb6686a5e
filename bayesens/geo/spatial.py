"""How alike neighbouring cells of a map are, and how much a map varies: Moran's I and the coefficient of variation, by band.

Moran's I with the four neighbours that share an edge (rook),

    I = (n / W) sum_ij w_ij (x_i - m) (x_j - m) / sum_i (x_i - m)^2,    W = sum_ij w_ij,

where a band keeps to its own cells: n, the mean m and the neighbours are those inside it.

What it does not say. A low I is no evidence of true variability: white noise has the least of all, and a coarse product
that was resampled to a fine grid has an I near 1 by construction. A band lowers I by itself, because its values span less
and its cells have fewer neighbours inside it, so I is to be compared among products within one band, never among bands, and
then only if the bands hold the same cells. A conditional mean is smoother than the truth, so a map of posterior means is no
match for observed variability: compare fields drawn from the predictive distribution. The variogram and the variance ratio
against stations (:mod:`bayesens.geo.variogram`, :mod:`bayesens.geo.station_patterns`) stand beside it for these reasons.

References
----------
Cliff & Ord (1981), Spatial Processes: the moments. Busing, Meijer & van der Leeden (1999), Stat. Comput. 9, 3: the
jackknife with unequal blocks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from bayesens.comparison.bands import band_shares
from bayesens.geo.maps import as_map, border_jumps, on_grid_of, over_maps
from bayesens.messages import check_known, listed, warn

__all__ = ["border_jumps", "map_table", "moran_moments", "morans_i"]

Array = NDArray[np.float64]
Band = str | tuple[float, float]
BANDS: tuple[Band, ...] = ((0.0, 1.0), (0.0, 0.15), (0.15, 0.85), (0.85, 1.0))
BLOCKS = 40  # of the jackknife, if their size is not given: many blocks are short, few give a rough variance
REASON = ("defined", "fewer_than_two_cells", "constant", "no_neighbours")
LONG_NAMES = {
    "i": "Moran's I (rook neighbours)",
    "low": "lower end of the block-jackknife interval of i",
    "high": "upper end of the block-jackknife interval of i",
    "expected": "expectation of i without spatial dependence",
    "var_normal": "variance of i without spatial dependence, normal values",
    "var_random": "variance of i when the values are permuted over the cells",
    "cells": "number of cells in the band",
    "neighbours": "mean number of a cell's neighbours inside the band",
    "mean": "mean in the band",
    "sd": "standard deviation in the band",
    "cv": "coefficient of variation in the band: sd / mean",
    "undefined": "why i is missing",
}
NAMES = tuple(LONG_NAMES)


# ------------------------------------------------------------------------------------------------------------ Moran's I
def morans_i(
    field: ArrayLike | xr.DataArray,
    *,
    bands: Sequence[Band] = BANDS,
    band_of: ArrayLike | xr.DataArray | None = None,
    dims: tuple[str, str] | None = None,
    row_standardised: bool = False,
    block: int | None = None,
    level: float = 0.9,
    progressbar: bool = True,
) -> xr.Dataset:
    """Moran's I of a map with rook neighbours, by quantile band, with its null moments and a block-jackknife interval.

    Every map of further dimensions (times, draws, products) has bands and values of its own. The I of a day averaged over
    days is ``morans_i(field)["i"].mean("time")``; that of the mean map, ``morans_i(field.mean("time"))``, is greater,
    because the mean map is smoother: say which it was.

    Parameters
    ----------
    field : array (y, x) or DataArray (..., y, x)
        NaN where there is no value; in numpy or dask arrays, of any real dtype. Chunks of the grid are put together, those
        of further dimensions are not.
    bands : sequence of (float, float) or {"all", "low", "mid", "high"}
        Quantile levels. A band holds the cells from its lower to its upper quantile, both included.
    band_of : array (y, x) or DataArray (..., y, x), optional
        Make bands from this map in place of the field itself, so that all products are judged on the same cells.
    dims : (str, str), optional
        The grid's dimensions, if they are not (y, x), (lat, lon) or (latitude, longitude).
    row_standardised : bool
        Let each cell's neighbours weigh 1 together; otherwise each neighbour weighs 1, as in Table S3 of the source study.
        Cells without neighbours have weight 0 either way and still count in n.
    block : int, optional
        Side of the square blocks of the jackknife, in cells; several times as long as the field is correlated, or the
        interval is too short. By default the map is cut into about 40. A block is left out with its own cells' terms of all
        sums, and its values remain neighbours of the cells around it: else each border would be left out twice, and the
        interval be too long.
    level : float
        Of the interval, by Student's t with as many degrees of freedom as blocks with cells, less one.
    progressbar : bool
        Show one, if there are many maps.

    Returns
    -------
    Dataset (..., band)
        ``i``; ``low``, ``high``; ``expected`` = -1 / (n - 1), ``var_normal`` and ``var_random`` (Cliff and Ord's, without
        spatial dependence); ``cells`` (n); ``neighbours`` (mean number inside the band); ``mean``, ``sd`` and ``cv`` in the
        band (``cv`` is missing unless the mean is positive); and ``undefined``, which says why ``i`` is missing: 1 fewer
        than two cells, 2 constant, 3 no neighbours in the band. In memory, for dask arrays too.

    Raises
    ------
    TypeError, ValueError
        For a field that is no map or is infinite, a reference on another grid, levels that do not increase, a block below 1,
        or if no band of any map has an I.

    Notes
    -----
    I is comparable among products within one band that holds the same cells, and not among bands: see the module's text.
    With millions of cells a p value says nothing; the interval does. It is the sampling error of a field of which the map is
    one piece, and needs blocks longer than the field's correlation.

    Examples
    --------
    Of the 10 pairs of neighbours 8 are alike and 2 are not, so I is (8 - 2) / 10; each of the 8 cells has 20 / 8 neighbours.

    >>> found = morans_i([[0, 0, 1, 1], [0, 0, 1, 1]], bands=["all"])
    >>> found["i"].item(), found["neighbours"].item()
    (0.6, 2.5)
    >>> morans_i([[0, 1], [1, 0]], bands=["all"])["i"].item()  # a chessboard
    -1.0
    """
    field = as_map(field, dims)
    shares = _shares(bands)
    if not 0.0 < level < 1.0:
        raise ValueError(f"the level of an interval lies inside (0, 1), such as 0.9; got {level!r}")
    if block is not None and (block < 1 or int(block) != block):
        raise ValueError(f"block is {block!r}; wanted the side of a block in cells, a whole number of at least 1")
    side = int(block or max(1, np.ceil(np.sqrt(field.shape[-2] * field.shape[-1] / BLOCKS))))
    share = 1.0 / np.array([1.0, 1.0, 2.0, 3.0, 4.0]) if row_standardised else np.ones(5)
    levels = list(shares.values())
    fields = [field] if band_of is None else [field, on_grid_of(field, band_of, "band_of")]
    found = over_maps(
        lambda x, by=None: _of_map(x, x if by is None else by, levels, share, side, level),
        *fields, core=("band", "statistic"), sizes=(len(levels), len(NAMES)), progressbar=progressbar,
    )  # fmt: skip
    return _labelled(found, list(shares))


def _shares(bands: Sequence[Band]) -> dict[str, tuple[float, float]]:
    """Quantile levels by label, such as ``"15-85 %"``."""
    if isinstance(bands, str) or not len(bands) or any(isinstance(band, (int, float)) for band in bands):
        raise ValueError(
            f"bands is {bands!r}; wanted a list of bands, such as [(0, 1), (0.15, 0.85)] or ['all', 'mid']"
        )
    levels = [band_shares(band) for band in bands]
    return {f"{100 * low:g}-{100 * high:g} %": (low, high) for low, high in levels}


def _of_map(x: Array, by: Array, levels: list[tuple[float, float]], share: Array, side: int, level: float) -> Array:
    """Statistics of one map, (band, statistic), in the order of NAMES."""
    if np.isinf(x).any() or (by is not x and np.isinf(by).any()):
        raise ValueError(
            "the map or its reference holds infinite values; wanted finite numbers, NaN where there is none"
        )
    inner = sorted({q for pair in levels for q in pair if 0.0 < q < 1.0})
    values = by[~np.isnan(by)]
    cut = (
        dict(zip(inner, np.quantile(values, inner, overwrite_input=True), strict=True)) if inner and values.size else {}
    )
    cut = {0.0: -np.inf, 1.0: np.inf} | cut
    has = ~np.isnan(x)
    out = np.full((len(levels), len(NAMES)), np.nan)
    for k, (low, high) in enumerate(levels):
        inside = has & (by >= cut.get(low, 0.0)) & (by <= cut.get(high, 0.0))
        out[k] = _of_cells(x, inside, share, side, level)
    return out


def _of_cells(x: Array, inside: NDArray[np.bool_], share: Array, side: int, level: float) -> Array:
    """Statistics of a set of cells, in the order of NAMES."""
    from bayesens.geo.grid_loops import rook_degrees, rook_sums

    degree = np.empty(x.shape, dtype=np.int8)
    n, mean, least, greatest = rook_degrees(x, inside, degree)
    block = np.zeros((-(-x.shape[0] // side) * -(-x.shape[1] // side), 6))
    total = np.zeros(3)
    unit = max(greatest - mean, mean - least) or 1.0  # so that fourth powers neither overflow nor vanish
    rook_sums(x, mean, 1.0 / unit, degree, share, side, block, total)
    _, _, square, weight, cross, _ = block.sum(axis=0)
    s1, s2, fourth = total
    sd = 0.0 if least == greatest else unit * np.sqrt(square / n) if n else np.nan
    undefined = 1 if n < 2 else 2 if least == greatest else 3 if weight == 0.0 else 0
    neighbours = np.bincount(degree.ravel() + 1, minlength=6)[1:] @ np.arange(5.0)
    about = (n, neighbours / n, mean, sd, sd / mean if mean > 0.0 else np.nan) if n else (0, *[np.nan] * 4)
    if undefined:
        return np.array([*[np.nan] * 6, *about, undefined])
    i = n / weight * cross / square
    moments = moran_moments(n, weight, s1, s2, n * fourth / square**2)
    return np.array([i, *_jackknife(i, block, level), *moments, *about, 0.0])


def moran_moments(n: int, weight: float, s1: float, s2: float, kurtosis: float) -> tuple[float, float, float]:
    """Moments of Moran's I where nothing depends on place.

    Parameters
    ----------
    n : int
        Number of places, at least 2.
    weight, s1, s2 : float
        Sums over pairs of ``w_ij`` and of ``(w_ij + w_ji)^2 / 2``, and over i of ``(sum_j w_ij + w_ji)^2``.
    kurtosis : float
        Fourth moment over the squared second one, 3 for a normal.

    Returns
    -------
    expected, var_normal, var_random : float
        Expectation; variance for normal values; variance over permutations, NaN for fewer than four places.

    Examples
    --------
    Two neighbours have I = -1 whatever they are:

    >>> moran_moments(2, 2.0, 4.0, 8.0, 1.0)
    (-1.0, 0.0, nan)
    """
    expected, square = -1.0 / (n - 1), float(n) * n
    normal = (square * s1 - n * s2 + 3.0 * weight**2) / ((square - 1.0) * weight**2) - expected**2
    if n < 4:
        return expected, normal, np.nan
    free = n * ((square - 3.0 * n + 3.0) * s1 - n * s2 + 3.0 * weight**2)
    tied = kurtosis * ((square - n) * s1 - 2.0 * n * s2 + 6.0 * weight**2)
    random = (free - tied) / ((n - 1.0) * (n - 2.0) * (n - 3.0) * weight**2) - expected**2
    return expected, normal, random


def _jackknife(i: float, block: Array, level: float) -> tuple[float, float]:
    """Interval from the values without each block; blocks have different numbers of cells, so the one of Busing et al."""
    from scipy.special import stdtrit

    block = block[block[:, 0] > 0.0]
    g, n = len(block), block[:, 0].sum()
    rest = block.sum(axis=0) - block
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = rest[:, 1] / rest[:, 0]
        cross = rest[:, 4] - mean * rest[:, 5] + mean**2 * rest[:, 3]
        without = rest[:, 0] / rest[:, 3] * cross / (rest[:, 2] - rest[:, 0] * mean**2)
    if g < 2 or not np.isfinite(without).all():
        return np.nan, np.nan
    h = n / block[:, 0]
    pseudo = h * i - (h - 1.0) * without
    center = g * i - ((1.0 - 1.0 / h) * without).sum()
    half = stdtrit(g - 1, 0.5 + 0.5 * level) * np.sqrt(((pseudo - center) ** 2 / (h - 1.0)).mean())
    return i - half, i + half


def _labelled(found: xr.DataArray, labels: list[str]) -> xr.Dataset:
    undefined = found.isel(statistic=NAMES.index("undefined"))
    if (undefined > 0).all():
        why = "; ".join(f"{label}: {REASON[int(code)].replace('_', ' ')}"
                        for label, code in zip(labels, undefined.values.reshape(-1, len(labels))[0], strict=True))  # fmt: skip
        cells = int(found.isel(statistic=NAMES.index("cells")).max())
        raise ValueError(f"Moran's I is undefined in every band ({why}; {cells} cells with values at most); "
                         "give a map that varies and has neighbouring cells with values")  # fmt: skip
    data = {name: found.isel(statistic=k).assign_attrs(long_name=LONG_NAMES[name]) for k, name in enumerate(NAMES)}
    for name in ("cells", "undefined"):
        data[name] = data[name].astype(np.int64)
    data["undefined"].attrs |= {"flag_values": list(range(len(REASON))), "flag_meanings": " ".join(REASON)}
    return xr.Dataset(data).assign_coords(band=labels)


# ------------------------------------------------------------------------------------------------------------ the table
def map_table(
    maps: Mapping[str, ArrayLike | xr.DataArray],
    *,
    bands: Sequence[Band] = BANDS,
    band_of: str | ArrayLike | xr.DataArray | None = None,
    dims: tuple[str, str] | None = None,
    row_standardised: bool = False,
    block: int | None = None,
    level: float = 0.9,
) -> pd.DataFrame:
    """Coefficient of variation and Moran's I of several products, in the layout of Table S3 of the source study.

    Only cells that have a value in every product (and in the reference) are taken. Without ``band_of`` each product's bands
    are made of its own values, as in the source study, and hold other cells in each: then even within a band the I of two
    products is that of two places. With ``band_of`` all are judged on the same cells.

    Parameters
    ----------
    maps : mapping of str to array (y, x)
        One map each. For many times or draws take the mean of ``morans_i(...)["i"]``, or the map of means: not the same.
    bands, dims, row_standardised, block, level
        As in `morans_i`.
    band_of : str or array (y, x), optional
        Make all bands from this product, or from another map.

    Returns
    -------
    DataFrame (statistic and band, product)
        Rows ``CV`` (over all cells) and ``Moran's I`` by band; below them ``low`` and ``high``, the interval of I;
        ``cells``; and ``neighbours``, the mean number of a cell's neighbours inside the band: where it is far below 4 the
        band itself has lowered I.
        A band without an I is NaN, with a warning that says why.

    Raises
    ------
    KeyError, TypeError, ValueError
        As in `morans_i`; and if there is no map, or no cell has a value in all.

    Warns
    -----
    UserWarning
        Where a band of a product has no I.

    Examples
    --------
    >>> halves, board = np.array([[1.0, 1, 3, 3]] * 2), np.array([[1.0, 3, 1, 3], [3, 1, 3, 1]])
    >>> map_table({"halves": halves, "board": board}, bands=["all"]).loc[["CV", "Moran's I"]]
                        halves  board
    statistic band
    CV        0-100 %      0.5    0.5
    Moran's I 0-100 %      0.6   -1.0
    """
    if not maps:
        raise ValueError("maps is empty; wanted products by name: {'BMA': map, ...}")
    fields = {name: as_map(values, dims, f"the map {name!r}") for name, values in maps.items()}
    for name, field in fields.items():
        if field.ndim > 2:
            raise ValueError(f"the map {name!r} has the further dimensions {listed(map(str, field.dims[:-2]))}; take one of "
                             "them or their mean, or give the field to morans_i, which keeps them")  # fmt: skip
    reference = band_of
    if isinstance(band_of, str):
        check_known([band_of], fields, kind="map", where="maps")
        reference = fields[band_of]
    common, by = _common(fields, reference)
    options: dict[str, Any] = {"row_standardised": row_standardised, "block": block, "level": level}
    found = {name: _one(name, field, bands, by, options) for name, field in common.items()}
    whole = "0-100 %"
    blocks = [pd.DataFrame({name: _cv(field) for name, field in common.items()}, index=[("CV", whole)])]
    for label, name in (("Moran's I", "i"), *((name, name) for name in ("low", "high", "cells", "neighbours"))):
        rows = pd.DataFrame({product: one[name].to_series() for product, one in found.items()})
        blocks.append(rows.set_axis([(label, band) for band in rows.index]))
    table = pd.concat(blocks)
    return table.set_axis(pd.MultiIndex.from_tuples(table.index, names=["statistic", "band"]))


def _common(fields: dict[str, xr.DataArray], reference: Any) -> tuple[dict[str, xr.DataArray], xr.DataArray | None]:
    """The maps and the reference where all have values."""
    first, *_ = fields.values()
    for name, field in fields.items():
        on_grid_of(first, field, f"the map {name!r}")
    by = None if reference is None else on_grid_of(first, reference, "band_of")
    everything = [*fields.values(), *([] if by is None else [by])]
    has = np.logical_and.reduce([np.isfinite(field.values) for field in everything])
    if not has.any():
        raise ValueError(f"no cell of {has.size} has a value in every map; leave out the map that lacks them")
    kept = {name: field.where(has) for name, field in fields.items()}
    return kept, by if by is None else by.where(has)


def _one(name: str, field: xr.DataArray, bands: Sequence[Band], by: Any, options: dict[str, Any]) -> xr.Dataset:
    try:
        found = morans_i(field, bands=bands, band_of=by, dims=(str(field.dims[0]), str(field.dims[1])), **options)
    except ValueError as error:
        raise ValueError(f"the map {name!r}: {error}") from error
    codes = found["undefined"].to_series()
    for band, code in codes[codes > 0].items():
        warn(f"the map {name!r} has no Moran's I in the band {band}: {REASON[code].replace('_', ' ')}; it is NaN there")
    return found


def _cv(field: xr.DataArray) -> float:
    mean = float(field.mean(dtype=np.float64))
    return float(field.std(dtype=np.float64)) / mean if mean > 0.0 else np.nan
