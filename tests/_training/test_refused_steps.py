"""A step that is refused has written nothing."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
from nested_arrays import Layer, Swapped, array, as_bytes, read_only

from rmsprop_nb import RMSprop, RMSpropState


def pair(dtype=np.float64):
    return {"W": [array(2, 3, dtype=dtype), array(4, dtype=dtype)], "b": array(3, dtype=dtype)}


def with_leaf(nested, value):
    return nested | {"W": [nested["W"][0], value]}


def spoiled(value):
    g = array(4)
    g[2] = value
    return g


BAD_GRADS = {
    "structure": (lambda g: {"W": g["W"]}, ValueError, r"grads must be a dict with the keys 'W', 'b'"),
    "deeper structure": (lambda g: g | {"W": g["W"][:1]}, ValueError, r"grads\['W'\] must be a list or tuple of 2.*1"),
    "array for list": (lambda g: g | {"W": g["W"][0]}, ValueError, r"grads\['W'\] must be a list or tup.*ndarray"),
    "list for array": (lambda g: with_leaf(g, [1.0] * 4), TypeError, r"grads\['W'\]\[1\] must be a NumPy.*got list"),
    "sparse": (
        lambda g: with_leaf(g, scipy.sparse.csr_array((2, 3))),
        TypeError,
        r"must be a NumPy array, got csr_array; grads\['W'\]\[1\]\.toarray\(\) makes one",
    ),
    "shape": (lambda g: with_leaf(g, np.ones(3)), ValueError, r"grads\['W'\]\[1\] must have shape \(4,\).*got \(3,\)"),
    "other shape": (lambda g: with_leaf(g, np.ones((4, 1))), ValueError, r"must have shape \(4,\)"),
    "single": (lambda g: with_leaf(g, np.ones(4, np.float32)), TypeError, r"must be float64 like params\['W'\]\[1\]"),
    "integers": (lambda g: with_leaf(g, np.ones(4, int)), TypeError, "must be float64"),
    "byte order": (lambda g: with_leaf(g, np.ones(4, ">f8")), TypeError, "must be float64.*'>f8'"),
    "masked": (lambda g: with_leaf(g, np.ma.ones(4)), TypeError, "masked"),
    "nan": (lambda g: with_leaf(g, spoiled(np.nan)), FloatingPointError, r"\[1\] must be finite, got nan at index 2"),
    "infinite": (lambda g: with_leaf(g, spoiled(-np.inf)), FloatingPointError, "must be finite, got -inf"),
    "too large": (lambda g: with_leaf(g, spoiled(1e152)), FloatingPointError, "at most 1.34e\\+151 in size.*clip"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "error", "message"), BAD_GRADS.values(), ids=BAD_GRADS)
@pytest.mark.parametrize("accumulate_steps", [1, 2])
def test_bad_gradients_change_nothing(change, error, message, accumulate_steps):
    params, grads = pair(), pair()
    optimizer = RMSprop(momentum=0.9, centered=True, accumulate_steps=accumulate_steps)
    state = optimizer.init(params)
    for _ in range(3):
        optimizer.step(params, grads, state)
    before = as_bytes(params, state)
    with pytest.raises(error, match=message):
        optimizer.step(params, change(grads), state)
    assert as_bytes(params, state) == before


def overlapping(shape):
    return np.lib.stride_tricks.as_strided(np.zeros(10), shape, (8, 8))


BAD_PARAMS = {
    "structure": (lambda p: [p["W"], p["b"]], ValueError, "params must be a dict"),
    "shape": (lambda p: with_leaf(p, np.ones(5)), ValueError, r"params\['W'\]\[1\] must have shape \(4,\)"),
    "dtype": (lambda p: with_leaf(p, np.ones(4, np.float32)), TypeError, r"params\['W'\]\[1\] must be float64 like"),
    "half": (lambda p: with_leaf(p, np.ones(4, np.float16)), TypeError, r"\['W'\]\[1\] must be float64 like"),
    "byte order": (lambda p: with_leaf(p, np.ones(4, ">f8")), TypeError, "native byte order"),
    "complex": (lambda p: with_leaf(p, np.ones(4, complex)), ValueError, "complex numbers count as pairs of real ones"),
    "read-only": (lambda p: with_leaf(p, read_only(np.ones(4))), ValueError, "must be writeable"),
    "scalar": (lambda p: with_leaf(p, np.float64(1)), TypeError, "must be a NumPy array, got float64"),
    "itself": (lambda p: p | {"W": [overlapping((2, 3)), p["W"][1]]}, ValueError, "share no memory, got strides"),
    "twice": (lambda p: p | {"b": p["W"][0][0]}, ValueError, r"\['b'\] must not share memory with params\['W'\]\[0\]"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "error", "message"), BAD_PARAMS.values(), ids=BAD_PARAMS)
def test_bad_parameters_change_nothing(change, error, message):
    params, grads = pair(), pair()
    optimizer = RMSprop()
    state = optimizer.init(params)
    optimizer.step(params, grads, state)
    bad = change(params)
    before = as_bytes(bad, params, state)
    with pytest.raises(error, match=message):
        optimizer.step(bad, grads, state)
    assert as_bytes(bad, params, state) == before


def test_memory_of_the_state_is_its_own():
    x, optimizer = np.zeros(600), RMSprop(momentum=0.5)
    state = optimizer.init(x)
    for stolen in (state.square_avg, state.momentum_buffer):
        with pytest.raises(ValueError, match="params must not share memory with state of params"):
            optimizer.step(stolen, np.ones(600), state)
        with pytest.raises(ValueError, match="grads must not share memory with state of params"):
            optimizer.step(x, stolen, state)
    with pytest.raises(ValueError, match="grads must not share memory with params"):
        optimizer.step(x, x, state)
    optimizer.step(x, np.ones(600), state)
    with pytest.raises(ValueError, match="grads must not share memory with params"):
        optimizer.step(x, x[::-1], state)
    shared = np.ones(2)  # gradients are only read
    two = [np.zeros(2), np.zeros(2)]
    optimizer.step(two, [shared, shared], optimizer.init(two))


def test_arrays_changed_since_the_last_step_are_looked_at_again():
    x, g, optimizer = np.zeros(4), np.ones(4), RMSprop()
    state = optimizer.init(x)
    optimizer.step(x, g, state)
    x.setflags(write=False)
    with pytest.raises(ValueError, match="writeable"):
        optimizer.step(x, g, state)
    x.setflags(write=True)
    optimizer.step(x, g, state)
    with pytest.raises(ValueError, match="cannot resize"):  # NumPy refuses while anybody holds a weak reference
        g.resize(2, refcheck=False)


@pytest.mark.parametrize("rate", [-1.0, np.nan, np.inf])
def test_bad_rate_of_a_schedule_changes_nothing(rate):
    x, optimizer = np.ones(3), RMSprop(lambda step: rate if step else 0.1, accumulate_steps=2)
    state = optimizer.init(x)
    for _ in range(3):
        optimizer.step(x, np.ones(3), state)
    before = as_bytes(x, state)
    with pytest.raises(ValueError, match=r"learning_rate\(step\) must be finite and not negative.*at step 1"):
        optimizer.step(x, np.ones(3), state)
    assert as_bytes(x, state) == before


def test_without_the_check_nothing_is_looked_for():
    x, optimizer = np.ones(3), RMSprop(check_finite=False)
    state = optimizer.init(x)
    optimizer.step(x, np.array([1.0, np.nan, 1.0]), state)
    assert np.isnan(x).tolist() == [False, True, False]


def test_state_of_other_parameters_or_options_is_refused():
    x, plain, other = np.ones(3), RMSprop(), RMSprop(momentum=0.9)
    with pytest.raises(ValueError, match="it has no momentum_buffer, and they need one"):
        other.step(x, np.ones(3), plain.init(x))
    with pytest.raises(ValueError, match="it has a momentum_buffer, and they have no use for it"):
        plain.step(x, np.ones(3), other.init(x))
    with pytest.raises(ValueError, match="no gradient_sum"):
        RMSprop(accumulate_steps=2).step(x, np.ones(3), plain.init(x))
    with pytest.raises(ValueError, match=r"params must have shape \(4,\)"):
        plain.step(x, np.ones(3), plain.init(np.ones(4)))
    with pytest.raises(
        ValueError, match="params must be a dict with the keys 'x', as in the params of init, got ndarray"
    ):
        plain.step(x, np.ones(3), plain.init({"x": x}))
    with pytest.raises(TypeError, match="state must be an RMSpropState"):
        plain.step(x, np.ones(3), None)
    state = plain.init(x)
    RMSprop(0.5, eps=1e-3).step(x, np.ones(3), state)  # numbers may change from step to step
    assert state.step == 1


def test_state_that_was_put_together_by_hand_is_refused():
    state = RMSprop().init(np.ones(3))
    [leaf] = state._leaves
    for wrong in (np.ones(2), np.ones((3, 1)), np.ones(6)[::2]):
        made = RMSpropState(state._structure, (leaf._replace(square_avg=wrong),))
        with pytest.raises(ValueError, match="state must be made by init or from_arrays"):
            RMSprop().step(np.ones(3), np.ones(3), made)


def test_containers_are_matched_by_what_they_mean():
    optimizer = RMSprop()
    layer = Layer(np.ones((2, 2)), np.ones(2))
    state = optimizer.init(layer)
    optimizer.step(layer, [np.ones((2, 2)), np.ones(2)], state)
    assert isinstance(state.square_avg, Layer)
    with pytest.raises(ValueError, match="grads must be a Layer of 2"):
        optimizer.step(layer, Swapped(np.ones(2), np.ones((2, 2))), state)
    with pytest.raises(ValueError, match=r"grads\.bias|grads\[1\]|must have shape"):
        optimizer.step(layer, Layer(np.ones((2, 2)), np.ones(3)), state)
    params = {"a": np.ones(2), "b": np.ones(3)}
    state = optimizer.init(params)
    optimizer.step(params, {"b": np.ones(3), "a": np.ones(2)}, state)  # whatever the order of the keys
    with pytest.raises(TypeError, match="keys of params must be strings, got 3; use '3'"):
        optimizer.init({3: np.ones(1)})
    with pytest.raises(ValueError, match="at least one array"):
        optimizer.init({"a": []})
