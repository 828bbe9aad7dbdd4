"""Stand-ins for functions of NumPy, and for methods of arrays, that Numba does not have for arrays of dual numbers.

Each has the parameters of what it stands for, and calls it where no dual number is among its arguments. What works
element by element needs none: see `operations`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba.core import cgutils, types
from numba.core.errors import TypingError
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, overload

from rmsprop_nb._numba.autodiff import operations
from rmsprop_nb._numba.autodiff.access import cast_dual, plain_of
from rmsprop_nb._numba.autodiff.conversions import to_float32, to_float64
from rmsprop_nb._numba.autodiff.dual import PLAIN, Dual, DualDType, is_dual, plain, width_of, with_partials
from rmsprop_nb._numba.autodiff.rules import RULES

FUNCTIONS: dict[Any, Callable[..., Any]] = {np.float64: to_float64, np.float32: to_float32}
"""The stand-in of each function."""

METHODS: dict[str, Callable[..., Any]] = {}
"""The stand-in of each method of arrays; it is given the array first."""


def _stands_for(*functions: Any, method: str | None = None) -> Callable[[Any], Any]:
    """Register a stub, of which the decorated function chooses the implementation by the types of the arguments."""

    def decorate(choose: Any) -> Any:
        def stub(*args):
            raise NotImplementedError

        stub.__name__ = stub.__qualname__ = choose.__name__.strip("_")
        overload(stub, strict=False)(choose)
        FUNCTIONS.update(dict.fromkeys(functions, stub))
        if method is not None:
            METHODS[method] = stub
        return stub

    return decorate


def is_dual_array(ty: Any) -> bool:
    """Return whether a type is an array of dual numbers."""
    return isinstance(ty, types.Array) and is_dual(ty)


def dtype_of(*tys: Any) -> DualDType:
    """Return the dtype of an array that can hold numbers of these types, some of which are dual."""
    items = [ty.dtype if isinstance(ty, types.Array) else ty for ty in tys]
    reals = [types.unliteral(plain(item)) for item in items]
    real = types.float32 if all(r in (types.float32, types.boolean) for r in reals) else types.float64
    return DualDType(Dual(width_of(tys), real))


def is_missing(parameter: Any) -> bool:
    """Return whether an optional argument was not given, or None."""
    value = parameter.value if isinstance(parameter, types.Omitted) else parameter
    return value is None or isinstance(value, types.NoneType)


def _refuse(message: str) -> Any:
    raise TypingError(message)


@_stands_for(np.sum, method="sum")
def _sum(a, axis=None):
    if not is_dual_array(a):
        return (lambda a, axis=None: np.sum(a)) if is_missing(axis) else (lambda a, axis=None: np.sum(a, axis))
    dtype = dtype_of(a)
    if is_missing(axis):

        def sum_all(a, axis=None):
            total = cast_dual(0.0, dtype)
            for item in a.flat:
                total += item
            return total

        return sum_all
    return _along_axis(a, dtype, lambda total, item: total + item, 0.0)


def _along_axis(a: Any, dtype: DualDType, add: Any, first: float) -> Any:
    """Return the implementation of a reduction of a matrix along one axis."""
    from numba import njit

    if a.ndim != 2:
        _refuse(f"reductions along an axis of values that depend on x need two dimensions, not {a.ndim}")
    combine = njit(add)

    def reduce(a, axis=None):
        along = axis + 2 if axis < 0 else axis
        if along < 0 or along > 1:
            raise ValueError("axis is out of bounds")
        out = np.empty(a.shape[1 - along], dtype)
        for i in range(out.size):
            total = cast_dual(first, dtype)
            for j in range(a.shape[along]):
                total = combine(total, a[j, i] if along == 0 else a[i, j])
            out[i] = total
        return out

    return reduce


@_stands_for(np.prod, method="prod")
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


@_stands_for(np.mean, method="mean")
def _mean(a, axis=None):
    if not is_dual_array(a):
        return (lambda a, axis=None: np.mean(a)) if is_missing(axis) else (lambda a, axis=None: np.mean(a, axis))
    if is_missing(axis):
        return lambda a, axis=None: _sum(a) / a.size
    return lambda a, axis=None: _sum(a, axis) / a.shape[axis]


@_stands_for(np.var, method="var")
def _var(a):
    if not is_dual_array(a):
        return lambda a: np.var(a)

    def var(a):
        mean = _mean(a)
        total = mean * 0.0
        for item in a.flat:
            total += (item - mean) * (item - mean)
        return total / a.size

    return var


@_stands_for(np.std, method="std")
def _std(a):
    return (lambda a: math.sqrt(_var(a))) if is_dual_array(a) else (lambda a: np.std(a))


def _extremum(function: Any, name: str, precedes: Any) -> None:
    from numba import njit

    before = njit(precedes)

    def choose(a):
        if not is_dual_array(a):
            return lambda a: function(a)

        def extremum(a):
            best = a.flat[_arg(a)]
            return best

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
    _arg = _stands_for(arg_function, method="arg" + name)(choose_place)
    _stands_for(function, method=name)(choose)


_extremum(np.min, "min", lambda a, b: a < b)
_extremum(np.max, "max", lambda a, b: a > b)


@_stands_for(np.cumsum, method="cumsum")
def _cumsum(a):
    return _accumulated(a, lambda a: np.cumsum(a), lambda total, item: total + item)


@_stands_for(np.cumprod, method="cumprod")
def _cumprod(a):
    return _accumulated(a, lambda a: np.cumprod(a), lambda total, item: total * item)


def _accumulated(a: Any, of_plain: Any, add: Any) -> Any:
    from numba import njit

    if not is_dual_array(a):
        return of_plain
    combine, dtype = njit(add), dtype_of(a)

    def accumulate(a):
        out = np.empty(a.size, dtype)
        for i, item in enumerate(a.flat):
            out[i] = item if i == 0 else combine(out[i - 1], item)
        return out

    return accumulate


@_stands_for(np.diff)
def _diff(a, n=1):
    if not is_dual_array(a):
        return lambda a, n=1: np.diff(a, n)
    if a.ndim != 1:
        _refuse("np.diff of values that depend on x needs one dimension")

    def diff(a, n=1):
        for _ in range(n):
            a = a[1:] - a[:-1]
        return a

    return diff


@_stands_for(np.dot, np.matmul, np.vdot, method="dot")
def dot(a, b):
    """Choose the product of two numbers, vectors or matrices."""
    if not (is_dual(a) or is_dual(b)):
        return (lambda a, b: np.dot(a, b)) if isinstance(a, types.Array) else (lambda a, b: a * b)
    dims = tuple(ty.ndim if isinstance(ty, types.Array) else 0 for ty in (a, b))
    if 0 in dims:
        return lambda a, b: a * b
    if max(dims) > 2:
        _refuse("products of values that depend on x need vectors and matrices")
    dtype = dtype_of(a, b)
    return {(1, 1): _dot_11, (2, 1): _dot_21, (1, 2): _dot_12, (2, 2): _dot_22}[dims](dtype)


def _check_inner(m: int, n: int) -> None:
    if m != n:
        raise ValueError("the factors of a product have different inner dimensions")


def _dot_11(dtype: DualDType) -> Any:
    def impl(a, b):
        check_inner(a.size, b.size)
        total = cast_dual(0.0, dtype)
        for k in range(a.size):
            total += a[k] * b[k]
        return total

    return impl


def _dot_21(dtype: DualDType) -> Any:
    def impl(a, b):
        check_inner(a.shape[1], b.size)
        out = np.empty(a.shape[0], dtype)
        for i in range(a.shape[0]):
            total = cast_dual(0.0, dtype)
            for k in range(b.size):
                total += a[i, k] * b[k]
            out[i] = total
        return out

    return impl


def _dot_12(dtype: DualDType) -> Any:
    def impl(a, b):
        check_inner(a.size, b.shape[0])
        out = np.zeros(b.shape[1], dtype)
        for k in range(a.size):
            for j in range(b.shape[1]):
                out[j] += a[k] * b[k, j]
        return out

    return impl


def _dot_22(dtype: DualDType) -> Any:
    def impl(a, b):
        check_inner(a.shape[1], b.shape[0])
        out = np.zeros((a.shape[0], b.shape[1]), dtype)
        for i in range(a.shape[0]):
            for k in range(b.shape[0]):
                for j in range(b.shape[1]):
                    out[i, j] += a[i, k] * b[k, j]
        return out

    return impl


def check_inner(m, n):
    """Stand for `_check_inner` in compiled code."""


@overload(check_inner)
def _check_inner_overload(m, n):
    return _check_inner


@_stands_for(np.outer)
def _outer(a, b):
    if not (is_dual(a) or is_dual(b)):
        return lambda a, b: np.outer(a, b)
    return lambda a, b: a.reshape((a.size, 1)) * b.reshape((1, b.size))


@_stands_for(np.linalg.norm)
def _norm(a, ord=None):
    if not is_dual_array(a):
        return (
            (lambda a, ord=None: np.linalg.norm(a)) if is_missing(ord) else (lambda a, ord=None: np.linalg.norm(a, ord))
        )
    if is_missing(ord):
        return lambda a, ord=None: math.sqrt(_sum(a * a))
    if a.ndim != 1:
        _refuse("np.linalg.norm of a matrix of values that depend on x takes no ord")

    def norm(a, ord=None):
        if ord == 2:
            return math.sqrt(_sum(a * a))
        if ord == 1:
            return _sum(np.abs(a))
        if ord == np.inf:
            return METHODS_MAX(np.abs(a))
        raise ValueError("np.linalg.norm of values that depend on x has ord 1, 2 and infinity")

    return norm


METHODS_MAX = METHODS["max"]


def select(condition, a, b):
    """Stand for np.where with three arguments of which one is dual."""


@infer_global(select)
class _Select(AbstractTemplate):
    def generic(self, args: Any, kws: Any) -> Any:
        width = width_of(args)
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
operations._lower(select)


@_stands_for(np.where)
def _where(condition, x=None, y=None):
    if is_missing(x):
        return lambda condition, x=None, y=None: np.where(condition)
    if width_of((x, y)):
        return lambda condition, x=None, y=None: select(condition, x, y)
    return lambda condition, x=None, y=None: np.where(condition, x, y)


@_stands_for(np.clip, method="clip")
def _clip(a, a_min=None, a_max=None):
    if not width_of((a, a_min, a_max)):
        return lambda a, a_min=None, a_max=None: np.clip(a, a_min, a_max)
    if is_missing(a_min):
        return lambda a, a_min=None, a_max=None: np.minimum(a, a_max)
    if is_missing(a_max):
        return lambda a, a_min=None, a_max=None: np.maximum(a, a_min)
    return lambda a, a_min=None, a_max=None: np.minimum(np.maximum(a, a_min), a_max)


@_stands_for(method="astype")
def _astype(a, dtype):
    if not is_dual_array(a):
        return lambda a, dtype: a.astype(dtype)
    real = dtype.dtype if isinstance(dtype, types.DType) else getattr(dtype, "instance_type", None)
    if isinstance(real, Dual):
        real = real.real
    if not isinstance(real, types.Float):
        _refuse(f"astype({real}) of values that depend on x would drop their derivatives")
    target = DualDType(a.dtype.of(real))

    def astype(a, dtype):
        out = np.empty(a.shape, target)
        for i, item in np.ndenumerate(a):
            out[i] = item
        return out

    return astype


@_stands_for(method="item")
def _item(a):
    return (lambda a: a.flat[0]) if is_dual_array(a) else (lambda a: a.item())


@_stands_for()
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


@_stands_for(np.searchsorted)
def _searchsorted(a, v, side="left"):
    return lambda a, v, side="left": np.searchsorted(values(a), values(v), side)


@_stands_for(np.argsort, method="argsort")
def _argsort(a):
    return lambda a: np.argsort(values(a))


@_stands_for(np.sort)
def _sort(a):
    return (lambda a: a[np.argsort(values(a))]) if is_dual_array(a) else (lambda a: np.sort(a))


@_stands_for(np.interp)
def _interp(x, xp, fp):
    if not width_of((x, xp, fp)):
        return lambda x, xp, fp: np.interp(x, xp, fp)
    if width_of((xp,)):
        _refuse("np.interp needs nodes that do not depend on x")
    if isinstance(x, types.Array):
        dtype = dtype_of(x, fp)

        def interp_all(x, xp, fp):
            out = np.empty(x.size, dtype)
            for i in range(x.size):
                out[i] = interpolate(x[i], xp, fp)
            return out

        return interp_all
    return lambda x, xp, fp: interpolate(x, xp, fp)


@_stands_for()
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


@intrinsic
def _dual_items(typingctx: Any, items: Any, dtype: Any) -> Any:
    """Return the numbers of a tuple, or those of the tuples in it, as dual ones."""
    dual = dtype.dtype

    def converted(ty: Any) -> Any:
        return types.UniTuple(converted(ty.types[0]), len(ty)) if isinstance(ty, types.BaseTuple) else dual

    def convert(context: Any, builder: Any, ty: Any, value: Any) -> Any:
        if not isinstance(ty, types.BaseTuple):
            return context.cast(builder, value, ty, dual)
        unpacked = zip(ty.types, cgutils.unpack_tuple(builder, value), strict=True)
        return context.make_tuple(builder, converted(ty), [convert(context, builder, *item) for item in unpacked])

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return convert(context, builder, items, args[0])

    return converted(items)(items, dtype), codegen


@_stands_for(np.array, np.asarray)
def array(object, dtype=None):
    """Choose how to make an array; tuples and lists may hold dual and plain numbers, or rows of them."""
    if isinstance(object, types.Array) and is_dual(object):
        return lambda object, dtype=None: object.copy()
    numbers = _numbers_in(object)
    if not any(map(is_dual, numbers)):
        if is_missing(dtype):
            return lambda object, dtype=None: np.array(object)
        return lambda object, dtype=None: np.array(object, dtype)
    target = dtype_of(*numbers)
    if isinstance(object, types.BaseTuple) and all(isinstance(number, (Dual, *PLAIN.__args__)) for number in numbers):
        if isinstance(object.types[0], types.BaseTuple):
            return lambda object, dtype=None: _rows(_dual_items(object, target), target)
        return lambda object, dtype=None: _numbers(_dual_items(object, target), target)
    if isinstance(object.dtype, Dual):
        return lambda object, dtype=None: _numbers(object, target)
    return lambda object, dtype=None: _rows(object, target)


def _numbers_in(ty: Any) -> tuple[Any, ...]:
    """Return the types of the numbers in nested tuples and lists."""
    if isinstance(ty, types.BaseTuple):
        return tuple(number for item in ty.types for number in _numbers_in(item))
    return _numbers_in(ty.dtype) if isinstance(ty, types.Sequence) else (ty,)


@_stands_for()
def _numbers(items, dtype):
    def impl(items, dtype):
        out = np.empty(len(items), dtype)
        for i in range(len(items)):
            out[i] = items[i]
        return out

    return impl


@_stands_for()
def _rows(rows, dtype):
    def impl(rows, dtype):
        out = np.empty((len(rows), len(rows[0])), dtype)
        for i in range(len(rows)):
            for j in range(len(rows[0])):
                out[i, j] = rows[i][j]
        return out

    return impl


@_stands_for(np.full)
def _full(shape, fill_value, dtype=None):
    if isinstance(fill_value, Dual) and is_missing(dtype):
        target = dtype_of(fill_value)

        def full(shape, fill_value, dtype=None):
            out = np.empty(shape, target)
            out[...] = fill_value
            return out

        return full
    if is_missing(dtype):
        return lambda shape, fill_value, dtype=None: np.full(shape, fill_value)
    return lambda shape, fill_value, dtype=None: np.full(shape, fill_value, dtype)


@_stands_for(np.linspace)
def _linspace(start, stop, num=50):
    if not width_of((start, stop)):
        return lambda start, stop, num=50: np.linspace(start, stop, num)

    def linspace(start, stop, num=50):
        step = (stop - start) / (num - 1) if num > 1 else stop - start
        return np.arange(num) * step + start

    return linspace


ALLOCATORS: dict[Any, Callable[..., Any]] = {}
"""The stand-ins of functions that make arrays of plain numbers, which are given the dtype of dual ones first."""


def _allocates(function: Any) -> Callable[[Any], Any]:
    def decorate(choose: Any) -> Any:
        def stub(*args):
            raise NotImplementedError

        stub.__name__ = stub.__qualname__ = choose.__name__.strip("_")
        overload(stub, strict=False)(choose)
        ALLOCATORS[function] = stub
        return stub

    return decorate


def _dual_dtype(marker: Any, dtype: Any) -> DualDType | None:
    """Return the dtype to allocate in the place of one that a function asks for, None to leave it."""
    if is_missing(dtype):
        return DualDType(marker.dtype.of(types.float64))
    real = getattr(dtype, "dtype", None) or getattr(dtype, "instance_type", None)
    real = types.float64 if isinstance(dtype, types.Function) and dtype.typing_key is float else real
    if isinstance(real, types.Float):
        return DualDType(marker.dtype.of(real))
    return None


def _allocator_of_shape(function: Any) -> None:
    @_allocates(function)
    def allocate(marker, shape, dtype=None):
        target = _dual_dtype(marker, dtype)
        if target is not None:
            return lambda marker, shape, dtype=None: function(shape, target)
        return lambda marker, shape, dtype=None: function(shape, dtype)


def _allocator_like(function: Any, of_shape: Any) -> None:
    @_allocates(function)
    def allocate(marker, a, dtype=None):
        chosen = a if is_missing(dtype) else dtype
        target = _dual_dtype(marker, chosen)
        if is_dual(a) or target is None:
            if is_missing(dtype):
                return lambda marker, a, dtype=None: function(a)
            return lambda marker, a, dtype=None: function(a, dtype)
        return lambda marker, a, dtype=None: of_shape(a.shape, target)


for _function, _like in ((np.zeros, np.zeros_like), (np.empty, np.empty_like), (np.ones, np.ones_like)):
    _allocator_of_shape(_function)
    _allocator_like(_like, _function)


@_allocates(np.full)
def _full_of_duals(marker, shape, fill_value, dtype=None):
    if isinstance(types.unliteral(fill_value), types.Integer) and is_missing(dtype):
        return lambda marker, shape, fill_value, dtype=None: np.full(shape, fill_value)
    target = _dual_dtype(marker, dtype)
    if target is None:
        return lambda marker, shape, fill_value, dtype=None: np.full(shape, fill_value, dtype)

    def full(marker, shape, fill_value, dtype=None):
        out = np.empty(shape, target)
        out[...] = fill_value
        return out

    return full
