"""An ensemble in a few lines, as text and in a notebook."""

from __future__ import annotations

import json
from collections.abc import Iterable
from html import escape
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bayesens.ensemble.from_table import COVARIATE, LABELS, MADE_OF
from bayesens.tables.conversion import conversion_words
from bayesens.tables.missing_codes import missing_words

if TYPE_CHECKING:
    from bayesens.ensemble.ensemble import Ensemble

__all__ = ["as_html", "as_text"]


def as_text(ensemble: Ensemble) -> str:
    """A title, and a line for each thing that there is to say."""
    lines = _lines(ensemble)
    width = max(len(key) for key, _ in lines)
    return "\n".join([f"<{_title(ensemble)}>", *(f"  {key:<{width}}  {text}" for key, text in lines)])


def as_html(ensemble: Ensemble) -> str:
    """The same as a table."""
    rows = "".join(
        f"<tr><th style='text-align:left'>{escape(key)}</th><td style='text-align:left'>{escape(text)}</td></tr>"
        for key, text in _lines(ensemble)
    )
    return f"<table><caption style='text-align:left'>{escape(_title(ensemble))}</caption>{rows}</table>"


def _title(ensemble: Ensemble) -> str:
    units = f", {ensemble.units}" if ensemble.units else ""
    members = "1 member" if ensemble.n_members == 1 else f"{ensemble.n_members} members"
    rows = "1 row" if ensemble.n_obs == 1 else f"{ensemble.n_obs} rows"
    return f"Ensemble: {rows} ({ensemble.n_observed} observed), {members}{units}"


def _lines(ensemble: Ensemble) -> list[tuple[str, str]]:
    lines = [("members", _with_gaps(ensemble.members, ensemble.prediction))]
    for role in LABELS:
        labels = ensemble.labels(role)
        if labels is not None:
            without = int((labels == "").sum())
            note = f", {without} rows without" if without else ""
            lines.append((f"{role}s", f"{len(ensemble.levels(role))} ({ensemble.columns[role]}{note})"))
    if "time" in ensemble.dataset.coords:
        time = pd.Series(ensemble.dataset["time"].values)
        first, last = (str(end).removesuffix(" 00:00:00") for end in (time.min(), time.max()))
        lines.append(("time", f"{first} to {last} ({ensemble.columns['time']})"))
    if ensemble.covariates:
        lines.append(("covariates", _with_gaps(ensemble.covariates, ensemble.dataset[COVARIATE].values)))
    if ensemble.spread:
        lines.append(("own sd", ", ".join(f"{name} ({column})" for name, column in ensemble.spread.items())))
    if made := json.loads(ensemble.dataset.attrs.get(MADE_OF, "{}")):
        lines.append(
            ("made of", ", ".join(f"{name}: {text}" for name, text in made.items() if name in ensemble.members))
        )
    if ensemble.codes:
        lines.append(("missing", missing_words(ensemble.codes)))
    if ensemble.converted:
        lines.append(("converted", conversion_words(ensemble.converted)))
    return lines


def _with_gaps(names: Iterable[str], values: NDArray[np.float64]) -> str:
    """Names of columns, each with the share that is missing."""
    missing = 100 * np.isnan(values).mean(axis=0)
    return ", ".join(
        f"{name} ({share:.1f} % missing)" if share else name for name, share in zip(names, missing, strict=True)
    )
