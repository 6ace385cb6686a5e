"""Members in other units: named at fit with the call that converts them, converted at the door, noticed at prediction."""

import json
import warnings

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from sklearn import datasets
from sklearn.dummy import DummyRegressor
from sklearn.linear_model import Ridge
from sklearn.model_selection import cross_val_predict
from sklearn.neighbors import KNeighborsRegressor
from sklearn.svm import SVR
from typer.testing import CliRunner

import bayesens as be
from bayesens.app.cli.main import app
from bayesens.app.study.data import study_data
from bayesens.app.study.file import study_from_text
from bayesens.comparison.compare import compare
from bayesens.ensemble.streaming import SufficientStatistics
from bayesens.tables.unit_checks import unit_words
from shared_data import shared_data

QUICK = {"method": "em", "random_seed": 1, "progressbar": False}


def table(n=600, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.normal(0.25, 0.08, n)
    columns = {name: y + rng.normal(0, sd, n) for name, sd in (("a", 0.05), ("b", 0.06), ("c", 0.04))}
    return pd.DataFrame(columns | {"y": y, "st": np.repeat([f"s{i:02d}" for i in range(30)], n // 30)})


def door(frame, members=("a", "b", "c"), **options):
    return be.Ensemble.from_frame(frame, members=list(members), observation="y", site="st", **options)


def said(call):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        made = call()
    return made, [str(one.message) for one in caught if issubclass(one.category, UserWarning)]


def fitted(ensemble, model=None):
    return said(lambda: be.fit(model or be.BMA(sigma="shared"), ensemble, method="em", random_seed=1))


# At the fit ----------------------------------------------------------------------------------------------------------


def temperatures(n=730):
    rng = np.random.default_rng(0)
    y = 15 + 10 * np.sin(np.arange(n) / 58) + rng.normal(0, 3, n)
    return y + rng.normal(0, 2, n), y


@pytest.mark.parametrize(("f", "y", "call"), [
    (lambda t: t + 273.15, lambda t: t, "offset={'m': -273.15} (--offset m=-273.15)"),
    (lambda t: t, lambda t: t + 273.15, "offset={'m': 273.15}"),
    (lambda t: 1.8 * t + 32, lambda t: t, "scale={'m': 0.555556}, offset={'m': -17.7778}"),
    (lambda t: t, lambda t: 1.8 * t + 32, "scale={'m': 1.8}, offset={'m': 32}"),
    (lambda t: 100 * (t + 10), lambda t: t + 10, "scale={'m': 0.01} (--scale m=0.01)"),
    (lambda t: (t + 10) / 100, lambda t: t + 10, "scale={'m': 100}"),
    (lambda t: 1000 * t, lambda t: t, "scale={'m': 0.001}"),
    (lambda t: 100 * (t - 15), lambda t: t - 15, "scale={'m': 0.01}"),
    (lambda t: 20 * t, lambda t: t, "scale={'m': ...} or offset={'m': ...}"),
])  # fmt: skip
def test_a_member_in_another_unit_is_named_with_the_call(f, y, call):
    member, truth = temperatures()
    text = unit_words(f(member), y(truth), "m", "y")
    assert text.startswith("member 'm' (median ")
    assert call in text
    assert "('y': median " in text


def test_fit_warns_once_and_the_call_that_it_gives_helps():
    frame = table().assign(a=lambda f: 100 * f["a"])
    _, texts = fitted(door(frame))
    assert len(texts) == 1
    assert "scale={'a': 0.01}" in texts[0]
    made = door(frame, scale={"a": 0.01})
    assert fitted(made)[1] == []
    np.testing.assert_allclose(made.prediction, door(table()).prediction, rtol=1e-12)
    assert made.converted == {"a": (0.01, 0.0)}
    assert "converted  a = 0.01 * a" in repr(made)
    assert fitted(door(frame), be.Climatology())[1] == []  # which looks at no member


@pytest.mark.parametrize("factor", [0.2, 3.0, 9.0])
def test_errors_of_another_size_are_no_unit(factor):
    rng = np.random.default_rng(1)
    wet = rng.gamma(0.3, 5.0, 1000) * (rng.random(1000) < 0.4)
    normal = rng.normal(0.0, 1.0, 1000)
    level = rng.normal(50.0, 1.0, 1000)
    for f, y in ((factor * wet, wet), (factor * wet + 1.0, wet), (factor * wet * rng.gamma(2.0, 0.4, 1000), wet),
                 (normal + factor * rng.normal(size=1000), normal), (factor * normal, normal),
                 (level + 20 * factor * rng.normal(size=1000), level)):  # fmt: skip
        assert unit_words(f, y, "m", "y") == ""


def test_no_alarm_on_members_that_scikit_learn_trains():
    sets = [datasets.load_diabetes(return_X_y=True)]
    makers = (datasets.make_regression, datasets.make_friedman1, datasets.make_friedman2, datasets.make_friedman3)
    sets += [make(n, random_state=n) for n in (30, 200) for make in makers]
    for X, y in sets:
        for model in (Ridge(), Ridge(1e4), KNeighborsRegressor(3), SVR(), SVR(C=0.01), DummyRegressor()):
            assert unit_words(cross_val_predict(model, X, y, cv=3), y, type(model).__name__, "y") == ""


def test_no_alarm_on_real_data():
    flow = pd.read_csv(shared_data("narmada", "nrb_long.csv.gz"))
    rain = pd.read_csv(shared_data("meps_precipitation", "precipitation_6h.csv.gz"))
    names = ["ABC", "GR4J", "HYMOD", "TOPMO", "AWBM", "NAM", "HBV", "SACSMA", "obs"]
    basin = pd.read_csv(shared_data("modelavg", "discharge_data.txt"), sep=r"\s+", header=None, names=names)
    dust = pd.read_csv(shared_data("atlanta", "atlanta_daily.csv.gz"))
    tables = [(flow, [c for c in flow if c.startswith("VIC_")], "obs"), (rain, [f"m{i}" for i in range(10)], "obs"),
              (basin, names[:-1], "obs"), (dust, ["ctm"], "pm25")]  # fmt: skip
    tables += [(part, [c for c in flow if c.startswith("VIC_")], "obs") for _, part in flow.groupby("gauge")]
    for frame, members, observation in tables:
        for name in members:
            assert unit_words(frame[name].to_numpy(float), frame[observation].to_numpy(float), name, observation) == ""


# Conversions ---------------------------------------------------------------------------------------------------------


def test_conversions_of_every_door():
    frame = table().assign(a=lambda f: 100 * f["a"], y=lambda f: f["y"] + 273.15)
    options = {"scale": {"a": 0.01}, "offset": {"y": -273.15}}
    plain = door(table())
    made = door(frame, **options)
    np.testing.assert_allclose(made.observation, plain.observation, atol=1e-12)
    grid = xr.Dataset.from_dataframe(frame)
    of_grid = be.Ensemble.from_dataset(grid, members=["a", "b", "c"], observation="y", site="st", **options)
    assert of_grid.digest == made.digest
    stream = SufficientStatistics.from_frames([frame], members=["a", "b", "c"], observation="y", site="st", **options)
    assert stream.digest == SufficientStatistics.from_ensembles([made]).digest
    assert be.Ensemble.from_dataset(made.dataset).converted == made.converted
    both = door(frame.assign(y=table()["y"]), scale={"a": 0.02}, offset={"a": 1.0})  # value * scale + offset
    np.testing.assert_allclose(both.prediction[:, 0], 0.02 * frame["a"] + 1.0)
    coded = door(frame.assign(a=np.where(np.arange(600) % 10, frame["a"], -9999.0)), missing=-9999, **options)
    assert np.isnan(coded.prediction[::10, 0]).all()


def test_what_conversions_may_not_be():
    with pytest.raises(KeyError, match="no column 'aa' in the members and the observation; did you mean 'a'"):
        door(table(), scale={"aa": 0.01})
    with pytest.raises(TypeError, match=r"scale is 0\.01; wanted a mapping of column to number"):
        door(table(), scale=0.01)
    with pytest.raises(ValueError, match="scale of 'a' is 0"):
        door(table(), scale={"a": 0})
    with pytest.raises(TypeError, match="offset of 'a' is 'K'; wanted a finite number"):
        door(table(), offset={"a": "K"})


def command(*words, code=0):
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == code, result.output
    return result


def test_commands_convert_and_a_fit_remembers_how(tmp_path):
    path, out = tmp_path / "t.csv", tmp_path / "fit.nc"
    table().assign(a=lambda f: 100 * f["a"]).to_csv(path, index=False)
    fit = ["fit", path, "--members", "a,b,c", "--observation", "y", "--site", "st", "--out", out, "--method", "em"]
    assert "--scale a=0.01" in command(*fit).stderr
    assert "unit" not in command(*fit, "--scale", "a=0.01").stderr
    scored = command("score", out, path)
    assert "As in the fit: a = 0.01 * a" in scored.stderr
    assert "far outside" not in scored.stderr
    assert "far outside" in command("score", out, path, "--scale", "a=1").stderr
    assert "wanted COLUMN=NUMBER" in command(*fit, "--scale", "0.01", code=1).stderr


def test_studies_convert(tmp_path):
    path = tmp_path / "t.csv"
    table().assign(a=lambda f: 100 * f["a"], c=lambda f: f["c"] + 5).to_csv(path, index=False)
    text = f"""
    [data]
    table = "{path}"
    observation = "y"
    site = "st"
    scale = {{a = 0.01}}
    offset = {{c = -5.0}}
    [members]
    columns = ["a", "b"]
    [products]
    coarse = "c"
    [models.BMA]
    model = "bma"
    """
    found = study_data(study_from_text(text))
    np.testing.assert_allclose(found.source.prediction, table()[["a", "b"]])
    np.testing.assert_allclose(found.products["coarse"], table()["c"])
    with pytest.raises(ValueError, match=r"data\.scale names 'aa'; did you mean 'a'"):
        study_data(study_from_text(text.replace("scale = {a", "scale = {aa")))


# At the prediction ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tree():
    return fitted(door(table()))[0]


def test_members_that_are_empty_are_named(tree):
    empty = door(table(seed=1).assign(c=np.nan))
    assert said(lambda: be.predict(tree, empty))[1] == [
        "member 'c' is empty in all 600 rows: predictions treat it as missing"
    ]
    assert said(lambda: be.score(tree, empty))[1] == [
        "member 'c' is empty in all 600 rows: predictions treat it as missing"
    ]
    two = door(table(seed=1).assign(c=np.nan, a=np.nan))
    assert said(lambda: be.predict(tree, two))[1] == [
        "members 'a', 'c' are empty in all 600 rows: predictions treat them as missing"
    ]
    absent = said(lambda: be.predict(tree, door(table(seed=1), "ab")))[1]
    assert absent == ["The table lacks 'c': predictions treat it as missing in all 600 rows."]


def test_members_far_outside_of_the_fit_are_named(tree):
    new = table(seed=1)
    assert said(lambda: be.predict(tree, door(new)))[1] == []
    for rows in (600, 1):
        texts = said(lambda n=rows: be.predict(tree, door(new.head(n).assign(a=100 * new["a"].head(n)))))[1]
        assert len(texts) == 1
        assert texts[0].startswith("member 'a' is far outside of the range that the fit has seen, ")
        assert f" of {rows} rows (here " in texts[0]
        assert "convert it by scale={'a': 0.01} (--scale a=0.01)" in texts[0]
    one = door(new.assign(b=np.where(np.arange(600) == 7, 1e6, new["b"])), missing="none")
    texts = said(lambda: be.predict(tree, one))[1]
    assert "in 1 of 600 rows" in texts[0]
    assert "check its unit" in texts[0]
    assert said(lambda: be.predict(tree, door(new.assign(a=new["a"] + 0.1))))[1] == []  # wetter rows are no other unit


def test_fits_of_before_have_no_range_and_are_read(tree):
    old = tree.copy()
    assert json.loads(old.attrs["member_range"])["a"] == [float(table()["a"].min()), float(table()["a"].max())]
    old.attrs = {key: value for key, value in old.attrs.items() if key not in ("member_range", "converted")}
    assert said(lambda: be.predict(old, door(table(seed=1).assign(a=100.0))))[1] == []


def test_a_model_of_one_member_looks_at_that_one():
    tree = fitted(door(table()), be.SingleMember(member="b"))[0]
    assert said(lambda: be.predict(tree, door(table(seed=1).assign(c=np.nan, a=100.0))))[1] == []
    climate = fitted(door(table()), be.Climatology())[0]
    assert said(lambda: be.predict(climate, door(table(seed=1).assign(c=np.nan, a=100.0))))[1] == []


# Products ------------------------------------------------------------------------------------------------------------


def test_products_in_other_units_are_named_and_compared_fairly():
    frame = table()
    rows, texts = said(lambda: compare({"BMA": be.BMA(sigma="shared")}, door(frame), estimand="site", folds=3,
                                       products={"SMAP in mm": 100 * frame["a"]}, **QUICK))  # fmt: skip
    assert len(texts) == 1
    assert texts[0].startswith("product 'SMAP in mm' (median 2")
    assert texts[0].endswith("if so, convert it by its values * 0.01")
    assert rows["model"].values.tolist() == ["BMA", "SMAP in mm, corrected", "SMAP in mm"]
    assert rows["point"].values.tolist() == [False, False, True]
    crps = dict(zip(rows["model"].values.tolist(), rows["crps"].mean("obs").values, strict=True))
    assert crps["BMA"] < crps["SMAP in mm, corrected"] < 0.03 < crps["SMAP in mm"]
    assert abs(float(rows["coverage90"].sel(model="SMAP in mm, corrected").mean()) - 0.9) < 0.05
    assert rows["twcrps"].notnull().all()


def test_the_dressed_product_is_the_single_member_in_the_same_folds():
    frame = table()
    rows = compare({"a": be.SingleMember(member="a")}, door(frame), estimand="site", folds=3,
                   products={"p": frame["a"]}, **QUICK)  # fmt: skip
    np.testing.assert_allclose(rows["crps"].sel(model="a"), rows["crps"].sel(model="p, corrected"), rtol=1e-9)
    with pytest.raises(ValueError, match="'p, corrected' is the name of a model"):
        compare({"p, corrected": be.BMA()}, door(frame), estimand="site", products={"p": frame["a"]}, **QUICK)


def test_gaps_of_a_product_cost_its_dressed_line_no_further_row():
    frame = table()
    product = frame["a"].where(np.arange(600) % 4 > 0)
    with pytest.warns(UserWarning, match="150 of 600 observed rows are left out"):
        rows = compare(
            {"BMA": be.BMA(sigma="shared")}, door(frame), estimand="site", folds=3, products={"p": product}, **QUICK
        )
    assert rows.sizes["obs"] == 450
