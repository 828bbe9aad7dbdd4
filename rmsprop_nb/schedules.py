"""Learning rates that change with the step.

A schedule is any callable ``step -> learning_rate`` with `step` counted from 0; pass it as
``options={"learning_rate": schedule}``. The functions here make the usual ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable

__all__ = ["Schedule", "constant", "cosine_decay", "exponential_decay", "inverse_time_decay"]

Schedule = Callable[[int], float]


def _check_positive(name: str, value: float) -> None:
    if not (value > 0 and math.isfinite(value)):
        msg = f"{name} must be positive and finite, got {value!r}."
        raise ValueError(msg)


def constant(learning_rate: float) -> Schedule:
    """Return the same learning rate for every step.

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
    _check_positive("learning_rate", learning_rate)
    return lambda step: learning_rate  # noqa: ARG005


def exponential_decay(learning_rate: float, decay_steps: int, decay_rate: float) -> Schedule:
    """Multiply the rate by `decay_rate` every `decay_steps` steps, smoothly.

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
    for name, value in (("learning_rate", learning_rate), ("decay_steps", decay_steps), ("decay_rate", decay_rate)):
        _check_positive(name, value)
    return lambda step: learning_rate * decay_rate ** (step / decay_steps)


def inverse_time_decay(learning_rate: float, decay_steps: int, decay_rate: float = 1.0) -> Schedule:
    """Divide the rate by ``1 + decay_rate*step/decay_steps``.

    Parameters
    ----------
    learning_rate : float
        Rate at step 0; positive.
    decay_steps : int
        Steps after which, with ``decay_rate=1``, the rate is halved; positive.
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
    for name, value in (("learning_rate", learning_rate), ("decay_steps", decay_steps), ("decay_rate", decay_rate)):
        _check_positive(name, value)
    return lambda step: learning_rate / (1.0 + decay_rate * step / decay_steps)


def cosine_decay(learning_rate: float, decay_steps: int, final: float = 0.0) -> Schedule:
    """Go from `learning_rate` down to `final` along half a cosine wave, and stay there.

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
    _check_positive("learning_rate", learning_rate)
    _check_positive("decay_steps", decay_steps)
    if not 0.0 <= final <= learning_rate:
        msg = f"final must be between 0 and learning_rate={learning_rate!r}, got {final!r}."
        raise ValueError(msg)
    span = learning_rate - final
    return lambda step: final + 0.5 * span * (1.0 + math.cos(math.pi * min(step / decay_steps, 1.0)))
