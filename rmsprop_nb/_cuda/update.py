"""The RMSprop update as CUDA kernels, around the same rule as on the CPU: for one array, and for many in one launch.

A thread takes 128 bits of every array at a time: all loads come before the first store, which might be to the same
memory for all that the compiler knows, and the index is unsigned, because a signed one is tested for wrapping around.
What is left over at the end, and arrays that do not begin at a multiple of 16 bytes, go element by element.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from rmsprop_nb._core.rule import make_rule, times
from rmsprop_nb._core.settings import Hyper, Variant
from rmsprop_nb._cuda.memory import element_access, real_of, several_access, width_of
from rmsprop_nb._cuda.native import SIMULATED, cuda, device_function, exact_times

BLOCK = 2 if SIMULATED else 256
"""Threads in a block; the simulator starts a thread of Python for each, and lets them wait for each other slowly."""

_MOST_BLOCKS = 132 * 8  # as many as the largest devices keep busy; each thread goes on to its next element

ADDRESSES = ("x", "g", "square_avg", "grad_avg", "momentum_buffer", "gradient_sum", "size")
"""What stands in a row of the table of addresses of `make_many_update`; 0 for what there is not."""

NUMBERS = ("rate", "correction", *Hyper._fields)
"""What stands in a row of its table of numbers."""


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

    def bound(x, g, s, m, b, rate, correction):
        numbers = Hyper(beta, one_minus_beta, eps, momentum, weight_decay)
        return rule(x, g, s, m, b, rate, correction, numbers, variant)

    return device_function(bound)


@functools.cache
def make_update(variant: Variant, formats: tuple[str, str], adjusts: bool, deterministic: bool) -> Any:
    """Make the kernel for one variant of the rule, and for parameters and gradients of these formats.

    ``kernel[blocks, threads](*addresses, n, rate, correction, scale, limit, *hyper)`` with the addresses of x, g and
    the averages of the state, uint64 like n; state that the variant does not use may be anywhere. If it `adjusts`
    gradients, they are multiplied by `scale` and then clipped to [-limit, limit].
    """
    span = _make_span(variant, formats, adjusts, deterministic)

    def update(x, g, s, m, b, n, rate, correction, scale, limit, beta, one_minus_beta, eps, mu, decay):
        numbers = rate, correction, scale, limit, Hyper(beta, one_minus_beta, eps, mu, decay)
        span((x, g, s, m, b), np.uint64(0), n, np.uint64(cuda.grid(1)), np.uint64(cuda.gridsize(1)), numbers)

    return cuda.jit(update)


@functools.cache
def make_many_update(variant: Variant, formats: tuple[str, str], adjusts: bool, deterministic: bool) -> Any:
    """Make the kernel that updates many arrays, a block of threads for each chunk of one.

    ``kernel[blocks, threads](chunks, first, length, addresses, numbers, scale, limit)``: block k takes ``chunks[first +
    k]``, which is the row of an array in the tables and which chunk of `length` elements of it; `length` is a multiple
    of 16.
    """
    span = _make_span(variant, formats, adjusts, deterministic)

    def update(chunks, first, length, addresses, numbers, scale, limit):
        chunk = first + np.uint64(cuda.blockIdx.x)
        row = chunks[chunk, 0]
        begin = np.uint64(chunks[chunk, 1]) * length
        end = min(begin + length, addresses[row, 6])
        a = addresses[row, 0], addresses[row, 1], addresses[row, 2], addresses[row, 3], addresses[row, 4]
        n = numbers[row]
        constants = n[0], n[1], scale, limit, Hyper(n[2], n[3], n[4], n[5], n[6])
        span(a, begin, end, np.uint64(cuda.threadIdx.x), np.uint64(cuda.blockDim.x), constants)

    return cuda.jit(update)


def launch_update(
    variant: Variant,
    formats: tuple[str, str],
    vectors: tuple[tuple[int, ...], int],
    numbers: tuple[float, float, float, float],
    hyper: Hyper,
    stream: Any,
    *,
    adjusts: bool = False,
    deterministic: bool = False,
) -> None:
    """Update one array: `vectors` are its addresses and its size, `numbers` those before hyper, in double precision."""
    addresses, size = vectors
    kernel = make_update(variant, formats, adjusts, deterministic)
    blocks = grid(-(-size // width_of(formats[0])))
    numbers = map(real_of(formats[0]).type, numbers)  # type: ignore[assignment]
    kernel[blocks, BLOCK, stream](*map(np.uint64, (*addresses, size)), *numbers, *hyper)


def _make_span(variant: Variant, formats: tuple[str, str], adjusts: bool, deterministic: bool) -> Any:
    """Function that updates elements `begin` to `end`, as one of `lanes` threads; `begin` is a multiple of 16."""
    one = _make_one(variant, adjusts, deterministic)
    element = _make_element(variant, formats, one)
    real, width = str(real_of(formats[0])), width_of(formats[0])
    several = _make_several(one, width)
    load_x, store_x = several_access(formats[0], width)
    load_g, _ = several_access(formats[1], width)
    load, store = several_access(real, width)
    centered, momentum = variant.centered, variant.momentum

    def span(addresses, begin, end, lane, lanes, numbers):
        x, g, s, m, b = addresses
        all_bits = x | g | s
        if centered:
            all_bits |= m
        if momentum:
            all_bits |= b
        if all_bits % np.uint64(16) == np.uint64(0):
            i, last = begin // np.uint64(width) + lane, end // np.uint64(width)
            while i < last:
                xs, gs, ss = load_x(x, i), load_g(g, i), load(s, i)
                ms = load(m, i) if centered else ss  # which the rule has no use for then
                bs = load(b, i) if momentum else ss
                xs, ss, ms, bs = several(xs, gs, ss, ms, bs, numbers)
                store_x(x, i, xs)
                store(s, i, ss)
                if centered:
                    store(m, i, ms)
                if momentum:
                    store(b, i, bs)
                i += lanes
            begin = max(begin, last * np.uint64(width))
        i = begin + lane
        while i < end:
            element(x, g, s, m, b, i, numbers)
            i += lanes

    return device_function(span)


def _make_one(variant: Variant, adjusts: bool, deterministic: bool) -> Any:
    rule = make_rule_function(deterministic)

    def one(x, g, s, m, b, numbers):
        rate, correction, scale, limit, hyper = numbers
        if adjusts:  # comparisons, because min and max could lose a NaN
            g = scale * g
            if g > limit:
                g = limit
            elif g < -limit:
                g = -limit
        return rule(x, g, s, m, b, rate, correction, hyper, variant)

    return device_function(one)


def _make_element(variant: Variant, formats: tuple[str, str], one: Any) -> Any:
    load_x, store_x = element_access(formats[0])
    load_g, _ = element_access(formats[1])
    load, store = element_access(str(real_of(formats[0])))

    def element(x, g, s, m, b, i, numbers):
        s_i = load(s, i)
        m_i = load(m, i) if variant.centered else s_i
        b_i = load(b, i) if variant.momentum else s_i
        x_i, s_i, m_i, b_i = one(load_x(x, i), load_g(g, i), s_i, m_i, b_i, numbers)
        store_x(x, i, x_i)
        store(s, i, s_i)
        if variant.centered:
            store(m, i, m_i)
        if variant.momentum:
            store(b, i, b_i)

    return device_function(element)


def _make_several(one: Any, width: int) -> Any:
    """The rule for as many elements as are loaded at a time; written out, so that they stay in registers."""

    def two(x, g, s, m, b, numbers):
        x0, s0, m0, b0 = one(x[0], g[0], s[0], m[0], b[0], numbers)
        x1, s1, m1, b1 = one(x[1], g[1], s[1], m[1], b[1], numbers)
        return (x0, x1), (s0, s1), (m0, m1), (b0, b1)

    return device_function(two) if width == 2 else _doubled(_make_several(one, width // 2), width // 2)


def _doubled(half: Any, n: int) -> Any:
    """What does the same to twice as many elements."""

    def whole(x, g, s, m, b, numbers):
        x0, s0, m0, b0 = half(x[:n], g[:n], s[:n], m[:n], b[:n], numbers)
        x1, s1, m1, b1 = half(x[n:], g[n:], s[n:], m[n:], b[n:], numbers)
        return x0 + x1, s0 + s1, m0 + m1, b0 + b1

    return device_function(whole)
