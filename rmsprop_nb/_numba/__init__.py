"""Compile options, and the code that depends on Numba's internals."""
