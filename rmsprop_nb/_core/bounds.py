"""Bounds of variables, from the forms that SciPy has, in the dtype of the variables."""

from __future__ import annotations

from collections.abc import Sized
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rmsprop_nb._core.validate import place_of, refuse_mask


def as_bounds(bounds: Any, x: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return lower and upper bounds in the dtype of x, both of size 0 if nothing is bounded.

    `bounds` is None, a sequence of pairs, or an object with ``lb`` and ``ub`` as ``scipy.optimize.Bounds`` has.
    """
    none = np.empty(0, x.dtype)
    if bounds is None:
        return none, none
    if hasattr(bounds, "lb") and hasattr(bounds, "ub"):
        lower, upper = _broadcast_bound(bounds.lb, x, "lb"), _broadcast_bound(bounds.ub, x, "ub")
    else:
        lower, upper = _from_pairs(bounds, x.size)
    lower, upper = checked_bounds(lower, upper, x.dtype)
    return (none, none) if is_unbounded(lower, upper) else (lower, upper)


def is_unbounded(lower: NDArray[Any], upper: NDArray[Any]) -> bool:
    """Return whether all of these bounds are infinite."""
    return bool(np.isneginf(lower).all() and np.isposinf(upper).all())


def checked_bounds(lower: Any, upper: Any, dtype: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return bounds in a dtype, of the variables or of those of each problem; raise for NaN and empty boxes."""
    undefined = np.isnan(lower) | np.isnan(upper)
    if undefined.any():
        where = f", got one at {place_of(undefined)}" if lower.ndim > 1 else ""
        msg = f"bounds must not be NaN{where}; use None or -inf/inf for a variable without a bound."
        raise ValueError(msg)
    empty = lower > upper
    if empty.any():
        low, high = lower[empty][0], upper[empty][0]
        msg = f"bounds must have lower <= upper, got ({low}, {high}) at {place_of(empty)}."
        raise ValueError(msg)
    cast_lower, cast_upper = _round_into(lower, dtype, np.inf), _round_into(upper, dtype, -np.inf)
    cast_upper = np.maximum(cast_lower, cast_upper)  # a box too narrow for float32 becomes a point
    empty = np.isposinf(cast_lower) | np.isneginf(cast_upper)
    if empty.any():
        low, high = lower[empty][0], upper[empty][0]
        msg = f"bounds must leave room for a finite number of {dtype}, got ({low}, {high}) at {place_of(empty)}."
        raise ValueError(msg)
    return cast_lower, cast_upper


def _broadcast_bound(bound: Any, x: NDArray[Any], name: str) -> NDArray[np.float64]:
    refuse_mask(f"bounds.{name}", bound, "use .filled(...) with -inf or inf")
    try:
        return np.array(np.broadcast_to(np.asarray(bound, dtype=np.float64), x.shape))
    except (TypeError, ValueError):
        msg = f"bounds.{name} must broadcast to shape {x.shape}, one for each variable, got {bound!r}."
        raise ValueError(msg) from None


def _from_pairs(bounds: Any, n: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    refuse_mask("bounds", bounds, "use bounds.filled(...) with -inf or inf")
    try:
        pairs = [(_end(low, -np.inf), _end(high, np.inf)) for low, high in bounds]
    except (TypeError, ValueError):
        pairs = []
    if len(pairs) != n:
        got = f"{len(bounds)} items" if isinstance(bounds, Sized) else type(bounds).__name__
        msg = f"bounds must be {n} pairs (lower, upper) of numbers or None, one for each variable, got {got}."
        raise ValueError(msg)
    lower, upper = np.array(pairs, dtype=np.float64).reshape(n, 2).T
    return lower, upper


def _end(bound: Any, without: float) -> float:
    return without if bound is None else float(bound)


def _round_into(bound: NDArray[np.float64], dtype: Any, inward: float) -> NDArray[Any]:
    """Cast bounds, and round them into the box, so that no iterate of float32 leaves the user's bounds."""
    with np.errstate(over="ignore", under="ignore"):
        cast = bound.astype(dtype)
        outside = cast < bound if inward > 0 else cast > bound
        cast[outside] = np.nextafter(cast[outside], dtype.type(inward))
    return cast
