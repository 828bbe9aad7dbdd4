"""Arrays that are changed in place: checked before compiled code, which knows no bounds, sees them.

Errors name the array by its place among the parameters: ``params['W'][1]``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

_FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
_HALVES = ("float16", "bfloat16")  # the second is that of the package ml_dtypes; NumPy has none
_MOST_WORK = 10_000  # that an exact test for common memory may take, which in general is exponential


def is_on_device(array: Any) -> bool:
    """Whether this is an array on a CUDA device, or one that the simulator takes for one; imports nothing."""
    return hasattr(array, "__cuda_array_interface__") or "cuda.simulator" in type(array).__module__


def computed_in(dtype: Any) -> Any:
    """The dtype of the arithmetic, and of the state, for parameters of this one; None if there is none."""
    if dtype.name in _HALVES and dtype.isnative:
        return _FLOATS[0]
    return dtype if dtype in _FLOATS else None


def check_array(array: Any, place: str) -> NDArray[Any]:
    """Return a parameter array as a plain one that shares its memory.

    Raises
    ------
    TypeError
        If it is no NumPy array on the host, or not of floating-point numbers in the machine's byte order.
    ValueError
        If it cannot be written, or two of its elements may share memory.
    """
    plain = _check_host_array(array, place)
    if computed_in(plain.dtype) is None:
        if computed_in(plain.dtype.newbyteorder("=")) is not None:
            remedy = f"convert it with {place}.astype({place}.dtype.newbyteorder('='))"
        else:
            remedy = f"convert it with {place}.astype(np.float32), or np.float64"
        msg = f"{place} must be float32, float64 or float16 in native byte order, got dtype {plain.dtype.str!r}; "
        msg += f"{remedy}."
        raise TypeError(msg)
    if not plain.flags.writeable:
        msg = f"{place} must be writeable, because it is changed in place, got a read-only array; pass a copy."
        raise ValueError(msg)
    if not plain.flags.c_contiguous and _may_overlap_itself(plain):
        msg = f"{place} must have elements that share no memory, got strides {plain.strides} for shape {plain.shape}; "
        msg += "pass a copy."
        raise ValueError(msg)
    return plain


def _check_host_array(array: Any, place: str) -> NDArray[Any]:
    if isinstance(array, np.ma.MaskedArray):
        msg = f"{place} must not be a masked array, because the mask would be lost; pass its .data or .filled(...)."
        raise TypeError(msg)
    if not isinstance(array, np.ndarray):
        if is_on_device(array):
            msg = f"{place} must be a host array like the others, got a CUDA array; copy it to the host first."
        else:
            msg = f"{place} must be a NumPy array, got {type(array).__name__}; make one with np.array(...)."
        raise TypeError(msg)
    return np.asarray(array)


def _may_overlap_itself(array: NDArray[Any]) -> bool:
    """Whether an axis steps by less than what the axes within it span. Slices and transposes never do."""
    extent = array.itemsize
    for stride, size in sorted(zip(map(abs, array.strides), array.shape, strict=True)):
        if size > 1:
            if stride < extent:
                return True
            extent += stride * (size - 1)
    return False


def _check_like(array: NDArray[Any], shape: tuple[int, ...], dtype: Any, place: str, other: str) -> None:
    """Raise unless the array has this shape and dtype, those of `other`."""
    if array.shape != shape:
        msg = f"{place} must have shape {shape}, that of {other}, got {array.shape}."
        raise ValueError(msg)
    if array.dtype != dtype:
        msg = f"{place} must be {dtype.name} like {other}, got dtype {array.dtype.str!r}; "
        msg += f"convert it with {place}.astype(np.{dtype.name})."
        raise TypeError(msg)


def parameter_vector(array: Any, shape: tuple[int, ...], dtype: Any, place: str) -> tuple[NDArray[Any], bool]:
    """Return parameters as a contiguous vector of `dtype`, and whether that is a copy, to be written back."""
    plain = check_array(array, place)
    converts = plain.dtype != dtype and computed_in(plain.dtype) == dtype
    _check_like(plain, shape, plain.dtype if converts else dtype, place, "the params of init")
    if plain.flags.carray and not converts:
        return plain.ravel().view(dtype), False
    return np.array(plain, dtype, order="C").ravel(), True


def gradient_vector(array: Any, params: Any, dtype: Any, place: str, params_place: str) -> NDArray[Any]:
    """Return a gradient of the shape of `params`, of its dtype or of `dtype`, as a vector of `dtype`."""
    plain = _check_host_array(array, place)
    _check_like(plain, params.shape, dtype if plain.dtype == dtype else params.dtype, place, params_place)
    if plain.flags.c_contiguous and plain.flags.aligned and plain.dtype == dtype:
        return plain.ravel().view(dtype)
    return np.array(plain, dtype, order="C").ravel()


def check_no_overlap(written: Iterable[tuple[str, NDArray[Any]]], read: Iterable[tuple[str, NDArray[Any]]]) -> None:
    """Raise if an array that is written shares memory with any other.

    Each comes with its name. Arrays whose stretches of memory are apart need no closer look, so that the cost grows
    with the number of arrays and not of pairs; for the others, such as two columns of one array, NumPy decides exactly
    if it can do so quickly.
    """
    spans = [
        (*np.lib.array_utils.byte_bounds(array), writes, name, array)
        for writes, arrays in ((True, written), (False, read))
        for name, array in arrays
        if array.size
    ]
    spans.sort(key=lambda span: span[0])
    open_spans: list[tuple[int, int, bool, str, NDArray[Any]]] = []
    for span in spans:
        open_spans = [other for other in open_spans if other[1] > span[0]]
        for other in open_spans:
            if (span[2] or other[2]) and _share_memory(span[4], other[4]):
                first, second = sorted((other[3], span[3]), key=_order_of_mention)
                msg = f"{second} must not share memory with {first}, which step changes in place; pass a copy."
                raise ValueError(msg)
        open_spans.append(span)


def _order_of_mention(name: str) -> int:
    """What is written comes first, and the state before the params."""
    return next(k for k, kind in enumerate(("state", "params", "grads")) if name.startswith(kind))


def _share_memory(a: NDArray[Any], b: NDArray[Any]) -> bool:
    if a.flags.c_contiguous and b.flags.c_contiguous:
        return True  # their stretches of memory overlap, or we would not be here
    try:
        return np.shares_memory(a, b, max_work=_MOST_WORK)  # type: ignore[arg-type]  # its stub knows two limits
    except np.exceptions.TooHardError:
        return True
