"""Gradients by differences. Each function is plain Python that Numba can compile around a compiled objective.

With bounds, no point outside them is ever evaluated.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from rmsprop_nb._kernels.vectors import copy
from rmsprop_nb._numba.decorators import inline_jit

COMPLEX_STEP = 1e-20
"""The imaginary step. Nothing is subtracted, so it can be small enough to leave no truncation error."""

DIFFERENCES = (None, "2-point", "3-point")
"""The forms of `jac` that stand for differences; None leaves it to the method which ones."""

CALLS_PER_VARIABLE = {None: 1, "2-point": 1, "3-point": 2, "cs": 1}


def default_rel_step(jac: Any, eps: float) -> float:
    """Return the step that balances truncation and an error `eps` of f, both relative; negative for central ones.

    J. Nocedal, S. Wright, "Numerical Optimization", 2nd ed., section 8.1.
    """
    return -math.cbrt(eps) if jac == "3-point" else math.sqrt(eps)


@inline_jit
def _step(xi, i, rel_step, own_steps, x_scale):
    """Return the signed step away from zero: relative to the size of the variable, or to x if the user gave it."""
    sign = 1.0 if xi >= 0.0 else -1.0
    size = max(abs(xi), np.float64(x_scale[i])) if x_scale.size else max(abs(xi), 1.0)
    if own_steps.size:
        h = sign * own_steps[i] * abs(xi)
        return h if (xi + h) - xi != 0.0 else sign * own_steps[i] * size
    return sign * abs(rel_step) * size


@inline_jit
def _one_sided(h, below, above, points):
    """Reverse or shorten h so that `points` steps of it stay within `below` and `above`."""
    if points * abs(h) <= (above if h > 0.0 else below):
        return h
    if points * abs(h) <= max(below, above):
        return -h
    return above / points if above >= below else -below / points


def differences(fun, x, g, steps, bounds, args):
    """Fill g by differences and return f.

    `steps` are arrays: ``rel_step[0]`` > 0 asks for forward differences, ``(f(x + h e_i) - f)/h``, < 0 for central ones
    (near a bound, one-sided of the same order), and 0 for f alone; own_steps are the user's; x_scale the sizes of the
    variables, 1 without. fun is given a copy of x at each call. fun is called in one place, so that it is inlined once.
    """
    control, own_steps, x_scale = steps
    lower, upper = bounds
    rel_step = control[0]
    points = 0 if rel_step == 0.0 else (1 if rel_step > 0.0 else 2)
    z = x.copy()
    f = first = h = first_h = 0.0
    one_sided = False
    for k in range(points * x.size + 1):
        i = (k - 1) // 2 if points == 2 else k - 1
        is_first = points == 2 and k % 2 == 1
        if k > 0:
            copy(x, z)
            xi = np.float64(x[i])
            if points == 1 or is_first:
                h = _step(xi, i, control[0], own_steps, x_scale)  # f has a precision that a Python fun tells only now
                one_sided = False
                if lower.size:
                    below, above = xi - np.float64(lower[i]), np.float64(upper[i]) - xi
                    one_sided = points == 2 and not abs(h) <= min(below, above)
                    if points == 1 or one_sided:
                        h = _one_sided(h, below, above, np.float64(points))
            if is_first:
                z[i] = xi + h if one_sided else xi - abs(h)
            elif points == 2:
                z[i] = xi + 2.0 * h if one_sided else xi + abs(h)
            else:
                z[i] = xi + h
            h_rounded = np.float64(z[i]) - xi
        value = np.float64(fun(z, *args))
        if k == 0:
            f = value
        elif is_first:
            first, first_h = value, h_rounded
        elif points == 1:
            g[i] = (value - f) / h_rounded if h_rounded != 0.0 else 0.0
        elif one_sided:
            g[i] = (4.0 * first - 3.0 * f - value) / (2.0 * h) if h != 0.0 else 0.0
        else:
            g[i] = (value - first) / (h_rounded - first_h) if h_rounded != first_h else 0.0
    return f


def complex_step(fun, x, g, args):
    """Fill g by complex steps (W. Squire, G. Trapp, SIAM Review 40, 1998) and return f; see `differences`."""
    z = x.astype(np.complex128)
    f = fun(z, *args).real
    for i in range(x.size):
        for j in range(x.size):
            z[j] = complex(x[j], 0.0)
        z[i] = complex(x[i], COMPLEX_STEP)
        g[i] = fun(z, *args).imag / COMPLEX_STEP
    return f
