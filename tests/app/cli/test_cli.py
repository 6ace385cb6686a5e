"""The command line: the whole way in new processes, what is refused and in which words, and what --help costs."""

import json
import os
import re
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from commands import COLUMNS, refused, region_files, run
from typer.testing import CliRunner

import bayesens as be
from bayesens.app.cli.main import app
from bayesens.ensemble.files import write_table

# The standard start's optimum is what --method em gives, whatever else there is.
pytestmark = pytest.mark.filterwarnings("ignore:EM found")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A region as train.csv and new.csv (two stations that the fit has not seen), and a fit of each kind by EM."""
    place = tmp_path_factory.mktemp("cli")
    region_files(place).to_parquet(place / "new.parquet")
    for model in ("bma", "climatology"):
        run("fit", place / "train.csv", *COLUMNS, "--model", model, "--method", "em", "--units", "m3 m-3",
            "--out", place / f"{model}.nc")  # fmt: skip
    return place


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


# ---------------------------------------------------------------------------------------------------- what is warned of
def test_a_member_that_is_not_there_is_a_warning(folder, tmp_path):
    pd.read_csv(folder / "new.csv").drop(columns=["svr", "network"]).to_csv(tmp_path / "less.csv", index=False)
    result = run("predict", folder / "bma.nc", tmp_path / "less.csv", "--out", tmp_path / "p.csv")
    warned = result.stderr.splitlines()
    assert all(line.startswith("Warning: ") for line in warned)
    assert any("lacks 'svr': predictions treat it as missing in all 40 rows" in line for line in warned)
    assert any("has no column 'network', the group of the fit; if it is there by another name, use --group" in line
               for line in warned)  # fmt: skip
    assert len(pd.read_csv(tmp_path / "p.csv")) == 40


def test_a_copy_among_the_members_of_a_mixture_is_a_warning(bad, tmp_path):
    result = run("fit", bad / "copies.csv", *COLUMNS, "--method", "em", "--out", tmp_path / "fit.nc")
    assert re.search("Warning: Members 'rf' and 'xgb' are exact copies .*only the sum of their weights is identified. Leave",
                     result.stderr)  # fmt: skip
    assert os.listdir(tmp_path) == ["fit.nc"]


def test_rows_without_any_member_are_nan_and_counted(folder, tmp_path):
    members = ["rf", "mlr", "svr", "xgb"]
    new = pd.read_csv(folder / "new.csv")
    new.loc[[2, 7, 11], members] = np.nan
    new.to_csv(tmp_path / "gaps.csv", index=False)
    result = run("predict", folder / "bma.nc", tmp_path / "gaps.csv", "--out", tmp_path / "p.csv")
    assert "Warning: 3 of 40 rows have no member at all: their predictions are NaN." in result.stderr
    table = pd.read_csv(tmp_path / "p.csv")
    assert np.flatnonzero(table["mean"].isna()).tolist() == [2, 7, 11]
    assert np.flatnonzero(table["q50"].isna()).tolist() == [2, 7, 11]


def test_sites_that_the_fit_has_not_seen_are_counted(folder, tmp_path):
    both = pd.read_csv(folder / "new.csv")
    both.loc[both["station"] == "s03", "station"] = pd.read_csv(folder / "train.csv")["station"].iloc[0]
    both["network"] = pd.read_csv(folder / "train.csv")["network"].iloc[0]
    both.to_csv(tmp_path / "both.csv", index=False)
    result = run("predict", folder / "bma.nc", tmp_path / "both.csv", "--out", tmp_path / "p.csv")
    assert "20 of 40 rows are at a site that the fit has not seen ('s06'): they are predicted as a new site.\n" in (
        result.stderr
    )
    table = pd.read_csv(tmp_path / "p.csv")
    assert table["mean"].notna().all()


def test_renamed_columns_are_named_by_options(folder, tmp_path):
    renamed = pd.read_csv(folder / "new.csv").rename(columns={"sm": "probe", "network": "net"})
    renamed.to_csv(tmp_path / "renamed.csv", index=False)
    assert re.search(r"no column 'sm', the observation of the fit; name it: --observation",
                     refused("score", folder / "bma.nc", tmp_path / "renamed.csv"))  # fmt: skip
    result = run("score", folder / "bma.nc", tmp_path / "renamed.csv", "--observation", "probe", "--group", "net",
                 "--by", "group")  # fmt: skip
    assert "rows are at a site that the fit has not seen" in result.stderr
    assert "net1" in result.stdout


def test_a_broken_observation_does_not_keep_anyone_from_predicting(folder, tmp_path):
    pd.read_csv(folder / "new.csv").assign(sm="?").to_csv(tmp_path / "odd.csv", index=False)
    run("predict", folder / "bma.nc", tmp_path / "odd.csv", "--out", tmp_path / "p.csv")
    assert "column 'sm'" in refused("score", folder / "bma.nc", tmp_path / "odd.csv")


# ----------------------------------------------------------------------------------------------------- what is refused
BAD_FITS = {
    "no such table": (["nope.csv"], "there is no file nope.csv; "),
    "no such column": (["train.csv", "--observation", "soil"], "no column 'soil' in the table"),
    "unknown member": (
        ["train.csv", "--members", "rf,xbg"],
        r"no column 'xbg' in the table \(140 rows\); did you mean 'xgb'",
    ),
    "member twice": (
        ["train.csv", "--members", "rf,rf,svr"],
        "'rf' more than once; wanted each name once: 'rf', 'svr'",
    ),
    "no members": (
        ["train.csv", "--members", ","],
        "members is empty; wanted at least one column name: --members rf,mlr,...",
    ),
    "text": (
        ["text.csv"],
        r"column 'rf' \(140 rows\) .*'dry' and the like stand in 1 of 140 rows \(first: row 3; counted from 0\); correct",
    ),
    "text observation": (["text.csv", "--members", "mlr", "--observation", "rf"], r"column 'rf' \(140 rows\) .*'dry'"),
    "infinite": (
        ["infinite.csv"],
        r"column 'rf' is infinite in \d+ of 140 rows \(first: row .*; wanted finite numbers: correct them, drop those rows",
    ),
    "empty member": (["empty.csv"], "member 'rf' is missing in all of the 140 observed rows .*leave it out"),
    "constant member": (["constant.csv"], "member 'rf' is constant in the 140 observed rows .*leave it out"),
    "no observations": (["unobserved.csv"], "observation column 'sm' is missing in all 140 rows; .*check the column"),
    "member is the observation": (
        ["same.csv"],
        "member 'rf' is equal to the observation 'sm' in all of the 140 observed rows .*leave it out",
    ),
    "too few rows": (
        ["short.csv", "--option", "correction=joint", "--option", "site=false", "--option", "group=false"],
        r"6 of 6 rows have an observation \('sm'\) .*the model has 16 parameters; .*add rows, or drop members",
    ),
    "site in two groups": (
        ["moved.csv"],
        r"'station' and 'network' \(140 rows\): 1 site\(s\) .*'s01' in 'net1', 'net3'; .*correct the labels",
    ),
    "copies": (
        ["copies.csv", "--model", "hbm", "--method", "nuts"],
        "Members 'rf', 'xgb' are exact copies .*140 training rows.*Leave one",
    ),
    "linear combination": (
        ["combined.csv", "--model", "hbm", "--method", "nuts"],
        "Members 'rf', 'mlr', 'xgb' are .*linear combinations .*140 training rows.*Leave one",
    ),
    "zeros and log": (
        ["zeros.csv", "--transform", "log"],
        r"'sm' has 2 of 140 values not above 0, .*: rows 3, 5 \(counted from 0\)",
    ),
    "zeros in a member and log": (
        ["zeros.csv", "--transform", "log", "--observation", "rf", "--members", "sm,svr"],
        "'sm' has 2 of 140 values not above 0, .*: rows 3, 5 ",
    ),
    "another kind of file": (["train.xls"], "suffix '.xls'; wanted one of '.csv'"),
    "no such option": (["train.csv", "--option", "sigm=shared"], "BMA has no option 'sigm'; did you mean 'sigma'"),
    "no value": (["train.csv", "--option", "sigma"], "wanted NAME=VALUE with an option of BMA"),
    "wrong kind": (
        ["train.csv", "--option", "site=maybe"],
        "option site of BMA got 'maybe'; wanted a value of kind bool",
    ),
    "word for a list": (
        ["train.csv", "--option", "bias_covariates=bmi"],
        r'written as a list: --option bias_covariates=\["bmi"\]',
    ),
    "number for a word": (["train.csv", "--option", "sigma=1"], "wanted a value of kind str"),
    "no family": (
        ["train.csv", "--option", 'bias_prior={"mu": 0}'],
        'a prior is an object such as {"family": "Normal"',
    ),
    "unknown choice": (["train.csv", "--option", "sigma=shard"], "is one of 'member', 'shared'; got 'shard'"),
    "effects by EM": (
        ["train.csv", "--option", "correction=joint", "--option", "site=true", "--option", "group=false"],
        "--method em has no site effects in a joint fit; use --method auto or nuts, or --option correction=own",
    ),
    "HBM by EM": (["train.csv", "--model", "hbm"], "HBM has no fit by EM"),
    "negative draws": (["train.csv", "--method", "nuts", "--draws", "-5"], "draws must be a whole number"),
}


@pytest.fixture(scope="module")
def bad(folder):
    """Tables with one thing wrong in each."""
    good = pd.read_csv(folder / "train.csv")
    noise = np.random.default_rng(1).normal(size=len(good))
    tables = {
        "text": good.assign(rf=good["rf"].astype(str).where(good.index != 3, "dry")),
        "infinite": good.assign(rf=np.where(noise > 1, np.inf, good["rf"])),
        "empty": good.assign(rf=np.nan),
        "constant": good.assign(rf=0.2),
        "unobserved": good.assign(sm=np.nan),
        "same": good.assign(rf=good["sm"]),
        "short": good.head(6),
        "negative": good.assign(rf=good["rf"].where(good.index != 4, -0.01)),
        "moved": good.assign(network=np.where(good.index == 3, "net3", good["network"])),
        "copies": good.assign(xgb=good["rf"]),
        "combined": good.assign(xgb=(good["rf"] + good["mlr"]) / 2),
        "zeros": good.assign(sm=good["sm"].where(~good.index.isin([3, 5]), 0.0)),
    }
    for name, table in tables.items():
        table.to_csv(folder / f"{name}.csv", index=False)
    (folder / "train.xls").write_bytes(b"PK")
    return folder


@pytest.mark.parametrize("case", BAD_FITS)
def test_a_fit_that_cannot_be_made_says_why_and_writes_nothing(bad, tmp_path, monkeypatch, case):
    (table, *more), expected = BAD_FITS[case]
    monkeypatch.chdir(bad)
    out = tmp_path / "fit.nc"
    message = refused("fit", table, *COLUMNS, "--method", "em", *more, "--out", out)
    assert re.search(expected, message), message
    assert message.count("Error: ") == message.count("\n") == 1
    assert not os.listdir(tmp_path)


def test_a_dataset_that_cannot_be_fitted_says_why_and_writes_nothing(folder, tmp_path):
    good = pd.read_csv(folder / "train.csv")
    data = xr.Dataset({name: ("obs", good[name].to_numpy(), {"units": "m3 m-3"}) for name in ("sm", "rf", "mlr")})
    mixed = data.assign(rf=data["rf"].assign_attrs(units="%"))
    mixed.to_netcdf(folder / "mixed.nc", engine="h5netcdf")
    data.to_netcdf(folder / "cut.nc", engine="h5netcdf")
    whole = (folder / "cut.nc").read_bytes()
    (folder / "cut.nc").write_bytes(whole[: len(whole) // 2])
    for name, expected in (
        (
            "mixed.nc",
            r"mixed units \(140 rows\): '%' in 'rf'; 'm3 m-3' in 'mlr', 'sm'; .*convert the values, or, .*--units",
        ),
        ("cut.nc", r"cannot read .*cut.nc \(\d+ bytes\) as .nc: .*it may be truncated.*copy or write it again"),
        ("bma.nc", "it is a fit, not a table of predictions"),
    ):
        message = refused("fit", folder / name, "--members", "rf,mlr", "--observation", "sm", "--method", "em",
                          "--out", tmp_path / "fit.nc")  # fmt: skip
        assert re.search(expected, message), message
        assert not os.listdir(tmp_path)


def test_members_must_be_named_for_a_table(folder, tmp_path):
    message = refused("fit", folder / "train.csv", "--observation", "sm", "--out", tmp_path / "fit.nc")
    assert "--members is missing; name the columns of predictions" in message


def test_outputs_are_checked_before_the_work(folder, tmp_path, monkeypatch):
    """None of these comes to reading the table, let alone to a fit."""
    monkeypatch.setattr("bayesens.ensemble.files.read_table", lambda *_, **__: pytest.fail("the table was read"))
    fit = ["fit", folder / "train.csv", *COLUMNS, "--out"]
    assert "no/fit.nc: the folder" in refused(*fit, tmp_path / "no" / "fit.nc")
    assert "has the suffix '.csv'; wanted .nc" in refused(*fit, tmp_path / "fit.csv")
    (tmp_path / "folder.nc").mkdir()
    assert "it is a folder" in refused(*fit, tmp_path / "folder.nc")
    predict = ["predict", folder / "bma.nc", folder / "new.csv", "--out"]
    assert "wanted .csv or" in refused(*predict, tmp_path / "p.txt")
    assert "is an input of this command and would be replaced" in refused(*predict, folder / "new.csv")
    assert "would be replaced" in refused(*predict, folder / "bma.nc")
    assert "has the suffix '.nc'" in refused("score", *predict[1:], tmp_path / "s.nc")


@pytest.mark.slow
def test_files_that_are_no_fit(folder, tmp_path):
    whole = (folder / "bma.nc").read_bytes()
    (tmp_path / "cut.nc").write_bytes(whole[: len(whole) // 2])
    newer = be.read_fit(folder / "bma.nc")
    newer.attrs["bayesens_format"] = 99
    newer.to_netcdf(tmp_path / "newer.nc", engine="h5netcdf")
    write_table(pd.DataFrame({"rf": [1.0]}), tmp_path / "table.nc")
    half = be.read_fit(folder / "bma.nc")
    del half["posterior"]
    half.to_netcdf(tmp_path / "half.nc", engine="h5netcdf")
    for path, expected in (
        (folder / "train.csv", "is not a NetCDF-4 file"),
        (tmp_path / "cut.nc", "it may be truncated or of another format"),
        (tmp_path / "newer.nc", "this fit has format 99, and this bayesens reads formats up to"),
        (tmp_path / "table.nc", "this is no bayesens fit"),
        (tmp_path / "half.nc", "this fit (BMA) has lost 'posterior'; wanted all that fit returned"),
        (tmp_path / "none.nc", "there is no file"),
    ):
        for command in (["describe", path], ["score", path, folder / "new.csv"],
                        ["predict", path, folder / "new.csv", "--out", tmp_path / "p.csv"]):  # fmt: skip
            assert expected in refused(*command)
    assert not (tmp_path / "p.csv").exists()


def test_tables_that_do_not_go_with_the_fit(folder, tmp_path):
    new = pd.read_csv(folder / "new.csv")
    new[["station", "sm", "truth"]].to_csv(tmp_path / "others.csv", index=False)
    new.assign(sm=np.nan).to_csv(tmp_path / "unobserved.csv", index=False)
    out = tmp_path / "p.csv"
    message = refused("predict", folder / "bma.nc", tmp_path / "others.csv", "--out", out)
    assert "has none of the members of the fit, 'rf', 'mlr', 'svr', 'xgb'; it has 'sm', 'station', 'truth'" in message
    message = refused("predict", folder / "bma.nc", folder / "new.csv", "--units", "%", "--out", out)
    assert "The table is in '%' and the fit in 'm3 m-3'" in message
    assert "has no value in any of the 40 rows" in refused("score", folder / "bma.nc", tmp_path / "unobserved.csv")
    assert "between 0 and 1" in refused("predict", folder / "bma.nc", folder / "new.csv", "--quantiles", "5,95",
                                        "--out", out)  # fmt: skip
    assert "--levels got 'many'" in refused("score", folder / "bma.nc", folder / "new.csv", "--levels", "many")
    new.drop(columns="network").to_csv(tmp_path / "ungrouped.csv", index=False)
    assert "--by group needs group labels" in refused(
        "score", folder / "bma.nc", tmp_path / "ungrouped.csv", "--by", "group"
    )
    assert not out.exists()


@pytest.mark.slow
def test_tables_that_cannot_be_predicted(bad, tmp_path):
    run("fit", bad / "train.csv", *COLUMNS, "--transform", "log", "--method", "em", "--out", tmp_path / "log.nc")
    for table, fit, expected in (
        ("text.csv", bad / "bma.nc", r"'rf' \(140 rows\) .*'dry' .*correct them"),
        ("infinite.csv", bad / "bma.nc", r"'rf' is infinite in \d+ of 140 rows .*correct them"),
        ("moved.csv", bad / "bma.nc", r"\(140 rows\): 1 site\(s\) .*'s01' in 'net1', 'net3'; .*correct the labels"),
        (
            "negative.csv",
            tmp_path / "log.nc",
            r"'rf' has 1 of 140 values not above 0, .*: row 4 \(counted from 0\)\. Set",
        ),
    ):
        message = refused("predict", fit, bad / table, "--out", tmp_path / "p.csv")
        assert re.search(expected, message), message
        assert re.search(expected, refused("score", fit, bad / table, "--out", tmp_path / "p.csv"))
    assert os.listdir(tmp_path) == ["log.nc"]


def test_a_folder_without_permission_is_named_before_the_work(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("bayesens.ensemble.files.read_table", lambda *_, **__: pytest.fail("the table was read"))
    access = os.access
    monkeypatch.setattr("bayesens.tables.atomic.os.access", lambda path, mode: path != tmp_path and access(path, mode))
    for command in (["fit", folder / "train.csv", *COLUMNS, "--out", tmp_path / "fit.nc"],
                    ["predict", folder / "bma.nc", folder / "new.csv", "--out", tmp_path / "p.csv"],
                    ["score", folder / "bma.nc", folder / "new.csv", "--out", tmp_path / "s.csv"]):  # fmt: skip
        assert re.search(r"cannot write .*: no permission to write in .*; name another folder", refused(*command))
    assert not os.listdir(tmp_path)


def test_debug_shows_where_it_happened(tmp_path):
    for arguments, environment in ((["--debug"], {}), ([], {"BAYESENS_DEBUG": "1"})):
        result = CliRunner().invoke(app, [*arguments, "describe", str(tmp_path / "no.nc")], env=environment)
        assert isinstance(result.exception, FileNotFoundError)


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
