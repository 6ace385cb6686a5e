"""What the fits to all rows say of the members: weights, biases, convergence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from bayesens.atomic import file_name
from bayesens.chapters.chapter import Chapter, Drawing, Remark, Sheet, figure
from bayesens.fit_summary import facts
from bayesens.study_results import StudyResults

__all__ = ["posterior", "posterior_table"]

QUANTILES = (0.05, 0.5, 0.95)


def posterior(results: StudyResults) -> Chapter:
    """Write the chapter.

    Parameters
    ----------
    results : StudyResults

    Returns
    -------
    Chapter
    """
    sampled = {name: tree["posterior"].to_dataset() for name, tree in results.fits.items()
               if not int(tree.attrs["point_estimate"])}  # fmt: skip
    weighted = {name: one for name, one in sampled.items() if "weight" in one or "linear_weight" in one}
    biased = {name: one for name, one in sampled.items() if "bias" in one}
    table = posterior_table(results.fits)
    parts: list[Any] = [
        "These fits are to all observed rows, with members that have not seen them; no score in this report is theirs. "
        "Intervals are the posterior's, which takes rows as independent given the model: where errors of a station last for "
        "days or stations err together, they are too short, and the scores above are the safer guide.",
    ]
    if weighted:
        parts.append(_weights(weighted))
    if biased:
        parts.append(_biases(biased, results.units))
    parts += list(_source_biases(sampled, results.units))
    parts.append(Sheet("posterior", table, "Posterior of weights, biases, slopes and scales by member.",
                       "A bias is member minus observation. Linear weights of HBM need not be positive.",
                       shown=_shown(table), heads=3))  # fmt: skip
    parts.append(_convergence(results))
    parts += [Remark(f"{name}: {text}", "caution") for name, texts in results.warned.items() for text in texts]
    return Chapter("What the fits say of the members", tuple(parts), "posterior")


def posterior_table(fits: Mapping[str, xr.DataTree]) -> pd.DataFrame:
    """Mean, sd and quantiles of everything that stands by member, one line each.

    Parameters
    ----------
    fits : mapping of name to DataTree

    Returns
    -------
    DataFrame
        ``model``, ``parameter``, ``member``, ``level`` (group or site, if any), ``mean``, ``sd``, ``q05``, ``q50``, ``q95``.
    """
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
            low, middle, high = np.quantile(values, QUANTILES)
            yield (
                model,
                name,
                str(member),
                "" if level is None else str(level),
                values.mean(),
                values.std(),
                low,
                middle,
                high,
            )


def _shown(table: pd.DataFrame) -> pd.DataFrame:
    lines = table[table["level"] == ""]
    value = [f"{m:.3g}" if a == b else f"{m:.3g} [{a:.3g}, {b:.3g}]"
             for m, a, b in zip(lines["q50"], lines["q05"], lines["q95"], strict=True)]  # fmt: skip
    wide = lines.assign(value=value).pivot(index=["model", "parameter"], columns="member", values="value")
    order = lines[["model", "parameter"]].drop_duplicates()
    return wide.loc[list(order.itertuples(index=False, name=None)), lines["member"].unique()].fillna("").reset_index()


def _weights(weighted: Mapping[str, xr.Dataset]) -> Drawing:
    members = len(next(iter(weighted.values()))["member"])

    def draw() -> Any:
        from bayesens import plots

        made, ax = figure(5.4, 1.1 + (0.2 + 0.2 * len(weighted)) * members)
        plots.weights(weighted, ax=ax)
        return made

    return Drawing("weights", draw, "Weights of the members: medians with 50 and 90 % intervals. BMA's sum to one; HBM's "
                   "are those of the linear combination that follows from "
                   "it.", "Forest of posterior weights by member and model.")  # fmt: skip


def _biases(biased: Mapping[str, xr.Dataset], units: str) -> Drawing:
    members = len(next(iter(biased.values()))["member"])

    def draw() -> Any:
        from bayesens import plots

        made, ax = figure(5.4, 1.1 + (0.2 + 0.2 * len(biased)) * members)
        plots.biases(biased, units=units, ax=ax)
        return made

    return Drawing("biases", draw, "Biases of the members, member minus observation, at the centre of the data: medians "
                   "with 50 and 90 % intervals.", "Forest of posterior biases by member and model.")  # fmt: skip


def _source_biases(sampled: Mapping[str, xr.Dataset], units: str) -> Iterator[Drawing]:
    for name, one in sampled.items():
        if "bias_group" not in one:
            continue

        def draw(one: xr.Dataset = one) -> Any:
            from bayesens import plots

            rows = one.sizes["member"] * one.sizes["group"]
            made, ax = figure(5.6, 1.2 + 0.2 * rows)
            plots.source_biases(one, units=units, ax=ax)
            return made

        yield Drawing(f"source_biases_{file_name(name)}", draw,
                      f"Biases of the members in every group, as {name} has them: medians with 50 and 90 % intervals.",
                      f"Forest of the biases of each member in each group by {name}.")  # fmt: skip


def _convergence(results: StudyResults) -> Sheet:
    lines = []
    for name, tree in results.fits.items():
        found = facts(tree)
        lines.append({"model": name, "method": found["method"], "converged": found["converged"], "seconds": found["seconds"],
                      "options": found.get("options", "")})  # fmt: skip
    return Sheet("convergence", pd.DataFrame(lines), "What ran, and whether it converged.")
