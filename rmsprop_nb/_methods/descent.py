"""Descent by line search as an ask/tell pair, around any choice of direction.

``ask`` puts the next trial point into ``x_eval``. ``tell`` takes what was found there and lets the search judge it;
when a step is accepted, or the search has failed, a function of the method chooses the direction to search next.

With bounds the search follows the projected path ``clip(x + a*v)``: see M. W. Ferry, P. E. Gill, E. Wong, M. Zhang,
"Projected-search methods for bound-constrained optimization", Optim. Methods Softw. 39 (2024). The vectors are in the
dtype of x, every scalar and sum is float64.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from rmsprop_nb._core.options import Options
from rmsprop_nb._core.records import Phase
from rmsprop_nb._core.status import Status
from rmsprop_nb._kernels.float_bits import from_bits, magnitude_bits
from rmsprop_nb._kernels.thread_team import team_largest, team_sum
from rmsprop_nb._kernels.vectors import copy, gradient_norm, max_abs_difference
from rmsprop_nb._methods.confirmation import (
    begin_confirming,
    end_confirmation,
    is_to_be_confirmed,
    place_confirmation,
)
from rmsprop_nb._methods.failure import (
    LARGEST_LOSS,
    end_comparison,
    end_failure,
    end_refresh,
    end_sample,
    first_bend,
    is_near_error,
    measure,
    use_central,
)
from rmsprop_nb._methods.line_search import (
    ACCEPT,
    FAILED,
    TAKE_BEST,
    TRY_AGAIN,
    UNBOUNDED,
    begin_search,
    end_trial,
    give_up,
)
from rmsprop_nb._methods.method import Algorithm, Layout, Method, is_count, layout, ranges_of
from rmsprop_nb._methods.noise import place_neighbour, place_sample
from rmsprop_nb._methods.points import keep_best
from rmsprop_nb._methods.stopping import (
    count_evaluation,
    f_error,
    largest_move,
    stop_after_iteration,
    total_gain,
    usable,
)
from rmsprop_nb._numba.decorators import inline_jit, kernel_jit, reduction_jit

_START, _SEARCH, _TAKE_BEST = int(Phase.START), int(Phase.SEARCH), int(Phase.TAKE_BEST)
_REFRESH, _MEASURE, _COMPARE, _CONFIRM = map(int, (Phase.REFRESH, Phase.MEASURE, Phase.COMPARE, Phase.CONFIRM))
_RUNNING, _NONFINITE, _UNBOUNDED = int(Status.RUNNING), int(Status.NONFINITE), int(Status.UNBOUNDED)
_PRECISION_LOSS, _MAXITER, _MAXFEV = int(Status.PRECISION_LOSS), int(Status.MAXITER), int(Status.MAXFEV)
_ROUNDING, _WRONG_GRADIENT = int(Status.ROUNDING), int(Status.WRONG_GRADIENT)

FIRST_STEP = 0.01  # of the size of a variable
LEAST_STAGNATION = 100  # evaluations
VISIBLE_GAIN = 1e-9  # of what has been gained
STAGNATION_SHRINKAGE = 0.9
RUNAWAY = 1e15  # f that has fallen by RUNAWAY times its size at x0, at a huge step: unbounded
LUCKY = 4.0  # standard deviations of the error of f, that the lowest of many values may lie too low
CONTRADICTIONS = 2  # in succession, between f and its gradient


@kernel_jit("descent ask")
def ask(arrays, record, settings):
    """Set ``x_eval`` to the next trial point."""
    p = record[0]
    if p.phase == _COMPARE and not settings.sampling.differences:
        place_neighbour(arrays, p)
    elif p.phase == _START or p.phase == _REFRESH or p.phase == _COMPARE:
        copy(arrays.x, arrays.x_eval)
    elif p.phase == _MEASURE:
        place_sample(arrays, p)
    elif p.phase == _CONFIRM:
        place_confirmation(arrays)
    else:
        _move(arrays, p.a, arrays.x_eval)
    p.pending = 1


def search_method(
    name: str, *, tell: Any, options: type[Options], curvature: float, keeps_pairs: bool = False, advice: str = ""
) -> Method:
    """Make the record of a method that searches along directions."""

    def algorithm(*_: int, parallel: bool) -> Algorithm:  # noqa: ARG001 - vectors are searched by one thread
        return Algorithm((name,), ask, tell)

    def layout_of(memory: int = 0) -> Layout:
        return layout("direction", "metric", given=("x_scale",), memory=memory)

    return Method(
        name=name,
        parameters=(is_count,) if keeps_pairs else (),
        layout=layout_of,
        ranges=lambda memory=0: ranges_of(layout_of(memory), *list(Phase)[2:]),
        method=name,
        options=options,
        algorithm=algorithm,
        curvature=curvature,
        advice=advice,
    )


def make_tell(name: str, choose_direction: Any) -> Any:
    """Compile ``tell(arrays, record, f, settings)`` for one method.

    ``choose_direction(arrays, p, settings, accepted, moved)`` sets S, the metric, the direction and the first step
    ``p.a``, and returns the slope. If `moved`, it has to go to `moved_to` and take ``g_eval`` as the
    gradient there; if not `accepted`, the last search has failed and the past is forgotten.
    """

    @kernel_jit("descent tell", name)
    def tell(arrays, record, f, settings):
        p = record[0]
        p.pending = 0
        count_evaluation(p, arrays.x, settings)
        if p.phase == _MEASURE:
            largest, outcome = p.gnorm, end_sample(p, f, settings)
        elif p.phase == _COMPARE:
            largest, outcome = p.gnorm, end_comparison(arrays, p, settings)
        elif p.phase == _CONFIRM:
            end_confirmation(arrays, p, settings)
            return
        else:
            largest, slope = _gradient_and_slope(arrays, p.a)
            largest, slope = team_largest(settings.team, largest), team_sum(settings.team, slope)
            finite = usable(f, largest, settings.tests.largest_gradient)
            if p.phase == _REFRESH:
                p.gnorm = largest
            _keep_if_best(arrays, p, f, finite)
            outcome = _end_evaluation(arrays, p, f, slope if finite else math.nan, finite, settings)
        if outcome == FAILED:
            outcome = end_failure(p, settings)
        if p.status == _RUNNING and outcome in (ACCEPT, FAILED):
            accepted = outcome == ACCEPT
            moved = accepted and (p.phase == _SEARCH or p.phase == _TAKE_BEST)
            if moved:
                _count_step(arrays, p, f, settings)
            slope = choose_direction(arrays, p, settings, accepted, moved)
            p.gnorm = gradient_norm(arrays, arrays.g, largest if accepted else p.gnorm, settings.team)
            _begin_iteration(arrays, p, slope, settings)
        if is_to_be_confirmed(p, settings.tests):
            begin_confirming(p)
        if p.status == _RUNNING and p.nfev >= settings.tests.maxfev:
            p.status = _MAXFEV

    return tell


@inline_jit
def _keep_if_best(arrays, p, f, finite):
    if p.phase == _REFRESH:
        if finite and f <= p.f_best:  # the same point, with a better gradient
            copy(arrays.x, arrays.x_best)
            keep_best(p, f, arrays.g_eval, arrays)
    elif finite and f < p.f_best:
        _move(arrays, p.a, arrays.x_best)
        keep_best(p, f, arrays.g_eval, arrays)


@inline_jit
def _end_evaluation(arrays, p, f, slope, finite, settings):
    """Let the search judge the trial; set the status if that ends the run."""
    if p.phase == _START:
        p.f = f
        p.f_start = f
        p.status = _RUNNING if finite else _NONFINITE
        return ACCEPT
    if p.phase == _REFRESH:
        return end_refresh(arrays, p, finite)
    if p.phase == _TAKE_BEST:
        return ACCEPT
    trial = p.a
    outcome = end_trial(p, f, slope, finite, _search_noise(p, arrays.x), settings.curvature)
    if outcome == TRY_AGAIN and p.trials > 2 and _is_exhausted(arrays, p, settings):
        outcome = give_up(p)
        if outcome == FAILED and _is_between_neighbours(p, settings):
            p.status = _ROUNDING
    if p.step == 0 and p.contradictions == CONTRADICTIONS and not settings.sampling.differences:
        p.status = _WRONG_GRADIENT
    if outcome == TRY_AGAIN and finite and settings.sampling.adaptive and p.bend == 0.0:
        outcome = first_bend(arrays, p, trial, slope, settings)
    if outcome == TAKE_BEST:
        p.phase = _TAKE_BEST  # its gradient is no longer known: evaluate once more
    elif outcome == UNBOUNDED:
        p.status = _UNBOUNDED
    return outcome


@inline_jit
def _is_exhausted(arrays, p, settings):
    """Return whether the next trial is, in the dtype of x, an end of the bracket."""
    real = arrays.x.dtype.type
    a, lo, hi = real(p.a), real(p.lo), real(p.hi)
    from_lo = from_hi = 0.0
    for i in range(arrays.x.size):
        trial = moved_to(arrays, i, a)
        if trial != moved_to(arrays, i, lo):
            from_lo = 1.0
        if trial != moved_to(arrays, i, hi):
            from_hi = 1.0
    if p.bracketed == 0:
        from_hi = 1.0
    return team_largest(settings.team, from_lo) == 0.0 or team_largest(settings.team, from_hi) == 0.0


@inline_jit
def _is_between_neighbours(p, settings):
    """Return whether the slope changes its sign between x and the next point, along the steepest descent.

    Then no point of this dtype is better; differences and a gradient with noise are no evidence for that.
    """
    return (
        settings.tests.gain_tol >= 0.0
        and not settings.sampling.differences
        and p.fresh == 1
        and p.bracketed == 1
        and p.slope_hi > 0.0
        and p.gain <= LARGEST_LOSS * (p.f_start - p.f)
    )


@inline_jit
def _count_step(arrays, p, f, settings):
    """Record the step ``p.a``, which the method is about to take."""
    p.nit += 1
    if f > p.f_best or f >= p.f:
        p.since_best += 1
    p.step += 1
    p.restarts = 0
    p.compared = 0
    p.unsure = 0.0
    p.rate = p.a
    if settings.sampling.adaptive:
        p.bend = p.gain / (p.a * team_largest(settings.team, largest_move(arrays, 1.0)))
    p.f_prev = p.f
    p.f = f
    if settings.tests.xtol >= 0.0:
        _move(arrays, p.a, arrays.x_eval)  # again, because the objective may have written to it
        p.dx = team_largest(settings.team, max_abs_difference(arrays.x, arrays.x_eval))


@inline_jit
def _begin_iteration(arrays, p, slope, settings):
    """Test the current point, and begin to search from there unless the direction has underflowed."""
    p.phase = _SEARCH
    begin_search(p, slope)
    p.gain = team_sum(settings.team, total_gain(arrays))
    if p.step == 0:
        p.f_floor = -RUNAWAY * max(abs(p.f), p.gain)
    if is_near_error(p, arrays.x, settings):
        if p.gain == 0.0 and p.measured == 0:
            measure(p, settings)
        else:
            use_central(p)
        return
    stagnates = _stagnates(p, settings.tests)
    stop_after_iteration(p, arrays, settings)
    if p.status in (_RUNNING, _MAXITER, _MAXFEV) and (stagnates or not slope < 0.0):  # tells more than a limit
        end_failure(p, settings)
        if p.phase == _SEARCH:
            p.status = _PRECISION_LOSS


@inline_jit
def _stagnates(p, tests):
    """Return whether for as many evaluations as it took to get here nothing worth while has been gained."""
    visible = f_error(p)
    if tests.gain_tol >= 0.0:  # a tolerance of the user's may ask for more
        visible += VISIBLE_GAIN * (p.f_start - p.f)
    if p.step == 0 or p.f < p.f_mark - visible or p.gain < STAGNATION_SHRINKAGE * p.gain_mark:
        p.f_mark = p.f if p.step == 0 else min(p.f, p.f_mark)
        p.gain_mark = p.gain if p.step == 0 else min(p.gain, p.gain_mark)
        p.mark = p.evaluations
    return p.evaluations - p.mark >= max(LEAST_STAGNATION, p.mark)


@inline_jit
def first_step(arrays, p, accepted, team):
    """Return the first step along a direction of unknown scale, by the sizes of the variables.

    It shrinks after each failure.
    """
    size = FIRST_STEP if accepted else 10.0 ** (-4 * (p.restarts + 1))
    return size / max(team_largest(team, largest_move(arrays, 1.0)), tiny(arrays.x))


# -- vector operations ------------------------------------------------------------------------------------------------


@inline_jit
def _move(arrays, a, target):
    """Set `target` to the point at `a` on the (projected) path."""
    step = arrays.x.dtype.type(a)
    for i in range(arrays.x.size):
        target[i] = moved_to(arrays, i, step)


@inline_jit
def _search_noise(p, x):
    """Return the size of the changes of f that the search takes for noise."""
    return (1e-10 if x.itemsize == 8 and p.f_eps < 1e-12 else 1e-6) * abs(p.f) + LUCKY * p.f_noise


@inline_jit
def tiny(x):
    """Return a number that keeps a division safe without changing anything else."""
    return 1e-300 if x.itemsize == 8 else 1e-37


@inline_jit
def average_squares(arrays, g, settings, forget):
    """S <- beta*S + (1 - beta)*g*g, from S = 0 if `forget`; return eps*max(sqrt(S)*x_scale), a part of M.

    eps is relative here, so that scaling f changes nothing.
    """
    square_avg, x_scale, hyper = arrays.square_avg, arrays.x_scale, settings.hyper
    beta = square_avg.dtype.type(0) if forget else hyper.beta
    largest = magnitude_bits(square_avg.dtype.type(0))
    for i in range(g.size):
        s = beta * square_avg[i] + hyper.one_minus_beta * g[i] * g[i]
        square_avg[i] = s
        bits = magnitude_bits(square_avg.dtype.type(math.sqrt(s)) * x_scale[i])
        largest = max(largest, bits)
    return square_avg.dtype.type(hyper.eps * team_largest(settings.team, from_bits(largest)) + tiny(square_avg))


@inline_jit
def metric_at(arrays, i, floor):
    """Set element i of M to (sqrt(S) + floor/x_scale)/x_scale, RMSprop's metric for x/x_scale, and return it."""
    root, size = arrays.metric.dtype.type(math.sqrt(arrays.square_avg[i])), arrays.x_scale[i]
    m = (root + floor / size) / size + arrays.metric.dtype.type(tiny(arrays.metric))
    arrays.metric[i] = m
    return m


@inline_jit
def set_metric(arrays, floor):
    """Set all of M; a loop over all elements can call `metric_at` instead."""
    for i in range(arrays.metric.size):
        metric_at(arrays, i, floor)


@inline_jit
def moved_to(arrays, i, step):
    """Return element i of the point at `step` on the (projected) path."""
    x = arrays.x[i] + step * arrays.direction[i]
    if arrays.lower.size:
        x = min(max(x, arrays.lower[i]), arrays.upper[i])
    return x


@inline_jit
def blocked(x, direction, lower, upper):
    """Return whether a move from x along `direction` leaves the box at once."""
    return (direction < 0 and x <= lower) or (direction > 0 and x >= upper)


@reduction_jit
def _gradient_and_slope(arrays, a):
    """Return the max-norm of the gradient at the trial point, and the slope of f along the (projected) path there.

    One pass over the gradient serves both.
    """
    x, v, g, lower, upper = arrays.x, arrays.direction, arrays.g_eval, arrays.lower, arrays.upper
    largest = magnitude_bits(g.dtype.type(0))
    slope = 0.0
    step = x.dtype.type(a)
    for i in range(g.size):
        bits = magnitude_bits(g[i])
        largest = max(largest, bits)
        if lower.size and blocked(x[i] + step * v[i], v[i], lower[i], upper[i]):
            continue
        slope += np.float64(g[i]) * np.float64(v[i])
    return np.float64(from_bits(largest)), slope
