"""Presets: the optimizer runs as other libraries do, and says what they call its options."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from marks import some

from rmsprop_nb import RMSprop, schedules
from rmsprop_nb._training.presets import PRESETS

GOLDEN = json.loads((Path(__file__).parents[1] / "golden/golden.json").read_text())
RULE_OPTIONS = ("beta", "eps", "momentum", "nesterov", "centered", "eps_inside_sqrt", "bias_correction",
                "initial_accumulator", "weight_decay", "decoupled_weight_decay", "lr_in_momentum")  # fmt: skip


@pytest.mark.parametrize("library", some(PRESETS, 3))
def test_presets_run_as_the_libraries_did(library):
    for case in GOLDEN["cases"]:
        if case["library"] == library.rstrip("1") and "raw_ops" not in case["api"]:
            run_golden(library, case)


def run_golden(library, case):
    dtype = case["dtype"]
    x, gradients = (np.array(unhex(GOLDEN["inputs"][dtype][name]), dtype) for name in ("x0", "gradients"))
    rate = case["learning_rate"]
    preset = RMSprop.preset(library)
    changed = {name: case[name] for name in RULE_OPTIONS if case[name] != getattr(preset, name)}
    if case["name"].endswith("_default"):
        # a value rounded to float32 by the library, and only for that dtype, is its own default all the same
        assert all(case[name] == pytest.approx(getattr(preset, name), rel=1e-7) for name in changed)
        changed = {}
        if library in ("torch", "keras"):
            assert preset.learning_rate == pytest.approx(rate, rel=1e-7)
    if not (isinstance(rate, float) and rate == preset.learning_rate):
        changed["learning_rate"] = (lambda step: rate[step]) if isinstance(rate, list) else rate
    optimizer = RMSprop.preset(library, **changed)
    state = optimizer.init(x)
    recorded = dict(zip(GOLDEN["steps"], case["x"], strict=True))
    for step, g in enumerate(gradients, start=1):
        optimizer.step(x, g, state)
        if step in recorded:
            y = np.array(unhex(recorded[step]), dtype)
            ulps = 8 if not case["centered"] else {"float64": 16, "float32": 64}[dtype]
            assert np.abs(x - y).max() <= ulps * np.spacing(np.abs(y).max()), case["name"]


def unhex(numbers):
    return float.fromhex(numbers) if isinstance(numbers, str) else [unhex(number) for number in numbers]


def test_presets_place_the_formula_as_the_libraries_do():
    for case in GOLDEN["cases"]:
        if case["name"] in ("torch_default", "optax_default", "keras_default", "tf1_default"):
            preset = RMSprop.preset({"tensorflow": "tensorflow1"}.get(case["library"], case["library"]))
            for name in RULE_OPTIONS:
                assert getattr(preset, name) == pytest.approx(case[name], rel=1e-7), case["name"]


def test_presets_say_what_an_option_is_called_here():
    assert RMSprop.preset("torch", momentum=0.9).momentum == 0.9
    for name, here in (("alpha", "beta"), ("rho", "beta"), ("lr", "learning_rate"), ("clipvalue", "clip_value")):
        with pytest.raises(TypeError, match=f"'{name}'; here it is called '{here}'"):
            RMSprop.preset("torch", **{name: 0.5})
    with pytest.raises(TypeError, match="unknown option 'betta'"):
        RMSprop.preset("keras", betta=0.5)
    with pytest.raises(ValueError, match="library must be one of 'torch'"):
        RMSprop.preset("jax")


def test_tensorflow1_rounds_schedules_too():
    optimizer = RMSprop.preset("tensorflow1", learning_rate=schedules.constant(0.1))
    assert optimizer.learning_rate(0) == float(np.float32(0.1))
    assert optimizer.beta == float(np.float32(0.9))


@pytest.mark.parametrize(("name", "here"), [("pytorch", "torch"), ("TensorFlow", "keras"), ("jax", "optax")])
def test_other_names_of_libraries_are_answered_with_ours(name, here):
    with pytest.raises(ValueError, match=rf"got '{name}'; its RMSprop is preset\('{here}'\)"):
        RMSprop.preset(name)
