"""Training loops against recorded runs of PyTorch, Keras and TensorFlow (see golden/make_loops.py)."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from rmsprop_nb import GradientRows, RMSprop

GOLDEN_FOLDER = Path(__file__).parents[1] / "golden"
sys.path.append(str(GOLDEN_FOLDER))
from golden_cases import make_inputs
from make_loops import CLIP, EMA, MOMENTUM, RATE, is_missing, rows_of_step

GOLDEN = json.loads((GOLDEN_FOLDER / "loops.json").read_text())


def split(x):
    return [x[:4].copy(), x[4:].copy()]


def keras(**options):
    return RMSprop.preset("keras", learning_rate=RATE, momentum=MOMENTUM, **options)


def clipped(x0, gradients):
    params, optimizer = split(x0), keras(clip_array_norm=CLIP)
    state = optimizer.init(params)
    for g in gradients:
        optimizer.step(params, split(g), state)
        yield np.concatenate(params)


def averaged(x0, gradients):
    params, optimizer = split(x0), keras(ema=EMA)
    state = optimizer.init(params)
    for g in gradients:
        optimizer.step(params, split(g), state)
        yield np.concatenate(state.params_avg)


def frozen(x0, gradients):
    params = split(x0)
    optimizer = RMSprop.preset("torch", learning_rate=RATE, momentum=MOMENTUM, weight_decay=0.1)
    state = optimizer.init(params)
    for step, g in enumerate(gradients):
        first, second = split(g)
        optimizer.step(params, [first, None if is_missing(step) else second], state)
        yield np.concatenate(params)


def some_rows(x0, gradients):
    x = x0.copy()
    optimizer = RMSprop(RATE, beta=0.9, momentum=MOMENTUM, eps=1e-7, eps_inside_sqrt=True, lr_in_momentum=True)
    state = optimizer.init(x)
    for step, g in enumerate(gradients):
        rows = rows_of_step(step)
        optimizer.step(x, GradientRows(rows, g[rows]), state)
        yield x.copy()


def complex_numbers(x0, gradients):
    x, gradients = (np.ascontiguousarray(a[..., :6]).view(f"c{2 * x0.itemsize}") for a in (x0, gradients))
    optimizer = RMSprop.preset("torch", learning_rate=RATE, momentum=MOMENTUM, centered=True)
    state = optimizer.init(x)
    for g in gradients:
        optimizer.step(x, g, state)
        yield x.view(x0.dtype).copy()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("loop", [clipped, averaged, frozen, some_rows, complex_numbers])
def test_loop_does_what_the_library_did(loop, dtype):
    inputs = make_inputs(dtype)
    path = list(loop(inputs.x0, inputs.gradients))
    for step, numbers in zip(GOLDEN["steps"], GOLDEN["x"][f"{loop.__name__}_{dtype}"], strict=True):
        expected = np.array([float.fromhex(number) for number in numbers], dtype)
        ulps = {"float64": 16, "float32": 64}[dtype] if loop is complex_numbers else 16  # it is centered
        assert np.abs(path[step - 1] - expected).max() <= ulps * np.spacing(np.abs(expected).max()), step
