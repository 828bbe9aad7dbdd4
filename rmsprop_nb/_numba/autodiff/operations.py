"""Operators and functions of dual numbers, and of arrays of them element by element.

The value of a result comes from Numba's own code for plain numbers, so it is that of the function itself, bit for bit;
a rule adds the partial derivatives.
"""

from __future__ import annotations

import builtins
import operator
from types import SimpleNamespace
from typing import Any

import numpy as np
from numba import types
from numba.core import cgutils
from numba.core.imputils import lower_builtin
from numba.core.registry import cpu_target
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.np import arrayobj, npyimpl

from rmsprop_nb._numba.autodiff.dual import ON_TAPE, Dual, is_dual, join, plain, width_of, with_partials
from rmsprop_nb._numba.autodiff.emitter import Emitter, call_plain, literal_power, plain_signature
from rmsprop_nb._numba.autodiff.refusals import refuse
from rmsprop_nb._numba.autodiff.rules import RULES, Operands
from rmsprop_nb._numba.autodiff.tape import TapeEmitter

_IN_PLACE = {
    operator.iadd,
    operator.isub,
    operator.imul,
    operator.itruediv,
    operator.ipow,
    operator.imod,
    operator.ifloordiv,
}
_POWERS = {operator.pow, operator.ipow}
_LARGEST_UNROLLED = 0x10000  # as in Numba

RESULTS: dict[Any, Any] = {
    builtins.max: lambda e, values: e.either(e.holds(">", values[1], values[0]), values[1], values[0]),
    builtins.min: lambda e, values: e.either(e.holds("<", values[1], values[0]), values[1], values[0]),
}
"""The values of operations for which Numba has no code to call, as functions of an `Emitter` and the numbers."""

Implementation = tuple[str, Any]
"""The key under which the code for dual numbers is found; Numba's own key stays that of plain numbers."""


def _implementation(key: Any) -> Implementation:
    return "rmsprop_nb.dual", key


def _make_template(key: Any, base: Any) -> Any:
    the_key = key

    class Operation(base):
        key = the_key
        # An exponent that is known at compile time is worth knowing.
        prefer_literal = key in _POWERS

        def generic(self, args: Any, kws: Any) -> Any:
            width = width_of(args)
            if not width or kws or (isinstance(key, np.ufunc) and len(args) > key.nin):
                return None
            if _is_plain_target(key, args):
                return signature(args[0], *args)  # refused when it is lowered: Numba's own rules fail with it
            plain_args = tuple(types.unliteral(plain(a)) for a in args)
            found = plain_signature(self.context, key, plain_args)
            return signature(with_partials(found.return_type, width), *args)

        def get_impl_key(self, sig: Any) -> Any:
            return _implementation(key)

    return Operation


def _is_plain_target(key: Any, args: tuple[Any, ...]) -> bool:
    return key in _IN_PLACE and isinstance(args[0], types.Array) and not is_dual(args[0])


def stored_in_plain(array: Any) -> str:
    """Return the message for derivatives that a plain array would drop."""
    return (
        f"a value that depends on x is stored in an array of plain numbers ({array}), which would drop its derivatives;"
        " make the array inside the function, with np.zeros or np.empty"
    )


def _lower(key: Any) -> None:
    @lower_builtin(_implementation(key), types.VarArg(types.Any))
    def implementation(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        if _is_plain_target(key, sig.args):
            refuse(stored_in_plain(sig.args[0]))
        if any(isinstance(ty, types.Array) for ty in sig.args):
            if not context.enable_nrt:
                refuse("array expressions allocate memory, which a device does not; write a loop")
            return _elementwise(key, context, builder, sig, args)
        value, ty = apply(key, context, builder, sig.args, args)
        return context.cast(builder, value, ty, sig.return_type)


def apply(key: Any, context: Any, builder: Any, tys: tuple[Any, ...], args: Any) -> tuple[Any, Any]:
    """Emit an operation with numbers of which at least one is dual; return the result and its type."""
    if len(args) > 2 and key in (min, max):  # from left to right, as Numba does
        first, ty = apply(key, context, builder, tys[:2], args[:2])
        return apply(key, context, builder, (ty, *tys[2:]), (first, *args[2:]))
    width = width_of(tys)
    if not width:
        return call_plain(context, builder, key, tys, args)
    literals: tuple[Any, ...] = tuple(ty.literal_value if isinstance(ty, types.IntegerLiteral) else None for ty in tys)
    args = [
        context.get_constant(types.unliteral(ty), arg) if isinstance(arg, int) else arg
        for arg, ty in zip(args, tys, strict=True)
    ]
    plain_tys = tuple(types.unliteral(plain(ty)) for ty in tys)
    emitter = None
    if key in RESULTS or _is_unrolled(key, tys, literals):
        real = context.typing_context.unify_types(*plain_tys[-2:]) if key in RESULTS else plain_tys[0]
        emitter = _emitter(context, builder, Dual(width, real))
        values, partials = zip(*map(emitter.parts, tys, args), strict=True)
        result = RESULTS[key](emitter, values) if key in RESULTS else literal_power(emitter, values[0], literals[1])
    else:
        numbers = [builder.extract_value(arg, 0) if is_dual(ty) else arg for arg, ty in zip(args, tys, strict=True)]
        result, real = call_plain(context, builder, key, plain_tys, numbers)
        if not isinstance(real, types.Float):
            return result, real
        emitter = _emitter(context, builder, Dual(width, real))
        values, partials = zip(*map(emitter.parts, tys, args), strict=True)
    derivatives = RULES[key](emitter, Operands(values, partials, literals), result)
    return join(context, builder, emitter.dual, result, emitter.finish(derivatives)), emitter.dual


def _emitter(context: Any, builder: Any, dual: Any) -> Emitter:
    return (TapeEmitter if dual.width == ON_TAPE else Emitter)(context, builder, dual)


def _is_unrolled(key: Any, tys: tuple[Any, ...], literals: tuple[Any, ...]) -> bool:
    return key in _POWERS and is_dual(tys[0]) and literals[1] is not None and abs(literals[1]) <= _LARGEST_UNROLLED


def _elementwise(key: Any, context: Any, builder: Any, sig: Any, args: Any) -> Any:
    """Emit Numba's loop over arrays, with broadcasting, around an operation with numbers."""

    class Kernel(npyimpl._Kernel):
        def generate(self, *items: Any) -> Any:
            inputs = self.outer_sig.args[: len(items)]
            with npyimpl.force_error_model(context, "numpy"):
                value, ty = apply(key, context, self.builder, inputs, items)
            return context.cast(self.builder, value, ty, self.outer_sig.return_type)

    boxed = [as_array(context, builder, *item) for item in zip(sig.args, args, strict=True)]
    sig, args = signature(sig.return_type, *(ty for ty, _ in boxed)), [value for _, value in boxed]
    loop = SimpleNamespace(
        nin=len(sig.args), nout=1, nargs=len(sig.args) + 1, __name__=getattr(key, "__name__", "dual")
    )
    if key in _IN_PLACE and isinstance(sig.args[0], types.Array):
        args = (*args, args[0])
        sig = signature(sig.return_type, *sig.args, sig.args[0])
    return npyimpl.numpy_ufunc_kernel(context, builder, sig, args, loop, Kernel)


def as_array(context: Any, builder: Any, ty: Any, value: Any) -> tuple[Any, Any]:
    """Emit an array without dimensions around a dual number, because Numba's loops over arrays know it no other way."""
    if not isinstance(ty, Dual):
        return ty, value
    array_type = types.Array(ty, 0, "C")
    in_memory = context.get_data_type(ty)
    pointer = cgutils.alloca_once(builder, in_memory)
    context.pack_value(builder, ty, value, pointer)
    array = arrayobj.make_array(array_type)(context, builder)
    itemsize = context.get_abi_sizeof(in_memory)
    arrayobj.populate_array(array, data=pointer, shape=[], strides=[], itemsize=itemsize, meminfo=None)
    return array_type, array._getvalue()


def register_types(context: Any, infer_global: Any, base: Any) -> Any:
    """Let Numba ask our rules for types before its own, which take long to refuse dual numbers, or fail instead.

    What this version of Numba does not have for plain numbers is left out; what it has is returned.

    Parameters
    ----------
    context : typing context
        That of a target.
    infer_global : callable
        What registers a function there.
    base : type
        The class of the target's templates.
    """
    context.refresh()
    templates = {key: _make_template(key, base) for key in RULES if context._lookup_global(key) is not None}
    for key, template in templates.items():
        infer_global(key, types.Function(template))
    context.refresh()
    for key, template in templates.items():
        others = [other for other in context._lookup_global(key).templates if other is not template]
        context._remove_global(key)
        context._insert_global(key, types.Function((template, *others)))
    return templates.keys()


for _key in register_types(cpu_target.typing_context, infer_global, AbstractTemplate):
    _lower(_key)
