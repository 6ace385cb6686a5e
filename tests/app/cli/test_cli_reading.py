"""The command line and the study file read tables of all kinds through the same options."""

import warnings

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import bayesens as be
from bayesens import simulate
from bayesens.app.cli.main import app
from bayesens.app.cli.shared import names_in
from bayesens.app.study.data import study_data
from bayesens.app.study.file import study_from_text

pytestmark = pytest.mark.filterwarnings("ignore:EM found")

MEMBERS = ["rf", "mlr", "svr", "xgb"]
ROLES = ["--observation", "sm", "--site", "station", "--group", "network", "--time", "date"]
COLUMNS = ["--members", ",".join(MEMBERS), *ROLES]


@pytest.fixture(scope="module")
def frame():
    return simulate.region(n_sites=9, n_times=20, random_seed=1).frame


@pytest.fixture(scope="module")
def weights(frame, tmp_path_factory):
    path = tmp_path_factory.mktemp("plain") / "t.csv"
    frame.to_csv(path, index=False)
    return fitted(path, *COLUMNS)


def run(*arguments, code=0):
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == code, result.output
    return result.output


def fitted(path, *options):
    out = path.parent / "fit.nc"
    said = run("fit", path, *options, "--method", "em", "--out", out)
    assert "Warning" not in said
    return be.read_fit(out)["posterior"]["weight"].values.ravel()


def refused(*arguments):
    said = run(*arguments, code=1)
    assert said.count("Error: ") == 1
    return said


def as_long(frame):
    rest = [name for name in frame if name not in MEMBERS]
    return frame.melt(id_vars=rest, value_vars=MEMBERS, var_name="model", value_name="value")


def test_decimal_commas(frame, weights, tmp_path):
    path = tmp_path / "t.csv"
    frame.to_csv(path, sep=";", decimal=",", index=False)
    assert "have decimal commas ('113,863' in 'lon'): say --decimal ," in refused(
        "fit", path, *COLUMNS, "--out", tmp_path / "fit.nc"
    )
    np.testing.assert_allclose(fitted(path, *COLUMNS, "--decimal", ","), weights, rtol=1e-9)
    run("predict", tmp_path / "fit.nc", path, "--decimal", ",", "--out", tmp_path / "p.csv")
    assert len(pd.read_csv(tmp_path / "p.csv")) == len(frame)
    assert "CRPS" in run("score", tmp_path / "fit.nc", path, "--decimal", ",")


def test_separators_that_are_named(frame, weights, tmp_path):
    path = tmp_path / "t.csv"
    for separator, option in ((":", ":"), ("\t", "tab")):
        frame.to_csv(path, sep=separator, index=False)
        np.testing.assert_allclose(fitted(path, *COLUMNS, "--separator", option), weights, rtol=1e-9)
        assert "CRPS" in run("score", tmp_path / "fit.nc", path, "--separator", option)
    frame.to_csv(path, sep=":", index=False)
    run("init", path, "--separator", ":", "--out", tmp_path / "s.toml")
    text = (tmp_path / "s.toml").read_text()
    assert 'separator = ":"' in text
    assert len(study_data(study_from_text(text, folder=tmp_path)).frame) == len(frame)


def test_sheets_that_are_named(frame, weights, tmp_path):
    path = tmp_path / "t.xlsx"
    with pd.ExcelWriter(path) as book:
        pd.DataFrame({"note": ["none"]}).to_excel(book, sheet_name="Read me", index=False)
        frame.to_excel(book, sheet_name="Daily", index=False)
    np.testing.assert_allclose(fitted(path, *COLUMNS, "--sheet", "Daily"), weights, rtol=1e-9)
    assert "it has no sheet 'Dayly'; it has 'Read me', 'Daily'" in refused(
        "fit", path, *COLUMNS, "--sheet", "Dayly", "--out", tmp_path / "f.nc"
    )


@pytest.mark.slow
@pytest.mark.parametrize(("pattern", "said"), [("%d/%m/%Y", "%d/%m/%Y"), ("excel", "excel"), ("%Y%m%d", "YYYYMMDD")])
def test_dates_in_another_format(frame, weights, tmp_path, pattern, said):
    days = pd.to_datetime(frame["date"])
    serial = (days - pd.Timestamp("1899-12-30")).dt.days
    path = tmp_path / "t.csv"
    frame.assign(date=serial if pattern == "excel" else days.dt.strftime(pattern)).to_csv(path, index=False)
    np.testing.assert_allclose(fitted(path, *COLUMNS, "--time-format", said), weights, rtol=1e-9)
    if pattern == "excel":
        assert "say --time-format excel, if plain numbers, --time-format number" in refused(
            "fit", path, *COLUMNS, "--method", "em", "--out", tmp_path / "f.nc"
        )
    out = run(
        "compare",
        path,
        *COLUMNS,
        "--models",
        "equal,single",
        "--method",
        "em",
        "--estimand",
        "time",
        "--time-format",
        said,
    )
    assert "Scores on rows held out (time)" in out


def test_a_long_table(frame, weights, tmp_path):
    path = tmp_path / "t.csv"
    as_long(frame).to_csv(path, index=False)
    text = refused("fit", path, *COLUMNS, "--out", tmp_path / "fit.nc")
    assert "they are values of its column 'model'" in text
    assert "(--long model:VALUE)" in text
    np.testing.assert_allclose(fitted(path, *COLUMNS, "--long", "model:value"), weights, rtol=1e-9)
    found = fitted(path, *ROLES, "--long", "model:value")  # all models, as they come
    np.testing.assert_allclose(found, weights, rtol=1e-9)
    run("predict", tmp_path / "fit.nc", path, "--long", "model:value", "--out", tmp_path / "p.csv")
    assert len(pd.read_csv(tmp_path / "p.csv")) == len(frame)
    twice = pd.concat([as_long(frame), as_long(frame).head(1)])
    twice.to_csv(path, index=False)
    assert "model 'rf' has more than one row of station" in refused(
        "fit", path, *COLUMNS, "--long", "model:value", "--out", tmp_path / "fit.nc"
    )


def test_a_spreadsheet(frame, weights, tmp_path):
    frame.to_excel(tmp_path / "t.xlsx", index=False)
    np.testing.assert_allclose(fitted(tmp_path / "t.xlsx", *COLUMNS), weights, rtol=1e-9)


def test_names_with_commas(frame, weights, tmp_path):
    path = tmp_path / "t.csv"
    frame.rename(columns={"rf": "rf, tuned"}).to_csv(path, index=False)
    text = refused("fit", path, "--members", "rf, tuned,mlr,svr,xgb", *ROLES, "--out", tmp_path / "fit.nc")
    assert "column 'rf, tuned' of" in text
    assert "has a comma in its name; put it in double quotes" in text
    np.testing.assert_allclose(fitted(path, "--members", '"rf, tuned",mlr,svr,xgb', *ROLES), weights, rtol=1e-9)
    assert names_in(' a , "b, c",d,') == ["a", "b, c", "d"]


def test_init_asks_and_writes_how_the_table_is_read(frame, tmp_path):
    path, out = tmp_path / "t.csv", tmp_path / "s.toml"
    as_long(frame).to_csv(path, sep=";", decimal=",", index=False)
    assert "--decimal ," in refused("init", path, "--out", out)
    assert "say so: --long model:value" in refused("init", path, "--decimal", ",", "--out", out)
    assert not out.exists()
    run("init", path, "--decimal", ",", "--long", "model:value", "--out", out)
    text = out.read_text()
    for line in ('decimal = ","', 'long = "model:value"', 'columns = ["rf", "mlr", "svr", "xgb"]', 'site = "station"'):
        assert line in text.splitlines()
    found = study_data(study_from_text(text, folder=tmp_path))
    expected = be.Ensemble.from_frame(frame, members=MEMBERS, observation="sm", site="station", group="network", time="date",
                                      lon="lon", lat="lat")  # fmt: skip
    np.testing.assert_allclose(found.source.prediction, expected.prediction)
    assert found.source.labels("site").tolist() == expected.labels("site").tolist()


STUDY = """
[data]
table = "{name}"
observation = "sm"
site = "station"
time = "date"
{more}
[members]
columns = ["rf", "mlr"]
[models.BMA]
model = "bma"
"""


def study(tmp_path, more="", name="t.csv"):
    return study_data(study_from_text(STUDY.format(name=name, more=more), folder=tmp_path))


def test_a_study_reads_dates(frame, tmp_path):
    days = pd.to_datetime(frame["date"])
    cases = {
        'start = "2000-01-01"': days.dt.strftime("%Y%m%d"),
        'time_format = "%d/%m/%Y"': days.dt.strftime("%d/%m/%Y"),
        'time_format = "epoch"': (days - pd.Timestamp("1970-01-01")).dt.days * 86400,
    }
    for more, value in cases.items():
        frame.assign(date=value).to_csv(tmp_path / "t.csv", index=False)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = study(tmp_path, more)
        np.testing.assert_array_equal(found.source.dataset["time"].values, days.to_numpy())
    with pytest.raises(ValueError, match="say time_format='epoch'"):
        study(tmp_path)


def test_a_study_drops_days_by_their_dates(frame, tmp_path):
    days = pd.to_datetime(frame["date"])
    last = str(days.max().date())
    for value in (days.dt.strftime("%Y-%m-%d"), days.dt.strftime("%Y%m%d")):
        frame.assign(date=value).to_csv(tmp_path / "t.csv", index=False)
        for written in (last, last.replace("-", "")):
            kept = study(tmp_path, f'drop = {{date = ["{written}"]}}').source.dataset["time"].values
            assert kept.max() < np.datetime64(last)


def test_a_study_keeps_a_site_called_na(frame, tmp_path):
    first = frame["station"].iloc[0]
    frame.assign(station=frame["station"].replace(first, "NA")).to_csv(tmp_path / "t.csv", index=False)
    assert "NA" in study(tmp_path).source.labels("site")


def test_a_study_reads_a_sheet(frame, tmp_path):
    with pd.ExcelWriter(tmp_path / "t.xlsx") as writer:
        pd.DataFrame({"note": ["see the other sheet"]}).to_excel(writer, sheet_name="about", index=False)
        frame.to_excel(writer, sheet_name="rows", index=False)
    assert study(tmp_path, 'sheet = "rows"', "t.xlsx").source.n_obs == len(frame)


@pytest.mark.parametrize(
    ("command", "lacks"),
    [("fit", ""), ("compare", "--covariates"), ("dependence", "--lon"), ("predict", "--members"), ("init", "--scale")],
)
def test_a_command_has_the_options_of_tables_that_it_has_a_use_for(command, lacks):
    words = set(run(command, "--help").split())
    assert lacks not in words
    assert {"--site", "--time-format", "--long"} <= words
    assert ("--estimand" in words) == (command == "compare")
