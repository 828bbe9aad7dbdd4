"""The numbers that matter: our time relative to a floor or to a peer, measured in turns in one process on one core.

Lower is better throughout, as asv expects it: 0.1 is ten times as fast as the peer, and 1.05 times a floor is 95 % of
what can be reached. The ratios depend little on the machine and on what else it does.
"""

from __future__ import annotations

import functools
import statistics

import numpy as np
import scipy.optimize
from numba import njit
from scipy.optimize._numdiff import approx_derivative  # what scipy.optimize.minimize itself uses

from benchmarks._interleaved import compare, one_core, per_evaluation, samples
from benchmarks._kernels import (
    PLAIN,
    RATE,
    VARIANTS,
    Vectors,
    divide_by_root,
    repeated,
    same_traffic,
    step_call,
    update_call,
)
from benchmarks._peers import LOOPS, UPDATES, quantecon_run
from benchmarks._problems import STEEP, limited, rosen_inplace, start
from benchmarks.differences import FORMS, calls_per_evaluation, compiled_rosen, run_by_differences
from benchmarks.loop import python_valley
from benchmarks.update import HUGE, skip_if_huge
from rmsprop_nb import minimize

DTYPES = ("float32", "float64")


class UpdateOverFloor:
    """Update time relative to its floor: arithmetic in cache, memory traffic beyond.

    Floor in cache: one square root and one division per element; in memory: moving five words per element. Aim: at most
    1/0.90 in cache; in memory at most 1/0.90 (float32) and 1/0.80 (float64).
    """

    params = (DTYPES,)
    param_names = ("dtype",)
    in_cache = 500  # 20 kB with all state in float64, for the first level; a power of two would make addresses collide
    in_memory = 10**7

    def track_in_cache(self, dtype):
        return compare(*repeated(PLAIN, Vectors.random(self.in_cache, dtype), times=2000))

    def track_in_memory(self, dtype):
        v = Vectors.random(self.in_memory, dtype)
        small = v.x.dtype.type(RATE)
        same_traffic(*v[:3], small)
        return compare(update_call(PLAIN, v), lambda: same_traffic(*v[:3], small))

    def track_in_memory_over_copy(self, dtype):
        """Compare with a copy of as many bytes. A copy can write past the cache, which an update cannot."""
        v = Vectors.random(self.in_memory, dtype)
        target = np.empty_like(v.g)
        return compare(update_call(PLAIN, v), lambda: np.copyto(target, v.g)) * 2 / 5

    track_in_cache.unit = track_in_memory.unit = track_in_memory_over_copy.unit = "times the floor"


class UpdateBySize:
    """One update relative to the higher of the two floors, all called from Python.

    Floor: one square root and one division per element, or moving five words per element, whichever takes longer.
    """

    params = (DTYPES, (10, 10**2, 10**3, 10**4, 10**5, 10**6, 10**7, HUGE))
    param_names = ("dtype", "n")

    def setup(self, dtype, n):
        skip_if_huge(n)
        self.vectors = Vectors.random(n, dtype)

    def track_over_floor(self, dtype, n):
        v = self.vectors
        small, target = v.x.dtype.type(RATE), np.empty_like(v.x)
        candidates = {
            "ours": update_call(PLAIN, v),
            "traffic": lambda: same_traffic(*v[:3], small),
            "arithmetic": lambda: divide_by_root(target, v.g, v.square_avg),
        }
        for call in candidates.values():
            call()
        with one_core():
            seconds = samples(candidates)
        floors = map(max, seconds["traffic"], seconds["arithmetic"])
        return statistics.median(a / b for a, b in zip(seconds["ours"], floors, strict=True))

    track_over_floor.unit = "times the floor"


class StepOverFloor:
    """`RMSprop.step` as users call it. Floor: that of UpdateOverFloor.

    Aim without the check of gradients: 1/0.90, and 1/0.80 for float64 in memory. The check reads the gradients once
    more, a sixth of the words moved: no array may change before all gradients have passed.
    """

    params = (("checked", "unchecked"), DTYPES)
    param_names = ("gradients", "dtype")
    n = 10**5
    in_memory = 10**7

    def track_in_cache(self, gradients, dtype):
        v = Vectors.random(self.n, dtype)
        target = np.empty_like(v.x)
        divide_by_root(target, v.g, v.square_avg)
        step = step_call(v, check_finite=gradients == "checked")
        return compare(step, lambda: divide_by_root(target, v.g, v.square_avg))

    def track_in_memory(self, gradients, dtype):
        v = Vectors.random(self.in_memory, dtype)
        small = v.x.dtype.type(RATE)
        same_traffic(*v[:3], small)
        step = step_call(v, check_finite=gradients == "checked")
        return compare(step, lambda: same_traffic(*v[:3], small))

    track_in_cache.unit = track_in_memory.unit = "times the floor"


class StepOverPeer:
    """`RMSprop.step` with all its checks relative to an update of a peer, on one thread.

    Floor: that of UpdateOverFloor.

    Aim: 1/5 of torch at n = 10**7, below 1 everywhere.
    """

    params = (tuple(UPDATES), DTYPES, (10, 10**3, 10**5, 10**7))
    param_names = ("peer", "dtype", "n")

    def setup(self, peer, dtype, n):
        with one_core():
            self.theirs = UPDATES[peer](Vectors.random(n, dtype))
            self.ours = step_call(Vectors.random(n, dtype))

    def track_time(self, peer, dtype, n):
        return compare(self.ours, self.theirs)

    track_time.unit = "of the peer's time"


class VariantOverPlain:
    """Cost of the additions to the rule, in cache. Floor: 1, where the divisions hide everything else."""

    params = (tuple(VARIANTS)[1:], DTYPES)
    param_names = ("variant", "dtype")

    def track_in_cache(self, variant, dtype):
        n = UpdateOverFloor.in_cache
        options = VARIANTS[variant]
        ours, _ = repeated(options, Vectors.random(n, dtype, options), times=1000)
        plain, _ = repeated(PLAIN, Vectors.random(n, dtype), times=1000)
        return compare(ours, plain)

    track_in_cache.unit = "times plain"


class UpdateOverPeer:
    """One update relative to a peer's, both called from Python, on one thread. Floor: that of UpdateOverFloor.

    Aim at n = 10**7: 1/7 of torch, 1/4.5 of NumPy, 1/1.6 of optax, 1 of torch.compile; below 1 everywhere.
    """

    params = (tuple(UPDATES), DTYPES, (10, 10**3, 10**5, 10**7, HUGE))
    param_names = ("peer", "dtype", "n")

    def setup(self, peer, dtype, n):
        skip_if_huge(n)
        with one_core():  # peers make their thread pools here
            self.theirs = UPDATES[peer](Vectors.random(n, dtype))
            self.ours = update_call(PLAIN, Vectors.random(n, dtype))

    def track_time(self, peer, dtype, n):
        return compare(self.ours, self.theirs)

    track_time.unit = "of the peer's time"


@njit(error_model="numpy")
def loop_by_hand(x, count):
    """Run textbook RMSprop with a test on the gradient, as one would write it for this objective alone."""
    s, g = np.zeros_like(x), np.zeros_like(x)
    for _ in range(count):
        f = rosen_inplace(x, g, STEEP)
        largest = 0.0
        for i in range(x.size):
            largest = max(largest, abs(g[i]))
        if largest <= 0.0 or not np.isfinite(f):
            break
        for i in range(x.size):
            s[i] = 0.9 * s[i] + 0.1 * g[i] * g[i]
            x[i] -= 1e-3 * g[i] / (np.sqrt(s[i]) + 1e-8)


def evaluations(n):
    """Return a number of evaluations that takes some milliseconds, far longer than the start of a run."""
    return min(100_000, max(4, 2_000_000 // n))


class LoopOverHand:
    """Time of an evaluation in the compiled loop relative to a loop written by hand for the objective. Floor: 1.

    The library's loop also keeps the best point, checks every element for NaN, and can be interrupted and resumed. The
    automatic methods do more in an iteration than the textbook rule, and need far fewer iterations.
    """

    params = (("textbook", "auto", "lbfgs"), (2, 10, 100, 1000))
    param_names = ("method", "n")

    def setup(self, method, n):
        self.ours = limited(method, n)
        self.count = self.ours(evaluations(n)).nfev  # the automatic methods may converge earlier
        loop_by_hand(start(n), 2)

    def track_evaluation(self, method, n):
        return per_evaluation(self.ours, lambda k: loop_by_hand(start(n), k), (self.count, evaluations(n)))

    track_evaluation.unit = "times by hand"


class LoopOverPeer:
    """Time of an iteration of the textbook rule relative to loops in other libraries. Floor: see LoopOverHand.

    Aim: 1 for a JAX while_loop, which is compiled around the objective and as fast as the loop by hand; 1/5000 for a
    torch loop at n = 2.
    """

    params = (tuple(LOOPS), (2, 10, 100, 1000))
    param_names = ("peer", "n")

    def setup(self, peer, n):
        with one_core():
            self.theirs = LOOPS[peer](n)
        self.ours = limited("textbook", n)
        self.ours(2)

    def track_iteration(self, peer, n):
        counts = (evaluations(n), 10_000 if peer.endswith("while_loop") else 100)
        return per_evaluation(self.ours, self.theirs, counts, rounds=7)

    track_iteration.unit = "of the peer's time"


class OverScipy:
    """The automatic methods relative to SciPy's L-BFGS-B, on the same compiled objective. Floor: the objective."""

    params = (("auto", "lbfgs"), (2, 10, 100, 1000))
    param_names = ("method", "n")

    def setup(self, method, n):
        self.ours = limited(method, n)
        self.count = self.ours(evaluations(n)).nfev
        self.x0 = start(n)

    def scipy(self, count):
        options = {"ftol": 0.0, "gtol": 0.0, "maxiter": 10**9 if count > 1 else 0, "maxfun": count}
        return scipy.optimize.minimize(both, self.x0, jac=True, method="L-BFGS-B", options=options)

    def track_evaluation(self, method, n):
        count = self.scipy(300).nfev  # its limit is not exact
        return per_evaluation(self.ours, lambda k: self.scipy(min(k, 300)), (self.count, count))

    def track_start(self, method, n):
        """Compare runs of one evaluation: what a run costs besides its evaluations."""
        return compare(lambda: self.ours(1), lambda: self.scipy(1))

    track_evaluation.unit = track_start.unit = "of SciPy's time"


class RunOverQuantecon:
    """A whole run relative to QuantEcon's Nelder-Mead, which is compiled too but takes no gradients.

    Floor: the evaluations. In runs this small our checks, state and result take most of the time (loop.Start); the
    problems of a `minimize_batch` share them. setup checks that both find the minimum.
    """

    params = (("rmsprop", "rmsprop-lbfgs"), (2, 4))
    param_names = ("method", "n")
    steepness = 100.0

    def setup(self, method, n):
        x0 = start(n)
        self.theirs = quantecon_run(x0, self.steepness)
        self.ours = lambda: minimize(rosen_inplace, x0, (self.steepness,), method, "inplace").fun
        assert abs(self.ours() - self.theirs()) < 1e-6

    def track_time(self, method, n):
        return compare(self.ours, self.theirs)

    track_time.unit = "of QuantEcon's time"


@njit(error_model="numpy")
def both(x):
    grad = np.empty_like(x)
    return rosen_inplace(x, grad, STEEP), grad


class InterpretedOverObjective:
    """Time of an evaluation in the loop around a Python objective relative to the objective alone. Floor: 1."""

    params = (("textbook", "auto", "lbfgs"), (2, 1000))
    param_names = ("method", "n")

    def setup(self, method, n):
        self.ours = limited(method, n, fun=python_valley)
        self.ours(2)

    def objective(self, n, count):
        x, grad = start(n), np.empty(n)
        for _ in range(count):
            python_valley(x, grad, STEEP)

    def track_evaluation(self, method, n):
        return per_evaluation(self.ours, functools.partial(self.objective, n), (200, 200))

    track_evaluation.unit = "times the objective"


class Differences:
    """Time of an evaluation with its gradient by differences, in a compiled run of the textbook rule.

    Relative to the calls of the objective that it needs (floor: 1), and to SciPy's differences.
    """

    params = (FORMS, (2, 10, 100))
    param_names = ("form", "n")

    def setup(self, form, n):
        self.calls = calls_per_evaluation(form, n)
        self.count = evaluations(n * self.calls)
        self.ours = run_by_differences("compiled", form, n)

    def track_over_scipy(self, form, n):
        def scipy_gradients(count):
            for _ in range(count):
                approx_derivative(compiled_rosen, start(n), method=form, args=(STEEP,))

        return per_evaluation(self.ours, scipy_gradients, (self.count, 20))

    def track_over_calls(self, form, n):
        x = start(n).astype(complex if form == "cs" else float)
        call_often(x, self.calls)
        return per_evaluation(self.ours, lambda k: call_often(x, k * self.calls), (self.count, self.count))

    track_over_scipy.unit = "of SciPy's time"
    track_over_calls.unit = "times the calls"


@njit(error_model="numpy")
def call_often(x, times):
    total = 0.0 * x[0]
    for _ in range(times):
        x[0] += 1e-9  # otherwise the compiler would call once
        total += compiled_rosen(x, 100.0)
    return total
