"""The state for new arrays of parameters on the host."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rmsprop_nb._core.options import Rule
from rmsprop_nb._training.arrays import NamedArray, check_array, check_no_overlap, computed_in
from rmsprop_nb._training.state import LeafState
from rmsprop_nb._training.step import Keeps, vectors_needed

_PAGE = 4096


def new_leaf(array: NDArray[Any], rule: Rule, keeps: Keeps) -> LeafState:
    """Make the state for an array of parameters."""
    needed = vectors_needed(rule, keeps)

    def vector(name: str, quarters: int) -> NDArray[Any] | None:
        return _apart_from(array, quarters) if needed[name] else None

    square_avg = _apart_from(array, 1)
    square_avg.fill(rule.initial_accumulator)
    average = vector("params_avg", 2)
    if average is not None:
        average[:] = array.ravel()
    return LeafState(
        array.shape, square_avg, vector("grad_avg", 2), vector("momentum_buffer", 3), vector("gradient_sum", 2), average
    )


def new_leaves(named: list[NamedArray], rules: list[Rule], keeps: Keeps) -> list[LeafState]:
    """Make the state for arrays of parameters on the host."""
    checked = [NamedArray(path, check_array(array, path)) for path, array in named]
    check_no_overlap(checked, [])
    return [new_leaf(array, rule, keeps) for (_, array), rule in zip(checked, rules, strict=True)]


def _apart_from(array: NDArray[Any], quarters: int) -> NDArray[Any]:
    """Make a vector of zeros as long as `array` whose address differs from its by these quarters of a page.

    Whole pages between the two do not count. Where addresses differ by little more than whole pages, processors take a
    load for one of what is still being stored, and wait: a fifth of the time of a step.
    """
    dtype = computed_in(array.dtype)
    if array.size * dtype.itemsize < _PAGE:
        return np.zeros(array.size, dtype)
    buffer = np.zeros(array.size * dtype.itemsize + _PAGE, np.uint8)
    wanted = array.__array_interface__["data"][0] + quarters * _PAGE // 4
    start = (wanted - buffer.__array_interface__["data"][0]) % _PAGE
    start -= start % dtype.itemsize
    return buffer[start : start + array.size * dtype.itemsize].view(dtype)
