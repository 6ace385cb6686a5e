"""How far a station stands for its cell, from cells with several stations."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from bayesens import plots
from bayesens.app.report.parts import Note, Section
from bayesens.app.study.chapters.chapter import drawing, sheet
from bayesens.app.study.results import StudyResults
from bayesens.geo.representativeness import Components, variance_components

__all__ = ["scale"]

COUNTS = (1, 2, 3, 4, 5, 6, 8, 10, 15, 20)


def scale(results: StudyResults) -> Section:
    """Variance of stations about their cell, and how many of them stand for it."""
    asked, columns = results.study.representativeness, results.study.data
    assert asked is not None
    found = variance_components(results.data.frame, value=columns.observation, station=str(columns.site), time=str(columns.time),
                                cell=asked.cell)  # fmt: skip
    table = found.table.rename_axis("component").reset_index()
    curve = found.upscaled(COUNTS).reset_index()
    one = curve.iloc[0]
    parts: list[Any] = [
        "A station measures a few decimetres, and a cell may be a kilometre wide. Cells with several stations show how far "
        "one of them stands for the mean of its cell: an offset that stays, and a residual that comes and goes.",
        Note(f"In {found.n_cells} cells with {found.n_stations} stations, one station differs from its cell by a standard "
             f"deviation of {one['sd']:.3g} {results.units} (90 % interval {one['sd_low']:.3g} to {one['sd_high']:.3g}); "
             f"{one['lasting_sd']:.3g} of it does not average out over time. That much of every score in this report is "
             f"the station's, not the models'."),
        sheet("variance_components", table, f"Variance of stations about their cell, by REML [({results.units})²].",
              f"90 % intervals; autocorrelation of residuals one step apart {found.autocorrelation:.2f}.", digits=5),
        sheet("upscaling", curve, f"Error of the mean of several stations, taken for the cell [{results.units}].", digits=4),
        drawing("representativeness", partial(plots.representativeness, found, units=results.units), "Error of the mean of n "
                "stations of a cell, with its 90 % interval; dashed, what no averaging over time removes.",
                "Curve of the error of a cell's mean against the number of stations.", size=(4.8, 3.4)),
    ]  # fmt: skip
    if asked.errors:
        needed = found.stations_needed(asked.errors).reset_index()
        digits = {"error": 3, "stations": 0, "low": 0, "high": 0}
        parts.append(sheet("stations_needed", needed, "Stations needed for their mean to be within an error of the cell's "
                           "value, with a probability of 95 %.", digits=digits))  # fmt: skip
    rmse = _spared(results, found)
    if len(rmse):
        parts.append(sheet("rmse_to_cell", rmse, "RMSE against the stations, and what is left of it against the cell if the "
                           "error of the station is taken out.", "The error of the station is that above; the two are taken "
                           "as independent."))  # fmt: skip
    return Section("What a station stands for", tuple(parts), "scale")


def _spared(results: StudyResults, found: Components) -> pd.DataFrame:
    """RMSE of every model with the station's variance taken away."""
    rows = results.held[results.estimand].rows
    error = (rows["prediction"] - rows["observation"]) ** 2
    mean = error.mean("obs").to_series()
    left = mean - found.total
    return pd.DataFrame({"model": mean.index, "rmse": np.sqrt(mean).to_numpy(),
                         "rmse to the cell": np.sqrt(left.where(left > 0)).to_numpy()})  # fmt: skip
