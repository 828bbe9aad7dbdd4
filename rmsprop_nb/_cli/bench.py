"""Where the time of a minimization goes: the user's objective, the update, the loop between them, or the start.

Machines are noisy, so everything is measured in one process, by turns, and reported as ratios.
"""

from __future__ import annotations

import functools
import importlib
import math
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rmsprop_nb._api.minimize import minimize
from rmsprop_nb._core.settings import Hyper, Variant
from rmsprop_nb._core.validate import as_args, as_start, check_callable, check_jac
from rmsprop_nb._drivers.first_runs import compiled_at_once
from rmsprop_nb._kernels.update import make_update
from rmsprop_nb._methods.registry import OPTIONS
from rmsprop_nb._numba.calls import call_objective
from rmsprop_nb._numba.decorators import kernel_jit
from rmsprop_nb._objectives.compiled import CompiledObjective, compile_objective
from rmsprop_nb._objectives.exact import with_exact_gradient
from rmsprop_nb._objectives.interpreted import PythonObjective
from rmsprop_nb._objectives.problem import Problem

_ROUNDS = 7
_ROUND_SECONDS = 0.05
_UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"), (1e-9, "ns"))
_MAX_CALLS = 2**24  # per round, for a run that ends early whatever its limit
# Steps so short that x does not move: an objective may take longer elsewhere.
_NO_MOTION = {"learning_rate": 1e-300, "gtol": 0.0}


class Timing(NamedTuple):
    """Times in seconds, as medians over rounds.

    Attributes
    ----------
    compiled : bool
        Whether the loop runs compiled.
    evaluation : float
        One evaluation of f and its gradient, without anything else.
    step : float
        One step of the textbook rule in the loop, including its evaluation.
    update : float
        One update of arrays of this size by the rule, without anything else.
    calls : dict
        For each method, the number of evaluations and the seconds of a whole call of `minimize`.
    starts : dict
        For each method, the seconds of a call that ends after one evaluation, without that evaluation: checks, state,
        result.
    """

    compiled: bool
    evaluation: float
    step: float
    update: float
    calls: dict[str, tuple[int, float]]
    starts: dict[str, float]


def time_objective(fun: Any, x0: Any, args: Any = (), jac: Any = None) -> Timing:
    """Measure an objective in one of the forms that `minimize` takes, and `minimize` itself.

    Raises ValueError if a run ends where it begins, because there would be no steps to measure.
    """
    check_objective(fun, x0, args, jac)
    x = as_start(x0)
    none = np.empty(0, x.dtype)
    problem = with_exact_gradient(Problem(fun, check_jac(jac), as_args(args), none, none), x.size, x.dtype)
    objective = compile_objective(problem, x.dtype) or PythonObjective(problem, x.dtype)

    def call(method: str, **options: Any) -> Any:
        return minimize(fun, x, args, method, jac, options=options)

    def steps(count: int) -> Any:
        return call("rmsprop", **_NO_MOTION, maxfev=count)

    jobs = {
        "evaluation": _evaluations(objective, x.copy()),  # an objective may write to x
        "step": lambda count: steps(count + 1),
        "one step": _repeated(functools.partial(steps, 1)),
        "update": _updates(x),
        **{method: _repeated(functools.partial(call, method)) for method in OPTIONS},
        **{f"start of {method}": _repeated(functools.partial(call, method, maxfev=1)) for method in OPTIONS},
    }
    with compiled_at_once():  # what a first run does as Python is not what the next ones cost
        counts, seconds = _time_in_turns(jobs)
    evaluation = seconds["evaluation"]
    return Timing(
        isinstance(objective, CompiledObjective),
        evaluation,
        max(seconds["step"] - seconds["one step"] / counts["step"], evaluation),  # a run of many steps starts once
        seconds["update"],
        {method: (int(call(method).njev), seconds[method]) for method in OPTIONS},
        {method: max(seconds[f"start of {method}"] - evaluation, 0.0) for method in OPTIONS},
    )


def check_objective(fun: Any, x0: Any, args: Any = (), jac: Any = None) -> None:
    """Raise a TypeError or ValueError if the objective is none, or if a run ends where it begins."""
    check_callable("fun", fun)
    first = minimize(fun, as_start(x0), args, "rmsprop", jac, options=_NO_MOTION | {"maxfev": 2})
    if first.njev < 2:
        msg = f"x0 must be a point from which a run goes on, but it ends there: {first.message} Give another x0."
        raise ValueError(msg)


def _time_in_turns(jobs: dict[str, Callable[[int], Any]]) -> tuple[dict[str, int], dict[str, float]]:
    """Time the jobs by turns; return the calls per round, and the median over rounds of the seconds per call."""
    counts = {name: _calls_per_round(job) for name, job in jobs.items()}
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    order = list(jobs)
    for _ in range(_ROUNDS):
        for name in order:
            start = time.perf_counter()
            jobs[name](counts[name])
            seconds[name].append((time.perf_counter() - start) / counts[name])
        order.append(order.pop(0))  # so that no job always finds the cache as the same other job left it
    return counts, {name: statistics.median(values) for name, values in seconds.items()}


def _evaluations(objective: CompiledObjective | PythonObjective, x: NDArray[Any]) -> Callable[[int], Any]:
    g = np.empty_like(x)
    if isinstance(objective, CompiledObjective):

        def evaluate(count: int) -> float:
            with objective.in_turn():
                return float(_evaluate_often(objective.address, x, g, objective.data, count))

        return evaluate
    return _repeated(lambda: objective(x, g))


def _repeated(job: Callable[[], Any]) -> Callable[[int], Any]:
    def repeat(count: int) -> None:
        for _ in range(count):
            job()

    return repeat


@kernel_jit("evaluate often")
def _evaluate_often(address, x, g, data, count):
    total = 0.0
    for _ in range(count):
        total += call_objective(address, x, g, data)
    return total


def _updates(x: NDArray[Any]) -> Callable[[int], Any]:
    vectors = x.copy(), np.ones_like(x), np.ones_like(x), np.empty(0, x.dtype), np.empty(0, x.dtype)
    scalars = x.dtype.type(1e-12), 1.0, Hyper.of(x.dtype, 0.9, 1e-8), 1
    often = _make_update_often()
    return lambda count: often(vectors, scalars, count)


@functools.cache
def _make_update_often() -> Any:
    update = make_update(Variant())

    @kernel_jit("update often")
    def often(vectors, scalars, count):
        for _ in range(count):
            update(*vectors, *scalars)

    return often


def _calls_per_round(job: Callable[[int], Any]) -> int:
    """Return how many calls make a round; the first call compiles what has to be compiled."""
    job(1)
    count = 1
    while count < _MAX_CALLS:
        start = time.perf_counter()
        job(count)
        if time.perf_counter() - start > 0.5 * _ROUND_SECONDS:
            break
        count *= 2
    return count


def report(timing: Timing) -> str:
    """Describe where the time goes, in seconds and in percent."""
    kind = "compiled" if timing.compiled else "Python, and so is the loop; numba.njit compiles both"
    lines = [
        f"objective: {kind}",
        "",
        "a step of the textbook rule       total    objective       update         loop",
        _line("learning_rate=number", "", timing.step, timing.evaluation, timing.update),
        "",
        "a call of minimize  evaluations   total    objective        start         loop",
    ]
    for method, (count, seconds) in timing.calls.items():
        lines.append(_line(method, str(count), seconds, count * timing.evaluation, timing.starts[method]))
    return "\n".join(lines)


def _line(name: str, count: str, whole: float, *parts: float) -> str:
    """Return a line with the time of the whole, and the times and shares of its parts and of the rest.

    Despite noise, the parts add up to the whole.
    """
    cells, rest, percent = "", whole, 100
    for part in parts:
        time_of_part = min(part, rest)
        share = min(round(100.0 * time_of_part / whole), percent)
        cells += _cell(time_of_part, share)
        rest, percent = rest - time_of_part, percent - share
    return f"  {name:20}{count:>9}{_readable(whole):>8}{cells}{_cell(rest, percent)}"


def _cell(seconds: float, share: int) -> str:
    return f"{_readable(seconds):>8}{share:4}%"


def _readable(seconds: float) -> str:
    """Return three digits and a unit."""
    unit, name = next((u for u in _UNITS if seconds >= u[0]), _UNITS[-1])
    digits = 2 - min(math.floor(math.log10(max(seconds / unit, 1.0))), 2)
    return f"{seconds / unit:.{digits}f} {name}"


def find(text: str) -> Any:
    """Return the object at ``module:name``, or the array of ``1.0,2.0``; a ValueError says what is wrong."""
    if ":" not in text:
        try:
            return np.array([float(number) for number in text.split(",")])
        except ValueError:
            msg = f"{text!r} must be module:name, or numbers such as 1.0,2.0."
            raise ValueError(msg) from None
    module, _, name = text.partition(":")
    sys.path.insert(0, os.getcwd())  # noqa: PTH109 - like python -m for the modules that it runs
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
