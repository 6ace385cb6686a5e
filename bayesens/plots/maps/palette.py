"""A value-suppressing uncertainty palette: fewer colours where a value is less certain, and one grey where it is least.

References
----------
Correll, Moritz & Heer (2018), Value-suppressing uncertainty palettes, CHI Conference on Human Factors in Computing Systems,
paper 642.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["GREY", "LAYERS", "bin_of", "layers_of_bins", "palette", "plain_ends"]

Array = NDArray[np.float64]
LAYERS = 4  # of uncertainty: 8, 4, 2 and 1 bins of values
GREY = 0.92
# How much of the grey is in each layer, the most certain first. Of viridis, other scales and shares tried, these 15 colours lie
# farthest apart, also for readers without red or green cones (CIELAB distances of 17, 11 and 8 at least).
SHARES = (0.0, 0.4, 0.7, 1.0)
SCALE, ENDS = "viridis_r", (0.05, 0.95)


def bin_of(
    value: Array, uncertainty: Array, limits: tuple[float, float], uncertainty_limits: tuple[float, float]
) -> Array:
    """Number of the bin of each cell: 0 to 7 most certain, 8 to 11, 12 and 13, and 14 least certain; NaN where either lacks.

    Layers are equal steps of uncertainty between its limits, bins of a layer equal steps of the value between its; what lies
    beyond is in the first or the last.

    Examples
    --------
    >>> bin_of(np.array([0.0, 0.99, 0.99, 0.99, 0.99]), np.array([0.1, 0.1, 0.3, 0.6, 0.9]), (0, 1), (0, 1)).tolist()
    [0.0, 7.0, 11.0, 13.0, 14.0]
    """
    known = np.isfinite(value) & np.isfinite(uncertainty)
    layer = _step(np.where(known, uncertainty, uncertainty_limits[0]), uncertainty_limits, np.full(value.shape, LAYERS))
    bins = 2 ** (LAYERS - 1 - layer)
    # The layers before have 2^L - 2^(L - layer) bins in all.
    found = 2**LAYERS - 2 * bins + _step(np.where(known, value, limits[0]), limits, bins)
    return np.where(known, found, np.nan)


def _step(x: Array, limits: tuple[float, float], steps: NDArray[np.int64]) -> NDArray[np.int64]:
    share = (x - limits[0]) / (limits[1] - limits[0])
    return np.clip(np.floor(share * steps).astype(np.int64), 0, steps - 1)


def layers_of_bins() -> list[tuple[int, int, int]]:
    """Layer, place in it, and number of bins in that layer, of each bin.

    Examples
    --------
    >>> layers_of_bins()[7:10], len(layers_of_bins())
    ([(0, 7, 8), (1, 0, 4), (1, 1, 4)], 15)
    """
    sizes = [2 ** (LAYERS - 1 - layer) for layer in range(LAYERS)]
    return [(layer, place, size) for layer, size in enumerate(sizes) for place in range(size)]


def palette() -> Array:
    """Colours (bin, rgb).

    Examples
    --------
    >>> palette().shape, palette()[-1].round(2).tolist()
    ((15, 3), [0.92, 0.92, 0.92])
    """
    import matplotlib as mpl

    scale, (low, high) = mpl.colormaps[SCALE], ENDS
    pure = [scale(low + (high - low) * (place + 0.5) / size)[:3] for _, place, size in layers_of_bins()]
    grey = np.array([SHARES[layer] for layer, _, _ in layers_of_bins()])[:, None]
    return (1 - grey) * np.array(pure) + grey * GREY


def plain_ends(low: float, high: float, steps: int) -> tuple[float, float]:
    """Ends near to those given, between which there are steps of a plain number; 2 % at most stand out.

    Examples
    --------
    >>> plain_ends(0.0913, 0.252, 8), plain_ends(11.2, 17.1, 4)
    ((0.09, 0.25), (11.0, 17.0))
    """
    width = (high - low) / steps
    size = 10.0 ** np.floor(np.log10(width))
    start = np.floor(low / (size / 2) + 1e-9) * size / 2
    wanted = high - 0.02 * (high - low) - start
    step = next(size * k for k in (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10, 12) if steps * size * k >= wanted)
    return round(float(start), 12), round(float(start + steps * step), 12)
