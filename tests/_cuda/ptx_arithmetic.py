"""What single instructions compute."""

from __future__ import annotations

from typing import Any

import numpy as np

WORDS = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}
WIDER = {np.int16: np.int32, np.uint16: np.uint32, np.int32: np.int64, np.uint32: np.uint64}


def as_type(values: np.ndarray, dtype: Any) -> np.ndarray:
    """The same bits as another type; the lower ones where that is smaller."""
    if values.dtype == dtype:
        return values
    if values.itemsize == dtype.itemsize:
        return values.view(dtype)
    if values.dtype == np.bool_ or dtype == np.bool_ or values.dtype.kind == "f":
        return values.astype(dtype)
    words = values.view(WORDS[values.itemsize]).astype(WORDS[dtype.itemsize])
    return words.view(dtype)


def flushed(values: np.ndarray) -> np.ndarray:
    """Subnormal numbers become zero."""
    return np.where(np.abs(values) < np.finfo(values.dtype).smallest_normal, np.copysign(values * 0, values), values)


def fused_odd(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """``a*b + c`` of float32 in float64, rounded to odd so that a second rounding does no harm.

    S. Boldo, G. Melquiond, "Emulation of FMA and correctly rounded sums: proved algorithms using rounding to odd", IEEE
    Trans. Computers 57 (2008).
    """
    product, c = a.astype(np.float64) * b.astype(np.float64), c.astype(np.float64)
    total = product + c
    part = total - product
    error = (product - (total - part)) + (c - part)
    bits = total.view(np.int64)
    even = np.isfinite(total) & (error != 0) & (bits % 2 == 0)
    return np.where(even, np.where((error > 0) == (total > 0), bits + 1, bits - 1), bits).view(np.float64)


def fused_32(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """``a*b + c`` of float32, rounded once."""
    return fused_odd(a, b, c).astype(np.float32)


def round_down(exact: np.ndarray) -> np.ndarray:
    nearest = exact.astype(np.float32)
    return np.where(nearest > exact, np.nextafter(nearest, np.float32(-np.inf)), nearest)


def fused_64(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """``a*b + c`` of float64 with the error of the product (T. J. Dekker, Numer. Math. 18, 1971), rounded twice."""
    product = a * b
    a_high, b_high = (v * 134217729.0 - (v * 134217729.0 - v) for v in (a, b))
    a_low, b_low = a - a_high, b - b_high
    error = ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low
    total = product + c
    part = total - product
    rest = (product - (total - part)) + (c - part)
    fused = total + (error + rest)
    return np.where(np.isfinite(fused), fused, total)


COMPARE = {
    "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal,
}  # fmt: skip


def _quotient(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a / b if a.dtype.kind == "f" else np.trunc(a / b)


ARITHMETIC = {
    "add": np.add,
    "sub": np.subtract,
    "div": _quotient,
    "rem": np.fmod,
    "min": lambda a, b: np.fmin(a, b) if a.dtype.kind == "f" else np.minimum(a, b),
    "max": lambda a, b: np.fmax(a, b) if a.dtype.kind == "f" else np.maximum(a, b),
    "neg": np.negative,
    "abs": np.abs,
    "not": np.invert,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "sqrt": np.sqrt,
    "rcp": np.reciprocal,
    "rsqrt": lambda a: 1.0 / np.sqrt(a.astype(np.float64)),
    "ex2": lambda a: np.exp2(a.astype(np.float64)),
    "lg2": lambda a: np.log2(a.astype(np.float64)),
    "copysign": lambda a, b: np.copysign(b, a),
}
