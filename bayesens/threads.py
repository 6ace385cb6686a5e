"""The threads that kernels run in: as many as cores, made at their first use."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from threading import current_thread
from typing import Any

__all__ = ["CORES", "share_out"]

CORES = min(os.cpu_count() or 1, 8)
NAME = "bayesens"  # of the threads


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(CORES, thread_name_prefix=NAME)


# A process that is forked off has the pool but none of its threads, and what is given to it would wait for ever.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)


def share_out(run: Callable[[slice], Any], size: int, parts: int = CORES) -> list[Any]:
    """Call a function that releases the interpreter's lock on parts of a range, side by side.

    Parameters
    ----------
    run : callable
        Takes a slice.
    size : int
        Length of the range.
    parts : int
        Number of parts; one, or fewer elements than parts, is run where it stands. So is a call from within a part: threads
        that wait for threads would wait for ever.

    Returns
    -------
    list
        What each part returned, in order.

    Examples
    --------
    >>> share_out(lambda part: sum(range(10)[part]), 10, parts=2)
    [10, 35]
    >>> share_out(lambda part: share_out(lambda inner: inner.stop, 4, parts=2), 2, parts=2)
    [[4], [4]]
    """
    if parts <= 1 or size < parts or current_thread().name.startswith(NAME):
        return [run(slice(0, size))]
    return list(_pool().map(run, [slice(i * size // parts, (i + 1) * size // parts) for i in range(parts)]))
