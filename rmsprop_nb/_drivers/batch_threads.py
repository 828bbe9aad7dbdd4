"""The problems of a batch run in this process: compiled ones on threads, others one by one."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from rmsprop_nb._core.bounds import is_unbounded
from rmsprop_nb._core.options import Options
from rmsprop_nb._core.status import Status
from rmsprop_nb._core.validate import MANY, check_sizes, typical_sizes
from rmsprop_nb._drivers.batch_loop import Batch, BatchResults, RowArgs, Worker, batch_loop_in_time
from rmsprop_nb._drivers.inner_runs import answers_interrupts, is_inner_run
from rmsprop_nb._drivers.loop import LARGEST_CHUNK, StopRun, next_budget, record_argument
from rmsprop_nb._drivers.solve import algorithm_of, batch_settings, outcome, run, starting_state
from rmsprop_nb._methods.method import Layout
from rmsprop_nb._methods.registry import method_of
from rmsprop_nb._methods.run_state import RunState
from rmsprop_nb._objectives.compiled import CompiledObjective, compile_objective
from rmsprop_nb._objectives.problem import Problem

KEPT_EXCEPTIONS = 10

FIRST_BUDGET = 16
"""Evaluations before the time that one takes is known."""


@dataclasses.dataclass(frozen=True)
class Job:
    """Problems that differ in their starts and rows: problem k minimizes ``fun(x, *args, *(row[k] for row in rows))``.

    All problems share the args of `problem`, and its bounds unless `boxes` gives each its own: lower and upper ones of
    shape (B, n). The x_scale of `options` is "auto" or an array of that shape, checked.
    """

    problem: Problem
    starts: NDArray[Any]
    rows: tuple[NDArray[Any], ...]
    options: Options
    boxes: tuple[NDArray[Any], NDArray[Any]] | None = None

    @property
    def bounds(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """Lower and upper bounds, of shape (B, n) if each problem has its own, (n,) if all share them, or size 0."""
        return self.boxes or (self.problem.lower, self.problem.upper)

    @property
    def x_scale(self) -> NDArray[Any]:
        """The sizes of the variables of each problem; without columns if the method has no use for them."""
        if not self._has_sizes():
            return self.starts[:, :0]
        if not isinstance(self.options.x_scale, str):
            return self.options.x_scale  # type: ignore[no-any-return]
        lower, upper = self.bounds
        starts = np.clip(self.starts, lower, upper) if lower.size else self.starts
        return typical_sizes(self.options.x_scale, starts, lower, upper)

    def shared_sizes(self) -> NDArray[Any] | None:
        """Return the sizes that all problems share, 0 where each start has its own; None if there is more to it."""
        x_scale, n = self.options.x_scale, self.starts.shape[1]
        if not self._has_sizes():
            return self.starts[0, :0]
        if isinstance(x_scale, str):
            return np.zeros(n, self.starts.dtype) if n < MANY and not self.bounds[0].size else None
        return check_sizes(x_scale, self.starts[0]) if np.ndim(x_scale) < 2 else None

    def _has_sizes(self) -> bool:
        return "x_scale" in self._layout().given

    def _layout(self) -> Layout:
        return method_of(self.options).layout(*self.options.kind[1:])

    def empty_results(self) -> BatchResults:
        """Make the results of all problems, none of which has been run."""
        return BatchResults.empty(self.starts, self._layout().gradient_length(self.starts.shape[1]))

    def boxed(self, k: int) -> Problem:
        """Return the problem that all share with the bounds of problem k, even if these are all infinite."""
        if self.boxes is None:
            return self.problem
        lower, upper = self.boxes
        return dataclasses.replace(self.problem, lower=lower[k], upper=upper[k])

    def alone(self, k: int) -> Problem:
        """Return problem k as `minimize` would be given it."""
        problem = self.boxed(k)
        if self.boxes is not None and is_unbounded(problem.lower, problem.upper):
            problem = self.problem  # without bounds: sums over bounded variables are added up in another order
        return dataclasses.replace(problem, args=(*problem.args, *(row[k] for row in self.rows)))

    def options_of(self, k: int) -> Options:
        """Return the options of problem k."""
        x_scale = self.options.x_scale
        return dataclasses.replace(self.options, x_scale=x_scale[k]) if np.ndim(x_scale) else self.options

    def part(self, which: NDArray[np.intp] | slice) -> Job:
        """Return the job of some of the problems."""
        options, boxes = self.options, self.boxes
        if np.ndim(options.x_scale):
            options = dataclasses.replace(options, x_scale=options.x_scale[which])
        if boxes is not None:
            boxes = boxes[0][which], boxes[1][which]
        rows = tuple(row[which] for row in self.rows)
        return dataclasses.replace(self, starts=self.starts[which], rows=rows, options=options, boxes=boxes)

    def new_state(self) -> RunState:
        """Make the state of a new run, with room for bounds if any problem has them."""
        return starting_state(self.boxed(0), self.starts[0], self.options_of(0))

    def compiled(self) -> CompiledObjective | None:
        """Compile the objective; return None if that is not possible."""
        return compile_objective(self.alone(0), self.starts.dtype)


def run_here(
    job: Job,
    objective: CompiledObjective | None,
    workers: int,
    results: BatchResults,
    exceptions: dict[int, Exception],
    on_done: Callable[[int], None],
) -> None:
    """Run the problems that have no result yet; `workers` is the number of threads for a compiled objective."""
    if objective is None:
        _run_one_by_one(job, results, exceptions, on_done)
    else:
        _run_compiled(job, objective, workers, results, on_done)
        exceptions.update(exceptions_of(job, results, exceptions))


# -- compiled ---------------------------------------------------------------------------------------------------------


def _run_compiled(
    job: Job, objective: CompiledObjective, workers: int, results: BatchResults, on_done: Callable[[int], None]
) -> None:
    starts, options = job.starts, job.options
    lower, upper = (starts[:, :0],) * 2 if job.boxes is None else job.boxes
    new = job.new_state()
    objective.follow(new.arrays, new.record)
    batch = Batch(
        address=objective.address,
        rows=_row_args(objective, job.rows),
        starts=starts,
        x_scale=job.x_scale,
        lower=lower,
        upper=upper,
        first_square_avg=starts.dtype.type(options.first_square_avg),
        new_record=new.record,
        settings=batch_settings(options, starts[0], job.problem.sampling),
        results=results,
    )
    loop = batch_loop_in_time(algorithm_of(options, parallel=False), starts.dtype, starts.shape[1])
    ranges = _Ranges(len(starts), workers, on_done)

    def work() -> None:
        own = new.copy()
        words = objective.words_for(own.arrays, own.record)
        worker = Worker(own.arrays, record_argument(own), words, int(words.ctypes.data))
        budget = FIRST_BUDGET
        for begin, end in ranges:
            at, inside = begin, False
            while at < end and not ranges.stopped:
                began = time.perf_counter()
                with objective.in_turn():
                    at = loop(batch, worker, at, end, budget, inside)
                inside = True
                budget = next_budget(budget, time.perf_counter() - began, LARGEST_CHUNK)

    _on_threads(work, workers, ranges)


@answers_interrupts
def _on_threads(work: Callable[[], None], workers: int, ranges: _Ranges) -> None:
    """Run `work` on `workers` threads; Ctrl-C ends it soon, and what had ended by then is kept."""
    try:
        if workers == 1:
            work()
            return
        with ThreadPoolExecutor(workers) as pool:
            try:
                for future in [pool.submit(ranges.at_work, work) for _ in range(workers)]:
                    future.result()
            except BaseException:
                ranges.stop()
                raise
    except KeyboardInterrupt:
        ranges.stop()
        ranges.wait()  # the pool does not know of a thread that was just being started
        if is_inner_run():
            raise


class _Ranges:
    """Hand out ranges of problems to threads: short ones, because problems take different times."""

    def __init__(self, count: int, workers: int, on_done: Callable[[int], None]) -> None:
        self._count = count
        self._on_done = on_done
        self._size = max(1, min(256, count // (16 * workers)))
        self._next = 0
        self._lock = threading.Lock()
        self._left = threading.Condition(self._lock)
        self._at_work = 0
        self.stopped = False

    def __iter__(self) -> Iterator[tuple[int, int]]:
        while True:
            with self._lock:
                begin, self._next = self._next, self._next + self._size
            if begin >= self._count:
                return
            end = min(begin + self._size, self._count)
            yield begin, end
            if self.stopped:
                return
            with self._lock:
                self._on_done(end - begin)

    def at_work(self, work: Callable[[], None]) -> None:
        """Call `work`, which takes ranges, and count this thread meanwhile; Ctrl-C comes only to the main thread."""
        with self._lock:
            self._at_work += 1
        try:
            work()
        finally:
            with self._lock:
                self._at_work -= 1
                self._left.notify_all()

    def wait(self) -> None:
        """Wait until no thread takes ranges any more; one that begins after `stop` finds none."""
        with self._lock:
            self._left.wait_for(lambda: self._at_work == 0)

    def stop(self) -> None:
        """Hand out no more ranges."""
        self.stopped = True
        with self._lock:
            self._next = self._count


def _row_args(objective: CompiledObjective, rows: tuple[NDArray[Any], ...]) -> RowArgs:
    """Describe which words of the packed arguments change from problem to problem, and how."""
    offsets = objective.offsets[-1 - len(rows) : -1] if rows else []
    slots: list[int] = []
    first: list[int] = []
    stride: list[int] = []
    scalar_slots: list[int] = []
    scalars: list[NDArray[np.int64]] = []
    for offset, row in zip(offsets, rows, strict=True):
        if row.ndim > 1:
            slots.append(offset + 1)  # the second word of a packed array is its address
            first.append(row.ctypes.data)
            stride.append(row.strides[0])
        else:
            for k, words in enumerate(_words_of_scalars(row)):
                scalar_slots.append(offset + k)
                scalars.append(words)
    return RowArgs(
        slots=np.array(slots, np.int64),
        first=np.array(first, np.int64),
        stride=np.array(stride, np.int64),
        scalar_slots=np.array(scalar_slots, np.int64),
        scalars=np.array(scalars, np.int64) if scalars else np.empty((0, 0), np.int64),
    )


def _words_of_scalars(row: NDArray[Any]) -> NDArray[np.int64]:
    """Return the values of an array as packed words, shape (words of one value, B)."""
    dtype = row.dtype.newbyteorder("=")
    size = -(-dtype.itemsize // 8) * 8
    padded = np.zeros((row.size, size), np.uint8)
    padded[:, : dtype.itemsize] = np.ascontiguousarray(row, dtype).view(np.uint8).reshape(row.size, dtype.itemsize)
    return padded.view(np.int64).T


# -- interpreted ------------------------------------------------------------------------------------------------------


def _run_one_by_one(
    job: Job, results: BatchResults, exceptions: dict[int, Exception], on_done: Callable[[int], None]
) -> None:
    try:
        for k, start in enumerate(job.starts):
            if results.status[k] != Status.INTERRUPTED:
                on_done(1)
                continue
            catching = _Catching(job.alone(k))
            state, _ = run(catching.problem, start, job.options_of(k), None, catching.bind)
            if catching.error is not None and len(exceptions) < KEPT_EXCEPTIONS:
                exceptions[k] = catching.error
            status, point = outcome(state)
            p = state.record[0]
            results.nit[k], results.nfev[k], results.njev[k] = p["nit"], p["calls"], p["nfev"]
            results.x[k], results.fun[k], results.jac[k] = point
            results.status[k] = status
            on_done(1)
            if status is Status.INTERRUPTED:
                break
    except KeyboardInterrupt:
        if is_inner_run():
            raise


class _Catching:
    """An objective that ends its own run when it raises, and keeps the exception."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.error: Exception | None = None
        self._objective: Any = None

    def bind(self, make: Callable[[Problem], Any]) -> Self:
        """Make the objective."""
        self._objective = make(self.problem)
        return self

    def follow(self, arrays: Any, record: NDArray[Any]) -> None:
        """Let the run with these vectors and this record control the differences."""
        self._objective.follow(arrays, record)

    def __call__(self, x: NDArray[Any], g: NDArray[Any]) -> float:
        try:
            return float(self._objective(x, g))
        except Exception as error:
            self.error = error
            raise StopRun(Status.EXCEPTION) from error


def exceptions_of(job: Job, results: BatchResults, known: dict[int, Exception]) -> Iterator[tuple[int, Exception]]:
    """Run problems again whose objective raised, because compiled code does not keep the exception."""
    failed = np.flatnonzero(results.status == Status.EXCEPTION)[:KEPT_EXCEPTIONS]
    for k in (int(k) for k in failed if k not in known):
        try:
            run(job.alone(k), job.starts[k], job.options_of(k), None)
        except Exception as error:  # noqa: BLE001
            yield k, error
