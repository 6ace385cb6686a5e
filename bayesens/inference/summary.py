"""What a fit is, to print and to show in a notebook."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

from bayesens.console import new_console, show
from bayesens.inference.fit_contents import Contents, contents_of, read_contents
from bayesens.inference.fit_words import Columns, facts, parameter_tables

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from rich.console import Console

__all__ = ["FitSummary", "summary", "summary_of_file"]


@dataclass(frozen=True, eq=False, repr=False)
class FitSummary:
    """What a fit is and whether it converged; prints as text, and as tables in a notebook.

    Attributes
    ----------
    facts : dict of str to str
        Model, options, data, what ran and whether it converged.
    columns : dict of str to dict of str to list of str
        Posterior medians with 90 % intervals, as text, by the titles of the tables and of their columns.
    """

    facts: dict[str, str]
    columns: dict[str, Columns]

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        """The same as tables of pandas."""
        import pandas as pd

        return {title: pd.DataFrame(columns) for title, columns in self.columns.items()}

    def print(self, console: Console) -> None:
        """Print it to a console of rich."""
        console.print("\n".join(f"  {name:<10} {text}" for name, text in self.facts.items()), soft_wrap=True)
        for title, columns in self.columns.items():
            console.print()
            show(console, title, columns)

    def __str__(self) -> str:
        page = StringIO()
        # A terminal's colours, and its width, have no place in a text.
        self.print(new_console(file=page, force_terminal=False))
        return page.getvalue().rstrip("\n")

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        lines = "".join(f"<tr><th>{escape(name)}</th><td>{escape(text)}</td></tr>" for name, text in self.facts.items())
        parts = [f'<table style="text-align: left">{lines}</table>']
        for title, frame in self.tables.items():
            parts.append(f"<p><b>{escape(title)}</b></p>{frame.to_html(index=False, border=0)}")
        return "\n".join(parts)


def summary(tree: xr.DataTree) -> FitSummary:
    """Say what a fit is and whether it converged, as the command ``bayesens describe`` does.

    Parameters
    ----------
    tree : DataTree
        A fit.

    Returns
    -------
    FitSummary
        Its ``str`` is what the command prints below the name of the file; a notebook shows it as tables; ``facts`` and
        ``tables`` are the parts. `arviz.summary` has every parameter with R-hat and ESS.

    Raises
    ------
    TypeError, ValueError
        What is no fit.

    Examples
    --------
    >>> import bayesens as be, pandas as pd
    >>> frame = pd.DataFrame({"a": [1.0, 2.0, 3.0, 4.0, 5.0], "y": [1.5, 1.5, 3.5, 4.5, 4.0]})
    >>> ens = be.Ensemble.from_frame(frame, members=["a"], observation="y")
    >>> told = be.summary(be.fit(be.SingleMember(bias="none"), ens, method="em"))
    >>> told.facts["data"]
    '5 observed rows'
    >>> print(str(told).splitlines()[2])
      data       5 observed rows
    """
    from bayesens.inference.arguments import check_fitted_call
    from bayesens.inference.fit_tree import check_fit_tree

    check_fitted_call("summary", tree)
    check_fit_tree(tree)
    return _told(contents_of(tree))


def summary_of_file(path: Path) -> FitSummary:
    """Say what a fit in a file is, without loading what takes longer to load than to say it.

    Parameters
    ----------
    path : path

    Returns
    -------
    FitSummary

    Raises
    ------
    FileNotFoundError, IsADirectoryError, ValueError
        As in `bayesens.inference.fit_tree.read_fit`.
    """
    contents = read_contents(path)
    if contents is None:  # which is read in full, to say what is wrong with it
        from bayesens.inference.fit_tree import read_fit

        return summary(read_fit(path))
    return _told(contents)


def _told(fit: Contents) -> FitSummary:
    return FitSummary(facts(fit), parameter_tables(fit))
