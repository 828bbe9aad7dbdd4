"""Many problems on a CUDA device: from a job to kernel launches, and back to results."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rmsprop_nb._core.options import Options
from rmsprop_nb._core.status import Status
from rmsprop_nb._cuda.batch_kernels import (
    BLOCK,
    RECORD_DTYPE,
    Numbers,
    Shape,
    make_block_kernel,
    make_column_kernel,
    make_local_kernel,
)
from rmsprop_nb._cuda.batch_memory import DeviceMemory
from rmsprop_nb._cuda.block_team import LARGEST_TEAM
from rmsprop_nb._cuda.native import SIMULATED, PreparedLaunch, cuda, require_compiler, require_device, resident_threads
from rmsprop_nb._cuda.objective import check_arguments, check_objective
from rmsprop_nb._drivers.batch_loop import BatchResults
from rmsprop_nb._drivers.batch_run import OnDevice
from rmsprop_nb._drivers.batch_threads import Job
from rmsprop_nb._drivers.solve import algorithm_of, batch_settings
from rmsprop_nb._kernels.thread_team import Team
from rmsprop_nb._methods.registry import method_of
from rmsprop_nb._objectives.exact import AUTODIFF
from rmsprop_nb._objectives.problem import Problem

LARGEST_LAUNCH = 2**20
"""Problems in a launch; Ctrl-C takes effect between launches."""

LOCAL_SIZE = 4 if SIMULATED else 32
"""Largest number of variables for which the vectors of a problem are local arrays."""

LOCAL_BYTES = 16 * 1024
"""Largest local memory that they may take; the driver reserves it for every thread that can run."""

MOST_EXACT = 32
"""Largest number of variables for exact derivatives: a thread keeps each variable with up to 16 derivatives."""

_RUNNING, _INTERRUPTED = int(Status.RUNNING), int(Status.INTERRUPTED)


# -- the kernel -------------------------------------------------------------------------------------------------


class Launch(NamedTuple):
    """A kernel, whether it takes a workspace, and how many threads share a problem (0: each thread has its own)."""

    kernel: Any
    shape: Shape
    columns: bool
    team: int

    @property
    def vectors(self) -> str:
        """Numba's name for the layout of the vectors that the objective is given."""
        return "A" if self.columns and not self.team else "C"


def launch_of(job: Job) -> Launch:
    """Choose the kernel for a batch; raise if the device cannot run it."""
    check_arguments(job)
    problem = job.problem
    shape = Shape(job.starts.shape[1], job.starts.dtype, method_of(job.options).layout(*job.options.kind[1:]))
    columns = shape.n > LOCAL_SIZE or shape.bytes > LOCAL_BYTES
    algorithm, ndims = algorithm_of(job.options, parallel=False), tuple(row.ndim for row in job.rows)
    boxed = job.boxes is not None
    if _is_cooperative(problem):
        kernel = make_block_kernel(problem.fun, algorithm, shape._replace(n=0), ndims, boxed)
        return Launch(kernel, shape, True, min(LARGEST_TEAM, 2 ** (shape.n.bit_length() - 1)))
    if columns:
        kernel = make_column_kernel(problem.fun, algorithm, shape._replace(n=0), ndims, boxed)
    else:
        kernel = make_local_kernel(problem.fun, algorithm, shape, ndims, boxed)
    return Launch(kernel, shape, columns, 0)


def _is_cooperative(problem: Problem) -> bool:
    """Return whether the threads of a block evaluate the objective together."""
    return bool(problem.args) and isinstance(problem.args[0], Team)


def prepare(problem: Problem, n: int, dtype: Any) -> tuple[Problem, OnDevice]:
    """Return the problem as the host is to know it, and what runs a batch on the device.

    The host evaluates objectives again that have raised. It needs no exact derivatives for that.
    """
    there = with_gradient(problem, n, dtype)

    def run(job: Job, results: BatchResults, on_done: Callable[[int], None]) -> None:
        run_on_device(dataclasses.replace(job, problem=there), results, on_done)

    return (problem if there is problem else dataclasses.replace(problem, jac=None, exact=True)), run


def with_gradient(problem: Problem, n: int, dtype: Any) -> Problem:
    """Return the problem with an objective that fills its gradient; raise if a device cannot make it.

    Parameters
    ----------
    problem : Problem
        The problem, in any form.
    n, dtype : int and dtype
        Size and dtype of x.
    """
    if isinstance(problem.jac, str) and problem.jac == "inplace":
        return problem
    needed = "device='cuda' needs jac='inplace', fun(x, grad, *args) -> f"
    if not (problem.jac is None or problem.jac == AUTODIFF):
        msg = f"{needed}, or exact derivatives (jac=None), because a device allocates nothing; got jac={problem.jac!r}."
        raise ValueError(msg)
    if _is_cooperative(problem) or n > MOST_EXACT:
        msg = (
            f"{needed}, if the threads of a team share a problem or it has more than {MOST_EXACT} variables; got "
            f"jac={problem.jac!r} and {n} variables."
        )
        raise ValueError(msg)
    require_compiler()
    if SIMULATED:
        msg = f"{needed}, in the simulator, which cannot compile exact derivatives; got jac={problem.jac!r}."
        raise ValueError(msg)
    from rmsprop_nb._cuda.derivatives import gradient_on_device

    fun = gradient_on_device(problem.fun, n, np.dtype(dtype) == np.float32)
    return dataclasses.replace(problem, fun=fun, jac="inplace", exact=True)


# -- its arguments -------------------------------------------------------------------------------------------------


class Given(NamedTuple):
    """The arguments of a kernel; the last axis of each array is the problem, except in the data of a team."""

    starts: Any
    x_scale: Any
    args: tuple[Any, ...]
    rows: tuple[Any, ...]
    numbers: Numbers
    bounds: tuple[Any, Any]  # of each problem, or with one axis for all
    first_record: Any
    results: BatchResults
    taken: Any  # how many problems threads have taken


def arguments(job: Job, memory: Any) -> Given:
    """Return the arguments of a kernel, in `memory`, a DeviceMemory or what stands in, and without a workspace."""
    cooperative = _is_cooperative(job.problem)
    record = job.new_state().record.astype(RECORD_DTYPE)
    record["status"] = _RUNNING
    starts, shared = memory.columns(job.starts), job.shared_sizes()
    return Given(
        starts=starts,
        x_scale=memory.columns(job.x_scale) if shared is None else memory.sizes(shared, starts),
        args=memory.whole(job.problem.args[1:] if cooperative else job.problem.args),
        rows=tuple(map(memory.whole if cooperative else memory.columns, job.rows)),
        numbers=memory.whole(_numbers(job.options, job.problem, job.starts[0])),
        bounds=(memory.columns(job.bounds[0]), memory.columns(job.bounds[1])),
        first_record=memory.whole(record),
        results=memory.results(starts),
        taken=memory.whole(np.zeros(1, np.int64)),
    )


def _numbers(options: Options, problem: Problem, x: NDArray[Any]) -> Numbers:
    settings = batch_settings(options, x, problem.sampling)
    square_avg = x.dtype.type(options.first_square_avg)
    return Numbers(settings.hyper, settings.tests, settings.rates, settings.curvature, settings.sampling, square_avg)


def workspace(launch: Launch, threads: int, empty: Callable[..., Any]) -> tuple[Any, ...]:
    """Make the vectors of `threads` threads with `empty`; the threads of a team share theirs."""
    shape, count = launch.shape, threads // (launch.team or 1)
    pairs = (shape.memory, shape.pair_length)
    sizes = (len(shape.layout.vectors), shape.n), pairs, pairs
    vectors = tuple(empty((count, *size) if launch.team else (*size, count), shape.dtype) for size in sizes)
    return (*vectors, empty((shape.memory, 2, threads), np.float64))


# -- a run ------------------------------------------------------------------------------------------------------------


def run_on_device(job: Job, results: BatchResults, on_done: Callable[[int], None]) -> None:
    """Run the problems that have no result yet."""
    require_device()
    launch = launch_of(job)
    if not SIMULATED:
        check_objective(job, launch.vectors, cuda.get_current_device().compute_capability)
    todo = np.flatnonzero(results.status == _INTERRUPTED)
    on_done(len(job.starts) - len(todo))
    memory = DeviceMemory()
    try:
        for begin in range(0, len(todo), LARGEST_LAUNCH):
            part = todo[begin : begin + LARGEST_LAUNCH]
            _run_part(launch, job, results, part, memory)
            on_done(len(part))
    except KeyboardInterrupt:
        pass
    finally:
        memory.close()


def _run_part(launch: Launch, job: Job, results: BatchResults, which: NDArray[np.intp], memory: DeviceMemory) -> None:
    """Run some of the problems; repeat those that were left over when the objective raised in their thread."""
    while which.size:
        given = arguments(job.part(_as_slice(which)), memory)
        grid = _grid(launch, which.size)
        space = (workspace(launch, grid[0] * grid[1], cuda.device_array),) if launch.columns else ()
        _launch(launch.kernel, grid, (*given, *space))
        _fetch(given.results, results, _as_slice(which), memory)
        which = which[results.status[which] == _INTERRUPTED]


def _as_slice(which: NDArray[np.intp]) -> NDArray[np.intp] | slice:
    """Return increasing numbers as a slice if none is left out, because that copies nothing."""
    first, last = int(which[0]), int(which[-1])
    return slice(first, last + 1) if last - first + 1 == len(which) else which


def _fetch(found: BatchResults, results: BatchResults, which: NDArray[np.intp] | slice, memory: DeviceMemory) -> None:
    """Copy what a launch has found to where the results of its problems are."""
    for columns, target in zip(found, results, strict=True):
        rows = target[which]
        memory.fetch(columns, rows)
        if not isinstance(which, slice):
            target[which] = rows


def _grid(launch: Launch, count: int) -> tuple[int, int]:
    """Return as many blocks and threads as the device can keep busy, and half of its free memory can hold."""
    at_work = min(count, resident_threads() // (launch.team or 1))
    if launch.columns:
        at_work = _held(launch.shape, at_work)
    if launch.team:
        return at_work, launch.team
    return (1, at_work) if at_work < BLOCK else (-(-at_work // BLOCK), BLOCK)


def _held(shape: Shape, count: int) -> int:
    """Return the vectors of how many problems half of the free memory can hold, at most `count`."""
    free, _ = cuda.current_context().get_memory_info()
    if free < shape.bytes * 2:
        msg = f"a problem of {shape.n} variables needs {shape.bytes} bytes of vectors, and the device has {free} free."
        raise MemoryError(msg)
    return count if free >= 2 * count * shape.bytes else int(free // 2 // shape.bytes)


def _launch(kernel: Any, grid: tuple[int, int], arguments: tuple[Any, ...]) -> None:
    PreparedLaunch(kernel, *grid, 0, arguments)()
    cuda.synchronize()
