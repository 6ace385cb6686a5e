"""Curves of distances show the numbers that were given."""

import matplotlib as mpl
import numpy as np
import pytest
import xarray as xr

mpl.use("Agg")
from matplotlib import pyplot as plt

import bayesens as be
from bayesens import plots


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def distances(rng):
    values = {
        "station_to_station": ("station", rng.exponential(1, 9)),
        "held_out_to_training": ("station", rng.exponential(5, 9)),
        "map_to_station": ("cell", rng.exponential(6, 50), {"units": "km"}),
        "wasserstein": ("distances", [5.0, 1.0]),
    }
    return xr.Dataset(values, {"distances": ["station_to_station", "held_out_to_training"]})


def test_the_curves_of_distances_are_their_cumulative_shares():
    given = distances(np.random.default_rng(1))
    ax = plots.fold_distances(given)
    lines = {line.get_label(): line for line in ax.get_lines()}
    assert list(lines) == ["map to stations", "held-out to training stations, W 1", "station to station, W 5"]
    assert len({(line.get_color(), line.get_linestyle()) for line in lines.values()}) == 3
    assert ax.get_xlabel() == "Distance to the nearest [km]"
    x, y = lines["map to stations"].get_data()
    for at in (0.5, 3.0, 11.0):
        share = y[np.searchsorted(x, at, side="right") - 1]
        assert share == pytest.approx((given["map_to_station"].values <= at).mean())
    assert all(line.get_ydata()[-1] == 1.0 for line in lines.values())


def test_what_has_no_distances_is_refused():
    with pytest.raises(TypeError, match=r"wanted what be\.fold_distances"):
        plots.fold_distances(xr.Dataset({"crps": 1.0}))


def test_a_profile_is_drawn_from_zero_to_the_largest_index():
    profile = be.error_profile(np.linspace(1, 3, 60), np.linspace(0.1, 0.9, 60), site=np.arange(60) % 6, bins=4, replicates=20,
                               random_seed=1)  # fmt: skip
    ax = plots.error_profile(profile)
    curve, means, edge = ax.get_lines()
    assert curve.get_xdata()[[0, -1]].tolist() == [0.0, 0.9]
    assert curve.get_ydata()[1:-1].tolist() == profile.expected.tolist()
    assert means.get_ydata().tolist() == profile.observed.tolist()
    assert edge.get_xdata() == [0.9, 0.9]
    assert ax.get_ylim()[1] > profile.high.max()
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [
        "90 % band",
        "profile",
        "rows held out (means)",
    ]
    with pytest.raises(TypeError, match=r"got a?.*; wanted what be\.error_profile"):
        plots.error_profile({"a": 1})
