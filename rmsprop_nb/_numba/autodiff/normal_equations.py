"""Sums of squares with exact derivatives: f, its gradient J'r, and J'J, in one pass over the data.

The vector that is filled has the n elements of the gradient and, where the matrix is asked for, the rows of its lower
triangle behind them.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.typing.templates import signature
from numba.extending import intrinsic
from numba.np import arrayobj

from rmsprop_nb._numba.autodiff.access import check_vector, partial_of, stack_array, value_of, variable
from rmsprop_nb._numba.autodiff.dual import is_dual, spread
from rmsprop_nb._numba.autodiff.gradients import (
    Derivatives,
    LinkedDerivatives,
    differentiated,
    width_for,
)
from rmsprop_nb._numba.code_cache import cached_by_code
from rmsprop_nb._numba.decorators import inline_jit, shared_jit


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
            zeros = ir.ArrayType(in_memory, size)
            builder.store(ir.Constant(zeros, None), builder.bitcast(data, zeros.as_pointer()))
            array = arrayobj.make_array(array_type)(context, builder)
            arrayobj.populate_array(array, data, [length], [itemsize], itemsize, meminfo=None)
            return array._getvalue()

        return array_type(), codegen

    return make


@cached_by_code
def curve_function(f: Any, n: int, predictors: int) -> Any:
    """Return ``model(x, t)``, compiled, for a model ``f(t, *parameters)`` of n parameters.

    With `predictors`, t is a vector of that length, of which f is given a tuple.
    """
    spread = as_tuple(n)
    if predictors:
        point = as_tuple(predictors)
        return shared_jit(lambda x, t: f(point(t), *spread(x)))
    return shared_jit(lambda x, t: f(t, *spread(x)))


@functools.cache
def _add_outer(matrix: bool) -> Any:
    """Return a function for compiled code that adds to n sums the terms of J'r and, behind them, to n*n those of J'J.

    It is given the sums, a dual number with n partial derivatives, and the factors of both. Partial derivatives are one
    vector in registers, so a row is one instruction.
    """

    @intrinsic
    def add(typingctx: Any, sums: Any, result: Any, slope: Any, bend: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            if not is_dual(result):
                return context.get_dummy_value()
            row = builder.extract_value(args[1], 1)
            data = arrayobj.make_array(sums)(context, builder, args[0]).data
            factors = [args[2]]
            if matrix:
                elements = [builder.extract_element(row, _constant(k)) for k in range(result.width)]
                factors += [builder.fmul(args[3], element) for element in elements]
            for k, factor in enumerate(factors):
                place = builder.bitcast(builder.gep(data, [_constant(k * result.width)]), row.type.as_pointer())
                term = builder.fmul(spread(builder, factor, row.type), row)
                builder.store(builder.fadd(builder.load(place, align=8), term), place, align=8)
            return context.get_dummy_value()

        return signature(types.none, sums, result, types.float64, types.float64), codegen

    return add


def _constant(k: int) -> Any:
    return ir.Constant(ir.IntType(32), k)


def filled_length(n: int, matrix: bool) -> int:
    """Return the length of what is filled: the gradient and, where it is asked for, the matrix behind it."""
    return n * (n + 3) // 2 if matrix else n


class Task(NamedTuple):
    """What a pass over points computes: by n variables, with a loss and, if `matrix` is set, with J'J.

    `y`, `sigma`, `scale` and `points` are the places of the data among the args; `rows` is that of an array which takes
    the values and J, side by side, unless it is empty. With `predictors` the points have that many rows.
    """

    n: int
    loss: Any
    matrix: bool
    predictors: int
    y: int
    sigma: int
    scale: int
    points: int
    rows: int

    @property
    def length(self) -> int:
        """The length of what is filled."""
        return filled_length(self.n, self.matrix)


@inline_jit
def _check_lengths(x, out, y, sigma, t, rows, n, length):
    """Raise unless everything is as long as the passes take it to be: compiled code checks no index."""
    if x.size != n or out.size != length:
        raise ValueError("x or out has another length than this function was made for.")
    if t.shape[t.ndim - 1] != y.size or (sigma.size > 0 and sigma.size != y.size):
        raise ValueError("xdata and sigma must have as many points as ydata.")
    if rows.size > 0 and (rows.shape[0] != y.size or rows.shape[1] != n + 1):
        raise ValueError("rows must have a row for each point, and a column more than there are parameters.")


def single_pass(setting: Any, function: Any, width: int, task: Task) -> Any:
    """Build ``normal(x, out, *args) -> f`` for ``function(x, t)`` of one point, for derivatives that fit in registers.

    Points are left out where y is NaN or sigma infinite.
    """
    fun, dtype, _ = differentiated(setting, function)
    n, loss, matrix, predictors, y_at, sigma_at, scale_at, points_at, rows_at = task
    length = task.length
    sums_on_stack, add_outer = _stack_vector(n + n * n if matrix else n), _add_outer(matrix)

    def normal(x, out, *args):
        y, sigma, scale, t, rows = args[y_at], args[sigma_at], args[scale_at], args[points_at], args[rows_at]
        check_vector(out)
        _check_lengths(x, out, y, sigma, t, rows, n, length)
        variables = stack_array(n, dtype)
        for i in range(n):
            variables[i] = variable(x[i], i, dtype)
        sums = sums_on_stack()
        f = 0.0
        for m in range(y.size):
            weight = 1.0 / sigma[m] if sigma.size else 1.0
            is_left_out = weight == 0.0 or math.isnan(y[m])
            if is_left_out and rows.size == 0:
                continue
            result = fun(variables, t[:, m] if predictors else t[m])
            if rows.size > 0:
                rows[m, 0] = value_of(result)
                for i in range(n):
                    rows[m, 1 + i] = partial_of(result, i)
                if is_left_out:
                    continue
            cost, slope, bend = loss(value_of(result), y[m], weight, scale)
            f += cost
            add_outer(sums, result, slope, bend)
        for i in range(n):
            out[i] = sums[i]
            for j in range(i + 1 if matrix else 0):
                out[n + i * (i + 1) // 2 + j] = sums[n + i * n + j]
        return f

    return normal


def several_passes(setting: Any, function: Any, width: int, task: Task) -> Any:
    """Build the same for more variables: the function is called several times at each point."""
    fun, dtype, _ = differentiated(setting, function)
    n, loss, matrix, predictors, y_at, sigma_at, scale_at, points_at, rows_at = task
    length, passes = task.length, -(-n // width)

    def normal(x, out, *args):
        y, sigma, scale, t, rows = args[y_at], args[sigma_at], args[scale_at], args[points_at], args[rows_at]
        check_vector(out)
        _check_lengths(x, out, y, sigma, t, rows, n, length)
        variables = np.empty((passes, n), dtype)
        for k in range(passes):
            for i in range(n):
                variables[k, i] = variable(x[i], i - k * width, dtype)
        row = np.empty(n)
        out[:] = 0.0
        f = 0.0
        for m in range(y.size):
            weight = 1.0 / sigma[m] if sigma.size else 1.0
            is_left_out = weight == 0.0 or math.isnan(y[m])
            if is_left_out and rows.size == 0:
                continue
            value = 0.0
            for k in range(passes):
                result = fun(variables[k], t[:, m] if predictors else t[m])
                value = value_of(result)
                for i in range(k * width, min((k + 1) * width, n)):
                    row[i] = partial_of(result, i - k * width)
            if rows.size > 0:
                rows[m, 0] = value
                for i in range(n):
                    rows[m, 1 + i] = row[i]
                if is_left_out:
                    continue
            cost, slope, bend = loss(value, y[m], weight, scale)
            f += cost
            for i in range(n):
                out[i] += slope * row[i]
                for j in range(i + 1 if matrix else 0):
                    out[n + i * (i + 1) // 2 + j] += bend * row[i] * row[j]
        return f

    return normal


def residual_passes(setting: Any, function: Any, width: int) -> Any:
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


@cached_by_code
def point_normal(f: Any, task: Task) -> Derivatives:
    """Return the function ``normal(x, out, *args) -> f`` for a model ``f(t, *parameters)``."""
    n, width = task.n, width_for(task.n)
    passes = functools.partial(single_pass if width == n else several_passes, task=task)
    return LinkedDerivatives(passes, curve_function(f, n, task.predictors), width)


@cached_by_code
def residuals_and_jacobian(fun: Any, n: int) -> Derivatives:
    """Return the function of `residual_passes`."""
    return LinkedDerivatives(residual_passes, fun, width_for(n))
