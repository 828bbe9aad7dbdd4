"""Levenberg-Marquardt for sums of squares, as an ask/tell pair: "rmsprop-lm".

An evaluation gives f, its gradient g = J'r and, after it in the same vector, the lower triangle of A = J'J, row by row.
A step solves ``(A + damping*D) s = -g``. D is RMSprop's S: the running mean of the squared derivatives, each summed
over the data, but never less than the present one. So the units of the parameters do not matter.

Bounds: a parameter at a bound that g pushes it out of stays there, and one that s would carry out goes to its bound,
while s is made anew for the others.

References
----------
J. More, "The Levenberg-Marquardt algorithm: implementation and theory", Numerical Analysis, 1978: the metric.
H. Nielsen, "Damping parameter in Marquardt's method", IMM-REP-1999-05, 1999: the damping.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from rmsprop_nb._core.options import Options, check_average
from rmsprop_nb._core.records import Phase
from rmsprop_nb._core.settings import Hyper
from rmsprop_nb._core.status import Status
from rmsprop_nb._kernels.vectors import copy, set_zero
from rmsprop_nb._methods.damped_step import find_step, is_held, place, predicted_gain
from rmsprop_nb._methods.method import Algorithm, Layout, Method, layout, ranges_of
from rmsprop_nb._methods.points import keep_best
from rmsprop_nb._methods.stopping import ULPS, count_evaluation
from rmsprop_nb._numba.decorators import inline_jit, kernel_jit

_START, _SEARCH = int(Phase.START), int(Phase.SEARCH)  # its evaluations are not at x
_GTOL, _FTOL, _XTOL, _ROUNDING, _F_TARGET, _NONFINITE, _PRECISION_LOSS, _MAXITER, _MAXFEV, _RUNNING = map(
    int,
    (
        Status.GTOL,
        Status.FTOL,
        Status.XTOL,
        Status.ROUNDING,
        Status.F_TARGET,
        Status.NONFINITE,
        Status.PRECISION_LOSS,
        Status.MAXITER,
        Status.MAXFEV,
        Status.RUNNING,
    ),
)

FIRST_DAMPING = 1e-3
LEAST_DAMPING = 1e-15  # what keeps a singular A solvable
ACCEPTED = 1e-4  # of the gain that was predicted, above which a step is taken
GOOD = 0.9  # of it, above which the damping falls to a tenth or less
MOST_RELIEF = 1e-4
FAR = 0.1  # of f, that a step lowers it by where the minimum is not near
SLOW = 0.25  # a gain that shrinks by less than this from step to step is not the last
NEAR = 1e-7  # of f, for which a gain is small even where the last digits of f hide it
NEARLY_ORTHOGONAL = 1e-6  # a cosine at which a singular J, which promises large gains for ever, does not matter
EXACT = 100.0  # rounding errors of the model, which residuals may be where data are exact
MOST_TRIES = 60  # factors of 4 in the damping


@kernel_jit("levenberg-marquardt ask")
def ask(arrays, record, _settings):
    """Propose the point to evaluate."""
    p = record[0]
    if p.phase == _START:
        copy(arrays.x, arrays.x_eval)
    else:
        _propose(arrays, p)
    p.pending = 1


@kernel_jit("levenberg-marquardt tell")
def tell(arrays, record, f, settings):
    """Take in f, g and A at the point proposed; take the step or damp the next one more."""
    p = record[0]
    p.pending = 0
    count_evaluation(p, arrays.x, settings)
    finite = math.isfinite(f) and _is_finite(arrays.g_eval)
    if p.phase == _START:
        p.f = p.f_start = f
        if not finite:
            p.status = _NONFINITE
            return
        p.phase = _SEARCH
        p.damping, p.growth, p.gain = FIRST_DAMPING, 2.0, math.inf
        _take(arrays, p, f, settings.hyper)
        _stop_here(arrays, p, settings.tests)
    else:
        ratio = (p.f - f) / p.predicted if finite else -math.inf
        if ratio > ACCEPTED:
            p.nit += 1
            if ratio > GOOD:  # the better the prediction, the nearer to a step without damping
                p.damping *= max(MOST_RELIEF, min(0.1, 10.0 * abs(1.0 - ratio)))
            else:
                excess = 2.0 * ratio - 1.0
                p.damping *= max(1.0 / 3.0, 1.0 - excess * excess * excess)
            p.growth = 2.0
            p.f_prev = p.f
            copy(arrays.x_eval, arrays.x)
            _take(arrays, p, f, settings.hyper)
            _stop_here(arrays, p, settings.tests)
        else:
            p.damping *= p.growth
            p.growth *= 2.0
            _stop_without_step(arrays, p)
    if p.status == _RUNNING:
        if p.nit >= settings.tests.maxiter:
            p.status = _MAXITER
        elif p.nfev >= settings.tests.maxfev:
            p.status = _MAXFEV


@inline_jit
def _take(arrays, p, f, hyper):
    """Make the point that was evaluated, which x holds already, the present one."""
    first = p.step == 0
    p.step += 1
    p.trials = 0
    p.f = f
    copy(arrays.g_eval, arrays.g)
    copy(arrays.x, arrays.x_best)
    keep_best(p, f, arrays.g, arrays)
    largest = 0.0
    for i in range(arrays.x.size):
        square = arrays.g[place(arrays.x.size, i, i)]
        mean = square if first else hyper.beta * arrays.square_avg[i] + hyper.one_minus_beta * square
        arrays.square_avg[i] = max(square, mean)
        largest = max(largest, abs(arrays.g[i]))
    p.gnorm = largest


# -- stopping ---------------------------------------------------------------------------------------------------------


@inline_jit
def _stop_here(arrays, p, tests):
    """Set the status if the present point meets a test.

    The tests are about the step without damping, because damping makes any step and its gain small.
    """
    if _is_lost(arrays) or (p.f == 0.0 and p.gnorm > 0.0):  # squares of residuals that underflow tell nothing
        p.gain = math.inf
        return
    if p.f == 0.0 or (tests.gtol >= 0.0 and _cosine(arrays, p.f) <= tests.gtol):
        p.status = _GTOL
        return
    far = p.f_prev - p.f > FAR * p.f_prev  # what is gained at such a pace is not the last
    if far and not _is_exact(arrays, p.f, tests.xtol):
        p.gain = math.inf
        return
    before = p.gain
    p.gain = _full_gain(arrays)
    if p.f <= tests.f_target:
        p.status = _F_TARGET
    elif p.gain <= ULPS * p.f_eps * p.f or _is_exact(arrays, p.f, ULPS * p.f_eps):
        p.status = _ROUNDING
    elif p.gain <= tests.ftol * p.f * min(1.0, _gain_ahead(p.gain, before)):
        p.status = _FTOL
    elif _is_short(arrays, tests.xtol) and (p.gain <= NEAR * p.f or _is_exact(arrays, p.f, tests.xtol)):
        p.status = _XTOL


@inline_jit
def _gain_ahead(gain, before):
    """Return what a gain is of all gains from here on, if each is smaller than the one before by the same factor."""
    left = max(1.0 - math.sqrt(gain / before), 0.0)
    return left * left if gain > SLOW * before else 1.0


@inline_jit
def _stop_without_step(arrays, p):
    """Set the status if no step will lower f any more: the last one tried was as short as rounding lets them be."""
    if not _is_without_effect(arrays, ULPS * p.f_eps):
        return
    if _is_lost(arrays):
        p.status = _PRECISION_LOSS
    elif _is_near(arrays, p):
        p.status = _ROUNDING
    elif p.trials == 0:  # S and the damping may be of a place where derivatives were far larger, or smaller
        p.trials = 1
        p.damping, p.growth = FIRST_DAMPING, 2.0
        _forget(arrays)
    else:
        p.status = _PRECISION_LOSS


@inline_jit
def _is_lost(arrays):
    """Return whether a parameter that had an influence has none any more, as where an exponential has died out."""
    for i in range(arrays.x.size):
        if arrays.square_avg[i] > 0.0 and arrays.g[place(arrays.x.size, i, i)] == 0.0 and not is_held(arrays, i):
            return True
    return False


@inline_jit
def _forget(arrays):
    """Make S the present squared derivatives."""
    for i in range(arrays.x.size):
        arrays.square_avg[i] = arrays.g[place(arrays.x.size, i, i)]


@inline_jit
def _cosine(arrays, f):
    """Return the largest cosine of the angle between the residuals and their derivatives by a parameter."""
    largest = 0.0
    for i in range(arrays.x.size):
        square = arrays.g[place(arrays.x.size, i, i)]
        if square > 0.0 and not is_held(arrays, i):
            largest = max(largest, abs(arrays.g[i]) / math.sqrt(2.0 * f * square))
    return largest


@inline_jit
def _is_near(arrays, p):
    """Return whether the present point is a minimum, as far as rounding can tell."""
    if p.gain <= NEAR * p.f or _is_exact(arrays, p.f, EXACT * p.f_eps):
        return True
    return p.f > 0.0 and _cosine(arrays, p.f) <= NEARLY_ORTHOGONAL


@inline_jit
def _is_exact(arrays, f, tolerance):
    """Return whether the residuals are at most `tolerance` of the values that they are made of."""
    size = 0.0
    for i in range(arrays.x.size):
        size += arrays.g[place(arrays.x.size, i, i)] * (arrays.x[i] * arrays.x[i])
    return f > 0.0 and tolerance > 0.0 and 2.0 * f <= tolerance * tolerance * size


@inline_jit
def _is_short(arrays, tolerance):
    """Return whether the last step changes every parameter by at most `tolerance` of it; never if that is negative."""
    short = True
    for i in range(arrays.x.size):
        short = short and abs(arrays.direction[i]) <= tolerance * abs(arrays.x[i])
    return short


@inline_jit
def _is_without_effect(arrays, tolerance):
    """Return whether the last step, in the metric, is at most `tolerance` of x."""
    step = point = 0.0
    for i in range(arrays.x.size):
        step += arrays.square_avg[i] * (arrays.direction[i] * arrays.direction[i])
        point += arrays.square_avg[i] * (arrays.x[i] * arrays.x[i])
    return step <= tolerance * tolerance * point


# -- steps ------------------------------------------------------------------------------------------------------------


@inline_jit
def _propose(arrays, p):
    """Set the point to evaluate, and what it should gain."""
    p.predicted = 0.0
    for _ in range(MOST_TRIES):
        if find_step(arrays, p.damping, True):
            p.predicted = predicted_gain(arrays)
            if p.predicted > 0.0:
                break
        p.damping *= 4.0
    if not p.predicted > 0.0:
        set_zero(arrays.direction)
    bounded = arrays.lower.size > 0
    for i in range(arrays.x.size):
        arrays.x_eval[i] = arrays.x[i] + arrays.direction[i]
        if bounded:
            arrays.x_eval[i] = min(max(arrays.x_eval[i], arrays.lower[i]), arrays.upper[i])


@inline_jit
def _full_gain(arrays):
    """Return what the step without damping should gain; leave it in ``direction``."""
    damping = LEAST_DAMPING
    for _ in range(MOST_TRIES):
        if find_step(arrays, damping, False):  # S remembers what may be far larger
            return max(predicted_gain(arrays), 0.0)
        damping *= 4.0
    return math.inf


@inline_jit
def _is_finite(a):
    total = 0.0
    for i in range(a.size):
        total += 0.0 * a[i]
    return total == 0.0


# -- the record -------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True)
class LevenbergMarquardtOptions(Options):
    """Options of method "rmsprop-lm"."""

    ftol: float = 1e-10
    xtol: float = 1e-8
    beta: float = 0.9

    def __post_init__(self) -> None:
        check_average(self.beta, 0.0)

    @property
    def kind(self) -> tuple[Any, ...]:
        """The name of the method among the kinds of states."""
        return ("rmsprop-lm",)

    def hyper(self, dtype: Any) -> Hyper:
        """Return the numbers of the rule, in the dtype of x."""
        return Hyper.of(dtype, self.beta, 0.0)


def _layout() -> Layout:
    return layout("direction", matrix=True)


_MESSAGES = {
    Status.GTOL: "Converged: the residuals are orthogonal to their derivatives, to within gtol.",
    Status.FTOL: "Converged: a full step would lower the sum of squares by at most ftol of it.",
    Status.XTOL: "Converged: a full step would change the parameters by at most xtol of them.",
    Status.ROUNDING: "Converged as far as rounding lets the sum of squares fall.",
    Status.NONFINITE: "The function or its derivatives are NaN or infinite at the first guess.",
    Status.PRECISION_LOSS: (
        "No step lowers the sum of squares any more, though it has not converged: the function may have a kink or "
        "noise there, jac may not be its derivatives, or the data may not determine the parameters."
    ),
}

METHOD = Method(
    name="rmsprop-lm",
    parameters=(),
    layout=_layout,
    ranges=lambda: ranges_of(_layout(), Phase.SEARCH),
    method="rmsprop-lm",
    options=LevenbergMarquardtOptions,
    algorithm=lambda *, parallel: Algorithm(("rmsprop-lm",), ask, tell),  # noqa: ARG005 - of short vectors
    messages=_MESSAGES,
)
