"""RMSprop with momentum, where learning rate and momentum are automatic: method "rmsprop".

    S <- beta*S + (1 - beta)*g*g                  M = (sqrt(S) + eps*max(sqrt(S)*x_scale)/x_scale)/x_scale
    v <- mu*v - g/M                               x <- x + a*v

These are the recurrences of textbook RMSprop with momentum. The learning rate a comes from a Wolfe line search; the
momentum mu from the conjugate-gradient formula of Y.-H. Dai and C.-X. Kou, "A nonlinear conjugate gradient algorithm
with an optimal property and an improved Wolfe line search", SIAM J. Optim. 23 (2013), eq. 1.12 and 2.7, in the inner
product that M defines. Momentum restarts where successive gradients are far from orthogonal: M. J. D. Powell,
"Restart procedures for the conjugate gradient method", Math. Program. 12 (1977). With bounds, only free variables
have momentum; one that leaves a bound starts without.
"""

from __future__ import annotations

import math

import numpy as np

from rmsprop_nb._core.options import RmspropOptions
from rmsprop_nb._kernels.thread_team import team_sums
from rmsprop_nb._kernels.vectors import copy
from rmsprop_nb._methods.descent import (
    average_squares,
    blocked,
    first_step,
    make_tell,
    metric_at,
    moved_to,
    search_method,
    set_metric,
)
from rmsprop_nb._numba.decorators import inline_jit, reduction_jit

LEAST_MOMENTUM = 0.4  # eta of Dai and Kou
LARGEST_OVERLAP = 0.2  # |g.(g_before/M)| relative to g.(g/M) above which momentum is dropped
LEAST_DESCENT = 1e-10  # cosine between direction and gradient below which momentum is dropped


@inline_jit
def _choose_direction(arrays, p, settings, accepted, moved):
    slope_before = p.slope0
    floor = average_squares(arrays, arrays.g_eval if accepted else arrays.g, settings, not accepted)
    mu = sy = s_m_s = 0.0
    if moved:
        vy, vg, v_m_v, yp, yy, gp, sy, s_m_s = team_sums(settings.team, _go(arrays, p.a, floor))
        mu = _momentum(vy, vg, v_m_v, yp, yy, gp)
    else:
        set_metric(arrays, floor)
        if accepted:
            copy(arrays.g_eval, arrays.g)
    p.fresh = 0 if moved else 1
    slope, gp, v_m_v = team_sums(settings.team, _set_direction(arrays, mu))
    if not slope < -LEAST_DESCENT * math.sqrt(gp * v_m_v):
        p.fresh = 1
        slope, gp, v_m_v = team_sums(settings.team, _set_direction(arrays, 0.0))
    if moved:
        p.a = _first_trial(p.a, slope_before, slope, sy, s_m_s, v_m_v)
    else:
        p.a = first_step(arrays, p, accepted, settings.team)
    return slope


METHOD = search_method(
    "rmsprop",
    tell=make_tell("rmsprop", _choose_direction),
    options=RmspropOptions,
    curvature=0.1,  # little, because conjugate directions want a line that is searched well
    advice='method="rmsprop-lbfgs" may take far fewer evaluations.',
)


@inline_jit
def _momentum(vy, vg, v_m_v, yp, yy, gp):
    """Return Dai and Kou's momentum in the metric M; 0 if f is not convex along v or Powell's test says restart."""
    overlap = gp - yp
    if not vy > 0.0 or abs(overlap) > LARGEST_OVERLAP * gp:
        return 0.0
    mu = (yp - yy * vg / vy) / vy
    mu = max(mu, LEAST_MOMENTUM * vg / max(v_m_v, 1e-300))
    return mu if math.isfinite(mu) else 0.0


@inline_jit
def _first_trial(a, slope_before, slope, sy, s_m_s, v_m_v):
    """Return the step that the curvature of the last step predicts, near the one that repeats the last decrease."""
    if not slope < 0.0:
        return a
    same_decrease = a * slope_before / slope
    trial = 2.0 * same_decrease
    if sy > 0.0:
        by_curvature = -slope * s_m_s / max(sy * v_m_v, 1e-300)
        trial = min(max(by_curvature, 0.1 * same_decrease), 10.0 * same_decrease)
    return trial if math.isfinite(trial) and trial > 0.0 else a


@reduction_jit
def _set_direction(arrays, mu):
    """v <- mu*v - g/M; return g.v, g.g, v.v and v.Mv over the variables that move.

    With bounds v is 0 where -g points out of the box, and there is no momentum where v would.
    """
    x, g, v, metric = arrays.x, arrays.g, arrays.direction, arrays.metric
    lower, upper = arrays.lower, arrays.upper
    mu = v.dtype.type(mu)
    gv = gp = v_m_v = 0.0
    for i in range(v.size):
        p = g[i] / metric[i]
        w = mu * v[i] - p
        if lower.size:
            if blocked(x[i], -g[i], lower[i], upper[i]):
                w = p * 0
            elif blocked(x[i], w, lower[i], upper[i]):
                w = -p
        v[i] = w
        gi, wi = np.float64(g[i]), np.float64(w)
        moves = 1.0 if wi != 0.0 else 0.0
        gv += gi * wi
        gp += moves * gi * np.float64(p)
        v_m_v += wi * wi * np.float64(metric[i])
    return gv, gp, v_m_v


@reduction_jit
def _go(arrays, a, floor):
    """Go to the accepted point and set M; return inner products of v, the step s, the gradient change y and p = g/M.

    With bounds, the products for the momentum are over the variables that are free at the new point.
    """
    x, g, g_new = arrays.x, arrays.g, arrays.g_eval
    v, lower, upper = arrays.direction, arrays.lower, arrays.upper
    step = x.dtype.type(a)
    vy = vg = v_m_v = yp = yy = gp = sy = s_m_s = 0.0
    for i in range(x.size):
        x_new = moved_to(arrays, i, step)
        vi, gi, mi = np.float64(v[i]), np.float64(g_new[i]), np.float64(metric_at(arrays, i, floor))
        y = gi - np.float64(g[i])
        s = np.float64(x_new) - np.float64(x[i])
        x[i] = x_new
        g[i] = g_new[i]
        sy += s * y
        s_m_s += s * s * mi
        if lower.size and blocked(x_new, -g_new[i], lower[i], upper[i]):
            continue
        inverse = 1.0 / mi
        p = inverse * gi
        vy += vi * y
        vg += vi * gi
        v_m_v += vi * vi * mi
        yp += y * p
        yy += y * inverse * y
        gp += gi * p
    return vy, vg, v_m_v, yp, yy, gp, sy, s_m_s
