"""From a validated problem and options to a finished state: chooses the algorithm, makes the state, runs the loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from rmsprop_nb import _auto, _textbook
from rmsprop_nb._cpu import PARALLEL_MIN_SIZE
from rmsprop_nb._loop import Algorithm, Monitor, drive
from rmsprop_nb._objective import Problem, PythonObjective, WritesIntoX, compile_objective
from rmsprop_nb._options import RmspropOptions
from rmsprop_nb._types import Arrays, RunState, Settings

__all__ = ["run", "starting_state"]


def run(
    problem: Problem,
    x: NDArray[Any],
    options: RmspropOptions,
    on_iteration: Callable[[NDArray[Any], float], None] | None,
) -> tuple[RunState, NDArray[np.float64]]:
    """Run to the end, compiled if that is possible and otherwise interpreted; return the final state and the record."""
    state = starting_state(problem, x, options)
    settings = _settings(options, x)
    algorithm = _algorithm(options, settings.blocks > 1)
    monitor = Monitor(
        on_iteration=on_iteration,
        schedule=options.learning_rate if callable(options.learning_rate) else None,
        maxtime=options.seconds,
        stride=options.stride,
    )
    objective = compile_objective(problem, x.dtype)
    if objective is not None:
        try:
            return state, drive(algorithm, state, objective, settings, monitor)
        except WritesIntoX:  # seen after the first evaluation: start again, with copies
            state = starting_state(problem, x, options)
    return state, drive(algorithm, state, PythonObjective(problem), settings, monitor)


def starting_state(problem: Problem, x: NDArray[Any], options: RmspropOptions) -> RunState:
    """Make the state of a new run from x, or copy that of the run to go on with."""
    if options.state is not None:
        return _resumed(options.state, problem, x, _kind(options))
    start = x.copy()
    if problem.lower.size:
        np.clip(start, problem.lower, problem.upper, out=start)
    variant = options.variant
    none = np.empty(0, x.dtype)
    state = RunState(
        _kind(options),
        Arrays(
            x=start,
            g=np.zeros_like(x),
            x_eval=np.zeros_like(x),
            g_eval=np.full_like(x, np.nan),  # an element that the objective never fills is seen
            x_best=start.copy(),
            g_best=np.zeros_like(x),
            square_avg=np.full_like(x, options.initial_accumulator),
            grad_avg=np.zeros_like(x) if variant.centered else none,
            momentum_buffer=np.zeros_like(x) if variant.momentum or options.auto else none,
            metric=np.zeros_like(x) if options.auto else none,
            lower=problem.lower,
            upper=problem.upper,
        ),
    )
    state.progress.f_best = np.inf
    return state


def _kind(options: RmspropOptions) -> tuple[Any, ...]:
    return ("auto",) if options.auto else ("textbook", options.variant)


def _algorithm(options: RmspropOptions, parallel: bool) -> Algorithm:
    if options.auto:
        return Algorithm(("auto",), _auto.ask, _auto.tell)
    ask = _textbook.make_ask(options.variant, parallel)
    return Algorithm(("textbook", options.variant, parallel), ask, _textbook.tell)


def _settings(options: RmspropOptions, x: NDArray[Any]) -> Settings:
    rate = options.learning_rate if isinstance(options.learning_rate, float | int) else 0.0
    return Settings(
        hyper=options.hyper(x.dtype),
        tests=options.stopping_tests(x.dtype),
        rates=np.array([rate], dtype=x.dtype),
        curvature=0.4,
        blocks=numba.get_num_threads() if options.parallel and x.size >= PARALLEL_MIN_SIZE else 1,
    )


def _resumed(state: Any, problem: Problem, x: NDArray[Any], kind: tuple[Any, ...]) -> RunState:
    if not isinstance(state, RunState):
        msg = f"state must be the state of an earlier result, got {type(state).__name__}."
        raise TypeError(msg)
    old = state.arrays
    if state.kind != kind:
        msg = (
            f"state was made by {state.kind}, but these options ask for {kind}; resume with the options it began with."
        )
        raise ValueError(msg)
    if old.x.shape != x.shape or old.x.dtype != x.dtype:
        msg = f"state is for x of shape {old.x.shape} and {old.x.dtype}, got x0 of shape {x.shape} and {x.dtype}."
        raise ValueError(msg)
    if not (np.array_equal(old.lower, problem.lower) and np.array_equal(old.upper, problem.upper)):
        msg = "state was made with other bounds; resume with the bounds it began with."
        raise ValueError(msg)
    return state.copy()
