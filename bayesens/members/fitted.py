"""Fitted members: each estimator fitted to some rows, region by region, and what predicts new places."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from zlib import crc32

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from bayesens.console import progress
from bayesens.members.covariates import check_new
from bayesens.members.files import read_members, write_members
from bayesens.members.regions import Regions
from bayesens.members.training_table import TrainingTable
from bayesens.tables.missing_codes import Missing

__all__ = ["FittedMembers", "Job", "MemberError", "entropy", "run", "seed_of"]


class MemberError(RuntimeError):
    """A member could not be fitted or predicted; the text names it, the fold and the region."""


@dataclass(frozen=True, eq=False)
class FittedMembers:
    """Members fitted to all training rows: they predict new stations and maps, and are saved without pickle.

    Attributes
    ----------
    fits : dict of member to dict of region to fitted regressor
        The region ``""`` is the fit to all regions.
    covariates, products : tuple of str
        Columns that `predict` wants.
    regions : Regions
    units : str

    Examples
    --------
    >>> from sklearn.linear_model import LinearRegression
    >>> from bayesens.members.members import Members
    >>> X = pd.DataFrame({"rain": [0.0, 1.0, 2.0]})
    >>> members = Members({"mlr": LinearRegression()}, X, [0.1, 0.2, 0.3], site=["a", "b", "c"])
    >>> members.fit(progressbar=False).predict(pd.DataFrame({"rain": [5.0]})).round(3)
       mlr
    0  0.6
    """

    fits: dict[str, dict[str, Any]]
    covariates: tuple[str, ...]
    products: tuple[str, ...]
    regions: Regions
    units: str = ""

    def predict(
        self,
        X: pd.DataFrame,
        *,
        region: ArrayLike | str | None = None,
        membership: pd.DataFrame | None = None,
        lon: ArrayLike | str | None = None,
        lat: ArrayLike | str | None = None,
        missing: Missing = None,
    ) -> pd.DataFrame:
        """Predict rows of any place.

        Parameters
        ----------
        X : pandas.DataFrame (row, covariate)
            The covariates and products that were learnt from, in any order; other columns are passed over.
        region : array_like (row) or str, optional
            Labels, or their column in `X`; an unknown one takes the fit to all regions.
        membership : pandas.DataFrame (row, region), optional
            In place of labels: rows sum to one.
        lon, lat : array_like (row) or str, optional
            Degrees; needed where regions are blended.
        missing : optional
            Codes for missing values in the columns of `X`, as in `Ensemble.from_frame`.

        Returns
        -------
        pandas.DataFrame (row, member)
            With the index of `X`; NaN in rows without any covariate.

        Raises
        ------
        KeyError, TypeError, ValueError
            Columns that are not there, labels or places that are needed and not given, values that look like codes for missing
            ones.
        MemberError
        """
        places = {"region": region, "membership": membership, "lon": lon, "lat": lat}
        table, product, where = check_new(X, self.covariates, self.products, self.regions, places, missing)
        weight = self.regions.weight(len(X), **where)
        found = {name: blended(fits, name, table, weight, self.regions.names, "") for name, fits in self.fits.items()}
        return pd.DataFrame(found | product, index=X.index)

    def save(self, folder: str | Path, *, trusted: Iterable[str] = ()) -> None:
        """Write the members into a new or empty folder: skops for the estimators, JSON for the rest.

        Parameters
        ----------
        folder : path
        trusted : iterable of str
            Full names of your own types, such as ``"mypackage.MyRegressor"``; scikit-learn's and xgboost's need none.

        Raises
        ------
        FileExistsError, TypeError
        """
        facts = {"covariates": self.covariates, "products": self.products, "units": self.units}
        write_members(folder, self.fits, facts | {"regions": self.regions.to_json()}, trusted=trusted)

    @classmethod
    def load(cls, folder: str | Path, *, trusted: Iterable[str] = ()) -> Self:
        """Read the members that `save` wrote; a type that is not trusted is refused by name.

        Parameters
        ----------
        folder : path
        trusted : iterable of str
            As in `save`.

        Returns
        -------
        FittedMembers

        Raises
        ------
        FileNotFoundError, TypeError
        """
        fits, facts = read_members(folder, trusted=trusted)
        regions = Regions.from_json(facts["regions"])
        return cls(fits, tuple(facts["covariates"]), tuple(facts["products"]), regions, facts["units"])


# One member ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Job:
    """One member to be fitted to some rows, region by region."""

    estimator: Any
    rows: TrainingTable
    name: str
    train: NDArray[np.int64]
    regions: Regions
    fold: str
    seed: int

    def fitted(self, columns: Iterable[int]) -> dict[str, Any]:
        """The fits of some columns of the regions' weights, the last of which is the pooled fit."""
        return {name: self._fit(name) for name in ([*self.regions.names, ""][k] for k in columns)}

    def predicted(self, test: NDArray[np.int64]) -> NDArray[np.float64]:
        """Fit what the test rows need, and predict them."""
        rows = self.rows
        weight = self.regions.weight(len(test), **rows.where(test))
        fits = self.fitted(np.flatnonzero((weight > 0).any(axis=0)))
        return blended(fits, self.name, rows.X.iloc[test], weight, self.regions.names, self.fold)

    def _fit(self, region: str) -> Any:
        from bayesens.members.estimators import seeded

        rows = self.rows
        train = self.train[rows.region[self.train] == region] if region and rows.region is not None else self.train
        X, y = rows.X.iloc[train], rows.y[train]
        with _named(self.name, self.fold, region, X):
            made = seeded(self.estimator, seed_of(self.seed, region, ""))
            return made.fit(X, y, **({"groups": rows.site[train]} if _wants_groups(made) else {}))


def _wants_groups(estimator: Any) -> bool:
    """Whether ``fit`` takes the stations: named in its signature, or a search over folds of groups."""
    from sklearn import model_selection as ms
    from sklearn.utils.validation import has_fit_parameter

    by_group = (ms.GroupKFold, ms.GroupShuffleSplit, ms.LeaveOneGroupOut, ms.LeavePGroupsOut, ms.StratifiedGroupKFold)
    search = isinstance(estimator, (ms.GridSearchCV, ms.RandomizedSearchCV)) and isinstance(estimator.cv, by_group)
    return search or has_fit_parameter(estimator, "groups")


def blended(
    fits: Mapping[str, Any],
    member: str,
    X: pd.DataFrame,
    weight: NDArray[np.float64],
    regions: tuple[str, ...],
    fold: str,
) -> NDArray[np.float64]:
    """Predictions of the regions' fits, weighted; NaN in rows without any covariate."""
    bare = X.isna().to_numpy().all(axis=1)
    found = np.where(bare, np.nan, 0.0)
    for k, region in enumerate([*regions, ""]):
        rows = np.flatnonzero((weight[:, k] > 0) & ~bare)
        if len(rows):
            with _named(member, fold, region, X):
                found[rows] += weight[rows, k] * _checked(fits[region].predict(X.iloc[rows]), len(rows))
    return found


def _checked(values: Any, n_rows: int) -> NDArray[np.float64]:
    prediction = np.asarray(values, dtype=np.float64)
    if prediction.shape not in {(n_rows,), (n_rows, 1)}:
        raise ValueError(f"predict returned the shape {prediction.shape}; wanted ({n_rows},)")
    if not np.isfinite(prediction).all():
        raise ValueError(
            f"predict returned {int((~np.isfinite(prediction)).sum())} values of {n_rows} that are not finite"
        )
    return prediction.reshape(n_rows)


@contextmanager
def _named(member: str, fold: str, region: str, X: pd.DataFrame) -> Iterator[None]:
    """Say of an estimator's error which member, fold and region it came from."""
    try:
        yield
    except Exception as error:
        where = ", ".join([fold or "the fit to all rows", *([f"region {region!r}"] if region else [])])
        hint = ""
        if isinstance(error, ValueError) and "NaN" in str(error) and X.isna().to_numpy().any():
            hint = (
                "; covariates are missing: put sklearn.impute.SimpleImputer(add_indicator=True) before it in a pipeline"
            )
        text = f"member {member!r} failed in {where} ({len(X)} rows): {type(error).__name__}: {error}{hint}"
        raise MemberError(text) from error


def entropy(random_seed: int | None) -> int:
    """Return the seed given, or a fresh one."""
    return int(np.random.SeedSequence(random_seed).generate_state(1)[0]) if random_seed is None else int(random_seed)


def seed_of(base: int, name: str, fold: str) -> int:
    """A seed of its own for every member, fold and region, whatever runs before or beside it."""
    return int(np.random.SeedSequence([base, crc32(name.encode()), crc32(fold.encode())]).generate_state(1)[0])


def run[T](jobs: Sequence[Callable[[], T]], text: str, n_jobs: int, progressbar: bool) -> list[T]:
    """Run jobs in threads (forests, boosted trees and support vectors let go of the interpreter), results in order."""
    from joblib import Parallel, delayed

    work = Parallel(n_jobs=n_jobs, backend="threading", return_as="generator")(delayed(job)() for job in jobs)
    done = []
    with progress(len(jobs), text, progressbar) as advance:
        for result in work:
            done.append(result)
            advance()
    return done
