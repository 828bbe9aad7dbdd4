"""Sums of squares from functions that return values: f, its gradient J'r, and the lower triangle of J'J behind it."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rmsprop_nb._numba.autodiff.normal_equations import filled_length, residuals_and_jacobian
from rmsprop_nb._numba.code_cache import cached_by_code
from rmsprop_nb._numba.decorators import shared_jit, user_jit
from rmsprop_nb._objectives.jacobians import COUNT_CHANGES, make_fill
from rmsprop_nb._objectives.losses import loss_function


class Terms(NamedTuple):
    """How values become f: the name of the loss, whether J'J is wanted, and whether for steps or for covariances."""

    loss: str
    matrix: bool
    for_steps: bool = True

    def length(self, n: int) -> int:
        """Return the length of what an objective of n variables fills."""
        return filled_length(n, self.matrix)

    @property
    def function(self) -> Any:
        """The loss itself."""
        return loss_function(self.loss, self.for_steps)


class Places(NamedTuple):
    """Where things are among the args of an objective.

    Attributes
    ----------
    y, sigma : int
        The data, and their errors. An empty y stands for zeros, an empty sigma for ones.
    scale : int
        The scale of the loss.
    lower, upper : int
        The bounds, which differences need.
    rows : int
        What takes the values and J, side by side; see `keep`.
    first, last : tuple of int
        Begin and end of the args of the model: two ranges, of which one may be empty.
    """

    y: int
    sigma: int
    scale: int
    lower: int
    upper: int
    rows: int
    first: tuple[int, int]
    last: tuple[int, int]

    def args_of_model(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return those of the args that are the model's."""
        return args[slice(*self.first)] + args[slice(*self.last)]


@cached_by_code
def compiled_residuals(function: Any, jac: Any, n: int, terms: Terms, places: Places) -> Any:
    """Return the objective for a compiled ``function(x, *args) -> values``, and a compiled or named `jac`."""
    return user_jit(_objective(compiled_fill(function, jac, n), make_sum(terms), places))


@cached_by_code
def compiled_fill(function: Any, jac: Any, n: int) -> Any:
    """Return `fill`, compiled, for ``function(x, *args)`` of n variables."""
    if isinstance(jac, str) and jac == "autodiff":
        exact = residuals_and_jacobian(function, n)
        return user_jit(lambda x, _box, args: exact(x, *args))
    return user_jit(make_fill(function, jac))


@dataclasses.dataclass(frozen=True, repr=False)
class PythonResiduals:
    """The objective for ``function(x, *args) -> values`` in Python.

    Attributes
    ----------
    function : callable
        Returns the values; with `spread` it takes the points of a curve and then each parameter by itself.
    jac : callable or str
        Returns J in the same way, or names what makes it.
    """

    function: Callable[..., Any]
    jac: Any
    terms: Terms
    places: Places
    spread: bool

    def __call__(self, x: NDArray[np.float64], out: NDArray[np.float64], *args: Any) -> float:
        """Fill `out` and return f."""
        fill = self._fill(args[self.places.y].size)
        with np.errstate(all="ignore"):  # the run answers values that are not finite
            return float(_objective(fill, make_sum(self.terms), self.places)(x, out, *args))

    def __repr__(self) -> str:
        return repr(self.function)  # the user's, for messages

    def _fill(self, count: int) -> Any:
        """Return `fill` for as many values; 0 if their number is not known."""
        warned_of = np.geterr()  # as the user has set it

        def function(x: NDArray[Any], *args: Any) -> NDArray[Any]:
            with np.errstate(**warned_of):
                return _as_values(self._called(self.function, x, args), count, x.dtype.kind)

        def jac(x: NDArray[Any], *args: Any) -> NDArray[np.float64]:
            with np.errstate(**warned_of):
                return np.atleast_2d(np.asarray(self._called(self.jac, x, args), np.float64))

        return make_fill(function, jac if callable(self.jac) else self.jac)

    def _called(self, function: Callable[..., Any], x: NDArray[Any], args: tuple[Any, ...]) -> Any:
        return function(*args, *x) if self.spread else function(x, *args)


def _as_values(result: Any, count: int, kind: str) -> NDArray[Any]:
    """Return what the user's function returned as a vector; a number stands for a constant.

    Where x is of the kind "c", the values are those of a complex step.
    """
    values = np.asarray(result)
    if values.dtype.kind not in "fiub" + kind:
        msg = f"the function to be fitted must return real numbers, got dtype {values.dtype}."
        raise TypeError(msg)
    if values.ndim == 0:
        return np.full(max(count, 1), values)
    if values.ndim != 1:
        msg = f"the function to be fitted must return an array with one axis, got shape {values.shape}."
        raise ValueError(msg)
    return values


@functools.lru_cache(maxsize=64)
def make_sum(terms: Terms) -> Any:
    """Return ``add(values, J, y, sigma, scale, out) -> f``, compiled, which fills `out`.

    Points are left out where y is NaN or sigma infinite.
    """
    loss, matrix = terms.function, terms.matrix

    def add(values, jacobian, y, sigma, scale, out):
        n = jacobian.shape[1]
        for k in range(out.size):
            out[k] = 0.0
        f = 0.0
        for m in range(values.size):
            target = y[m] if y.size else 0.0
            weight = 1.0 / sigma[m] if sigma.size else 1.0
            if weight == 0.0 or math.isnan(target):
                continue
            cost, slope, bend = loss(values[m], target, weight, scale)
            f += cost
            for i in range(n):
                out[i] += slope * jacobian[m, i]
            if matrix:
                for i in range(n):
                    for j in range(i + 1):
                        out[n + i * (i + 1) // 2 + j] += bend * jacobian[m, i] * jacobian[m, j]
        return f

    return shared_jit(add)


def _objective(fill: Any, add: Any, places: Places) -> Any:
    """Build the objective from functions for the values and J, and for the sum."""
    y, sigma, scale, lower, upper, rows, (begin, end), (begin_last, end_last) = places
    shape = "jac must return a row for each value and a column for each parameter."
    data = "f must return as many values as there are data, and sigma must have as many elements."

    def objective(x, out, *args):
        model_args = args[begin:end] + args[begin_last:end_last]
        values, jacobian = fill(x, (args[lower], args[upper]), model_args)
        count = values.size
        if jacobian.shape[0] != count or jacobian.shape[1] != x.size:
            raise ValueError(shape)
        if (args[y].size > 0 and args[y].size != count) or (args[sigma].size > 0 and args[sigma].size != count):
            raise ValueError(data)
        keep(values, jacobian, args[rows])
        return add(values, jacobian, args[y], args[sigma], args[scale], out)

    return objective


@shared_jit
def keep(values, jacobian, rows):
    """Copy the values and J into `rows`: side by side if there is room, nothing if it is empty.

    An array of one element takes the number of values.
    """
    if rows.size == 1:
        rows[0, 0] = values.size
    elif rows.size:
        if rows.shape[0] != values.size or rows.shape[1] != jacobian.shape[1] + 1:
            raise ValueError(COUNT_CHANGES)
        for m in range(values.size):
            rows[m, 0] = values[m]
            for i in range(jacobian.shape[1]):
                rows[m, 1 + i] = jacobian[m, i]
