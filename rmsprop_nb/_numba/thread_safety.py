"""Protection of parallel kernels from the cases in which Numba's threading layers end the process.

"workqueue" does so when two threads launch parallel kernels at the same time, so they take turns. It also does so when
a kernel is launched inside the user's own parallel loop; there kernels get one thread, which gives the same bits. GNU's
OpenMP ends a forked process that launches a parallel kernel after its parent has; there, too, kernels get one thread.
"""

from __future__ import annotations

import contextlib
import os
import threading
from contextlib import AbstractContextManager
from typing import Any

import numba


class _Process:
    """State of this process, renewed after a fork."""

    lock = threading.RLock()
    forked_from_openmp = False


def usable_threads() -> int:
    """Return the number of threads that a parallel kernel may use here."""
    return 1 if _Process.forked_from_openmp or _may_be_within_a_parallel_loop() else numba.get_num_threads()


def in_turn() -> AbstractContextManager[Any]:
    """Return the context in which parallel kernels must run.

    Raises
    ------
    RuntimeError
        Inside a parallel loop of the user, where such a kernel would end the process.
    """
    if _may_be_within_a_parallel_loop():
        msg = (
            "a function compiled with parallel=True cannot be called within a parallel loop, where Numba's threading "
            "layer 'workqueue' would end the process; set NUMBA_THREADING_LAYER=omp, or compile one of the two without "
            "parallel=True."
        )
        raise RuntimeError(msg)
    return contextlib.nullcontext() if _layer_is_thread_safe() else _Process.lock


def _may_be_within_a_parallel_loop() -> bool:
    """Return whether this thread may be one of workqueue's, which run parallel loops and are not started by Python."""
    return isinstance(threading.current_thread(), threading._DummyThread) and not _layer_is_thread_safe()


def _layer_is_thread_safe() -> bool:
    return _threading_layer() in ("omp", "tbb")


def objective_in_turn() -> AbstractContextManager[Any]:
    """Return the context in which a user's parallel function must run.

    Raises
    ------
    RuntimeError
        Where such a function would end the process.
    """
    if _Process.forked_from_openmp:
        msg = (
            "fun is compiled with parallel=True, and this process was forked from one that had used GNU OpenMP, which "
            "would end it; start processes with 'spawn' or 'forkserver', or set NUMBA_THREADING_LAYER=workqueue."
        )
        raise RuntimeError(msg)
    return in_turn()


def _threading_layer() -> str:
    """Return the threading layer, which Numba chooses when the first parallel kernel is launched."""
    try:
        return str(numba.threading_layer())
    except ValueError:
        return "none yet"


def _after_fork() -> None:
    _Process.lock = threading.RLock()  # the old one may be held by a thread that does not exist in this process
    _Process.forked_from_openmp = _Process.forked_from_openmp or _threading_layer() == "omp"


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
