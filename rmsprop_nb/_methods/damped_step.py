"""A step of Levenberg-Marquardt: the solution of ``(A + damping*D) s = -g`` within bounds.

The gradient g has n elements; behind them, in the same vector, is the lower triangle of A, row by row.
"""

from __future__ import annotations

import math

from rmsprop_nb._numba.decorators import inline_jit


@inline_jit
def find_step(arrays, damping, in_metric):
    """Fill ``direction`` with the step, within the bounds; return False if the matrix is not positive definite.

    On the way ``direction`` is NaN for parameters that are free, ``x_eval`` has their steps, and the vector of the next
    evaluation has the factor of the matrix.
    """
    n = arrays.x.size
    step, trial = arrays.direction, arrays.x_eval
    bounded = arrays.lower.size > 0
    for i in range(n):
        step[i] = 0.0 if is_held(arrays, i) else math.nan
    for _ in range(n + 1):
        if not _factor(arrays, damping, in_metric):
            return False
        _solve(arrays)
        more = False
        if bounded:
            for i in range(n):
                if math.isnan(step[i]):
                    target = arrays.x[i] + trial[i]
                    if target < arrays.lower[i]:
                        step[i] = arrays.lower[i] - arrays.x[i]
                        more = True
                    elif target > arrays.upper[i]:
                        step[i] = arrays.upper[i] - arrays.x[i]
                        more = True
        if not more:
            break
    for i in range(n):
        if math.isnan(step[i]):
            step[i] = trial[i]
    return True


@inline_jit
def is_held(arrays, i):
    """Return whether a parameter is fixed, or at a bound that the gradient pushes it out of."""
    if arrays.lower.size == 0:
        return False
    if arrays.lower[i] == arrays.upper[i]:
        return True
    x, g = arrays.x[i], arrays.g[i]
    return (x <= arrays.lower[i] and g > 0.0) or (x >= arrays.upper[i] and g < 0.0)


@inline_jit
def place(n, i, j):
    """Return the place of element (i, j) of the matrix, j <= i, behind the n elements of the gradient."""
    return n + i * (i + 1) // 2 + j


@inline_jit
def _factor(arrays, damping, in_metric):
    """Factor the matrix as L D L', with the rows and columns of a unit matrix for what is not free.

    The vector gets L, and the inverses of D in place of its diagonal: no square roots, and one division a row.
    """
    n, g, low, step = arrays.x.size, arrays.g, arrays.g_eval, arrays.direction
    for i in range(n):
        free = math.isnan(step[i])
        for j in range(i):
            total = g[place(n, i, j)] if free and math.isnan(step[j]) else 0.0
            for k in range(j):
                total -= low[place(n, i, k)] * low[place(n, j, k)]
            low[place(n, i, j)] = total
        total = 1.0
        if free:
            square = arrays.square_avg[i] if in_metric else g[place(n, i, i)]
            total = g[place(n, i, i)] + damping * (square if square > 0.0 else 1.0)
        for k in range(i):
            unscaled = low[place(n, i, k)]
            low[place(n, i, k)] = unscaled * low[place(n, k, k)]
            total -= unscaled * low[place(n, i, k)]
        if not total > 0.0:
            return False
        low[place(n, i, i)] = 1.0 / total
    return True


@inline_jit
def _solve(arrays):
    """Fill ``x_eval`` with the steps of the free parameters, 0 elsewhere."""
    n, g, low, step, s = arrays.x.size, arrays.g, arrays.g_eval, arrays.direction, arrays.x_eval
    bounded = arrays.lower.size > 0
    for i in range(n):
        total = 0.0
        if math.isnan(step[i]):
            total = -g[i]
            for j in range(n if bounded else 0):
                if not math.isnan(step[j]):
                    total -= g[place(n, max(i, j), min(i, j))] * step[j]
        for k in range(i):
            total -= low[place(n, i, k)] * s[k]
        s[i] = total
    for i in range(n - 1, -1, -1):
        total = s[i] * low[place(n, i, i)]
        for k in range(i + 1, n):
            total -= low[place(n, k, i)] * s[k]
        s[i] = total


@inline_jit
def predicted_gain(arrays):
    """Return ``-(g's + s'As/2)``."""
    n, g, s = arrays.x.size, arrays.g, arrays.direction
    gain = 0.0
    for i in range(n):
        row = g[i] + 0.5 * g[place(n, i, i)] * s[i]
        for j in range(i):
            row += g[place(n, i, j)] * s[j]
        gain -= row * s[i]
    return gain
