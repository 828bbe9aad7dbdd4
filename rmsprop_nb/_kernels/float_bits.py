"""Floats as bit patterns: those of absolute values are ordered like the values, with NaN last, and compare faster.

The functions work in compiled code and in Python.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numba.extending import intrinsic, overload


def magnitude_bits(value: Any) -> Any:
    """Return the bit pattern of ``abs(value)`` as an integer of the same width."""
    return np.abs(value).view(np.int32 if value.itemsize == 4 else np.int64)


def from_bits(bits: Any) -> Any:
    """Return the float with this bit pattern."""
    return bits.view(np.float32 if bits.itemsize == 4 else np.float64)


@intrinsic
def _bitcast(typingctx: Any, value: Any, target: Any) -> Any:
    signature = target.instance_type(value, target)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.bitcast(args[0], context.get_value_type(sig.return_type))

    return signature, codegen


@overload(magnitude_bits)
def _magnitude_bits(value):
    integer = types.int32 if value == types.float32 else types.int64
    return lambda value: _bitcast(abs(value), integer)


@overload(from_bits)
def _from_bits(bits):
    real = types.float32 if bits == types.int32 else types.float64
    return lambda bits: _bitcast(bits, real)
