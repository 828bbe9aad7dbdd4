"""Many problems one after the other in compiled code, each from its own start and with its own rows of data.

A worker uses one set of vectors for every problem, so memory does not grow with their number. The results are those of
the single loop, because ask and tell are the same.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rmsprop_nb._core.records import Arrays
from rmsprop_nb._core.settings import Settings
from rmsprop_nb._core.status import Status
from rmsprop_nb._drivers.first_runs import as_python, compiled_in_time
from rmsprop_nb._kernels.vectors import copy
from rmsprop_nb._methods.method import Algorithm
from rmsprop_nb._methods.points import start_run, store_point
from rmsprop_nb._numba.calls import try_objective
from rmsprop_nb._numba.decorators import inline_jit, is_compiled, kernel_jit, pinned_jit

_RUNNING = int(Status.RUNNING)
_EXCEPTION, _INTERRUPTED = int(Status.EXCEPTION), int(Status.INTERRUPTED)


class RowArgs(NamedTuple):
    """How the packed arguments change from problem to problem.

    Word ``slots[k]`` becomes ``first[k] + problem*stride[k]``, the address of a row; word ``scalar_slots[k]`` becomes
    ``scalars[k, problem]``, a value.
    """

    slots: NDArray[np.int64]
    first: NDArray[np.int64]
    stride: NDArray[np.int64]
    scalar_slots: NDArray[np.int64]
    scalars: NDArray[np.int64]


class BatchResults(NamedTuple):
    """The results of all problems, one row each."""

    x: NDArray[Any]
    fun: NDArray[np.float64]
    jac: NDArray[Any]  # what evaluations fill: the gradient, and for some methods a matrix behind it
    nit: NDArray[np.int64]
    nfev: NDArray[np.int64]  # calls of fun
    njev: NDArray[np.int64]  # evaluations of f and its gradient
    status: NDArray[np.int64]

    @classmethod
    def empty(cls, starts: NDArray[Any], gradient_length: int) -> BatchResults:
        """Make the results of problems that have not been run."""
        count = len(starts)
        return cls(
            np.full_like(starts, np.nan),
            np.full(count, np.nan),
            np.full((count, gradient_length), np.nan, starts.dtype),
            np.zeros(count, np.int64),
            np.zeros(count, np.int64),
            np.zeros(count, np.int64),
            np.full(count, int(Status.INTERRUPTED)),
        )


class Batch(NamedTuple):
    """What all workers share: the objective, the starts, bounds and data of every problem, and the results.

    Bounds that all problems share are among the vectors of the workers. `new_record` is the record of a new run,
    `first_square_avg` the value of S at the start.
    """

    address: int
    rows: RowArgs
    starts: NDArray[Any]
    x_scale: NDArray[Any]  # (B, n), or (B, 0)
    lower: NDArray[Any]  # (B, n), or (B, 0) where problems have no bounds of their own
    upper: NDArray[Any]
    first_square_avg: Any
    new_record: NDArray[Any]
    settings: Settings
    results: BatchResults


class Worker(NamedTuple):
    """What each worker has: vectors, a record, and a copy of the packed arguments, whose address is `data`."""

    arrays: Arrays
    record: NDArray[Any]
    words: NDArray[np.int64]
    data: int


@functools.cache
def make_batch_loop(algorithm: Algorithm) -> Any:
    """Compile ``run(batch, worker, begin, end, budget, inside) -> problem``: the problems from `begin` up to `end`.

    After `budget` evaluations it returns the problem that it is at; called again with that one as `begin` and with
    `inside`, it goes on there. In between, Python can answer Ctrl-C.
    """
    ask, tell = algorithm.ask, algorithm.tell

    @kernel_jit("batch loop", *algorithm.name)
    def run(batch, worker, begin, end, budget, inside):
        arrays, record, settings = worker.arrays, worker.record, batch.settings
        own_boxes = batch.lower.size > 0
        p = record[0]
        for problem in range(begin, end):
            if batch.results.status[problem] != _INTERRUPTED:
                continue  # it has a result from an earlier run
            if own_boxes:
                arrays = _with_box(worker.arrays, batch.lower[problem], batch.upper[problem])
            if not inside:
                record[0] = batch.new_record[0]
                p.status = _RUNNING
                copy(batch.x_scale[problem], arrays.x_scale)
                start_run(arrays, batch.starts[problem], batch.first_square_avg)
                _set_row(worker.words, batch.rows, problem)
            inside = False
            while p.status == _RUNNING and budget > 0:
                budget -= 1
                ask(arrays, record, settings)
                raised, f = _try(batch.address, arrays.x_eval, arrays.g_eval, worker.data)
                if raised:
                    p.status = _EXCEPTION
                else:
                    tell(arrays, record, f, settings)
            if p.status == _RUNNING:
                return problem
            _store_result(batch.results, problem, p, arrays)
        return end

    return run


@pinned_jit
def _try(address, x, g, data):
    return try_objective(address, x, g, data)


def batch_loop_in_time(algorithm: Algorithm, dtype: Any, size: int) -> Any:
    """Return the compiled loop, or one that begins as Python."""
    compiled = make_batch_loop(algorithm)
    loop = algorithm.name, dtype, "batch"

    def uncompiled() -> Any:
        run = make_batch_loop(as_python(algorithm, loop)).py_func

        def as_records(batch: Batch, worker: Worker, *arguments: Any) -> int:
            return int(run(batch, worker._replace(record=worker.record.view(np.recarray)), *arguments))

        return as_records

    return compiled_in_time(loop, size, compiled, uncompiled, lambda *arguments: is_compiled(compiled, *arguments))


@inline_jit
def _is_free(lower, upper):
    """Return whether no variable is bounded."""
    free = True
    for i in range(lower.size):
        free = free and lower[i] == -math.inf and upper[i] == math.inf
    return free


@inline_jit
def _with_box(arrays, lower, upper):
    """Copy the bounds of a problem to where differences read them too; without any, its vectors have none.

    A problem that has none must not be treated as one with infinite bounds: sums are added up in another order there.
    """
    copy(lower, arrays.lower)
    copy(upper, arrays.upper)
    size = 0 if _is_free(lower, upper) else lower.size
    return Arrays(
        arrays.x, arrays.g, arrays.x_eval, arrays.g_eval, arrays.x_best, arrays.g_best, arrays.square_avg,
        arrays.grad_avg, arrays.momentum_buffer, arrays.direction, arrays.metric, arrays.x_scale,
        arrays.lower[:size], arrays.upper[:size], arrays.steps, arrays.gradient_changes, arrays.pair_sums,
    )  # fmt: skip


@inline_jit
def _set_row(words, rows, problem):
    for k in range(rows.slots.size):
        words[rows.slots[k]] = rows.first[k] + problem * rows.stride[k]
    for k in range(rows.scalar_slots.size):
        words[rows.scalar_slots[k]] = rows.scalars[k, problem]


@inline_jit
def _store_result(results, problem, p, arrays):
    """Store the result; the status last, because others read it meanwhile."""
    results.fun[problem] = store_point(p, arrays, results.x[problem], results.jac[problem])
    for k in range(arrays.x.size, results.jac.shape[1]):
        results.jac[problem, k] = arrays.g[k]  # methods with a matrix return the last point that they went to
    results.nit[problem] = p.nit
    results.nfev[problem] = p.calls
    results.njev[problem] = p.nfev
    results.status[problem] = p.status
