"""Tables that the tests run through: the variants of the rule, the dtypes, the sizes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

DTYPES = (np.float32, np.float64)
SIZES = (0, 1, 37, 1000)


def dtypes_in_turn(cases):
    """Every case, with one dtype: where each pair of the two would have to be compiled."""
    pairs = zip(cases.items(), itertools.cycle(DTYPES), strict=False)
    return [pytest.param(case, dtype, id=f"{name}-{dtype.__name__}") for (name, case), dtype in pairs]


VARIANTS = {
    "plain": {},
    "beta": {"beta": 0.5},
    "large_eps": {"eps": 1e-2},
    "eps_inside": {"eps_inside_sqrt": True},
    "accumulator_one": {"initial_accumulator": 1.0, "eps": 1e-10, "eps_inside_sqrt": True},
    "bias_correction": {"bias_correction": True},
    "centered": {"centered": True},
    "centered_bias_correction": {"centered": True, "bias_correction": True, "eps_inside_sqrt": True},
    "momentum": {"momentum": 0.9},
    "momentum_rate_inside": {"momentum": 0.9, "lr_in_momentum": True},
    "nesterov": {"momentum": 0.9, "nesterov": True},
    "nesterov_rate_inside": {"momentum": 0.9, "nesterov": True, "lr_in_momentum": True},
    "weight_decay": {"weight_decay": 0.1},
    "decoupled_weight_decay": {"weight_decay": 0.1, "decoupled_weight_decay": True},
    "everything": {
        "centered": True,
        "momentum": 0.8,
        "nesterov": True,
        "bias_correction": True,
        "weight_decay": 0.01,
        "initial_accumulator": 0.5,
    },
}
