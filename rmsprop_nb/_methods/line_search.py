"""The line search of the automatic learning rate, on scalars only.

A bracketing search for a step that meets the strong Wolfe conditions. Trials lie where the cubic through two earlier
ones is lowest, ahead of them as long as there is no bracket. Inside the rounding noise of f, where the
sufficient-decrease test means nothing, it trusts the slope instead: the approximate Wolfe condition of W. W. Hager and
H. Zhang, "A new conjugate gradient method with guaranteed descent and an efficient line search", SIAM J. Optim. 16
(2005), section 4. Where f or the gradient is not finite the search backs off.

The search is a state machine over the run's record ``p``: it takes in one trial at a time and returns what to do next.
``p.a`` is the step to try; [``p.lo``, ``p.hi``] the bracket, with values and slopes at both ends.
"""

from __future__ import annotations

import math

from rmsprop_nb._numba.decorators import inline_jit

TRY_AGAIN, ACCEPT, TAKE_BEST, FAILED, UNBOUNDED = range(5)

SUFFICIENT_DECREASE = 1e-4
MAX_TRIALS = 30
SHORTEST_GROWTH = 1.1
GROWTH = 10.0
LARGEST_STEP = 1e20
NARROWEST_BRACKET = 1e-14
KEEP_FROM_ENDS = 0.01
CERTAIN_RISE = 10.0  # times the noise of f


@inline_jit
def begin_search(p, slope0):
    """Start a search from the current point, where the directional derivative is `slope0` < 0; ``p.a`` is set."""
    p.slope0 = slope0
    p.lo = 0.0
    p.f_lo = p.f
    p.slope_lo = slope0
    p.bracketed = 0
    p.width = math.inf
    p.has_best = 0
    p.trials = 0
    p.contradictions = 0


@inline_jit
def end_trial(p, f, slope, finite, f_noise, curvature):
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
        return TRY_AGAIN if p.trials < MAX_TRIALS else give_up(p)
    if f <= p.f + f_noise and (p.has_best == 0 or f < p.f_trial_best):
        p.has_best = 1
        p.a_best = p.a
        p.f_trial_best = f
    sufficient = f <= p.f + SUFFICIENT_DECREASE * p.a * p.slope0
    within_noise = f <= p.f + f_noise and slope <= (2.0 * SUFFICIENT_DECREASE - 1.0) * p.slope0
    if (sufficient or within_noise) and abs(slope) <= -curvature * p.slope0:
        return ACCEPT
    downhill = (sufficient or within_noise) and f <= p.f_lo + f_noise and slope < 0.0
    if downhill and p.bracketed == 0:
        return _extrapolate(p, f, slope, f_noise)
    if downhill:
        _set_lo(p, f, slope)
    else:
        if p.bracketed == 1 and p.lo == 0.0:
            p.contradictions = p.contradictions + 1 if _contradicts(p, f, f_noise) else 0
        _set_hi(p, f, slope)
    return _interpolate(p, f_noise)


@inline_jit
def _contradicts(p, f, f_noise):
    """Return whether f at ``p.a`` and at the end of the bracket rises from x along a line, where `slope0` falls."""
    part = p.a / p.hi
    rise = (f - p.f) / p.a
    rise_at_x = (rise - (p.f_hi - p.f) / p.hi * part) / (1.0 - part)  # if f were a parabola
    return f - p.f > CERTAIN_RISE * f_noise and rise_at_x > 0.5 * rise and -p.slope0 > 0.1 * rise


@inline_jit
def _set_lo(p, f, slope):
    p.lo = p.a
    p.f_lo = f
    p.slope_lo = slope


@inline_jit
def _set_hi(p, f, slope):
    p.bracketed = 1
    p.hi = p.a
    p.f_hi = f
    p.slope_hi = slope


@inline_jit
def give_up(p):
    """Return TAKE_BEST, with the step to the best trial in ``p.a``, or FAILED if no trial was better than x."""
    if p.has_best and p.f_trial_best < p.f:
        p.a = p.a_best
        return TAKE_BEST
    return FAILED


@inline_jit
def _extrapolate(p, f, slope, f_noise):
    """Without an upper end, step on to the minimum of the curve through the last two points, within limits."""
    a = _minimizer(p.lo, p.f_lo, p.slope_lo, p.a, f, slope, f_noise)
    _set_lo(p, f, slope)
    p.a = min(max(a, SHORTEST_GROWTH * p.a), GROWTH * p.a) if a > p.a else GROWTH * p.a
    if p.a > LARGEST_STEP:  # f may be flat: only a very low f proves it unbounded
        p.a = p.a_best
        return UNBOUNDED if p.f_trial_best < p.f_floor else TAKE_BEST
    return TRY_AGAIN if p.trials < MAX_TRIALS else give_up(p)


@inline_jit
def _interpolate(p, f_noise):
    """Choose a step inside the bracket: the minimum of the curve through its ends, or the middle."""
    width = p.hi - p.lo
    if width <= NARROWEST_BRACKET * p.hi or p.trials >= MAX_TRIALS:
        return give_up(p)
    a = math.nan
    if math.isfinite(p.f_hi):
        a = _minimizer(p.lo, p.f_lo, p.slope_lo, p.hi, p.f_hi, p.slope_hi, f_noise)
    if not math.isfinite(a):
        a = p.lo + 0.5 * width
    shrinks_slowly = width >= 0.66 * p.width
    if shrinks_slowly and not (p.lo + 0.2 * width <= a <= p.hi - 0.2 * width):
        a = p.lo + 0.5 * width
    p.a = min(max(a, p.lo + KEEP_FROM_ENDS * width), p.hi - KEEP_FROM_ENDS * width)
    p.width = width
    return TRY_AGAIN


@inline_jit
def _minimizer(a0, f0, slope0, a1, f1, slope1, f_noise):
    """Return the minimizer of the cubic through two points, or NaN; of the parabola by their slopes where f is noise.

    Nocedal and Wright, 2nd ed., eq. 3.59. It may be beyond `a1`, which is above `a0`.
    """
    width = a1 - a0
    if abs(f1 - f0) > 10.0 * f_noise:
        z = 3.0 * (f0 - f1) / width + slope0 + slope1
        discriminant = z * z - slope0 * slope1
        if discriminant >= 0.0:
            root = math.sqrt(discriminant)
            denominator = slope1 - slope0 + 2.0 * root
            if denominator != 0.0:
                return a1 - width * (slope1 + root - z) / denominator
    if slope1 > slope0:
        return a0 - slope0 * width / (slope1 - slope0)
    return math.nan
