"""Calls by address."""

from __future__ import annotations

import numpy as np
import pytest
from marks import needs_jit
from numba import float64, int64, njit, types
from numba.core.errors import TypingError
from objectives import picky

from rmsprop_nb._numba.calls import OBJECTIVE_SIGNATURE, call_objective, entry_address, load_vectors
from rmsprop_nb._objectives.compiled import compile_objective
from rmsprop_nb._objectives.problem import Problem

pytestmark = needs_jit

NONE = np.empty(0)


@njit
def call_many(address, x, g, data, count):
    total = 0.0
    for _ in range(count):
        total += call_objective(address, x, g, data)
    return total


def adapter_of(function, args):
    objective = compile_objective(Problem(function, "inplace", args, NONE, NONE), np.dtype(np.float64))
    assert objective is not None
    return objective


@pytest.mark.parametrize(
    ("what", "error", "args"),
    [(1, ValueError, ("on purpose",)), (2, ValueError, ("on purpose", 2)), (3, IndexError, ())],
)
def test_exceptions_leave_the_loop_and_the_next_call_works(what, error, args):
    x, g = np.array([3.0, 4.0]), np.zeros(2)
    good, bad = adapter_of(picky, (0,)), adapter_of(picky, (what,))
    for _ in range(3):
        with pytest.raises(error) as raised:
            call_many(bad.address, x, g, bad.data, 5)
        assert raised.value.args == args
        assert call_many(good.address, x, g, good.data, 5) == 5 * 12.5
    np.testing.assert_array_equal(g, x)


def test_address_is_that_of_the_documented_signature():
    vector = types.Array(float64, 1, "C")
    assert float64(int64, int64, int64, int64) == OBJECTIVE_SIGNATURE

    @njit(OBJECTIVE_SIGNATURE)
    def adapter(x_address, g_address, size, data):
        x, g = load_vectors(x_address, g_address, size, size, vector)
        g[0] = 2.0 * x[-1]
        return x.sum() + data + 100.0 * size

    g = np.zeros(3)
    assert call_many(entry_address(adapter), np.array([0.5, 1.0, 2.0]), g, 7, 2) == 621.0
    assert list(g) == [4.0, 0.0, 0.0]


@pytest.mark.parametrize("x", [np.zeros(4)[::2], np.zeros((2, 2)), 1.0], ids=["strided", "matrix", "number"])
def test_an_objective_is_called_with_contiguous_vectors_only(x):
    with pytest.raises(TypingError, match="contiguous vectors"):
        call_many(0, x, np.zeros(2), 0, 0)
    with pytest.raises(TypingError, match="contiguous vectors"):
        call_many(0, np.zeros(2), x, 0, 0)
