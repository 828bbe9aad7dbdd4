"""The objectives of the benchmarks, and runs of a given number of evaluations."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from rmsprop_nb import minimize

__all__ = ["METHODS", "STEEP", "limited", "rosen", "rosen_inplace", "start"]

METHODS = ("textbook", "auto", "lbfgs")

STEEP = 1e10
"""Steepness of a valley whose end no method reaches within a benchmark, so that runs have the length they are given."""


def rosen(x, steepness):
    """Return the chained Rosenbrock function. This can be compiled, and takes complex x too."""
    f = 0.0 * x[0]
    for i in range(x.size - 1):
        d = x[i + 1] - x[i] * x[i]
        e = 1.0 - x[i]
        f += steepness * d * d + e * e
    return f


@njit(error_model="numpy")
def rosen_inplace(x, grad, steepness):
    """Fill the gradient and return f: the form without allocations."""
    f = 0.0
    for i in range(x.size):
        grad[i] = 0.0
    for i in range(x.size - 1):
        d = x[i + 1] - x[i] * x[i]
        e = 1.0 - x[i]
        f += steepness * d * d + e * e
        grad[i] -= 4.0 * steepness * x[i] * d + 2.0 * e
        grad[i + 1] += 2.0 * steepness * d
    return f


def start(n: int) -> np.ndarray:
    """Return the usual start, (-1.2, 1, -1.2, 1, ...)."""
    return np.resize([-1.2, 1.0], n)


def limited(method: str, n: int, fun: Any = rosen_inplace, jac: str = "inplace", **options: Any) -> Any:
    """Return ``run(count)``, which minimizes with exactly `count` evaluations of f and its gradient."""
    name = "rmsprop-lbfgs" if method == "lbfgs" else "rmsprop"
    if method == "textbook":
        options = {"learning_rate": 1e-3, **options}
    x0 = start(n)

    def run(count: int) -> Any:
        limits = {"gtol": 0.0, "maxiter": math.inf, "maxfev": count}
        return minimize(fun, x0, args=(STEEP,), jac=jac, method=name, options=options | limits)

    return run
