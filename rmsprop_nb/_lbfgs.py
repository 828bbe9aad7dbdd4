"""L-BFGS whose initial inverse Hessian is RMSprop's diagonal: method "rmsprop-lbfgs".

    S <- beta*S + (1 - beta)*g*g          M = sqrt(S) + eps*max(sqrt(S))          v = -H g

H is the limited-memory BFGS matrix built from the last pairs of steps s and gradient changes y upon gamma/M, with gamma
such that H agrees with the newest pair along y: J. Nocedal, S. Wright, "Numerical Optimization", 2nd ed., algorithm
7.4 and eq. 7.20, the inner products there taken in the metric M. L-BFGS does most of the work, hence the name.

With bounds, H acts on the variables that are free: D. Kim, S. Sra, I. Dhillon, "Tackling Box-Constrained Optimization
via a New Projected Quasi-Newton Approach", SIAM J. Sci. Comput. 32 (2010).
"""

from __future__ import annotations

import numpy as np

from rmsprop_nb._cpu import copy, dot
from rmsprop_nb._descent import blocked, first_step, make_tell, moved_to, set_metric
from rmsprop_nb._jit import inline_jit, reduction_jit
from rmsprop_nb._team import team_sum, team_sums

__all__ = ["tell"]

LEAST_CURVATURE = 1e-22  # s.y relative to y.y below which a pair says nothing


@inline_jit
def _choose_direction(arrays, p, settings, accepted, moved):  # type: ignore[no-untyped-def]
    team = settings.team
    set_metric(arrays, arrays.g_eval if accepted else arrays.g, settings, not accepted)
    if moved:
        _go(arrays, p, team)
    else:
        p.pairs = 0
        if accepted:
            copy(arrays.g_eval, arrays.g)
    p.fresh = 1 if p.pairs == 0 else 0
    _two_loops(arrays, p, team)
    slope = team_sum(team, dot(arrays.g, arrays.momentum_buffer))
    if not slope < 0.0 and p.pairs > 0:
        p.pairs = 0
        p.fresh = 1
        _two_loops(arrays, p, team)
        slope = team_sum(team, dot(arrays.g, arrays.momentum_buffer))
    if p.pairs > 0:
        p.a = 1.0
    elif moved:
        p.a = 2.0 * p.a
    else:
        p.a = first_step(arrays, p, accepted, team)
    return slope


tell = make_tell("rmsprop-lbfgs", _choose_direction)


@inline_jit
def _go(arrays, p, team):  # type: ignore[no-untyped-def]
    """Go to the accepted point; put the pair over the oldest, unless f is not convex along the step."""
    memory = arrays.steps.shape[0]
    slot = (p.newest + 1) % memory
    sy, yy = team_sums(team, _store_pair(arrays, arrays.steps[slot], arrays.gradient_changes[slot], p.a))
    if sy > LEAST_CURVATURE * yy:
        p.newest = slot
        p.pairs = min(p.pairs + 1, memory)
        arrays.pair_sums[slot, 0] = sy
    elif p.pairs == memory:
        p.pairs -= 1  # the oldest pair has just been overwritten


@reduction_jit
def _store_pair(arrays, s, y, a):  # type: ignore[no-untyped-def]
    """Go to the accepted point; keep the step and the gradient's change, and return s.y and y.y."""
    x, g, g_new = arrays.x, arrays.g, arrays.g_eval
    step = x.dtype.type(a)
    sy = yy = 0.0
    for i in range(x.size):
        x_new = moved_to(arrays, i, step)
        s[i] = x_new - x[i]
        y[i] = g_new[i] - g[i]
        x[i] = x_new
        g[i] = g_new[i]
        sy += np.float64(s[i]) * np.float64(y[i])
        yy += np.float64(y[i]) * np.float64(y[i])
    return sy, yy


@inline_jit
def _two_loops(arrays, p, team):  # type: ignore[no-untyped-def]
    """v <- -H g, on the free variables."""
    v, g, metric = arrays.momentum_buffer, arrays.g, arrays.metric
    memory = arrays.steps.shape[0]
    for i in range(v.size):
        v[i] = -g[i]
    _keep_free(arrays)
    for k in range(p.pairs):
        slot = (p.newest - k) % memory
        c = team_sum(team, dot(arrays.steps[slot], v)) / arrays.pair_sums[slot, 0]
        arrays.pair_sums[slot, 1] = c
        _add(v, arrays.gradient_changes[slot], -c)
    gamma = v.dtype.type(1)
    if p.pairs > 0:
        newest = p.newest
        yy = team_sum(team, _dot_in_metric(arrays.gradient_changes[newest], metric))
        gamma = v.dtype.type(arrays.pair_sums[newest, 0] / yy)
    for i in range(v.size):
        v[i] = gamma * v[i] / metric[i]
    for k in range(p.pairs - 1, -1, -1):
        slot = (p.newest - k) % memory
        c = team_sum(team, dot(arrays.gradient_changes[slot], v)) / arrays.pair_sums[slot, 0]
        _add(v, arrays.steps[slot], arrays.pair_sums[slot, 1] - c)
    _keep_free(arrays)


@inline_jit
def _keep_free(arrays):  # type: ignore[no-untyped-def]
    """Let no variable at a bound move out of the box, nor one that its gradient holds there."""
    x, v, g, lower, upper = arrays.x, arrays.momentum_buffer, arrays.g, arrays.lower, arrays.upper
    for i in range(lower.size):
        if blocked(x[i], v[i], lower[i], upper[i]) or blocked(x[i], -g[i], lower[i], upper[i]):
            v[i] = 0


@inline_jit
def _add(v, direction, c):  # type: ignore[no-untyped-def]
    """v <- v + c*direction."""
    c = v.dtype.type(c)
    for i in range(v.size):
        v[i] = v[i] + c * direction[i]


@reduction_jit
def _dot_in_metric(y, metric):  # type: ignore[no-untyped-def]
    """y.(y/M)."""
    total = 0.0
    for i in range(y.size):
        yi = np.float64(y[i])
        total += yi * yi / np.float64(metric[i])
    return total
