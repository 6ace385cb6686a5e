"""Data that have a place and a date: maps, stations in cells, droughts."""
