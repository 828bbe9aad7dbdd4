"""Records of many terms: products of constant matrices with recorded numbers, a record for each element, and sums.

Such a record takes several places on the tape. The first ones hold the factors; the last, which has the index of the
result, holds the negative number of terms, the index of the first number, and the distance to the next one. Two
distances have other meanings (ANY_INDICES, NO_FACTORS).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core.typing.templates import signature
from numba.extending import intrinsic

from rmsprop_nb._numba.autodiff.access import cast_dual, plain_of
from rmsprop_nb._numba.autodiff.dual import ON_TAPE, Dual
from rmsprop_nb._numba.autodiff.tape import (
    ANY_INDICES,
    HEADER_WORDS,
    NO_FACTORS,
    RECORD_WORDS,
    factor_of,
    index_of,
    on_tape,
    places_of,
)
from rmsprop_nb._numba.decorators import user_jit
from rmsprop_nb._numba.packing import borrowed_array

_WORD = ir.IntType(64)


def multiplies(a: Any, b: Any) -> bool:
    """Return whether a product is one of a constant vector or matrix with a recorded one, in the same precision."""
    return (
        isinstance(b, types.Array)
        and isinstance(b.dtype, Dual)
        and b.dtype.width == ON_TAPE
        and isinstance(a, types.Array)
        and a.dtype == b.dtype.real
        and a.layout in "CF"
        and b.layout == "C"
    )


@intrinsic
def tape_of(typingctx: Any, number: Any) -> Any:
    """Return the address of the tape of a number, 0 if it is a constant."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.extract_value(args[0], (1, 1))

    return types.intp(number), codegen


@intrinsic
def words_of(typingctx: Any, address: Any) -> Any:
    """Return the tape at an address as an array."""
    array_type = types.Array(types.int64, 1, "C")

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        head = builder.inttoptr(args[0], _WORD.as_pointer())
        room = builder.load(builder.gep(head, [ir.Constant(_WORD, 1)]))
        size = builder.add(builder.mul(room, ir.Constant(_WORD, RECORD_WORDS)), ir.Constant(_WORD, HEADER_WORDS))
        itemsize = ir.Constant(_WORD, 8)
        return borrowed_array(context, builder, array_type, args[0], [size], [itemsize], itemsize)

    return signature(array_type, types.intp), codegen


@user_jit
def _record_row(words, row, first, stride):
    """Record the product of a row with numbers at equal distances; return its index."""
    base, last = _begin(words, row.size, first, stride)
    if base:
        _copy(row, words[base : base + row.size].view(np.float64))
    return last


@user_jit
def _copy(row, factors):
    """Copy a row; by itself, so that it is compiled to instructions for many elements."""
    for j in range(factors.size):
        factors[j] = row[j]


@user_jit
def _record_sum(words, numbers):
    """Record the sum of numbers; return its index."""
    first = _first_of_sequence(numbers)
    if first:
        _, last = _begin(words, numbers.size, first, NO_FACTORS)
        return last
    base, last = _begin(words, numbers.size, 0, ANY_INDICES)
    if base:
        factors, indices = words.view(np.float64), words.view(np.int32)
        for j, number in enumerate(numbers.flat):
            factors[base + j] = factor_of(number)
            indices[2 * (base + numbers.size) + j] = index_of(number)
    return last


@user_jit
def _begin(words, size, first, stride):
    """Make a record of many terms; return the first word for them, 0 if the tape is full, and the index."""
    begin = words[0]
    last = begin + places_of(size, stride)
    words[0] = last + 1
    if last >= words[1]:
        return 0, words[1] - 1  # the tape will be made again
    end = HEADER_WORDS + RECORD_WORDS * last
    words[end] = -size
    words[end + 1] = first
    words[end + 2] = stride
    return HEADER_WORDS + RECORD_WORDS * begin, last


@user_jit
def _record_copy(words, index, factor):
    """Record a multiple of a number; return the index of the multiple."""
    place = words[0]
    words[0] = place + 1
    if place >= words[1]:
        return words[1] - 1
    base = HEADER_WORDS + RECORD_WORDS * place
    words[base] = index
    factors = words.view(np.float64)
    factors[base + 1] = factor
    factors[base + 2] = 0.0
    return place


@user_jit
def _tape(numbers):
    for number in numbers.flat:
        if index_of(number) != 0:
            return tape_of(number)
    return 0


@user_jit
def _first_of_sequence(numbers):
    """Return the index of the first of the numbers if they follow one another, 0 if they do not."""
    first = index_of(numbers.flat[0])
    if first == 0:
        return 0
    for k, number in enumerate(numbers.flat):
        if index_of(number) != first + k or factor_of(number) != 1.0:
            return 0
    return first


@user_jit
def _first_index(words, numbers):
    """Return the index of the first of the numbers; they are recorded again unless they follow one another."""
    first = _first_of_sequence(numbers)
    if first:
        return first
    first = words[0]
    for number in numbers.flat:
        _record_copy(words, index_of(number), factor_of(number))
    return first


def sum_of(dtype: Any) -> Any:
    """Return the implementation of a sum."""

    def impl(a):
        value = plain_of(cast_dual(0.0, dtype))
        for number in a.flat:
            value += plain_of(number)
        tape = _tape(a)
        if tape == 0:
            return on_tape(value, 0, 0, dtype)
        return on_tape(value, _record_sum(words_of(tape), a), tape, dtype)

    return impl


def product_of(ndims: tuple[int, int], dtype: Any, read: Any) -> Any:
    """Return the implementation of a product of a constant with a recorded factor of these dimensions."""
    return {(1, 1): _vector_vector, (2, 1): _matrix_vector, (2, 2): _matrix_matrix}[ndims](dtype, read)


def _vector_vector(dtype: Any, read: Any) -> Any:
    def impl(a, b):
        if a.size != b.size:
            raise ValueError("the factors of a product have different sizes")
        value = np.dot(a, read(b))
        tape = _tape(b)
        if tape == 0:
            return on_tape(value, 0, 0, dtype)
        words = words_of(tape)
        return on_tape(value, _record_row(words, a, _first_index(words, b), 1), tape, dtype)

    return impl


def _matrix_vector(dtype: Any, read: Any) -> Any:
    def impl(a, b):
        if a.shape[1] != b.size:
            raise ValueError("the factors of a product have different inner dimensions")
        result = np.dot(a, read(b))
        out = np.empty(a.shape[0], dtype)
        tape = _tape(b)
        if tape == 0:
            for i in range(out.size):
                out[i] = on_tape(result[i], 0, 0, dtype)
            return out
        words = words_of(tape)
        first = _first_index(words, b)
        for i in range(out.size):
            out[i] = on_tape(result[i], _record_row(words, a[i], first, 1), tape, dtype)
        return out

    return impl


def _matrix_matrix(dtype: Any, read: Any) -> Any:
    def impl(a, b):
        if a.shape[1] != b.shape[0]:
            raise ValueError("the factors of a product have different inner dimensions")
        result = np.dot(a, read(b))
        out = np.empty(result.shape, dtype)
        tape = _tape(b)
        if tape == 0:
            for i, j in np.ndindex(out.shape):
                out[i, j] = on_tape(result[i, j], 0, 0, dtype)
            return out
        words = words_of(tape)
        first = _first_index(words, b)
        for i, j in np.ndindex(out.shape):
            out[i, j] = on_tape(result[i, j], _record_row(words, a[i], first + j, b.shape[1]), tape, dtype)
        return out

    return impl
