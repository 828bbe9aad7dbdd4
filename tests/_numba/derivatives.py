"""What the tests of exact derivatives share: golden values of JAX, and functions differentiated on the spot."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import gradient_cases
import numpy as np
from numba import njit

from rmsprop_nb import value_and_grad

CASES = gradient_cases.CASES
JAX = json.loads(Path(gradient_cases.__file__).with_name("gradients.json").read_text())

WIDTH = 4
"""Variables in a pass where it does not matter: what is compiled for them serves many functions."""


@functools.cache
def differentiated(function, **how):
    """The compiled gradient of a function that is not compiled yet."""
    return value_and_grad(njit(function), **how)


def derivatives(function, x, *args, **how):
    """Return f and its gradient; `how` is given to `value_and_grad`."""
    x = np.asarray(x)
    gradient = np.full_like(x, np.nan)
    return differentiated(function, **(how or {"chunk": WIDTH}))(x, gradient, *args), gradient
