"""What models are made of: densities with their gradients, and how members are corrected.

``correction`` is a member's own mixed model in closed form, ``corrected_mixture`` the mixture around corrected members,
``mixture`` that of regressions, ``em`` their maximum likelihood; ``ops`` wraps compiled likelihoods for PyMC.
"""
