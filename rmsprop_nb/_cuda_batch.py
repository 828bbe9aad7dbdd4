"""Many problems on a CUDA device: each thread minimizes one, with the ask and tell of the CPU, in a single launch.

All vectors of a problem stand in the thread's local memory, which for few variables means registers. Data of the
problems are laid out with the problem as the last axis, so that the threads of a warp read neighbouring words.
"""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numba import cuda, float32, float64, from_dtype, typeof, types
from numpy.typing import NDArray

from rmsprop_nb._batch_loop import BatchResults
from rmsprop_nb._batch_run import Job
from rmsprop_nb._cuda_native import COMPILE_ERRORS, SIMULATED, count_double, device_function, require_device
from rmsprop_nb._loop import Algorithm
from rmsprop_nb._objective import Problem
from rmsprop_nb._solve import AnyOptions, algorithm_of, settings_of, starting_state
from rmsprop_nb._types import PROGRESS_DTYPE, Arrays, Hyper, Settings, Status, StoppingTests

__all__ = ["LOCAL_BYTES", "arguments", "kernel_for", "run_on_device", "warn_of_double"]

BLOCK = 8 if SIMULATED else 128
"""Threads in a block; the simulator starts a thread of Python for each."""

LARGEST_LAUNCH = 2**20
"""Problems in a launch; between two launches Ctrl-C is answered."""

LOCAL_BYTES = 16 * 1024
"""Most local memory that the vectors of a problem may take; the driver sets it aside for every thread there can be."""

_RUNNING, _GTOL = int(Status.RUNNING), int(Status.GTOL)
_INTERRUPTED = int(Status.INTERRUPTED)
# Every number of a record has eight bytes; said to be aligned, they are read and written whole.
_RECORD_DTYPE = np.dtype((np.record, PROGRESS_DTYPE.descr)) if SIMULATED else np.dtype(PROGRESS_DTYPE.descr, align=True)
_RECORD = _RECORD_DTYPE if SIMULATED else from_dtype(_RECORD_DTYPE)


class Shape(NamedTuple):
    """What the vectors of a thread follow from."""

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
    def local_bytes(self) -> int:
        """Bytes of the vectors of a thread."""
        return (self.places[0] + 2 * self.memory) * self.n * (8 if self.double else 4) + 16 * self.memory


def _shape(problem: Problem, x: NDArray[Any], options: AnyOptions) -> Shape:
    arrays = starting_state(problem, x, options).arrays
    centered, momentum, searches = (bool(a.size) for a in (arrays.grad_avg, arrays.momentum_buffer, arrays.metric))
    return Shape(x.size, x.dtype == np.float64, centered, momentum, searches, len(arrays.steps))


# -- the kernel -------------------------------------------------------------------------------------------------------


def make_batch_kernel(fun: Any, algorithm: Algorithm, shape: Shape, ranks: tuple[int, ...]) -> Any:
    """Make the kernel for an objective, a method and numbers of axes of the problems' data.

    ``kernel[blocks, threads](starts, args, rows, numbers, bounds, first_record, results)``; the data of problem b are
    ``row[..., b]`` for each of `rows`, and `numbers` are what `_numbers` returns.
    """
    ask, tell = device_function(algorithm.ask), device_function(algorithm.tell)
    evaluate = _make_evaluate(device_function(fun), ranks)
    real = float64 if shape.double else float32
    n, memory, n_pairs = shape.n, max(shape.memory, 1), shape.n if shape.memory else 1
    count, centered, momentum, metric = shape.places

    def kernel(starts, args, rows, numbers, bounds, first_record, results):  # type: ignore[no-untyped-def]
        hyper, reals, counts, rates, accumulator = numbers
        tests = StoppingTests(reals[0], reals[1], reals[2], reals[3], counts[0], counts[1], counts[2], reals[4])
        settings = Settings(Hyper(*hyper), tests, rates, reals[5], 1)
        lower, upper = bounds
        x_found, f_found, g_found, nit, nfev, status = results
        v = cuda.local.array((count, n), real)
        steps, changes = cuda.local.array((memory, n_pairs), real), cuda.local.array((memory, n_pairs), real)
        pair_sums = cuda.local.array((memory, 2), float64)
        record = cuda.local.array(1, _RECORD)
        arrays = Arrays(
            v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[centered], v[momentum], v[metric], lower, upper,
            steps, changes, pair_sums,
        )  # fmt: skip
        x, x_best, p = arrays.x, arrays.x_best, record[0]
        problem = cuda.grid(1)
        while problem < starts.shape[0]:
            record[0] = first_record[0]
            for i in range(n):
                for k in range(count):
                    v[k, i] = 0
                arrays.g_eval[i] = math.nan  # an element that the objective never fills is seen
                arrays.square_avg[i] = accumulator
                x[i] = starts[problem, i]
                if lower.size:
                    x[i] = min(max(x[i], lower[i]), upper[i])
                x_best[i] = x[i]
            while p.status == _RUNNING:
                ask(arrays, record, settings)
                f = evaluate(arrays.x_eval, arrays.g_eval, args, rows, problem)
                tell(arrays, record, f, settings)
            best = p.status != _GTOL and math.isfinite(p.f_best)
            for i in range(n):
                x_found[problem, i] = x_best[i] if best else x[i]
                g_found[problem, i] = arrays.g_best[i] if best else arrays.g_eval[i]
            f_found[problem] = p.f_best if best else p.f
            nit[problem] = p.nit
            nfev[problem] = p.nfev
            status[problem] = p.status
            problem += cuda.gridsize(1)

    return cuda.jit(kernel)


def _make_evaluate(fun: Any, ranks: tuple[int, ...]) -> Any:
    """``evaluate(x, g, args, rows, b)``: call fun with args and the data of problem b, one array of them after another.

    Tuples of different arrays cannot be looped over in compiled code, so each array has a function of its own.
    """

    def call(x, g, args, rows, b):  # type: ignore[no-untyped-def]  # noqa: ARG001
        return fun(x, g, *args)

    evaluate = device_function(call)
    for rank in reversed(ranks):
        evaluate = device_function(_with_next_row(evaluate, rank))
    return evaluate


def _with_next_row(rest: Any, rank: int) -> Callable[..., Any]:
    def of_numbers(x, g, args, rows, b):  # type: ignore[no-untyped-def]
        return rest(x, g, (*args, rows[0][b]), rows[1:], b)

    def of_vectors(x, g, args, rows, b):  # type: ignore[no-untyped-def]
        return rest(x, g, (*args, rows[0][:, b]), rows[1:], b)

    def of_matrices(x, g, args, rows, b):  # type: ignore[no-untyped-def]
        return rest(x, g, (*args, rows[0][:, :, b]), rows[1:], b)

    return (of_numbers, of_vectors, of_matrices)[rank - 1]


# -- a run ------------------------------------------------------------------------------------------------------------


def run_on_device(job: Job, results: BatchResults, on_done: Callable[[int], None]) -> None:
    """Run the problems that `results` says have not been run."""
    require_device()
    kernel = kernel_for(job)
    if job.starts.dtype == np.float32 and not SIMULATED:
        warn_of_double(job, cuda.get_current_device().compute_capability)
    todo = np.flatnonzero(results.status == _INTERRUPTED)
    on_done(len(job.starts) - len(todo))
    try:
        for begin in range(0, len(todo), LARGEST_LAUNCH):
            which = todo[begin : begin + LARGEST_LAUNCH]
            found = tuple(cuda.to_device(a[which]) for a in results)
            _launch(kernel, len(which), (*_to_device(arguments(job.part(which))), found))
            for target, source in zip(results, found, strict=True):
                target[which] = source.copy_to_host()
            on_done(len(which))
    except KeyboardInterrupt:
        pass


def kernel_for(job: Job) -> Any:
    """The kernel for a batch, or a clear error if there is none."""
    problem = job.problem
    if problem.jac != "inplace":
        msg = (
            "device='cuda' needs jac='inplace', fun(x, grad, *args) -> f, because a device allocates nothing; "
            f"got jac={problem.jac!r}."
        )
        raise ValueError(msg)
    for k, row in enumerate(job.rows):
        if row.ndim > 3:
            msg = f"batch_args[{k}] must have at most 3 axes with device='cuda', got shape {row.shape}."
            raise ValueError(msg)
    shape = _shape(problem, job.starts[0], job.options)
    if shape.local_bytes > LOCAL_BYTES:
        msg = (
            f"device='cuda' has room for {LOCAL_BYTES} bytes of vectors a problem, and n={shape.n} needs "
            f"{shape.local_bytes}; use device='cpu', or minimize one such problem with x0 on the device."
        )
        raise ValueError(msg)
    algorithm = algorithm_of(job.options, parallel=False)
    return _kept_kernel(problem.fun, algorithm, shape, tuple(row.ndim for row in job.rows))


_kept_kernel = functools.lru_cache(maxsize=256)(make_batch_kernel)


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


def arguments(job: Job) -> tuple[Any, ...]:
    """What a kernel takes before the results, on the host."""
    starts, options = job.starts, job.options
    new = starting_state(job.problem, starts[0], options)
    bounds = new.arrays.lower, new.arrays.upper
    laid_out = tuple(np.ascontiguousarray(np.moveaxis(row, 0, -1)) for row in job.rows)
    record = new.record.astype(_RECORD_DTYPE)
    record["status"] = _RUNNING
    return starts, job.problem.args, laid_out, _numbers(options, starts[0]), bounds, record


def _numbers(options: AnyOptions, x: NDArray[Any]) -> tuple[Any, ...]:
    """The settings in the form that a kernel is given: tuples of equal things."""
    settings = settings_of(options, x)
    tests = settings.tests
    reals = (tests.gtol, tests.ftol, tests.xtol, tests.f_target, tests.largest_gradient, settings.curvature)
    counts = (tests.maxiter, tests.maxfev, tests.patience)
    accumulator = x.dtype.type(getattr(options, "initial_accumulator", 0.0))
    return tuple(settings.hyper), tuple(map(float, reals)), tuple(map(int, counts)), settings.rates, accumulator


def _to_device(value: Any) -> Any:
    """The same with every array on the device, within tuples too."""
    if isinstance(value, tuple):
        return tuple(map(_to_device, value))
    return cuda.to_device(value) if isinstance(value, np.ndarray) else value


def _launch(kernel: Any, count: int, arguments: tuple[Any, ...]) -> None:
    try:
        kernel[-(-count // BLOCK), BLOCK](*arguments)
        cuda.synchronize()
    except COMPILE_ERRORS as error:
        msg = (
            "fun cannot be compiled for the device, which has no np.dot or @, no array expressions, no allocation and "
            f"few functions of NumPy; loops and the functions of math will do. The compiler says: {error}"
        )
        raise TypeError(msg) from error
