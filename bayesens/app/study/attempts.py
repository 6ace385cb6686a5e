"""Parts of a study that fail: the others go on, and the report says what it goes without."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from bayesens.app.report.parts import Note
from bayesens.comparison.folds.runs import FAILURES
from bayesens.messages import warn

__all__ = ["Attempts"]


@dataclass(frozen=True)
class Attempts:
    """What of a study could not be had.

    Attributes
    ----------
    failed : dict of str to dict of str to str
        By the chapter of the report, what failed and why.
    """

    failed: dict[str, dict[str, str]] = field(default_factory=dict)

    def __call__[T](self, chapter: str, what: str, make: Callable[[], T]) -> T | None:
        """Make a part of a study, or None and a warning: what hours of work have found is not lost with one of its parts."""
        try:
            return make()
        except FAILURES as error:
            warn(f"{what} failed, and the report goes without: {error}")
            self.failed.setdefault(chapter, {})[what] = str(error)
            return None

    def notes(self, chapter: str) -> tuple[Note, ...]:
        """What failed for a chapter, a caution each."""
        return tuple(Note(f"{what} failed: {why}", "caution") for what, why in self.failed.get(chapter, {}).items())
