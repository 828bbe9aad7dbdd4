"""Compiled objectives of one line."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit
def distance(x, grad, target):
    grad[:] = x - target
    return 0.5 * np.sum((x - target) ** 2)


@njit
def picky(x, grad, what):
    """0 is the parabola; the others are ways to fail."""
    if what == 1:
        raise ValueError("on purpose")
    if what == 2:
        raise ValueError("on purpose", what)  # the argument is known at run time only
    if what == 3:
        raise IndexError
    grad[:] = x
    return 0.5 * np.sum(x * x)
