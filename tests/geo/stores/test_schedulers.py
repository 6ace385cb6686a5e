"""Tiles are computed by threads, processes or a dask cluster to the same file; workers that die lose nothing."""

import os
import signal
import threading
import time

import pytest

from bayesens.geo.stores import schedulers
from bayesens.geo.stores.write import write_map
from map_runs import EPOCH, contents, finished, lazy_maps

TILES = 12


@pytest.fixture(autouse=True)
def _same_day(monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", EPOCH)


def written(path, maps=None, **options):
    options = {"crs": "EPSG:4326", "memory": 80_000, "workers": 2, "progressbar": False} | options
    return write_map(lazy_maps() if maps is None else maps, path, **options)


@pytest.fixture
def cluster():
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0") as found:
        yield found


@pytest.mark.slow
def test_processes_write_the_same_file(tmp_path):
    written(tmp_path / "threads.zarr")
    assert written(tmp_path / "processes.zarr", scheduler="processes").tiles == TILES
    assert contents(tmp_path / "processes.zarr") == contents(tmp_path / "threads.zarr")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Sending large graph:UserWarning")
def test_a_cluster_of_which_one_worker_is_killed(tmp_path, cluster):
    """The scheduler gives the tiles of the dead worker to the other one, and a nanny starts a new one."""
    written(tmp_path / "threads.zarr")
    path, killed = tmp_path / "cluster.zarr", []

    def kill():
        while finished(path) < 4:
            time.sleep(0.01)
        killed.append(next(iter(cluster.workers.values())).pid)
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    written(path, lazy_maps(pause=0.1), scheduler=cluster.scheduler_address)
    killer.join()
    assert killed
    assert contents(path) == contents(tmp_path / "threads.zarr")


@pytest.mark.slow
def test_a_cluster_that_loses_all_of_its_workers(tmp_path, monkeypatch):
    distributed = pytest.importorskip("distributed")
    monkeypatch.setattr(schedulers, "PATIENCE", 3.0)
    path = tmp_path / "maps.zarr"
    with distributed.LocalCluster(n_workers=1, threads_per_worker=1, processes=True, dashboard_address=":0") as cluster:

        def end():
            while not finished(path):
                time.sleep(0.01)
            cluster.scale(0)

        ender = threading.Thread(target=end)
        ender.start()
        with pytest.raises(TimeoutError, match=r"has had no worker for 3 s: finished tiles are kept"):
            written(path, lazy_maps(pause=0.2), scheduler=cluster.scheduler_address, workers=2)
        ender.join()
    assert written(path, resume=True).kept >= 1


def ends_its_process(job):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_tiles_that_kill_their_process_are_told():
    words = "A process that computed a tile ended, killed or out of memory: finished tiles are kept"
    with pytest.raises(ChildProcessError, match=words):
        list(schedulers.work(ends_its_process, iter(range(3)), "processes", 2))


@pytest.mark.slow
def test_tiles_that_kill_every_worker_are_told(cluster):
    distributed = pytest.importorskip("distributed")
    client = distributed.Client(cluster, set_as_default=False)
    with client, pytest.raises(ChildProcessError, match="killed or out of memory"):
        list(schedulers.work(ends_its_process, iter(range(1)), client, 2))


def test_a_scheduler_that_does_not_answer(tmp_path, monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr(schedulers, "PATIENCE", 0.5)
    with pytest.raises(TimeoutError, match=r"tcp://127.0.0.1:9 has not answered in 0 s: start it \(dask scheduler\)"):
        written(tmp_path / "maps.zarr", scheduler="tcp://127.0.0.1:9")
    assert not list(tmp_path.iterdir())


def test_names_of_schedulers(tmp_path):
    with pytest.raises(ValueError, match="scheduler is 'thread'; wanted 'threads', 'processes', or the address"):
        written(tmp_path / "maps.zarr", scheduler="thread")
    with pytest.raises(ValueError, match="workers is 0; wanted 1 or more"):
        written(tmp_path / "maps.zarr", workers=0)


def test_a_tile_that_fails_ends_the_run_and_not_the_others(tmp_path):
    maps = lazy_maps()

    def failing(values, block_info=None):
        if block_info[0]["chunk-location"] == (1, 1, 1):
            raise ValueError("a file of members is damaged")
        return values

    broken = maps.copy()
    broken["mean"] = maps["mean"].copy(data=maps["mean"].data.map_blocks(failing, dtype="f4"))
    path = tmp_path / "maps.zarr"
    with pytest.raises(ValueError, match="a file of members is damaged"):
        written(path, broken)
    assert 0 < finished(path) < TILES
    assert written(path, maps, resume=True).kept > 0
