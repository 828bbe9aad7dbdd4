"""The numbers that matter: our time divided by a floor or by a peer's, measured in turns in one process on one core.

Lower is better throughout, so that asv knows a regression when it sees one; 0.1 is ten times as fast as the peer, and
1.05 times a floor is 95 % of what can be reached. No ratio depends much on the machine it was measured on, or on what
else that was doing.
"""

from __future__ import annotations

import functools
import statistics

import numpy as np
import scipy.optimize
from numba import njit

from benchmarks._interleaved import compare, one_core, per_evaluation, samples
from benchmarks._kernels import RATE, VARIANTS, Vectors, divide_by_root, repeated, same_traffic, step_call, update_call
from benchmarks._peers import LOOPS, UPDATES, quantecon_run
from benchmarks._problems import STEEP, limited, rosen_inplace, start
from benchmarks.differences import FORMS, compiled_rosen, gradient_call
from benchmarks.loop import python_valley
from benchmarks.update import HUGE, skip_if_huge
from rmsprop_nb import minimize

DTYPES = ("float32", "float64")
PLAIN = VARIANTS["plain"]


class UpdateOverFloor:
    """Floor in cache: one sqrt and one division an element; in memory: five words moved an element.

    Aim: at most 1/0.90 of the floor in cache; in memory at most 1/0.90 (float32) and 1/0.80 (float64).
    """

    params = (DTYPES,)
    param_names = ("dtype",)
    in_cache = 500  # with all state in float64 20 kB: the first level; and no power of two, whose addresses collide
    in_memory = 10**7

    def track_in_cache(self, dtype):
        return compare(*repeated(PLAIN, Vectors.random(self.in_cache, dtype), times=2000))

    def track_in_memory(self, dtype):
        v = Vectors.random(self.in_memory, dtype)
        small = v.x.dtype.type(RATE)
        same_traffic(*v[:3], small)
        return compare(update_call(PLAIN, v), lambda: same_traffic(*v[:3], small))

    def track_in_memory_over_copy(self, dtype):
        """Beside a copy: its bandwidth times our five words. A copy writes past the cache, which an update cannot."""
        v = Vectors.random(self.in_memory, dtype)
        target = np.empty_like(v.g)
        return compare(update_call(PLAIN, v), lambda: np.copyto(target, v.g)) * 2 / 5

    track_in_cache.unit = track_in_memory.unit = track_in_memory_over_copy.unit = "times the floor"


class UpdateBySize:
    """One update, called from Python, over the higher of the two floors, called likewise.

    Floor: the dearer of one sqrt and one division an element, and five words an element moved.
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

    Aim without the check of gradients: 1/0.90, and 1/0.80 for float64 in memory. The check reads them a second time: a
    sixth of the words moved, which nothing that leaves all arrays alone until it is through can spare.
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
    """`RMSprop.step` with all its checks over one update of a library, on one thread. Floor: that of UpdateOverFloor.

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
    """What the additions to the rule cost in cache. Floor: 1, where the divisions hide everything else."""

    params = (tuple(VARIANTS)[1:], DTYPES)
    param_names = ("variant", "dtype")

    def track_in_cache(self, variant, dtype):
        n = UpdateOverFloor.in_cache
        variant = VARIANTS[variant]
        ours, _ = repeated(variant, Vectors.random(n, dtype, variant), times=1000)
        plain, _ = repeated(PLAIN, Vectors.random(n, dtype), times=1000)
        return compare(ours, plain)

    track_in_cache.unit = "times plain"


class UpdateOverPeer:
    """One update, called from Python, all on one thread. Floor: that of UpdateOverFloor.

    Aim at n = 10**7: 1/7 of torch, 1/4.5 of NumPy, 1/1.6 of optax, 1 of torch.compile; below 1 everywhere.
    """

    params = (tuple(UPDATES), DTYPES, (10, 10**3, 10**5, 10**7, HUGE))
    param_names = ("peer", "dtype", "n")

    def setup(self, peer, dtype, n):
        skip_if_huge(n)
        with one_core():  # thread pools are made here
            self.theirs = UPDATES[peer](Vectors.random(n, dtype))
            self.ours = update_call(PLAIN, Vectors.random(n, dtype))

    def track_time(self, peer, dtype, n):
        return compare(self.ours, self.theirs)

    track_time.unit = "of the peer's time"


@njit(error_model="numpy")
def loop_by_hand(x, count):
    """What one would write for this objective alone: textbook RMSprop with a test on the gradient."""
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
    """So many that they take some milliseconds, far longer than the start of a run."""
    return min(100_000, max(4, 2_000_000 // n))


class LoopOverHand:
    """An evaluation in the library's compiled loop over one in a loop written for the objective by hand. Floor: 1.

    The library's also keeps the best point, watches for NaN in every element, and can be interrupted and resumed. The
    automatic methods do more in an iteration than the textbook rule does; they need far fewer of them.
    """

    params = (("textbook", "auto", "lbfgs"), (2, 10, 100, 1000))
    param_names = ("method", "n")

    def setup(self, method, n):
        self.ours = limited(method, n)
        self.count = self.ours(evaluations(n)).nfev  # the automatic methods may arrive before
        loop_by_hand(start(n), 2)

    def track_evaluation(self, method, n):
        return per_evaluation(self.ours, lambda k: loop_by_hand(start(n), k), (self.count, evaluations(n)))

    track_evaluation.unit = "times by hand"


class LoopOverPeer:
    """An iteration of the textbook rule on a compiled objective over one in another library. Floor: LoopOverHand.

    Aim: 1 of a JAX while_loop, which is compiled around the objective and as fast as the loop by hand; 1/5000 of a
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
    """The automatic methods beside SciPy's L-BFGS-B, both on the same compiled objective. Floor: the objective."""

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
        """A run of one evaluation each: what a run costs besides its evaluations."""
        return compare(lambda: self.ours(1), lambda: self.scipy(1))

    track_evaluation.unit = track_start.unit = "of SciPy's time"


class RunOverQuantecon:
    """A whole run over QuantEcon's Nelder-Mead, compiled as well but without gradients; setup checks that both arrive.

    Floor: the evaluations. Such small runs are over before our checks, state and result are paid for (loop.Start),
    which many of them share in `minimize_batch`.
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
    """An evaluation in the loop around a Python objective over the objective alone. Floor: 1."""

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
    """A compiled gradient by differences over SciPy's, and over the calls of the objective that it needs (floor: 1)."""

    params = (FORMS, (2, 10, 100))
    param_names = ("form", "n")

    def setup(self, form, n):
        self.ours = gradient_call("compiled", form, n)

    def track_over_scipy(self, form, n):
        return compare(self.ours, gradient_call("scipy", form, n))

    def track_over_calls(self, form, n):
        calls = 1 + n * (2 if form == "3-point" else 1)
        x = start(n).astype(complex if form == "cs" else float)
        call_often(x, calls)
        return compare(self.ours, lambda: call_often(x, calls))

    track_over_scipy.unit = "of SciPy's time"
    track_over_calls.unit = "times the calls"


@njit(error_model="numpy")
def call_often(x, times):
    total = 0.0 * x[0]
    for _ in range(times):
        x[0] += 1e-9  # or the call would be made once
        total += compiled_rosen(x, 100.0)
    return total
