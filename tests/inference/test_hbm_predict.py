"""Predictions of HBM against brute-force conditioning, labels that the fit has not seen, and fits read back from files."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from regressions import JOINT, MEMBERS
from scipy.stats import norm

import bayesens as be
from bayesens import simulate
from bayesens.ensemble.ensemble import Ensemble
from bayesens.inference.fit import _describe
from bayesens.inference.fit_tree import log_likelihood_of

# ----------------------------------------------------------------------- HBM at fixed parameters, against brute force
PARAMETERS = {
    "truth_mean": 1.3, "truth_sd": 1.0, "truth_site_sd": 0.8, "truth_group_sd": 0.6,
    "bias": [0.4, -0.2, 0.1], "slope": [0.8, 0.6, 1.0], "slope_site": [0.9, 0.5, 0.8], "slope_group": [0.7, 1.2, 0.4],
    "error_sd": [0.6, 0.4, 0.7], "bias_site_sd": [0.4, 0.3, 0.2], "bias_group_sd": [0.2, 0.3, 0.3],
    "residual_corr": 0.4 * np.eye(3) + 0.6, "bias_site_corr": 0.7 * np.eye(3) + 0.3, "bias_group_corr": np.eye(3),
}  # fmt: skip
CENTER = 1.0
SITE_SIZE = [1, 2, 3, 5, 25]  # of s1..s5; s1 to s3 are in group g1, s4 and s5 in g2


def level(sd, slope, errors, correlation):
    """Covariance of (y, f) at one level."""
    loading = np.r_[1.0, PARAMETERS[slope]]
    out = PARAMETERS[sd] ** 2 * np.outer(loading, loading)
    out[1:, 1:] += np.outer(PARAMETERS[errors], PARAMETERS[errors]) * PARAMETERS[correlation]
    return out


WITHIN = level("truth_sd", "slope", "error_sd", "residual_corr")
SITE = level("truth_site_sd", "slope_site", "bias_site_sd", "bias_site_corr")
GROUP = level("truth_group_sd", "slope_group", "bias_group_sd", "bias_group_corr")
MEAN = np.r_[1.3, CENTER + np.array(PARAMETERS["bias"]) + np.array(PARAMETERS["slope"]) * (1.3 - CENTER)]


@pytest.fixture(scope="module")
def history():
    """Training rows with members missing here and there, drawn from the model."""
    cov = {name: (block - block[0, 0] * np.outer(*[np.r_[1.0, PARAMETERS[slope]]] * 2))[1:, 1:]
           for name, block, slope in (("error_cov", WITHIN, "slope"), ("bias_site_cov", SITE, "slope_site"),
                                      ("bias_group_cov", GROUP, "slope_group"))}  # fmt: skip
    names = ("truth_mean", "truth_sd", "truth_site_sd", "truth_group_sd", "bias", "slope", "slope_site", "slope_group")
    values = {name: PARAMETERS[name] for name in names}
    frame = simulate.hbm(
        n_sites=[3, 2], n_groups=2, n_times=SITE_SIZE, center=CENTER, **values, **cov, random_seed=3
    ).frame
    frame = simulate.with_missing(frame, MEMBERS, 0.15, random_seed=4)
    frame.loc[frame.site == "s3", "m2"] = np.nan
    return Ensemble.from_frame(frame, members=MEMBERS, observation="y", site="site", group="group", time="time")


HBM = be.HBM(center=CENTER, unit=1.0, group=True, site=True)


def posterior_of(history, draws, rng, model=HBM, names=tuple(PARAMETERS)):
    """The same parameters many times, with effects drawn for each."""
    variables = {}
    for name in names:
        value = np.asarray(PARAMETERS[name], float)
        dims = ("chain", "draw", "member", "member_")[: 2 + value.ndim]
        variables[name] = (dims, np.broadcast_to(value, (1, draws, *value.shape)))
    posterior = xr.Dataset(variables, {"member": MEMBERS})
    return model.complete(posterior.assign_coords(model.coordinates(history)), history, rng)


@pytest.fixture(scope="module")
def posterior(history):
    return posterior_of(history, 20_000, np.random.default_rng(5))


def new_rows(site, group):
    """Rows to predict at one site: all members, two, one and none."""
    f = np.array([[1.4, 1.2, 2.0], [3.0, np.nan, 2.5], [np.nan, -0.5, np.nan], [np.nan, np.nan, np.nan]])
    label = {"site": ("obs", np.full(4, site)), "group": ("obs", np.full(4, group))}
    return Ensemble(xr.Dataset({"prediction": (("obs", "member"), f)}, {"member": MEMBERS, **label}))


def exact(history, f, site, group, off=None):
    """Mean and variance of y given its members and all training rows, from the joint normal of everything."""
    z = np.vstack([np.column_stack([history.observation, history.prediction]), np.r_[0.0, f]])
    row, column = np.nonzero(np.isfinite(z))
    site = np.append(history.labels("site"), site)[row]
    group = np.append(history.labels("group"), group)[row]
    pick = np.ix_(column, column)
    total = np.equal.outer(row, row) * WITHIN[pick]
    total += (off != "site") * np.equal.outer(site, site) * SITE[pick]
    total += (off != "group") * np.equal.outer(group, group) * GROUP[pick]
    target = np.nonzero((row == len(z) - 1) & (column == 0))[0][0]
    given = np.arange(len(row)) != target
    gain = np.linalg.solve(total[np.ix_(given, given)], total[given, target])
    mean = MEAN[0] + gain @ (z[row, column] - MEAN[column])[given]
    return mean, total[target, target] - gain @ total[given, target]


def test_new_site_in_a_new_group_is_the_regression_of_all_levels(history, posterior):
    new = new_rows("s9", "g9")
    m = HBM.predictive(posterior.isel(draw=slice(0, 3)), new).moments()
    for i, f in enumerate(new.prediction):
        mean, variance = exact(history, f, "s9", "g9")
        assert (m.mean[i], m.variance[i]) == pytest.approx((mean, variance), rel=1e-10)
    assert m.mean[3] == pytest.approx(1.3, rel=1e-12)
    assert m.variance[3] == pytest.approx(1.0**2 + 0.8**2 + 0.6**2, rel=1e-12)


@pytest.mark.parametrize(("site", "group"), [
    ("s9", "g1"), ("s9", "g2"), ("s1", "g1"), ("s2", "g1"), ("s3", "g1"), ("s4", "g2"), ("s5", "g2"),
])  # fmt: skip
def test_prediction_is_exact_conditioning_on_the_history_and_on_the_members(history, posterior, site, group):
    """A known group, and known sites with one to 25 rows."""
    m = HBM.predictive(posterior.isel(draw=slice(0, 3)), new_rows(site, group), HBM.history(history)).moments()
    for i, f in enumerate(new_rows(site, group).prediction):
        assert (m.mean[i], m.variance[i]) == pytest.approx(exact(history, f, site, group), rel=1e-9)


@pytest.mark.parametrize("levels", [("group",), ("site",)])
def test_prediction_is_exact_with_one_level(history, levels):
    """With the group's or the site's effects alone; the exact answer has the other covariance at zero."""
    model = replace(HBM, group="group" in levels, site="site" in levels)
    names = [n for n in PARAMETERS if not any(f"_{level}" in n for level in {"group", "site"} - set(levels))]
    one = posterior_of(history, 2, np.random.default_rng(5), model, names)
    off = "site" if levels == ("group",) else "group"
    for site, group in (("s2", "g1"), ("s4", "g2"), ("s9", "g9")):
        m = model.predictive(one, new_rows(site, group), model.history(history)).moments()
        for i, f in enumerate(new_rows(site, group).prediction):
            wanted = exact(history, f, site, group, off=off)
            assert (m.mean[i], m.variance[i]) == pytest.approx(wanted, rel=1e-9)


def test_a_fit_without_its_history_is_refused(hbm_tree):
    """The drawn effects alone would give another prediction, in silence."""
    assert np.all(np.isfinite(be.predict(hbm_tree, new_rows("s2", "g1"))["mean"]))
    with pytest.raises(
        ValueError, match=r"no group 'history', which predictions at known sites and groups need.*fit again"
    ):
        be.predict(hbm_tree.drop_nodes("history"), new_rows("s2", "g1"))


def test_drawn_effects_give_the_density_of_a_row_left_out(history, posterior):
    """1 / mean(1 / p(y_i | f_i, effects)) over effects given all rows is p(y_i | f_i, all other rows), as LOO takes it.

    20,000 draws; within five Monte Carlo errors of the mean of the ratios at the ten rows where these vary least (of ten
    right ones a correct program has one outside with probability below 1e-5).
    """
    ratio = np.exp(-log_likelihood_of(HBM, posterior, history).values[0])
    error = ratio.std(axis=0) / ratio.mean(axis=0) / np.sqrt(len(ratio))
    for i in np.argsort(error)[:10]:
        rest = history.select(rows=np.delete(np.arange(history.n_obs), i))
        f, y = history.prediction[i], history.observation[i]
        mean, variance = exact(rest, f, history.labels("site")[i], history.labels("group")[i])
        assert abs(-np.log(ratio[:, i].mean()) - norm.logpdf(y, mean, np.sqrt(variance))) < 5.0 * error[i]


def test_a_row_without_members_has_the_climatology_of_its_site(history, posterior):
    m = HBM.predictive(posterior.isel(draw=[0]), new_rows("s5", "g2"), HBM.history(history)).moments()
    effect = (posterior["truth_group"].sel(group="g2") + posterior["truth_site"].sel(site="s5")).values.ravel()
    assert m.mean[3] == pytest.approx(1.3 + effect.mean(), abs=5.0 * effect.std() / np.sqrt(effect.size))
    assert m.variance[3] == pytest.approx(1.0 + effect.var(), abs=5.0 * effect.var() * np.sqrt(2.0 / effect.size))


def test_a_known_site_keeps_its_group_whatever_the_table_says(history, posterior):
    few = posterior.isel(draw=slice(0, 3))
    said, left_out, right = (
        HBM.predictive(few, new_rows("s4", g), HBM.history(history)).moments().mean for g in ("g1", "", "g2")
    )
    np.testing.assert_array_equal(said, right)
    np.testing.assert_array_equal(left_out, right)


def test_effects_come_back_under_the_labels_of_their_sites_and_groups(history):
    """With thousands of rows a site, its drawn effect is its own mean, so labels cannot be mixed up unseen."""
    rng = np.random.default_rng(6)
    label = np.repeat(["s5", "s1", "s4", "s2", "s3"], 4000)
    group = np.where(np.isin(label, ["s4", "s5"]), "g2", "g1")
    shift = {"s1": -4.0, "s2": -2.0, "s3": 0.0, "s4": 2.0, "s5": 4.0}
    y = np.array([shift[s] for s in label]) + rng.normal(size=len(label))
    frame = pd.DataFrame({"y": y, "s": label, "g": group} | {m: y + rng.normal(size=len(label)) for m in MEMBERS})
    ens = Ensemble.from_frame(frame, members=MEMBERS, observation="y", site="s", group="g")
    out = posterior_of(ens, 50, rng)
    site_group = {"s1": "g1", "s2": "g1", "s3": "g1", "s4": "g2", "s5": "g2"}
    for s, mean in shift.items():
        total = out["truth_mean"] + out["truth_site"].sel(site=s) + out["truth_group"].sel(group=site_group[s])
        np.testing.assert_allclose(total, mean, atol=0.15)


# -------------------------------------------------------------------------------------------- levels, and fits on disk
@pytest.fixture(scope="module")
def hbm_tree(history, posterior):
    """A fit of HBM as a tree, from the draws above."""
    groups = {"posterior": posterior.isel(draw=slice(0, 200)), "history": HBM.history(history)}
    tree = xr.DataTree.from_dict(groups)
    tree.attrs = _describe(HBM, history)
    return tree


def labelled(site, group):
    frame = pd.DataFrame(
        {"m1": [1.0, 2.0, 3.0], "m2": [1.5, 2.0, np.nan], "m3": [1.0, 1.0, 2.0], "s": site, "g": group}
    )
    return Ensemble.from_frame(frame, members=MEMBERS, site="s", group="g")


def test_sites_and_groups_never_seen_are_counted_in_a_warning(hbm_tree):
    with pytest.warns(UserWarning, match="has not seen") as caught:
        be.predict(hbm_tree, labelled(["s1", "x", "z"], ["g1", "g2", "g7"]))
    text = [str(w.message) for w in caught]
    assert len(text) == 2
    assert any(
        "1 of 3 rows are at a group that the fit has not seen ('g7'): they are predicted as a new group" in t
        for t in text
    )
    assert any(
        "2 of 3 rows are at a site that the fit has not seen ('x', 'z'): they are predicted as a new site" in t
        for t in text
    )


def test_known_sites_and_groups_do_not_warn(hbm_tree, recwarn):
    be.predict(hbm_tree, labelled(["s1", "s2", "s5"], ["g1", "g1", "g2"]))
    assert not recwarn.list


def test_a_known_site_without_a_group_label_is_not_called_a_new_group(hbm_tree, recwarn):
    be.predict(hbm_tree, labelled(["s1", "s2", "s5"], [None, "g1", "g2"]))
    assert not [w for w in recwarn.list if "group that the fit has not seen" in str(w.message)]


def test_a_table_without_labels_is_predicted_as_new_everywhere(hbm_tree):
    table = labelled(["s1"] * 3, ["g1"] * 3)
    with pytest.warns(UserWarning, match="3 of 3 rows are at a .* that the fit has not seen"):
        out = be.predict(hbm_tree, Ensemble(table.dataset.drop_vars(["site", "group"])))
    with pytest.warns(UserWarning, match="not seen"):
        new = be.predict(hbm_tree, labelled(["n1", "n2", "n3"], ["n"] * 3))
    np.testing.assert_array_equal(out["mean"], new["mean"])


READ = """
import sys, warnings
import numpy as np, pandas as pd, xarray as xr
import bayesens as be
warnings.simplefilter("ignore")
fit, table, out = sys.argv[1:]
tree = xr.open_datatree(fit, engine="h5netcdf")
frame = pd.read_parquet(table)
new = be.Ensemble.from_frame(frame, members=["m1", "m2", "m3"], observation="y", site="s", group="g", time="t")
predicted, scored = be.predict(tree, new), be.score(tree, new)
np.savez(out, mean=predicted["mean"], sd=predicted["sd"], quantile=predicted["quantile_value"], crps=scored["crps"],
         log_score=scored["log_score"], draw=be.draw(be.read_fit(fit), new, size=20, random_seed=1),
         site=predicted["site"].values, time=predicted["time"].values, pymc=np.array("pymc" in sys.modules))
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["HBM", "BMA"])
def test_a_saved_fit_gives_the_same_numbers_in_a_new_process(hbm_tree, kind, tmp_path):
    frame = pd.DataFrame({
        "m1": [1.0, 2.0, 3.0, 2.5, 0.3], "m2": [1.5, 2.0, np.nan, 2.2, 0.1], "m3": [1.0, 1.2, 2.0, 2.6, 0.4],
        "y": [1.1, 2.1, np.nan, 2.4, 0.2], "s": pd.Categorical(["s1", "s2", "new", None, "s1"]),
        "g": ["g1", "g1", None, "g2", "g1"], "t": pd.date_range("2020-02-28", periods=5),
    })  # fmt: skip
    new = Ensemble.from_frame(frame, members=MEMBERS, observation="y", site="s", group="g", time="t")
    tree = hbm_tree if kind == "HBM" else be.fit(be.BMA(**JOINT, bias="none", sigma="shared"), new, method="em")
    tree.to_netcdf(tmp_path / "fit.nc", engine="h5netcdf")
    frame.to_parquet(tmp_path / "table.parquet")
    paths = [str(tmp_path / name) for name in ("fit.nc", "table.parquet", "out.npz")]
    subprocess.run([sys.executable, "-c", READ, *paths], check=True)
    got = np.load(paths[2])
    if kind == "HBM":
        with pytest.warns(UserWarning, match="not seen"):
            predicted, scored, drawn = (
                be.predict(tree, new),
                be.score(tree, new),
                be.draw(tree, new, size=20, random_seed=1),
            )
    else:
        predicted, scored, drawn = (
            be.predict(tree, new),
            be.score(tree, new),
            be.draw(tree, new, size=20, random_seed=1),
        )
    here = {"mean": predicted["mean"], "sd": predicted["sd"], "quantile": predicted["quantile_value"],
            "crps": scored["crps"], "log_score": scored["log_score"], "draw": drawn}  # fmt: skip
    for name, values in here.items():
        assert np.all(np.isfinite(values))
        np.testing.assert_array_equal(got[name], values, err_msg=name)
    assert got["site"].tolist() == ["s1", "s2", "new", "", "s1"]
    np.testing.assert_array_equal(got["time"], frame["t"].to_numpy().astype("datetime64[ns]"))
    assert not got["pymc"]  # describing and predicting never import PyMC


def test_labels_of_a_fit_survive_the_file(tmp_path):
    """Text with accents, a category, a date and a missing label."""
    rng = np.random.default_rng(7)
    y = rng.normal(size=40)
    frame = pd.DataFrame({"y": y, "m1": y + rng.normal(size=40), "m2": y + rng.normal(size=40)})
    frame["s"] = pd.Categorical(np.resize(["Sø", "weiß", "a b"], 40)).set_categories(["a b", "Sø", "weiß", "unused"])
    frame.loc[3, "s"] = None
    frame["g"] = frame["s"].astype("string").map({"Sø": "north", "weiß": "south", "a b": "south"})
    frame["t"] = pd.date_range("2021-01-01 06:00", periods=40, freq="D")
    ens = Ensemble.from_frame(frame, members=["m1", "m2"], observation="y", site="s", group="g", time="t")
    tree = be.fit(be.BMA(**JOINT), ens, method="em")
    tree.to_netcdf(tmp_path / "fit.nc", engine="h5netcdf")
    again = be.read_fit(tmp_path / "fit.nc")
    for name in ("site", "group", "time"):
        np.testing.assert_array_equal(again["constant_data"][name].values, tree["constant_data"][name].values)
    assert again["constant_data"]["site"].values[:4].tolist() == ["Sø", "weiß", "a b", ""]
    assert again["constant_data"]["time"].values[0] == np.datetime64("2021-01-01T06:00")
    assert dict(again.attrs) == dict(tree.attrs)
    xr.testing.assert_identical(again["posterior"].to_dataset(), tree["posterior"].to_dataset())
