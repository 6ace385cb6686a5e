"""Simulated tables that several files of tests look at."""

import numpy as np

import bayesens as be
from bayesens import simulate


def gappy_region(n_sites, n_groups, n_times):
    """A region in which every 17th row has no observation."""
    frame = simulate.region(n_sites, n_groups, n_times, random_seed=2).frame
    frame.loc[::17, "sm"] = np.nan
    return frame


def mixture(n=120, seed=3):
    """Three members, of a mixture of regressions."""
    frame = simulate.bma(n, weight=[0.5, 0.3, 0.2], bias=[0.1, -0.2, 0.3], slope=[0.9, 1.0, 0.8], sigma=[0.3, 0.4, 0.5],
                         member_correlation=0.3, random_seed=seed)  # fmt: skip
    return be.Ensemble.from_frame(frame, members=["m1", "m2", "m3"], observation="y")


def hierarchy(seed=4):
    """Two members at eight sites, whose biases and slopes differ by site."""
    cov = 0.16 * (0.5 * np.eye(2) + 0.5)
    made = simulate.hbm(n_sites=8, n_groups=2, n_times=12, truth_mean=0.1, truth_sd=0.8, truth_site_sd=0.5, truth_group_sd=0.0,
                        center=0.0, bias=[0.2, -0.1], slope=[0.7, 0.9], slope_site=[0.6, 0.8], slope_group=[0.7, 0.7],
                        error_cov=cov, bias_site_cov=0.1 * np.eye(2), bias_group_cov=np.zeros((2, 2)),
                        random_seed=seed)  # fmt: skip
    return be.Ensemble.from_frame(made.frame, members=["m1", "m2"], observation="y", site="site")
