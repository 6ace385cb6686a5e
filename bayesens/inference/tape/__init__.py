"""Log densities as straight-line programs with reverse-mode derivatives, run by one compiled register machine.

``trace`` takes a program from a graph of PyTensor, ``write`` and ``condense`` shorten it, ``tape`` holds it, ``interpreter``
runs it; ``untraced`` evaluates graphs that have no such program.
"""
