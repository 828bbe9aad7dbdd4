"""Sizes of variables that were guessed wrong: a run finds out before it says that it has converged."""

from __future__ import annotations

import numpy as np
import pytest
from numba import njit
from scipy.optimize import Bounds, rosen, rosen_der

from rmsprop_nb import Status, curve_fit, minimize, minimize_batch

METHODS = ("rmsprop", "rmsprop-lbfgs")
SMALL = (1e-6, 1e-9, 1e-12, 1e-15, 1e-20, 1e-40)

A = np.array([[9.0, 2.0, 1.0], [2.0, 5.0, -3.0], [1.0, -3.0, 4.0]])


def coupled(x):
    return float(0.5 * (x - 1.0) @ A @ (x - 1.0))


def coupled_gradient(x):
    return A @ (x - 1.0)


@njit
def separable(x, grad):
    f = 0.0
    for i in range(x.size):
        grad[i] = x[i] - 1.0
        f += 0.5 * grad[i] * grad[i]
    return f


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("exact", [True, False], ids=["exact", "differences"])
@pytest.mark.parametrize("small", SMALL)
@pytest.mark.parametrize("first", [0.0, 2.0, None])
@pytest.mark.parametrize(("fun", "jac"), [(coupled, coupled_gradient), (rosen, rosen_der)], ids=["quadratic", "rosen"])
def test_success_from_a_start_next_to_0_is_at_the_minimum(fun, jac, first, small, exact, method):
    x0 = np.full(3, small if first is None else first)
    x0[-1] = small
    result = minimize(fun, x0, jac=jac if exact else None, method=method)
    assert result.fun < 1e-6  # of some 1,000 at the start; a run without success has not stopped halfway either


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_variable_that_is_far_larger_than_its_start(dtype, method):
    def fun(x):
        return (x[0] - dtype(1)) ** 2 + (x[1] / dtype(1e9) - dtype(1)) ** 2

    def jac(x):
        return np.array([2 * (x[0] - 1), 2e-9 * (x[1] / 1e9 - 1)], dtype)

    result = minimize(fun, np.array([0, 1], dtype), jac=jac, method=method)
    assert result.success
    np.testing.assert_allclose(result.x, [1.0, 1e9], rtol=1e-2)


def test_problems_of_a_batch():
    X0 = np.array([[1e-9, 0.0], [0.0, 1e-15], [1e-20, 1e-20], [0.5, 2.0]])
    batch = minimize_batch(separable, X0, jac="inplace")
    assert batch.success.all()
    np.testing.assert_allclose(batch.x, 1.0, atol=1e-4)
    for x0, x, nfev in zip(X0, batch.x, batch.nfev, strict=True):
        alone = minimize(separable, x0, jac="inplace")
        np.testing.assert_array_equal(x, alone.x)
        assert nfev == alone.nfev


def test_fit_from_a_start_next_to_0():
    x = np.linspace(0.1, 4.0, 30)
    with np.errstate(over="ignore"):  # a trial goes far
        popt, _ = curve_fit(lambda x, a, b: a * np.exp(-b * x), x, 3.0 * np.exp(-0.7 * x), p0=[1e-9, 1e-12])
    np.testing.assert_allclose(popt, [3.0, 0.7], rtol=1e-6)


@pytest.mark.parametrize("unit", [1e-15, 1e-9, 1.0, 1e12])
def test_right_sizes_stay(unit):
    x0 = np.array([0.7, 1.6]) * unit
    result = minimize(lambda x: rosen(x / unit), x0, jac=lambda x: rosen_der(x / unit) / unit)
    assert result.success
    np.testing.assert_array_equal(result.state.arrays.x_scale, x0)


def test_sizes_of_the_user_are_taken_as_they_are():
    guessed = minimize(separable, np.array([0.5, 2.0]), jac="inplace")
    given = minimize(separable, np.array([0.5, 2.0]), jac="inplace", options={"x_scale": [0.5, 2.0]})
    np.testing.assert_array_equal(given.x, guessed.x)
    assert given.nfev == guessed.nfev - 1  # there is nothing to confirm

    wrong = minimize(separable, np.array([0.0, 0.0]), jac="inplace", options={"x_scale": [1.0, 1e-12]})
    np.testing.assert_array_equal(wrong.state.arrays.x_scale, [1.0, 1e-12])


def test_variable_that_is_pressed_against_its_bound():
    def fun(x):
        return x[0] + (x[1] - 1.0) ** 2

    result = minimize(fun, [2.0, 3.0], jac=lambda x: np.array([1.0, 2 * (x[1] - 1)]), bounds=Bounds([1.0, -9.0], 9.0))
    assert result.success
    np.testing.assert_allclose(result.x, [1.0, 1.0], atol=1e-4)
    np.testing.assert_array_equal(result.state.arrays.x_scale, [2.0, 3.0])


def test_limit_of_evaluations_comes_before_a_success_that_is_not_confirmed():
    whole = minimize(separable, np.array([0.5, 2.0]), jac="inplace")
    cut = minimize(separable, np.array([0.5, 2.0]), jac="inplace", options={"maxfev": whole.nfev - 1})
    assert (whole.status, cut.status) == (Status.GTOL, Status.MAXFEV)
    resumed = minimize(separable, np.array([0.5, 2.0]), jac="inplace", options={"state": cut.state})
    assert (resumed.status, resumed.nfev) == (Status.GTOL, 1)
    np.testing.assert_array_equal(resumed.x, whole.x)
