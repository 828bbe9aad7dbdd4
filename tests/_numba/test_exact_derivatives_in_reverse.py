"""Exact derivatives in reverse mode."""

from __future__ import annotations

import numpy as np
import pytest
from derivatives import CASES, JAX, derivatives
from gradient_listing import wave
from marks import needs_jit
from numba import njit

from rmsprop_nb import value_and_grad

pytestmark = needs_jit


def reverse(function, x, *args):
    return derivatives(function, x, *args, mode="reverse")


IN_REVERSE = ["huber_loss", "clipped", "powers", "elementary"]


@pytest.mark.parametrize("name", IN_REVERSE)
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
