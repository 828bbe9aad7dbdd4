"""Depends on the inside of numba-cuda: memory of a device by address, 128 bits at a time, and half precision in it.

Kernels take addresses rather than arrays, because one launch for many arrays finds them in a table. Numbers of half
precision become float32 as soon as they are loaded; storing rounds to nearest, ties to even.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from rmsprop_nb._cuda.native import COMPILES, device_function

ITEMSIZE = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}
"""Bytes of a number in each format that parameters and gradients may have."""

_WORDS = {8: "float64", 4: "float32", 2: "uint32"}  # what 128 bits are made of, by the size of a number


class Access(NamedTuple):
    """Device functions ``load(address, i)`` and ``store(address, i, value)``: read and write at position i."""

    load: Any
    store: Any


def format_of(dtype: Any) -> str | None:
    """Return the format of numbers of this dtype, None if the kernels have none; two bytes of no type are bfloat16.

    That is how ml_dtypes and PyTorch describe them to others, because NumPy has no such number.
    """
    name = "bfloat16" if dtype.str[1:] == "V2" and dtype.names is None else dtype.name
    return name if name in ITEMSIZE and dtype.isnative else None


def real_of(number_format: str) -> np.dtype[Any]:
    """Return the dtype in which numbers of a format are computed with."""
    return np.dtype(np.float64 if number_format == "float64" else np.float32)


def width_of(number_format: str) -> int:
    """Return how many numbers of a format there are in 128 bits."""
    return 16 // ITEMSIZE[number_format]


if not COMPILES:

    def _words_access(word: str, count: int) -> Access:
        dtype = np.dtype(word)

        def words(address: Any, j: Any) -> Any:
            size = count * dtype.itemsize
            memory = (ctypes.c_char * size).from_address(int(address) + int(j) * size)
            return np.frombuffer(memory, dtype)  # type: ignore[call-overload]

        def load(address: Any, j: Any) -> Any:
            found = words(address, j).copy()
            return found[0] if count == 1 else tuple(found)

        def store(address: Any, j: Any, values: Any) -> None:
            words(address, j)[:] = values

        return Access(load, store)

    def _from_float16(bits: Any) -> Any:
        return np.float32(np.uint16(bits).view(np.float16))

    def _to_float16(value: Any) -> Any:
        with np.errstate(over="ignore"):
            return np.uint32(np.float16(value).view(np.uint16))

    def _float_of_bits(bits: Any) -> Any:
        return np.uint32(bits).view(np.float32)

    def _bits_of_float(value: Any) -> Any:
        return np.float32(value).view(np.uint32)

else:
    from llvmlite import ir
    from numba.cuda import cgutils, types
    from numba.cuda.extending import intrinsic

    _GLOBAL = 1  # the address space
    _LANE = ir.IntType(32)
    _LLVM = {"float64": ir.DoubleType(), "float32": ir.FloatType(), "uint32": ir.IntType(32), "uint16": ir.IntType(16)}

    def _words_access(word: str, count: int) -> Access:
        """Make the functions that read and write `count` words at once, from word number ``count * j`` on."""
        one, whole = getattr(types, word), ir.VectorType(_LLVM[word], count) if count > 1 else _LLVM[word]
        several = types.UniTuple(one, count) if count > 1 else one
        align = count * one.bitwidth // 8

        def pointer(builder: Any, address: Any, j: Any) -> Any:
            return builder.gep(builder.inttoptr(address, ir.PointerType(whole, _GLOBAL)), [j])

        @intrinsic
        def load(typingctx: Any, address: Any, j: Any) -> Any:  # noqa: ARG001
            def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
                value = builder.load(pointer(builder, *args), align=align)
                if count == 1:
                    return value
                items = [builder.extract_element(value, ir.Constant(_LANE, k)) for k in range(count)]
                return context.make_tuple(builder, sig.return_type, items)

            return several(types.uint64, types.uint64), codegen

        @intrinsic
        def store(typingctx: Any, address: Any, j: Any, values: Any) -> Any:  # noqa: ARG001
            def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:  # noqa: ARG001
                value = args[2] if count == 1 else ir.Constant(whole, ir.Undefined)
                for k, item in enumerate(cgutils.unpack_tuple(builder, args[2], count) if count > 1 else ()):
                    value = builder.insert_element(value, item, ir.Constant(_LANE, k))
                builder.store(value, pointer(builder, args[0], args[1]), align=align)
                return context.get_dummy_value()

            return types.void(types.uint64, types.uint64, several), codegen

        return Access(load, store)

    def _unary(result: Any, argument: Any, build: Callable[[Any, Any], Any]) -> Any:
        """Make a device function of one number, whose instructions `build` makes."""

        @intrinsic
        def function(typingctx: Any, value: Any) -> Any:  # noqa: ARG001
            return result(argument), lambda context, builder, sig, args: build(builder, args[0])  # noqa: ARG005

        return function

    def _assembly(instruction: str, result: Any, argument: Any, constraints: str) -> Callable[[Any, Any], Any]:
        """Return what builds a call of one instruction of PTX."""
        code = ir.InlineAsm(ir.FunctionType(result, [argument]), f"{instruction} $0, $1;", constraints)
        return lambda builder, value: builder.call(code, [value])

    _half, _float, _int = ir.IntType(16), ir.FloatType(), ir.IntType(32)
    _expand = _assembly("cvt.f32.f16", _float, _half, "=f,h")
    _shrink = _assembly("cvt.rn.f16.f32", _half, _float, "=h,f")
    _from_float16 = _unary(types.float32, types.uint32, lambda b, value: _expand(b, b.trunc(value, _half)))
    _to_float16 = _unary(types.uint32, types.float32, lambda b, value: b.zext(_shrink(b, value), _int))
    _float_of_bits = _unary(types.float32, types.uint32, lambda b, value: b.bitcast(value, _float))
    _bits_of_float = _unary(types.uint32, types.float32, lambda b, value: b.bitcast(value, _int))


def _from_bfloat16(bits: Any) -> Any:
    return _float_of_bits(np.uint32(bits << np.uint32(16)))


def _to_bfloat16(value: Any) -> Any:
    bits = _bits_of_float(value)
    high = np.uint32(bits >> np.uint32(16))
    if value != value:  # noqa: PLR0124 - math.isnan takes more instructions
        return np.uint32(high | np.uint32(0x40))  # quiet, and not rounded to infinity
    return np.uint32(np.uint32(bits + np.uint32(0x7FFF) + (high & np.uint32(1))) >> np.uint32(16))


class _Conversion(NamedTuple):
    """Device functions from the 16 bits of a number to float32, and back."""

    expand: Any
    shrink: Any


def _conversion_of(number_format: str) -> _Conversion:
    if number_format == "float16":
        return _Conversion(_from_float16, _to_float16)
    return _Conversion(device_function(_from_bfloat16), device_function(_to_bfloat16))


@functools.cache
def element_access(number_format: str) -> Access:
    """Make the functions that read and write a single number."""
    if ITEMSIZE[number_format] > 2:
        return _words_access(number_format, 1)
    load_bits, store_bits = _words_access("uint16", 1)
    expand, shrink = _conversion_of(number_format)

    def load(address: Any, i: Any) -> Any:
        return expand(np.uint32(load_bits(address, i)))

    def store(address: Any, i: Any, value: Any) -> None:
        store_bits(address, i, np.uint16(shrink(value)))

    return Access(device_function(load), device_function(store))


@functools.cache
def several_access(number_format: str, count: int) -> Access:
    """Make the functions that read and write `count` numbers at a time: position j is where number ``count * j`` is.

    The address is a multiple of 16; `count` is as many as there are in 128 bits, or twice as many.
    """
    itemsize = ITEMSIZE[number_format]
    load_one, store_one = _words_access(_WORDS[itemsize], 16 // max(itemsize, 4))
    if itemsize == 2:
        return _unpacked(load_one, store_one, *_conversion_of(number_format))
    if count == width_of(number_format):
        return Access(load_one, store_one)

    def load(address: Any, j: Any) -> Any:
        first = j + j
        return load_one(address, first) + load_one(address, first + np.uint64(1))

    def store(address: Any, j: Any, values: Any) -> None:
        first = j + j
        store_one(address, first, values[:4])
        store_one(address, first + np.uint64(1), values[4:])

    return Access(device_function(load), device_function(store))


def _unpacked(load_words: Any, store_words: Any, expand: Any, shrink: Any) -> Access:
    """Make the functions that read and write eight numbers of half precision in four words."""

    def two(word: Any) -> Any:
        return expand(np.uint32(word & np.uint32(0xFFFF))), expand(np.uint32(word >> np.uint32(16)))

    def word_of(low: Any, high: Any) -> Any:
        return np.uint32(shrink(low) | np.uint32(shrink(high) << np.uint32(16)))

    two, word_of = device_function(two), device_function(word_of)

    def load(address: Any, j: Any) -> Any:
        w = load_words(address, j)
        return two(w[0]) + two(w[1]) + two(w[2]) + two(w[3])

    def store(address: Any, j: Any, v: Any) -> None:
        words = word_of(v[0], v[1]), word_of(v[2], v[3]), word_of(v[4], v[5]), word_of(v[6], v[7])
        store_words(address, j, words)

    return Access(device_function(load), device_function(store))
