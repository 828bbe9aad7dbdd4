"""Keeps kernels with threads of their own from harm that Numba's threading layers do.

"workqueue" ends the process when two threads launch parallel kernels at the same time: they take turns. GNU's OpenMP
ends a forked process that launches one after its parent has: there kernels get one thread, which gives the same bits.
"""

from __future__ import annotations

import contextlib
import os
import threading
from contextlib import AbstractContextManager
from typing import Any

import numba

__all__ = ["in_turn", "objective_in_turn", "usable_threads"]


class _Process:
    """What is known of this process; a forked one has a new one."""

    lock = threading.RLock()
    forked_from_openmp = False


def usable_threads() -> int:
    """Number of threads that a parallel kernel may use here."""
    return 1 if _Process.forked_from_openmp else numba.get_num_threads()


def in_turn() -> AbstractContextManager[Any]:
    """What parallel kernels have to be run within."""
    return contextlib.nullcontext() if _layer() in ("omp", "tbb") else _Process.lock


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
