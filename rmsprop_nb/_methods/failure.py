"""What is tried when a search has failed: better differences, knowledge of the error of f, a new start."""

from __future__ import annotations

from rmsprop_nb._core.records import Phase
from rmsprop_nb._core.status import Status
from rmsprop_nb._methods.line_search import FAILED, TRY_AGAIN
from rmsprop_nb._methods.noise import begin_measuring, take_sample
from rmsprop_nb._numba.decorators import inline_jit

_REFRESH, _MEASURE, _PRECISION_LOSS = int(Phase.REFRESH), int(Phase.MEASURE), int(Status.PRECISION_LOSS)

MAX_RESTARTS = 4
LARGEST_REL_STEP = 0.03
LEAST_ERROR = 1e-27  # of f, relative to what has been gained: steps stay far above the rounding of x


@inline_jit
def end_failure(p, settings):
    """Try what may help before the search is begun anew: better differences, then what is known of the error of f.

    Return TRY_AGAIN if there is something to evaluate for it, otherwise FAILED.
    """
    if p.phase == _MEASURE:
        return FAILED
    if settings.sampling.adaptive and p.rel_step > 0.0:
        use_central(p)
        return TRY_AGAIN
    if p.measured == 0 and (p.fresh == 1 or settings.sampling.adaptive):
        measure(p, settings)
        return TRY_AGAIN
    p.restarts += p.fresh
    if p.restarts > MAX_RESTARTS:
        p.status = _PRECISION_LOSS
    return FAILED


@inline_jit
def use_central(p):
    """Let central differences take over, with steps that fit the error of f."""
    p.phase = _REFRESH
    p.mark = p.evaluations  # they may see a way on
    error = (p.f_eps * abs(p.f) + p.f_noise) / max(abs(p.f), p.f_start - p.f)
    least = LEAST_ERROR if p.f_noise > 0.0 else p.f_eps  # what is not known is not taken to be small
    p.rel_step = -min(max(error, least) ** (1.0 / 3.0), LARGEST_REL_STEP)


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
    if settings.sampling.adaptive:
        use_central(p)
        return TRY_AGAIN
    return FAILED
