"""What a step of the optimizer is on the host and on a device alike: one protocol, and the checks that both make.

`RMSprop.step` calls the methods of `OptimizerStep` in the order in which they stand there. Whatever can go wrong goes
wrong in `take`, `check_gradients` and `rates_of_step`; what comes after them only computes.
"""

from __future__ import annotations

import dataclasses
import math
import sys
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from rmsprop_nb._core.options import Rule, largest_gradient
from rmsprop_nb._core.rates import scheduled_rate
from rmsprop_nb._training.state import VECTORS, LeafState

Rate = float | Callable[[int], float] | NDArray[Any]
Scale = float | list[float] | None

Work = TypeVar("Work")


class ArrayOptions(NamedTuple):
    """The options of one array of parameters."""

    rule: Rule
    rate: Rate
    is_own: bool  # whether the rate is that of `per_block`, which a rate for one step does not replace
    decay: Callable[[int], float] | None = None  # the schedule of the weight decay


class OptimizerStep(Protocol[Work]):
    """What `RMSprop.step` does with a state, worked out when the two first meet.

    `Work` is what `take` makes of the params and grads of one call, and what the other methods are given.
    """

    owner: weakref.ref[Any]  # the optimizer that this was worked out for
    process: int  # that this was worked out in; not to be used after a fork

    def take(self, params: Any, grads: Any) -> Work:
        """Check params and grads, and return them as the work of this step.

        Raises
        ------
        TypeError, ValueError
            If they do not fit the state, or an array that is written shares memory with another one.
        """
        ...

    def check_gradients(self, work: Work) -> None:
        """Raise FloatingPointError for a gradient that is NaN, infinite, or too large to be squared."""
        ...

    def rates_of_step(self, step: int, rate: float | None) -> list[float]:
        """Return the learning rate of each array in this step.

        Each schedule is asked once. `rate`, if given, is that of all arrays without a rate of their own.
        """
        ...

    def accumulate(self, work: Work) -> Work:
        """Add the gradients to their sums, and return the work with the sums as the gradients."""
        ...

    def norm(self, work: Work) -> float:
        """Return the Euclidean norm of all gradients together, even where their squares over- or underflow."""
        ...

    def norms(self, work: Work) -> list[float]:
        """Return the Euclidean norm of each gradient, on the host. Where a gradient is missing, it is 0."""
        ...

    def update(self, work: Work, rates: list[float], count: int, scale: Scale, limit: float | None) -> None:
        """Apply the rule to every array; this is update number `count`, counted from 1.

        Gradients are multiplied by `scale`, a number or one for each array, and then clipped to [-limit, limit], where
        these are not None.
        """
        ...

    def forget_sums(self, work: Work) -> None:
        """Set the sums of gradients to zero."""
        ...


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Leaf:
    """An array of parameters, and what a step has to know about it on the host and on a device alike."""

    path: str  # how the params are indexed to reach it
    shape: tuple[int, ...]
    dtype: Any  # of the arithmetic and the state
    gradient_sum: Any
    beta: float | None  # for bias correction; None without it
    rate: float | Callable[[int], float]
    has_own_rate: bool
    largest_gradient: float


def largest_accepted(dtype: Any, clipped_to: float | None) -> float:
    """Return the largest gradient that `check_gradients` accepts; what will be clipped need only be finite."""
    usable = largest_gradient(dtype)
    return usable if clipped_to is None or clipped_to > usable else float(np.finfo(dtype).max)


# -- rates ------------------------------------------------------------------------------------------------------------


class Rates:
    """The learning rates of some arrays."""

    def __init__(self, leaves: Sequence[Leaf]) -> None:
        self._leaves = leaves
        self.constant: list[Any] | None = (
            None if any(callable(leaf.rate) for leaf in leaves) else [leaf.rate for leaf in leaves]
        )

    def of_step(self, step: int, rate: float | None) -> list[float]:
        """Return the rates of a step; see `OptimizerStep.rates_of_step`. Constant ones are always the same list."""
        if rate is None and self.constant is not None:
            return self.constant
        asked: dict[int, float] = {}  # each schedule once
        return [_rate_of(leaf, step, rate, asked) for leaf in self._leaves]


def _rate_of(leaf: Leaf, step: int, rate: float | None, asked: dict[int, float]) -> float:
    if rate is not None and not leaf.has_own_rate:
        return rate
    if not callable(leaf.rate):
        return leaf.rate
    if id(leaf.rate) not in asked:
        asked[id(leaf.rate)] = scheduled_rate(leaf.rate, step)
    return asked[id(leaf.rate)]


# -- the state --------------------------------------------------------------------------------------------------------


class Keeps(NamedTuple):
    """What an optimizer keeps for every array, whatever its rule is."""

    gradient_sums: bool
    averages: bool  # of the parameters


def vectors_needed(rule: Rule, keeps: Keeps) -> dict[str, bool]:
    """Return which vectors a state has to hold for an array, by their names."""
    variant = rule.variant
    needed = True, variant.centered, variant.momentum, *keeps
    return dict(zip(VECTORS, needed, strict=True))


def check_leaf_state(
    kept: LeafState, needed: dict[str, bool], path: str, can_be_indexed: Callable[[Any], bool]
) -> None:
    """Raise unless the state holds the vectors that are needed, no others, and compiled code can index them."""
    dtype, shape = kept.square_avg.dtype, (math.prod(kept.shape),)
    for vector in kept[1:]:
        if vector is not None and not (can_be_indexed(vector) and vector.dtype == dtype and vector.shape == shape):
            msg = (
                f"state must be made by init or from_arrays; that of params{path} does not fit its shape {kept.shape}."
            )
            raise ValueError(msg)
    for name, is_needed in needed.items():
        is_there = getattr(kept, name) is not None
        if is_there != is_needed:
            has, needs = ("a", "have no use for it") if is_there else ("no", "need one")
            msg = (
                f"state must be of these options: for params{path} it has {has} {name}, and they {needs}; "
                "make one with init, or use the options it was made with."
            )
            raise ValueError(msg)


# -- gradients --------------------------------------------------------------------------------------------------------


def check_missing(leaf: Leaf) -> None:
    """Raise for a gradient that is missing, or has only some rows, where gradients are added up."""
    if leaf.gradient_sum is not None:
        msg = (
            f"grads{leaf.path} must be an array with accumulate_steps, got None or GradientRows; give zeros for what "
            "is missing, or accumulate_steps=1."
        )
        raise TypeError(msg)


def raise_unusable(leaf: Leaf, g: NDArray[Any], rows: NDArray[np.intp] | None = None) -> None:
    """Raise FloatingPointError that names the first element of a gradient, or of some rows, which cannot be used."""
    bad = ~(np.abs(g) <= leaf.largest_gradient)
    k = int(np.argmax(bad))
    shape = leaf.shape if rows is None else (rows.size, *leaf.shape[1:])
    index = tuple(map(int, np.unravel_index(k, shape)))
    if rows is not None:
        index = (int(rows[index[0]]), *index[1:])
    where = f" at index {index[0] if len(index) == 1 else index}" if index else ""
    if np.isfinite(g[k]):
        rule = f"be at most {leaf.largest_gradient:.3g} in size, or its average of squares is soon infinite"
        remedy = "scale the objective, or clip gradients with clip_value or clip_norm"
    else:
        rule, remedy = "be finite", "leave out this gradient; nothing has been changed"
    msg = f"grads{leaf.path} must {rule}, got {g[k]}{where}; {remedy}."
    raise FloatingPointError(msg)


def sum_of_parts(parts: Iterable[float]) -> float:
    """Return the correctly rounded sum of numbers that are not negative; infinity if it is too large."""
    try:
        return math.fsum(parts)
    except OverflowError:  # of finite numbers, which math.fsum does not round to infinity
        return math.inf


def is_exact_enough(sum_of_squares: float) -> bool:
    """Return whether a sum of squares has neither overflowed nor lost digits to underflow."""
    return sys.float_info.min < sum_of_squares < math.inf
