"""Products of constant matrices with recorded numbers: one record for each element of the result, with its row.

Such a record takes several places on the tape. The first ones hold the row; the last, which has the index of the
element, holds the negative length of the row, the index of the first number that it multiplies, and the distance to the
next one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core.typing.templates import signature
from numba.extending import intrinsic

from rmsprop_nb._numba.autodiff.dual import ON_TAPE, Dual
from rmsprop_nb._numba.autodiff.tape import HEADER_WORDS, RECORD_WORDS, factor_of, index_of, on_tape
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
    places = (row.size + RECORD_WORDS - 1) // RECORD_WORDS
    begin = words[0]
    last = begin + places
    words[0] = last + 1
    if last >= words[1]:
        return words[1] - 1  # the tape is full, and will be made again
    factors = words.view(np.float64)
    base = HEADER_WORDS + RECORD_WORDS * begin
    for j in range(row.size):
        factors[base + j] = row[j]
    end = HEADER_WORDS + RECORD_WORDS * last
    words[end] = -row.size
    words[end + 1] = first
    words[end + 2] = stride
    return last


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
def _first_index(words, numbers):
    """Return the index of the first of the numbers; they are recorded again unless they follow one another."""
    first = index_of(numbers.flat[0])
    follow = first != 0
    for k, number in enumerate(numbers.flat):
        if index_of(number) != first + k or factor_of(number) != 1.0:
            follow = False
            break
    if follow:
        return first
    first = words[0]
    for number in numbers.flat:
        _record_copy(words, index_of(number), factor_of(number))
    return first


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
