"""Tables without sites and times: rows held out one by one, intervals that resample rows, and what is said of them."""

import re
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import bayesens as be
from bayesens.app.cli.main import app
from bayesens.app.study.file import study_from_text
from bayesens.comparison.common_rows import common_rows
from bayesens.comparison.folds.held_out_rows import usual_estimand
from bayesens.comparison.row_resampling import MOST_ROWS, resampling
from bayesens.comparison.tables import paired_differences, product_table, score_table
from bayesens.members.folds import plain_folds
from studies import undrawn

pytestmark = pytest.mark.filterwarnings("ignore:EM found", "ignore:The estimand 'row' holds out")
MODELS = {"BMA": be.BMA(), "Equal weights": be.EqualWeights()}


def plain(n=120, seed=1, **more):
    rng = np.random.default_rng(seed)
    y = rng.normal(10, 3, n)
    return pd.DataFrame({"y": y, "model1": y + rng.normal(0, 1, n), "model2": y + rng.normal(0.5, 2, n)} | more)


def ensemble(frame, **roles):
    return be.Ensemble.from_frame(frame, members=["model1", "model2"], observation="y", **roles)


@given(st.lists(st.booleans(), min_size=8, max_size=60), st.integers(2, 8), st.none() | st.integers(0, 99))
def test_rows_that_count_are_dealt_evenly(counts, folds, seed):
    if sum(counts) < max(folds, 2):
        with pytest.raises(ValueError, match="rows with observations"):
            plain_folds(counts, folds=folds, random_seed=seed)
        return
    fold = plain_folds(counts, folds=folds, random_seed=seed)
    size = np.bincount(fold[np.array(counts)], minlength=folds)
    assert size.max() - size.min() <= 1
    assert set(fold) <= set(range(folds))
    assert fold.tolist() == plain_folds(counts, folds=folds, random_seed=seed).tolist()


def test_compare_warns_that_rows_may_hang_together():
    rows = ensemble(plain())
    with pytest.warns(UserWarning, match=r"holds out 120 rows one by one: .* too optimistic where rows hang together"):
        be.compare(MODELS, rows, estimand="row", method="em", progressbar=False)
    sited = ensemble(plain(site=np.repeat(list("abcdef"), 20)), site="site")
    with pytest.warns(UserWarning, match=r"rows of one of 6 sites share their errors; take the estimand 'site'"):
        be.compare(MODELS, sited, estimand="row", method="em", progressbar=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "The estimand 'row'")
        be.compare(MODELS, sited, estimand="site", folds=3, method="em", progressbar=False)


def test_intervals_resample_rows_and_are_those_of_independent_rows():
    rows = be.compare(MODELS, ensemble(plain(400)), estimand="row", method="em", random_seed=1, progressbar=False)
    table = score_table(rows, replicates=2000, random_seed=1).set_index("model")
    assert table["interval"].tolist() == ["bootstrap over 400 rows"] * 2
    assert (table["stations"] == 0).all()
    crps = rows["crps"].sel(model="BMA").values
    half = 1.645 * crps.std() / np.sqrt(400)
    assert table.at["BMA", "crps_low"] == pytest.approx(crps.mean() - half, abs=0.15 * half)
    assert table.at["BMA", "crps_high"] == pytest.approx(crps.mean() + half, abs=0.15 * half)
    line = paired_differences(rows, "BMA", replicates=500, random_seed=1).query("metric == 'crps'").iloc[0]
    assert np.isfinite([line["low"], line["high"]]).all()
    wide = product_table(rows, by=None, bands=("all",), replicates=100, random_seed=1)
    assert np.isfinite(wide.xs("low", axis=1, level="part").to_numpy()).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        words = be.coverage_table(rows, by="predicted", replicates=50, random_seed=1)
    assert words["coverage_low"].notna().any()


@pytest.mark.parametrize("n", [MOST_ROWS + 1, 30_000])
def test_many_rows_are_drawn_in_random_parts_with_intervals_of_the_same_length(n):
    rng = np.random.default_rng(2)
    y = rng.normal(size=n)
    frame = pd.DataFrame({"y": y, "model1": y + rng.normal(size=n), "model2": y})
    rows = common_rows({}, ensemble(frame), estimand="row", products={"A": frame["model1"]})
    line = score_table(rows, replicates=400, random_seed=1).iloc[0]
    assert line["interval"] == f"bootstrap over {MOST_ROWS} random parts of {n} rows"
    error = np.abs(frame["model1"] - y)
    assert line["crps_high"] - line["crps_low"] == pytest.approx(2 * 1.645 * error.std() / np.sqrt(n), rel=0.2)


def test_few_rows_have_t_intervals_and_fewer_than_five_none():
    frame = plain(12)
    for n, how in ((12, "t with 11 degrees of freedom, 12 rows"), (4, "none: 4 rows")):
        rows = common_rows({}, ensemble(frame[:n]), estimand="row", products={"A": frame["model1"][:n]})
        line = score_table(rows, replicates=200, random_seed=1).iloc[0]
        assert line["interval"] == how
        assert np.isfinite(line["crps_low"]) == (n == 12)


def test_stations_and_times_are_resampled_where_the_table_has_them():
    frame = plain(site=np.repeat(list("abcdefghij"), 12), day=np.tile(np.arange(12) * 40, 10))
    for roles, how in (({"site": "site"}, "10 stations"), ({"time": "day"}, "12 blocks of 30 time steps")):
        rows = common_rows({}, ensemble(frame, **roles), estimand="row", products={"A": frame["model1"]})
        assert resampling(rows, replicates=10, block=30).clusters().how.endswith(how)


def test_the_estimand_that_is_not_asked_for():
    text = '[data]\ntable = "t.csv"\nobservation = "y"\n{}\n[members]\ncolumns = ["a"]\n[models.BMA]\nmodel = "bma"\n'
    for more, usual in (
        ("", "row"),
        ('time = "date"', "time"),
        ('site = "s"', "site"),
        ('site = "s"\ntime = "t"', "site"),
    ):
        study = study_from_text(text.format(more))
        assert study.evaluation.estimands == (usual,)
        assert usual == usual_estimand(site="site" in more, time="time" in more)
    asked = text.format("") + '[evaluation]\nestimands = ["{}"]\n'
    assert study_from_text(asked.format("row")).evaluation.estimands == ("row",)
    with pytest.raises(ValueError, match=r"'site', which needs data\.site: name the column"):
        study_from_text(asked.format("site"))
    for part in ("[drought]", '[report]\nstations = ["a"]', "[sensitivity]\nstations = [0.2]", '[evaluation]\nby = ["site"]',
                 '[evaluation]\nband_by = "climatology"', '[representativeness]\ncell = "c"'):  # fmt: skip
        with pytest.raises(ValueError, match=r"needs data.site: name the column of station labels, or leave it out"):
            study_from_text(text.format('time = "date"') + part + "\n")


# ------------------------------------------------------------------------------------------------------------- whole studies
QUICK = 'method = "em"\n'


def quick(path):
    """The study of a template, with every model fitted by EM."""
    text = re.sub(r'model = "bma"\n', 'model = "bma"\n' + QUICK, path.read_text(encoding="utf-8"))
    text = re.sub(r'\[models.HBM\]\nmodel = "hbm"\n', "", text)
    path.write_text(text.replace("replicates = 2000", "replicates = 100"), encoding="utf-8")


def study_of(frame, folder, *options):
    frame.to_csv(folder / "table.csv", index=False)
    runner, study = CliRunner(), folder / "study.toml"
    made = runner.invoke(app, ["init", str(folder / "table.csv"), "--out", str(study), *options])
    assert made.exit_code == 0, made.output
    quick(study)
    with undrawn():
        done = runner.invoke(app, ["run", str(study), "--out", str(folder / "out")])
    assert done.exit_code == 0, done.output
    return made, done, (folder / "out" / "report.html").read_text(encoding="utf-8").replace("\u00a0", " ")


def cross_validated():
    """A table as scikit-learn's cross_val_predict leaves it."""
    from sklearn.datasets import load_diabetes
    from sklearn.linear_model import LinearRegression, Ridge
    from sklearn.model_selection import cross_val_predict
    from sklearn.neighbors import KNeighborsRegressor

    X, y = load_diabetes(return_X_y=True)
    members = [LinearRegression(), Ridge(alpha=0.1), KNeighborsRegressor(20)]
    return pd.DataFrame(
        {"y": y} | {f"model{k}": cross_val_predict(m, X, y, cv=10) for k, m in enumerate(members, start=1)}
    )


@pytest.mark.slow
def test_a_table_of_cross_val_predict_is_a_study(tmp_path):
    made, done, page = study_of(cross_validated(), tmp_path)
    assert "Members: model1, model2, model3. Held out: new rows like those that were seen (estimand row)" in made.stderr
    assert "too optimistic where rows hang together" in done.stderr
    assert "stations" not in done.stdout
    scores = pd.read_csv(tmp_path / "out" / "tables" / "scores.csv")
    assert set(scores["estimand"]) == {"row"}
    assert set(scores["interval"]) == {"bootstrap over 442 rows"}
    for text in ("resampling rows one by one", "442 observations", "Intervals of scores resample rows one by one",
                 "too optimistic where rows hang together"):  # fmt: skip
        assert text in page, text
    for text in ("at 0 stations", "middle half of stations", "r_temporal"):
        assert text not in page, text


@pytest.mark.slow
def test_times_without_sites_are_held_out_in_blocks_and_drawn_through_time(tmp_path):
    frame = plain(200, day=pd.date_range("2020-01-01", periods=200, freq="3D")).rename(columns={"day": "date"})
    made, done, page = study_of(frame, tmp_path)
    assert "(estimand time), for no column looks like a site" in made.stderr
    assert "one by one" not in done.stderr
    assert "Through time" in page
    scores = pd.read_csv(tmp_path / "out" / "tables" / "scores.csv")
    assert set(scores["estimand"]) == {"time"}
    assert scores["interval"].str.match(r"bootstrap over \d+ blocks of 30 days").all()


def test_members_are_trained_on_rows_that_are_cases_of_their_own():
    from sklearn.linear_model import LinearRegression

    rng = np.random.default_rng(1)
    X = pd.DataFrame({"a": rng.normal(size=60), "b": rng.normal(size=60)})
    y = X["a"] + 0.1 * rng.normal(size=60)
    members = be.Members({"mlr": LinearRegression()}, X, y, site=None)
    assert repr(members) == "<Members: mlr; 60 rows (60 observed), 2 covariates>"
    made = be.cross_fit(members, folds=60, scheme="row", random_seed=1, progressbar=False)
    assert made.labels("site") is None
    for i in (0, 31):  # left out alone
        rest = np.arange(60) != i
        by_hand = LinearRegression().fit(X[rest], y[rest]).predict(X[~rest])
        assert made.prediction[i, 0] == pytest.approx(float(by_hand[0]))
    rows = be.compare(
        {"One": be.SingleMember()}, members, estimand="row", method="em", random_seed=1, progressbar=False
    )
    assert rows.sizes["obs"] == 60


@settings(max_examples=8, deadline=None)
@given(st.permutations(range(30)))
def test_fits_of_members_without_sites_do_not_depend_on_the_order_of_rows(order):
    from sklearn.linear_model import LinearRegression

    rng = np.random.default_rng(1)
    X = pd.DataFrame({"a": rng.normal(size=30)})
    y = pd.Series(rng.normal(size=30))
    one = be.Members({"mlr": LinearRegression()}, X, y, site=None).insample(progressbar=False).prediction[:, 0]
    other = be.Members({"mlr": LinearRegression()}, X.iloc[order].reset_index(drop=True), y.iloc[order].reset_index(drop=True),
                       site=None).insample(progressbar=False).prediction[:, 0]  # fmt: skip
    np.testing.assert_array_equal(one[list(order)], other)


def test_compare_on_the_command_line_needs_no_site(tmp_path):
    plain().to_csv(tmp_path / "t.csv", index=False)
    said = CliRunner().invoke(app, ["compare", str(tmp_path / "t.csv"), "--members", "model1,model2", "--observation", "y",
                                    "--models", "bma,equal", "--method", "em"])  # fmt: skip
    assert said.exit_code == 0, said.output
    assert "Scores on rows held out (row)" in said.stdout
    assert "stations" not in said.stdout


def test_the_figure_of_weights_has_those_that_were_learnt():
    from bayesens.app.study.chapters.posterior import _estimated

    rng = np.random.default_rng(2)
    y = rng.normal(size=80)
    frame = pd.DataFrame({"a": y + 0.3 * rng.normal(size=80), "b": y + 0.4 * rng.normal(size=80), "y": y})
    ensemble = be.Ensemble.from_frame(frame, members=["a", "b"], observation="y")
    for model, learnt in ((be.BMA(), True), (be.EqualWeights(), False), (be.SingleMember(), False)):
        fit = be.fit(model, ensemble, method="laplace", random_seed=1, progressbar=False)
        assert "weight" in fit["posterior"]
        assert _estimated(fit["posterior"].to_dataset()) == learnt
