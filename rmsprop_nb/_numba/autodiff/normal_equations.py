"""Sums of squares with exact derivatives: f, its gradient J'r, and J'J, in one pass over the data.

The vector that is filled has the n elements of the gradient and, where the matrix is asked for, the rows of its lower
triangle behind them.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np import arrayobj

from rmsprop_nb._numba.autodiff.access import check_vector, partial_of, stack_array, value_of, variable
from rmsprop_nb._numba.autodiff.gradients import LARGEST_WIDTH, Derivatives, differentiated, width_for
from rmsprop_nb._numba.decorators import user_jit


@functools.cache
def as_tuple(n: int) -> Any:
    """Return a function for compiled code that makes a tuple of the first n elements of a vector."""

    @intrinsic
    def spread(typingctx: Any, vector: Any) -> Any:
        result = types.UniTuple(vector.dtype, n)

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            array = arrayobj.make_array(vector)(context, builder, args[0])
            stride = cgutils.unpack_tuple(builder, array.strides)[0]
            items = []
            for k in range(n):
                offset = builder.mul(stride, ir.Constant(stride.type, k))
                place = cgutils.pointer_add(builder, array.data, offset)
                items.append(arrayobj.load_item(context, builder, vector, place))
            return context.make_tuple(builder, result, items)

        return result(vector), codegen

    return spread


@functools.cache
def _stack_vector(size: int) -> Any:
    """Return a function for compiled code that makes a vector of float64 zeros in the stack frame of the caller."""
    array_type = types.Array(types.float64, 1, "C")

    @intrinsic
    def make(typingctx: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            in_memory = context.get_data_type(types.float64)
            length, itemsize = (context.get_constant(types.intp, k) for k in (size, 8))
            data = cgutils.alloca_once(builder, in_memory, size=length)
            for k in range(size):
                builder.store(ir.Constant(in_memory, 0.0), cgutils.gep(builder, data, k))
            array = arrayobj.make_array(array_type)(context, builder)
            arrayobj.populate_array(array, data, [length], [itemsize], itemsize, meminfo=None)
            return array._getvalue()

        return array_type(), codegen

    return make


@functools.lru_cache(maxsize=256)
def curve_function(f: Any, n: int, predictors: int) -> Any:
    """Return ``model(x, t)``, compiled, for a model ``f(t, *parameters)`` of n parameters.

    With `predictors`, t is a vector of that length, of which f is given a tuple.
    """
    spread = as_tuple(n)
    if predictors:
        point = as_tuple(predictors)
        return user_jit(lambda x, t: f(point(t), *spread(x)))
    return user_jit(lambda x, t: f(t, *spread(x)))


def point_passes(
    setting: Any, function: Any, width: int, is_single: bool, n: int, loss: Any, matrix: bool, predictors: bool
) -> Any:
    """Build ``normal(x, out, y, sigma, scale, t) -> f`` for a function ``function(x, t)`` of one point.

    Points are left out where y is NaN or sigma infinite.
    """
    fun, dtype, _ = differentiated(setting, function)
    passes = -(-n // width)
    length = n * (n + 3) // 2 if matrix else n
    sums_on_stack, row_on_stack = _stack_vector(length), _stack_vector(n)

    def normal(x, out, y, sigma, scale, t):
        check_vector(out)
        if x.size != n or out.size != length:
            raise ValueError("x or out has another length than this function was made for.")
        variables = stack_array(n, dtype) if is_single else np.empty(n * passes, dtype)
        for k in range(passes):
            for i in range(n):
                variables[k * n + i] = variable(x[i], i - k * width, dtype)
        sums = sums_on_stack()
        row = row_on_stack()
        f = 0.0
        for m in range(y.size):
            weight = 1.0 / sigma[m] if sigma.size else 1.0
            if weight == 0.0 or y[m] != y[m]:
                continue
            point = t[:, m] if predictors else t[m]
            value = 0.0
            if is_single:
                result = fun(variables, point)
                value = value_of(result)
                for i in range(n):
                    row[i] = partial_of(result, i)
            else:
                for k in range(passes):
                    result = fun(variables[k * n : (k + 1) * n], point)
                    value = value_of(result)
                    for i in range(k * width, min((k + 1) * width, n)):
                        row[i] = partial_of(result, i - k * width)
            cost, slope, bend = loss(value, y[m], weight, scale)
            f += cost
            for i in range(n):
                sums[i] += slope * row[i]
            if matrix:
                for i in range(n):
                    for j in range(i + 1):
                        sums[n + i * (i + 1) // 2 + j] += bend * row[i] * row[j]
        for i in range(length):
            out[i] = sums[i]
        return f

    return normal


def residual_passes(setting: Any, function: Any, width: int, is_single: bool) -> Any:
    """Build ``fill(x, *args) -> (values, J)`` for a function that returns a vector."""
    fun, dtype, with_copies = differentiated(setting, function)

    def fill(x, *args):
        n = x.size
        variables = np.empty(n, dtype)
        values = np.empty(0)
        matrix = np.empty((0, n))
        for start in range(0, max(n, 1), width):
            for i in range(n):
                variables[i] = variable(x[i], i - start, dtype)
            result = fun(variables, *with_copies(args))
            check_vector(result)
            if start == 0:
                values = np.empty(result.size)
                matrix = np.empty((result.size, n))
                for j in range(result.size):
                    values[j] = value_of(result[j])
            for j in range(result.size):
                for k in range(min(width, n - start)):
                    matrix[j, start + k] = partial_of(result[j], k)
        return values, matrix

    return fill


@functools.lru_cache(maxsize=256)
def point_normal(f: Any, n: int, loss: Any, matrix: bool, predictors: int) -> Derivatives:
    """Return the function of `point_passes` for a model ``f(t, *parameters)``."""
    width = width_for(n)
    passes = functools.partial(point_passes, n=n, loss=loss, matrix=matrix, predictors=predictors > 0)
    return Derivatives(passes, curve_function(f, n, predictors), width, n <= LARGEST_WIDTH)


@functools.lru_cache(maxsize=256)
def residuals_and_jacobian(fun: Any, n: int) -> Derivatives:
    """Return the function of `residual_passes`."""
    return Derivatives(residual_passes, fun, width_for(n), False)
