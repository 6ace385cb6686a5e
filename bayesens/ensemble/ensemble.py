"""Member predictions with their observations, sites, groups and times, checked once, at the door."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self, Unpack

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from bayesens.ensemble import checks, from_table
from bayesens.ensemble.digest import dataset_digest
from bayesens.ensemble.display import as_html, as_text
from bayesens.ensemble.doors.long import LongDoors
from bayesens.ensemble.doors.own_sd import own_columns_of
from bayesens.ensemble.from_grid import cells_table, keep_marks
from bayesens.ensemble.from_table import CODES, CONVERTED, COVARIATE, COVARIATE_NAME, LABELS, ROLES, TableOptions
from bayesens.ensemble.training_checks import Facts, check_training
from bayesens.messages import listed
from bayesens.tables.conversion import Conversion
from bayesens.tables.missing_codes import Counts, Missing

__all__ = ["Ensemble"]


@dataclass(frozen=True, repr=False, eq=False)
class Ensemble(LongDoors):
    """Predictions of several members for the same rows, with observations where there are any.

    Made by `from_frame` or `from_dataset`, which check everything once; the constructor itself takes a dataset that is
    already in the form below. A value: `select` gives another one.

    Attributes
    ----------
    dataset : xarray.Dataset
        ``prediction (obs, member)`` float64, NaN where a member is missing; ``observation (obs)`` float64, where given,
        NaN in rows without truth; ``member`` names; on ``obs``, where given, ``site`` and ``group`` (numpy unicode,
        ``""`` where missing: a row without a site or group, which models treat as a level never seen),
        ``time`` (datetime64[ns] in UTC, or numeric), ``lon`` and ``lat``; ``covariate (obs, covariate_name)``, where given,
        NaN where missing; the attribute ``bayesens_spread`` says which are standard deviations of members.
        ``units`` stands in the attributes of ``prediction`` and ``observation``. Of `cross_fit` also
        ``fold (obs)``, the fold that held the row out, and the attribute
        ``trained`` of ``prediction``.

    Examples
    --------
    >>> frame = pd.DataFrame({"rf": [0.1, 0.2, 0.4], "mlr": [0.2, None, 0.3], "sm": [0.1, 0.3, None]})
    >>> ensemble = Ensemble.from_frame(frame, members=["rf", "mlr"], observation="sm", units="m3 m-3")
    >>> ensemble
    <Ensemble: 3 rows (2 observed), 2 members, m3 m-3>
      members  rf, mlr (33.3 % missing)
    >>> ensemble.prediction.shape
    (3, 2)
    """

    dataset: xr.Dataset

    def __post_init__(self) -> None:
        dataset: object = self.dataset
        if not isinstance(dataset, xr.Dataset) or "prediction" not in dataset:
            raise TypeError(
                f"Ensemble got {type(dataset).__name__} without a checked 'prediction'; "
                "wanted one made by Ensemble.from_frame or Ensemble.from_dataset"
            )

    @classmethod
    def from_frame(
        cls,
        frame: pd.DataFrame,
        *,
        members: Iterable[str],
        observation: str | None = None,
        site: str | None = None,
        group: str | None = None,
        time: str | None = None,
        lon: str | None = None,
        lat: str | None = None,
        covariates: Iterable[str] = (),
        spread: Mapping[str, str] | None = None,
        units: str | Mapping[str, str] | None = None,
        time_format: str | None = None,
        missing: Missing = None,
        scale: Conversion = None,
        offset: Conversion = None,
    ) -> Self:
        """Make an ensemble from a table with one row a case and one column a member.

        Parameters
        ----------
        frame : pandas.DataFrame
            Copied; its index is not kept.
        members : iterable of str
            Columns of predictions, in the unit of the observation; missing where a member is.
        observation, site, group, time, lon, lat : str, optional
            Columns. Labels may be text, categories, whole numbers or times. A time zone is turned into UTC.
        covariates : iterable of str
            Columns of numbers that are no predictions, such as an elevation, for models that look at them:
            ``BMA(bias_covariates=("elevation",), scale=("mean", "elevation"))``. They may be missing in some rows: `fit` wants
            those that biases follow in all of its rows, and a row without them has no prediction; to widths that follow
            one it is typical where it is missing. ``lon`` and ``lat`` need not be named again.
        spread : mapping of member to column, optional
            Of members that bring a standard deviation of their own, such as kriging: ``{"krig": "krig_sd"}``, in the unit of the
            member. `BMA` learns how far to believe it. The columns are covariates too, and converted with their members.
        units : str or mapping of column to unit, optional
            Of members and observation. None: ``frame.attrs["units"]``, a string or such a mapping.
        time_format : str, optional
            How the times are written: ``"%d/%m/%Y"``, ``"YYYYMMDD"``, ``"epoch"`` (seconds since 1970; also ``_ms``, ``_us``,
            ``_ns``), ``"excel"``, ``"matlab"``, ``"mjd"`` or ``"jd"`` (day numbers), ``"days since 1900-01-01"``, or
            ``"number"`` for steps and years. None: looked for, and asked for where there are two answers.
        missing : number, list of numbers, mapping of column to these, or "none", optional
            Codes that stand for missing values, such as -9999: they become missing, and the ensemble says how many. None: values
            that look like codes are an error. ``"none"`` or ``()`` says that all values are true, ``{"rf": "none"}`` that those
            of one column are.
        scale, offset : mapping of column to number, optional
            Members and the observation in another unit become ``value * scale + offset``: ``scale={"rf": 0.01}`` for percent,
            ``offset={"era5": -273.15}`` for kelvin. Codes are told before.

        Returns
        -------
        Ensemble

        Raises
        ------
        KeyError, TypeError
            A column that is not there; text where numbers are wanted, one string where a list is wanted.
        ValueError
            No members or rows, a column named twice or in two roles, infinite values, mixed units or time zones, sites
            that belong to two groups, a covariate called as something that models know, such as "spread", values that look like
            codes for missing ones, a standard deviation that is below zero, or missing where its member is not.

        Examples
        --------
        >>> frame = pd.DataFrame({"rf": [1.0, 2.0], "svr": [1.5, 2.5], "station": [7, 9]})
        >>> Ensemble.from_frame(frame, members=["rf", "svr"], site="station").labels("site").tolist()
        ['7', '9']
        >>> frame["elevation"] = [120, 480]
        >>> Ensemble.from_frame(frame, members=["rf", "svr"], covariates=["elevation"]).covariates
        ('elevation',)
        >>> frame["svr"] = [150.0, -9999.0]
        >>> Ensemble.from_frame(frame, members=["rf", "svr"], missing=-9999, scale={"svr": 0.01})
        <Ensemble: 2 rows (0 observed), 2 members>
          members    rf, svr (50.0 % missing)
          missing    -9999 in 1 row of 'svr'
          converted  svr = 0.01 * svr
        """
        given = {"observation": observation, "site": site, "group": group, "time": time, "lon": lon, "lat": lat}
        columns = {role: name for role, name in given.items() if name is not None}
        options = spread, units, time_format, missing, scale, offset
        return cls(from_table.table_dataset(frame, members, columns, covariates, *options))

    @classmethod
    def from_dataset(
        cls,
        dataset: xr.Dataset,
        *,
        members: Iterable[str] | None = None,
        prediction: str = "prediction",
        **columns: Unpack[TableOptions],
    ) -> Self:
        """Make an ensemble from a dataset or grid, whose cells become rows.

        Parameters
        ----------
        dataset : xarray.Dataset
            With one array `prediction` that has a dimension ``member`` and any others, or with one variable a member.
            The other dimensions are stacked into rows, the last one fastest. The dataset of another `Ensemble`, as it
            comes back from a file, is taken whole.
        members : iterable of str, optional
            Which members, and their order; needed where each is a variable of its own.
        prediction : str
            The array with the dimension ``member``.
        observation, site, group, time, lon, lat : str, optional
            Variables or coordinates; all but the observation may lack some of the dimensions, as ``lat (y)`` does.
        covariates : iterable of str, optional
            Variables, as in `from_frame`; they may lack some of the dimensions, as ``elevation (y, x)`` does. None: those of
            the dataset of another `Ensemble`, otherwise none.
        spread : mapping of member to variable, optional
            As in `from_frame`. None: that of the dataset of another `Ensemble`, otherwise none.
        units, time_format, missing, scale, offset : optional
            As in `from_frame`. No units: those in the attributes of members and observation. No format: numbers with units such
            as "days since 2000-01-01" are decoded, in any calendar of climate models. What the attributes ``_FillValue`` and
            ``missing_value`` name is missing as well; the dataset of another `Ensemble` has been looked through already.

        Returns
        -------
        Ensemble

        Raises
        ------
        KeyError, TypeError, ValueError
            As in `from_frame`, and for dimensions that do not fit.

        Examples
        --------
        >>> grid = xr.Dataset(
        ...     {"prediction": (("member", "y", "x"), np.arange(8.0).reshape(2, 2, 2))},
        ...     {"member": ["rf", "svr"], "y": [51.0, 50.0]},
        ... )
        >>> ensemble = Ensemble.from_dataset(grid, lat="y")
        >>> ensemble.prediction.tolist()
        [[0.0, 4.0], [1.0, 5.0], [2.0, 6.0], [3.0, 7.0]]
        >>> ensemble.dataset["lat"].values.tolist()
        [51.0, 51.0, 50.0, 50.0]
        """
        frame, options = cells_table(dataset, members, prediction, columns)
        made = cls.from_frame(frame, **options)
        keep_marks(made.dataset, dataset, prediction)
        return made

    # Contents --------------------------------------------------------------------------------------------------------

    @property
    def members(self) -> tuple[str, ...]:
        """Names of the members."""
        return tuple(self.dataset["member"].values.tolist())

    @property
    def n_obs(self) -> int:
        """Number of rows, with or without an observation."""
        return int(self.dataset.sizes["obs"])

    @property
    def n_members(self) -> int:
        """Number of members."""
        return int(self.dataset.sizes["member"])

    def __len__(self) -> int:
        return self.n_obs

    @property
    def prediction(self) -> NDArray[np.float64]:
        """Member predictions (obs, member), NaN where a member is missing."""
        return self.dataset["prediction"].values

    @property
    def observation(self) -> NDArray[np.float64] | None:
        """Observations (obs), NaN in rows without one; None if there is no such column."""
        return self.dataset["observation"].values if "observation" in self.dataset else None

    @property
    def available(self) -> NDArray[np.bool_]:
        """Which members have a prediction (obs, member)."""
        return ~np.isnan(self.prediction)

    @property
    def observed(self) -> NDArray[np.bool_]:
        """Which rows have an observation (obs)."""
        observation = self.observation
        return np.zeros(self.n_obs, dtype=bool) if observation is None else ~np.isnan(observation)

    @property
    def n_observed(self) -> int:
        """Number of rows with an observation."""
        return int(self.observed.sum())

    @property
    def units(self) -> str:
        """Unit of predictions and observations, ``""`` if not known."""
        return str(self.dataset["prediction"].attrs.get("units", ""))

    @property
    def origin(self) -> str:
        """How the members came to their predictions: "cross-fitted", "held-out", "in-sample", or "" for a given table."""
        return str(self.dataset["prediction"].attrs.get("trained", "")).partition(",")[0]

    @property
    def columns(self) -> dict[str, str]:
        """The user's own column name of each role that is there (observation, site, ...)."""
        return from_table.own_columns(self.dataset)

    @property
    def covariates(self) -> tuple[str, ...]:
        """Names of the covariates: columns that are no predictions, for models that look at them."""
        return tuple(self.dataset[COVARIATE_NAME].values.tolist()) if COVARIATE in self.dataset else ()

    @property
    def spread(self) -> dict[str, str]:
        """Members that bring a standard deviation of their own, and the covariate that has it."""
        return own_columns_of(self.dataset)

    @property
    def codes(self) -> Counts:
        """Codes that were read as missing, with their counts, by column."""
        kept: dict[str, list[list[float]]] = json.loads(self.dataset.attrs.get(CODES, "{}"))
        return {name: {code: int(n) for code, n in pairs} for name, pairs in kept.items()}

    @property
    def converted(self) -> dict[str, tuple[float, float]]:
        """Scale and offset of the columns that were converted when they were read."""
        kept: dict[str, list[float]] = json.loads(self.dataset.attrs.get(CONVERTED, "{}"))
        return {name: (a, b) for name, (a, b) in kept.items()}

    def labels(self, name: str) -> NDArray[np.str_] | None:
        """Return the labels (obs) of ``"site"`` or ``"group"``, ``""`` where missing; None if not given."""
        if name not in LABELS:
            raise ValueError(f"got labels({name!r}); wanted 'site' or 'group'")
        return self.dataset[name].values if name in self.dataset.coords else None

    def levels(self, name: str) -> NDArray[np.str_]:
        """Return the different labels of ``"site"`` or ``"group"``, sorted, without the missing one.

        Examples
        --------
        >>> frame = pd.DataFrame({"rf": [1.0, 2.0, 3.0], "basin": ["b", None, "a"]})
        >>> Ensemble.from_frame(frame, members=["rf"], group="basin").levels("group").tolist()
        ['a', 'b']
        """
        labels = self.labels(name)
        unique = set() if labels is None else set(pd.unique(pd.Series(labels, dtype=object)))
        return np.array(sorted(unique - {""}), dtype=np.str_)

    def require_observation(self) -> NDArray[np.float64]:
        """Return the observations (obs), or raise ValueError if there is no such column."""
        observation = self.observation
        if observation is None:
            raise ValueError(
                f"the ensemble ({self.n_obs} rows, members {listed(self.members)}) has no observation column; "
                "wanted one: pass observation='...' to Ensemble.from_frame or from_dataset"
            )
        return observation

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the contents: the same in every process, whatever the memory layout or column names."""
        names = ("member", "prediction", *ROLES, COVARIATE_NAME, COVARIATE)
        own = f"|{json.dumps(self.spread)}" if self.spread else ""
        return dataset_digest(f"{self.units}|{self.n_obs}|{self.n_members}{own}", self.dataset, names)

    # Parts and tables ------------------------------------------------------------------------------------------------

    def select(self, members: Iterable[str] | None = None, rows: ArrayLike | slice | None = None) -> Self:
        """Return an ensemble of some members and rows, in the order asked for.

        Parameters
        ----------
        members : iterable of str, optional
            None: all.
        rows : boolean mask (obs), integer index or slice, optional
            By position. None: all.

        Returns
        -------
        Ensemble

        Raises
        ------
        KeyError, IndexError, TypeError, ValueError
            Unknown members, rows out of range, a mask of another length, nothing left.

        Examples
        --------
        >>> frame = pd.DataFrame({"rf": [1.0, 2.0, 3.0], "svr": [4.0, 5.0, 6.0]})
        >>> ensemble = Ensemble.from_frame(frame, members=["rf", "svr"])
        >>> ensemble.select(members=["svr", "rf"], rows=[True, False, True]).prediction.tolist()
        [[4.0, 1.0], [6.0, 3.0]]
        """
        where: dict[str, Any] = {}
        if members is not None:
            names = checks.member_names(members)
            checks.check_known(names, self.members, kind="member", where=f"the ensemble ({self.n_obs} rows)")
            where["member"] = [self.members.index(name) for name in names]
        if rows is not None:
            where["obs"] = from_table.row_positions(rows, self.n_obs)
        chosen = self.dataset.isel(where).copy(deep=True)
        # Selecting members leaves columns scattered in memory; kernels walk along rows.
        chosen["prediction"].values = np.ascontiguousarray(chosen["prediction"].values)
        return type(self)(chosen)

    def to_frame(self) -> pd.DataFrame:
        """Return the table again, under the user's own column names; missing labels become missing values.

        Returns
        -------
        pandas.DataFrame
            One row a case; site, group, time, lon, lat, observation (those given), then members and covariates. ``units``
            in ``attrs``.

        Examples
        --------
        >>> frame = pd.DataFrame({"sm": [0.1, None], "rf": [0.2, 0.3]})
        >>> Ensemble.from_frame(frame, members=["rf"], observation="sm").to_frame().columns.tolist()
        ['sm', 'rf']
        """
        return from_table.table_frame(self.dataset)

    def check_training(self, *, n_parameters: int = 0) -> None:
        """Refuse what a table of predictions may have and a training table may not.

        Parameters
        ----------
        n_parameters : int
            Free parameters of the model to be fitted, at least so many usable rows are wanted.

        Raises
        ------
        ValueError
            No observations, a member without predictions in the observed rows, a constant member or observation,
            fewer usable rows than parameters, a member that is the observation itself.

        Examples
        --------
        >>> frame = pd.DataFrame({"rf": [1.0, 2.0], "clim": [1.5, 1.5], "sm": [1.1, 1.9]})
        >>> Ensemble.from_frame(frame, members=["rf", "clim"], observation="sm").check_training()
        Traceback (most recent call last):
        ...
        ValueError: member 'clim' is constant in the 2 observed rows (of 2); wanted values that vary: ...
        """
        facts = Facts.of_rows(self.prediction, self.require_observation())
        check_training(facts, self.members, self.columns["observation"], n_parameters)

    def __repr__(self) -> str:
        return as_text(self)

    def _repr_html_(self) -> str:
        return as_html(self)
