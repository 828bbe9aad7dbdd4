"""Exact derivatives of compiled functions: a number type that carries partial derivatives, and what can be done with it.

Everything here depends on Numba's internals.
"""
