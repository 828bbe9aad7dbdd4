"""Calls as most users make them: a Python objective, no gradient, and everything at its default."""

from __future__ import annotations

import math

import numpy as np

from rmsprop_nb import minimize

METHODS = ("rmsprop", "rmsprop-lbfgs")

T = np.linspace(0.0, 5.0, 40)
CURVE = 2.5 * np.exp(-0.8 * T) + 0.2
DECAY = np.array([2.0, 1.0, 0.1])


def decay(y_unit, t_unit):
    """Return the misfit of ``a*exp(-k*t) + c`` to a curve without noise, the start and the bounds."""
    t, y = T * t_unit, CURVE * y_unit
    return lambda p: np.sum((p[0] * np.exp(-p[1] * t) + p[2] - y) ** 2), DECAY * [y_unit, 1.0 / t_unit, y_unit], None


def rosenbrock(n, bounds=None):
    def fun(x):
        return np.sum(100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1.0 - x[:-1]) ** 2)

    return fun, np.resize([-1.2, 1.0], n), bounds


def springs(n):
    """Return a chain of springs, tied to 1 and to their neighbours, of stiffness from 1 to 1000."""
    stiffness = np.geomspace(1.0, 1000.0, n)
    return lambda x: np.sum(stiffness * (x - 1.0) ** 2) + np.sum(np.diff(x) ** 2), np.zeros(n), None


CASES = {
    "decay": (decay(1.0, 1.0), 0.0),
    "decay, y in 1e-6 and t in 1e-9": (decay(1e-6, 1e-9), 0.0),
    "decay, y in 1e6 and t in 1e3": (decay(1e6, 1e3), 0.0),
    "rosenbrock, n=2": (rosenbrock(2), 0.0),
    "rosenbrock, n=10": (rosenbrock(10), 0.0),
    "springs, n=20": (springs(20), 0.0),
    "rosenbrock, n=2, x[0] <= 0.5": (rosenbrock(2, [(None, 0.5), (None, None)]), 0.25),
}
"""Each objective with its start and bounds, and its lowest value."""


class Calls:
    """Floor: none is known. The counts are the same on every machine, up to rounding."""

    params = (METHODS, tuple(CASES))
    param_names = ("method", "problem")

    def track_calls(self, method, name):
        """Count calls of fun; NaN unless the run ends with success, within 1e-6 of what there is to gain."""
        (fun, x0, bounds), lowest = CASES[name]
        calls = 0

        def counted(x):
            nonlocal calls
            calls += 1
            return fun(x)

        result = minimize(counted, x0, method=method, bounds=bounds)
        right = result.fun - lowest <= 1e-6 * (fun(x0) - lowest)
        return calls if result.success and right else math.nan

    track_calls.unit = "calls"


class Fit:
    """Time of the fit of a decay, three parameters to 40 points, by differences. Floor: the calls of the objective."""

    params = (METHODS,)
    param_names = ("method",)

    def setup(self, method):
        self.fun, self.x0, _ = decay(1.0, 1.0)
        self.time_fit(method)

    def time_fit(self, method):
        minimize(self.fun, self.x0, method=method)
