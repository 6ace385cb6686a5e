"""The bar of a long output: tiles, cells a second and the time left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["watching"]


@contextmanager
def watching(cells: int, done: int, shown: bool) -> Iterator[Callable[[int], None]]:
    """Show a bar on the standard error, and give what moves it on by a number of cells.

    Parameters
    ----------
    cells : int
        Of the whole grid.
    done : int
        Of these, cells that a former run finished: they do not count for the rate.
    shown : bool

    Examples
    --------
    >>> with watching(10, 0, shown=False) as advance:
    ...     advance(5)
    """
    if not shown:
        yield lambda more: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text("" if speed is None else f"{speed:,.0f} cells/s")

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        Rate(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True, speed_estimate_period=120.0) as bar:
        task = bar.add_task("Cells", total=cells, completed=done)
        yield lambda more: bar.advance(task, more)
