"""Parameters in containers, as x0 of the front ends: dicts, lists and tuples of arrays, in place of one vector."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec

import numpy as np
from numba.extending import is_jitted
from numpy.typing import NDArray
from scipy.optimize import Bounds, OptimizeResult

from rmsprop_nb._core.callbacks import takes_result
from rmsprop_nb._core.validate import as_array, as_options, as_start, refuse_device, refuse_mask
from rmsprop_nb._numba.nested_arrays import Leaf, Nest, of_vector
from rmsprop_nb._training import pytree

P = ParamSpec("P")

_PER_VARIABLE = ("x_scale", "finite_diff_rel_step", "learning_rate")


def takes_containers(function: Callable[P, OptimizeResult]) -> Callable[P, OptimizeResult]:
    """Make a front end, whose second argument is x0, take containers of arrays there."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*args: P.args, **given: P.kwargs) -> OptimizeResult:
        if not is_container(args[1] if len(args) > 1 else given.get("x0")):
            return function(*args, **given)
        bound = signature.bind(*args, **given)
        containers = Containers(bound.arguments["x0"])
        bound.arguments |= containers.arguments(bound.arguments)
        return containers.result(function(*bound.args, **bound.kwargs))

    return call


def is_container(x0: Any) -> bool:
    """Return whether x0 holds arrays, where a sequence of numbers is an array itself."""
    if isinstance(x0, dict):
        return True
    return isinstance(x0, list | tuple) and any(getattr(item, "shape", ()) != () or is_container(item) for item in x0)


class Containers:
    """The arrays of x0, as they lie in one vector.

    Parameters
    ----------
    x0 : dict, list or tuple
        Nested containers of arrays and numbers.
    name : str, default "x0"
        What messages call it.

    Raises
    ------
    TypeError, ValueError
        If there is anything else in it; the message says where.
    """

    def __init__(self, x0: Any, name: str = "x0") -> None:
        self._name = name
        self._structure = pytree.structure_of(x0, name)
        self._paths = pytree.paths(self._structure)
        given = pytree.leaves(self._structure, x0, name)
        self._shapes = []
        parts = []
        for path, leaf in zip(self._paths, given, strict=True):
            where = f"{name}{path}"
            refuse_device(where, leaf)
            refuse_mask(where, leaf, "pass its .filled(...)")
            array = as_array(where, leaf)
            self._shapes.append(array.shape)
            parts.append(as_start(array.ravel(), where))
        if not parts:
            msg = f"{name} must have at least one array, got empty containers."
            raise ValueError(msg)
        self._x0 = np.concatenate(parts)
        self._ends = np.cumsum([0, *(part.size for part in parts)]).tolist()

    def arguments(self, given: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments that the front end is to be called with in place of those of the user."""
        jac = given.get("jac")
        changed = {"x0": self._x0, "bounds": self._bounds(given.get("bounds"))}
        returns = "pair" if jac is True else "inplace" if isinstance(jac, str) and jac == "inplace" else "value"
        changed["fun"] = self._function("fun", given["fun"], returns)
        if callable(jac):
            changed["jac"] = self._function("jac", jac, "gradient")
        if callable(given.get("callback")):
            changed["callback"] = self._callback(given["callback"])
        for name in _PER_VARIABLE:
            if name in given:
                changed[name] = self._spread(name, given[name])
        if given.get("options"):
            options = as_options(given["options"])
            changed["options"] = {
                name: self._spread(name, value) if name in _PER_VARIABLE else value for name, value in options.items()
            }
        return changed

    def place(self, k: int) -> str:
        """Return how an element of the vector is reached: ``['W'][0, 2]``."""
        leaf = int(np.searchsorted(self._ends, k, side="right")) - 1
        index = np.unravel_index(k - self._ends[leaf], self._shapes[leaf])
        return self._paths[leaf] + (f"[{', '.join(map(str, index))}]" if index else "")

    def result(self, result: OptimizeResult) -> OptimizeResult:
        """Return the result with x and its gradient in containers like x0."""
        for name in ("x", "jac"):
            if name in result:
                result[name] = self.nested(result[name])
        if "allvecs" in result:
            result["allvecs"] = [self.nested(x) for x in result["allvecs"]]
        return result

    def nested(self, x: NDArray[Any], *, numbers: bool = True) -> Any:
        """Return what a vector holds, as views of it; `numbers` says whether arrays without axes become numbers."""
        parts = (
            x[begin] if numbers and shape == () else x[begin:end].reshape(shape)
            for shape, begin, end in zip(self._shapes, self._ends, self._ends[1:], strict=False)
        )
        return pytree.rebuild(self._structure, parts)

    def _vector(self, name: str, tree: Any, dtype: Any) -> NDArray[Any]:
        """Return the vector for a container like x0, whose arrays have the same shapes."""
        found = np.empty(self._x0.size, dtype)
        leaves = pytree.leaves(self._structure, tree, name, self._name)
        for path, leaf, shape, begin, end in zip(
            self._paths, leaves, self._shapes, self._ends, self._ends[1:], strict=False
        ):
            array = as_array(f"{name}{path}", leaf)
            if array.shape != shape:
                msg = f"{name}{path} must have the shape {shape} of {self._name}{path}, got {array.shape}."
                raise ValueError(msg)
            found[begin:end] = array.ravel()
        return found

    def _spread(self, name: str, given: Any) -> Any:
        """Return numbers, one for each array of x0 or of its shape, as a vector; what is no container is returned."""
        if not isinstance(given, dict | list | tuple):
            return given
        leaves = pytree.leaves(self._structure, given, name, self._name)
        parts = [
            self._broadcast(f"{name}{path}", leaf, shape)
            for path, leaf, shape in zip(self._paths, leaves, self._shapes, strict=True)
        ]
        return np.concatenate(parts)

    @staticmethod
    def _broadcast(name: str, given: Any, shape: tuple[int, ...]) -> NDArray[Any]:
        try:
            return np.broadcast_to(as_array(name, given), shape).ravel()
        except ValueError:
            msg = f"{name} must be a number, or an array of the shape {shape} as in x0, got shape {np.shape(given)}."
            raise ValueError(msg) from None

    def _bounds(self, bounds: Any) -> Any:
        """Return bounds of the vector for a pair for each array, or for ends that are containers."""
        if bounds is None:
            return None
        if hasattr(bounds, "lb") and hasattr(bounds, "ub"):
            # SciPy makes an array of objects of a dict
            lower, upper = (np.asarray(end).item() if np.size(end) == 1 else end for end in (bounds.lb, bounds.ub))
            return Bounds(self._spread("bounds.lb", lower), self._spread("bounds.ub", upper))
        pairs = pytree.leaves(self._structure, bounds, "bounds", self._name)
        ends: tuple[list[NDArray[Any]], list[NDArray[Any]]] = ([], [])
        for path, pair, shape in zip(self._paths, pairs, self._shapes, strict=True):
            if not isinstance(pair, list | tuple) or len(pair) != 2:
                msg = f"bounds{path} must be a pair (lower, upper), as one for each array of x0, got {pair!r}."
                raise ValueError(msg)
            for found, end, without in zip(ends, pair, (-np.inf, np.inf), strict=True):
                found.append(self._broadcast(f"bounds{path}", without if end is None else end, shape))
        return Bounds(np.concatenate(ends[0]), np.concatenate(ends[1]))

    def _callback(self, callback: Callable[..., Any]) -> Callable[..., Any]:
        if not takes_result(callback):
            return lambda xk: callback(self.nested(xk))

        def with_result(intermediate_result: OptimizeResult) -> Any:
            return callback(intermediate_result=self.result(intermediate_result))

        return with_result

    def _function(self, name: str, function: Any, returns: str) -> Any:
        """Return the user's function as one of a vector."""
        if is_jitted(function):
            return of_vector(function, self._nest(name, self._structure, iter(self._leaves()), returns), returns)
        if not callable(function):
            return function  # to be refused
        return functools.partial(getattr(self, f"_{returns}"), function)

    def _leaves(self) -> list[Leaf]:
        return [Leaf(*leaf) for leaf in zip(self._ends[:-1], self._ends[1:], self._shapes, strict=True)]

    def _nest(self, name: str, structure: pytree.Structure, leaves: Any, returns: str) -> Any:
        """Return what compiled code is to make of a vector: tuples, also in the place of lists."""
        if structure.container is None:
            leaf = next(leaves)
            if leaf.shape == () and returns == "inplace":
                msg = "jac='inplace' fills arrays, and x0 has a number among them; make it an array of shape (1,)."
                raise TypeError(msg)
            return leaf
        if structure.container is dict:
            msg = (
                f"x0 has a dict, which the compiled {name} cannot take; use a named tuple, whose fields have names "
                f"too, or leave {name} uncompiled."
            )
            raise TypeError(msg)
        make = getattr(structure.container, "_make", None) and structure.container
        return Nest(make, tuple(self._nest(name, child, leaves, returns) for child in structure.children))

    # what Python calls, by what the user's function returns

    def _value(self, function: Callable[..., Any], x: NDArray[Any], *args: Any) -> Any:
        return function(self.nested(x), *args)

    def _gradient(self, function: Callable[..., Any], x: NDArray[Any], *args: Any) -> Any:
        return self._vector("the gradient", function(self.nested(x), *args), x.dtype)

    def _pair(self, function: Callable[..., Any], x: NDArray[Any], *args: Any) -> Any:
        returned = function(self.nested(x), *args)
        if not (isinstance(returned, tuple) and len(returned) == 2):
            return returned  # to be refused
        f, gradient = returned
        return f, self._vector("the gradient", gradient, x.dtype)

    def _inplace(self, function: Callable[..., Any], x: NDArray[Any], grad: NDArray[Any], *args: Any) -> Any:
        return function(self.nested(x), self.nested(grad, numbers=False), *args)
