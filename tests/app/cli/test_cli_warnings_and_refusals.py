"""What commands warn of and what they refuse, and in which words; a command that refuses its input writes nothing."""

import os
import re

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from commands import COLUMNS, fitted_region, refused, run

import bayesens as be
from bayesens.ensemble.files import write_table

# The standard start's optimum is what --method em gives, whatever else there is.
pytestmark = pytest.mark.filterwarnings("ignore:EM found")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return fitted_region(tmp_path_factory.mktemp("refusals"))


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
