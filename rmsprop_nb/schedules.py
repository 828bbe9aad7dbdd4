"""Learning rates that change with the step.

A schedule is any callable ``step -> learning_rate`` with `step` counted from 0. Pass it to `minimize` as
``options={"learning_rate": schedule}``, and to `minimize_minibatch` and `RMSprop` as ``learning_rate=schedule``. The
functions here make the usual ones. A step is one update: an epoch of mini-batches has as many steps as batches.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from rmsprop_nb._core.names_elsewhere import explain_keywords
from rmsprop_nb._core.plateau import ReduceOnPlateau
from rmsprop_nb._core.plateau import check_positive as _check_positive
from rmsprop_nb._core.validate import as_array, as_number

__all__ = [
    "ReduceOnPlateau",
    "Schedule",
    "constant",
    "cosine_decay",
    "exponential_decay",
    "inverse_time_decay",
    "linear_decay",
    "one_cycle",
    "piecewise",
    "warm_up",
]

Schedule = Callable[[int], float]


def __dir__() -> list[str]:
    return sorted(__all__)


def _check_fall(learning_rate: float, decay_steps: int, final: float) -> None:
    _check_positive(learning_rate=learning_rate, decay_steps=decay_steps)
    as_number("final", final, 0.0, learning_rate)


def _check_schedule(schedule: Any) -> None:
    if not callable(schedule):
        msg = f"schedule must be a callable step -> rate, got {schedule!r}; for a number use constant(number)."
        raise TypeError(msg)


@explain_keywords()
def constant(learning_rate: float) -> Schedule:
    """Make a schedule with the same learning rate for every step.

    Parameters
    ----------
    learning_rate : float
        The rate; positive.

    Returns
    -------
    schedule : callable
        ``schedule(step) -> learning_rate``.

    Raises
    ------
    ValueError
        If the rate is not positive and finite.

    Examples
    --------
    >>> from rmsprop_nb import schedules
    >>> schedules.constant(0.1)(7)
    0.1
    """
    _check_positive(learning_rate=learning_rate)
    return lambda step: learning_rate  # noqa: ARG005


@explain_keywords()
def exponential_decay(learning_rate: float, decay_steps: int, decay_rate: float) -> Schedule:
    """Make a schedule that smoothly multiplies the rate by `decay_rate` every `decay_steps` steps.

    Parameters
    ----------
    learning_rate : float
        Rate at step 0; positive.
    decay_steps : int
        Steps over which the rate is multiplied by `decay_rate` once; positive.
    decay_rate : float
        Factor; positive.

    Returns
    -------
    schedule : callable
        ``schedule(step) = learning_rate * decay_rate**(step / decay_steps)``.

    Raises
    ------
    ValueError
        If an argument is not positive and finite.

    Examples
    --------
    >>> from rmsprop_nb import schedules
    >>> round(schedules.exponential_decay(0.1, 100, 0.5)(200), 4)
    0.025
    """
    _check_positive(learning_rate=learning_rate, decay_steps=decay_steps, decay_rate=decay_rate)
    return lambda step: learning_rate * decay_rate ** (step / decay_steps)


@explain_keywords()
def inverse_time_decay(learning_rate: float, decay_steps: int, decay_rate: float = 1.0) -> Schedule:
    """Make a schedule that divides the rate by ``1 + decay_rate*step/decay_steps``.

    Parameters
    ----------
    learning_rate : float
        Rate at step 0; positive.
    decay_steps : int
        Steps after which the rate is halved if ``decay_rate=1``; positive.
    decay_rate : float, default 1.0
        Speed of the decay; positive.

    Returns
    -------
    schedule : callable
        ``schedule(step) = learning_rate / (1 + decay_rate * step / decay_steps)``.

    Raises
    ------
    ValueError
        If an argument is not positive and finite.

    Examples
    --------
    >>> from rmsprop_nb import schedules
    >>> schedules.inverse_time_decay(0.1, 100)(100)
    0.05
    """
    _check_positive(learning_rate=learning_rate, decay_steps=decay_steps, decay_rate=decay_rate)
    return lambda step: learning_rate / (1.0 + decay_rate * step / decay_steps)


@explain_keywords()
def cosine_decay(learning_rate: float, decay_steps: int, final: float = 0.0) -> Schedule:
    """Make a schedule that falls from `learning_rate` to `final` along half a cosine wave, and stays there.

    Parameters
    ----------
    learning_rate : float
        Rate at step 0; positive.
    decay_steps : int
        Steps until `final` is reached; positive.
    final : float, default 0.0
        Last rate; from 0 to `learning_rate`.

    Returns
    -------
    schedule : callable
        The schedule of I. Loshchilov, F. Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", 2017, eq. 5,
        without restarts.

    Raises
    ------
    ValueError
        If an argument is out of its range.

    Examples
    --------
    >>> from rmsprop_nb import schedules
    >>> schedule = schedules.cosine_decay(0.1, 100)
    >>> [round(schedule(step), 3) for step in (0, 50, 100, 150)]
    [0.1, 0.05, 0.0, 0.0]
    """
    _check_fall(learning_rate, decay_steps, final)
    span = learning_rate - final
    return lambda step: final + 0.5 * span * (1.0 + math.cos(math.pi * min(step / decay_steps, 1.0)))


@explain_keywords()
def linear_decay(learning_rate: float, decay_steps: int, final: float = 0.0) -> Schedule:
    """Make a schedule that falls from `learning_rate` to `final` along a straight line, and stays there.

    Parameters
    ----------
    learning_rate : float
        Rate at step 0; positive.
    decay_steps : int
        Steps until `final` is reached; positive.
    final : float, default 0.0
        Last rate; from 0 to `learning_rate`.

    Returns
    -------
    schedule : callable
        ``schedule(step) = learning_rate + (final - learning_rate) * min(step / decay_steps, 1)``.

    Raises
    ------
    ValueError
        If an argument is out of its range.

    Examples
    --------
    >>> from rmsprop_nb import schedules
    >>> schedule = schedules.linear_decay(0.1, 100)
    >>> [round(schedule(step), 3) for step in (0, 50, 100, 150)]
    [0.1, 0.05, 0.0, 0.0]
    """
    _check_fall(learning_rate, decay_steps, final)
    return lambda step: learning_rate + (final - learning_rate) * min(step / decay_steps, 1.0)


@explain_keywords()
def warm_up(schedule: Schedule, steps: int, start: float = 0.0) -> Schedule:
    """Make a schedule that rises to another's first rate along a straight line, then follows the other.

    Parameters
    ----------
    schedule : callable
        The schedule to follow; its step 0 is step `steps` of the result.
    steps : int
        Length of the warm-up; positive.
    start : float, default 0.0
        Rate before the first step; at least 0. Step k has ``start + (schedule(0) - start) * (k + 1) / (steps + 1)``, so
        that step 0 is not wasted on a rate of 0.

    Returns
    -------
    schedule : callable
        The schedule with warm-up: P. Goyal et al., "Accurate, Large Minibatch SGD", arXiv:1706.02677, section 2.2.

    Raises
    ------
    TypeError, ValueError
        If `schedule` cannot be called, or an argument is out of its range.

    Examples
    --------
    >>> from rmsprop_nb import schedules
    >>> schedule = schedules.warm_up(schedules.cosine_decay(0.1, 100), 4)
    >>> [round(schedule(step), 3) for step in (0, 1, 2, 3, 4, 54)]
    [0.02, 0.04, 0.06, 0.08, 0.1, 0.05]
    """
    _check_schedule(schedule)
    _check_positive(steps=steps)
    as_number("start", start, 0.0, math.inf, open_high=True)
    first = schedule(0)
    return lambda step: schedule(step - steps) if step >= steps else start + (first - start) * (step + 1) / (steps + 1)


@explain_keywords()
def piecewise(boundaries: Sequence[int], learning_rates: Sequence[float]) -> Schedule:
    """Make a schedule that is constant between boundaries.

    Parameters
    ----------
    boundaries : sequence of int
        Steps at which the rate changes, increasing: a boundary is the first step of the new rate.
    learning_rates : sequence of float
        The rates, one more than there are boundaries; positive.

    Returns
    -------
    schedule : callable
        ``schedule(step)`` is the rate of the piece that contains `step`.

    Raises
    ------
    ValueError
        If the lengths do not match, the boundaries do not increase, or a rate is not positive and finite.

    Examples
    --------
    >>> from rmsprop_nb import schedules
    >>> schedule = schedules.piecewise([100, 200], [0.1, 0.01, 0.001])
    >>> [schedule(step) for step in (0, 99, 100, 199, 200)]
    [0.1, 0.1, 0.01, 0.01, 0.001]
    """
    ends, rates = as_array("boundaries", boundaries).tolist(), as_array("learning_rates", learning_rates).tolist()
    if (
        not (isinstance(ends, list) and isinstance(rates, list))
        or len(rates) != len(ends) + 1
        or any(a >= b for a, b in pairwise(ends))
    ):
        msg = f"boundaries must increase, and learning_rates must have one more element, got {ends!r} and {rates!r}."
        raise ValueError(msg)
    for rate in rates:
        _check_positive(learning_rates=rate)
    return lambda step: rates[bisect_right(ends, step)]


@explain_keywords()
def one_cycle(
    largest: float, total_steps: int, rising: float = 0.3, first_divisor: float = 25.0, last_divisor: float = 1e4
) -> Schedule:
    """Make a schedule that rises to the largest rate and then falls nearly to zero, along half cosine waves.

    Parameters
    ----------
    largest : float
        Largest rate; positive.
    total_steps : int
        Steps of the whole cycle; at least 2. Afterwards the rate stays at the last one.
    rising : float, default 0.3
        Fraction of the steps that rise; between 0 and 1, such that there are steps in both directions.
    first_divisor : float, default 25.0
        The first rate is ``largest / first_divisor``; at least 1.
    last_divisor : float, default 1e4
        The last rate is the first one divided by this; at least 1.

    Returns
    -------
    schedule : callable
        The policy of L. Smith, N. Topin, "Super-Convergence", arXiv:1708.07120, in the form of PyTorch's OneCycleLR
        with its defaults.

    Raises
    ------
    ValueError
        If an argument is out of its range.

    Examples
    --------
    >>> from rmsprop_nb import schedules
    >>> schedule = schedules.one_cycle(0.1, 100)
    >>> [round(schedule(step), 4) for step in (0, 29, 64, 99)]
    [0.004, 0.1, 0.05, 0.0]
    """
    _check_positive(largest=largest, total_steps=total_steps)
    as_number("rising", rising, 0.0, 1.0)
    top = rising * total_steps - 1.0
    if not (total_steps >= 2 and 0.0 < top < total_steps - 1):
        msg = f"total_steps and rising must leave steps to rise and to fall, got {total_steps!r} and {rising!r}."
        raise ValueError(msg)
    for name, value in (("first_divisor", first_divisor), ("last_divisor", last_divisor)):
        as_number(name, value, 1.0, math.inf, open_high=True)
    first = largest / first_divisor
    last = first / last_divisor

    def schedule(step: int) -> float:
        if step <= top:
            return _half_wave(first, largest, step / top)
        return _half_wave(largest, last, min((step - top) / (total_steps - 1 - top), 1.0))

    return schedule


def _half_wave(start: float, end: float, fraction: float) -> float:
    return end + 0.5 * (start - end) * (1.0 + math.cos(math.pi * fraction))
