"""Models of the tests of fits, in the forms that users write, and their data."""

from __future__ import annotations

import math

import numpy as np
from numba import njit


@njit
def decay(t, amplitude, rate, offset):
    """Take a number as well as an array."""
    return amplitude * np.exp(-rate * t) + offset


@njit
def decay_of_a_number(t, amplitude, rate, offset):
    if t < 0.0:
        return 0.0
    return amplitude * math.exp(-rate * t) + offset


@njit
def decay_of_an_array(t, amplitude, rate, offset):
    values = np.empty(t.size)
    for i in range(t.size):
        values[i] = amplitude * np.exp(-rate * t[i]) + offset
    return values


@njit
def decay_jac(t, amplitude, rate, offset):
    jacobian = np.ones((t.size, 3))
    for i in range(t.size):
        jacobian[i, 0] = np.exp(-rate * t[i])
        jacobian[i, 1] = -amplitude * t[i] * jacobian[i, 0]
    return jacobian


def saturation(t, highest, half):
    """Be plain Python at the top of a module, for other processes."""
    return highest * (t + 0.1) / (half + t)


@njit
def plane(t, height, slope, curvature):
    """Have two predictors."""
    u, v = t
    return height + slope * u * v + curvature * v * v


T = np.linspace(0.0, 4.0, 30)
TRUE = np.array([2.5, 1.3, 0.5])
START = np.array([1.0, 1.0, 0.0])


def noisy(*shape, seed=0, scale=0.05):
    """Return data with these leading axes, of `decay` at `T`."""
    return decay.py_func(T, *TRUE) + scale * np.random.default_rng(seed).normal(size=(*shape, T.size))
