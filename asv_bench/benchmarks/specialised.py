"""The library's loop beside what it could be: compiled around one objective, uninterrupted, bound by memory alone."""

from __future__ import annotations

import functools
import math
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

from benchmarks._interleaved import one_core, per_evaluation, samples
from benchmarks._kernels import same_traffic
from benchmarks._problems import METHODS, STEEP, limited, rosen_inplace, start
from benchmarks.ratios import evaluations
from rmsprop_nb import minimize

inlined_rosen = njit(error_model="numpy", forceinline=True)(rosen_inplace.py_func)


@functools.cache
def make_specialised_loop(algorithm: Any) -> Any:
    """The same ask and tell, with the objective in the place of the call by address."""
    ask, tell = algorithm.ask, algorithm.tell

    @njit(error_model="numpy")
    def loop(arrays, record, settings, count):
        p = record[0]
        for _ in range(count):
            ask(arrays, record, settings)
            tell(arrays, record, inlined_rosen(arrays.x_eval, arrays.g_eval, STEEP), settings)
            if p.status != -1:
                break

    return loop


def specialised(method: str, n: int) -> Callable[[int], None]:
    """``run(count)`` as `limited` has it, by the loop above."""
    from rmsprop_nb._core.options import RmspropOptions
    from rmsprop_nb._drivers.solve import algorithm_of, settings_of, starting_state
    from rmsprop_nb._methods.lbfgs import LbfgsOptions
    from rmsprop_nb._objectives.problem import Problem

    own = {"lbfgs": LbfgsOptions, "auto": RmspropOptions}.get(
        method, functools.partial(RmspropOptions, learning_rate=1e-3)
    )
    x0, none = start(n), np.empty(0)
    problem = Problem(rosen_inplace, "inplace", (STEEP,), none, none, None)

    def run(count: int) -> None:
        options = own(gtol=0.0, maxiter=math.inf, maxfev=count)
        state = starting_state(problem, x0, options)
        state.record["status"] = -1
        make_specialised_loop(algorithm_of(options, False))(state.arrays, state.record, settings_of(options, x0), count)

    run(2)
    return run


class LoopOverSpecialised:
    """An evaluation in the loop that calls the objective by address over one in the same loop compiled around it.

    Both keep the best point and make the same tests; what differs is the call, and that the library's loop comes back
    to Python every few milliseconds. Floor: 1, aim: 1.1.
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
    """What it costs to come back to Python every 20 ms, and how soon that ends a run. Floor: 1, and nothing."""

    params = ((2, 100),)
    param_names = ("n",)
    many = 5_000_000  # evaluations at n = 2

    def setup(self, n):
        self.ours = limited("textbook", n)
        self.ours(2)

    def track_long_over_short(self, n):
        """An evaluation in a run of many chunks over one in runs of a single one. Aim: 1.05."""
        long = 2 * self.many // n
        return per_evaluation(self.ours, self.ours, (long, max(2, long // 100)), rounds=5)

    def track_overrun(self, n):
        """Milliseconds by which a run is longer than its maxtime. Aim: 50."""
        run = limited("textbook", n, maxtime=0.1)
        run(2)
        begin = time.perf_counter()
        run(10**15)
        return 1e3 * (time.perf_counter() - begin) - 100.0

    track_long_over_short.unit = "times a short run's"
    track_overrun.unit = "ms"


@njit(error_model="numpy", fastmath={"reassoc"})
def quadratic(x, grad, curvatures):
    """An objective that takes no longer than its three words, and more iterations than a benchmark makes."""
    f = 0.0
    for i in range(x.size):
        grad[i] = curvatures[i] * x[i]
        f += grad[i] * x[i]
    return 0.5 * f


class LbfgsOverTraffic:
    """An iteration of rmsprop-lbfgs over the words it moves, at the speed of a simple loop. Floor: 1, aim: 1.3.

    With m pairs these are, each vector read or written once in every pass that an inner product makes necessary:

    * 13 an evaluation: the point, the objective, max|g| with the slope, the best point and its gradient;
    * 13 for S, M, x, g and the new pair; 2 for gamma; 3 + 4 + 4 for the first, middle and last pass of the two-loop
      recursion, and 4 for each of its other 2*(m - 1) passes: v <- v + c*s with the inner product that comes next.
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
        few, many = self.memory + 2, 2 * self.memory + 2  # all pairs are there after `memory` iterations
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
