"""What is tried when a search has failed: better differences, knowledge of the error of f, a new start."""

from __future__ import annotations

import math

from rmsprop_nb._core.records import Phase
from rmsprop_nb._core.status import Status
from rmsprop_nb._kernels.thread_team import team_largest, team_sums
from rmsprop_nb._kernels.vectors import copy
from rmsprop_nb._methods.line_search import ACCEPT, FAILED, TRY_AGAIN
from rmsprop_nb._methods.noise import begin_measuring, epsilon, take_sample
from rmsprop_nb._methods.stopping import ULPS, difference_error, largest_move, unsure_gain
from rmsprop_nb._numba.decorators import inline_jit

_REFRESH, _MEASURE, _COMPARE = int(Phase.REFRESH), int(Phase.MEASURE), int(Phase.COMPARE)
_PRECISION_LOSS = int(Status.PRECISION_LOSS)

MAX_RESTARTS = 4
NEAR_ERROR = 10.0  # times the error of forward differences, below which central ones take over
LARGEST_REL_STEP = 0.03
MOST_SHORTENED = 1e-3
MAX_COMPARISONS = 3  # in a run: searches that fail here and there are those of an f with kinks
LARGEST_LOSS = 1e-3  # of what has been gained, that the precision of x may keep from being gained
COMPARED = 2.0  # times the step, of the differences that tell how accurate those of the step are
CERTAINTY = 3.0  # times their change
TRUNCATED = 10.0  # times its rounding error, above which a change is one of truncation, and calls for shorter steps


@inline_jit
def end_failure(p, settings):
    """Try what may help before the search is begun anew: better differences, then what is known of the error of f.

    Return TRY_AGAIN if there is something to evaluate for it, otherwise FAILED.
    """
    if p.phase == _MEASURE or p.phase == _COMPARE:
        return FAILED
    if not settings.sampling.differences and p.compared == 0:
        p.compared = 1
        p.phase = _COMPARE
        return TRY_AGAIN
    if settings.sampling.adaptive and p.rel_step > 0.0 and (p.step > 0 or p.measured == 1):
        use_central(p)
        return TRY_AGAIN
    if p.measured == 0 and (p.fresh == 1 or settings.sampling.adaptive):
        measure(p, settings)
        return TRY_AGAIN
    if settings.sampling.adaptive and p.compared == 0 and p.comparisons < MAX_COMPARISONS:
        begin_comparisons(p)
        compare(p)
        return TRY_AGAIN
    if p.comparisons == MAX_COMPARISONS and not p.gain <= p.unsure:
        p.status = _PRECISION_LOSS
    p.restarts += p.fresh
    if not settings.sampling.differences:
        p.compared = 0  # the next search that fails is followed by a comparison with a point farther away
    if p.restarts > MAX_RESTARTS:
        p.status = _PRECISION_LOSS
    return FAILED


@inline_jit
def use_central(p):
    """Let central differences take over, with steps that fit the error of f."""
    p.phase = _REFRESH
    p.compared = 0
    p.unsure = 0.0
    p.mark = p.evaluations  # they may see a way on
    error = p.f_eps * abs(p.f) + p.f_noise
    if error > 0.0:
        error /= max(abs(p.f), p.f_start - p.f, error)
    least = 0.0 if p.f_noise > 0.0 else p.f_eps  # what is not known is not taken to be small
    p.rel_step = -min(max(max(error, least) ** (1.0 / 3.0), _shortest(p)), LARGEST_REL_STEP)


@inline_jit
def _shortest(p):
    """Return the shortest relative step, which is far above the rounding of x."""
    return 1e-9 if p.f_eps < 1e-12 else 1e-4


@inline_jit
def measure(p, settings):
    p.phase = _MEASURE
    begin_measuring(p)
    if settings.sampling.adaptive:
        p.rel_step = 0.0  # f alone is needed


@inline_jit
def end_sample(p, f, settings):
    """Take in a value for the error of f; when it is known, go on with the gradient that it allows."""
    if not take_sample(p, f):
        return TRY_AGAIN
    if not settings.sampling.adaptive:
        return FAILED
    use_central(p)
    begin_comparisons(p)
    return TRY_AGAIN


@inline_jit
def begin_comparisons(p):
    """Prepare to compare differences by several steps, those of the gradient at x to begin with."""
    p.compared = 1
    p.comparisons += 1
    p.unsure = math.inf
    p.bend = 0.0  # to be measured again


@inline_jit
def compare(p):
    """Let differences of longer steps tell how accurate those at x are."""
    p.phase = _COMPARE
    p.rel_step *= COMPARED


@inline_jit
def end_comparison(arrays, p, settings):
    """Take in the gradient by longer steps; try shorter ones as long as that helps against truncation.

    In the end, what the error of f leaves open of the gradient at x is no reason to go on. Changes that are larger than
    that come from a kink, or from a variable far smaller than its typical size.
    """
    before = p.unsure
    unsure, changed = team_sums(settings.team, unsure_gain(arrays, CERTAINTY))
    if not settings.sampling.differences:
        if p.gain <= LARGEST_LOSS * (p.f_start - p.f):  # else it is noise, or there is a kink
            p.unsure = max(p.unsure, unsure)
        return FAILED
    p.rel_step /= COMPARED
    rounding = difference_error(p, arrays.x, settings)
    p.unsure = unsure if changed <= TRUNCATED * rounding else 0.0
    if not changed < 0.5 * before:  # shorter steps are no better
        p.rel_step = p.longer_step
    elif changed > TRUNCATED * rounding and p.rel_step < -_shortest(p):
        p.phase = _REFRESH
        p.unsure = changed
        p.longer_step = p.rel_step
        shorter = max((rounding / changed) ** (1.0 / 3.0), MOST_SHORTENED)
        p.rel_step = min(shorter * p.rel_step, -_shortest(p))
        return TRY_AGAIN
    return FAILED


@inline_jit
def end_refresh(arrays, p, finite):
    """Go on with the new gradient at x, or compare it with others if it comes from shorter steps."""
    if not finite:
        p.unsure = 0.0
        return FAILED
    if p.compared == 0:
        return ACCEPT
    copy(arrays.g_eval, arrays.g)
    compare(p)
    return TRY_AGAIN


@inline_jit
def first_bend(arrays, p, a, slope, settings):
    """Learn the curvature from the first trial; a search ends where the gradient is all error of differences or x."""
    move = team_largest(settings.team, largest_move(arrays, 1.0))
    p.bend = abs(slope - p.slope0) / (a * move * move)
    if p.compared == 1:
        p.unsure += ULPS * arrays.x.size * epsilon(arrays.x) * p.bend
        return FAILED if p.gain <= p.unsure else TRY_AGAIN
    return FAILED if is_near_error(p, arrays.x, settings) else TRY_AGAIN


@inline_jit
def is_near_error(p, x, settings):
    """Return whether forward differences are to give way to central ones, which are more accurate."""
    if not (settings.sampling.adaptive and p.rel_step > 0.0):
        return False
    return p.gain <= NEAR_ERROR * difference_error(p, x, settings)
