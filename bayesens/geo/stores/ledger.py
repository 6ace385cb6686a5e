"""What is finished of an output that is written tile by tile: a folder beside it, from which the run after a stop goes on.

The folder ``NAME.unfinished`` holds ``plan.json`` (what is written, and from what), ``done/`` (a file for each finished tile) and
``data.zarr`` (the tiles). A tile's file is made after its data are on the disk, by a new name that takes the place of none: a run
that ends at any moment leaves tiles that are whole or not there.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bayesens.messages import listed
from bayesens.tables.atomic import move

__all__ = ["Ledger", "differences", "ledger_of", "sync", "sync_folder"]

PLAN, LOCK, MOVING = "plan.json", "lock", "moving.json"
OURS = {PLAN, LOCK, MOVING, "done", "data.zarr", "data.zarr.old", "data.nc", "steps", "steps.old"}


@dataclass(frozen=True)
class Ledger:
    """The folder of an unfinished output.

    Attributes
    ----------
    folder : Path
    """

    folder: Path

    @property
    def store(self) -> Path:
        """The Zarr store that tiles are written to."""
        return self.folder / "data.zarr"

    @property
    def begun(self) -> bool:
        """Whether a run has come so far that another can go on."""
        return (self.folder / PLAN).exists()

    @property
    def plan(self) -> dict[str, Any]:
        """What is written."""
        found: dict[str, Any] = json.loads((self.folder / PLAN).read_text(encoding="utf-8"))
        return found

    def begin(self, plan: Mapping[str, Any]) -> None:
        """Say what is written; last of what a run does before its first tile."""
        (self.folder / "done").mkdir(exist_ok=True)
        _write_durably(self.folder / PLAN, dict(plan))

    def goes_on(self, *, overwrite: bool, resume: bool) -> bool:
        """Whether a run goes on with what is there; refused where nothing says what to do with finished tiles."""
        if not self.begun or not (overwrite or resume or self.done()):
            return False
        if not overwrite and not resume:
            raise FileExistsError(
                f"{self.folder} is there: an output of which {len(self.done())} tiles are finished. Go on with it: resume=True; "
                "or begin anew: overwrite=True"
            )
        return resume

    def clear(self) -> None:
        """Begin anew: an empty folder, but for the lock; what no run of ours leaves is not removed."""
        there = list(self.folder.iterdir())
        if others := [one.name for one in there if one.name not in OURS and one.suffix != ".partial"]:
            raise FileExistsError(f"{self.folder} holds {listed(others)}, which no unfinished output has: move that away, or "
                                  "name another output")  # fmt: skip
        for one in there:
            if one.is_dir():
                shutil.rmtree(one)
            elif one.name != LOCK:
                one.unlink()

    def move(self, made: Path, target: Path) -> None:
        """Put what was made in its place; a run that ends right after that finds that it is there."""
        _write_durably(self.folder / MOVING, {"made": made.name})
        move(made, target)
        sync_folder(target.parent)

    @property
    def arrived(self) -> bool:
        """Whether a run ended between the output's last step and the end of this folder."""
        mark = self.folder / MOVING
        return mark.exists() and not (self.folder / json.loads(mark.read_text(encoding="utf-8"))["made"]).exists()

    def done(self) -> dict[int, dict[str, Any]]:
        """Finished tiles and what was said of each."""
        return {
            int(one.stem): json.loads(one.read_text(encoding="utf-8"))
            for one in sorted((self.folder / "done").glob("*.json"))
        }

    def finish(self, number: int, said: Mapping[str, Any]) -> None:
        """Say that a tile is finished; its data must be on the disk."""
        _write_durably(self.folder / "done" / f"{number:07d}.json", dict(said))

    def sweep(self) -> None:
        """Remove what a killed run left half written."""
        for one in list(self.folder.rglob("*.partial")):
            one.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the folder: the output is in its place."""
        shutil.rmtree(self.folder, ignore_errors=True)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other runs away while this one writes; the lock ends with its process, however that ends."""
        self.folder.mkdir(exist_ok=True)
        with open(self.folder / LOCK, "w", encoding="utf-8") as file:
            try:
                import fcntl

                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except ImportError:  # Windows has no such lock
                pass
            except OSError as error:
                raise BlockingIOError(
                    f"another run is writing {self.folder}; wait for it, or name another output"
                ) from error
            yield


def ledger_of(path: Path) -> Ledger:
    """Ledger of an output."""
    return Ledger(path.with_name(f"{path.name}.unfinished"))


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Say in which of its parts a plan differs from another one; nothing where they are equal."""
    return listed([name for name in new if old.get(name) != new[name]], limit=10)


def sync(path: Path) -> None:
    """Have a file on the disk."""
    _sync(path, os.O_RDWR)


def _sync(path: Path, mode: int) -> None:
    handle = os.open(path, mode)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_folder(path: Path) -> None:
    """Have the names in a folder on the disk, where the system can do that."""
    if os.name != "nt":
        _sync(path, os.O_RDONLY)


def _write_durably(path: Path, value: dict[str, Any]) -> None:
    aside = path.with_name(f"{path.name}.partial")
    with open(aside, "w", encoding="utf-8") as file:
        json.dump(value, file, sort_keys=True, indent=1)
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, path)
    sync_folder(path.parent)
