"""Adapters of objectives: signatures they take, and more of them than are kept."""

from __future__ import annotations

import functools
import gc

import numpy as np
import pytest
from marks import needs_jit
from numba import njit
from objectives import distance, picky

from rmsprop_nb import minimize, minimize_batch
from rmsprop_nb._objectives import compiled as _objective
from rmsprop_nb._objectives.problem import Problem

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


@njit
def any_args(x, *args):
    return args[1] * np.sum((x - args[0]) ** 2)


@njit
def any_args_gradient(x, *args):
    return 2.0 * args[1] * (x - args[0])


@njit
def any_args_pair(x, *args):
    return any_args(x, *args), any_args_gradient(x, *args)


@njit
def any_args_in_place(x, grad, *args):
    grad[:] = any_args_gradient(x, *args)
    return any_args(x, *args)


@njit
def default_args(x, target=1.0, scale=2.0):
    return scale * np.sum((x - target) ** 2)


@njit
def other_default_args(x, target=1.0, factor=4.0):
    return factor * (x - target)


@njit
def default_args_in_place(x, grad, target=1.0, scale=2.0):
    grad[:] = 2.0 * scale * (x - target)
    return scale * np.sum((x - target) ** 2)


COMPILED = [
    (any_args, None, (1.0, 2.0)),
    (any_args, "3-point", (1.0, 2.0)),
    (any_args, "cs", (1.0, 2.0)),
    (any_args, any_args_gradient, (1.0, 2.0)),
    (any_args_pair, True, (1.0, 2.0)),
    (any_args_in_place, "inplace", (1.0, 2)),
    (default_args, None, ()),
    (default_args, "cs", (1.0,)),
    (default_args, other_default_args, ()),
    (default_args, other_default_args, (1.0,)),
    (default_args_in_place, "inplace", ()),
    (default_args_in_place, "inplace", (1,)),
]


@pytest.mark.parametrize(("fun", "jac", "args"), COMPILED)
def test_arguments_are_those_of_a_call(fun, jac, args):
    """Any number of them, and defaults: compiled, not only interpreted."""
    none = np.empty(0)
    objective = _objective.compile_objective(Problem(fun, jac, args, none, none), np.dtype(float))
    assert objective is not None
    g = np.empty(2)
    assert objective(np.array([2.0, 3.0]), g) == 10.0
    np.testing.assert_allclose(g, [4.0, 8.0], rtol=1e-6)
    assert objective.offsets == sorted(objective.offsets)
    assert len(objective.offsets) == len(args) + 1


def test_rows_are_among_any_number_of_arguments():
    found = minimize_batch(any_args, np.zeros(1), batch_args=(np.arange(3.0), np.ones(3)))
    np.testing.assert_allclose(found.x[:, 0], np.arange(3.0), atol=1e-6)
    found = minimize_batch(default_args, np.zeros(1), batch_args=(np.arange(3.0),), jac=other_default_args)
    np.testing.assert_allclose(found.x[:, 0], np.arange(3.0), atol=1e-6)


def test_complex_steps_need_a_function_that_takes_complex_x():
    real = njit("f8(f8[::1])")(lambda x: (x * x).sum())
    message = r"takes complex x, got one compiled for \(array\(float64, 1d, C\)\) alone; compile it without signatures"
    with pytest.raises(TypeError, match=message):
        minimize(real, [1.0], jac="cs")


@pytest.mark.usefixtures("others_stay")
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


@pytest.mark.usefixtures("others_stay")
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
