"""Regression of a mean and a spread on the members (EMOS): its density, and its optimum."""
