"""The optimizer object: against the reference and minimize; what its options do."""

from __future__ import annotations

import copy
import math
import pickle

import numpy as np
import pytest
from nested_arrays import array, as_bytes, assert_near, flat, tree
from variants import DTYPES, VARIANTS

from rmsprop_nb import RMSprop, minimize, schedules
from rmsprop_nb._training.host_step import _global_norm
from rmsprop_nb.testing import reference_rmsprop

# -- numbers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_steps_equal_the_reference(options, dtype):
    params = tree(dtype)
    grads = [tree(dtype, seed) for seed in range(1, 9)]
    rates = np.linspace(0.1, 0.02, len(grads))
    expected = [
        list(reference_rmsprop(x.ravel(), [flat(g)[k].ravel() for g in grads], rates, **options))[-1].reshape(x.shape)
        for k, x in enumerate(flat(params))
    ]
    optimizer = RMSprop(lambda step: rates[step], **options)
    state = optimizer.init(params)
    for g in grads:
        before = as_bytes(g)
        assert optimizer.step(params, g, state) is None
        assert as_bytes(g) == before
    assert state.step == len(grads)
    for x, y in zip(flat(params), expected, strict=True):
        assert_near(x, y)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_steps_equal_those_of_minimize_bit_for_bit(options, dtype):
    def gradient(x):
        return np.sin(3 * x) + x

    x = array(7, dtype=dtype)
    rate = schedules.cosine_decay(0.1, 9)
    run = minimize(
        lambda x: float((0.5 * x * x - np.cos(3 * x) / 3).sum()), x, jac=gradient,
        options={"learning_rate": rate, "maxiter": 12, "return_all": True, **options},
    )  # fmt: skip
    optimizer = RMSprop(rate, **options)
    state = optimizer.init(x)
    for there in run.allvecs:
        np.testing.assert_array_equal(x, there)
        optimizer.step(x, gradient(x), state)
    assert len(run.allvecs) > 5


# -- what is done to gradients ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_maximize_goes_the_other_way(dtype):
    x, y, g = array(5, dtype=dtype), array(5, dtype=dtype), array(5, dtype=dtype, seed=1)
    up, down = RMSprop(maximize=True, weight_decay=0.1), RMSprop(weight_decay=0.1)
    up.step(x, g, up.init(x))
    down.step(y, -g, down.init(y))
    np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("dtype", DTYPES)
def test_clip_value_clips_each_element(dtype):
    x, y, g = array(50, dtype=dtype), array(50, dtype=dtype), array(50, dtype=dtype, seed=1)
    clipping, plain = RMSprop(clip_value=0.5), RMSprop()
    clipping.step(x, g, clipping.init(x))
    plain.step(y, np.clip(g, -0.5, 0.5), plain.init(y))
    np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1.0, 1e-15, 1e15])
def test_clip_norm_scales_all_arrays_together(dtype, size):
    grads = [dtype(size) * array(3, 2, dtype=dtype), dtype(size) * array(4, dtype=dtype)]
    norm = math.hypot(*map(float, np.concatenate([g.ravel() for g in grads])))
    for bound in (0.25 * norm, 4 * norm):
        clipping, plain = RMSprop(clip_norm=bound, eps=0.0), RMSprop(eps=0.0)
        x, y = ([np.zeros_like(g) for g in grads] for _ in range(2))
        state, plain_state = clipping.init(x), plain.init(y)
        clipping.step(x, grads, state)
        plain.step(y, [g * dtype(min(1.0, bound / norm)) for g in grads], plain_state)
        for a, b in zip(flat(state.square_avg), flat(plain_state.square_avg), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5)


@pytest.mark.parametrize("size", [0.0, 1e-320, 1e-200, 1.0, 1e200, 1e307, np.inf, np.nan])
def test_global_norm_neither_overflows_nor_underflows(size):
    vectors = [np.array([3.0 * size, 0.0]), np.array([4.0 * size]), np.ones(0)]
    with np.errstate(over="ignore"):  # without the JIT, NumPy tells of the overflow
        norm = _global_norm(vectors)
    assert norm == pytest.approx(5.0 * size, rel=1e-3 if 0 < size < 1e-300 else 1e-15, nan_ok=True)


def test_clipping_takes_gradients_too_large_to_be_squared():
    for options in ({"clip_value": 1.0}, {"clip_norm": 1.0}):
        x, optimizer = np.zeros(2), RMSprop(**options)
        with np.errstate(over="ignore"):
            optimizer.step(x, np.array([1e200, 0.0]), optimizer.init(x))
        assert np.isfinite(x).all()
        assert x[0] < 0
        with pytest.raises(FloatingPointError, match="finite"):
            optimizer.step(x, np.array([np.inf, 0.0]), optimizer.init(x))


@pytest.mark.parametrize("dtype", DTYPES)
def test_accumulation_updates_with_the_mean(dtype):
    x, y = array(3, 4, dtype=dtype), array(3, 4, dtype=dtype)
    grads = [array(3, 4, dtype=dtype, seed=k) for k in range(1, 10)]
    optimizer, plain = RMSprop(accumulate_steps=3, momentum=0.5, clip_norm=2.0), RMSprop(momentum=0.5, clip_norm=2.0)
    state, plain_state = optimizer.init(x), plain.init(y)
    for k, g in enumerate(grads, start=1):
        before = x.copy()
        optimizer.step(x, g, state)
        assert state.step == k // 3
        assert state.accumulated == k % 3
        if k % 3:
            np.testing.assert_array_equal(x, before)
        else:
            plain.step(y, sum(grads[k - 3 : k]) / dtype(3), plain_state)
            assert_near(x, y)
    assert not state.gradient_sum.any()


# -- options of blocks ------------------------------------------------------------------------------------------------


def test_blocks_have_options_of_their_own():
    params = {"W": array(3, 2), "b": array(2), "deep": [{"W": array(2)}, array(3)]}
    expected = copy.deepcopy(params)
    grads = {"W": array(3, 2, seed=1), "b": array(2, seed=1), "deep": [{"W": array(2, seed=1)}, array(3, seed=1)]}
    optimizer = RMSprop(
        0.01,
        weight_decay=0.1,
        per_block={
            "b": {"weight_decay": 0.0, "learning_rate": 0.5},
            "deep": {"momentum": 0.9, "beta": 0.5},
            "deep/0": {"beta": 0.7, "learning_rate": lambda step: 0.2},
        },
    )
    state = optimizer.init(params)
    assert state.momentum_buffer["W"] is None
    assert state.momentum_buffer["deep"][1].shape == (3,)
    for _ in range(3):
        optimizer.step(params, grads, state)
    for x, y, g, options in [
        (params["W"], expected["W"], grads["W"], {"learning_rate": 0.01, "weight_decay": 0.1}),
        (params["b"], expected["b"], grads["b"], {"learning_rate": 0.5}),
        (params["deep"][1], expected["deep"][1], grads["deep"][1],
         {"learning_rate": 0.01, "weight_decay": 0.1, "momentum": 0.9, "beta": 0.5}),
        (params["deep"][0]["W"], expected["deep"][0]["W"], grads["deep"][0]["W"],
         {"learning_rate": 0.2, "weight_decay": 0.1, "momentum": 0.9, "beta": 0.7}),
    ]:  # fmt: skip
        alone = RMSprop(**options)
        alone_state = alone.init(y)
        for _ in range(3):
            alone.step(y, g, alone_state)
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("dtype", DTYPES)
def test_each_element_may_have_its_rate(dtype):
    rates = np.array([[0.0, 0.1, 0.2], [0.3, 0.4, 0.5]]).T
    x, g = array(3, 2, dtype=dtype), array(3, 2, dtype=dtype, seed=1)
    expected = x.copy()
    for k, rate in np.ndenumerate(rates):
        if rate:
            *_, expected[k] = (v[0] for v in reference_rmsprop(np.array([x[k]]), [[g[k]]] * 3, rate))
    for optimizer in (RMSprop(rates), RMSprop(0.7, per_block={"": {"learning_rate": rates}})):
        y = x.copy()
        state = optimizer.init(y)
        for _ in range(3):
            optimizer.step(y, g, state)
        np.testing.assert_allclose(y, expected, rtol=1e-6)
        assert y[0, 0] == x[0, 0]
    with pytest.raises(ValueError, match=r"learning_rate must be a number or have shape \(2,\), that of params"):
        RMSprop(rates).init(np.zeros(2))


# -- options ----------------------------------------------------------------------------------------------------------


BAD_OPTIONS = {
    "auto": ({"learning_rate": "auto"}, ValueError, "learning_rate must be a positive number, 0 .* or a callable"),
    "rate": ({"learning_rate": -0.1}, ValueError, "learning_rate must be a positive number"),
    "rates": ({"learning_rate": [0.1, -0.1]}, ValueError, "learning_rate must be finite and not negative"),
    "beta": ({"beta": 1.0}, ValueError, "beta must be a number in"),
    "eps": ({"eps": -1.0}, ValueError, "eps must be a number in"),
    "momentum": ({"momentum": 1.0}, ValueError, "momentum must be a number in"),
    "nesterov": ({"nesterov": True}, ValueError, "nesterov=True needs momentum"),
    "accumulator": ({"initial_accumulator": -1.0}, ValueError, "initial_accumulator must be a number in"),
    "weight_decay": ({"weight_decay": np.nan}, ValueError, "weight_decay must be a number in"),
    "clip_value": ({"clip_value": 0.0}, ValueError, "clip_value must be a number in"),
    "clip_norm": ({"clip_norm": np.inf}, ValueError, "clip_norm must be a number in"),
    "both": ({"clip_norm": 1.0, "clip_value": 1.0}, ValueError, "must not be given together"),
    "accumulate": ({"accumulate_steps": 0}, ValueError, "accumulate_steps must be an integer of at least 1"),
    "never": ({"accumulate_steps": np.inf}, ValueError, "accumulate_steps must be an integer of at least 1, got inf"),
    "workers": ({"workers": 0}, ValueError, "workers must be an integer of at least 1"),
    "blocks": ({"per_block": {"b": 0.1}}, TypeError, "per_block must map names of arrays to options"),
    "option of block": ({"per_block": {"b": {"workers": 2}}}, ValueError, r"per_block\['b'\].*got 'workers'"),
    "value of block": ({"per_block": {"b": {"beta": 2}}}, ValueError, "beta must be a number in"),
}


@pytest.mark.parametrize(("options", "error", "message"), BAD_OPTIONS.values(), ids=BAD_OPTIONS)
def test_bad_options_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        RMSprop(**options)


def test_options_of_a_block_that_is_not_there_are_refused():
    with pytest.raises(ValueError, match="per_block names 'c', which is not in params; there are 'W', 'b'"):
        RMSprop(per_block={"c": {}}).init({"W": np.ones(1), "b": np.ones(1)})


def test_options_do_not_change():
    rates, blocks = np.array([0.1, 0.2]), {"b": {"eps": 1e-3}}
    optimizer = RMSprop(rates, per_block=blocks)
    rates[:] = -1
    blocks["b"]["eps"] = -1
    assert optimizer.learning_rate.tolist() == [0.1, 0.2]
    assert optimizer.per_block["b"]["eps"] == 1e-3
    with pytest.raises(AttributeError):
        optimizer.beta = 0.5
    assert repr(RMSprop(0.1, momentum=0.9)) == "RMSprop(learning_rate=0.1, momentum=0.9)"
    assert pickle.loads(pickle.dumps(optimizer)).per_block == optimizer.per_block
