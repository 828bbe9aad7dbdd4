"""The objective of many fits, from a function that returns values: what they share, and what each has of its own."""

from __future__ import annotations

import dataclasses
import logging
from typing import Any, NamedTuple

import numpy as np
from numba import typeof, types
from numba.extending import is_jitted
from numpy.typing import NDArray

from rmsprop_nb._core.fit_arguments import Boxes
from rmsprop_nb._numba.autodiff.normal_equations import residuals_and_jacobian
from rmsprop_nb._numba.decorators import JIT_ENABLED
from rmsprop_nb._objectives.compiled import compile_objective
from rmsprop_nb._objectives.interpreted import PythonObjective
from rmsprop_nb._objectives.losses import loss_function
from rmsprop_nb._objectives.problem import MATRIX, Problem
from rmsprop_nb._objectives.residuals import Places, PythonResiduals, Terms, compiled_residuals

logger = logging.getLogger("rmsprop_nb")

VECTOR = types.Array(types.float64, 1, "C")


class Arranged(NamedTuple):
    """The args of the objectives of many fits: what all share, what each has of its own, and where things are."""

    shared: tuple[Any, ...]
    rows: tuple[NDArray[Any], ...]
    places: Places

    def args_of(self, k: int) -> tuple[Any, ...]:
        """Return the args of fit k."""
        return (*self.shared, *(row[k] for row in self.rows))

    def types(self) -> list[Any]:
        """Return the types of the args."""
        return [typeof(argument) for argument in self.args_of(0)]


def arrange(parts: dict[str, tuple[Any, bool]], args: tuple[Any, ...] = (), rows: tuple[Any, ...] = ()) -> Arranged:
    """Put the args in order.

    Parameters
    ----------
    parts : dict
        "y", "sigma", "scale", "lower" and "upper", and "points" where that is all that the model is given. Each is a
        value, and whether its first axis is that of the fits.
    args, rows : tuple
        What the model is given where there are no "points": args that all share, and arrays with a row for each fit.
    """
    parts = parts | {"rows": (np.empty((0, 0)), False)}
    shared = {name: value for name, (value, is_own) in parts.items() if not is_own}
    own = {name: value for name, (value, is_own) in parts.items() if is_own}
    begin = len(shared)
    end = begin + len(args)
    begin_last = end + len(own)
    place = {name: k for k, name in enumerate(shared)} | {name: end + k for k, name in enumerate(own)}
    first, last = (begin, end), (begin_last, begin_last + len(rows))
    if "points" in parts:
        first, last = (place["points"], place["points"] + 1), (0, 0)
    y, sigma, scale, lower, upper, kept = (place[name] for name in Places._fields[:6])
    places = Places(y, sigma, scale, lower, upper, kept, first, last)
    return Arranged((*shared.values(), *args), (*own.values(), *rows), places)


class Chosen(NamedTuple):
    """The function that is an objective, and where its derivatives come from."""

    function: Any
    source: str


def choose(function: Any, jac: Any, n: int, arranged: Arranged, terms: Terms) -> Chosen:
    """Return what the objective for ``function(x, *args) -> values`` is made of, compiled if that is possible.

    Raises
    ------
    TypeError
        If exact derivatives are asked for by name and there are none.
    """
    places = arranged.places
    if not (is_jitted(function) and JIT_ENABLED) or (callable(jac) and not is_jitted(jac)):
        if jac == "autodiff":
            raise TypeError(not_compiled(function))
        objective = PythonResiduals(function, jac or "2-point", terms, places, spread=False)
        return Chosen(objective, source_of(jac))
    if jac is None:
        jac = "autodiff" if has_exact_jacobian(function, n, arranged) else "2-point"
    elif jac == "autodiff":
        prepare_jacobian(function, n, arranged)
    objective = compiled_residuals(function, jac, n, terms, places)
    return Chosen(objective, source_of(jac))


def source_of(jac: Any) -> str:
    """Return where derivatives come from, in a word for the result."""
    return "given" if callable(jac) else jac or "2-point"


def not_compiled(function: Any) -> str:
    """Return the message for exact derivatives of what is not compiled."""
    return f"jac='autodiff' needs a function compiled with numba.njit, got {function!r}; compile it, or use '2-point'."


def has_exact_jacobian(function: Any, n: int, arranged: Arranged) -> bool:
    """Return whether a compiled function has exact derivatives."""
    try:
        prepare_jacobian(function, n, arranged)
    except TypeError as error:
        logger.debug("derivatives are made of differences, because there are no exact ones: %s", error)
        return False
    return True


def prepare_jacobian(function: Any, n: int, arranged: Arranged) -> None:
    """Compile exact derivatives; a TypeError says what stands in their way."""
    args = arranged.places.args_of_model(tuple(arranged.types()))
    residuals_and_jacobian(function, n).prepare((VECTOR, *args))


class FitObjective:
    """The objective of many fits.

    Attributes
    ----------
    problem : Problem
        What all fits share.
    rows : tuple of ndarray
        What each fit has of its own, with an axis of length B in front.
    source : str
        Where derivatives come from: "autodiff", "2-point", "3-point", "cs" or "given".
    """

    def __init__(self, chosen: Chosen, arranged: Arranged, boxes: Boxes, terms: Terms) -> None:
        self._arranged = arranged
        self._terms = terms
        self.rows = arranged.rows
        self.source = chosen.source
        none = np.empty(0)
        shared_box = boxes if boxes.lower.ndim == 1 else Boxes(none, none)
        form = MATRIX if terms.matrix else "inplace"
        self.problem = Problem(chosen.function, form, arranged.shared, *shared_box, exact=chosen.source == "autodiff")

    def values_and_jacobian(self, k: int, x: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the values of the model of fit k at x, and their derivatives by the parameters."""
        y = self._arranged.args_of(k)[self._arranged.places.y]
        count = y.size or int(self._kept(k, x, (1, 1))[0, 0])
        rows = self._kept(k, x, (count, x.size + 1))
        return rows[:, 0].copy(), rows[:, 1:].copy()

    def _kept(self, k: int, x: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.float64]:
        """Return what one evaluation of fit k keeps in an array of this shape; nothing is compiled for it."""
        args, rows = list(self._arranged.args_of(k)), np.empty(shape)
        args[self._arranged.places.rows] = rows
        problem = dataclasses.replace(self.problem, args=tuple(args))
        objective = compile_objective(problem, x.dtype) or PythonObjective(problem, x.dtype)
        objective(np.array(x), np.empty(self._terms.length(x.size)))
        return rows

    def weighted_jacobian(self, k: int, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return J of fit k at x, with rows weighted so that J'J is what the objective gives."""
        values, jacobian = self.values_and_jacobian(k, x)
        args, places = self._arranged.args_of(k), self._arranged.places
        bends = _bends(values, args[places.y], args[places.sigma], args[places.scale], self._terms.loss)
        return np.asarray(jacobian * np.sqrt(bends)[:, np.newaxis])

    def residuals(self, k: int, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the residuals of fit k at x, divided by their errors; points that are left out have none."""
        values, _ = self.values_and_jacobian(k, x)
        args, places = self._arranged.args_of(k), self._arranged.places
        y, sigma = args[places.y], args[places.sigma]
        residuals = values - y if y.size else values
        present = ~np.isnan(y) if y.size else np.ones(len(values), bool)
        if sigma.size:
            residuals, present = residuals / sigma, present & np.isfinite(sigma)
        return np.asarray(residuals[present])


def _bends(values: Any, y: Any, sigma: Any, scale: float, name: str) -> NDArray[np.float64]:
    """Return what stands for the second derivative of the cost of each value; 0 for points that are left out."""
    loss, bends = loss_function(name, for_steps=False), np.zeros(len(values))
    for m, value in enumerate(values):
        target = float(y[m]) if y.size else 0.0
        weight = 1.0 / float(sigma[m]) if sigma.size else 1.0
        if weight != 0.0 and not np.isnan(target):
            bends[m] = loss(float(value), target, weight, scale)[2]
    return bends
