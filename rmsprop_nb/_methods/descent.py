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
from rmsprop_nb._kernels.vectors import copy, gradient_norm, max_abs, max_abs_difference
from rmsprop_nb._methods.line_search import ACCEPT, FAILED, TAKE_BEST, UNBOUNDED, begin_search, end_trial
from rmsprop_nb._methods.method import Algorithm, Layout, Method, is_count, layout, ranges_of
from rmsprop_nb._methods.points import keep_best
from rmsprop_nb._methods.stopping import stop_after_iteration, usable
from rmsprop_nb._numba.decorators import inline_jit, kernel_jit, reduction_jit

_START, _SEARCH, _TAKE_BEST = int(Phase.START), int(Phase.SEARCH), int(Phase.TAKE_BEST)
_RUNNING, _NONFINITE, _UNBOUNDED = int(Status.RUNNING), int(Status.NONFINITE), int(Status.UNBOUNDED)
_PRECISION_LOSS, _MAXITER, _MAXFEV = int(Status.PRECISION_LOSS), int(Status.MAXITER), int(Status.MAXFEV)

FIRST_STEP = 0.01  # of the size of x
MAX_RESTARTS = 4
MAX_STAGNATION = 300
STAGNATION_ULPS = 4.0
STAGNATION_SHRINKAGE = 0.9
RUNAWAY = 1e15  # f below -RUNAWAY*max(1, |f(x0)|) at a huge step: unbounded


@kernel_jit("descent ask")
def ask(arrays, record, settings):  # noqa: ARG001
    """Set ``x_eval`` to the next trial point."""
    p = record[0]
    if p.phase == _START:
        copy(arrays.x, arrays.x_eval)
    else:
        _move(arrays, p.a, arrays.x_eval)
    p.pending = 1


def search_method(
    name: str, *, tell: Any, options: type[Options], curvature: float, keeps_pairs: bool = False
) -> Method:
    """Make the record of a method that searches along directions."""

    def algorithm(*_: int, parallel: bool) -> Algorithm:  # noqa: ARG001 - vectors are searched by one thread
        return Algorithm((name,), ask, tell)

    def layout_of(memory: int = 0) -> Layout:
        return layout("direction", "metric", memory=memory)

    return Method(
        name=name,
        parameters=(is_count,) if keeps_pairs else (),
        layout=layout_of,
        ranges=lambda memory=0: ranges_of(layout_of(memory), Phase.SEARCH, Phase.TAKE_BEST),
        method=name,
        options=options,
        algorithm=algorithm,
        curvature=curvature,
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
        p.nfev += 1
        largest, slope = _gradient_and_slope(arrays, p.a)
        largest, slope = team_largest(settings.team, largest), team_sum(settings.team, slope)
        finite = usable(f, largest, settings.tests.largest_gradient)
        if finite and f < p.f_best:
            _move(arrays, p.a, arrays.x_best)
            keep_best(p, f, arrays.g_eval, arrays)
        if p.phase == _START:
            p.f = f
            p.status = _RUNNING if finite else _NONFINITE
            p.f_floor = -RUNAWAY * max(1.0, abs(f))
            outcome = ACCEPT
        else:
            outcome = _end_trial(arrays, p, f, slope if finite else math.nan, finite, settings)
        if p.status == _RUNNING and outcome in (ACCEPT, FAILED):
            accepted = outcome == ACCEPT
            moved = accepted and p.phase != _START
            if moved:
                _count_step(arrays, p, f, settings)
            slope = choose_direction(arrays, p, settings, accepted, moved)
            p.gnorm = gradient_norm(arrays, arrays.g, largest if accepted else p.gnorm, settings.team)
            _begin_iteration(arrays, p, slope, settings)
        if p.status == _RUNNING and p.nfev >= settings.tests.maxfev:
            p.status = _MAXFEV

    return tell


@inline_jit
def _end_trial(arrays, p, f, slope, finite, settings):
    """Let the search judge the trial; set the status if that ends the run."""
    if p.phase == _TAKE_BEST:
        return ACCEPT
    outcome = end_trial(p, f, slope, finite, _f_noise(arrays.x) * abs(p.f), settings.curvature)
    if outcome == TAKE_BEST:
        p.phase = _TAKE_BEST  # its gradient is no longer known: evaluate once more
    elif outcome == UNBOUNDED:
        p.status = _UNBOUNDED
    elif outcome == FAILED:
        p.restarts += p.fresh
        if p.restarts > MAX_RESTARTS:
            p.status = _PRECISION_LOSS
    return outcome


@inline_jit
def _count_step(arrays, p, f, settings):
    """Record the step ``p.a``, which the method is about to take."""
    p.nit += 1
    p.since_best += 1
    p.step += 1
    p.restarts = 0
    p.rate = p.a
    p.f_prev = p.f
    p.f = f
    if settings.tests.xtol >= 0.0:
        _move(arrays, p.a, arrays.x_eval)  # again, because the objective may have written to it
        p.dx = team_largest(settings.team, max_abs_difference(arrays.x, arrays.x_eval))


@inline_jit
def _begin_iteration(arrays, p, slope, settings):
    """Test the current point, and begin to search from there unless the direction has underflowed."""
    p.phase = _SEARCH
    stagnates = _stagnates(p, arrays.x)
    begin_search(p, slope)
    stop_after_iteration(p, arrays.x, settings)
    if p.status in (_RUNNING, _MAXITER, _MAXFEV) and (stagnates or not slope < 0.0):  # tells more than a limit
        p.status = _PRECISION_LOSS


@inline_jit
def _stagnates(p, x):
    """Return whether for many evaluations f has not fallen by more than rounding, nor the gradient shrunk."""
    visible = STAGNATION_ULPS * (2.2e-16 if x.itemsize == 8 else 1.2e-7) * abs(p.f_mark)
    if p.step == 0 or p.f < p.f_mark - visible or p.gnorm < STAGNATION_SHRINKAGE * p.gnorm_mark:
        p.f_mark = p.f if p.step == 0 else min(p.f, p.f_mark)
        p.gnorm_mark = p.gnorm if p.step == 0 else min(p.gnorm, p.gnorm_mark)
        p.stagnation = 0
    else:
        p.stagnation += p.trials
    return p.stagnation >= MAX_STAGNATION


@inline_jit
def first_step(arrays, p, accepted, team):
    """Return the first step along a direction of unknown scale; it shrinks after each failure."""
    size = FIRST_STEP if accepted else 10.0 ** (-4 * (p.restarts + 1))
    largest_x, largest_v = team_largest(team, max_abs(arrays.x)), team_largest(team, max_abs(arrays.direction))
    return size * max(1.0, largest_x) / max(largest_v, tiny(arrays.x))


# -- vector operations ------------------------------------------------------------------------------------------------


@inline_jit
def _move(arrays, a, target):
    """Set `target` to the point at `a` on the (projected) path."""
    step = arrays.x.dtype.type(a)
    for i in range(arrays.x.size):
        target[i] = moved_to(arrays, i, step)


@inline_jit
def _f_noise(x):
    """Return the relative rounding error that f is assumed to have."""
    return 1e-10 if x.itemsize == 8 else 1e-6


@inline_jit
def tiny(x):
    """Return a number that keeps a division safe without changing anything else."""
    return 1e-300 if x.itemsize == 8 else 1e-37


@inline_jit
def average_squares(arrays, g, settings, forget):
    """S <- beta*S + (1 - beta)*g*g, from S = 0 if `forget`; return eps*max(sqrt(S)), which M has beside sqrt(S).

    eps is relative here, so that scaling f changes nothing.
    """
    square_avg, hyper = arrays.square_avg, settings.hyper
    beta = square_avg.dtype.type(0) if forget else hyper.beta
    largest = magnitude_bits(square_avg.dtype.type(0))
    for i in range(g.size):
        s = beta * square_avg[i] + hyper.one_minus_beta * g[i] * g[i]
        square_avg[i] = s
        bits = magnitude_bits(s)
        largest = max(largest, bits)
    largest_s = team_largest(settings.team, from_bits(largest))
    return square_avg.dtype.type(hyper.eps * math.sqrt(largest_s) + tiny(square_avg))


@inline_jit
def metric_at(arrays, i, floor):
    """Set element i of M to sqrt(S) + floor, and return it."""
    m = arrays.metric.dtype.type(math.sqrt(arrays.square_avg[i])) + floor
    arrays.metric[i] = m
    return m


@inline_jit
def set_metric(arrays, floor):
    """M <- sqrt(S) + floor; a loop over all elements can call `metric_at` instead."""
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
