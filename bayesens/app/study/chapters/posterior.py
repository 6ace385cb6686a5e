"""What the fits to all rows say of the members: weights, biases, convergence."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from bayesens import plots
from bayesens.app.report.parts import Figure, Note, Section, Table
from bayesens.app.study.chapters.chapter import drawing, sheet, with_labels
from bayesens.app.study.results import StudyResults
from bayesens.inference.fit_contents import contents_of
from bayesens.inference.fit_words import facts
from bayesens.tables.atomic import file_name

__all__ = ["posterior", "posterior_table"]

QUANTILES = (0.05, 0.5, 0.95)


def posterior(results: StudyResults) -> Section:
    """Weights and biases of the members in the fits to all rows, and how these went."""
    sampled = {name: tree["posterior"].to_dataset() for name, tree in results.fits.items()
               if not int(tree.attrs["point_estimate"])}  # fmt: skip
    weighted = {name: one for name, one in sampled.items() if _estimated(one)}
    biased = {name: one for name, one in sampled.items() if "bias" in one}
    table = posterior_table(results.fits)
    parts: list[Any] = [
        f"These fits are to all {results.ensemble.n_observed:,} observed rows, with members that have not seen them; no score in "
        "this report is theirs. "
        "Intervals are the posterior's, which takes rows as independent given the model: where errors of a station last for "
        "days or stations err together, they are too short, and the scores above are the safer guide.",
    ]
    if weighted:
        parts.append(_forest("weights", plots.weights, weighted, "Weights of the members: medians with 50 and 90 % intervals. "
                             + _of_weights(weighted), "Forest of posterior weights by member and model."))  # fmt: skip
    if biased:
        parts.append(_forest("biases", partial(plots.biases, units=results.units), biased, "Biases of the members, member minus "
                             "observation, at the centre of the data: medians with 50 and 90 % intervals.",
                             "Forest of posterior biases by member and model."))  # fmt: skip
    parts += _source_biases(sampled, results.units)
    if len(table):  # climatology alone says nothing of members
        parts.append(sheet("posterior", table, "Posterior of weights, biases, slopes and scales by member.",
                           "A bias is member minus observation. A linear weight need not be positive.",
                           shown=_shown(table), heads=3))  # fmt: skip
    parts.append(_convergence(results))
    parts += [Note(f"{name}: {text}", "caution") for name, texts in results.warned.items() for text in texts]
    return Section("What the fits say of the members", tuple(parts), "posterior")


def posterior_table(fits: Mapping[str, xr.DataTree]) -> pd.DataFrame:
    """Mean, sd and quantiles of everything that stands by member, and by a group or site (``level``), one line each."""
    lines = []
    for model, tree in fits.items():
        for name, draws in tree["posterior"].to_dataset().data_vars.items():
            rest = [str(dim) for dim in draws.dims if dim not in ("chain", "draw", "member")]
            if "member" in draws.dims and "member_" not in rest and len(rest) <= 1:
                lines += list(_lines(model, str(name), draws, rest))
    columns = ["model", "parameter", "member", "level", "mean", "sd", "q05", "q50", "q95"]
    return pd.DataFrame(lines, columns=columns)


def _lines(model: str, name: str, draws: xr.DataArray, rest: list[str]) -> Iterator[tuple[Any, ...]]:
    stacked = draws.stack(sample=("chain", "draw"))
    for member in draws["member"].values:
        own = stacked.sel(member=member)
        for level in draws[rest[0]].values if rest else [None]:
            values = (own if level is None else own.sel({rest[0]: level})).values
            label = "" if level is None else str(level)
            yield model, name, str(member), label, values.mean(), values.std(), *np.quantile(values, QUANTILES)


def _shown(table: pd.DataFrame) -> pd.DataFrame:
    """A row a parameter, a column a member: the median with its interval, digits as the intervals of the row ask for."""
    lines = table[table["level"] == ""]
    parts = []
    for _, part in lines.groupby(["model", "parameter"], sort=False):
        widths = (part["q95"] - part["q05"]).to_numpy()
        size = widths if (widths > 0).any() else part["q50"].to_numpy() / 10.0  # a point estimate: three digits
        digits = _digits(size)
        ends = part[["q50", "q05", "q95"]].to_numpy()
        parts.append(part.assign(value=[_with_ends(*each, digits=digits) for each in ends]))
    wide = pd.concat(parts).pivot(index=["model", "parameter"], columns="member", values="value")
    order = lines[["model", "parameter"]].drop_duplicates()
    wide = wide.loc[list(order.itertuples(index=False, name=None)), lines["member"].unique()]
    return with_labels(wide.fillna(""), "member")


def _digits(sizes: np.ndarray) -> int:
    """Decimals that give the median size two digits."""
    size = float(np.median(np.abs(sizes[sizes != 0]))) if (sizes != 0).any() else 1.0
    return int(np.clip(1 - np.floor(np.log10(size)), 0, 8))


def _with_ends(middle: float, low: float, high: float, *, digits: int) -> str:
    text = f"{middle:z.{digits}f}" + ("" if low == high else f" ({low:z.{digits}f} to {high:z.{digits}f})")
    return text.replace("-", "\N{MINUS SIGN}")


def _estimated(draws: xr.Dataset) -> bool:
    """Whether weights were learnt: those that a model fixes, equal ones or one of a single member, say nothing of the members."""
    name = next((name for name in ("weight", "linear_weight") if name in draws), None)
    return name is not None and bool((draws[name].std(("chain", "draw")) > 0.0).any())


def _forest(name: str, plot: Callable[..., Any], draws: Mapping[str, xr.Dataset], caption: str, alt: str) -> Figure:
    """Members down, models beside each other."""
    members = len(next(iter(draws.values()))["member"])
    return drawing(name, partial(plot, draws), caption, alt, size=(5.4, 1.1 + (0.2 + 0.2 * len(draws)) * members))


def _of_weights(weighted: Mapping[str, xr.Dataset]) -> str:
    """What the weights that are drawn mean."""
    shares = [name for name, one in weighted.items() if "weight" in one]
    linear = [name for name, one in weighted.items() if "weight" not in one]
    meaning = "weights of the linear combination that the model implies, which may be negative"
    said = ((shares, "shares that sum to one"), (linear, meaning))
    text = "; ".join(f"{' and '.join(names)}: {text}" for names, text in said if names) + "."
    moved = [name for name, one in weighted.items() if "weight_slope" in one]
    return text + (
        f" Those of {' and '.join(moved)} are at the means of the covariates that they follow." if moved else ""
    )


def _source_biases(sampled: Mapping[str, xr.Dataset], units: str) -> Iterator[Figure]:
    for name, one in sampled.items():
        if "bias_group" in one:
            yield drawing(f"source_biases_{file_name(name)}", partial(plots.source_biases, one, units=units),
                          f"Biases of the members in every group, as {name} has them: medians with 50 and 90 % intervals.",
                          f"Forest of the biases of each member in each group by {name}.",
                          size=(5.6, 1.2 + 0.2 * one.sizes["member"] * one.sizes["group"]))  # fmt: skip


def _convergence(results: StudyResults) -> Table:
    lines = []
    for name, tree in results.fits.items():
        found = facts(contents_of(tree))
        lines.append({"model": name, "method": found["method"], "converged": found["converged"], "seconds": found["seconds"],
                      "options": found.get("options", "")})  # fmt: skip
    return sheet("convergence", pd.DataFrame(lines), "What ran, and whether it converged.")
