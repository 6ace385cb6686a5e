"""Importance of covariates: against scikit-learn, loops by hand and what is known of a linear truth."""

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import RandomForestRegressor
from sklearn.impute import SimpleImputer
from sklearn.inspection import permutation_importance as of_sklearn
from sklearn.linear_model import LinearRegression
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline

from bayesens.comparison.bootstrap import interval
from bayesens.members.cross_fitting import cross_fit
from bayesens.members.members import Members
from bayesens.sensitivity.covariates import drop_importance, permutation_importance

QUIET = {"progressbar": False}


def table(n_sites=8, n_days=30, seed=1):
    rng = np.random.default_rng(seed)
    n = n_sites * n_days
    X = pd.DataFrame(
        {"rain": rng.normal(size=n), "heat": rng.normal(size=n), "clay": np.repeat(rng.normal(size=n_sites), n_days)}
    )
    y = 2.0 * X["rain"] + 1.0 * X["heat"] + 0.5 * rng.normal(size=n)
    site = np.repeat([f"s{i}" for i in range(n_sites)], n_days)
    time = np.tile(pd.date_range("2020-01-01", periods=n_days, freq="12D").to_numpy(), n_sites)
    return X, y, site, time


def members(estimators=None, **change):
    X, y, site, time = table()
    return Members(estimators or {"mlr": LinearRegression()}, X, y, **({"site": site, "time": time} | change))


def line(found, covariate, member="mlr"):
    return found[(found["covariate"] == covariate) & (found["member"] == member)].iloc[0]


@pytest.mark.slow
def test_is_that_of_scikit_learn_on_the_same_folds():
    """The mean of 100 shuffles against another 100: within four standard errors, the chance of failing below 0.1 %."""
    X, y, _site, _ = table()
    made = members()
    fold = cross_fit(made, folds=4, **QUIET).dataset["fold"].values
    found = permutation_importance(made, folds=4, n_repeats=100, random_seed=1, **QUIET)
    total, variance = np.zeros(3), np.zeros(3)
    for k in range(4):
        fit = LinearRegression().fit(X[fold != k], y[fold != k])
        theirs = of_sklearn(
            fit, X[fold == k], y[fold == k], scoring="neg_mean_squared_error", n_repeats=100, random_state=2
        )
        share = np.mean(fold == k)
        total += share * theirs.importances_mean
        variance += 2 * share**2 * theirs.importances.var(axis=1) / 100
    for k, name in enumerate(X):
        assert abs(line(found, name)["rise"] - total[k]) < 4 * np.sqrt(variance[k]) + 1e-12


def test_known_rise_of_a_linear_truth():
    """Shuffling x costs 2 b^2 Var(x): 8 for rain, 2 for heat; a covariate of no use costs nothing."""
    found = permutation_importance(members(), n_repeats=20, random_seed=1, **QUIET)
    X = table()[0]
    for name, slope in (("rain", 2.0), ("heat", 1.0)):
        assert line(found, name)["rise"] == pytest.approx(2 * slope**2 * X[name].var(), rel=0.1)
    assert abs(line(found, "clay")["rise"]) < 0.02
    rain = line(found, "rain")
    assert rain["percent"] == pytest.approx(100 * rain["rise"] / rain["loss"])
    y = table()[1]
    assert rain["r2"] == pytest.approx(1 - rain["loss"] / y.var(ddof=0))
    assert rain["r2_fall"] == pytest.approx(rain["rise"] / y.var(ddof=0))
    assert rain["rise_low"] < rain["rise"] < rain["rise_high"]
    assert 0 < rain["rise_sd_repeat"] < rain["rise_sd_fold"]


def test_sets_are_shuffled_together_and_within_strata():
    made = members()
    found = permutation_importance(made, sets={"weather": ["rain", "heat"]}, n_repeats=10, random_seed=1, **QUIET)
    assert found["covariate"].tolist() == ["weather", "clay"]
    assert line(found, "weather")["rise"] == pytest.approx(10.0, rel=0.15)
    with pytest.warns(UserWarning, match="'clay' do not vary within the strata"):
        within = permutation_importance(made, within="site", n_repeats=5, random_seed=1, **QUIET)
    assert line(within, "clay")["rise"] == 0.0
    assert line(within, "rain")["rise"] > 6.0
    seasons = permutation_importance(made, within="season", n_repeats=5, random_seed=1, **QUIET)
    assert line(seasons, "rain")["rise"] > 6.0


def test_shuffling_stays_within_strata_and_keeps_rows_of_a_set_whole():
    from bayesens.sensitivity.covariates import _shuffled
    from bayesens.sensitivity.losses import plan_of, usable_rows

    made = members()
    fold = plan_of(made, np.repeat([0, 1], 120), usable_rows(made.rows))[0]
    code = np.arange(240) % 7
    X = _shuffled(fold, ["rain", "heat"], code, 3)
    before = fold.X()
    assert (X["clay"].values == before["clay"].values).all()
    assert (X["rain"].values != before["rain"].values).mean() > 0.5
    pairs = {(a, b): k for a, b, k in zip(before["rain"], before["heat"], code[fold.test], strict=True)}
    assert [pairs[a, b] for a, b in zip(X["rain"], X["heat"], strict=True)] == code[fold.test].tolist()
    assert sorted(X["rain"]) == sorted(before["rain"])


def test_leaving_a_covariate_out_is_the_refit_by_hand():
    X, y, _site, _ = table()
    made = members()
    fold = cross_fit(made, folds=4, **QUIET).dataset["fold"].values
    found = drop_importance(made, sets={"weather": ["rain", "heat"]}, folds=4, **QUIET)

    def loss(columns):
        error = np.empty(len(y))
        for k in range(4):
            fit = LinearRegression().fit(X.loc[fold != k, columns], y[fold != k])
            error[fold == k] = fit.predict(X.loc[fold == k, columns]) - y[fold == k]
        return np.mean(error**2)

    for name, rest in (("weather", ["clay"]), ("clay", ["rain", "heat"])):
        assert line(found, name)["rise"] == pytest.approx(loss(rest) - loss(list(X)), rel=1e-9)
    assert not {"rise_sd_repeat", "r2_fall_sd_repeat"} & set(found)
    with pytest.raises(ValueError, match="without 'all' there is no covariate left"):
        drop_importance(made, sets={"all": list(X)}, **QUIET)


def test_combiners_losses_regions_and_threads():
    estimators = {"mlr": LinearRegression(), "rf": RandomForestRegressor(10, min_samples_leaf=5, random_state=1)}
    made = members(estimators, by=np.repeat(["west", "east"], 120), min_rows=20, min_sites=2)
    options = {"n_repeats": 3, "random_seed": 1, "combiners": {"mean": lambda f: (f["mlr"] + f["rf"]) / 2}}
    one = permutation_importance(made, **options, **QUIET)
    two = permutation_importance(made, **options, n_jobs=2, **QUIET)
    pd.testing.assert_frame_equal(one, two)
    assert list(dict.fromkeys(one["member"])) == ["mlr", "rf", "mean"]
    assert line(one, "rain", "mean")["loss"] < line(one, "rain", "rf")["loss"]
    absolute = permutation_importance(made, loss="absolute", **options, **QUIET)
    own = permutation_importance(made, loss=lambda y, f: np.abs(f - y), **options, **QUIET)
    pd.testing.assert_frame_equal(absolute, own)


def test_intervals_of_stations_need_stations_and_replicates():
    made = members()
    assert permutation_importance(made, n_repeats=2, replicates=0, random_seed=1, **QUIET)["rise_low"].isna().all()
    once = permutation_importance(made, n_repeats=1, random_seed=1, **QUIET)
    assert once["rise_sd_repeat"].isna().all()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"n_repeats": 0}, "n_repeats is 0; wanted a whole number of at least 1"),
        ({"sets": {"soil": ["clya"]}}, "no covariate 'clya' in the members.*did you mean 'clay'"),
        ({"sets": {"a": ["clay"], "b": ["clay", "rain"]}}, "'clay' stand in two sets"),
        ({"sets": {"rain": ["clay"]}}, "set 'rain' has the name of a covariate outside it"),
        ({"sets": {"none": []}}, "set 'none' has no covariates"),
        ({"loss": "cubic"}, "no loss 'cubic'"),
        ({"loss": lambda y, f: 0.0}, "loss returned the shape .*no mean"),
        ({"combiners": {"mlr": lambda f: f["mlr"]}}, "combiners 'mlr' have names of members"),
        ({"combiners": {"one": lambda f: 1.0}}, "combiner 'one' returned the shape"),
        ({"within": "year"}, "no stratum 'year'"),
        ({"folds": 9}, "9 folds of 8 sites"),
    ],
)
def test_bad_input(options, text):
    with pytest.raises((ValueError, KeyError), match=text):
        permutation_importance(members(), **({"n_repeats": 1} | options), **QUIET)


def test_members_without_estimators_or_dates_are_refused():
    X, y, site, _time = table()
    given = Members({}, X[["clay"]], y, site=site, products=X[["rain"]])
    with pytest.raises(ValueError, match="no member is trained"):
        permutation_importance(given, **QUIET)
    with pytest.raises(ValueError, match="needs the members' time as dates"):
        permutation_importance(members(time=np.tile(np.arange(30), 8)), within="season", **QUIET)


@pytest.mark.slow
def test_expected_rise_is_that_of_all_pairs_of_rows():
    """A shuffled row holds every row's value equally often; 200 shuffles within 5 standard errors: chance below 1e-5."""
    X, y, site, _ = table(n_sites=4, n_days=15)
    made = Members({"knn": KNeighborsRegressor(3)}, X, y, site=site)
    fold = np.repeat([0, 1], 30)
    found = line(permutation_importance(made, folds=fold, n_repeats=200, random_seed=1, **QUIET), "rain", "knn")
    expected = 0.0
    for k in range(2):
        test, truth = X[fold == k], y[fold == k]
        fit = KNeighborsRegressor(3).fit(X[fold != k], y[fold != k])
        pairs = test.loc[np.repeat(test.index, 30)].assign(rain=np.tile(test["rain"], 30))
        after = np.mean((fit.predict(pairs) - np.repeat(truth, 30)) ** 2)
        expected += (after - np.mean((fit.predict(test) - truth) ** 2)) / 2
    assert abs(found["rise"] - expected) < 5 * found["rise_sd_repeat"] / np.sqrt(200)


def test_loss_is_that_of_cross_fit_with_the_same_seed():
    made = members({"rf": RandomForestRegressor(3)})
    kept = cross_fit(made, folds=3, random_seed=5, **QUIET)
    loss = np.mean((kept.prediction[:, 0] - kept.observation) ** 2)
    for of in (permutation_importance, drop_importance):
        assert of(made, folds=3, random_seed=5, replicates=0, **QUIET)["loss"].iloc[0] == pytest.approx(loss)


def test_sds_and_intervals_are_those_of_folds_and_of_a_bootstrap_of_stations_by_hand():
    """Ends of 4,000 replicates against those of another 4,000: within 6 % of the width, the chance of failing is below 1 %."""
    X, y, site, _ = table(n_sites=12)
    made = Members({"mlr": LinearRegression()}, X, y, site=site)
    found = line(drop_importance(made, folds=4, random_seed=1, replicates=4000, **QUIET), "heat")
    errors = {}
    for name, columns in (("all", list(X)), ("less", ["rain", "clay"])):
        part = cross_fit({"mlr": LinearRegression()}, X[columns], y, site=site, folds=4, random_seed=1, **QUIET)
        errors[name] = (part.prediction[:, 0] - y.to_numpy()) ** 2
    fold, rise = part.dataset["fold"].values, errors["less"] - errors["all"]
    own = pd.Series(rise).groupby(fold).mean()
    assert found["rise_sd_fold"] == pytest.approx(own.std())
    assert found["r2_fall_sd_fold"] == pytest.approx(own.std() / y.var(ddof=0))
    rng = np.random.default_rng(9)
    table_of = pd.DataFrame({"rise": rise, "loss": errors["all"], "y": y, "square": y**2}).groupby(site).sum()
    drawn = table_of.to_numpy()[rng.integers(0, 12, (4000, 12))].sum(axis=1)
    spread = drawn[:, 3] - drawn[:, 2] ** 2 / 360
    for name, values in (
        ("rise", drawn[:, 0] / 360),
        ("percent", 100 * drawn[:, 0] / drawn[:, 1]),
        ("r2_fall", drawn[:, 0] / spread),
    ):
        ends = np.quantile(values, [0.05, 0.95])
        np.testing.assert_allclose(
            [found[f"{name}_low"], found[f"{name}_high"]], ends, rtol=0, atol=0.06 * np.ptp(ends)
        )


def test_a_covariate_is_judged_alike_whatever_else_is_asked():
    made = members()
    alone = permutation_importance(made, sets={"others": ["heat", "clay"]}, n_repeats=3, random_seed=1, **QUIET)
    among = permutation_importance(made, n_repeats=3, random_seed=1, **QUIET)
    pd.testing.assert_series_equal(line(alone, "rain"), line(among, "rain"), check_names=False)


def test_rows_that_would_lose_their_only_covariate_are_passed_over():
    X, y, site, _ = table()
    X.iloc[::10, 1:] = np.nan  # rain only
    X.iloc[1::10, 0] = np.nan  # no rain
    learner = make_pipeline(SimpleImputer(), LinearRegression())
    made = Members({"mlr": learner}, X, y, site=site)
    for of in (permutation_importance, drop_importance):
        found = of(made, random_seed=1, **QUIET)
        assert (found["n"] == 216).all()
        assert np.isfinite(found[["rise", "rise_low", "rise_high", "percent", "r2_fall"]]).all(axis=None)
    single = Members({"mlr": learner}, X[["rain"]], y, site=site)
    assert permutation_importance(single, random_seed=1, **QUIET)["n"].tolist() == [216]  # 24 have no rain


def test_a_large_mean_costs_no_digits():
    X, y, site, _ = table()
    options = {"n_repeats": 2, "random_seed": 1} | QUIET
    one, far = (
        permutation_importance(Members({"mlr": LinearRegression()}, X, y + add, site=site), **options)
        for add in (0.0, 1e7)
    )
    columns = ["r2", "r2_fall", "r2_fall_low", "r2_fall_high"]
    np.testing.assert_allclose(far[columns], one[columns], atol=1e-6)


def test_combiners_see_products_and_must_give_numbers():
    X, y, site, _ = table()
    product = pd.DataFrame({"cci": y.where(np.arange(len(y)) != 7)})
    made = Members({"mlr": LinearRegression()}, X, y, site=site, products=product)

    def half(f):
        return np.where(np.isnan(f["cci"]), f["mlr"], (f["mlr"] + f["cci"]) / 2)

    found = permutation_importance(made, n_repeats=2, combiners={"half": half}, random_seed=1, **QUIET)
    assert line(found, "rain", "half")["loss"] < line(found, "rain")["loss"]
    with pytest.raises(ValueError, match=r"combiner 'sum' returned 1 of .* not finite.*where a product is missing"):
        permutation_importance(made, n_repeats=1, combiners={"sum": lambda f: f["mlr"] + f["cci"]}, **QUIET)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"loss": lambda y, f: np.full(len(y), np.inf)}, "loss returned .* values that are not finite"),
        ({"folds": np.arange(3)}, r"folds has the shape \(3,\); wanted one label for each of the 240 rows"),
        ({"folds": ["a"] * 239 + [None]}, "folds has no label in 1 of 240 rows"),
        ({"folds": 2.5}, "folds is 2.5; wanted a whole number"),
        ({"within": np.arange(3)}, r"within has the shape \(3,\)"),
        ({"level": 90}, r"level is 90; wanted a share inside \(0, 1\)"),
        ({"replicates": -1}, "replicates is -1; wanted a whole number"),
        ({"sets": {"soil": "clay"}}, r"set 'soil' is a text; wanted a list of covariates: \['clay'\]"),
    ],
)
def test_more_bad_input(options, text):
    with pytest.raises((ValueError, TypeError), match=text):
        permutation_importance(members(), **({"n_repeats": 1} | options), **QUIET)


def test_rows_that_all_have_one_covariate_only_cannot_be_held_out():
    X, y, site, _ = table()
    X = X[["rain", "heat"]].where(np.column_stack([np.arange(240) % 2 == 0, np.arange(240) % 2 == 1]))
    made = Members({"mlr": make_pipeline(SimpleImputer(), LinearRegression())}, X, y, site=site)
    with pytest.raises(ValueError, match="none of 240 rows can be held out"):
        permutation_importance(made, n_repeats=1, **QUIET)


def test_interval_of_no_replicates_is_missing():
    assert all(np.isnan(end) for end in interval(np.empty(0), 0.9))
    assert [end.shape for end in interval(np.empty((3, 2, 0)), 0.9)] == [(3, 2), (3, 2)]
