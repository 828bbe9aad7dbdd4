"""The update: the kernels alone, called from Python as a loop of one's own calls them, and by `RMSprop.step`."""

from __future__ import annotations

import os

import numpy as np

from benchmarks._kernels import VARIANTS, Vectors, step_call, update_call

HUGE = 10**8
THREADS_FROM = 10**5


def skip_if_huge(n):
    """Some gigabytes are not for every machine."""
    if n == HUGE and "RMSPROP_NB_BENCH_HUGE" not in os.environ:
        raise NotImplementedError


class Update:
    """Floor: one sqrt and one division an element in cache, five words an element in memory; ratios.py has them."""

    params = (tuple(VARIANTS), ("float32", "float64"), (10, 10**3, 10**5, 10**6, 10**7, HUGE), ("serial", "parallel"))
    param_names = ("variant", "dtype", "n", "threads")
    rounds = 2
    repeat = (3, 5, 1.0)

    def setup(self, variant, dtype, n, threads):
        skip_if_huge(n)
        if threads == "parallel" and n < THREADS_FROM:  # waking threads takes longer than the work
            raise NotImplementedError
        vectors = Vectors.random(n, dtype, VARIANTS[variant])
        self.update = update_call(VARIANTS[variant], vectors, threads == "parallel")

    def time_update(self, variant, dtype, n, threads):
        self.update()


class Step:
    """`RMSprop.step` on one array. Floor: that of Update; what is above it are the checks."""

    params = (("checked", "unchecked"), ("float32", "float64"), (10, 10**3, 10**5, 10**6, 10**7))
    param_names = ("gradients", "dtype", "n")
    rounds = 2
    repeat = (3, 5, 1.0)

    def setup(self, gradients, dtype, n):
        self.step = step_call(Vectors.random(n, dtype), check_finite=gradients == "checked")

    def time_step(self, gradients, dtype, n):
        self.step()


class StepOfMany:
    """`RMSprop.step` on many small arrays in a dict, each time with other gradients. Floor: as many kernel calls."""

    params = ((1, 10, 100),)
    param_names = ("arrays",)

    def setup(self, arrays):
        from rmsprop_nb import RMSprop

        self.optimizer = RMSprop()
        self.params = {f"W{k}": np.ones((5, 2)) for k in range(arrays)}
        self.grads = [{name: np.ones((5, 2)) for name in self.params} for _ in range(2)]
        self.state = self.optimizer.init(self.params)
        self.time_step(arrays)

    def time_step(self, arrays):
        for grads in self.grads:
            self.optimizer.step(self.params, grads, self.state)
