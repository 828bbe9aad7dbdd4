"""Compiled functions of tuples of arrays, as functions of one vector that holds all of them, one after another."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from rmsprop_nb._numba.code_cache import cached_by_code
from rmsprop_nb._numba.decorators import user_jit

_OTHER_NUMBER = "a gradient has another number of arrays than x0."
_OTHER_SHAPE = "an array of a gradient has another shape than that of x0."


class Leaf(NamedTuple):
    """An array, or a number, within the vector."""

    begin: int
    end: int
    shape: tuple[int, ...]


class Nest(NamedTuple):
    """A tuple, or what ``make(*items)`` makes of its items: a named tuple."""

    make: Callable[..., Any] | None
    items: tuple[Leaf | Nest, ...]


@functools.cache
def reader(nest: Leaf | Nest) -> Any:
    """Return a compiled function that returns what a vector holds: views of it, or numbers."""
    if isinstance(nest, Leaf):
        begin, end, shape = nest
        if shape == ():
            return user_jit(lambda x: x[begin])
        return user_jit(lambda x: x[begin:end].reshape(shape))
    read = user_jit(lambda x: ())  # noqa: ARG005
    for item in reversed(nest.items):
        read = _with_first(reader(item), read)
    make = nest.make
    return read if make is None else user_jit(lambda x: make(*read(x)))


def _with_first(first: Any, rest: Any) -> Any:
    return user_jit(lambda x: (first(x), *rest(x)))


@functools.cache
def writer(nest: Leaf | Nest) -> Any:
    """Return a compiled function that copies arrays of the shapes of these into a vector."""
    if isinstance(nest, Leaf):
        return _leaf_writer(*nest)
    write = user_jit(lambda values, x: None)  # noqa: ARG005
    for item in reversed(nest.items):
        write = _with_first_written(writer(item), write)
    count = len(nest.items)

    @user_jit
    def checked(values: Any, x: Any) -> None:
        if len(values) != count:
            raise ValueError(_OTHER_NUMBER)
        write(values, x)

    return checked


def _with_first_written(first: Any, rest: Any) -> Any:
    @user_jit
    def write(values: Any, x: Any) -> None:
        first(values[0], x)
        rest(values[1:], x)

    return write


def _leaf_writer(begin: int, end: int, shape: tuple[int, ...]) -> Any:
    if shape == ():

        @user_jit
        def write_number(value: Any, x: Any) -> None:
            x[begin] = value

        return write_number

    @user_jit
    def write(value: Any, x: Any) -> None:
        if value.shape != shape:
            raise ValueError(_OTHER_SHAPE)
        x[begin:end] = value.copy().reshape(-1)

    return write


@cached_by_code
def of_vector(function: Any, nest: Nest, returns: str) -> Any:
    """Return a compiled function of a vector for one of a nest of arrays.

    Parameters
    ----------
    function : compiled function
        ``function(nest, *args)``, or with `returns` "inplace" ``function(nest, gradient, *args)``.
    nest : Nest
        What is in the vector.
    returns : {"value", "gradient", "pair", "inplace"}
        What it returns: f; the gradient, nested as the argument; both; f, and the gradient in its second argument.
    """
    read, write = reader(nest), writer(nest)
    if returns == "value":
        return user_jit(lambda x, *args: function(read(x), *args))
    if returns == "inplace":
        return user_jit(lambda x, grad, *args: function(read(x), read(grad), *args))

    @user_jit
    def gradient(x: Any, *args: Any) -> Any:
        g = np.empty_like(x)
        write(function(read(x), *args), g)
        return g

    @user_jit
    def pair(x: Any, *args: Any) -> Any:
        f, nested = function(read(x), *args)
        g = np.empty_like(x)
        write(nested, g)
        return f, g

    return gradient if returns == "gradient" else pair
