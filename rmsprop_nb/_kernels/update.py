"""Loops over arrays on the CPU: the RMSprop update and its bias correction.

Every function trusts its arguments: shapes, dtypes and aliasing have been checked before.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numba import prange

from rmsprop_nb._core.rule import make_rule, times
from rmsprop_nb._core.settings import Hyper, Variant
from rmsprop_nb._numba.decorators import inline_jit, kernel_jit, pinned_jit

PARALLEL_MIN_SIZE = 100_000
"""Number of parameters below which waking threads costs more than they save."""

_rule = inline_jit(make_rule(inline_jit(times)))


@inline_jit
def update(x, g, square_avg, grad_avg, momentum_buffer, rate, correction, hyper, variant, rates, scale, limit):
    """Apply the rule to every element, in place. State that `variant` does not use may have size 0.

    `rates` multiplies the rate of each element. The gradient is multiplied by `scale` and then clipped to
    [-limit, limit]. Each of these three may be None, and then costs nothing, because its branch is removed before
    compilation.
    """
    rate = x.dtype.type(rate)
    correction = x.dtype.type(correction)
    m = x.dtype.type(0)
    b = x.dtype.type(0)
    for i in range(x.size):
        if variant.centered:
            m = grad_avg[i]
        if variant.momentum:
            b = momentum_buffer[i]
        g_i = g[i]
        if scale is not None:
            g_i = x.dtype.type(scale) * g_i
        if limit is not None:  # by comparisons, because min and max could lose a NaN
            bound = x.dtype.type(limit)
            if g_i > bound:
                g_i = bound
            elif g_i < -bound:
                g_i = -bound
        r = rate
        if rates is not None:
            r = rate * rates[i]
        x[i], square_avg[i], m, b = _rule(x[i], g_i, square_avg[i], m, b, r, correction, hyper, variant)
        if variant.centered:
            grad_avg[i] = m
        if variant.momentum:
            momentum_buffer[i] = b


@inline_jit
def _slice_or_none(rates, part):
    """Return a slice of an array, or None for None."""
    return None if rates is None else rates[part]


@inline_jit
def _hyper(numbers):
    """Return a Hyper from a Hyper or an array of its numbers: passing an array from Python is a microsecond faster."""
    return Hyper(numbers[0], numbers[1], numbers[2], numbers[3], numbers[4])


@functools.cache
def make_update(variant: Variant) -> Any:
    """Compile the update for one variant of the rule.

    Returns
    -------
    kernel : callable
        ``kernel(x, g, square_avg, grad_avg, momentum_buffer, rate, correction, hyper, pieces, rates, scale, limit)``,
        which changes the arrays in place. All arrays have one dtype and length. `hyper` may also be an array of its
        numbers, `pieces` is not used, and the last three are None by default (see `update`).
    """

    @kernel_jit("update", variant)
    def serial_update(
        x, g, square_avg, grad_avg, momentum_buffer, rate, correction, hyper, pieces, rates=None, scale=None, limit=None  # noqa: ARG001
    ):  # fmt: skip
        update(
            x, g, square_avg, grad_avg, momentum_buffer, rate, correction, _hyper(hyper), variant, rates, scale, limit
        )

    return serial_update


@functools.cache
def make_parallel_update(variant: Variant) -> Any:
    """Compile the update for several threads, which work on `pieces` pieces; the result is the same."""

    @kernel_jit("parallel update", variant, parallel=True)
    def parallel_update(
        x, g, square_avg, grad_avg, momentum_buffer, rate, correction, hyper, pieces, rates=None, scale=None, limit=None
    ):
        size = -(-x.size // pieces)
        for piece in prange(pieces):
            start = np.int64(piece) * size  # prange counts in uint64, which would prevent vectorisation
            part = slice(start, min(start + size, x.size))
            update(
                x[part], g[part], square_avg[part], grad_avg[part], momentum_buffer[part],
                rate, correction, _hyper(hyper), variant, _slice_or_none(rates, part), scale, limit,
            )  # fmt: skip

    return parallel_update


@pinned_jit
def bias(beta, step):
    """Return the divisor of bias correction; Numba computes the power, whose last digit may differ from Python's."""
    return 1.0 - np.float64(beta) ** step


@kernel_jit("bias correction")
def bias_after(beta, step):
    """Return `bias`; for calls from Python."""
    return bias(beta, step)
