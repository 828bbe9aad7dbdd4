"""Stand-ins for products and norms of vectors and matrices."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from rmsprop_nb._numba.autodiff import many_terms
from rmsprop_nb._numba.autodiff.access import cast_dual
from rmsprop_nb._numba.autodiff.dual import ON_TAPE, is_dual
from rmsprop_nb._numba.autodiff.reductions import maximum, total
from rmsprop_nb._numba.autodiff.refusals import refuse
from rmsprop_nb._numba.autodiff.selection import values
from rmsprop_nb._numba.autodiff.stand_ins import dtype_of, is_dual_array, is_missing, stands_for


@stands_for(np.dot, np.matmul, np.vdot, method="dot")
def dot(a, b):
    """Choose the product of two numbers, vectors or matrices."""
    if not (is_dual(a) or is_dual(b)):
        return (lambda a, b: np.dot(a, b)) if isinstance(a, types.Array) else (lambda a, b: a * b)
    dims: Any = tuple(ty.ndim if isinstance(ty, types.Array) else 0 for ty in (a, b))
    if 0 in dims:
        return lambda a, b: a * b
    if max(dims) > 2:
        refuse("products of values that depend on x need vectors and matrices")
    dtype = dtype_of(a, b)
    if many_terms.multiplies(a, b) and dims != (1, 2):
        return many_terms.product_of(dims, dtype, values)
    if many_terms.multiplies(b, a) and dims == (1, 1):
        return lambda a, b: dot(b, a)
    if many_terms.multiplies(b, a) and dims == (1, 2):
        return lambda a, b: dot(b.T, a)
    return {(1, 1): _dot_11, (2, 1): _dot_21, (1, 2): _dot_12, (2, 2): _dot_22}[dims](dtype)


def _check_inner(m, n):
    if m != n:
        raise ValueError("the factors of a product have different inner dimensions")


def _dot_11(dtype: Any) -> Any:
    def on_tape(a, b):
        check_inner(a.size, b.size)
        return total(a * b)

    def forward(a, b):
        check_inner(a.size, b.size)
        total = cast_dual(0.0, dtype)
        for k in range(a.size):
            total += a[k] * b[k]
        return total

    return on_tape if dtype.dual.width == ON_TAPE else forward


def _dot_21(dtype: Any) -> Any:
    def impl(a, b):
        out = np.empty(a.shape[0], dtype)
        for i in range(out.size):
            out[i] = dot(a[i], b)
        return out

    return impl


def _dot_12(dtype: Any) -> Any:
    def impl(a, b):
        out = np.empty(b.shape[1], dtype)
        for j in range(out.size):
            out[j] = dot(a, b[:, j])
        return out

    return impl


def _dot_22(dtype: Any) -> Any:
    def impl(a, b):
        out = np.empty((a.shape[0], b.shape[1]), dtype)
        for i, j in np.ndindex(out.shape):
            out[i, j] = dot(a[i], b[:, j])
        return out

    return impl


def check_inner(m, n):
    """Stand for `_check_inner` in compiled code."""


@overload(check_inner)
def _check_inner_overload(m, n):
    return _check_inner


@stands_for(np.outer)
def _outer(a, b):
    if not (is_dual(a) or is_dual(b)):
        return lambda a, b: np.outer(a, b)
    return lambda a, b: a.reshape((a.size, 1)) * b.reshape((1, b.size))


@stands_for()
def root(square):
    """Choose the square root of a sum of squares, which has no slope where all are 0."""
    return lambda square: math.sqrt(square) if square != 0.0 else square


@stands_for(np.linalg.norm)
def _norm(a, ord=None):
    if not is_dual_array(a):
        return (
            (lambda a, ord=None: np.linalg.norm(a)) if is_missing(ord) else (lambda a, ord=None: np.linalg.norm(a, ord))
        )
    if is_missing(ord):
        return lambda a, ord=None: root(total(a * a))
    if a.ndim != 1:
        refuse("np.linalg.norm of a matrix of values that depend on x takes no ord")

    def norm(a, ord=None):
        if ord == 2:
            return root(total(a * a))
        if ord == 1:
            return total(np.abs(a))
        if ord == np.inf:
            return maximum(np.abs(a))
        raise ValueError("np.linalg.norm of values that depend on x has ord 1, 2 and infinity")

    return norm
