"""Folds of sites that are as far apart as a map is from its stations: places, matched distances, blocks, buffers."""
