"""A model's log density as a straight-line program with reverse-mode derivatives, run by one compiled register machine.

Two names serve the rest of the library: ``trace.trace`` turns a graph of PyTensor into a ``tape.Tape``, which gives values,
gradients, and the address of a C function for samplers. Tracing unrolls the graph into vector instructions on numbered
registers (slots), of which ``write`` folds constants and common subexpressions and ``condense`` drops dead code and joins like
instructions. ``interpreter`` is the machine: numba compiles it once and keeps it on disk, so that a new model compiles nothing.
Likelihoods of their own machine code are one instruction each, called by address.
"""
