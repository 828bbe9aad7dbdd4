"""Kernels that minimize the problems of a batch, made of the ask and tell of the CPU.

A thread, or a block of them, works on one problem at a time. The vectors of a thread stand in local memory, or are
columns of a workspace in global memory whose last axis is the thread, so that the threads of a warp touch neighbouring
words. Starts, data and results have the problem as their last axis for the same reason. The threads of a block share
the vectors of its problem, which are rows of a workspace: element i belongs to thread i modulo their number.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numba import float32, float64, from_dtype

from rmsprop_nb._core.records import PROGRESS_DTYPE, Arrays
from rmsprop_nb._core.settings import Hyper, Settings, StoppingTests
from rmsprop_nb._core.status import Status
from rmsprop_nb._cuda.block_team import LARGEST_TEAM, make_evaluate_together
from rmsprop_nb._cuda.native import SIMULATED, beginning, cuda, device_function
from rmsprop_nb._drivers.loop import Algorithm
from rmsprop_nb._kernels.thread_team import Team

PLACES = 2 * LARGEST_TEAM

UNROLLED = 16
"""Most variables for which the length of local vectors is compiled in; longer loops, unrolled, spill registers."""

_RUNNING, _GTOL, _EXCEPTION = int(Status.RUNNING), int(Status.GTOL), int(Status.EXCEPTION)

# Every number of a record has eight bytes; said to be aligned, they are read and written whole.
RECORD_DTYPE = np.dtype((np.record, PROGRESS_DTYPE.descr)) if SIMULATED else np.dtype(PROGRESS_DTYPE.descr, align=True)
_RECORD = RECORD_DTYPE if SIMULATED else from_dtype(RECORD_DTYPE)


class Shape(NamedTuple):
    """What the vectors of a problem follow from."""

    n: int
    double: bool
    centered: bool
    momentum: bool
    searches: bool
    memory: int

    @property
    def places(self) -> tuple[int, int, int, int]:
        """How many vectors there are, and which are grad_avg, momentum_buffer and metric; 0 for an unused one."""
        places, count = [], 7
        for used in (self.centered, self.momentum, self.searches):
            places.append(count if used else 0)
            count += used
        return count, places[0], places[1], places[2]

    @property
    def pairs(self) -> tuple[int, int]:
        """Shape of the steps that are kept, and of the changes of the gradient; unused ones still have a type."""
        return max(self.memory, 1), self.n if self.memory else 1

    @property
    def bytes(self) -> int:
        """Bytes of the vectors of a problem."""
        memory, n = self.pairs
        return (self.places[0] * self.n + 2 * memory * n) * (8 if self.double else 4) + 16 * memory


@functools.lru_cache(maxsize=256)
def make_local_kernel(fun: Any, algorithm: Algorithm, shape: Shape, ranks: tuple[int, ...]) -> Any:
    """Make the kernel of a thread for each problem, whose vectors are local arrays.

    ``kernel[blocks, threads](starts, args, rows, numbers, bounds, first_record, results)``; the start of problem b is
    ``starts[:, b]``, its data are ``row[..., b]`` for each of `rows`, of so many axes as `ranks` says, and x and the
    gradient are laid out like the starts. `numbers` are the settings, see `_settings`.
    """
    solve, arrays_of = _make_solve(_make_evaluate(fun, ranks), algorithm), _make_arrays_of(shape)
    real = float64 if shape.double else float32
    n, count, memory, n_pairs = shape.n, shape.places[0], *shape.pairs
    unrolls = n <= UNROLLED

    def local_kernel(starts, args, rows, numbers, bounds, first_record, results):
        vectors = cuda.local.array((count, n), real)
        steps = cuda.local.array((memory, n_pairs), real)
        changes = cuda.local.array((memory, n_pairs), real)
        pair_sums = cuda.local.array((memory, 2), float64)
        record = cuda.local.array(1, _RECORD)
        problem = cuda.grid(1)
        if problem < starts.shape[1]:
            arrays = arrays_of(vectors, steps, changes, pair_sums, bounds, n if unrolls else starts.shape[0])
            record[0] = first_record[0]
            solve(arrays, arrays, record, starts, args, rows, numbers, None, results, problem)

    return cuda.jit(local_kernel)


@functools.lru_cache(maxsize=256)
def make_column_kernel(fun: Any, algorithm: Algorithm, shape: Shape, ranks: tuple[int, ...]) -> Any:
    """Make the kernel of threads that take one problem after another, whose vectors are columns of a workspace.

    It takes what that of `make_local_kernel` takes, and a workspace ``(vectors, steps, changes, pair_sums)`` whose last
    axis is the thread. The length of the vectors is not compiled in.
    """
    solve, arrays_of = _make_solve(_make_evaluate(fun, ranks), algorithm), _make_arrays_of(shape)

    def column_kernel(starts, args, rows, numbers, bounds, first_record, results, workspace):
        vectors, steps, changes, pair_sums = workspace
        record = cuda.local.array(1, _RECORD)
        k = problem = cuda.grid(1)
        arrays = arrays_of(
            vectors[:, :, k], steps[:, :, k], changes[:, :, k], pair_sums[:, :, k], bounds, starts.shape[0]
        )
        while problem < starts.shape[1]:
            record[0] = first_record[0]
            solve(arrays, arrays, record, starts, args, rows, numbers, None, results, problem)
            problem += cuda.gridsize(1)

    return cuda.jit(column_kernel)


@functools.lru_cache(maxsize=256)
def make_block_kernel(fun: Any, algorithm: Algorithm, shape: Shape, ranks: tuple[int, ...]) -> Any:
    """Make the kernel of blocks that take one problem after another, whose vectors are rows of a workspace.

    The objective is given a Team after the gradient. Data have the problem as their first axis; the workspace has the
    block as its first, but for the sums, of which each thread has its own. There are at most as many threads in a block
    as variables, and a power of two.
    """
    evaluate = make_evaluate_together(_make_evaluate(fun, ranks, together=True))
    solve, arrays_of = _make_solve(evaluate, algorithm), _make_arrays_of(shape)

    def block_kernel(starts, args, rows, numbers, bounds, first_record, results, workspace):
        vectors, steps, changes, pair_sums = workspace
        record = cuda.local.array(1, _RECORD)
        places = cuda.shared.array(PLACES, float64)
        rank, size = np.int64(cuda.threadIdx.x), np.int64(cuda.blockDim.x)
        team = Team(rank, size, places)  # type: ignore[arg-type]
        problem = block = cuda.blockIdx.x
        lower, upper = bounds
        x_found, f_found, g_found, nit, nfev, status = results
        n = starts.shape[0]
        whole = arrays_of(vectors[block], steps[block], changes[block], pair_sums[:, :, 0], bounds, n)
        share = arrays_of(
            vectors[block, :, rank::size], steps[block, :, rank::size], changes[block, :, rank::size],
            pair_sums[:, :, cuda.grid(1)], (lower[rank::size], upper[rank::size]), (n - rank + size - 1) // size,
        )  # fmt: skip
        found = x_found[rank::size], f_found, g_found[rank::size], nit, nfev, status
        while problem < starts.shape[1]:
            record[0] = first_record[0]
            if not solve(whole, share, record, starts[rank::size], args, rows, numbers, team, found, problem):
                break
            problem += cuda.gridDim.x

    return cuda.jit(block_kernel)


# -- device functions -------------------------------------------------------------------------------------------------


def _make_arrays_of(shape: Shape) -> Any:
    """``arrays_of(v, steps, changes, pair_sums, bounds, size)``: the vectors of a run, of so many elements."""
    _, centered, momentum, metric = shape.places
    part = beginning

    def arrays_of(v, steps, changes, pair_sums, bounds, size):
        lower, upper = bounds
        return Arrays(
            part(v[0], size), part(v[1], size), part(v[2], size), part(v[3], size), part(v[4], size),
            part(v[5], size), part(v[6], size), part(v[centered], size), part(v[momentum], size),
            part(v[metric], size), lower, upper, steps, changes, pair_sums,
        )  # fmt: skip

    return device_function(arrays_of)


def _make_solve(evaluate: Any, algorithm: Algorithm) -> Any:
    """``solve(whole, arrays, ..., b)``: minimize problem b, store what is found, and return whether that went well.

    The objective is given vectors of `whole`, everything else works on `arrays`, a thread's share of these. An
    objective that raises ends its thread. So a problem is marked as one that has raised until its end is known.
    """
    ask, tell = device_function(algorithm.ask), device_function(algorithm.tell)
    settings_of, begin, store = device_function(_settings), device_function(_begin), device_function(_store)

    def solve(whole, arrays, record, starts, args, rows, numbers, team, results, b):
        settings = settings_of(numbers, team)
        speaks = team is None or team.rank == 0
        if speaks:
            results[5][b] = _EXCEPTION
        begin(arrays, starts, numbers[4], b)
        p = record[0]
        while p.status == _RUNNING:
            ask(arrays, record, settings)
            lives, f = evaluate(whole.x_eval, whole.g_eval, team, args, rows, b)
            if not lives:
                return False
            tell(arrays, record, f, settings)
        store(arrays, p, results, b, speaks)
        return True

    return device_function(solve)


def _settings(numbers, team):
    """Settings from ``(hyper, reals, counts, rates, accumulator)``: a kernel takes tuples of equal things."""
    hyper, reals, counts, rates, _ = numbers
    tests = StoppingTests(reals[0], reals[1], reals[2], reals[3], counts[0], counts[1], counts[2], reals[4])
    return Settings(Hyper(*hyper), tests, rates, reals[5], 1, team)


def _begin(arrays, starts, accumulator, b):
    """Make the vectors those of a new run; what is not set here is written before it is read."""
    x, lower = arrays.x, arrays.lower
    for i in range(x.size):
        arrays.grad_avg[i] = 0  # before x, which stands in the place of unused vectors
        arrays.momentum_buffer[i] = 0
        x[i] = starts[i, b]
        if lower.size:
            x[i] = min(max(x[i], lower[i]), arrays.upper[i])
        arrays.x_best[i] = x[i]
        arrays.g_eval[i] = math.nan  # an element that the objective never fills is seen
        arrays.square_avg[i] = accumulator


def _store(arrays, p, results, b, speaks):
    """The point that met the test on the gradient, otherwise the best."""
    x_found, f_found, g_found, nit, nfev, status = results
    best = p.status != _GTOL and math.isfinite(p.f_best)
    for i in range(arrays.x.size):
        x_found[i, b] = arrays.x_best[i] if best else arrays.x[i]
        g_found[i, b] = arrays.g_best[i] if best else arrays.g_eval[i]
    if speaks:
        f_found[b] = p.f_best if best else p.f
        nit[b] = p.nit
        nfev[b] = p.nfev
        status[b] = p.status


def _make_evaluate(fun: Any, ranks: tuple[int, ...], together: bool = False) -> Any:
    """``evaluate(x, g, team, args, rows, b)``: call fun with args and the data of problem b, one array after another.

    It returns whether all is well, and f; or only f, for a block of threads that evaluate `together` and are given a
    Team. Tuples of different arrays cannot be looped over in compiled code, so each array has a function of its own.
    """
    fun = device_function(fun)

    def call(x, g, team, args, rows, b):  # noqa: ARG001
        return True, fun(x, g, *args)

    def call_together(x, g, team, args, rows, b):  # noqa: ARG001
        return fun(x, g, team, *args)

    evaluate = device_function(call_together if together else call)
    with_next = _with_next_first if together else _with_next_last
    for rank in reversed(ranks):
        evaluate = device_function(with_next(evaluate, rank))
    return evaluate


def _with_next_last(rest: Any, rank: int) -> Callable[..., Any]:
    """Take one array of data whose last axis is the problem."""

    def of_numbers(x, g, team, args, rows, b):
        return rest(x, g, team, (*args, rows[0][b]), rows[1:], b)

    def of_vectors(x, g, team, args, rows, b):
        return rest(x, g, team, (*args, rows[0][:, b]), rows[1:], b)

    def of_matrices(x, g, team, args, rows, b):
        return rest(x, g, team, (*args, rows[0][:, :, b]), rows[1:], b)

    return (of_numbers, of_vectors, of_matrices)[rank - 1]


def _with_next_first(rest: Any, _rank: int) -> Callable[..., Any]:
    """Take one array of data whose first axis is the problem."""

    def of_any(x, g, team, args, rows, b):
        return rest(x, g, team, (*args, rows[0][b]), rows[1:], b)

    return of_any
