"""The library's loop in relation to ideals: compiled around one objective, never interrupted, bound by memory alone."""

from __future__ import annotations

import copy
import math
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

from benchmarks._interleaved import one_core, per_evaluation, samples
from benchmarks._kernels import same_traffic
from benchmarks._package import ask_and_tell
from benchmarks._problems import METHODS, STEEP, limited, rosen_inplace, start
from benchmarks.ratios import evaluations
from rmsprop_nb import minimize

RUNNING = -1
"""The status of a run that has not ended."""

inlined_rosen = njit(error_model="numpy", forceinline=True)(rosen_inplace.py_func)


def make_specialised_loop(ask: Any, tell: Any) -> Any:
    """Compile the loop anew, with the objective itself where the library calls it by its address."""

    @njit(error_model="numpy")
    def loop(arrays, record, settings, count):
        p = record[0]
        for _ in range(count):
            ask(arrays, record, settings)
            tell(arrays, record, inlined_rosen(arrays.x_eval, arrays.g_eval, STEEP), settings)
            if p.status != RUNNING:
                break

    return loop


def specialised(method: str, n: int) -> Callable[[int], None]:
    """Return ``run(count)``, which goes on from a first evaluation with `count` more in the loop above."""
    name = "rmsprop-lbfgs" if method == "lbfgs" else "rmsprop"
    options = {"gtol": 0.0, "maxiter": math.inf}
    if method == "textbook":
        options["learning_rate"] = 1e-3
    ask, tell, settings = ask_and_tell(name, options, start(n))
    loop, first = make_specialised_loop(ask, tell), limited(method, n)(1).state

    def run(count: int) -> None:
        state = copy.deepcopy(first)
        state.record["status"] = RUNNING
        loop(state.arrays, state.record, settings, count)

    run(2)
    return run


class LoopOverSpecialised:
    """Time of an evaluation in the library's loop relative to the same loop compiled around the objective.

    Both keep the best point and make the same tests. The library's calls the objective by its address, and returns to
    Python every few milliseconds. Floor: 1, aim: 1.1.
    """

    params = (METHODS, (2, 10, 100))
    param_names = ("method", "n")

    def setup(self, method, n):
        self.ours = limited(method, n)
        self.count = self.ours(evaluations(n)).nfev
        self.other = specialised(method, n)

    def track_evaluation(self, method, n):
        return per_evaluation(self.ours, self.other, (self.count, self.count))

    track_evaluation.unit = "times specialised"


class Chunks:
    """Cost of returning to Python every 20 ms, and how soon a run can end for it. Floors: 1, and 0 ms."""

    params = ((2, 100),)
    param_names = ("n",)
    many = 5_000_000  # evaluations at n = 2

    def setup(self, n):
        self.ours = limited("textbook", n)
        self.ours(2)

    def track_long_over_short(self, n):
        """Time of an evaluation in a run of many chunks relative to a run of a single chunk. Aim: 1.05."""
        long = 2 * self.many // n
        return per_evaluation(self.ours, self.ours, (long, max(2, long // 100)), rounds=5)

    def track_overrun(self, n):
        """Milliseconds by which a run exceeds its maxtime. Aim: 50."""
        run = limited("textbook", n, maxtime=0.1)
        run(2)
        begin = time.perf_counter()
        run(10**15)
        return 1e3 * (time.perf_counter() - begin) - 100.0

    track_long_over_short.unit = "times a short run's"
    track_overrun.unit = "ms"


@njit(error_model="numpy", fastmath={"reassoc"})
def quadratic(x, grad, curvatures):
    """Quadratic that takes no longer than moving three words per element, and more iterations than are measured."""
    f = 0.0
    for i in range(x.size):
        grad[i] = curvatures[i] * x[i]
        f += grad[i] * x[i]
    return 0.5 * f


class LbfgsOverTraffic:
    """Time of an iteration of rmsprop-lbfgs relative to moving its vectors in a simple loop. Floor: 1, aim: 1.3.

    Every inner product makes a pass over its vectors necessary, which reads or writes each of them once. With m pairs
    these passes move

    * 13 vectors per evaluation: the point, the objective, max|g| with the slope, the best point and its gradient;
    * 13 per iteration for S, M, x, g and the new pair; 2 for gamma; 3 + 4 + 4 for the first, middle and last pass of
      the two-loop recursion, and 4 for each of its other 2*(m - 1) passes: v <- v + c*s with the next inner product.
    """

    params = (("float32", "float64"),)
    param_names = ("dtype",)
    in_memory = 10**7
    memory = 10
    timeout = 1200

    def run(self, iterations):
        options = {"gtol": 0.0, "maxiter": iterations, "memory": self.memory}
        return minimize(quadratic, self.x0, (self.curvatures,), "rmsprop-lbfgs", "inplace", options=options)

    def setup(self, dtype):
        self.x0 = np.random.default_rng(0).standard_normal(self.in_memory, dtype=dtype)
        self.curvatures = 1.0 + np.arange(self.in_memory, dtype=dtype) % 1000
        self.run(1)

    def words(self, result):
        per_iteration = 13 + 2 + 11 + 8 * (self.memory - 1)
        return 13 * result.nfev + per_iteration * result.nit

    def track_iteration(self, dtype):
        few, many = self.memory + 2, 2 * self.memory + 2  # after `memory` iterations all pairs are in use
        x, g, s = self.x0.copy(), np.ones_like(self.x0), np.ones_like(self.x0)
        small = self.x0.dtype.type(1e-12)
        results = [self.run(k) for k in (few, many)]
        words = self.words(results[1]) - self.words(results[0])
        with one_core():
            seconds = samples(
                {
                    "few": lambda: self.run(few),
                    "many": lambda: self.run(many),
                    "five words": lambda: same_traffic(x, g, s, small),
                },
                rounds=5,
            )
        few_seconds, many_seconds, five = (statistics.median(seconds[name]) for name in ("few", "many", "five words"))
        return (many_seconds - few_seconds) / (five * words / 5)

    track_iteration.unit = "times the traffic"
