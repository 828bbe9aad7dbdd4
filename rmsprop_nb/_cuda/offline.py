"""Kernels of batches compiled and linked for a device that need not be there, and what they take of it."""

from __future__ import annotations

import contextlib
import importlib
import re
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
from numba import typeof
from numpy.typing import ArrayLike

from rmsprop_nb._core.batch_arguments import as_rows, as_starts, check_rows
from rmsprop_nb._core.kernel_report import KernelReport
from rmsprop_nb._core.validate import as_args, as_options, check_callable, check_jac, check_known
from rmsprop_nb._cuda.batch import arguments, launch_of, with_gradient, workspace
from rmsprop_nb._cuda.native import SIMULATED, cuda, require_compiler
from rmsprop_nb._cuda.objective import count_float64, literals_of
from rmsprop_nb._drivers.batch_loop import BatchResults
from rmsprop_nb._drivers.batch_threads import Job
from rmsprop_nb._methods.registry import OPTIONS, method_name, option_names
from rmsprop_nb._objectives.problem import Problem

COMMON = (9, 0)
"""The compute capability that is compiled for where there is no device."""


def examine(
    fun: Callable[..., Any],
    X0: ArrayLike,
    args: tuple[Any, ...],
    batch_args: tuple[Any, ...] | None,
    method: str,
    jac: str | None,
    options: dict[str, Any] | None,
    capability: tuple[int, int] | None,
) -> KernelReport:
    """Do the work of `rmsprop_nb.cuda.check`, which has the same arguments."""
    require_compiler()
    if SIMULATED:
        msg = "the simulator compiles nothing; start Python without NUMBA_ENABLE_CUDASIM to check an objective."
        raise RuntimeError(msg)
    check_callable("fun", fun)
    rows = as_rows(batch_args)
    starts = as_starts(X0, rows, None)
    check_rows(rows, len(starts))
    none = np.empty(0, starts.dtype)
    problem = with_gradient(Problem(fun, check_jac(jac), as_args(args), none, none), starts.shape[1], starts.dtype)
    chosen = as_options(options)
    check_known(chosen, option_names(method_name(method)), method)
    parsed = OPTIONS[method](**chosen)
    job = Job(problem, starts[:1], tuple(row[:1] for row in rows), parsed)
    found = capability or _current_capability()
    with standing_in(found):
        launch = launch_of(job)
        count = count_float64(job, launch.vectors, found)
        given: tuple[Any, ...] = arguments(job, HostMemory())
        if launch.columns:
            given = (*given, workspace(launch, launch.team or 1, np.zeros))
        registers, local, spilled = usage(linked(launch.kernel, tuple(map(typeof, given)), found)[1])
    is_slower = count and starts.dtype == np.float32
    return KernelReport(found, registers, local, spilled, count, literals_of(fun) if is_slower else "")


class HostMemory:
    """Arrays as a device has them, on the host."""

    @staticmethod
    def whole(value: Any) -> Any:
        """Return an array as it is."""
        return value

    @staticmethod
    def columns(rows: Any) -> Any:
        """Return rows as columns."""
        return np.moveaxis(rows, 0, -1).copy(order="C")

    @staticmethod
    def sizes(shared: Any, starts: Any) -> Any:
        """Return the typical sizes of variables."""
        sizes = np.where(shared > 0, shared, np.abs(starts[: len(shared)].T)).T
        return np.where(sizes > 0, sizes, 1).astype(starts.dtype)

    @classmethod
    def results(cls, starts: Any) -> BatchResults:
        """Return room for results."""
        return BatchResults(*map(cls.columns, BatchResults.empty(starts.T.copy(), starts.shape[0])))


@contextlib.contextmanager
def standing_in(capability: tuple[int, int]) -> Iterator[None]:
    """Answer for the device that the compiler asks where a kernel calls another function."""
    module: Any = importlib.import_module("numba.cuda.dispatcher")
    asked = module.get_current_device
    module.get_current_device = lambda: SimpleNamespace(compute_capability=capability)
    try:
        yield
    finally:
        module.get_current_device = asked


def linked(kernel: Any, arg_types: tuple[Any, ...], capability: tuple[int, int]) -> tuple[bytes, str]:
    """Compile and link as numba-cuda does when it launches; return the machine code and what the linker says."""
    from cuda.bindings import nvjitlink

    with standing_in(capability):
        code, _ = cuda.compile(
            kernel.py_func, arg_types, device=False, abi="numba", cc=capability, output="ltoir",
            launch_bounds=kernel.targetoptions["launch_bounds"],
        )  # fmt: skip
    options = [f"-arch=sm_{capability[0]}{capability[1]}", "-lto", "-verbose"]
    handle = nvjitlink.create(len(options), options)
    try:
        nvjitlink.add_data(handle, nvjitlink.InputType.LTOIR, code, len(code), "kernel")
        nvjitlink.complete(handle)
        cubin, log = bytearray(nvjitlink.get_linked_cubin_size(handle)), bytearray(nvjitlink.get_info_log_size(handle))
        nvjitlink.get_linked_cubin(handle, cubin)
        nvjitlink.get_info_log(handle, log)
    finally:
        nvjitlink.destroy(handle)
    return bytes(cubin), log.decode(errors="replace")


def usage(said: str) -> tuple[int, int, int]:
    """Return registers, bytes of the stack frame, and bytes spilled, from what the linker says."""
    patterns = (
        r"Used (\d+) registers",
        r"(\d+) bytes stack frame",
        r"(\d+) bytes spill stores",
        r"(\d+) bytes spill loads",
    )
    registers, stack, stored, loaded = (sum(map(int, re.findall(pattern, said))) for pattern in patterns)
    return registers, stack, stored + loaded


def _current_capability() -> tuple[int, int]:
    return tuple(cuda.get_current_device().compute_capability) if cuda.is_available() else COMMON
