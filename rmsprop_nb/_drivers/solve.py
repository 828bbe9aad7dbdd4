"""From a validated problem and options to a finished state: chooses the algorithm, makes the state, runs the loop."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rmsprop_nb._core.callbacks import Observe
from rmsprop_nb._core.options import LbfgsOptions, RmspropOptions
from rmsprop_nb._core.progress import checkpoints_and_progress
from rmsprop_nb._core.rates import scheduled_rates
from rmsprop_nb._core.records import Arrays
from rmsprop_nb._core.run_state import RunState
from rmsprop_nb._core.settings import Settings, Variant
from rmsprop_nb._drivers.loop import Algorithm, Monitor, drive
from rmsprop_nb._kernels.update import PARALLEL_MIN_SIZE
from rmsprop_nb._methods import conjugate_gradient as _auto
from rmsprop_nb._methods import descent as _descent
from rmsprop_nb._methods import lbfgs as _lbfgs
from rmsprop_nb._methods import textbook as _textbook
from rmsprop_nb._numba.thread_safety import usable_threads
from rmsprop_nb._objectives.compiled import compile_objective
from rmsprop_nb._objectives.interpreted import PythonObjective
from rmsprop_nb._objectives.problem import Problem

AnyOptions = RmspropOptions | LbfgsOptions

# How much of the slope a line search may leave: little for conjugate directions, much where a unit step is the rule.
CG_CURVATURE = 0.1
LBFGS_CURVATURE = 0.9

LONGEST_TABLE = 10**6
"""Most learning rates that are computed before a batch begins."""


def run(
    problem: Problem,
    x: NDArray[Any],
    options: AnyOptions,
    observe: Observe | None,
    bind: Callable[[Callable[[Problem], Any]], Any] | None = None,
) -> tuple[RunState, NDArray[np.float64]]:
    """Run to the end, compiled if that is possible and otherwise interpreted; return the final state and the record.

    `bind` makes an objective of another kind, as that of many ranks, given what makes one for this process.
    """
    state = starting_state(problem, x, options)
    settings = settings_of(options, x)
    algorithm = algorithm_of(options, settings.blocks > 1)

    def make(problem: Problem) -> Any:
        return compile_objective(problem, x.dtype) or PythonObjective(problem)

    objective = make(problem) if bind is None else bind(make)
    with checkpoints_and_progress(state, options, total=_total(options.maxiter), unit="it") as on_chunk:
        monitor = Monitor(observe, _schedule(options), options.seconds, options.stride, on_chunk)
        return state, drive(algorithm, state, objective, settings, monitor)


def starting_state(problem: Problem, x: NDArray[Any], options: AnyOptions) -> RunState:
    """Make the state of a new run from x, or copy that of the run to go on with."""
    if options.state is None:
        return _new_state(problem, x, options)
    return _resumed(options.state, problem, x, options)


def _new_state(problem: Problem, x: NDArray[Any], options: AnyOptions) -> RunState:
    start = x.copy()
    if problem.lower.size:
        np.clip(start, problem.lower, problem.upper, out=start)
    searches = not _is_textbook(options)
    variant = options.variant if isinstance(options, RmspropOptions) else Variant()
    memory = options.memory if isinstance(options, LbfgsOptions) else 0

    def vector(needed: bool = True) -> NDArray[Any]:
        return np.zeros(x.size if needed else 0, x.dtype)

    state = RunState(
        _kind(options),
        Arrays(
            x=start,
            g=vector(),
            x_eval=vector(),
            g_eval=np.full(x.size, np.nan, x.dtype),  # an element that the objective never fills is seen
            x_best=start.copy(),
            g_best=vector(),
            square_avg=vector() + x.dtype.type(getattr(options, "initial_accumulator", 0.0)),
            grad_avg=vector(variant.centered),
            momentum_buffer=vector(variant.momentum or searches),
            metric=vector(searches),
            lower=problem.lower,
            upper=problem.upper,
            steps=np.zeros((memory, x.size), x.dtype),
            gradient_changes=np.zeros((memory, x.size), x.dtype),
            pair_sums=np.zeros((memory, 2)),
        ),
    )
    state.record["f"], state.record["f_best"] = np.nan, np.inf
    return state


def _is_textbook(options: AnyOptions) -> bool:
    return isinstance(options, RmspropOptions) and not options.auto


def _kind(options: AnyOptions) -> tuple[Any, ...]:
    """What a state must have in common with a run that goes on from it."""
    if isinstance(options, LbfgsOptions):
        return "rmsprop-lbfgs", options.memory
    return ("rmsprop",) if options.auto else ("textbook", options.variant)


def algorithm_of(options: AnyOptions, parallel: bool) -> Algorithm:
    """The ask and tell that the options ask for."""
    if isinstance(options, LbfgsOptions):
        return Algorithm(("rmsprop-lbfgs",), _descent.ask, _lbfgs.tell)
    if options.auto:
        return Algorithm(("rmsprop",), _descent.ask, _auto.tell)
    ask = _textbook.make_ask(options.variant, parallel)
    return Algorithm(("textbook", options.variant, parallel), ask, _textbook.tell)


def settings_of(options: AnyOptions, x: NDArray[Any]) -> Settings:
    """What compiled code is given besides the state, for an x like this one."""
    rate = getattr(options, "learning_rate", None)
    parallel = getattr(options, "parallel", False) and x.size >= PARALLEL_MIN_SIZE
    return Settings(
        hyper=options.hyper(x.dtype),
        tests=options.stopping_tests(x.dtype),
        rates=np.array([0.0 if rate is None or isinstance(rate, str) or callable(rate) else rate], dtype=x.dtype),
        curvature=LBFGS_CURVATURE if isinstance(options, LbfgsOptions) else CG_CURVATURE,
        blocks=usable_threads() if parallel else 1,
    )


def batch_settings(options: AnyOptions, x: NDArray[Any]) -> Settings:
    """The settings of runs that do not come back to Python: a schedule is asked for every iteration there may be."""
    settings = settings_of(options, x)
    schedule = _schedule(options)
    if schedule is None:
        return settings
    if settings.tests.maxiter > LONGEST_TABLE:
        msg = f"in a batch a schedule needs maxiter of at most {LONGEST_TABLE}, got {options.maxiter}."
        raise ValueError(msg)
    return settings._replace(rates=scheduled_rates(schedule, 0, max(settings.tests.maxiter, 1), x.dtype))


def _total(maxiter: Any) -> int | None:
    """What a progress bar counts up to."""
    return None if maxiter is None or maxiter == math.inf else int(maxiter)


def _schedule(options: AnyOptions) -> Callable[[int], float] | None:
    rate = getattr(options, "learning_rate", None)
    return rate if callable(rate) else None


def _resumed(state: Any, problem: Problem, x: NDArray[Any], options: AnyOptions) -> RunState:
    """Copy the state of another run, after checking that it is sound and that these arguments go on with it."""
    kind = _kind(options)
    if not isinstance(state, RunState):
        msg = f"state must be the state of an earlier result, got {type(state).__name__}."
        raise TypeError(msg)
    if state.kind != kind:
        msg = f"state is of a run of {state.kind}, these options ask for {kind}; resume with the options it began with."
        raise ValueError(msg)
    copied = state.checked_copy()
    old = copied.arrays
    if old.x.shape != x.shape or old.x.dtype != x.dtype:
        msg = f"state is for x of shape {old.x.shape} and {old.x.dtype}, got x0 of shape {x.shape} and {x.dtype}."
        raise ValueError(msg)
    if not (np.array_equal(old.lower, problem.lower) and np.array_equal(old.upper, problem.upper)):
        msg = "state was made with other bounds; resume with the bounds it began with."
        raise ValueError(msg)
    return copied
