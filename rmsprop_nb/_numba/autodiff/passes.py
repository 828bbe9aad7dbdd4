"""The loop over passes in forward mode, as LLVM code: Numba takes longer to type such a loop than most objectives."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.runtime.context import NRTContext
from numba.core.typing.templates import signature
from numba.extending import intrinsic
from numba.np import arrayobj

from rmsprop_nb._numba.autodiff.access import (
    check_result,
    check_vector_type,
    emit_partial,
    emit_stack_array,
    emit_value,
    emit_variable,
    type_of_partials,
)
from rmsprop_nb._numba.autodiff.refusals import refuse
from rmsprop_nb._numba.calls import folded_arguments

_ALIGNMENT = 32


@intrinsic
def gradient_in_passes(typingctx: Any, fun: Any, x: Any, grad: Any, args: Any, dtype: Any) -> Any:
    """Fill the gradient of ``fun(x, *args)``, and return its value.

    `dtype` stands for the type of dual numbers; there are as many variables in a pass as these have derivatives.
    """
    check_vector_type(grad)  # x was looked at before the function was compiled
    if not grad.mutable:
        refuse("the array for the gradient is read-only")
    dual = dtype.dtype
    variables = types.Array(dual, 1, "C")
    call = fun.get_call_type(typingctx, (variables, *args.types), {})
    check_result(call.return_type)

    def codegen(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        emit = _Passes(context, builder, dual, (x, values[1]), (grad, values[2]))
        emit.check_lengths()
        given = zip(cgutils.unpack_tuple(builder, values[3]), args.types, strict=True)
        made = emit.make_variables()
        folded = folded_arguments(context, builder, call, ((made, variables), *given))
        f = cgutils.alloca_once(builder, ir.DoubleType())
        with emit.passes() as (start, _):
            emit.set_variables(made, start)
            result = context.get_function(fun, call)(builder, folded)
            builder.store(emit_value(context, builder, call.return_type, result), f)
            emit.take_partials(call.return_type, result, start)
        emit.release(made)
        return builder.load(f)

    return signature(types.float64, fun, x, grad, args, dtype), codegen


class _Passes:
    """Emits the parts of the loop over passes."""

    def __init__(self, context: Any, builder: Any, dual: Any, x: tuple[Any, Any], grad: tuple[Any, Any]) -> None:
        self._context = context
        self._builder = builder
        self._dual = dual
        self._variables = types.Array(dual, 1, "C")
        self._x_type, self._grad_type = x[0], grad[0]
        self._x, self._grad = (arrayobj.make_array(ty)(context, builder, value) for ty, value in (x, grad))
        self._n = self._length(self._x)
        self._nrt = NRTContext(context, True)  # also where nothing else is counted

    def check_lengths(self) -> None:
        """Raise unless the gradient is as long as x."""
        differ = self._builder.icmp_signed("!=", self._n, self._length(self._grad))
        with cgutils.if_unlikely(self._builder, differ):
            message = "grad must have as many elements as x."
            self._context.call_conv.return_user_exc(self._builder, ValueError, (message,))

    def make_variables(self) -> Any:
        """Make the array of variables: in the stack frame if one pass takes them all, or else where it is released."""
        context, builder = self._context, self._builder
        made = cgutils.alloca_once_value(builder, emit_stack_array(context, builder, self._variables, self._n))
        with builder.if_then(builder.icmp_signed(">", self._n, self._constant(self._dual.width))):
            itemsize = self._constant(context.get_abi_sizeof(context.get_data_type(self._dual)))
            meminfo = self._nrt.meminfo_alloc_aligned(builder, builder.mul(self._n, itemsize), align=_ALIGNMENT)
            data = builder.bitcast(
                self._nrt.meminfo_data(builder, meminfo), context.get_data_type(self._dual).as_pointer()
            )
            array = arrayobj.make_array(self._variables)(context, builder)
            arrayobj.populate_array(array, data, [self._n], [itemsize], itemsize, meminfo)
            builder.store(array._getvalue(), made)
        return builder.load(made)

    def release(self, made: Any) -> None:
        """Release the array of variables."""
        self._nrt.decref(self._builder, self._variables, made)

    def passes(self) -> Any:
        """Return the loop over the first variables of the passes; there is one pass even without variables."""
        zero, one = self._constant(0), self._constant(1)
        end = self._builder.select(self._builder.icmp_signed(">", self._n, zero), self._n, one)
        return cgutils.for_range_slice(self._builder, zero, end, self._constant(self._dual.width))

    def set_variables(self, made: Any, start: Any) -> None:
        """Set all variables to the values in x, and the derivatives of those in the pass to 1 by themselves."""
        context, builder, x_type, dual = self._context, self._builder, self._x_type, self._dual
        variables = arrayobj.make_array(self._variables)(context, builder, made)
        with cgutils.for_range(builder, self._n) as loop:
            number = arrayobj.load_item(context, builder, x_type, self._place(x_type, self._x, loop.index))
            number = context.cast(builder, number, x_type.dtype, dual.real)
            value = emit_variable(context, builder, dual, number, builder.sub(loop.index, start))
            place = self._place(self._variables, variables, loop.index)
            arrayobj.store_item(context, builder, self._variables, value, place)

    def take_partials(self, ty: Any, result: Any, start: Any) -> None:
        """Put the derivatives of the result by the variables in the pass into the gradient."""
        context, builder, grad_type = self._context, self._builder, self._grad_type
        width, left = self._constant(self._dual.width), builder.sub(self._n, start)
        count = builder.select(builder.icmp_signed("<", width, left), width, left)
        with cgutils.for_range(builder, count) as loop:
            partial = emit_partial(context, builder, ty, result, loop.index)
            partial = context.cast(builder, partial, type_of_partials(ty), grad_type.dtype)
            place = self._place(grad_type, self._grad, builder.add(start, loop.index))
            arrayobj.store_item(context, builder, grad_type, partial, place)

    def _length(self, array: Any) -> Any:
        return self._builder.extract_value(array.shape, 0)

    def _place(self, ty: Any, array: Any, index: Any) -> Any:
        return cgutils.get_item_pointer(self._context, self._builder, ty, array, [index])

    def _constant(self, number: int) -> Any:
        return self._context.get_constant(types.intp, number)
