"""The command line: the whole way in new processes equals the library, what `describe` says, and what --help costs."""

import json
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from commands import COLUMNS, fitted_region, run
from typer.testing import CliRunner

import bayesens as be
from bayesens.app.cli.main import app
from bayesens.ensemble.files import write_table

# The standard start's optimum is what --method em gives, whatever else there is.
pytestmark = pytest.mark.filterwarnings("ignore:EM found")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return fitted_region(tmp_path_factory.mktemp("cli"))


def process(*arguments, cwd=None):
    command = [sys.executable, "-m", "bayesens", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)


def light(*commands, cwd):
    """Run commands one after the other in one new process, which must load no sampler."""
    code = "\n".join(
        [
            "import sys",
            "from bayesens.app.cli.main import main",
            f"for arguments in {[[*map(str, command)] for command in commands]!r}:",
            "    sys.argv = ['bayesens', *arguments]",
            "    try: main()",
            "    except SystemExit as stop: assert not stop.code",
            "assert not {'pymc', 'pytensor', 'nutpie'} & set(sys.modules)",
        ]
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done


# ------------------------------------------------------------------------------------------------------- the whole way
@pytest.mark.slow
def test_fit_predict_and_score_in_new_processes_equal_the_library(folder, tmp_path):
    done = process("fit", folder / "train.csv", *COLUMNS, "--method", "em", "--out", "fit.nc", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("fit.nc: BMA by em in ")
    done = light(
        ["predict", "fit.nc", folder / "new.csv", "--quantiles", ".05,.5,.975", "--out", "p.csv"],
        ["score", "fit.nc", folder / "new.csv", "--by", "site", "--out", "s.csv"],
        ["describe", "fit.nc"],
        cwd=tmp_path,
    )
    assert all(word in done.stdout for word in ("40 rows predicted by BMA", "CRPS", "By member: point estimate"))
    table = pd.read_csv(tmp_path / "p.csv")
    assert table.columns.tolist() == [
        *pd.read_csv(folder / "new.csv").columns, "mean", "sd", "sd_within", "sd_between", "sd_parameter", "q05", "q50", "q97.5",
    ]  # fmt: skip
    roles = {"observation": "sm", "site": "station", "group": "network", "time": "date"}
    members = ["rf", "mlr", "svr", "xgb"]
    train, new = (
        be.Ensemble.from_frame(pd.read_csv(folder / name), members=members, **roles)
        for name in ("train.csv", "new.csv")
    )
    tree = be.fit(be.BMA(), train, method="em")
    expected = be.predict(tree, new, quantiles=(0.05, 0.5, 0.975))
    np.testing.assert_allclose(table["mean"], expected["mean"], rtol=1e-12)
    quantile = next(v for v in expected.data_vars.values() if "quantile" in v.dims)
    np.testing.assert_allclose(table[["q05", "q50", "q97.5"]], quantile, rtol=1e-12)
    assert table["station"].tolist() == pd.read_csv(folder / "new.csv")["station"].tolist()

    scores, rows = pd.read_csv(tmp_path / "s.csv", index_col="site"), be.score(tree, new)
    assert scores["rows"].to_dict() == {"all": 40, "s03": 20, "s06": 20}
    assert scores.loc["all", "crps"] == pytest.approx(float(rows["crps"].mean()))
    own = rows.isel(obs=rows["site"].values == "s06")
    assert scores.loc["s06", "rmse"] == pytest.approx(float(np.sqrt((own["error"] ** 2).mean())))
    assert scores.loc["s06", "coverage_90"] == pytest.approx(float(own["covered"].sel(level=0.9).mean()))


def test_describe_says_what_ran_and_what_came_out(folder):
    text = run("describe", folder / "bma.nc").stdout
    for line in (
        r"model +BMA, written by bayesens ",
        r"options +scale=.*center=0\.\d+, unit=",
        r"data +140 observed rows, in m3 m-3",
        r"columns +observation sm, site station",
        r"method +em, asked for",
        r"converged +a point estimate after \d+ passes",
        r"member .* weight .* bias .* slope .* sigma",
    ):
        assert re.search(line, text), line
    weight = xr.open_datatree(folder / "bma.nc")["posterior"]["weight"].sel(member="rf").item()
    assert re.search(rf"rf +│ +{weight:.3g} ", text)


def test_describe_of_draws_gives_intervals_and_a_verdict(tmp_path):
    rng = np.random.default_rng(1)
    frame = pd.DataFrame({"y": rng.normal(size=60)}).assign(a=lambda x: x["y"] + 0.5 * rng.normal(size=60))
    ensemble = be.Ensemble.from_frame(frame, members=["a"], observation="y")
    tree = be.fit(be.SingleMember(bias="none"), ensemble, method="em")
    sigma = xr.DataArray(np.linspace(1, 2, 200).reshape(2, 100, 1), dims=("chain", "draw", "member"))
    tree["posterior"] = xr.DataTree(
        xr.Dataset({"sigma": sigma}, {"member": ["a"], "chain": [0, 1], "draw": range(100)})
    )
    common = {
        "point_estimate": 0,
        "method_asked": "auto",
        "reason": "Pareto k 1.2",
        "divergences": 0,
        "random_seed": "7",
    }
    for method, more, expected in (
        ("nuts", {"rhat_max": 1.002, "ess_min": 500.0}, "yes: R-hat at most 1.002, ESS at least 500, 0 divergences"),
        ("nuts", {"rhat_max": 1.2, "ess_min": 500.0}, "NO: R-hat at most 1.200"),
        ("laplace", {"pareto_k": 0.3, "importance_ess": 900.0}, "yes: Pareto k 0.30, importance ESS 900"),
        ("laplace", {"pareto_k": 0.9, "importance_ess": 900.0}, "NOT TO BE TRUSTED: Pareto k 0.90"),
        ("importance", {"pareto_k": 0.4, "importance_ess": 700.0}, "yes: Pareto k 0.40, importance ESS 700"),
    ):
        tree.attrs |= common | {"method": method} | more
        tree.to_netcdf(tmp_path / "fit.nc", engine="h5netcdf")
        text = run("describe", tmp_path / "fit.nc").stdout
        assert expected in text
        assert f"{method}, chosen by auto: Pareto k 1.2, seed 7" in text
        assert "1.5 [1.05, 1.95]" in text


def test_options_and_priors_reach_the_model(folder, tmp_path):
    out = tmp_path / "fit.nc"
    run("fit", folder / "train.csv", *COLUMNS, "--method", "em", "--transform", "sqrt", "--option", "sigma=shared",
        "--option", 'exchangeable=[["rf","svr"]]', "--option", "sigma_scale=2", "--option", "site=False",
        "--option", 'bias_prior={"family": "StudentT", "nu": 4, "mu": 0, "sigma": 0.5}', "--out", out)  # fmt: skip
    options = json.loads(be.read_fit(out).attrs["bayesens_options"])
    assert options["sigma"] == "shared"
    assert options["transform"] == "sqrt"
    assert options["exchangeable"] == [["rf", "svr"]]
    assert (options["sigma_scale"], options["site"]) == (2, False)
    assert options["bias_prior"]["prior"] == be.Prior("StudentT", nu=4, mu=0, sigma=0.5).to_json()
    text = run("describe", out).stdout
    assert "sigma='shared'" in text
    assert "exchangeable=(('rf', 'svr'),), transform='sqrt'" in text
    assert 'bias_prior=Prior("StudentT"' in text


@pytest.mark.parametrize("suffix", ["csv.gz", "tsv", "parquet", "nc"])
def test_predictions_in_every_format_are_the_same(folder, tmp_path, suffix):
    out = tmp_path / f"p.{suffix}"
    run("predict", folder / "bma.nc", folder / "new.parquet", "--out", out)
    read = {"csv.gz": pd.read_csv, "tsv": lambda p: pd.read_csv(p, sep="\t"), "parquet": pd.read_parquet}
    table = read[suffix](out) if suffix in read else xr.open_dataset(out, engine="h5netcdf")
    run("predict", folder / "bma.nc", folder / "new.csv", "--out", tmp_path / "other.csv")
    np.testing.assert_allclose(table["mean"], pd.read_csv(tmp_path / "other.csv")["mean"], rtol=1e-12)


def test_a_dataset_is_fitted_and_predicted_like_a_table(folder, tmp_path):
    for name in ("train", "new"):
        roles = {"observation": "sm", "site": "station", "group": "network", "units": "m3 m-3"}
        ensemble = be.Ensemble.from_frame(
            pd.read_csv(folder / f"{name}.csv"), members=["rf", "mlr", "svr", "xgb"], **roles
        )
        write_table(ensemble.dataset, tmp_path / f"{name}.nc")
    run("fit", tmp_path / "train.nc", "--observation", "observation", "--site", "site", "--method", "em",
        "--out", tmp_path / "fit.nc")  # fmt: skip
    run("predict", tmp_path / "fit.nc", tmp_path / "new.nc", "--out", tmp_path / "p.csv")
    run("predict", folder / "bma.nc", folder / "new.csv", "--out", tmp_path / "other.csv")
    one, other = (pd.read_csv(tmp_path / name)["mean"] for name in ("p.csv", "other.csv"))
    np.testing.assert_allclose(one, other, rtol=1e-9)


# ------------------------------------------------------------------------------------------------------------ the help
def test_help_answers_within_half_a_second():
    seconds = []
    for _ in range(5):
        begin = time.perf_counter()
        done = process("--help")
        seconds.append(time.perf_counter() - begin)
        assert done.returncode == 0, done.stderr
    assert "demo" in done.stdout
    # 0.15 s on an idle machine. The fastest of five: the others say what else the machine was doing.
    assert min(seconds) < 0.5, f"median {statistics.median(seconds):.2f} s"


@pytest.mark.parametrize("command", ["fit", "predict", "score", "describe", "demo"])
def test_every_command_has_help(command):
    assert run(command, "--help").stdout.startswith("Usage: ")


def test_version():
    assert run("--version").stdout == f"bayesens {be.__version__}\n"


def test_main_is_the_entry_point():
    text = (Path(__file__).resolve().parents[3] / "pyproject.toml").read_text(encoding="utf-8")
    assert 'bayesens = "bayesens.app.cli.main:main"' in text


def test_debug_shows_where_it_happened(tmp_path):
    for arguments, environment in ((["--debug"], {}), ([], {"BAYESENS_DEBUG": "1"})):
        result = CliRunner().invoke(app, [*arguments, "describe", str(tmp_path / "no.nc")], env=environment)
        assert isinstance(result.exception, FileNotFoundError)
