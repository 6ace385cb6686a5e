"""Members that bring a standard deviation of their own, through every door."""

import warnings

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from typer.testing import CliRunner

import bayesens as be
from bayesens.app.cli.main import app
from bayesens.app.study.data import study_data, study_models
from bayesens.app.study.file import study_from_text
from bayesens.ensemble.ensemble import Ensemble
from bayesens.ensemble.files import read_ensemble, write_table
from bayesens.inference.fit_tree import read_fit, write_fit

MEMBERS = ["krig", "net", "rf"]
SPREAD = {"krig": "krig_sd", "net": "net_sd"}


def table(n=120, seed=1):
    """Kriging whose word is right, a network whose word says nothing, and a forest without one."""
    rng = np.random.default_rng(seed)
    sd, word, truth = np.exp(0.7 * rng.normal(size=n) - 1.0), np.exp(rng.normal(size=n)), rng.normal(5.0, 1.0, n)
    return pd.DataFrame({
        "sm": truth, "krig": truth + sd * rng.normal(size=n), "net": truth + 0.5 * rng.normal(size=n),
        "rf": truth + 0.5 * rng.normal(size=n), "krig_sd": sd, "net_sd": word, "station": np.arange(n) % 8,
    })  # fmt: skip


def ensemble_of(frame, spread=SPREAD, **options):
    return Ensemble.from_frame(frame, **({"members": MEMBERS, "observation": "sm", "spread": spread} | options))


@st.composite
def tables(draw):
    """Tables with gaps in members and standard deviations that are given wherever the member is."""
    n = draw(st.integers(2, 12))
    number = st.floats(-1e3, 1e3, width=32)
    frame = pd.DataFrame({name: draw(st.lists(number, min_size=n, max_size=n)) for name in [*MEMBERS, "sm"]})
    for column in SPREAD.values():
        frame[column] = draw(st.lists(st.floats(0.0, 10.0, width=32), min_size=n, max_size=n))
    gaps = draw(st.lists(st.integers(0, n - 1), max_size=n - 1, unique=True))
    frame.loc[gaps, "krig"] = np.nan
    if draw(st.booleans()):
        frame.loc[gaps, "krig_sd"] = np.nan
    return frame


def quietly(make, *args, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return make(*args, **options)


@pytest.mark.slow
@given(tables(), st.data())
def test_what_passes_the_door_comes_back(frame, data):
    made = ensemble_of(frame, missing="none")
    assert made.spread == SPREAD
    assert set(made.covariates) == {*SPREAD.values()}
    back = made.to_frame()
    assert_array_equal(back[[*SPREAD.values()]], frame[[*SPREAD.values()]])
    again = Ensemble.from_dataset(made.dataset)
    assert again.spread == SPREAD
    assert again.digest == made.digest == ensemble_of(back, missing="none").digest
    rows = data.draw(st.lists(st.integers(0, len(frame) - 1), min_size=1, max_size=9))
    some = made.select(rows=rows, members=["net", "krig"])
    assert some.spread == SPREAD
    assert_array_equal(some.to_frame()["krig_sd"], frame["krig_sd"].iloc[rows])
    assert made.select(members=["rf", "net"]).spread == {"net": "net_sd"}
    assert made.select(members=["rf"]).spread == {}
    whole = xr.concat([made.select(rows=[i]).dataset for i in range(len(frame))], "obs")
    assert Ensemble.from_dataset(whole).digest == made.digest


@given(tables(), st.sampled_from(["krig", "net"]), st.data())
def test_what_is_wrong_is_refused_with_its_rows(frame, member, data):
    row, column = data.draw(st.integers(0, len(frame) - 1)), SPREAD[member]
    wrong = frame.copy()
    wrong.loc[row, [column, member]] = [-1.0, 1.0]
    with pytest.raises(
        ValueError, match=rf"'{column}', the standard deviation of member '{member}', is below zero in 1 of .*{row}"
    ):
        ensemble_of(wrong, missing="none")
    wrong.loc[row, column] = np.nan
    with pytest.raises(
        ValueError, match=rf"'{column}', .*, is missing in 1 of {len(frame)} rows \(row {row}, counted from 0\)"
    ):
        ensemble_of(wrong, missing="none")


def test_digests_of_tables_without_are_those_of_before():
    frame = table(20)
    without = ensemble_of(frame, None)
    assert without.spread == {}
    assert "bayesens_spread" not in without.dataset.attrs
    # Written by the version before there was such a thing.
    assert without.digest == "2b52c0db10906c1ebf6c37cfac06399efb290798d8afa3918869cc369bcb372f"
    told, beside = ensemble_of(frame), ensemble_of(frame, None, covariates=[*SPREAD.values()])
    assert len({without.digest, told.digest, beside.digest}) == 3


@pytest.mark.parametrize(("spread", "error", "text"), [
    ("krig_sd", TypeError, "spread is 'krig_sd'; wanted a mapping of member to the column"),
    ({"krig": 3}, TypeError, "wanted a mapping"),
    ({"crig": "krig_sd"}, KeyError, "Did you mean 'krig'|no member 'crig'"),
    ({"krig": "krig_std"}, KeyError, "krig_std"),
    ({"krig": "net_sd", "net": "net_sd"}, ValueError, "gives one column to two members"),
    ({"krig": "rf"}, ValueError, "'rf' .* is named both as a member and as a covariate"),
    ({"krig": "sm"}, ValueError, "named both as"),
])  # fmt: skip
def test_names_are_checked(spread, error, text):
    with pytest.raises(error, match=text):
        ensemble_of(table(), spread)


def test_codes_are_refused_or_named_and_infinite_values_refused():
    frame = table()
    frame.loc[[3, 7], ["krig", "krig_sd"]] = [np.nan, -9999.0]
    with pytest.raises(ValueError, match="column 'krig_sd' holds -9999 in 2 of 120 rows"):
        ensemble_of(frame)
    assert ensemble_of(frame, missing={"krig_sd": -9999}).codes == {"krig_sd": {-9999.0: 2}}
    frame.loc[3, "krig_sd"] = np.inf
    with pytest.raises(ValueError, match="krig_sd"):
        ensemble_of(frame, missing={"krig_sd": -9999})


def test_they_are_converted_with_their_members():
    frame, percent = (
        table(),
        table().assign(krig=lambda t: 100.0 * t["krig"] + 7.0, krig_sd=lambda t: 100.0 * t["krig_sd"]),
    )
    made = ensemble_of(percent, scale={"krig": 0.01}, offset={"krig": -0.07})
    assert_allclose(made.to_frame()[["krig", "krig_sd", "net_sd"]], frame[["krig", "krig_sd", "net_sd"]])


def test_long_tables_have_a_column_of_them():
    frame = table(40).assign(day=np.arange(40), rf_sd=np.nan)
    long = pd.concat([frame[["day", "sm"]].assign(model=m, value=frame[m], sd=frame[f"{m}_sd"]) for m in MEMBERS])
    made = Ensemble.from_long(long, model="model", value="value", by=["day"], observation="sm", spread="sd")
    assert made.spread == SPREAD
    assert_array_equal(made.to_frame()[["krig_sd", "net_sd"]], frame[["krig_sd", "net_sd"]])
    assert Ensemble.from_long(long, model="model", value="value", by=["day"], members=["rf"], spread="sd").spread == {}
    with pytest.raises(TypeError, match="wanted the one column of a long table"):
        Ensemble.from_long(long, model="model", value="value", by=["day"], spread={"krig": "sd"})


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".nc", ".zarr"])
def test_files_keep_them(tmp_path, suffix):
    made = ensemble_of(table())
    path = tmp_path / f"table{suffix}"
    write_table(made.to_frame() if suffix in (".csv", ".parquet") else made.dataset, path)
    named = {} if suffix in (".nc", ".zarr") else {"members": MEMBERS, "observation": "sm", "spread": SPREAD}
    assert read_ensemble(path, **named).digest == made.digest


def test_cells_of_a_grid_have_them():
    frame = table(12)
    shape = {"y": [1.0, 2.0, 3.0], "x": [1.0, 2.0, 3.0, 4.0]}
    grid = xr.Dataset({c: (("y", "x"), frame[c].to_numpy().reshape(3, 4)) for c in [*MEMBERS, "krig_sd"]}, shape)
    grid["net_sd"] = "y", [0.1, 0.2, 0.3]  # which may lack a dimension
    made = Ensemble.from_dataset(grid, members=MEMBERS, spread=SPREAD)
    assert made.spread == SPREAD
    assert_array_equal(made.to_frame()["net_sd"], np.repeat([0.1, 0.2, 0.3], 4))
    assert_array_equal(made.to_frame()["krig_sd"], frame["krig_sd"])


STUDY = """
[study]
title = "own"
[data]
table = "TABLE"
observation = "sm"
site = "station"
spread = { krig = "krig_sd" }
scale = { krig = 0.01 }
[members]
columns = ["krig", "net", "rf"]
[models.bma]
model = "bma"
[evaluation]
estimands = ["site"]
"""


def test_a_study_and_commands_have_them(tmp_path):
    frame = table()
    percent = frame.assign(krig=100.0 * frame["krig"], krig_sd=100.0 * frame["krig_sd"])
    percent.to_csv(tmp_path / "table.csv", index=False)
    text = STUDY.replace("TABLE", str(tmp_path / "table.csv"))
    study = study_from_text(text)
    source = study_data(study).source
    assert source.spread == {"krig": "krig_sd"}
    assert_allclose(source.to_frame()["krig_sd"], frame["krig_sd"])
    assert study_models(study)["bma"].own_sd is None
    learnt = "train = ['mlr']\ncovariates = ['sm']\ncolumns ="
    wrong = {('{ krig = "', '{ crig = "'): "data.spread has crig, which members.columns lacks",
             ("krig_sd", "krig_std"): "krig_std", ("columns =", learnt): "leave it out"}  # fmt: skip
    for (old, new), words in wrong.items():
        with pytest.raises((ValueError, KeyError), match=words):
            study_data(study_from_text(text.replace(old, new)))
    run = CliRunner().invoke
    made = run(app, ["fit", str(tmp_path / "table.csv"), "--members", "krig,net,rf", "--observation", "sm", "--scale",
                     "krig=0.01", "--spread", "krig=krig_sd", "--method", "em", "--out", str(tmp_path / "fit.nc")])  # fmt: skip
    assert made.exit_code == 0, made.output
    fit = read_fit(tmp_path / "fit.nc")
    by_hand = quietly(be.fit, be.BMA(), ensemble_of(frame, {"krig": "krig_sd"}), method="em", progressbar=False)
    assert_allclose(fit["posterior"]["weight"], by_hand["posterior"]["weight"], rtol=1e-6)
    made = run(
        app, ["predict", str(tmp_path / "fit.nc"), str(tmp_path / "table.csv"), "--out", str(tmp_path / "p.csv")]
    )
    assert made.exit_code == 0, made.output
    said = quietly(be.predict, by_hand, ensemble_of(frame, {"krig": "krig_sd"}))
    assert_allclose(pd.read_csv(tmp_path / "p.csv")["sd"], said["sd"], rtol=1e-6)
    assert "of the variance of krig follows krig_sd" in run(app, ["describe", str(tmp_path / "fit.nc")]).output
    wrong = run(app, ["fit", str(tmp_path / "table.csv"), "--members", "krig", "--observation", "sm", "--spread", "krig_sd",
                      "--out", str(tmp_path / "no.nc")])  # fmt: skip
    assert wrong.exit_code != 0
    assert "wanted MEMBER=COLUMN" in " ".join(wrong.output.split())


def test_fits_keep_them_in_files(tmp_path):
    ensemble = ensemble_of(table())
    fit = quietly(be.fit, be.BMA(), ensemble, method="em", progressbar=False)
    write_fit(fit, tmp_path / "fit.nc")
    for name in ("mean", "sd"):
        assert_allclose(quietly(be.predict, read_fit(tmp_path / "fit.nc"), ensemble)[name],
                        quietly(be.predict, fit, ensemble)[name])  # fmt: skip
