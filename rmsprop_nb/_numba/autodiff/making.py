"""Stand-ins for what makes arrays of numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from rmsprop_nb._numba.autodiff.dual import PLAIN, Dual, DualDType, is_dual, width_of
from rmsprop_nb._numba.autodiff.stand_ins import allocates, dtype_of, is_missing, stands_for


@intrinsic
def _dual_items(typingctx: Any, items: Any, dtype: Any) -> Any:
    """Return the numbers of a tuple, or those of the tuples in it, as dual ones."""
    dual = dtype.dtype

    def converted(ty: Any) -> Any:
        return types.UniTuple(converted(ty.types[0]), len(ty)) if isinstance(ty, types.BaseTuple) else dual

    def convert(context: Any, builder: Any, ty: Any, value: Any) -> Any:
        if not isinstance(ty, types.BaseTuple):
            return context.cast(builder, value, ty, dual)
        unpacked = zip(ty.types, cgutils.unpack_tuple(builder, value), strict=True)
        return context.make_tuple(builder, converted(ty), [convert(context, builder, *item) for item in unpacked])

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return convert(context, builder, items, args[0])

    return converted(items)(items, dtype), codegen


@stands_for(np.array, np.asarray)
def array(object, dtype=None):
    """Choose how to make an array; tuples and lists may hold dual and plain numbers, or rows of them."""
    if isinstance(object, types.Array) and is_dual(object):
        return lambda object, dtype=None: object.copy()
    numbers = _numbers_in(object)
    if not any(map(is_dual, numbers)):
        if is_missing(dtype):
            return lambda object, dtype=None: np.array(object)
        return lambda object, dtype=None: np.array(object, dtype)
    target = dtype_of(*numbers)
    if isinstance(object, types.BaseTuple) and all(isinstance(number, (Dual, *PLAIN.__args__)) for number in numbers):
        if isinstance(object.types[0], types.BaseTuple):
            return lambda object, dtype=None: _rows(_dual_items(object, target), target)
        return lambda object, dtype=None: _numbers(_dual_items(object, target), target)
    if isinstance(object.dtype, Dual):
        return lambda object, dtype=None: _numbers(object, target)
    return lambda object, dtype=None: _rows(object, target)


def _numbers_in(ty: Any) -> tuple[Any, ...]:
    """Return the types of the numbers in nested tuples and lists."""
    if isinstance(ty, types.BaseTuple):
        return tuple(number for item in ty.types for number in _numbers_in(item))
    return _numbers_in(ty.dtype) if isinstance(ty, types.Sequence) else (ty,)


@stands_for()
def _numbers(items, dtype):
    def impl(items, dtype):
        out = np.empty(len(items), dtype)
        for i in range(len(items)):
            out[i] = items[i]
        return out

    return impl


@stands_for()
def _rows(rows, dtype):
    def impl(rows, dtype):
        out = np.empty((len(rows), len(rows[0])), dtype)
        for i in range(len(rows)):
            for j in range(len(rows[0])):
                out[i, j] = rows[i][j]
        return out

    return impl


@stands_for(np.full)
def _full(shape, fill_value, dtype=None):
    if isinstance(fill_value, Dual) and is_missing(dtype):
        target = dtype_of(fill_value)

        def full(shape, fill_value, dtype=None):
            out = np.empty(shape, target)
            out[...] = fill_value
            return out

        return full
    if is_missing(dtype):
        return lambda shape, fill_value, dtype=None: np.full(shape, fill_value)
    return lambda shape, fill_value, dtype=None: np.full(shape, fill_value, dtype)


@stands_for(np.linspace)
def _linspace(start, stop, num=50):
    if not width_of((start, stop)):
        return lambda start, stop, num=50: np.linspace(start, stop, num)

    def linspace(start, stop, num=50):
        step = (stop - start) / (num - 1) if num > 1 else stop - start
        return np.arange(num) * step + start

    return linspace


def _dual_dtype(marker: Any, dtype: Any) -> Any:
    """Return the dtype to allocate in the place of one that a function asks for, None to leave it."""
    if is_missing(dtype):
        return DualDType(marker.dtype.of(types.float64))
    real = getattr(dtype, "dtype", None) or getattr(dtype, "instance_type", None)
    real = types.float64 if isinstance(dtype, types.Function) and dtype.typing_key is float else real
    if isinstance(real, types.Float):
        return DualDType(marker.dtype.of(real))
    return None


def _allocator_of_shape(function: Any) -> None:
    @allocates(function)
    def allocate(marker, shape, dtype=None):
        target = _dual_dtype(marker, dtype)
        if target is not None:
            return lambda marker, shape, dtype=None: function(shape, target)
        return lambda marker, shape, dtype=None: function(shape, dtype)


def _allocator_like(function: Any, of_shape: Any) -> None:
    @allocates(function)
    def allocate(marker, a, dtype=None):
        chosen = a if is_missing(dtype) else dtype
        target = _dual_dtype(marker, chosen)
        if is_dual(a) or target is None:
            if is_missing(dtype):
                return lambda marker, a, dtype=None: function(a)
            return lambda marker, a, dtype=None: function(a, dtype)
        return lambda marker, a, dtype=None: of_shape(a.shape, target)


for _function, _like in ((np.zeros, np.zeros_like), (np.empty, np.empty_like), (np.ones, np.ones_like)):
    _allocator_of_shape(_function)
    _allocator_like(_like, _function)


@allocates(np.eye)
def _eye(marker, N, M=None):
    columns = is_missing(M)
    target: Any = DualDType(marker.dtype.of(types.float64))

    def eye(marker, N, M=None):
        out = np.zeros((N, N if columns else M), target)
        for i in range(min(out.shape)):
            out[i, i] = 1.0
        return out

    return eye


@allocates(np.identity)
def _identity(marker, n):
    return lambda marker, n: _eye(marker, n)


@allocates(np.full)
def _full_of_duals(marker, shape, fill_value, dtype=None):
    if isinstance(types.unliteral(fill_value), types.Integer) and is_missing(dtype):
        return lambda marker, shape, fill_value, dtype=None: np.full(shape, fill_value)
    target = _dual_dtype(marker, dtype)
    if target is None:
        return lambda marker, shape, fill_value, dtype=None: np.full(shape, fill_value, dtype)

    def full(marker, shape, fill_value, dtype=None):
        out = np.empty(shape, target)
        out[...] = fill_value
        return out

    return full
