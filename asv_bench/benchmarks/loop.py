"""Whole runs: the compiled loop, and the Python loop around a Python objective."""

from __future__ import annotations

import statistics
import tracemalloc

import numpy as np

from benchmarks._interleaved import one_core, samples
from benchmarks._problems import METHODS, limited, rosen_inplace, start
from rmsprop_nb import minimize


def nanoseconds_per_evaluation(run, count):
    """Return the time of an evaluation and all that goes with it, without the start of the run."""
    with one_core():
        seconds = samples({"run": lambda: run(count), "start": lambda: run(1)}, rounds=7)
    return 1e9 * (statistics.median(seconds["run"]) - statistics.median(seconds["start"])) / (count - 1)


class CompiledLoop:
    """Floor: the objective, the update and a pass for max|g| in a loop written by hand; ratios.py divides by it."""

    params = (METHODS, (2, 10, 100, 1000, 10**6))
    param_names = ("method", "n")

    def setup(self, method, n):
        self.run = limited(method, n)
        self.count = self.run(min(100_000, max(4, 4_000_000 // n))).nfev  # automatic methods may converge earlier

    def track_evaluation(self, method, n):
        return nanoseconds_per_evaluation(self.run, self.count)

    track_evaluation.unit = "ns/evaluation"


class InterpretedLoop:
    """Floor: the Python objective alone."""

    params = (METHODS, (2, 1000))
    param_names = ("method", "n")

    def setup(self, method, n):
        self.run = limited(method, n, fun=python_valley)
        self.run(2)

    def track_evaluation(self, method, n):
        return nanoseconds_per_evaluation(self.run, 200)

    track_evaluation.unit = "ns/evaluation"


def python_valley(x, grad, steepness):
    """Compute the Rosenbrock function and its gradient with NumPy."""
    d, e = x[1:] - x[:-1] ** 2, 1.0 - x[:-1]
    grad[:] = 0.0
    grad[:-1] = -4.0 * steepness * x[:-1] * d - 2.0 * e
    grad[1:] += 2.0 * steepness * d
    return float(steepness * np.dot(d, d) + np.dot(e, e))


class Start:
    """Cost of a run before and after its evaluations: checks, state, result. Floor: one evaluation."""

    params = (METHODS,)
    param_names = ("method",)

    def setup(self, method):
        self.run = limited(method, 2)
        self.run(2)

    def time_minimize_with_one_evaluation(self, method):
        self.run(1)


class Memory:
    """Memory of a run. Floor: x, g, S and the point evaluated."""

    params = (METHODS,)
    param_names = ("method",)
    n = 10**6

    def setup(self, method):
        limited(method, 2)(2)
        self.run = limited(method, self.n)

    def peakmem_reference(self, method):
        """Measure what setup alone takes."""

    def peakmem_minimize(self, method):
        self.run(4)

    def track_vectors(self, method):
        """Measure the most memory that NumPy holds at any time during a run, in vectors of the size of x."""
        return most_vectors(lambda: self.run(4), self.n)

    track_vectors.unit = "vectors"


def most_vectors(run, n):
    run()
    tracemalloc.start()
    try:
        run()
        return round(tracemalloc.get_traced_memory()[1] / (8 * n), 2)
    finally:
        tracemalloc.stop()


class Solve:
    """A whole run on Rosenbrock's function of 10 variables once everything is compiled.

    Floor: the start of a run, above; the evaluations themselves take microseconds.
    """

    params = (METHODS[1:],)
    param_names = ("method",)

    def setup(self, method):
        self.method = {"auto": "rmsprop", "lbfgs": "rmsprop-lbfgs"}[method]
        self.time_minimize(method)

    def time_minimize(self, method):
        minimize(rosen_inplace, start(10), args=(100.0,), jac="inplace", method=self.method)
