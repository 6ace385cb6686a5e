"""A command that is stopped, by Control-C or where memory runs out, says so in one line and leaves nothing behind."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from commands import COLUMNS, fitted_region, run

# The standard start's optimum is what --method em gives, whatever else there is.
pytestmark = pytest.mark.filterwarnings("ignore:EM found")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return fitted_region(tmp_path_factory.mktemp("stopped"))


def test_an_interrupt_leaves_nothing_behind(folder, tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("bayesens.inference.fit.fit", interrupted)
    result = run("fit", folder / "train.csv", *COLUMNS, "--out", tmp_path / "fit.nc", code=130)
    assert "Interrupted: no output was written." in result.stderr
    assert not os.listdir(tmp_path)


def test_an_interrupt_while_a_file_is_written_leaves_nothing_behind(folder, tmp_path, monkeypatch):
    """Half of the file is there when it comes; what was there before stays."""

    def interrupted(aside):
        aside.write_text("half")
        assert len(os.listdir(tmp_path)) == 2
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_bytes", lambda aside, _: interrupted(aside))
    monkeypatch.setattr(pd.DataFrame, "to_csv", lambda _, aside, **__: interrupted(aside))
    for name, command in (
        ("fit.nc", ["fit", folder / "train.csv", *COLUMNS, "--method", "em"]),
        ("p.csv", ["predict", "--force", folder / "bma.nc", folder / "new.csv"]),
        ("p.nc", ["predict", "--force", folder / "bma.nc", folder / "new.csv"]),
        ("s.csv", ["score", folder / "bma.nc", folder / "new.csv"]),
    ):
        (tmp_path / name).write_text("old")
        result = run(*command, "--out", tmp_path / name, code=130)
        assert "Interrupted: no output was written." in result.stderr
        assert os.listdir(tmp_path) == [name]
        assert (tmp_path / name).read_text() == "old"
        (tmp_path / name).unlink()


@pytest.mark.skipif(os.name == "nt", reason="sends SIGINT")
def test_control_c_during_a_prediction_leaves_nothing_behind(folder, tmp_path):
    """A real signal to a real process, which says when it is at work."""
    code = (
        "import sys, time, bayesens.inference.predict as prediction\n"
        "from bayesens.app.cli.main import main\n"
        "def slow(*_, **__): print('ready', flush=True); time.sleep(60)\n"
        "prediction.predict = slow\n"
        "sys.argv = ['bayesens', *sys.argv[1:]]\n"
        "main()"
    )
    arguments = ["predict", folder / "bma.nc", folder / "new.csv", "--out", tmp_path / "p.csv"]
    running = subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip
    assert running.stdout.readline() == "ready\n"
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=30)
    assert running.returncode == 130
    assert errors == "Interrupted: no output was written.\n"
    assert not os.listdir(tmp_path)


class TestMemory:
    """Where memory runs out, one line says so."""

    @pytest.mark.parametrize(
        ("error", "text"),
        [
            (MemoryError("Unable to allocate 7.3 TiB for an array"), r"memory ran out \(Unable to allocate 7.3 TiB"),
            (MemoryError(), "memory ran out; take fewer rows or --draws"),
        ],
    )
    def test_one_line(self, folder, monkeypatch, error, text):
        def full(*_, **__):
            raise error

        monkeypatch.setattr("bayesens.inference.predict.predict", full)
        done = run("predict", folder / "bma.nc", folder / "train.csv", "--out", folder / "never.csv", code=1)
        assert re.search(text, done.stderr)
        assert len(done.stderr.strip().splitlines()) == 1
        assert "Traceback" not in done.output
        assert not (folder / "never.csv").exists()
