"""L-BFGS whose initial inverse Hessian is RMSprop's diagonal: method "rmsprop-lbfgs".

    S <- beta*S + (1 - beta)*g*g          M = (sqrt(S) + eps*max(sqrt(S)*x_scale)/x_scale)/x_scale          v = -H g

H is the limited-memory BFGS matrix built from the last pairs of steps s and gradient changes y upon gamma/M, with gamma
such that H agrees with the newest pair along y: J. Nocedal, S. Wright, "Numerical Optimization", 2nd ed., algorithm
7.4 and eq. 7.20, the inner products there taken in the metric M. L-BFGS does most of the work, hence the name.

With bounds, H acts on the variables that are free: D. Kim, S. Sra, I. Dhillon, "Tackling Box-Constrained Optimization
via a New Projected Quasi-Newton Approach", SIAM J. Sci. Comput. 32 (2010).
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from rmsprop_nb._core.options import Options, check_average
from rmsprop_nb._core.records import Phase
from rmsprop_nb._core.settings import Hyper
from rmsprop_nb._core.validate import as_count, check_switches_of
from rmsprop_nb._kernels.thread_team import team_sum
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

LEAST_CURVATURE = 2.2e-16  # s.y relative to -s.g below which a pair is ignored
_REFRESH = int(Phase.REFRESH)


@inline_jit
def _choose_direction(arrays, p, settings, accepted, moved):
    team = settings.team
    floor = average_squares(arrays, arrays.g_eval if accepted else arrays.g, settings, not accepted)
    if moved:
        _go(arrays, p, floor, team)
    else:
        set_metric(arrays, floor)
        if p.phase != _REFRESH:
            p.pairs = 0
        if accepted:
            copy(arrays.g_eval, arrays.g)
    p.fresh = 1 if p.pairs == 0 else 0
    slope = _set_direction(arrays, p, team)
    if not slope < 0.0 and p.pairs > 0:
        p.pairs = 0
        p.fresh = 1
        slope = _set_direction(arrays, p, team)
    if p.pairs > 0:
        p.a = 1.0
    elif moved:
        p.a = 2.0 * p.a
    else:
        p.a = first_step(arrays, p, accepted, team)
    return slope


@dataclasses.dataclass(frozen=True, kw_only=True)
class LbfgsOptions(Options):
    """Options of method "rmsprop-lbfgs"."""

    memory: int = 10
    beta: float = 0.99
    eps: float = 1e-3

    def __post_init__(self) -> None:
        check_switches_of(self)
        check_average(self.beta, self.eps)
        as_count("memory", self.memory, 0, least=1)

    @property
    def kind(self) -> tuple[Any, ...]:
        """The kind of its states."""
        return METHOD.name, self.memory

    def hyper(self, dtype: Any) -> Hyper:
        """Return the numbers of the average, in the dtype of x."""
        return Hyper.of(dtype, self.beta, self.eps)


METHOD = search_method(
    "rmsprop-lbfgs",
    tell=make_tell("rmsprop-lbfgs", _choose_direction),
    options=LbfgsOptions,
    keeps_pairs=True,
    curvature=0.9,  # much, because a unit step is the rule
)


@inline_jit
def _go(arrays, p, floor, team):
    """Go to the accepted point; replace the oldest pair, unless f is not convex along the step."""
    memory = arrays.steps.shape[0]
    slot = _newer(p.newest, memory)
    sy = team_sum(team, _store_pair(arrays, arrays.steps[slot], arrays.gradient_changes[slot], p.a, floor))
    if sy > -LEAST_CURVATURE * p.a * p.slope0:
        p.newest = slot
        p.pairs = min(p.pairs + 1, memory)
        arrays.pair_sums[slot, 0] = sy
    elif p.pairs == memory:
        p.pairs -= 1  # the oldest pair has just been overwritten


@inline_jit
def _newer(slot, memory):
    """Return the slot after this one; a division would take longer than a short vector."""
    return slot + 1 if slot + 1 < memory else 0


@inline_jit
def _older(slot, memory):
    return slot - 1 if slot > 0 else memory - 1


@reduction_jit
def _store_pair(arrays, s, y, a, floor):
    """Go to the accepted point and set M; store the step and the change of the gradient, and return s.y."""
    x, g, g_new = arrays.x, arrays.g, arrays.g_eval
    step = x.dtype.type(a)
    sy = 0.0
    for i in range(x.size):
        metric_at(arrays, i, floor)
        x_new = moved_to(arrays, i, step)
        s[i] = x_new - x[i]
        y[i] = g_new[i] - g[i]
        x[i] = x_new
        g[i] = g_new[i]
        sy += np.float64(s[i]) * np.float64(y[i])
    return sy


# -- v <- -H g on the free variables, in as few passes over memory as the inner products allow -------------------------


@inline_jit
def _set_direction(arrays, p, team):
    """v <- -H g; return g.v."""
    if p.pairs == 0:
        return team_sum(team, _scaled_descent(arrays))
    slot, memory = p.newest, arrays.steps.shape[0]
    steps, changes, sums, v = arrays.steps, arrays.gradient_changes, arrays.pair_sums, arrays.direction
    gamma = sums[slot, 0] / team_sum(team, _dot_in_metric(changes[slot], arrays.metric))
    product = team_sum(team, _begin(arrays, steps[slot]))
    for _ in range(p.pairs - 1):
        older = _older(slot, memory)
        sums[slot, 1] = product / sums[slot, 0]
        product = team_sum(team, _add(v, changes[slot], -sums[slot, 1], steps[older]))
        slot = older
    sums[slot, 1] = product / sums[slot, 0]
    product = team_sum(team, _scale(v, changes[slot], -sums[slot, 1], gamma, arrays.metric))
    for _ in range(p.pairs - 1):
        newer = _newer(slot, memory)
        c = sums[slot, 1] - product / sums[slot, 0]
        product = team_sum(team, _add(v, steps[slot], c, changes[newer]))
        slot = newer
    return team_sum(team, _end(arrays, steps[slot], sums[slot, 1] - product / sums[slot, 0]))


@inline_jit
def _kept_free(arrays, i, w):
    """Return element i of a direction: 0 at a bound if it or -g points out of the box."""
    if arrays.lower.size:
        x, lower, upper = arrays.x[i], arrays.lower[i], arrays.upper[i]
        if blocked(x, w, lower, upper) or blocked(x, -arrays.g[i], lower, upper):
            return type(w)(0)
    return w


@reduction_jit
def _scaled_descent(arrays):
    """v <- -g/M; return g.v."""
    v, g = arrays.direction, arrays.g
    slope = 0.0
    for i in range(v.size):
        v[i] = _kept_free(arrays, i, -g[i] / arrays.metric[i])
        slope += np.float64(g[i]) * np.float64(v[i])
    return slope


@reduction_jit
def _begin(arrays, s):
    """v <- -g; return s.v."""
    v, g = arrays.direction, arrays.g
    product = 0.0
    for i in range(v.size):
        v[i] = _kept_free(arrays, i, -g[i])
        product += np.float64(s[i]) * np.float64(v[i])
    return product


@reduction_jit
def _add(v, direction, c, other):
    """v <- v + c*direction; return other.v."""
    c = v.dtype.type(c)
    product = 0.0
    for i in range(v.size):
        v[i] = v[i] + c * direction[i]
        product += np.float64(other[i]) * np.float64(v[i])
    return product


@reduction_jit
def _scale(v, y, c, gamma, metric):
    """v <- gamma*(v + c*y)/M; return y.v."""
    c, gamma = v.dtype.type(c), v.dtype.type(gamma)
    product = 0.0
    for i in range(v.size):
        v[i] = gamma * (v[i] + c * y[i]) / metric[i]
        product += np.float64(y[i]) * np.float64(v[i])
    return product


@reduction_jit
def _end(arrays, s, c):
    """v <- v + c*s; return g.v."""
    v, g = arrays.direction, arrays.g
    c = v.dtype.type(c)
    slope = 0.0
    for i in range(v.size):
        v[i] = _kept_free(arrays, i, v[i] + c * s[i])
        slope += np.float64(g[i]) * np.float64(v[i])
    return slope


@reduction_jit
def _dot_in_metric(y, metric):
    """y.(y/M)."""
    total = 0.0
    for i in range(y.size):
        yi = np.float64(y[i])
        total += yi * yi / np.float64(metric[i])
    return total
