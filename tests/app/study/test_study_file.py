"""The study file: every key documented, every mistake named, and the template a file that can be read."""

import datetime as dt
import tomllib

import pandas as pd
import pytest
from pydantic import BaseModel

import bayesens as be
from bayesens import simulate
from bayesens.app.study.data import study_data, study_models
from bayesens.app.study.file import Study, read_study, study_from_text
from bayesens.app.study.template import study_template

DATA = '[data]\ntable = "t.csv"\nobservation = "sm"\nsite = "station"\ngroup = "network"\ntime = "date"\n'
MEMBERS = '[members]\ncolumns = ["rf", "mlr"]\n'
MODELS = '[models.BMA]\nmodel = "bma"\n'


@pytest.fixture(scope="module")
def frame():
    return simulate.region(6, 2, 12, random_seed=1).frame


@pytest.fixture
def folder(frame, tmp_path):
    frame.to_csv(tmp_path / "t.csv", index=False)
    return tmp_path


def made(folder, text):
    return study_data(study_from_text(text, folder=folder))


def test_every_key_has_a_description():
    def models(cls, seen):
        for field in cls.model_fields.values():
            kinds = [field.annotation, *getattr(field.annotation, "__args__", ())]
            for kind in kinds:
                if isinstance(kind, type) and issubclass(kind, BaseModel) and kind not in seen:
                    seen.append(kind)
                    models(kind, seen)
        return seen

    for cls in models(Study, []):
        assert cls.__doc__
        for name, field in cls.model_fields.items():
            assert field.description, f"{cls.__name__}.{name}"


def test_a_template_is_a_study_that_runs_on_its_table(frame, folder):
    text = study_template(frame.drop(columns="truth"), "t.csv")
    study = study_from_text(text, folder=folder)
    assert study.members.columns == ("rf", "mlr", "svr", "xgb")
    assert (study.data.site, study.data.group, study.data.time) == ("station", "network", "date")
    ensemble = study_data(study).source
    assert ensemble.members == ("rf", "mlr", "svr", "xgb")
    # Uncommenting a key with its default changes nothing.
    for line in text.splitlines():
        if line.startswith("# ") and " = " in line and '"..."' not in line and "[drought]" not in line:
            key = line[2:].partition(" = ")[0]
            if key.isidentifier() and key not in ("percentile", "repeats", "cell", "grid", "level_prior"):
                assert tomllib.loads(line[2:])


def test_a_template_of_covariates_trains_members(frame):
    table = frame[["date", "station", "sm", "lon"]].assign(rain=range(len(frame)), dem=7.0)
    study = study_from_text(study_template(table, "t.csv"))
    assert study.members.train == ("rf", "mlr", "svr", "xgb")
    assert study.members.covariates == ("rain", "dem")


def test_a_template_needs_an_observation_and_takes_names(frame):
    with pytest.raises(ValueError, match="no column looks like the observation; name it: --observation"):
        study_template(frame.drop(columns=["sm", "truth"]), "t.csv")
    text = study_template(frame.drop(columns="sm"), "t.csv", given={"observation": "truth", "members": ["rf"]})
    assert study_from_text(text).members.columns == ("rf",)
    with pytest.raises(ValueError, match="no column 'smm'; it has 'date', 'station'"):
        study_template(frame, "t.csv", given={"observation": "smm"})


def test_models_have_their_options_and_priors():
    text = DATA + MEMBERS + MODELS + (
        'sigma = "shared"\nbias_prior = {family = "Normal", mu = 0, sigma = 0.5}\n[models.H]\nmodel = "hbm"\nsite = false\n'
    )  # fmt: skip
    models = study_models(study_from_text(text))
    assert models == {
        "BMA": be.BMA(sigma="shared", bias_prior=be.Prior("Normal", mu=0, sigma=0.5)),
        "H": be.HBM(site=False),
    }
    rung = text + '[ladder]\nweight_covariates = "dem"\n'
    with pytest.raises(ValueError, match=r"\[ladder\] looks at 'dem'; name its column: data.covariates"):
        study_models(study_from_text(rung))
    known = study_from_text(rung.replace("observation = ", 'covariates = ["dem"]\nobservation = ', 1))
    assert known.ladder.weight_covariates == ("dem",)
    assert study_models(known) == models
    wrong = study_from_text(text.replace('sigma = "shared"', 'sigm = "shared"'))
    with pytest.raises(ValueError, match=r"\[models.BMA\]: BMA has no option 'sigm'; did you mean 'sigma'\?"):
        study_models(wrong)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (DATA + MEMBERS + MODELS + "[evaluation]\nfold = 5", r"evaluation\.fold: is no key; did you mean 'folds'\?"),
        (
            DATA + MEMBERS + MODELS + "[ladder]\nestimand = 5",
            r"ladder\.estimand: is no key; did you mean 'estimands'\?",
        ),
        (
            DATA + MEMBERS + MODELS + "[sensitivity]\nmember = 5",
            r"sensitivity\.member: is no key; did you mean 'members'\?",
        ),
        (DATA + MEMBERS + MODELS + "[evaluatoin]\nfolds = 5", r"evaluatoin: is no key; did you mean 'evaluation'\?"),
        (
            DATA + MEMBERS + MODELS + "[evaluation]\nfolds = 1",
            r"evaluation\.folds: .*greater than or equal to 2; got 1",
        ),
        (
            DATA + MEMBERS + MODELS + '[evaluation]\nestimands = ["sites"]',
            r"evaluation\.estimands\.0: .*'time', 'site'",
        ),
        (
            DATA + MEMBERS + MODELS + '[evaluation]\nreference = "HBM"',
            "evaluation.reference is 'HBM'; wanted one of BMA",
        ),
        (
            DATA.replace('time = "date"', "") + MEMBERS + MODELS + '[evaluation]\nestimands = ["time"]',
            "needs data.time",
        ),
        (DATA.replace('table = "t.csv"', "") + MEMBERS + MODELS, "data: give either table, a path, or dataset"),
        (DATA + "[members]\n" + MODELS, "members: there are no members"),
        (DATA + '[members]\ntrain = ["rf"]\n' + MODELS, "members: covariates is empty; rf learn from columns"),
        (
            DATA + '[members]\ntrain = ["rff"]\n' + MODELS,
            r"members\.train\.0: Input should be 'rf', 'mlr', 'svr' or 'xgb'",
        ),
        (DATA + MEMBERS + "[models]", r"models: .*at least 1"),
        (DATA + MEMBERS + MODELS + "[importance]\nrepeats = 3", r"\[importance\] needs members.train"),
        (DATA + MEMBERS + MODELS + '[models.bma]\nmodel = "bma"', "make the same file name"),
        (DATA + MEMBERS + MODELS + '[products]\nBMA = "rf"', "BMA is a model and a product"),
        ("folder = 1\n" + DATA + MEMBERS + MODELS, "folder : is no key"),
        (DATA + "[x", "study.toml is not TOML: "),
    ],
)
def test_mistakes_are_named(text, message):
    with pytest.raises(ValueError, match=message):
        study_from_text(text)


def test_all_mistakes_at_once():
    with pytest.raises(ValueError, match=r"(?s)2 mistakes\n  evaluation\.draws.*\n  evaluation\.fold"):
        study_from_text(DATA + MEMBERS + MODELS + '[evaluation]\nfold = 5\ndraws = "many"')


def test_a_missing_file_and_one_that_is_not_text(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no study file .*bayesens init"):
        read_study(tmp_path / "none.toml")
    (tmp_path / "odd.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="is not text in UTF-8"):
        read_study(tmp_path / "odd.toml")


def test_all_missing_columns_are_named_with_their_keys(folder):
    text = (DATA + MEMBERS + MODELS).replace('"mlr"', '"mlrr"').replace(
        '"network"', '"netwrk"'
    ) + '[products]\ncci = "cc"\n'
    with pytest.raises(ValueError, match=r"(?s)t\.csv \(72 rows\) lacks columns that the study names:"
                                         r".*data\.group names 'netwrk'; did you mean 'network'\?"
                                         r".*members\.columns names 'mlrr'; did you mean 'mlr'\?.*products\.cci names "
                                         r"'cc'"):  # fmt: skip
        made(folder, text)


def test_rows_are_cut_by_day_and_value(folder, frame):
    text = DATA + 'start = 2020-01-10\nend = 2020-02-01\ndrop = {station = ["s01"]}\n' + MEMBERS + MODELS
    table = made(folder, text)
    assert table.frame["date"].astype("datetime64[ns]").between("2020-01-10", "2020-02-01").all()
    assert "s01" not in set(table.frame["station"])
    kept = frame[
        frame["date"].between(pd.Timestamp("2020-01-10"), pd.Timestamp("2020-02-01")) & (frame["station"] != "s01")
    ]
    assert len(table.frame) == len(kept)
    assert study_from_text(text).data.end == dt.date(2020, 2, 1)
    with pytest.raises(ValueError, match=r"data.drop: no row has station = 's99'"):
        made(folder, text.replace("s01", "s99"))
    with pytest.raises(ValueError, match="leave zero of 72 rows"):
        made(folder, text.replace("2020-02-01", "2020-01-09").replace("2020-01-10", "2020-01-08"))


@pytest.mark.filterwarnings("ignore:covariate.* are constant")
def test_sums_reach_back_before_the_start_and_not_beyond_a_station(folder, frame):
    table = frame.assign(rain=1.0)
    table.to_csv(folder / "t.csv", index=False)
    text = (
        DATA
        + 'start = 2020-02-01\n[members]\ntrain = ["mlr"]\ncovariates = ["rain", "lon"]\nsums = {rain = [6, 20]}\n'
        + MODELS
    )
    found = made(folder, text).frame
    # One value every six days: 6 days hold one, 20 days hold four.
    assert set(found["rain_6d"]) == {1.0}
    assert set(found["rain_20d"]) == {4.0}
    whole = made(folder, text.replace("start = 2020-02-01\n", "")).frame.sort_values(["station", "date"])
    assert whole.groupby("station")["rain_20d"].first().tolist() == [1.0] * 6


def test_a_table_of_predictions_passes_the_door_of_the_members(folder, frame):
    frame.assign(lon=range(len(frame))).to_csv(folder / "t.csv", index=False)
    with pytest.raises(ValueError, match=r"6 station\(s\) stand in two places"):
        made(folder, DATA + 'lon = "lon"\n' + MEMBERS + MODELS)
    pd.concat([frame, frame.iloc[:1]]).to_csv(folder / "t.csv", index=False)
    with pytest.raises(ValueError, match="repeat the station and time of an earlier row"):
        made(folder, DATA + MEMBERS + MODELS)


def test_settings_of_an_estimator(folder):
    text = DATA + '[members]\ntrain = ["rf"]\ncovariates = ["lon"]\nsettings = {rf = {n_estimators = 7}}\n' + MODELS
    assert made(folder, text).source.estimators["rf"].n_estimators == 7
    with pytest.raises(ValueError, match=r"members.settings: Invalid parameter 'trees'"):
        made(folder, text.replace("n_estimators", "trees"))
