"""Exact gradients of objectives on a device: passes of dual numbers over the objective, as on the CPU.

It relies on the inside of numba-cuda as `native` does: the types of operations with dual numbers are registered for the
device, which finds the code for them where the CPU does.
"""

from __future__ import annotations

from typing import Any

from numba import float32, float64, types
from numba.cuda import cgutils
from numba.cuda.descriptor import cuda_target
from numba.cuda.extending import intrinsic
from numba.cuda.np import arrayobj
from numba.cuda.typing.templates import AbstractTemplate, infer_global

from rmsprop_nb._cuda.native import device_function
from rmsprop_nb._numba.autodiff import access, operations
from rmsprop_nb._numba.autodiff.dual import Dual
from rmsprop_nb._numba.autodiff.gradients import width_for
from rmsprop_nb._numba.code_cache import cached_by_code

operations.register_types(cuda_target.typing_context, infer_global, AbstractTemplate)
cuda_target.target_context.refresh()

value_of, partial_of = intrinsic(access.plain_of._defn), intrinsic(access.partial_of._defn)


@cached_by_code
def gradient_on_device(fun: Any, n: int, single: bool) -> Any:
    """Return ``value_and_grad(x, grad, *args) -> f`` for code on a device, with the user's function as ``source``.

    Parameters
    ----------
    fun : function
        ``fun(x, *args) -> f``
    n : int
        The length of x.
    single : bool
        Whether its elements are float32.
    """
    width, real = width_for(n), float32 if single else float64
    dual = Dual(width, real)
    function, variables_of, variable = device_function(fun), _local_array(dual, n), _variable_of(dual)

    def value_and_grad(x, grad, *args):
        variables = variables_of()
        f = real(0.0)
        for start in range(0, max(n, 1), width):
            for i in range(n):
                variables[i] = variable(x[i], i - start)
            result = function(variables, *args)
            f = value_of(result)
            for k in range(min(width, n - start)):
                grad[start + k] = partial_of(result, k)
        return f

    value_and_grad.source = fun  # type: ignore[attr-defined]
    return value_and_grad


def _variable_of(dual: Any) -> Any:
    """Return a function for compiled code that makes dual numbers whose k-th partial derivative is 1."""

    @intrinsic
    def variable(typingctx: Any, value: Any, k: Any) -> Any:
        _, make = access.variable._defn(typingctx, value, k, types.DType(dual))
        return dual(value, types.intp), make

    return variable


def _local_array(dual: Any, n: int) -> Any:
    """Return a function for compiled code that makes an array in a thread's own memory."""
    array_type = types.Array(dual, 1, "C")

    @intrinsic
    def make(typingctx: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            in_memory = context.get_data_type(dual)
            length, itemsize = (context.get_constant(types.intp, k) for k in (n, context.get_abi_sizeof(in_memory)))
            data = cgutils.alloca_once(builder, in_memory, size=length)
            array = arrayobj.make_array(array_type)(context, builder)
            arrayobj.populate_array(
                array, data=data, shape=[length], strides=[itemsize], itemsize=itemsize, meminfo=None
            )
            return array._getvalue()

        return array_type(), codegen

    return make
