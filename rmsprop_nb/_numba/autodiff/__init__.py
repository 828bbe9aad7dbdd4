"""Exact derivatives of compiled functions, by a type of numbers that carry partial derivatives.

Everything here depends on Numba's internals.
"""
