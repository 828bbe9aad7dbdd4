"""A step of a run over mini-batches: what each rule does with the gradient of a batch."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from rmsprop_nb._core.records import MINIBATCH_DTYPE, MinibatchArrays
from rmsprop_nb._core.settings import Variant
from rmsprop_nb._core.status import Status
from rmsprop_nb._kernels.update import bias, make_parallel_update, make_update
from rmsprop_nb._kernels.vectors import clip, copy, max_abs
from rmsprop_nb._methods.method import Kind, Layout, is_count, is_variant
from rmsprop_nb._methods.stopping import usable
from rmsprop_nb._numba.decorators import inline_jit, kernel_jit, reduction_jit

_NONFINITE, _EPOCHS = int(Status.NONFINITE), int(Status.EPOCHS)

AVERAGING_POWER = 8.0
"""eta of O. Shamir, T. Zhang, "Stochastic Gradient Descent for Non-smooth Optimization", ICML 2013, section 3."""


@functools.cache
def make_textbook_step(variant: Variant, parallel: bool, scaled: bool) -> Any:
    """Compile ``step(arrays, p, settings)``: the textbook rule with a learning rate from `settings`."""
    update = make_parallel_update(variant) if parallel else make_update(variant)

    @inline_jit
    def step(arrays, p, settings):
        p.rate = settings.rates[min(p.step - p.first_step, settings.rates.size - 1)]
        p.step += 1
        correction = bias(settings.hyper.beta, p.step) if variant.bias_correction else 1.0
        if p.rate > 0.0:  # a rate of 0 leaves x and the averages as they are
            update(
                arrays.x, arrays.g_eval, arrays.square_avg, arrays.grad_avg, arrays.momentum_buffer, p.rate, correction,
                settings.hyper, settings.pieces, arrays.scale if scaled else None,
                norm_scale(arrays.g_eval, p, settings), settings.clip_value,
            )  # fmt: skip

    return step


def make_tell(name: tuple[Any, ...], step: Any) -> Any:
    """Compile ``tell(arrays, record, f, count, settings)``, which takes in a batch of `count` rows."""

    @kernel_jit("minibatch tell", *name)
    def tell(arrays, record, f, count, settings):
        p = record[0]
        p.nfev += 1
        p.gnorm = max_abs(arrays.g_eval)
        p.f_batch = f
        if not usable(f, p.gnorm, settings.largest_gradient):
            p.status = _NONFINITE
            return
        if settings.keeps_lowest and p.batch == 0 and p.f < p.f_best:  # f, of the last epoch, is finite here too
            p.f_best = p.f
            copy(arrays.x, arrays.x_best)
        p.f_sum += f * count
        p.rows += count
        p.batch += 1
        ends_epoch = p.batch == settings.batches
        if settings.accumulate > 1:
            _accumulate(arrays, p, count)
        if settings.accumulate == 1 or p.accumulated == settings.accumulate or ends_epoch:
            if settings.accumulate > 1:
                _take_mean(arrays, p)
            step(arrays, p, settings)
            if arrays.lower.size:
                clip(arrays.x, arrays.lower, arrays.upper)
            if settings.averaging:
                _average(arrays, p.step)
        if ends_epoch:
            _end_epoch(arrays, p, settings)

    return tell


@inline_jit
def _accumulate(arrays, p, count):
    """Add the gradient, weighted by its rows: k small batches then make the same step as one of k times the size."""
    weight = arrays.g.dtype.type(count)
    for i in range(arrays.g.size):
        arrays.g[i] += weight * arrays.g_eval[i]
    p.weight += count
    p.accumulated += 1


@inline_jit
def _take_mean(arrays, p):
    weight = arrays.g.dtype.type(p.weight)
    for i in range(arrays.g.size):
        arrays.g_eval[i] = arrays.g[i] / weight
        arrays.g[i] = 0
    p.weight = 0
    p.accumulated = 0
    p.gnorm = max_abs(arrays.g_eval)


@inline_jit
def _average(arrays, step):
    """Average the iterates with polynomial decay: late ones weigh more, and no window has to be chosen."""
    weight = arrays.x.dtype.type((AVERAGING_POWER + 1.0) / (step + AVERAGING_POWER))
    for i in range(arrays.x.size):
        arrays.x_avg[i] += weight * (arrays.x[i] - arrays.x_avg[i])


@inline_jit
def _end_epoch(arrays, p, settings):
    p.f = p.f_sum / p.rows
    arrays.epoch_fun[p.nit] = p.f
    p.f_sum = 0.0
    p.rows = 0
    p.batch = 0
    p.nit += 1
    if p.nit >= settings.epochs:
        p.status = _EPOCHS


@inline_jit
def norm_scale(g, p, settings):
    """Return the factor that reduces the 2-norm of g to ``clip_norm``: R. Pascanu et al., ICML 2013, algorithm 1."""
    if not settings.clip_norm < math.inf or p.gnorm == 0.0:
        return 1.0
    norm = p.gnorm * math.sqrt(_scaled_sum_of_squares(g, p.gnorm))
    return min(1.0, settings.clip_norm / norm)


@reduction_jit
def _scaled_sum_of_squares(g, largest):
    """Return the sum of (g/largest)**2, which cannot overflow."""
    total = 0.0
    for i in range(g.size):
        ratio = np.float64(g[i]) / largest
        total += ratio * ratio
    return total


def _layout(rule: Any, *_: int) -> Layout:
    """Return the vectors of a run with this variant of the rule, or with rule "auto"."""
    auto = rule == "auto"
    vectors = ["x", "x_eval", "g_eval", "x_best", "square_avg"]
    if auto:
        vectors += ["start", "inner_avg", "own_distance"]
    if auto or rule.centered:
        vectors += ["grad_avg"]
    if not auto and rule.momentum:
        vectors += ["momentum_buffer"]
    return Layout(MinibatchArrays, tuple(vectors), optional=("lower", "upper", "g", "x_avg", "scale"))


def _is_count_or_none(value: Any) -> bool:
    return value is None or is_count(value)


KIND = Kind(
    name="minibatch",
    parameters=(lambda rule: rule == "auto" or is_variant(rule), _is_count_or_none, _is_count_or_none),
    layout=_layout,
    ranges=lambda _rule, _rows, batches: {"status": {int(status) for status in Status}, "batch": range(batches or 1)},
    record=MINIBATCH_DTYPE,
)
"""The states of runs over mini-batches: the rule, the rows of the data, and the batches in an epoch, or None."""


def for_any_data(kind: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the kind of states that go on with any data."""
    return (*kind[:2], None, None)
