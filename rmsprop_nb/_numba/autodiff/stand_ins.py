"""The registry of stand-ins for functions of NumPy, and for methods of arrays, that do not know dual numbers.

A stand-in has the parameters of what it stands for, and calls it where no dual number is among its arguments. What
works element by element needs none: see `operations`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from rmsprop_nb._numba.autodiff.conversions import to_float32, to_float64
from rmsprop_nb._numba.autodiff.dual import Dual, DualDType, is_dual, plain, width_of

FUNCTIONS: dict[Any, Callable[..., Any]] = {np.float64: to_float64, np.float32: to_float32}
"""The stand-in of each function."""

METHODS: dict[str, Callable[..., Any]] = {}
"""The stand-in of each method of arrays; it is given the array first."""

ALLOCATORS: dict[Any, Callable[..., Any]] = {}
"""The stand-ins of functions that make arrays of plain numbers, which are given the dtype of dual ones first."""


def _stub(choose: Any) -> Any:
    """Return a function that compiled code can call, with the implementation that `choose` returns for the types."""

    def stub(*args):
        raise NotImplementedError

    stub.__name__ = stub.__qualname__ = choose.__name__.strip("_")
    overload(stub, strict=False)(choose)
    return stub


def stands_for(*functions: Any, method: str | None = None) -> Callable[[Any], Any]:
    """Decorate the choice of an implementation for functions, and for a method of arrays."""

    def decorate(choose: Any) -> Any:
        stub = _stub(choose)
        FUNCTIONS.update(dict.fromkeys(functions, stub))
        if method is not None:
            METHODS[method] = stub
        return stub

    return decorate


def allocates(function: Any) -> Callable[[Any], Any]:
    """Decorate the choice of an implementation for a function that makes an array."""

    def decorate(choose: Any) -> Any:
        ALLOCATORS[function] = _stub(choose)
        return ALLOCATORS[function]

    return decorate


def is_dual_array(ty: Any) -> bool:
    """Return whether a type is an array of dual numbers."""
    return isinstance(ty, types.Array) and is_dual(ty)


def dtype_of(*tys: Any) -> Any:
    """Return the dtype of an array that can hold numbers of these types, some of which are dual."""
    items = [ty.dtype if isinstance(ty, types.Array) else ty for ty in tys]
    reals = [types.unliteral(plain(item)) for item in items]
    real = types.float32 if all(r in (types.float32, types.boolean) for r in reals) else types.float64
    return DualDType(Dual(width_of(tys), real))


def is_missing(parameter: Any) -> bool:
    """Return whether an optional argument was not given, or None."""
    value = parameter.value if isinstance(parameter, types.Omitted) else parameter
    return value is None or isinstance(value, types.NoneType)
