"""RMSprop with momentum whose two scalars choose themselves, as an ask/tell pair.

    S <- beta*S + (1 - beta)*g*g                  M = sqrt(S) + eps*max(sqrt(S))
    v <- mu*v - g/M                               x <- x + a*v

These are the recurrences of textbook RMSprop with momentum. The learning rate a comes from a Wolfe line search; the
momentum mu from the conjugate-gradient formula of Y.-H. Dai and C.-X. Kou, "A nonlinear conjugate gradient algorithm
with an optimal property and an improved Wolfe line search", SIAM J. Optim. 23 (2013), eq. 1.12 and 2.7, in the inner
product that M defines.

With bounds the search follows the projected path ``clip(x + a*v)`` and momentum lives on the free variables: see M. W.
Ferry, P. E. Gill, E. Wong, M. Zhang, "Projected-search methods for bound-constrained optimization", Optim. Methods
Softw. 39 (2024).

``ask`` puts the point to evaluate into ``x_eval``; ``tell`` takes what was found there. The vectors are in the dtype of
x, every scalar and sum is float64.
"""

from __future__ import annotations

import math

import numpy as np

from rmsprop_nb._cpu import clip, copy, gradient_norm, max_abs, max_abs_difference
from rmsprop_nb._jit import inline_jit, kernel_jit, reduction_jit
from rmsprop_nb._linesearch import ACCEPT, FAILED, TAKE_BEST, UNBOUNDED, begin_search, end_trial
from rmsprop_nb._stopping import keep_best, stop_after_iteration, usable
from rmsprop_nb._types import Phase, Status

__all__ = ["ask", "tell"]

_START, _SEARCH, _TAKE_BEST = int(Phase.START), int(Phase.SEARCH), int(Phase.TAKE_BEST)
_RUNNING, _NONFINITE, _UNBOUNDED = int(Status.RUNNING), int(Status.NONFINITE), int(Status.UNBOUNDED)
_PRECISION_LOSS, _MAXFEV = int(Status.PRECISION_LOSS), int(Status.MAXFEV)

FIRST_STEP = 0.01  # of the size of x
LEAST_MOMENTUM = 0.4  # eta of Dai and Kou
LEAST_DESCENT = 1e-10  # cosine between direction and gradient below which momentum is dropped
MAX_RESTARTS = 4
RUNAWAY = 1e15  # f below -RUNAWAY*max(1, |f(x0)|) at a huge step: unbounded


@kernel_jit("auto ask")
def ask(arrays, record, settings):  # type: ignore[no-untyped-def]  # noqa: ARG001
    """Set ``x_eval`` to the next trial point."""
    p = record[0]
    if p.phase == _START:
        copy(arrays.x, arrays.x_eval)
    else:
        _move(arrays, p.a, arrays.x_eval)
    p.pending = 1


@kernel_jit("auto tell")
def tell(arrays, record, f, settings):  # type: ignore[no-untyped-def]
    """Take in f and the gradient at ``x_eval``: try another step, or take this one and choose the next direction."""
    p = record[0]
    p.pending = 0
    p.nfev += 1
    finite = usable(f, max_abs(arrays.g_eval), settings.tests.largest_gradient)
    if p.phase == _START:
        p.f = f
        p.status = _RUNNING if finite else _NONFINITE
        p.f_floor = -RUNAWAY * max(1.0, abs(f))
        outcome = ACCEPT
    else:
        outcome = _end_trial(arrays, p, f, finite)
    if finite and f < p.f_best:
        _move(arrays, p.a, arrays.x_best)
        keep_best(p, f, arrays.g_eval, arrays)
    if p.status == _RUNNING and outcome in (ACCEPT, FAILED):
        _choose_direction(arrays, p, f, settings, outcome == ACCEPT)
    if p.status == _RUNNING and p.nfev >= settings.tests.maxfev:
        p.status = _MAXFEV


@inline_jit
def _end_trial(arrays, p, f, finite):  # type: ignore[no-untyped-def]
    """Let the search judge the trial; an outcome that ends the run is put into the status."""
    if p.phase == _TAKE_BEST:
        return ACCEPT
    slope = _slope(arrays, p.a) if finite else math.nan
    outcome = end_trial(p, f, slope, finite, _f_noise(arrays.x) * abs(p.f))
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
def _move(arrays, a, target):  # type: ignore[no-untyped-def]
    """Set `target` to the point at `a` on the (projected) path."""
    x, v = arrays.x, arrays.momentum_buffer
    step = x.dtype.type(a)
    for i in range(x.size):
        target[i] = x[i] + step * v[i]
    if arrays.lower.size:
        clip(target, arrays.lower, arrays.upper)


@inline_jit
def _f_noise(x):  # type: ignore[no-untyped-def]
    """Rounding noise that f is taken to have, relative."""
    return 1e-10 if x.itemsize == 8 else 1e-6


@inline_jit
def _choose_direction(arrays, p, f, settings, accepted):  # type: ignore[no-untyped-def]
    """Begin the next search: at the trial point if it is accepted, otherwise from x again, with S and v forgotten."""
    moved = accepted and p.phase != _START
    a, slope_before = p.a, p.slope0
    if moved:
        p.nit += 1
        p.since_best += 1
        p.step += 1
        p.restarts = 0
        p.rate = a
        p.f_prev = p.f
        p.f = f
    if not accepted:
        for i in range(arrays.x.size):
            arrays.square_avg[i] = 0
    _average_squares(arrays.square_avg, arrays.g_eval if accepted else arrays.g, settings.hyper)
    _set_metric(arrays, settings.hyper)
    p.mu = sy = s_m_s = 0.0
    if moved:
        _move(arrays, a, arrays.x_eval)
        if settings.tests.xtol >= 0.0:
            p.dx = max_abs_difference(arrays.x, arrays.x_eval)
        vy, vg, v_m_v, yp, yy, sy, s_m_s = _curvature_sums(arrays)
        p.mu = _momentum(vy, vg, v_m_v, yp, yy)
        copy(arrays.x_eval, arrays.x)
    if accepted:
        copy(arrays.g_eval, arrays.g)
    p.fresh = 0 if moved else 1
    _set_direction(arrays, p.mu)
    slope0, gg, vv, v_m_v = _direction_sums(arrays)
    if not slope0 < -LEAST_DESCENT * math.sqrt(gg * vv):
        p.mu = 0.0
        p.fresh = 1
        _set_direction(arrays, 0.0)
        slope0, gg, vv, v_m_v = _direction_sums(arrays)
    if moved:
        p.a = _first_trial(a, slope_before, slope0, sy, s_m_s, v_m_v)
    else:
        size = FIRST_STEP if accepted else 10.0 ** (-4 * (p.restarts + 1))
        p.a = size * max(1.0, max_abs(arrays.x)) / max(max_abs(arrays.momentum_buffer), _tiny(arrays.x))
    p.phase = _SEARCH
    begin_search(p, slope0)
    p.gnorm = gradient_norm(arrays, arrays.g)
    stop_after_iteration(p, arrays.x, settings.tests)
    if p.status == _RUNNING and not slope0 < 0.0:
        p.status = _PRECISION_LOSS  # the direction has underflowed


@inline_jit
def _momentum(vy, vg, v_m_v, yp, yy):  # type: ignore[no-untyped-def]
    """Dai and Kou's formula in the metric M; 0 where the curvature along v is not positive."""
    if not vy > 0.0:
        return 0.0
    mu = (yp - yy * vg / vy) / vy
    mu = max(mu, LEAST_MOMENTUM * vg / max(v_m_v, 1e-300))
    return mu if math.isfinite(mu) else 0.0


@inline_jit
def _first_trial(a, slope_before, slope0, sy, s_m_s, v_m_v):  # type: ignore[no-untyped-def]
    """Step that the last step's curvature promises, near the one that repeats the last decrease."""
    if not slope0 < 0.0:
        return a
    same_decrease = a * slope_before / slope0
    trial = 2.0 * same_decrease
    if sy > 0.0:
        by_curvature = -slope0 * s_m_s / max(sy * v_m_v, 1e-300)
        trial = min(max(by_curvature, 0.1 * same_decrease), 10.0 * same_decrease)
    return trial if math.isfinite(trial) and trial > 0.0 else a


# -- vector operations ------------------------------------------------------------------------------------------------


@inline_jit
def _tiny(x):  # type: ignore[no-untyped-def]
    """A number that keeps a division safe without changing anything else."""
    return 1e-300 if x.itemsize == 8 else 1e-37


@inline_jit
def _average_squares(square_avg, g, hyper):  # type: ignore[no-untyped-def]
    for i in range(g.size):
        square_avg[i] = hyper.beta * square_avg[i] + hyper.one_minus_beta * g[i] * g[i]


@inline_jit
def _set_metric(arrays, hyper):  # type: ignore[no-untyped-def]
    """M = sqrt(S) + eps*max(sqrt(S)): eps is relative here, so that scaling f changes nothing."""
    square_avg, metric = arrays.square_avg, arrays.metric
    floor = metric.dtype.type(hyper.eps * math.sqrt(max_abs(square_avg)) + _tiny(metric))
    for i in range(metric.size):
        metric[i] = math.sqrt(square_avg[i]) + floor


@inline_jit
def _blocked(x, direction, lower, upper):  # type: ignore[no-untyped-def]
    """Whether moving from x along `direction` leaves the box at once."""
    return (direction < 0 and x <= lower) or (direction > 0 and x >= upper)


@inline_jit
def _set_direction(arrays, mu):  # type: ignore[no-untyped-def]
    """v <- mu*v - g/M; with bounds, 0 where -g points out of the box and no momentum where v would."""
    g, v, metric = arrays.g, arrays.momentum_buffer, arrays.metric
    mu = v.dtype.type(mu)
    for i in range(v.size):
        v[i] = mu * v[i] - g[i] / metric[i]
    x, lower, upper = arrays.x, arrays.lower, arrays.upper
    for i in range(lower.size):
        if _blocked(x[i], -g[i], lower[i], upper[i]):
            v[i] = 0
        elif _blocked(x[i], v[i], lower[i], upper[i]):
            v[i] = -g[i] / metric[i]


@reduction_jit
def _slope(arrays, a):  # type: ignore[no-untyped-def]
    """Derivative of f along the (projected) path at `a`."""
    x, v, g, lower, upper = arrays.x, arrays.momentum_buffer, arrays.g_eval, arrays.lower, arrays.upper
    total = 0.0
    if lower.size == 0:
        for i in range(v.size):
            total += np.float64(g[i]) * np.float64(v[i])
        return total
    step = x.dtype.type(a)
    for i in range(v.size):
        if not _blocked(x[i] + step * v[i], v[i], lower[i], upper[i]):
            total += np.float64(g[i]) * np.float64(v[i])
    return total


@reduction_jit
def _direction_sums(arrays):  # type: ignore[no-untyped-def]
    """g.v, g.g, v.v and v.Mv over the variables that move."""
    g, v, metric = arrays.g, arrays.momentum_buffer, arrays.metric
    gv = gg = vv = v_m_v = 0.0
    for i in range(v.size):
        gi, vi = np.float64(g[i]), np.float64(v[i])
        moves = 1.0 if vi != 0.0 else 0.0
        gv += gi * vi
        gg += moves * gi * gi
        vv += vi * vi
        v_m_v += vi * vi * np.float64(metric[i])
    return gv, gg, vv, v_m_v


@reduction_jit
def _curvature_sums(arrays):  # type: ignore[no-untyped-def]
    """Inner products of the step s to ``x_eval``, the change y of the gradient, the direction v and p = g/M.

    With bounds, those for the momentum are taken over the variables that are free at the new point.
    """
    x, x_new, g, g_new = arrays.x, arrays.x_eval, arrays.g, arrays.g_eval
    v, metric, lower, upper = arrays.momentum_buffer, arrays.metric, arrays.lower, arrays.upper
    vy = vg = v_m_v = yp = yy = sy = s_m_s = 0.0
    for i in range(x.size):
        vi, gi, mi = np.float64(v[i]), np.float64(g_new[i]), np.float64(metric[i])
        y = gi - np.float64(g[i])
        s = np.float64(x_new[i]) - np.float64(x[i])
        sy += s * y
        s_m_s += s * s * mi
        if lower.size and _blocked(x_new[i], -g_new[i], lower[i], upper[i]):
            continue
        vy += vi * y
        vg += vi * gi
        v_m_v += vi * vi * mi
        yp += y * gi / mi
        yy += y * y / mi
    return vy, vg, v_m_v, yp, yy, sy, s_m_s
