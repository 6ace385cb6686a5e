"""Predictions under other levels against numerical integration of the recalibrated density."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import ndtr, ndtri

import bayesens as be
from bayesens.inference.predict import distribution

NARROW = be.Recalibration("beta", (0.6, 0.8))
BENT = be.Recalibration("isotonic", tuple(ndtr(0.7 * np.linspace(-3.5, 3.5, 29) + 0.2)))
LEVELS = [0.95, 0.05, 0.5]


def fitted(model, shift=0.0):
    rng = np.random.default_rng(1)
    truth = rng.gamma(2.0, 1.0, 200) + shift
    frame = pd.DataFrame({name: np.abs(truth + sd * rng.normal(size=200)) for name, sd in (("a", 0.4), ("b", 0.7))})
    ensemble = be.Ensemble.from_frame(frame.assign(y=truth), members=["a", "b"], observation="y")
    return be.fit(model, ensemble, method="em"), ensemble.select(rows=np.arange(200) < 6)


@pytest.mark.parametrize("made", [NARROW, BENT])
@pytest.mark.parametrize("transform", ["identity", "log"])
def test_mean_sd_and_quantiles_are_those_of_the_recalibrated_law(made, transform):
    tree, new = fitted(be.BMA(transform=transform), shift=1.0)
    said, law = be.predict(tree, new, quantiles=LEVELS, recalibration=made), distribution(tree, new)
    x = np.linspace(-20.0 if transform == "identity" else 1e-9, 60.0, 200_001)
    for i in range(6):
        level = made.cdf(law[i].cdf(x))
        mass, middle = np.diff(level), 0.5 * (x[1:] + x[:-1])
        mean = mass @ middle
        sd = np.sqrt(mass @ (middle - mean) ** 2)
        assert_allclose(
            said["mean"][i], mean, atol=0.005 * sd
        )  # where two members stand apart, quantiles leap between levels
        assert_allclose(said["sd"][i], sd, rtol=5e-3)
        assert_allclose(np.interp(said["quantile_value"][i], x, level), LEVELS, atol=1e-4)
    assert set(said.data_vars) == {"mean", "sd", "quantile_value"}
    assert be.Recalibration.from_json(said.attrs["bayesens_recalibration"]) == made


def test_the_identity_changes_nothing():
    tree, new = fitted(be.BMA())
    same, plain = (be.predict(tree, new, recalibration=each) for each in (be.Recalibration("beta", (1.0, 1.0)), None))
    assert_allclose(same["quantile_value"], plain["quantile_value"], rtol=1e-9)
    assert np.all(np.abs(same["mean"] - plain["mean"]) < 0.005 * plain["sd"])
    assert_allclose(same["sd"], plain["sd"], rtol=5e-3)  # quantiles come from few components that match all draws
    assert "sd_within" in plain
    assert "bayesens_recalibration" not in plain.attrs


def test_a_point_mass_at_zero_is_recalibrated_too():
    tree, new = fitted(be.BMA(transform="sqrt"))
    said, law = be.predict(tree, new, recalibration=NARROW), distribution(tree, new)
    assert_allclose(said["mass_at_zero"], NARROW.cdf(law.mass_at_zero()))


def test_a_grid_is_refused_with_what_to_do_and_that_is_right():
    tree, new = fitted(be.BMA())
    grid = new.dataset["prediction"].rename(obs="cell").reset_coords(drop=True)
    with pytest.raises(TypeError, match=r"tables, and got a grid.*quantiles=recalibration.quantile\(\[0.05"):
        be.predict(tree, grid, recalibration=NARROW)
    cells = be.predict(tree, grid, quantiles=NARROW.quantile([0.05, 0.5, 0.95]))["quantile_value"]
    rows = be.predict(tree, new, quantiles=[0.05, 0.5, 0.95], recalibration=NARROW)["quantile_value"]
    assert_allclose(cells.transpose("cell", "quantile"), rows, rtol=1e-6)


def test_what_is_no_recalibration_is_refused():
    tree, new = fitted(be.BMA())
    with pytest.raises(
        TypeError, match=r"recalibration is a str; wanted a be.Recalibration, which be.recalibrate makes"
    ):
        be.predict(tree, new, recalibration="beta")
    with pytest.raises(TypeError, match="'below' for grids alone"):
        be.predict(tree, new, recalibration=NARROW, below=1.0)


def test_a_map_from_scores_of_held_out_rows_mends_intervals():
    """A normal fitted to half of the table, of which the other half's errors are twice as wide."""
    rng = np.random.default_rng(2)
    truth = rng.normal(size=4000)
    error = np.where(np.arange(4000) < 1000, 0.5, 1.0) * rng.normal(size=4000)
    frame = pd.DataFrame({"a": truth + error, "y": truth, "s": np.arange(4000) % 50})
    ensemble = be.Ensemble.from_frame(frame, members=["a"], observation="y", site="s")
    parts = [
        ensemble.select(rows=(np.arange(4000) >= low) & (np.arange(4000) < high))
        for low, high in ((0, 1000), (1000, 2500), (2500, 4000))
    ]
    tree = be.fit(be.SingleMember(bias="none"), parts[0], method="em")
    made = be.recalibrate(be.score(tree, parts[1])["pit"])
    said = be.predict(tree, parts[2], quantiles=[0.05, 0.95], recalibration=made)["quantile_value"].values
    y = parts[2].require_observation()
    assert abs(np.mean((said[:, 0] < y) & (y < said[:, 1])) - 0.9) < 0.025
    assert_allclose(np.diff(said, axis=1).mean(), 2.0 * ndtri(0.95), rtol=0.07)
    assert_array_equal(made.stations, 50)
