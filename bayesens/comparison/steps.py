"""Finished steps of a long analysis, kept under a hash of all that went into them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr

from bayesens.ensemble.files import write_table
from bayesens.inference.fit_tree import read_fit, write_fit
from bayesens.tables.atomic import move, remove
from bayesens.tables.reading import read_table

__all__ = ["Steps"]

PACKED = {"zlib": True, "complevel": 4, "shuffle": True}
LEAST_PACKED = 4096  # bytes of a variable from which packing saves more than its own bookkeeping


@dataclass(frozen=True)
class Steps:
    """Where the results of steps are kept, so that a run that was stopped goes on where it was.

    Parameters
    ----------
    folder : Path or None
        One file a step: a new result takes the place of the former one of that name. None keeps nothing.
    version : str
        Of the code and the libraries that the results depend on.

    Examples
    --------
    >>> import tempfile
    >>> made = []
    >>> def make():
    ...     made.append(1)
    ...     return xr.Dataset({"mean": ("obs", [0.5])})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     steps = Steps(Path(folder))
    ...     first, again = (steps.dataset("scores", {"seed": 1}, make) for _ in range(2))
    ...     other = steps.dataset("scores", {"seed": 2}, make)
    >>> len(made), again.identical(first)
    (2, True)
    """

    folder: Path | None = None
    version: str = ""

    def dataset(self, name: str, key: Mapping[str, Any], make: Callable[[], xr.Dataset]) -> xr.Dataset:
        """Return the dataset of a step: as it is kept, or made now and kept.

        Parameters
        ----------
        name : str
            Of the step; part of the file's name.
        key : mapping
            All that the result depends on, as JSON takes it.
        make : callable
            Gives the result.

        Returns
        -------
        xarray.Dataset
        """
        return self._step(name, key, make, read_table, write_table)

    def frame(self, name: str, key: Mapping[str, Any], make: Callable[[], pd.DataFrame]) -> pd.DataFrame:
        """Return the table of a step, as `dataset` does."""
        return self._step(name, key, make, read_table, write_table, ".parquet")

    def fit(self, name: str, key: Mapping[str, Any], make: Callable[[], xr.DataTree]) -> xr.DataTree:
        """Return the fit of a step, as `dataset` does."""
        return self._step(name, key, make, read_fit, write_fit)

    def file(self, name: str, key: Mapping[str, Any], suffix: str = ".nc") -> Path | None:
        """Return the file that a step is kept in; None where nothing is kept."""
        path = None if self.folder is None else self.folder / f"{name}-{self._hash(key)}{suffix}"
        return path if path is not None and path.exists() else None

    def place(self, name: str, key: Mapping[str, Any], write: Callable[[Path], None]) -> Path:
        """Return the folder of a step that writes its result itself.

        Parameters
        ----------
        name, key
            As in `dataset`.
        write : callable
            Writes into the new folder that it is given.

        Returns
        -------
        Path

        Raises
        ------
        ValueError
            Nothing is kept here.
        """
        if self.folder is None:
            raise ValueError("these steps keep nothing; give them a folder")
        path = self.folder / f"{name}-{self._hash(key)}"
        if not path.exists():
            aside = self.folder / f".{name}"
            remove(aside)
            self.folder.mkdir(parents=True, exist_ok=True)
            write(aside)
            move(aside, path)
            self._forget(name, path, "")
        return path

    def _step(self, name: str, key: Mapping[str, Any], make: Any, read: Any, write: Any, suffix: str = ".nc") -> Any:
        if self.folder is None:
            return make()
        path = self.folder / f"{name}-{self._hash(key)}{suffix}"
        if path.exists():
            try:
                return read(path)
            except ValueError:  # a damaged file is made anew, like one that is not there
                remove(path)
        result = make()
        self.folder.mkdir(parents=True, exist_ok=True)
        write(_packed(result), path)
        self._forget(name, path, suffix)
        return result

    def _forget(self, name: str, path: Path, suffix: str) -> None:
        """Remove what the step kept under other hashes."""
        assert self.folder is not None
        for former in self.folder.glob(f"{name}-{'?' * 16}{suffix}"):
            if former != path:
                remove(former)

    def _hash(self, key: Mapping[str, Any]) -> str:
        text = json.dumps({"version": self.version} | dict(key), sort_keys=True)
        return sha256(text.encode()).hexdigest()[:16]


def _packed(result: Any) -> Any:
    """The same dataset or fit, to be written compressed without loss; a table of Parquet is that already."""
    if isinstance(result, xr.DataTree):
        made = result.copy()
        for node in made.subtree:
            node.dataset = _packed(node.to_dataset(inherit=False))
        return made
    if not isinstance(result, xr.Dataset):
        return result
    out = result.copy()
    for variable in out.variables.values():
        if variable.dtype.kind in "fiub" and variable.nbytes >= LEAST_PACKED:
            variable.encoding = {
                name: value for name, value in variable.encoding.items() if name == "_FillValue"
            } | PACKED
    return out
