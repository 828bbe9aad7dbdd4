"""What a schedule returns, checked: the one place where any run asks a user's function for learning rates."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rmsprop_nb._core.validate import as_number

Schedule = Callable[[int], float]


def scheduled_rate(schedule: Schedule, step: int) -> float:
    """Return the learning rate of one step; raise if it is invalid."""
    rate: Any = schedule(step)
    if isinstance(rate, float) and 0.0 <= rate < math.inf:  # nearly always, and a small step takes microseconds
        return float(rate)
    return float(_checked([rate], step)[0])


def scheduled_decay(schedule: Any, step: int) -> float:
    """Return the weight decay of one step; raise if it is invalid."""
    return as_number(f"weight_decay at step {step}", schedule(step), 0.0, math.inf, open_high=True)


def scheduled_rates(schedule: Schedule, step: int, count: int, dtype: Any) -> NDArray[Any]:
    """Return `count` learning rates from `step` on, in a dtype; raise if one is invalid."""
    rates = _checked([schedule(k) for k in range(step, step + count)], step)
    with np.errstate(under="ignore"):
        return rates.astype(dtype)


def memory_of(schedule: Any) -> NDArray[np.float64]:
    """Return what a schedule with memory has in its attribute `state`; nothing, a vector of size 0, of any other."""
    state = getattr(schedule, "state", ())
    try:
        memory = np.array(state, dtype=np.float64)
    except (TypeError, ValueError):
        memory = np.empty((0, 0))
    if memory.ndim != 1:
        msg = (
            f"learning_rate.state must be a vector of numbers, which states and checkpoints keep, got {state!r}; "
            "give what the schedule does not need to remember another name."
        )
        raise TypeError(msg)
    return memory


def remind(schedule: Any, memory: NDArray[np.float64]) -> None:
    """Give a schedule its memory back, if it has one and a run has kept it."""
    if memory.size and hasattr(schedule, "state"):
        schedule.state = memory.copy()


def _checked(values: Sequence[Any], first: int) -> NDArray[np.float64]:
    rates = _as_numbers(values)
    valid = np.isfinite(rates) & (rates >= 0.0)
    if not valid.all():
        k = int(np.argmin(valid))
        msg = f"learning_rate(step) must be finite and not negative, got {values[k]!r} at step {first + k}."
        raise ValueError(msg)
    return rates


def _as_numbers(values: Sequence[Any]) -> NDArray[np.float64]:
    """Return the values as a vector, with NaN in the place of what is not a number."""
    try:
        rates = np.array(values, dtype=np.float64)
    except (TypeError, ValueError):
        rates = np.empty(0)
    if rates.shape == (len(values),):
        return rates
    return np.array([_as_number(value) for value in values])


def _as_number(value: Any) -> float:
    try:
        return float(value) if np.ndim(value) == 0 else float(np.asarray(value).item())
    except (TypeError, ValueError):
        return np.nan
