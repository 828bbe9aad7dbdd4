"""A look around before a run says that it has converged, where the sizes of the variables are guesses.

The stopping test takes the size of each variable as given: it asks what moving by it could gain. Of a variable that is
guessed far too small it learns nothing, because f is straight over so short a way. So the gradient is taken once more a
small part of each size away. Where it is the same, the minimum along that variable is many sizes off, or beyond what
differences of f can tell; such a size is made larger, and the run goes on.
"""

from __future__ import annotations

import numpy as np

from rmsprop_nb._core.records import Phase
from rmsprop_nb._core.status import Status
from rmsprop_nb._kernels.thread_team import team_sum
from rmsprop_nb._methods.stopping import f_error
from rmsprop_nb._numba.decorators import inline_jit

_SEARCH, _CONFIRM, _REFRESH = int(Phase.SEARCH), int(Phase.CONFIRM), int(Phase.REFRESH)
_RUNNING, _GTOL, _ROUNDING = int(Status.RUNNING), int(Status.GTOL), int(Status.ROUNDING)

DISTANCE = 1e-3  # of a size
BENT = 0.1  # of a derivative, the least change over that distance in a variable whose size is right
CLEAR = 3.0  # errors of a derivative, above which it, or a change, is not one
ENLARGEMENT = 100.0


@inline_jit
def is_to_be_confirmed(p, tests):
    """Return whether the run has ended by a test that relies on guessed sizes."""
    return tests.guessed_sizes and (p.status == _GTOL or p.status == _ROUNDING)


@inline_jit
def begin_confirming(p):
    """Let the next evaluation decide whether the status stands."""
    p.verdict = p.status
    p.status = _RUNNING
    p.phase = _CONFIRM


@inline_jit
def place_confirmation(arrays):
    """Set ``x_eval`` to the point that the gradient is compared with: downhill from x in every variable."""
    x, g = arrays.x, arrays.g
    for i in range(x.size):
        step = x.dtype.type(DISTANCE * _size(arrays, i))
        arrays.x_eval[i] = x[i] - step if g[i] > 0 else x[i] + step
        if arrays.lower.size:
            arrays.x_eval[i] = min(max(arrays.x_eval[i], arrays.lower[i]), arrays.upper[i])


@inline_jit
def end_confirmation(arrays, p, settings):
    """Let the status stand, or go on with larger sizes; then the gradient is computed anew."""
    p.phase = _SEARCH
    if team_sum(settings.team, _enlarge(arrays, p, settings.sampling.differences)) == 0.0:
        p.status = p.verdict
        return
    p.phase = _REFRESH
    p.compared = 0
    p.unsure = 0.0
    p.mark = p.evaluations


@inline_jit
def _enlarge(arrays, p, differences):
    """Enlarge the sizes that are too small; return how many."""
    x, largest = arrays.x, 1e30 if arrays.x.itemsize == 8 else 1e12
    error = 2.0 * f_error(p) / abs(p.rel_step) if differences and p.rel_step != 0.0 else 0.0
    enlarged = 0.0
    for i in range(x.size):
        size = _size(arrays, i)
        gi = np.float64(arrays.g[i])
        straight = _is_straight(gi, np.float64(arrays.g_eval[i]), CLEAR * error / size, differences and size < 1.0)
        if straight and size < min(largest, _room(arrays, i, gi)):
            arrays.x_scale[i] = x.dtype.type(ENLARGEMENT * size)
            enlarged += 1.0
    return enlarged


@inline_jit
def _is_straight(derivative, there, error, is_small):
    """Return whether a derivative is the same in two places, or too small to tell if the variable `is_small`."""
    change = abs(there - derivative)
    if change <= error:
        return abs(derivative) > error or is_small
    return change < BENT * abs(derivative)


@inline_jit
def _size(arrays, i):
    return max(abs(np.float64(arrays.x[i])), np.float64(arrays.x_scale[i]))


@inline_jit
def _room(arrays, i, gi):
    """Return how far a variable can go downhill."""
    if arrays.lower.size == 0:
        return np.inf
    xi = np.float64(arrays.x[i])
    return xi - arrays.lower[i] if gi > 0.0 else arrays.upper[i] - xi
