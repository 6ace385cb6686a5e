"""Long tables, one row a model and case, and members that are given as quantiles or samples."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self, Unpack

import pandas as pd

from bayesens.ensemble import checks
from bayesens.ensemble.from_table import MADE_OF, TableOptions, split_roles
from bayesens.messages import check_known, listed
from bayesens.tables.long_tables import widened

__all__ = ["LongDoors"]


class LongDoors:
    """Ways to make an ensemble of long tables; each ends in `from_frame`."""

    if TYPE_CHECKING:
        from_frame: ClassVar[Any]
        dataset: Any

    @classmethod
    def from_long(
        cls,
        frame: pd.DataFrame,
        *,
        model: str,
        value: str,
        by: Iterable[str] | None = None,
        members: Iterable[str] | None = None,
        **columns: Unpack[TableOptions],
    ) -> Self:
        """Make an ensemble from a long table, with one row a model and case.

        Parameters
        ----------
        frame : pandas.DataFrame
        model, value : str
            Columns of the models' names and of their predictions.
        by : iterable of str, optional
            Columns that tell cases apart. None: those of `site` and `time`.
        members : iterable of str, optional
            Which models, and their order. None: all, as they come.
        observation, site, group, time, lon, lat, covariates, units, time_format, missing, scale, offset
            As in `from_frame`; columns have one value a case.
        spread : str, optional
            The column of the predictions' own standard deviations, empty for models that have none.

        Returns
        -------
        Ensemble
            A model is missing in the cases of which it has no row; a warning counts them.

        Raises
        ------
        KeyError, TypeError, ValueError
            As in `from_frame`, and for two rows of one model and case, for an observation that differs between rows of one
            case, and where nothing tells cases apart.

        Examples
        --------
        >>> from bayesens.ensemble.ensemble import Ensemble
        >>> frame = pd.DataFrame({"day": [1, 1, 2, 2], "model": ["rf", "svr"] * 2, "value": [0.1, 0.2, 0.3, 0.4]})
        >>> frame["sm"] = [0.1, 0.1, 0.4, 0.4]
        >>> Ensemble.from_long(frame, model="model", value="value", time="day", observation="sm").prediction.tolist()
        [[0.1, 0.2], [0.3, 0.4]]
        """
        columns_of, others, keys, beside = _asked("from_long", columns, by, "value")
        sd = others.pop("spread", None)
        wide, found = widened(frame, model=model, value=value, by=keys, keep=[*columns_of.values(), *beside])
        with_sd: list[str] = []
        if isinstance(sd, str):
            named, _ = widened(frame, model=model, value=sd, by=keys, keep=[], tell=False)
            with_sd = [name for name in found if named[name].notna().any()]
            if taken := [name for name in with_sd if f"{name}_sd" in wide]:
                raise ValueError(f"standard deviations of {listed(taken)} are called as columns of the table are, such as "
                                 f"{taken[0] + '_sd'!r}; rename models or columns")  # fmt: skip
            wide = wide.join(named[with_sd].add_suffix("_sd"))
        elif sd is not None:
            raise TypeError(
                f"spread is {sd!r}; wanted the one column of a long table that has the models' standard deviations"
            )
        wide.attrs.update(frame.attrs)
        return cls._of_models(wide, found, with_sd, members, model, {**others, **columns_of, "covariates": beside})

    @classmethod
    def from_quantiles(
        cls,
        frame: pd.DataFrame,
        *,
        model: str,
        level: str,
        value: str,
        by: Iterable[str] | None = None,
        members: Iterable[str] | None = None,
        **columns: Unpack[TableOptions],
    ) -> Self:
        """Make an ensemble from models that give quantiles, in a long table with one row a model, case and level.

        Each model becomes a member, the mean of its law, with the law's standard deviation beside it (`from_frame`, ``spread``).
        Between levels the quantile function is straight in the normal score of the level, and its first and last piece go on as
        tails: exact for normals, and for skewed laws the nearer the more levels there are (`bayesens.tables.member_laws`).

        Parameters
        ----------
        frame : pandas.DataFrame
        model, level, value : str
            Columns of the models' names, of levels between 0 and 1, and of the quantiles. Cases may have different levels.
        by : iterable of str, optional
            Columns that tell cases apart. None: those of `site` and `time`.
        members : iterable of str, optional
            Which models, and their order. None: all, as they come.
        observation, site, group, time, lon, lat, covariates, units, time_format, missing, scale, offset
            As in `from_frame`; columns have one value a case.

        Returns
        -------
        Ensemble
            A model that gives medians alone is a member without a standard deviation. `repr` says what members were made of.

        Raises
        ------
        KeyError, TypeError, ValueError
            As in `from_long`; levels outside of (0, 1), quantiles that cross, a single level that is no median.

        Examples
        --------
        >>> from bayesens.ensemble.ensemble import Ensemble
        >>> frame = pd.DataFrame({"day": [1] * 3 + [2] * 3, "model": "a", "p": [0.1, 0.5, 0.9] * 2, "q": [1, 2, 3, 2, 4, 6.0]})
        >>> ensemble = Ensemble.from_quantiles(frame, model="model", level="p", value="q", time="day")
        >>> ensemble.prediction.tolist(), ensemble.spread
        ([[2.0], [4.0]], {'a': 'a_sd'})
        """
        from bayesens.tables.member_laws import quantile_table

        return cls._of_laws(
            "from_quantiles", quantile_table, "quantiles", frame, model, value, by, members, columns, level=level
        )

    @classmethod
    def from_samples(
        cls,
        frame: pd.DataFrame,
        *,
        model: str,
        sample: str,
        value: str,
        by: Iterable[str] | None = None,
        members: Iterable[str] | None = None,
        **columns: Unpack[TableOptions],
    ) -> Self:
        """Make an ensemble from models that give samples, in a long table with one row a model, case and sample.

        Each model becomes a member, the mean of its samples, with their standard deviation beside it (`from_frame`, ``spread``).

        Parameters
        ----------
        frame : pandas.DataFrame
        model, sample, value : str
            Columns of the models' names, of the samples' numbers or names, and of their values.
        by, members, observation, site, group, time, lon, lat, covariates, units, time_format, missing, scale, offset
            As in `from_quantiles`.

        Returns
        -------
        Ensemble
            A model with one sample in every case is a member without a standard deviation.

        Raises
        ------
        KeyError, TypeError, ValueError
            As in `from_long`, and for a model with one sample in some cases and more in others.

        Examples
        --------
        >>> from bayesens.ensemble.ensemble import Ensemble
        >>> frame = pd.DataFrame({"day": [1, 1, 2, 2], "model": "a", "run": [1, 2] * 2, "x": [1.0, 3.0, 2.0, 4.0]})
        >>> Ensemble.from_samples(frame, model="model", sample="run", value="x", time="day").prediction.tolist()
        [[2.0], [3.0]]
        """
        from bayesens.tables.member_laws import sample_table

        return cls._of_laws(
            "from_samples", sample_table, "samples", frame, model, value, by, members, columns, sample=sample
        )

    @classmethod
    def _of_laws(
        cls, function: str, read: Callable[..., Any], what: str, frame: pd.DataFrame, model: str, value: str,
        by: Iterable[str] | None, members: Iterable[str] | None, columns: Mapping[str, Any], **inner: str,
    ) -> Self:  # fmt: skip
        """Members from the laws that a long table has."""
        columns_of, others, keys, beside = _asked(function, columns, by, "value", *inner)
        if others.pop("spread", None) is not None:
            raise TypeError(f"{function} makes standard deviations of the {what} themselves; leave spread out")
        keep = [*columns_of.values(), *beside]
        wide, found, with_sd = read(frame, model=model, value=value, by=keys, keep=keep, **inner)
        wide.attrs.update(frame.attrs)
        made = cls._of_models(wide, found, with_sd, members, model, {**others, **columns_of, "covariates": beside})
        made.dataset.attrs[MADE_OF] = json.dumps(dict.fromkeys(with_sd, f"mean and sd of {what}"))
        return made

    @classmethod
    def _of_models(
        cls, wide: pd.DataFrame, found: list[str], with_sd: list[str], members: Iterable[str] | None, model: str,
        options: Mapping[str, Any],
    ) -> Self:  # fmt: skip
        """The ensemble of a table with a column for each model, and ``<model>_sd`` of some."""
        names = found if members is None else checks.member_names(members)
        check_known(names, found, kind="model", where=f"column {model!r}")
        spread = {name: f"{name}_sd" for name in with_sd if name in names}
        made: Self = cls.from_frame(wide, **{**options, "members": names, "spread": spread or None})
        return made


def _asked(
    function: str, options: Mapping[str, Any], by: Iterable[str] | None, *own: str
) -> tuple[dict[str, str], dict[str, Any], list[str], list[str]]:
    """Columns by role, other options, what tells cases apart, and covariates."""
    columns, others = split_roles(function, options, "model", "by", "members", *own)
    beside = checks.covariate_names(others.pop("covariates", None) or ())
    keys = [columns[role] for role in ("site", "time") if role in columns] if by is None else list(by)
    return columns, others, keys, beside
