"""What chapters of the report share: tables and figures that have files of their own, findings, panels."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import pandas as pd
import xarray as xr

from bayesens.app.report.parts import Figure, Note, Table

if TYPE_CHECKING:
    from matplotlib import figure as mpl
    from matplotlib.axes import Axes

__all__ = ["ACROSS", "drawing", "failures", "figure", "finding", "named", "panels", "sheet", "with_labels"]

ACROSS = 3  # panels in a row of a figure
# The end of a sentence: not that of an abbreviation of two letters, as in St. Ives.
ENDS = re.compile(r"(?:(?<=[a-z0-9%)\]'][a-z0-9%)\]'][.?])|(?<=\w\w\w[.?])|(?<= %[.?])) (?=[A-Z0-9])")


def sheet(
    name: str, frame: pd.DataFrame, caption: str, note: str = "", *, shown: pd.DataFrame | None = None, heads: int = 1,
    **options: Any,
) -> Table:  # fmt: skip
    """A table in ``tables/NAME.csv``; the report has `shown` in its place, and nothing where that has no columns."""
    return Table(frame if shown is None else shown, caption, note, head_columns=heads, source=f"tables/{name}.csv",
                 whole=frame, **options)  # fmt: skip


def with_labels(wide: pd.DataFrame, kind: str) -> pd.DataFrame:
    """The labels of the rows as columns; a column that is called like one of them, such as a member "model", says its kind, too.

    Examples
    --------
    >>> with_labels(pd.DataFrame({"model": [0.3]}, index=pd.Index(["BMA"], name="model")), "member")
      model  member model
    0   BMA           0.3
    """
    return (
        wide.rename(columns={name: f"{kind} {name}" for name in wide.index.names})
        .reset_index()
        .rename_axis(columns=None)
    )


def drawing(
    name: str, draw: Callable[..., Any], caption: str, alt: str, *, size: tuple[float, float] | None = None,
    wide: bool = False,
) -> Figure:  # fmt: skip
    """A figure in ``figures/NAME.svg``: what `draw` returns, or what it draws into ``ax``, where there is a size [inches]."""
    return Figure(
        f"figures/{name}.svg", caption, alt, wide, draw=draw if size is None else partial(_single, draw, size)
    )


def _single(draw: Callable[..., Any], size: tuple[float, float]) -> mpl.Figure:
    made, ax = figure(*size)
    draw(ax=ax)
    return made


def finding(text: str) -> list[str | Note]:
    """Take the first sentence of a text as a finding, and leave the others to the text below it.

    Examples
    --------
    >>> finding("BMA holds 94 %. HBM holds 90.5 % at St. Ives. Both do well.")
    [Note(text='BMA holds 94 %.', kind='finding'), 'HBM holds 90.5 % at St. Ives. Both do well.']
    """
    head, *rest = ENDS.split(text, maxsplit=1)
    return [Note(head), *rest]


def failures(held: Mapping[str, xr.Dataset]) -> Iterator[Note]:
    """Models that failed, and are left out of the rows held out of an estimand."""
    for estimand, rows in held.items():
        for name, why in json.loads(rows.attrs["failed"]).items():
            yield Note(f"Left out of {estimand}: {name}, which failed in {why}", "caution")


def figure(width: float, height: float, rows: int = 1, columns: int = 1, **options: Any) -> tuple[mpl.Figure, Any]:
    """A figure [inches] that no window system needs to know of, and its axes."""
    from matplotlib.figure import Figure as Made

    made = Made(figsize=(width, height), layout="constrained")
    return made, made.subplots(rows, columns, **options)


def named(ax: Axes, name: str, *, legend: bool) -> Axes:
    """Name a panel at its right end, where a legend at its left does not meet it; keep that legend or not."""
    ax.set_title(name, loc="right", fontsize=10)
    if not legend and (found := ax.get_legend()) is not None:
        found.remove()
    ax.label_outer()
    return ax


def panels(
    names: list[str], draw: Callable[[str, Axes], Any], width: float, height: float, beside: float
) -> mpl.Figure:
    """A panel a name, each of a size [inches], with what all of them say along their axes said once."""
    down = -(-len(names) // ACROSS)
    across = -(-len(names) // down)  # rows of equal length, as far as they can be
    made, axes = figure(
        width * max(across, 2), beside + height * down, down, across, sharex=True, sharey=True, squeeze=False
    )
    for k, (ax, name) in enumerate(zip(axes.flat, names, strict=False)):
        draw(name, ax)
        words = ax.get_xlabel(), ax.get_ylabel()
        ax.set(xlabel="", ylabel="")
        named(ax, name, legend=False)
        ax.tick_params(labelbottom=k + across >= len(names))  # a column may end above the last row
    for ax in axes.flat[len(names) :]:
        ax.set_axis_off()
    made.supxlabel(words[0], fontsize=10)
    made.supylabel(words[1], fontsize=10)
    return made
