"""Long tables, one row a model and case: pivoted with checks, recognised where a wide table was wanted."""

import re
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bayesens.app.study.template import study_template
from bayesens.ensemble.ensemble import Ensemble
from bayesens.ensemble.files import read_ensemble
from bayesens.tables.long_tables import long_columns, model_and_value, widened

MODELS = ["rf", "svr", "mlr"]
COLUMNS = {"observation": "sm", "site": "site", "group": "net", "time": "date"}


def wide(sites=4, days=5, seed=1):
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"site": np.repeat([f"S{k}" for k in range(sites)], days)})
    frame["net"] = np.where(frame["site"] < "S2", "A", "B")
    frame["date"] = np.tile(pd.date_range("2004-01-01", periods=days).strftime("%Y-%m-%d"), sites)
    frame["dem"] = frame["site"].str[1:].astype(float) * 100
    frame["sm"] = rng.random(len(frame)).round(3)
    for name in MODELS:
        frame[name] = (frame["sm"] + rng.normal(0, 0.05, len(frame))).round(3)
    return frame


def long(frame, seed=None):
    rest = [name for name in frame if name not in MODELS]
    table = frame.melt(id_vars=rest, value_vars=MODELS, var_name="model", value_name="pred")
    return table if seed is None else table.sample(frac=1, random_state=seed).reset_index(drop=True)


def silent(make):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return make()


def test_a_long_table_is_its_wide_one():
    expected = Ensemble.from_frame(wide(), members=MODELS, covariates=["dem"], **COLUMNS)
    columns = {"model": "model", "value": "pred", "covariates": ["dem"], **COLUMNS}
    assert silent(lambda: Ensemble.from_long(long(wide()), **columns)).digest == expected.digest
    by = silent(lambda: Ensemble.from_long(long(wide()), by=["date", "site"], members=["mlr", "rf", "svr"], **columns))
    assert by.members == ("mlr", "rf", "svr")
    assert by.select(members=MODELS).digest == expected.digest


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.1, 0.9))
def test_any_order_of_rows_and_any_gaps(seed, share):
    rng = np.random.default_rng(seed)
    table = long(wide(seed=seed), seed=seed)
    kept = table[rng.random(len(table)) > share]
    if kept.empty:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found, models = widened(kept, model="model", value="pred", by=["site", "date"], keep=["sm", "net"])
    expected = kept.pivot(index=["site", "date"], columns="model", values="pred")
    found = found.set_index(["site", "date"])
    pd.testing.assert_frame_equal(found.loc[expected.index, sorted(models)], expected, check_names=False)
    truth = wide(seed=seed).set_index(["site", "date"])
    pd.testing.assert_series_equal(found["sm"], truth.loc[found.index, "sm"])


def test_models_that_lack_cases_are_counted():
    table = long(wide()).query("not (model == 'svr' and date == '2004-01-02')")
    with pytest.warns(UserWarning, match=r"of 20 cases, models have no row in some, and are missing there: 'svr' 4$"):
        ensemble = Ensemble.from_long(table, model="model", value="pred", **COLUMNS)
    assert np.isnan(ensemble.prediction).sum(axis=0).tolist() == [0, 4, 0]


def test_an_observation_that_is_there_once_is_enough():
    table = long(wide())
    table.loc[table["model"] != "svr", "sm"] = np.nan
    ensemble = silent(lambda: Ensemble.from_long(table, model="model", value="pred", **COLUMNS))
    assert ensemble.observation.tolist() == wide()["sm"].tolist()


def change(**changes):
    table = long(wide())
    for name, (row, value) in changes.items():
        table[name] = table[name].astype(object)
        table.loc[row, name] = value
    return table


def again(table):
    return pd.concat([table, table.iloc[[3, 25]]])


REFUSED = {
    "twice": (
        again(long(wide())),
        r"model 'rf' has more than one row of site S0, date 2004-01-04 \(2 such of 62 rows\)",
    ),
    "observation": (
        change(sm=(25, 0.5)),
        r"column 'sm' has .*0.5.* in the models' rows of site S1, date 2004-01-01 \(1 such of 20 cases\)",
    ),
    "group": (change(net=(25, "C")), r"column 'net' has 'A', 'C' in the models' rows of site S1"),
    "no key": (change(date=(4, None)), r"1 of 60 rows lack one of 'site', 'date'"),
    "no model": (change(model=(4, None)), r"column 'model' names no model in 1 of 60 rows"),
    "text": (change(pred=(4, "dry")), r"'pred' .*'dry' and the like stand in 1 of 60 rows"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_has_no_one_answer_is_refused_by_name(case):
    table, text = REFUSED[case]
    with pytest.raises((ValueError, TypeError)) as caught:
        silent(lambda: Ensemble.from_long(table, model="model", value="pred", **COLUMNS))
    assert re.search(text, str(caught.value)), str(caught.value)


def test_what_is_not_there_is_refused():
    table = long(wide())
    with pytest.raises(KeyError, match=r"no column 'modell' in the table \(60 rows\); did you mean 'model'\?"):
        Ensemble.from_long(table, model="modell", value="pred", **COLUMNS)
    with pytest.raises(ValueError, match=r"nothing tells the cases .* apart; name the columns that do: by="):
        Ensemble.from_long(table, model="model", value="pred", observation="sm")
    with pytest.raises(KeyError, match="no model 'xgb' in column 'model'"):
        Ensemble.from_long(table, model="model", value="pred", members=["xgb"], **COLUMNS)
    with pytest.raises(ValueError, match="column 'model' is one of model and value"):
        widened(table, model="model", value="pred", by=["model", "date"])
    with pytest.raises(ValueError, match="models 'sm' are called as columns"):
        widened(table.assign(model="sm").head(20), model="model", value="pred", by=["site", "date"])
    with pytest.raises(ValueError, match="wanted the column of models and that of their predictions"):
        model_and_value("model")


def test_columns_of_the_models_own_are_left_out_with_a_word():
    table = long(wide()).assign(row=range(60))
    with pytest.warns(UserWarning, match="columns 'row' differ between the models' rows of one case"):
        found, _ = widened(table, model="model", value="pred", by=["site", "date"])
    assert found.columns.tolist() == ["site", "date", "net", "dem", "sm", *MODELS]


# Recognised


def test_a_long_table_in_place_of_a_wide_one_is_named():
    with pytest.raises(KeyError) as caught:
        Ensemble.from_frame(long(wide()), members=MODELS, **COLUMNS)
    text = "they are values of its column 'model', so it is a long table, one row a model and case; read it by Ensemble.from"
    assert text in str(caught.value)
    with pytest.raises(KeyError, match=r"no column 'xgb' in the table \(20 rows\)"):
        Ensemble.from_frame(wide(), members=["rf", "xgb"], **COLUMNS)


def test_init_recognises_a_long_table():
    table = long(wide())
    with pytest.raises(
        ValueError, match=r"looks like a long one.* 'model' has 'mlr', 'rf', 'svr'; say so: --long model:pred"
    ):
        study_template(table, "t.csv")
    text = study_template(table, "t.csv", given={"long": "model:pred"})
    assert 'long = "model:pred"' in text
    assert 'columns = ["rf", "svr", "mlr"]' in text
    assert long_columns(wide()) is None
    assert long_columns(wide().assign(model="rf", pred=1.0)) is None


def test_a_file_of_a_long_table(tmp_path):
    long(wide()).to_csv(tmp_path / "t.csv", index=False)
    found = silent(lambda: read_ensemble(tmp_path / "t.csv", long="model:pred", **COLUMNS))
    assert found.digest == Ensemble.from_frame(wide(), members=MODELS, **COLUMNS).digest


def test_it_is_not_slow():
    import time

    table = long(wide(sites=200, days=150))
    start = time.process_time()
    silent(lambda: Ensemble.from_long(table, model="model", value="pred", **COLUMNS))
    assert time.process_time() - start < 0.6
