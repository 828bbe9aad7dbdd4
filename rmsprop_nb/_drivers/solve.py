"""From a validated problem and options to a finished state: make the state, run the loop."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rmsprop_nb._core.callbacks import Observe
from rmsprop_nb._core.options import Options
from rmsprop_nb._core.progress import checkpoints_and_progress
from rmsprop_nb._core.rates import scheduled_rates
from rmsprop_nb._core.records import Arrays
from rmsprop_nb._core.settings import EXACT, Sampling, Settings
from rmsprop_nb._core.status import Status
from rmsprop_nb._core.validate import check_sizes, typical_sizes
from rmsprop_nb._drivers.loop import Monitor, drive, kept_if_interrupted
from rmsprop_nb._kernels.update import PARALLEL_MIN_SIZE
from rmsprop_nb._methods.method import Algorithm
from rmsprop_nb._methods.points import point_found
from rmsprop_nb._methods.registry import method_of, told_apart
from rmsprop_nb._methods.run_state import RunState
from rmsprop_nb._numba.thread_safety import usable_threads
from rmsprop_nb._objectives.compiled import compile_objective
from rmsprop_nb._objectives.interpreted import PythonObjective
from rmsprop_nb._objectives.problem import Problem

LONGEST_TABLE = 10**6
"""Largest number of learning rates that are computed before a batch begins."""


def run(
    problem: Problem,
    x: NDArray[Any],
    options: Options,
    observe: Observe | None,
    bind: Callable[[Callable[[Problem], Any]], Any] | None = None,
) -> tuple[RunState, NDArray[np.float64]]:
    """Run to the end, compiled if possible and otherwise interpreted; return the final state and the recorded rows.

    `bind` replaces the objective, as ranks do: it is given the function that makes the objective of this process.
    """
    state = starting_state(problem, x, options)
    settings = settings_of(options, x, problem.sampling)
    algorithm = algorithm_of(options, settings.pieces > 1)

    def make(problem: Problem) -> Any:
        return compile_objective(problem, x.dtype) or PythonObjective(problem, x.dtype)

    objective = make(problem) if bind is None else bind(make)
    accompanied = checkpoints_and_progress(state, options, options.schedule, total=_total(options.maxiter), unit="it")
    with kept_if_interrupted(state) as ended, accompanied as on_chunk:
        monitor = Monitor(observe, options.schedule, options.seconds, options.stride, on_chunk)
        ended.append(drive(algorithm, state, objective, settings, monitor))
    return state, ended[0]


def starting_state(problem: Problem, x: NDArray[Any], options: Options) -> RunState:
    """Make the state of a new run from x, or copy the state to resume."""
    if options.state is None:
        return _new_state(problem, x, options)
    return _resumed(options.state, problem, x, options)


def _new_state(problem: Problem, x: NDArray[Any], options: Options) -> RunState:
    kind = options.kind
    layout = method_of(options).layout(*kind[1:])
    arrays = Arrays(**layout.zeros(x.size, x.dtype, optional=problem.lower.size > 0))
    arrays.x[:] = x
    if problem.lower.size:
        arrays.lower[:], arrays.upper[:] = problem.lower, problem.upper
        np.clip(x, problem.lower, problem.upper, out=arrays.x)
    arrays.x_best[:] = arrays.x
    if "x_scale" in layout.given:
        arrays.x_scale[:] = typical_sizes(options.x_scale, arrays.x, arrays.lower, arrays.upper)
    arrays.g_eval.fill(np.nan)  # an element that the objective never fills is seen
    arrays.square_avg.fill(options.first_square_avg)
    state = RunState(kind, arrays)
    p = state.record[0]
    p["f"], p["f_best"] = np.nan, np.inf
    p["f_eps"] = np.finfo(x.dtype).eps
    p["f_noise"] = options.noise
    p["rel_step"] = problem.rel_step(p["f_eps"]) if problem.by_differences else 0.0
    return state


def algorithm_of(options: Options, parallel: bool) -> Algorithm:
    """Return the ask and tell that the options ask for."""
    return method_of(options).algorithm(*options.kind[1:], parallel=parallel)


def settings_of(options: Options, x: NDArray[Any], sampling: Sampling = EXACT) -> Settings:
    """Return the settings of a run for an x of this size and dtype."""
    return Settings(
        hyper=options.hyper(x.dtype),
        tests=options.stopping_tests(x.dtype),
        rates=np.array([options.rate], dtype=x.dtype),
        curvature=method_of(options).curvature,
        pieces=usable_threads() if options.threaded and x.size >= PARALLEL_MIN_SIZE else 1,
        sampling=sampling,
    )


def batch_settings(options: Options, x: NDArray[Any], sampling: Sampling) -> Settings:
    """Return the settings of runs that do not return to Python: a schedule is evaluated in advance."""
    settings = settings_of(options, x, sampling)
    schedule = options.schedule
    if schedule is None:
        return settings
    if settings.tests.maxiter > LONGEST_TABLE:
        msg = f"in a batch a schedule needs maxiter of at most {LONGEST_TABLE}, got {options.maxiter}."
        raise ValueError(msg)
    return settings._replace(rates=scheduled_rates(schedule, 0, max(settings.tests.maxiter, 1), x.dtype))


def _total(maxiter: Any) -> int | None:
    """Return the number that a progress bar counts up to."""
    return None if maxiter is None or maxiter == math.inf else int(maxiter)


def outcome(state: RunState) -> tuple[Status, tuple[NDArray[Any], float, NDArray[Any]]]:
    """Return the status, and x, f and the gradient of the point to return."""
    p = state.record[0]
    return Status(int(p["status"])), point_found(p, state.arrays)


def _resumed(state: Any, problem: Problem, x: NDArray[Any], options: Options) -> RunState:
    """Copy the state of another run, after checking that it is sound and fits these arguments."""
    kind = options.kind
    if not isinstance(state, RunState):
        msg = f"state must be the state of an earlier result, got {type(state).__name__}."
        raise TypeError(msg)
    if state.kind != kind:
        msg = f"{told_apart(state.kind, kind)}; resume with the options it began with."
        raise ValueError(msg)
    copied = state.checked_copy()
    old = copied.arrays
    if old.x.shape != x.shape or old.x.dtype != x.dtype:
        msg = f"state is for x of shape {old.x.shape} and {old.x.dtype}, got x0 of shape {x.shape} and {x.dtype}."
        raise ValueError(msg)
    if not (np.array_equal(old.lower, problem.lower) and np.array_equal(old.upper, problem.upper)):
        msg = "state was made with other bounds; resume with the bounds it began with."
        raise ValueError(msg)
    given = options.x_scale
    if not isinstance(given, str) and not np.array_equal(old.x_scale, check_sizes(given, x)):
        msg = "state was made with other typical sizes; resume with the x_scale it began with, or without it."
        raise ValueError(msg)
    return copied
