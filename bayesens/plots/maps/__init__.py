"""Figures of maps: what `bayesens.predict` says of the cells of a grid, and of one cell through time.

`cells` knows where the cells of maps lie and thins large ones, `layers` takes one map out of a Dataset, `panels` draws it,
and `station_points` brings stations to it. What users call is in the other files, and found under `bayesens.plots`.
"""
