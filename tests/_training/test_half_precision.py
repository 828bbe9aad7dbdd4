"""Parameters of half precision on the host: arithmetic and state in float32, one rounding at the end of a step."""

from __future__ import annotations

import numpy as np
import pytest

from rmsprop_nb import RMSprop, RMSpropState

OPTIONS = {
    "plain": {},
    "everything": {"momentum": 0.9, "centered": True, "bias_correction": True, "eps": 0.1, "weight_decay": 0.01},
    "clipped": {"clip_norm": 1.0, "maximize": True},
    "accumulated": {"accumulate_steps": 2},
    "rates of elements": {"learning_rate": np.linspace(0.1, 0.5, 12).reshape(3, 4)},
    "threads": {"workers": 2},
}


@pytest.fixture(params=["float16", "bfloat16"])
def half(request):
    if request.param == "bfloat16":
        return np.dtype(pytest.importorskip("ml_dtypes").bfloat16)
    return np.dtype(np.float16)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_steps_are_those_of_float32_rounded(options, half):
    rng = np.random.default_rng(0)
    shape = (3, 4) if np.ndim(options.get("learning_rate", 0.1)) else (300, 400)
    optimizer = RMSprop(**{"learning_rate": 0.1, **options})
    x = rng.normal(size=shape).astype(half)
    real = x.astype(np.float32)
    state, expected = optimizer.init(x), optimizer.init(real)
    assert state.square_avg.dtype == np.float32
    for _ in range(4):
        g = rng.normal(size=shape).astype(half)
        optimizer.step(x, g, state)
        optimizer.step(real, g.astype(np.float32), expected)
        real = real.astype(half).astype(np.float32)
        np.testing.assert_array_equal(x.astype(np.float32), real)
    for name, array in expected.to_arrays().items():
        np.testing.assert_array_equal(state.to_arrays()[name], array)


def test_formats_mix_and_states_are_kept_in_files(half):
    optimizer = RMSprop(0.1, per_block={"b": {"learning_rate": 0.5}})
    params = {"W": np.ones((2, 3), half), "b": np.ones(3), "c": np.ones(2, np.float32)}
    grads = {name: np.ones_like(array) for name, array in params.items()}
    state = optimizer.init(params)
    optimizer.step(params, grads, state)
    again = RMSpropState.from_arrays(state.to_arrays())
    kept = {name: array.copy() for name, array in params.items()}
    optimizer.step(params, grads, state)
    optimizer.step(kept, grads, again)
    for name, array in params.items():
        assert array.dtype == kept[name].dtype
        np.testing.assert_array_equal(kept[name], array)


def test_gradients_may_be_of_float32(half):
    optimizer, g = RMSprop(0.1), np.array([0.5, 1.0, -2.0], half)
    x, y = np.ones(3, half), np.ones(3, half)
    optimizer.step(x, g, optimizer.init(x))
    for given in (g.astype(np.float32), np.broadcast_to(g.astype(np.float32), (1, 3))[0]):
        y[:] = 1
        optimizer.step(y, given, optimizer.init(y))
        np.testing.assert_array_equal(x, y)


def test_layouts_are_kept(half):
    optimizer = RMSprop(0.1)
    whole = np.ones((6, 4), half)
    x = whole[::2].T
    optimizer.step(x, np.ones((4, 3), half)[::-1], optimizer.init(x))
    assert (whole[::2] != whole[1::2]).all()
    assert (whole[1::2] == 1).all()


def test_what_does_not_fit_changes_nothing(half):
    optimizer = RMSprop(0.1)
    x = np.ones(3, half)
    state = optimizer.init(x)
    bad = {
        f"grads must be {half.name} like params": (np.ones(3), TypeError),
        "grads must not share memory with params": (x, ValueError),
        "grads must be finite, got nan at index 1": (np.array([1, np.nan, 2]).astype(half), FloatingPointError),
        "grads must be finite, got inf at index 0": (np.array([np.inf, 1, 2]).astype(half), FloatingPointError),
    }
    for message, (g, error) in bad.items():
        with pytest.raises(error, match=message):
            optimizer.step(x, g, state)
    assert (x == 1).all()
    assert state.step == 0
    with pytest.raises(TypeError, match=f"params must be float64 like the params of init, got dtype '{half.str}'"):
        optimizer.step(x, x.copy(), optimizer.init(np.ones(3)))


def test_numbers_too_large_become_infinite():
    x = np.array([60000.0, 1.0], np.float16)
    optimizer = RMSprop(5e4)
    optimizer.step(x, np.array([-1.0, -1.0], np.float16), optimizer.init(x))
    assert np.isinf(x[0])
