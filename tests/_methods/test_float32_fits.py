"""Fits in float32 with noise in the data: f and its gradient have errors far above those of one number."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numba import njit
from objectives import decay

from rmsprop_nb import minimize_batch

POINTS = np.linspace(0.0, 4.0, 20)
COUNT = 100


@njit(error_model="numpy")
def growth(p, grad, t, weight, y):
    """Weighted squares of what a logistic curve misses."""
    one = p.dtype.type(1)
    f = grad[0] = grad[1] = grad[2] = p[0] - p[0]
    for i in range(t.size):
        e = math.exp(-p[1] * (t[i] - p[2]))
        q = one / (one + e)
        r = p[0] * q - y[i]
        f += weight * r * r
        slope = weight * (r + r) * p[0] * q * q * e
        grad[0] += weight * (r + r) * q
        grad[1] += slope * (t[i] - p[2])
        grad[2] -= slope * p[1]
    return f


MODELS = {
    "decay": (decay, lambda p: p[:, :1] * np.exp(-p[:, 1:2] * POINTS) + p[:, 2:], (3.0, 0.7, 0.5)),
    "growth": (growth, lambda p: p[:, :1] / (1.0 + np.exp(-p[:, 1:2] * (POINTS - p[:, 2:]))), (300.0, 2.0, 2.0)),
}


def fits(model, method, dtype):
    fun, curve, truth = MODELS[model]
    rng = np.random.default_rng(0)
    parameters = np.array(truth) * rng.uniform(0.8, 1.2, (COUNT, 3))
    y = curve(parameters) * (1.0 + 0.01 * rng.normal(size=(COUNT, POINTS.size)))
    starts = parameters * rng.uniform(0.8, 1.2, parameters.shape)
    arrays = (a.astype(np.float32).astype(dtype) for a in (starts, POINTS, y))
    starts, t, y = arrays
    weights = np.ones(COUNT, dtype)
    return minimize_batch(fun, starts, (t,), batch_args=(weights, y), jac="inplace", method=method)


@pytest.mark.parametrize("method", ["rmsprop", "rmsprop-lbfgs"])
@pytest.mark.parametrize("model", MODELS)
def test_fits_in_float32_end_with_success_and_soon(model, method):
    single, double = fits(model, method, np.float32), fits(model, method, np.float64)
    assert double.success.all()
    assert single.success.mean() >= 0.85
    assert single.njev.mean() <= 3.0 * double.njev.mean()
    # what float32 cannot tell is nothing beside the noise of the data
    np.testing.assert_allclose(single.x, double.x, rtol=5e-3)
    assert np.median(np.abs(single.x / double.x - 1.0)) <= 1e-4
