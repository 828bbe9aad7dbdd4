"""Stand-ins for what makes one number of many, or sums along an array."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from rmsprop_nb._numba.autodiff import many_terms
from rmsprop_nb._numba.autodiff.access import cast_dual
from rmsprop_nb._numba.autodiff.dual import ON_TAPE
from rmsprop_nb._numba.autodiff.refusals import refuse
from rmsprop_nb._numba.autodiff.stand_ins import dtype_of, is_dual_array, is_missing, stands_for
from rmsprop_nb._numba.decorators import inline_jit, user_jit


@stands_for(np.sum, method="sum")
def total(a, axis=None):
    """Choose how to sum."""
    if not is_dual_array(a):
        return (lambda a, axis=None: np.sum(a)) if is_missing(axis) else (lambda a, axis=None: np.sum(a, axis))
    dtype = dtype_of(a)
    if not is_missing(axis):
        return _sums_along_axis(a, dtype)
    if a.dtype.width == ON_TAPE:
        return _without_axis(many_terms.sum_of(dtype))

    def sum_all(a, axis=None):
        total = cast_dual(0.0, dtype)
        for item in a.flat:
            total += item
        return total

    return sum_all


def _without_axis(implementation: Any) -> Any:
    sum_all = user_jit(implementation)
    return lambda a, axis=None: sum_all(a)


def _sums_along_axis(a: Any, dtype: Any) -> Any:
    """Return the implementation of sums of a matrix along one axis."""
    if a.ndim != 2:
        refuse(f"reductions along an axis of values that depend on x need two dimensions, not {a.ndim}")

    def sums(a, axis=None):
        along = axis + 2 if axis < 0 else axis
        if along < 0 or along > 1:
            raise ValueError("axis is out of bounds")
        rows = a.T if along == 0 else a
        out = np.empty(rows.shape[0], dtype)
        for i in range(out.size):
            out[i] = total(rows[i])
        return out

    return sums


@stands_for(np.prod, method="prod")
def _prod(a):
    if not is_dual_array(a):
        return lambda a: np.prod(a)
    dtype = dtype_of(a)

    def prod(a):
        product = cast_dual(1.0, dtype)
        for item in a.flat:
            product *= item
        return product

    return prod


@stands_for(np.mean, method="mean")
def _mean(a, axis=None):
    if not is_dual_array(a):
        return (lambda a, axis=None: np.mean(a)) if is_missing(axis) else (lambda a, axis=None: np.mean(a, axis))
    if is_missing(axis):
        return lambda a, axis=None: total(a) / a.size
    return lambda a, axis=None: total(a, axis) / a.shape[axis]


@stands_for(np.var, method="var")
def _var(a):
    if not is_dual_array(a):
        return lambda a: np.var(a)

    dtype = dtype_of(a)

    def var(a):
        mean = _mean(a)
        squares = np.empty(a.size, dtype)
        for k, item in enumerate(a.flat):
            squares[k] = (item - mean) * (item - mean)
        return total(squares) / a.size

    return var


@stands_for(np.std, method="std")
def _std(a):
    return (lambda a: math.sqrt(_var(a))) if is_dual_array(a) else (lambda a: np.std(a))


def _extremum(function: Any, name: str, precedes: Any) -> Any:
    before = inline_jit(precedes)

    def choose(a):
        if not is_dual_array(a):
            return lambda a: function(a)

        def extremum(a):
            return a.flat[_arg(a)]

        return extremum

    def choose_place(a):
        def place(a):
            if a.size == 0:
                raise ValueError("an array without elements has neither a minimum nor a maximum")
            best = 0
            for k in range(a.size):
                if a.flat[k] != a.flat[k]:
                    return k
                if before(a.flat[k], a.flat[best]):
                    best = k
            return best

        return place if is_dual_array(a) else (lambda a: arg_function(a))

    arg_function = getattr(np, "arg" + name)
    choose_place.__name__ = "arg" + name
    choose.__name__ = name
    _arg = stands_for(arg_function, method="arg" + name)(choose_place)
    return stands_for(function, method=name)(choose)


minimum = _extremum(np.min, "min", lambda a, b: a < b)
maximum = _extremum(np.max, "max", lambda a, b: a > b)


@stands_for(np.cumsum, method="cumsum")
def _cumsum(a):
    return _accumulated(a, lambda a: np.cumsum(a), lambda total, item: total + item)


@stands_for(np.cumprod, method="cumprod")
def _cumprod(a):
    return _accumulated(a, lambda a: np.cumprod(a), lambda total, item: total * item)


def _accumulated(a: Any, of_plain: Any, add: Any) -> Any:
    if not is_dual_array(a):
        return of_plain
    combine, dtype = inline_jit(add), dtype_of(a)

    def accumulate(a):
        out = np.empty(a.size, dtype)
        for i, item in enumerate(a.flat):
            out[i] = item if i == 0 else combine(out[i - 1], item)
        return out

    return accumulate


@stands_for(np.diff)
def _diff(a, n=1):
    if not is_dual_array(a):
        return lambda a, n=1: np.diff(a, n)
    if a.ndim != 1:
        refuse("np.diff of values that depend on x needs one dimension")

    def diff(a, n=1):
        for _ in range(n):
            a = a[1:] - a[:-1]
        return a

    return diff


@stands_for(np.trace)
def _trace(a):
    if not is_dual_array(a):
        return lambda a: np.trace(a)
    return lambda a: total(np.diag(a))
