"""The stopping tests: the same for every kind of step control.

Without `gtol` the test is free of units: ``sum_i |pg_i|*size_i <= tol*(f_start - f)``, where pg is the gradient and
size the larger of |x| and its typical size, or the room up to the bound that the gradient pushes to. The left side is
what moving every variable by its own size could still gain, to first order; neither the units of x and f nor a constant
added to f change it. Where that is no more than the precision of f and its differences can tell, the test is met too.
"""

from __future__ import annotations

import math

import numpy as np

from rmsprop_nb._core.status import Status
from rmsprop_nb._kernels.thread_team import team_largest
from rmsprop_nb._kernels.vectors import max_abs
from rmsprop_nb._numba.decorators import inline_jit, reduction_jit

# Numba treats members of an IntEnum as constants only if they are plain ints.
_GTOL, _FTOL, _XTOL, _F_TARGET = int(Status.GTOL), int(Status.FTOL), int(Status.XTOL), int(Status.F_TARGET)
_MAXITER, _MAXFEV, _STALLED, _ROUNDING = map(int, (Status.MAXITER, Status.MAXFEV, Status.STALLED, Status.ROUNDING))

CERTAIN = 0.1  # of the tolerance, at which the next step does not matter
LARGEST_MOVE = 1e-5  # of the size of a variable
LEAST_SIZE = 1e-3  # of the typical one, as which a variable counts that has become far smaller
ULPS = 4.0  # of f, that its rounding error is taken for


@inline_jit
def usable(f, gnorm, largest_gradient):
    """Return whether f is finite, and the gradient finite and small enough to be squared."""
    return math.isfinite(f) and gnorm <= largest_gradient


@inline_jit
def count_evaluation(p, x, settings):
    """Count an evaluation and the calls of fun that it took."""
    p.nfev += 1
    p.evaluations += 1  # since the first start, over all resumed runs
    calls = settings.sampling.calls
    if settings.sampling.adaptive:
        calls = 0 if p.rel_step == 0.0 else (1 if p.rel_step > 0.0 else 2)
    p.calls += 1 + calls * x.size


@inline_jit
def f_error(p):
    """Return the size of the error of f; once a search has failed, of what f is made of."""
    return ULPS * p.f_eps * (abs(p.f) + (p.f_start - p.f if p.measured else 0.0)) + p.f_noise


@inline_jit
def difference_error(p, x, settings):
    """Return the error that differences have in the sum of all derivatives times the sizes of their variables.

    It comes from the error of f and, with forward differences, from the curvature, of which ``p.bend`` is an estimate.
    """
    if not settings.sampling.differences or p.rel_step == 0.0:
        return 0.0
    if p.rel_step < 0.0:
        return x.size * f_error(p) / -p.rel_step
    return x.size * (2.0 * f_error(p) / p.rel_step + 0.5 * p.rel_step * p.bend)


@reduction_jit
def total_gain(arrays):
    """Return what moving every variable by its own size, or to its bound, could gain to first order."""
    total = 0.0
    for i in range(arrays.x.size):
        gi = np.float64(arrays.g[i])
        total += abs(gi) * _reach(arrays, i, gi)
    return total


@reduction_jit
def unsure_gain(arrays, certainty):
    """Return how much of `total_gain` may be an error, by what differences of other steps, in ``g_eval``, change in it.

    Each derivative counts by itself, so that an error in one hides nothing of the others. Also return the whole change.
    """
    unsure = changed = 0.0
    for i in range(arrays.x.size):
        gi = np.float64(arrays.g[i])
        change = abs(np.float64(arrays.g_eval[i]) - gi)
        if math.isfinite(change):
            size = _reach(arrays, i, gi)
            unsure += min(abs(gi), certainty * change) * size
            changed += change * size
    return unsure, changed


@inline_jit
def _reach(arrays, i, gi):
    """Return the size of a variable, or the room up to the bound that its derivative pushes it to."""
    xi = np.float64(arrays.x[i])
    size = max(abs(xi), np.float64(arrays.x_scale[i]))
    if arrays.lower.size:
        size = min(size, xi - arrays.lower[i] if gi > 0.0 else arrays.upper[i] - xi)
    return size


@inline_jit
def largest_move(arrays, least):
    """Return the largest element of the direction, relative to |x|, but to no less than `least` of a typical size."""
    largest = 0.0
    for i in range(arrays.x.size):
        size = max(np.float64(abs(arrays.x[i])), least * np.float64(arrays.x_scale[i]))
        largest = max(largest, abs(np.float64(arrays.direction[i])) / size)
    return largest


@inline_jit
def nothing_to_gain(p, arrays, settings):
    """Return whether the gradient is small beside what has been gained, and no variable would go far from here."""
    gained = settings.tests.gain_tol * (p.f_start - p.f)
    if not p.gain <= gained:
        return False
    if p.gain <= CERTAIN * gained:
        return True
    return p.a * team_largest(settings.team, largest_move(arrays, LEAST_SIZE)) <= LARGEST_MOVE


@inline_jit
def stop_after_iteration(p, arrays, settings):
    """Set the status if the current iterate meets a test (by p.f, p.f_prev, p.gnorm, p.gain, p.dx)."""
    tests = settings.tests
    if p.gnorm <= tests.gtol or (tests.gain_tol >= 0.0 and nothing_to_gain(p, arrays, settings)):
        p.status = _GTOL
    elif tests.gain_tol >= 0.0 and p.gain <= f_error(p) + difference_error(p, arrays.x, settings) + p.unsure:
        p.status = _ROUNDING
    elif p.f <= tests.f_target:
        p.status = _F_TARGET
    elif p.step > 0 and abs(p.f_prev - p.f) <= tests.ftol * max(abs(p.f_prev), abs(p.f), 1.0):
        p.status = _FTOL
    elif (  # reads all of x, if it is on
        tests.xtol >= 0.0
        and p.step > 0
        and p.dx <= tests.xtol * max(team_largest(settings.team, max_abs(arrays.x)), 1.0)
    ):
        p.status = _XTOL
    elif p.since_best >= tests.patience:
        p.status = _STALLED
    elif p.nit >= tests.maxiter:
        p.status = _MAXITER
    elif p.nfev >= tests.maxfev:
        p.status = _MAXFEV
