"""What `dependence` found as one tidy table, and as one paragraph of words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

__all__ = ["dependence_table", "dependence_words"]

MEAN = "mean correlation"


def dependence_table(result: xr.Dataset) -> pd.DataFrame:
    """All numbers of `dependence`, one a line.

    Parameters
    ----------
    result : Dataset
        From `dependence`.

    Returns
    -------
    DataFrame
        ``measure, group, part, member, other, kind, value, low, high, n, stations, how``; a pair of members once; ``n`` is
        the rows of a pair, or of a member.

    Examples
    --------
    >>> from bayesens.ensemble.ensemble import Ensemble
    >>> from bayesens.comparison.errors.dependence import dependence
    >>> frame = pd.DataFrame({"a": [1.0, 2.0, 4.0], "b": [3.0, 1.0, 1.0], "y": [0.0, 0.0, 2.0]})
    >>> table = dependence_table(dependence(Ensemble.from_frame(frame, members=["a", "b"], observation="y")))
    >>> table.iloc[0][["measure", "member", "other"]].tolist()
    ['error_correlation', 'a', 'b']
    """
    return pd.DataFrame(list(_lines(result))).astype({"n": "Int64"})


def _lines(result: xr.Dataset) -> Iterator[dict[str, Any]]:
    stations = dict(zip(result["group"].values.tolist(), result["stations"].values.tolist(), strict=True))
    how = dict(zip(stations, result["how"].values.tolist(), strict=True))
    rows = dict(zip(stations, result["count"].values, strict=True))
    for name in [str(name) for name in result.data_vars if f"{name}_low" in result]:
        dims = [str(dim) for dim in result[name].dims]
        names = {dim: result[dim].values.tolist() for dim in dims}
        ends = [result[name + end].transpose(*dims).values for end in ("", "_low", "_high")]
        for index in np.ndindex(*ends[0].shape):
            at = dict(zip(dims, index, strict=True))
            if "member_" in at and at["member_"] <= at["member"]:
                continue
            label = {dim: names[dim][i] for dim, i in at.items()}
            group, k = label.get("group", "all"), at.get("member")
            value, low, high = (float(end[index]) for end in ends)
            yield {
                "measure": name, "group": group, "part": label.get("part", ""), "member": label.get("member", ""),
                "other": label.get("member_", ""), "kind": str(label.get("kind", label.get("rank", ""))), "value": value,
                "low": low, "high": high, "n": None if k is None else int(rows[group][k, at.get("member_", k)]),
                "stations": int(stations[group]), "how": "posterior" if name.startswith("posterior") else how[group],
            }  # fmt: skip


def dependence_words(result: xr.Dataset) -> str:
    """One paragraph that says what `dependence` found, and what it does not mean.

    Parameters
    ----------
    result : Dataset
        From `dependence`.

    Returns
    -------
    str

    Examples
    --------
    >>> from bayesens.ensemble.ensemble import Ensemble
    >>> from bayesens.comparison.errors.dependence import dependence
    >>> frame = pd.DataFrame({"a": [1.0, 2.0, 4.0], "b": [3.0, 1.0, 1.0], "y": [0.0, 0.0, 2.0]})
    >>> dependence_words(dependence(Ensemble.from_frame(frame, members=["a", "b"], observation="y")))[:70]
    'The errors (member minus observation) of two members correlate by -0.8'
    """
    one = result.sel(group="all", part="total")
    r = one["error_correlation"].values[np.triu_indices(result.sizes["member"], 1)]
    r = r[np.isfinite(r)]
    notes = " ".join(json.loads(result.attrs["notes"]))
    if not len(r):
        return f"No two members have errors that vary over the same rows, so there is no correlation. {notes}".strip()
    span = f"{r.min():.2f} to {r.max():.2f}" if len(r) > 1 else f"{r[0]:.2f}"
    text = f"The errors (member minus observation) of two members correlate by {span}"
    if "within" in result["part"]:
        mean = result["mean_correlation"].sel(group="all")
        said = [
            f"{float(mean.sel(part=p)):.2f} {p} stations"
            for p in ("within", "between")
            if np.isfinite(mean.sel(part=p))
        ]
        text += f" (on average {' and '.join(said)})" if said else ""
    outputs = one["output_correlation"].values[np.triu_indices(result.sizes["member"], 1)]
    if np.isfinite(outputs).any():
        text += (f"; the members themselves by {np.nanmin(outputs):.2f} to {np.nanmax(outputs):.2f}, which they would in "
                 "part with independent errors, for they follow one truth")  # fmt: skip
    k, low, high = (float(one[f"k_eff{end}"].sel(kind=MEAN)) for end in ("", "_low", "_high"))
    if np.isfinite(k):
        ends = f" ({100 * result.attrs['level']:.0f} % interval {low:.2f} to {high:.2f})" if np.isfinite(low) else ""
        text += f". An average of the {result.sizes['member']} members is worth {k:.2f}{ends} with independent errors"
    text += ("." + _said_of_bound(result) + " Correlated members do not break BMA: its likelihood has no assumption that they "
             "are independent. What dependence costs is information: members that err together count for less than their "
             "number, and weights of near twins are loose. Models that average linearly, as HBM, can use it; whether it helps "
             "is what the scores say.")  # fmt: skip
    return f"{text} {notes}".strip()


def _said_of_bound(result: xr.Dataset) -> str:
    k = result["assumed_k_eff"].values
    bound = float(result["observation_error_bound"])
    possible = np.isfinite(k)
    if not possible.any() or not np.isfinite(bound):
        return ""
    last = int(np.flatnonzero(possible)[-1])
    units = f" {result.attrs['units']}" if result.attrs["units"] else ""
    return (f" Part of this is the observations' own error, common to all members: how much, these data cannot say; were its "
            f"standard deviation {result['observation_error'].values[last]:.3g}{units} ({_limit(result, last, bound)}), the "
            f"number would be {k[last]:.2f}.")  # fmt: skip


def _limit(result: xr.Dataset, last: int, bound: float) -> str:
    """What stops the assumed error: its bound, or errors of members that would correlate negatively."""
    if last == result.sizes["observation_error"] - 1 or np.isnan(result["assumed_correlation"].values[last + 1]).all():
        return f"the largest possible is {bound:.3g}"
    return (
        f"the largest of those tried with which no two members' errors correlate negatively; none is above {bound:.3g}"
    )
