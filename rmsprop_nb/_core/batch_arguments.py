"""What users pass about each problem of a batch, turned into valid arrays or a clear error.

Compiled code does not check indices, so every shape is checked here, for all problems, before anything is computed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rmsprop_nb._core.bounds import as_bounds, checked_bounds, is_unbounded
from rmsprop_nb._core.validate import as_array, as_start, refuse_mask

Box = tuple[NDArray[Any], NDArray[Any]]

_FORMS = (
    "a tuple (lower, upper), or a scipy.optimize.Bounds, of arrays that broadcast to {shape}, or an array of shape "
    "{pairs}"
)


def as_rows(batch_args: Any) -> tuple[NDArray[Any], ...]:
    """Return the arrays of data, each with an axis for the problems."""
    if batch_args is None:
        return ()
    if isinstance(batch_args, list):
        msg = (
            "batch_args must be a tuple of arrays, got a list, which might be one array or several; give "
            "tuple(batch_args), or (np.array(batch_args),)."
        )
        raise TypeError(msg)
    if not isinstance(batch_args, tuple):
        batch_args = (batch_args,)
    rows = tuple(_as_array(k, a) for k, a in enumerate(batch_args))
    for k, a in enumerate(rows):
        if a.ndim == 0:
            msg = f"batch_args[{k}] must have one row for each problem, got a single number; pass it in args."
            raise ValueError(msg)
    return rows


def _as_array(k: int, rows: Any) -> NDArray[Any]:
    refuse_mask(f"batch_args[{k}]", rows, "fill it, and pass weights that are 0 where it is masked as one more array")
    try:
        return np.asarray(rows)
    except ValueError:
        msg = (
            f"batch_args[{k}] must have rows of one shape, got rows of unequal lengths; fill them up to the longest, "
            "and pass the valid number of each, or weights that are 0 beyond it, as one more of batch_args."
        )
        raise ValueError(msg) from None


def check_rows(rows: tuple[NDArray[Any], ...], count: int) -> None:
    """Raise unless every array has a row for each problem."""
    for k, a in enumerate(rows):
        if a.shape[0] != count:
            msg = f"batch_args[{k}] must have one row for each of the {count} problems, got shape {a.shape}."
            raise ValueError(msg)


def as_starts(X0: Any, rows: tuple[NDArray[Any], ...], bounds: Any, name: str = "X0") -> NDArray[Any]:
    """Return a fresh copy of the starts, shape (B, n); one start of shape (n,) is that of all problems."""
    refuse_mask(name, X0, f"pass {name}.filled(...)")
    array = as_array(name, X0)
    if array.ndim == 1:
        return np.tile(as_start(array, name), (_count(array.shape, rows, bounds), 1))
    if array.ndim != 2 or array.shape[0] == 0:
        msg = (
            f"{name} must have shape (B, n) with at least one row, one start for each problem, or shape (n,), one for "
            f"all, got shape {array.shape}."
        )
        raise ValueError(msg)
    return as_start(array.reshape(-1), name).reshape(array.shape)


def _count(shape: tuple[int, ...], rows: tuple[NDArray[Any], ...], bounds: Any) -> int:
    """Return how many problems there are, by their data or their bounds."""
    own = None if bounds is None else _own_bounds(bounds)
    if rows:
        count = rows[0].shape[0]
    elif own is not None:
        count = np.broadcast_shapes(*(np.shape(a) for a in own), (1, 1))[0]
    else:
        msg = (
            f"X0 must have shape (B, n), one start for each problem, got shape {shape}: with one start for all, "
            "batch_args or bounds must tell how many problems there are."
        )
        raise ValueError(msg)
    if count == 0:
        msg = "batch_args or bounds must have at least one row, one for each problem, got none."
        raise ValueError(msg)
    return int(count)


# -- bounds -----------------------------------------------------------------------------------------------------------


def as_boxes(bounds: Any, starts: NDArray[Any]) -> tuple[Box, Box | None]:
    """Return the box that all problems share, of size 0 without one, and the boxes of shape (B, n) if each has its own.

    Both are in the dtype of the starts.
    """
    own = None if bounds is None else _own_bounds(bounds)
    if own is None:
        return as_bounds(bounds, starts[0]), None
    lower, upper = (_broadcast(a, starts.shape, name) for a, name in zip(own, ("lower", "upper"), strict=True))
    lower, upper = checked_bounds(lower, upper, starts.dtype)
    none = np.empty(0, starts.dtype)
    return (none, none), None if is_unbounded(lower, upper) else (lower, upper)


def _own_bounds(bounds: Any) -> tuple[Any, Any] | None:
    """Return the lower and the upper bounds if problems have bounds of their own, and None if they share them."""
    if hasattr(bounds, "lb") and hasattr(bounds, "ub"):
        own = bounds.lb, bounds.ub
        return own if max(map(np.ndim, own)) > 1 else None
    if isinstance(bounds, tuple) and len(bounds) == 2 and max(map(_axes, bounds)) > 1:
        lower, upper = map(_regular, bounds)
        _check_clear(bounds)
        return lower, upper
    if _axes(bounds) <= 2:
        return None
    pairs = _regular(bounds)
    if pairs.ndim != 3 or pairs.shape[2] != 2:
        forms = _FORMS.format(shape="(B, n)", pairs="(B, n, 2)")
        msg = f"bounds of each problem must be {forms}, got an array of shape {pairs.shape}."
        raise ValueError(msg)
    if isinstance(bounds, list) and len(bounds) == 2:
        _check_clear(bounds)
    return pairs[..., 0], pairs[..., 1]


def _axes(bounds: Any) -> int:
    """Return the number of axes, the largest in nested lists."""
    if isinstance(bounds, list | tuple):
        return 1 + max(map(_axes, bounds), default=0)
    return np.ndim(bounds)


def _regular(bounds: Any) -> NDArray[Any]:
    """Return an array, whose elements may be None; rows of unequal lengths are an error."""
    try:
        return bounds if isinstance(bounds, np.ndarray) else np.asarray(bounds)
    except ValueError:
        forms = _FORMS.format(shape="(B, n)", pairs="(B, n, 2)")
        msg = f"bounds of each problem must be {forms}, got rows of unequal lengths; use -inf and inf for no bound."
        raise ValueError(msg) from None


def _check_clear(bounds: Any) -> None:
    """Raise for two items that could be (lower, upper) as well as the pairs of two problems of two variables."""
    arrays = all(isinstance(item, np.ndarray) for item in bounds)
    if np.shape(bounds[0]) == np.shape(bounds[1]) == (2, 2) and isinstance(bounds, tuple) != arrays:
        msg = (
            "bounds must say whether they are (lower, upper) or pairs, got two items of shape (2, 2), which may be "
            "either; pass scipy.optimize.Bounds(lower, upper), or pairs as an array of shape (2, 2, 2)."
        )
        raise ValueError(msg)


def _broadcast(bound: Any, shape: tuple[int, ...], name: str) -> NDArray[np.float64]:
    """Return bounds of shape (B, n), as an array of its own."""
    refuse_mask(f"bounds ({name})", bound, "use .filled(...) with -inf or inf")
    given = np.asarray(bound)
    if given.dtype == object:
        absent = [item is None for item in given.ravel()]
        given = np.where(np.reshape(absent, given.shape), -np.inf if name == "lower" else np.inf, given)
    try:
        if given.dtype.kind not in "fiubO":
            raise TypeError
        return np.array(np.broadcast_to(given.astype(np.float64), shape), order="C")  # another order, another kernel
    except (TypeError, ValueError):
        forms = _FORMS.format(shape=shape, pairs=(*shape, 2))
        msg = (
            f"bounds of each problem must be {forms}, got {name} bounds of shape {given.shape} and dtype {given.dtype}."
        )
        raise ValueError(msg) from None
