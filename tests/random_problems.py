"""Hypothesis strategies: problems, bounds and options of every kind."""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from numba import njit
from scipy.optimize import Bounds

from rmsprop_nb import minimize
from rmsprop_nb._numba.decorators import JIT_ENABLED

METHODS = st.sampled_from(["rmsprop", "rmsprop-lbfgs"])
DTYPES = st.sampled_from([np.float32, np.float64])


def examples(count):
    """So many examples as a rule, and in proportion under a profile that asks for more."""
    return settings(max_examples=count * max(1, settings.default.max_examples // 100))


def numbers(low, high, n, width=32):
    # 0 or not next to it: hypothesis likes 1e-15, which is taken as the size of a variable; see test_confirmation.py
    array = st.lists(st.floats(low, high, width=width), min_size=n, max_size=n).map(np.array)
    return array.map(lambda a: np.where(np.abs(a) < 1e-6, 0.0, a))


# -- problems ---------------------------------------------------------------------------------------------------------


@njit
def quadratic(x, grad, A, center, lower, upper, outside):
    """Half of d.Ad for d = x - center; counts the points outside of the box."""
    total = 0.0
    for i in range(x.size):
        slope = 0.0
        for j in range(x.size):
            slope += A[i, j] * (x[j] - center[j])
        grad[i] = slope
        total += slope * (x[i] - center[i])
        if x[i] < lower[i] or x[i] > upper[i]:
            outside[0] += 1
    return 0.5 * total


@njit
def bumpy(x, grad, scale, k):
    """Curved, not convex, bounded below, every term of its own; multiplied by `scale` at the very end."""
    total = 0.0
    for i in range(x.size):
        wave = np.sin(3.0 * x[i] + i)
        total += scale * (k[i] * (x[i] * x[i] + wave))
        grad[i] = scale * (k[i] * (2.0 * x[i] + 3.0 * np.cos(3.0 * x[i] + i)))
    return total


class Quadratic(NamedTuple):
    """A convex problem whose curvature is between 1 and `condition`."""

    A: Any
    center: Any
    x0: Any
    lower: Any
    upper: Any
    diagonal: bool

    @property
    def args(self):
        return self.A, self.center, self.lower, self.upper, np.zeros(1, np.int64)

    def gradient(self, x):
        """In double precision, with a bound on the rounding error that the objective's own arithmetic makes."""
        A, d = self.A.astype(np.float64), x.astype(np.float64) - self.center.astype(np.float64)
        return A @ d, (x.size + 3) * np.finfo(self.A.dtype).eps * (np.abs(A) @ np.abs(d))

    def projected(self, x, g):
        """The vector whose largest element the test on the gradient looks at."""
        x = x.astype(np.float64)
        return np.clip(-g, self.lower - x, self.upper - x)


@st.composite
def boxes(draw, n, center):
    """Bounds of every kind; some hold a variable fixed, some lie exactly at the unbounded minimum."""
    lower, upper = np.full(n, -np.inf), np.full(n, np.inf)
    for i in range(n):
        a, b = np.sort(draw(numbers(-8, 8, 2)))
        kind = draw(st.sampled_from(["none", "lower", "upper", "both", "equal", "touching"]))
        if kind in ("lower", "both", "equal"):
            lower[i] = a
        if kind in ("upper", "both"):
            upper[i] = b
        if kind == "equal":
            upper[i] = a
        if kind == "touching":
            lower[i] = center[i]
    return lower, upper


@st.composite
def quadratics(draw, diagonal=None, bounded=True):
    n, dtype = draw(st.integers(1, 8)), draw(DTYPES)
    spectrum = 10.0 ** draw(numbers(0.0, draw(st.floats(0.0, 6.0)), n, width=64))
    is_diagonal = draw(st.booleans()) if diagonal is None else diagonal
    A = np.diag(spectrum)
    if not is_diagonal:
        Q, _ = np.linalg.qr(np.random.default_rng(draw(st.integers(0, 99))).normal(size=(n, n)))
        A = Q * spectrum @ Q.T
        A = 0.5 * (A + A.T)
    center, x0 = draw(numbers(-9, 9, n)).astype(dtype), draw(numbers(-20, 20, n)).astype(dtype)
    lower, upper = draw(boxes(n, center)) if bounded else (np.full(n, -np.inf), np.full(n, np.inf))
    return Quadratic(A.astype(dtype), center, x0, lower, upper, is_diagonal)


def solve(problem, method="rmsprop", args=None, **options):
    bounds = Bounds(problem.lower, problem.upper)
    args = problem.args if args is None else args
    return minimize(quadratic, problem.x0, args, method, "inplace", bounds, options={"gtol": 1e-5, **options})


def start_and_weights(dtype, n, seed):
    rng = np.random.default_rng(seed)
    return rng.normal(0.0, 2.0, n).astype(dtype), (10.0 ** rng.uniform(0.0, 3.0, n)).astype(dtype)


# -- the textbook rule ------------------------------------------------------------------------------------------------


SWITCHES = {
    "dtype": [np.float32, np.float64],
    "centered": [False, True],
    "momentum": [None, "heavy", "nesterov"],
    "lr_in_momentum": [False, True],
    "eps_inside_sqrt": [False, True],
    "bias_correction": [False, True],
    "weight_decay": [None, "coupled", "decoupled"],
}
ALL_VARIANTS = [dict(zip(SWITCHES, values, strict=True)) for values in itertools.product(*SWITCHES.values())]

# Each variant is a kernel to compile. With this start and stride any two settings meet in as few as ten.
VARIANTS = [ALL_VARIANTS[(10 + 163 * k) % len(ALL_VARIANTS)] for k in range(10)] if JIT_ENABLED else ALL_VARIANTS


class Textbook(NamedTuple):
    """Options of the rule, as `minimize` and as the reference take them."""

    dtype: Any
    rates: Any
    options: dict[str, Any]

    @property
    def for_minimize(self):
        rates = self.rates
        constant = len(set(rates)) == 1
        return {
            **self.options,
            "learning_rate": rates[0] if constant else lambda step: rates[min(step, len(rates) - 1)],
        }


@st.composite
def textbooks(draw, steps=20):
    switches = dict(draw(st.sampled_from(VARIANTS)))
    dtype, momentum, decay = (switches.pop(name) for name in ("dtype", "momentum", "weight_decay"))
    options = {
        **switches,
        "beta": draw(st.sampled_from([0.9, 0.99, 0.999]) | st.floats(0.0, 0.999)),
        "eps": draw(st.sampled_from([1e-10, 1e-8, 1e-3, 1.0])),
        "initial_accumulator": draw(st.sampled_from([0.0, 0.1, 1.0])),
    }
    if momentum is not None:
        options |= {"momentum": draw(st.floats(0.01, 0.99)), "nesterov": momentum == "nesterov"}
    if decay is not None:
        options |= {"weight_decay": draw(st.floats(1e-3, 0.5)), "decoupled_weight_decay": decay == "decoupled"}
    rate = st.floats(1e-4, 0.5)
    rates = draw(st.one_of(rate.map(lambda r: [r] * steps), st.lists(rate, min_size=steps, max_size=steps)))
    return Textbook(dtype, rates, options)
