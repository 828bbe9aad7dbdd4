"""The vector operations of step control, on the CPU: norms, inner products, copies.

Every function trusts its arguments: shapes, dtypes and aliasing are checked before anything gets here.
"""

from __future__ import annotations

import math

import numpy as np
from numba import prange

from rmsprop_nb._kernels.float_bits import from_bits, magnitude_bits
from rmsprop_nb._kernels.thread_team import team_largest
from rmsprop_nb._numba.decorators import inline_jit, kernel_jit, reduction_jit


@inline_jit
def max_abs(a):
    """Largest absolute value, as float64; NaN if there is one.

    The bit patterns of non-negative floats are ordered like their values, and those of NaN come last. A maximum of
    integers vectorises as it is, one of floats does not.
    """
    largest = magnitude_bits(a.dtype.type(0))
    for i in range(a.size):
        bits = magnitude_bits(a[i])
        largest = max(largest, bits)
    return np.float64(from_bits(largest))


@kernel_jit("largest")
def largest(a):
    """`max_abs` for calls from Python, kept on disk."""
    return max_abs(a)


@kernel_jit("parallel largest", parallel=True)
def parallel_largest(a, found):
    """`max_abs` of as many pieces of `a` as `found` has elements, by several threads."""
    size = -(-a.size // found.size)
    for piece in prange(found.size):
        start = np.int64(piece) * size
        found[piece] = max_abs(a[start : min(start + size, a.size)])


@kernel_jit("address")
def address(a):
    """Address of the first element; NumPy's own ways to it take several times as long."""
    return a.ctypes.data


@inline_jit
def max_abs_difference(a, b):
    """Largest absolute difference of two vectors without NaN."""
    largest = 0.0
    for i in range(a.size):
        largest = max(largest, abs(np.float64(a[i]) - np.float64(b[i])))
    return largest


@inline_jit
def projected_max_abs(x, g, lower, upper):
    """Max-norm of the projected gradient ``x - clip(x - g, lower, upper)``; NaN if there is one.

    Written without that difference, which loses a gradient that is small beside x.
    """
    largest = 0.0
    for i in range(x.size):
        if math.isnan(g[i]):
            return math.nan
        xi = np.float64(x[i])
        step = min(max(-np.float64(g[i]), np.float64(lower[i]) - xi), np.float64(upper[i]) - xi)
        largest = max(largest, abs(step))
    return largest


@inline_jit
def gradient_norm(arrays, g, largest, team):
    """Max-norm of the gradient at x, projected if there are bounds; `largest` is its max-norm without them."""
    if arrays.lower.size:
        return team_largest(team, projected_max_abs(arrays.x, g, arrays.lower, arrays.upper))
    return largest


@inline_jit
def copy(source, target):
    """Copy element by element; a slice assignment would check for overlap first."""
    for i in range(source.size):
        target[i] = source[i]


@inline_jit
def set_zero(a):
    """Fill with zeros."""
    for i in range(a.size):
        a[i] = 0


@inline_jit
def clip(x, lower, upper):
    """Project onto the box, in place."""
    for i in range(x.size):
        x[i] = min(max(x[i], lower[i]), upper[i])


@reduction_jit
def dot(a, b):
    """Inner product, summed in float64."""
    total = 0.0
    for i in range(a.size):
        total += np.float64(a[i]) * np.float64(b[i])
    return total


@kernel_jit("sum of squares")
def sum_of_squares(a):
    """Inner product of a vector with itself, for calls from Python."""
    return dot(a, a)
