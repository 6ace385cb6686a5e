"""The law of a fit, cell by cell: by compiled coefficients where it is linear in the members, as rows of a table elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray
from scipy.special import ndtri

from bayesens.arithmetic import plain_arithmetic
from bayesens.distributions.cells import CellClass, Reads
from bayesens.distributions.mixtures import probability_below
from bayesens.distributions.posterior_mixture import PART_ROWS
from bayesens.ensemble.ensemble import Ensemble
from bayesens.ensemble.from_table import COVARIATE, COVARIATE_NAME
from bayesens.ensemble.transforms import transform
from bayesens.inference.grid_classes import Key, Probed, Probes, probed, reads_of, widths_of
from bayesens.inference.prediction import Prediction
from bayesens.likelihoods.corrected.widths import SEASON, season
from bayesens.tables.columns import labels, numbers, times
from bayesens.tables.grids import MEMBER
from bayesens.threads import share_out

__all__ = ["NO_SCORES", "PARTS", "ROLES", "Cells", "GridLaw", "Where"]

ROLES = ("site", "group", "time", "lon", "lat")
PARTS = {
    "mean": "predictive mean",
    "sd": "predictive standard deviation",
    "sd_within": "standard deviation within kernels",
    "sd_between": "standard deviation between members",
    "sd_parameter": "standard deviation left open by the posterior",
}
BLOCK = 65_536  # cells that are predicted at a time: their members stay in the second cache
MISSING: Any = object()
NOWHERE = np.zeros(0, dtype=np.int64)
NO_SCORES = np.zeros((0, 0))
MOST = 2_000  # classes, of up to 100 kB each


Where = tuple[int, int, NDArray[np.int64]]  # first, count and index of cells
ByKeys = Callable[[list[Key], list[Where]], list[NDArray[np.int64]]]


@dataclass(frozen=True, eq=False)
class Kept:
    """What was found of a fit: its law at probe rows by key, and coefficients by key and posterior draw (None: all together)."""

    rows: dict[Key, Probed] = field(default_factory=dict)
    classes: dict[tuple[Key, int | None], CellClass | None] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class GridLaw:
    """A fit, and what is asked of every cell.

    Attributes
    ----------
    model : model
        Resolved.
    posterior, history : Dataset
    attrs : dict
        The fit's ``bayesens_model`` and ``units``.
    members : tuple of str
        Of the fit, in its order.
    ranges : dict
        Of each member's values in the fit.
    beside : tuple of str
        Names of the arrays beside the members: roles and covariates.
    thresholds : int
        How many arrays of thresholds follow them.
    levels : array (quantile)
        Increasing.
    parts : tuple of str
        Those of `PARTS` that are wanted.
    kept : Kept
        Coefficients that were found, which other grids of the same fit may share.
    """

    model: Any
    posterior: xr.Dataset
    history: xr.Dataset | None
    attrs: dict[str, Any]
    members: tuple[str, ...]
    ranges: dict[str, list[float]]
    beside: tuple[str, ...]
    thresholds: int
    levels: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    parts: tuple[str, ...] = ()
    kept: Kept = field(default_factory=Kept)

    def __getstate__(self) -> dict[str, Any]:
        return {one.name: getattr(self, one.name) for one in fields(self)} | {
            "kept": Kept()
        }  # other processes find it again

    @property
    def mass(self) -> bool:
        """Whether zero has a probability of its own."""
        return bool(self.model.transform == "sqrt")

    @property
    def of_sd(self) -> bool:
        """Whether parts of the standard deviation are wanted."""
        return any(name not in ("mean", "sd") for name in self.parts)

    @cached_property
    def rows(self) -> tuple[str, ...]:
        """Names of the numbers of a cell, in the order in which they are computed."""
        named = ["mean", "sd"] + (list(PARTS)[2:] if self.of_sd else [])
        return (*named, *["quantile"] * len(self.levels), *["below"] * self.thresholds, *["mass"] * self.mass)

    # ----------------------------------------------------------------------------------------------------------- in and out
    @plain_arithmetic  # lazy grids are computed after predict_grid has returned
    def of_cells(self, *arrays: NDArray[Any]) -> tuple[NDArray[Any], ...]:
        """Predict cells (...).

        Parameters
        ----------
        *arrays : array (...)
            The members', those beside them, and thresholds; of single precision if all members are.

        Returns
        -------
        tuple of array
            The parts (...), quantiles (..., quantile), and as the case may be the mass at zero (...) and the
            probabilities below thresholds (..., threshold).
        """
        cells = self.cells(arrays)
        out = np.empty((len(self.rows), cells.size), dtype=cells.dtype)
        asked = {"levels": ndtri(self.levels), "limits": cells.below, "scores": NO_SCORES, "parts": 1 + self.of_sd}

        def predict(keys: list[Key], places: list[Where]) -> list[NDArray[np.int64]]:
            left = []
            for found, where in zip(self.classes_of(keys), places, strict=True):
                if found is None or (found.spread is not None and len(self.levels) + self.thresholds > 0):
                    left.append(_index(where))
                else:
                    self.ask(found, cells, where, out, **asked)
            return left

        self.visit(cells, out, predict, lambda index: self._by_rows(out, cells, index))
        named, shape = np.array(self.rows), cells.shape
        found = [out[self.rows.index(name)].reshape(shape) for name in self.parts]
        found.append(np.moveaxis(out[named == "quantile"].reshape(-1, *shape), 0, -1))
        found += [out[named == "mass"].reshape(shape)] if self.mass else []
        found += [np.moveaxis(out[named == "below"].reshape(-1, *shape), 0, -1)] if self.thresholds else []
        return tuple(found)

    def cells(self, arrays: Sequence[NDArray[Any]]) -> Cells:
        """Arrays as they are given for the cells of a grid: the members', those beside them, and thresholds."""
        k, b = len(self.members), len(self.beside)
        shape = np.broadcast_shapes(*(one.shape for one in arrays))
        dtype = np.result_type(*(one.dtype for one in arrays[:k]))
        members = [np.broadcast_to(one.astype(dtype, copy=False), shape).reshape(-1) for one in arrays[:k]]
        given = dict(zip(self.beside, arrays[k : k + b], strict=True))
        limits = [np.broadcast_to(one, shape).reshape(-1) for one in arrays[k + b :]]
        beside = (np.zeros((0, 0)),) * 2 if self.reads is None else self._numbers(given, shape)
        return Cells(members, given, limits, shape, beside)

    def visit(
        self, cells: Cells, out: NDArray[Any], predict: ByKeys, by_rows: Callable[[NDArray[np.int64]], None]
    ) -> None:
        """Go through cells: some at a time by their keys, and as rows of a table where these are left over.

        Parameters
        ----------
        cells : Cells
        out : array (number, cell)
            NaN is written where a cell has no prediction.
        predict : callable
            Takes keys and where the cells of each stand; returns the indices of cells that it has left.
        by_rows : callable
            Takes an index.
        """
        if self.reads is None:
            out[:] = np.nan
            by_rows(self._with_member(cells, np.arange(cells.size)))
            return
        labelled = _Labelled.of(self.posterior, cells.given, cells.shape)
        starts = range(0, cells.size, BLOCK)

        def run(part: slice) -> None:
            for start in starts[part]:
                block = slice(start, min(start + BLOCK, cells.size))
                found = self._keys(cells, labelled, block)
                if found is None:
                    by_rows(np.arange(block.start, block.stop))
                    continue
                out[:, found[2]] = np.nan
                for index in predict(*found[:2]):
                    by_rows(index)

        share_out(run, len(starts))

    def ask(self, found: CellClass, cells: Cells, where: Where, out: NDArray[Any], **asked: Any) -> None:
        """Fill numbers of cells of one class."""
        assert self.reads is not None
        found.predict(self.reads, cells.pointers, *cells.beside, where, **asked, out=out)

    # -------------------------------------------------------------------------------------------------------- by coefficients
    @cached_property
    def probes(self) -> Probes:
        """Where the law is probed."""
        columns = tuple(getattr(self.model, "bias_covariates", ()))
        return Probes.of(self.members, self.ranges, columns, self.model.transform)

    @cached_property
    def raw(self) -> tuple[str, ...]:
        """What widths follow beside the members' mean and spread."""
        names = widths_of(self.model, self.history).names
        return tuple(name for name in names if name not in ("mean", "spread"))

    @cached_property
    def reads(self) -> Reads | None:
        """How cells are read; None where all are rows of a table."""
        return reads_of(self.model, self.posterior, self.history, self.probes, self.raw)

    def classes_of(self, keys: list[Key], draw: int | None = None) -> list[CellClass | None]:
        """Coefficients of keys, over all draws or under one."""
        rows, classes = self.kept.rows, self.kept.classes
        if len(classes) > MOST:
            self.kept.classes.clear()
        if lacking := [key for key in dict.fromkeys(keys) if key not in rows]:
            widths = widths_of(self.model, self.history)
            found = probed(self.predictive, self._probe_table, self.probes, lacking, widths)
            rows.update(zip(lacking, found, strict=True))
        out = []
        for key in keys:  # another thread may clear what is kept
            one: Any = classes.get((key, draw), MISSING)
            one = rows[key].coefficients(self.probes, draw) if one is MISSING else one
            classes[key, draw] = one
            out.append(one)
        return out

    def predictive(self, table: Ensemble) -> Any:
        """The law of a table's rows."""
        return self.model.predictive(self.posterior, table, *(() if self.history is None else (self.history,)))

    def _probe_table(self, values: NDArray[np.float64], columns: NDArray[np.float64], keys: list[Key]) -> Ensemble:
        given: dict[str, NDArray[Any]] = {"site": np.array([site for _, site, _ in keys]),
                                          "group": np.array([group for _, _, group in keys])}  # fmt: skip
        given |= dict(zip(self.probes.columns, columns.T, strict=True))
        if set(self.raw) & set(SEASON):
            given["time"] = np.full(len(keys), np.datetime64("2000-01-01", "ns"))
        given |= {name: np.zeros(len(keys)) for name in self.raw if name not in (*SEASON, *given)}
        return _table(values, self.members, given, str(self.attrs["units"]))

    def _numbers(self, given: Mapping[str, NDArray[Any]], shape: tuple[int, ...]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Columns that corrections regress on, and those that widths follow, (column, cell)."""

        def whole(name: str) -> NDArray[Any]:
            if name in SEASON:
                moments = pd.Series(_flat(times, given["time"], "time").ravel())
                one = season(moments)[SEASON.index(name)].reshape(given["time"].shape)
            else:
                one = _flat(numbers, given[name], name)
            return np.broadcast_to(one, shape).reshape(-1)

        size = int(np.prod(shape))
        both = (self.probes.columns, self.raw)
        columns, raw = (np.array([whole(name) for name in names], dtype=float).reshape(-1, size) for names in both)
        return columns, raw

    def _keys(
        self, cells: Cells, labelled: _Labelled, block: slice
    ) -> tuple[list[Key], list[Where], NDArray[np.int64]] | None:
        """Keys of some cells, where the cells of each stand, and cells without a prediction.

        None for values that are infinite or that the transform cannot take, of which a table's checks speak.
        """
        from bayesens.distributions.cell_loops import complete, patterns

        if self._outside(cells, block):
            return None
        size, k = block.stop - block.start, len(self.members)
        if labelled.code is None and not len(cells.beside[0]) and complete(*cells.pointers, block.start, size):
            return [((1 << k) - 1, *labelled.pairs[0])], [(block.start, size, NOWHERE)], NOWHERE
        code = np.empty(size, dtype=np.int64)
        if patterns(*cells.pointers, block.start, code):
            return None
        nothing = np.zeros(size, dtype=bool)
        if getattr(self.model, "needs_member", False):
            nothing |= code == 0
        if len(cells.beside[0]):
            nothing |= np.isnan(cells.beside[0][:, block]).any(axis=0)
        if labelled.code is not None:
            code |= labelled.code[block] << k
        code[nothing] = -1
        pieces = _pieces(code)
        keys = [(int(one) & ((1 << k) - 1), *labelled.pairs[int(one) >> k]) for one, _ in pieces]
        where = [
            (0, len(index), index + block.start) if len(index) else (block.start, size, index) for _, index in pieces
        ]
        return keys, where, block.start + np.flatnonzero(nothing)

    def _outside(self, cells: Cells, block: slice) -> bool:
        """Whether the transform cannot take some member that the model looks at."""
        g, one = transform(self.model.transform), getattr(self.model, "member", None)
        if g.lower == -np.inf:
            return False
        used = [values[block] for name, values in zip(self.members, cells.members, strict=True) if one in (None, name)]
        return any(bool(np.any(values < g.lower if g.has_lower else values <= g.lower)) for values in used)

    # --------------------------------------------------------------------------------------------------- as rows of a table
    def _with_member(self, cells: Cells, index: NDArray[np.int64]) -> NDArray[np.int64]:
        if not getattr(self.model, "needs_member", False):
            return index
        return index[~np.all([np.isnan(one[index]) for one in cells.members], axis=0)]  # oceans take no time

    def _by_rows(self, out: NDArray[Any], cells: Cells, index: NDArray[np.int64]) -> None:
        for start in range(0, len(index), PART_ROWS):
            some = index[start : start + PART_ROWS]
            out[:, some] = self._of_rows(self.table(cells, some), [limit[some] for limit in cells.limits])

    def table(self, cells: Cells, index: NDArray[np.int64]) -> Ensemble:
        """Some cells as the rows of a table."""
        values = np.stack([one[index] for one in cells.members], axis=1).astype(np.float64)
        given = {name: column[index] for name, column in cells.columns.items()}
        return _table(values, self.members, given, str(self.attrs["units"]))

    def _of_rows(self, table: Ensemble, limits: list[NDArray[Any]]) -> NDArray[np.float64]:
        found = Prediction(self.model, table, np.arange(table.n_obs), self.predictive(table), self.attrs)
        summary = found.summary(self.levels.tolist() or [0.5])
        rows = [summary[name].values for name in PARTS if name in self.rows]
        rows += list(summary["quantile_value"].values.T) if len(self.levels) else []
        rows += [probability_below(found.law, np.asarray(limit, dtype=np.float64)).values for limit in limits]
        rows += [summary["mass_at_zero"].values] if self.mass else []
        return np.stack(rows)


# ------------------------------------------------------------------------------------------------------------------ cells
@dataclass(frozen=True, eq=False)
class Cells:
    """Arrays of some cells, one after the other."""

    members: list[NDArray[Any]]
    given: Mapping[str, NDArray[Any]]
    limits: list[NDArray[Any]]
    shape: tuple[int, ...]
    beside: tuple[
        NDArray[Any], NDArray[Any]
    ]  # columns that corrections regress on, and that widths follow, (column, cell)

    @property
    def size(self) -> int:
        """How many they are."""
        return len(self.members[0])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the members."""
        return self.members[0].dtype

    @cached_property
    def columns(self) -> dict[str, NDArray[Any]]:
        """Arrays beside the members, (cell)."""
        return {name: np.broadcast_to(one, self.shape).reshape(-1) for name, one in self.given.items()}

    @cached_property
    def below(self) -> NDArray[np.float64]:
        """Thresholds, (threshold, cell)."""
        return np.array(self.limits, dtype=np.float64).reshape(len(self.limits), self.size)

    @cached_property
    def pointers(self) -> tuple[NDArray[np.int64], NDArray[np.int64], bool]:
        """Addresses of the members, the steps between their values, and whether these are of four bytes."""
        address = np.array([one.__array_interface__["data"][0] for one in self.members], dtype=np.int64)
        stride = np.array([one.strides[0] // one.itemsize for one in self.members], dtype=np.int64)
        return address, stride, self.members[0].itemsize == 4


@dataclass(frozen=True, eq=False)
class _Labelled:
    """Sites and groups of cells: a code (cell), none where all are alike, and what the codes stand for."""

    code: NDArray[np.int64] | None
    pairs: list[tuple[str, str]]

    @classmethod
    def of(cls, posterior: xr.Dataset, given: Mapping[str, NDArray[Any]], shape: tuple[int, ...]) -> _Labelled:
        """Labels that the fit has not seen are all the same."""
        codes, names = [], []
        for level in ("site", "group"):
            if level not in given or level not in posterior.coords:
                codes.append(np.zeros((1,) * len(shape), dtype=np.int64))
                names.append([""])
                continue
            number, unique = pd.factorize(given[level].ravel(), use_na_sentinel=False)
            found = labels(pd.Series(unique, name=level))
            known = {name: n + 1 for n, name in enumerate(posterior[level].values.tolist())}
            names.append(["", *known])
            place = np.array([known.get(name, 0) for name in found.tolist()], dtype=np.int64)
            codes.append(place[number].reshape(given[level].shape))
        if all(len(one) == 1 for one in names):
            return cls(None, [("", "")])
        pairs = [(site, group) for site in names[0] for group in names[1]]
        code = codes[0] * len(names[1]) + codes[1]
        return cls(np.broadcast_to(code, shape).reshape(-1), pairs)


def _index(where: Where) -> NDArray[np.int64]:
    first, count, index = where
    return index if len(index) else np.arange(first, first + count)


def _pieces(code: NDArray[np.int64]) -> list[tuple[np.int64, NDArray[np.int64]]]:
    """Codes that are not negative with their places, which are empty where they are all places."""
    if (code == code[0]).all():
        return [(code[0], NOWHERE)] if code[0] >= 0 else []
    order = np.argsort(code, kind="stable")
    ordered = code[order]
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
    return [(ordered[start], index) for start, index in zip(starts, np.split(order, starts[1:]), strict=True)
            if ordered[start] >= 0]  # fmt: skip


def _flat(read: Any, array: NDArray[Any], name: str) -> NDArray[Any]:
    return np.asarray(read(pd.Series(array.reshape(-1), name=name))).reshape(array.shape)


def _table(
    values: NDArray[np.float64], members: tuple[str, ...], given: Mapping[str, NDArray[Any]], units: str
) -> Ensemble:
    """Cells as the rows of a table."""
    read = {"site": labels, "group": labels, "time": times}
    columns = {name: read.get(name, numbers)(pd.Series(column, name=name)) for name, column in given.items()}
    coords: dict[str, Any] = {role: ("obs", columns.pop(role)) for role in ROLES if role in columns}
    data: dict[str, Any] = {
        "prediction": (("obs", MEMBER), np.ascontiguousarray(values), {"units": units} if units else {})
    }
    if columns:
        coords[COVARIATE_NAME] = np.array(list(columns), dtype=np.str_)
        data[COVARIATE] = (("obs", COVARIATE_NAME), np.column_stack(list(columns.values())))
    return Ensemble(xr.Dataset(data, coords | {MEMBER: np.array(members, dtype=np.str_)}))
