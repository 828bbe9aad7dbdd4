"""The problem to minimize, as validated by the front ends."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

from rmsprop_nb._objectives.finite_differences import CALLS_PER_VARIABLE, default_rel_step


@dataclasses.dataclass(frozen=True)
class Problem:
    """The user's problem, validated.

    Attributes
    ----------
    fun : callable
        The objective, in the form that `jac` requires.
    jac : callable, True, "2-point", "3-point", "cs" or "inplace"
        The source of the gradient.
    args : tuple
        Further arguments of both functions.
    lower, upper : ndarray
        Bounds in the dtype of x, of size 0 if there are none.
    rel_step : float or None
        The user's relative step for differences.
    """

    fun: Callable[..., Any]
    jac: Any
    args: tuple[Any, ...]
    lower: NDArray[Any]
    upper: NDArray[Any]
    rel_step: float | None

    @property
    def step(self) -> tuple[float, bool]:
        """The relative step for differences, and whether it is relative to x alone."""
        if self.rel_step is not None:
            return self.rel_step, True
        return default_rel_step(self.jac, self.lower.dtype), False

    def calls_per_gradient(self, n: int) -> int:
        """Return the number of calls of `fun` that one gradient takes, in addition to the one for f itself."""
        return n * CALLS_PER_VARIABLE.get(self.jac, 0) if isinstance(self.jac, str) else 0
