"""The models, one a file. Each is a frozen value that builds a PyMC model and knows its predictive distribution."""

from __future__ import annotations

from bayesens.models.baselines import Climatology, EqualWeights, SingleMember
from bayesens.models.bma import BMA
from bayesens.models.emos import EMOS
from bayesens.models.hbm import HBM
from bayesens.models.linear_pool import LinearPool

__all__ = ["BMA", "EMOS", "HBM", "Climatology", "EqualWeights", "LinearPool", "SingleMember"]
