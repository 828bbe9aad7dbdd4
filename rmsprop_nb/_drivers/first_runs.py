"""Runs on a machine where the loop of a method has not been compiled yet.

To compile a loop takes Numba about ten seconds, and most runs are over long before. So ask and tell run as Python at
first, around the few functions whose last digits depend on the compiler. The numbers are the same, and the state of a
run is all in its arrays and record, so that a run can go over to compiled code at any time: at once where that is on
disk, otherwise after STEPS, which take about a second as Python.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rmsprop_nb._methods.method import Algorithm
from rmsprop_nb._methods.run_state import RunState
from rmsprop_nb._numba.decorators import JIT_ENABLED, is_compiled

STEPS = 2000
"""Evaluations after which the loop of a method is compiled, in a process."""

LARGEST_SIZE = 64
"""Largest number of variables for which Python is fast enough."""

Advance = Callable[[Any, int, bool, NDArray[np.float64], int], int]

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


def as_python(algorithm: Algorithm) -> Algorithm:
    """Return ask and tell as Python."""
    return Algorithm(algorithm.name, *(_whole(function.py_func) for function in (algorithm.ask, algorithm.tell)))


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
    algorithm: Algorithm,
    state: RunState,
    is_driven_by_code: bool,
    compiled: Advance,
    uncompiled: Callable[[Algorithm], Advance],
    calls: Callable[[Any], list[tuple[Any, ...]]],
) -> Advance:
    """Return `compiled`, or what begins with Python and goes over to it.

    Parameters
    ----------
    is_driven_by_code : bool
        Whether the loop itself is compiled, around a compiled objective.
    uncompiled : callable
        Makes the loop for ask and tell as Python.
    calls : callable
        ``calls(settings)`` returns each kernel that the loop needs, with arguments like those it will be given.
    """
    x, record = state.arrays.x, state.record[0]
    loop = algorithm.name, x.dtype, is_driven_by_code
    if loop in _COMPILED or x.size > LARGEST_SIZE or not JIT_ENABLED:
        return compiled
    steps = uncompiled(as_python(algorithm))
    looked = False

    def advance(settings: Any, *arguments: Any) -> int:
        nonlocal looked
        if loop not in _COMPILED:
            is_due = _steps[loop] >= STEPS
            if not (is_due or looked):
                looked = True
                is_due = all(is_compiled(*call) for call in calls(settings))
            if not is_due:
                before = record["nfev"]
                recorded = steps(settings, *arguments)
                _steps[loop] += int(record["nfev"] - before)
                return recorded
            _COMPILED.add(loop)
        return compiled(settings, *arguments)

    return advance
