"""Coverage by class against counting by hand, a world of unlike variance, and what is refused."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from numpy.testing import assert_allclose, assert_array_equal

import bayesens as be
from bayesens import plots
from bayesens.comparison.bootstrap import Replicates
from bayesens.comparison.coverage import FIFTHS, coverage_words, has_seasons
from bayesens.comparison.skill import replicate_means, skill
from bayesens.comparison.tables import score_table

MODELS = {"widths": be.BMA(), "one width": be.BMA(scale=()), "Climatology": be.Climatology()}


def growing(stations=20, days=40, seed=1):
    """Positive quantity whose scatter about its members is a share of its value."""
    rng = np.random.default_rng(seed)
    n = stations * days
    truth = rng.gamma(2.0, 1.5, n)
    members = {name: truth * np.exp(0.1 * rng.normal(size=n)) for name in ("a", "b")}
    return pd.DataFrame(members | {
        "y": truth * np.exp(0.25 * rng.normal(size=n)), "station": np.repeat([f"s{s:02}" for s in range(stations)], days),
        "network": np.repeat([f"n{s % 5}" for s in range(stations)], days),
        "date": np.tile(pd.date_range("2020-01-01", periods=days, freq="9D"), stations),
    })  # fmt: skip


def ensemble_of(frame, **roles):
    roles = {"site": "station", "group": "network", "time": "date"} | roles
    return be.Ensemble.from_frame(frame, members=["a", "b"], observation="y", **roles)


@pytest.fixture(scope="module")
def rows():
    frame = growing()
    return be.compare(
        MODELS, ensemble_of(frame), estimand="site", folds=2, method="em", random_seed=1, progressbar=False,
        products={"mean of a and b": frame[["a", "b"]].mean(axis=1)},
    )  # fmt: skip


def made_up(n=100, **coords):
    """Rows of one model that holds the first 80 of them, with intervals of width 2."""
    there, number = ("model", "obs"), np.arange(float(n))
    values = {
        "prediction": (there, [number]),
        "coverage90": (there, [number < 80]),
        "width90": (there, [np.full(n, 2.0)]),
    }
    return xr.Dataset(values, {"model": ["BMA"]} | {name: ("obs", each) for name, each in coords.items()})


# ---------------------------------------------------------------------------------------------------------------- values
@pytest.mark.parametrize(("level", "ends"), [(0.5, (0.25, 0.75)), (0.9, (0.05, 0.95))])
def test_fifths_are_those_of_a_count_by_hand(rows, level, ends):
    found = be.coverage_table(rows, by="predicted").query("by == 'predicted' and level == @level")
    for model in ("widths", "one width"):
        one = rows.sel(model=model)
        low, high = (one["quantile_value"].sel(quantile=end).values for end in ends)
        y, order = rows["observation"].values, np.argsort(one["prediction"].values)
        lines = found[found["model"] == model].set_index("group")
        assert list(lines.index) == list(FIFTHS)
        for name, part in zip(FIFTHS, np.array_split(order, 5), strict=True):
            assert lines.loc[name, "n"] == len(part) == 160
            assert_allclose(lines.loc[name, "predicted"], one["prediction"].values[part].mean())
            assert_allclose(lines.loc[name, "coverage"], np.mean((low[part] <= y[part]) & (y[part] <= high[part])))
            assert_allclose(lines.loc[name, "width"], np.mean(high[part] - low[part]))


def test_seasons_are_those_of_the_months_by_hand(rows):
    found = (
        be.coverage_table(rows, by="season").query("by == 'season' and model == 'widths'").set_index(["group", "level"])
    )
    month = pd.DatetimeIndex(rows["time"].values).month
    for name, months in {"DJF": (12, 1, 2), "MAM": (3, 4, 5), "JJA": (6, 7, 8), "SON": (9, 10, 11)}.items():
        where = np.isin(month, months)
        for level in (0.5, 0.9):
            inside = rows["covered"].sel(model="widths", level=level).values[where]
            assert found.loc[(name, level), "n"] == where.sum()
            assert_allclose(found.loc[(name, level), "coverage"], inside.mean())


def test_all_rows_and_labels_are_those_of_the_score_table(rows):
    options = {"by": "group", "replicates": 50, "random_seed": 1}
    found = be.coverage_table(rows, levels=[0.9], **options).set_index(["model", "group"])
    wanted = score_table(rows, **options).query("group != 'macro' and model != 'mean of a and b'")
    wanted = wanted.set_index(["model", "group"]).loc[found.index]
    for mine, theirs in {"coverage": "coverage90", "width": "width90"}.items():
        for end in ("", "_low", "_high"):
            limit = np.clip(wanted[theirs + end], 0, 1) if mine == "coverage" else wanted[theirs + end]
            assert_allclose(found[mine + end], limit, rtol=1e-9)
    assert_array_equal(found["interval"], wanted["interval"])
    assert_array_equal(found["stations"], wanted["stations"])


def test_means_of_replicates_are_those_of_all_metrics():
    rng = np.random.default_rng(1)
    station, block = rng.integers(0, 4, 60), rng.integers(0, 3, 60)
    drawn = Replicates(rng.integers(0, 3, (4, 300)).astype(float), rng.integers(0, 3, (3, 300)).astype(float))
    inside = rng.random(60)
    wanted = skill(rng.random(60), rng.random(60), {"inside": inside}, station, block, drawn)["inside"]
    assert_allclose(replicate_means({"inside": inside}, station, block, drawn)["inside"], wanted)


def test_one_width_covers_unevenly_where_scatter_grows_with_the_value_and_widths_that_follow_it_do_not(rows):
    """A share of 160 rows has a standard error of 2.4 points at 90 %: widths miss 9 points with a chance below 1e-2 in all."""
    found = be.coverage_table(rows, by="predicted", levels=[0.9]).query("by == 'predicted'")
    share = found.pivot(index="group", columns="model", values="coverage").loc[list(FIFTHS)]
    assert (share["widths"] - 0.9).abs().max() < 0.09
    assert share.loc["lowest fifth", "one width"] > 0.97
    assert share.loc["highest fifth", "one width"] < 0.8
    width = found.pivot(index="group", columns="model", values="width").loc[list(FIFTHS)]
    assert width["widths"].iloc[-1] > 4 * width["widths"].iloc[0]


def test_products_have_no_intervals_and_stand_in_no_line(rows):
    assert set(be.coverage_table(rows)["model"]) == {*MODELS, "mean of a and b, corrected"}
    with pytest.raises(
        ValueError, match="'mean of a and b' are point predictions, which have no intervals; give rows of"
    ):
        be.coverage_table(rows.sel(model=["mean of a and b"]))


def test_intervals_are_shares_and_none_where_all_rows_agree(rows):
    found = be.coverage_table(rows, by="predicted", replicates=100, random_seed=1)
    assert found["coverage_low"].min() >= 0
    assert found["coverage_high"].max() <= 1
    full = found[found["coverage"] == 1.0]
    assert full["coverage_low"].isna().all()
    assert full["width_low"].notna().all()
    again = be.coverage_table(rows, by="predicted", replicates=100, random_seed=1)
    pd.testing.assert_frame_equal(found, again)


# --------------------------------------------------------------------------------------------------------------- classes
def test_a_class_of_few_rows_has_no_value_and_says_so():
    days = np.array(["2021-01-01"] * 75 + ["2021-07-01"] * 19 + ["2021-10-01"] * 6, dtype="datetime64[ns]")
    found = be.coverage_table(made_up(time=days), by="season", levels=[0.9]).set_index("group")
    assert found.loc["DJF", "coverage"] == 1.0
    assert found.loc[["MAM", "JJA", "SON"], ["coverage", "width"]].isna().all(axis=None)
    assert found["note"].to_dict() == {"all": "", "DJF": "", "MAM": "no rows", "JJA": "19 rows, fewer than 20",
                                       "SON": "6 rows, fewer than 20"}  # fmt: skip
    words = coverage_words(found.reset_index(), "season")
    assert "furthest from nominal for BMA in DJF: its 90 % intervals hold 100.0 % of 75 observations." in words
    assert words.endswith(
        "There is no value for MAM (no rows); JJA (19 rows, fewer than 20); SON (6 rows, fewer than 20)."
    )


def test_equal_predictions_lie_in_one_class_and_none_are_made_of_noise():
    rows = made_up()
    zero = np.where(np.arange(100) < 50, 0.0, np.arange(100.0))
    rows["prediction"] = ("model", "obs"), [zero + 1e-16 * np.arange(100)]
    found = be.coverage_table(rows, levels=[0.9]).query("by == 'predicted'")
    assert found["n"].tolist() == [50, 0, 10, 20, 20]
    rows["prediction"] = ("model", "obs"), [2.0 + 1e-15 * np.arange(100)]
    found = be.coverage_table(rows, levels=[0.9]).query("by == 'predicted'")
    assert set(found["note"]) == {"its predictions are all equal"}
    assert found["coverage"].isna().all()
    assert coverage_words(found, "predicted").startswith("There is no value for lowest fifth, 2nd fifth")


def test_labels_of_the_rows_go_before_the_calendar():
    found = be.coverage_table(made_up(season=np.repeat(["wet", "dry"], 50)), by="season", levels=[0.9])
    assert found.query("by == 'season'")["group"].tolist() == ["dry", "wet"]
    with pytest.warns(UserWarning, match="30 of 100 rows have no cover: they count in 'all' alone"):
        found = be.coverage_table(made_up(cover=np.repeat(["wood", ""], [70, 30])), by="cover", levels=[0.9])
    assert found["n"].tolist() == [100, 70]
    assert "in cover wood" in coverage_words(found, "cover")


def test_seasons_need_dates_of_more_than_one_season():
    assert not has_seasons(made_up())
    assert not has_seasons(made_up(time=np.arange(100)))
    january = np.full(100, np.datetime64("2021-01-05", "ns"))
    assert not has_seasons(made_up(time=january))
    with pytest.raises(
        ValueError, match=r"by='season' needs dates, and the rows have no times; give the ensemble time=\.\.\."
    ):
        be.coverage_table(made_up(), by="season")
    with pytest.raises(ValueError, match="and their times are int64; give the ensemble"):
        be.coverage_table(made_up(time=np.arange(100)), by="season")
    with pytest.raises(
        ValueError, match="more than one season, and all 100 lie in 'DJF'; give rows of a whole year, or take"
    ):
        be.coverage_table(made_up(time=january), by="season")


@pytest.mark.parametrize(
    ("by", "error", "text"),
    [
        ("altitude", KeyError, r"by has 'altitude'; wanted 'predicted', 'season' or a label of the rows \('cover'\): take one "
         r"of these, or give compare\(\.\.\., labels=\{'altitude': \.\.\.\}\) one label a row"),
        (["predicted", 3], TypeError, r"by has 3, which is no text; wanted 'predicted', 'season' or a label of the rows"),
        (5, TypeError, r"by has 5, which is no text; .*: by='predicted'"),
    ],
)  # fmt: skip
def test_what_makes_no_classes_is_said_in_one_sentence(by, error, text):
    with pytest.raises(error, match=text):
        be.coverage_table(made_up(cover=np.repeat(["wood", "field"], 50)), by=by)


def test_levels_that_the_rows_lack_are_named(rows):
    with pytest.raises(
        ValueError, match=r"levels has 0\.7, and the rows have intervals of 0\.5, 0\.8, 0\.9, 0\.95; take some"
    ):
        be.coverage_table(rows, levels=[0.7])
    with pytest.raises(ValueError, match=r"levels has 0\.5, and the rows have intervals of 0\.9; take some of these"):
        be.coverage_table(made_up())
    with pytest.raises(ValueError, match="levels is empty; wanted levels of predictive intervals"):
        be.coverage_table(rows, levels=())
    assert set(be.coverage_table(rows, levels=[0.8, 0.95])["level"]) == {0.8, 0.95}


# -------------------------------------------------------------------------------------------------------- words and figure
def test_words_name_the_worst_class_and_the_best_model(rows):
    table = be.coverage_table(rows, by="predicted", replicates=50, random_seed=1)
    table = table[table["model"] != "Climatology"]
    lines = table[table["by"] == "predicted"]
    gap = (lines["coverage"] - lines["level"]).abs()
    words, worst = coverage_words(table, "predicted"), lines.loc[gap.idxmax()]
    assert worst["model"] == "one width"
    assert f"furthest from nominal for one width in the {worst['group']} of its predictions" in words
    assert f"hold {100 * worst['coverage']:.1f} % of 160 observations (" in words
    assert (
        f"widths stays nearest, with a largest gap of {100 * gap[lines['model'] == 'widths'].max():.1f} points" in words
    )
    with pytest.raises(ValueError, match="no classes by 'season', but 'predicted'; make it with by='season'"):
        coverage_words(table, "season")


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [(0.7, 0.85, " (70 to 85 % when resampled);"), (0.7, 0.92, " (70 to 92 % when resampled, which does not tell it from 90 %);"),
     (np.nan, np.nan, "observations;")],
)  # fmt: skip
def test_words_say_what_chance_may_make(low, high, said):
    table = pd.DataFrame({"model": ["BMA", "HBM"], "by": "season", "group": "DJF", "n": 40, "level": 0.9, "note": "",
                          "coverage": [0.8, 0.91], "coverage_low": low, "coverage_high": high})  # fmt: skip
    assert said in coverage_words(table, "season")


def test_the_figure_draws_each_level_its_promise_and_what_has_no_value():
    table = pd.DataFrame({
        "model": "BMA", "by": "predicted", "group": np.repeat(["lowest fifth", "highest fifth"], 2), "level": [0.5, 0.9] * 2,
        "coverage": [0.4, 0.8, np.nan, np.nan], "coverage_low": [0.3, 0.7, np.nan, np.nan],
        "coverage_high": [0.5, 0.85, np.nan, np.nan],
    })  # fmt: skip
    ax = plots.coverage_by_class(table, by="predicted")
    assert [text.get_text() for text in ax.get_xticklabels()] == ["lowest", "highest"]
    assert ax.get_xlabel() == "Fifth of the predicted value"
    promised, inside = ax.lines[0], ax.lines[1]
    assert_array_equal(promised.get_ydata(), [90, 90])
    assert_allclose(inside.get_ydata(), [80, np.nan])
    assert_allclose(ax.collections[0].get_segments()[0][:, 1], [70, 85])
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["90 % intervals", "50 % intervals", "no value"]
    assert ax.lines[-1].get_xdata().tolist() == [1]


def test_the_figure_refuses_what_it_cannot_draw(rows):
    table = be.coverage_table(rows)
    with pytest.raises(ValueError, match=r"the class 'lowest fifth' has several lines of one level; give model=\.\.\."):
        plots.coverage_by_class(table, by="predicted")
    with pytest.raises(KeyError, match="no classes by 'season' in the table"):
        plots.coverage_by_class(table, by="season", model="widths")
    with pytest.raises(KeyError, match="no model 'HBM' in the table"):
        plots.coverage_by_class(table, by="predicted", model="HBM")
