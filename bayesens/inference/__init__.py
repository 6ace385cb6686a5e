"""The verbs: fit, predict, score, draw, loo; and a fit as a tree.

``fit`` chooses and runs a method: ``laplace`` an approximation with importance weights, ``nuts`` a sampler; ``log_density`` is
the posterior density of unconstrained parameters, which ``tape`` evaluates without compiling. ``fit_tree`` reads and writes
fits.
"""
