"""Members that are corrected one by one, and what is fitted around them.

``correction`` is a member's own mixed model in closed form, ``own_correction`` the table of corrected members, ``mixture`` and
``pool`` are densities around them with their gradients, ``em`` their optimum, ``widths`` what kernel widths follow, and
``predictive`` the kernels of new rows.
"""
