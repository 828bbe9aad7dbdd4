"""Where the time of a minimization goes: the user's objective, the update, or the loop between them.

Everything is measured in one process, round about, and told as ratios: machines are noisy.
"""

from __future__ import annotations

import functools
import importlib
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rmsprop_nb._jit import kernel_jit
from rmsprop_nb._minimize import FORMS, METHODS, minimize
from rmsprop_nb._native import call_objective
from rmsprop_nb._objective import CompiledObjective, Problem, PythonObjective, compile_objective
from rmsprop_nb._optimizer import RMSprop
from rmsprop_nb._validate import as_args, as_start, check_callable, check_jac

__all__ = ["Timing", "find", "report", "time_objective"]

_ROUNDS = 7
_ROUND_SECONDS = 0.05
_MOST = 2**24  # in a round, for a run that ends early whatever its limit
# Steps so short that x stays where it is: an objective may take longer elsewhere.
_STANDING = {"learning_rate": 1e-300, "gtol": 0.0}


class Timing(NamedTuple):
    """Seconds, as medians over rounds.

    Attributes
    ----------
    compiled : bool
        Whether the loop runs compiled.
    evaluation : float
        One evaluation of f and its gradient, nothing else.
    step : float
        One step of the textbook rule in the loop, its evaluation included.
    update : float
        One update of arrays of this size by the rule, through the step of `RMSprop`.
    calls : dict
        For each method the evaluations and the seconds of a whole call of `minimize`.
    """

    compiled: bool
    evaluation: float
    step: float
    update: float
    calls: dict[str, tuple[int, float]]


def time_objective(fun: Any, x0: Any, args: Any = (), jac: Any = None) -> Timing:
    """Measure an objective in one of the forms that `minimize` takes, and `minimize` around it.

    ValueError if a run ends where it begins: there would be no steps to measure.
    """
    check_callable("fun", fun)
    x = as_start(x0)
    none = np.empty(0, x.dtype)
    problem = Problem(fun, check_jac(jac, FORMS), as_args(args), none, none, None)
    objective = compile_objective(problem, x.dtype) or PythonObjective(problem)

    def whole(method: str) -> Any:
        return minimize(fun, x, args, method, jac)

    def steps(count: int) -> Any:
        return minimize(fun, x, args, jac=jac, options={**_STANDING, "maxiter": count - 1})

    first = steps(2)
    if first.njev < 2:
        msg = f"x0 must be a point from which a run goes on, but it ends there: {first.message} Give another x0."
        raise ValueError(msg)

    jobs = {
        "evaluation": _evaluations(objective, x.copy()),  # an objective may write to x
        "step": lambda count: steps(count + 1),
        "start": _often(functools.partial(steps, 1)),
        "update": _updates(x),
        **{method: _often(functools.partial(whole, method)) for method in METHODS},
    }
    counts = {name: _enough(job) for name, job in jobs.items()}
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(_ROUNDS):
        for name, job in jobs.items():
            start = time.perf_counter()
            job(counts[name])
            seconds[name].append((time.perf_counter() - start) / counts[name])
    # a run of many steps has one start
    steady = [step - start / counts["step"] for step, start in zip(seconds["step"], seconds["start"], strict=True)]
    return Timing(
        isinstance(objective, CompiledObjective),
        statistics.median(seconds["evaluation"]),
        statistics.median(steady),
        statistics.median(seconds["update"]),
        {method: (int(whole(method).njev), statistics.median(seconds[method])) for method in METHODS},
    )


def _evaluations(objective: CompiledObjective | PythonObjective, x: NDArray[Any]) -> Callable[[int], Any]:
    g = np.empty_like(x)
    if isinstance(objective, CompiledObjective):
        return lambda count: _evaluate_often(objective.address, x, g, objective.data, count)
    return _often(lambda: objective(x, g))


def _often(job: Callable[[], Any]) -> Callable[[int], Any]:
    def repeat(count: int) -> None:
        for _ in range(count):
            job()

    return repeat


@kernel_jit("evaluate often")
def _evaluate_often(address, x, g, data, count):  # type: ignore[no-untyped-def]
    total = 0.0
    for _ in range(count):
        total += call_objective(address, x, g, data)
    return total


def _updates(x: NDArray[Any]) -> Callable[[int], Any]:
    optimizer = RMSprop(1e-3, check_finite=False)
    params, grads = x.copy(), np.ones_like(x)
    state = optimizer.init(params)
    return _often(lambda: optimizer.step(params, grads, state))


def _enough(job: Callable[[int], Any]) -> int:
    """How many make a round; what has to be compiled is compiled here."""
    job(1)
    count = 1
    while count < _MOST:
        start = time.perf_counter()
        job(count)
        if time.perf_counter() - start > 0.5 * _ROUND_SECONDS:
            break
        count *= 2
    return count


def report(timing: Timing) -> str:
    """Tell where the time goes, in fractions."""
    kind = "compiled" if timing.compiled else "Python: the loop is, too; numba.njit makes both compiled"
    between = max(timing.step - timing.evaluation, 0.0)
    lines = [
        f"objective: {kind}",
        "",
        "a step of the textbook rule",
        f"  objective       {_percent(timing.evaluation, timing.step)}",
        f"  loop and update {_percent(between, timing.step)}",
        f"  for comparison, RMSprop.step on arrays of this size: {timing.update / timing.evaluation:.3g} evaluations",
        "",
        "a whole call of minimize           evaluations   objective   the rest",
    ]
    for method, (count, seconds) in timing.calls.items():
        used = min(count * timing.evaluation, seconds)
        rest = _percent(seconds - used, seconds)
        lines.append(f'  method="{method}"'.ljust(34) + f"{count:>11}   {_percent(used, seconds):>9}   {rest:>8}")
    return "\n".join(lines)


def _percent(part: float, whole: float) -> str:
    return f"{100.0 * part / whole:5.1f} %"


def find(text: str) -> Any:
    """Return what ``module:name`` says, or the value of ``1.0,2.0``; ValueError says what is wrong with it."""
    if ":" not in text:
        try:
            return np.array([float(number) for number in text.split(",")])
        except ValueError:
            msg = f"{text!r} must be module:name, or numbers such as 1.0,2.0."
            raise ValueError(msg) from None
    module, _, name = text.partition(":")
    sys.path.insert(0, os.getcwd())  # noqa: PTH109 - as python -m does for modules that it runs
    try:
        return getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        if error.name is None or not module.startswith(error.name):
            raise
        msg = f"There is no module {module!r} here or on the path."
        raise ValueError(msg) from None
    except AttributeError:
        msg = f"{module!r} has no {name!r}."
        raise ValueError(msg) from None
    finally:
        sys.path.pop(0)
