"""Many problems on a CUDA device: from a job to launches, and back to results."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numba import cuda, float32, from_dtype, typeof, types
from numpy.typing import NDArray

from rmsprop_nb._batch_loop import BatchResults
from rmsprop_nb._batch_run import Job
from rmsprop_nb._cuda_native import COMPILE_ERRORS, SIMULATED, count_double, require_device, resident_threads
from rmsprop_nb._cuda_problem import RECORD_DTYPE, Shape, make_column_kernel, make_local_kernel
from rmsprop_nb._objective import Problem
from rmsprop_nb._solve import AnyOptions, algorithm_of, settings_of, starting_state
from rmsprop_nb._types import Status

__all__ = ["Plan", "arguments", "plan_of", "run_on_device", "warn_of_double", "workspace"]

BLOCK = 8 if SIMULATED else 128
"""Threads in a block; the simulator starts a thread of Python for each."""

LARGEST_LAUNCH = 2**20
"""Problems in a launch; between two launches Ctrl-C is answered."""

LOCAL_SIZE = 4 if SIMULATED else 32
"""Most variables of a problem whose vectors are local arrays."""

LOCAL_BYTES = 16 * 1024
"""Most local memory that they may take; the driver sets it aside for every thread there can be."""

_RUNNING, _INTERRUPTED = int(Status.RUNNING), int(Status.INTERRUPTED)


# -- what is launched -------------------------------------------------------------------------------------------------


class Plan(NamedTuple):
    """A kernel, and whether it takes a workspace."""

    kernel: Any
    shape: Shape
    columns: bool


def plan_of(job: Job) -> Plan:
    """The kernel for a batch, or a clear error if there is none."""
    _check(job)
    problem = job.problem
    shape = _shape(problem, job.starts[0], job.options)
    columns = shape.n > LOCAL_SIZE or shape.bytes > LOCAL_BYTES
    algorithm, ranks = algorithm_of(job.options, parallel=False), tuple(row.ndim for row in job.rows)
    if columns:
        kernel = make_column_kernel(problem.fun, algorithm, shape._replace(n=0), ranks)
    else:
        kernel = make_local_kernel(problem.fun, algorithm, shape, ranks)
    return Plan(kernel, shape, columns)


def _check(job: Job) -> None:
    if job.problem.jac != "inplace":
        msg = (
            "device='cuda' needs jac='inplace', fun(x, grad, *args) -> f, because a device allocates nothing; "
            f"got jac={job.problem.jac!r}."
        )
        raise ValueError(msg)
    for k, row in enumerate(job.rows):
        if row.ndim > 3:
            msg = f"batch_args[{k}] must have at most 3 axes with device='cuda', got shape {row.shape}."
            raise ValueError(msg)


def _shape(problem: Problem, x: NDArray[Any], options: AnyOptions) -> Shape:
    arrays = starting_state(problem, x, options).arrays
    centered, momentum, searches = (bool(a.size) for a in (arrays.grad_avg, arrays.momentum_buffer, arrays.metric))
    return Shape(x.size, x.dtype == np.float64, centered, momentum, searches, len(arrays.steps))


def warn_of_double(job: Job, compute_capability: tuple[int, int]) -> None:
    """Warn if an objective of float32 computes in float64, as it does when it meets a literal number."""
    vector = types.Array(float32, 1, "C")
    rows = (
        from_dtype(row.dtype) if row.ndim == 1 else types.Array(from_dtype(row.dtype), row.ndim - 1, "A")
        for row in job.rows
    )
    arg_types = (vector, vector, *map(typeof, job.problem.args), *rows)
    try:
        count = count_double(job.problem.fun, arg_types, compute_capability)
    except COMPILE_ERRORS:
        return  # the launch says it better
    if count:
        msg = (
            f"fun computes in float64 ({count} instructions), though x is float32: a number such as 2 or 0.5, or an "
            "argument of float64, makes it so, and most devices are far slower at that. Write x.dtype.type(2), and "
            "give float32 arguments."
        )
        warnings.warn(msg, RuntimeWarning, stacklevel=4)


# -- what it is given -------------------------------------------------------------------------------------------------


def arguments(job: Job, results: BatchResults) -> tuple[Any, ...]:
    """What a kernel is given, on the host, but for a workspace."""
    options = job.options
    new = starting_state(job.problem, job.starts[0], options)
    bounds = new.arrays.lower, new.arrays.upper
    rows = tuple(map(_problem_last, job.rows))
    record = new.record.astype(RECORD_DTYPE)
    record["status"] = _RUNNING
    numbers = _numbers(options, job.starts[0])
    return _problem_last(job.starts), job.problem.args, rows, numbers, bounds, record, tuple(map(_problem_last, results))


def _problem_last(a: NDArray[Any]) -> NDArray[Any]:
    """A copy whose last axis is the problem."""
    return np.moveaxis(a, 0, -1).copy(order="C")


def _numbers(options: AnyOptions, x: NDArray[Any]) -> tuple[Any, ...]:
    """The settings in the form that a kernel is given: tuples of equal things."""
    settings = settings_of(options, x)
    tests = settings.tests
    reals = (tests.gtol, tests.ftol, tests.xtol, tests.f_target, tests.largest_gradient, settings.curvature)
    counts = (tests.maxiter, tests.maxfev, tests.patience)
    accumulator = x.dtype.type(getattr(options, "initial_accumulator", 0.0))
    return tuple(settings.hyper), tuple(map(float, reals)), tuple(map(int, counts)), settings.rates, accumulator


def workspace(shape: Shape, threads: int, empty: Callable[..., Any]) -> tuple[Any, ...]:
    """Room for the vectors of so many threads, made by `empty`."""
    real = np.float64 if shape.double else np.float32
    memory, n_pairs = shape.pairs
    return (
        empty((shape.places[0], shape.n, threads), real),
        empty((memory, n_pairs, threads), real),
        empty((memory, n_pairs, threads), real),
        empty((memory, 2, threads), np.float64),
    )


# -- a run ------------------------------------------------------------------------------------------------------------


def run_on_device(job: Job, results: BatchResults, on_done: Callable[[int], None]) -> None:
    """Run the problems that `results` says have not been run."""
    require_device()
    plan = plan_of(job)
    if job.starts.dtype == np.float32 and not SIMULATED:
        warn_of_double(job, cuda.get_current_device().compute_capability)
    todo = np.flatnonzero(results.status == _INTERRUPTED)
    on_done(len(job.starts) - len(todo))
    try:
        for begin in range(0, len(todo), LARGEST_LAUNCH):
            _run_part(plan, job, results, todo[begin : begin + LARGEST_LAUNCH])
            on_done(len(todo[begin : begin + LARGEST_LAUNCH]))
    except KeyboardInterrupt:
        pass


def _run_part(plan: Plan, job: Job, results: BatchResults, which: NDArray[np.intp]) -> None:
    """Run some of the problems, and once more those that wait for a thread whose objective has raised."""
    while which.size:
        part = BatchResults(*(a[which] for a in results))
        given = _to_device(arguments(job.part(which), part))
        grid = -(-which.size // BLOCK), BLOCK
        if plan.columns:
            grid = _grid(plan.shape, which.size)
            given = (*given, workspace(plan.shape, grid[0] * grid[1], cuda.device_array))
        _launch(plan.kernel, grid, given)
        for target, source in zip(results, given[6], strict=True):
            target[which] = np.moveaxis(source.copy_to_host(), -1, 0)
        which = which[results.status[which] == _INTERRUPTED]


def _grid(shape: Shape, count: int) -> tuple[int, int]:
    """Blocks and threads that the device keeps at work and half of its free memory has room for."""
    free, _ = cuda.current_context().get_memory_info()
    threads = int(min(count, resident_threads(), free // 2 // shape.bytes))
    if threads == 0:
        msg = f"a problem of {shape.n} variables needs {shape.bytes} bytes of vectors, and the device has {free} free."
        raise MemoryError(msg)
    return (1, threads) if threads < BLOCK else (-(-threads // BLOCK), BLOCK)


def _to_device(value: Any) -> Any:
    """The same with every array on the device, within tuples too."""
    if isinstance(value, tuple):
        return tuple(map(_to_device, value))
    return cuda.to_device(value) if isinstance(value, np.ndarray) else value


def _launch(kernel: Any, grid: tuple[int, int], arguments: tuple[Any, ...]) -> None:
    try:
        kernel[grid](*arguments)
        cuda.synchronize()
    except COMPILE_ERRORS as error:
        msg = (
            "fun cannot be compiled for the device, which has no np.dot or @, no array expressions, no allocation and "
            f"few functions of NumPy; loops and the functions of math will do. The compiler says: {error}"
        )
        raise TypeError(msg) from error
