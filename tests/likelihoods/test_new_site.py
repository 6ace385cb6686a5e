"""A new site predicted from the members of all its rows, against conditioning of the joint normal of everything."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import bayesens as be
from bayesens.ensemble.ensemble import Ensemble
from bayesens.inference.fit import _describe
from bayesens.inference.predict import distribution
from bayesens.likelihoods.multilevel.new_site import given_members, inside, root
from bayesens.likelihoods.options import options_from_json, options_to_json

MEMBERS = ["m1", "m2", "m3"]
CENTER = 1.0
DRAWS = 5
NONE = np.nan
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


# --------------------------------------------------------------------------------------- parameters, and the joint normal
def correlation(rng):
    a = rng.normal(size=(DRAWS, 3, 6))
    a = a @ a.swapaxes(1, 2)
    sd = np.sqrt(np.einsum("sii->si", a))
    return a / (sd[:, :, None] * sd[:, None, :])


def parameters(seed=1):
    """Five sets of parameters, far from each other."""
    rng = np.random.default_rng(seed)
    out = {"truth_mean": rng.normal(1.3, 0.3, DRAWS), "bias": rng.normal(0.0, 0.4, (DRAWS, 3))}
    for _, truth, slope, sd, corr in LEVELS:
        out[truth] = rng.uniform(0.3, 1.2, DRAWS)
        out[slope] = rng.normal(0.7, 0.3, (DRAWS, 3))
        out[sd] = rng.uniform(0.1, 0.8, (DRAWS, 3))
        out[corr] = correlation(rng)
    return out


LEVELS = [
    ("within", "truth_sd", "slope", "error_sd", "residual_corr"),
    ("site", "truth_site_sd", "slope_site", "bias_site_sd", "bias_site_corr"),
    ("group", "truth_group_sd", "slope_group", "bias_group_sd", "bias_group_corr"),
]


def covariances(values, s):
    """Mean of (y, f) and the covariance of each level in one draw, from the formula at the top of models/hbm.py."""
    out = {"group": np.zeros((4, 4))}
    for level, truth, slope, sd, corr in LEVELS:
        if truth in values:
            line = np.r_[1.0, values[slope][s]]
            out[level] = values[truth][s] ** 2 * np.outer(line, line)
            out[level][1:, 1:] += np.outer(values[sd][s], values[sd][s]) * values[corr][s]
    mu = values["truth_mean"][s]
    return np.r_[mu, CENTER + values["bias"][s] + values["slope"][s] * (mu - CENTER)], out


def exact(values, s, train, f, group, i):
    """Mean and variance of y_i at a new site given the training rows and the members of all rows of that site."""
    mean, cov = covariances(values, s)
    z = np.vstack([np.column_stack([train.observation, train.prediction]), np.column_stack([np.full(len(f), NONE), f])])
    z[train.n_obs + i, 0] = 0.0  # the target; it is not conditioned on
    row, column = np.nonzero(np.isfinite(z))
    site = np.append(train.labels("site"), np.full(len(f), "new"))[row]
    group = np.append(train.labels("group"), np.full(len(f), group))[row]
    pick = np.ix_(column, column)
    total = np.equal.outer(row, row) * cov["within"][pick] + np.equal.outer(site, site) * cov["site"][pick]
    total += np.equal.outer(group, group) * cov["group"][pick]
    target = np.flatnonzero((row == train.n_obs + i) & (column == 0))[0]
    given = np.arange(len(row)) != target
    gain = np.linalg.solve(total[np.ix_(given, given)], total[given, target])
    expected = mean[0] + gain @ (z[row, column] - mean[column])[given]
    return expected, total[target, target] - gain @ total[given, target]


def table(f, site, group, y=None):
    frame = pd.DataFrame(np.array(f), columns=MEMBERS).assign(s=np.array(site), g=np.array(group))
    if y is None:
        return Ensemble.from_frame(frame, members=MEMBERS, site="s", group="g")
    return Ensemble.from_frame(frame.assign(y=np.array(y)), members=MEMBERS, observation="y", site="s", group="g")


@pytest.fixture(scope="module")
def train():
    """Three sites in two groups, members missing here and there."""
    rng = np.random.default_rng(2)
    site = np.repeat(["s1", "s2", "s3"], [2, 4, 9])
    y = 1.3 + rng.normal(size=15)
    f = y[:, None] * 0.8 + rng.normal(0.3, 0.6, (15, 3))
    f[rng.random((15, 3)) < 0.15] = NONE
    return table(f, site, np.where(site == "s3", "g2", "g1"), y)


F = np.array([
    [1.4, 1.2, 2.0], [3.0, NONE, 2.5], [NONE, -0.5, NONE], [NONE, NONE, NONE], [2.2, 1.9, 2.4], [0.3, NONE, 0.9],
    [1.1, 0.4, NONE], [2.9, 2.0, 3.1],
])  # fmt: skip
P1 = be.HBM(center=CENTER, unit=1.0, group=True, site=True)
P3 = replace(P1, series=True)


def posterior_of(values, model, train):
    dims = ("chain", "draw", "member", "member_")
    out = xr.Dataset({name: (dims[: 1 + v.ndim], v[None]) for name, v in values.items()}, {"member": MEMBERS})
    return out.assign_coords(model.coordinates(train))


def by_draw(model, values, train, new):
    """Predictive mean and variance of every row in every draw, (draw, row)."""
    mixture = model.predictive(posterior_of(values, model, train), new, model.history(train))
    mean, variance = np.full((2, DRAWS, new.n_obs), NONE)
    for block in mixture.blocks():
        x = np.column_stack([np.ones(len(block.rows)), mixture.f[block.rows]])
        mean[:, block.rows] = block.coefficient[:, 0] @ x.T
        variance[:, block.rows] = block.variance
    return mean, variance


def agree(found, wanted, rel=1e-9):
    np.testing.assert_allclose(found, wanted, rtol=rel, atol=rel)


# ------------------------------------------------------------------------------------------------------------- exactness
@pytest.mark.parametrize("group", ["g1", "g2", "g9"])
def test_every_draw_is_exact_conditioning_on_the_members_of_all_rows(train, group):
    """In groups with two sites, with one, and in a new one; members missing, and a row that has none."""
    values = parameters()
    mean, variance = by_draw(P3, values, train, table(F, ["new"] * len(F), [group] * len(F)))
    wanted = np.array([[exact(values, s, train, F, group, i) for i in range(len(F))] for s in range(DRAWS)])
    agree(mean, wanted[..., 0])
    agree(variance, wanted[..., 1])


def test_every_draw_is_exact_without_groups(train):
    values = {name: v for name, v in parameters().items() if "_group" not in name}
    model = replace(P3, group=False)
    mean, variance = by_draw(model, values, train, table(F, ["new"] * len(F), ["g1"] * len(F)))
    wanted = np.array([[exact(values, s, train, F, "g1", i) for i in range(len(F))] for s in range(DRAWS)])
    agree(mean, wanted[..., 0])
    agree(variance, wanted[..., 1])


@pytest.mark.parametrize("zero", [["bias_site_sd"], ["truth_site_sd"], ["bias_site_sd", "truth_site_sd"]])
def test_a_singular_covariance_of_sites_is_exact_too(train, zero):
    """Sites that differ in their truth alone, in their biases alone, or in nothing."""
    values = {name: v for name, v in parameters().items() if "_group" not in name}
    values |= {name: 0.0 * values[name] for name in zero}
    mean, variance = by_draw(replace(P3, group=False), values, train, table(F, ["new"] * len(F), ["g1"] * len(F)))
    wanted = np.array([[exact(values, s, train, F, "g1", i) for i in range(len(F))] for s in range(DRAWS)])
    agree(mean, wanted[..., 0])
    agree(variance, wanted[..., 1])


def test_a_long_series_keeps_its_digits(train):
    """Two thousand rows: the formula of METHODS for complete rows, whose average is sufficient."""
    values, group = parameters(), "g9"
    f = np.random.default_rng(3).normal(1.5, 1.0, (2000, 3))
    mean, variance = by_draw(P3, values, train, table(f, ["new"] * 2000, [group] * 2000))
    for s in range(DRAWS):
        m, cov = covariances(values, s)
        b, w = cov["site"] + cov["group"], cov["within"]
        gain = np.linalg.solve(b[1:, 1:] + w[1:, 1:] / 2000, b[1:]).T
        h, left = gain @ (f.mean(axis=0) - m[1:]), b - gain @ b[1:]
        c = np.linalg.solve(w[1:, 1:], w[1:, 0])
        a = np.r_[1.0, -c]
        agree(mean[s], m[0] + h[0] + (f - m[1:] - h[1:]) @ c)
        agree(variance[s], w[0, 0] - w[0, 1:] @ c + a @ left @ a)


@pytest.mark.parametrize("group", ["g1", "g9"])
@pytest.mark.parametrize("i", range(4))
def test_one_row_alone_is_what_row_by_row_says(train, group, i):
    new = table(F[i : i + 1], ["new"], [group])
    for one, other in zip(by_draw(P3, parameters(), train, new), by_draw(P1, parameters(), train, new)):
        agree(one, other, rel=1e-12)


def test_rows_without_members_change_nothing_for_the_others(train):
    new = table(F, ["new"] * len(F), ["g1"] * len(F))
    some = np.isfinite(F).any(axis=1)
    for with_them, without in zip(
        by_draw(P3, parameters(), train, new), by_draw(P3, parameters(), train, new.select(rows=some))
    ):
        np.testing.assert_array_equal(with_them[:, some], without)


def test_the_transform_is_that_of_the_fit(train):
    """On the scale of the logarithm a table of exp(f) is what f is without a transform."""
    log = replace(P3, transform="log")
    raised = Ensemble(train.dataset.assign(prediction=np.exp(train.dataset["prediction"]),
                                           observation=np.exp(train.dataset["observation"])))  # fmt: skip
    found = by_draw(log, parameters(), raised, table(np.exp(F), ["new"] * len(F), ["g1"] * len(F)))
    for one, other in zip(found, by_draw(P3, parameters(), train, table(F, ["new"] * len(F), ["g1"] * len(F)))):
        agree(one, other)


def test_without_history_the_drawn_group_effect_is_the_groups(train):
    """Given the group's effect and no site's, rows of the new site are conditioned about that effect."""
    values = parameters()
    drawn = P3.complete(posterior_of(values, P3, train), train, np.random.default_rng(4))
    mixture = P3.predictive(drawn, table(F, ["new"] * len(F), ["g1"] * len(F)))
    variance = np.full((DRAWS, len(F)), NONE)
    for block in mixture.blocks():
        variance[:, block.rows] = block.variance
    off = {name: v for name, v in values.items() if "_group" not in name}
    agree(variance, [[exact(off, s, train, F, "g1", i)[1] for i in range(len(F))] for s in range(DRAWS)])


def test_the_covariance_of_a_site_is_symmetric_and_positive_however_many_rows():
    """A covariance of rank one, and rows enough to leave nothing open of what it says."""
    line = np.array([1.0, 0.5, 2.0])
    prior, within = np.outer(line, line)[None], np.diag([1.0, 1e-4, 1e-4])[None]
    cell = inside(within, np.array([1, 2])).precision, 10**6, np.array([0.0, 1.0, 4.0])
    mean, left = given_members(np.zeros((1, 3)), root(prior), [cell])
    agree(mean[0], 2.0 * line, rel=1e-7)
    agree(left, left.swapaxes(1, 2), rel=1e-20)
    assert 0.0 < left[0, 0, 0] == pytest.approx(1.0 / (1.0 + 10**10 * (0.25 + 4.0)), rel=1e-9)


# ---------------------------------------------------------------------------------------------------- which rows it is of
def mixed():
    """Two new sites of a known group, one of a new group, a known site, and rows without a label."""
    rng = np.random.default_rng(5)
    site = np.array(["n1", "n2", "s2", "", "n1", "n3", "n2", "n1", "", "s2", "n3", "n2"])
    where = {"n1": "g1", "n2": "g1", "s2": "g1", "": "g2", "n3": "g7"}
    f = rng.normal(1.5, 1.0, (12, 3))
    f[[0, 4, 6], [1, 0, 2]] = NONE
    y = np.where(np.arange(12) % 3 == 1, NONE, rng.normal(1.5, 1.0, 12))
    return table(f, site, [where[s] for s in site], y)


def test_known_sites_and_rows_without_a_label_stay_row_by_row(train):
    new = mixed()
    site = new.labels("site")
    same = np.isin(site, ["s2", ""])
    for one, other in zip(by_draw(P3, parameters(), train, new), by_draw(P1, parameters(), train, new)):
        np.testing.assert_array_equal(one[:, same], other[:, same])
        assert np.all(one[:, ~same] != other[:, ~same])


def test_a_table_without_site_labels_is_row_by_row(train):
    new = Ensemble(mixed().dataset.drop_vars("site"))
    for one, other in zip(by_draw(P3, parameters(), train, new), by_draw(P1, parameters(), train, new)):
        np.testing.assert_array_equal(one, other)


def test_every_site_is_taken_alone(train):
    """Two new sites in one group share its effect, and neither tells of it to the other."""
    new = mixed()
    together = by_draw(P3, parameters(), train, new)
    for name in ("n1", "n2", "n3"):
        own = new.labels("site") == name
        for one, other in zip(together, by_draw(P3, parameters(), train, new.select(rows=own))):
            agree(one[:, own], other, rel=1e-13)


def test_a_new_site_has_the_known_group_of_any_of_its_rows(train):
    rows, found = ["new"] * len(F), by_draw(P3, parameters(), train, table(F, ["new"] * len(F), ["g2"] * len(F)))
    for said in (["", "g2"] * 4, ["g2"] + [""] * 7):
        for one, other in zip(found, by_draw(P3, parameters(), train, table(F, rows, said))):
            np.testing.assert_array_equal(one, other)


def test_neither_the_order_of_rows_nor_the_parts_of_a_table_matter(train):
    new = mixed()
    order = np.random.default_rng(6).permutation(new.n_obs)
    for one, other in zip(
        by_draw(P3, parameters(), train, new), by_draw(P3, parameters(), train, new.select(rows=order))
    ):
        agree(one[:, order], other, rel=1e-13)
    mixture = P3.predictive(posterior_of(parameters(), P3, train), new, P3.history(train))
    whole = mixture.matched()
    for size in (1, 5):
        seen = np.zeros(new.n_obs, dtype=int)
        for rows, part in mixture.matched_parts(size):
            seen[rows] += 1
            agree(part.mean(), whole.mean()[rows], rel=1e-13)
            agree(part.variance(), whole.variance()[rows], rel=1e-13)
        assert np.all(seen == 1)


# ------------------------------------------------------------------------------------------- predict, score, distribution
def tree_of(model, train):
    out = xr.DataTree.from_dict(
        {"posterior": posterior_of(parameters(), model, train), "history": model.history(train)}
    )
    out.attrs = _describe(model, train)
    return out


def test_scores_are_of_what_was_predicted_though_some_rows_have_no_observation(train):
    """Rows without an observation are not scored, but their members tell of the site."""
    tree, new = tree_of(P3, train), mixed()
    y, there = new.observation, new.observed
    found = be.score(tree, new)
    predicted = be.predict(tree, new).isel(obs=np.flatnonzero(there))
    np.testing.assert_array_equal(found["obs"], np.flatnonzero(there))
    np.testing.assert_array_equal(found["site"], predicted["site"])
    agree(found["error"], predicted["mean"].values - y[there], rel=1e-13)
    mean, variance = by_draw(P3, parameters(), train, new)
    density = np.exp(-0.5 * (y - mean) ** 2 / variance) / np.sqrt(2.0 * np.pi * variance)
    agree(found["log_score"], -np.log(density.mean(axis=0))[there], rel=1e-12)
    wanted = distribution(tree, new, rows=there)
    agree(wanted.mean(), predicted["mean"], rel=1e-13)
    agree(wanted.crps(y[there]), found["crps"], rel=1e-12)
    alone = be.score(tree, new.select(rows=there))
    fewer = np.isin(found["site"], ["n1", "n2", "n3"])
    assert np.all(np.abs(alone["error"].values - found["error"].values)[fewer] > 1e-6)


def test_row_by_row_nothing_depends_on_the_rows_that_are_left_out(train):
    tree, new = tree_of(P1, train), mixed()
    there = new.observed
    alone, found = distribution(tree, new.select(rows=there)), distribution(tree, new, rows=there)
    np.testing.assert_array_equal(alone.mean(), found.mean())
    np.testing.assert_array_equal(alone.variance(), found.variance())


def test_draws_have_the_moments_that_are_predicted(train):
    """40,000 draws of eight rows at a site; five standard errors each (a correct program fails below 1e-4)."""
    tree, new = tree_of(P3, train), table(F, ["new"] * len(F), ["g1"] * len(F))
    drawn, wanted = be.draw(tree, new, size=40_000, random_seed=1), be.predict(tree, new)
    assert np.all(np.abs(drawn.mean("sample") - wanted["mean"]) < 5.0 * wanted["sd"] / np.sqrt(40_000))
    kurtosis = ((drawn - drawn.mean("sample")) ** 4).mean("sample") / drawn.var("sample") ** 2
    error = wanted["sd"] ** 2 * np.sqrt((kurtosis - 1.0) / 40_000)
    assert np.all(np.abs(drawn.var("sample") - wanted["sd"] ** 2) < 5.0 * error)


@pytest.mark.parametrize("rows", [[0, 1], [True, False], np.ones((12, 1), dtype=bool)])
def test_rows_that_are_no_mask_are_an_error(train, rows):
    with pytest.raises(
        ValueError, match=r"rows must be True or False for each of the 12 rows, such as table\.observed; got"
    ):
        distribution(tree_of(P3, train), mixed(), rows=rows)


# ------------------------------------------------------------------------------------------------------------- the option
def test_the_option_survives_json_and_a_file(train, tmp_path):
    text = json.dumps(options_to_json(P3))
    assert options_from_json(be.HBM, json.loads(text)) == P3
    tree = tree_of(P3, train)
    tree.to_netcdf(tmp_path / "fit.nc", engine="h5netcdf")
    agree(be.predict(be.read_fit(tmp_path / "fit.nc"), mixed())["mean"], be.predict(tree, mixed())["mean"], rel=1e-15)


def test_a_fit_from_before_the_option_is_predicted_row_by_row(train):
    tree = tree_of(P1, train)
    options = json.loads(tree.attrs["bayesens_options"])
    assert options.pop("series") is False
    tree.attrs["bayesens_options"] = json.dumps(options)
    np.testing.assert_array_equal(be.predict(tree, mixed())["mean"], be.predict(tree_of(P1, train), mixed())["mean"])


@pytest.mark.parametrize("value", [None, 1, "yes"])
def test_another_value_than_true_or_false_is_an_error(value):
    with pytest.raises(TypeError, match=r"HBM\(series=...\) is True or False; got"):
        be.HBM(series=value)


def test_a_series_needs_the_level_of_sites(train):
    text = "needs the site level, which is off: site=False, or fewer than two site labels.* Set series=False"
    with pytest.raises(ValueError, match=text):
        be.HBM(series=True, site=False).resolve(train)
    with pytest.raises(ValueError, match=text):
        be.HBM(series=True).resolve(train.select(rows=train.labels("site") == "s3"))
    assert be.HBM(series=True).resolve(train).site is True
