"""What models are made of: priors, densities with their gradients, parametrisations, maximum likelihood.

``priors`` and ``options`` are what a model is told; ``mixture`` is the density of a mixture of regressions and ``em`` its
optimum; ``corrected`` has members that are corrected one by one, ``multilevel`` the hierarchy of HBM, ``spread`` the regression
of EMOS; ``ops`` wraps compiled likelihoods for PyMC.
"""
