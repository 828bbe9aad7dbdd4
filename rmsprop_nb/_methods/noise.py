"""How large the error of f is, from values along a short line: after J. J. More and S. M. Wild, "Estimating
computational noise", SIAM J. Sci. Comput. 33 (2011).

Sixth differences of a smooth function over short distances are those of its error, whose standard deviation follows
from them. Where all values are the same, because f has few digits, the line is made longer.
"""

from __future__ import annotations

import math

import numpy as np

from rmsprop_nb._methods.stopping import LEAST_SIZE
from rmsprop_nb._numba.decorators import inline_jit

SAMPLES = 9  # values on a line, for three sixth differences
LINES = 4
GROWTH = 100.0
LEAST_CHANGE = 1e-3  # of that over the line, for which a smooth f cannot be taken
NEIGHBOUR_ULPS = 2.0
_BINOMIAL = (1.0, -6.0, 15.0, -20.0, 15.0, -6.0, 1.0)
_SQUARES = 924.0  # the sum of their squares


@inline_jit
def begin_measuring(p):
    """Prepare for the first sample."""
    p.measured = 1
    p.samples = 0
    p.noise_0 = p.noise_1 = p.noise_2 = 0.0


@inline_jit
def place_sample(arrays, p):
    """Set ``x_eval`` to the next point on the line, which leads away from the nearer bounds."""
    x, lower, upper = arrays.x, arrays.lower, arrays.upper
    shortest = 1e-8 if x.itemsize == 8 else 1e-5
    distance = (p.samples % SAMPLES + 1) * shortest * GROWTH ** (p.samples // SAMPLES)
    for i in range(x.size):
        size = max(np.float64(abs(x[i])), LEAST_SIZE * np.float64(arrays.x_scale[i]))
        step = x.dtype.type(distance * size)
        if lower.size:
            if upper[i] - x[i] < x[i] - lower[i]:
                step = -step
            arrays.x_eval[i] = min(max(x[i] + step, lower[i]), upper[i])
        else:
            arrays.x_eval[i] = x[i] + step


@inline_jit
def place_neighbour(arrays, p):
    """Set ``x_eval`` to a point that x can hardly be told from, farther away after each search in vain."""
    x, lower, upper = arrays.x, arrays.lower, arrays.upper
    for i in range(x.size):
        size = max(np.float64(abs(x[i])), LEAST_SIZE * np.float64(arrays.x_scale[i]))
        step = x.dtype.type((1 + p.restarts) * NEIGHBOUR_ULPS * epsilon(x) * size)
        if (i % 2 == 1) != (lower.size > 0 and upper[i] - x[i] < step):
            step = -step
        arrays.x_eval[i] = x[i] + step
        if lower.size:
            arrays.x_eval[i] = min(max(arrays.x_eval[i], lower[i]), upper[i])


@inline_jit
def epsilon(x):
    """Return the relative precision of x."""
    return 2.0**-52 if x.itemsize == 8 else 2.0**-23


@inline_jit
def take_sample(p, f):
    """Take in the value at the last sample; return whether the error of f is known now, in ``p.f_noise``."""
    change = f - p.f
    k = p.samples % SAMPLES
    if k < 7:
        p.noise_0 += _BINOMIAL[k] * change
    if 1 <= k < 8:
        p.noise_1 += _BINOMIAL[k - 1] * change
    if k >= 2:
        p.noise_2 += _BINOMIAL[k - 2] * change
    p.samples += 1
    if not math.isfinite(f):
        return True
    if p.samples % SAMPLES != 0:
        return False
    squares = p.noise_0 * p.noise_0 + p.noise_1 * p.noise_1 + p.noise_2 * p.noise_2
    if squares == 0.0:
        return p.samples == LINES * SAMPLES
    noise = math.sqrt(squares / (3.0 * _SQUARES))
    largest = max(abs(p.f), abs(p.f_start), LEAST_CHANGE * abs(change))
    if p.f >= p.f_start or noise <= largest:  # else f is rough, or too curved for this
        p.f_noise = max(p.f_noise, noise)
    return True
