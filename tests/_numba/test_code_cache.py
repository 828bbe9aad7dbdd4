"""recompile(), Numba's own way to take in new values of globals, is seen wherever a function has been compiled in."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
from marks import needs_jit
from numba import njit

from rmsprop_nb import fit, minimize, minimize_batch, minimize_minibatch, value_and_grad
from rmsprop_nb._numba.code_cache import cached_by_code

pytestmark = needs_jit

TARGET = 1.0


def value(x):
    return (x[0] - TARGET) ** 2


def in_place(x, grad):
    grad[0] = 2.0 * (x[0] - TARGET)
    return (x[0] - TARGET) ** 2


def both(x):
    return (x[0] - TARGET) ** 2, np.array([2.0 * (x[0] - TARGET)])


def loss(x, rows):
    return np.mean((x[0] - TARGET - rows) ** 2)


def line(t, level):
    return level + TARGET + 0.0 * t


ROWS = np.zeros(8)
RUNS = {
    "autodiff": (value, lambda fun: minimize(fun, [0.0]).x[0]),
    "2-point": (value, lambda fun: minimize(fun, [0.0], jac="2-point").x[0]),
    "inplace": (in_place, lambda fun: minimize(fun, [0.0], jac="inplace").x[0]),
    "joint": (both, lambda fun: minimize(fun, [0.0], jac=True).x[0]),
    "batch": (value, lambda fun: minimize_batch(fun, [[0.0]]).x[0, 0]),
    "minibatch": (
        loss,
        lambda fun: minimize_minibatch(fun, [0.0], ROWS, jac="autodiff", batch_size=8, epochs=300).x[0],
    ),
    "fit": (line, lambda fun: -fit(fun, np.arange(5.0), np.zeros(5), [0.5]).popt[0]),
}


@pytest.mark.thorough
@pytest.mark.parametrize(("function", "run"), RUNS.values(), ids=RUNS)
def test_runs_see_what_was_compiled_anew(monkeypatch, function, run):
    fun = njit(function)
    assert run(fun) == pytest.approx(1.0, abs=0.1)
    monkeypatch.setitem(globals(), "TARGET", 5.0)
    assert run(fun) == pytest.approx(1.0, abs=0.1)  # as in Numba, globals are constants until then
    for _ in range(2):
        fun.recompile()
        assert run(fun) == pytest.approx(5.0, abs=0.1)
    assert "recompile" not in vars(njit(function))


def test_a_gradient_that_was_compiled_anew_is_seen(monkeypatch):
    fun, jac = njit(lambda x: (x[0] - 3.0) ** 2), njit(lambda x: np.array([2.0 * (x[0] - 2.0 - TARGET)]))
    assert minimize(fun, [0.0], jac=jac).success
    monkeypatch.setitem(globals(), "TARGET", 1.5)
    jac.recompile()
    assert minimize(fun, [0.0], jac=jac, options={"maxiter": 0}).jac == -7.0


def test_derivatives_made_afterwards_are_those_of_the_new_code(monkeypatch):
    fun, grad = njit(value), np.empty(1)
    value_and_grad(fun)(np.zeros(1), grad)
    monkeypatch.setitem(globals(), "TARGET", 5.0)
    fun.recompile()
    assert value_and_grad(fun)(np.zeros(1), grad) == 25.0


def test_nothing_is_made_twice_and_functions_can_be_forgotten():
    calls = []

    @cached_by_code
    def make(fun, n, *, wide=False):
        calls.append((n, wide))
        return object()

    fun = njit(value)
    first = make(fun, 1)
    assert make(fun, 1) is first
    assert make(fun, 1, wide=True) is not first
    fun.recompile()
    assert make(fun, 1) is not first
    assert calls == [(1, False), (1, True), (1, False)]
    gone = weakref.ref(fun)
    del fun, make, first
    gc.collect()
    assert gone() is None
