"""The threads that kernels run in, made at their first use, and the one thread that products of matrices have beside them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import cache
from threading import Lock, local
from typing import Any

from threadpoolctl import ThreadpoolController

__all__ = ["CORES", "one_blas_thread", "one_openmp_thread", "share_out"]

CORES = min(os.cpu_count() or 1, 8)
_HERE = local()  # whether this thread is at a part


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(CORES, thread_name_prefix="bayesens")


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
    if parts <= 1 or size < parts or getattr(_HERE, "busy", False):
        return [run(slice(0, size))]
    first, *others = (slice(i * size // parts, (i + 1) * size // parts) for i in range(parts))
    with one_blas_thread():  # each part has a core already
        waiting = [_pool().submit(_part, run, part) for part in others]
        here = _part(run, first)  # while the pool does the others
        return [here, *(one.result() for one in waiting)]


def _part(run: Callable[[slice], Any], part: slice) -> Any:
    _HERE.busy = True
    try:
        return run(part)
    finally:
        _HERE.busy = False


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Have products of matrices made by one thread, in a block or, as a decorator, in a function.

    Threads of BLAS wait in a loop and take the cores from ours; and sums of one thread are those of any process of several.
    Blocks may overlap, in one thread or in several: the first one sets the number, the last one gives it back.

    Examples
    --------
    >>> with one_blas_thread():
    ...     sum([1, 2])
    3
    >>> one_blas_thread()(max)(1, 2)
    2
    """
    _ONE_BLAS_THREAD.begin()
    try:
        yield
    finally:
        _ONE_BLAS_THREAD.end()


class _OneBlasThread:
    """The limit that all blocks of the process share: the number of threads belongs to the library, not to a thread."""

    def __init__(self) -> None:
        self.lock, self.blocks, self.limit = Lock(), 0, ExitStack()

    def begin(self) -> None:
        with self.lock:
            if not self.blocks:
                self.limit.enter_context(_blas().limit(limits=1, user_api="blas"))
            self.blocks += 1

    def end(self) -> None:
        with self.lock:
            self.blocks -= 1
            if not self.blocks:
                self.limit.close()


_ONE_BLAS_THREAD = _OneBlasThread()


def _after_fork() -> None:
    """A process that is forked off has the pool, but none of its threads; and a lock, but not the thread that opens it."""
    _pool.cache_clear()
    _ONE_BLAS_THREAD.lock = Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@cache
def _blas() -> ThreadpoolController:
    """The BLAS libraries of this process, looked for once: it takes milliseconds."""
    import scipy.linalg  # noqa: F401  (it brings a copy of its own)

    return ThreadpoolController()


@contextmanager
def one_openmp_thread() -> Iterator[None]:
    """Have loops of OpenMP, as of scikit-learn's boosted trees, run by the one thread that is here, and by it alone.

    Threads that run beside each other, each with as many of OpenMP as there are cores, wait for these in a loop: two members
    beside each other took 1.5 times as long.

    Examples
    --------
    >>> with one_openmp_thread():
    ...     sum([1, 2])
    3
    """
    with ThreadpoolController().limit(limits=1, user_api="openmp"):
        yield
