"""The table of members and observations: one door, checks, and what is summed over its rows.

``ensemble`` is the door; ``rows`` are the arrays that models work on, ``streaming`` and ``sufficient`` sums of more rows than
memory holds, ``files`` the way from and to disk.
"""
