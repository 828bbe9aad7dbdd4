"""An objective and its further arguments for a loop that takes addresses, from within compiled code.

This module depends on Numba's internals.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from rmsprop_nb._numba.calls import OBJECTIVE_SIGNATURE, call_inlined, load_vectors
from rmsprop_nb._numba.decorators import user_jit


def objective_and_data(both: Any, vector: Any) -> Any:
    """Return ``found(args) -> (address, data)`` for compiled code.

    The code at the address is linked into the caller's, so that this may be kept on disk.

    Parameters
    ----------
    both : compiled function
        ``both(x, grad, *args) -> f``
    vector : Numba type
        Of x and grad.
    """
    adapters: dict[Any, Any] = {}

    @intrinsic
    def found(typingctx: Any, args: Any) -> Any:
        if args not in adapters:
            made = user_jit(_make_adapter(both, args, vector))
            made.compile(OBJECTIVE_SIGNATURE)
            adapters[args] = made.overloads[OBJECTIVE_SIGNATURE.args]
        adapter = adapters[args]

        def codegen(context: Any, builder: Any, sig: Any, values: Any) -> Any:
            context.add_linking_libs([adapter.library])
            address = builder.ptrtoint(context.declare_function(builder.module, adapter.fndesc), cgutils.intp_t)
            place = cgutils.alloca_once(builder, context.get_data_type(args))
            context.pack_value(builder, args, values[0], place)
            words = address, builder.ptrtoint(place, cgutils.intp_t)
            return context.make_tuple(builder, sig.return_type, words)

        return types.UniTuple(types.intp, 2)(args), codegen

    return found


def _make_adapter(both: Any, args_type: Any, vector: Any) -> Callable[..., Any]:
    return lambda x, g, size, data: call_inlined(
        both, (*load_vectors(x, g, size, size, vector), *_load_stacked(data, args_type))
    )


@intrinsic
def _load_stacked(typingctx: Any, data: Any, args_type_ref: Any) -> Any:
    """Return the tuple at an address. Its arrays belong to the caller that stored it there."""
    args_type = args_type_ref.instance_type

    def codegen(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        place = builder.inttoptr(values[0], context.get_data_type(args_type).as_pointer())
        value = context.unpack_value(builder, args_type, place)
        context.nrt.incref(builder, args_type, value)
        return value

    return args_type(data, args_type_ref), codegen
