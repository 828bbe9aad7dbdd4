"""Real data in mini-batches, with nothing tuned."""

from __future__ import annotations

import numpy as np
import pytest
from numba import njit
from variants import DTYPES

from rmsprop_nb import datasets, minimize, minimize_minibatch


@njit
def logistic_loss(w, grad, X, y, scale):
    margin = (1.0 - 2.0 * y) * (X @ w)
    p = 1.0 / (1.0 + np.exp(-margin))
    grad[:] = scale * (X.T @ ((1.0 - 2.0 * y) * p).astype(X.dtype) / y.size + 1e-3 * w)
    return scale * (np.mean(np.logaddexp(0.0, margin)) + 0.5e-3 * np.sum(w * w))


@pytest.mark.parametrize("batch_size", [8, 32, 128])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_breast_cancer_without_tuning(batch_size, dtype, scale):
    X, y = datasets.load_breast_cancer()
    X = ((X - X.mean(axis=0)) / X.std(axis=0)).astype(dtype)
    args = (dtype(scale),)
    best = minimize(
        logistic_loss, np.zeros(30), (X.astype(np.float64), y, 1.0), "rmsprop-lbfgs", "inplace", options={"gtol": 1e-9}
    )
    result = minimize_minibatch(
        logistic_loss, np.zeros(30, dtype), (X, y), args, jac="inplace", batch_size=batch_size, epochs=20, rng=11
    )
    excess = (result.fun / scale - best.fun) / (np.log(2.0) - best.fun)
    assert result.success
    assert excess < 0.02
