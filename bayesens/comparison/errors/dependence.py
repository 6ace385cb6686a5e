"""How far the members' errors are one: correlations in parts, effective numbers of members, redundancy, and their limits."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from bayesens.comparison.errors.station_sums import PARTS, StationSums, standardised
from bayesens.comparison.errors.statistics import KINDS, MIN_SITES, described, inverse, unit_diagonal
from bayesens.ensemble.collinear import ROUNDING
from bayesens.ensemble.ensemble import Ensemble
from bayesens.messages import listed
from bayesens.tables.columns import labels

__all__ = ["dependence"]

Array = NDArray[np.float64]
CLUSTER_CORRELATION = 0.9  # mean error correlation above which members are called one cluster
N_ASSUMED = 6  # observation errors between none and the largest one possible


def dependence(
    ensemble: Ensemble,
    *,
    by: ArrayLike | None = None,
    replicates: int = 1000,
    level: float = 0.9,
    observation_error: ArrayLike | None = None,
    posterior: xr.DataTree | xr.Dataset | None = None,
    random_seed: int | None = None,
) -> xr.Dataset:
    """Describe how far the members, and above all their errors, depend on each other.

    An error is member minus observation; its mean never counts. Members that follow the truth correlate with one another
    however independent their errors are, so output correlations do not answer the question; they stand beside the error
    correlations for comparison. Error correlations come in parts: over all rows, *within* stations (about the mean of each
    station: variation in time), and *between* stations (of the stations' mean errors, each counted once).

    What correlated errors mean, and what not. They do not break BMA: its likelihood is a mixture that gives each row to
    one of its members, and nowhere supposes that members are independent. What BMA cannot do is use dependence: it cancels no
    errors, and weights of near twins are loose. Averages are another matter: the variance of the mean of K members of equal
    error variance falls by K / (1 + (K - 1) r), not by K, and a method that multiplies independent errors (a product of
    densities, HBM with ``errors="independent"``) is too sure of itself. HBM's correlated errors and linear pools can use
    dependence; whether that helps predictions is for held-out scores to say.

    Parameters
    ----------
    ensemble : Ensemble
        Two members or more, with observations. Pairs of members are taken over the rows that have both.
    by : array_like (obs), optional
        A label of every row; None takes the ensemble's groups where it has them. Each label is described on its own too.
    replicates : int
        Of the bootstrap over stations; 0 for no intervals where there are 20 stations or more.
    level : float
        Of the intervals, inside (0, 1).
    observation_error : array_like, optional
        Standard deviations, in the observation's units, of an error that the observations might have, independent of
        truth and members. It is part of all members' errors at once, so it raises their correlation. None takes six
        from 0 to the largest possible.
    posterior : DataTree or Dataset, optional
        A fit of HBM, whose posterior of ``error_corr`` is put beside.
    random_seed : int, optional
        Of the bootstrap.

    Returns
    -------
    Dataset
        Over ``group`` ("all", then the labels of `by`) and ``part`` ("total", and with stations "within", "between"), each
        with ``_low`` and ``_high``: ``error_correlation``, ``output_correlation``, ``partial_correlation`` (of two members'
        errors given the others') ``(member, member_)``; ``mean_correlation``; ``eigenvalue`` (rank), as shares of their sum;
        ``k_eff`` (kind); ``vif`` (member), of errors; ``information`` (member) [nats], what a member says of the
        observation beyond the others if all are jointly normal, -log(1 - partial correlation²) / 2. With
        ``error_sd``, ``count`` ``(member, member_)``, ``stations``, ``how`` (what the intervals rest on). For all rows:
        ``assumed_correlation`` and ``assumed_k_eff`` (observation_error), ``observation_error_bound``, ``cluster``
        (member), and ``posterior_correlation`` where a fit is given. ``attrs["notes"]`` is a JSON list of what is missing.

    Raises
    ------
    ValueError
        One member, no observation, labels of another length, an impossible level or observation error, or a posterior
        without ``error_corr`` of these members.

    Notes
    -----
    Kinds of K_eff. *mean correlation*: K / (1 + (K - 1) r) with the mean r. *least variance*: error variance of the mean
    (of the best) member over the least one that a weighted mean can have, weights adding up to 1 and allowed below 0; it
    grows with differences in skill as well, and weights learnt from few stations will not reach it. *entropy* and
    *participation* count the eigenvalues of the error correlation matrix: how flat its spectrum is. All lie between 1 and K,
    and are cut there. Correlations below zero: a mean below zero counts as zero (K_eff is K), and so does each pair in
    the spectrum, which sees no sign; least variance takes them as they are and is cut at K; ``assumed_k_eff`` is NaN where an
    assumed observation error makes any pair negative. K_eff between stations rests on their number: of fewer than 10
    there is none, and within stations and over all rows it is then that of these very rows, without an interval.

    Intervals resample stations, never rows; they do not cover errors that all stations share at one time. With 5 to 19
    stations they are t intervals (of Fisher's z, of log K_eff), with fewer there are none. Inverses and eigenvalues fit
    the sample: with 5 stations or more (K_eff: 10) the kinds of K_eff but the first, eigenvalues, VIF and information are
    corrected for bias by leaving out one station at a time, with t intervals (an eigenvalue can then pass its bound a
    little). The best member's variance is too small where members are equally good: that kind has no interval. Between
    stations the means still hold the errors of the rows that they are made of.

    An observation error of variance v changes the covariance C of errors to C - v 1 1'. Without repeated observations v is
    not estimable; it is only known to lie below the variance of y that a linear regression on the members leaves
    (`observation_error_bound`, as standard deviation). Beyond it the correlations are NaN.

    References
    ----------
    Winkler (1981), Management Science 27, 479; Clemen and Winkler (1985), Operations Research 33, 427: dependent experts.
    Bretherton et al. (1999), J. Climate 12, 1990: the participation ratio.

    Examples
    --------
    >>> frame = pd.DataFrame({"a": [1.0, 2.0, 4.0], "b": [3.0, 1.0, 1.0], "y": [0.0, 0.0, 2.0], "site": list("xxx")})
    >>> ensemble = Ensemble.from_frame(frame, members=["a", "b"], observation="y", site="site")
    >>> found = dependence(ensemble)  # errors 1, 2, 2 and 3, 1, -1
    >>> float(found["error_correlation"].sel(group="all", part="total", member="a", member_="b").round(2))
    -0.87
    >>> found["how"].values.tolist()
    ['none: 1 station']
    """
    labels_of = _checked(ensemble, by, replicates, level)
    observation = ensemble.require_observation()
    site = ensemble.labels("site")
    observed = ensemble.observed if site is None else ensemble.observed & (site != "")
    rows = np.flatnonzero(observed & ensemble.available.any(axis=1))
    if not len(rows):
        raise ValueError("no row has an observation, a member and (where stations are given) a station; wanted some")
    codes = np.zeros(len(rows), np.intp) if site is None else np.unique(site[rows], return_inverse=True)[1]
    names, parts = list(ensemble.members), PARTS[:1] if site is None else PARTS
    f, y = ensemble.prediction[rows], observation[rows]
    notes = _notes(ensemble, f - y[:, None], site, int(ensemble.n_observed))
    pieces = {"all": np.ones(len(rows), bool)}
    if labels_of is not None:
        found = labels_of[rows]
        pieces |= {str(label): found == label for label in np.unique(found) if label != ""}
    pooled_and_groups = []
    for label, mask in pieces.items():
        own = np.unique(codes[mask], return_inverse=True)[1]
        errors = StationSums.of(f[mask] - y[mask, None], own)
        both = StationSums.of(np.column_stack([f, y])[mask], own)
        one = described(
            errors, both, parts, replicates=replicates, level=level, seed=random_seed, sites=site is not None
        )
        pooled_and_groups.append(one)
        if site is not None and len(errors.count) == 1:
            notes.append(f"{label} has one station: nothing between stations, and no interval.")
    full = np.ones((len(np.unique(codes)), 1))
    out = xr.concat(pooled_and_groups, pd.Index(np.array(list(pieces)), name="group"))
    out = out.assign_coords(part=np.array(parts), member=np.array(names), member_=np.array(names), kind=np.array(KINDS),
                            rank=np.arange(1, len(names) + 1))  # fmt: skip
    out = out.merge(_assumed(StationSums.of(f - y[:, None], codes), StationSums.of(np.column_stack([f, y]), codes), full,
                             observation_error, notes))  # fmt: skip
    out["cluster"] = "member", _clusters(out["error_correlation"].sel(group="all", part="total").values)
    if posterior is not None:
        out = out.merge(_posterior(posterior, names, level))
    whole = out.sel(group="all", part="total")
    if np.isnan(whole["vif"]).any() and not np.isnan(whole["error_correlation"]).any():
        notes.append("The matrix of error correlations cannot be inverted (a member is a copy or a combination of others, or "
                     "pairs over different rows do not fit together): no partial correlation, VIF, least variance.")  # fmt: skip
    notes += _notes_of_k_eff(out, site is not None)
    out.attrs = {"level": level, "replicates": replicates, "units": ensemble.units, "notes": json.dumps(notes)}
    return out


def _checked(ensemble: Ensemble, by: ArrayLike | None, replicates: int, level: float) -> NDArray[np.str_] | None:
    if ensemble.n_members < 2:
        raise ValueError(f"the ensemble has one member, {ensemble.members[0]!r}; dependence takes two or more")
    if not 0.0 < level < 1.0:
        raise ValueError(f"the level of an interval lies inside (0, 1), such as 0.9; got {level!r}")
    if replicates < 0:
        raise ValueError(f"replicates is {replicates}; wanted 0 or more, such as 1000")
    if by is None:
        return ensemble.labels("group")
    column = pd.Series(np.asarray(by))
    if len(column) != len(ensemble):
        raise ValueError(f"by has {len(column)} labels and the ensemble {len(ensemble)} rows; wanted one for each row")
    out = labels(column)
    if (out == "all").any():
        raise ValueError("by has the label 'all', which stands for all rows in the result; rename it")
    return out


def _notes_of_k_eff(out: xr.Dataset, sites: bool) -> list[str]:
    """Why there is no effective number, or one that is cut at K."""
    notes = []
    few = [
        f"{label} has {n}"
        for label, n in zip(out["group"].values, out["stations"].values, strict=True)
        if n < MIN_SITES
    ]
    if sites and few:
        notes.append(f"An effective number of members between stations takes {MIN_SITES} stations, and {', '.join(few)}: there "
                     "is none, and no interval of the others.")  # fmt: skip
    whole = out["mean_correlation"].sel(group="all")
    if below := [str(part) for part in out["part"].values if float(whole.sel(part=part)) < 0.0]:
        words = [{"total": "over all rows"}.get(part, f"{part} stations") for part in below]
        notes.append(f"The mean error correlation {' and '.join(words)} is below zero; it counts as zero in the effective number "
                     "of members, which is never above their number.")  # fmt: skip
    return notes


def _notes(ensemble: Ensemble, error: Array, site: NDArray[np.str_] | None, observed: int) -> list[str]:
    notes = []
    if site is None:
        notes.append("No stations are given: nothing within or between them, and no intervals (those from rows alone would "
                     "be too short).")  # fmt: skip
    elif left := observed - int((ensemble.observed & (site != "")).sum()):
        notes.append(f"{left} rows without a station are left out.")
    known = np.isfinite(error)
    for k, name in enumerate(ensemble.members):
        values = error[known[:, k], k]
        if len(values) < 2 or np.ptp(values) <= ROUNDING * max(
            abs(values.mean()), np.nanmax(np.abs(ensemble.prediction[:, k]))
        ):
            notes.append(f"The errors of {name!r} are constant, or it has none: no correlation with it.")
    if not known.all():
        notes.append(
            f"{int((~known).sum())} of {known.size} member values are missing: every pair has its own rows (count)."
        )
    return notes


# ------------------------------------------------------------------------------------------- what data alone cannot settle
def _assumed(
    errors: StationSums, both: StationSums, full: Array, given: ArrayLike | None, notes: list[str]
) -> xr.Dataset:
    """Error correlations if the observations had an error of their own."""
    covariance, variance = errors.covariance("total", full)
    r = unit_diagonal(standardised(covariance, variance))
    sd = np.sqrt(np.diagonal(variance, axis1=1, axis2=2))
    precision = inverse(unit_diagonal(standardised(*both.covariance("total", full))))
    spread = both.covariance("total", full)[1][0, -1, -1]
    bound = float(np.sqrt(spread / precision[0, -1, -1]))
    if given is None:
        assumed = np.linspace(0.0, bound, N_ASSUMED) if np.isfinite(bound) else np.zeros(1)
    else:
        assumed = np.atleast_1d(np.asarray(given, dtype=np.float64))
        if assumed.ndim != 1 or not (np.isfinite(assumed) & (assumed >= 0)).all():
            raise ValueError(f"observation_error holds standard deviations, 0 or more; got {given!r}")
        if (assumed > bound).any():
            notes.append(
                f"An observation error above {bound:.3g} is impossible: the members leave no more unexplained."
            )
    left = (r * sd[:, :, None] * sd[:, None, :]) - assumed[:, None, None] ** 2
    own = np.sqrt(np.where((rest := np.diagonal(left, axis1=1, axis2=2)) > 0, rest, np.nan))
    possible = assumed <= bound if np.isfinite(bound) else assumed == 0
    found = np.clip(np.where(possible[:, None, None], left / (own[:, :, None] * own[:, None, :]), np.nan), -1.0, 1.0)
    k = found.shape[-1]
    mean = (found.sum(axis=(1, 2)) - k) / (k * (k - 1))
    none_below = (
        found.min(axis=(1, 2)) >= -1e-12
    )  # an error so large that it makes others negative was never common to all
    return xr.Dataset(
        {
            "assumed_correlation": (("observation_error", "member", "member_"), found),
            "assumed_k_eff": (("observation_error",), k / (1.0 + (k - 1) * np.where(none_below, mean, np.nan))),
            "observation_error_bound": ((), bound),
        },
        {"observation_error": assumed},
    )


def _clusters(r: Array) -> NDArray[np.int64]:
    """Members in one cluster where the mean error correlation between clusters exceeds 0.9 (average linkage on 1 - r)."""
    from scipy.cluster.hierarchy import fcluster, linkage

    out = np.arange(len(r))
    known = np.flatnonzero(np.isfinite(r).sum(axis=0) > 1)
    if len(known) > 1 and np.isfinite(part := r[np.ix_(known, known)]).all():
        out[known] = len(r) + fcluster(
            linkage(1.0 - part[np.triu_indices(len(known), 1)], "average"), 1 - CLUSTER_CORRELATION, "distance"
        )
    return pd.factorize(out)[0] + 1


def _posterior(posterior: xr.DataTree | xr.Dataset, names: list[str], level: float) -> xr.Dataset:
    """Median and interval of the error correlation that a fit found."""
    group = posterior["posterior"].to_dataset() if isinstance(posterior, xr.DataTree) else posterior
    if "error_corr" not in group:
        raise ValueError(
            "the posterior has no error_corr; wanted a fit of HBM (other models have no error correlation)"
        )
    draws = group["error_corr"]
    if set(map(str, draws["member"].values)) != set(names):
        raise ValueError(f"the fit has the members {listed(draws['member'].values.tolist())}, the ensemble {listed(names)}; "
                         "wanted the same")  # fmt: skip
    ends = draws.sel(member=names, member_=names).quantile([0.5, 0.5 - level / 2, 0.5 + level / 2], ["chain", "draw"])
    name = "posterior_correlation"
    return xr.Dataset({name + end: ends.isel(quantile=i, drop=True) for i, end in enumerate(("", "_low", "_high"))})
