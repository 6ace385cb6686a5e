"""What `bayesens predict` writes beside a prediction, and how `bayesens score` knows the rows of the fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from bayesens.app.cli.twice import OF_THE_DAY
from bayesens.app.result_tables import prediction_table
from bayesens.distributions.levels.recalibration import Recalibration
from bayesens.ensemble.ensemble import Ensemble
from bayesens.inference.fit_tree import check_training_rows
from bayesens.members.day.chain import NAME
from bayesens.messages import listed, warn
from bayesens.models import KINDS

__all__ = ["recalibration_of", "seen_words", "with_input"]

LEAST_SEEN = 0.1  # share of rows that are the fit's own from which a score is not what it is taken for
LEAST_TOLD_APART = (
    0.9  # share of the fit's rows that no other one is equal to; counts of small numbers are not told apart
)


def with_input(
    prediction: xr.Dataset, rows: Ensemble, table: pd.DataFrame | xr.Dataset, *, dataset: bool
) -> pd.DataFrame | xr.Dataset:
    """Put the columns of the input beside its prediction, so that written rows can be told and joined.

    Of a dataset, whose cells became rows, labels, times and places are kept. `dataset`: whether a dataset is wanted, for a file
    that holds one. A column that has the name of a predicted one is called ``input_...``, and a warning names it.

    Examples
    --------
    >>> table = pd.DataFrame({"rf": [1.0], "id": ["a7"]})
    >>> rows = Ensemble.from_frame(table, members=["rf"])
    >>> with_input(xr.Dataset({"mean": ("obs", [2.0])}), rows, table, dataset=False).to_dict("records")
    [{'rf': 1.0, 'id': 'a7', 'mean': 2.0}]
    """
    if isinstance(table, xr.Dataset):
        return prediction if dataset else prediction_table(prediction, rows)
    made = prediction_table(prediction, rows).drop(columns=list(_keys(rows)))
    own = {str(name) for name in (*prediction.variables, *prediction.dims)} if dataset else set(made.columns)
    kept = [name for name in table.columns if not (dataset and name in own and name in rows.columns.values())]
    twice = [name for name in kept if name in own]
    renamed = {name: f"input_{name}" for name in twice}
    if again := [name for name in renamed.values() if name in table.columns]:
        raise ValueError(
            f"the input has columns {listed(twice)}, which the prediction has too, and {listed(again)}; rename them"
        )
    if twice:
        warn(
            f"the input has columns {listed(twice)}, which the prediction has too; they are written as {listed(renamed.values())}"
        )
    frame = table[kept].rename(columns=renamed).reset_index(drop=True)
    if not dataset:
        return pd.concat([frame, made.reset_index(drop=True)], axis=1)
    return prediction.assign({name: ("obs", _plain(frame[name])) for name in frame.columns})


def _keys(rows: Ensemble) -> list[str]:
    return [name for role, name in rows.columns.items() if role != "observation"]


def _plain(column: pd.Series) -> Any:
    """Values as a NetCDF file takes them."""
    if pd.api.types.is_numeric_dtype(column) or pd.api.types.is_datetime64_dtype(column):
        return column.to_numpy()
    return column.astype(object).where(column.notna(), "").astype(str).to_numpy(dtype=np.str_)


def recalibration_of(path: Path, tree: xr.DataTree) -> Recalibration:
    """Read a map of levels, and refuse that of another kind of model than the fit's."""
    found, kind = Recalibration.load(path), str(tree.attrs["bayesens_model"])
    name = found.model.removesuffix(OF_THE_DAY)
    if name in KINDS.values() and name != kind:
        raise ValueError(
            f"{path} recalibrates {name}, and the fit is of {kind}, whose errors are others; wanted the map of {kind}"
        )
    if name != found.model and NAME not in json.loads(tree.attrs["bayesens_members"]):
        raise ValueError(
            f"{path} recalibrates {found.model}, and the fit is not told the day; wanted the map of the model without neighbours"
        )
    return found


def seen_words(tree: xr.DataTree, rows: Ensemble) -> str:
    """Say how many of some rows the fit has learnt from; nothing where none, or hardly any, is known to be.

    Examples
    --------
    >>> import bayesens as be
    >>> table = pd.DataFrame({"a": [1.0, 2.0, 3.0, 4.0, 5.0], "y": [1.5, 1.5, 3.5, 4.5, 4.0]})
    >>> ens = be.Ensemble.from_frame(table, members=["a"], observation="y")
    >>> print(seen_words(be.fit(be.SingleMember(bias="none"), ens, method="em"), ens))
    5 of 5 rows are rows that the fit was made from, so that their scores are too good; score rows that it has not seen, or
    compare models on rows held out.
    """
    number, of = _seen(tree, rows)
    if not number or number < LEAST_SEEN * of:
        return ""
    return (f"{number} of {of} rows are rows that the fit was made from, so that their scores are too good; score rows that it "
            "has not seen, or compare models on rows held out.")  # fmt: skip


def _seen(tree: xr.DataTree, rows: Ensemble) -> tuple[int, int]:
    """How many observed rows are rows of the fit, and how many there are."""
    of = rows.n_observed
    if not of:
        return 0, 0
    if "observed_data" not in tree.children or "constant_data" not in tree.children:
        try:
            check_training_rows(tree, rows)
        except ValueError:
            return 0, of
        return of, of
    theirs = tree["constant_data"].to_dataset().assign(y=tree["observed_data"]["y"])
    mine = rows.select(rows=rows.observed).dataset.rename(observation="y")
    members = [name for name in theirs["member"].values if name in mine["member"].values]
    labels = [name for name in ("site", "group", "time") if name in theirs.variables and name in mine.variables]
    known, asked = (_fingerprints(one.sel(member=members), labels) for one in (theirs, mine))
    single = known[~known.duplicated(keep=False)]
    if len(single) < LEAST_TOLD_APART * len(known):
        return 0, of
    return int(asked.isin(single).sum()), of


def _fingerprints(rows: xr.Dataset, labels: list[str]) -> pd.Series:
    """A number for each row, from its observation, predictions and labels; single precision forgets how a file wrote them."""
    parts = {"y": rows["y"].values} | {
        str(k): values for k, values in enumerate(rows["prediction"].transpose("member", "obs").values)
    }
    frame = pd.DataFrame({name: values.astype(np.float32) for name, values in parts.items()})
    text = {name: pd.Series(rows[name].values).astype(str) for name in labels}
    return pd.util.hash_pandas_object(frame.assign(**text), index=False)
