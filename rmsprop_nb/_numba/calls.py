"""Objectives called by the address of their native entry.

A compiled loop calls the user's objective by address, so that the loop itself is compiled once and cached on disk,
instead of once for every objective. This module depends on Numba's internals.
"""

from __future__ import annotations

import contextlib
import itertools
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.core.typing.templates import fold_arguments
from numba.extending import intrinsic
from numba.np import arrayobj

from rmsprop_nb._numba.packing import borrowed_array

# Vectors are passed as addresses and a length, in registers; two Numba arrays would be fifteen words on the stack.
OBJECTIVE_SIGNATURE = types.float64(types.intp, types.intp, types.intp, types.intp)
"""Signature of an adapter: ``(address of x, address of grad, size, address of the packed args) -> f``."""


def entry_address(dispatcher: Any) -> int:
    """Return the address of the native entry for `OBJECTIVE_SIGNATURE`; it is valid while `dispatcher` exists."""
    compiled = dispatcher.overloads[OBJECTIVE_SIGNATURE.args]
    return int(compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name))


def launches_threads(dispatcher: Any) -> bool:
    """Return whether the code for `OBJECTIVE_SIGNATURE`, or a function that it calls, has parallel loops."""
    return _calls(dispatcher, "numba_parallel_for")


def enters_python(dispatcher: Any) -> bool:
    """Return whether the code for `OBJECTIVE_SIGNATURE`, or a function that it calls, has objmode blocks."""
    return _calls(dispatcher, "PyObject_CallFunctionObjArgs")


def _calls(dispatcher: Any, name: str) -> bool:
    compiled = dispatcher.overloads[OBJECTIVE_SIGNATURE.args]
    with contextlib.suppress(NameError):
        return compiled.library._final_module.get_function(name) is not None
    return False


@intrinsic
def load_vectors(typingctx: Any, x: Any, g: Any, size: Any, g_size: Any, array_type_ref: Any) -> Any:
    """Make arrays from the two vectors that an adapter receives; the caller owns their memory."""
    array_type = array_type_ref.instance_type
    signature = types.UniTuple(array_type, 2)(x, g, size, g_size, array_type_ref)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        stride = context.get_constant(types.intp, context.get_abi_sizeof(context.get_data_type(array_type.dtype)))
        x_address, g_address, length, g_length, _ = args
        arrays = [
            borrowed_array(context, builder, array_type, address, [elements], [stride], stride)
            for address, elements in ((x_address, length), (g_address, g_length))
        ]
        return context.make_tuple(builder, sig.return_type, arrays)

    return signature, codegen


def return_type(dispatcher: Any, arg_types: tuple[Any, ...]) -> Any:
    """Return the type that a call with these types returns, compiling the function if need be; None without a match."""
    call = types.Dispatcher(dispatcher).get_call_type(dispatcher.typingctx, arg_types, {})
    return call and call.return_type


@intrinsic
def call_inlined(typingctx: Any, fun: Any, args: Any) -> Any:
    """Call a compiled function and inline it into the caller: a call may cost more than a small objective."""
    call = fun.get_call_type(typingctx, args.types, {})
    signature = call.return_type(fun, args)

    def codegen(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        given = zip(cgutils.unpack_tuple(builder, values[1]), args.types, strict=True)
        result = context.get_function(fun, call)(builder, folded_arguments(context, builder, call, tuple(given)))
        entry = fun.dispatcher.overloads[call.args].fndesc.llvm_func_name
        for instruction in itertools.chain.from_iterable(block.instructions for block in builder.function.blocks):
            if isinstance(instruction, ir.CallInstr) and instruction.callee.name == entry:
                instruction.attributes.add("alwaysinline")
        return result

    return signature, codegen


def folded_arguments(context: Any, builder: Any, call: Any, given: tuple[Any, ...]) -> Any:
    """Return the values that a function takes: its defaults are among them, and those for ``*args`` are a tuple."""

    def cast(value: Any, wanted: Any) -> Any:
        return context.cast(builder, *value, wanted)

    def collect(index: int, _: Any, values: Any) -> Any:
        wanted = call.args[index]
        return context.make_tuple(builder, wanted, [cast(*pair) for pair in zip(values, wanted, strict=True)])

    return fold_arguments(
        call.pysig,
        given,
        {},
        lambda index, _, value: cast(value, call.args[index]),
        lambda index, _, default: context.get_constant_generic(builder, call.args[index], default),
        collect,
    )


@intrinsic
def call_objective(typingctx: Any, address: Any, x: Any, g: Any, data: Any) -> Any:
    """Call the adapter at `address`; an exception raised in it propagates through the calling loop."""
    signature = types.float64(types.intp, _check_vector(x), _check_vector(g), types.intp)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        status, result = _emit_call(context, builder, sig, args)
        with cgutils.if_unlikely(builder, status.is_error):
            context.call_conv.return_status_propagate(builder, status)
        return result

    return signature, codegen


@intrinsic
def try_objective(typingctx: Any, address: Any, x: Any, g: Any, data: Any) -> Any:
    """Call the adapter at `address` and return ``(raised, f)``; the exception itself is discarded."""
    raised_and_f = types.Tuple((types.boolean, types.float64))
    signature = raised_and_f(types.intp, _check_vector(x), _check_vector(g), types.intp)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        status, result = _emit_call(context, builder, sig, args)
        raised = context.cast(builder, status.is_error, types.boolean, types.boolean)
        return context.make_tuple(builder, sig.return_type, [raised, result])

    return signature, codegen


def _check_vector(ty: Any) -> Any:
    """Return the type of a contiguous vector; raise for any other, because adapters rely on it."""
    if not (isinstance(ty, types.Array) and ty.ndim == 1 and ty.layout == "C"):
        msg = f"an objective takes contiguous vectors, not {ty}"
        raise TypingError(msg)
    return ty


def _emit_call(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    parameters = OBJECTIVE_SIGNATURE.args
    entry_type = context.call_conv.get_function_type(types.float64, parameters)
    entry = builder.inttoptr(args[0], entry_type.as_pointer())
    x, g = (arrayobj.make_array(sig.args[k])(context, builder, args[k]) for k in (1, 2))
    words = [*(builder.ptrtoint(array.data, context.get_value_type(types.intp)) for array in (x, g)), x.nitems, args[3]]
    return context.call_conv.call_function(builder, entry, types.float64, parameters, words)


@intrinsic
def copy_bytes(typingctx: Any, target: Any, source: Any, count: Any) -> Any:
    """Copy `count` bytes from address `source` to address `target`."""
    signature = types.void(types.intp, types.intp, types.intp)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        byte = context.get_value_type(types.voidptr)
        to, from_ = (builder.inttoptr(address, byte) for address in args[:2])
        cgutils.raw_memcpy(builder, to, from_, args[2], 1)
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def prefetch(typingctx: Any, address: Any) -> Any:
    """Let the processor fetch the line of memory at an address that will be read soon."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        byte, flag = context.get_value_type(types.voidptr), ir.IntType(32)
        signature = ir.FunctionType(ir.VoidType(), [byte, flag, flag, flag])
        function = builder.module.declare_intrinsic("llvm.prefetch", (byte,), signature)
        read, keep, data = (ir.Constant(flag, k) for k in (0, 3, 1))
        builder.call(function, [builder.inttoptr(args[0], byte), read, keep, data])
        return context.get_dummy_value()

    return types.void(types.intp), codegen
