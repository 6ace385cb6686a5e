"""Predictive distributions by their levels: maps of levels to levels, and quantiles at some of them."""
