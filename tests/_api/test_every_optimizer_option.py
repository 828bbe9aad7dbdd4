"""Every option of the optimizer works, or is refused with what to do instead."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
from option_rows import LARGE, gradient, rows
from option_table import RULE, Ignored, Works, check

from rmsprop_nb import RMSprop

OPTIMIZER = {
    **RULE,
    "learning_rate": Works([0.1, 0.2, 0.0]),
    "maximize": Works(True),
    "workers": Works(2, {"x0": LARGE}),
    "clip_value": Works(0.1),
    "clip_norm": Works(0.1),
    "clip_array_norm": Works(0.1),
    "ema": Works(0.9),
    "accumulate_steps": Works(2),
    "check_finite": Works(False, {"grads": np.array([1.0, 1e200, 0.0])}),
    "deterministic": Ignored(True, "On the host this is always so."),
    "per_block": Works({"b": {"learning_rate": 0.5}}),
}


def run_optimizer(x0=(3.0, -1.0, 0.5), grads=None, **options):
    optimizer = RMSprop(**{"learning_rate": 0.1, **options})
    params = {"W": np.array(x0, np.float64), "b": np.ones(3)}
    state = optimizer.init(params)
    for _ in range(4):
        g = np.array(gradient(params["W"]) if grads is None else grads)
        try:
            optimizer.step(params, {"W": g, "b": np.ones(3)}, state)
        except FloatingPointError as error:
            return str(error)
    return {"params": params, "arrays": state.to_arrays()}


@pytest.mark.parametrize("name", rows({(): OPTIMIZER}))
def test_option_of_the_optimizer(name, tmp_path):
    row = OPTIMIZER[name]
    check(name, row, run_optimizer, RMSprop.__doc__ or getattr(row, "words", ""), tmp_path)


def test_every_option_of_the_optimizer_has_a_row():
    assert set(OPTIMIZER) == set(inspect.signature(RMSprop).parameters)
