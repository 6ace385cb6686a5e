"""Who computes tiles: threads of this process, other processes, or the workers of a dask scheduler."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any

from bayesens.parallel import in_processes
from bayesens.threads import CORES

__all__ = ["PATIENCE", "connected", "tiles_at_a_time", "work"]

PATIENCE = 20.0  # seconds that a scheduler, or its last worker, may be away
ANSWER = 3.0  # seconds that an answer of a few words may be on its way
DIED = {"KilledWorker", "BrokenProcessPool"}  # of dask and of joblib, which are loaded only where they are used
RETRIES = 2  # of a tile whose worker failed; a worker that died costs none of them
Result = tuple[int, dict[str, Any]]
Call = Callable[[Any], Result]


@contextmanager
def connected(scheduler: Any) -> Iterator[Any]:
    """Give ``"threads"``, ``"processes"`` or a dask client, which is closed again if it was made here.

    Parameters
    ----------
    scheduler : str or distributed.Client

    Raises
    ------
    TimeoutError
        If a scheduler has not answered, or has no worker, after 20 s.
    ValueError, ImportError
    """
    if scheduler in ("threads", "processes") or hasattr(scheduler, "scheduler_info"):
        yield scheduler
        return
    if not isinstance(scheduler, str) or "://" not in scheduler:
        raise ValueError(f"scheduler is {scheduler!r}; wanted 'threads', 'processes', or the address of a dask scheduler such as "
                         "'tcp://host:8786'")  # fmt: skip
    try:
        from distributed import Client
    except ImportError as error:
        raise ImportError(f"scheduler {scheduler!r} needs dask's distributed: pip install 'bayesens[dask]'") from error
    try:
        client = Client(scheduler, timeout=PATIENCE, set_as_default=False)
    except (OSError, TimeoutError) as error:
        raise TimeoutError(f"The scheduler {scheduler} has not answered in {PATIENCE:.0f} s: start it (dask scheduler), or look "
                           "whether the address is right and reached from here.") from error  # fmt: skip
    try:
        _await_worker(client, scheduler)
        yield client
    finally:
        client.close()


def _await_worker(client: Any, scheduler: str) -> None:
    try:
        client.wait_for_workers(1, timeout=PATIENCE)
    except TimeoutError as error:
        raise TimeoutError(f"The scheduler {scheduler} has no worker after {PATIENCE:.0f} s: start some, by: dask worker "
                           f"{scheduler}") from error  # fmt: skip


def tiles_at_a_time(scheduler: Any, workers: int | None) -> int:
    """How many tiles are computed side by side."""
    if workers is not None:
        if workers < 1:
            raise ValueError(f"workers is {workers}; wanted 1 or more")
        return workers
    if isinstance(scheduler, str):
        return CORES
    return max(1, sum(scheduler.nthreads().values()))


def work(call: Call, jobs: Iterator[Any], scheduler: Any, workers: int) -> Iterator[Result]:
    """Have every job done, and give what was said of each, in the order in which they end.

    Jobs are made as workers become free, so that few are in memory; the first error ends the work.

    Parameters
    ----------
    call : callable
        Takes a job.
    jobs : iterator
    scheduler : "threads", "processes" or distributed.Client
    workers : int

    Yields
    ------
    number, what is said of the job

    Examples
    --------
    >>> sorted(work(lambda job: (job, {}), iter(range(3)), "threads", 2))
    [(0, {}), (1, {}), (2, {})]
    """
    try:
        if scheduler == "processes":
            calls = ((None, call, (job,)) for job in jobs)
            yield from (result for _, result in in_processes(workers, calls, lambda name: None))
        elif scheduler == "threads":
            yield from _in_threads(call, jobs, workers)
        else:
            yield from _on_cluster(call, jobs, scheduler, workers)
    except Exception as error:
        if not {one.__name__ for one in type(error).__mro__} & DIED:
            raise
        raise ChildProcessError(
            "A process that computed a tile ended, killed or out of memory: finished tiles are kept. Repeat the call with "
            "resume=True, and fewer workers or less memory."
        ) from error


def _in_threads(call: Call, jobs: Iterator[Any], workers: int) -> Iterator[Result]:
    pool = ThreadPoolExecutor(workers, thread_name_prefix="tiles")
    running: set[Future[Result]] = set()
    try:
        while True:
            while len(running) < workers and (job := next(jobs, None)) is not None:
                running.add(pool.submit(call, job))
            if not running:
                return
            ended, running = wait(running, return_when=FIRST_COMPLETED)
            for one in ended:
                yield one.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _on_cluster(call: Call, jobs: Iterator[Any], client: Any, workers: int) -> Iterator[Result]:
    """Two jobs for each worker are with the scheduler; it gives those of a worker that died to others."""
    import distributed

    running: set[Any] = set()
    alone: float | None = None
    try:
        while True:
            while len(running) < 2 * workers and (job := next(jobs, None)) is not None:
                running.add(client.submit(call, job, pure=False, retries=RETRIES))
            if not running:
                return
            try:
                with client.as_current():
                    ended, running = distributed.wait(running, timeout=1.0, return_when="FIRST_COMPLETED")
            except TimeoutError:
                alone = _still_there(client, alone)
                continue
            for one in ended:
                if (result := _answer(one)) is None:
                    running.add(one)
                else:
                    yield result
    finally:
        client.cancel(list(running))


def _answer(ended: Any) -> Result | None:
    """What was said of a job; None where its worker died before it could say it, and the scheduler has it done again."""
    try:
        answer: Result = ended.result(timeout=ANSWER)
    except TimeoutError:
        if ended.status == "error":  # raised by the job itself
            raise
        return None
    return answer


def _still_there(client: Any, alone: float | None) -> float | None:
    """Since when no worker is there; an error after a while."""
    gone = client.status != "running" or not client.scheduler_info(n_workers=-1)["workers"]
    if not gone:
        return None
    since = time.monotonic() if alone is None else alone
    if time.monotonic() - since > PATIENCE:
        raise TimeoutError(f"The scheduler {client.scheduler.address} has had no worker for {PATIENCE:.0f} s: finished tiles "
                           "are kept; start workers and repeat the call with resume=True.")  # fmt: skip
    return since
