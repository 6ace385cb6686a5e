"""The models, one a file. Each is a frozen value that builds a PyMC model and knows its predictive distribution."""

from __future__ import annotations

from bayesens.models.baselines import Climatology, EqualWeights, SingleMember
from bayesens.models.bma import BMA
from bayesens.models.hbm import HBM

__all__ = ["BMA", "HBM", "Climatology", "EqualWeights", "SingleMember"]
