"""The stopping tests: the same for every kind of step control."""

from __future__ import annotations

import math

from rmsprop_nb._core.status import Status
from rmsprop_nb._kernels.thread_team import team_largest
from rmsprop_nb._kernels.vectors import max_abs
from rmsprop_nb._numba.decorators import inline_jit

# Numba treats members of an IntEnum as constants only if they are plain ints.
_GTOL, _FTOL, _XTOL, _F_TARGET = int(Status.GTOL), int(Status.FTOL), int(Status.XTOL), int(Status.F_TARGET)
_MAXITER, _MAXFEV, _STALLED = int(Status.MAXITER), int(Status.MAXFEV), int(Status.STALLED)


@inline_jit
def usable(f, gnorm, largest_gradient):
    """Return whether f is finite, and the gradient finite and small enough to be squared."""
    return math.isfinite(f) and gnorm <= largest_gradient


@inline_jit
def stop_after_iteration(p, x, settings):
    """Set the status if the current iterate meets a test (by p.f, p.f_prev, p.gnorm, p.dx)."""
    tests = settings.tests
    if p.gnorm <= tests.gtol:
        p.status = _GTOL
    elif p.f <= tests.f_target:
        p.status = _F_TARGET
    elif p.step > 0 and abs(p.f_prev - p.f) <= tests.ftol * max(abs(p.f_prev), abs(p.f), 1.0):
        p.status = _FTOL
    elif (  # reads all of x, if it is on
        tests.xtol >= 0.0 and p.step > 0 and p.dx <= tests.xtol * max(team_largest(settings.team, max_abs(x)), 1.0)
    ):
        p.status = _XTOL
    elif p.since_best >= tests.patience:
        p.status = _STALLED
    elif p.nit >= tests.maxiter:
        p.status = _MAXITER
    elif p.nfev >= tests.maxfev:
        p.status = _MAXFEV
