"""The problem to minimize, as validated by the front ends."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rmsprop_nb._core.settings import Sampling
from rmsprop_nb._objectives.finite_differences import CALLS_PER_VARIABLE, DIFFERENCES, default_rel_step

MATRIX = "matrix"
"""The form of an objective that fills the gradient and, behind it, the lower triangle of a matrix, row by row."""

IN_PLACE = ("inplace", MATRIX)


@dataclasses.dataclass(frozen=True)
class Problem:
    """The user's problem, validated.

    Attributes
    ----------
    fun : callable
        The objective, in the form that `jac` requires.
    jac : callable, True, None, "2-point", "3-point", "cs", "inplace" or MATRIX
        The source of the gradient.
    args : tuple
        Further arguments of both functions.
    lower, upper : ndarray
        Bounds in the dtype of x, of size 0 if there are none.
    own_steps : ndarray of float64
        The user's relative steps for differences, of size 0 if there are none.
    exact : bool
        Whether `fun` fills the gradient with exact derivatives of the user's function.
    """

    fun: Callable[..., Any]
    jac: Any
    args: tuple[Any, ...]
    lower: NDArray[Any]
    upper: NDArray[Any]
    own_steps: NDArray[np.float64] = dataclasses.field(default_factory=lambda: np.empty(0))
    exact: bool = False

    @property
    def gradient_source(self) -> str:
        """Where gradients come from, in a word for the result."""
        if self.exact:
            return "autodiff"
        return "differences" if self.by_differences else "cs" if self.jac == "cs" else "given"

    @property
    def sampling(self) -> Sampling:
        """How gradients are made."""
        if not self.by_differences:
            return Sampling(1 if self.jac == "cs" else 0)
        return Sampling(CALLS_PER_VARIABLE[self.jac], True, self.jac is None and not self.own_steps.size)

    @property
    def by_differences(self) -> bool:
        """Whether the gradient is made of differences of f."""
        return self.jac is None or (isinstance(self.jac, str) and self.jac in DIFFERENCES)

    def rel_step(self, eps: float) -> float:
        """Return the first relative step for an error `eps` of f; negative for central differences."""
        default = default_rel_step(self.jac, eps)
        return float(np.copysign(self.own_steps.min(), default)) if self.own_steps.size else default


def learn_precision(problem: Problem, eps: float, control: NDArray[np.float64], record: NDArray[Any] | None) -> None:
    """Take in that f has the relative precision `eps`: less of it needs larger steps, in ``control[0]``."""
    if record is not None and eps > record[0]["f_eps"]:
        record["f_eps"] = eps
    if not problem.by_differences:
        return
    wanted = problem.rel_step(eps)
    if control[0] * wanted > 0.0 and abs(control[0]) < abs(wanted):
        control[0] = wanted
