"""Sufficient statistics of a table that need never be in memory as a whole: all that an HBM takes from its rows."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from typing import Any, Unpack

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bayesens.ensemble import checks
from bayesens.ensemble import streaming_sources as sources
from bayesens.ensemble.collinear import constant, dependent_columns, rounding
from bayesens.ensemble.digest import row_hash
from bayesens.ensemble.ensemble import Ensemble
from bayesens.ensemble.from_table import LABELS
from bayesens.ensemble.rows import check_enough, check_level
from bayesens.ensemble.streaming_sources import Chunk, ChunkOptions, ChunkReader, chunk_reader, ensemble_chunk
from bayesens.ensemble.sufficient import Root, Tally
from bayesens.ensemble.training_checks import Facts, check_training
from bayesens.ensemble.transforms import transform as transform_of
from bayesens.messages import listed

__all__ = ["SufficientStatistics", "sufficient_statistics"]

NO_LABEL = np.array([""])


@dataclass(frozen=True, repr=False, eq=False)
class SufficientStatistics:
    """Counts, means and scatter of a table's rows by site, group and missing columns: what an HBM needs of them.

    Made chunk by chunk, by `from_parquet`, `from_dask`, `from_frames` or `from_ensembles`, so that no more than a few chunks
    are in memory; every chunk passes the checks that an `Ensemble` makes. ``be.fit(be.HBM(), statistics)`` gives the
    posterior that the ensemble of the same rows gives. Rows without an observation are counted and left out. A value.

    Attributes
    ----------
    members : tuple of str
    columns : dict of role to column name
        Of ``observation``, and ``site`` and ``group`` where given.
    units : str
        ``""`` if not known.
    transform : {"identity", "sqrt", "log"}
        The scale that the rows were summed on; a model with another one cannot use these statistics.
    facts : Facts
        Counts and extremes, for the checks of training tables.
    tally : Tally
        The sums, by label.
    root : Root
        Of the rows with all members, to tell exact linear combinations.
    kinds : dict of role to str
        Whether labels were text, numbers or times.
    seal : int
        Sum of hashes of the rows modulo 2^64.

    Examples
    --------
    >>> frame = pd.DataFrame({"a": [1.0, 2.0, 4.0, 3.0], "y": [1.5, 2.5, 3.5, None]})
    >>> chunks = [frame[:2], frame[2:]]
    >>> statistics = SufficientStatistics.from_frames(chunks, members=["a"], observation="y")
    >>> statistics
    <SufficientStatistics: 4 rows (3 observed), 1 member: a; transform='identity'>
    >>> statistics.mean, round(statistics.sd, 6)
    (2.5, 0.816497)
    """

    members: tuple[str, ...]
    columns: dict[str, str]
    units: str
    transform: str
    facts: Facts
    tally: Tally
    root: Root
    kinds: dict[str, str]
    seal: int

    # Making ----------------------------------------------------------------------------------------------------------

    @classmethod
    def from_ensembles(cls, ensembles: Iterable[Ensemble], *, transform: str = "identity") -> SufficientStatistics:
        """Sum the rows of ensembles with the same members, one after the other.

        Parameters
        ----------
        ensembles : iterable of Ensemble
            A generator, so that only one of them is in memory.
        transform : {"identity", "sqrt", "log"}
            That of the model to be fitted.

        Returns
        -------
        SufficientStatistics

        Raises
        ------
        TypeError, ValueError
            Ensembles with other members, levels or units; none; values outside the transform's domain; sites in two groups.

        Examples
        --------
        >>> frame = pd.DataFrame({"a": [1.0, 2.0, 4.0], "y": [1.5, 2.5, 3.5], "s": ["u", "v", "u"]})
        >>> ensemble = Ensemble.from_frame(frame, members=["a"], observation="y", site="s")
        >>> parts = (ensemble.select(rows=[i]) for i in range(3))
        >>> SufficientStatistics.from_ensembles(parts).levels("site").tolist()
        ['u', 'v']
        """
        came: object = ensembles
        if isinstance(came, Ensemble):
            raise TypeError("got one Ensemble; wanted an iterable of them: from_ensembles([ensemble])")
        of_one = partial(_of_ensemble, transform=transform)
        return _closed(sources.chunks_merged(ensembles, "ensemble", of_one, _merge))

    @classmethod
    def from_frames(
        cls,
        frames: Iterable[pd.DataFrame],
        *,
        members: Iterable[str],
        observation: str,
        **options: Unpack[ChunkOptions],
    ) -> SufficientStatistics:
        r"""Sum the rows of tables, one after the other.

        Parameters
        ----------
        frames : iterable of pandas.DataFrame
            A generator such as ``pandas.read_csv(path, chunksize=100_000)``, so that only one of them is in memory. Labels
            that look like numbers in some chunks only must be read as text: ``dtype={"station": str}``.
        members, observation, site, group, units, missing, scale, offset
            As in `Ensemble.from_frame`.
        transform : {"identity", "sqrt", "log"}
            That of the model to be fitted.

        Returns
        -------
        SufficientStatistics

        Raises
        ------
        KeyError, TypeError, ValueError
            As in `Ensemble.from_frame`, with the number of the chunk; values outside the transform's domain; labels that are
            text in one chunk and numbers or times in another.

        Examples
        --------
        >>> from io import StringIO
        >>> text = StringIO("station,a,y\n007,1,2\n007,2,2\nA1,4,3\n")
        >>> frames = pd.read_csv(text, chunksize=2, dtype={"station": str})
        >>> SufficientStatistics.from_frames(frames, members=["a"], observation="y", site="station").levels("site").tolist()
        ['007', 'A1']
        """
        came: object = frames
        if isinstance(came, pd.DataFrame):
            raise TypeError("got one DataFrame; wanted an iterable of them: from_frames([frame])")
        read = chunk_reader("from_frames", members, observation, options)
        return _closed(sources.chunks_merged(frames, "chunk", partial(_of_frame, read=read), _merge), warn=True)

    @classmethod
    def from_parquet(
        cls,
        path: str | os.PathLike[str],
        *,
        members: Iterable[str],
        observation: str,
        batch_rows: int = 131_072,
        progressbar: bool = True,
        **options: Unpack[ChunkOptions],
    ) -> SufficientStatistics:
        """Sum the rows of a Parquet file or of a folder of them.

        Parameters
        ----------
        path : str or path
            A file, or a folder with files of the same columns (also with hive partitions, ``year=2020/...``). Only the
            columns that are named are read.
        members, observation, site, group, transform, units, missing, scale, offset
            As in `from_frames`.
        batch_rows : int
            Rows in memory at a time; a few such batches are read ahead.
        progressbar : bool
            Show how many rows are read.

        Returns
        -------
        SufficientStatistics

        Raises
        ------
        FileNotFoundError
        KeyError, TypeError, ValueError
            As in `from_frames`; columns that a file lacks or has as another type.

        Examples
        --------
        >>> import tempfile
        >>> from pathlib import Path
        >>> frame = pd.DataFrame({"a": [1.0, 2.0, 4.0], "y": [1.5, 2.5, 3.5]})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     frame[:2].to_parquet(Path(folder) / "0.parquet")
        ...     frame[2:].to_parquet(Path(folder) / "1.parquet")
        ...     SufficientStatistics.from_parquet(folder, members=["a"], observation="y", progressbar=False).n_obs
        3
        """
        read = chunk_reader("from_parquet", members, observation, options, "batch_rows", "progressbar")
        labels = [name for role, name in read.columns.items() if role in LABELS]
        frames = sources.parquet_frames(
            path, [*read.members, observation], labels, batch_rows=batch_rows, progressbar=progressbar
        )
        return _closed(sources.chunks_merged(frames, "batch", partial(_of_frame, read=read), _merge), warn=True)

    @classmethod
    def from_dask(
        cls,
        frame: Any,
        *,
        members: Iterable[str],
        observation: str,
        **options: Unpack[ChunkOptions],
    ) -> SufficientStatistics:
        """Sum the rows of a dask dataframe, partition by partition, and merge the sums in a tree.

        Parameters
        ----------
        frame : dask.dataframe.DataFrame
            Where it is computed is dask's affair: on threads here, or on the cluster of the current client. dask writes
            columns of Python objects as text (7.0, not 7): give numeric labels a numeric dtype.
        members, observation, site, group, transform, units, missing, scale, offset
            As in `from_frames`.

        Returns
        -------
        SufficientStatistics

        Raises
        ------
        ImportError
            dask is not installed.
        KeyError, TypeError, ValueError
            As in `from_frames`.

        Examples
        --------
        >>> import dask.dataframe as dd
        >>> table = pd.DataFrame({"a": [1.0, 2.0, 4.0], "y": [1.5, 2.5, 3.5]})
        >>> SufficientStatistics.from_dask(dd.from_pandas(table, npartitions=2), members=["a"], observation="y").n_obs
        3
        """
        read = chunk_reader("from_dask", members, observation, options)
        wanted = [*read.members, *read.columns.values()]
        return _closed(sources.dask_merged(frame, wanted, partial(_of_frame, read=read), _merge), warn=True)

    def merge(self, *others: SufficientStatistics) -> SufficientStatistics:
        """Return the statistics of the rows of all: those of disjoint parts of a table, in any order.

        Raises
        ------
        ValueError
            Other members, levels, units or transforms; sites that now belong to two groups.

        References
        ----------
        Chan, Golub and LeVeque (1983), The American Statistician 37, 242-247.

        Examples
        --------
        >>> frame = pd.DataFrame({"a": [1.0, 2.0], "y": [1.5, 2.5]})
        >>> half = SufficientStatistics.from_frames([frame], members=["a"], observation="y")
        >>> half.merge(half).n_obs
        4
        """
        return _closed(_merge(self, *others))

    # Contents --------------------------------------------------------------------------------------------------------

    @property
    def n_obs(self) -> int:
        """Number of rows, with or without an observation."""
        return self.facts.n_obs

    @property
    def n_observed(self) -> int:
        """Number of rows with an observation."""
        return self.facts.n_observed

    @property
    def mean(self) -> float:
        """Mean of the observations, on the transformed scale."""
        s = self.tally.statistics
        if not len(s.n):
            return float("nan")
        return float(s.mean[0, 0] + s.n @ (s.mean[:, 0] - s.mean[0, 0]) / s.n.sum())

    @property
    def sd(self) -> float:
        """Standard deviation of the observations (divided by n), on the transformed scale."""
        s = self.tally.statistics
        if not len(s.n):
            return float("nan")
        between = s.n @ (s.mean[:, 0] - self.mean) ** 2
        return float(np.sqrt((s.scatter[:, 0, 0].sum() + between) / s.n.sum()))

    def levels(self, name: str) -> NDArray[np.str_]:
        """Return the different labels of ``"site"`` or ``"group"`` among the observed rows, sorted, without the missing one."""
        if name not in LABELS:
            raise ValueError(f"got levels({name!r}); wanted 'site' or 'group'")
        return np.setdiff1d(getattr(self.tally, name), [""])

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the observed rows, whatever their order and the chunks that they came in."""
        levels = sorted(set(self.columns) & set(LABELS))
        text = f"rows|{self.units}|{self.members}|{levels}|{self.n_observed}|{self.seal}"
        return sha256(text.encode()).hexdigest()

    def __repr__(self) -> str:
        given = [f"{len(self.levels(name))} {name}s" for name in LABELS if name in self.columns]
        members = f"{len(self.members)} member{'s' * (len(self.members) > 1)}: {', '.join(self.members)}"
        parts = [f"{self.n_obs} rows ({self.n_observed} observed)", *given, members + f"; transform={self.transform!r}"]
        return f"<SufficientStatistics: {', '.join(parts)}>"

    # What models ask -------------------------------------------------------------------------------------------------

    def check_training(self, *, n_parameters: int = 0) -> None:
        """Refuse what `Ensemble.check_training` refuses, in the same words."""
        check_training(self.facts, self.members, self.columns["observation"], n_parameters)

    def check_level(self, level: str) -> None:
        """Refuse a level that the table has no column for, and observed rows without a label."""
        s, labels = self.tally.statistics, getattr(self.tally, level)
        blank = int(s.n[labels[s.cell_site] == ""].sum())
        check_level(level, given=level in self.columns, blank=blank, n=self.n_observed)

    def dependent_members(self) -> list[str]:
        """Name the members in an exact linear combination, an intercept included, over the rows that have them all."""
        if self.root.n <= len(self.members) + 1:
            return []
        sd = np.linalg.norm(self.root.triangle, axis=0) / np.sqrt(self.root.n)
        ends = transform_of(self.transform).forward(np.stack([self.facts.low[1:], self.facts.high[1:]]))
        flat = np.array([constant(pair) for pair in ends.T])
        # By the root, not by its square, which would hide what 1e-10 can still tell.
        triangle = np.where(flat, 0.0, self.root.triangle) / np.where(flat, 1.0, sd)
        noise = float(np.linalg.norm(rounding(ends) / np.where(flat, np.inf, sd)))
        involved = dependent_columns(triangle, noise, self.root.n)
        return [name for name, inside in zip(self.members, involved, strict=True) if inside]


def sufficient_statistics(data: Ensemble | SufficientStatistics, transform: str) -> SufficientStatistics:
    """Return the statistics of an ensemble, or those given if they were summed on the scale of a model's transform."""
    if isinstance(data, Ensemble):
        if data.observation is None or not data.observed.any():
            check_enough(0, data.n_obs, need_member=False)
        out = _of_ensemble(data, transform=transform)
    else:
        out = data
        if out.transform != transform:
            raise ValueError(
                f"The statistics were summed with transform={out.transform!r} and the model has "
                f"transform={transform!r}; rows must be transformed before they are summed: make the statistics again with "
                f"transform={transform!r}, or use the model with transform={out.transform!r}."
            )
    check_enough(out.n_observed, out.n_obs, need_member=False)
    return out


# From rows to statistics ---------------------------------------------------------------------------------------------


def _of_frame(frame: pd.DataFrame, *, read: ChunkReader) -> SufficientStatistics | None:
    chunk = read(frame)
    return None if chunk is None else _sums(chunk, read.transform)


def _of_ensemble(ensemble: Ensemble, *, transform: str) -> SufficientStatistics:
    return _sums(ensemble_chunk(ensemble), transform)


def _sums(chunk: Chunk, transform: str) -> SufficientStatistics:
    """Sum the rows of a chunk that has passed the door."""
    g, prediction, observation = transform_of(transform), chunk.prediction, chunk.observation
    for name, column in zip((*chunk.members, chunk.columns["observation"]), (*prediction.T, observation), strict=True):
        g.check(column, column=name)
    observed = ~np.isnan(observation)
    whole = bool(observed.all())
    raw = np.stack([c if whole else c[observed] for c in (observation, *prediction.T)]).T  # columns lie together
    coded = {role: (names, code[observed]) for role, (names, code) in chunk.labels.items()}
    blank = NO_LABEL, np.zeros(len(raw), dtype=np.int64)
    z = g.forward(raw)
    complete = ~np.isnan(z[:, 1:]).any(axis=1)
    return SufficientStatistics(
        tuple(chunk.members), dict(chunk.columns), chunk.units, transform, Facts.of_rows(prediction, observation),
        Tally.of_rows(z, coded.get("group", blank), coded.get("site", blank)),
        Root.of_rows(z[:, 1:] if complete.all() else z[complete, 1:]), chunk.kinds, row_hash(raw, list(coded.values())),
    )  # fmt: skip


# Chunks to the whole -------------------------------------------------------------------------------------------------


def _merge(*parts: SufficientStatistics) -> SufficientStatistics:
    """Merge without the checks of the whole, which need all parts."""
    first = parts[0]
    for other in parts[1:]:
        for what, one, two in (
            ("members", first.members, other.members), ("transform", first.transform, other.transform),
            ("levels", sorted(first.columns), sorted(other.columns)),
        ):  # fmt: skip
            if one != two:
                raise ValueError(
                    f"the chunks have different {what}: {one!r} and {two!r}; wanted the same in all of them"
                )
    units = sorted({part.units for part in parts} - {""})
    if len(units) > 1:
        raise ValueError(f"the chunks have different units: {listed(units)}; convert the values to one unit")
    kinds = {}
    for role in {role for part in parts for role in part.kinds}:
        found = sorted({part.kinds.get(role, "") for part in parts} - {""})
        if len(found) > 1:
            name = first.columns[role]
            raise ValueError(
                f"column {name!r} holds {found[0]} in some chunks and {found[1]} in others, so that labels may not match "
                f"(007 and 7); read it as text in all of them (in pandas: dtype={{{name!r}: str}})"
            )
        kinds[role] = found[0] if found else ""
    return replace(
        first, units=units[0] if units else "", facts=first.facts.merge(*(part.facts for part in parts[1:])),
        tally=first.tally.merge(*(part.tally for part in parts[1:])),
        root=first.root.merge(*(part.root for part in parts[1:])), kinds=kinds,
        seal=sum(part.seal for part in parts) % 2**64,
    )  # fmt: skip


def _closed(total: SufficientStatistics | None, *, warn: bool = False) -> SufficientStatistics:
    """Check the whole, as the door of an ensemble does for a table."""
    if total is None:
        raise ValueError("there are no rows in any chunk; wanted at least one row: check where the chunks come from")
    if {"site", "group"} <= set(total.columns):
        checks.check_groups(total.tally.site, total.tally.group, total.columns, total.n_obs)
    if warn:
        checks.warn_empty(total.facts.n_empty, total.n_obs, total.members)
    return total
