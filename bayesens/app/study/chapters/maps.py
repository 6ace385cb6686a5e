"""The maps of a study: means and uncertainty, and how smooth they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import xarray as xr

from bayesens import plots
from bayesens.app.report.parts import Note, Section
from bayesens.app.study.chapters.chapter import drawing, named, sheet
from bayesens.app.study.maps.errors import MapErrors
from bayesens.app.study.maps.grid import StudyGrid
from bayesens.app.study.maps.pictures import map_pictures, one_map, varies
from bayesens.app.study.results import StudyResults
from bayesens.geo.spatial import map_table
from bayesens.members.spatial_folds.dealing import MUCH_NEARER

__all__ = ["maps"]


def maps(results: StudyResults) -> Section:
    """Means and uncertainty on the grid, their smoothness, and where the training rows speak for it."""
    found, asked = results.maps, results.study.map
    assert found is not None
    assert asked is not None
    means = {name: one["mean"] for name, one in found.models.items()}
    fields = found.points | {name: mean for name, mean in means.items() if bool(mean.notnull().any())}
    fields = {name: one_map(found.grid, field) for name, field in fields.items()}
    parts: list[Any] = [
        "Members were fitted to all stations, and every cell is predicted as a place that no fit has seen. Smoothness is no "
        "quality by itself: a mean over members is smoother than a member, and so is a map that knows less.",
    ]  # fmt: skip
    first, then = _smoothness(fields, found.grid, asked.bands)
    parts += [*first, *map_pictures(results), *then]
    if found.applicability is not None:
        parts += _where(one_map(found.grid, found.applicability))
    if (errors := results.map_errors) is not None:
        parts += [*_distances(errors), *_expected(errors, found.grid, results.units)]
    return Section("Maps", tuple(parts), "maps")


def _smoothness(
    fields: Mapping[str, xr.DataArray], grid: StudyGrid, bands: Sequence[Any]
) -> tuple[list[Any], list[Any]]:
    """What stands before the pictures and after them."""
    there = np.logical_and.reduce([np.isfinite(field.values) for field in fields.values()])
    varied = {name: field for name, field in fields.items() if varies(field.where(there))}
    if not varied:
        return ["Where all maps have values, none of them varies, and there is no smoothness to speak of."], []
    table = map_table(varied, bands=bands, dims=grid.dims)
    long = table.reset_index()
    said = sheet(
        "maps", long,
        "Coefficient of variation and Moran's I (rook neighbours) of the maps, by band of their own values.",
        f"{_over(grid)}Within a band even two good maps hold different cells; where a cell has far fewer than 4 neighbours in "
        "its band the band itself has lowered I. Intervals and counts stand in the file.",
        shown=long[long["statistic"].isin(["CV", "Moran's I"])], heads=2,
    )  # fmt: skip
    draw = partial(plots.band_curve, table)
    curve = drawing("moran_by_band", draw, "Moran's I by band of values, with 90 % intervals.",
                    "Moran's I by band and product.", size=(6.0, 3.4))  # fmt: skip
    return [said], [curve] if len(bands) > 1 else []


def _over(grid: StudyGrid) -> str:
    """What the maps of several times are in a table of single maps."""
    return "" if grid.time is None else f"Of the means over {grid.data.sizes[grid.time]} times. "


def _where(area: xr.Dataset) -> list[Any]:
    share = float(area["inside"].mean())  # of cells, or of cells and days
    kind = "finding" if share > 0.5 else "caution"

    def draw(ax: Any) -> None:
        field, inside = area["dissimilarity"], area["inside"].values
        _mesh(ax, field, "Dissimilarity index", cmap="Greys")
        if 0 < share < 1:
            y, x = field.dims
            ax.contour(_middle(field, x), _middle(field, y), inside, levels=[0.5], colors="#D55E00", linewidths=1)

    return [
        Note(f"{100 * share:.0f} % of the cells lie in the area of applicability: their covariates are no stranger than those "
             "of one station were to the others. Of the other cells no score in this report speaks.", kind),
        drawing("applicability", draw, "Dissimilarity of cells from the training rows, and the border of the area of "
                "applicability.", "Map of the dissimilarity index.", size=(4.6, 3.4)),
    ]  # fmt: skip


def _distances(errors: MapErrors) -> Iterator[Any]:
    """Whether held-out stations are as far from training stations as the map is from its stations."""
    if (found := errors.distances) is None:
        return
    held, away = found["held_out_to_training"], found["map_to_station"]
    middle, far = float(held.median()), float(away.median())
    units, most, near = away.attrs["units"], float(held.max()), middle < MUCH_NEARER * far
    text = (f"Half of the cells are further than {far:.3g} {units} from the nearest station; half of the stations held out were "
            f"further than {middle:.3g} {units} from the nearest one learnt from")  # fmt: skip
    text += ", and scores are too optimistic for the map." if near else "."
    beyond = 100 * float((away > most).mean())
    if beyond >= 1:
        text += (f" {beyond:.0f} % of the cells are further from a station than every station held out ({most:.3g} {units}): no "
                 "score in this report speaks of them.")  # fmt: skip
    yield Note(text, "caution" if near else "finding")
    yield drawing("fold_distances", partial(plots.fold_distances, found), "Distances of cells to stations, of stations held out "
                  "to those learnt from, and of stations to each other. W: Wasserstein distance from the curve of the map.",
                  "Cumulative curves of three distances.", size=(4.6, 3.4))  # fmt: skip


def _expected(errors: MapErrors, grid: StudyGrid, units: str) -> Iterator[Any]:
    """The error to expect of every cell."""
    if errors.profile is None or errors.expected is None:
        return
    beyond = float(errors.expected["share_beyond"])
    text = (f"{100 * beyond:.0f} % of the cells are more unlike the rows learnt from than every row held out: no error can be "
            "expected there.")  # fmt: skip
    if errors.profile.rank_correlation <= 0.0:
        text += " Errors do not rise with the dissimilarity here: the profile is flat, and says little of single cells."
    yield Note(text, "caution" if beyond > 0 else "finding")
    yield drawing("error_profile", partial(plots.error_profile, errors.profile), f"Expected CRPS of {errors.model} by "
                  "dissimilarity from the rows learnt from, at new sites.", "Rising curve with its band and mean errors.",
                  size=(4.6, 3.4))  # fmt: skip
    expected = one_map(grid, errors.expected["expected_error"])
    if bool(expected.notnull().any()):
        yield drawing("map_expected_error", lambda ax: _mesh(ax, expected, _crps_label(units), cmap="YlOrBr"),
                      f"Expected CRPS of {errors.model}; empty where nothing is known.", "Map of the expected error.",
                      size=(4.6, 3.4))  # fmt: skip


def _crps_label(units: str) -> str:
    """Name and units of the expected error."""
    return f"Expected CRPS{f' [{units}]' if units else ''}"


def _mesh(ax: Any, field: xr.DataArray, label: str, title: str = "", **colours: Any) -> None:
    """A map in cells, with its bar of colours."""
    y, x = field.dims
    drawn = ax.pcolormesh(_edge(field, x), _edge(field, y), field.values, rasterized=True, **colours)
    ax.figure.colorbar(drawn, ax=ax, label=label, shrink=0.8)
    named(ax, title, legend=False).set_aspect("equal")


def _middle(field: xr.DataArray, dim: Any) -> np.ndarray:
    return field[dim].values.astype(float) if dim in field.coords else np.arange(field.sizes[dim], dtype=float)


def _edge(field: xr.DataArray, dim: Any) -> np.ndarray:
    """Where cells begin and end, from their middles."""
    middle = _middle(field, dim)
    if len(middle) < 2:
        return np.array([middle[0] - 0.5, middle[0] + 0.5])
    half = np.diff(middle) / 2
    return np.concatenate([[middle[0] - half[0]], middle[:-1] + half, [middle[-1] + half[-1]]])
