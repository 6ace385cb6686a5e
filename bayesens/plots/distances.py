"""How far held-out stations and the map have to look: distances in space, and the error to expect far from training rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from bayesens.plots.axes import INK, bare_axes, labelled, look, with_legend
from bayesens.plots.given import dataset_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from bayesens.members.error_profile import ErrorProfile

__all__ = ["error_profile", "fold_distances"]

CURVES = {  # the map first: it is what the others are held against
    "map_to_station": "map to stations",
    "held_out_to_training": "held-out to training stations",
    "station_to_station": "station to station",
}


def error_profile(profile: ErrorProfile, *, ax: Axes | None = None) -> Axes:
    """Draw the expected error by dissimilarity from the training data, its band, and the means that it was learnt from.

    Parameters
    ----------
    profile : ErrorProfile
        From `bayesens.error_profile`.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes
        A thin line stands at the largest index of a row held out: beyond it nothing is known.

    Raises
    ------
    TypeError
        What is no profile.

    Examples
    --------
    >>> import bayesens as be
    >>> profile = be.error_profile(np.arange(20.0), np.linspace(0, 1, 20), bins=4, replicates=0)
    >>> error_profile(profile).get_ylabel()
    'Expected absolute error'
    """
    from bayesens.members.error_profile import MEASURES, ErrorProfile

    if not isinstance(profile, ErrorProfile):
        raise TypeError(f"got {type(profile).__name__}; wanted what be.error_profile(errors, dissimilarity) returns")
    ax = bare_axes(ax, (4.2, 3.2))
    color, marker, _ = look(0)
    # From zero to the largest index, as it predicts.
    x = np.concatenate([[0.0], profile.dissimilarity, [profile.highest]])
    expected, low, high = (np.concatenate([y[:1], y, y[-1:]]) for y in (profile.expected, profile.low, profile.high))
    if np.isfinite(low).all():
        ax.fill_between(x, low, high, color=color, alpha=0.2, lw=0, label=f"{100 * profile.level:g} % band", zorder=1)
    ax.plot(x, expected, color=color, lw=2.0, label="profile", zorder=3)
    ax.plot(profile.dissimilarity, profile.observed, ls="", marker=marker, ms=4.5, mfc="white", color=INK,
            label="rows held out (means)", zorder=4)  # fmt: skip
    ax.axvline(profile.highest, color="0.6", lw=0.8, zorder=0)
    name = MEASURES[profile.measure]
    ax.set(xlabel="Dissimilarity index", ylabel=labelled(f"E{name[1:]}", profile.units))
    ax.set_xlim(0, 1.04 * max(profile.highest, 1e-9))
    ax.set_ylim(0, 1.08 * float(np.nanmax([expected, low, high, np.resize(profile.observed, len(x))])) or 1.0)
    return with_legend(ax)


def fold_distances(distances: xr.Dataset, *, ax: Axes | None = None) -> Axes:
    """Cumulative curves of three distances: of the map, of held-out stations, and of stations among themselves.

    Folds speak for the map where the curve of the held-out stations lies on that of the map.

    Parameters
    ----------
    distances : Dataset
        From `bayesens.fold_distances`.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes
        The legend has the Wasserstein distances from the map's curve, W.

    Raises
    ------
    TypeError, KeyError
        What is no such Dataset.

    Examples
    --------
    >>> values = xr.Dataset({"station_to_station": ("station", [1.0, 1.0]), "held_out_to_training": ("station", [3.0, 5.0]),
    ...     "map_to_station": ("cell", [4.0, 4.0, 6.0]), "wasserstein": ("distances", [3.667, 0.667])},
    ...     {"distances": ["station_to_station", "held_out_to_training"]})
    >>> [text.get_text() for text in fold_distances(values).get_legend().get_texts()]
    ['map to stations', 'held-out to training stations, W 0.667', 'station to station, W 3.67']
    """
    given = dataset_of(distances, "held_out_to_training", "be.fold_distances(data, map_points=grid)")
    units = str(given["map_to_station"].attrs.get("units", ""))
    far = given["wasserstein"].to_series()
    ax = bare_axes(ax, (4.2, 3.2))
    most = max(float(given[name].max()) for name in CURVES)
    for i, (name, label) in enumerate(CURVES.items()):
        color, _, line = look(i)
        x = np.sort(given[name].values)
        # Flat beyond the last value, so that no curve ends in the middle of the figure.
        x, y = (
            np.concatenate([[0.0], x, [1.03 * most]]),
            np.concatenate([[0.0], np.arange(1, len(x) + 1) / len(x), [1.0]]),
        )
        label = f"{label}, W {far[name]:.3g}" if name in far else label
        ax.step(x, y, where="post", color=color, ls=line, lw=2.2 if i == 0 else 1.6, label=label, zorder=3 - i)
    ax.set(xlabel=labelled("Distance to the nearest", units), ylabel="Cumulative share", ylim=(0, 1.02))
    ax.set_xlim(0, 1.03 * most)
    return with_legend(ax)
