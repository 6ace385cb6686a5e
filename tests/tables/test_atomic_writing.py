"""Files and stores are written whole or not at all: errors, interrupts and full disks leave what was there and no more."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import xarray as xr
from files_to_write import SUFFIXES, fit, table

from bayesens.ensemble.files import write_table
from bayesens.inference.fit_tree import read_fit, write_fit
from bayesens.tables import atomic
from bayesens.tables.atomic import check_writable, write_atomically
from bayesens.tables.reading import read_table


@pytest.mark.parametrize("error", [ValueError, OSError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("name", ["out.csv", "out.csv.gz", "out.nc", "out"])
def test_nothing_is_left_after_a_failure(error, name, tmp_path):
    def fail():
        with write_atomically(tmp_path / name) as aside:
            aside.write_text("half")
            assert aside.parent == tmp_path
            assert aside.name.endswith(name.removeprefix("out"))
            assert len(os.listdir(tmp_path)) == 1 + (tmp_path / name).exists()
            raise error

    with pytest.raises(error):
        fail()
    assert os.listdir(tmp_path) == []
    (tmp_path / name).write_text("old")
    with pytest.raises(error):
        fail()
    assert os.listdir(tmp_path) == [name]
    assert (tmp_path / name).read_text() == "old"


def test_a_failure_before_anything_is_written(tmp_path):
    with pytest.raises(KeyboardInterrupt), write_atomically(tmp_path / "out.csv"):
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == []


def test_success_replaces_the_old_file(tmp_path):
    (tmp_path / "out.txt").write_text("old")
    with write_atomically(tmp_path / "out.txt") as aside:
        aside.write_text("new")
        assert (tmp_path / "out.txt").read_text() == "old"
    assert os.listdir(tmp_path) == ["out.txt"]
    assert (tmp_path / "out.txt").read_text() == "new"


def test_a_new_file_has_the_usual_permissions(tmp_path):
    (tmp_path / "plain").write_text("x")
    with write_atomically(tmp_path / "out") as aside:
        aside.write_text("x")
    assert (tmp_path / "out").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "t.csv").write_text("old")
    (tmp_path / "link.csv").symlink_to(tmp_path / "real" / "t.csv")
    write_table(table(), tmp_path / "link.csv")
    assert (tmp_path / "link.csv").is_symlink()
    assert len(read_table(tmp_path / "real" / "t.csv")) == 4
    assert os.listdir(tmp_path / "real") == ["t.csv"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_writer_that_breaks_leaves_the_old_table(suffix, tmp_path, monkeypatch):
    path = tmp_path / f"t{suffix}"
    write_table(table(), path)
    before = read_table(path)

    def breaks(aside):
        if suffix == ".zarr":
            aside.mkdir()
            (aside / "zarr.json").write_text("{")
        else:
            aside.write_text("half")
        raise KeyboardInterrupt

    for owner, name in [(pd.DataFrame, "to_csv"), (pd.DataFrame, "to_parquet"), (xr.Dataset, "to_zarr")]:
        monkeypatch.setattr(owner, name, lambda _, aside, **__: breaks(aside))
    monkeypatch.setattr(Path, "write_bytes", lambda aside, _: breaks(aside))  # a NetCDF file is made in memory
    with pytest.raises(KeyboardInterrupt):
        write_table(table(), path)
    assert os.listdir(tmp_path) == [path.name]
    after = read_table(path)
    assert before.identical(after) if suffix in (".nc", ".zarr") else before.equals(after)


def test_a_store_is_replaced_whole(tmp_path):
    path = tmp_path / "t.zarr"
    write_table(table().assign(extra=1.0), path)
    write_table(table(), path)
    assert os.listdir(tmp_path) == ["t.zarr"]
    assert "extra" not in read_table(path)
    assert not (path / "extra").exists()


def test_the_old_store_comes_back_if_the_new_one_cannot_be_moved(tmp_path, monkeypatch):
    path = tmp_path / "t.zarr"
    write_table(table(), path)
    before = read_table(path)
    replace, moves = os.replace, []

    def second_fails(source, target):
        moves.append(target)
        if len(moves) == 2:
            raise OSError("disk gone")
        replace(source, target)

    def rewrite():
        with write_atomically(path) as aside:
            aside.mkdir()
            monkeypatch.setattr(atomic.os, "replace", second_fails)

    with pytest.raises(OSError, match="disk gone"):
        rewrite()
    assert len(moves) == 3
    assert os.listdir(tmp_path) == ["t.zarr"]
    assert before.identical(read_table(path))


def test_other_peoples_folders_are_not_replaced(tmp_path):
    (tmp_path / "t.zarr").mkdir()
    (tmp_path / "t.zarr" / "thesis.txt").write_text("years of work")
    with pytest.raises(FileExistsError, match="is not a Zarr store"):
        write_table(table(), tmp_path / "t.zarr")
    assert (tmp_path / "t.zarr" / "thesis.txt").read_text() == "years of work"
    (tmp_path / "f.zarr").write_text("file")
    with pytest.raises(FileExistsError, match="is not a Zarr store"):
        write_table(table(), tmp_path / "f.zarr")


@pytest.mark.parametrize("write", [lambda path: write_table(table(), path), lambda path: write_fit(fit(), path)])
def test_folders_that_cannot_be_written(write, tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder.nc").mkdir()
    cases = [
        ("none/t.nc", FileNotFoundError, r"cannot write .*none/t.nc: the folder .*none does not exist; create it"),
        ("file/t.nc", NotADirectoryError, r"cannot write .*: .*file is a file, not a folder"),
        ("folder.nc", IsADirectoryError, r"cannot write .*: it is a folder; name a file in it"),
    ]
    for name, error, text in cases:
        with pytest.raises(error, match=text):
            write(tmp_path / name)
        with pytest.raises(error, match=text):
            check_writable(tmp_path / name)
    assert sorted(os.listdir(tmp_path)) == ["file", "folder.nc"]
    assert os.listdir(tmp_path / "folder.nc") == []


def test_permission_is_checked_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr(atomic.os, "access", lambda *_: False)
    with pytest.raises(PermissionError, match=r"cannot write .*t.nc: no permission to write in"):
        check_writable(tmp_path / "t.nc")


def test_a_name_that_the_file_system_does_not_take_is_refused_before_the_work(tmp_path):
    for length in (246, 300):  # the temporary name is longer than the one asked for
        with pytest.raises(OSError, match=r"cannot write .*a.csv: .*; name another folder or a shorter name"):
            check_writable(tmp_path / ("a" * length + ".csv"))
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(os.name == "nt", reason="sets a limit on the size of files")
def test_a_disk_that_fills_up_is_one_error_and_leaves_nothing(tmp_path):
    """HDF5 and its Python bindings crash the process where a write fails under them: hence a process of its own."""
    write_table(pd.DataFrame({"old": [1.0]}), tmp_path / "t.nc")
    write_fit(fit(), tmp_path / "fit.nc")
    code = (
        "import sys, resource, numpy as np, pandas as pd; from pathlib import Path\n"
        "from bayesens.inference.fit_tree import read_fit, write_fit; from bayesens.ensemble.files import write_table\n"
        "folder = Path(sys.argv[1])\n"
        "tree = read_fit(folder / 'fit.nc')\n"
        "rows = pd.DataFrame({'rf': np.random.default_rng(1).random(20_000)})\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "for suffix in ('.csv', '.tsv.gz', '.parquet', '.nc', '.zarr', 'fit'):\n"
        "    try:\n"
        "        if suffix == 'fit':\n"
        "            write_fit(tree, folder / 'fit.nc')\n"
        "        else:\n"
        "            write_table(rows, folder / f't{suffix}')\n"
        "    except OSError as error:\n"
        "        print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    for line, name in zip(lines, ["t.csv", "t.tsv.gz", "t.parquet", "t.nc", "t.zarr", "fit.nc"], strict=True):
        assert re.match(rf"cannot write .*/{name}: .+; nothing was written: make room there or name another", line), (
            line
        )
    assert sorted(os.listdir(tmp_path)) == ["fit.nc", "t.nc"]
    assert read_table(tmp_path / "t.nc")["old"].values.tolist() == [1.0]
    assert read_fit(tmp_path / "fit.nc").attrs["bayesens_model"] == "BMA"


@pytest.mark.skipif(os.name == "nt", reason="sends SIGINT")
def test_an_interrupted_process_leaves_nothing(tmp_path):
    code = (
        "import sys, time; from bayesens.tables.atomic import write_atomically\n"
        "with write_atomically(sys.argv[1]) as aside:\n"
        "    aside.write_text('half'); print('ready', flush=True); time.sleep(60)"
    )
    path = tmp_path / "out.csv"
    process = subprocess.Popen(
        [sys.executable, "-c", code, path], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    assert len(os.listdir(tmp_path)) == 1
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert "KeyboardInterrupt" in errors
    assert os.listdir(tmp_path) == []
