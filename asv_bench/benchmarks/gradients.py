"""Exact derivatives: an evaluation of f and its gradient, divided by one of f alone, or with a gradient by hand."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from benchmarks._interleaved import compare
from benchmarks._package import private
from benchmarks._peers import jax_gradients

EVALUATIONS = 100_000  # times the number of variables; a call from Python takes longer than some evaluations


@njit
def decay(p, t, y):
    s = 0.0
    for i in range(t.size):
        r = p[0] * math.exp(-p[1] * t[i]) + p[2] - y[i]
        s += r * r
    return s


@njit
def decay_by_hand(p, grad, t, y):
    s = grad[0] = grad[1] = grad[2] = 0.0
    for i in range(t.size):
        e = math.exp(-p[1] * t[i])
        r = p[0] * e + p[2] - y[i]
        s += r * r
        grad[0] += 2.0 * r * e
        grad[1] -= 2.0 * r * p[0] * t[i] * e
        grad[2] += 2.0 * r
    return s


@njit
def decay_array(p, t, y):
    return np.sum((p[0] * np.exp(-p[1] * t) + p[2] - y) ** 2)


@njit
def peaks(p, t, y):
    m = np.zeros(t.size)
    for k in range(p.size // 3):
        m += p[3 * k] * np.exp(-(((t - p[3 * k + 1]) / p[3 * k + 2]) ** 2))
    return np.sum((m - y) ** 2)


@njit
def rosenbrock(x):
    s = 0.0
    for i in range(x.size - 1):
        s += 100.0 * (x[i + 1] - x[i] ** 2) ** 2 + (1.0 - x[i]) ** 2
    return s


@njit
def rosenbrock_array(x):
    return np.sum(100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1.0 - x[:-1]) ** 2)


@njit
def logistic(w, X, y):
    s = 0.0
    for i in range(X.shape[0]):
        z = 0.0
        for j in range(X.shape[1]):
            z += w[j] * X[i, j]
        s += math.log1p(math.exp(-y[i] * z))
    return s / y.size


@njit
def logistic_array(w, X, y):
    return np.mean(np.log1p(np.exp(-y * (X @ w))))


T = np.linspace(0.0, 4.0, 20)
CURVE = 3.0 * np.exp(-0.7 * T) + 0.2


def logistic_data(n):
    X = np.random.default_rng(0).normal(size=(200, n)) / np.sqrt(n)
    return X, np.sign(X[:, 0] + 0.1)


CASES = {
    "decay, n=3": (decay, 3, (T, CURVE)),
    "decay as an array expression, n=3": (decay_array, 3, (T, CURVE)),
    "peaks, n=12": (peaks, 12, (T, CURVE)),
    **{f"rosenbrock, n={n}": (rosenbrock, n, ()) for n in (100, 1000)},
    **{f"rosenbrock as an array expression, n={n}": (rosenbrock_array, n, ()) for n in (100, 1000)},
    **{f"logistic regression, n={n}": (logistic, n, logistic_data(n)) for n in (100, 1000)},
    **{
        f"logistic regression as an array expression, n={n}": (logistic_array, n, logistic_data(n)) for n in (100, 1000)
    },
}


@njit
def values(fun, count, x, *args):
    s = 0.0
    for _ in range(count):
        s += fun(x, *args)
    return s


@njit
def gradients(fun, count, x, grad, *args):
    s = 0.0
    for _ in range(count):
        s += fun(x, grad, *args)
    return s


def exact(fun, n):
    """Return the function that `minimize` would call for n variables."""
    from rmsprop_nb import value_and_grad

    return value_and_grad(fun, mode="reverse") if n > 32 else value_and_grad(fun, chunk=private("width_for")(n))


def many_gradients(name):
    """Return a call that evaluates f and its exact gradient many times, how many times, and x."""
    fun, n, args = CASES[name]
    x, grad, both, count = np.linspace(0.5, 1.5, n), np.empty(n), exact(fun, n), max(20, EVALUATIONS // n)
    return lambda: gradients(both, count, x, grad, *args), count, x


class GradientOverValue:
    """f and its exact gradient over f alone, both called in compiled loops. Floor: 1."""

    params = (tuple(CASES),)
    param_names = ("objective",)

    def setup(self, name):
        fun, _, args = CASES[name]
        self.both, count, x = many_gradients(name)
        self.alone = lambda: values(fun, count, x, *args)

    def track_ratio(self, name):
        return compare(self.both, self.alone)

    track_ratio.unit = "ratio"


ARRAY_FORMS = {decay: decay_array, rosenbrock: rosenbrock_array, logistic: logistic_array}


class GradientOverJax:
    """f and its exact gradient over `jax.value_and_grad`, jitted, both in compiled loops. Floor: see GradientOverValue.

    JAX is given the array expression, also where ours is a loop.
    """

    params = (tuple(CASES),)
    param_names = ("objective",)
    timeout = 300

    def setup(self, name):
        fun, _, args = CASES[name]
        self.ours, count, x = many_gradients(name)
        self.jax = jax_gradients(ARRAY_FORMS.get(fun, fun), count, x, *args)
        np.testing.assert_allclose(self.jax(), self.ours(), rtol=1e-9)

    def track_ratio(self, name):
        return compare(self.ours, self.jax)

    track_ratio.unit = "of JAX's time"


class GradientOverHand:
    """f and its exact gradient over a function that has both written by hand. Floor: 1."""

    def setup(self):
        x, grad, both = np.linspace(0.5, 1.5, 3), np.empty(3), exact(decay, 3)
        self.both = lambda: gradients(both, EVALUATIONS // 3, x, grad, T, CURVE)
        self.by_hand = lambda: gradients(decay_by_hand, EVALUATIONS // 3, x, grad, T, CURVE)

    def track_ratio(self):
        return compare(self.both, self.by_hand)

    track_ratio.unit = "ratio"
