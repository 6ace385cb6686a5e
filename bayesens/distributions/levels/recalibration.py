"""Recalibration: a monotone map G of [0, 1] to [0, 1], the distribution function of the PITs of rows that were held out.

Where a predictive distribution F is too narrow, too wide or off to one side, the PIT u = F(y) of new observations is not uniform.
With G the law of u, G(F(y)) is a predictive distribution whose PIT is uniform: its quantile at level p is that of F at G^-1(p),
its probability below t is G(F(t)), and its density is g(F(y)) f(y).

G is estimated from the PITs with equal weights of stations, mixed with their mirror images 1 - u, which say as much of the spread
and nothing of a bias, and with uniform PITs, which say nothing:

    law of u = (s + b) / 2 observed + (s - b) / 2 mirrored + (1 - s) uniform,    s = n_s / (n_s + m),    b = n_b / (n_b + m),

with m uniform PITs, and s not below b. n_s and n_b are the numbers of independent rows that would tell the spread, by the mean
of log u + log(1 - u), and the bias, by that of log u - log(1 - u), as well as the rows do: stations that err each to its own
side tell much of the spread and little of a common bias. n = stations / r with r the variance of stations' means over that of
rows: 1 where the rows of a station are copies of each other. r is drawn towards 1 as by two more stations of copies, for few
stations tell it badly.

"beta" takes the beta distribution of the greatest likelihood under that law, which looks at these two means alone. Where a mean
lies z standard errors from that of uniform PITs, its share is taken (1 - 1 / z^2) times, and 0 below z = 1, so that calibrated
distributions are mostly left as they are. "isotonic" takes the law's distribution function at 29 levels, straight between them on
the scale of normal scores; what it bends by chance is not held back, but for the m uniform PITs.

References
----------
Gneiting and Ranjan (2013), Electron. J. Stat. 7, 1747: the beta-transformed predictive distribution.
Kuleshov, Fenner and Ermon (2018), ICML 80, 2796: a monotone map of levels, learnt from held-out PITs.
James and Stein (1961), 4th Berkeley Symp. 1, 361: shares by what is seen against its standard error, not below zero.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray
from scipy.special import betainc, betaincinv, betaln, digamma, ndtr, ndtri, polygamma

from bayesens.messages import check_known, listed
from bayesens.tables.atomic import write_atomically
from bayesens.tables.reading import check_there

__all__ = ["METHODS", "Recalibration", "recalibration_of"]

Array = NDArray[np.float64]
METHODS = ("beta", "isotonic")
FURTHEST = 1e-6  # PITs nearer to 0 or 1 count as this: one observation in a million
KNOTS = np.linspace(-3.5, 3.5, 29)  # normal scores of the levels where "isotonic" keeps G
ENDS = (1e-16, 1.0 - 2.0**-53)  # levels that differ from 0 and 1


WANTED = "wanted a map of levels, as Recalibration.save writes it"


@dataclass(frozen=True)
class Recalibration:
    """The law G of the PITs of held-out rows, from `recalibrate` or by hand.

    Attributes
    ----------
    method : {"beta", "isotonic"}
    parameters : tuple of float
        Of "beta": its two shapes; (1, 1) changes nothing. Of "isotonic": G at the 29 levels whose normal scores are -3.5, -3.25,
        ..., 3.5, increasing inside (0, 1).
    stations, rows : int
        Whose PITs were taken.
    rows_for_spread, rows_for_bias : float
        So many independent rows tell as much of the two.
    model, estimand : str
        What made the PITs, as the rows name it.

    Examples
    --------
    Forecasts that are too narrow: their 90 % interval holds less than 90 % of the observations.

    >>> narrow = Recalibration("beta", (0.5, 0.5))
    >>> narrow.cdf([0.05, 0.5, 0.95]).round(3), narrow.quantile([0.05, 0.95]).round(3)
    (array([0.144, 0.5  , 0.856]), array([0.006, 0.994]))
    >>> Recalibration.from_json(narrow.to_json()) == narrow
    True
    """

    method: str
    parameters: tuple[float, ...]
    stations: int = 0
    rows: int = 0
    rows_for_spread: float = 0.0
    rows_for_bias: float = 0.0
    model: str = ""
    estimand: str = ""

    def __post_init__(self) -> None:
        check_known([self.method], METHODS, kind="method", where="recalibration")
        object.__setattr__(self, "parameters", tuple(float(each) for each in self.parameters))
        values = np.array(self.parameters)
        if self.method == "beta" and not (values.shape == (2,) and np.all((values > 0.0) & np.isfinite(values))):
            raise ValueError(
                f"got parameters={self.parameters!r}; wanted the two positive shapes of a beta distribution"
            )
        rising = values.shape == KNOTS.shape and np.all(np.diff(values, prepend=0.0, append=1.0) > 0.0)
        if self.method == "isotonic" and not rising:
            raise ValueError(f"got {values.size} parameters; wanted {KNOTS.size} probabilities that increase inside (0, 1), as "
                             "be.recalibrate makes them")  # fmt: skip

    def cdf(self, level: ArrayLike) -> Array:
        """Return G: the level of the recalibrated distribution where the first one has ``level``, in [0, 1].

        Parameters
        ----------
        level : array (...)

        Returns
        -------
        array (...)
        """
        u = np.asarray(level, dtype=np.float64)
        return np.asarray(
            betainc(*self.parameters, u) if self.method == "beta" else ndtr(_line(ndtri(u), KNOTS, self._scores))
        )

    def quantile(self, level: ArrayLike) -> Array:
        """Return G^-1: the level of the first distribution where the recalibrated one has ``level``; inside (0, 1).

        Parameters
        ----------
        level : array (...)

        Returns
        -------
        array (...)
        """
        p = np.asarray(level, dtype=np.float64)
        u = betaincinv(*self.parameters, p) if self.method == "beta" else ndtr(_line(ndtri(p), self._scores, KNOTS))
        return np.asarray(np.clip(u, *ENDS))

    def logpdf(self, level: ArrayLike) -> Array:
        """Return log g, which the log density of an observation with the PIT ``level`` rises by.

        Parameters
        ----------
        level : array (...)
            Values nearer to 0 or 1 than 1e-6 count as that far out.

        Returns
        -------
        array (...)
        """
        u = np.clip(np.asarray(level, dtype=np.float64), FURTHEST, 1.0 - FURTHEST)
        if self.method == "beta":
            a, b = self.parameters
            return np.asarray((a - 1.0) * np.log(u) + (b - 1.0) * np.log1p(-u) - betaln(a, b))
        z, slope = ndtri(u), np.diff(self._scores) / np.diff(KNOTS)
        rise = np.r_[1.0, slope, 1.0][np.searchsorted(KNOTS, z)]
        return np.asarray(np.log(rise) + 0.5 * (z**2 - _line(z, KNOTS, self._scores) ** 2))

    def to_json(self) -> str:
        """Return the value as text, for a file or an attribute of a NetCDF file."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the value that `to_json` wrote.

        Parameters
        ----------
        text : str

        Returns
        -------
        Recalibration

        Raises
        ------
        ValueError
            Text that is not JSON, other keys, values of another kind, parameters that are no map of levels.
        """
        try:
            values = json.loads(text)
        except ValueError as error:
            raise ValueError(f"it is not JSON ({error}); {WANTED}") from error
        return cls(**_checked(values))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the value to a JSON file, whole or not at all.

        Parameters
        ----------
        path : str or path
            With the suffix ``.json``.

        Raises
        ------
        OSError, ValueError
            A file that cannot be written, another suffix.
        """
        if Path(path).suffix.lower() != ".json":
            raise ValueError(
                f"{path} has the suffix {Path(path).suffix!r}; a map of levels is a .json file: name it so"
            )
        with write_atomically(path) as aside:
            aside.write_text(f"{self.to_json()}\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read the file that `save` wrote.

        Parameters
        ----------
        path : str or path

        Returns
        -------
        Recalibration

        Raises
        ------
        OSError, ValueError
            No such file, or one that holds no map of levels.

        Examples
        --------
        >>> import tempfile
        >>> narrow = Recalibration("beta", (0.5, 0.5))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     narrow.save(Path(folder) / "levels.json")
        ...     Recalibration.load(Path(folder) / "levels.json") == narrow
        True
        """
        check_there(Path(path), folder=False)
        try:
            return cls.from_json(Path(path).read_text(encoding="utf-8"))
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is no text; {WANTED}") from error
        except (KeyError, ValueError) as error:
            raise ValueError(f"{path}: {error.args[0]}") from error

    @property
    def _scores(self) -> Array:
        return np.asarray(ndtri(np.array(self.parameters)))


def _checked(values: Any) -> dict[str, Any]:
    """What a file says, if it is what a file says of a map."""
    if not isinstance(values, dict):
        raise ValueError(f"it holds a {type(values).__name__}; {WANTED}")
    known = {each.name: each for each in fields(Recalibration)}
    lacking = [name for name in ("method", "parameters") if name not in values]
    if lacking or (odd := [name for name in values if name not in known]):
        what = f"no {listed(lacking)}" if lacking else f"{listed(odd)}, which no map of levels has"
        raise ValueError(f"it has {what}; {WANTED}")
    for name, value in values.items():
        many = name == "parameters"
        some = value if many and isinstance(value, list) else [None] if many else [value]
        kinds = str if name in ("method", "model", "estimand") else int if name in ("stations", "rows") else int | float
        if any(not isinstance(each, kinds) or isinstance(each, bool) for each in some):
            raise ValueError(f"its {name} is {value!r}; {WANTED}")
    return values


def recalibration_of(
    pit: Array, station: NDArray[np.intp], *, method: str, prior: float, model: str = "", estimand: str = ""
) -> Recalibration:
    """Estimate G from PITs in [0, 1]; see `bayesens.recalibrate`.

    Parameters
    ----------
    pit : array (obs)
    station : int array (obs)
        Numbers of the stations, in any order.
    method : {"beta", "isotonic"}
    prior : float
        Number m of uniform PITs that are mixed in; positive.
    model, estimand : str
        For the value.

    Returns
    -------
    Recalibration

    Examples
    --------
    >>> u = np.random.default_rng(1).beta(0.5, 0.5, 2000)
    >>> [round(each, 1) for each in recalibration_of(u, np.arange(2000), method="beta", prior=20.0).parameters]
    [0.5, 0.5]
    """
    number, count = np.unique(station, return_inverse=True, return_counts=True)[1:]
    u, weight = np.clip(pit, FURTHEST, 1.0 - FURTHEST), 1.0 / (count.size * count[number])
    left, right = np.log(u), np.log1p(-u)
    spread, bias = (_told(value, weight, number, usual) for value, usual in ((left + right, -2.0), (left - right, 0.0)))
    shares = _shares(spread, bias, prior, beta=method == "beta")
    made = (
        _beta(shares, float(left @ weight), float(right @ weight)) if method == "beta" else _at_knots(shares, u, weight)
    )
    return Recalibration(method, tuple(made), count.size, u.size, spread.rows, bias.rows, model, estimand)


@dataclass(frozen=True)
class _Told:
    """So many independent rows would tell a mean as well; so many standard errors it lies from that of uniform PITs."""

    rows: float
    errors: float

    def share(self, prior: float, evident: bool) -> float:
        """Share of the rows among them and the uniform PITs; less where chance may have made the difference."""
        seen = max(0.0, 1.0 - 1.0 / self.errors**2) if self.errors > 0.0 else 0.0
        return self.rows / (self.rows + prior) * (seen if evident else 1.0)


def _told(value: Array, weight: Array, number: NDArray[np.intp], usual: float) -> _Told:
    """What rows tell of the mean of a value, against its usual mean."""
    stations, mean = int(number.max()) + 1, value @ weight
    centred = value - mean
    of_rows = float(weight @ centred**2)
    of_means = float(np.sum((stations * np.bincount(number, weight * centred)) ** 2)) / (stations - 1)
    like_copies = of_means / of_rows if of_rows > 0.0 else 1.0
    rows = min(stations * (stations + 1) / ((stations - 1) * like_copies + 2.0), float(value.size))
    return _Told(rows, float(abs(mean - usual) / np.sqrt(max(of_rows, 1e-12) / rows)))


def _shares(spread: _Told, bias: _Told, prior: float, *, beta: bool) -> _Shares:
    common = bias.share(prior, beta)
    return _Shares(max(spread.share(prior, beta), common), common)


@dataclass(frozen=True)
class _Shares:
    """How much of the law is observed, mirrored or uniform, as far as rows tell the spread and the bias."""

    spread: float
    bias: float

    def mixed(self, observed: Any, mirrored: Any, uniform: Any) -> Any:
        """What the mixture has, of what the three parts have."""
        s, b = self.spread, self.bias
        return 0.5 * (s + b) * observed + 0.5 * (s - b) * mirrored + (1.0 - s) * uniform


def _beta(shares: _Shares, left: float, right: float) -> Sequence[float]:
    """Shapes of the greatest likelihood: the beta distribution that expects the means of log u and log(1 - u)."""
    wanted = np.array([shares.mixed(left, right, -1.0), shares.mixed(right, left, -1.0)])

    def miss(theta: Array) -> Array:
        shape = np.exp(theta)
        return np.asarray(digamma(shape) - digamma(shape.sum()) - wanted)

    def slope(theta: Array) -> Array:
        shape = np.exp(theta)
        return np.asarray((np.diag(polygamma(1, shape)) - polygamma(1, shape.sum())) * shape)

    found = scipy.optimize.root(miss, np.zeros(2), jac=slope, tol=1e-12)
    return np.exp(found.x).tolist()


def _at_knots(shares: _Shares, u: Array, weight: Array) -> Sequence[float]:
    """The mixed law's distribution function at the knots."""
    order, levels = np.argsort(u), ndtr(KNOTS)
    below = np.r_[0.0, np.cumsum(weight[order])]
    observed = below[np.searchsorted(u[order], levels, side="right")] / below[-1]
    return shares.mixed(observed, 1.0 - observed[::-1], levels).tolist()


def _line(x: Array, knots: Array, values: Array) -> Array:
    """Straight between knots, and with the slope 1 beyond them."""
    inside = np.clip(x, knots[0], knots[-1])
    return np.asarray(np.interp(inside, knots, values) + (x - inside))
