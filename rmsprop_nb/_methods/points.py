"""The point that a run starts from, the best so far, and the one that it returns: the same for every method."""

from __future__ import annotations

import math
from typing import Any

from numpy.typing import NDArray

from rmsprop_nb._core.records import Arrays, Phase
from rmsprop_nb._core.status import Status
from rmsprop_nb._kernels.vectors import copy, set_zero
from rmsprop_nb._numba.decorators import inline_jit

_GTOL, _ROUNDING, _ITERATE = int(Status.GTOL), int(Status.ROUNDING), int(Phase.ITERATE)


@inline_jit
def start_run(arrays, start, first_square_avg):
    """Make the vectors those of a new run; what is not set here is written before it is read.

    Unused vectors have size 0; on a device x is used in their place, so it comes after them.
    """
    x, lower = arrays.x, arrays.lower
    set_zero(arrays.grad_avg)
    set_zero(arrays.momentum_buffer)
    set_zero(arrays.direction)
    for i in range(x.size):
        x[i] = start[i]
        if lower.size:
            x[i] = min(max(x[i], lower[i]), arrays.upper[i])
        arrays.x_best[i] = x[i]
        arrays.g_eval[i] = math.nan  # an element that the objective never fills is seen
        arrays.square_avg[i] = first_square_avg


@inline_jit
def keep_best(p, f, g, arrays):
    """Record a new lowest value; its point is already in ``x_best``."""
    p.f_best = f
    p.since_best = 0
    copy(g, arrays.g_best)


@inline_jit
def returns_best(status, f_best):
    """Return whether the best point is the result, not the last: that one met a test on the gradient, or is alone."""
    return status != _GTOL and status != _ROUNDING and math.isfinite(f_best)


@inline_jit
def store_point(p, arrays, x, g):
    """Copy the result of a run, and the gradient there; return f.

    Element by element, so that a device can keep short vectors in registers.
    """
    best = returns_best(p.status, p.f_best)
    searched = p.phase > _ITERATE and math.isfinite(p.f_best)  # the last evaluation may have been elsewhere
    for i in range(arrays.x.size):  # a length that is compiled in on a device
        x[i] = arrays.x_best[i] if best else arrays.x[i]
        if best:
            g[i] = arrays.g_best[i]
        else:
            g[i] = arrays.g[i] if searched else arrays.g_eval[i]
    return p.f_best if best else p.f


def point_found(p: Any, arrays: Arrays) -> tuple[NDArray[Any], float, NDArray[Any]]:
    """Return x, f and the gradient of the point that is the result, without copies; for calls from Python."""
    f_best = float(p["f_best"])  # items are faster than attributes
    if returns_best(p["status"], f_best):
        return arrays.x_best, f_best, arrays.g_best
    # A search may have ended at x after evaluations elsewhere, whose gradient is in g_eval.
    searched = p["phase"] > _ITERATE and math.isfinite(f_best)
    return arrays.x, float(p["f"]), arrays.g if searched else arrays.g_eval
