"""The value-suppressing palette: its tree of bins, colours that stay apart, and a wedge that says what the map's colours mean."""

import matplotlib as mpl
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.patches import Wedge

from bayesens import plots
from bayesens.plots.maps.palette import bin_of, layers_of_bins, palette, plain_ends

# Colours as seen without red or green cones: Machado, Oliveira & Fernandes (2009), severity 1, on linear RGB.
PROTAN = [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
DEUTAN = [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def cielab(rgb, seen=None):
    """CIELAB (D65) of sRGB colours, as seen by someone."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    linear = np.clip(linear @ np.transpose(np.eye(3) if seen is None else seen), 0, 1)
    x = linear @ TO_XYZ.T / [0.95047, 1.0, 1.08883]
    f = np.where(x > (6 / 29) ** 3, np.cbrt(x), x / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1)


def wedge_of(ax):
    """The axes of the wedge, beside the map or in the axes of a caller."""
    return ax.child_axes[0] if ax.child_axes else ax.figure.axes[1]


def maps(mean, sd):
    return xr.Dataset({"mean": (("y", "x"), np.atleast_2d(mean)), "sd": (("y", "x"), np.atleast_2d(sd))})


@pytest.mark.parametrize(("seen", "least"), [(None, 15), (PROTAN, 10), (DEUTAN, 7)])
def test_all_colours_stay_apart(seen, least):
    """A distance of about 2.3 in CIELAB is just noticed; 'no value', which is white, counts too."""
    lab = cielab(np.vstack([palette(), [[1.0, 1.0, 1.0]]]), seen)
    apart = np.linalg.norm(lab[:, None] - lab[None], axis=-1)
    np.fill_diagonal(apart, np.inf)
    assert apart[:-1, :-1].min() > least
    assert apart[-1].min() > 5


def test_less_certain_layers_are_greyer():
    lab = cielab(palette())
    chroma = np.hypot(lab[:, 1], lab[:, 2])
    layer = np.array([one for one, _, _ in layers_of_bins()])
    mean = [chroma[layer == k].mean() for k in range(4)]
    assert (np.diff(mean) < -10).all()
    assert mean[3] < 1


@given(st.floats(0, 1), st.floats(0, 1))
@settings(max_examples=200, deadline=None)
def test_bins_are_those_of_the_tree(value, unsure):
    """By hand: 8, 4, 2 and 1 bins; a bin of one layer holds two of the layer before."""
    sizes, starts = [8, 4, 2, 1], [0, 8, 12, 14]
    layer = min(int(unsure * 4), 3)
    expected = starts[layer] + min(int(value * sizes[layer]), sizes[layer] - 1)
    assert bin_of(np.array([value]), np.array([unsure]), (0, 1), (0, 1))[0] == expected


def test_what_lies_beyond_is_in_the_first_or_last_bin_and_missing_is_missing():
    value, unsure = np.array([-5.0, 5.0, 0.5, np.nan, 0.5]), np.array([-1.0, 0.0, 9.0, 0.1, np.nan])
    np.testing.assert_array_equal(bin_of(value, unsure, (0, 1), (0, 1)), [0, 7, 14, np.nan, np.nan])


def test_the_wedge_has_the_colours_of_the_map():
    found = plots.vsup(
        maps([[0.05, 0.95, 0.3]], [[0.1, 0.4, np.nan]]), limits=(0, 1), uncertainty_limits=(0, 1), label="Rain"
    )
    mesh = found.collections[0]
    assert mesh.get_array().filled(-1).tolist() == [[0, 11, -1]]
    wedges = [patch for patch in wedge_of(found).patches if isinstance(patch, Wedge)]
    assert len(wedges) == 15
    for k in (0, 11):
        np.testing.assert_allclose(mesh.cmap(mesh.norm(k))[:3], wedges[k].get_facecolor()[:3], atol=1e-6)
    # Low values left, certain ones outside: bin 0 is the outer left end, bin 14 the point.
    assert wedges[0].theta2 == max(one.theta2 for one in wedges)
    assert (wedges[0].r, wedges[14].r) == (1.0, 0.25)
    turn = [one.theta2 - one.theta1 for one in wedges]
    np.testing.assert_allclose(turn, np.repeat([8.0, 16.0, 32.0, 64.0], [8, 4, 2, 1]))
    words = [text.get_text() for text in wedge_of(found).texts]
    assert words[:5] == ["0.00", "0.25", "0.50", "0.75", "1.00"]
    assert words[5:] == ["1.00", "0.75", "0.50", "0.25", "0.00", "Rain: mean", "Standard deviation"]
    assert [text.get_text() for text in found.figure.legends[0].get_texts()] == ["no value"]


@given(st.floats(-1e4, 1e4), st.floats(1e-3, 1e3), st.sampled_from([4, 8]))
@settings(max_examples=300, deadline=None)
def test_edges_of_bins_are_plain_numbers_about_the_map(low, width, steps):
    start, end = plain_ends(low, low + width, steps)
    assert low - width / 7 < start <= low + 1e-6
    assert low + 0.979 * width <= end < low + 1.7 * width
    step = (end - start) / steps
    assert float(f"{step:.2g}") == pytest.approx(step)


def test_the_wedge_stands_beside_axes_of_a_caller():
    ax = plt.subplots(layout="constrained")[1]
    assert plots.vsup(maps([[0.1, 0.2]], [[0.1, 0.2]]), ax=ax) is ax
    assert len(wedge_of(ax).patches) == 15


@pytest.mark.parametrize("shape", [(4, 20), (8, 8), (30, 4)])
def test_map_and_wedge_lie_on_the_page(shape):
    rng = np.random.default_rng(1)
    ax = plots.vsup(maps(rng.uniform(size=shape), rng.uniform(size=shape)), label="Soil moisture")
    ax.figure.draw_without_rendering()
    box, page = ax.figure.get_tightbbox(), ax.figure.bbox_inches
    assert min(box.x0, box.y0) > -0.02
    assert max(box.x1 - page.x1, box.y1 - page.y1) < 0.02


def test_refusals():
    one = maps([[0.1, 0.2]], [[0.1, 0.2]])
    with pytest.raises(KeyError, match="no variable 'sd_witin' in the maps; did you mean 'sd_within'"):
        plots.vsup(one.assign(sd_within=one["sd"]), uncertainty="sd_witin")
    with pytest.raises(ValueError, match=r"have the quantiles none; wanted 0\.05, 0\.95 too"):
        plots.vsup(one, uncertainty="width")
    with pytest.raises(ValueError, match=r"limits is \(1, 0\); wanted"):
        plots.vsup(one, uncertainty_limits=(1, 0))
