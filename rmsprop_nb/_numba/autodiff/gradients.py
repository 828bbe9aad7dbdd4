"""Compiled functions that fill a gradient or a Jacobian with exact derivatives, in passes over some variables at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, types
from numba.core.errors import TypingError
from numba.extending import overload

from rmsprop_nb._numba.autodiff.access import partial_of, plain_of, stack_array, value_of, variable
from rmsprop_nb._numba.autodiff.copies import Setting
from rmsprop_nb._numba.autodiff.dual import Dual, DualDType, is_dual


def widths(n: int, largest: int = 8) -> int:
    """Return the number of variables for each pass over a function of n: as few passes as possible, all alike."""
    passes = max(-(-n // largest), 1)
    return max(-(-n // passes), 1)


def gradient_of(fun: Any, width: int, on_stack: bool, dual_buffers: bool, real: Any = types.float64):
    dtype = DualDType(Dual(width, real))
    copy = Setting(dtype, dual_buffers).copy_of(fun)

    @njit(error_model="numpy", nogil=True)
    def value_and_grad(x, grad, *args):
        if grad.size != x.size:
            raise ValueError("grad must have the size of x")
        z = stack_array(x.size, dtype) if on_stack else np.empty(x.size, dtype)
        f = 0.0
        for start in range(0, max(x.size, 1), width):
            for i in range(x.size):
                z[i] = variable(x[i], i - start, dtype)
            result = copy(z, *args)
            f = value_of(result)
            for k in range(min(width, x.size - start)):
                grad[start + k] = partial_of(result, k)
        return f

    return value_and_grad
