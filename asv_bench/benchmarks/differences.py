"""Gradients by differences and complex steps: compiled, interpreted, and SciPy's."""

from __future__ import annotations

import functools

import numpy as np
from numba import njit
from scipy.optimize._numdiff import approx_derivative  # what scipy.optimize.minimize itself uses

from benchmarks._problems import rosen, start
from rmsprop_nb._objectives.compiled import _evaluate, compile_objective
from rmsprop_nb._objectives.interpreted import PythonObjective
from rmsprop_nb._objectives.problem import Problem

FORMS = ("2-point", "3-point", "cs")
WAYS = ("compiled", "interpreted", "scipy")

compiled_rosen = njit(rosen)


def gradient_call(way, form, n, fun=None):
    """One gradient with the value of the objective, as a call without arguments; warmed up."""
    x, g, nothing = start(n), np.empty(n), np.empty(0)
    args = (100.0,)
    if way == "scipy":
        fun = fun or compiled_rosen
        call = functools.partial(approx_derivative, fun, x, method=form, args=args)
    elif way == "compiled":
        problem = Problem(fun or compiled_rosen, form, args, nothing, nothing, None)
        objective = compile_objective(problem, x.dtype)
        call = functools.partial(_evaluate, objective.address, x, g, objective.data)
        call.objective = objective  # it owns the adapter and the arguments behind the addresses
    else:
        problem = Problem(fun or compiled_rosen, form, args, nothing, nothing, None)
        call = functools.partial(PythonObjective(problem), x, g)
    call()
    return call


class Gradient:
    """Floor: n + 1 (2-point, cs) or 2*n + 1 (3-point) calls of the objective, which is compiled in each way."""

    params = (WAYS, FORMS, (2, 10, 100))
    param_names = ("way", "form", "n")

    def setup(self, way, form, n):
        self.gradient = gradient_call(way, form, n)

    def time_gradient(self, way, form, n):
        self.gradient()
