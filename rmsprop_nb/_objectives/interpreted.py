"""Any ``fun`` and ``jac`` combined into one Python callable, ``evaluate(x, g) -> f``, that checks what they return."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rmsprop_nb._objectives.finite_differences import complex_step, differences
from rmsprop_nb._objectives.problem import IN_PLACE, Problem, learn_precision


class PythonObjective:
    """An evaluation in Python that checks every value.

    The user's functions receive copies of x, so it does not matter whether they change or keep them.

    Attributes
    ----------
    args : tuple
        Further arguments of the user's functions; may be replaced between two evaluations.
    eps : float
        The relative precision of f, as far as the types of its values tell.
    """

    def __init__(self, problem: Problem, dtype: Any) -> None:
        self.args = problem.args
        self._problem = problem
        self._grad: NDArray[Any] | None = None
        self.eps = float(np.finfo(dtype).eps)
        self._record: NDArray[Any] | None = None
        self._steps = np.array([problem.rel_step(self.eps)]), problem.own_steps, np.empty(0, dtype)

    def follow(self, arrays: Any, record: NDArray[Any]) -> None:
        """Let the run with these vectors and this record control the differences."""
        self._record = record
        self._steps = record["rel_step"], self._problem.own_steps, arrays.x_scale
        learn_precision(self._problem, self.eps, *self._steps[:1], record)

    def __call__(self, x: NDArray[Any], g: NDArray[Any]) -> float:
        """Fill g with the gradient at x and return f."""
        fun, jac, args = self._problem.fun, self._problem.jac, self.args
        if isinstance(jac, str) and jac in IN_PLACE:
            return self._inplace(x, g)
        if jac == "cs":
            with np.errstate(over="ignore", under="ignore"):
                return _as_float(complex_step(_complex_fun(fun), x, g, args))  # type: ignore[no-untyped-call]
        if jac is True:
            f, gradient = _as_pair(fun(x.copy(), *args))
            store_gradient(gradient, g, "fun")
            return self.value_of(f)
        if callable(jac):
            f = self.value(x)
            store_gradient(jac(x.copy(), *args), g, "jac")
            return f
        return self._differences(x, g)

    def value(self, x: NDArray[Any]) -> float:
        """Return f at x, without its gradient where that can be left out."""
        if self._problem.jac in (True, "inplace"):
            return self(x, np.empty_like(x))
        return self.value_of(self._problem.fun(x.copy(), *self.args))

    def _inplace(self, x: NDArray[Any], g: NDArray[Any]) -> float:
        if self._grad is None:
            # Elements that fun forgets to fill, or adds to without zeroing, become NaN instead of silently wrong.
            self._grad = np.full_like(g, np.nan)
        f = self.value_of(self._problem.fun(x.copy(), self._grad, *self.args))
        g[:] = self._grad
        return f

    def _differences(self, x: NDArray[Any], g: NDArray[Any]) -> float:
        problem = self._problem

        def fun(z: NDArray[Any], *args: Any) -> float:
            return self.value_of(problem.fun(z, *args))

        with np.errstate(all="ignore"):
            return float(differences(fun, x, g, self._steps, (problem.lower, problem.upper), self.args))  # type: ignore[no-untyped-call]

    def value_of(self, value: Any) -> float:
        """Return f as a float, after taking in the precision of its type."""
        if not isinstance(value, float):
            self._learn(getattr(value, "dtype", None))
        return _as_float(value)

    def _learn(self, dtype: Any) -> None:
        eps = float(np.finfo(dtype).eps) if dtype in (np.float16, np.float32) else 0.0
        if eps > self.eps:
            self.eps = eps
            learn_precision(self._problem, eps, self._steps[0], self._record)


def _complex_fun(fun: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap `fun` for complex x so that it refuses a real result, which would give a gradient of zeros."""

    def checked(z: NDArray[np.complex128], *args: Any) -> complex:
        result = fun(z.copy(), *args)
        _refuse_pair(result)
        value = np.asarray(result)
        if value.dtype.kind != "c":
            msg = (
                f"jac='cs' needs a fun that returns a complex value for complex x, got {value.dtype}: it drops the "
                "imaginary part (abs, norm, comparisons do). Use jac='2-point' or give the gradient."
            )
            raise TypeError(msg)
        return complex(value.item())

    return checked


def _as_float(value: Any) -> float:
    """Return the objective's value as a float; raise if it is not one real number."""
    if isinstance(value, float):
        return float(value)
    _refuse_pair(value)
    array = np.asarray(value)
    if array.size != 1 or array.dtype.kind not in "fiub":
        shape = f"shape {array.shape} and dtype {array.dtype}" if array.dtype != object else f"{value!r}"
        msg = f"fun must return one real number, got {shape}."
        raise TypeError(msg)
    return float(array.item())


def _refuse_pair(value: Any) -> None:
    """Raise if a value is more than a number, as it is where ``jac=True`` was forgotten."""
    if isinstance(value, tuple | list) and len(value) > 1:
        remedy = "if it is (f, gradient), pass jac=True, in place of any other jac"
        what = f"a pair; {remedy}" if len(value) == 2 else f"{len(value)} values"
        msg = f"fun must return one real number, got {what}."
        raise TypeError(msg)


def _as_pair(value: Any) -> tuple[Any, Any]:
    try:
        f, gradient = value
    except (TypeError, ValueError):
        msg = f"With jac=True fun must return the pair (f, gradient), got {type(value).__name__}."
        raise TypeError(msg) from None
    return f, gradient


def store_gradient(gradient: Any, g: NDArray[Any], source: str) -> None:
    """Copy the user's gradient into g after checking its shape and dtype."""
    array = np.asarray(gradient)
    if array.shape != g.shape and not (array.ndim == 0 and g.size == 1):
        msg = (
            f"{source} must return a gradient of shape {g.shape}, one derivative for each variable, got shape "
            f"{array.shape}."
        )
        raise ValueError(msg)
    if array.dtype.kind not in "fiub":
        msg = f"{source} must return a real gradient, got dtype {array.dtype}."
        raise TypeError(msg)
    with np.errstate(over="ignore", under="ignore"):  # too large for float32 becomes inf, which the loop reports
        g[:] = array
