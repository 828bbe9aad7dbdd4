"""The values of a function and its Jacobian J: by a function of the user's, by differences, or by complex steps.

A `fill` is a function ``fill(x, box, args) -> (values, J)``, where `box` are the lower and upper bounds. What the
user's function returns is copied before it is called again, since it may be a buffer that each call overwrites.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rmsprop_nb._numba.decorators import shared_jit

VISIBLE = 1e4 * float(np.finfo(np.float64).eps)
"""Largest change of a value by a step, relative to the largest value, above which rounding errors do not matter."""

LONGER = 1e3
"""Factor between a step that changes no value so much and the next one."""

COUNT_CHANGES = "f must return the same number of values wherever it is called."


def make_fill(function: Any, jac: Any) -> Any:
    """Build `fill` from functions of ``(x, *args)``, or the name of what makes J."""
    if callable(jac):
        return lambda x, _box, args: (function(x.copy(), *args).copy(), jac(x.copy(), *args))
    return _complex_steps(function) if jac == "cs" else _differences(function, jac == "3-point")


def _differences(function: Any, central: bool) -> Any:
    """Build `fill` by differences, whose steps are relative to each parameter and do not cross its bounds.

    A parameter may be so near to 0 that a step of its size changes no value visibly; then the step is made longer.
    """
    rel_step = np.finfo(np.float64).eps ** (1 / 3 if central else 1 / 2)

    def fill(x, box, args):
        lower, upper = box
        values = function(x.copy(), *args).copy()
        jacobian = np.empty((values.size, x.size))
        z = x.copy()
        for j in range(x.size):
            least = lower[j] if lower.size else -np.inf
            most = upper[j] if upper.size else np.inf
            h = rel_step * (abs(x[j]) if x[j] != 0.0 else 1.0)
            is_clear = False
            while not is_clear:
                low, high = _ends(x[j], h, least, most, central)
                z[j] = high
                above = function(z.copy(), *args).copy() if high != x[j] else values
                z[j] = low
                below = function(z.copy(), *args).copy() if low != x[j] else values
                is_clear = bool(_place_quotients(above, below, high - low, jacobian[:, j]) or h >= rel_step)
                h = min(LONGER * h, rel_step)
            z[j] = x[j]
        return values, jacobian

    return fill


@shared_jit
def _ends(x, h, least, most, central):
    """Return the two places of a parameter whose difference is about h, within its bounds."""
    if x + h > most:
        low, high = x - h, x
    else:
        low, high = (x - h if central else x), x + h
    if low < least:
        low, high = x, min(x + h, most)
    return low, high


@shared_jit
def _place_quotients(above, below, distance, column):
    """Fill a column of J; return whether a value changed visibly, or none can."""
    if above.size != column.size or below.size != column.size:
        raise ValueError(COUNT_CHANGES)
    change = largest = 0.0
    for m in range(column.size):
        difference = above[m] - below[m]
        change = max(change, abs(difference))
        largest = max(largest, abs(above[m]))
        column[m] = difference / distance if distance > 0.0 else 0.0
    return not (change <= VISIBLE * largest and distance > 0.0)


def _complex_steps(function: Any) -> Any:
    """Build `fill` by complex steps."""

    def fill(x, _box, args):
        values = function(x.copy(), *args).copy()
        jacobian = np.empty((values.size, x.size))
        z = x.astype(np.complex128)
        for j in range(x.size):
            h = 1e-20 * (abs(x[j]) if x[j] != 0.0 else 1.0)
            z[j] = complex(x[j], h)
            moved = function(z.copy(), *args)
            z[j] = x[j]
            if moved.size != values.size:
                raise ValueError(COUNT_CHANGES)
            for m in range(values.size):
                jacobian[m, j] = moved[m].imag / h
        return values, jacobian

    return fill
