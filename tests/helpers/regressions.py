"""The mixture of regressions, which several files of tests fit, a table of it, and calls without their warnings."""

import warnings

import bayesens as be
from bayesens import simulate

JOINT = {"correction": "joint", "group": False, "site": False}  # the mixture of regressions

MEMBERS = ["m1", "m2", "m3"]
FOUR = [*MEMBERS, "m4"]


def mixture(n, seed, **kwargs):
    """Four members, the first of the largest weight."""
    frame = simulate.bma(
        n,
        weight=[0.4, 0.3, 0.2, 0.1],
        bias=[0.1, -0.2, 0.3, 0.0],
        slope=[0.9, 1.0, 0.8, 1.1],
        sigma=[0.3, 0.35, 0.4, 0.5],
        random_seed=seed,
        **kwargs,
    )
    return be.Ensemble.from_frame(frame, members=FOUR, observation="y")


def quiet(function, *args, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(*args, **options)
