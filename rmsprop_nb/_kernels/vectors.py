"""The vector operations of step control, on the CPU: norms, inner products, copies.

Every function trusts its arguments: shapes, dtypes and aliasing have been checked before.
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
    """Return the largest absolute value, as float64; NaN if there is a NaN.

    The bit patterns of non-negative floats are ordered like their values, and those of NaN come last. The compiler
    vectorises a maximum of integers, but not one of floats.
    """
    largest = magnitude_bits(a.dtype.type(0))
    for i in range(a.size):
        bits = magnitude_bits(a[i])
        largest = max(largest, bits)
    return np.float64(from_bits(largest))


@kernel_jit("largest")
def largest(a):
    """Return `max_abs`; for calls from Python, cached on disk."""
    return max_abs(a)


@kernel_jit("parallel largest", parallel=True)
def parallel_largest(a, found):
    """Fill `found` with `max_abs` of as many pieces of `a` as it has elements, on several threads."""
    size = -(-a.size // found.size)
    for piece in prange(found.size):
        start = np.int64(piece) * size
        found[piece] = max_abs(a[start : min(start + size, a.size)])


@kernel_jit("address")
def address(a):
    """Return the address of the first element; NumPy's own ways to get it take several times as long."""
    return a.ctypes.data


@inline_jit
def max_abs_difference(a, b):
    """Return the largest absolute difference of two vectors without NaN."""
    largest = 0.0
    for i in range(a.size):
        largest = max(largest, abs(np.float64(a[i]) - np.float64(b[i])))
    return largest


@inline_jit
def projected_max_abs(x, g, x_scale, lower, upper):
    """Return the max-norm of the projected gradient ``x - clip(x - g, lower, upper)``; NaN if g has a NaN.

    It is not computed as that difference, which loses a gradient that is small compared with x. Beside a bound it is
    not less than the gradient times the part of the variable's size that is left: in small units a bound that is near
    in numbers may be far away.
    """
    largest = 0.0
    for i in range(x.size):
        if math.isnan(g[i]):
            return math.nan
        xi, slope = np.float64(x[i]), abs(np.float64(g[i]))
        room = xi - np.float64(lower[i]) if g[i] > 0 else np.float64(upper[i]) - xi
        if room < slope:
            size = max(abs(xi), np.float64(x_scale[i])) if x_scale.size else abs(xi)
            slope = max(room, slope * room / size) if room < size else slope
        largest = max(largest, slope)
    return largest


@inline_jit
def gradient_norm(arrays, g, largest, team):
    """Return the max-norm of the gradient at x, projected if there are bounds; `largest` is that without bounds."""
    if arrays.lower.size:
        return team_largest(team, projected_max_abs(arrays.x, g, arrays.x_scale, arrays.lower, arrays.upper))
    return largest


@inline_jit
def copy(source, target):
    """Copy element by element, because a slice assignment would first check for overlap."""
    for i in range(source.size):
        target[i] = source[i]


@inline_jit
def set_zero(a):
    """Fill with zeros."""
    for i in range(a.size):
        a[i] = 0


@inline_jit
def clip(x, lower, upper):
    """Project x onto the box, in place."""
    for i in range(x.size):
        x[i] = min(max(x[i], lower[i]), upper[i])


@reduction_jit
def dot(a, b):
    """Return the inner product, summed in float64."""
    total = 0.0
    for i in range(a.size):
        total += np.float64(a[i]) * np.float64(b[i])
    return total


@kernel_jit("moving average")
def move_average(average, x, decay):
    """Take x into a moving average, which becomes ``decay*average + (1 - decay)*x``."""
    for i in range(x.size):
        average[i] = decay * average[i] + (1.0 - decay) * x[i]


@kernel_jit("sum of squares")
def sum_of_squares(a):
    """Return the inner product of a vector with itself; for calls from Python."""
    return dot(a, a)
