"""Many problems on a CUDA device: from a job to launches, and back to results."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numba import cuda
from numpy.typing import NDArray

from rmsprop_nb._batch_loop import BatchResults
from rmsprop_nb._batch_run import Job
from rmsprop_nb._cuda_native import SIMULATED, require_device, resident_threads
from rmsprop_nb._cuda_objective import check_arguments, check_objective
from rmsprop_nb._cuda_problem import RECORD_DTYPE, Shape, make_column_kernel, make_local_kernel
from rmsprop_nb._objective import Problem
from rmsprop_nb._solve import AnyOptions, algorithm_of, batch_settings, starting_state
from rmsprop_nb._types import Status

__all__ = ["Plan", "arguments", "plan_of", "run_on_device", "workspace"]

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
    check_arguments(job)


def _shape(problem: Problem, x: NDArray[Any], options: AnyOptions) -> Shape:
    arrays = starting_state(problem, x, options).arrays
    centered, momentum, searches = (bool(a.size) for a in (arrays.grad_avg, arrays.momentum_buffer, arrays.metric))
    return Shape(x.size, x.dtype == np.float64, centered, momentum, searches, len(arrays.steps))


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
    return (
        _problem_last(job.starts),
        job.problem.args,
        rows,
        numbers,
        bounds,
        record,
        tuple(map(_problem_last, results)),
    )


def _problem_last(a: NDArray[Any]) -> NDArray[Any]:
    """A copy whose last axis is the problem."""
    return np.moveaxis(a, 0, -1).copy(order="C")


def _numbers(options: AnyOptions, x: NDArray[Any]) -> tuple[Any, ...]:
    """The settings in the form that a kernel is given: tuples of equal things."""
    settings = batch_settings(options, x)
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
    if not SIMULATED:
        check_objective(job, "A" if plan.columns else "C", cuda.get_current_device().compute_capability)
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
        part = BatchResults._make(a[which] for a in results)
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
    return cuda.to_device(np.ascontiguousarray(value)) if isinstance(value, np.ndarray) else value


def _launch(kernel: Any, grid: tuple[int, int], arguments: tuple[Any, ...]) -> None:
    kernel[grid](*arguments)
    cuda.synchronize()
