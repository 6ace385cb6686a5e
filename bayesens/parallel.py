"""Calls in several processes, each with its own name, as they finish."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Any

__all__ = ["in_processes"]

Call = tuple[Hashable, Callable[..., Any], tuple[Any, ...]]


def in_processes(
    workers: int, calls: Iterable[Call], finished: Callable[[Hashable], None]
) -> Iterator[tuple[Any, Any]]:
    """Make calls in other processes.

    Parameters
    ----------
    workers : int
        Processes, which stay for the next use.
    calls : iterable of (name, function, arguments)
        Taken as processes become free; functions and arguments are sent to them.
    finished : callable
        Gets the name of each call that has ended.

    Yields
    ------
    name, result
        In the order in which they end.

    Examples
    --------
    >>> calls = (("two", max, (1, 2)), ("three", max, (3, 2)))
    >>> sorted(in_processes(1, calls, lambda name: None))
    [('three', 3), ('two', 2)]
    """
    from joblib import Parallel, delayed

    # loky's processes leave when they have grown, or had nothing to do for long, and others take their places: no call is lost.
    # It is ignored for good: a generator that is left half-way would set back the filters of its caller too late.
    warnings.filterwarnings("ignore", "A worker stopped while some jobs were given to the executor", UserWarning)
    # loky's processes do not run the caller's script again, and know functions and models that are defined there.
    parallel = Parallel(n_jobs=workers, backend="loky", return_as="generator_unordered", pre_dispatch=2 * workers)
    for name, result in parallel(delayed(_named)(*call) for call in calls):
        finished(name)
        yield name, result


_OF_PARENTS: list[Any] = []  # kept, as the end of one would write into pipes that the parent reads


def _forget_processes() -> None:
    """Leave the processes of joblib to the parent: one that is forked off would wait for answers that the parent gets."""
    loky: Any = sys.modules.get("joblib.externals.loky.reusable_executor")
    if loky is not None and getattr(loky, "_executor", None) is not None:
        _OF_PARENTS.append(loky._executor)
        loky._executor = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_processes)


def _named(name: Hashable, function: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[Hashable, Any]:
    return name, function(*arguments)
