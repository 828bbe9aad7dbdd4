"""What the functions around a differentiated one use: making variables, reading values and derivatives."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.typing.templates import signature
from numba.extending import intrinsic, overload
from numba.np import arrayobj

from rmsprop_nb._numba.autodiff.dual import PLAIN, Dual, is_dual, join
from rmsprop_nb._numba.autodiff.refusals import refuse


@intrinsic
def cast_dual(typingctx: Any, x: Any, dtype: Any) -> Any:
    """Return a number as a dual number of the type that a dtype stands for."""
    dual = dtype.dtype

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return context.cast(builder, args[0], sig.args[0], dual)

    return dual(x, dtype), codegen


@intrinsic
def variable(typingctx: Any, value: Any, k: Any, dtype: Any) -> Any:
    """Return a dual number whose k-th partial derivative is 1 and the others 0; all are 0 if k is out of range."""
    dual = dtype.dtype

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        number = context.cast(builder, args[0], sig.args[0], dual.real)
        index = context.get_value_type(types.intp)
        vector = ir.VectorType(index, dual.width)
        places = ir.Constant(vector, [ir.Constant(index, j) for j in range(dual.width)])
        undefined = ir.Constant(vector, ir.Undefined)
        first = builder.insert_element(undefined, args[1], ir.Constant(ir.IntType(32), 0))
        mask = ir.Constant(ir.VectorType(ir.IntType(32), dual.width), None)
        chosen = builder.icmp_signed("==", places, builder.shuffle_vector(first, undefined, mask))
        return join(context, builder, dual, number, builder.uitofp(chosen, context.get_value_type(dual.partials)))

    return signature(dual, value, types.intp, dtype), codegen


@intrinsic
def stack_array(typingctx: Any, size: Any, dtype: Any) -> Any:
    """Return an array in the stack frame of the caller, with at most as many numbers as they have derivatives."""
    dual = dtype.dtype
    array_type = types.Array(dual, 1, "C")

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        in_memory = context.get_data_type(dual)
        itemsize = context.get_constant(types.intp, context.get_abi_sizeof(in_memory))
        data = cgutils.alloca_once(builder, in_memory, size=context.get_constant(types.intp, dual.width))
        array = arrayobj.make_array(array_type)(context, builder)
        arrayobj.populate_array(array, data=data, shape=[args[0]], strides=[itemsize], itemsize=itemsize, meminfo=None)
        return array._getvalue()

    return signature(array_type, types.intp, dtype), codegen


@intrinsic
def value_of(typingctx: Any, result: Any) -> Any:
    """Return the value of what a differentiated function returns."""
    if not isinstance(result, (Dual, *PLAIN.__args__)):
        refuse(f"it must return one real number, not {result}")

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        if not is_dual(result):
            return context.cast(builder, args[0], result, types.float64)
        return context.cast(builder, builder.extract_value(args[0], 0), result.real, types.float64)

    return types.float64(result), codegen


@intrinsic
def partial_of(typingctx: Any, result: Any, k: Any) -> Any:
    """Return one of the derivatives of a number; 0 if it has none."""
    real = result.real if isinstance(result, Dual) else types.float64

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        if not isinstance(result, Dual):
            return context.get_constant(types.float64, 0.0)
        index = builder.trunc(args[1], ir.IntType(32))
        return builder.extract_element(builder.extract_value(args[0], 1), index)

    return signature(real, result, types.intp), codegen


@intrinsic
def check_vector(typingctx: Any, array: Any) -> Any:
    """Refuse at compile time what is not an array with one dimension that can be written to."""
    if not (isinstance(array, types.Array) and array.ndim == 1):
        refuse(f"an array with one dimension is needed, not {array}")

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return context.get_dummy_value()

    return types.none(array), codegen


@intrinsic
def plain_of(typingctx: Any, number: Any) -> Any:
    """Return the value of a number without its derivatives, in its own type."""
    real = number.real if is_dual(number) else number

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.extract_value(args[0], 0) if is_dual(number) else args[0]

    return real(number), codegen


def empty_matrix(m, n, dtype):
    """Return a matrix for numbers of the type that dual numbers of a dtype have as values."""


@overload(empty_matrix)
def _empty_matrix(m, n, dtype):
    real = np.dtype(dtype.dtype.real.name)
    return lambda m, n, dtype: np.empty((m, n), real)
