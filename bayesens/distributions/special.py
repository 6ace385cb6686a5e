"""Special functions for compiled kernels; a call from Python ends the process."""

from __future__ import annotations

import math

import numba

from bayesens.arithmetic import LOG_2PI
from bayesens.c_functions import BARE, INNER

__all__ = ["digamma", "erfcx", "log_ndtr", "log_t_constant", "ndtr", "trigamma"]

ROOT_HALF = math.sqrt(0.5)
# Half of (1 + 2 x) erfcx(x) as a polynomial of (x - MIDDLE) / (x + MIDDLE), from Chebyshev nodes: error below 2e-16.
# Each has a name of its own: a loop that reads them from a tuple does not become vector operations.
MIDDLE = 3.5
(N0, N1, N2, N3, N4, N5, N6, N7, N8, N9, N10, N11, N12, N13, N14, N15, N16, N17, N18, N19, N20, N21) = (
    0.6211746224355772, -0.07000459006881304, -0.0052777981661143196, 0.04875954757692478, -0.057544799079875975,
    0.043991576904705836, -0.024411662917616737, 0.009549665564386238, -0.0021075099224892656, -0.0001511345617210329,
    0.0002821920522453926, -6.075367789664409e-05, -2.139063379107902e-05, 1.2123919173172623e-05, 1.1632242452690546e-06,
    -1.8963240306110223e-06, -2.1016709046956236e-08, 2.8880219419979894e-07, -4.700298763911417e-09, -3.9821968237429013e-08,
    4.987054468489841e-10, 3.4609236213136717e-09,
)  # fmt: skip


@INNER
def digamma(x):  # type: ignore[no-untyped-def]
    """Derivative of the log-gamma function, for positive x: recurrence up to 10, then the asymptotic series."""
    out = 0.0
    while x < 10.0:
        out -= 1.0 / x
        x += 1.0
    r = 1.0 / (x * x)
    series = r * (1 / 12 - r * (1 / 120 - r * (1 / 252 - r * (1 / 240 - r * (1 / 132 - r * 691 / 32760)))))
    return out + math.log(x) - 0.5 / x - series


@INNER
def trigamma(x):  # type: ignore[no-untyped-def]
    """Derivative of the digamma function, for positive x."""
    out = 0.0
    while x < 10.0:
        out += 1.0 / (x * x)
        x += 1.0
    r = 1.0 / (x * x)
    return out + 0.5 * r + (1.0 + r * (1 / 6 - r * (1 / 30 - r * (1 / 42 - r * (1 / 30 - r * 5 / 66))))) / x


@INNER
def erfcx(x):  # type: ignore[no-untyped-def]
    """exp(x^2) erfc(x): the product while neither factor leaves the doubles, then a continued fraction."""
    if x < 10.0:
        return math.exp(x * x) * math.erfc(x)
    tail = x
    for i in range(30, 0, -1):
        tail = x + 0.5 * i / tail
    return 1.0 / (tail * math.sqrt(math.pi))


@INNER
def log_ndtr(x):  # type: ignore[no-untyped-def]
    """Log of the standard normal distribution function; far out by its asymptotic series, to 2e-12."""
    if x > -30.0:
        return math.log(0.5 * math.erfc(-x * ROOT_HALF))
    r = 1.0 / (x * x)
    series = 1.0 - r * (1.0 - 3.0 * r * (1.0 - 5.0 * r * (1.0 - 7.0 * r)))
    return -0.5 * x * x - 0.5 * LOG_2PI - math.log(-x) + math.log(series)


@INNER
def log_t_constant(nu):  # type: ignore[no-untyped-def]
    """Log of the density of Student's t at zero over that of the standard normal."""
    return math.lgamma(0.5 * (nu + 1.0)) - math.lgamma(0.5 * nu) - 0.5 * math.log(0.5 * nu)


@numba.njit(**BARE, error_model="numpy", fastmath={"contract"})
def ndtr(x, exponential):  # type: ignore[no-untyped-def]
    """The standard normal distribution function, given exp(-x^2 / 2): without a branch, so that many are made side by side."""
    u = ROOT_HALF * min(abs(x), 100.0)
    near, both = 1.0 + 2.0 * u, 1.0 / ((u + MIDDLE) * (1.0 + 2.0 * u))
    t = (u - MIDDLE) * near * both
    high = N16 + t * (N17 + t * (N18 + t * (N19 + t * (N20 + t * N21))))
    middle = N8 + t * (N9 + t * (N10 + t * (N11 + t * (N12 + t * (N13 + t * (N14 + t * (N15 + t * high)))))))
    value = N0 + t * (N1 + t * (N2 + t * (N3 + t * (N4 + t * (N5 + t * (N6 + t * (N7 + t * middle)))))))
    tail = exponential * value * (u + MIDDLE) * both
    return tail if x < 0.0 else 1.0 - tail
