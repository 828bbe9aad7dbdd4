"""Kernels that minimize the problems of a batch, built from the same ask and tell as on the CPU.

A thread, or a block of threads, works on one problem after another. The vectors of a thread are in local memory, or are
columns of a workspace in global memory whose last axis is the thread, so that the threads of a warp touch neighbouring
words. Starts, data and results have the problem as their last axis for the same reason. The threads of a block share
the vectors of its problem, which are rows of a workspace: element i belongs to thread i modulo their number.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numba import float32, float64, from_dtype
from numpy.typing import NDArray

from rmsprop_nb._core.records import PROGRESS_DTYPE, Arrays
from rmsprop_nb._core.settings import Hyper, Sampling, Settings, StoppingTests
from rmsprop_nb._core.status import Status
from rmsprop_nb._cuda.block_team import LARGEST_TEAM, make_evaluate_together
from rmsprop_nb._cuda.native import SIMULATED, beginning, cuda, device_function
from rmsprop_nb._drivers.batch_loop import BatchResults
from rmsprop_nb._kernels.thread_team import Team
from rmsprop_nb._methods.method import Algorithm, Layout
from rmsprop_nb._methods.points import start_run, store_point
from rmsprop_nb._numba.code_cache import cached_by_code

BLOCK = 8 if SIMULATED else 128
"""Threads in a block; the simulator starts a thread of Python for each."""

SLOTS = 2 * LARGEST_TEAM
"""Numbers in shared memory: a part of a sum and a sign of life for each thread."""

TURN = 6
"""Evaluations after which threads whose problem has ended take another one. Fewer, and a warp does so too often, which
takes as long as an evaluation; more, and they wait too long."""

BLOCKS_AT_WORK = 3
"""Blocks that a multiprocessor has registers for, where CROWDED says so: a search waits most of the time."""

CROWDED = 352
"""Largest vectors of a problem, in bytes, of a search for which the compiler makes do with fewer registers: it spills
next to nothing then."""

UNROLLED = {4: 16, 8: 14}
"""Largest number of variables, by the bytes of a number, for which the length of vectors is a constant; longer
unrolled loops spill registers."""

UNROLLED_BOXED = 8
"""The same where each problem has its own bounds, whose addresses take registers too."""

_RUNNING, _EXCEPTION = int(Status.RUNNING), int(Status.EXCEPTION)

# Every number of a record has eight bytes; said to be aligned, they are read and written whole.
RECORD_DTYPE = np.dtype((np.record, PROGRESS_DTYPE.descr)) if SIMULATED else np.dtype(PROGRESS_DTYPE.descr, align=True)
_RECORD = RECORD_DTYPE if SIMULATED else from_dtype(RECORD_DTYPE)


class Shape(NamedTuple):
    """The vectors of a problem."""

    n: int
    dtype: np.dtype[Any]
    layout: Layout

    @property
    def memory(self) -> int:
        """Number of pairs of steps and gradient changes there is room for; an unused array still needs a type."""
        return max(self.layout.memory, 1)

    @property
    def pair_length(self) -> int:
        """Length of a kept step."""
        return self.n if self.layout.memory else 1

    @property
    def bytes(self) -> int:
        """Bytes of the vectors of a problem."""
        reals = len(self.layout.vectors) * self.n + 2 * self.memory * self.pair_length
        return reals * self.dtype.itemsize + 16 * self.memory


class Numbers(NamedTuple):
    """The settings that a kernel takes; it adds the team itself."""

    hyper: Hyper
    tests: StoppingTests
    rates: NDArray[Any]
    curvature: float
    sampling: Sampling
    first_square_avg: Any


@cached_by_code
def make_local_kernel(fun: Any, algorithm: Algorithm, shape: Shape, ndims: tuple[int, ...], boxed: bool) -> Any:
    """Make the kernel whose threads each work on problems with vectors that are local arrays.

    ``kernel[blocks, threads](starts, x_scale, args, rows, numbers, bounds, first_record, results, taken)``; the start
    of problem b is ``starts[:, b]``, the sizes of its variables ``x_scale[:, b]``, its data ``row[..., b]`` for each of
    `rows`, whose numbers of axes are `ndims`, and x and the gradient are laid out like the starts; so are both bounds
    if the problems are `boxed`, and otherwise all share them. `numbers` are `Numbers`, `results` are `BatchResults`,
    and ``taken[0]`` is 0.
    """
    work, arrays_of = _make_work(_make_evaluate(fun, ndims), algorithm, boxed), _make_arrays_of(shape)
    real = float64 if shape.dtype == np.float64 else float32
    n, count, memory, pair_length = shape.n, len(shape.layout.vectors), shape.memory, shape.pair_length
    unrolls = n <= (UNROLLED_BOXED if boxed else UNROLLED[shape.dtype.itemsize])

    def local_kernel(starts, x_scale, args, rows, numbers, bounds, first_record, results, taken):
        vectors = cuda.local.array((count, n), real)
        steps = cuda.local.array((memory, pair_length), real)
        changes = cuda.local.array((memory, pair_length), real)
        pair_sums = cuda.local.array((memory, 2), float64)
        record = cuda.local.array(1, _RECORD)
        arrays = arrays_of(vectors, steps, changes, pair_sums, bounds, n if unrolls else starts.shape[0])
        work(arrays, record, first_record, starts, x_scale, args, rows, numbers, results, taken)

    return cuda.jit(**_bounds_of(shape, boxed))(local_kernel)


def _bounds_of(shape: Shape, boxed: bool) -> dict[str, Any]:
    """Return what the compiler is told about the blocks of a kernel whose vectors are local arrays."""
    searches = "direction" in shape.layout.vectors
    crowded = searches and not boxed and shape.bytes <= CROWDED
    return {"launch_bounds": (BLOCK, BLOCKS_AT_WORK)} if crowded and not SIMULATED else {}


@cached_by_code
def make_column_kernel(fun: Any, algorithm: Algorithm, shape: Shape, ndims: tuple[int, ...], boxed: bool) -> Any:
    """Make the kernel whose threads each work on problems with vectors that are columns of a workspace.

    It takes what that of `make_local_kernel` takes, and a workspace ``(vectors, steps, changes, pair_sums)`` whose last
    axis is the thread. The length of the vectors is not compiled in.
    """
    work, arrays_of = _make_work(_make_evaluate(fun, ndims), algorithm, boxed), _make_arrays_of(shape)

    def column_kernel(starts, x_scale, args, rows, numbers, bounds, first_record, results, taken, workspace):
        vectors, steps, changes, pair_sums = workspace
        record = cuda.local.array(1, _RECORD)
        k = cuda.grid(1)
        arrays = arrays_of(
            vectors[:, :, k], steps[:, :, k], changes[:, :, k], pair_sums[:, :, k], bounds, starts.shape[0]
        )
        work(arrays, record, first_record, starts, x_scale, args, rows, numbers, results, taken)

    return cuda.jit(column_kernel)


@cached_by_code
def make_block_kernel(fun: Any, algorithm: Algorithm, shape: Shape, ndims: tuple[int, ...], boxed: bool) -> Any:
    """Make the kernel whose blocks take one problem after another, with vectors that are rows of a workspace.

    The objective is given a Team after the gradient. Data have the problem as their first axis; the workspace has the
    block as its first axis, except for the sums: each thread has its own. The number of threads in a block is a power
    of two, and at most the number of variables.
    """
    evaluate = make_evaluate_together(_make_evaluate(fun, ndims, together=True))
    solve, arrays_of = _make_solve(evaluate, algorithm, boxed), _make_arrays_of(shape)

    def block_kernel(starts, x_scale, args, rows, numbers, bounds, first_record, results, taken, workspace):  # noqa: ARG001
        vectors, steps, changes, pair_sums = workspace
        record = cuda.local.array(1, _RECORD)
        slots = cuda.shared.array(SLOTS, float64)
        rank, size = np.int64(cuda.threadIdx.x), np.int64(cuda.blockDim.x)
        team = Team(rank, size, slots)  # type: ignore[arg-type]
        problem = block = cuda.blockIdx.x
        lower, upper = bounds
        n = starts.shape[0]
        whole = arrays_of(vectors[block], steps[block], changes[block], pair_sums[:, :, 0], bounds, n)
        share = arrays_of(
            vectors[block, :, rank::size], steps[block, :, rank::size], changes[block, :, rank::size],
            pair_sums[:, :, cuda.grid(1)], (lower[rank::size], upper[rank::size]), (n - rank + size - 1) // size,
        )  # fmt: skip
        found = BatchResults(
            results.x[rank::size],
            results.fun,
            results.jac[rank::size],
            results.nit,
            results.nfev,
            results.njev,
            results.status,
        )
        while problem < starts.shape[1]:
            record[0] = first_record[0]
            if not solve(
                whole, share, record, starts[rank::size], x_scale[rank::size], args, rows, numbers, team, found, problem
            ):
                break
            problem += cuda.gridDim.x

    return cuda.jit(block_kernel)


# -- device functions -------------------------------------------------------------------------------------------------


def _make_arrays_of(shape: Shape) -> Any:
    """``arrays_of(v, steps, changes, pair_sums, bounds, size)``: the vectors of a run, each with `size` elements."""
    rows = {name: row for row, name in enumerate(shape.layout.vectors)}
    row_of = Arrays._make(rows.get(name, rows["x"]) for name in Arrays._fields)  # unused vectors are x itself
    part = beginning

    def arrays_of(v, steps, changes, pair_sums, bounds, size):
        lower, upper = bounds
        return Arrays(
            part(v[row_of.x], size), part(v[row_of.g], size), part(v[row_of.x_eval], size),
            part(v[row_of.g_eval], size), part(v[row_of.x_best], size), part(v[row_of.g_best], size),
            part(v[row_of.square_avg], size), part(v[row_of.grad_avg], size), part(v[row_of.momentum_buffer], size),
            part(v[row_of.direction], size), part(v[row_of.metric], size), part(v[row_of.x], size),
            lower, upper, steps, changes, pair_sums,
        )  # fmt: skip

    return device_function(arrays_of)


def _make_work(evaluate: Any, algorithm: Algorithm, boxed: bool) -> Any:
    """``work(arrays, ..., taken)``: minimize one problem after another until all have been taken, and store each.

    The threads of a warp wait for each other after TURN evaluations; those whose problem has ended take another one. An
    objective that raises ends its thread, so a problem counts as one that has raised until it has a result.
    """
    ask, tell = device_function(algorithm.ask), device_function(algorithm.tell)
    settings_of, start, store = device_function(_settings), device_function(start_run), device_function(_store)
    of_problem = device_function(_with_sizes_and_box if boxed else _with_sizes)

    def work(arrays, record, first_record, starts, x_scale, args, rows, numbers, results, taken):
        settings = settings_of(numbers, None)
        p = record[0]
        p.status = _EXCEPTION  # anything but running
        problem = -1
        while True:
            if p.status != _RUNNING:
                if problem >= 0:
                    store(arrays, p, results, problem, True)
                problem = cuda.atomic.add(taken, 0, 1)
                if problem >= starts.shape[1]:
                    break
                results.status[problem] = _EXCEPTION
                record[0] = first_record[0]
                start(of_problem(arrays, x_scale, problem), starts[:, problem], numbers.first_square_avg)
            own = of_problem(arrays, x_scale, problem)
            evaluations = 0
            while evaluations < TURN and p.status == _RUNNING:
                ask(own, record, settings)
                _, f = evaluate(own.x_eval, own.g_eval, None, args, rows, problem)
                tell(own, record, f, settings)
                evaluations += 1

    return device_function(work)


def _make_solve(evaluate: Any, algorithm: Algorithm, boxed: bool) -> Any:
    """``solve(whole, arrays, ..., b)``: minimize problem b, store the result, and return whether all threads are alive.

    The objective is given vectors of `whole`; everything else works on `arrays`, a thread's share of these. An
    objective that raises ends its thread, so a problem counts as one that has raised until it has a result.
    """
    ask, tell = device_function(algorithm.ask), device_function(algorithm.tell)
    settings_of, start, store = device_function(_settings), device_function(start_run), device_function(_store)
    of_problem = device_function(_with_sizes_and_box if boxed else _with_sizes)

    def solve(whole, arrays, record, starts, x_scale, args, rows, numbers, team, results, b):
        settings = settings_of(numbers, team)
        arrays = of_problem(arrays, x_scale, b)
        writes = team is None or team.rank == 0  # the numbers that a problem has once
        if writes:
            results.status[b] = _EXCEPTION
        start(arrays, starts[:, b], numbers.first_square_avg)
        p = record[0]
        while p.status == _RUNNING:
            ask(arrays, record, settings)
            alive, f = evaluate(whole.x_eval, whole.g_eval, team, args, rows, b)
            if not alive:
                return False
            tell(arrays, record, f, settings)
        store(arrays, p, results, b, writes)
        return True

    return device_function(solve)


def _settings(numbers, team):
    return Settings(numbers.hyper, numbers.tests, numbers.rates, numbers.curvature, 1, numbers.sampling, team)


def _with_sizes(arrays, x_scale, b):
    """Return the vectors with the sizes of the variables of problem b; all problems share the bounds."""
    return Arrays(
        arrays.x, arrays.g, arrays.x_eval, arrays.g_eval, arrays.x_best, arrays.g_best, arrays.square_avg,
        arrays.grad_avg, arrays.momentum_buffer, arrays.direction, arrays.metric, x_scale[:, b], arrays.lower,
        arrays.upper, arrays.steps, arrays.gradient_changes, arrays.pair_sums,
    )  # fmt: skip


def _with_sizes_and_box(arrays, x_scale, b):
    """Return the vectors with the sizes and the bounds of problem b; before, the bounds are those of all problems."""
    return Arrays(
        arrays.x, arrays.g, arrays.x_eval, arrays.g_eval, arrays.x_best, arrays.g_best, arrays.square_avg,
        arrays.grad_avg, arrays.momentum_buffer, arrays.direction, arrays.metric, x_scale[:, b], arrays.lower[:, b],
        arrays.upper[:, b], arrays.steps, arrays.gradient_changes, arrays.pair_sums,
    )  # fmt: skip


def _store(arrays, p, results, b, writes):
    f = store_point(p, arrays, results.x[:, b], results.jac[:, b])
    if writes:
        results.fun[b] = f
        results.nit[b] = p.nit
        results.nfev[b] = p.calls
        results.njev[b] = p.nfev
        results.status[b] = p.status


def _make_evaluate(fun: Any, ndims: tuple[int, ...], together: bool = False) -> Any:
    """``evaluate(x, g, team, args, rows, b)``: call fun with args and the data of problem b.

    It returns whether the thread is alive, and f; or only f, for threads of a block that evaluate `together` and are
    given a Team. Compiled code cannot loop over a tuple of different arrays, so a function for each array adds it.
    """
    fun = device_function(fun)

    def call(x, g, team, args, rows, b):  # noqa: ARG001
        return True, fun(x, g, *args)

    def call_together(x, g, team, args, rows, b):  # noqa: ARG001
        return fun(x, g, team, *args)

    evaluate = device_function(call_together if together else call)
    with_next = _with_next_first if together else _with_next_last
    for ndim in reversed(ndims):
        evaluate = device_function(with_next(evaluate, ndim))
    return evaluate


def _with_next_last(rest: Any, ndim: int) -> Callable[..., Any]:
    """Add one array of data whose last axis is the problem."""

    def of_numbers(x, g, team, args, rows, b):
        return rest(x, g, team, (*args, rows[0][b]), rows[1:], b)

    def of_vectors(x, g, team, args, rows, b):
        return rest(x, g, team, (*args, rows[0][:, b]), rows[1:], b)

    def of_matrices(x, g, team, args, rows, b):
        return rest(x, g, team, (*args, rows[0][:, :, b]), rows[1:], b)

    return (of_numbers, of_vectors, of_matrices)[ndim - 1]


def _with_next_first(rest: Any, _ndim: int) -> Callable[..., Any]:
    """Add one array of data whose first axis is the problem."""

    def of_any(x, g, team, args, rows, b):
        return rest(x, g, team, (*args, rows[0][b]), rows[1:], b)

    return of_any
