"""Neighbours among the members: fitted, asked for rows and grids, and kept in files."""
