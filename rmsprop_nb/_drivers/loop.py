"""The loop around ask and tell: it iterates, counts and watches the clock. It knows neither the method nor SciPy.

A compiled objective runs in a compiled loop, in chunks of evaluations short enough that Ctrl-C, time limits and
callbacks take effect at once. Chunks do not change the results: the whole state of a run is in its arrays and record.
"""

from __future__ import annotations

import contextlib
import functools
import math
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rmsprop_nb._core.callbacks import Observe
from rmsprop_nb._core.rates import Schedule, scheduled_rates
from rmsprop_nb._core.settings import Settings
from rmsprop_nb._core.status import Status
from rmsprop_nb._drivers.first_runs import as_python, compiled_in_time
from rmsprop_nb._drivers.inner_runs import answers_interrupts, is_inner_run
from rmsprop_nb._methods.method import Algorithm
from rmsprop_nb._methods.run_state import RunState
from rmsprop_nb._numba.calls import call_objective
from rmsprop_nb._numba.decorators import JIT_ENABLED, inline_jit, is_compiled, kernel_jit
from rmsprop_nb._numba.thread_safety import in_turn
from rmsprop_nb._objectives.compiled import CompiledObjective

_RUNNING = int(Status.RUNNING)

SAME_VALUE = 1e-6
"""How far f may be from what a state has of it, relative to what is known of its size."""

CHUNK_SECONDS = 0.02
"""Time after which compiled code returns to Python."""

LARGEST_CHUNK = 2**20
LARGEST_RECORDED_CHUNK = 2**16
"""Most evaluations in a chunk; fewer if iterations are recorded or Python computes their learning rates."""

TRACE_COLUMNS = ("nit", "nfev", "fun", "gnorm", "learning_rate")


Evaluate = Callable[[NDArray[Any], NDArray[Any]], float]
"""``evaluate(x, g) -> f`` fills g."""


class Monitor(NamedTuple):
    """What accompanies a run.

    ``observe(x, f)`` is called after every iteration and returns whether the run is to end; ``schedule(step)`` gives
    the learning rate where it is not constant; ``stride`` > 0 records every stride-th iteration; ``on_chunk()`` is
    called whenever the loop is in Python, a few tens of times a second.
    """

    observe: Observe | None = None
    schedule: Schedule | None = None
    maxtime: float = math.inf
    stride: int = 0
    on_chunk: Callable[[], None] | None = None


class StopRun(Exception):
    """Raised by an objective to end the run with a status."""

    def __init__(self, status: Status) -> None:
        super().__init__(status)
        self.status = status


Advance = Callable[[Any, int, bool, NDArray[np.float64], int], int]


@answers_interrupts
def drive(
    algorithm: Algorithm,
    state: RunState,
    objective: CompiledObjective | Evaluate,
    settings: Settings,
    monitor: Monitor,
) -> NDArray[np.float64]:
    """Run until a test is met; the status is left in the state. Returns the recorded rows, `TRACE_COLUMNS`."""
    p = state.record[0]  # items are faster than attributes
    p["status"], p["nit"], p["nfev"], p["calls"] = _RUNNING, 0, 0, 0
    if (follow := getattr(objective, "follow", None)) is not None:
        follow(state.arrays, state.record)
    advance = _compiled_in_time(algorithm, state, objective)
    rows: list[NDArray[np.float64]] = []
    try:
        if math.isfinite(p["f_best"]):  # it is resumed
            _check_objective(objective, state)
        run_chunks(taking_turns(advance, objective, settings), state, settings, monitor, rows)
    except StopRun as stop:
        p["status"] = int(stop.status)
    except KeyboardInterrupt:
        if is_inner_run() or not math.isfinite(p["f_best"]):  # the latter: there is nothing to return yet
            raise
        p["status"] = int(Status.INTERRUPTED)
    return np.concatenate(rows) if rows else np.empty((0, len(TRACE_COLUMNS)))


def _check_objective(objective: Evaluate, state: RunState) -> None:
    """Raise unless the objective has, at the best point of a state, the value that the state has of it.

    An objective whose values differ from call to call cannot be recognized, and is not looked at.
    """
    record, arrays = state.record.copy(), state.arrays

    def value() -> float:
        return objective(arrays.x_best.copy(), np.empty_like(arrays.g_eval))

    known, start = float(record[0]["f_best"]), float(record[0]["f_start"])
    scale = max(abs(known), abs(start - known) if math.isfinite(start) else 0.0)
    f = value()
    is_known = abs(f - known) <= SAME_VALUE * scale or (math.isfinite(f) and f != value())
    state.record[:] = record  # these evaluations are none of the run
    if not is_known:
        msg = (
            f"state is of another objective, or of other args: at its best point fun is {f!r}, where it was {known!r}. "
            "Resume with the fun and args that it began with, or begin anew at x0=state.arrays.x_best."
        )
        raise ValueError(msg)


@contextlib.contextmanager
def kept_if_interrupted(state: RunState) -> Iterator[list[NDArray[np.float64]]]:
    """Yield a list for what a run has recorded; once it is there, Ctrl-C is a status and no longer loses the run."""
    ended: list[NDArray[np.float64]] = []
    try:
        yield ended
    except KeyboardInterrupt:
        if not ended or is_inner_run():
            raise
        state.record[0]["status"] = int(Status.INTERRUPTED)


def run_chunks(
    advance: Advance, state: RunState, settings: Any, monitor: Monitor, rows: list[NDArray[np.float64]]
) -> None:
    """Call `advance` until the state has a status; append what it recorded to `rows`."""
    p = state.record[0]
    start = time.perf_counter()
    pause = monitor.observe is not None
    largest = LARGEST_RECORDED_CHUNK if monitor.stride or monitor.schedule else LARGEST_CHUNK
    budget = 1  # the time of an evaluation is not known yet
    while p["status"] == _RUNNING:
        chunk_start = time.perf_counter()
        nit = p["nit"]
        if monitor.schedule is not None:
            settings = settings._replace(
                rates=scheduled_rates(monitor.schedule, p["step"], 1 if pause else budget, settings.rates.dtype)
            )
        trace = np.empty((budget // monitor.stride + 1 if monitor.stride else 0, len(TRACE_COLUMNS)))
        recorded = advance(settings, budget, pause, trace, monitor.stride)
        if recorded:
            rows.append(trace[:recorded])
        if monitor.observe is not None and p["nit"] > nit and monitor.observe(state.arrays.x.copy(), float(p["f"])):
            p["status"] = int(Status.CALLBACK_STOP)
        if monitor.on_chunk is not None:
            monitor.on_chunk()
        now = time.perf_counter()
        if p["status"] == _RUNNING and now - start >= monitor.maxtime:
            p["status"] = int(Status.MAXTIME)
        budget = next_budget(budget, now - chunk_start, largest)


def as_history(trace: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Return the recorded rows as ``result.history``: an array for each column."""
    return dict(zip(TRACE_COLUMNS, trace.T, strict=True))


def taking_turns(advance: Advance, objective: Any, settings: Any) -> Advance:
    """Make `advance` take turns with other threads, if updates or the objective use threads."""
    if isinstance(objective, CompiledObjective) and objective.launches_threads:
        turn = objective.in_turn
    elif settings.pieces > 1:
        turn = in_turn
    else:
        return advance

    def advance_in_turn(*arguments: Any) -> int:
        with turn():
            return advance(*arguments)

    return advance_in_turn


def next_budget(budget: int, seconds: float, largest: int) -> int:
    """Return the number of evaluations that take about CHUNK_SECONDS, at most eight times as many as before."""
    fitting = budget * CHUNK_SECONDS / max(seconds, 1e-9)
    return max(1, min(int(fitting), 8 * budget, largest))


def _compiled_in_time(algorithm: Algorithm, state: RunState, objective: CompiledObjective | Evaluate) -> Advance:
    """Make the loop; where nothing is on disk, it begins as Python."""
    arrays, record = state.arrays, record_argument(state)
    in_code = isinstance(objective, CompiledObjective)
    loop = algorithm.name, arrays.x.dtype, in_code

    def is_ready(settings: Settings, *arguments: Any) -> bool:
        if in_code:
            return is_compiled(_make_compiled_loop(algorithm), 0, 0, arrays, record, settings, *arguments)
        steps = is_compiled(algorithm.ask, arrays, record, settings)
        return steps and is_compiled(algorithm.tell, arrays, record, 0.0, settings)

    return compiled_in_time(
        loop,
        arrays.x.size,
        (_compiled if in_code else _interpreted)(algorithm, state, objective),
        lambda: _interpreted(as_python(algorithm, loop), state, objective),
        is_ready,
    )


def _interpreted(algorithm: Algorithm, state: RunState, objective: Evaluate) -> Advance:
    """Make the loop in Python, around an objective that is called from Python."""
    ask, tell = algorithm.ask, algorithm.tell
    arrays, record = state.arrays, record_argument(state)
    p = state.record[0]

    def advance(settings: Settings, budget: int, pause: bool, trace: NDArray[np.float64], stride: int) -> int:
        recorded = 0
        p["first_step"] = p["step"]
        for _ in range(budget):
            if not p["pending"]:
                ask(arrays, record, settings)
            f = objective(arrays.x_eval, arrays.g_eval)
            nit = p["nit"]
            tell(arrays, record, f, settings)
            iterated = p["nit"] != nit
            if stride and (iterated or p["nfev"] == 1) and p["nit"] % stride == 0:
                trace[recorded] = p["nit"], p["nfev"], p["f"], p["gnorm"], p["rate"]
                recorded += 1
            if p["status"] != _RUNNING or (pause and iterated):
                break
        return recorded

    return advance


def _compiled(algorithm: Algorithm, state: RunState, objective: Any) -> Advance:
    """Make the same loop, compiled, around a compiled objective."""
    run = _make_compiled_loop(algorithm)
    arrays, record = state.arrays, record_argument(state)

    def advance(settings: Settings, budget: int, pause: bool, trace: NDArray[np.float64], stride: int) -> int:
        return int(run(objective.address, objective.data, arrays, record, settings, budget, pause, trace, stride))

    return advance


@functools.cache
def _make_compiled_loop(algorithm: Algorithm) -> Any:
    ask, tell = algorithm.ask, algorithm.tell

    @kernel_jit("loop", *algorithm.name)
    def run(address, data, arrays, record, settings, budget, pause, trace, stride):
        p = record[0]
        p.first_step = p.step
        recorded = 0
        due = next_recorded(p.nit, stride) if p.nfev > 0 else 0
        for _ in range(budget):
            if p.pending == 0:
                ask(arrays, record, settings)
            f = call_objective(address, arrays.x_eval, arrays.g_eval, data)
            nit = p.nit
            tell(arrays, record, f, settings)
            iterated = p.nit != nit
            if stride > 0 and p.nit >= due and (iterated or p.nfev == 1):
                if p.nit % stride == 0:
                    trace[recorded, 0] = p.nit
                    trace[recorded, 1] = p.nfev
                    trace[recorded, 2] = p.f
                    trace[recorded, 3] = p.gnorm
                    trace[recorded, 4] = p.rate
                    recorded += 1
                due = next_recorded(p.nit, stride)
            if p.status != _RUNNING or (pause and iterated):
                break
        return recorded

    return run


@inline_jit
def next_recorded(count, stride):
    """Return the next multiple of `stride`, so that the loop divides only when it records."""
    return (count // stride + 1) * stride if stride > 0 else 0


def record_argument(state: RunState) -> NDArray[Any]:
    """Return the record as ask and tell take it: plain for Numba, with attributes if they run as Python."""
    return state.record if JIT_ENABLED else state.record.view(np.recarray)
