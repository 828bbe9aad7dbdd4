"""Conversions of dual numbers to numbers of other types: right, or refused because they would drop derivatives."""

from __future__ import annotations

import builtins
import operator
from typing import Any

import numpy as np
from numba import types
from numba.core.imputils import lower_builtin
from numba.core.typing.templates import AbstractTemplate, AttributeTemplate, infer_getattr, infer_global, signature
from numba.extending import lower_getattr, overload

from rmsprop_nb._numba.autodiff.access import cast_dual
from rmsprop_nb._numba.autodiff.dual import Dual, DualDType, is_dual
from rmsprop_nb._numba.autodiff.operations import stored_in_plain
from rmsprop_nb._numba.autodiff.refusals import refuse


@infer_global(float)
class _Float(AbstractTemplate):
    def generic(self, args: Any, kws: Any) -> Any:
        if len(args) == 1 and isinstance(args[0], Dual) and not kws:
            return signature(args[0].of(types.float64), args[0])
        return None

    def get_impl_key(self, sig: Any) -> Any:
        return "rmsprop_nb.dual", builtins.float


@lower_builtin(("rmsprop_nb.dual", builtins.float), Dual)
def _float(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return context.cast(builder, args[0], sig.args[0], sig.return_type)


@infer_global(int)
class _Int(AbstractTemplate):
    def generic(self, args: Any, kws: Any) -> Any:
        if any(isinstance(a, Dual) for a in args):
            refuse(
                "int() of a value that depends on x drops its derivatives; for an index, which is constant between "
                "jumps, write math.floor or math.trunc"
            )


@infer_global(operator.setitem)
class _SetItem(AbstractTemplate):
    def generic(self, args: Any, kws: Any) -> Any:
        target, _, value = args
        if isinstance(target, types.List) and not is_dual(target.dtype) and is_dual(value):
            refuse(
                "a value that depends on x is stored in a list that was made of plain numbers, which would drop its "
                "derivatives; make an array with np.zeros, or a list of values that depend on x"
            )
        if isinstance(target, types.Array) and not is_dual(target) and target.dtype.is_precise() and is_dual(value):
            refuse(stored_in_plain(target))


@infer_getattr
class _Attributes(AttributeTemplate):
    key = Dual

    def resolve_real(self, dual: Any) -> Any:
        return dual

    def resolve_imag(self, dual: Any) -> Any:
        return dual.real


@lower_getattr(Dual, "real")
def _real(context: Any, builder: Any, typ: Any, value: Any) -> Any:
    return value


@lower_getattr(Dual, "imag")
def _imag(context: Any, builder: Any, typ: Any, value: Any) -> Any:
    return context.get_constant(typ.real, 0.0)


def to_float64(x):
    """Stand for np.float64 in functions that are differentiated."""


def to_float32(x):
    """Stand for np.float32 in functions that are differentiated."""


def _as(cls: Any, real: Any, stand_in: Any) -> None:
    @overload(stand_in)
    def convert(x):
        if isinstance(x, Dual):
            dtype = DualDType(x.of(real))
            return lambda x: cast_dual(x, dtype)
        return lambda x: cls(x)


_as(np.float64, types.float64, to_float64)
_as(np.float32, types.float32, to_float32)
