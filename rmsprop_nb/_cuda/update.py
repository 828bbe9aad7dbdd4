"""The RMSprop update as CUDA kernels, around the same rule as on the CPU: for one array, and for many in one launch.

A thread takes 128 bits of every array at a time: all loads come before the first store, which the compiler must assume
to write to the same memory, and the index is unsigned, because a signed one is tested for wrapping around. What is left
over at the end, and arrays that do not begin at a multiple of 16 bytes, go element by element.

Many arrays are found in tables, which have a row for each array and a column for each field of `ArrayRow` or
`NumberRow`. A third one has a row for each chunk of an array, which one block of threads takes.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import numpy as np

from rmsprop_nb._core.rule import make_rule, times
from rmsprop_nb._core.settings import Hyper, Variant
from rmsprop_nb._cuda.memory import element_access, real_of, several_access, width_of
from rmsprop_nb._cuda.native import SIMULATED, PreparedLaunch, cuda, device_function, exact_times

BLOCK = 2 if SIMULATED else 256
"""Threads in a block; the simulator starts a Python thread for each, and they wait for each other slowly."""


class Formats(NamedTuple):
    """The formats of numbers, see `rmsprop_nb._cuda.memory`, of parameters and of gradients."""

    params: str
    grads: str


class ArrayRow(NamedTuple):
    """Addresses of what belongs to an array, 0 for what it does not have, and its number of elements."""

    x: Any = 0
    g: Any = 0
    square_avg: Any = 0
    grad_avg: Any = 0
    momentum_buffer: Any = 0
    gradient_sum: Any = 0
    size: Any = 0


class NumberRow(NamedTuple):
    """The numbers of one array in one step."""

    rate: Any
    correction: Any
    beta: Any
    one_minus_beta: Any
    eps: Any
    momentum: Any
    weight_decay: Any


class ChunkRow(NamedTuple):
    """A chunk of an array: the row of the array in the other tables, and which of its chunks this is."""

    array: Any
    position: Any


# Which column of a table has which field; compiled into kernels as constants.
ADDRESSES = ArrayRow(*range(len(ArrayRow._fields)))
NUMBERS = NumberRow(*range(len(NumberRow._fields)))
CHUNKS = ChunkRow(*range(len(ChunkRow._fields)))


class Vectors(NamedTuple):
    """Addresses of the vectors that an update reads and writes, in a kernel."""

    x: Any
    g: Any
    square_avg: Any
    grad_avg: Any
    momentum_buffer: Any


class StepNumbers(NamedTuple):
    """The numbers of an update: gradients are multiplied by `scale`, then clipped to [-limit, limit]."""

    rate: Any
    correction: Any
    hyper: Hyper
    scale: Any = 1.0
    limit: Any = math.inf


def grid(count: int) -> int:
    """Return how many blocks to launch so that each of `count` threads works once.

    On an H200 that takes 0.93 of the time of as many blocks as are at work together, whose threads go on to the next
    elements: memory is read and written nearly in its order, and no block is late.
    """
    return max(1, -(-count // BLOCK))


@functools.cache
def make_rule_function(deterministic: bool) -> Any:
    """Make the rule for one element a device function; if `deterministic`, bit for bit that of the CPU."""
    product = exact_times if deterministic else device_function(times)
    return device_function(make_rule(product))


def make_bound_rule(variant: Variant, hyper: Hyper, deterministic: bool) -> Any:
    """Make ``rule(x, g, square_avg, grad_avg, momentum_buffer, rate, correction)``, which has its constants within."""
    rule = make_rule_function(deterministic)
    beta, one_minus_beta, eps, momentum, weight_decay = hyper

    def bound(x, g, s, m, b, rate, correction):
        constants = Hyper(beta, one_minus_beta, eps, momentum, weight_decay)
        return rule(x, g, s, m, b, rate, correction, constants, variant)

    return device_function(bound)


@functools.cache
def make_update(variant: Variant, formats: Formats, adjusts: bool, deterministic: bool) -> Any:
    """Make the kernel for one variant of the rule, and for parameters and gradients of these formats.

    ``kernel[blocks, threads](*vectors, size, *hyper, rate, correction, scale, limit)`` with the addresses of `Vectors`,
    uint64 like the size; those that the variant does not use may be any. Only if it `adjusts` gradients, they are
    multiplied by `scale` and then clipped to [-limit, limit].
    """
    span = _make_span(variant, formats, adjusts, deterministic)

    def update(x, g, s, m, b, size, beta, one_minus_beta, eps, momentum, weight_decay, rate, correction, scale, limit):
        hyper = Hyper(beta, one_minus_beta, eps, momentum, weight_decay)
        numbers = StepNumbers(rate, correction, hyper, scale, limit)
        thread, threads = np.uint64(cuda.grid(1)), np.uint64(cuda.gridsize(1))
        span(Vectors(x, g, s, m, b), np.uint64(0), size, thread, threads, numbers)

    return cuda.jit(update)


@functools.cache
def make_table_update(variant: Variant, formats: Formats, adjusts: bool, deterministic: bool) -> Any:
    """Make the kernel that updates the arrays of a table, each block of threads one chunk of an array.

    ``kernel[blocks, threads](chunks, first, length, addresses, numbers, scale, limit)``, where the first block takes
    chunk number `first`; chunks have `length` elements, a multiple of 16; `scale` and `limit` are as in `make_update`.
    """
    span = _make_span(variant, formats, adjusts, deterministic)

    def update(chunks, first, length, addresses, numbers, scale, limit):
        chunk = first + np.uint64(cuda.blockIdx.x)
        row = chunks[chunk, CHUNKS.array]
        begin = np.uint64(chunks[chunk, CHUNKS.position]) * length
        end = min(begin + length, addresses[row, ADDRESSES.size])
        vectors = Vectors(
            addresses[row, ADDRESSES.x],
            addresses[row, ADDRESSES.g],
            addresses[row, ADDRESSES.square_avg],
            addresses[row, ADDRESSES.grad_avg],
            addresses[row, ADDRESSES.momentum_buffer],
        )
        rate, correction = numbers[row, NUMBERS.rate], numbers[row, NUMBERS.correction]
        if rate == 0:  # nothing is done to this array in this step
            return
        hyper = Hyper(
            numbers[row, NUMBERS.beta],
            numbers[row, NUMBERS.one_minus_beta],
            numbers[row, NUMBERS.eps],
            numbers[row, NUMBERS.momentum],
            numbers[row, NUMBERS.weight_decay],
        )
        step = StepNumbers(rate, correction, hyper, scale, limit)
        span(vectors, begin, end, np.uint64(cuda.threadIdx.x), np.uint64(cuda.blockDim.x), step)

    return cuda.jit(update)


def prepare_update(
    variant: Variant,
    formats: Formats,
    array: ArrayRow,
    hyper: Hyper,
    stream: Any,
    *,
    adjusts: bool = False,
    deterministic: bool = False,
) -> PreparedLaunch:
    """Prepare updates of one array; what `adjusts` and `deterministic` mean is said at `make_update`.

    Before each launch ``set_last((rate, correction, scale, limit))`` has to give the numbers of the step.
    """
    kernel = make_update(variant, formats, adjusts, deterministic)
    blocks = grid(-(-array.size // width_of(formats.params)))
    vectors = array.x, array.g, array.square_avg, array.grad_avg, array.momentum_buffer
    numbers = (real_of(formats.params).type(0),) * 4
    return PreparedLaunch(kernel, blocks, BLOCK, stream, (*map(np.uint64, (*vectors, array.size)), *hyper, *numbers))


def _make_span(variant: Variant, formats: Formats, adjusts: bool, deterministic: bool) -> Any:
    """Make the function that updates elements `begin` to `end` as one of `threads`; `begin` is a multiple of 16."""
    one = _make_one(variant, adjusts, deterministic)
    element = _make_element(variant, formats, one)
    real, width = str(real_of(formats.params)), width_of(formats.params)
    several = _make_several(one, width)
    load_x, store_x = several_access(formats.params, width)
    load_g, _ = several_access(formats.grads, width)
    load, store = several_access(real, width)
    centered, momentum = variant.centered, variant.momentum

    def span(vectors, begin, end, thread, threads, numbers):
        x, g, s, m, b = vectors
        all_bits = x | g | s
        if centered:
            all_bits |= m
        if momentum:
            all_bits |= b
        if all_bits % np.uint64(16) == np.uint64(0):
            i, last = begin // np.uint64(width) + thread, end // np.uint64(width)
            while i < last:
                xs, gs, ss = load_x(x, i), load_g(g, i), load(s, i)
                ms = load(m, i) if centered else ss  # any values: without these options the rule does not use them
                bs = load(b, i) if momentum else ss
                xs, ss, ms, bs = several(xs, gs, ss, ms, bs, numbers)
                store_x(x, i, xs)
                store(s, i, ss)
                if centered:
                    store(m, i, ms)
                if momentum:
                    store(b, i, bs)
                i += threads
            begin = max(begin, last * np.uint64(width))
        i = begin + thread
        while i < end:
            element(x, g, s, m, b, i, numbers)
            i += threads

    return device_function(span)


def _make_one(variant: Variant, adjusts: bool, deterministic: bool) -> Any:
    """Make the function that updates one element, given and returned by value."""
    rule = make_rule_function(deterministic)

    def one(x, g, s, m, b, numbers):
        if adjusts:  # comparisons, because min and max could lose a NaN
            g = numbers.scale * g
            if g > numbers.limit:
                g = numbers.limit
            elif g < -numbers.limit:
                g = -numbers.limit
        return rule(x, g, s, m, b, numbers.rate, numbers.correction, numbers.hyper, variant)

    return device_function(one)


def _make_element(variant: Variant, formats: Formats, one: Any) -> Any:
    """Make the function that updates element i in memory."""
    load_x, store_x = element_access(formats.params)
    load_g, _ = element_access(formats.grads)
    load, store = element_access(str(real_of(formats.params)))

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
    """Make the rule for as many elements as are loaded at a time, written out so that they stay in registers."""

    def two(x, g, s, m, b, numbers):
        x0, s0, m0, b0 = one(x[0], g[0], s[0], m[0], b[0], numbers)
        x1, s1, m1, b1 = one(x[1], g[1], s[1], m[1], b[1], numbers)
        return (x0, x1), (s0, s1), (m0, m1), (b0, b1)

    return device_function(two) if width == 2 else _doubled(_make_several(one, width // 2), width // 2)


def _doubled(half: Any, n: int) -> Any:
    """Make the function that does to ``2 * n`` elements what `half` does to n."""

    def whole(x, g, s, m, b, numbers):
        x0, s0, m0, b0 = half(x[:n], g[:n], s[:n], m[:n], b[:n], numbers)
        x1, s1, m1, b1 = half(x[n:], g[n:], s[n:], m[n:], b[n:], numbers)
        return x0 + x1, s0 + s1, m0 + m1, b0 + b1

    return device_function(whole)
