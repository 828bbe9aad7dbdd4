"""Runs with every kind of options, and what makes two of them the same."""

from __future__ import annotations

import numpy as np
from objectives import ARGS, FORMS, X0, as_python
from variants import VARIANTS

from rmsprop_nb import minimize, schedules

CONTROLS = {
    "auto": {},
    "auto_beta": {"beta": 0.99, "eps": 1e-3},
    "lbfgs": {"method": "rmsprop-lbfgs"},
    "lbfgs_memory": {"method": "rmsprop-lbfgs", "memory": 2, "beta": 0.9},
    **{f"textbook_{name}": {"learning_rate": 0.01, **options} for name, options in VARIANTS.items()},
    "schedule": {"learning_rate": schedules.cosine_decay(0.02, 150), "momentum": 0.5},
}
THREE = {"auto": {}, "textbook": {"learning_rate": 0.01}, "lbfgs": {"method": "rmsprop-lbfgs"}}


def same(a, b):
    np.testing.assert_array_equal(a.x, b.x)
    np.testing.assert_array_equal(a.jac, b.jac)
    assert (a.fun, a.nit, a.nfev, a.njev, a.status) == (b.fun, b.nit, b.nfev, b.njev, b.status)
    for left, right in zip(a.state.arrays, b.state.arrays, strict=True):
        np.testing.assert_array_equal(left, right)


def run(
    form="callable", python=False, dtype=np.float64, bounds=None, callback=None, method="rmsprop", args=ARGS, **options
):
    function, gradient = FORMS[form]
    if python:
        function, gradient = as_python(function), as_python(gradient)
    options = {"maxiter": 200, **options}
    return minimize(function, np.array(X0, dtype), args, method, gradient, bounds, None, callback, options)
