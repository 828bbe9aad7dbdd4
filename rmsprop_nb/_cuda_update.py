"""The RMSprop update as CUDA kernels, around the same rule as on the CPU.

A thread takes 128 bits of every array at a time: all loads come before the first store, which might be to the same
memory for all that the compiler knows, and the index is unsigned, because a signed one is tested for wrapping around.
What is left over at the end, and arrays that do not begin at a multiple of 16 bytes, go element by element.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numba import cuda

from rmsprop_nb._cuda_native import SIMULATED, WIDTH, address_of, device_function, exact_times, load_wide, store_wide
from rmsprop_nb._native import magnitude_bits
from rmsprop_nb._rule import make_rule, times
from rmsprop_nb._types import Hyper, Variant

__all__ = [
    "BLOCK",
    "add_to",
    "grid",
    "largest_bits",
    "launch_update",
    "make_bound_rule",
    "make_rule_function",
    "make_update",
    "sum_of_squares",
]

BLOCK = 8 if SIMULATED else 256
"""Threads in a block; the simulator starts a thread of Python for each."""

_MOST_BLOCKS = 132 * 8  # as many as the largest devices keep busy; each thread goes on to its next element


def grid(work: int) -> int:
    """Number of blocks for so many pieces of work."""
    return max(1, min(_MOST_BLOCKS, -(-work // BLOCK)))


@functools.cache
def make_rule_function(deterministic: bool) -> Any:
    """The rule for one element as a device function; bit for bit that of the CPU if it is to be deterministic."""
    product = exact_times if deterministic else device_function(times)
    return device_function(make_rule(product))


def make_bound_rule(variant: Variant, hyper: Hyper, deterministic: bool) -> Any:
    """The rule with its constants: ``rule(x, g, square_avg, grad_avg, momentum_buffer, rate, correction)``."""
    rule = make_rule_function(deterministic)
    beta, one_minus_beta, eps, momentum, weight_decay = hyper

    def bound(x, g, s, m, b, rate, correction):  # type: ignore[no-untyped-def]
        numbers = Hyper(beta, one_minus_beta, eps, momentum, weight_decay)
        return rule(x, g, s, m, b, rate, correction, numbers, variant)

    return device_function(bound)


@functools.cache
def make_update(variant: Variant, itemsize: int, wide: bool, adjusts: bool, deterministic: bool) -> Any:
    """Make the kernel for one variant of the rule and arrays of elements of so many bytes.

    ``kernel[blocks, threads](x, g, square_avg, grad_avg, momentum_buffer, rate, correction, scale, limit, *hyper)``,
    all of one dtype and length; state that the variant does not use may have size 0. If it is `wide`, every array
    begins at a multiple of 16 bytes. If it `adjusts` gradients, they are multiplied by `scale` and then clipped to
    [-limit, limit].
    """
    one = _make_one(variant, adjusts, deterministic)
    element = _make_element(variant, one)
    several = _make_several(one, WIDTH[itemsize])
    width, centered, momentum = WIDTH[itemsize], variant.centered, variant.momentum

    def update(x, g, s, m, b, rate, correction, scale, limit, beta, one_minus_beta, eps, mu, decay):  # type: ignore[no-untyped-def]
        numbers = rate, correction, scale, limit, Hyper(beta, one_minus_beta, eps, mu, decay)
        i, stride, n = np.uint64(cuda.grid(1)), np.uint64(cuda.gridsize(1)), np.uint64(x.size)
        done = np.uint64(0)
        if wide:
            chunks = n // np.uint64(width)
            while i < chunks:
                xs, gs, ss = load_wide(x, i), load_wide(g, i), load_wide(s, i)
                ms = load_wide(m, i) if centered else gs  # which the rule has no use for then
                bs = load_wide(b, i) if momentum else gs
                xs, ss, ms, bs = several(xs, gs, ss, ms, bs, numbers)
                store_wide(x, i, xs)
                store_wide(s, i, ss)
                if centered:
                    store_wide(m, i, ms)
                if momentum:
                    store_wide(b, i, bs)
                i += stride
            done = chunks * np.uint64(width)
        i = done + np.uint64(cuda.grid(1))
        while i < n:
            element(x, g, s, m, b, i, numbers)
            i += stride

    return cuda.jit(update)


def launch_update(
    variant: Variant,
    vectors: tuple[Any, ...],
    numbers: tuple[float, float, float, float],
    hyper: Hyper,
    stream: Any,
    *,
    adjusts: bool = False,
    deterministic: bool = False,
) -> None:
    """Update x with g: `vectors` and `numbers`, in double precision, are those of `make_update`."""
    x = vectors[0]
    itemsize = x.dtype.itemsize
    wide = all(address_of(a) % 16 == 0 for a in vectors if a.size)
    kernel = make_update(variant, itemsize, wide, adjusts, deterministic)
    blocks = grid(-(-x.size // WIDTH[itemsize]) if wide else x.size)
    kernel[blocks, BLOCK, stream](*vectors, *map(np.dtype(x.dtype).type, numbers), *hyper)


def _make_one(variant: Variant, adjusts: bool, deterministic: bool) -> Any:
    rule = make_rule_function(deterministic)

    def one(x, g, s, m, b, numbers):  # type: ignore[no-untyped-def]
        rate, correction, scale, limit, hyper = numbers
        if adjusts:  # comparisons, because min and max could lose a NaN
            g = scale * g
            if g > limit:
                g = limit
            elif g < -limit:
                g = -limit
        return rule(x, g, s, m, b, rate, correction, hyper, variant)

    return device_function(one)


def _make_element(variant: Variant, one: Any) -> Any:
    def element(x, g, s, m, b, i, numbers):  # type: ignore[no-untyped-def]
        zero = x.dtype.type(0)
        m_i = m[i] if variant.centered else zero
        b_i = b[i] if variant.momentum else zero
        x_i, s_i, m_i, b_i = one(x[i], g[i], s[i], m_i, b_i, numbers)
        x[i] = x_i
        s[i] = s_i
        if variant.centered:
            m[i] = m_i
        if variant.momentum:
            b[i] = b_i

    return device_function(element)


def _make_several(one: Any, width: int) -> Any:
    """The rule for as many elements as are loaded at a time; written out, so that they stay in registers."""

    def two(x, g, s, m, b, numbers):  # type: ignore[no-untyped-def]
        x0, s0, m0, b0 = one(x[0], g[0], s[0], m[0], b[0], numbers)
        x1, s1, m1, b1 = one(x[1], g[1], s[1], m[1], b[1], numbers)
        return (x0, x1), (s0, s1), (m0, m1), (b0, b1)

    def four(x, g, s, m, b, numbers):  # type: ignore[no-untyped-def]
        x0, s0, m0, b0 = one(x[0], g[0], s[0], m[0], b[0], numbers)
        x1, s1, m1, b1 = one(x[1], g[1], s[1], m[1], b[1], numbers)
        x2, s2, m2, b2 = one(x[2], g[2], s[2], m[2], b[2], numbers)
        x3, s3, m3, b3 = one(x[3], g[3], s[3], m[3], b[3], numbers)
        return (x0, x1, x2, x3), (s0, s1, s2, s3), (m0, m1, m2, m3), (b0, b1, b2, b3)

    return device_function(two if width == 2 else four)


@cuda.jit
def largest_bits(g, found):  # type: ignore[no-untyped-def]
    """Raise ``found[0]`` to the bit pattern of the largest absolute value; those of NaN are above all others."""
    i, stride, n = np.uint64(cuda.grid(1)), np.uint64(cuda.gridsize(1)), np.uint64(g.size)
    largest = magnitude_bits(g.dtype.type(0))
    while i < n:
        largest = max(largest, magnitude_bits(g[i]))
        i += stride
    cuda.atomic.max(found, 0, largest)


@cuda.jit
def add_to(total, g):  # type: ignore[no-untyped-def]
    """Add g to `total`, element by element."""
    i, stride, n = np.uint64(cuda.grid(1)), np.uint64(cuda.gridsize(1)), np.uint64(g.size)
    while i < n:
        total[i] += g[i]
        i += stride


@cuda.jit
def sum_of_squares(g, sums):  # type: ignore[no-untyped-def]
    """Set ``sums[t]``, float64, to the sum of the squares that thread t of all has seen."""
    i, stride, n = np.uint64(cuda.grid(1)), np.uint64(cuda.gridsize(1)), np.uint64(g.size)
    total = 0.0
    while i < n:
        total += np.float64(g[i]) * np.float64(g[i])
        i += stride
    sums[cuda.grid(1)] = total
