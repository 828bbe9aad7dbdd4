"""Runs on a machine where the loop of a method has not been compiled yet.

To compile a loop takes Numba about ten seconds, and most runs are over long before. So ask and tell run as Python at
first, around the few functions whose last digits depend on the compiler. The numbers are the same, and the state of a
run is all in its arrays and record, so that a run can go over to compiled code at any time: at once where that is on
disk, otherwise after STEPS, which take about a second as Python.
"""

from __future__ import annotations

import contextlib
import functools
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rmsprop_nb._methods.method import Algorithm
from rmsprop_nb._numba.decorators import JIT_ENABLED

STEPS = 2000
"""Evaluations after which the loop of a method is compiled, in a process."""

LARGEST_SIZE = 64
"""Largest number of variables for which Python is fast enough."""

Run = Callable[..., int]

_COMPILED: set[Any] = set()
_steps: Counter[Any] = Counter()


@contextlib.contextmanager
def compiled_at_once() -> Iterator[None]:
    """Let loops be compiled before their first step."""
    global STEPS
    before, STEPS = STEPS, 0
    try:
        yield
    finally:
        STEPS = before


@functools.cache
def as_python(algorithm: Algorithm, loop: Any) -> Algorithm:
    """Return ask and tell as Python; each step counts as one of `loop`."""

    def tell(*arguments: Any) -> None:
        _steps[loop] += 1
        tell_whole(*arguments)

    tell_whole = _whole(algorithm.tell.py_func)
    return Algorithm((*algorithm.name, "as Python"), _whole(algorithm.ask.py_func), tell)


def _whole(function: Callable[..., None]) -> Callable[..., None]:
    """Make `function` happen as a whole or, where Ctrl-C comes, not at all."""

    def step(arrays: Any, record: NDArray[Any], *arguments: Any) -> None:
        before = [(a, a.copy()) for a in (*arrays, record)]
        try:
            with np.errstate(all="ignore"):
                function(arrays, record.view(np.recarray), *arguments)
        except KeyboardInterrupt:
            for changed, kept in before:
                changed[...] = kept
            raise

    return step


def compiled_in_time(
    loop: Any, size: int, compiled: Run, uncompiled: Callable[[], Run], is_ready: Callable[..., bool]
) -> Run:
    """Return `compiled`, or a function that begins with another and goes over to it.

    Parameters
    ----------
    loop : hashable
        What `compiled` is called here.
    size : int
        Number of variables.
    uncompiled : callable
        Makes what does the same around `as_python`.
    is_ready : callable
        Whether `compiled` need not be compiled for these arguments.
    """
    if loop in _COMPILED or size > LARGEST_SIZE or not JIT_ENABLED:
        return compiled
    run, looked = uncompiled(), False

    def first(*arguments: Any) -> int:
        nonlocal looked
        if loop not in _COMPILED:
            is_due = _steps[loop] >= STEPS
            if not (is_due or looked):
                looked = True
                is_due = is_ready(*arguments)
            if not is_due:
                return run(*arguments)
            _COMPILED.add(loop)
        return compiled(*arguments)

    return first
