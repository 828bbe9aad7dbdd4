"""Exact derivatives in reverse mode."""

from __future__ import annotations

import numpy as np
import pytest
from derivatives import CASES, JAX, derivatives
from gradient_listing import wave
from marks import needs_jit, some
from numba import njit

from rmsprop_nb import value_and_grad

pytestmark = needs_jit


def reverse(function, x, *args):
    return derivatives(function, x, *args, mode="reverse")


IN_REVERSE = ["huber_loss", "clipped", "powers", "elementary"]


@pytest.mark.parametrize("name", some(IN_REVERSE, 2))
def test_reverse_mode_as_jax(name):
    function, x, args = CASES[name]
    f, *gradient = map(float.fromhex, JAX[name])
    found, grad = reverse(function, x, *args)
    np.testing.assert_allclose(found, f, rtol=1e-13)
    np.testing.assert_allclose(grad, gradient, rtol=1e-13, atol=1e-13 * np.max(np.abs(gradient)))


def repeated(x, times):
    s = 0.0
    for _ in range(times):
        for i in range(x.size):
            s = 0.5 * s + x[i] * x[i - 1]
    return s


def test_a_tape_grows_and_past_its_bound_gives_way_to_forward_mode(monkeypatch):
    x = np.linspace(0.1, 1.0, 20)
    expected = derivatives(repeated, x, 500)[1]
    in_reverse = value_and_grad(njit(repeated), mode="reverse")
    gradient = np.empty_like(x)
    for times in (1, 500, 2, 500):
        in_reverse(x, gradient, times)
    np.testing.assert_allclose(gradient, expected, rtol=1e-13)
    monkeypatch.setattr("rmsprop_nb._numba.autodiff.gradients.MOST_RECORDS", 5000)
    bounded = value_and_grad(njit(repeated), mode="reverse")
    bounded(x, gradient, 500)
    np.testing.assert_allclose(gradient, derivatives(repeated, x, 500, chunk=8)[1], rtol=1e-15)


def test_reverse_mode_in_float32_and_of_constants():
    def squares_and_more(x, a):
        return np.sum(x * x * a) + np.float32(3.0) * x[0]

    x = np.linspace(0.5, 1.0, 5).astype(np.float32)
    f, grad = reverse(squares_and_more, x, x)
    assert f == derivatives(squares_and_more, x, x)[0]
    np.testing.assert_allclose(grad, 2.0 * x * x + 3.0 * (np.arange(5) == 0), rtol=1e-6)
    np.testing.assert_array_equal(reverse(lambda x: 2.0, x)[1], 0.0)
    np.testing.assert_array_equal(reverse(lambda x: x[1], x)[1], [0.0, 1.0, 0.0, 0.0, 0.0])


def products(x, M, b):
    hidden = np.tanh(M @ x)
    chosen = np.zeros(6)
    chosen[2] = x[1]
    s = np.dot(b[:5], hidden) + (M @ chosen)[1] + np.dot(x, b)
    return s + np.trace(M[:3, :2].copy() @ x.reshape((2, 3)))


@pytest.mark.thorough
def test_products_with_constant_matrices():
    x, M, b = wave(6), wave(30, 2.0).reshape(5, 6), wave(6, 3.0)
    in_reverse = value_and_grad(njit(products), mode="reverse")
    grad = np.empty(6)
    assert in_reverse(x, grad, M, b) == pytest.approx(products(x, M, b), rel=1e-14)
    for i, unit in enumerate(np.eye(6)):
        slope = (products(x + 1e-6 * unit, M, b) - products(x - 1e-6 * unit, M, b)) / 2e-6
        assert grad[i] == pytest.approx(slope, rel=1e-6)
    with pytest.raises(ValueError, match="inner dimensions"):
        in_reverse(x, grad, np.ones((2, 3)), b)


def few_operands(x, a):
    return np.sum(np.exp(-x) * a) + np.sum((x[1:] - x[:-1]) ** 2 * a[1:] + x[0]) + np.sum(x[::2] * x[1::2] / x[::-2])


def many_operands(x, a):
    y = x[:2] * x[1:3] + x[2:4] * x[3:5] + x[4:6] * x[5:7] + x[6:8] * x[7:9] + x[8:10] * a[:2]
    return np.sum(y * y)


def partly_constant(x, a):
    u = np.zeros(x.size + 2)
    u[1:-1] = x
    v = np.zeros(3)
    return np.sum((u[2:] - 2.0 * u[1:-1] + u[:-2]) ** 2 * a) + np.sum(v * v + v) + np.sum(u) + np.sum(u[:1])


def broadcast(x, a):
    m = x.reshape((2, 5)) * x[:5] + a[:5] / (x[:2].reshape((2, 1)) - 3.0)
    return np.sum(np.sum(m, axis=0) ** 2) - np.mean(m.T, axis=1)[1] + np.var(m) + np.sum(m[:, ::2] * x[0])


def sums(x, a):
    numbers = np.array([x[3], 2.0 * x[1], 1.0, x[3]])
    return np.sum(x) ** 2 + np.sum(numbers) + np.dot(x, x) * np.dot(x[::2], numbers[:4].sum() * x[1::2]) + a[0]


def products_of_variables(x, a):
    m = x[:6].reshape((2, 3))
    return np.sum(m @ x[3:6]) + np.sum(x[:2] @ m) ** 2 + (m @ m.T)[0, 1] + np.linalg.norm(x)


@pytest.mark.parametrize("dtype", [np.float64, pytest.param(np.float32, marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize(
    "function", some([few_operands, many_operands, partly_constant, broadcast, sums, products_of_variables], 3)
)
def test_expressions_and_sums_of_arrays(function, dtype):
    """An element of an expression is one record, whatever its operands are; a sum is one record."""
    x, a = (wave(10) + 1.5).astype(dtype), wave(10, 2.0).astype(dtype)
    f, grad = reverse(function, x, a)
    expected_f, expected = derivatives(function, x, a)
    assert f == expected_f
    rounding = 50 * np.finfo(dtype).eps
    np.testing.assert_allclose(grad, expected, rtol=rounding, atol=rounding * np.max(np.abs(expected)))


def test_expressions_and_sums_on_a_tape_that_is_too_short():
    x = np.linspace(0.5, 1.5, 700)
    in_reverse, grad = value_and_grad(njit(alternating_sums), mode="reverse"), np.empty(700)
    assert in_reverse(x, grad) == pytest.approx(alternating_sums(x), rel=1e-14)
    np.testing.assert_allclose(grad, derivatives(alternating_sums, x, chunk=8)[1], rtol=1e-12)


def alternating_sums(x):
    y = x[1:] * x[:-1] + x[1:]
    return np.sum(y[::-1] * y) + np.sum(y[::-1] + 2.0 * x[:-1]) + np.sum(2.0 * y) + np.sum(x[::7])


@pytest.mark.parametrize(("how", "n", "calls"), [({}, 20, 2), ({}, 40, 1), ({"mode": "forward"}, 40, 5)])
def test_the_mode_is_chosen_by_the_number_of_variables(how, n, calls):
    def counted(x, count):
        count[0] += 1
        return np.sum(x * x)

    count, x, grad = np.zeros(1, np.int64), np.linspace(-1.0, 1.0, n), np.empty(n)
    value_and_grad(njit(counted), **how)(x, grad, count)
    np.testing.assert_array_equal(grad, 2.0 * x)
    assert count[0] == calls
