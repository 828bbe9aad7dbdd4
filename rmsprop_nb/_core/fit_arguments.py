"""What users pass about the data of fits, turned into valid arrays or a clear error."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rmsprop_nb._core.bounds import checked_bounds, is_unbounded
from rmsprop_nb._core.validate import refuse_mask

Lead = tuple[int, ...]

NAN_POLICIES = (None, "raise", "omit")


class Boxes(NamedTuple):
    """Lower and upper bounds: of shape (n,), (B, n), or size 0 without any."""

    lower: NDArray[np.float64]
    upper: NDArray[np.float64]


class Curves(NamedTuple):
    """The data of B fits.

    Attributes
    ----------
    lead : tuple of int
        The leading axes of ydata, whose product is B; () for one fit.
    points : object
        What the model is given: shape (m,) or (k, m) or anything else if all fits share it.
    own_points : bool
        Whether `points` has an axis of length B in front, because each fit has its own.
    y : ndarray, shape (B, m)
        The data, NaN where a point is to be left out.
    sigma : ndarray, shape (B, m), (m,) or (0,)
        Their errors; of size 0 without any.
    covariance : ndarray, shape (m, m) or (0, 0)
        The covariance of the data of one fit, in place of `sigma`.
    """

    lead: Lead
    points: Any
    own_points: bool
    y: NDArray[Any]
    sigma: NDArray[np.float64]
    covariance: NDArray[np.float64]

    def used(self) -> NDArray[np.intp]:
        """Return how many points each fit has."""
        present = ~np.isnan(self.y)
        if self.sigma.size:
            present &= np.isfinite(self.sigma)
        return np.asarray(np.count_nonzero(present, axis=1))


def as_curves(xdata: Any, ydata: Any, sigma: Any, check_finite: bool, nan_policy: Any) -> Curves:
    """Check the data of `fit` and bring them to one form; they are copied only where points are left out."""
    if not isinstance(nan_policy, str | None) or nan_policy not in NAN_POLICIES:
        msg = f"nan_policy must be None, 'raise' or 'omit', got {nan_policy!r}."
        raise ValueError(msg)
    y = _real("ydata", _filled(ydata))
    if y.ndim == 0 or y.size == 0:
        msg = f"ydata must have at least one axis, and at least one element along each, got shape {y.shape}."
        raise ValueError(msg)
    lead, m = y.shape[:-1], y.shape[-1]
    points, own_points = _points(xdata, lead, m)
    errors, covariance = _errors(sigma, lead, m)
    y = y.reshape(-1, m)
    if nan_policy == "omit":
        y = _without(y, points, own_points, covariance)
        if check_finite:
            _check_finite("ydata", ~np.isinf(y))
    elif check_finite:
        masked = np.ma.getmaskarray(ydata).reshape(-1, m) if isinstance(ydata, np.ma.MaskedArray) else False
        _check_finite("ydata", np.isfinite(y) | masked)
        if isinstance(points, np.ndarray):
            _check_finite("xdata", np.isfinite(points))
    return Curves(lead, points, own_points, y, errors, covariance)


def _filled(data: Any, instead: float = np.nan) -> Any:
    """Return the data with something else in the place of masked elements."""
    if not isinstance(data, np.ma.MaskedArray):
        return data
    filled: Any = data.astype(np.result_type(data.dtype, np.float32))
    return filled.filled(instead)


def _real(name: str, data: Any) -> NDArray[Any]:
    try:
        array = np.asarray(data)
        if array.dtype.kind in "biu" or array.dtype == np.float16:
            array = array.astype(np.float64)
        if array.dtype.kind == "O":
            array = array.astype(np.float64)
    except (TypeError, ValueError):
        msg = f"{name} must be an array of real numbers with rows of one length, got {type(data).__name__}."
        raise ValueError(msg) from None
    if array.dtype.kind != "f":
        msg = f"{name} must be an array of real numbers, got dtype {array.dtype}."
        raise ValueError(msg)
    return array if array.dtype.isnative and array.dtype.itemsize <= 8 else array.astype(np.float64)


def _points(xdata: Any, lead: Lead, m: int) -> tuple[Any, bool]:
    """Return xdata, with one leading axis if each fit has its own."""
    if not isinstance(xdata, list | tuple | np.ndarray) and not hasattr(xdata, "__array__"):
        return xdata, False  # anything that the model knows what to do with
    points = _real("xdata", _filled(xdata))
    own = bool(lead) and points.shape[: len(lead)] == lead and points.shape[-1] == m and points.ndim > len(lead)
    if own and points.ndim <= len(lead) + 2:
        return points.reshape(-1, *points.shape[len(lead) :]), True
    if lead and (points.ndim > 2 or (points.ndim > 0 and points.shape[-1] != m)):
        msg = (
            f"xdata must have shape ({m},) or (k, {m}), or these behind the leading axes {lead} of ydata, got shape "
            f"{points.shape}."
        )
        raise ValueError(msg)
    return points, False


def _errors(sigma: Any, lead: Lead, m: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the errors of the data, and their covariance; one of them is of size 0."""
    none = np.empty(0), np.empty((0, 0))
    if sigma is None:
        return none
    errors = _real("sigma", _filled(sigma, np.inf))
    if errors.size == 1:
        errors = np.full(m, float(errors.reshape(-1)[0]))
    if not lead and errors.shape == (m, m) and m > 1:
        return none[0], _checked_covariance(errors)
    if errors.shape not in ((m,), (*lead, m)):
        forms = f"({m},)" + (f" or {(*lead, m)}" if lead else f", or be a covariance of shape ({m}, {m})")
        msg = f"sigma must have shape {forms}, got {errors.shape}."
        raise ValueError(msg)
    errors = errors.reshape(-1, m) if errors.ndim > 1 else errors
    if not (errors > 0.0).all():
        wrong = errors[~(errors > 0.0)][0]
        msg = f"sigma must be above 0, got {wrong}; inf leaves a point out."
        raise ValueError(msg)
    return errors, none[1]


def _checked_covariance(covariance: NDArray[Any]) -> NDArray[np.float64]:
    try:
        np.linalg.cholesky(covariance)
    except np.linalg.LinAlgError:
        msg = "sigma must be positive definite where it is a covariance matrix."
        raise ValueError(msg) from None
    return covariance.astype(np.float64)


def _without(y: NDArray[Any], points: Any, own_points: bool, covariance: NDArray[Any]) -> NDArray[Any]:
    """Return the data with NaN where xdata has NaN."""
    if covariance.size and not np.isfinite(y).all():
        msg = "nan_policy='omit' needs errors of single points; with a covariance leave points out of all arrays."
        raise ValueError(msg)
    if not isinstance(points, np.ndarray) or not np.isnan(points).any():
        return y
    missing = np.isnan(points)
    if missing.ndim > 1 + own_points:
        missing = np.asarray(missing.any(axis=-2))
    return np.where(missing, np.nan, y)


def _check_finite(name: str, finite: Any) -> None:
    if not np.all(finite):
        msg = (
            f"{name} must not contain infs or NaNs; nan_policy='omit' leaves NaN out, and check_finite=False the check."
        )
        raise ValueError(msg)


def parameter_names(f: Callable[..., Any], p0: Any) -> list[str]:
    """Return the names of the parameters of a model, by its signature; their number is that of p0 if that is given."""
    known: list[str] = []
    required, open_ended = 0, True
    try:
        parameters = [*inspect.signature(getattr(f, "py_func", f)).parameters.values()][1:]
        known = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        required = sum(p.default is p.empty for p in parameters if p.name in known)
        open_ended = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    except (TypeError, ValueError):
        pass
    if p0 is None:
        if open_ended or not known:
            msg = "p0 is needed: the signature of f does not tell the number of parameters."
            raise ValueError(msg)
        return known
    n = np.atleast_1d(_real("p0", _filled(p0))).shape[-1]
    if n < required or (n > len(known) and not open_ended):
        msg = f"p0 must have {len(known)} elements, one for each parameter of f ({', '.join(known)}), got {n}."
        raise ValueError(msg)
    return known[:n] + [f"p{k}" for k in range(len(known), n)]


def as_guesses(p0: Any, bounds: Any, lead: Lead, n: int) -> tuple[NDArray[np.float64], Boxes]:
    """Return the first guesses, shape (B, n), and the bounds."""
    lower, upper = _bounds(bounds, lead, n)
    shape = (*lead, n)
    if p0 is None:
        both = np.isfinite(lower) & np.isfinite(upper)
        with np.errstate(invalid="ignore"):
            start = np.where(both, 0.5 * (lower + upper), np.where(np.isfinite(lower), lower + 1.0, upper - 1.0))
        start = np.where(np.isfinite(lower) | np.isfinite(upper), start, 1.0)
        start = start.reshape(shape if start.ndim > 1 else (n,))
    else:
        start = np.atleast_1d(_real("p0", _filled(p0)))
    try:
        starts = np.array(np.broadcast_to(start, shape), np.float64)
    except ValueError:
        msg = f"p0 must have shape ({n},)" + (f" or {shape}" if lead else "") + f", got {np.shape(p0)}."
        raise ValueError(msg) from None
    if not np.isfinite(starts).all():
        msg = "p0 must be finite."
        raise ValueError(msg)
    outside = (starts.reshape(-1, n) < lower) | (starts.reshape(-1, n) > upper)
    if outside.any():
        msg = "p0 must be within the bounds; without p0 a start within the bounds is chosen."
        raise ValueError(msg)
    starts = starts.reshape(math.prod(lead), n)
    return starts, Boxes(np.empty(0), np.empty(0)) if is_unbounded(lower, upper) else Boxes(lower, upper)


def _bounds(bounds: Any, lead: Lead, n: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return lower and upper bounds, of shape (n,) or with the leading axes."""
    if hasattr(bounds, "lb") and hasattr(bounds, "ub"):
        bounds = bounds.lb, bounds.ub
    if bounds is None:
        bounds = -np.inf, np.inf
    if not isinstance(bounds, tuple | list) or len(bounds) != 2:
        msg = "bounds must be a pair (lower, upper) of numbers or arrays, or a scipy.optimize.Bounds."
        raise ValueError(msg)
    for bound in bounds:
        refuse_mask("bounds", bound, "use .filled(...) with -inf or inf")
    try:
        given = [np.asarray(bound, np.float64) for bound in bounds]
        own = bool(lead) and max(bound.ndim for bound in given) > 1
        if any(bound.ndim and bound.shape[-1] != n for bound in given):
            raise ValueError
        lower, upper = (np.broadcast_to(bound, (*lead, n) if own else (n,)) for bound in given)
    except (TypeError, ValueError):
        forms = f"shape ({n},)" + (f" or {(*lead, n)}" if lead else "")
        msg = f"bounds must be a pair (lower, upper) of numbers, or of arrays of {forms}, got {bounds!r:.200}."
        raise ValueError(msg) from None
    if own:
        lower, upper = lower.reshape(-1, n), upper.reshape(-1, n)
    return checked_bounds(np.array(lower), np.array(upper), np.dtype(np.float64))
