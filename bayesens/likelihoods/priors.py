"""Priors as values: a PyMC distribution by name, written in units of the data's scale.

A prior of a quantity with units (a bias, a standard deviation) is stated for the standardised quantity, as in
``Prior("Normal", mu=0, sigma=0.3)`` for ``bias / unit``; the model that uses it multiplies it by the scale of the
observations, so the same value serves soil moisture in m3/m3 and discharge in 10^3 m3/s.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pymc as pm
    import xarray as xr

__all__ = ["Prior", "location_scale", "log_density", "prior_draws"]

# How a family's parameters move when its variable is multiplied by `scale` (and shifted, for families of the whole
# line). Families that are not listed here go through a change of variables in PyMC, which costs more compilation.
_SCALED = {
    "Normal": ("sigma",), "Laplace": ("b",), "Logistic": ("s",), "Cauchy": ("beta",), "StudentT": ("sigma",),
    "Gumbel": ("beta",), "SkewNormal": ("sigma",), "HalfNormal": ("sigma",), "HalfStudentT": ("sigma",),
    "HalfCauchy": ("beta",), "Weibull": ("beta",), "InverseGamma": ("beta",), "TruncatedNormal": ("sigma",),
    "Uniform": (),
}  # fmt: skip
_LOCATED = {"Normal", "Laplace", "Logistic", "Cauchy", "StudentT", "Gumbel", "SkewNormal", "TruncatedNormal", "Uniform"}
_LOCATION_NAME = {"Cauchy": "alpha"}
_INVERSE = {"Gamma": ("beta",), "Exponential": ("lam",)}


@dataclass(frozen=True, init=False, repr=False)
class Prior:
    """A prior distribution as a value: the name of a PyMC distribution and its parameters.

    Parameters
    ----------
    family : str
        Name of a distribution in ``pymc``, such as ``"Normal"``, ``"HalfNormal"``, ``"Gamma"`` or ``"Dirichlet"``.
    **parameters : float or sequence of float
        Its parameters, by the names that PyMC gives them, in units of the scale of the observations.

    Raises
    ------
    TypeError
        If a parameter is not a finite number or a sequence of finite numbers.

    Examples
    --------
    >>> prior = Prior("HalfNormal", sigma=0.3)
    >>> prior
    Prior("HalfNormal", sigma=0.3)
    >>> Prior.from_json(prior.to_json()) == prior
    True
    """

    family: str
    parameters: tuple[tuple[str, float | tuple[float, ...]], ...]

    def __init__(self, family: str, **parameters: Any) -> None:
        if not str(family).isidentifier():
            raise TypeError(
                f"The family of a prior is the name of a PyMC distribution, such as 'Normal'; got {family!r}."
            )
        object.__setattr__(self, "family", family)
        object.__setattr__(
            self, "parameters", tuple((name, _number(name, v)) for name, v in sorted(parameters.items()))
        )

    def __repr__(self) -> str:
        return f'Prior("{self.family}"' + "".join(f", {name}={value!r}" for name, value in self.parameters) + ")"

    def to_json(self) -> dict[str, Any]:
        """Return a plain dictionary that :meth:`from_json` turns back into the same prior.

        Examples
        --------
        >>> Prior("Normal", mu=0, sigma=1).to_json()
        {'family': 'Normal', 'parameters': {'mu': 0.0, 'sigma': 1.0}}
        """
        values = {name: list(v) if isinstance(v, tuple) else v for name, v in self.parameters}
        return {"family": self.family, "parameters": values}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Prior:
        """Rebuild a prior from :meth:`to_json`.

        Examples
        --------
        >>> Prior.from_json({"family": "HalfNormal", "parameters": {"sigma": 0.3}})
        Prior("HalfNormal", sigma=0.3)
        """
        return cls(data["family"], **data["parameters"])

    def create(self, name: str, *, scale: float = 1.0, shift: float = 0.0, **kwargs: Any) -> Any:
        """Register the random variable ``shift + scale * x`` with ``x`` of this prior in the current PyMC model.

        Parameters
        ----------
        name : str
            Name of the variable.
        scale, shift : float
            Units of the variable, and its origin.
        **kwargs
            Passed to PyMC, such as ``dims``.

        Returns
        -------
        pytensor.tensor.TensorVariable

        Raises
        ------
        ValueError
            If PyMC has no distribution of that name, or if it has other parameters.
        """
        import pymc as pm

        family = getattr(pm, self.family, None)
        if not (isinstance(family, type) and hasattr(family, "dist")):
            raise ValueError(f"PyMC has no distribution {self.family!r} (asked for by the prior of {name!r}); "
                             "give the name of a class in pymc.distributions, such as 'Normal'.")  # fmt: skip
        known = [key for key in inspect.signature(family.dist).parameters if key not in ("args", "kwargs")]
        if unknown := [key for key, _ in self.parameters if key not in known]:
            raise ValueError(f"The prior of {name!r}, {self!r}, cannot be built: it has no parameter {', '.join(unknown)}. "
                             f"Use the parameter names of pymc.{self.family}: {', '.join(known)}.")  # fmt: skip
        parameters = {key: value if isinstance(value, float) else list(value) for key, value in self.parameters}
        try:
            unmoved = scale == 1.0 and shift == 0.0
            moved = parameters if unmoved else _moved(self.family, parameters, scale, shift)
            if moved is None:
                variable = _affine(family, _double(parameters), name, scale, shift, kwargs)
            else:
                variable = family(name, **(_double(moved) if unmoved else _shared(moved)), **kwargs)
            variable.tag.unit = scale  # its size in the units of the data, for optimisers and their steps
            return variable
        except (TypeError, ValueError) as error:
            raise ValueError(f"The prior of {name!r}, {self!r}, cannot be built: {error}. "
                             f"Use the parameter names of pymc.{self.family}.") from error  # fmt: skip


def location_scale(parameters: Mapping[str, Any]) -> tuple[float, float]:
    """Location and scale of a normal prior, be it of the logarithm."""
    import numpy as np

    return float(np.mean(parameters.get("mu", 0.0))), float(np.mean(parameters.get("sigma", 1.0)))


def log_density(prior: Prior) -> Callable[[Any], Any]:
    """Log density of a prior of positive numbers as a function of arrays.

    Parameters
    ----------
    prior : Prior

    Returns
    -------
    callable

    Examples
    --------
    >>> float(log_density(Prior("HalfNormal", sigma=1))(0.0).round(4))  # log of sqrt(2 / pi)
    -0.2258
    """
    return partial(_log_density, prior)


def _log_density(prior: Prior, x: Any) -> Any:
    return _density_of(prior)(x)


@cache
def _density_of(prior: Prior) -> Callable[[Any], Any]:
    """Made when it is first asked for: scipy.stats takes longer to load than the rest of a command that reads a fit."""
    from scipy import stats

    p: dict[str, Any] = dict(prior.parameters)
    known = {
        "HalfNormal": lambda: stats.halfnorm(scale=p.get("sigma", 1.0)),
        "HalfCauchy": lambda: stats.halfcauchy(scale=p.get("beta", 1.0)),
        "Exponential": lambda: stats.expon(scale=1.0 / p["lam"] if "lam" in p else p.get("scale", 1.0)),
        "LogNormal": lambda: stats.lognorm(s=p.get("sigma", 1.0), scale=math.exp(p.get("mu", 0.0))),
        "Gamma": lambda: stats.gamma(p["alpha"], scale=1.0 / p["beta"]),
        "InverseGamma": lambda: stats.invgamma(p["alpha"], scale=p["beta"]),
        "Weibull": lambda: stats.weibull_min(p["alpha"], scale=p["beta"]),
    }
    if prior.family == "HalfStudentT":
        half = stats.t(p.get("nu", 1.0), scale=p.get("sigma", 1.0))
        return lambda x: half.logpdf(x) + math.log(2.0)
    if prior.family in known:
        return known[prior.family]().logpdf
    return lambda x: _pymc_log_density(prior, x)


def _pymc_log_density(prior: Prior, x: Any) -> Any:
    """Of any other family, by PyMC."""
    import pymc as pm
    from pytensor.compile.mode import Mode

    with pm.Model():
        variable = prior.create("ratio")
    return pm.logp(variable, x).eval(mode=Mode(linker="py", optimizer=None))


def prior_draws(model: pm.Model, *, draws: int, random_seed: int | None = None) -> xr.Dataset:
    """Draw the variables of a model from their priors; its data do not count.

    Parameters
    ----------
    model : pymc.Model
        As `build` returns it.
    draws : int
    random_seed : int, optional

    Returns
    -------
    xarray.Dataset
        Free variables and deterministic ones with their labels, (chain, draw, ...); without those that only serve the
        parametrisation.

    Examples
    --------
    >>> import pymc as pm
    >>> with pm.Model() as model:
    ...     sd = Prior("HalfNormal", sigma=1).create("sd", scale=2.0)
    >>> prior_draws(model, draws=500, random_seed=1)["sd"].sizes["draw"]
    500
    """
    import numpy as np
    import pymc as pm
    import xarray as xr
    from pytensor.compile.mode import Mode

    variables = [*model.free_RVs, *model.deterministics]
    # Compiled, so small a graph would take minutes longer than its draws save.
    arrays = pm.draw(variables, draws=draws, random_seed=random_seed, mode=Mode(linker="py", optimizer=None))
    found: dict[str, Any] = {}
    labels: dict[str, Any] = {}
    for variable, array in zip(variables, arrays, strict=True):
        values = np.asarray(array).reshape(draws, *np.shape(array)[1 if draws > 1 else 0 :])
        own = tuple(str(dim) for dim in model.named_vars_to_dims.get(variable.name) or ())
        if len(own) == values.ndim - 1:
            found[str(variable.name)] = (("chain", "draw", *own), values[None])
            labels |= {dim: np.array([str(label) for label in model.coords[dim] or ()]) for dim in own}
    return xr.Dataset(found, labels | {"chain": np.arange(1), "draw": np.arange(draws)})


def _double(parameters: dict[str, Any]) -> dict[str, Any]:
    """Parameters as float64 arrays: PyTensor would compute the logarithm of a plain 6.0 in single precision."""
    import numpy as np

    return {key: np.asarray(value, dtype=np.float64) for key, value in parameters.items()}


def _shared(parameters: dict[str, Any]) -> dict[str, Any]:
    """Parameters that depend on the data, as shared variables: as constants they would be compiled anew for every table."""
    import pytensor

    return {key: pytensor.shared(np_value) for key, np_value in _double(parameters).items()}


def _number(name: str, value: Any) -> float | tuple[float, ...]:
    try:
        if hasattr(value, "__len__") and not isinstance(value, str):
            numbers: float | tuple[float, ...] = tuple(float(v) for v in value)
        else:
            numbers = float(value)
    except (TypeError, ValueError):
        raise TypeError(
            f"Parameter {name!r} of a prior must be a number or a sequence of numbers; got {value!r}."
        ) from None
    if not all(math.isfinite(v) for v in (numbers if isinstance(numbers, tuple) else (numbers,))):
        raise TypeError(f"Parameter {name!r} of a prior must be finite; got {value!r}.")
    return numbers


def _moved(family: str, parameters: dict[str, Any], scale: float, shift: float) -> dict[str, Any] | None:
    """Parameters of ``shift + scale * x`` within the same family, or None where the family has no such rule."""
    if family == "LogNormal" and shift == 0.0:
        return parameters | {"mu": parameters.get("mu", 0.0) + math.log(scale)}
    if family in _INVERSE and shift == 0.0 and set(parameters) <= {"alpha", *_INVERSE[family]}:
        return {key: value / scale if key in _INVERSE[family] else value for key, value in parameters.items()}
    if family not in _SCALED or (shift != 0.0 and family not in _LOCATED):
        return None
    location = {_LOCATION_NAME.get(family, "mu"), "lower", "upper"} if family in _LOCATED else set()
    known = location | set(_SCALED[family]) | {"nu", "alpha"}
    if not set(parameters) <= known:
        return None
    if family == "Uniform":
        parameters = {"lower": 0.0, "upper": 1.0} | parameters
    missing = {_LOCATION_NAME.get(family, "mu"): 0.0} if family in _LOCATED and family != "Uniform" else {}
    unit = dict.fromkeys(_SCALED[family], 1.0) if family not in ("Weibull", "InverseGamma") else {}
    full = missing | unit | parameters
    return {
        key: shift + scale * value if key in location else scale * value if key in _SCALED[family] else value
        for key, value in full.items()
    }


def _affine(
    family: Any, parameters: dict[str, Any], name: str, scale: float, shift: float, kwargs: dict[str, Any]
) -> Any:
    """Any other family: PyMC derives the density of ``shift + scale * x``; the support decides the transform."""
    import numpy as np
    import pymc as pm
    import pymc.distributions.transforms as tr

    probe = family.dist(**parameters)
    draws = pm.draw(probe, draws=200, random_seed=0)
    positive = bool(np.all(draws >= 0))
    if (
        positive
        and shift == 0.0
        and float(np.max(draws)) <= 1.0
        and family.__name__ in ("Beta", "Kumaraswamy", "LogitNormal")
    ):
        transform: Any = tr.Interval(0.0, scale)
    elif positive and shift == 0.0:
        transform = tr.log
    else:
        transform = None
    return pm.CustomDist(
        name, dist=lambda size: shift + scale * family.dist(**parameters, size=size),
        default_transform=transform, **kwargs,
    )  # fmt: skip
