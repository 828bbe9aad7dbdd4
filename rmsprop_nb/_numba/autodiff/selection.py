"""Stand-ins for choosing among numbers, and for functions that depend on values alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import overload

from rmsprop_nb._numba.autodiff import operations
from rmsprop_nb._numba.autodiff.access import plain_of
from rmsprop_nb._numba.autodiff.dual import Dual, DualDType, is_dual, plain, width_of, with_partials
from rmsprop_nb._numba.autodiff.refusals import refuse
from rmsprop_nb._numba.autodiff.rules import RULES
from rmsprop_nb._numba.autodiff.stand_ins import dtype_of, is_dual_array, is_missing, stands_for


def select(condition, a, b):
    """Stand for np.where with three arguments of which one is dual."""


@infer_global(select)
class _Select(AbstractTemplate):
    def generic(self, args: Any, kws: Any) -> Any:
        width = width_of(args)
        if not width:
            return None
        if not any(isinstance(ty, types.Array) for ty in args):
            real = self.context.unify_types(*(types.unliteral(plain(ty)) for ty in args[1:]))
            return signature(with_partials(real, width), *args)
        found = self.context.resolve_value_type(np.where).get_call_type(self.context, tuple(map(plain, args)), {})
        return signature(with_partials(found.return_type, width), *args)

    def get_impl_key(self, sig: Any) -> Any:
        return operations._implementation(select)


@overload(select)
def _select_plain(condition, a, b):
    if not width_of((condition, a, b)):
        return lambda condition, a, b: a if condition else b
    return None


def _selected(e: Any, x: Any, y: Any) -> Any:
    _, da, db = x.partials
    condition = e.holds("!=", x.values[0], e.const(0.0))
    return e.either(condition, e.zeros() if da is None else da, e.zeros() if db is None else db)


RULES[select] = _selected
operations.RESULTS[select] = lambda e, values: e.either(e.holds("!=", values[0], e.const(0.0)), *values[1:])
operations._lower(select)


@stands_for(np.where)
def _where(condition, x=None, y=None):
    if is_missing(x):
        return lambda condition, x=None, y=None: np.where(condition)
    if width_of((x, y)):
        return lambda condition, x=None, y=None: select(condition, x, y)
    return lambda condition, x=None, y=None: np.where(condition, x, y)


@stands_for(np.clip, method="clip")
def _clip(a, a_min=None, a_max=None):
    if not width_of((a, a_min, a_max)):
        return lambda a, a_min=None, a_max=None: np.clip(a, a_min, a_max)
    if is_missing(a_min):
        return lambda a, a_min=None, a_max=None: np.minimum(a, a_max)
    if is_missing(a_max):
        return lambda a, a_min=None, a_max=None: np.maximum(a, a_min)
    return lambda a, a_min=None, a_max=None: np.minimum(np.maximum(a, a_min), a_max)


@stands_for(method="astype")
def _astype(a, dtype):
    if not is_dual_array(a):
        return lambda a, dtype: a.astype(dtype)
    real = dtype.dtype if isinstance(dtype, types.DType) else getattr(dtype, "instance_type", None)
    if isinstance(real, Dual):
        real = real.real
    if not isinstance(real, types.Float):
        refuse(f"astype({real}) of values that depend on x would drop their derivatives")
    target: Any = DualDType(a.dtype.of(real))

    def astype(a, dtype):
        out = np.empty(a.shape, target)
        for i, item in np.ndenumerate(a):
            out[i] = item
        return out

    return astype


@stands_for(method="item")
def _item(a):
    return (lambda a: a.flat[0]) if is_dual_array(a) else (lambda a: a.item())


@stands_for()
def values(a):
    """Choose how to read the values of numbers, without their derivatives."""
    if isinstance(a, Dual):
        return lambda a: plain_of(a)
    if not is_dual_array(a):
        return lambda a: a

    def read(a):
        out = np.empty(a.shape, real)
        for i, item in np.ndenumerate(a):
            out[i] = plain_of(item)
        return out

    real = np.dtype(a.dtype.real.name)
    return read


@stands_for(np.real)
def _real(val):
    return (lambda val: val) if is_dual(val) else (lambda val: np.real(val))


@stands_for(np.imag)
def _imag(val):
    return (lambda val: 0.0 * values(val)) if is_dual(val) else (lambda val: np.imag(val))


@stands_for(np.searchsorted)
def _searchsorted(a, v, side="left"):
    return lambda a, v, side="left": np.searchsorted(values(a), values(v), side)


@stands_for(np.argsort, method="argsort")
def _argsort(a):
    return lambda a: np.argsort(values(a))


@stands_for(np.sort)
def _sort(a):
    return (lambda a: a[np.argsort(values(a))]) if is_dual_array(a) else (lambda a: np.sort(a))


@stands_for(np.median)
def _median(a):
    if not is_dual_array(a):
        return lambda a: np.median(a)

    def median(a):
        order, half = np.argsort(values(a.ravel())), a.size // 2
        last = a.flat[order[a.size - 1]]
        if np.isnan(values(last)):
            return last
        middle = a.flat[order[half]]
        return middle if a.size % 2 == 1 else (a.flat[order[half - 1]] + middle) * 0.5

    return median


@stands_for(np.interp)
def _interp(x, xp, fp):
    if not width_of((x, xp, fp)):
        return lambda x, xp, fp: np.interp(x, xp, fp)
    if width_of((xp,)):
        refuse("np.interp needs nodes that do not depend on x")
    if isinstance(x, types.Array):
        dtype = dtype_of(x, fp)

        def interp_all(x, xp, fp):
            out = np.empty(x.size, dtype)
            for i in range(x.size):
                out[i] = interpolate(x[i], xp, fp)
            return out

        return interp_all
    return lambda x, xp, fp: interpolate(x, xp, fp)


@stands_for()
def interpolate(x, xp, fp):
    """Choose the interpolation at one point, constant outside of the nodes."""

    def impl(x, xp, fp):
        k = np.searchsorted(xp, values(x), "right") - 1
        if k < 0:
            return fp[0] + 0.0 * x
        if k >= xp.size - 1:
            return fp[xp.size - 1] + 0.0 * x
        return (fp[k + 1] - fp[k]) / (xp[k + 1] - xp[k]) * (x - xp[k]) + fp[k]

    return impl
