"""Exact derivatives against those of JAX and gradients written by hand, at edges, in float32, and Jacobians."""

from __future__ import annotations

import math

import numpy as np
import pytest
from derivatives import CASES, JAX, derivatives
from marks import needs_jit, some
from numba import njit

from rmsprop_nb import jacobian, testing, value_and_grad

pytestmark = needs_jit


def test_there_are_many_objectives_and_all_have_golden_values():
    assert len(CASES) >= 50
    assert set(JAX) == {"versions", *CASES}


@pytest.mark.parametrize("name", some(CASES, 5))
def test_as_jax(name):
    function, x, args = CASES[name]
    f, *gradient = map(float.fromhex, JAX[name])
    found, grad = derivatives(function, x, *args)
    np.testing.assert_allclose(found, f, rtol=1e-13)
    np.testing.assert_allclose(grad, gradient, rtol=1e-13, atol=1e-13 * np.max(np.abs(gradient)))


def test_chunks_give_the_same_bits():
    function, x, args = CASES["discrete_boundary_value"]
    expected = derivatives(function, x, *args)[1]
    for chunk in (1, 8):
        np.testing.assert_array_equal(derivatives(function, x, *args, chunk=chunk)[1], expected)


@pytest.mark.parametrize("problem", testing.PROBLEMS[::5], ids=lambda problem: problem.name)
def test_as_written_by_hand(problem):
    x = np.array(problem.x0)
    for point in (x, x + 0.3):
        grad = np.empty_like(point)
        f = value_and_grad(njit(problem.fun))(point, grad)
        expected = np.asarray(problem.jac(point))
        np.testing.assert_allclose(f, problem.fun(point), rtol=1e-14)
        np.testing.assert_allclose(grad, expected, rtol=1e-12, atol=1e-13 * max(1.0, np.abs(expected).max()))


# -- IEEE arithmetic, kinks, float32 ----------------------------------------------------------------------------------


def x_log_x(x):
    return x[0] * math.log(x[0]) + x[1]


def roots(x):
    return math.sqrt(x[0]) + np.linalg.norm(x) + x[1] ** 2


def overflowing(x):
    return math.exp(x[0]) * x[1]


def kinks(x):
    return abs(x[0]) + max(x[0], 0.0) + min(0.0, x[1]) + np.maximum(x[1], x[0]) + np.sign(x[0]) + math.floor(x[1])


@pytest.mark.parametrize(
    ("function", "x", "f", "gradient"),
    [
        (x_log_x, [0.0, 1.0], np.nan, [np.nan, np.nan]),
        (roots, [0.0, 0.0], 0.0, [np.inf, 0.0]),  # x[1] has no part in an infinite slope
        (overflowing, [800.0, 1.0], np.inf, [np.nan, np.nan]),
        (overflowing, [np.nan, 1.0], np.nan, [np.nan, np.nan]),
        (kinks, [0.0, 0.0], 0.0, [1.0, 1.0]),
        (kinks, [2.5, 3.0], 12.0, [2.0, 1.0]),
    ],
)
def test_at_edges(function, x, f, gradient):
    x = np.array(x)
    grad = np.empty(2)
    found = value_and_grad(njit(error_model="numpy")(function))(x, grad)
    np.testing.assert_array_equal(found, f)
    np.testing.assert_array_equal(grad, gradient)


def test_float32_is_computed_in_float32():
    function, x, args = CASES["gaussian_peak"]
    rounded = tuple(a.astype(np.float32) for a in args)
    f, grad = derivatives(function, x.astype(np.float32), *rounded)
    exact = derivatives(function, x.astype(np.float32).astype(float), *(a.astype(float) for a in rounded))
    assert grad.dtype == np.float32
    assert f != exact[0]
    np.testing.assert_allclose(f, exact[0], rtol=1e-6)
    np.testing.assert_allclose(grad, exact[1], rtol=1e-5, atol=1e-6)


def test_a_mixture_of_precisions_is_promoted_as_in_the_function():
    def mixed(x, a):
        return np.sum(x * a) + x[0] ** 3

    x, a = np.array([0.1, 0.2], np.float32), np.array([0.3, 0.7])
    f, grad = derivatives(mixed, x, a)
    assert f == njit(mixed)(x, a)
    np.testing.assert_allclose(grad, a + 3 * np.array([x[0], 0.0]) ** 2, rtol=1e-6)


# -- Jacobians --------------------------------------------------------------------------------------------------------


def test_jacobian():
    def residuals(p, t, y):
        return p[0] * np.exp(-p[1] * t) - y

    p, t = np.array([2.0, 0.5]), np.linspace(0.0, 1.0, 6)
    matrix = jacobian(njit(residuals), chunk=1)(p, t, t)
    e = np.exp(-0.5 * t)
    np.testing.assert_allclose(matrix, np.stack([e, -2.0 * t * e], axis=1), rtol=1e-14)


def test_jacobian_of_a_constant_and_of_a_buffer():
    def parts(x):
        out = np.zeros(3)
        out[1] = x[0] * x[1]
        return out

    x = np.array([2.0, 3.0])
    np.testing.assert_array_equal(jacobian(njit(parts))(x), [[0.0, 0.0], [3.0, 2.0], [0.0, 0.0]])
    np.testing.assert_array_equal(jacobian(njit(lambda x: np.ones(2)))(x), np.zeros((2, 2)))
