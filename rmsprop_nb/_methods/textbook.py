"""The textbook rule as an ask/tell pair: a learning rate that is a number or a schedule, and nothing else.

``ask`` moves x and copies the point to evaluate to ``x_eval``; ``tell`` takes in the result and runs the stopping
tests. All they know is in the arrays and the record, so a run can stop between any two calls.
"""

from __future__ import annotations

import functools
from typing import Any

from rmsprop_nb._core.options import RmspropOptions
from rmsprop_nb._core.records import Phase
from rmsprop_nb._core.settings import Variant
from rmsprop_nb._core.status import Status
from rmsprop_nb._kernels.thread_team import team_largest
from rmsprop_nb._kernels.update import bias, make_parallel_update, make_update
from rmsprop_nb._kernels.vectors import clip, copy, gradient_norm, max_abs, max_abs_difference
from rmsprop_nb._methods.method import Algorithm, Layout, Method, is_variant, layout, ranges_of
from rmsprop_nb._methods.points import keep_best
from rmsprop_nb._methods.stopping import count_evaluation, stop_after_iteration, usable
from rmsprop_nb._numba.decorators import kernel_jit

_START, _ITERATE = int(Phase.START), int(Phase.ITERATE)
_NONFINITE = int(Status.NONFINITE)


@functools.cache
def make_ask(variant: Variant, parallel: bool) -> Any:
    """Compile ``ask(arrays, record, settings)`` for one variant of the rule."""
    update = make_parallel_update(variant) if parallel else make_update(variant)

    @kernel_jit("textbook ask", variant, parallel)
    def ask(arrays, record, settings):
        p = record[0]
        if p.phase != _START:
            p.rate = settings.rates[min(p.step - p.first_step, settings.rates.size - 1)]
            p.step += 1
            correction = bias(settings.hyper.beta, p.step) if variant.bias_correction else 1.0
            measure = settings.tests.xtol >= 0.0
            if measure:
                copy(arrays.x, arrays.g)  # the gradient is in g_eval, so g can hold the previous point
            if p.rate > 0.0:  # a rate of 0 leaves x and the averages as they are
                update(
                    arrays.x, arrays.g_eval, arrays.square_avg, arrays.grad_avg, arrays.momentum_buffer,
                    p.rate, correction, settings.hyper, settings.pieces,
                )  # fmt: skip
            if arrays.lower.size:
                clip(arrays.x, arrays.lower, arrays.upper)
            if measure:
                p.dx = team_largest(settings.team, max_abs_difference(arrays.x, arrays.g))
        copy(arrays.x, arrays.x_eval)
        p.pending = 1

    return ask


@kernel_jit("textbook tell")
def tell(arrays, record, f, settings):
    """Take in f and the gradient at x, and run the stopping tests."""
    p = record[0]
    p.pending = 0
    count_evaluation(p, arrays.x, settings)
    largest = team_largest(settings.team, max_abs(arrays.g_eval))
    p.gnorm = gradient_norm(arrays, arrays.g_eval, largest, settings.team)
    if p.phase == _START:
        p.f = p.f_start = f  # reported even if not finite
    if not usable(f, largest, settings.tests.largest_gradient):
        p.status = _NONFINITE
        return
    if p.phase == _START:
        p.phase = _ITERATE
    else:
        p.nit += 1
        p.since_best += 1
    p.f_prev = p.f
    p.f = f
    if f < p.f_best:
        copy(arrays.x, arrays.x_best)
        keep_best(p, f, arrays.g_eval, arrays)
    stop_after_iteration(p, arrays, settings)


def _algorithm(variant: Variant, *, parallel: bool) -> Algorithm:
    return Algorithm(("textbook", variant, parallel), make_ask(variant, parallel), tell)


def _layout(variant: Variant) -> Layout:
    return layout(*(["grad_avg"] if variant.centered else []), *(["momentum_buffer"] if variant.momentum else []))


METHOD = Method(
    name="textbook",
    parameters=(is_variant,),
    layout=_layout,
    ranges=lambda variant: ranges_of(_layout(variant), Phase.ITERATE),
    method="rmsprop",
    options=RmspropOptions,
    algorithm=_algorithm,
)
