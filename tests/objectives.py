"""The objectives of the tests: one in every form that `minimize` takes, and simple ones with their gradient in place.

They are written as loops, which are compiled in a tenth of the time that array expressions take. Those on which it says
so are compiled for a device, too, and have no literals, which would make float64 of float32 there.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

# -- one objective in every form --------------------------------------------------------------------------------------


@njit
def added_to(total, x, scale, target):
    for i in range(x.size - 1):
        d = x[i + 1] - x[i] * x[i]
        e = target[i] - x[i]
        total += scale * d * d + e * e
    return total


@njit
def fun(x, scale, target):
    return added_to(0.0, x, scale, target)


@njit
def jac(x, scale, target):
    g = np.zeros_like(x)
    for i in range(x.size - 1):
        d = x[i + 1] - x[i] * x[i]
        g[i] += -4.0 * scale * x[i] * d - 2.0 * (target[i] - x[i])
        g[i + 1] += 2.0 * scale * d
    return g


@njit
def fun_and_jac(x, scale, target):
    return fun(x, scale, target), jac(x, scale, target)


@njit
def fun_inplace(x, grad, scale, target):
    grad[:] = jac(x, scale, target)
    return fun(x, scale, target)


@njit
def fun_complex(x, scale, target):
    return added_to(x[0] * 0.0, x, scale, target)


X0 = (-1.2, 1.0, 0.4)
ARGS = (10.0, np.ones(3))

FORMS = {
    "callable": (fun, jac),
    "joint": (fun_and_jac, True),
    "inplace": (fun_inplace, "inplace"),
    "2-point": (fun, "2-point"),
    "3-point": (fun, "3-point"),
    "cs": (fun_complex, "cs"),
}


def as_python(function):
    """Hide from the library that a function is compiled: the same arithmetic through the interpreted driver."""
    return (lambda *args: function(*args)) if callable(function) else function


# -- simple ones ------------------------------------------------------------------------------------------------------


@njit
def bowl(x, grad):
    """The sum of squares; also for a device."""
    f = x[0] - x[0]
    for i in range(x.size):
        f += x[i] * x[i]
        grad[i] = x[i] + x[i]
    return f


@njit
def valley(x, grad):
    """A sum of squares whose curvature grows from variable to variable; also for a device."""
    f = x[0] - x[0]
    for i in range(x.size):
        f += (i + 1) * x[i] * x[i]
        grad[i] = 2 * (i + 1) * x[i]
    return f


@njit
def distance(x, grad, target):
    """Half the squared distance from a target."""
    f = 0.0
    for i in range(x.size):
        grad[i] = x[i] - target[i]
        f += 0.5 * grad[i] * grad[i]
    return f


@njit
def distance_from_mean(x, grad, a):
    """The squared distance of every variable from the mean of some data."""
    mean = f = 0.0
    for k in range(a.size):
        mean += a[k] / a.size
    for i in range(x.size):
        d = x[i] - mean
        grad[i] = 2.0 * d
        f += d * d
    return f


@njit
def decay(p, grad, t, weight, y):
    """Weighted squares of what an exponential decay to a constant misses; also for a device."""
    f = zero = p[0] - p[0]
    for i in range(grad.size):
        grad[i] = zero
    for i in range(t.size):
        e = math.exp(-p[1] * t[i])
        r = p[0] * e + p[2] - y[i]
        f += weight * r * r
        grad[0] += weight * (r + r) * e
        grad[1] -= weight * (r + r) * p[0] * t[i] * e
        grad[2] += weight * (r + r)
    return f


@njit
def picky(x, grad, what):
    """0 is the parabola; the others are ways to fail."""
    if what == 1:
        raise ValueError("on purpose")
    if what == 2:
        raise ValueError("on purpose", what)  # the argument is known at run time only
    if what == 3:
        raise IndexError
    f = 0.0
    for i in range(x.size):
        grad[i] = x[i]
        f += 0.5 * x[i] * x[i]
    return f
