"""Covariances of the parameters of many fits, from J'J."""

from __future__ import annotations

import math

from rmsprop_nb._numba.decorators import inline_jit, kernel_jit

LARGEST_CONDITION = 1e8
"""Of the scaled matrix, up to which its inverse has seven digits."""


@kernel_jit("covariances")
def covariances(matrices, fixed, factor, out, trusted):
    """Fill ``out[k]`` with the inverse of the matrix of fit k, and ``trusted[k]`` with whether it is exact enough.

    Parameters
    ----------
    matrices : ndarray of float64, shape (B, n*(n + 1)/2)
        Lower triangles, row by row.
    fixed : ndarray of bool, shape (B, n)
        Parameters that have no variance.
    factor : ndarray of float64, shape (2, n, n)
        Used on the way.
    out : ndarray of float64, shape (B, n, n)
        NaN where `trusted` is False.
    trusted : ndarray of bool, shape (B,)
        False if the matrix, with its diagonal scaled to 1, has a condition above 1e8.
    """
    n = out.shape[1]
    low, inverse = factor[0], factor[1]
    for k in range(out.shape[0]):
        trusted[k] = _factor(matrices[k], fixed[k], low, n)
        trace = 0.0
        if trusted[k]:
            _invert(low, inverse, n)
            for i in range(n):
                for j in range(i, n):
                    trace += inverse[j, i] ** 2
        trusted[k] = trusted[k] and n * trace <= LARGEST_CONDITION
        for i in range(n):
            for j in range(i + 1):
                total = 0.0
                for m in range(i, n):
                    total += inverse[m, i] * inverse[m, j]
                scale = math.sqrt(matrices[k, i * (i + 3) // 2]) * math.sqrt(matrices[k, j * (j + 3) // 2])
                value = 0.0 if fixed[k, i] or fixed[k, j] else total / scale
                out[k, i, j] = out[k, j, i] = value if trusted[k] else math.nan


@inline_jit
def _factor(matrix, fixed, low, n):
    """Factor the scaled matrix, with the rows and columns of a unit matrix for what is fixed; say whether it can be."""
    for i in range(n):
        for j in range(i + 1):
            total = 1.0 if i == j else 0.0
            if i != j and not (fixed[i] or fixed[j]):
                total = matrix[i * (i + 1) // 2 + j] / (
                    math.sqrt(matrix[i * (i + 3) // 2]) * math.sqrt(matrix[j * (j + 3) // 2])
                )
            for m in range(j):
                total -= low[i, m] * low[j, m]
            if i != j:
                low[i, j] = total / low[j, j]
            elif total > 0.0:
                low[i, i] = math.sqrt(total)
            else:
                return False
        if not fixed[i] and not matrix[i * (i + 3) // 2] > 0.0:
            return False
    return True


@inline_jit
def _invert(low, inverse, n):
    """Fill the lower triangle of `inverse` with the inverse of the lower triangle `low`."""
    for j in range(n):
        for i in range(j, n):
            total = 1.0 if i == j else 0.0
            for m in range(j, i):
                total -= low[i, m] * inverse[m, j]
            inverse[i, j] = total / low[i, i]
