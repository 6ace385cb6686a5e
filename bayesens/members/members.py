"""Members trained without leakage: every row is predicted by fits that did not see its station or time."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from copy import copy
from dataclasses import dataclass, fields, replace
from functools import partial
from hashlib import sha256
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from bayesens.ensemble.ensemble import Ensemble
from bayesens.ensemble.places import RowPlaces, row_places
from bayesens.members import folds as folding
from bayesens.members import training_table
from bayesens.members.covariates import row_mask
from bayesens.members.day.chain import BESIDE, FEATURES, NAME, apart, fitted_neighbours
from bayesens.members.day.door import check_neighbours, places_of
from bayesens.members.day.fitted import FittedNeighbours, Said
from bayesens.members.fitted import FittedMembers, Job, MemberError, entropy, run, seed_of
from bayesens.members.regions import Regions
from bayesens.members.spatial_folds.dealing import KINDS, ByPlace
from bayesens.messages import listed, warn
from bayesens.models.neighbours import Neighbours
from bayesens.tables.missing_codes import NONE, Missing
from bayesens.tables.unit_checks import member_ranges

__all__ = ["FittedMembers", "MemberError", "Members"]

CROSS_FITTED, HELD_OUT, IN_SAMPLE = "cross-fitted", "held-out", "in-sample"


@dataclass(frozen=True, init=False, repr=False, eq=False)
class Members:
    """Estimators with the covariates and observations that they learn from, checked once.

    Parameters
    ----------
    estimators : mapping of str to scikit-learn regressor
        Not fitted; copies are. One whose ``fit`` takes ``groups`` is given the stations of the rows.
    X : pandas.DataFrame (obs, covariate)
        Numbers, missing where not known. A row without any covariate is not learnt from and is predicted as missing.
    y : array_like (obs) or str
        Observations, NaN where there is none.
    site, group, time, lon, lat : array_like (obs) or str, optional
        Station, network, time, degrees. A name takes a column out of `X`, which then is no covariate; pass
        the values, ``lon=X["lon"]``, to keep it as one too. ``site=None`` says that every row is a case of its own, so that
        folds of stations are folds of rows; rows that hang together make their scores too optimistic.
    by : array_like (obs), str or pandas.DataFrame (obs, region), optional
        One fit for each region. A table gives soft memberships that sum to one in every row.
    blend : float, optional
        Length [km] over which the fits of neighbouring regions fade into each other, by the distance to the regions'
        nearest training stations; needs `lon` and `lat`. None: every row takes its own region's fit.
    min_rows, min_sites : int
        A region with fewer training rows or stations is left to the fit to all regions.
    products : iterable of str or pandas.DataFrame (obs, product), optional
        Predictions that need no training: members as they are. Names are columns of `X`, which then are no covariates.
    units : str, optional
        Of the observations, products and predictions.
    keep : iterable of str
        Columns of `X`, covariates of the members, that ensembles keep as covariates of their own, for models that look at
        them: ``BMA(bias_covariates=("elevation",))``.
    missing, time_format : optional
        Codes for missing values in `X`, `y` and `products`, and how times are written, as in `Ensemble.from_frame`.
    places : mapping of name to array_like (obs) or DataFrame, optional
        Two columns of coordinates in a plane, such as ``X[["x", "y"]]``, in place of `lon` and `lat`.
    neighbours : Neighbours or bool, optional
        One more member, ``neighbours``: what other stations observed at the same time, interpolated; of every row without its
        own station and those that a fold holds out. It needs `site` and `time`. Ensembles keep ``neighbours_sd`` and
        ``neighbours_distance`` as covariates, which widths may follow.
    neighbour_features : bool
        Whether estimators learn from its mean, standard deviation and distance.

    Attributes
    ----------
    estimators : dict of str to regressor
    rows : TrainingTable
        The checked columns.
    names : tuple of str
        Estimators, then products.

    Raises
    ------
    KeyError, TypeError
        Columns that are not there, covariates that are not numbers, estimators without ``fit`` and ``predict``.
    ValueError
        Lengths or row labels that differ, rows without station, a station in two places, two rows of one station and
        time, mixed time zones, a covariate that is missing throughout, no observations.

    Examples
    --------
    >>> from sklearn.linear_model import LinearRegression
    >>> X = pd.DataFrame({"rain": [0.0, 1.0, 2.0, 3.0], "station": ["a", "a", "b", "c"]})
    >>> members = Members({"mlr": LinearRegression()}, X, [0.1, 0.2, 0.3, None], site="station")
    >>> members
    <Members: mlr; 4 rows (3 observed) of 3 stations, 1 covariate>
    >>> members.insample().prediction.round(3).tolist()
    [[0.1], [0.2], [0.3], [0.4]]
    """

    estimators: dict[str, Any]
    rows: training_table.TrainingTable
    names: tuple[str, ...]
    min_rows: int
    min_sites: int
    blend: float
    keep: tuple[str, ...]
    neighbours: Neighbours | None
    neighbour_features: bool
    in_plane: RowPlaces | None

    def __init__(
        self,
        estimators: Mapping[str, Any],
        X: pd.DataFrame,
        y: ArrayLike | str,
        *,
        site: ArrayLike | str | None,
        group: ArrayLike | str | None = None,
        time: ArrayLike | str | None = None,
        by: ArrayLike | str | pd.DataFrame | None = None,
        lon: ArrayLike | str | None = None,
        lat: ArrayLike | str | None = None,
        blend: float | None = None,
        min_rows: int = 200,
        min_sites: int = 3,
        products: Iterable[str] | pd.DataFrame | None = None,
        units: str | None = None,
        keep: Iterable[str] = (),
        missing: Missing = None,
        time_format: str | None = None,
        places: Mapping[str, ArrayLike] | pd.DataFrame | None = None,
        neighbours: Neighbours | bool | None = None,
        neighbour_features: bool = False,
    ) -> None:
        checked = training_table.check_estimators(estimators)
        roles = {"site": site, "group": group, "time": time, "lon": lon, "lat": lat}
        rows = training_table.check_rows(
            X, y, roles, by=by, products=products, units=units or "", missing=missing, time_format=time_format
        )
        day = Neighbours() if neighbours is True else neighbours or None
        names = training_table.check_names([*checked, *rows.products, *([NAME] if day else [])])
        kept = training_table.check_kept(keep, rows, names)
        if blend is not None:
            training_table.check_blend(blend, rows)
        in_plane = row_places(places, len(X))
        check_neighbours(day, neighbour_features, rows, kept, places_of(in_plane, rows))
        values = (checked, rows, tuple(names), min_rows, min_sites, float(blend or 0), kept, day, neighbour_features,
                  in_plane)  # fmt: skip
        for item, value in zip(fields(self), values):
            object.__setattr__(self, item.name, value)

    def __repr__(self) -> str:
        rows, n_covariates = self.rows, self.rows.X.shape[1]
        stations = f" of {len(np.unique(rows.site))} stations" if "site" in rows.columns else ""
        return (
            f"<Members: {', '.join(self.names)}; {len(rows)} rows ({int(np.isfinite(rows.y).sum())} observed)"
            f"{stations}, {n_covariates} covariate{'s' * (n_covariates != 1)}>"
        )

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of estimators, settings and table: equal in every process for equal members."""
        rows = self.rows
        seal = sha256(f"{self.min_rows}|{self.min_sites}|{self.blend}|{rows.units}".encode())
        if self.neighbours:
            places = self.places()
            seal.update(f"|{self.neighbours!r}|{self.neighbour_features}|{places and places.digest}|".encode())
        if self.keep:
            seal.update(f"|{self.keep}|".encode())
        for name, estimator in self.estimators.items():
            seal.update(f"|{name}|{type(estimator).__module__}|{estimator!r}".encode())
        columns = {"y": rows.y} | {
            role: getattr(rows, role) for role in ("site", "group", "time", "lon", "lat", "region")
        }
        tables = [rows.X, pd.DataFrame({name: values for name, values in columns.items() if values is not None}),
                  pd.DataFrame(rows.products), rows.membership]  # fmt: skip
        for table in tables:
            if table is not None and table.shape[1]:
                seal.update(f"|{list(table.columns)}|".encode())
                seal.update(pd.util.hash_pandas_object(table, index=False).to_numpy().tobytes())
        return seal.hexdigest()

    def untrained(self) -> Ensemble:
        """Return all rows with their observations and labels; the predictions of the members are missing."""
        every = np.arange(len(self.rows))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="all members .* are missing", category=UserWarning)
            return self._ensemble(np.full((len(every), len(self.names)), np.nan), every, "", None)

    def places(self, given: Mapping[str, ArrayLike] | pd.DataFrame | RowPlaces | None = None) -> RowPlaces | None:
        """Return the coordinates of the rows: those given, or `lon` and `lat`, or covariates ``x`` and ``y``, or None."""
        return places_of(self.in_plane if given is None else given, self.rows)

    def held_out_by(self, estimand: str) -> Self:
        """Return the members with neighbours that leave out what an estimand of `compare` holds out."""
        other = copy(self)
        object.__setattr__(other, "neighbours", self.neighbours and apart(self.neighbours, estimand))
        return other

    def fit(self, *, random_seed: int | None = None, n_jobs: int = 1, progressbar: bool = True) -> FittedMembers:
        """Fit every estimator to all rows with an observation, for new stations and for maps.

        Parameters
        ----------
        random_seed : int, optional
            Of every ``random_state`` that is None.
        n_jobs : int
            Threads; the result does not depend on it.
        progressbar : bool

        Returns
        -------
        FittedMembers

        Raises
        ------
        MemberError
        """
        every = np.ones(len(self.rows), dtype=bool)
        train, (neighbours, day) = self._training(every), self._day(every)
        rows, regions = self._learnt_from(day), self._regions(train)
        self._warn_thin([regions])
        seeds = entropy(random_seed)
        jobs = [
            Job(estimator, rows, name, train, regions, "", seed_of(seeds, name, ""))
            for name, estimator in self.estimators.items()
        ]
        columns = range(len(regions.names) + 1)
        done = run([partial(job.fitted, columns) for job in jobs], "Fitting members", n_jobs, progressbar)
        fits = dict(zip(self.estimators, done))
        names = tuple(rows.X.columns), tuple(rows.products)
        low, high = (getattr(rows.X.iloc[train], end)().tolist() for end in ("min", "max"))
        seen = member_ranges(low, high, names[0])
        return FittedMembers(fits, *names, regions, rows.units, rows.covariate_units, neighbours, seen)

    def insample(self, *, random_seed: int | None = None, n_jobs: int = 1, progressbar: bool = True) -> Ensemble:
        """Predict the training rows by fits that saw them: to look at, never to fit a combination to.

        Parameters
        ----------
        random_seed, n_jobs, progressbar
            As in `fit`.

        Returns
        -------
        Ensemble
            Marked ``"in-sample"``; `bayesens.fit` refuses it.

        Raises
        ------
        MemberError
        """
        every = np.arange(len(self.rows))
        whole = np.ones(len(every), dtype=bool)
        train, (_, day) = self._training(whole), self._day(whole)
        found = self._predicted([(train, every, "")], "In-sample members", random_seed, n_jobs, progressbar, day)
        return self._ensemble(found, every, f"{IN_SAMPLE}, by fits to these rows", day)

    def split(
        self,
        train: ArrayLike,
        test: ArrayLike,
        *,
        folds: int | str = 5,
        scheme: str | ArrayLike = "site",
        gap: Any = None,
        buffer: float | None = None,
        map_points: Any = None,
        places: Mapping[str, ArrayLike] | pd.DataFrame | RowPlaces | None = None,
        random_seed: int | None = None,
        n_jobs: int = 1,
        progressbar: bool = True,
    ) -> tuple[Ensemble, Ensemble]:
        """Cross-fit within the training rows, and predict the test rows by fits to all training rows.

        What a comparison on held-out rows needs: nothing of the test rows reaches the training ensemble, and the test
        rows are predicted as new stations will be.

        Parameters
        ----------
        train, test : array_like (obs), bool, or integer positions
            They may not overlap.
        folds, scheme, gap, buffer, map_points, places, random_seed, n_jobs, progressbar
            As in `cross_fit`, within the training rows; labels of folds and places are given for all rows.

        Returns
        -------
        train : Ensemble
            Marked ``"cross-fitted"``, rows in the order of the table.
        test : Ensemble
            Marked ``"held-out"``.

        Raises
        ------
        ValueError
            Rows that are in both.
        MemberError
        """
        inside, outside = (row_mask(rows, len(self.rows), name) for rows, name in ((train, "train"), (test, "test")))
        if both := int((inside & outside).sum()):
            raise ValueError(f"{both} rows are in train and in test; wanted each row in one of them at most")
        seeds = np.random.SeedSequence(entropy(random_seed)).generate_state(2)
        by_place, (_, day) = ByPlace(self.places(places), map_points, buffer), self._day(inside)
        within = self._cross_fitted(
            inside, folds, scheme, gap, by_place, int(seeds[0]), random_seed is not None, n_jobs, progressbar, day
        )
        fit_rows, apart = self._training(inside), np.flatnonzero(outside)
        found = self._predicted([(fit_rows, apart, "")], "Held-out rows", int(seeds[1]), n_jobs, progressbar, day)
        return within, self._ensemble(found, apart, f"{HELD_OUT}, by fits to {len(fit_rows)} other rows", day)

    # Inside ----------------------------------------------------------------------------------------------------------

    def _training(self, mask: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Rows of a mask that can be learnt from, in an order that does not depend on that of the table."""
        usable = mask & np.isfinite(self.rows.y) & ~self.rows.bare
        return self.rows.order[usable[self.rows.order]]

    def _day(self, inside: NDArray[np.bool_]) -> tuple[FittedNeighbours, Said] | tuple[None, None]:
        """Neighbours among the rows of a mask, and what they say of all rows."""
        if self.neighbours is None:
            return None, None
        return fitted_neighbours(self.neighbours, self.rows, self.places(), inside)

    def _learnt_from(self, day: Said | None) -> training_table.TrainingTable:
        """The table with all that estimators learn from."""
        if day is None or not self.neighbour_features:
            return self.rows
        return replace(self.rows, X=self.rows.X.assign(**dict(zip(FEATURES, day.columns))))

    def _regions(self, train: NDArray[np.int64]) -> Regions:
        rows = self.rows
        if rows.region is None:
            return Regions()
        table = pd.DataFrame({"region": rows.region[train], "site": rows.site[train]})
        if self.blend:
            table = table.assign(lon=rows.lon[train], lat=rows.lat[train])  # type: ignore[index]
        return Regions.of_training(table, min_rows=self.min_rows, min_sites=self.min_sites, length=self.blend)

    def _warn_thin(self, regions: list[Regions]) -> None:
        if self.rows.region is None:
            return
        every = sorted(set(self.rows.region.tolist()) - {""})
        thin = [name for name in every if not all(name in fitted.names for fitted in regions)]
        if thin:
            warn(f"{len(thin)} of {len(every)} regions have fewer than {self.min_rows} rows or {self.min_sites} stations to "
                 f"learn from{' in some fold' if len(regions) > 1 else ''}: {listed(thin)}; the fit to all regions stands in for "
                 "theirs there")  # fmt: skip

    def _predicted(
        self,
        plan: list[tuple[NDArray[np.int64], NDArray[np.int64], str]],
        text: str,
        random_seed: int | None,
        n_jobs: int,
        progressbar: bool,
        day: Said | None,
    ) -> NDArray[np.float64]:
        """Member predictions (obs, member) of the test rows in a plan of (training rows, test rows, name of the fold)."""
        rows, seeds = self._learnt_from(day), entropy(random_seed)
        regions = [self._regions(train) for train, _, _ in plan]
        self._warn_thin(regions)
        jobs = [(Job(self.estimators[name], rows, name, train, fitted, fold, seed_of(seeds, name, fold)), test, k)
                for (train, test, fold), fitted in zip(plan, regions)
                for k, name in enumerate(self.estimators)]  # fmt: skip
        done = run([partial(job.predicted, test) for job, test, _ in jobs], text, n_jobs, progressbar)
        prediction = np.full((len(rows), len(self.names)), np.nan)
        for values, (_, test, k) in zip(done, jobs):
            prediction[test, k] = values
        for k, product in enumerate(rows.products.values(), start=len(self.estimators)):
            prediction[:, k] = product
        if day is not None:
            prediction[:, -1] = day.mean
        return prediction

    def _cross_fitted(
        self,
        inside: NDArray[np.bool_],
        folds: int | str,
        scheme: str | ArrayLike,
        gap: Any,
        by_place: ByPlace,
        seed: int,
        shake: bool,
        n_jobs: int,
        progressbar: bool,
        day: Said | None,
    ) -> Ensemble:
        """Predict the rows of a mask, each by fits to the others of them that are not in its fold."""
        rows, chosen = self.rows, np.flatnonzero(inside)
        usable = np.zeros(len(rows), dtype=bool)
        usable[self._training(inside)] = True
        fold = np.full(len(rows), -1)
        group, time = (None if values is None else values[chosen] for values in (rows.group, rows.time))
        given = scheme if isinstance(scheme, str) else folding.given_labels(scheme, len(rows))[chosen]
        if by_place.places is not None:
            by_place = replace(by_place, places=by_place.places.take(chosen))
        fold[chosen], how = by_place.row_folds(
            folds,
            given,
            rows.site[chosen],
            group,
            time,
            weight=usable[chosen].astype(np.float64),
            gap=gap,
            random_seed=seed if shake else None,
        )
        number = int(fold.max()) + 1
        plan, parts = [], []
        for k in range(number):
            name = f"fold {k + 1} of {number}"
            test = inside & (fold == k)
            train = inside & ~test & ~folding.near(rows.time, test, gap)
            train[chosen] = by_place.outside(train[chosen], test[chosen], usable[chosen], rows.site[chosen], name)
            if not (train & usable).any():
                raise ValueError(f"{name} leaves no row to learn from; wanted fewer folds or a shorter gap")
            plan.append((self._training(train), np.flatnonzero(test), name))
            parts.append((train[chosen], test[chosen]))
        by_place.tell(parts, usable[chosen], rows.site[chosen], matched=how.endswith(KINDS["knndm"]),
                      random_seed=seed if shake else None)  # fmt: skip
        found = self._predicted(plan, "Cross-fitting", seed, n_jobs, progressbar, day)
        return self._ensemble(found, chosen, f"{CROSS_FITTED}, {number} folds {how}", day, fold)

    def _ensemble(
        self,
        prediction: NDArray[np.float64],
        rows: NDArray[np.int64],
        trained: str,
        day: Said | None,
        fold: NDArray[np.int64] | None = None,
    ) -> Ensemble:
        beside = {} if day is None else dict(zip(BESIDE, day.columns[1:]))
        covariates = (*self.keep, *beside)
        labelled, roles = self.rows.labelled(rows, [*self.names, *covariates])
        kept = self.rows.X[list(self.keep)].assign(**beside).iloc[rows].reset_index(drop=True)
        table = pd.concat([labelled, pd.DataFrame(prediction[rows], columns=list(self.names)), kept], axis=1)
        made = Ensemble.from_frame(
            table, members=self.names, covariates=covariates, units=self.rows.units or None, missing=NONE, **roles
        )  # the columns have passed their door
        dataset = made.dataset
        if trained:
            dataset["prediction"].attrs["trained"] = trained
        if fold is not None:
            dataset["fold"] = ("obs", fold[rows], {"long_name": "fold that held the row out, from 0"})
        return replace(made, dataset=dataset)
