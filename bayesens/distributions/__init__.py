"""Predictive laws in closed form, their mixture over posterior draws, and their scores.

``mixtures`` are mixtures of normals and what transforms make of them, ``posterior_mixture`` the law that a fit predicts.
"""
