"""Curves that are fitted in batches: for CPU and device, in float32 and float64, with gradients by hand.

No literals, because they would make float64 of float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray


@njit(error_model="numpy")
def decay_2(p, grad, t, y):
    """Misfit of ``a*exp(-b*t)``."""
    f = grad[0] = grad[1] = p[0] - p[0]
    for i in range(t.size):
        e = math.exp(-p[1] * t[i])
        r = p[0] * e - y[i]
        f += r * r
        grad[0] += (r + r) * e
        grad[1] -= (r + r) * p[0] * t[i] * e
    return f


@njit(error_model="numpy")
def decay_3(p, grad, t, y):
    """Misfit of ``a*exp(-b*t) + c``."""
    f = grad[0] = grad[1] = grad[2] = p[0] - p[0]
    for i in range(t.size):
        e = math.exp(-p[1] * t[i])
        r = p[0] * e + p[2] - y[i]
        f += r * r
        grad[0] += (r + r) * e
        grad[1] -= (r + r) * p[0] * t[i] * e
        grad[2] += r + r
    return f


@njit(error_model="numpy")
def gaussian_6(p, grad, t, y):
    """Misfit of an elliptic Gaussian on a square of pixels, amplitude, centre, widths and offset."""
    f = p[0] - p[0]
    for k in range(p.size):
        grad[k] = f
    side = t.size
    for i in range(side):
        u = (t[i] - p[1]) / p[3]
        for j in range(side):
            v = (t[j] - p[2]) / p[4]
            e = math.exp(-u * u - v * v)
            r = p[0] * e + p[5] - y[i * side + j]
            f += r * r
            d = r + r
            c = d * p[0] * e
            c += c
            grad[0] += d * e
            grad[1] += c * u / p[3]
            grad[2] += c * v / p[4]
            grad[3] += c * u * u / p[3]
            grad[4] += c * v * v / p[4]
            grad[5] += d
    return f


@njit(error_model="numpy")
def peaks(p, grad, t, y):
    """Misfit of peaks, each with height, place and width, on a sloping line: six of them have 20 parameters."""
    f = p[0] - p[0]
    for k in range(p.size):
        grad[k] = f
    last = p.size - 1
    for i in range(t.size):
        r = p[last - 1] + p[last] * t[i] - y[i]
        for k in range(0, last - 1, 3):
            u = (t[i] - p[k + 1]) / p[k + 2]
            r += p[k] * math.exp(-u * u)
        f += r * r
        d = r + r
        for k in range(0, last - 1, 3):
            u = (t[i] - p[k + 1]) / p[k + 2]
            e = math.exp(-u * u)
            c = d * p[k] * e * (u + u) / p[k + 2]
            grad[k] += d * e
            grad[k + 1] += c
            grad[k + 2] += c * u
        grad[last - 1] += d
        grad[last] += d * t[i]
    return f


@njit(error_model="numpy")
def chain(x, grad, team):
    """Evaluate the chained Rosenbrock function and its gradient by the threads of a block."""
    one = x.dtype.type(1)
    hundred = x.dtype.type(100)
    f = x[0] - x[0]
    for i in range(team.rank, x.size, team.size):
        g = f - f
        if i + 1 < x.size:
            d = x[i + 1] - x[i] * x[i]
            e = one - x[i]
            f += hundred * d * d + e * e
            h = hundred * d
            g -= (h + h) * (x[i] + x[i]) + (e + e)
        if i > 0:
            h = hundred * (x[i] - x[i - 1] * x[i - 1])
            g += h + h
        grad[i] = g
    return f


class Model(NamedTuple):
    """A curve, points to measure it at, true parameters, and how far starts are from them, relative to each."""

    fun: Any
    points: NDArray[Any]
    truth: NDArray[Any]
    spread: float
    curve: Callable[[NDArray[Any], NDArray[Any]], NDArray[Any]]

    def problems(self, count: int, dtype: str) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Return starts, points, noisy data and true parameters for `count` fits."""
        rng = np.random.default_rng(0)
        n = self.truth.size
        distinct = min(count, 10_000)  # repeated: drawing takes longer than fitting
        truth = self.truth * rng.uniform(0.8, 1.2, (distinct, n))
        data = self.curve(truth, self.points)
        data += 0.01 * rng.normal(size=data.shape)
        starts = truth * rng.uniform(1.0 - self.spread, 1.0 + self.spread, truth.shape)
        repeated = (np.resize(a, (count, a.shape[1])).astype(dtype) for a in (starts, data, truth))
        starts, data, truth = repeated
        return starts, self.points.astype(dtype), data, truth


def _decay(p, t):
    return p[:, :1] * np.exp(-p[:, 1:2] * t) + (p[:, 2:] if p.shape[1] == 3 else 0.0)


def _gaussian(p, t):
    u, v = (t - p[:, 1:2]) / p[:, 3:4], (t - p[:, 2:3]) / p[:, 4:5]
    e = np.exp(-(u**2)[:, :, None] - (v**2)[:, None, :]).reshape(len(p), -1)
    return p[:, :1] * e + p[:, 5:]


def _peaks(p, t):
    found = p[:, -2:-1] + p[:, -1:] * t
    for k in range(0, p.shape[1] - 2, 3):
        found = found + p[:, k : k + 1] * np.exp(-(((t - p[:, k + 1 : k + 2]) / p[:, k + 2 : k + 3]) ** 2))
    return found


_SIX = np.ravel([(1.0 + 0.2 * k, 1.0 + 2.0 * k, 0.5) for k in range(6)])

MODELS = {
    "decay, n = 2": Model(decay_2, np.linspace(0.0, 4.0, 20), np.array([3.0, 0.7]), 0.3, _decay),
    "decay, n = 3": Model(decay_3, np.linspace(0.0, 4.0, 20), np.array([3.0, 0.7, 0.5]), 0.3, _decay),
    "Gaussian, n = 6": Model(
        gaussian_6, np.linspace(-3.0, 3.0, 11), np.array([2.0, 0.3, -0.2, 1.2, 0.9, 0.5]), 0.2, _gaussian
    ),
    "six peaks, n = 20": Model(peaks, np.linspace(0.0, 12.0, 64), np.append(_SIX, (0.5, 0.02)), 0.05, _peaks),
}
