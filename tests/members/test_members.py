"""Members: saved ones predict the same, and no file is a pickle; what cannot be right is refused by name and row count."""

import sys
import zipfile

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from member_tables import QUIET, members, table
from sklearn.base import BaseEstimator, RegressorMixin, clone
from sklearn.linear_model import LinearRegression
from sklearn.svm import SVR

from bayesens.ensemble.ensemble import Ensemble
from bayesens.members.cross_fitting import cross_fit
from bayesens.members.estimators import RowCap, default_estimators
from bayesens.members.fitted import FittedMembers, MemberError
from bayesens.members.members import Members


class Failing(RegressorMixin, BaseEstimator):
    """Fails where it is not given enough rows, or returns nonsense."""

    def __init__(self, least=0, wrong=None):
        self.least = least
        self.wrong = wrong

    def fit(self, X, y):
        if len(y) < self.least:
            raise ValueError(f"only {len(y)} rows")
        return self

    def predict(self, X):
        return {"shape": np.zeros((len(X), 2)), "infinite": np.full(len(X), np.inf), None: np.zeros(len(X))}[self.wrong]


def test_columns_may_be_named_and_are_then_no_covariates():
    frame = table()
    kept = frame[["rain", "heat", "station", "network", "date", "region", "lon", "lat", "sm"]]
    named = Members({"mlr": LinearRegression()}, kept, "sm", site="station", group="network", time="date", by="region",
                    lon=frame["lon"], lat="lat")  # fmt: skip
    assert named.rows.X.columns.tolist() == ["rain", "heat", "lon"]
    assert repr(named) == "<Members: mlr; 108 rows (108 observed) of 9 stations, 3 covariates>"


# Files ----------------------------------------------------------------------------------------------------------------


def test_members_that_were_written_before_their_estimators_moved_can_be_read(tmp_path, monkeypatch):
    frame = table()
    fitted = members(frame, {"svr": RowCap(SVR(), max_rows=40)}).fit(random_seed=1, **QUIET)
    with monkeypatch.context() as patch:
        patch.setattr(RowCap, "__module__", "bayesens.estimators")  # as skops writes it
        fitted.save(tmp_path / "members")
    again = FittedMembers.load(tmp_path / "members")
    with zipfile.ZipFile(tmp_path / "members" / "000.skops") as file:
        assert b'"bayesens.estimators"' in file.read("schema.json")
    pd.testing.assert_frame_equal(again.predict(frame), fitted.predict(frame), check_exact=True)


@pytest.mark.slow
def test_saved_members_predict_the_same_bits_and_no_file_is_a_pickle(tmp_path):
    frame = table()
    frame.loc[::9, "heat"] = np.nan
    made = members(frame, default_estimators(), by="region", lon="lon", lat="lat", blend=40.0, min_rows=20)
    fitted = made.fit(random_seed=1, n_jobs=2, **QUIET)
    fitted.save(tmp_path / "members")
    loaded = FittedMembers.load(tmp_path / "members")
    place = {"lon": frame["lon"], "lat": frame["lat"]}
    pd.testing.assert_frame_equal(loaded.predict(frame, **place), fitted.predict(frame, **place), check_exact=True)
    assert loaded.covariates == ("rain", "heat")
    for path in (tmp_path / "members").iterdir():
        assert path.read_bytes()[:2] != b"\x80\x04"
        assert path.suffix in (".skops", ".json")
    with pytest.raises(FileExistsError, match="is not an empty folder"):
        fitted.save(tmp_path / "members")


def test_a_strange_type_is_refused_by_name_on_both_sides(tmp_path):
    fitted = members(table(), {"odd": Failing()}).fit(**QUIET)
    with pytest.raises(TypeError, match=r"member 'odd' \(000.skops\) holds 'test_members.Failing'"):
        fitted.save(tmp_path / "refused")
    fitted.save(tmp_path / "kept", trusted=["test_members.Failing"])
    with pytest.raises(TypeError, match=r"trusted=\['test_members.Failing'\]"):
        FittedMembers.load(tmp_path / "kept")
    assert FittedMembers.load(tmp_path / "kept", trusted=["test_members.Failing"]).predict(table())["odd"].eq(0).all()
    with pytest.raises(FileNotFoundError, match=r"has no members.json"):
        FittedMembers.load(tmp_path)


def test_predict_names_missing_covariates_and_ignores_others():
    fitted = members(table()).fit(**QUIET)
    frame = table()
    assert fitted.predict(frame[["heat", "sm", "rain"]]).equals(fitted.predict(frame))
    with pytest.raises(KeyError, match="no column 'heat' in X"):
        fitted.predict(frame[["rain"]])


def test_what_an_ensemble_keeps_of_its_origin(tmp_path):
    ensemble = cross_fit(members(table()), folds=3, **QUIET)
    part = ensemble.select(rows=slice(0, 5))
    assert part.origin == "cross-fitted"
    assert (part.dataset["fold"].values == ensemble.dataset["fold"].values[:5]).all()
    ensemble.dataset.to_netcdf(tmp_path / "ensemble.nc", engine="h5netcdf")
    read = xr.load_dataset(tmp_path / "ensemble.nc", engine="h5netcdf")
    assert Ensemble.from_dataset(read).origin == "cross-fitted"
    again = Ensemble.from_dataset(read)
    assert again.digest == ensemble.digest
    assert (again.dataset["fold"].values == ensemble.dataset["fold"].values).all()


# Bad input ------------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:1 of 2 regions have fewer")
def test_a_failing_member_is_named_with_fold_and_region():
    frame = table()
    made = members(frame, {"mlr": LinearRegression(), "bad": Failing(least=40)}, by="region", min_rows=10, min_sites=2)
    with pytest.raises(
        MemberError,
        match=r"member 'bad' failed in fold [123] of 3, region '(west|east)' \(\d+ rows\): ValueError: only",
    ) as caught:
        cross_fit(made, folds=3, **QUIET)
    assert isinstance(caught.value.__cause__, ValueError)
    with pytest.raises(
        MemberError, match=r"member 'bad' failed in the fit to all rows .* shape \(108, 2\); wanted \(108,\)"
    ):
        members(frame, {"bad": Failing(wrong="shape")}).insample(**QUIET)
    with pytest.raises(MemberError, match="108 values of 108 that are not finite"):
        members(frame, {"bad": Failing(wrong="infinite")}).insample(**QUIET)
    frame.loc[5, "heat"] = np.nan
    with pytest.raises(MemberError, match=r"put sklearn.impute.SimpleImputer\(add_indicator=True\) before it"):
        members(frame).fit(**QUIET)


def change(frame, row, column, value):
    changed = frame.astype({column: object}) if isinstance(value, str) else frame.copy()
    changed.loc[row, column] = value
    return changed


@pytest.mark.parametrize(
    ("spoil", "options", "text"),
    [
        (
            lambda f: change(f, 0, "lon", 101.0),
            {"lon": "lon"},
            r"1 station\(s\) stand in two places: 's0' \('lon' of 's0' is 100.0, 101.0",
        ),
        (lambda f: change(f, 1, "date", f.loc[0, "date"]), {}, "1 of 108 rows .* repeat the station and time"),
        (lambda f: change(f, 0, "network", "n2"), {}, "belong to more than one group"),
        (lambda f: change(f, 4, "station", None), {}, "'station' is missing in 1 of 108 rows"),
        (lambda f: f.assign(sm=np.nan), {}, "'sm' is missing in all 108 rows"),
        (lambda f: f.assign(heat=np.nan), {}, r"covariate\(s\) 'heat' are missing in all 108 rows"),
        (lambda f: change(f, 2, "rain", np.inf), {}, "column 'rain' is infinite"),
        (
            lambda f: f.assign(date=[pd.Timestamp("2020-01-01", tz="UTC" if i % 2 else "Asia/Tokyo") for i in range(len(f))]),
            {},
            "mixes time zones",
        ),
        (lambda f: f, {"blend": 10.0}, "blend is 10.0; wanted a length in km"),
        (
            lambda f: change(f, 0, "lon", np.nan),
            {"blend": 10.0, "by": "region", "lon": "lon", "lat": "lat"},
            "blend=10.0 needs lon and lat in all 108 rows",
        ),
    ],
)  # fmt: skip
def test_bad_tables_are_refused(spoil, options, text):
    with pytest.raises(ValueError, match=text):
        members(spoil(table()), **options)


def test_bad_arguments_are_refused():
    frame = table()
    X, y, site = frame[["rain"]], frame["sm"], frame["station"]
    mlr = {"mlr": LinearRegression()}
    with pytest.raises(TypeError, match=r"member 'mlr' is the class LinearRegression; .*LinearRegression\(\)"):
        Members({"mlr": LinearRegression}, X, y, site=site)
    with pytest.raises(TypeError, match="estimators is list"):
        Members([LinearRegression()], X, y, site=site)
    with pytest.raises(ValueError, match=r"no estimators and no products"):
        Members({}, X, y, site=site)
    with pytest.raises(ValueError, match="y has 5 values and X 108 rows"):
        Members(mlr, X, y.to_numpy()[:5], site=site)
    with pytest.raises(ValueError, match="other row labels than X"):
        Members(mlr, X, y.iloc[::-1], site=site)
    with pytest.raises(KeyError, match=r"no column 'sation' in X .*did you mean 'station'"):
        Members(mlr, frame[["rain", "station"]], y, site="sation")
    with pytest.raises(TypeError, match=r"column 'network' .* wanted numbers"):
        Members(mlr, frame[["rain", "network"]], y, site=site)
    with pytest.raises(ValueError, match="scheme is 'sites'; wanted 'site', 'time'"):
        cross_fit(mlr, X, y, site=site, scheme="sites", **QUIET)
    with pytest.raises(ValueError, match="gap='3D' goes with scheme='time' only"):
        cross_fit(mlr, X, y, site=site, gap="3D", **QUIET)
    with pytest.raises(ValueError, match="needs a time in every row"):
        cross_fit(mlr, X, y, site=site, scheme="time", **QUIET)
    with pytest.raises(TypeError, match="got Members and y, site"):
        cross_fit(Members(mlr, X, y, site=site), y=y, site=site)
    with pytest.raises(TypeError, match="got Members and min_rows"):
        cross_fit(Members(mlr, X, y, site=site), min_rows=50)
    with pytest.raises(TypeError, match=r"cross_fit\(\) got .* 'fold'. Did you mean 'folds'"):
        cross_fit(mlr, X, y, site=site, fold=3)
    with pytest.raises(TypeError, match="without X, y or site"):
        cross_fit(mlr, X, y)
    with pytest.raises(ValueError, match=r"scheme has shape \(5,\); wanted one fold label for each of the 108 rows"):
        cross_fit(mlr, X, y, site=site, scheme=np.arange(5), **QUIET)
    with pytest.raises(ValueError, match="5 folds of 2 sites with observations"):
        cross_fit(mlr, X, y, site=np.repeat(["a", "b"], 54), **QUIET)


def test_constant_covariates_and_holes_of_whole_regions_are_warned_of():
    frame = table()
    with pytest.warns(UserWarning, match=r"covariate\(s\) 'heat' are constant in the 108 rows"):
        members(frame.assign(heat=1.0))
    frame.loc[frame["region"] == "west", "heat"] = np.nan
    with pytest.warns(UserWarning, match="missing throughout whole regions: 'heat' in 'west'"):
        members(frame, by="region")


def test_progress_bar_can_be_turned_off(capsys):
    cross_fit(members(table()), folds=3, **QUIET)
    assert capsys.readouterr().err == ""


def test_importing_members_loads_no_scikit_learn():
    import subprocess

    heavy = "('sklearn', 'xgboost', 'skops', 'joblib')"
    code = f"import sys, bayesens.members.members; print([n for n in {heavy} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_clone_of_defaults():
    for estimator in default_estimators(random_seed=2).values():
        assert repr(clone(estimator)) == repr(estimator)


def test_times_in_a_format_that_is_named():
    frame = table()
    plain = members(frame)
    counted = frame.assign(date=(pd.to_datetime(frame["date"]) - pd.Timestamp("1899-12-30")).dt.days)
    with pytest.raises(ValueError, match="time_format"):
        members(counted)
    np.testing.assert_array_equal(members(counted, time_format="excel").rows.time, plain.rows.time)
