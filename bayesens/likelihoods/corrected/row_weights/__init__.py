"""Weights that follow the rows: a field over places, parts of the kernel, and the predictive distribution with its loops."""
