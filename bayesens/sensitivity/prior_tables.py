"""A grid of priors as a table and in words."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import xarray as xr

__all__ = ["grid_table", "grid_words"]

NEGLIGIBLE_CRPS = 1.0  # percent of CRPS within which predictions are equal for practical purposes


def grid_table(result: xr.Dataset) -> pd.DataFrame:
    """The grid as a table, one point a line.

    Parameters
    ----------
    result : Dataset
        From `prior_grid`.

    Returns
    -------
    DataFrame
        All that stands on ``point``; ``weight[rf]`` and ``weight_sd[rf]`` by member; ``weight_moved``, the largest change of a
        mean weight from the base's, with ``most_moved``, its member.

    Examples
    --------
    >>> weight = ("point", "member"), [[0.6, 0.4], [0.5, 0.5]]
    >>> result = xr.Dataset({"weight_mean": weight, "weight_sd": weight, "how": ("point", ["base", "refit"])},
    ...                     {"point": ["base", "a = 1"], "member": ["rf", "mlr"]})
    >>> grid_table(result)[["point", "weight[rf]", "weight_moved"]].round(2).values.tolist()
    [['base', 0.6, 0.0], ['a = 1', 0.5, 0.1]]
    """
    flat = [str(name) for name, v in result.data_vars.items() if v.dims == ("point",)]
    table = result[flat].to_dataframe().reset_index()[["point", *flat]]
    if "weight_mean" in result:
        mean = result["weight_mean"].transpose("point", "member")
        for name, label in (("weight_mean", "weight"), ("weight_sd", "weight_sd")):
            values = result[name].transpose("point", "member").values
            for j, member in enumerate(mean["member"].values.tolist()):
                table[f"{label}[{member}]"] = values[:, j]
        moved = np.abs(mean.values - mean.values[0])
        there = np.isfinite(moved).all(axis=1)
        most = np.argmax(np.where(np.isfinite(moved), moved, -1.0), axis=1)
        table["weight_moved"] = np.where(there, np.max(np.where(np.isfinite(moved), moved, -1.0), axis=1), np.nan)
        table["most_moved"] = [str(mean["member"].values[j]) if ok else "" for j, ok in zip(most, there, strict=True)]
    table.attrs = dict(result.attrs)
    return table


def grid_words(result: xr.Dataset) -> str:
    """One paragraph: how far the priors move the weights, how far the predictions, and the difference from the other model.

    Parameters
    ----------
    result : Dataset
        From `prior_grid`.

    Returns
    -------
    str

    Examples
    --------
    >>> weight = ("point", "member"), [[0.6, 0.4], [0.5, 0.5]]
    >>> result = xr.Dataset({"weight_mean": weight, "weight_sd": weight, "how": ("point", ["base", "refit"])},
    ...                     {"point": ["base", "a = 1"], "member": ["rf", "mlr"]}, {"model": "BMA"})
    >>> print(grid_words(result))
    Over 1 other prior of BMA, mean weights move by up to 0.10 (rf, with a = 1; its posterior sd is 0.60).
    """
    table = grid_table(result)
    others = table.iloc[1:]
    count = f"{len(others)} other prior{'s' if len(others) != 1 else ''} of {result.attrs.get('model', 'the model')}"
    parts = []
    if "weight_moved" in table and others["weight_moved"].notna().any():
        line = others.iloc[int(np.nanargmax(others["weight_moved"]))]
        parts.append(f"mean weights move by up to {line['weight_moved']:.2f} ({line['most_moved']}, with {line['point']}; its "
                     f"posterior sd is {table.iloc[0]['weight_sd[' + line['most_moved'] + ']']:.2f})")  # fmt: skip
    if "crps_change" in table and others["crps_change"].notna().any():
        parts.append(_score_words(others))
    text = f"Over {count}, " + (", and ".join(parts) if parts else "nothing can be compared") + "."
    return " ".join([text, *_difference_words(table, result), *_failure_words(others)])


def _score_words(others: pd.DataFrame) -> str:
    line = others.iloc[int(np.nanargmax(others["crps_change"].abs()))]
    low, high = line["crps_change_low"], line["crps_change_high"]
    ends = f", interval {low:+.1f} to {high:+.1f}" if np.isfinite([low, high]).all() else ", no interval"
    coverage = float(np.nanmax(np.abs(others["coverage90_change"])))
    if abs(line["crps_change"]) < NEGLIGIBLE_CRPS:
        small = "which is too little to matter"
    else:
        small = "which counts" if low > 0.0 or high < 0.0 else "which these rows cannot tell from none"
    return (f"the CRPS of rows held out by up to {abs(line['crps_change']):.1f} % ({line['point']}: {line['crps_change']:+.1f} %"
            f"{ends}), {small}; the coverage of 90 % intervals by up to {100 * coverage:.1f} points")  # fmt: skip


def _difference_words(table: pd.DataFrame, result: xr.Dataset) -> Iterator[str]:
    if "difference" not in table or not table["difference"].notna().any():
        return
    found = table["difference"].dropna()
    base = table.iloc[0]["difference"]
    low, high = found.min(), found.max()
    turned = "the sign of the difference depends on the prior" if low < 0.0 < high else "its sign holds throughout"
    yield (f"The CRPS of {result.attrs['model']} differs from that of {result.attrs['against']} by {base:+.1f} % with the base "
           f"priors, and by {low:+.1f} to {high:+.1f} % over the grid: {turned}.")  # fmt: skip


def _failure_words(others: pd.DataFrame) -> Iterator[str]:
    if "failed" in others and (bad := others[others["failed"] != ""])["point"].size:
        yield f"{len(bad)} failed and say nothing: {', '.join(bad['point'])}."
    if "warned" in others and (bad := others[others["warned"].str.contains("not converged")])["point"].size:
        yield f"{len(bad)} did not converge, and their weights should not be believed: {', '.join(bad['point'])}."
