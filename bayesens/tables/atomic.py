"""Files written whole or not at all."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["check_writable", "file_name", "full_suffix", "link", "move", "remove", "write_atomically"]


def file_name(name: str) -> str:
    """Return a name, of a model or a station, as part of a file's name.

    Examples
    --------
    >>> file_name("Equal weights (1/K)")
    'equal_weights_1_k'
    """
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") or "unnamed"


def full_suffix(path: Path) -> str:
    """Return the suffix, with the one under a ``.gz``.

    Examples
    --------
    >>> full_suffix(Path("narmada.v2.csv.gz"))
    '.csv.gz'
    """
    inner = Path(path.stem).suffix if path.suffix.lower() == ".gz" else ""
    return inner + path.suffix


def link(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Give a file a second name, so that it takes its place on the disk once; a copy where the file system has no links.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     one, other = Path(folder, "one"), Path(folder, "other")
    ...     _ = one.write_text("kept")
    ...     link(one, other)
    ...     other.read_text()
    'kept'
    """
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def check_writable(path: str | os.PathLike[str]) -> None:
    """Refuse a path that cannot be written, before the work whose result should go there.

    `path` is the file, or the Zarr store, to be.

    Examples
    --------
    >>> check_writable("no/such/folder/fit.nc")
    Traceback (most recent call last):
    ...
    FileNotFoundError: cannot write no/such/folder/fit.nc: the folder ... does not exist; create it first (mkdir -p) ...
    """
    target = Path(os.path.realpath(path))
    folder = target.parent
    store = full_suffix(target).lower() == ".zarr"
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"cannot write {path}: {folder} is a file, not a folder; name a path in a folder")
    if not folder.exists():
        raise FileNotFoundError(
            f"cannot write {path}: the folder {folder} does not exist; create it first (mkdir -p) or name another"
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"cannot write {path}: no permission to write in {folder}; name another folder")
    _try(target, path)
    if target.is_dir() and not store:
        raise IsADirectoryError(f"cannot write {path}: it is a folder; name a file in it")
    if store and target.exists() and not _is_store(target):
        raise FileExistsError(f"cannot write {path}: it is there and is not a Zarr store; move it away or name another")


def _try(target: Path, path: str | os.PathLike[str]) -> None:
    """Make an empty file beside the target: permission bits say nothing of long names, quotas or odd file systems."""
    aside = _beside(target)
    try:
        aside.touch()
    except OSError as error:
        raise OSError(
            f"cannot write {path}: {_reason(error)}, in {target.parent}; name another folder or a shorter name"
        ) from error
    finally:
        remove(aside)


def _beside(target: Path) -> Path:
    """A new hidden name in the same folder, with the same suffix."""
    suffix = full_suffix(target)
    return target.with_name(f".{target.name.removesuffix(suffix)}-{secrets.token_hex(4)}{suffix}")


def _reason(error: OSError) -> str:
    """What the system says, without the temporary name that nobody asked for."""
    return error.strerror or str(error) or type(error).__name__


def _is_store(path: Path) -> bool:
    """A folder that may be replaced as a whole: a Zarr store or nothing, never somebody's other files."""
    marks = ("zarr.json", ".zgroup", ".zarray", ".zmetadata")
    return path.is_dir() and (any((path / mark).exists() for mark in marks) or not any(path.iterdir()))


@contextmanager
def write_atomically(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path beside `path`, and move what was written there into place if all went well.

    What is there already, a file or a folder that is a Zarr store, stays as it is until the new one is complete. The path
    given is in the same folder, hidden, with the same suffix, and removed after any exception, an interrupt included.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with write_atomically(Path(folder) / "note.txt") as aside:
    ...         _ = aside.write_text("whole")
    ...     os.listdir(folder)
    ['note.txt']
    """
    check_writable(path)
    # A link stays a link: what it points to is replaced.
    target = Path(os.path.realpath(path))
    aside = _beside(target)
    try:
        yield aside
        move(aside, target)
    except OSError as error:
        raise OSError(
            f"cannot write {path}: {_reason(error)}; nothing was written: make room there or name another folder"
        ) from error
    finally:
        remove(aside)


def move(aside: Path, target: Path) -> None:
    """Put a finished file or folder in the place of another one, which comes back if that fails."""
    if not target.is_dir():
        os.replace(aside, target)
        return
    # A folder cannot be replaced in one step: the old one steps aside, and comes back if the new one does not arrive.
    old = aside.with_name(f"{aside.name}.old")
    try:
        os.replace(target, old)
        os.replace(aside, target)
    except BaseException:
        if old.exists() and not target.exists():
            os.replace(old, target)
        raise
    remove(old)


def remove(path: Path) -> None:
    """Remove a file, or a folder with all that is in it, if it can be: what went wrong before matters more."""
    if os.path.isdir(path):  # Path.is_dir raises an error for a name that is too long
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()
