"""What `bayesens init` prints: every column of the table with what it was taken for, and how rows will be held out."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from bayesens.comparison.folds.held_out_rows import ESTIMANDS, usual_estimand
from bayesens.tables.table_roles import TableRoles

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["held_out_words", "neighbours_words", "other_unit_words", "show_roles"]

ORDER = ("observation", "site", "group", "time", "lon", "lat", "member", "covariate", "-")


def show_roles(console: Console, title: str, found: TableRoles) -> None:
    """One line a column, those that are used first; 80 characters are enough."""
    from rich.table import Table

    grid = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for name, most in (("column", 17), ("role", 11), ("range", 20)):
        grid.add_column(name, max_width=most, overflow="fold")
    grid.add_column("missing", justify="right", no_wrap=True)
    grid.add_column("r", justify="right", no_wrap=True)
    grid.add_column("why", overflow="fold")
    lines = found.table.sort_values("role", key=lambda role: role.map(ORDER.index), kind="stable")
    for line in lines.to_dict("records"):
        r = "" if line["r"] != line["r"] else f"{line['r']:.2f}"
        cells = (line["column"], line["role"], line["range"], _percent(line["missing"]), r, line["why"])
        grid.add_row(*map(_printable, cells))
    console.print(title, style="bold", soft_wrap=True)
    console.print(grid)


def _printable(text: str) -> str:
    """Without the control characters of an odd file, which would move the cursor."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _percent(share: float) -> str:
    """Nothing missing and hardly anything missing are two things."""
    return "0 %" if share == 0 else "< 1 %" if share < 1 else f"{share:.0f} %"


def other_unit_words(found: TableRoles) -> list[str]:
    """Say of columns that look like predictions in another unit how a study takes them as members, a sentence a column.

    Examples
    --------
    >>> import pandas as pd
    >>> from bayesens.tables.table_roles import column_roles
    >>> y = [0.1, 0.15, 0.2, 0.22, 0.3, 0.35, 0.4, 0.42]
    >>> frame = pd.DataFrame({"y": y, "rf": y[1:] + y[:1], "smap": [100 * v + 1 for v in y]})
    >>> print(other_unit_words(column_roles(frame))[0])
    'smap' looks as if it were in percent, or in hundredths of the observation's unit. To use it as a member, add it to
    members.columns, and under [data]: scale = {smap = 0.01}
    """
    said = []
    for name, (scale, offset, unit) in found.other_units.items():
        keys = [f"{key} = {{{_key(name)} = {value:.6g}}}" for key, value, none in
                (("scale", scale, 1.0), ("offset", offset, 0.0)) if value != none]  # fmt: skip
        said.append(
            f"{name!r} looks as if it were {unit}. To use it as a member, add it to members.columns, and under [data]: "
            f"{', '.join(keys)}"
        )
    return said


def _key(name: str) -> str:
    """A name as a key of TOML."""
    return name if name.replace("_", "").replace("-", "").isalnum() and name.isascii() else json.dumps(name)


def held_out_words(found: TableRoles) -> str:
    """Say what the study file will hold out, and what the members are.

    Examples
    --------
    >>> import pandas as pd
    >>> from bayesens.tables.table_roles import column_roles
    >>> frame = pd.DataFrame({"y": [1.0, 2.0, 4.0], "model1": [1.5, 2.0, 3.5]})
    >>> print(held_out_words(column_roles(frame)))
    Members: model1. Held out: new rows like those that were seen (estimand row), for no column looks like a site or a time.
    That is too optimistic where rows hang together; if a column says so, name it: --site or --time.
    """
    roles = found.roles
    members = f"Members: {', '.join(found.members)}." if found.members else (
        f"No column looks like predictions of {roles['observation']}: four members will be trained on "
        f"{len(found.covariates)} columns. To name predictions: --members."
    )  # fmt: skip
    estimand = usual_estimand(site="site" in roles, time="time" in roles)
    held = f"{members} Held out: {ESTIMANDS[estimand]} (estimand {estimand})"
    if estimand == "site":
        return f"{held}."
    if estimand == "time":
        return f"{held}, for no column looks like a site; if there is one, name it: --site."
    return (f"{held}, for no column looks like a site or a time. That is too optimistic where rows hang together; if a column "
            "says so, name it: --site or --time.")  # fmt: skip


def neighbours_words(found: TableRoles) -> str:
    """Say what neighbours will know of the stations.

    Examples
    --------
    >>> import pandas as pd
    >>> from bayesens.tables.table_roles import column_roles
    >>> frame = pd.DataFrame({"y": [1.0, 2.0, 4.0, 3.0], "rf": [1.5, 2.0, 3.5, 3.0], "site": list("abab"), "year": [1, 1, 2, 2]})
    >>> print(neighbours_words(column_roles(frame, given={"time": "year"})))
    Neighbours: the mean of each day is all that they tell, for no columns look like coordinates; if they do, name them: --lon
    and --lat, or evaluation.places in the study.
    """
    if {"lon", "lat"} <= set(found.roles):
        return (
            f"Neighbours: what other stations observed, interpolated by {found.roles['lon']} and {found.roles['lat']}."
        )
    return ("Neighbours: the mean of each day is all that they tell, for no columns look like coordinates; if they do, name "
            "them: --lon and --lat, or evaluation.places in the study.")  # fmt: skip
