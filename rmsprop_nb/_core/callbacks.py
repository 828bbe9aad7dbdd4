"""What every run calls after an iteration, on the host, over mini-batches and on a device: the user's callback."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from scipy.optimize import OptimizeResult

from rmsprop_nb._core.validate import check_callable

Observe = Callable[[Any, float], bool]
"""``observe(x, fun) -> bool`` is called after an iteration with a copy of x, and returns whether the run is to end."""

Report = Callable[..., None]
"""``report(x, fun, **more)`` calls a user's callback; `more` are further fields of an intermediate result."""


def make_observer(callback: Any, iterates: list[Any] | None = None) -> Observe | None:
    """Make what appends x to `iterates` and calls the callback; None if there is neither."""
    report = as_report(callback)
    if report is None and iterates is None:
        return None

    def observe(x: Any, fun: float) -> bool:
        if iterates is not None:
            iterates.append(x.copy())
        return asks_to_stop(report, x, fun)

    return observe


def as_report(callback: Any) -> Report | None:
    """Return the callback as a `Report`, or None if there is none.

    As in SciPy, a callback whose only parameter is named `intermediate_result` is given an OptimizeResult under that
    name; any other is given x alone.
    """
    if callback is None:
        return None
    check_callable("callback", callback, " or None")
    if takes_result(callback):
        return lambda x, fun, **more: callback(intermediate_result=OptimizeResult(x=x, fun=fun, **more))
    return lambda x, fun, **more: callback(x)  # noqa: ARG005


def takes_result(callback: Any) -> bool:
    """Return whether a callback wants an `intermediate_result` instead of x."""
    try:
        return set(inspect.signature(callback).parameters) == {"intermediate_result"}
    except ValueError:  # a function written in C may not tell its parameters
        return False


def asks_to_stop(report: Report | None, x: Any, fun: float, **more: Any) -> bool:
    """Call the callback, if there is one, and return whether it ends the run by raising StopIteration."""
    if report is None:
        return False
    try:
        report(x, fun, **more)
    except StopIteration:
        return True
    return False
