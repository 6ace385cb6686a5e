"""Dependence of members: against numpy, statsmodels and closed forms; intervals against known error correlations."""

import json

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from statsmodels.stats.outliers_influence import variance_inflation_factor

import bayesens as be
from bayesens import simulate
from bayesens.comparison.errors.dependence import dependence
from bayesens.comparison.errors.words import dependence_table, dependence_words

mpl.use("Agg")
K = 4


def frame_of(rho, seed, n_sites=30, n_times=12, members=K):
    """Errors of variance .03 squared, half of it offsets of stations; all parts correlate by rho."""
    matrix, one = rho + (1 - rho) * np.eye(members), np.ones(members)
    half = 0.5 * 0.03**2 * matrix
    return simulate.hbm(
        n_sites=n_sites, n_groups=2, n_times=n_times, truth_mean=0.2, truth_sd=0.05, truth_site_sd=0.04, truth_group_sd=0,
        center=0.2, bias=0.01 * np.arange(members), slope=one, slope_site=one, slope_group=one, error_cov=half,
        bias_site_cov=half, bias_group_cov=0 * matrix, random_seed=seed,
    ).frame  # fmt: skip


def ensemble_of(frame, site="site", group=None, **more):
    members = [name for name in frame if name.startswith("m")]
    return be.Ensemble.from_frame(frame, members=members, observation="y", site=site, group=group, **more)


def notes(found):
    return " ".join(json.loads(found.attrs["notes"]))


def inside(found, name, truth, **at):
    one = found.sel(group="all", **at)
    return float(one[f"{name}_low"]) <= truth <= float(one[f"{name}_high"])


@pytest.mark.slow
@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
def test_intervals_hold_the_error_correlation_and_k_eff(rho):
    """40 simulations at 90 %: 28 hits or fewer have a chance of 0.04 % for each of nine, below 0.4 % in all."""
    hits = {}
    for seed in range(40):
        found = dependence(ensemble_of(frame_of(rho, seed)), replicates=200, random_seed=seed)
        for part in ("total", "within", "between"):
            hits.setdefault(("r", part), []).append(inside(found, "mean_correlation", rho, part=part))
            for kind in ("mean correlation", "least variance over mean member"):
                truth = K / (1 + (K - 1) * rho)
                hits.setdefault((kind, part), []).append(inside(found, "k_eff", truth, part=part, kind=kind))
    assert {key: sum(each) for key, each in hits.items() if sum(each) < 29} == {}


def test_intervals_from_rows_would_fail():
    """The broken twin: every row its own station, where half of the error variance persists at a station."""
    hits = 0  # fewer than 8 of 12 have a chance of 0.04 % where intervals are right; here half of them hold
    for seed in range(12):
        frame = frame_of(0.5, seed, n_sites=10, n_times=30).assign(site=lambda f: [f"r{i}" for i in range(len(f))])
        found = dependence(ensemble_of(frame), replicates=200, random_seed=seed)
        hits += inside(found, "mean_correlation", 0.5, part="total")
    assert hits < 8  # of 12


def test_few_stations():
    """12 stations: t intervals; 40 simulations, 28 hits or fewer have a chance of 0.04 %."""
    hits = 0
    for seed in range(40):
        found = dependence(ensemble_of(frame_of(0.5, seed, n_sites=12)), random_seed=seed)
        hits += inside(found, "mean_correlation", 0.5, part="total")
    assert found["how"].sel(group="all").item() == "t with 11 degrees of freedom, 12 stations"
    assert hits >= 29
    none = dependence(ensemble_of(frame_of(0.5, 1, n_sites=4)))
    assert none["how"].sel(group="all").item() == "none: 4 stations"
    assert np.isnan(none["mean_correlation_low"]).all()


def test_parts_are_those_of_pandas_with_missing_members():
    frame = simulate.with_missing(frame_of(0.5, 3, n_sites=6), ["m1", "m3"], 0.3, random_seed=1)
    found = dependence(ensemble_of(frame), replicates=0).sel(group="all")
    error = frame[["m1", "m2", "m3", "m4"]].sub(frame["y"], axis=0)
    np.testing.assert_allclose(found["error_correlation"].sel(part="total"), error.corr(), atol=1e-12)
    for one in error:
        for other in error:
            pair = error[error[one].notna() & error[other].notna()][list({one, other})]
            site = frame.loc[pair.index, "site"]
            assert found["count"].sel(member=one, member_=other) == len(pair)
            if one != other:
                within = (pair - pair.groupby(site).transform("mean")).corr().to_numpy()[0, 1]
                between = pair.groupby(site).mean().corr().to_numpy()[0, 1]
                at = {"member": one, "member_": other}
                assert float(found["error_correlation"].sel(part="within", **at)) == pytest.approx(within, abs=1e-12)
                assert float(found["error_correlation"].sel(part="between", **at)) == pytest.approx(between, abs=1e-12)
    assert "member values are missing" in found.attrs["notes"]


def test_redundancy_is_that_of_statsmodels_and_of_regressions():
    frame = frame_of(0.7, 5, n_sites=4)  # too few stations to correct for bias
    found = dependence(ensemble_of(frame)).sel(group="all", part="total")
    members = ["m1", "m2", "m3", "m4"]
    error = frame[members].sub(frame["y"], axis=0).to_numpy()
    design = np.column_stack([np.ones(len(error)), error])
    np.testing.assert_allclose(found["vif"], [variance_inflation_factor(design, k) for k in range(1, 5)])

    def rest(columns, target):
        given = np.column_stack([np.ones(len(columns)), columns])
        return target - given @ np.linalg.lstsq(given, target, rcond=None)[0]

    one, two = rest(error[:, 2:], error[:, 0]), rest(error[:, 2:], error[:, 1])
    assert float(found["partial_correlation"][0, 1]) == pytest.approx(np.corrcoef(one, two)[0, 1])
    f, y = frame[members].to_numpy(), frame["y"].to_numpy()
    r = np.corrcoef(rest(f[:, 1:], f[:, 0]), rest(f[:, 1:], y))[0, 1]
    assert float(found["information"][0]) == pytest.approx(-0.5 * np.log(1 - r**2))
    assert float(found["observation_error_bound"]) == pytest.approx(rest(f, y).std())
    covariance = np.cov(error.T)
    gained = np.linalg.inv(covariance).sum()
    variance = np.diag(covariance)
    share = np.linalg.eigvalsh(np.corrcoef(error.T))[::-1] / K
    mean = np.corrcoef(error.T)[np.triu_indices(K, 1)].mean()
    wanted = [K / (1 + 3 * mean), variance.mean() * gained, variance.min() * gained, np.exp(-np.sum(share * np.log(share))),
              1 / np.sum(share**2)]  # fmt: skip
    np.testing.assert_allclose(found["k_eff"], wanted)
    np.testing.assert_allclose(found["eigenvalue"], share)


def test_effective_numbers_are_never_above_the_number_of_members():
    """Errors that cancel: the formula of the mean correlation would give more than 20 of 4."""
    rng = np.random.default_rng(1)
    site, common = np.repeat(np.arange(24), 30), rng.normal(size=(720, 4))
    error = common - 0.9 * common.mean(axis=1, keepdims=True)  # correlations of -.3, least possible -1/3
    frame = pd.DataFrame(0.02 * error, columns=["m1", "m2", "m3", "m4"]).assign(y=0.0, site=site.astype(str))
    found = dependence(ensemble_of(frame), replicates=100, random_seed=1).sel(group="all")
    mean = float(found["mean_correlation"].sel(part="total"))
    assert -1 / 3 < mean < -0.25
    assert K / (1 + (K - 1) * mean) > 20
    for name in ("k_eff", "k_eff_low", "k_eff_high"):
        assert float(found[name].max()) <= K
        assert float(found[name].min()) >= 1
    np.testing.assert_allclose(found["k_eff"].sel(part="total"), K, rtol=1e-12)
    assert np.isnan(found["assumed_k_eff"]).all()
    assert "below zero; it counts as zero in the effective number" in dependence_words(
        dependence(ensemble_of(frame), replicates=0)
    )
    assert found["eigenvalue"].sel(part="total").values[0] < 0.4  # the spectrum itself is that of these correlations


def test_an_assumed_observation_error_has_a_number_where_no_pair_correlates_negatively():
    frame = frame_of(0.5, 1, n_sites=40)
    error = frame[["m1", "m2", "m3", "m4"]].sub(frame["y"], axis=0)
    covariance = np.cov(error.to_numpy().T, bias=True)
    sd = np.sqrt(np.array([0.0, 0.5 * covariance.min(), 1.05 * covariance.min()]))
    found = dependence(ensemble_of(frame), replicates=0, observation_error=sd)
    left = covariance - sd[1] ** 2
    r = left / np.sqrt(np.outer(np.diag(left), np.diag(left)))
    assert float(found["assumed_k_eff"][1]) == pytest.approx(K / (1 + 3 * r[np.triu_indices(K, 1)].mean()))
    assert np.isnan(found["assumed_k_eff"][2])
    assert np.isfinite(found["assumed_correlation"][2]).all()
    words = dependence_words(found)
    assert (
        f"deviation {sd[1]:.3g} (the largest of those tried with which no two members' errors correlate negatively"
        in words
    )


def test_effective_numbers_between_few_sites_are_not_given():
    found = dependence(ensemble_of(frame_of(0.5, 1, n_sites=9)), random_seed=1).sel(group="all")
    assert np.isnan(found["k_eff"].sel(part="between")).all()
    assert np.isfinite(found["k_eff"].sel(part=["total", "within"])).all()
    assert np.isnan(found["k_eff_low"]).all()
    assert np.isfinite(found["mean_correlation_low"]).all()  # nine stations are enough for a correlation
    assert "takes 10 stations, and all has 9: there is none" in notes(found)
    more = dependence(ensemble_of(frame_of(0.5, 1, n_sites=10)), random_seed=1).sel(group="all")
    assert np.isfinite(more["k_eff"]).all()
    assert np.isfinite(more["k_eff_low"].sel(kind="mean correlation")).all()
    assert "takes 10 stations" not in notes(more)


def test_an_observation_error_is_in_all_errors():
    """Without the sensor's error the errors correlate by .2; given its variance, that comes back."""
    frame = frame_of(0.2, 1, n_sites=200, n_times=20)
    noisy = frame.assign(y=frame["y"] + 0.02 * np.random.default_rng(1).standard_normal(len(frame)))
    found = dependence(ensemble_of(noisy), replicates=0, observation_error=[0.0, 0.02, 0.2])
    mean = [float(found["assumed_correlation"].values[i][np.triu_indices(K, 1)].mean()) for i in range(3)]
    assert mean[0] > 0.4  # (.2 * 9 + 4) / (9 + 4) = .45
    assert mean[1] == pytest.approx(0.2, abs=0.05)
    assert np.isnan(mean[2])
    assert "An observation error above" in notes(found)
    largest = dependence(ensemble_of(noisy), replicates=0)["assumed_correlation"].values[-1]
    assert np.linalg.eigvalsh(largest)[0] > -1e-9


def test_groups_clusters_and_a_group_of_one_station():
    frame = frame_of(0.5, 2, n_sites=13)
    frame["net"] = np.where(frame["site"] == "s1", "lone", "rest")
    frame["m5"] = frame["m4"] + 1e-4 * np.random.default_rng(1).standard_normal(len(frame))
    found = dependence(ensemble_of(frame, group="net"), random_seed=1)
    assert found["group"].values.tolist() == ["all", "lone", "rest"]
    assert np.isnan(found["mean_correlation"].sel(group="lone", part="between"))
    assert np.isfinite(found["mean_correlation"].sel(group="lone", part="within"))
    assert "lone has one station" in notes(found)
    assert found["cluster"].values.tolist() == [1, 2, 3, 4, 4]
    by = dependence(ensemble_of(frame), by=frame["net"], random_seed=1)
    xr.testing.assert_identical(by["k_eff"], found["k_eff"])


def test_no_stations_and_constant_errors():
    frame = frame_of(0.5, 2)
    found = dependence(ensemble_of(frame, site=None))
    assert found["part"].values.tolist() == ["total"]
    assert "No stations are given" in dependence_words(found)
    assert np.isnan(found["k_eff_low"]).all()
    constant = dependence(ensemble_of(frame.assign(m2=frame["y"] + 0.1)), replicates=50)
    assert "errors of 'm2' are constant" in notes(constant)
    r = constant["error_correlation"].sel(group="all", part="total")
    assert np.isnan(r.sel(member="m2")).all()
    assert np.isfinite(r.sel(member="m1", member_="m3"))


def test_copies_are_said():
    found = dependence(ensemble_of(frame_of(0.5, 2).assign(m2=lambda f: f["m1"])), replicates=50)
    assert "cannot be inverted" in notes(found)
    assert np.isnan(found["vif"]).all()


def test_posterior_beside():
    ensemble = ensemble_of(frame_of(0.5, 2, n_sites=6))
    names = ["m4", "m3", "m2", "m1"]
    draws = xr.DataArray(np.full((1, 3, K, K), 0.4), dims=["chain", "draw", "member", "member_"],
                         coords={"member": names, "member_": names})  # fmt: skip
    draws.loc[{"member": "m4", "member_": "m1"}] = 0.7
    tree = xr.DataTree.from_dict({"posterior": xr.Dataset({"error_corr": draws})})
    found = dependence(ensemble, posterior=tree)
    assert float(found["posterior_correlation"].sel(member="m4", member_="m1")) == 0.7
    with pytest.raises(ValueError, match=r"no error_corr; wanted a fit of HBM"):
        dependence(ensemble, posterior=xr.Dataset({"weight": 1.0}))
    with pytest.raises(ValueError, match=r"the fit has the members"):
        dependence(ensemble.select(members=["m1", "m2"]), posterior=tree)


def test_table_words_and_figure(tmp_path):
    import matplotlib.pyplot as plt

    from bayesens import plots

    found = dependence(ensemble_of(frame_of(0.5, 2)), replicates=50, random_seed=1)
    table = dependence_table(found)
    line = table.query("measure == 'error_correlation' and part == 'within' and member == 'm1' and other == 'm3'")
    assert line["value"].item() == float(
        found["error_correlation"].sel(group="all", part="within", member="m1", member_="m3")
    )
    assert line["n"].item() == 360
    assert not table.duplicated(["measure", "group", "part", "member", "other", "kind"]).any()
    assert "likelihood has no assumption" in dependence_words(found)
    axes = plots.dependence(found)
    assert len(axes) == 3
    assert len(axes[0].texts) >= 6
    with pytest.raises(ValueError, match=r"no group 'x'"):
        plots.dependence(found, group="x")
    with pytest.raises(ValueError, match=r"got 1 axes; wanted three"):
        plots.dependence(found, axes=[axes[0]])
    plt.close("all")
    found.to_netcdf(tmp_path / "d.nc")


def test_equal_seeds_give_equal_intervals():
    ensemble = ensemble_of(frame_of(0.5, 2))
    xr.testing.assert_identical(*(dependence(ensemble, replicates=50, random_seed=7) for _ in range(2)))


def test_bad_input():
    frame = frame_of(0.5, 1, n_sites=3, n_times=4)
    ensemble = ensemble_of(frame)
    with pytest.raises(ValueError, match=r"one member, 'm1'; dependence takes two or more"):
        dependence(ensemble.select(members=["m1"]))
    with pytest.raises(ValueError, match=r"level of an interval lies inside \(0, 1\)"):
        dependence(ensemble, level=90)
    with pytest.raises(ValueError, match=r"by has 2 labels and the ensemble 12 rows"):
        dependence(ensemble, by=["a", "b"])
    with pytest.raises(ValueError, match=r"label 'all'"):
        dependence(ensemble, by=["all"] * 12)
    with pytest.raises(ValueError, match=r"observation_error holds standard deviations"):
        dependence(ensemble, observation_error=-1)
    with pytest.raises(ValueError, match=r"replicates is -1"):
        dependence(ensemble, replicates=-1)
    with pytest.raises(ValueError, match=r"observation"):
        dependence(be.Ensemble.from_frame(pd.DataFrame(frame[["m1", "m2"]]), members=["m1", "m2"]))
