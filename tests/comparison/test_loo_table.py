"""loo_table: arviz's numbers, clustered standard errors by brute force and against sampling, and what the words say."""

import warnings

import arviz as az
import numpy as np
import pandas as pd
import pytest
import xarray as xr

import bayesens as be
from bayesens.comparison.loo_table import clustered_error, loo_table, loo_words
from bayesens.inference.fit import _describe

JOINT = {"correction": "joint", "group": False, "site": False}  # the mixture of regressions

SITES, DAYS = 12, 15


def table(seed=1):
    """Sites that share an error of the member which is as large as the rows' own."""
    rng = np.random.default_rng(seed)
    site = np.repeat(np.arange(SITES), DAYS)
    y = rng.normal(5.0, 1.0, SITES * DAYS)
    own = rng.normal(0.0, 0.6, SITES)[site]
    frame = pd.DataFrame(
        {"m1": y + own + rng.normal(0, 0.4, len(y)), "m2": y - own + rng.normal(0, 0.7, len(y)), "y": y}
    )
    return frame.assign(site=np.char.add("s", site.astype(str)), time=pd.Timestamp("2020-01-01") + pd.to_timedelta(
        np.tile(np.arange(DAYS) * 10, SITES), "D"))  # fmt: skip


def ensemble(frame, **options):
    columns = {"site": "site", "time": "time"} | options
    return be.Ensemble.from_frame(frame, members=["m1", "m2"], observation="y", **columns)


def made(model, ens, **values):
    """A fit whose draws lie about given values, without running one."""
    model, rng = model.resolve(ens), np.random.default_rng(5)
    variables = {
        name: (("chain", "draw", "member")[: 2 + np.ndim(value)],
               np.asarray(value) * np.exp(0.03 * rng.standard_normal((4, 100, *np.shape(value)))))
        for name, value in values.items()
    }  # fmt: skip
    tree = xr.DataTree.from_dict({"posterior": xr.Dataset(variables, {"member": ["m1", "m2"]})})
    tree.attrs = _describe(model, ens) | {"method": "nuts"}
    return be.add(tree, ens, "log_likelihood")


def fits_of(ens):
    both = {"bias": [0.05, 0.05], "slope": [0.8, 0.7]}
    return {
        "climatology": made(be.Climatology(), ens, mean=5.0, sd=1.0),
        "equal": made(be.EqualWeights(**JOINT), ens, sigma=[0.6, 0.7], **both),
        "pool": made(be.BMA(**JOINT), ens, weight=[0.6, 0.4], sigma=[0.5, 0.6], **both),
    }


@pytest.fixture(scope="module")
def ens():
    return ensemble(table())


@pytest.fixture(scope="module")
def fits(ens):
    return fits_of(ens)


@pytest.fixture(scope="module")
def found(fits, ens):
    return loo_table(fits, ens, progressbar=False).set_index("model")


# ------------------------------------------------------------------------------------------------------- arviz's numbers
def test_elpd_errors_and_weights_are_those_of_arviz(fits, found):
    compared = az.compare(fits, round_to="none")
    assert compared.index.tolist() == found.index.tolist()  # the best first
    for own, theirs in {"elpd": "elpd", "se": "se", "p": "p", "difference": "elpd_diff"}.items():
        np.testing.assert_allclose(found[own], compared[theirs].astype(float), atol=1e-9)
    np.testing.assert_allclose(found["weight"], compared["weight"].astype(float), atol=2e-4)  # where its search ends
    n = SITES * DAYS  # arviz divides the variance of differences by n, that of elpd by n - 1
    np.testing.assert_allclose(found["difference_se"], compared["dse"].astype(float) * np.sqrt(n / (n - 1)), rtol=1e-9)
    pointwise = {name: az.loo(tree, pointwise=True) for name, tree in fits.items()}
    for name, one in pointwise.items():
        assert found.loc[name, "bad_k"] == int((one.pareto_k > one.good_k).sum())


def test_a_row_impossible_for_all_fits_leaves_the_weights_of_the_other_rows():
    """exp(-800) is zero: without care stacking has no weights for it, and ends where it began, at equal ones."""
    frame = table()
    far = {name: [made(be.Climatology(center=5.0, unit=1.0), ensemble(frame.assign(y=y)), mean=mean, sd=0.5)]
           for y in [frame["y"].where(frame.index > 0, 60.0)] for name, mean in (("low", 4.8), ("lower", 3.0))}  # fmt: skip
    ens = ensemble(frame.assign(y=frame["y"].where(frame.index > 0, 60.0)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        got = loo_table({name: trees[0] for name, trees in far.items()}, ens, progressbar=False)
    assert got["elpd"].max() < -800
    assert got.set_index("model").loc["low", "weight"] > 0.9


# ------------------------------------------------------------------------------------------------------ standard errors
def brute(d, labels):
    mean, total = sum(d) / len(d), 0.0
    clusters = sorted(set(labels))
    for c in clusters:
        total += sum(x - mean for x, own in zip(d, labels, strict=True) if own == c) ** 2
    return (len(clusters) / (len(clusters) - 1) * total) ** 0.5


@pytest.mark.parametrize("cluster", ["site", "time", "labels"])
def test_clustered_errors_are_the_formula(fits, ens, found, cluster):
    frame = table()
    month = ((frame["time"] - frame["time"].min()).dt.days // 30).tolist()
    labels = {"site": frame["site"].tolist(), "time": month, "labels": (frame.index % 7).tolist()}[cluster]
    given = np.array(labels) if cluster == "labels" else cluster
    got = loo_table(fits, ens, cluster=given, progressbar=False).set_index("model")
    each = {name: az.loo(tree, pointwise=True).elpd_i.values for name, tree in fits.items()}
    best = found.index[0]
    for name, values in each.items():
        assert got.loc[name, "se_clustered"] == pytest.approx(brute(values, labels), rel=1e-8)
        wanted = brute(values - each[best], labels)
        assert got.loc[name, "difference_se_clustered"] == pytest.approx(wanted, rel=1e-8)
    assert set(got["clusters"]) == {len(set(labels))}
    said = {"site": "12 sites", "time": "5 time blocks of 30 days", "labels": "7 clusters"}[cluster]
    assert set(got["clustered_by"]) == {said}


def test_one_cluster_a_row_gives_the_usual_errors(fits, ens):
    got = loo_table(fits, ens, cluster=np.arange(len(ens)), progressbar=False)
    np.testing.assert_allclose(got["se_clustered"], got["se"], rtol=1e-10)
    np.testing.assert_allclose(got["difference_se_clustered"], got["difference_se"], rtol=1e-10)


def test_the_order_of_rows_does_not_matter(found):
    shuffled = ensemble(table().sample(frac=1.0, random_state=3))
    got = loo_table(fits_of(shuffled), shuffled, progressbar=False).set_index("model")
    numbers = ["elpd", "se", "se_clustered", "difference_se_clustered", "p"]
    np.testing.assert_allclose(got[numbers], found[numbers], rtol=1e-8)


def test_clustered_errors_are_the_sampling_error():
    """Sums of 40 clusters of 20 rows, whose variance is known: C (m² tau² + m sigma²).

    The square of the error is unbiased for it, with a relative sd of sqrt(2 / 39): over 300 simulations the mean has
    1.3 %, and correct code misses 6 % in fewer than 1 of 10,000 runs. The error of independent rows is 4 times too small.
    """
    rng, clusters, m = np.random.default_rng(2), 40, 20
    d = rng.normal(0.0, 1.0, (300, clusters, 1)) + rng.normal(0.0, 0.5, (300, clusters, m))
    truth = clusters * (m**2 * 1.0 + m * 0.25)
    codes = np.repeat(np.arange(clusters), m)
    flat = d.reshape(300, -1)
    assert np.mean([clustered_error(one, codes) ** 2 for one in flat]) == pytest.approx(truth, rel=0.06)
    assert np.mean(flat.shape[1] * np.var(flat, axis=1)) < truth / 14


def test_few_clusters_have_no_error_and_the_table_says_so(fits, ens):
    got = loo_table(fits, ens, cluster=np.arange(len(ens)) % 4, progressbar=False)
    assert got[["se_clustered", "difference_se_clustered"]].isna().all(axis=None)
    assert set(got["clustered_by"]) == {"none: 4 clusters, wanted 5"}
    assert "Clustered standard errors: none: 4 clusters" in loo_words(got)


# ------------------------------------------------------------------------------------------------------------ the words
def words_table(differences, ratio=2.0):
    d = np.array([0.0, *differences])
    return pd.DataFrame({"model": ["a", "b", "c"][: len(d)], "difference": -d, "difference_se": np.where(d > 0, 1.0, 0.0),
                         "difference_se_clustered": np.where(d > 0, ratio, 0.0), "clustered_by": "30 sites"})  # fmt: skip


@pytest.mark.parametrize(("differences", "said"), [
    ((9.0, 3.0), "a is ahead of 'b' by more than twice that error and is not distinguishable from 'c'."),
    ((3.0,), "a is not distinguishable from 'b'."),
    ((9.0,), "a is ahead of 'b' by more than twice that error."),
])  # fmt: skip
def test_words_name_the_estimand_and_who_is_ahead(differences, said):
    text = loo_words(words_table(differences))
    assert text.endswith(said)
    assert "too good for new sites" in text
    assert "estimand='site'" in text
    assert "30 sites are 2.0 times" in text


def test_words_of_one_model(fits, ens):
    got = loo_table({"one": fits["pool"]}, ens, progressbar=False)
    assert got["weight"].tolist() == [1.0]
    assert loo_words(got).endswith("no difference to judge.")
    with pytest.raises(ValueError, match="lacks the columns"):
        loo_words(got.drop(columns="difference"))


# ------------------------------------------------------------------------------------------------------------ bad input
@pytest.mark.filterwarnings("ignore:pool. 1 of 180 rows")
def test_fits_of_different_rows_are_refused():
    frame = table()
    frame.loc[2, ["m1", "m2"]] = np.nan
    ens = ensemble(frame)
    with (
        pytest.warns(UserWarning, match="equal: 1 of 180 rows"),
        pytest.raises(ValueError, match="used 180 rows and equal"),
    ):
        loo_table(fits_of(ens), ens, progressbar=False)


def test_bad_arguments_say_what_to_do(fits, ens):
    bare = ensemble(table(), site=None, time=None)
    own = fits_of(bare)
    for one, trees, options, text in [
        (ens, {}, {}, "fits is empty"),
        (ens, fits, {"cluster": "sites"}, "cluster is 'site', 'group', 'time' or one label a row; got 'sites'"),
        (bare, own, {}, "cluster='site' needs the rows' sites"),
        (bare, own, {"cluster": "time"}, "cluster='time' needs the rows' times"),
        (ens, fits, {"cluster": np.arange(3)}, "wanted one label for each of the 180 rows"),
        (ens, fits, {"cluster": np.where(np.arange(180) < 2, "", "a")}, "2 of 180 rows have no label"),
        (ensemble(table(2)), fits, {}, "climatology: This ensemble is not the one that was fitted"),
    ]:
        with pytest.raises(ValueError, match=text):
            loo_table(trees, one, progressbar=False, **options)
