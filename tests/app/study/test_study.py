"""A study from its file to its report: what is written, that it is what the library gives, and that a run goes on."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from small_study import TEXT, run, table
from typer.testing import CliRunner

import bayesens as be
from bayesens.app.cli.main import app
from bayesens.app.study.file import read_study
from bayesens.comparison.coverage import coverage_words
from bayesens.comparison.tables import score_table
from bayesens.members.fitted import MemberError
from studies import undrawn

pytestmark = [pytest.mark.filterwarnings("ignore:EM found"), pytest.mark.slow]

COLUMNS = ["model", "estimand", "group", "n", "stations", "crps", "log_score", "rmse", "ubrmse", "mae", "bias", "r",
           "coverage90", "width90"]  # fmt: skip


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    table(folder)
    return folder, run(folder, drawn=True)


def test_all_that_is_listed_is_there_and_nothing_else(small):
    folder, done = small
    out = folder / "out"
    there = {
        path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file() and ".steps" not in path.parts
    }
    assert there == {*done.files, "study.json"}
    assert {name.split("/")[0] for name in done.files} == {"fits", "predictions", "tables", "figures", "report.html"}
    assert {Path(name).stem for name in done.files if name.endswith(".png")} == {
        Path(name).stem for name in done.files if name.endswith(".svg")
    }
    assert json.loads((out / "study.json").read_text())["files"] == sorted(done.files)


def test_the_table_of_scores_has_its_columns_and_the_numbers_of_the_library(small):
    folder, done = small
    scores = pd.read_csv(folder / "out" / "tables" / "scores.csv")
    assert list(scores)[: len(COLUMNS)] == COLUMNS
    assert set(scores["model"]) == {"BMA", "Equal weights", "Coarse input", "Coarse input, corrected"}
    assert {"all", "net1", "net2", "net3", "DJF", "macro"} <= set(scores["group"])
    frame = pd.read_csv(folder / "t.csv", parse_dates=["date"])
    ensemble = be.Ensemble.from_frame(frame, members=["rf", "xgb"], observation="sm", site="station", group="network",
                                      time="date", units="m3 m-3")  # fmt: skip
    models = {"BMA": be.BMA(sigma="shared"), "Equal weights": be.EqualWeights()}
    for estimand in ("site", "time"):
        rows = be.compare(models, ensemble, estimand=estimand, folds=3, method="em", random_seed=1, progressbar=False,
                          products={"Coarse input": frame["mlr"]})  # fmt: skip
        wanted = score_table(rows).query("group == 'all'").set_index("model")
        found = scores.query(f"group == 'all' and estimand == '{estimand}'").set_index("model")
        for name in COLUMNS[5:]:
            np.testing.assert_allclose(found[name], wanted[name], rtol=1e-6, err_msg=name)
    pd.testing.assert_frame_equal(done.scores.reset_index(drop=True), scores.fillna({"by": ""}), rtol=1e-12)


def test_coverage_by_class_is_that_of_the_library_and_stands_in_the_report(small):
    folder, done = small
    frame = pd.read_csv(folder / "t.csv", parse_dates=["date"])
    ensemble = be.Ensemble.from_frame(frame, members=["rf", "xgb"], observation="sm", site="station", group="network",
                                      time="date", units="m3 m-3")  # fmt: skip
    models = {"BMA": be.BMA(sigma="shared"), "Equal weights": be.EqualWeights()}
    rows = be.compare(models, ensemble, estimand="site", folds=3, method="em", random_seed=1, progressbar=False,
                      products={"Coarse input": frame["mlr"]})  # fmt: skip
    page = (folder / "out" / "report.html").read_text(encoding="utf-8").replace("\u00a0", " ")
    assert "Coverage by predicted value and season" in page
    for by in ("predicted", "season"):
        found = pd.read_csv(folder / "out" / "tables" / f"coverage_by_{by}.csv").astype({"by": object, "note": object})
        found = found.query("estimand == 'site'").fillna({"by": "", "note": ""}).reset_index(drop=True)
        wanted = be.coverage_table(rows, by=by, replicates=100, block=10, random_seed=1)
        pd.testing.assert_frame_equal(found, wanted, rtol=1e-6, check_dtype=False)
        assert f"figures/coverage_by_{by}.svg" in done.files
        assert coverage_words(wanted, by).partition(" There is no value")[0] in page


def test_predictions_and_fits_are_those_of_the_models(small):
    folder, _ = small
    predicted = pd.read_parquet(folder / "out" / "predictions" / "bma-site.parquet")
    assert {"station", "network", "date", "sm", "fold", "mean", "sd", "q05", "q50", "q95", "crps", "pit"} <= set(
        predicted
    )
    assert len(predicted) == 144
    tree = be.read_fit(folder / "out" / "fits" / "bma.nc")
    frame = pd.read_csv(folder / "t.csv", parse_dates=["date"])
    ensemble = be.Ensemble.from_frame(frame, members=["rf", "xgb"], observation="sm", site="station", group="network",
                                      time="date", lon="lon", lat="lat", units="m3 m-3")  # fmt: skip
    by_hand = be.fit(be.BMA(sigma="shared"), ensemble, method="em", random_seed=1)
    xr.testing.assert_allclose(tree["posterior"].to_dataset(), by_hand["posterior"].to_dataset())
    weights = pd.read_csv(folder / "out" / "tables" / "posterior.csv").query("model == 'BMA' and parameter == 'weight'")
    np.testing.assert_allclose(weights["mean"], by_hand["posterior"]["weight"].values.ravel())


def test_the_report_tells_it_and_escapes_what_it_was_given(small):
    folder, done = small
    page = (folder / "out" / "report.html").read_text(encoding="utf-8")
    assert "A small study" in page
    assert "<b>&" not in page
    assert "&lt;b&gt;" in page
    for title in ("Data", "The members", "Scores", "Calibration", "Through time", "What was assumed"):
        assert re.search(rf"<h2[^>]*>.*{title}", page), title
    said = page.replace("\N{NO-BREAK SPACE}", " ").replace("\N{MINUS SIGN}", "-").replace("&#34;", '"')
    assert len(done.findings) == 6
    for text in done.findings:
        assert text in said
    assert re.search(r"The 90 % intervals of BMA hold \d\d\.\d % of 144 observations", done.findings[3])
    assert done.findings[5].startswith("At known sites at new times: the 90 % intervals of BMA hold")
    assert not re.search(r'(src|href)="https?://', page)
    for name in re.findall(r'href="(tables/[^"]+)"', page):
        assert (folder / "out" / name).exists()


def test_a_second_run_does_nothing_twice_and_takes_away_what_is_no_longer_written(small, tmp_path, monkeypatch):
    from bayesens.app.study import run as study
    from bayesens.comparison.folds import runs as comparison

    folder, first = small
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    for module in (comparison, study):
        monkeypatch.setattr(module, "fit", lambda *_, **__: pytest.fail("fitted again"))
    again = run(tmp_path)
    assert again.files == first.files
    pd.testing.assert_frame_equal(again.scores, first.scores)
    monkeypatch.undo()
    less = run(tmp_path, TEXT.replace('estimands = ["site", "time"]', 'estimands = ["site"]'))
    gone = set(first.files) - set(less.files)
    assert "predictions/bma-time.parquet" in gone
    assert not any((tmp_path / "out" / name).exists() for name in gone)


def test_a_member_that_fails_is_named_and_finished_steps_are_kept(tmp_path, monkeypatch):
    from sklearn.linear_model import LinearRegression

    frame = table(tmp_path)
    text = TEXT.replace('columns = ["rf", "xgb"]', 'train = ["mlr"]\ncovariates = ["rf", "svr"]').replace(
        '"site", "time"', '"site"'
    )
    text = text.replace("[study]\n", "[study]\njobs = 1\n")
    fitted, fit = [], LinearRegression.fit

    def failing(self, X, y, *rest):
        fitted.append(len(y))
        if len(fitted) == 9:  # five inner folds and one fit to all in the first fold, then the third of the second
            raise RuntimeError("singular")
        return fit(self, X, y, *rest)

    monkeypatch.setattr(LinearRegression, "fit", failing)
    with pytest.raises(MemberError, match=r"'mlr'.* fold 3 of 5.*singular"):
        run(tmp_path, text)
    kept = sorted(path.name[:-20] for path in (tmp_path / "out" / ".steps").iterdir())
    models = ["bma", "coarse_input_corrected", "equal_weights"]
    assert kept == [f"site-1-{name}" for name in (*models, "members-test", "members-train")]
    monkeypatch.undo()
    done = run(tmp_path, text)
    assert done.scores.query("group == 'all' and model == 'BMA'")["n"].tolist() == [int(frame["sm"].notna().sum())]


def test_a_model_that_fails_is_reported_and_the_others_go_on(tmp_path):
    table(tmp_path)
    text = (
        TEXT.replace('"site", "time"', '"site"')
        + 'reference = "Lost"\n[models.Lost]\nmodel = "single"\nmember = "cci"\n'
    )
    with pytest.warns(UserWarning, match="Lost failed and is left out: fold 1 of 3"):
        done = run(tmp_path, text)
    assert set(done.scores["model"]) == {"BMA", "Equal weights", "Coarse input", "Coarse input, corrected"}
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "Lost" in page
    assert "fits/lost.nc" not in done.files


def test_a_folder_with_other_files_is_left_alone(tmp_path, monkeypatch):
    table(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("mine")
    with pytest.raises(FileExistsError, match=r"holds 1 files that no study wrote, 'thesis.tex'"):
        run(tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="is the folder that you are in, or above it"):
        run(tmp_path, out="..")
    with pytest.raises(FileNotFoundError, match="does not exist; create it first"):
        run(tmp_path, out="no/where")
    with pytest.raises(NotADirectoryError, match="is a file; a study writes a folder"):
        run(tmp_path, out="t.csv")


def test_the_command_line_writes_a_study_and_runs_it(tmp_path):
    table(tmp_path)
    runner = CliRunner()
    made = runner.invoke(
        app, ["init", str(tmp_path / "t.csv"), "--out", str(tmp_path / "study.toml"), "--members", "rf,xgb"]
    )
    assert made.exit_code == 0, made.output
    assert "bayesens run" in made.stdout
    assert read_study(tmp_path / "study.toml").data.table == Path("t.csv")
    again = runner.invoke(app, ["init", str(tmp_path / "t.csv"), "--out", str(tmp_path / "study.toml")])
    assert (again.exit_code, again.stderr) == (
        1,
        f"Error: {tmp_path / 'study.toml'} is there already; name another file: --out\n",
    )
    (tmp_path / "study.toml").write_text(TEXT.replace("rf", "rff"), encoding="utf-8")
    wrong = runner.invoke(app, ["run", str(tmp_path / "study.toml"), "--out", str(tmp_path / "out")])
    assert wrong.exit_code == 1
    assert "members.columns names 'rff'; did you mean 'rf'?" in wrong.stderr
    assert not (tmp_path / "out").exists()
    (tmp_path / "study.toml").write_text(TEXT.replace('"site", "time"', '"site"'), encoding="utf-8")
    with undrawn():
        done = runner.invoke(app, ["run", str(tmp_path / "study.toml"), "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert "report.html" in done.stdout


@pytest.mark.filterwarnings("ignore:covariate.* are constant", "ignore:covariates are missing throughout")
def test_a_network_of_one_station_a_constant_covariate_and_one_that_a_region_lacks(tmp_path):
    frame = table(tmp_path)
    frame["network"] = frame["network"].where(frame["station"] != "s01", "alone")
    frame = frame.assign(flat=1.0, rain=frame["rf"].where(frame["network"] != "net2"))
    frame.to_csv(tmp_path / "t.csv", index=False)
    text = TEXT.replace(
        'columns = ["rf", "xgb"]', 'train = ["mlr", "rf"]\ncovariates = ["flat", "rain", "svr"]\nfolds = 2'
    )
    text = text.replace('"site", "time"', '"site"').replace("folds = 3", "folds = 2")
    done = run(tmp_path, text + "[members.settings]\nrf = {n_estimators = 5}\n")
    scores = done.scores.set_index(["model", "group"])
    assert scores.loc[("BMA", "alone"), "stations"] == 1
    assert np.isnan(scores.loc[("BMA", "alone"), "crps_low"])
    assert np.isfinite(scores.loc[("BMA", "all"), "crps_low"])


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda f: f.assign(lon=np.arange(len(f), dtype=float)), r"9 station\(s\) stand in two places"),
        (lambda f: pd.concat([f, f.iloc[:2]]), "repeat the station and time of an earlier row"),
        (lambda f: f.assign(date=["2020-01-01T00:00+00:00", "2020-01-02T00:00"] * (len(f) // 2)), "zone"),
        (lambda f: f.assign(sm=np.nan), "'sm' is missing in all 144 rows"),
    ],
)
def test_tables_that_cannot_be_right_are_refused(tmp_path, change, text):
    change(table(tmp_path)).to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(ValueError, match=text):
        run(tmp_path)
    assert not (tmp_path / "out").exists()
