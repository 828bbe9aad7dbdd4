"""Compile options, and what leans on Numba's internals."""
