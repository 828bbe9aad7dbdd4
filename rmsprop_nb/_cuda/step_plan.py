"""What a step on a CUDA device does with arrays in the memory that they are in, worked out once for many steps."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from rmsprop_nb._core.settings import Hyper, Variant
from rmsprop_nb._cuda.array_table import ArrayTable
from rmsprop_nb._cuda.arrays import DeviceVector
from rmsprop_nb._cuda.native import PreparedLaunch
from rmsprop_nb._cuda.update import ArrayRow, Formats, NumberRow, prepare_update
from rmsprop_nb._kernels.update import bias_after
from rmsprop_nb._training.step import Leaf


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DeviceLeaf(Leaf):
    """An array of parameters, what is kept for it, and what a step does with it."""

    variant: Variant
    hyper: Hyper
    kept: ArrayRow  # addresses of the averages and of the sum of gradients

    def row(self, x: DeviceVector, g: DeviceVector) -> ArrayRow:
        """Return where all vectors of this array are in a step."""
        kept = self.kept
        return ArrayRow(
            x.address, g.address, kept.square_avg, kept.grad_avg, kept.momentum_buffer, kept.gradient_sum, x.size
        )

    def sums(self, x: DeviceVector) -> DeviceVector:
        """Return the sum of gradients as a gradient, on the stream of the parameters."""
        return DeviceVector(self.kept.gradient_sum, self.shape, self.dtype.name, x.stream)

    def numbers(self, rate: float, count: int) -> NumberRow:
        """Return the numbers of update number `count`, with this learning rate."""
        return NumberRow(rate, 1.0 if self.beta is None else bias_after(self.beta, count), *self.hyper)


class Launch(NamedTuple):
    """The rows of a table that are updated in one launch, because the variant of the rule is the same."""

    variant: Variant
    rows: range


class Group(NamedTuple):
    """Arrays that one table takes: their positions among the leaves, in the order of its rows."""

    positions: list[int]
    formats: Formats
    launches: list[Launch]
    table: ArrayTable


class GroupPlan:
    """A group with where its arrays are, and what is launched for them."""

    def __init__(self, group: Group, rows: Sequence[ArrayRow], stream: Any) -> None:
        self.positions, self.formats, self.launches, self.table = group
        self.rows, self.stream = rows, stream
        self._addresses = np.array(rows, np.uint64)
        self._updates: dict[Any, PreparedLaunch] = {}
        self._numbers: Any = None  # those of all arrays that were last sent, as they were given
        self._packed_numbers: Any = None

    def locate(self) -> ArrayTable:
        """Send where the arrays are to their table, unless that is known there; return the table."""
        self.table.set_addresses(self._addresses, self.stream)
        return self.table

    def send_numbers(self, numbers: list[NumberRow]) -> None:
        """Send the numbers of an update, given for all arrays of a step, unless they are known there."""
        if numbers is not self._numbers:
            self._numbers = numbers
            self._packed_numbers = np.array([numbers[k] for k in self.positions], self.table.real)
        self.table.set_numbers(self._packed_numbers, self.stream)

    def update(self, leaf: DeviceLeaf, adjusts: bool, deterministic: bool) -> PreparedLaunch:
        """Return the launch that updates the only array, which needs no table."""
        if adjusts not in self._updates:
            self._updates[adjusts] = prepare_update(
                leaf.variant,
                self.formats,
                self.rows[0],
                leaf.hyper,
                self.stream,
                adjusts=adjusts,
                deterministic=deterministic,
            )
        return self._updates[adjusts]


class Plan(NamedTuple):
    """What a step does with arrays in the memory that they are in; kept for later steps on the same memory."""

    params: list[DeviceVector]
    grads: list[Any]  # DeviceVectors, or None
    groups: list[GroupPlan]
