"""Figures of maps: what `bayesens.predict` says of the cells of a grid, and of one cell through time.

`cells` knows where the cells of maps lie and thins large ones, `layers` takes one map out of a Dataset, `panels` draws it,
`layout` gives it the size of a journal and its colour bar, `station_points` brings stations to it, and `palette` has the
colours of value and uncertainty. What users call is in the other files, and found under `bayesens.plots`.
"""
