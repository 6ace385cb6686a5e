"""A run that stops at any moment loses nothing that was finished, and the next one makes the file of an unbroken run."""

import errno
import shutil
import time

import numpy as np
import pytest
import xarray as xr

from bayesens.geo.stores import engine, zarr_store
from bayesens.geo.stores.ledger import ledger_of
from bayesens.geo.stores.write import write_map
from map_runs import EPOCH, contents, finished, lazy_maps, start

TILES = 12


@pytest.fixture(autouse=True)
def _same_day(monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", EPOCH)


def written(path, maps=None, **options):
    options = {"crs": "EPSG:4326", "workers": 2, "progressbar": False} | options
    options["memory"] = 40_000 * options["workers"]  # so that a tile is a chunk
    return write_map(lazy_maps() if maps is None else maps, path, **options)


def kill(path, after, pause=0.05):
    """Begin to write, and kill the process once some tiles are finished; how many there are then."""
    run = start(path, pause=pause)
    while finished(path) < after and run.poll() is None:
        time.sleep(0.002)
    run.kill()
    run.wait()
    return finished(path)


SLOW = [pytest.param(suffix, marks=pytest.mark.slow) for suffix in (".nc", "")]


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".zarr", *SLOW])
def test_a_run_that_was_killed_goes_on_to_the_same_bytes(tmp_path, suffix):
    whole, broken = tmp_path / f"whole/maps{suffix}", tmp_path / f"broken/maps{suffix}"
    whole.parent.mkdir()
    broken.parent.mkdir()
    written(whole)
    done = kill(broken, after=4)
    assert 4 <= done < TILES
    assert not broken.exists()
    result = written(broken, resume=True)
    assert (result.tiles, result.kept) == (TILES, done)
    assert contents(broken) == contents(whole)
    assert [one.name for one in broken.parent.iterdir()] == [broken.name]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_runs_that_are_killed_at_any_moment(tmp_path, seed):
    """Ten runs, each killed three times at moments that nothing decides, while it imports, begins, computes or moves files."""
    rng = np.random.default_rng(seed)
    whole, broken = tmp_path / "whole.zarr", tmp_path / "broken.zarr"
    written(whole)
    for _ in range(3):
        run = start(broken, pause=0.02, resume=True)
        time.sleep(rng.uniform(0.5, 4.0))
        run.kill()
        run.wait()
    written(broken, resume=True)
    assert contents(broken) == contents(whole)


def test_finished_tiles_are_not_computed_again(tmp_path, monkeypatch):
    path, calls = tmp_path / "maps.zarr", []

    def failing(job):
        calls.append(job.number)
        if len(calls) == 6:
            raise OSError(errno.ENOSPC, "No space left on device")
        return zarr_store.write_tile(job)

    monkeypatch.setattr(engine, "write_tile", failing)
    with pytest.raises(
        OSError, match=r"The disk of .*maps.zarr is full .* finished tiles are kept in maps.zarr.unfinished"
    ):
        written(path, workers=1)
    first = set(calls[:5])
    monkeypatch.setattr(engine, "write_tile", lambda job: calls.append(job.number) or zarr_store.write_tile(job))
    calls.clear()
    assert written(path, resume=True, workers=1).kept == 5
    assert not set(calls) & first
    assert len(calls) == TILES - 5
    whole = tmp_path / "whole.zarr"
    written(whole)
    assert contents(path) == contents(whole)


def test_a_disk_that_fills_while_zarr_writes(tmp_path, monkeypatch):
    """The error comes from within zarr's own writing, of whichever file it is at then."""
    from zarr.storage import _local

    path, puts, own = tmp_path / "maps.zarr", [], _local._put

    def full(place, value, exclusive=False):
        if "mean" in place.parts and "c" in place.parts:
            puts.append(place)
        if len(puts) > 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        return own(place, value, exclusive)

    monkeypatch.setattr(_local, "_put", full)
    with pytest.raises(OSError, match="resume=True"):
        written(path)
    assert finished(path)
    monkeypatch.setattr(_local, "_put", own)
    written(path, resume=True)
    whole = tmp_path / "whole.zarr"
    written(whole)
    assert contents(path) == contents(whole)


def stopped(path, **options):
    """An unfinished output."""
    with pytest.MonkeyPatch.context() as patch:
        left = iter(range(3))

        def some(job):
            if next(left, None) is None:
                raise KeyboardInterrupt
            return zarr_store.write_tile(job)

        patch.setattr(engine, "write_tile", some)
        with pytest.raises(KeyboardInterrupt):
            written(path, workers=1, **options)


def test_other_maps_and_other_calls_are_refused(tmp_path):
    path = tmp_path / "maps.zarr"
    stopped(path)
    with pytest.raises(
        FileExistsError, match=r"3 tiles are finished\. Go on with it: resume=True; or begin anew: overwrite=True"
    ):
        written(path)
    with pytest.raises(ValueError, match="begun with another 'crs' than this call has"):
        written(path, resume=True, crs="EPSG:4283")
    with pytest.raises(ValueError, match="begun with another 'coordinates'"):
        written(path, lazy_maps().assign_coords(lon=lazy_maps()["lon"] + 360), resume=True)
    fit = xr.DataTree.from_dict({"/posterior": xr.Dataset({"sigma": 1.0})})
    fit.attrs = {"bayesens_members": '["a"]', "bayesens_model": "BMA"}
    with pytest.raises(ValueError, match="begun with another 'fit'"):
        written(path, resume=True, fit=fit)
    maps = lazy_maps()
    maps["mean"] = (maps["mean"] + 0.01).assign_attrs(maps["mean"].attrs)  # same names, places and types
    with pytest.raises(ValueError, match="has other values than these maps"):
        written(path, maps, resume=True)
    assert finished(path) == 3
    assert written(path, overwrite=True).kept == 0


def test_a_run_that_ends_while_the_file_is_put_in_its_place(tmp_path, monkeypatch):
    """Before the move the file is made again, to the same bytes; after it there is nothing to do."""
    path, whole = tmp_path / "maps.zarr", tmp_path / "whole.zarr"
    written(whole)

    def interrupted(*_):
        raise KeyboardInterrupt

    for place, tiles in (("bayesens.geo.stores.ledger.move", TILES), ("bayesens.geo.stores.ledger.Ledger.remove", 0)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(place, interrupted)
            with pytest.raises(KeyboardInterrupt):
                written(path)
        assert written(path, resume=True).tiles == tiles
        assert contents(path) == contents(whole)
        assert sorted(one.name for one in tmp_path.iterdir()) == ["maps.zarr", "whole.zarr"]
        shutil.rmtree(path)


def test_a_folder_of_somebody_else_is_not_emptied(tmp_path):
    other = tmp_path / "maps.zarr.unfinished"
    other.mkdir()
    (other / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"holds 'notes.txt', which no unfinished output has"):
        written(tmp_path / "maps.zarr")
    assert (other / "notes.txt").exists()


def test_an_output_that_is_there(tmp_path):
    path = tmp_path / "maps.zarr"
    written(path)
    with pytest.raises(FileExistsError, match="is there already; name another output, or replace it: overwrite=True"):
        written(path)
    before = contents(path)
    assert written(path, resume=True).tiles == 0  # finished: there is nothing to do
    with pytest.raises(FileExistsError, match="of another fit, grid or version"):
        written(path, resume=True, crs="EPSG:4283")
    stopped(path, overwrite=True)
    assert contents(path) == before  # the old one stays until the new one is complete
    assert written(path, overwrite=True).tiles == TILES


def test_one_run_at_a_time(tmp_path):
    path = tmp_path / "maps.zarr"
    with ledger_of(path).held(), pytest.raises(BlockingIOError, match="another run is writing"):
        written(path)
    assert written(path).tiles == TILES  # the lock is no file that stays in the way


def test_a_grid_that_the_disk_cannot_hold_is_told_before_the_work(tmp_path, monkeypatch):
    from types import SimpleNamespace

    maps = lazy_maps()
    raw = maps["mean"].size * (4 * 4 + 1)
    for free, refused in ((raw // 3, True), (2 * raw // 3, False)):
        monkeypatch.setattr(shutil, "disk_usage", lambda path, free=free: SimpleNamespace(free=free))
        if refused:
            with pytest.raises(OSError, match=r"needs up to .* GB \(4,800 cells.* too little even if they take half"):
                written(tmp_path / "maps.zarr", maps)
            assert not list(tmp_path.iterdir())
        else:
            with pytest.warns(UserWarning, match="it may not do. If the disk is full, finished tiles are kept"):
                written(tmp_path / "maps.zarr", maps)


def test_a_run_that_ended_before_its_first_tile_holds_nobody_up(tmp_path, monkeypatch):
    """A call that is refused at its first chunk, as codes are, may be repeated as it should have been, without overwrite."""
    path = tmp_path / "maps.zarr"

    def refused(job):
        raise ValueError("member 'a' holds -9999")

    with monkeypatch.context() as patched:
        patched.setattr(engine, "write_tile", refused)
        with pytest.raises(ValueError, match="-9999"):
            written(path)
    assert path.with_name("maps.zarr.unfinished").exists()
    assert written(path).kept == 0
    assert [one.name for one in tmp_path.iterdir()] == ["maps.zarr"]
