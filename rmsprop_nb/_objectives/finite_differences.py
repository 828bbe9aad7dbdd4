"""Gradients by finite differences. Each function is plain Python that Numba can compile around a compiled objective.

Steps follow ``scipy.optimize.minimize``: they are relative to ``max(1, |x|)`` by default, and to ``|x|`` if the user
gives the relative step. With bounds, no point outside them is ever evaluated.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from rmsprop_nb._kernels.vectors import copy
from rmsprop_nb._numba.decorators import inline_jit

COMPLEX_STEP = 1e-20
"""The imaginary step. Nothing is subtracted, so it can be small enough to leave no truncation error."""


def default_rel_step(method: str, dtype: Any) -> float:
    """Return the relative step that balances truncation and rounding (J. Nocedal, S. Wright, 2nd ed., section 8.1)."""
    eps = float(np.finfo(dtype).eps)
    return math.sqrt(eps) if method == "2-point" else math.cbrt(eps)


@inline_jit
def _step(xi, rel_step, relative_to_x):
    """Return the signed step away from zero; if `relative_to_x`, relative to x alone unless that step vanishes."""
    sign = 1.0 if xi >= 0 else -1.0
    if relative_to_x:
        h = sign * rel_step * abs(xi)
        if (xi + h) - xi != 0.0:
            return h
    return sign * rel_step * max(1.0, abs(xi))


@inline_jit
def _one_sided(h, below, above, points):
    """Reverse or shorten h so that `points` steps of it stay within `below` and `above`."""
    if points * abs(h) <= (above if h > 0.0 else below):
        return h
    if points * abs(h) <= max(below, above):
        return -h
    return above / points if above >= below else -below / points


@inline_jit
def _equal(a, b):
    for i in range(a.size):  # noqa: SIM110 - compiled code has no generators
        if a[i] != b[i]:
            return False
    return True


def two_point(fun, x, g, step, bounds, args):
    """Fill g by forward differences, ``g_i = (f(x + h e_i) - f(x))/h``, and return f.

    `step` is ``(rel_step, relative_to_x)``. fun receives a copy of x. If any call has overwritten it, all differences
    are taken again, each from a fresh copy.
    """
    lower, upper = bounds
    z = x.copy()
    f = fun(z, *args)
    for careful in (False, True):
        for i in range(x.size):
            if careful:
                copy(x, z)
            xi = x[i]
            h = _step(xi, step[0], step[1])
            if lower.size:
                h = _one_sided(h, xi - lower[i], upper[i] - xi, 1.0)
            z[i] = xi + h
            rounded_h = z[i] - xi
            g[i] = (fun(z, *args) - f) / rounded_h if rounded_h != 0.0 else 0.0
            z[i] = xi
        if _equal(x, z):
            break
    return f


def three_point(fun, x, g, step, bounds, args):
    """Fill g by central differences (near a bound, one-sided of the same order) and return f; see `two_point`."""
    lower, upper = bounds
    z = x.copy()
    f = fun(z, *args)
    for careful in (False, True):
        for i in range(x.size):
            xi = x[i]
            h = abs(_step(xi, step[0], step[1]))
            central = True
            if lower.size:
                central = h <= xi - lower[i] and h <= upper[i] - xi
            near = xi - h
            far = xi + h
            if not central:
                h = _one_sided(h, xi - lower[i], upper[i] - xi, 2.0)
                near = xi + h
                far = xi + 2.0 * h
            if careful:
                copy(x, z)
            z[i] = near
            rounded_near = z[i]
            f_near = fun(z, *args)
            if careful:
                copy(x, z)
            z[i] = far
            rounded_far = z[i]
            f_far = fun(z, *args)
            if central:
                g[i] = (f_far - f_near) / (rounded_far - rounded_near)
            else:
                g[i] = (4.0 * f_near - 3.0 * f - f_far) / (2.0 * h) if h != 0.0 else 0.0
            z[i] = xi
        if _equal(x, z):
            break
    return f


def complex_step(fun, x, g, args):
    """Fill g by complex steps (W. Squire, G. Trapp, SIAM Review 40, 1998) and return f; see `two_point`."""
    z = x.astype(np.complex128)
    f = fun(z, *args).real
    for careful in (False, True):
        for i in range(x.size):
            if careful:
                copy(x, z)
            z[i] = complex(x[i], COMPLEX_STEP)
            g[i] = fun(z, *args).imag / COMPLEX_STEP
            z[i] = complex(x[i], 0.0)
        if _equal(x, z):
            break
    return f


DIFFERENCES: dict[str, Callable[..., Any]] = {"2-point": two_point, "3-point": three_point}

CALLS_PER_VARIABLE = {"2-point": 1, "3-point": 2, "cs": 1}
