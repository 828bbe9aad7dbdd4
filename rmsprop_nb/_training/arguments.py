"""Arguments of the optimizer, turned into valid values or a clear error."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from rmsprop_nb._core.validate import as_array, as_count, as_number, check_learning_rate


def as_rate(rate: Any) -> Any:
    """Return a learning rate; an array of rates as a copy that cannot be written."""
    if callable(rate) or as_array("learning_rate", rate).ndim == 0:
        check_learning_rate(rate, auto=False, zero=True)
        return rate
    rates = as_array("learning_rate", rate, np.float64).copy()
    if not (np.isfinite(rates).all() and (rates >= 0.0).all()):
        msg = "learning_rate must be finite and not negative in every element."
        raise ValueError(msg)
    rates.setflags(write=False)
    return rates


def as_steps(value: Any) -> int:
    """Return accumulate_steps as an int; unlike other counts it is never infinite, because nothing would be updated."""
    steps = as_count("accumulate_steps", value, 0, least=1)
    if steps == 0:
        msg = f"accumulate_steps must be an integer of at least 1, got {value!r}."
        raise ValueError(msg)
    return steps


def check_clipping(**limits: Any) -> None:
    """Raise unless at most one limit of gradients is given, and it is a positive number."""
    given = {name: limit for name, limit in limits.items() if limit is not None}
    for name, limit in given.items():
        as_number(name, limit, 0.0, math.inf, open_low=True, open_high=True)
    if len(given) > 1:
        msg = f"{' and '.join(given)} must not be given together; leave out all but one."
        raise ValueError(msg)
