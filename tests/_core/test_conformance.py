"""The rule against recorded runs of the real PyTorch, optax, Keras and TensorFlow 1 (see golden/make_golden.py)."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from test_rule import run_kernel

from rmsprop_nb._core.options import RmspropOptions
from rmsprop_nb.testing import reference_rmsprop

GOLDEN = json.loads((Path(__file__).parents[1] / "golden/golden.json").read_text())
CASES = {f"{case['name']}_{case['dtype']}": case for case in GOLDEN["cases"]}
OPTIONS = {field.name for field in dataclasses.fields(RmspropOptions)}

ULPS = {"float64": 8.0, "float32": 8.0}
CENTERED_ULPS = {"float64": 16.0, "float32": 64.0}
"""Units in the last place of the largest |x| by which fifty steps of two libraries may differ.

More for the centered forms: their variance is a difference of nearly equal numbers, which magnifies rounding.
"""


def unhex(numbers, dtype):
    if isinstance(numbers, str):
        return float.fromhex(numbers)
    return np.array([unhex(number, dtype) for number in numbers], dtype)


def inputs(case):
    return (unhex(GOLDEN["inputs"][case["dtype"]][name], case["dtype"]) for name in ("x0", "gradients"))


def options(case):
    return {name: value for name, value in case.items() if name in OPTIONS and name != "learning_rate"}


def assert_close(x, recorded, case):
    assert x.dtype == recorded.dtype == case["dtype"]
    ulps = (CENTERED_ULPS if case["centered"] else ULPS)[case["dtype"]]
    assert np.abs(x - recorded).max() <= ulps * np.spacing(np.abs(recorded).max())


def test_cases_cover_libraries_and_variants():
    assert {case["library"] for case in CASES.values()} == {"torch", "optax", "keras", "tensorflow"}
    for name in ("momentum", "nesterov", "centered", "eps_inside_sqrt", "bias_correction", "weight_decay",
                 "decoupled_weight_decay", "lr_in_momentum", "initial_accumulator"):  # fmt: skip
        for dtype in ("float32", "float64"):
            assert {bool(case[name]) for case in CASES.values() if case["dtype"] == dtype} == {False, True}


@pytest.mark.parametrize("name", CASES)
def test_kernel_does_what_the_library_did(name):
    case = CASES[name]
    x0, gradients = inputs(case)
    rate = case["learning_rate"]
    rates = rate if isinstance(rate, list) else [rate] * len(gradients)
    for step, recorded in zip(GOLDEN["steps"], unhex(case["x"], case["dtype"]), strict=True):
        x, _ = run_kernel(x0, gradients[:step], rates[:step], options(case))
        assert_close(x, recorded, case)


@pytest.mark.parametrize("name", CASES)
def test_reference_does_what_the_library_did(name):
    case = CASES[name]
    path = list(reference_rmsprop(*inputs(case), case["learning_rate"], **options(case)))
    for step, recorded in zip(GOLDEN["steps"], unhex(case["x"], case["dtype"]), strict=True):
        assert_close(path[step - 1], recorded, case)
