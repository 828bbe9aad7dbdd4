"""What is to be minimized, as the front ends have validated it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

from rmsprop_nb._objectives.finite_differences import CALLS_PER_VARIABLE, default_rel_step


@dataclasses.dataclass(frozen=True)
class Problem:
    """What the user asked to be minimized, validated.

    Attributes
    ----------
    fun : callable
        The objective, in the form that `jac` says.
    jac : callable, True, "2-point", "3-point", "cs" or "inplace"
        Where the gradient comes from.
    args : tuple
        Further arguments of both.
    lower, upper : ndarray
        Bounds in the dtype of x, of size 0 if there are none.
    rel_step : float or None
        Relative step of differences as the user gave it.
    """

    fun: Callable[..., Any]
    jac: Any
    args: tuple[Any, ...]
    lower: NDArray[Any]
    upper: NDArray[Any]
    rel_step: float | None

    @property
    def step(self) -> tuple[float, bool]:
        """Relative step of differences, and whether it is relative to x alone."""
        if self.rel_step is not None:
            return self.rel_step, True
        return default_rel_step(self.jac, self.lower.dtype), False

    def calls_per_gradient(self, n: int) -> int:
        """Number of calls of `fun` that one gradient takes, beside the one for f itself."""
        return n * CALLS_PER_VARIABLE.get(self.jac, 0) if isinstance(self.jac, str) else 0
