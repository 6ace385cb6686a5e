"""Special functions for compiled kernels; a call from Python ends the process."""

from __future__ import annotations

import math

from bayesens.arithmetic import LOG_2PI
from bayesens.c_functions import INNER

__all__ = ["digamma", "erfcx", "log_ndtr", "log_t_constant", "trigamma"]

ROOT_HALF = math.sqrt(0.5)


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
