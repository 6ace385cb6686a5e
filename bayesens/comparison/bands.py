"""Parts of the range of values, such as the middle 15 to 85 %: rows that fall into one, and the CRPS that looks at it alone.

With ``V = min(max(Y, a), b)``, the threshold-weighted CRPS is ``int_a^b (F(x) - 1{y <= x})^2 dx = CRPS(V, v(y))``. For the
mixtures of :mod:`bayesens.distributions.mixtures` it has a closed form: by parts, ``int^b F^2 = b F(b)^2 - E[max(Y, Y'); max <=
b]``, and the expectation of the greater of two normals, up to a bound, is made of normal densities and a bivariate normal
probability, by Owen's T.

References
----------
Gneiting & Ranjan (2011), J. Bus. Econ. Stat. 29, 411: threshold weights. Allen, Ginsbourger & Ziegel (2023), SIAM/ASA J.
Uncertain. Quantif. 11, 906: the clamped form. Lerch et al. (2017), Stat. Sci. 32, 106: the forecaster's dilemma.
Owen (1956), Ann. Math. Stat. 27, 1075: T(h, a).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr

from bayesens.distributions.law import BY, EXPONENTIAL, GREATEST, SQUARE, Distribution, of_pairs
from bayesens.distributions.scores import crps_sample
from bayesens.distributions.steps import Steps
from bayesens.messages import UnknownName, check_known, listed, warn

__all__ = ["BANDS", "band_limits", "band_shares", "in_band", "select_band", "threshold_crps", "warn_dilemma"]

Array = NDArray[np.float64]
BANDS = MappingProxyType({"all": (0.0, 1.0), "low": (0.0, 0.15), "mid": (0.15, 0.85), "high": (0.85, 1.0)})
ROOT_2PI = np.sqrt(2.0 * np.pi)
FAR = 1e6  # standard deviations; stands for infinity, where a product of 0 and infinity would be NaN


# --------------------------------------------------------------------------------------------------------- rows in a band
def band_shares(band: str | tuple[float, float]) -> tuple[float, float]:
    """The two quantile levels of a band, by its name or as they are: low and high are the outer 15 %, mid what is between them.

    Examples
    --------
    >>> band_shares("mid"), band_shares((0.0, 0.3))
    ((0.15, 0.85), (0.0, 0.3))
    """
    if isinstance(band, str):
        if band.lower() not in BANDS:
            raise UnknownName(
                f"there is no band {band!r}; known: {listed(BANDS)}, or two quantile levels, such as (0, 0.3)"
            )
        return BANDS[band.lower()]
    low, high = (float(level) for level in band)
    if not 0.0 <= low < high <= 1.0:
        raise ValueError(f"the levels of a band increase inside [0, 1], such as (0.15, 0.85); got {band!r}")
    return low, high


def band_values(rows: xr.Dataset, by: str) -> Array:
    """What decides the band of each row, (obs)."""
    if by == "observation":
        return np.asarray(rows["observation"].values)
    if by == "climatology":
        if "site" not in rows.coords:
            raise ValueError("bands by climatology need the station of every row; give the ensemble site=...")
        return np.asarray(rows["observation"].groupby("site").mean().sel(site=rows["site"]).values)
    models = rows["model"].values.tolist()
    if by in models:
        return np.asarray(rows["prediction"].sel(model=by).values)
    numeric = [str(name) for name, v in rows.variables.items() if v.dims == ("obs",) and v.dtype.kind == "f"]
    check_known(
        [by], ["observation", "climatology", *models, *numeric], kind="value to make bands by", where="the rows"
    )
    return np.asarray(rows[by].values, dtype=np.float64)


def band_limits(rows: xr.Dataset, band: str | tuple[float, float], *, by: str = "observation") -> tuple[float, float]:
    """Limits of a band: quantiles of what it is made by (`select_band`) over all rows, infinite at the levels 0 and 1.

    Examples
    --------
    >>> rows = xr.Dataset({"observation": ("obs", np.arange(101.0))}, {"model": []})
    >>> band_limits(rows, "mid"), band_limits(rows, "low")
    ((15.0, 85.0), (-inf, 15.0))
    """
    return _limits(band_values(rows, by), band)


def _limits(values: Array, band: str | tuple[float, float]) -> tuple[float, float]:
    low, high = band_shares(band)
    return (float(np.nanquantile(values, low)) if low > 0.0 else -np.inf,
            float(np.nanquantile(values, high)) if high < 1.0 else np.inf)  # fmt: skip


def in_band(rows: xr.Dataset, band: str | tuple[float, float], *, by: str = "observation") -> NDArray[np.bool_]:
    """Which rows lie in a band, both ends included (`select_band`); a row whose value is missing lies in "all" alone.

    Examples
    --------
    >>> rows = xr.Dataset({"observation": ("obs", [1.0, 2.0, 3.0])}, {"model": []})
    >>> in_band(rows, (0.5, 1.0)).tolist()
    [False, True, True]
    """
    if band_shares(band) == BANDS["all"]:
        return np.ones(rows.sizes["obs"], dtype=bool)
    values = band_values(rows, by)
    low, high = _limits(values, band)
    return (values >= low) & (values <= high)


def select_band(rows: xr.Dataset, band: str | tuple[float, float], *, by: str = "observation") -> xr.Dataset:
    """Keep the rows of a band.

    Parameters
    ----------
    rows : Dataset
        From `common_rows`.
    band : str or (float, float)
        "all", "low", "mid" (15 to 85 %), "high", or two quantile levels.
    by : str
        What decides: "observation"; "climatology", the mean observation of the row's station; a model or product, by its
        prediction; or a variable of the rows, such as a covariate.

    Returns
    -------
    Dataset
        Some of the rows, the same for all models.

    Raises
    ------
    KeyError, ValueError
        For an unknown band or value, or if no row is left.

    Warns
    -----
    UserWarning
        By observation: the forecaster's dilemma.

    Examples
    --------
    >>> rows = xr.Dataset({"observation": ("obs", np.arange(101.0)), "prediction": (("model", "obs"), [np.arange(101.0)])},
    ...                   {"model": ["BMA"]})
    >>> select_band(rows, "high", by="BMA").sizes["obs"]
    16
    """
    if by == "observation" and band_shares(band) != BANDS["all"]:
        warn_dilemma()
    keep = in_band(rows, band, by=by)
    if not keep.any():
        raise ValueError(f"none of {len(keep)} rows lies in the band {band!r} by {by!r}; choose a wider one")
    return rows.isel(obs=np.flatnonzero(keep))


def warn_dilemma() -> None:
    """Warn of bands by observation."""
    warn("rows are selected by their observation: even the true distribution looks bad on such rows, and a false one may look "
         "better (the forecaster's dilemma, Lerch et al. 2017); compare models by the threshold-weighted CRPS over all rows "
         "(predictive=... or threshold_crps), or make bands by a forecast")  # fmt: skip


# --------------------------------------------------------------------------------------------- threshold-weighted CRPS
def threshold_crps(
    predictive: Distribution | Steps | ArrayLike, y: ArrayLike, *, lower: ArrayLike = -np.inf, upper: ArrayLike = np.inf
) -> Array:
    """CRPS that looks only at values between two thresholds: ``int_lower^upper (F(x) - 1{y <= x})^2 dx``.

    Unlike a mean over the rows whose observation lies there, it is proper.

    Parameters
    ----------
    predictive : Distribution (...) or array (draw, ...)
        Predictive distributions, for which the score is exact, or draws from them, scored as they are.
    y : array (...)
        Observations.
    lower, upper : float or array (...)
        Thresholds, in units of ``y``; infinite for none.

    Returns
    -------
    array (...)
        In units of ``y``; smaller is better; the CRPS where there are no thresholds, 0 where they are equal.

    Raises
    ------
    ValueError
        If a lower threshold is above its upper one, or one is missing.

    Examples
    --------
    Beyond the support of an almost certain forecast of 5, an observation of 7 costs the stretch from 5 to 6.

    >>> from bayesens.distributions.mixtures import NormalMixture
    >>> threshold_crps(NormalMixture(1.0, [5.0], 1e-6), 7.0, upper=6.0).round(3)
    np.float64(1.0)
    >>> threshold_crps([[5.0], [9.0]], [7.0], upper=6.0)  # draws 5 and 6, observation 6
    array([0.25])
    """
    y, lower, upper = (np.asarray(x, dtype=np.float64) for x in (y, lower, upper))
    if not np.all(lower <= upper):
        raise ValueError("a lower threshold is above its upper one, or missing; give lower <= upper")
    if isinstance(predictive, Steps):
        return predictive.threshold_crps(y, lower, upper)
    if not isinstance(predictive, Distribution):
        return crps_sample(np.clip(np.asarray(predictive, dtype=np.float64), lower, upper), np.clip(y, lower, upper))
    bottom = predictive.transform.lower
    a, b, short = lower, upper, np.zeros(())
    if np.isfinite(bottom):  # below its domain F is 0, and an observation there costs the stretch up to the domain
        a, b = np.maximum(lower, bottom), np.maximum(upper, bottom)
        short = np.clip(bottom, lower, upper) - np.clip(np.minimum(y, bottom), lower, upper)
    v = np.clip(y, a, b)
    once = _integral(predictive, b) - _integral(predictive, v)
    below: Any = 0.0 if np.all(lower <= bottom) else _integral_of_square(predictive, a)
    twice = _integral_of_square(predictive, b) - below
    score = twice - 2.0 * once + np.where(np.isinf(b), 0.0, b) - v
    return np.maximum(score, 0.0) + short  # rounding only: the score is not negative


# The integrals of F and of F^2 up to x, by parts. Where x is infinite they are short of x itself, which cancels above.
def _integral(law: Distribution, x: Array) -> Array:
    alone = ALONE[law.transform.name]
    z = law._latent(x)
    part = sum(w * alone(z, *one) for w, *one in _components(law))
    return np.where(np.isinf(x), 0.0, x) * law.cdf(x) - part


def _integral_of_square(law: Distribution, x: Array) -> Array:
    shape, by = np.broadcast_shapes(law.shape, np.shape(x)), BY[law.transform.name]
    z = np.broadcast_to(law._latent(x), shape).reshape(-1)
    components = [
        np.broadcast_to(a, (*shape, a.shape[-1])).reshape(len(z), -1) for a in (law.weight, law.mu, law.sigma)
    ]

    def below(z: Array) -> Array:
        def numbers(rows: slice) -> tuple[Array, ...]:
            weight, mu, s = (np.ascontiguousarray(a[rows].T) for a in components)
            at = _standard(z[rows], mu, s)
            return weight, mu, s, at, ndtr(at - s) if by == EXPONENTIAL else _phi(at), ndtr(at)

        return of_pairs(GREATEST, by, numbers, components[0].shape)

    part = below(z) - below(np.zeros_like(z)) if by == SQUARE else below(z)
    return np.where(np.isinf(x), 0.0, x) * law.cdf(x) ** 2 - part.reshape(shape)


def _components(law: Distribution) -> list[tuple[Array, Array, Array]]:
    arrays = [np.ascontiguousarray(np.moveaxis(x, -1, 0)) for x in (law.weight, law.mu, law.sigma)]
    return list(zip(*arrays, strict=True))


def _phi(x: Array) -> Array:
    return np.asarray(np.exp(-0.5 * np.minimum(np.square(x), 2e3)) / ROOT_2PI)


def _standard(x: Array, mu: Array, sigma: Array) -> Array:
    with np.errstate(invalid="ignore"):
        return np.where(np.isinf(x), np.copysign(FAR, x), (x - mu) / sigma)


def _normal(x: Array, mu: Array, s: Array) -> Array:
    """E[Z; Z < x]."""
    z = _standard(x, mu, s)
    return mu * ndtr(z) - s * _phi(z)


def _square(x: Array, mu: Array, s: Array) -> Array:
    """E[Z^2; 0 < Z < x]."""
    z, zero = _standard(x, mu, s), -mu / s
    up_to = ((mu**2 + s**2) * ndtr(t) - s * (2.0 * mu + s * t) * _phi(t) for t in (z, zero))
    return np.asarray(next(up_to) - next(up_to))


def _exponential(x: Array, mu: Array, s: Array) -> Array:
    """E[exp Z; Z < x]."""
    return np.asarray(np.exp(mu + 0.5 * s**2) * ndtr(_standard(x, mu, s) - s))


ALONE: Mapping[str, Callable[..., Array]] = {"identity": _normal, "sqrt": _square, "log": _exponential}
