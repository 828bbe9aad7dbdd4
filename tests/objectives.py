"""One objective in every form that `minimize` takes, for tests that compare them."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit
def fun(x, scale, target):
    total = 0.0
    for i in range(x.size - 1):
        d = x[i + 1] - x[i] * x[i]
        e = target[i] - x[i]
        total += scale * d * d + e * e
    return total


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
    total = x[0] * 0.0
    for i in range(x.size - 1):
        d = x[i + 1] - x[i] * x[i]
        e = target[i] - x[i]
        total += scale * d * d + e * e
    return total


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
