"""A fit to sufficient statistics of chunks has the posterior and the predictions of the fit to the whole table."""

import warnings

import numpy as np
import pytest
import xarray as xr
from chunk_tables import ensemble, streamed, table

import bayesens as be
from bayesens.inference.log_density import compile_target

JOINT = {"correction": "joint", "group": False, "site": False}  # the mixture of regressions


@pytest.fixture(scope="module")
def both():
    """The same rows in memory and in chunks, and a Laplace fit of each."""
    frame = table()
    model = be.HBM(errors="independent", group=False)
    options = {"method": "laplace", "random_seed": 8, "draws": 200, "progressbar": False}
    whole, parts = ensemble(frame), streamed(frame)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The normal approximation")
        memory = be.fit(model, whole, **options)
        warnings.filterwarnings("error", ".*log_likelihood")
        stream = be.fit(model, parts, **options)
    assert "Sufficient statistics no longer hold the 564 rows" in stream.attrs["no_log_likelihood"]
    return model, whole, parts, memory, stream


def test_the_posterior_is_that_of_the_ensemble(both):
    _, whole, _, memory, stream = both
    assert set(stream["posterior"].data_vars) == set(memory["posterior"].data_vars)
    assert stream["posterior"]["site"].values.tolist() == whole.levels("site").tolist()
    for name, draws in memory["posterior"].data_vars.items():
        mean, sd = draws.mean(("chain", "draw")), draws.std(("chain", "draw"))
        other = stream["posterior"][name]
        assert float((np.abs(other.mean(("chain", "draw")) - mean) / sd.max()).max()) < 0.01
        # The optimiser stops within 1e-7 of the optimum, and proposals come from differences of gradients there: that, and
        # not the sums, is what draws differ by.
        shift = np.abs(other - draws).max([d for d in draws.dims if d not in ("chain", "draw")]) / sd.max()
        assert float((shift < 1e-4).mean()) > 0.99


@pytest.mark.parametrize("options", [{}, {"group": False}, {"site": False}, {"transform": "sqrt"}], ids=str)
def test_the_density_is_that_of_the_ensemble(options):
    """At the same points, to rounding: what all methods sample."""
    frame, model = table(), be.HBM(errors="independent", **options)
    targets = [
        compile_target(model.build(data))
        for data in (ensemble(frame), streamed(frame, transform=options.get("transform", "identity")))
    ]
    x = targets[0].start + 0.3 * np.random.default_rng(6).standard_normal((20, len(targets[0].start)))
    one, two = (target.logp(x) for target in targets)
    np.testing.assert_allclose(two, one, rtol=1e-11)


def test_effects_stand_under_their_labels_where_sites_and_groups_sort_differently():
    """The mean of a site with 50 rows is nearly that of its rows; under another site's label it would not be."""
    frame, model = table(), be.HBM(errors="independent")
    data = streamed(frame)
    model = model.resolve(data)
    target = compile_target(model.build(data))
    posterior = target.expand(np.tile(target.start, (1, 500, 1)))[0].assign_coords(model.coordinates(data))
    out = model.complete(posterior, data, np.random.default_rng(8)).isel(chain=0)
    group = xr.DataArray(frame.groupby("s").g.first().values, dims="site")
    mean = out["truth_mean"] + out["truth_group"].sel(group=group).drop_vars("group") + out["truth_site"]
    wanted = frame.groupby("s").y.mean()
    # Both estimate the same mean from the same 50 rows: within a third of the sd of .5 between sites.
    np.testing.assert_allclose(mean.mean("draw"), wanted[mean["site"].values], atol=0.15)
    history = model.history(data)
    at = history["place"].values
    np.testing.assert_array_equal(history["site_group"].values[at], [int(g[1]) for g in group.values])


def test_a_fit_to_statistics_says_what_it_is_and_what_it_lacks(both):
    _, whole, parts, memory, stream = both
    assert set(memory.children) - set(stream.children) == {"observed_data", "constant_data", "log_likelihood"}
    assert stream.attrs["data_digest"] == parts.digest
    for name in ("n_obs", "columns", "units", "bayesens_members"):
        assert stream.attrs[name] == memory.attrs[name]
    with pytest.raises(ValueError, match="not the one that was fitted"):
        be.add(stream, whole.select(rows=slice(0, 50)), "log_likelihood")


def test_log_likelihood_can_be_added_from_the_rows(both):
    _, whole, _, memory, stream = both
    values = be.add(stream, whole, "log_likelihood")["log_likelihood"]["y"]
    assert values.dims == memory["log_likelihood"]["y"].dims
    np.testing.assert_allclose(values.mean(), memory["log_likelihood"]["y"].mean(), rtol=1e-3)


def test_new_rows_are_predicted_and_scored_also_after_a_file(both, tmp_path):
    _, _, _, memory, stream = both
    new = ensemble(table(80, seed=9))
    stream.to_netcdf(tmp_path / "fit.nc")
    again = be.read_fit(tmp_path / "fit.nc")
    wanted = be.predict(memory, new)
    for tree in (stream, again):
        got = be.predict(tree, new)
        np.testing.assert_allclose(got["mean"], wanted["mean"], rtol=1e-3)
        np.testing.assert_allclose(got["sd"], wanted["sd"], rtol=2e-3)
        assert np.isfinite(be.score(tree, new)["crps"]).all()
    xr.testing.assert_allclose(be.predict(again, new), be.predict(stream, new), rtol=1e-12, atol=1e-12)


def test_models_that_need_the_rows_say_so():
    statistics = streamed(table())
    for model in (
        be.BMA(**JOINT),
        be.EqualWeights(**JOINT),
        be.Climatology(),
    ):
        name = type(model).__name__
        with pytest.raises(TypeError, match=f"{name} needs the rows, .*; use HBM, or an Ensemble"):
            be.fit(model, statistics)
    with pytest.raises(TypeError, match="got the class HBM"):
        be.fit(be.HBM, statistics)
    with pytest.raises(ValueError, match="log_likelihood=True needs the rows"):
        be.fit(be.HBM(), statistics, log_likelihood=True)
    with pytest.raises(ValueError, match="HBM has no fit by EM"):
        be.fit(be.HBM(), statistics, method="em", log_likelihood=False)
    with pytest.raises(
        TypeError, match=r"likelihood='rows' needs the rows, .*; pass an Ensemble, or use likelihood='fused'"
    ):
        be.HBM().build(statistics, likelihood="rows")
