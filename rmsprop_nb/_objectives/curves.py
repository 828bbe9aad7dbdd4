"""From a model ``f(t, *parameters)`` and data to the objective of each fit."""

from __future__ import annotations

import functools
import logging
import warnings
from typing import Any

import numpy as np
from numba import njit, typeof, types
from numba.extending import is_jitted
from numpy.typing import NDArray
from scipy.linalg import solve_triangular

from rmsprop_nb._core.fit_arguments import Boxes, Curves
from rmsprop_nb._numba.autodiff.normal_equations import as_tuple, curve_function, point_normal, residuals_and_jacobian
from rmsprop_nb._numba.decorators import JIT_ENABLED
from rmsprop_nb._objectives.losses import LOSSES
from rmsprop_nb._objectives.problem import MATRIX, Problem
from rmsprop_nb._objectives.sums_of_squares import (
    Places,
    PythonResiduals,
    Terms,
    compiled_fill,
    compiled_points,
    compiled_residuals,
)

logger = logging.getLogger("rmsprop_nb")

_VECTOR = types.Array(types.float64, 1, "C")
_SAMPLES = 16  # points at which a model of single points is compared with the model of all points


class CurveObjective:
    """The objective of many fits, with the data of each.

    Attributes
    ----------
    problem : Problem
        What all fits share.
    rows : tuple of ndarray
        What each fit has of its own, with an axis of length B in front.
    source : str
        Where derivatives come from: "autodiff", "2-point", "3-point", "cs" or "given".
    """

    def __init__(self, f: Any, jac: Any, curves: Curves, starts: NDArray[np.float64], boxes: Boxes, terms: Terms, scale: float) -> None:
        self._f, self._jac, self._curves, self._terms = f, jac, curves, terms
        self._n = starts.shape[1]
        self._arrange(boxes, scale)
        args = tuple(row[0] for row in self.rows)
        self._example = (*self._shared, *args)
        self._pointwise = False
        self._function, self.source = self._choose(starts[0])
        none = np.empty(0)
        shared_box = boxes if boxes.lower.ndim == 1 else Boxes(none, none)
        self.problem = Problem(
            self._function,
            MATRIX if terms.matrix else "inplace",
            self._shared,
            *shared_box,
            exact=self.source == "autodiff",
        )

    def values_and_jacobian(self, k: int, x: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the values of the model of fit k at x, and their derivatives by the parameters."""
        args = (*self._shared, *(row[k] for row in self.rows))
        if isinstance(self._function, PythonResiduals):
            return self._function.values_and_jacobian(x, *args)
        fill = compiled_fill(self._whole_model(), self._compiled_jac(), self._n)
        bounds, points = self._places.bounds, self._places.first[0]
        return fill(x, args[bounds], args[bounds + 1], args[points])  # type: ignore[no-any-return]

    def weighted_jacobian(self, k: int, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return J of fit k at x, with rows weighted so that J'J is what the objective gives."""
        values, jacobian = self.values_and_jacobian(k, x)
        loss = LOSSES[self._terms.loss]
        y, (sigma, scale) = self.rows[0][k], (self._argument(k, place) for place in self._places[1:3])
        bends = np.zeros(len(values))
        for m in np.flatnonzero(~np.isnan(y)):
            weight = 1.0 / sigma[m] if sigma.size else 1.0
            bends[m] = loss(float(values[m]), float(y[m]), weight, scale)[2] if weight else 0.0
        return jacobian * np.sqrt(bends)[:, np.newaxis]  # type: ignore[no-any-return]

    def residuals(self, k: int, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the residuals of fit k at x, divided by their errors; points that are left out have none."""
        values, _ = self.values_and_jacobian(k, x)
        sigma, y = self._argument(k, self._places.sigma), self.rows[0][k]
        residuals = (values - y) / (sigma if sigma.size else 1.0)
        return residuals[~np.isnan(y) & (np.isfinite(sigma) if sigma.size else True)]  # type: ignore[no-any-return]

    def _argument(self, k: int, place: int) -> Any:
        return (*self._shared, *(row[k] for row in self.rows))[place]

    def _arrange(self, boxes: Boxes, scale: float) -> None:
        """Put in order what all fits share and what each has of its own."""
        curves = self._curves
        y, points = curves.y, curves.points
        if curves.covariance.size:
            y = self._whiten(y[0])[np.newaxis]
        if isinstance(points, np.ndarray) and points.ndim == 0:
            points = points.reshape(1)
        parts = {
            "y": (y, True),
            "sigma": (curves.sigma, curves.sigma.ndim > 1),
            "points": (points, curves.own_points),
            "lower": (boxes.lower, boxes.lower.ndim > 1),
            "upper": (boxes.upper, boxes.upper.ndim > 1),
        }
        shared = {"scale": scale} | {name: value for name, (value, own) in parts.items() if not own}
        rows = {name: value for name, (value, own) in parts.items() if own}
        place = {name: k for k, name in enumerate((*shared, *rows))}
        self._shared: tuple[Any, ...] = tuple(shared.values())
        self.rows: tuple[NDArray[Any], ...] = tuple(rows.values())
        self._places = Places(
            place["y"], place["sigma"], place["scale"], place["lower"], (place["points"], place["points"] + 1)
        )

    # -- the form -----------------------------------------------------------------------------------------------------

    def _choose(self, start: NDArray[np.float64]) -> tuple[Any, str]:
        """Return the objective, and where derivatives come from."""
        f, jac, curves = self._f, self._jac, self._curves
        compiled = is_jitted(f) and JIT_ENABLED and isinstance(curves.points, np.ndarray)
        exact = compiled and (jac is None or jac == "autodiff")
        if jac == "autodiff" and not exact:
            msg = f"jac='autodiff' needs an f compiled with numba.njit and xdata that is an array, got {f!r}."
            raise TypeError(msg)
        if compiled and not curves.covariance.size and (not callable(jac) or is_jitted(jac)):
            self._pointwise = self._is_pointwise(start)
            try:
                return self._exact() if exact else self._compiled()
            except TypeError as error:
                if jac is not None:
                    raise
                logger.debug("derivatives are made of differences, because there are no exact ones: %s", error)
                self._jac = "2-point"
                return self._compiled()
        return self._interpreted(exact)

    def _exact(self) -> tuple[Any, str]:
        """Return the compiled objective with exact derivatives; a TypeError says what stands in their way."""
        self._jac = "autodiff"
        tys = [typeof(argument) for argument in self._example]
        y, sigma, scale, _, (points, _), _ = self._places
        if self._pointwise:
            predictors = self._predictors()
            normal = point_normal(self._f, self._n, LOSSES[self._terms.loss], self._terms.matrix, predictors)
            normal.prepare((_VECTOR, _VECTOR, tys[y], tys[sigma], tys[scale], tys[points]))
            return compiled_points(self._f, self._n, predictors, self._terms, self._places), "autodiff"
        residuals_and_jacobian(self._whole_model(), self._n).prepare((_VECTOR, tys[points]))
        return self._compiled()[0], "autodiff"

    def _compiled(self) -> tuple[Any, str]:
        jac = self._compiled_jac()
        function = compiled_residuals(self._whole_model(), jac, self._n, self._terms, self._places)
        return function, jac if isinstance(jac, str) else "given"

    def _compiled_jac(self) -> Any:
        return curve_function(self._jac, self._n, 0) if callable(self._jac) else self._jac

    def _interpreted(self, exact: bool) -> tuple[Any, str]:
        f, jac = self._f, self._jac
        if exact:
            derivatives = residuals_and_jacobian(self._whole_model(), self._n)
            jac = functools.partial(_jacobian_of, derivatives)
        source = "autodiff" if exact else "given" if callable(jac) else jac or "2-point"
        if self._curves.covariance.size:
            f = _Whitened(f, self._curves.covariance)
            jac = _Whitened(jac, self._curves.covariance) if callable(jac) else jac
        return PythonResiduals(f, jac or "2-point", self._terms, self._places, spread=True), source

    def _whiten(self, values: NDArray[Any]) -> NDArray[np.float64]:
        return _Whitened(lambda: values, self._curves.covariance)()

    # -- models of single points --------------------------------------------------------------------------------------

    def _predictors(self) -> int:
        """Return the number of rows of xdata, 0 if it has one axis."""
        points = self._example[self._places.first[0]]
        return points.shape[0] if points.ndim == 2 else 0

    def _whole_model(self) -> Any:
        """Return ``model(x, t)``, compiled, that takes all points at once."""
        if not self._pointwise:
            return curve_function(self._f, self._n, 0)
        return point_loop(self._f, self._n, self._predictors(), takes_complex=self._jac == "cs")

    def _is_pointwise(self, start: NDArray[np.float64]) -> bool:
        """Return whether the model of all points is the model of each point by itself.

        That is what most models are, and faster, because no arrays are made. Written for numbers alone, with branches
        or functions of math, a model can be called in no other way.
        """
        points, m = self._example[self._places.first[0]], self._curves.y.shape[1]
        if points.ndim > 2 or points.shape[-1] != m or not 0 < points.size:
            return False
        call = self._f.py_func
        some = np.unique(np.linspace(0, m - 1, min(m, _SAMPLES)).astype(int))
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                single = [call(_single(points, k), *start.tolist()) for k in some]
            except ZeroDivisionError:
                single = None  # compiled functions return an infinite number there
            except Exception:  # noqa: BLE001 - the user's function may do anything with a number for an array
                return False
            try:
                whole = np.broadcast_to(call(points, *start), m)[some]
            except Exception:  # noqa: BLE001 - or with an array for a number
                return True
        if single is None or any(np.ndim(value) for value in single):
            return single is None
        return bool(np.allclose(np.array(single, float), whole, rtol=1e-6, atol=0.0, equal_nan=True))


def _single(points: NDArray[Any], k: int) -> Any:
    return float(points[k]) if points.ndim == 1 else tuple(float(value) for value in points[:, k])


@functools.lru_cache(maxsize=256)
def point_loop(f: Any, n: int, predictors: int, *, takes_complex: bool) -> Any:
    """Return ``model(x, t)``, compiled, that calls ``f(t, *parameters)`` for each point."""
    model, width = curve_function(f, n, predictors), max(predictors, 1)

    def loop(x, t):
        values = np.empty(t.size // width, x.dtype) if takes_complex else np.empty(t.size // width)
        for m in range(values.size):
            values[m] = model(x, t[:, m] if predictors else t[m])
        return values

    return njit(error_model="numpy")(loop)


def _jacobian_of(derivatives: Any, t: Any, *parameters: float) -> Any:
    """Return J of a compiled model, which is called as `f` is."""
    x = np.array(parameters)
    return derivatives(x, t)[1]


class _Whitened:
    """A function of values or of J whose rows have a covariance; returned are rows of unit variance."""

    def __init__(self, function: Any, covariance: NDArray[np.float64]) -> None:
        self._function = function
        self._low = np.linalg.cholesky(covariance)

    def __call__(self, *args: Any) -> NDArray[np.float64]:
        values = np.asarray(self._function(*args))
        if values.ndim == 0:
            values = np.full(len(self._low), values)
        return np.asarray(solve_triangular(self._low, values, lower=True))
