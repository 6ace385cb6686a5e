"""Predictions and scores as tables to print or to write."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr

from bayesens.ensemble.ensemble import Ensemble

__all__ = ["mean_scores", "prediction_table"]


def mean_scores(scores: xr.Dataset, *, by: str | None = None) -> pd.DataFrame:
    """Mean scores, as ``score`` gives them, over all rows, and over those of each group or site.

    Returns
    -------
    DataFrame
        Columns: the label, if asked; ``rows`` that have a prediction; ``crps``, ``rmse``, ``bias`` (mean minus
        observation) in units of the observations; ``log_score`` (mean of -log p(y | f)); and for each level the share
        ``coverage_90`` of observations inside the central interval, and its mean ``width_90``.

    Raises
    ------
    ValueError
        If the scored rows have no such labels.

    Examples
    --------
    >>> scores = xr.Dataset({name: ("obs", [1.0, 3.0]) for name in ("crps", "log_score", "error")})
    >>> scores = scores.assign(covered=(("level", "obs"), [[0, 1]]), width=(("level", "obs"), [[2.0, 4.0]]))
    >>> mean_scores(scores.assign_coords(level=[0.9])).round(3).to_dict("records")[0]
    {'rows': 2, 'crps': 2.0, 'log_score': 2.0, 'rmse': 2.236, 'bias': 2.0, 'coverage_90': 0.5, 'width_90': 3.0}
    """
    if by is None:
        return pd.DataFrame([_means(scores)])
    if by not in scores.coords:
        raise ValueError(f"the scored rows have no {by} labels; name their column with {by}=...")
    labels = scores[by].values
    lines = [{by: "all", **_means(scores)}]
    lines += [{by: str(label), **_means(scores.isel(obs=labels == label))} for label in np.unique(labels)]
    return pd.DataFrame(lines)


def _means(scores: xr.Dataset) -> dict[str, float]:
    out: dict[str, float] = {"rows": int(scores["crps"].count())}
    out |= {name: float(scores[name].mean()) for name in ("crps", "log_score")}
    out |= {"rmse": float(np.sqrt((scores["error"] ** 2).mean())), "bias": float(scores["error"].mean())}
    for level in scores["level"].values:
        at = scores.sel(level=level)
        out |= {_percent("coverage_", level): float(at["covered"].mean())}
        out |= {_percent("width_", level): float(at["width"].mean())}
    return out


def _percent(head: str, level: float) -> str:
    """Name of a level: q05, q50, q97.5."""
    whole, point, rest = f"{100 * float(level):.6g}".partition(".")
    return f"{head}{whole:0>2}{point}{rest}"


def prediction_table(prediction: xr.Dataset, ensemble: Ensemble) -> pd.DataFrame:
    """One line a row: what identifies it, under the user's own column names, then its mean, sd, and quantiles (``q05``).

    Examples
    --------
    >>> rows = Ensemble.from_frame(pd.DataFrame({"rf": [1.0], "station": ["a"]}), members=["rf"], site="station")
    >>> prediction = xr.Dataset({"mean": ("obs", [2.0]), "q": (("obs", "quantile"), [[1.5]])}, {"quantile": [0.05]})
    >>> prediction_table(prediction, rows).to_dict("records")
    [{'station': 'a', 'mean': 2.0, 'q05': 1.5}]
    """
    frame = ensemble.to_frame()[[name for role, name in ensemble.columns.items() if role != "observation"]]
    for name, values in prediction.data_vars.items():
        if values.dims == ("obs",):
            frame[str(name)] = values.values
        elif "quantile" in values.dims:
            for level in prediction["quantile"].values:
                frame[_percent("q", level)] = values.sel(quantile=level).values
    return frame
