"""Manners of the command line: what is written and kept, what is never written over, how quiet it can be, how it is resumed."""

import os
import re
import shutil
import signal
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from commands import run
from typer.main import get_command

from bayesens.app.cli.completion import SHELLS, completion_script
from bayesens.app.cli.main import app

pytestmark = pytest.mark.filterwarnings("ignore:EM found")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Rows to learn from, other rows, and a fit; an id with zeros in front of it, and a note, that no model takes."""
    place = tmp_path_factory.mktemp("manners")
    rng = np.random.default_rng(1)
    y = rng.normal(10, 3, 80)
    frame = pd.DataFrame({
        "id": [f"{k:04d}x" for k in range(80)], "rf": y + rng.normal(0, 1, 80), "svr": y + rng.normal(0, 2, 80), "y": y,
        "station": np.repeat(["007", "012", "100", "200"], 20), "note": ["dry", None] * 40,
    })  # fmt: skip
    frame[:60].to_csv(place / "train.csv", index=False)
    frame[60:].to_csv(place / "new.csv", index=False)
    run("fit", place / "train.csv", "--members", "rf,svr", "--observation", "y", "--site", "station", "--method", "em",
        "--out", place / "fit.nc")  # fmt: skip
    return place


def test_columns_of_the_input_stay_in_predictions(folder, tmp_path):
    for name in ("p.csv", "p.parquet", "p.nc"):
        run("predict", folder / "fit.nc", folder / "new.csv", "--out", tmp_path / name)
    given = pd.read_csv(folder / "new.csv", dtype={"station": str})
    for made in (pd.read_csv(tmp_path / "p.csv", dtype={"station": str}), pd.read_parquet(tmp_path / "p.parquet")):
        assert list(made)[:6] == list(given)
        pd.testing.assert_frame_equal(made[list(given)], given, check_dtype=False)
        assert list(made)[6:10] == ["mean", "sd", "sd_within", "sd_between"]
    stored = xr.load_dataset(tmp_path / "p.nc", engine="h5netcdf")
    assert stored["id"].values.tolist() == given["id"].tolist()
    assert stored["station"].values.tolist() == given["station"].tolist() == ["200"] * 20
    np.testing.assert_array_equal(stored["rf"], given["rf"])


def test_an_input_column_called_as_a_predicted_one_is_renamed_aloud(folder, tmp_path):
    pd.read_csv(folder / "new.csv").assign(mean=7.0).to_csv(tmp_path / "more.csv", index=False)
    said = run("predict", folder / "fit.nc", tmp_path / "more.csv", "--out", tmp_path / "p.csv")
    assert "the input has columns 'mean', which the prediction has too; they are written as 'input_mean'" in said.stderr
    made = pd.read_csv(tmp_path / "p.csv")
    assert (made["input_mean"] == 7.0).all()
    assert made["mean"].nunique() == 20


def test_predictions_are_not_written_over(folder, tmp_path):
    out = tmp_path / "p.csv"
    out.write_text("mine")
    said = run("predict", folder / "fit.nc", folder / "new.csv", "--out", out, code=1)
    assert said.stderr == f"Error: --out {out} is there already; name another file, or write over it: --force\n"
    assert out.read_text() == "mine"
    run("predict", folder / "fit.nc", folder / "new.csv", "--out", out, "--force")
    assert len(pd.read_csv(out)) == 20


def test_scores_of_rows_that_the_fit_was_made_from_are_a_warning(folder, tmp_path):
    said = run("score", folder / "fit.nc", folder / "train.csv")
    assert (
        "Warning: 60 of 60 rows are rows that the fit was made from, so that their scores are too good" in said.stderr
    )
    both = pd.concat([pd.read_csv(folder / name, dtype={"station": str}) for name in ("new.csv", "train.csv")])
    both.sample(frac=1, random_state=1).to_csv(tmp_path / "both.csv", index=False)
    assert (
        "60 of 80 rows are rows that the fit was made from"
        in run("score", folder / "fit.nc", tmp_path / "both.csv").stderr
    )
    assert "made from" not in run("score", folder / "fit.nc", folder / "new.csv").stderr


def test_counts_that_repeat_are_no_rows_of_the_fit(tmp_path):
    """Small whole numbers agree by chance: nothing is said of them."""
    rng = np.random.default_rng(1)
    y = rng.poisson(1.0, 400)
    frame = pd.DataFrame({"a": y + rng.integers(0, 2, 400), "b": y + rng.integers(0, 3, 400), "y": y})
    frame[:200].to_csv(tmp_path / "t.csv", index=False)
    frame[200:].to_csv(tmp_path / "n.csv", index=False)
    run("fit", tmp_path / "t.csv", "--members", "a,b", "--observation", "y", "--model", "equal", "--method", "em", "--out",
        tmp_path / "f.nc")  # fmt: skip
    assert "made from" not in run("score", tmp_path / "f.nc", tmp_path / "n.csv").stderr


@pytest.mark.parametrize("where", ["before", "behind"])
def test_quiet_leaves_results_warnings_and_errors(folder, tmp_path, where):
    def quiet(*arguments, code=0):
        return run(*((["-q", *arguments]) if where == "before" else [*arguments, "--quiet"]), code=code)

    fit = [
        "fit",
        folder / "train.csv",
        "--members",
        "rf,svr",
        "--observation",
        "y",
        "--method",
        "em",
        "--out",
        tmp_path / "f.nc",
    ]
    assert quiet(*fit).output == ""
    assert "CRPS" in quiet("score", tmp_path / "f.nc", folder / "new.csv").stdout
    assert quiet("describe", tmp_path / "none.nc", code=1).stderr.startswith("Error: ")
    assert "Fitting BMA to 60 observed rows" in run(*fit).stderr


def test_an_interrupted_study_says_how_it_goes_on(folder, tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("bayesens.app.study.run.run_study", interrupted)
    said = run("run", "study.toml", "--out", tmp_path, code=130)
    assert said.stderr == "Interrupted: finished steps are kept; the same command goes on where it stopped.\n"
    monkeypatch.setattr("bayesens.comparison.compare.compare", interrupted)
    compare = ["compare", folder / "train.csv", "--members", "rf,svr", "--observation", "y"]
    said = run(*compare, "--cache", tmp_path / "c", code=130)
    assert f"Interrupted: finished folds are kept in {tmp_path / 'c'}; the same command goes on" in said.stderr
    assert "Interrupted: no output was written." in run(*compare, code=130).stderr


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="sends SIGINT")
def test_a_study_stopped_by_control_c_goes_on_where_it_stopped(folder, tmp_path):
    """A real signal to a real process, with the first fold done; off a terminal it writes plain lines."""
    run("init", folder / "train.csv", "--out", tmp_path / "study.toml")
    text = (tmp_path / "study.toml").read_text()
    text = re.sub(r'\[models.HBM\]\nmodel = "hbm"\n', "", text).replace(
        'model = "bma"\n', 'model = "bma"\nmethod = "em"\n'
    )
    text = text.replace('# folds = "..."\n# Blocks', "folds = 3\n# Blocks").replace(
        "# replicates = 2000", "replicates = 20"
    )
    (tmp_path / "study.toml").write_text(text)
    code = (
        "import sys, time, bayesens.comparison.folds.runs as comparison\n"
        "from bayesens.app.cli.main import main\n"
        "fit, done = comparison.fit, []\n"
        "def slow(*a, **k):\n"
        "    done.append(1)\n"
        "    if len(done) == 5: print('ready', flush=True); time.sleep(120)\n"
        "    return fit(*a, **k)\n"
        "comparison.fit = slow\n"
        "sys.argv = ['bayesens', *sys.argv[1:]]\n"
        "main()"
    )
    arguments = ["run", tmp_path / "study.toml", "--out", tmp_path / "out"]
    running = subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip
    assert running.stdout.readline() == "ready\n"
    kept = {path.name for path in (tmp_path / "out" / ".steps").iterdir()}
    assert len(kept) == 4  # the four models of the first fold
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=60)
    assert running.returncode == 130
    assert errors.endswith("Interrupted: finished steps are kept; the same command goes on where it stopped.\n")
    assert "\x1b" not in errors
    assert "\r" not in errors
    times = {name: (tmp_path / "out" / ".steps" / name).stat().st_mtime_ns for name in kept}
    run(*arguments)
    assert (tmp_path / "out" / "report.html").exists()
    assert {name: (tmp_path / "out" / ".steps" / name).stat().st_mtime_ns for name in kept} == times
    # What is kept for resuming is the file among the results, under a second name.
    assert os.stat(tmp_path / "out" / "fits" / "bma.nc").st_nlink == 2


# --------------------------------------------------------------------------------------------------------------- completion
def completed(*words):
    """What bash offers for the last of the words."""
    script = run("completion", "bash").stdout
    code = f'{script}\nCOMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _bayesens; echo "${{COMPREPLY[@]}}"'
    done = subprocess.run(["bash", "-c", code, "bash", *words], capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_completes_commands_options_and_values():
    assert completed("bayesens", "pre") == ["predict"]
    assert {"fit", "run", "compare", "completion"} <= set(completed("bayesens", ""))
    assert completed("bayesens", "predict", "f.nc", "--for") == ["--force"]
    assert completed("bayesens", "fit", "t.csv", "--model", "li") == ["linear_pool"]
    assert set(completed("bayesens", "completion", "")) >= set(SHELLS)
    assert completed("bayesens", "fit", "--out", "x") == []  # files are left to the shell


@pytest.mark.parametrize("shell", SHELLS)
def test_scripts_have_every_command_and_option(shell):
    script, commands = completion_script(get_command(app), shell), get_command(app).commands
    for name, command in commands.items():
        assert name in script
        for param in command.params:
            for option in param.opts:
                if option.startswith("--"):
                    assert (f"-l {option[2:]}" if shell == "fish" else option) in script, option


@pytest.mark.slow
def test_reading_a_fit_loads_no_sampler_and_no_scikit_learn(folder, tmp_path):
    code = "\n".join([
        "import sys",
        "from bayesens.app.cli.main import main",
        "for line in sys.stdin.read().splitlines():",
        "    sys.argv = ['bayesens', *line.split()]",
        "    try: main()",
        "    except SystemExit as stop: assert not stop.code",
        "heavy = {'pymc', 'pytensor', 'nutpie', 'arviz', 'arviz_base', 'arviz_stats', 'arviz_plots', 'sklearn', 'xgboost'}",
        "heavy |= {'matplotlib', 'scipy.stats'}",
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)",
    ])  # fmt: skip
    lines = [f"describe {folder}/fit.nc", f"predict {folder}/fit.nc {folder}/new.csv --out {tmp_path}/p.csv",
             f"score {folder}/fit.nc {folder}/new.csv"]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", code], input="\n".join(lines), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_description_loads_neither_pandas_nor_what_computes(folder):
    code = "\n".join([
        "import sys",
        "from bayesens.app.cli.main import app",
        f"app(['describe', '{folder}/fit.nc'], standalone_mode=False)",
        "heavy = {'pandas', 'xarray', 'numba', 'dask', 'scipy.special', 'scipy.optimize'} & set(sys.modules)",
        "assert not heavy, heavy",
    ])  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
