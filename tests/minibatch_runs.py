"""Ridge regression in every form that `minimize_minibatch` takes, and runs of it."""

from __future__ import annotations

import numpy as np
from numba import njit
from objectives import as_python
from variants import VARIANTS

from rmsprop_nb import minimize_minibatch, schedules


@njit
def ridge(x, A, b, l2):
    """Works for complex x, too."""
    total = x[0] * 0.0
    for i in range(b.size):
        r = -b[i] + x[0] * 0.0
        for j in range(x.size):
            r += A[i, j] * x[j]
        total += 0.5 * r * r / b.size
    for j in range(x.size):
        total += 0.5 * l2 * x[j] * x[j]
    return total


@njit
def ridge_inplace(x, grad, A, b, l2):
    f = 0.0
    for j in range(x.size):
        grad[j] = l2 * x[j]
        f += 0.5 * l2 * x[j] * x[j]
    for i in range(b.size):
        r = -b[i]
        for j in range(x.size):
            r += A[i, j] * x[j]
        f += 0.5 * r * r / b.size
        for j in range(x.size):
            grad[j] += r * A[i, j] / b.size
    return f


@njit
def ridge_grad(x, A, b, l2):
    g = np.empty_like(x)
    ridge_inplace(x, g, A, b, l2)
    return g


@njit
def ridge_joint(x, A, b, l2):
    g = np.empty_like(x)
    f = ridge_inplace(x, g, A, b, l2)
    return f, g


def python_ridge(x, A, b, l2):
    """As `ridge_joint`; A may be sparse."""
    r = A @ x - b
    return 0.5 * np.mean(r**2) + 0.5 * l2 * np.sum(x**2), A.T @ r / b.size + l2 * x


FORMS = {
    "callable": (ridge, ridge_grad),
    "joint": (ridge_joint, True),
    "inplace": (ridge_inplace, "inplace"),
    "2-point": (ridge, "2-point"),
    "3-point": (ridge, "3-point"),
    "cs": (ridge, "cs"),
}
N_ROWS, N = 103, 4
RATES = {
    "auto": {},
    "auto_constant": {"learning_rate": "auto-constant"},
    "number": {"learning_rate": 0.01},
    "each": {"learning_rate": [0.1, 0.01, 0.0, 0.02]},
    "schedule": {"learning_rate": schedules.cosine_decay(0.1, 100)},
    **{f"textbook_{name}": {"learning_rate": 0.01, "options": options} for name, options in VARIANTS.items()},
}
WAYS = {
    "accumulate": {"accumulate": 3},
    "clip_value": {"clip_value": 0.1},
    "clip_norm": {"clip_norm": 0.1},
    "bounds": {"bounds": [(-0.5, 0.5)] * N},
    "in_order": {"shuffle": False},
    "one_batch": {"batch_size": N_ROWS},
    "batch_of_one": {"batch_size": 1},
    "averaging": {"averaging": True},
    "validation": {"validation": 0.2},
    "patience": {"validation": 0.2, "patience": 1},
}


def make_data(dtype=np.float64, n_rows=N_ROWS):
    rng = np.random.default_rng(7)
    A = rng.normal(size=(n_rows, N))
    b = A @ np.array([1.0, -2.0, 0.5, 3.0]) + 0.1 * rng.normal(size=n_rows)
    return A.astype(dtype), b.astype(dtype)


def run(form="inplace", python=False, dtype=np.float64, data=None, **kwargs):
    fun, jac = FORMS[form]
    if python:
        fun, jac = as_python(fun), as_python(jac)
    kwargs = {"batch_size": 10, "epochs": 5, "rng": 3, **kwargs}
    return minimize_minibatch(fun, np.zeros(N, dtype), data or make_data(dtype), (dtype(0.01),), jac=jac, **kwargs)


def same(a, b):
    np.testing.assert_array_equal(a.x, b.x)
    np.testing.assert_array_equal(a.jac, b.jac)
    np.testing.assert_array_equal(a.epoch_fun, b.epoch_fun)
    assert (a.fun, a.nit, a.nfev, a.status) == (b.fun, b.nit, b.nfev, b.status)
    for left, right in zip(a.state.arrays, b.state.arrays, strict=True):
        np.testing.assert_array_equal(left, right)
    for name in a.state.record.dtype.names:
        if name != "first_step":  # where the last chunk began
            np.testing.assert_array_equal(a.state.record[name], b.state.record[name])
