"""How errors and warnings are worded, and where a warning points."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

__all__ = ["UnknownName", "check_keywords", "check_known", "listed", "warn", "warn_once"]


class UnknownName(KeyError):
    """A name that is not there. A ``KeyError`` whose text prints plainly, without the quotes ``KeyError`` adds."""

    def __str__(self) -> str:
        return str(self.args[0])


def warn(message: str) -> None:
    """Warn at the first caller outside this package, however deep the door is."""
    warnings.warn(message, UserWarning, skip_file_prefixes=(str(Path(__file__).parent) + os.sep,))


def warn_once(message: str, said: set[str]) -> None:
    """Warn of what a chunk of a lazy array shows, unless another chunk has said it; of nothing, where nothing is said.

    Examples
    --------
    >>> warn_once("", set())
    """
    if message and message not in said:
        said.add(message)
        warn(message)


def listed(items: Iterable[object], limit: int = 5) -> str:
    """Write the first few items and count the rest.

    Examples
    --------
    >>> listed(["a", "b", "c"], limit=2)
    "'a', 'b' and 1 more"
    """
    every = list(items)
    text = ", ".join(repr(item) if isinstance(item, str) else str(item) for item in every[:limit])
    return text if len(every) <= limit else f"{text} and {len(every) - limit} more"


def check_known(names: Iterable[str], known: Iterable[object], *, kind: str, where: str) -> None:
    """Refuse names that are not among the known ones, with the nearest one as a suggestion.

    Parameters
    ----------
    names, known : iterable
        The names asked for and those there are.
    kind : str
        What a name is, e.g. ``"column"``.
    where : str
        Where it was looked for, e.g. ``"the table (12 rows)"``.

    Raises
    ------
    UnknownName
        A ``KeyError`` with a readable text.

    Examples
    --------
    >>> check_known(["svm"], ["rf", "svr"], kind="member", where="the ensemble (3 rows)")
    Traceback (most recent call last):
    ...
    bayesens.messages.UnknownName: no member 'svm' in the ensemble (3 rows); did you mean 'svr'? It has 'rf', 'svr'
    """
    have = [str(name) for name in known]
    present = set(have)
    missing = [name for name in names if name not in present]
    if missing:
        near = dict.fromkeys(match for name in missing for match in get_close_matches(name, have, n=1, cutoff=0.5))
        hint = f"; did you mean {listed(near)}?" if near else "."
        raise UnknownName(f"no {kind} {listed(missing)} in {where}{hint} It has {listed(have, limit=20) or 'none'}")


def check_keywords(given: Iterable[str], known: Iterable[str], function: str) -> None:
    """Refuse keywords that a function has not, in the words of Python itself, with the nearest one as a suggestion.

    Examples
    --------
    >>> check_keywords(["observaton"], ["observation", "site"], "from_frame")
    Traceback (most recent call last):
    ...
    TypeError: from_frame() got an unexpected keyword argument 'observaton'. Did you mean 'observation'?
    """
    names = list(known)
    for name in given:
        if name not in names:
            near = get_close_matches(name, names, n=1, cutoff=0.5)
            hint = f" Did you mean {near[0]!r}?" if near else f" It has {listed(names, limit=20)}."
            raise TypeError(f"{function}() got an unexpected keyword argument {name!r}.{hint}")
