"""Members that are corrected one by one, and what is fitted around them.

``sums`` and ``correction`` are a member's own mixed model in closed form, ``own_correction`` the table of corrected members and
``posterior`` its draws; ``mixture`` and ``pool`` are densities around them with their gradients, ``em`` their optimum, ``widths``
what kernel widths follow, ``predictive`` the kernels of new rows, and ``matched`` few normals in the place of all draws.
"""
