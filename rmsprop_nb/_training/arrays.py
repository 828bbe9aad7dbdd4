"""Arrays that are changed in place: checked before compiled code, which knows no bounds, sees them.

Errors name an array by its path: ``params['W'][1]``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

_FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
_HALVES = ("float16", "bfloat16")  # NumPy has no bfloat16; that of the package ml_dtypes is meant
_MOST_WORK = 10_000  # limit of an exact test for common memory, whose cost is exponential in general


def is_on_device(array: Any) -> bool:
    """Return whether this is an array on a CUDA device, or one of the simulator's; imports nothing."""
    return hasattr(array, "__cuda_array_interface__") or "cuda.simulator" in type(array).__module__


def computed_in(dtype: Any) -> Any:
    """Return the dtype of the arithmetic and of the state for parameters of this dtype; None if they cannot be used."""
    if dtype.name in _HALVES and dtype.isnative:
        return _FLOATS[0]
    return dtype if dtype in _FLOATS else None


def check_array(array: Any, path: str) -> NDArray[Any]:
    """Return a parameter array as a plain ndarray that shares its memory.

    Raises
    ------
    TypeError
        If it is not a NumPy array on the host, or not of floating-point numbers in the machine's byte order.
    ValueError
        If it cannot be written, or two of its elements may share memory.
    """
    plain = _check_host_array(array, path)
    if computed_in(plain.dtype) is None:
        if computed_in(plain.dtype.newbyteorder("=")) is not None:
            remedy = f"convert it with {path}.astype({path}.dtype.newbyteorder('='))"
        else:
            remedy = f"convert it with {path}.astype(np.float32), or np.float64"
        msg = f"{path} must be float32, float64, float16 or complex in native byte order, got dtype "
        msg += f"{plain.dtype.str!r}; {remedy}."
        raise TypeError(msg)
    if not plain.flags.writeable:
        msg = f"{path} must be writeable, because it is changed in place, got a read-only array; pass a copy."
        raise ValueError(msg)
    if not plain.flags.c_contiguous and _may_overlap_itself(plain):
        msg = f"{path} must have elements that share no memory, got strides {plain.strides} for shape {plain.shape}; "
        msg += "pass a copy."
        raise ValueError(msg)
    return plain


def _check_host_array(array: Any, path: str) -> NDArray[Any]:
    if isinstance(array, np.ma.MaskedArray):
        msg = f"{path} must not be a masked array, because the mask would be lost; pass its .data or .filled(...)."
        raise TypeError(msg)
    if not isinstance(array, np.ndarray):
        if is_on_device(array):
            msg = f"{path} must be a host array like the others, got a CUDA array; copy it to the host first."
        else:
            msg = f"{path} must be a NumPy array, got {type(array).__name__}; {_remedy(array, path)}."
        raise TypeError(msg)
    return as_reals(np.asarray(array))


def as_reals(array: NDArray[Any]) -> NDArray[Any]:
    """Return complex numbers as pairs of real ones along a new last axis, in the same memory; others as they are."""
    if array.dtype.kind != "c" or array.dtype.itemsize > 16:
        return array
    return array[..., np.newaxis].view(np.dtype(f"{array.dtype.byteorder}f{array.dtype.itemsize // 2}"))


def _remedy(value: Any, path: str) -> str:
    """Say how to get an array from something that is not one."""
    if hasattr(value, "toarray"):  # sparse
        return f"{path}.toarray() makes one"
    if type(value).__module__.partition(".")[0] == "torch":
        return f"{path}.detach().numpy() is one, in the memory of the tensor if that is on the CPU"
    if value is None:
        return "give one, or leave it out of params"
    if hasattr(value, "__array__") and not isinstance(value, np.generic):
        return "np.array(...) makes a copy, and what it is made of does not change with it"
    return "make one with np.array(...)"


def _may_overlap_itself(array: NDArray[Any]) -> bool:
    """Return whether an axis steps by less than what the axes within it span. Slices and transposes never do."""
    extent = array.itemsize
    for stride, size in sorted(zip(map(abs, array.strides), array.shape, strict=True)):
        if size > 1:
            if stride < extent:
                return True
            extent += stride * (size - 1)
    return False


def _check_like(array: NDArray[Any], shape: tuple[int, ...], dtype: Any, path: str, other: str) -> None:
    """Raise unless the array has this shape and dtype, those of `other`."""
    if array.shape != shape:
        hint = "; complex numbers count as pairs of real ones" if array.shape == (*shape, 2) else ""
        msg = f"{path} must have shape {shape}, that of {other}, got {array.shape}{hint}."
        raise ValueError(msg)
    if array.dtype != dtype:
        msg = f"{path} must be {dtype.name} like {other}, got dtype {array.dtype.str!r}; "
        msg += f"convert it with {path}.astype(np.{dtype.name})."
        raise TypeError(msg)


def parameter_vector(array: Any, shape: tuple[int, ...], dtype: Any, path: str) -> tuple[NDArray[Any], bool]:
    """Return parameters as a contiguous vector of `dtype`, and whether that is a copy, to be written back."""
    plain = check_array(array, path)
    converts = plain.dtype != dtype and computed_in(plain.dtype) == dtype
    _check_like(plain, shape, plain.dtype if converts else dtype, path, "the params of init")
    if plain.flags.carray and not converts:
        return plain.ravel().view(dtype), False
    return np.array(plain, dtype, order="C").ravel(), True


def gradient_vector(array: Any, params: Any, dtype: Any, path: str, params_path: str) -> NDArray[Any]:
    """Return a gradient of the shape of `params`, of its dtype or of `dtype`, as a vector of `dtype`."""
    plain, params = _check_host_array(array, path), as_reals(params)
    _check_like(plain, params.shape, dtype if plain.dtype == dtype else params.dtype, path, params_path)
    if plain.flags.c_contiguous and plain.flags.aligned and plain.dtype == dtype:
        return plain.ravel().view(dtype)
    return np.array(plain, dtype, order="C").ravel()


# -- common memory ----------------------------------------------------------------------------------------------------


class NamedArray(NamedTuple):
    """An array with what messages call it."""

    path: str
    array: Any


class Span(NamedTuple):
    """The stretch of memory from the first to the last byte of an array."""

    begin: int
    end: int
    is_written: bool
    path: str
    array: NDArray[Any] | None = None  # to look closer, because others may lie between its elements; None if none can


def check_no_overlap(written: Iterable[NamedArray], read: Iterable[NamedArray]) -> None:
    """Raise if an array that is written shares memory with any other."""
    check_spans(
        Span(*np.lib.array_utils.byte_bounds(array), is_written, path, array)
        for is_written, arrays in ((True, written), (False, read))
        for path, array in arrays
        if array.size
    )


def check_spans(spans: Iterable[Span]) -> None:
    """Raise if an array that is written shares memory with any other.

    Arrays whose stretches of memory are apart need no closer look, so that the cost grows with the number of arrays and
    not of pairs; for the others, such as two columns of one array, NumPy decides exactly if it can do so quickly.
    """
    open_spans: list[Span] = []
    for span in sorted(spans, key=lambda span: span.begin):
        open_spans = [other for other in open_spans if other.end > span.begin]
        for other in open_spans:
            if (span.is_written or other.is_written) and _share_memory(span.array, other.array):
                first, second = sorted((other.path, span.path), key=_order_of_mention)
                msg = f"{second} must not share memory with {first}, which step changes in place; pass a copy."
                raise ValueError(msg)
        open_spans.append(span)


def _order_of_mention(path: str) -> int:
    """Return the rank of an array in a message: the state first, then the params, and what is only read last."""
    return next(k for k, kind in enumerate(("state", "params", "grads")) if path.startswith(kind))


def _share_memory(a: NDArray[Any] | None, b: NDArray[Any] | None) -> bool:
    """Return whether two arrays share memory, whose stretches of memory overlap."""
    if a is None or b is None or (a.flags.c_contiguous and b.flags.c_contiguous):
        return True
    try:
        return np.shares_memory(a, b, max_work=_MOST_WORK)  # type: ignore[arg-type]  # its stub knows two limits
    except np.exceptions.TooHardError:
        return True
