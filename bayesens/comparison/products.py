"""Products beside the models of a comparison: as they are, and corrected with an error, so that both are compared fairly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bayesens.comparison.folds.held_out_rows import Split
from bayesens.ensemble.ensemble import Ensemble
from bayesens.messages import listed, warn
from bayesens.tables.missing_codes import NONE, Missing, check_codes, clear_codes
from bayesens.tables.unit_checks import unit_words, warn_units

__all__ = [
    "Dressed",
    "DressedHere",
    "checked_column",
    "checked_products",
    "dressed_products",
    "warn_other_units",
    "with_member",
]

CORRECTED = ", corrected"  # after the name of a product that has been corrected and dressed


@dataclass(frozen=True, eq=False)
class Dressed:
    """A product as the one member of a model, so that it is compared as the models are: corrected, and with an error."""

    name: str
    values: NDArray[np.float64]

    def at(self, part: Split) -> DressedHere:
        """In the rows of one fold."""
        return DressedHere(self.name, self.values[part.train], self.values[part.test])


@dataclass(frozen=True, eq=False)
class DressedHere:
    """The same in the rows of one fold."""

    name: str
    train: NDArray[np.float64]
    test: NDArray[np.float64]


def with_member(table: Ensemble, name: str, values: NDArray[np.float64]) -> Ensemble:
    """The same rows with a product in place of the members."""
    rest = table.dataset.drop_vars(["prediction", "member"])
    units = table.dataset["prediction"].attrs.get("units")
    prediction = ("obs", "member"), values[:, None], {"units": units} if units else {}
    return Ensemble(rest.assign(prediction=prediction).assign_coords(member=np.array([name])))


def dressed_products(points: Mapping[str, NDArray[np.float64]], models: Mapping[str, Any]) -> dict[str, Dressed]:
    """Products as models under names of their own, which no model may have."""
    found = {f"{name}{CORRECTED}": Dressed(name, values) for name, values in points.items()}
    if both := sorted(set(models) & set(found)):
        raise ValueError(
            f"{listed(both)} is the name of a model, and compare gives it to a corrected product; rename the model"
        )
    return found


def checked_products(
    products: Mapping[str, ArrayLike], table: Ensemble, missing: Missing
) -> dict[str, NDArray[np.float64]]:
    """Return products as numbers, one for each row, without codes for missing values."""
    points = {name: np.array(values, dtype=np.float64) for name, values in products.items()}
    for name, values in points.items():
        checked_column(values, len(table), f"product {name!r}")
    clear_codes(points, missing)
    beside = {"the observation": table.require_observation()} if points else {}
    check_codes(points | beside, dict.fromkeys([*points, *beside], "measured"),
                (dict(missing) if isinstance(missing, Mapping) else dict.fromkeys(points, missing)) | dict.fromkeys(beside, NONE),
                what="product")  # fmt: skip
    return points


def warn_other_units(table: Ensemble, points: Mapping[str, NDArray[np.float64]]) -> None:
    """Say once, before the folds, which members and products look as if they were in another unit."""
    y, name = table.require_observation(), table.columns["observation"]
    warn_units(table.prediction, y, table.members, name)
    for product, values in points.items():
        if text := unit_words(values, y, product, name, product=True):
            warn(text)


def checked_column(values: ArrayLike, rows: int, name: str) -> NDArray[np.float64]:
    """Return numbers, one for each row."""
    column = np.asarray(values, dtype=np.float64)
    if column.shape != (rows,):
        raise ValueError(f"{name} has the shape {column.shape}; wanted one value for each of the {rows} rows")
    return column
