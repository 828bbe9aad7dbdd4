"""Keeps kernels with threads of their own from harm that Numba's threading layers do.

"workqueue" ends the process when two threads launch parallel kernels at the same time: they take turns. It does so too
when one is launched from within a parallel loop of the user's: there kernels get one thread, which gives the same bits.
GNU's OpenMP ends a forked process that launches one after its parent has: one thread again.
"""

from __future__ import annotations

import contextlib
import os
import threading
from contextlib import AbstractContextManager
from typing import Any

import numba


class _Process:
    """What is known of this process; a forked one has a new one."""

    lock = threading.RLock()
    forked_from_openmp = False


def usable_threads() -> int:
    """Number of threads that a parallel kernel may use here."""
    return 1 if _Process.forked_from_openmp or _may_be_within_a_parallel_loop() else numba.get_num_threads()


def in_turn() -> AbstractContextManager[Any]:
    """What parallel kernels have to be run within.

    Raises
    ------
    RuntimeError
        Within a loop of the user's that such a kernel would end the process in.
    """
    if _may_be_within_a_parallel_loop():
        msg = (
            "a function compiled with parallel=True cannot be called within a parallel loop, where Numba's threading "
            "layer 'workqueue' would end the process; set NUMBA_THREADING_LAYER=omp, or compile one of the two without."
        )
        raise RuntimeError(msg)
    return contextlib.nullcontext() if _bears_threads() else _Process.lock


def _may_be_within_a_parallel_loop() -> bool:
    """Whether this thread may be one of workqueue's, which run the parallel loops: Python has not started it."""
    return isinstance(threading.current_thread(), threading._DummyThread) and not _bears_threads()


def _bears_threads() -> bool:
    return _layer() in ("omp", "tbb")


def objective_in_turn() -> AbstractContextManager[Any]:
    """What a user's function with threads of its own has to be run within.

    Raises
    ------
    RuntimeError
        In a process that such a function would end.
    """
    if _Process.forked_from_openmp:
        msg = (
            "fun is compiled with parallel=True, and this process was forked from one that had used GNU OpenMP, which "
            "would end it; start processes by 'spawn' or 'forkserver', or set NUMBA_THREADING_LAYER=workqueue."
        )
        raise RuntimeError(msg)
    return in_turn()


def _layer() -> str:
    """The threading layer; Numba chooses it when the first parallel kernel is launched."""
    try:
        return str(numba.threading_layer())
    except ValueError:
        return "none yet"


def _after_fork() -> None:
    _Process.lock = threading.RLock()  # the one from before may be held by a thread that is not here
    _Process.forked_from_openmp = _Process.forked_from_openmp or _layer() == "omp"


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
