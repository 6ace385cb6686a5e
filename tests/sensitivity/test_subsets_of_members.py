"""Members left out and Shapley values: against fits by hand, brute force over orders, and what players of a game must get."""

import json
from itertools import permutations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t as student_t
from sklearn.linear_model import LinearRegression
from sklearn.neighbors import KNeighborsRegressor

import bayesens as be
from bayesens import simulate
from bayesens.comparison.compare import compare
from bayesens.sensitivity.members import _shapley_weights, left_out_words, members_left_out, shapley

JOINT = {"correction": "joint", "group": False, "site": False}  # the mixture of regressions

QUICK = {"estimand": "site", "folds": 3, "method": "em", "random_seed": 1, "progressbar": False}
BMA = be.BMA(**JOINT, sigma="shared")
EXPECTED = pytest.mark.filterwarnings("ignore:.* that the fit has not seen")


@pytest.fixture(scope="module")
def frame():
    frame = simulate.region(24, 3, 8, random_seed=2).frame
    rng = np.random.default_rng(1)
    return frame.assign(
        twin=frame["rf"] + 0.002 * rng.normal(size=len(frame)), poor=frame["sm"] + 0.2 * rng.normal(size=len(frame))
    )


def table_of(frame, members, **more):
    columns = {"observation": "sm", "site": "station", "time": "date", "units": "m3 m-3"} | more
    return be.Ensemble.from_frame(frame, members=members, **columns)


@pytest.fixture(scope="module")
def ensemble(frame):
    return table_of(frame, ["rf", "twin", "mlr", "poor"])


@pytest.fixture(scope="module")
def left(ensemble):
    return members_left_out(BMA, ensemble, replicates=200, **QUICK).set_index("left_out")


@pytest.fixture(scope="module")
def members(frame):
    X = frame.assign(wet=frame["truth"].round(2), noise=np.random.default_rng(1).normal(size=len(frame)))[
        ["wet", "noise"]
    ]
    estimators = {"one": KNeighborsRegressor(5), "two": KNeighborsRegressor(6), "mlr": LinearRegression()}
    return be.Members(estimators, X, frame["sm"], site=frame["station"], time=frame["date"])


# ---------------------------------------------------------------------------------------------------------- left out
def test_scores_are_those_of_fits_without_the_member(ensemble, left):
    assert list(left.index) == ["rf", "twin", "mlr", "poor"]
    full = compare({"BMA": BMA}, ensemble, **QUICK)
    without = compare({"BMA": BMA}, ensemble.select(members=["rf", "twin", "poor"]), **QUICK)
    line = left.loc["mlr"]
    assert line["members"] == "rf, twin, poor"
    assert line["n_left"] == 3
    assert line["score"] == pytest.approx(float(without["crps"].mean()), rel=1e-5)
    assert line["full_score"] == pytest.approx(float(full["crps"].mean()), rel=1e-5)
    assert line["difference"] == pytest.approx(100 * (line["score"] / line["full_score"] - 1))


def test_intervals_are_those_of_paired_differences(ensemble):
    found = members_left_out(
        BMA, ensemble, by=[["mlr", "poor"]], metric="rmse", block=None, replicates=100, level=0.8, **QUICK
    ).iloc[0]
    options = QUICK | {"folds": 3}
    models = {"all": BMA, "some": be.OnMembers(BMA, ("rf", "twin"))}
    wanted = be.paired_differences(
        compare(models, ensemble, **options), "all", replicates=100, block=None, level=0.8, random_seed=1
    )
    wanted = wanted.set_index("metric").loc["rmse"]
    for name in ("difference", "low", "high", "p_better", "clear", "unit", "interval"):
        assert found[name] == wanted[name]
    assert found[["left_out", "members", "metric", "estimand", "level"]].tolist() == [
        "mlr, poor",
        "rf, twin",
        "rmse",
        "site",
        0.8,
    ]


def test_a_twin_costs_nothing_although_it_is_most_dependent(left):
    """A small loss is no independence: either twin may go, and its errors correlate most with those of the others."""
    assert abs(left.loc["twin", "difference"]) < 2
    assert left.loc["twin", "error_correlation"] > left.loc["poor", "error_correlation"] + 0.3
    assert abs(left.loc["poor", "difference"]) < 2
    words = left_out_words(left.reset_index())
    assert "Without twin the CRPS changes by " in words
    assert "A small loss does not show that a member is independent" in words
    assert f"an average of all members is worth {left['k_eff'].iloc[0]:.2f} with independent errors" in words


def test_error_correlations_and_effective_number_stand_beside(frame, left):
    error = frame[["rf", "twin", "mlr", "poor"]].sub(frame["sm"], axis=0)
    r = np.corrcoef(error.to_numpy().T)
    assert left["error_correlation"].tolist() == pytest.approx([(r[k].sum() - 1) / 3 for k in range(4)])
    assert left["k_eff"].tolist() == pytest.approx([4 / (1 + (r.sum() - 4) / 4)] * 4)


def test_clusters_go_together(ensemble):
    found = members_left_out(BMA, ensemble, by="cluster", replicates=50, **QUICK)
    assert found["left_out"].tolist() == ["rf, twin", "mlr", "poor"]
    assert found["n_left"].tolist() == [2, 3, 3]
    twins = table_of(ensemble.to_frame(), ["rf", "twin"])
    with pytest.raises(ValueError, match=r"all 2 members are one cluster .* by='member'"):
        members_left_out(BMA, twins, by="cluster", **QUICK)


@pytest.mark.slow
@EXPECTED
def test_trained_members_are_trained_once_a_fold_also_for_their_clusters(members, monkeypatch, tmp_path):
    calls, split = [], be.Members.split

    def counted(self, *args, **kwargs):
        calls.append(1)
        return split(self, *args, **kwargs)

    monkeypatch.setattr(be.Members, "split", counted)
    found = members_left_out(BMA, members, by="cluster", replicates=0, inner_folds=3, **QUICK)
    assert len(calls) == 3
    assert found["left_out"].tolist() == ["one, two", "mlr"]
    assert found["low"].isna().all()
    kept = members_left_out(BMA, members, by=[["one", "two"]], replicates=0, inner_folds=3, cache=tmp_path, **QUICK)
    assert len(calls) == 6
    assert kept["score"][0] == found["score"][0]
    assert len(list(tmp_path.glob("*-members-*"))) == 6


def test_a_fit_that_fails_has_a_line_that_says_so(ensemble):
    with pytest.warns(UserWarning, match="^without rf failed and is left out"):
        found = members_left_out(
            be.SingleMember(**JOINT, member="rf"),
            ensemble,
            by=[["rf"], ["mlr"]],
            replicates=0,
            **QUICK,
        )
    assert found["interval"][0].startswith("none: the fit failed, fold 1 of 3: ")
    assert np.isnan(found["score"][0])
    assert found["difference"][1] == 0
    assert "Without rf the CRPS is not known (the fit failed, fold 1 of 3: " in left_out_words(found)
    with (
        pytest.warns(UserWarning, match="without rf failed"),
        pytest.raises(ValueError, match="all fits without members failed"),
    ):
        members_left_out(be.SingleMember(**JOINT, member="rf"), ensemble, by=[["rf"]], **QUICK)
    with (
        pytest.warns(UserWarning, match="failed and is left out"),
        pytest.raises(ValueError, match="the model of all members failed"),
    ):
        members_left_out(
            be.BMA(**JOINT, transform="log"),
            table_of(ensemble.to_frame().assign(mlr=-1.0 - ensemble.prediction[:, 0]), ["rf", "mlr"]),
            **QUICK,
        )


def test_refusals(ensemble):
    def refused(match, error=ValueError, data=ensemble, **options):
        with pytest.raises(error, match=match):
            members_left_out(BMA, data, **(QUICK | options))

    refused("no member 'svm' in the data", KeyError, by=[["svm"]])
    refused(
        r"wanted 'member', 'cluster', or sequences of members: \[\['rf'\], \['poor'\]\]", TypeError, by=["rf", "mlr"]
    )
    refused("by is 'sets'", TypeError, by="sets")
    refused("by leaves out all of 4 members", by=[["rf", "twin", "mlr", "poor"]])
    refused("by leaves out none of 4 members", by=[[]])
    refused("wanted one set of members or more, each once", by=[["rf", "mlr"], ["mlr", "rf"]])
    refused("there is one member, 'rf'", data=ensemble.select(members=["rf"]))
    refused("no metric 'csrp'.*did you mean 'crps'", KeyError, metric="csrp", by=[["rf"]], replicates=5)


# ----------------------------------------------------------------------------------------------------- Shapley values
def brute(names, value):
    """Mean gain of each member over all orders in which they can join."""
    out = dict.fromkeys(names, 0.0)
    orders = list(permutations(names))
    for order in orders:
        for i, name in enumerate(order):
            out[name] += (value[frozenset(order[: i + 1])] - value[frozenset(order[:i])]) / len(orders)
    return out


@pytest.mark.slow
def test_values_equal_brute_force_over_orders_with_fits_of_my_own(ensemble, tmp_path):
    quick = QUICK | {"folds": 2}
    names = ["rf", "mlr", "poor"]
    some = ensemble.select(members=names)
    subsets = [frozenset(n for i, n in enumerate(names) if mask >> i & 1) for mask in range(1, 8)]
    rows = {frozenset(): compare({"C": be.Climatology()}, some, **quick)}
    for subset in subsets:
        own = some.select(members=[name for name in names if name in subset])
        rows[subset] = compare({"BMA": BMA}, own, **quick)
    for metric in ("crps", "rmse", "log_score"):
        found = shapley(BMA, some, metric=metric, replicates=0, cache=tmp_path, **quick)
        score = {}
        for subset, one in rows.items():
            error = one["prediction"] - one["observation"]
            score[subset] = float(one[metric].mean()) if metric != "rmse" else float(np.sqrt((error**2).mean()))
        value = {subset: -each for subset, each in score.items()}
        empty, full = score[frozenset()], score[frozenset(names)]
        assert found["value"].tolist() == pytest.approx(list(brute(names, value).values()), rel=1e-4, abs=1e-6)
        assert found["value"].sum() == pytest.approx(found["empty_score"][0] - found["full_score"][0], rel=1e-12)
        assert [found["empty_score"][0], found["full_score"][0]] == pytest.approx([empty, full], rel=1e-5)
        assert found["share"].sum() == pytest.approx(100)
        assert found["alone"][2] == pytest.approx(empty - score[frozenset(["poor"])], rel=1e-4, abs=1e-6)
        assert found["last"][2] == pytest.approx(score[frozenset(["rf", "mlr"])] - full, abs=1e-5)
        assert found["fits"].tolist() == [16] * 3


def test_weights_of_subsets_are_those_of_any_game():
    rng = np.random.default_rng(3)
    names = list("abcde")
    v = rng.normal(size=32)
    value = {frozenset(n for i, n in enumerate(names) if mask >> i & 1): v[mask] for mask in range(32)}
    np.testing.assert_allclose(_shapley_weights(5) @ -v, list(brute(names, value).values()), atol=1e-12)


def test_a_copy_shares_what_its_original_had(frame):
    """Equal weights of a member and its near copy are that member alone, so the game is known: either gives it all.

    Widths of their own would be a mixture of two scales, which is another model.
    """
    copy = frame["rf"] + 1e-5 * np.random.default_rng(1).normal(size=len(frame))
    found = shapley(
        be.EqualWeights(**JOINT, sigma="shared"),
        table_of(frame.assign(copy=copy), ["rf", "copy"]),
        replicates=0,
        **QUICK,
    )
    gain = found["empty_score"][0] - found["full_score"][0]
    assert found["value"].tolist() == pytest.approx([gain / 2] * 2, rel=1e-3)
    assert found["alone"].tolist() == pytest.approx([gain] * 2, rel=1e-3)
    assert np.abs(found["last"]).max() < 1e-3 * gain


def test_intervals_leave_out_one_station_at_a_time(ensemble):
    stations = ensemble.levels("site")[:9]
    some = ensemble.select(members=["rf", "poor"], rows=np.isin(ensemble.labels("site"), stations))
    found = shapley(BMA, some, replicates=20, block=None, **QUICK).iloc[1]
    models = {"none": be.Climatology(), "rf": be.OnMembers(BMA, ("rf",)), "poor": be.OnMembers(BMA, ("poor",)),
              "both": be.OnMembers(BMA, ("rf", "poor"))}  # fmt: skip
    rows = compare(models, some, **QUICK)

    def value(kept):
        none, rf, poor, both = rows["crps"].isel(obs=np.isin(rows["site"].values, kept)).mean("obs").values
        return 0.5 * (none - poor) + 0.5 * (rf - both)

    apart = [value(np.delete(stations, s)) for s in range(9)]
    half = student_t.ppf(0.95, 8) * np.sqrt(8 / 9 * np.sum((np.array(apart) - value(stations)) ** 2))
    assert [found["value"], found["low"], found["high"]] == pytest.approx(
        [value(stations), value(stations) - half, value(stations) + half]
    )
    assert found["interval"] == "t with 8 degrees of freedom, 9 stations"


def test_bootstrap_intervals_rest_on_the_same_rows_as_paired_differences(frame):
    """With one member of two that says nothing of its own, the whole gain's interval is that of the plain difference."""
    some = table_of(frame, ["rf", "mlr"])
    found = shapley(be.EqualWeights(**JOINT), some, replicates=400, block=None, **QUICK)
    rows = compare(
        {
            "none": be.Climatology(),
            "one": be.OnMembers(be.EqualWeights(**JOINT), ("rf",)),
            "two": be.OnMembers(be.EqualWeights(**JOINT), ("mlr",)),
            "both": be.EqualWeights(**JOINT),
        },
        some,
        **QUICK,
    )
    rng = np.random.default_rng(1)
    codes = np.unique(rows["site"].values, return_inverse=True)[1]
    count = rng.multinomial(24, np.full(24, 1 / 24), size=400)
    mean = (count[:, codes] @ rows["crps"].transpose("obs", "model").values) / count[:, codes].sum(axis=1)[:, None]
    values = 0.5 * (mean[:, 0] - mean[:, 1]) + 0.5 * (mean[:, 2] - mean[:, 3])
    assert found["interval"][0] == "bootstrap over 24 stations"
    assert [found["low"][0], found["high"][0]] == pytest.approx(np.quantile(values, [0.05, 0.95]).tolist(), rel=1e-6)


@EXPECTED
def test_trained_members_and_the_number_of_fits_are_said(members, capsys):
    options = QUICK | {"progressbar": True, "folds": 2}
    found = shapley(BMA, members, replicates=0, inner_folds=3, **options)
    assert "Shapley values of 3 members: 8 models in 2 folds, 16 fits" in capsys.readouterr().err.replace("\n", " ")
    assert found["member"].tolist() == ["one", "two", "mlr"]
    assert (found["value"] > 0).all()
    assert found.columns[:4].tolist() == ["member", "value", "low", "high"]


def test_shapley_refusals(frame, ensemble):
    rng = np.random.default_rng(1)
    wide = frame.assign(**{f"m{i}": frame["sm"] + rng.normal(size=len(frame)) for i in range(9)})
    with pytest.raises(ValueError, match="9 members have 511 subsets, 1536 fits in 3 folds; wanted at most 8 members"):
        shapley(BMA, table_of(wide, [f"m{i}" for i in range(9)]), **QUICK)
    with pytest.raises(KeyError, match="no metric 'kge'"):
        shapley(BMA, ensemble, metric="kge", **QUICK)
    with pytest.raises(ValueError, match="there is one member"):
        shapley(BMA, ensemble.select(members=["rf"]), **QUICK)
    with (
        pytest.warns(UserWarning, match="failed and is left out"),
        pytest.raises(ValueError, match="the fit of 'mlr' failed"),
    ):
        shapley(
            be.SingleMember(**JOINT, member="rf"),
            ensemble.select(members=["rf", "mlr"]),
            **QUICK,
        )
    bare = be.Ensemble.from_frame(frame, members=["rf", "mlr"], observation="sm", time="date")
    with pytest.raises(ValueError, match="intervals resample stations, and these rows have none"):
        shapley(BMA, bare, **(QUICK | {"estimand": "time", "block": None}))


def test_values_at_one_gauge_are_resampled_over_blocks_of_time(frame):
    bare = be.Ensemble.from_frame(frame, members=["rf", "mlr"], observation="sm", time="date")
    found = shapley(BMA, bare, **(QUICK | {"estimand": "time", "block": 5.0}))
    days = frame["date"].dropna().unique()
    blocks = len(np.unique((days - days.min()) // pd.Timedelta(days=5)))
    assert blocks >= 5
    assert set(found["interval"]) == {f"t with {blocks - 1} degrees of freedom, {blocks} blocks of 5 days"}
    assert (found["low"] < found["value"]).all()
    assert (found["value"] < found["high"]).all()


def test_tables_are_plain(left):
    assert json.loads(left.reset_index().to_json(orient="records"))[0]["left_out"] == "rf"
    assert isinstance(left, pd.DataFrame)
