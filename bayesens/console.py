"""Tables in a terminal, and as plain text; and the bar that shows how far a long computation has come."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

__all__ = ["WIDE", "new_console", "progress", "show"]

WIDE = 140  # letters of a line where there is no terminal: 80 would cut tables


def new_console(**options: Any) -> Console:
    """Where tables are printed; options are those of rich."""
    from rich.console import Console

    console = Console(highlight=False, markup=False, **options)
    if not console.is_terminal:
        console.width = WIDE  # a pipe has no width of its own
    return console


def show(console: Console, title: str, frame: pd.DataFrame | Mapping[str, Sequence[Any]]) -> None:
    """A table in the terminal, its title on a line of its own: a narrow table would wrap it."""
    from rich.table import Table

    grid = Table()
    columns: dict[str, list[Any]] = {str(name): list(values) for name, values in frame.items()}
    for i, name in enumerate(columns):
        head = {"crps": "CRPS", "rmse": "RMSE"}.get(name, name.replace("_", " "))
        grid.add_column(head, justify="left" if i == 0 and name != "rows" else "right", no_wrap=i == 0)
    for row in zip(*columns.values(), strict=True):
        grid.add_row(*(f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in row))
    console.print(title, style="bold", soft_wrap=True)
    console.print(grid)


@contextmanager
def progress(total: int, text: str, shown: bool) -> Iterator[Callable[..., None]]:
    """Show a bar on the standard error that is gone at the end, and give what moves it on, by one step or by some.

    In a terminal, and in a notebook if ipywidgets is there: without, rich would warn at every step.

    Examples
    --------
    >>> with progress(3, "Fits", shown=False) as advance:
    ...     advance()
    ...     advance(2)
    """
    if not shown:
        yield lambda steps=1: None
        return
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    drawn = find_spec("ipywidgets") is not None if console.is_jupyter else console.is_terminal
    with Progress(console=console, transient=True, disable=not drawn) as bar:
        task = bar.add_task(text, total=total)
        yield lambda steps=1: bar.advance(task, steps)
