"""Adapters of objectives: signatures they take, and more of them than are kept."""

from __future__ import annotations

import functools
import gc

import numpy as np
import pytest
from marks import needs_jit
from numba import njit
from objectives import distance, picky

from rmsprop_nb import minimize
from rmsprop_nb._objectives import compiled as _objective

pytestmark = needs_jit


@pytest.mark.parametrize("n", [1, 3, 40])
def test_function_with_a_signature_of_its_own_gets_what_it_takes(n):
    """Any layout, and an integer as a real number: what a call would convert, code made part of the caller gets too."""

    def scaled(x, grad, scale):
        grad[:] = scale * x
        f = 0.0
        for i in range(x.size):  # in this order, compiled or not: a line search makes rounding of f larger
            f += scale * x[i] * x[i]
        return 0.5 * f

    results = [
        minimize(fun, np.arange(1.0, n + 1.0), (2,), jac="inplace", options={"maxiter": 3})
        for fun in (njit("f8(f8[:], f8[:], f8)")(scaled), scaled)
    ]
    np.testing.assert_allclose(results[0].x, results[1].x, rtol=1e-12)
    assert results[0].nfev == results[1].nfev


def test_forgotten_adapters_are_made_again(monkeypatch):
    one = functools.lru_cache(maxsize=1)(_objective._compile_adapter.__wrapped__)
    monkeypatch.setattr(_objective, "_compile_adapter", one)

    def make(k):
        @njit
        def towards_k(x, grad):
            grad[0] = x[0] - k
            return 0.5 * (x[0] - k) ** 2

        return towards_k

    objectives = [make(float(k)) for k in range(2)]
    first = minimize(objectives[0], [9.0], jac="inplace", options={"maxfev": 2})
    for _ in range(2):
        for k, objective in enumerate(objectives):
            assert minimize(objective, [9.0], jac="inplace").x == pytest.approx([k], abs=1e-5)
            gc.collect()  # what was forgotten is really gone
    assert one.cache_info().misses > len(objectives)
    rest = minimize(objectives[0], [9.0], jac="inplace", options={"state": first.state})
    assert rest.x == minimize(objectives[0], [9.0], jac="inplace").x


def test_objective_goes_on_working_when_its_adapter_is_forgotten_meanwhile(monkeypatch):
    one = functools.lru_cache(maxsize=1)(_objective._compile_adapter.__wrapped__)
    monkeypatch.setattr(_objective, "_compile_adapter", one)
    inner = []

    def another(xk):
        if len(inner) < 2:
            inner.append(minimize(picky, [3.0, 1.0], (0,), jac="inplace").success)
            gc.collect()

    result = minimize(distance, np.zeros(3), (np.arange(3.0),), jac="inplace", callback=another)
    assert inner
    assert all(inner)
    np.testing.assert_allclose(result.x, np.arange(3.0), atol=1e-5)
