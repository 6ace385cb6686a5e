"""Columns beside the members, from every door to the models that look at them."""

import json
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
from bayesens.app.study.run import run_study
from bayesens.ensemble.files import read_ensemble, write_table
from bayesens.inference.fit_tree import check_training_rows, read_fit, write_fit

MEMBERS = ["rf", "svr"]
BESIDE = ["elevation", "sand"]
ROLES = {"observation": "sm", "site": "station", "lon": "x", "lat": "y"}


def mountains(sites=40, times=12, seed=1, first=0):
    """Two members whose biases grow with the elevation of a station, by three times the noise from valley to summit."""
    rng = np.random.default_rng(seed)
    elevation = np.repeat(rng.uniform(0.0, 2000.0, sites), times)
    truth = rng.normal(10.0, 1.0, sites * times)
    noise = rng.normal(0.0, [0.3, 0.5], (len(truth), 2))
    lean = np.array([1.5e-3, -2e-3]) * (elevation[:, None] - 1000.0)
    return pd.DataFrame({
        "station": np.repeat([f"s{first + k:03d}" for k in range(sites)], times), "sm": truth,
        "rf": truth + lean[:, 0] + noise[:, 0], "svr": truth + lean[:, 1] + noise[:, 1], "elevation": elevation,
        "sand": np.repeat(rng.uniform(0.0, 1.0, sites), times), "x": 5.0 + 1e-4 * elevation,
        "y": np.repeat(np.linspace(45.0, 46.0, sites), times),
    })  # fmt: skip


def ensemble_of(frame, covariates=BESIDE, **roles):
    return be.Ensemble.from_frame(frame, members=MEMBERS, covariates=covariates, **(ROLES | roles))


def quietly(model, ensemble, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return be.fit(model, ensemble, **({"method": "em", "progressbar": False} | options))


def predicted(fit, ensemble):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return be.predict(fit, ensemble)


@pytest.fixture(scope="module")
def frame():
    return mountains()


@pytest.fixture(scope="module")
def fit(frame):
    return quietly(be.BMA(bias_covariates=("elevation",), scale=("mean", "sand")), ensemble_of(frame))


# What it is for -------------------------------------------------------------------------------------------------------


def test_a_bias_that_follows_the_elevation_is_found_and_taken_away_at_new_stations(frame):
    new = ensemble_of(mountains(seed=2, first=100))
    plain, regressed = (
        quietly(be.BMA(bias_covariates=names), ensemble_of(frame), method="auto", draws=200, random_seed=1)
        for names in ((), ("elevation",))
    )
    found = regressed["posterior"].mean(("chain", "draw"))
    # What is taken away of a member, in its own units: its slope is below 1 where it has noise.
    taken = -(found["covariate_slope"] / found["slope"]).sel(bias_covariate="elevation")
    assert_allclose(taken, [1.5e-3, -2e-3], rtol=0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        crps = [float(be.score(one, new)["crps"].mean()) for one in (plain, regressed)]
    assert crps[1] < 0.7 * crps[0]


def test_models_without_covariates_do_not_look_at_them(frame):
    for model in (be.BMA(), be.HBM(), be.Climatology(site=True)):
        with_them, without = (quietly(model, ensemble_of(frame, names), method="auto", draws=50, chains=2, random_seed=1)
                              for names in (BESIDE, ()))  # fmt: skip
        assert_array_equal(
            predicted(with_them, ensemble_of(frame))["mean"], predicted(without, ensemble_of(frame, ()))["mean"]
        )


# Doors ----------------------------------------------------------------------------------------------------------------


@given(values=st.lists(st.tuples(*[st.floats(-1e9, 1e9) | st.none()] * 2, st.floats(-9, 9)), min_size=1, max_size=9))
def test_tables_datasets_and_parts_keep_every_value(values):
    frame = pd.DataFrame(values, columns=["elevation", "sand", "rf"], dtype=np.float64)
    # No value is a code for a missing one here: 9999 among smaller values would be refused.
    made = be.Ensemble.from_frame(frame, members=["rf"], covariates=BESIDE, missing=dict.fromkeys(BESIDE, "none"))
    assert made.covariates == ("elevation", "sand")
    assert_array_equal(made.dataset["covariate"], frame[BESIDE])
    pd.testing.assert_frame_equal(made.to_frame(), frame[["rf", *BESIDE]])
    again = be.Ensemble.from_dataset(made.dataset)
    assert again.digest == made.digest
    assert again.covariates == made.covariates
    rows = np.arange(len(frame))[::-1]
    assert_array_equal(made.select(rows=rows).dataset["covariate"], frame[BESIDE].iloc[rows])
    assert made.select(members=["rf"]).covariates == made.covariates


@pytest.mark.parametrize("suffix", [".nc", ".zarr", ".csv", ".parquet"])
def test_files_keep_them(frame, tmp_path, suffix):
    made = ensemble_of(frame.assign(sand=frame["sand"].where(frame["sand"] > 0.2)))
    path = tmp_path / f"table{suffix}"
    if suffix in (".nc", ".zarr"):
        write_table(made.dataset, path)
        again = read_ensemble(path)
    else:
        write_table(made.to_frame(), path)
        again = read_ensemble(path, members=MEMBERS, covariates=BESIDE, **ROLES)
    assert again.covariates == made.covariates
    assert_allclose(again.dataset["covariate"], made.dataset["covariate"])
    if suffix != ".csv":
        assert again.digest == made.digest


def test_parts_joined_again_are_the_whole(frame):
    made = ensemble_of(frame)
    parts = [made.select(rows=slice(0, 100)).dataset, made.select(rows=slice(100, None)).dataset]
    assert be.Ensemble.from_dataset(xr.concat(parts, "obs")).digest == made.digest


def test_some_covariates_of_a_dataset_may_be_taken(frame):
    made = ensemble_of(frame)
    assert be.Ensemble.from_dataset(made.dataset, covariates=["sand"]).covariates == ("sand",)
    assert be.Ensemble.from_dataset(made.dataset, covariates=[]).covariates == ()


def test_a_covariate_called_as_a_role_of_another_column_is_kept_apart(frame):
    made = ensemble_of(frame.rename(columns={"elevation": "site", "sand": "covariate"}), ["site", "covariate"])
    again = be.Ensemble.from_dataset(made.dataset)
    assert again.digest == made.digest
    assert again.labels("site").tolist() == frame["station"].tolist()


def test_covariates_are_part_of_what_was_fitted(frame):
    plain, with_them = ensemble_of(frame, ()), ensemble_of(frame)
    other = ensemble_of(frame.assign(elevation=frame["elevation"] + 1.0))
    assert len({one.digest for one in (plain, with_them, other)}) == 3
    tree = quietly(be.BMA(bias_covariates=("elevation",)), with_them)
    check_training_rows(tree, with_them)
    with pytest.raises(ValueError, match="not the one that was fitted"):
        check_training_rows(tree, other)
    assert_array_equal(tree["constant_data"]["covariate"], with_them.dataset["covariate"])


def test_the_display_names_them_with_their_gaps(frame):
    made = ensemble_of(frame.assign(sand=frame["sand"].where(np.arange(len(frame)) % 4 > 0)))
    assert "\n  covariates  elevation, sand (25.0 % missing)" in repr(made)
    assert "\n  members     rf, svr\n" in repr(made)
    assert "elevation, sand (25.0 % missing)" in made._repr_html_()


# Predictions ----------------------------------------------------------------------------------------------------------


def test_a_grid_is_predicted_as_its_table(fit):
    rng = np.random.default_rng(4)
    grid = xr.Dataset(
        {"prediction": (("time", "y", "x", "member"), rng.normal(10.0, 1.0, (2, 3, 4, 2))),
         "elevation": (("y", "x"), rng.uniform(0.0, 2000.0, (3, 4))), "sand": ("x", rng.uniform(0.0, 1.0, 4))},
        {"member": MEMBERS},
    )  # fmt: skip
    rows = be.Ensemble.from_dataset(grid, covariates=BESIDE)
    (flat,) = xr.broadcast(grid[BESIDE].expand_dims(time=2).transpose("time", "y", "x"))
    table = pd.DataFrame(grid["prediction"].values.reshape(-1, 2), columns=MEMBERS)
    table = table.assign(**{name: flat[name].values.ravel() for name in BESIDE})
    of_table = be.Ensemble.from_frame(table, members=MEMBERS, covariates=BESIDE)
    for name, values in predicted(fit, rows).data_vars.items():
        assert_array_equal(values, predicted(fit, of_table)[name])
    by_variable = grid["prediction"].to_dataset("member").assign({name: grid[name] for name in BESIDE})
    named = be.Ensemble.from_dataset(by_variable, members=MEMBERS, covariates=BESIDE)
    assert named.digest == rows.digest


def test_an_ensemble_or_a_fit_from_a_file_says_the_same(fit, frame, tmp_path):
    write_table(ensemble_of(frame).dataset, tmp_path / "table.nc")
    again = read_ensemble(tmp_path / "table.nc")
    refitted = quietly(be.BMA(bias_covariates=("elevation",), scale=("mean", "sand")), again)
    write_fit(fit, tmp_path / "fit.nc")
    whole = predicted(fit, ensemble_of(frame))
    for other in (predicted(refitted, ensemble_of(frame)), predicted(read_fit(tmp_path / "fit.nc"), again)):
        xr.testing.assert_allclose(other, whole, rtol=1e-12)


def test_a_row_that_lacks_a_covariate_of_the_bias_has_no_prediction_and_moves_no_other(fit, frame):
    gone = np.arange(len(frame)) % 7 == 3
    holes = ensemble_of(frame.assign(elevation=frame["elevation"].where(~gone)))
    with pytest.warns(UserWarning, match=f"{gone.sum()} of {len(frame)} rows have no value of 'elevation'.*are NaN"):
        found = be.predict(fit, holes)
    whole = predicted(fit, ensemble_of(frame))
    for name, values in found.data_vars.items():
        assert np.isnan(values[gone]).all()
        assert_array_equal(values[~gone], whole[name][~gone])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        scores = be.score(fit, holes)
    assert np.isnan(scores["crps"][gone]).all()
    assert np.isnan(scores["log_score"][gone]).all()
    assert np.isfinite(scores["crps"][~gone]).all()


def test_a_missing_covariate_of_the_widths_is_a_typical_one(fit, frame):
    holes = predicted(fit, ensemble_of(frame.assign(sand=np.nan)))
    assert np.isfinite(holes["sd"]).all()
    assert_allclose(holes["sd"], predicted(fit, ensemble_of(frame.assign(sand=frame["sand"].mean())))["sd"], rtol=1e-6)


def test_a_table_without_the_column_is_refused(fit, frame):
    with pytest.raises(
        ValueError, match=r"column 'elevation', and the table has 'sand'; name it with .*covariates=\['elevation'"
    ):
        be.predict(fit, ensemble_of(frame, ["sand"]))
    with pytest.raises(ValueError, match="column 'elevation', and the table has no covariates"):
        be.predict(fit, ensemble_of(frame, ()))
    with pytest.raises(ValueError, match=r"column 'lat', .*name it with Ensemble.from_frame\(..., lat=...\)"):
        quietly(be.BMA(bias_covariates=("lat",)), ensemble_of(frame, lat=None))


# Errors ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("change", "covariates", "error", "text"), [
    ({}, "elevation", TypeError, r"covariates is the text 'elevation'; wanted a list of .*: covariates=\['elevation'\]"),
    ({}, ["elevatoin"], KeyError, r"no column 'elevatoin' in the table \(480 rows\); did you mean 'elevation'\?"),
    ({}, ["sand", "sand"], ValueError, "covariates names 'sand' more than once"),
    ({}, [3], TypeError, r"covariates has 1 name\(s\) that are not text"),
    ({}, ["rf"], ValueError, "column 'rf' .* named both as a member and as a covariate; a column has one role"),
    ({}, ["sm"], ValueError, "named both as the observation and as a covariate"),
    ({}, ["station"], ValueError, "named both as the site and as a covariate"),
    ({}, ["x"], ValueError, "named both as the lon and as a covariate"),
    ({"spread": 1.0}, ["spread"], ValueError, "called 'spread', which to models is the spread of the members; copy"),
    ({"lat": 1.0}, ["lat"], ValueError, "'lat', which to models is the latitude of the row; name it by lat='lat'"),
    ({"sand": "coarse"}, ["sand"], TypeError, "column 'sand' .* wanted numbers.*'coarse' and the like"),
    ({"sand": True}, ["sand"], TypeError, "column 'sand' .* has dtype bool; wanted numbers"),
    ({"sand": np.inf}, ["sand"], ValueError, "column 'sand' is infinite in 480 of 480 rows"),
])  # fmt: skip
def test_what_is_no_covariate_is_refused_at_the_door(frame, change, covariates, error, text):
    with pytest.raises(error, match=text):
        ensemble_of(frame.assign(**change), covariates)


@pytest.mark.parametrize(("values", "options", "text"), [
    (lambda s: s.where(s > 0.2), {"bias_covariates": ("sand",)},
     r"Covariate 'sand' is missing in \d+ of 480 training rows, and the correction regresses on it; fill it in, drop"),
    (lambda s: 0.0 * s + 3.0, {"bias_covariates": ("sand",)},
     "Covariate 'sand' is 3 in all 480 training rows; wanted values that vary: leave it out of bias_covariates"),
    (lambda s: 0.0 * s + 3.0, {"scale": ("mean", "sand")}, "Covariate 'sand' is 3 in all 480 training rows; .* out of scale"),
    (lambda s: np.nan * s, {"scale": ("sand",)}, "Covariate 'sand' is missing in all 480 training rows"),
])  # fmt: skip
def test_a_fit_refuses_a_covariate_that_it_cannot_learn_from(frame, values, options, text):
    table = ensemble_of(frame.assign(sand=values(frame["sand"])))
    with pytest.raises(ValueError, match=text):
        quietly(be.BMA(**options), table)


def test_rows_that_a_fit_leaves_out_may_lack_covariates(frame):
    out = np.arange(len(frame)) % 5 == 0
    holes = frame.assign(sm=frame["sm"].where(~out), sand=frame["sand"].where(~out))
    tree = quietly(be.BMA(bias_covariates=("sand",)), ensemble_of(holes))
    assert json.loads(tree.attrs["bayesens_options"])["bias_covariates"] == ["sand"]


# Members that are trained ----------------------------------------------------------------------------------------------


def trained(frame, **options):
    from sklearn.linear_model import LinearRegression

    X = frame[["station", "rf", "elevation", "sand"]]
    return be.Members({"mlr": LinearRegression()}, X, frame["sm"], site="station", **options)


def test_members_keep_covariates_for_the_models(frame):
    members = trained(frame, keep=["elevation"])
    made = be.cross_fit(members, folds=4, random_seed=1, progressbar=False)
    assert_array_equal(made.dataset["covariate"], frame[["elevation"]])
    assert members.insample().covariates == members.untrained().covariates == ("elevation",)
    inside = frame["station"] < "s030"
    for rows, part in zip((inside, ~inside), members.split(inside, ~inside, folds=3, progressbar=False), strict=True):
        assert_array_equal(part.dataset["covariate"], frame.loc[rows, ["elevation"]])
    assert trained(frame).insample().covariates == ()
    assert len({trained(frame, keep=keep).digest for keep in ((), ("elevation",), ("sand",))}) == 3
    again = be.cross_fit(members.estimators, frame[["station", "rf", "elevation", "sand"]], frame["sm"], site="station",
                         keep=["elevation"], folds=4, random_seed=1, progressbar=False)  # fmt: skip
    assert again.digest == made.digest


def test_models_with_covariates_are_compared_on_members_that_are_trained(frame):
    model = be.BMA(bias_covariates=("elevation",))
    options = {"estimand": "site", "folds": 3, "random_seed": 1, "progressbar": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        found = be.compare({"BMA": model}, trained(frame, keep=["elevation"]), method="em", **options)
        assert found.sizes["obs"] == len(frame)
        grid = be.sensitivity.prior_grid(
            model,
            trained(frame, keep=["elevation"]),
            {"level_prior": [be.Prior("Normal", mu=0, sigma=1)]},
            draws=50,
            **options,
        )
    assert set(grid["failed"].values) == {""}


@pytest.mark.parametrize(("keep", "error", "text"), [
    ("sand", TypeError, "keep is the text 'sand'"),
    (["snad"], KeyError, "no column 'snad' in the covariates of the members .*did you mean 'sand'"),
    (["station"], KeyError, "no column 'station' in the covariates of the members"),
])  # fmt: skip
def test_members_keep_what_they_have(frame, keep, error, text):
    with pytest.raises(error, match=text):
        trained(frame, keep=keep)


def test_a_comparison_has_the_covariates_in_every_fold(frame):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        found = be.compare({"plain": be.BMA(), "regressed": be.BMA(bias_covariates=("elevation",))}, ensemble_of(frame),
                           estimand="site", folds=4, method="em", random_seed=1, progressbar=False)  # fmt: skip
    crps = found["crps"].mean("obs")
    assert float(crps.sel(model="regressed")) < 0.7 * float(crps.sel(model="plain"))


# Command line and studies ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".csv", ".nc"])
def test_the_command_line_takes_them_and_finds_them_again(frame, tmp_path, suffix):
    run = CliRunner().invoke
    new = mountains(seed=2, first=100)
    for name, table in (("train.csv", frame), ("new.csv", new)):
        table.to_csv(tmp_path / name, index=False)
    write_table(ensemble_of(new).dataset, tmp_path / "new.nc")
    asked = ["--members", "rf,svr", "--observation", "sm", "--site", "station", "--covariates", "elevation,sand"]
    option = ["--option", 'bias_covariates=["elevation"]', "--option", 'scale=["mean", "sand"]', "--method", "em"]
    done = run(app, ["fit", str(tmp_path / "train.csv"), *asked, *option, "--out", str(tmp_path / "fit.nc")])
    assert done.exit_code == 0, done.output
    out = tmp_path / "out.csv"
    done = run(app, ["predict", str(tmp_path / "fit.nc"), str(tmp_path / f"new{suffix}"), "--out", str(out)])
    assert done.exit_code == 0, done.output
    expected = predicted(read_fit(tmp_path / "fit.nc"), ensemble_of(new))
    assert_allclose(pd.read_csv(out)["mean"], expected["mean"], rtol=1e-9)
    new.drop(columns="elevation").to_csv(tmp_path / "bare.csv", index=False)
    done = run(app, ["predict", str(tmp_path / "fit.nc"), str(tmp_path / "bare.csv"), "--out", str(out), "--force"])
    assert done.exit_code == 1
    assert "no covariate of the fit 'elevation' in" in " ".join(done.stderr.split())


STUDY = """
[data]
table = "t.csv"
observation = "sm"
site = "station"
covariates = ["elevation", "sand"]
[members]
{members}
[models.BMA]
model = "bma"
bias_covariates = ["elevation"]
scale = ["mean", "sand"]
method = "em"
[evaluation]
folds = 3
replicates = 20
[map]
grid = "grid.nc"
"""
GIVEN = 'columns = ["rf", "svr"]'
TRAINED = 'train = ["mlr"]\ncovariates = ["rf", "elevation", "sand"]'


@pytest.mark.slow
@pytest.mark.parametrize("members", [GIVEN, TRAINED])
def test_a_study_has_them_in_its_folds_and_on_its_map(frame, tmp_path, members):
    frame.to_csv(tmp_path / "t.csv", index=False)
    rng = np.random.default_rng(3)
    cells = {"rf": rng.normal(10, 1, (5, 6)), "svr": rng.normal(10, 1, (5, 6)), "sand": rng.uniform(0, 1, (5, 6)),
             "elevation": rng.uniform(0, 2000, (5, 6))}  # fmt: skip
    grid = xr.Dataset({name: (("y", "x"), values) for name, values in cells.items()}, {"y": range(5), "x": range(6)})
    write_table(grid, tmp_path / "grid.nc")
    (tmp_path / "study.toml").write_text(STUDY.format(members=members))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a map of 30 cells is too small for some statistics
        done = run_study(tmp_path / "study.toml", tmp_path / "out", say=lambda _: None, progressbar=False)
    assert set(done.scores["model"]) == {"BMA"}
    found = xr.load_dataset(tmp_path / "out" / "maps" / "bma.nc", engine="h5netcdf")
    if members == GIVEN:
        rows = be.Ensemble.from_dataset(grid, members=MEMBERS, covariates=BESIDE)
        expected = predicted(read_fit(tmp_path / "out" / "fits" / "bma.nc"), rows)
        assert_allclose(found["mean"].values.ravel(), expected["mean"], rtol=1e-6)
    assert np.isfinite(found["mean"]).all()


@pytest.mark.parametrize(("old", "new", "text"), [
    ('"elevation", "sand"]\n[mem', '"sand"]\n[mem', r"\[models.BMA\] looks at 'elevation'; name its column: data.covariates"),
    ('"elevation", "sand"]\n[mem', '"elevation", "snad"]\n[mem', "data.covariates names 'snad'; did you mean 'sand'"),
    (GIVEN, 'train = ["mlr"]\ncovariates = ["rf", "sand"]', "data.covariates has elevation, which members.covariates lacks"),
])  # fmt: skip
def test_a_study_names_what_is_missing(frame, tmp_path, old, new, text):
    frame.to_csv(tmp_path / "t.csv", index=False)
    written = STUDY.format(members=GIVEN)
    assert old in written

    def read():
        study = study_from_text(written.replace(old, new), folder=tmp_path)
        return study_data(study), study_models(study)

    with pytest.raises(ValueError, match=text):
        read()
