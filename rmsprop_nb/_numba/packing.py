"""Further arguments of an objective, packed into words by Python and read back by compiled code.

This module depends on Numba's internals.
"""

from __future__ import annotations

import functools
import itertools
from typing import Any

import numpy as np
from numba import typeof, types
from numba.core.errors import NumbaError
from numba.extending import intrinsic
from numba.np import arrayobj, numpy_support
from numpy.typing import NDArray

_WORD = 8


class Unpackable(TypeError):
    """Raised for an argument without a layout that compiled code can read without Python."""


@functools.lru_cache(maxsize=1024)
def _scalar_dtype(ty: Any) -> Any:
    """Return the dtype of a scalar type, None for other types; cached, because Numba takes long to find it."""
    scalar = isinstance(ty, types.Number | types.Boolean | types.NPDatetime | types.NPTimedelta)
    return numpy_support.as_dtype(ty) if scalar else None


def _is_constant(ty: Any) -> bool:
    """Return whether the type determines the value, as for None and for compiled functions."""
    return isinstance(ty, types.NoneType | types.Dispatcher)


@functools.lru_cache(maxsize=1024)
def _words(ty: Any) -> int:
    """Return the number of 8-byte words that a value of type `ty` takes."""
    if isinstance(ty, types.BaseTuple):
        return sum(map(_words, ty.types))
    if isinstance(ty, types.Array):
        return 2 + 2 * ty.ndim
    if (dtype := _scalar_dtype(ty)) is not None:
        return -(-dtype.itemsize // _WORD)
    if _is_constant(ty):
        return 0
    msg = f"values of Numba type {ty} cannot be packed"
    raise Unpackable(msg)


def pack(args: tuple[Any, ...]) -> tuple[NDArray[np.int64], list[Any], Any]:
    """Pack `args` for `load_args`.

    Arrays are packed as pointers, so that compiled code sees later changes of their contents.

    Returns
    -------
    words : ndarray of int64
        The packed values.
    references : list
        Objects that own the memory pointed to; keep them as long as the words are used.
    args_type : numba type
        The type for reading the values back.

    Raises
    ------
    Unpackable
        If Numba has no type for an argument, or the type is not a scalar, array, tuple, None or compiled function.
    """
    args_type = _type_of(args)
    words = np.zeros(max(_words(args_type), 1), np.int64)
    references: list[Any] = []
    _pack_into(words, args_type, args, references)
    return words, references, args_type


def _type_of(args: tuple[Any, ...]) -> Any:
    """Return Numba's type of `args`; it takes long to find, so it is remembered for similar args."""
    key = _type_key(args)
    found = _TYPES.get(key) if key is not None else None
    if found is not None:
        return found
    try:
        found = typeof(args)
    except (ValueError, NumbaError) as error:
        raise Unpackable(str(error)) from error
    if key is not None and len(_TYPES) < _MAX_TYPES:
        _TYPES[key] = found
    return found


_TYPES: dict[Any, Any] = {}

_MAX_TYPES = 1024


def _type_key(value: Any) -> Any:
    """Return a key that determines the type of a value, for the most common kinds of values; None for others."""
    if isinstance(value, tuple):
        keys = tuple(map(_type_key, value))
        return None if None in keys else (type(value), keys)
    if type(value) is np.ndarray and value.dtype.isbuiltin == 1:
        flags = value.flags
        return value.dtype.str, value.ndim, flags.c_contiguous, flags.f_contiguous, flags.aligned, flags.writeable
    return type(value) if type(value) in (float, bool, np.float64, np.float32) else None


def word_offsets(args_type: Any, start: int = 0) -> list[int]:
    """Return the offset in words of each item of a packed tuple, and of its end."""
    return list(itertools.accumulate(map(_words, args_type.types), initial=start))


def _pack_into(words: NDArray[np.int64], ty: Any, value: Any, references: list[Any]) -> None:
    if (dtype := _scalar_dtype(ty)) is not None:
        words.view(np.uint8)[: dtype.itemsize].view(dtype)[0] = value
    elif isinstance(ty, types.BaseTuple):
        start = 0
        for item_type, item in zip(ty.types, value, strict=True):
            stop = start + _words(item_type)
            _pack_into(words[start:stop], item_type, item, references)
            start = stop
    elif isinstance(ty, types.Array):
        words[:] = [value.itemsize, value.ctypes.data, *value.shape, *value.strides]
        references.append(value)
    else:
        references.append(value)


@intrinsic
def load_args(typingctx: Any, data: Any, args_type_ref: Any) -> Any:
    """Return the packed args at address `data` as a tuple."""
    args_type = args_type_ref.instance_type
    signature = args_type(data, args_type_ref)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _load(context, builder, args_type, args[0], 0)

    return signature, codegen


def _load(context: Any, builder: Any, ty: Any, base: Any, offset: int) -> Any:
    """Emit code that reads a value of type `ty` at `offset` words from `base`."""
    if isinstance(ty, types.BaseTuple):
        items = []
        for item_type in ty.types:
            items.append(_load(context, builder, item_type, base, offset))
            offset += _words(item_type)
        return context.make_tuple(builder, ty, items)
    if isinstance(ty, types.Array):
        return _load_array(context, builder, ty, base, offset)
    if _is_constant(ty):
        return context.get_dummy_value()
    model = context.data_model_manager[ty]
    return model.load_from_data_pointer(builder, _pointer(context, builder, base, offset, model.get_data_type()))


def _pointer(context: Any, builder: Any, base: Any, offset: int, llvm_type: Any) -> Any:
    address = builder.add(base, context.get_constant(types.intp, offset * _WORD))
    return builder.inttoptr(address, llvm_type.as_pointer())


def _load_array(context: Any, builder: Any, ty: Any, base: Any, offset: int) -> Any:
    intp = context.get_value_type(types.intp)
    words = [builder.load(_pointer(context, builder, base, offset + k, intp)) for k in range(2 + 2 * ty.ndim)]
    itemsize, address, *rest = words
    return borrowed_array(context, builder, ty, address, rest[: ty.ndim], rest[ty.ndim :], itemsize)


def borrowed_array(context: Any, builder: Any, ty: Any, address: Any, shape: Any, strides: Any, itemsize: Any) -> Any:
    """Build an array that does not own its memory: the caller holds the real array, no reference counts change."""
    array = arrayobj.make_array(ty)(context, builder)
    data = builder.inttoptr(address, context.get_data_type(ty.dtype).as_pointer())
    arrayobj.populate_array(array, data=data, shape=shape, strides=strides, itemsize=itemsize, meminfo=None)
    return array._getvalue()
