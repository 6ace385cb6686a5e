"""Figures take what a user holds: a fit, scores, a prediction, rows of a comparison; and say what they want of other things."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LinearRegression, Ridge

mpl.use("Agg")
from matplotlib import pyplot as plt

import bayesens as be
from bayesens import plots


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def texts(labels):
    return [label.get_text() for label in labels]


def named(ax):
    return texts(ax.get_legend().get_texts())


@pytest.fixture(scope="module")
def ensemble():
    rng = np.random.default_rng(5)
    n = 240
    y = rng.normal(size=n)
    frame = pd.DataFrame({"rf": y + rng.normal(size=n), "svr": y + rng.normal(size=n), "sm": y})
    frame["site"] = [f"s{i:02d}" for i in np.arange(n) // 30]
    frame["net"] = np.where(np.arange(n) < 120, "a", "b")
    frame["day"] = pd.date_range("2020-01-01", periods=30).repeat(8).to_numpy().reshape(30, 8).T.ravel()
    frame["lon"], frame["lat"] = 100.0 + np.arange(n) // 30, 40.0 + np.arange(n) // 30
    return be.Ensemble.from_frame(frame, members=["rf", "svr"], observation="sm", site="site", group="net", time="day",
                                  lon="lon", lat="lat")  # fmt: skip


@pytest.fixture(scope="module")
def fit(ensemble):
    return be.fit(be.BMA(site=False, group=False), ensemble, random_seed=1, draws=200, progressbar=False)


@pytest.fixture(scope="module")
def hbm(ensemble):
    return be.fit(be.HBM(site=False), ensemble, random_seed=1, draws=200, progressbar=False)


@pytest.fixture(scope="module")
def scores(fit, ensemble):
    return be.score(fit, ensemble)


@pytest.fixture(scope="module")
def rows(ensemble):
    models = {"BMA": be.BMA(), "Climatology": be.Climatology()}
    found = be.compare(models, ensemble, estimand="site", folds=4, method="em", random_seed=1, progressbar=False,
                       products={"RF": ensemble.prediction[:, 0]})  # fmt: skip
    return found.sel(model=["BMA", "Climatology", "RF"])


class TestFits:
    def test_weights_of_fits_by_name(self, fit, hbm):
        ax = plots.weights({"BMA": fit, "HBM": hbm})
        assert named(ax) == ["BMA", "HBM (linear weight)"]

    def test_weights_of_a_regressor(self):
        x = np.random.default_rng(1).normal(size=(80, 1))
        y = x[:, 0] + np.random.default_rng(2).normal(size=80)
        model = be.EnsembleRegressor({"mlr": LinearRegression(), "ridge": Ridge(9.0)}, method="em", random_state=1)
        assert texts(plots.weights(model.fit(x, y)).get_yticklabels()) == ["mlr", "ridge"]

    def test_biases_of_a_fit_are_those_of_its_posterior(self, fit):
        of_fit, of_posterior = plots.biases(fit), plots.biases(fit["posterior"].to_dataset())
        np.testing.assert_array_equal(of_fit.lines[1].get_xdata(), of_posterior.lines[1].get_xdata())

    def test_biases_by_source_of_a_fit(self, hbm):
        assert named(plots.source_biases(hbm)) == ["a", "b"]

    def test_correlations_of_a_fit(self, hbm):
        ax = plots.correlations(hbm)
        middle = float(hbm["posterior"]["error_corr"].median(("chain", "draw"))[0, 1])
        assert float(texts(ax.texts)[0].replace("\N{MINUS SIGN}", "-")) == pytest.approx(middle, abs=0.006)
        assert " to " in texts(ax.texts)[1]

    def test_power_sensitivity_of_a_fit(self, fit):
        assert "weight[rf]" in texts(plots.power_sensitivity(fit).get_yticklabels())


class TestScores:
    def test_pit(self, scores, rows):
        of_scores, of_values = plots.pit(scores), plots.pit(scores["pit"])
        assert [bar.get_height() for bar in of_scores.patches] == [bar.get_height() for bar in of_values.patches]
        of_rows = plots.pit(rows, model="Climatology")
        expected = plots.pit(rows["pit"].sel(model="Climatology"))
        assert [bar.get_height() for bar in of_rows.patches] == [bar.get_height() for bar in expected.patches]
        with pytest.raises(
            ValueError, match="the models 'BMA', 'Climatology', 'RF', and one is drawn; name it: model='BMA'"
        ):
            plots.pit(rows)
        with pytest.raises(KeyError, match="no model 'BMAA' in the rows; did you mean 'BMA'"):
            plots.pit(rows, model="BMAA")

    def test_coverage(self, scores, rows):
        ax = plots.coverage(scores)
        np.testing.assert_allclose(ax.lines[0].get_xdata(), [50, 90])
        np.testing.assert_allclose(ax.lines[0].get_ydata(), 100 * scores["covered"].mean("obs"))
        assert named(plots.coverage({"one": scores, "two": scores}))[:2] == ["one", "two"]
        ax = plots.coverage(rows)
        assert named(ax) == ["BMA", "Climatology", "calibrated"]
        np.testing.assert_allclose(ax.lines[0].get_ydata(), 100 * rows["covered"].sel(model="BMA").mean("obs"))
        with pytest.raises(ValueError, match="the scores have different levels"):
            plots.coverage({"one": scores, "two": scores.isel(level=[0])})

    def test_scores(self, scores, rows):
        ax = plots.scores({"BMA": scores})
        assert (ax.lines[0].get_xdata()[0], texts(ax.get_yticklabels())) == (
            pytest.approx(scores["crps"].mean()),
            ["BMA"],
        )
        ax = plots.scores(rows)
        assert texts(ax.get_yticklabels()) == ["BMA", "Climatology", "RF"]
        np.testing.assert_allclose(ax.lines[0].get_xdata(), rows["crps"].mean("obs"))
        table = be.score_table(rows, by="group")
        assert texts(plots.scores(table, score="rmse").get_yticklabels()) == ["BMA", "Climatology", "RF"]
        assert plots.scores(table, score="rmse").get_xlabel() == "Mean RMSE"
        twice = pd.concat([table, table.assign(estimand="time")])
        with pytest.raises(ValueError, match="several lines of the model 'BMA'; select one estimand"):
            plots.scores(twice)

    def test_tables_of_rows(self, rows):
        assert texts(plots.scores_by_group(rows).get_yticklabels()) == ["a (4)", "b (4)", "all (8)", "macro (8)"]
        assert texts(plots.differences(rows).get_yticklabels()) == ["Climatology", "RF"]
        assert texts(plots.differences(rows, reference="RF").get_yticklabels()) == ["BMA", "Climatology"]
        assert texts(plots.coverage_by_class(rows, by="group", model="BMA").get_xticklabels()) == ["a", "b"]
        rungs = rows.assign_coords(model=["BMA", "Equal weights", "RF"])
        assert texts(plots.ladder(rungs).get_yticklabels()) == ["weights: Equal weights → BMA"]

    def test_quantile_reliability(self, fit, rows, ensemble):
        prediction = be.predict(fit, ensemble)
        ax = plots.quantile_reliability(prediction, ensemble)
        wanted = plots.quantile_reliability(prediction, ensemble.observation, site=ensemble.labels("site"))
        np.testing.assert_array_equal(ax.lines[0].get_ydata(), wanted.lines[0].get_ydata())
        assert named(ax) == named(wanted)
        ax = plots.quantile_reliability(rows)
        assert named(ax)[:2] == ["BMA", "Climatology"]
        with pytest.raises(TypeError, match="observation is missing; give the ensemble"):
            plots.quantile_reliability(prediction)


class TestPredictions:
    def test_intervals_take_an_ensemble(self, fit, ensemble):
        one = ensemble.select(rows=ensemble.labels("site") == "s01")
        ax = plots.intervals(be.predict(fit, one), one)
        wanted = plots.intervals(be.predict(fit, one), one.observation, one.dataset["time"].to_numpy())
        np.testing.assert_array_equal(ax.lines[0].get_xydata(), wanted.lines[0].get_xydata())
        assert named(ax)[-1] == "observation"
        with pytest.raises(
            ValueError, match=r"8 stations, and one panel shows one; draw them by be.plots.intervals_by_station"
        ):
            plots.intervals(be.predict(fit, ensemble), ensemble)
        with pytest.raises(ValueError, match="the prediction has 30 rows and the ensemble 240"):
            plots.intervals(be.predict(fit, one), ensemble)

    def test_all_stations(self, fit, ensemble):
        panels = plots.intervals_by_station(be.predict(fit, ensemble), ensemble)
        assert [panel.get_title(loc="left") for panel in panels] == [f"s{i:02d}" for i in range(8)]
        many = be.Ensemble.from_frame(
            pd.DataFrame({"rf": np.arange(26.0), "sm": 1.0, "s": list("abcdefghijklm") * 2, "t": np.arange(26)}),
            members=["rf"],
            observation="sm",
            site="s",
            time="t",
        )
        quantile = xr.DataArray(np.zeros((26, 1)), dims=("obs", "quantile"), coords={"quantile": [0.5]})
        with pytest.raises(ValueError, match=r"13 stations, and a figure shows up to 12 .* stations=\['a', 'b'\]"):
            plots.intervals_by_station(quantile, many)

    def test_stations_of_an_ensemble(self, ensemble):
        assert named(plots.stations(ensemble)) == ["a (4)", "b (4)"]
        bare = be.Ensemble.from_frame(pd.DataFrame({"rf": [1.0], "s": ["x"]}), members=["rf"], site="s")
        with pytest.raises(
            ValueError, match=r"no lon and no lat; name the columns in Ensemble.from_frame: lon=..., lat=..."
        ):
            plots.stations(bare)


@pytest.mark.parametrize("name", plots.__all__)
@pytest.mark.parametrize("what", ["text", "fit", "model", "rows", "ensemble", "dataset"])
def test_what_a_figure_cannot_draw_is_named(name, what, fit, rows, ensemble):
    """A sentence about the argument; never an error of numpy's or of Python's own from the depths."""
    thing = {
        "text": "fit.nc",
        "fit": fit,
        "model": be.BMA(),
        "rows": rows,
        "ensemble": ensemble,
        "dataset": xr.Dataset(),
    }[what]
    options = {
        "coverage_by_class": {"by": "group", "model": "BMA"},
        "intervals_by_station": {"ensemble": ensemble},
    }.get(name, {})
    try:
        getattr(plots, name)(thing, **options)
    except (TypeError, ValueError, KeyError) as error:
        text = str(error)
        assert any(
            word in text
            for word in ("wanted", "give", "no rung", "select", "name it", "needs the groups", "predict with")
        ), text
        assert "argument" not in text
        assert "unsupported" not in text


@given(st.one_of(st.none(), st.integers(), st.text(max_size=3), st.lists(st.text(max_size=2), max_size=2)))
@settings(max_examples=20, deadline=None)
def test_posteriors_are_fits_or_datasets(thing):
    with pytest.raises(TypeError, match="wanted a fit, its posterior, or a mapping of names"):
        plots.weights(thing)
