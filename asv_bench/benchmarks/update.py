"""The update: the kernels alone, called from Python, and `RMSprop.step`."""

from __future__ import annotations

import os

import numpy as np

from benchmarks._kernels import VARIANTS, Vectors, step_call, update_call
from rmsprop_nb import RMSprop

HUGE = 10**8
THREADS_FROM = 10**5


def skip_if_huge(n):
    """Skip arrays of some gigabytes unless they were asked for."""
    if n == HUGE and "RMSPROP_NB_BENCH_HUGE" not in os.environ:
        raise NotImplementedError


class Update:
    """Floor per element: one square root and one division in cache, five words moved in memory. See ratios.py."""

    params = (tuple(VARIANTS), ("float32", "float64"), (10, 10**3, 10**5, 10**6, 10**7, HUGE), ("serial", "parallel"))
    param_names = ("variant", "dtype", "n", "threads")
    rounds = 2
    repeat = (3, 5, 1.0)

    def setup(self, variant, dtype, n, threads):
        skip_if_huge(n)
        if threads == "parallel" and n < THREADS_FROM:  # threads take longer to wake than to work
            raise NotImplementedError
        vectors = Vectors.random(n, dtype, VARIANTS[variant])
        self.update = update_call(VARIANTS[variant], vectors, threads == "parallel")

    def time_update(self, variant, dtype, n, threads):
        self.update()


class Step:
    """`RMSprop.step` on one array. Floor: that of Update; the rest are checks."""

    params = (("checked", "unchecked"), ("float32", "float64"), (10, 10**3, 10**5, 10**6, 10**7))
    param_names = ("gradients", "dtype", "n")
    rounds = 2
    repeat = (3, 5, 1.0)

    def setup(self, gradients, dtype, n):
        self.step = step_call(Vectors.random(n, dtype), check_finite=gradients == "checked")

    def time_step(self, gradients, dtype, n):
        self.step()


class StepOfMany:
    """`RMSprop.step` on a dict of many small arrays, with new gradients each time. Floor: as many kernel calls."""

    params = ((1, 10, 100),)
    param_names = ("arrays",)

    def setup(self, arrays):
        self.optimizer = RMSprop()
        self.params = {f"W{k}": np.ones((5, 2)) for k in range(arrays)}
        self.grads = [{name: np.ones((5, 2)) for name in self.params} for _ in range(2)]
        self.state = self.optimizer.init(self.params)
        self.time_step(arrays)

    def time_step(self, arrays):
        for grads in self.grads:
            self.optimizer.step(self.params, grads, self.state)
