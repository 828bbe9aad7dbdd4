# mypy: ignore-errors
"""Benchmarks of FUN for asv, https://asv.readthedocs.io.

They measure the time, the evaluations and the memory of a run, and its time over SciPy's; lower is better everywhere.
Edit this file as you like, or copy it for another objective.
"""

import importlib
import os
import statistics
import subprocess
import sys
import timeit
from pathlib import Path

import numpy as np
import scipy.optimize

from rmsprop_nb import minimize

# Text with a colon is the name of an object, as module:name; a list becomes an array.
FUN = "module:fun"
X0 = [1.0, 1.0]
ARGS = ()
JAC = None
METHODS = ["rmsprop", "rmsprop-lbfgs"]
SCIPY_METHOD = "L-BFGS-B"

PREPARE = []  # arguments of "python -m rmsprop_nb compile": ["--float32"] for a start of float32
ROUNDS = 7

REPOSITORY = "../.."  # seen from the folder of this file
SOURCE = "."  # the folder in the repository where imports begin

if "ASV_ENV_DIR" in os.environ:
    checkout = Path(os.environ["ASV_ENV_DIR"], "project")  # of the commit that asv measures
else:
    checkout = Path(__file__).resolve().parent / REPOSITORY  # the working tree, for an existing environment
sys.path.append(str((checkout / SOURCE).resolve()))  # last, so that an installed project comes first


class Minimization:
    """A run of `minimize` with its default options, until it converges."""

    params = METHODS
    param_names = ("method",)

    def setup_cache(self):
        """Compile the loops once, because the first process would otherwise be slower and larger than the others."""
        subprocess.run([sys.executable, "-m", "rmsprop_nb", "compile", *PREPARE], check=True)

    def setup(self, method):
        self.fun, self.x0, self.args, self.jac = map(value, (FUN, X0, ARGS, JAC))
        self.run(method)  # compiles the objective

    def run(self, method):
        return minimize(self.fun, self.x0, self.args, method, self.jac)

    def time_run(self, method):
        self.run(method)

    def peakmem_run(self, method):
        """Peak memory of the process; Python, NumPy, SciPy and Numba alone take more than 100 MB."""
        self.run(method)

    def track_evaluations(self, method):
        return int(self.run(method).nfev)

    track_evaluations.unit = "evaluations"

    def track_time_over_scipy(self, method):
        """Time of a run over that of SciPy's, each until its own default tolerances are met."""
        fun, jac = as_scipy_takes_it(self.fun, self.jac)
        return ratio_of_times(
            lambda: self.run(method),
            lambda: scipy.optimize.minimize(fun, self.x0, self.args, SCIPY_METHOD, jac),
        )

    track_time_over_scipy.unit = "ratio"


def value(given):
    """Return what a constant above stands for; a commit that does not have it yet is skipped."""
    if isinstance(given, list):
        return np.array(given)
    if not isinstance(given, str) or ":" not in given:
        return given
    module, _, name = given.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        missing = error
    except AttributeError as error:
        missing = error
    msg = f"this commit has no {given}"
    raise NotImplementedError(msg) from missing


def as_scipy_takes_it(fun, jac):
    """Return fun and jac for SciPy, which knows no jac="inplace" and makes no exact derivatives."""
    if not isinstance(jac, str) or jac not in ("inplace", "autodiff"):
        return fun, jac
    if jac == "autodiff":
        return fun, None

    def value_and_gradient(x, *args):
        grad = np.empty_like(x)
        return fun(x, grad, *args), grad

    return value_and_gradient, True


def ratio_of_times(ours, other):
    """Return our time over the other's: the median over pairs that were timed one after the other.

    Other programs slow both of a pair alike.
    """
    timers = timeit.Timer(ours), timeit.Timer(other)
    numbers = [timer.autorange()[0] for timer in timers]
    ratios = []
    for _ in range(ROUNDS):
        mine, theirs = (timer.timeit(number) / number for timer, number in zip(timers, numbers, strict=True))
        ratios.append(mine / theirs)
    return float(f"{statistics.median(ratios):.3g}")
