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

from rmsprop_nb._numba.autodiff.dual import PLAIN, Dual, is_dual, join, spread
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
        return emit_variable(context, builder, dual, number, args[1])

    return signature(dual, value, types.intp, dtype), codegen


def emit_variable(context: Any, builder: Any, dual: Any, number: Any, k: Any) -> Any:
    """Emit a dual number whose k-th partial derivative is 1 and the others 0; all are 0 if k is out of range."""
    index = context.get_value_type(types.intp)
    vector = ir.VectorType(index, dual.width)
    places = ir.Constant(vector, [ir.Constant(index, j) for j in range(dual.width)])
    chosen = builder.icmp_signed("==", places, spread(builder, k, vector))
    partials = context.get_value_type(dual.partials)
    ones = ir.Constant(partials, [ir.Constant(partials.element, 1.0)] * dual.width)
    return join(context, builder, dual, number, builder.select(chosen, ones, ir.Constant(partials, None)))


@intrinsic
def stack_array(typingctx: Any, size: Any, dtype: Any) -> Any:
    """Return an array in the stack frame of the caller, with at most as many numbers as they have derivatives."""
    dual = dtype.dtype
    array_type = types.Array(dual, 1, "C")

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return emit_stack_array(context, builder, array_type, args[0])

    return signature(array_type, types.intp, dtype), codegen


def emit_stack_array(context: Any, builder: Any, array_type: Any, size: Any) -> Any:
    """Emit an array of dual numbers in the stack frame, with room for as many as they have derivatives."""
    in_memory = context.get_data_type(array_type.dtype)
    itemsize = context.get_constant(types.intp, context.get_abi_sizeof(in_memory))
    data = cgutils.alloca_once(builder, in_memory, size=context.get_constant(types.intp, array_type.dtype.width))
    array = arrayobj.make_array(array_type)(context, builder)
    arrayobj.populate_array(array, data=data, shape=[size], strides=[itemsize], itemsize=itemsize, meminfo=None)
    return array._getvalue()


@intrinsic
def value_of(typingctx: Any, result: Any) -> Any:
    """Return the value of what a differentiated function returns."""
    check_result(result)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return emit_value(context, builder, result, args[0])

    return types.float64(result), codegen


def check_result(ty: Any) -> None:
    """Refuse a function that returns anything but one real number."""
    if not isinstance(ty, (Dual, *PLAIN.__args__)):
        refuse(f"it must return one real number, not {ty}")


def emit_value(context: Any, builder: Any, ty: Any, result: Any) -> Any:
    """Emit the value of what a differentiated function returns, as a float64."""
    if is_dual(ty):
        result, ty = builder.extract_value(result, 0), ty.real
    return context.cast(builder, result, ty, types.float64)


@intrinsic
def partial_of(typingctx: Any, result: Any, k: Any) -> Any:
    """Return one of the derivatives of a number; 0 if it has none."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return emit_partial(context, builder, result, *args)

    return signature(type_of_partials(result), result, types.intp), codegen


def type_of_partials(ty: Any) -> Any:
    """Return the type of the derivatives of a number."""
    return ty.real if isinstance(ty, Dual) else types.float64


def emit_partial(context: Any, builder: Any, ty: Any, result: Any, k: Any) -> Any:
    """Emit one of the derivatives of a number; 0 if it has none."""
    if not isinstance(ty, Dual):
        return context.get_constant(types.float64, 0.0)
    return builder.extract_element(builder.extract_value(result, 1), builder.trunc(k, ir.IntType(32)))


@intrinsic
def check_vector(typingctx: Any, array: Any) -> Any:
    """Refuse at compile time what is not an array with one dimension."""
    check_vector_type(array)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return context.get_dummy_value()

    return types.none(array), codegen


def check_vector_type(ty: Any) -> None:
    """Refuse a type that is not that of arrays with one dimension."""
    if not (isinstance(ty, types.Array) and ty.ndim == 1):
        refuse(f"an array with one dimension is needed, not {ty}")


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
