"""From a model ``f(t, *parameters)`` and data to the objective of each fit."""

from __future__ import annotations

import functools
import warnings
from typing import Any

import numpy as np
from numba.extending import is_jitted
from numpy.typing import NDArray

from rmsprop_nb._core.fit_arguments import Boxes, Curves
from rmsprop_nb._numba.autodiff.normal_equations import Task, curve_function, point_normal, residuals_and_jacobian
from rmsprop_nb._numba.code_cache import cached_by_code
from rmsprop_nb._numba.decorators import JIT_ENABLED, shared_jit
from rmsprop_nb._objectives.fit_objective import (
    VECTOR,
    Arranged,
    Chosen,
    FitObjective,
    arrange,
    choose,
    logger,
    not_compiled,
    source_of,
)
from rmsprop_nb._objectives.residuals import PythonResiduals, Terms

_SAMPLES = 16  # points at which a model of single points is compared with the model of all points


def curve_objective(
    f: Any, jac: Any, curves: Curves, starts: NDArray[np.float64], boxes: Boxes, terms: Terms, scale: float
) -> FitObjective:
    """Return the objective of each fit of a curve.

    Raises
    ------
    TypeError
        If exact derivatives are asked for by name and there are none.
    """
    arranged = _arrange(curves, boxes, scale)
    compiled = is_jitted(f) and JIT_ENABLED and isinstance(curves.points, np.ndarray)
    if jac == "autodiff" and not compiled:
        raise TypeError(not_compiled(f))
    if not compiled or curves.covariance.size or (callable(jac) and not is_jitted(jac)):
        chosen = _interpreted(f, jac, curves, starts.shape[1], arranged, terms, compiled)
    else:
        chosen = _compiled(f, jac, curves, starts[0], arranged, terms)
    return FitObjective(chosen, arranged, boxes, terms)


def _arrange(curves: Curves, boxes: Boxes, scale: float) -> Arranged:
    y = _Whitened(lambda: curves.y[0], curves.covariance)()[np.newaxis] if curves.covariance.size else curves.y
    points = curves.points
    if isinstance(points, np.ndarray) and points.ndim == 0:
        points = points.reshape(1)
    return arrange(
        {
            "y": (y, True),
            "sigma": (curves.sigma, curves.sigma.ndim > 1),
            "scale": (scale, False),
            "points": (points, curves.own_points),
            "lower": (boxes.lower, boxes.lower.ndim > 1),
            "upper": (boxes.upper, boxes.upper.ndim > 1),
        }
    )


def _compiled(f: Any, jac: Any, curves: Curves, start: NDArray[np.float64], arranged: Arranged, terms: Terms) -> Chosen:
    """Choose among the forms of a compiled model: of single points, if it is one, or of all."""
    n, points = start.size, arranged.args_of(0)[arranged.places.first[0]]
    predictors = points.shape[0] if points.ndim == 2 else 0
    if not _is_pointwise(f, points, curves.y.shape[1], start):
        jac = curve_function(jac, n, 0) if callable(jac) else jac
        return choose(curve_function(f, n, 0), jac, n, arranged, terms)
    whole = point_loop(f, n, predictors, takes_complex=jac == "cs")
    if jac is None or jac == "autodiff":
        y, sigma, scale, _, _, rows, (points_at, _), _ = arranged.places
        task = Task(n, terms.function, terms.matrix, predictors, y, sigma, scale, points_at, rows)
        normal = point_normal(f, task)
        try:
            normal.prepare((VECTOR, VECTOR, *arranged.types()))
        except TypeError as error:
            if jac is not None:
                raise
            logger.debug("derivatives are made of differences, because there are no exact ones: %s", error)
            return choose(whole, "2-point", n, arranged, terms)
        return Chosen(normal, "autodiff")
    return choose(whole, curve_function(jac, n, 0) if callable(jac) else jac, n, arranged, terms)


def _interpreted(f: Any, jac: Any, curves: Curves, n: int, arranged: Arranged, terms: Terms, compiled: bool) -> Chosen:
    if compiled and (jac is None or jac == "autodiff"):
        derivatives = residuals_and_jacobian(curve_function(f, n, 0), n)
        source, jac = "autodiff", functools.partial(_jacobian_of, derivatives)
    else:
        source, jac = source_of(jac), jac or "2-point"
    if curves.covariance.size:
        f = _Whitened(f, curves.covariance)
        jac = _Whitened(jac, curves.covariance) if callable(jac) else jac
    objective = PythonResiduals(f, jac, terms, arranged.places, spread=True)
    return Chosen(objective, source)


def _jacobian_of(derivatives: Any, t: Any, *parameters: float) -> Any:
    """Return J of a compiled model, which is called as the model is."""
    return derivatives(np.array(parameters), t)[1]


class _Whitened:
    """A function of values or of J whose rows have a covariance; returned are rows of unit variance."""

    def __init__(self, function: Any, covariance: NDArray[np.float64]) -> None:
        self._function = function
        self._inverse = np.linalg.inv(np.linalg.cholesky(covariance))

    def __call__(self, *args: Any) -> NDArray[np.float64]:
        values = np.asarray(self._function(*args))
        if values.ndim == 0:
            values = np.full(len(self._inverse), values)
        return np.asarray(self._inverse @ values)


# -- models of single points ------------------------------------------------------------------------------------------


def _is_pointwise(f: Any, points: NDArray[Any], count: int, start: NDArray[np.float64]) -> bool:
    """Return whether the model of all points is the model of each point by itself.

    That is what most models are, and faster, because no arrays are made. Written for numbers alone, with branches or
    functions of math, a model can be called in no other way.
    """
    if points.ndim > 2 or points.shape[-1] != count or not points.size:
        return False
    call = f.py_func
    some = np.unique(np.linspace(0, count - 1, min(count, _SAMPLES)).astype(int))
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            single = [call(_single(points, k), *start.tolist()) for k in some]
        except ArithmeticError:
            single = None  # compiled functions return an infinite number there
        except Exception:  # noqa: BLE001 - the user's function may do anything with a number for an array
            return False
        try:
            whole = np.broadcast_to(call(points, *start), count)[some]
        except Exception:  # noqa: BLE001 - or with an array for a number
            return True
    if single is None or any(np.ndim(value) for value in single):
        return single is None
    return bool(np.allclose(np.array(single, float), whole, rtol=1e-6, atol=0.0, equal_nan=True))


def _single(points: NDArray[Any], k: int) -> Any:
    return float(points[k]) if points.ndim == 1 else tuple(float(value) for value in points[:, k])


@cached_by_code
def point_loop(f: Any, n: int, predictors: int, *, takes_complex: bool) -> Any:
    """Return ``model(x, t)``, compiled, that calls ``f(t, *parameters)`` for each point."""
    model, width = curve_function(f, n, predictors), max(predictors, 1)

    def loop(x, t):
        values = np.empty(t.size // width, x.dtype) if takes_complex else np.empty(t.size // width)
        for m in range(values.size):
            values[m] = model(x, t[:, m] if predictors else t[m])
        return values

    return shared_jit(loop)
