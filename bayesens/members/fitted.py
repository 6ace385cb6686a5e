"""Fitted members: each estimator fitted to some rows, region by region, and what predicts new places."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypedDict, Unpack, overload
from zlib import crc32

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from bayesens.console import progress
from bayesens.members.blending import MemberError, blended, named
from bayesens.members.covariates import check_new
from bayesens.members.files import read_members, write_members
from bayesens.members.regions import Regions
from bayesens.members.training_table import TrainingTable
from bayesens.messages import listed
from bayesens.tables.missing_codes import Missing
from bayesens.threads import one_openmp_thread

__all__ = ["FittedMembers", "Job", "MemberError", "blended", "entropy", "run", "seed_of"]


if TYPE_CHECKING:
    from bayesens.members.day.fitted import FittedNeighbours
    from bayesens.members.fast.forms import Form
    from bayesens.members.grids.inputs import OfGrid


class OfTable(TypedDict, total=False):
    """Keywords of `FittedMembers.predict` for tables."""

    region: ArrayLike | str | None
    membership: pd.DataFrame | None
    lon: ArrayLike | str | None
    lat: ArrayLike | str | None
    missing: Missing


class OfDay(TypedDict, total=False):
    """Keywords of `FittedMembers.with_neighbours`."""

    site: ArrayLike | str | None
    time: Any
    lon: Any
    lat: Any


@dataclass(frozen=True, eq=False, repr=False)
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
        Of the observations, the products and the predictions.
    covariate_units : dict of covariate to str
        Those that the training table told of itself, in ``X.attrs["units"]``.
    neighbours : FittedNeighbours or None
        With the observations that it interpolates.
    covariate_ranges : dict of covariate to (float, float)
        Lowest and highest value in the training rows, which cells of grids are held against.

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
    covariate_units: dict[str, str] = field(default_factory=dict)
    neighbours: FittedNeighbours | None = None
    covariate_ranges: dict[str, list[float]] = field(default_factory=dict)

    def __repr__(self) -> str:
        ways = [f"{name} ({text.partition(':')[0]})" for name, text in self.ways().items()]
        columns = f"{len(self.covariates)} covariate{'s' * (len(self.covariates) != 1)}"
        regions = f" and {len(self.regions.names)} regions" if self.regions.names else ""
        return f"<FittedMembers: {', '.join([*ways, *self.products])}; {columns}{regions}>"

    def ways(self) -> dict[str, str]:
        """How each member predicts the cells of grids: compiled, or by its estimator's own predict, and why.

        Compiled forms are those of forests, gradient boosting, linear models, support vectors with a radial kernel, and
        xgboost, alone or in a pipeline with scikit-learn's imputer and scaler. They equal the estimator's predict to 1e-5 of
        the standard deviation.

        Returns
        -------
        dict of member to str
            With regions, those of the fits that differ, one after the other.

        Examples
        --------
        >>> from sklearn.linear_model import LinearRegression
        >>> from bayesens.members.members import Members
        >>> X = pd.DataFrame({"rain": [0.0, 1.0, 2.0]})
        >>> Members({"mlr": LinearRegression()}, X, [0.1, 0.2, 0.3], site=None).fit(progressbar=False).ways()
        {'mlr': 'compiled: linear'}
        """
        texts = {name: dict.fromkeys(form.text for form in forms.values()) for name, forms in self.forms.items()}
        return {name: "; ".join(each) for name, each in texts.items()}

    @cached_property
    def forms(self) -> dict[str, dict[str, Form]]:
        """What predicts tables of many rows, by member and region."""
        from bayesens.members.fast.forms import form_of

        n = len(self.covariates)
        return {name: {region: form_of(fit, n) for region, fit in fits.items()} for name, fits in self.fits.items()}

    @overload
    def with_neighbours(self, X: pd.DataFrame, **columns: Unpack[OfDay]) -> pd.DataFrame: ...
    @overload
    def with_neighbours(self, X: xr.Dataset, **columns: Unpack[OfDay]) -> xr.Dataset: ...
    def with_neighbours(
        self,
        X: pd.DataFrame | xr.Dataset,
        *,
        site: ArrayLike | str | None = None,
        time: Any = None,
        lon: Any = None,
        lat: Any = None,
    ) -> pd.DataFrame | xr.Dataset:
        """Return rows or a grid with what the neighbours say of each day: a member, its standard deviation, the distance.

        `bayesens.map` does it by itself. Predictions of a table need it before: ``fitted.predict(fitted.with_neighbours(X,
        time="date"))``.

        Parameters
        ----------
        X : pandas.DataFrame or xarray.Dataset
            With coordinates as the stations have them, and the columns of a trend.
        site : array_like (row) or str, optional
            Of a table: a row of a station that is among the neighbours is predicted without it. A row without a label is a
            new place, and one at the very place of a station is told of that station's observations; a warning says so.
        time, lon, lat : array_like (row), str or DataArray, optional
            Columns, or variables of the grid; None: those of these names.

        Returns
        -------
        pandas.DataFrame or xarray.Dataset
            With ``neighbours``, ``neighbours_sd``, ``neighbours_distance`` and, where members learn from it,
            ``neighbours_mean``; missing on days without any observation.

        Raises
        ------
        KeyError, ValueError
            Members without neighbours, columns that are not there.

        Examples
        --------
        >>> from bayesens.members.members import Members
        >>> frame = pd.DataFrame({"day": [1, 1, 2, 2], "x": [0.0, 3.0] * 2, "y": [0.0, 4.0] * 2, "rf": [1.0, 2.0, 3.0, 5.0]})
        >>> members = Members({}, frame[["rf"]], [1.1, 1.9, 3.2, 4.8], site=list("abab"), time=frame["day"], products=["rf"],
        ...                   places=frame[["x", "y"]], neighbours=True)
        >>> new = members.fit(progressbar=False).with_neighbours(pd.DataFrame({"time": [2], "x": [1.0], "y": [0.0]}))
        >>> new["neighbours"].between(3.0, 5.0).tolist(), new["neighbours_distance"].tolist()
        ([True], [1.0])
        """
        from bayesens.members.day.new import with_neighbours

        return with_neighbours(self.neighbours, self.covariates, X, site=site, time=time, lon=lon, lat=lat)

    @overload
    def predict(self, X: pd.DataFrame, **options: Unpack[OfTable]) -> pd.DataFrame: ...
    @overload
    def predict(self, X: xr.Dataset, **options: Unpack[OfGrid]) -> xr.DataArray: ...
    def predict(
        self,
        X: pd.DataFrame | xr.Dataset,
        *,
        region: ArrayLike | str | xr.DataArray | None = None,
        membership: pd.DataFrame | xr.DataArray | None = None,
        time: str | xr.DataArray | None = None,
        lon: ArrayLike | str | xr.DataArray | None = None,
        lat: ArrayLike | str | xr.DataArray | None = None,
        where: xr.DataArray | None = None,
        missing: Missing = None,
    ) -> pd.DataFrame | xr.DataArray:
        """Predict rows of any place, or the cells of a grid.

        Parameters
        ----------
        X : pandas.DataFrame (row, covariate) or xarray.Dataset
            The covariates and products that were learnt from, in any order; other columns are passed over. Or a grid with one
            variable a covariate and product, each on some of the dimensions, as ``dem (y, x)`` beside ``rain (time, y, x)``;
            in memory or of dask, packed or not.
        region : array_like (row), str or DataArray, optional
            Labels, or their column in `X`; an unknown one takes the fit to all regions.
        membership : pandas.DataFrame (row, region) or DataArray (..., region), optional
            In place of labels: rows sum to one.
        time : str or DataArray, optional
            Dates of a grid, which otherwise are its ``time``: covariates called ``year``, ``month``, ``dayofyear``,
            ``day_of_year``, ``doy`` or ``hour`` that the grid lacks are taken from them. Of grids alone.
        lon, lat : array_like (row), str or DataArray, optional
            Degrees; needed where regions are blended. Of a grid they otherwise are its ``lon`` and ``lat``, and covariates of
            these names too.
        where : bool DataArray, optional
            Cells that are wanted, such as ``grid["rain"].notnull()``; all others are NaN. Of grids alone.
        missing : optional
            Codes for missing values in the columns of `X`, as in `Ensemble.from_frame`.

        Returns
        -------
        pandas.DataFrame (row, member), or DataArray (..., member)
            With the index of `X`; NaN in rows without any covariate. Of a grid ``prediction`` on its dimensions, in single
            precision where all of its variables are, and lazy where one of them is. Cells are what the rows of a table of them
            would be, to 1e-5 of the standard deviation (`ways`): where an estimator refuses missing covariates, so it does here.

        Raises
        ------
        KeyError, TypeError, ValueError
            Columns that are not there, labels or places that are needed and not given, values that look like codes for missing
            ones, other units than those of the training table (``X.attrs["units"]``), longitudes of a grid that are counted
            from 0 to 360 where those of the table went from -180 to 180, or the other way.
        MemberError

        Warns
        -----
        UserWarning
            Of covariates of a grid that lie far outside of their range in the training rows. `bayesens.applicability` tells it
            cell by cell.

        Examples
        --------
        >>> from sklearn.linear_model import LinearRegression
        >>> from bayesens.members.members import Members
        >>> X = pd.DataFrame({"rain": [0.0, 1.0, 2.0], "dem": [5.0, 1.0, 9.0]})
        >>> fitted = Members({"mlr": LinearRegression()}, X, [0.0, 1.0, 2.0], site=None).fit(progressbar=False)
        >>> grid = xr.Dataset({"rain": (("time", "x"), [[3.0, 4.0]]), "dem": ("x", [2.0, 0.0])})
        >>> fitted.predict(grid).round(6).values.tolist()
        [[[3.0], [4.0]]]
        """
        from bayesens.members.grids.inputs import grid_inputs
        from bayesens.members.grids.predict import predict_cells

        if isinstance(X, xr.Dataset):
            places = {"region": region, "membership": membership, "time": time, "lon": lon, "lat": lat}
            inputs = grid_inputs(X, self, where=where, missing=missing, **places)
            return predict_cells(inputs, self.forms, self.regions, self.units)
        if given := [name for name, one in (("time", time), ("where", where)) if one is not None]:
            raise TypeError(f"predict has {listed(given)} for grids alone, and got a {type(X).__name__}; wanted an "
                            "xarray.Dataset with one variable a covariate, or a table without them")  # fmt: skip
        own = {"region": region, "membership": membership, "lon": lon, "lat": lat}
        table, product, at = check_new(X, self.covariates, self.products, self.regions, own, missing)
        weight = self.regions.weight(len(X), **at)
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
        facts = {"covariates": self.covariates, "products": self.products, "units": self.units,
                 "covariate_units": self.covariate_units, "covariate_ranges": self.covariate_ranges}  # fmt: skip
        day = None if self.neighbours is None else self.neighbours.to_dataset()
        write_members(folder, self.fits, facts | {"regions": self.regions.to_json()}, day, trusted=trusted)

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
        from bayesens.members.day.fitted import FittedNeighbours

        fits, facts, day = read_members(folder, trusted=trusted)
        regions = Regions.from_json(facts["regions"])
        return cls(fits, tuple(facts["covariates"]), tuple(facts["products"]), regions, facts["units"],
                   facts.get("covariate_units", {}), None if day is None else FittedNeighbours.from_dataset(day),
                   facts.get("covariate_ranges", {}))  # fmt: skip


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
        with named(self.name, self.fold, region, X):
            made = seeded(self.estimator, seed_of(self.seed, region, ""))
            return made.fit(X, y, **({"groups": rows.site[train]} if _wants_groups(made) else {}))


def _wants_groups(estimator: Any) -> bool:
    """Whether ``fit`` takes the stations: named in its signature, or a search over folds of groups."""
    from sklearn import model_selection as ms
    from sklearn.utils.validation import has_fit_parameter

    by_group = (ms.GroupKFold, ms.GroupShuffleSplit, ms.LeaveOneGroupOut, ms.LeavePGroupsOut, ms.StratifiedGroupKFold)
    search = isinstance(estimator, (ms.GridSearchCV, ms.RandomizedSearchCV)) and isinstance(estimator.cv, by_group)
    return search or has_fit_parameter(estimator, "groups")


def entropy(random_seed: int | None) -> int:
    """Return the seed given, or a fresh one."""
    return int(np.random.SeedSequence(random_seed).generate_state(1)[0]) if random_seed is None else int(random_seed)


def seed_of(base: int, name: str, fold: str) -> int:
    """A seed of its own for every member, fold and region, whatever runs before or beside it."""
    return int(np.random.SeedSequence([base, crc32(name.encode()), crc32(fold.encode())]).generate_state(1)[0])


def run[T](jobs: Sequence[Callable[[], T]], text: str, n_jobs: int, progressbar: bool) -> list[T]:
    """Run jobs in threads (forests, boosted trees and support vectors let go of the interpreter), results in order."""
    from joblib import Parallel, delayed

    beside = jobs if n_jobs == 1 else [one_openmp_thread()(job) for job in jobs]
    work = Parallel(n_jobs=n_jobs, backend="threading", return_as="generator")(delayed(job)() for job in beside)
    done = []
    with progress(len(jobs), text, progressbar) as advance:
        for result in work:
            done.append(result)
            advance()
    return done
