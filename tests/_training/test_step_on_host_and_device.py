"""What a step promises wherever the arrays are: the same tests on the host, and on a device or in the simulator."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from rmsprop_nb import RMSprop, RMSpropState

IS_INSTALLED = importlib.util.find_spec("numba_cuda") is not None


def to_device(array):
    from numba import cuda

    return cuda.to_device(array)


def device_is_available():
    from numba import cuda

    return IS_INSTALLED and cuda.is_available()


on_device = [pytest.mark.gpu, pytest.mark.skipif(not device_is_available(), reason="there is no CUDA device")]


@pytest.fixture(params=[np.array, pytest.param(to_device, marks=on_device)], ids=["host", "device"])
def move(request):
    return request.param


def to_host(array):
    return array if isinstance(array, np.ndarray) else array.copy_to_host()


def norm_of(move, *gradients):
    """The norm that clip_norm compares with its limit."""
    params = [move(np.zeros(len(g))) for g in gradients]
    optimizer = RMSprop(clip_norm=1.0)
    state = optimizer.init(params)
    step = optimizer._prepared(state)
    return step.norm(step.take(params, [move(np.array(g, float)) for g in gradients]))


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")  # of kernels that run as Python
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("size", [0.0, 1e-320, 1e-200, 1e-154, 1.0, 1e153, 1e154, 1e200, 1e307, np.inf, np.nan])
def test_norm_neither_overflows_nor_underflows(move, size):
    found = norm_of(move, [3.0 * size, 0.0], [4.0 * size], [])
    assert found == pytest.approx(5.0 * size, rel=1e-3 if 0 < size < 1e-300 else 1e-15, nan_ok=True)


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
def test_squares_may_overflow_when_they_are_added_up(move):
    assert norm_of(move, [1e154], [1e154]) == pytest.approx(np.sqrt(2.0) * 1e154, rel=1e-15)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("gradients", [([np.inf], [np.nan]), ([1.0], [np.nan])], ids=["infinite", "finite"])
def test_norm_is_nan_if_a_gradient_is(move, gradients):
    assert np.isnan(norm_of(move, *gradients))
    assert np.isnan(norm_of(move, *gradients[::-1]))


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
def test_clip_norm_takes_gradients_too_large_to_be_squared(move):
    x, g = move(np.zeros(2)), move(np.array([3e200, -4e200]))
    optimizer = RMSprop(0.1, clip_norm=0.5, eps=0.0, beta=0.0)
    optimizer.step(x, g, optimizer.init(x))
    np.testing.assert_allclose(to_host(x), [-0.1, 0.1], rtol=1e-14)


def test_parameters_must_not_share_memory(move):
    a = move(np.zeros(5))
    with pytest.raises(ValueError, match=r"params\['b'\] must not share memory with params\['a'\], which step changes"):
        RMSprop().init({"a": a[:3], "b": a[2:]})
    RMSprop().init({"a": a[:3], "b": a[3:], "c": a[3:3]})


def test_errors_name_what_is_written_last(move):
    x = [move(np.zeros(4)), move(np.zeros(4))]
    g = [move(np.ones(4)), move(np.ones(4))]
    optimizer = RMSprop(0.1, momentum=0.5)
    state = optimizer.init(x)
    for params, grads, message in (
        (x, [g[0], x[0]], r"grads\[1\] must not share memory with params\[0\], which step changes"),
        (x, [g[0], state.momentum_buffer[0]], r"grads\[1\] must not share memory with state of params\[0\]"),
        ([x[0], state.square_avg[1]], g, r"params\[1\] must not share memory with state of params\[1\]"),
        ([x[0], x[0]], g, r"params\[1\] must not share memory with params\[0\]"),
    ):
        with pytest.raises(ValueError, match=message):
            optimizer.step(params, grads, state)
    optimizer.step(x, [g[0], g[0]], state)  # gradients are only read
    assert state.step == 1


def test_a_state_that_was_put_together_by_hand_is_refused(move):
    optimizer, x, g = RMSprop(), move(np.ones(3)), move(np.ones(3))
    state = optimizer.init(x)
    [leaf] = state._leaves
    for wrong in (move(np.ones(2)), move(np.ones((3, 1))), move(np.ones(6))[::2]):
        made = RMSpropState(state._structure, (leaf._replace(square_avg=wrong),))
        with pytest.raises(ValueError, match=r"state must be made by init or from_arrays; .* does not fit its shape"):
            optimizer.step(x, g, made)
    made = RMSpropState(state._structure, (leaf._replace(gradient_sum=move(np.ones(3, np.float32))),))
    with pytest.raises(ValueError, match="state must be made by init or from_arrays"):
        RMSprop(accumulate_steps=2).step(x, g, made)


def test_a_state_of_other_options_is_refused(move):
    x, g, plain, other = move(np.ones(3)), move(np.ones(3)), RMSprop(), RMSprop(momentum=0.9)
    with pytest.raises(ValueError, match="it has no momentum_buffer, and they need one"):
        other.step(x, g, plain.init(x))
    with pytest.raises(ValueError, match="it has a momentum_buffer, and they have no use for it"):
        plain.step(x, g, other.init(x))
    with pytest.raises(ValueError, match="no gradient_sum"):
        RMSprop(accumulate_steps=2).step(x, g, plain.init(x))


def test_errors_compare_gradients_with_their_parameters(move):
    x, optimizer = {"W": move(np.ones(3))}, RMSprop()
    state = optimizer.init(x)
    with pytest.raises(ValueError, match=r"grads\['W'\] must have shape \(3,\), that of params\['W'\], got \(4,\)"):
        optimizer.step(x, {"W": move(np.ones(4))}, state)
    with pytest.raises(TypeError, match=r"grads\['W'\] must be float64 like params\['W'\], got .*(float32|f4)"):
        optimizer.step(x, {"W": move(np.ones(3, np.float32))}, state)
    with pytest.raises(
        ValueError, match=r"params\['W'\] must have shape \(3,\), that of the params of init, got \(4,\)"
    ):
        optimizer.step({"W": move(np.ones(4))}, {"W": move(np.ones(4))}, state)


@pytest.mark.parametrize("rate", [-1.0, np.nan, np.inf])
def test_a_bad_rate_of_a_schedule_changes_nothing(move, rate):
    x, g, optimizer = move(np.ones(3)), move(np.ones(3)), RMSprop(lambda step: rate if step else 0.1)
    state = optimizer.init(x)
    optimizer.step(x, g, state)
    before = [to_host(x).copy(), *state.to_arrays().values()]
    with pytest.raises(ValueError, match=r"learning_rate\(step\) must be finite and not negative.*at step 1"):
        optimizer.step(x, g, state)
    for a, b in zip([to_host(x), *state.to_arrays().values()], before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_sums_of_gradients_overflow_without_a_warning():
    """As in compiled code; a warning that is made an error would stop the step halfway."""
    x, optimizer = [np.zeros(1), np.zeros(1)], RMSprop(accumulate_steps=3, check_finite=False)
    state = optimizer.init(x)
    with np.errstate(all="raise"):
        for _ in range(2):
            optimizer.step(x, [np.full(1, 1.7e308), np.ones(1)], state)
    assert [float(total[0]) for total in state.gradient_sum] == [np.inf, 2.0]


DIALECTS = {
    "plain": {},
    "momentum": {"momentum": 0.9, "centered": True},
    "torch": {"momentum": 0.9, "weight_decay": 0.1},
    "keras": {"momentum": 0.9, "lr_in_momentum": True, "bias_correction": True, "decoupled_weight_decay": 0.1},
}


def frozen_b(kind):
    """The options and the gradient of b with which a step leaves b alone."""
    if kind == "no gradient":
        return {}, None
    rates = {"rate of 0": 0.0, "schedule of 0": lambda _: 0.0}
    return {"per_block": {"b": {"learning_rate": rates[kind]}}}, np.ones(5)


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS)
@pytest.mark.parametrize("kind", ["no gradient", "rate of 0", "schedule of 0"])
@pytest.mark.parametrize("others", [1, 2])
def test_frozen_arrays_and_their_state_stay_as_they_are(move, others, kind, dialect):
    names = ["W", "V"][:others]
    params = {name: move(np.ones(4)) for name in names} | {"b": move(np.ones(5))}
    grads = {name: move(np.ones(4)) for name in names} | {"b": move(np.ones(5))}
    optimizer = RMSprop(0.1, **dialect)
    state = optimizer.init(params)
    for _ in range(3):
        optimizer.step(params, grads, state)
    before = {name: to_host(move(array)) for name, array in state.to_arrays().items()}
    b, W = to_host(params["b"]).copy(), to_host(params["W"]).copy()
    options, gradient = frozen_b(kind)
    freezing = RMSprop(0.1, **dialect, **options)
    for _ in range(2):
        freezing.step(params, grads | {"b": None if gradient is None else move(gradient)}, state)
    np.testing.assert_array_equal(to_host(params["b"]), b)
    assert (to_host(params["W"]) != W).all()
    for name, array in state.to_arrays().items():
        if name.endswith("/b"):
            np.testing.assert_array_equal(to_host(move(array)), before[name])
    optimizer.step(params, grads, state)
    assert (to_host(params["b"]) != b).all()


def test_a_missing_gradient_cannot_be_added_up(move):
    x, optimizer = {"W": move(np.ones(3))}, RMSprop(accumulate_steps=2)
    with pytest.raises(TypeError, match=r"grads\['W'\] must be an array with accumulate_steps, got None or"):
        optimizer.step(x, {"W": None}, optimizer.init(x))


def test_missing_gradients_do_not_count_for_clipping(move):
    g = [3.0, 4.0]
    alone, both = move(np.ones(2)), {"a": move(np.ones(2)), "b": move(np.ones(2))}
    optimizer = RMSprop(0.1, clip_norm=1.0)
    optimizer.step(alone, move(np.array(g)), optimizer.init(alone))
    optimizer.step(both, {"a": move(np.array(g)), "b": None}, optimizer.init(both))
    np.testing.assert_array_equal(to_host(both["a"]), to_host(alone))
    np.testing.assert_array_equal(to_host(both["b"]), np.ones(2))


@pytest.mark.parametrize("rate", [0.01, lambda _: 0.01])
def test_a_rate_for_one_step_takes_the_place_of_the_optimizers(move, rate):
    optimizer = RMSprop(rate, momentum=0.9, per_block={"b": {"learning_rate": 0.5}})
    other = RMSprop(0.25, momentum=0.9, per_block={"b": {"learning_rate": 0.5}})
    found, expected = ({"W": move(np.ones(4)), "b": move(np.ones(5))} for _ in range(2))
    grads = {"W": move(np.full(4, 2.0)), "b": move(np.ones(5))}
    state, expected_state = optimizer.init(found), other.init(expected)
    optimizer.step(found, grads, state)
    RMSprop(0.01, momentum=0.9, per_block={"b": {"learning_rate": 0.5}}).step(expected, grads, expected_state)
    optimizer.step(found, grads, state, learning_rate=0.25)
    other.step(expected, grads, expected_state)
    optimizer.step(found, grads, state)
    RMSprop(0.01, momentum=0.9, per_block={"b": {"learning_rate": 0.5}}).step(expected, grads, expected_state)
    for name in found:
        np.testing.assert_array_equal(to_host(found[name]), to_host(expected[name]))
    before = to_host(found["W"]).copy()
    optimizer.step(found, grads, state, learning_rate=0.0)
    np.testing.assert_array_equal(to_host(found["W"]), before)
    for wrong in (-1.0, np.nan, np.inf, "fast"):
        with pytest.raises((TypeError, ValueError), match="learning_rate must be"):
            optimizer.step(found, grads, state, learning_rate=wrong)


def test_a_rate_for_one_step_does_not_replace_rates_of_elements():
    x, optimizer = np.ones(3), RMSprop(np.array([0.1, 0.2, 0.0]))
    with pytest.raises(TypeError, match="step takes no learning_rate where the optimizer's is an array"):
        optimizer.step(x, x.copy(), optimizer.init(x), learning_rate=0.1)
