"""Rows predicted by members that have not seen them, in one call."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypedDict, Unpack

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from bayesens.ensemble.ensemble import Ensemble
from bayesens.members.fitted import entropy
from bayesens.members.members import Members
from bayesens.members.spatial_folds.dealing import ByPlace
from bayesens.messages import check_keywords
from bayesens.models.neighbours import Neighbours
from bayesens.tables.missing_codes import Missing

__all__ = ["cross_fit"]


class MembersOptions(TypedDict, total=False):
    """Keywords of `Members`, which says what they mean."""

    site: ArrayLike | str | None
    group: ArrayLike | str | None
    time: ArrayLike | str | None
    by: ArrayLike | str | pd.DataFrame | None
    lon: ArrayLike | str | None
    lat: ArrayLike | str | None
    blend: float | None
    min_rows: int
    min_sites: int
    products: Iterable[str] | pd.DataFrame | None
    units: str | None
    keep: Iterable[str]
    missing: Missing
    time_format: str | None
    neighbours: Neighbours | bool | None
    neighbour_features: bool


def cross_fit(
    estimators: Mapping[str, Any] | Members,
    X: pd.DataFrame | None = None,
    y: ArrayLike | str | None = None,
    *,
    folds: int | str = 5,
    scheme: str | ArrayLike = "site",
    gap: Any = None,
    buffer: float | None = None,
    map_points: Any = None,
    places: Mapping[str, ArrayLike] | pd.DataFrame | None = None,
    random_seed: int | None = None,
    n_jobs: int = 1,
    progressbar: bool = True,
    **columns: Unpack[MembersOptions],
) -> Ensemble:
    """Predict every row by members that were fitted without its fold.

    Parameters
    ----------
    estimators : mapping of str to regressor, or Members
        With `Members` nothing of X, y and their columns is given.
    X, y, site, group, time, by, lon, lat, blend, min_rows, min_sites, products, units, keep, missing, time_format, neighbours
        And ``neighbour_features``: as in `Members`.
    folds : int or str
        Number of folds. With ``"site"`` also ``"knndm"``, folds as far from the rest as the map is from its stations, or
        ``"blocks"``, clusters of stations, or either with a number, ``"knndm 10"``; see `compare`.
    scheme : {"site", "time", "row"} or array_like (obs)
        ``"site"``: whole stations, folds of about equally many observed rows, every group spread over the folds.
        ``"time"``: contiguous blocks of time. ``"row"``: rows one by one, whatever they have in common. An array holds your
        own fold labels.
    gap : timedelta, str or float, optional
        With ``"time"``: training rows within this distance of the block that is held out are left out.
    buffer : float, optional
        Of stations: training rows of those nearer than this to one that is held out are left out [km, or the units of
        planar coordinates].
    map_points : Dataset, DataArray, DataFrame or mapping, optional
        The cells of the map, of ``"knndm"`` and for a warning where folds of stations are much nearer to training rows than
        the map is to its stations; as in `compare`.
    places : mapping of name to array_like (obs) or DataFrame, optional
        Two columns of coordinates; None: `lon` and `lat`, else covariates ``x`` and ``y``.
    random_seed : int, optional
        Of the folds of stations and of every ``random_state`` that is None. None: the even deal of stations, and other
        random numbers at every call.
    n_jobs : int
        Threads; the result does not depend on it.
    progressbar : bool

    Returns
    -------
    Ensemble
        Rows as in `X`; a variable ``fold (obs)``; ``dataset["prediction"].attrs["trained"]`` says how.

    Raises
    ------
    KeyError, TypeError, ValueError
        As in `Members`, and for folds that cannot be made.
    MemberError
        An estimator failed: the text names member, fold and region.

    References
    ----------
    Wolpert, D. H. (1992). Stacked generalization. Neural Networks 5, 241-259.

    Examples
    --------
    >>> from sklearn.dummy import DummyRegressor
    >>> X = pd.DataFrame({"rain": [0.0, 1.0, 2.0]})
    >>> ensemble = cross_fit({"mean": DummyRegressor()}, X, [1.0, 2.0, 6.0], site=["a", "b", "c"], folds=3, progressbar=False)
    >>> ensemble.prediction.ravel().tolist()
    [4.0, 3.5, 1.5]
    >>> ensemble.dataset["prediction"].attrs["trained"]
    'cross-fitted, 3 folds by site'
    """
    check_keywords(columns, [*MembersOptions.__annotations__, *(cross_fit.__kwdefaults__ or ())], "cross_fit")
    options: dict[str, Any] = {"X": X, "y": y, **columns}
    given = [name for name, value in options.items() if value is not None]
    if isinstance(estimators, Members):
        if given:
            raise TypeError(f"cross_fit got Members and {', '.join(given)}; wanted these in Members(...) only")
        members = estimators
    elif not {"X", "y", "site"} <= set(given):
        raise TypeError(
            "cross_fit got estimators without X, y or site; wanted cross_fit(estimators, X, y, site=...) or Members"
        )
    else:
        members = Members(estimators, **options, places=places)
    every = np.ones(len(members.rows), dtype=bool)
    seed = entropy(random_seed)
    by_place = ByPlace(members.places(places), map_points, buffer, warns=True)
    return members._cross_fitted(
        every, folds, scheme, gap, by_place, seed, random_seed is not None, n_jobs, progressbar, members._day(every)[1]
    )
