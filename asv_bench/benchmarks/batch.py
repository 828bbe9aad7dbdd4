"""Many small problems in one call, relative to loops over them."""

from __future__ import annotations

import numpy as np
import scipy.optimize
from numba import njit

from benchmarks._interleaved import compare
from benchmarks._problems import rosen_inplace
from rmsprop_nb import minimize, minimize_batch

METHODS = ("rmsprop", "rmsprop-lbfgs")
STEEPNESS = 100.0


@njit(error_model="numpy")
def rosen_both(x):
    grad = np.empty_like(x)
    return rosen_inplace(x, grad, STEEPNESS), grad


class Batch:
    """Time per problem in a batch relative to a Python loop. Floor: the evaluations, see loop.py."""

    params = (METHODS, (2, 10))
    param_names = ("method", "n")
    many, few = 1000, 10

    def setup(self, method, n):
        self.starts = np.random.default_rng(0).uniform(-1.5, 1.5, (self.many, n))
        self.method = method
        self.batch()

    def batch(self):
        minimize_batch(rosen_inplace, self.starts, (STEEPNESS,), method=self.method, jac="inplace")

    def loop_of_scipy(self):
        options = {"ftol": 0.0, "gtol": 1e-5, "maxiter": 15_000, "maxfun": 15_000}
        for x in self.starts[: self.few]:
            scipy.optimize.minimize(rosen_both, x, jac=True, method="L-BFGS-B", options=options)

    def loop_of_ours(self):
        for x in self.starts[: self.few]:
            minimize(rosen_inplace, x, (STEEPNESS,), method=self.method, jac="inplace")

    def track_over_loop_of_scipy(self, method, n):
        return compare(self.batch, self.loop_of_scipy) * self.few / self.many

    def track_over_loop_of_ours(self, method, n):
        return compare(self.batch, self.loop_of_ours) * self.few / self.many

    track_over_loop_of_scipy.unit = track_over_loop_of_ours.unit = "of the loop's time"
