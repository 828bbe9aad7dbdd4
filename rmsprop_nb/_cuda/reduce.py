"""Sums, the largest element and additions over many arrays, each in one launch of a CUDA kernel.

A block of threads takes a chunk of one array, as in `rmsprop_nb._cuda.update`; a reduction leaves one number for each
chunk, which does not have to be initialized and does not depend on the order of the blocks.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from rmsprop_nb._cuda.memory import element_access, real_of
from rmsprop_nb._cuda.native import cuda, device_function
from rmsprop_nb._cuda.update import ADDRESSES, BLOCK, CHUNKS
from rmsprop_nb._kernels.float_bits import magnitude_bits


@functools.cache
def make_largest(number_format: str) -> Any:
    """Make the kernel that finds the largest absolute value in each chunk of the gradients.

    ``kernel[blocks, BLOCK](chunks, length, addresses, found)`` sets ``found[chunk]`` to its bit pattern, an integer;
    the patterns of NaN are above all others.
    """
    zero = np.dtype(f"i{real_of(number_format).itemsize}").type(0)
    return _make_reduction(number_format, zero, magnitude_bits, max)


@functools.cache
def make_sum_of_squares(number_format: str, scale: float = 1.0) -> Any:
    """Make the kernel that sets ``found[chunk]``, float64, to the sum of the squares in each chunk of the gradients.

    Gradients are multiplied by `scale`, a constant of the kernel, before they are squared.
    """
    factor = np.float64(scale)

    def square(value):
        scaled = factor * np.float64(value)
        return scaled * scaled

    def plus(a, b):
        return a + b

    return _make_reduction(number_format, np.float64(0.0), device_function(square), device_function(plus))


def _make_reduction(number_format: str, zero: Any, take: Any, combine: Any) -> Any:
    """Make the kernel that combines ``take(element)`` of all elements of a chunk, beginning with `zero`."""
    load, _ = element_access(number_format)
    dtype = zero.dtype

    def reduction(chunks, length, addresses, found):
        partial = cuda.shared.array(BLOCK, dtype)
        chunk, thread = cuda.blockIdx.x, cuda.threadIdx.x
        row = chunks[chunk, CHUNKS.array]
        g, size = addresses[row, ADDRESSES.g], addresses[row, ADDRESSES.size]
        begin = np.uint64(chunks[chunk, CHUNKS.position]) * length
        i, end = begin + np.uint64(thread), min(begin + length, size)
        value = zero
        while i < end:
            value = combine(value, take(load(g, i)))
            i += np.uint64(BLOCK)
        partial[thread] = value
        cuda.syncthreads()
        half = BLOCK // 2
        while half > 0:  # a tree, always of the same form
            if thread < half:
                partial[thread] = combine(partial[thread], partial[thread + half])
            cuda.syncthreads()
            half //= 2
        if thread == 0:
            found[chunk] = partial[0]

    return cuda.jit(reduction)


@functools.cache
def make_add(number_format: str) -> Any:
    """Make the kernel that adds gradients to their sums: ``kernel[blocks, BLOCK](chunks, length, addresses)``."""
    load_g, _ = element_access(number_format)
    load, store = element_access(str(real_of(number_format)))

    def add(chunks, length, addresses):
        chunk = cuda.blockIdx.x
        row = chunks[chunk, CHUNKS.array]
        g, total = addresses[row, ADDRESSES.g], addresses[row, ADDRESSES.gradient_sum]
        begin = np.uint64(chunks[chunk, CHUNKS.position]) * length
        i, end = begin + np.uint64(cuda.threadIdx.x), min(begin + length, addresses[row, ADDRESSES.size])
        while i < end:
            store(total, i, load(total, i) + load_g(g, i))
            i += np.uint64(BLOCK)

    return cuda.jit(add)
