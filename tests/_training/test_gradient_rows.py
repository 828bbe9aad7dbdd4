"""Gradients of some rows: only these rows change, as if the array had no others."""

from __future__ import annotations

import numpy as np
import pytest

from rmsprop_nb import GradientRows, RMSprop

RULES = {
    "plain": {},
    "momentum": {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
    "centered": {"centered": True, "bias_correction": True},
    "clip_norm": {"clip_norm": 0.5},
    "clip_value": {"clip_value": 0.1, "maximize": True},
    "rates": {"learning_rate": np.linspace(0.1, 0.2, 24).reshape(4, 3, 2)},
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rule", RULES)
def test_rows_are_updated_as_an_array_of_their_own(rule, dtype):
    rng = np.random.default_rng(1)
    options = {"learning_rate": 0.1} | RULES[rule]
    x = rng.normal(size=(4, 3, 2)).astype(dtype)
    part = np.ascontiguousarray(x[[0, 2]])
    own = options | ({"learning_rate": options["learning_rate"][[0, 2]]} if rule == "rates" else {})
    whole, alone = RMSprop(**options), RMSprop(**own)
    state, own_state = whole.init(x), alone.init(part)
    untouched = x[[1, 3]].copy()
    for _ in range(5):
        g = rng.normal(size=(2, 3, 2)).astype(dtype)
        before = g.copy()
        whole.step(x, GradientRows([2, 0], g[::-1]), state)
        alone.step(part, g, own_state)
        np.testing.assert_array_equal(g, before)
    np.testing.assert_array_equal(x[[0, 2]], part)
    np.testing.assert_array_equal(x[[1, 3]], untouched)
    np.testing.assert_array_equal(state.square_avg[[0, 2]], own_state.square_avg)
    assert not state.square_avg[[1, 3]].any()


def test_rows_that_stand_there_twice_are_added_up():
    x, y = np.zeros((3, 2)), np.zeros((3, 2))
    optimizer = RMSprop(0.1)
    optimizer.step(x, GradientRows([1, 0, 1], [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), optimizer.init(x))
    optimizer.step(y, np.array([[3.0, 4.0], [6.0, 8.0], [0.0, 0.0]]), optimizer.init(y))
    np.testing.assert_array_equal(x, y)


def test_rows_of_some_arrays_in_containers_and_copies():
    params = {"E": np.zeros((6, 2))[::2], "W": np.ones((2, 2)), "b": np.zeros(2)}
    expected = {name: np.array(a) for name, a in params.items()}
    optimizer = RMSprop(0.1, momentum=0.5)
    state, dense = optimizer.init(params), optimizer.init(expected)
    optimizer.step(params, {"E": GradientRows([1], [[1.0, -1.0]]), "W": np.ones((2, 2)), "b": None}, state)
    optimizer.step(expected, {"E": np.array([[0, 0], [1.0, -1.0], [0, 0]]), "W": np.ones((2, 2)), "b": None}, dense)
    for name, a in params.items():
        np.testing.assert_array_equal(a, expected[name])


def test_values_may_lie_in_the_memory_of_parameters():
    x = np.ones((3, 2))
    optimizer = RMSprop(0.1)
    optimizer.step(x, GradientRows([0, 1], x[1:]), optimizer.init(x))
    np.testing.assert_allclose(x, [[1.0 - 0.1**0.5] * 2, [1.0 - 0.1**0.5] * 2, [1.0, 1.0]], rtol=1e-7)


def test_no_rows_change_nothing():
    x = np.ones((3, 2))
    optimizer = RMSprop(0.1)
    state = optimizer.init(x)
    optimizer.step(x, GradientRows([], np.zeros((0, 2))), state)
    assert (x == 1.0).all()
    assert state.step == 1


X = np.ones((3, 2))


@pytest.mark.parametrize(
    ("rows", "values", "error", "text"),
    [
        ([0.5], [[1.0, 2.0]], TypeError, "rows must be integers in one dimension, got dtype float64"),
        ([[0]], [[1.0, 2.0]], TypeError, r"rows must be integers in one dimension, .* shape \(1, 1\)"),
        ([True], [[1.0, 2.0]], TypeError, "rows must be integers"),
        ([0, 1], [[1.0, 2.0]], ValueError, r"values must have a row for each of the 2 in rows, got shape \(1, 2\)"),
        ([3], [[1.0, 2.0]], IndexError, r"grads\.rows must be from 0 to 2, rows of params, got 3"),
        ([-1], [[1.0, 2.0]], IndexError, r"grads\.rows must be from 0 to 2"),
        ([2**63], [[1.0, 2.0]], IndexError, r"grads\.rows must be from 0 to 2"),
        ([0], [[1.0]], ValueError, r"grads\.values must have rows of shape \(2,\)"),
        ([0], np.ones((1, 2), np.float32), TypeError, r"grads\.values must be float64 like params"),
        ([2], [[1.0, np.nan]], FloatingPointError, r"grads must be finite, got nan at index \(2, 1\)"),
        ([2], np.ma.masked_array([[1.0, 2.0]], [[1, 0]]), TypeError, "values must not be a masked array"),
    ],
)
def test_what_is_wrong_is_said_before_anything_changes(rows, values, error, text):
    x = X.copy()
    optimizer = RMSprop(0.1)
    state = optimizer.init(x)
    with pytest.raises(error, match=text):
        optimizer.step(x, GradientRows(rows, values), state)
    np.testing.assert_array_equal(x, X)
    assert state.step == 0


def test_where_they_have_no_meaning():
    summing = RMSprop(0.1, accumulate_steps=2)
    with pytest.raises(TypeError, match="grads must be an array with accumulate_steps, got None or GradientRows"):
        summing.step(X, GradientRows([0], [[1.0, 2.0]]), summing.init(X))
    number = np.array(1.0)
    optimizer = RMSprop(0.1)
    with pytest.raises(TypeError, match="params is a number, which has no rows"):
        optimizer.step(number, GradientRows([0], [1.0]), optimizer.init(number))
