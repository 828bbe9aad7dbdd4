"""Steps of the optimizer and the rule in a kernel of one's own, in the simulator; see test_simulator.py."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from device_trees import flat, mapped, to_host
from numba import cuda

from rmsprop_nb import RMSprop, RMSpropState, schedules
from rmsprop_nb._cuda import step as _cuda_step
from rmsprop_nb.cuda import device_rule

rng = np.random.default_rng(0)
PARAMS = {"W": rng.normal(size=(3, 4)), "b": [rng.normal(size=5).astype(np.float32), np.array(2.0)]}


def gradients():
    return mapped(lambda a: np.asarray(rng.normal(size=a.shape), a.dtype), PARAMS)


OPTIONS = {
    "plain": {},
    "centered": {"centered": True, "eps": 1e-3},
    "momentum": {"momentum": 0.9},
    "nesterov": {"momentum": 0.9, "nesterov": True, "lr_in_momentum": True},
    "keras": {"eps_inside_sqrt": True, "weight_decay": 0.1, "decoupled_weight_decay": True},
    "bias_correction": {"bias_correction": True, "weight_decay": 0.1, "centered": True, "eps": 1e-3},
    "clip_value": {"clip_value": 0.1, "maximize": True, "initial_accumulator": 1.0},
    "clip_norm": {"clip_norm": 1.0},
    "accumulate": {"accumulate_steps": 2, "clip_norm": 0.5},
    "schedule": {"learning_rate": schedules.cosine_decay(0.1, 8)},
    "blocks": {"per_block": {"b": {"learning_rate": 0.5, "eps": 1e-2}}, "deterministic": True},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_steps_are_those_of_the_host(options):
    optimizer = RMSprop(**{"learning_rate": 0.1, **options})
    host = mapped(np.copy, PARAMS)
    device = mapped(cuda.to_device, PARAMS)
    host_state, device_state = optimizer.init(host), optimizer.init(device)
    for _ in range(4):
        grads = gradients()
        optimizer.step(host, grads, host_state)
        optimizer.step(device, mapped(cuda.to_device, grads), device_state)
    for a, b in zip(flat(host), flat(device), strict=True):
        np.testing.assert_allclose(to_host(b), a, rtol=1e-12 if options.get("clip_norm") else 0.0)
    for name, array in host_state.to_arrays().items():
        found = device_state.to_arrays()[name]
        assert found.dtype == array.dtype
        if array.dtype.kind == "f":
            np.testing.assert_allclose(found, array, rtol=1e-6 if options.get("clip_norm") else 0.0)


def test_state_goes_from_host_to_device_and_back():
    optimizer = RMSprop(0.1, momentum=0.9)
    x = {"x": rng.normal(size=7)}
    grads = {"x": rng.normal(size=7)}
    state = optimizer.init(x)
    optimizer.step(x, grads, state)
    device, device_state = {"x": cuda.to_device(x["x"])}, RMSpropState.from_arrays(state.to_arrays()).to_device()
    kept = device_state.copy()
    optimizer.step(x, grads, state)
    optimizer.step(device, {"x": cuda.to_device(grads["x"])}, device_state)
    np.testing.assert_array_equal(to_host(device["x"]), x["x"])
    assert device_state.step == 2
    assert kept.step == 1
    assert not np.array_equal(kept.to_arrays()["square_avg/x"], device_state.to_arrays()["square_avg/x"])


def vector(*values, dtype=np.float64):
    return cuda.to_device(np.array(values, dtype))


BAD_STEPS = {
    "host gradient": (lambda x: np.zeros(3), TypeError, r"grads must be on the device .* got ndarray; move it with"),
    "dtype": (lambda x: vector(1, 2, 3, dtype=np.float32), TypeError, "grads must be float64 like params, got float32"),
    "half": (lambda x: cuda.to_device(np.zeros(3, np.float16)), TypeError, "grads must be float64 like .* got float16"),
    "integers": (lambda x: cuda.to_device(np.zeros(3, int)), TypeError, "float16 or bfloat16, got dtype int64"),
    "shape": (lambda x: vector(1, 2), ValueError, r"grads must have shape \(3,\)"),
    "strides": (lambda x: cuda.to_device(np.zeros(6))[::2], ValueError, r"contiguous \(C order\), got strides"),
    "same memory": (lambda x: x, ValueError, "must not share memory"),
    "NaN": (lambda x: vector(1, np.nan, 2), FloatingPointError, r"grads must be finite, got nan at index 1"),
    "too large": (lambda x: vector(1, 2, -1e200), FloatingPointError, "at most .* at index 2"),
}


@pytest.mark.parametrize(("make", "error", "message"), BAD_STEPS.values(), ids=BAD_STEPS)
def test_bad_gradients_change_nothing(make, error, message):
    optimizer = RMSprop(0.1)
    x = vector(1.0, 2.0, 3.0)
    state = optimizer.init(x)
    with pytest.raises(error, match=message):
        optimizer.step(x, make(x), state)
    np.testing.assert_array_equal(to_host(x), [1.0, 2.0, 3.0])
    np.testing.assert_array_equal(to_host(state.square_avg), np.zeros(3))
    assert state.step == 0


def test_what_is_not_for_a_device_is_refused():
    x = vector(1.0, 2.0)
    with pytest.raises(NotImplementedError, match="learning_rate must be a number or a schedule on a device"):
        RMSprop([0.1, 0.2]).init(x)
    with pytest.raises(TypeError, match=r"params\['b'\] must be on the device like the other arrays"):
        RMSprop().init({"a": x, "b": np.zeros(2)})
    with pytest.raises(TypeError, match=r"params\['b'\] must be a host array like the others"):
        RMSprop().init({"a": np.zeros(2), "b": x})
    state = RMSprop(momentum=0.9).init(x)
    with pytest.raises(ValueError, match="state must be of these options"):
        RMSprop().step(x, vector(1.0, 1.0), state)
    with pytest.raises(TypeError, match="params must be a host array"):
        RMSprop().step(x, vector(1.0, 1.0), RMSprop().init(np.zeros(2)))


def test_rule_in_a_kernel_of_ones_own():
    rule = device_rule(dtype=np.float64, beta=0.9, momentum=0.5)

    @cuda.jit
    def step(x, g, s, b, rate):
        i = cuda.grid(1)
        if i < x.size:
            x[i], s[i], _, b[i] = rule(x[i], g[i], s[i], 0.0, b[i], rate, 1.0)

    x, g = rng.normal(size=(2, 5))
    optimizer = RMSprop(0.1, beta=0.9, momentum=0.5)
    expected, state = x.copy(), optimizer.init(x)
    arrays = [cuda.to_device(a) for a in (x, g, np.zeros(5), np.zeros(5))]
    for _ in range(3):
        step[1, 8](*arrays, 0.1)
        optimizer.step(expected, g, state)
    np.testing.assert_array_equal(to_host(arrays[0]), expected)
    with pytest.raises(ValueError, match="dtype must be float32 or float64, got float16"):
        device_rule(dtype=np.float16)
    with pytest.raises(ValueError, match="beta"):
        device_rule(beta=2.0)


def test_examples_of_the_page_run():
    page = Path(__file__).resolve().parents[2] / "docs" / "cuda.md"
    text = page.read_text(encoding="utf-8")
    namespace = {"__name__": "__page__"}
    blocks = list(re.finditer(r"^```py\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
    assert len(blocks) >= 3
    for block in blocks:
        if "misfit_alone" in block[1]:  # needs a compiler, not a simulator
            continue
        exec(compile("\n" * text.count("\n", 0, block.start(1)) + block[1], page, "exec"), namespace)  # noqa: S102
    np.testing.assert_allclose(to_host(namespace["x"]), 0.9)
    assert (to_host(namespace["params"]["W"]) == 0.75).all()
    assert (to_host(namespace["params"]["b"]) == 0.5).all()


CAPTURED = {
    "check_finite=True": {},
    "clip_norm": {"check_finite": False, "clip_norm": 1.0},
    "accumulate_steps": {"check_finite": False, "accumulate_steps": 2},
    "a schedule as learning_rate": {"check_finite": False, "learning_rate": lambda step: 0.1},
    "bias_correction": {"check_finite": False, "bias_correction": True},
}


@pytest.mark.parametrize(("named", "options"), CAPTURED.items(), ids=CAPTURED)
def test_what_needs_the_host_cannot_be_captured(named, options, monkeypatch):
    """A CUDA graph repeats launches with the numbers that they were captured with."""
    monkeypatch.setattr(_cuda_step, "is_capturing", lambda stream: True)
    x, g = (cuda.to_device(np.ones(3)) for _ in range(2))
    optimizer = RMSprop(**options)
    state = optimizer.init(x)
    with pytest.raises(RuntimeError, match=rf"captured in a CUDA graph.* with {named}\."):
        optimizer.step(x, g, state)
    np.testing.assert_array_equal(x.copy_to_host(), 1.0)


def test_what_does_not_need_the_host_can_be_captured(monkeypatch):
    monkeypatch.setattr(_cuda_step, "is_capturing", lambda stream: True)
    x, g = (cuda.to_device(np.ones(3)) for _ in range(2))
    optimizer = RMSprop(check_finite=False, momentum=0.9, clip_value=0.5, maximize=True)
    optimizer.step(x, g, optimizer.init(x))
    assert (x.copy_to_host() > 1.0).all()
