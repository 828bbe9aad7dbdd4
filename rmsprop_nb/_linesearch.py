"""The line search of the automatic learning rate, on scalars only.

A bracketing search for a step that meets the strong Wolfe conditions. Inside the rounding noise of f, where the
sufficient-decrease test means nothing, it trusts the slope instead: the approximate Wolfe condition of W. W. Hager and
H. Zhang, "A new conjugate gradient method with guaranteed descent and an efficient line search", SIAM J. Optim. 16
(2005), section 4. A trial where f or the gradient is not finite is a wall from which the search backs off.

The search is a state machine over the run's record ``p``: it is told one trial at a time and says what to do next.
``p.a`` is the step to try; [``p.lo``, ``p.hi``] the bracket, with values and slopes at both ends.
"""

from __future__ import annotations

import math

from rmsprop_nb._jit import inline_jit

__all__ = ["ACCEPT", "FAILED", "TAKE_BEST", "TRY_AGAIN", "UNBOUNDED", "begin_search", "end_trial"]

TRY_AGAIN, ACCEPT, TAKE_BEST, FAILED, UNBOUNDED = range(5)

SUFFICIENT_DECREASE = 1e-4
MAX_TRIALS = 30
GROWTH = 5.0
LARGEST_STEP = 1e20
NARROWEST_BRACKET = 1e-14
KEEP_FROM_ENDS = 0.05


@inline_jit
def begin_search(p, slope0):  # type: ignore[no-untyped-def]
    """Start a search from the current point, where the directional derivative is `slope0` < 0; ``p.a`` is set."""
    p.slope0 = slope0
    p.lo = 0.0
    p.f_lo = p.f
    p.slope_lo = slope0
    p.bracketed = 0
    p.width = math.inf
    p.has_best = 0
    p.trials = 0


@inline_jit
def end_trial(p, f, slope, finite, f_noise, curvature):  # type: ignore[no-untyped-def]
    """Take in f and the slope at ``p.a``; set the next ``p.a`` and return what to do.

    `f_noise` is the absolute size of f's rounding error, `curvature` the fraction of the first slope that an accepted
    point may have. TAKE_BEST means that the best trial so far must be taken
    without further tests; its step is then in ``p.a``.
    """
    p.trials += 1
    if not finite:
        if f == -math.inf:
            return UNBOUNDED
        _set_hi(p, math.inf, math.nan)
        p.a = p.lo + 0.1 * (p.a - p.lo)
        return TRY_AGAIN if p.trials < MAX_TRIALS else _give_up(p)
    if f <= p.f + f_noise and (p.has_best == 0 or f < p.f_trial_best):
        p.has_best = 1
        p.a_best = p.a
        p.f_trial_best = f
    sufficient = f <= p.f + SUFFICIENT_DECREASE * p.a * p.slope0
    within_noise = f <= p.f + f_noise and slope <= (2.0 * SUFFICIENT_DECREASE - 1.0) * p.slope0
    if (sufficient or within_noise) and abs(slope) <= -curvature * p.slope0:
        return ACCEPT
    if (sufficient or within_noise) and f <= p.f_lo + f_noise and slope < 0.0:
        p.lo = p.a
        p.f_lo = f
        p.slope_lo = slope
    else:
        _set_hi(p, f, slope)
    if p.bracketed == 0:
        return _extrapolate(p, slope)
    return _interpolate(p, f_noise)


@inline_jit
def _set_hi(p, f, slope):  # type: ignore[no-untyped-def]
    p.bracketed = 1
    p.hi = p.a
    p.f_hi = f
    p.slope_hi = slope


@inline_jit
def _give_up(p):  # type: ignore[no-untyped-def]
    if p.has_best and p.f_trial_best < p.f:
        p.a = p.a_best
        return TAKE_BEST
    return FAILED


@inline_jit
def _extrapolate(p, slope):  # type: ignore[no-untyped-def]
    """No upper end yet: go on by the secant of the slope, within limits."""
    if slope > p.slope0:
        p.a = min(max(p.a * p.slope0 / (p.slope0 - slope), 1.5 * p.a), GROWTH * p.a)
    else:
        p.a = GROWTH * p.a
    if p.a > LARGEST_STEP:  # a huge step alone proves nothing (a flat plateau): f itself must have run away
        p.a = p.a_best
        return UNBOUNDED if p.f_trial_best < p.f_floor else TAKE_BEST
    return TRY_AGAIN if p.trials < MAX_TRIALS else _give_up(p)


@inline_jit
def _interpolate(p, f_noise):  # type: ignore[no-untyped-def]
    """Choose a step inside the bracket: cubic, or secant of the slope where f is only noise, or the middle."""
    width = p.hi - p.lo
    if width <= NARROWEST_BRACKET * p.hi or p.trials >= MAX_TRIALS:
        return _give_up(p)
    a = math.nan
    if math.isfinite(p.f_hi):
        if abs(p.f_hi - p.f_lo) > 1e3 * f_noise:
            a = _cubic(p, width)
        if math.isnan(a) and p.slope_hi > p.slope_lo:
            a = p.lo - p.slope_lo * width / (p.slope_hi - p.slope_lo)
    if not math.isfinite(a):
        a = p.lo + 0.5 * width
    shrinks_slowly = width >= 0.66 * p.width
    if shrinks_slowly and not (p.lo + 0.2 * width <= a <= p.hi - 0.2 * width):
        a = p.lo + 0.5 * width
    p.a = min(max(a, p.lo + KEEP_FROM_ENDS * width), p.hi - KEEP_FROM_ENDS * width)
    p.width = width
    return TRY_AGAIN


@inline_jit
def _cubic(p, width):  # type: ignore[no-untyped-def]
    """Minimizer of the cubic through both ends, NaN if there is none (Nocedal and Wright, 2nd ed., eq. 3.59)."""
    z = 3.0 * (p.f_lo - p.f_hi) / width + p.slope_lo + p.slope_hi
    discriminant = z * z - p.slope_lo * p.slope_hi
    if not discriminant >= 0.0:
        return math.nan
    root = math.sqrt(discriminant)
    denominator = p.slope_hi - p.slope_lo + 2.0 * root
    if denominator == 0.0:
        return math.nan
    return p.hi - width * (p.slope_hi + root - z) / denominator
