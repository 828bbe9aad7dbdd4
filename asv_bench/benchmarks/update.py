"""The update kernels alone, called from Python as a loop of one's own calls them."""

from __future__ import annotations

import os

from benchmarks._kernels import VARIANTS, Vectors, update_call

HUGE = 10**8
THREADS_FROM = 10**5


class Update:
    """Floor: one sqrt and one division an element in cache, five words an element in memory; ratios.py has them."""

    params = (tuple(VARIANTS), ("float32", "float64"), (10, 10**3, 10**5, 10**6, 10**7, HUGE), ("serial", "parallel"))
    param_names = ("variant", "dtype", "n", "threads")
    rounds = 2
    repeat = (3, 5, 1.0)

    def setup(self, variant, dtype, n, threads):
        if n == HUGE and "RMSPROP_NB_BENCH_HUGE" not in os.environ:
            raise NotImplementedError
        if threads == "parallel" and n < THREADS_FROM:  # waking threads takes longer than the work
            raise NotImplementedError
        vectors = Vectors.random(n, dtype, VARIANTS[variant])
        self.update = update_call(VARIANTS[variant], vectors, threads == "parallel")

    def time_update(self, variant, dtype, n, threads):
        self.update()
