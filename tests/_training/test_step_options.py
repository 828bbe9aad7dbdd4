"""Options of a step: averages of parameters, clipping per array, weight decay on a schedule, and complex numbers."""

from __future__ import annotations

import numpy as np
import pytest

from rmsprop_nb import GradientRows, RMSprop


def test_averages_of_parameters():
    x, optimizer = np.array([1.0, 2.0]), RMSprop(0.1, ema=0.75)
    state = optimizer.init(x)
    np.testing.assert_array_equal(state.params_avg, x)
    expected = None
    for k in range(4):
        optimizer.step(x, np.array([1.0, -1.0]) * (k + 1), state)
        expected = x.copy() if expected is None else 0.75 * expected + 0.25 * x
        np.testing.assert_allclose(state.params_avg, expected, rtol=1e-15)
    restored = type(state).from_arrays(state.to_arrays())
    np.testing.assert_array_equal(restored.params_avg, state.params_avg)
    with pytest.raises(ValueError, match="it has a params_avg, and they have no use for it"):
        RMSprop(0.1).step(x, x.copy(), state)


def test_each_array_is_clipped_by_its_own_norm():
    params, g = [np.zeros(2), np.zeros(2)], [np.array([3.0, 4.0]), np.array([0.3, 0.4])]
    clipped, by_hand = RMSprop(0.1, clip_array_norm=1.0, momentum=0.5), RMSprop(0.1, momentum=0.5)
    expected = [a.copy() for a in params]
    state, own = clipped.init(params), by_hand.init(expected)
    for _ in range(3):
        clipped.step(params, g, state)
        by_hand.step(expected, [g[0] / 5.0, g[1]], own)
    np.testing.assert_allclose(params, expected, rtol=1e-14)


def test_complex_numbers_are_pairs():
    rng = np.random.default_rng(3)
    z, g = (rng.normal(size=(4, 3)) + 1j * rng.normal(size=(4, 3)) for _ in range(2))
    pairs = z.view(float).reshape(4, 3, 2).copy()
    strided = np.zeros((8, 3), complex)[::2]
    strided[...] = z
    optimizer = RMSprop(0.1, momentum=0.9, clip_norm=1.0)
    for params in (z, strided, {"z": z.copy(), "x": np.zeros(0)}):
        expected, grads = pairs.copy(), g
        if isinstance(params, dict):
            grads = {"z": g, "x": np.zeros(0)}
        state, own = optimizer.init(params), optimizer.init(expected)
        for _ in range(3):
            optimizer.step(params, grads, state)
            optimizer.step(expected, g.view(float).reshape(4, 3, 2), own)
        found = params["z"] if isinstance(params, dict) else params
        np.testing.assert_array_equal(np.ascontiguousarray(found).view(float).reshape(4, 3, 2), expected)
        z[...] = pairs.copy().view(complex)[..., 0]
    rows = RMSprop(0.1)
    vector = np.zeros(5, complex)
    rows.step(vector, GradientRows([4], [1.0 - 1.0j]), rows.init(vector))
    assert vector[4] == pytest.approx(-(0.1**0.5) * (1 - 1j))
    with pytest.raises(FloatingPointError, match=r"got nan at index \(1, 1\)"):
        rows.step(vector, np.array([0, complex(0, np.nan), 0, 0, 0]), rows.init(vector))
    with pytest.raises(TypeError, match="grads must be float64 like params"):
        rows.step(vector, np.zeros(5, np.complex64), rows.init(vector))


@pytest.mark.parametrize("decoupled", [False, True])
def test_weight_decay_on_a_schedule(decoupled):
    def schedule(step):
        return 0.5 / (step + 1)

    x, expected = {"W": np.ones(3), "b": np.ones(2)}, {"W": np.ones(3), "b": np.ones(2)}
    g = {"W": np.array([1.0, 0.0, -1.0]), "b": np.ones(2)}
    rule = {"learning_rate": 0.1, "momentum": 0.9, "decoupled_weight_decay": decoupled}
    optimizer = RMSprop(weight_decay=schedule, per_block={"b": {"weight_decay": 0.25}}, **rule)
    state, arrays = optimizer.init(x), None
    for step in range(4):
        optimizer.step(x, g, state)
        fixed = RMSprop(weight_decay=schedule(step), per_block={"b": {"weight_decay": 0.25}}, **rule)
        own = fixed.init(expected) if arrays is None else type(state).from_arrays(arrays)
        fixed.step(expected, g, own)
        arrays = own.to_arrays()
    for name, a in x.items():
        np.testing.assert_array_equal(a, expected[name])
    negative = RMSprop(weight_decay=lambda step: -1.0)
    with pytest.raises(ValueError, match="weight_decay at step 0 must be a number in"):
        negative.step(x, g, negative.init(x))
    with pytest.raises(ValueError, match="weight_decay must be a number in"):
        RMSprop(weight_decay=-1.0)
