"""What each change of the ladder does, in one figure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import xarray as xr

from bayesens.comparison.ladder import ladder_effects
from bayesens.plots.axes import bare_axes, beside, look, name_rows, with_legend
from bayesens.plots.given import by_name, check_table, is_rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["ladder"]

EQUIVALENT = 1.0  # percent on either side of zero: nobody would change a model for less


def ladder(
    effects: pd.DataFrame | xr.Dataset | Mapping[str, pd.DataFrame | xr.Dataset],
    *,
    equivalent: float = EQUIVALENT,
    label: str = "Change of the CRPS",
    ax: Axes | None = None,
) -> Axes:
    """Forest of the effects of a ladder: one row a change, its difference in percent with its interval.

    Parameters
    ----------
    effects : DataFrame or Dataset, or mapping of str to these
        From `bayesens.ladder_effects`, or the rows of `bayesens.compare` that it takes, with ``random_seed=1``. A
        mapping draws several side by side, such as one for each estimand, under its names.
    equivalent : float
        Percent on either side of zero that the grey band shows.
    label : str
        Of the axis, without its unit.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes
        Filled marks have an interval that leaves out zero, open ones hold it, crosses have none.

    Raises
    ------
    TypeError, KeyError
        What is no table of effects and no rows, or a table that lacks a column.

    Examples
    --------
    >>> table = pd.DataFrame({"effect": ["mixture"], "before": ["BMA"], "after": ["Linear pool"], "difference": [2.0],
    ...                       "low": [1.0], "high": [3.0], "unit": ["percent"]})
    >>> [text.get_text() for text in ladder(table).get_yticklabels()]
    ['mixture: BMA → Linear pool']
    """
    given = {"": effects} if isinstance(effects, pd.DataFrame) else by_name(effects)
    tables = {name: ladder_effects(one, random_seed=1) if is_rows(one) else one for name, one in given.items()}
    for table in tables.values():
        check_table(table, ["effect", "before", "after", "difference", "low", "high", "unit"], "be.ladder_effects(rows)",
                    "the table of effects")  # fmt: skip
    names = list(dict.fromkeys(name for table in tables.values() for name in _names(table)))
    ax = bare_axes(ax, (6.6, 1.0 + (0.22 + 0.16 * len(tables)) * len(names)))
    ax.axvspan(-equivalent, equivalent, color="0.88", lw=0, zorder=0, label=f"within {equivalent:g} %")
    ax.axvline(0, color="0.5", lw=0.8, zorder=1)
    for i, (name, table) in enumerate(tables.items()):
        y = np.array([names.index(one) for one in _names(table)], float) + beside(i, len(tables), 0.24)
        _marks(ax, table, y, name or "_", i)
    unit = "%" if (next(iter(tables.values()))["unit"] == "percent").all() else "score"
    ax.set_xlabel(f"{label} [{unit}],\nbelow zero the change helps")
    return with_legend(name_rows(ax, names))


def _names(table: pd.DataFrame) -> list[str]:
    return [f"{line['effect']}: {line['before']} → {line['after']}" for line in table.to_dict("records")]


def _marks(ax: Axes, table: pd.DataFrame, y: np.ndarray, name: str, i: int) -> None:
    value, low, high = (table[column].to_numpy(float) for column in ("difference", "low", "high"))
    color, marker, line = look(i)
    ax.hlines(y, low, high, color=color, lw=1.4, ls=line, zorder=2)
    none, clear = np.isnan(low) | np.isnan(high), (low > 0) | (high < 0)
    ax.plot(value[clear], y[clear], marker, ms=6.5, mfc=color, mec=color, zorder=3)
    ax.plot(value[~clear & ~none], y[~clear & ~none], marker, ms=6.5, mfc="white", mec=color, zorder=3)
    ax.plot(value[none], y[none], "x", ms=6.0, mec=color, zorder=3)
    ax.plot([], [], marker, ms=6.5, mfc=color, mec=color, label=name)
