"""Data whose rows are spread over ranks: which rows are here, and to which part of the sums over ranks they belong.

Results that have the same bits for any number of ranks need sums that do. So, where that is asked for, all rows are
divided into BLOCKS blocks whatever the number of ranks, each is evaluated by itself, and the sums over blocks are added
up in the order of the blocks (`Team` keeps them apart). A rank must hold whole blocks.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rmsprop_nb._core.options import Options
from rmsprop_nb._core.validate import as_data, as_number
from rmsprop_nb._drivers.ranks import Piece, ReducedObjective, Team, digest, state_digest
from rmsprop_nb._objectives.problem import Problem

BLOCKS = 48
"""Number of blocks; the usual cuts, rank*rows//ranks, fall between blocks for every number of ranks that divides it."""


class Part(NamedTuple):
    """A part of the sums over ranks, and the rows of it, which are all here, counted from the first one here."""

    number: int
    begin: int
    end: int


def parts_in_all(deterministic: bool) -> int:
    """Number of parts that sums over ranks are kept in."""
    return BLOCKS if deterministic else 1


def parts_of(rank: int, counts: list[int], deterministic: bool) -> list[Part]:
    """What a rank has, where each has so many rows."""
    if not deterministic:
        return [Part(0, 0, counts[rank])]
    ends = np.cumsum([0, *counts])
    edges = np.arange(BLOCKS + 1) * int(ends[-1]) // BLOCKS
    cut = np.flatnonzero(~np.isin(ends, edges))
    if cut.size:
        k = int(cut[0])
        near = np.searchsorted(edges, ends[k])
        msg = (
            f"data must be cut between blocks of rows for deterministic=True, which is where i*{ends[-1]}//{BLOCKS} "
            f"is for an integer i, got an end of rank {k - 1} at row {ends[k]} of all; {edges[near - 1]} and "
            f"{edges[near]} would do."
        )
        raise ValueError(msg)
    first, last = ends[rank], ends[rank + 1]
    blocks = enumerate(pairwise(edges))
    return [Part(k, int(a - first), int(b - first)) for k, (a, b) in blocks if first <= a < b <= last]


class RankShare(NamedTuple):
    """What this rank contributes to a problem that ranks share."""

    team: Team
    weight: float | None
    data: Any
    deterministic: bool

    def agree(
        self, x: NDArray[Any], problem: Problem, options: Options
    ) -> Callable[[Callable[[Problem], Any]], ReducedObjective]:
        """Agree with the other ranks on what is to be run; return what makes the objective of all of them."""
        data = self._checked_data()
        same = {"state": state_digest(options.state), "x0": digest(x), "bounds": digest(problem.lower, problem.upper)}
        same |= {"data": str(data is not None), "deterministic": str(bool(self.deterministic))}
        counts = self.team.agree(x.size, options.shared() | same, 0 if data is None else data[0].shape[0])
        parts = [] if data is None else parts_of(self.team.rank, counts, self.deterministic)

        def objective(make: Callable[[Problem], Any]) -> ReducedObjective:
            if data is None:
                return ReducedObjective(self.team, [Piece(0, self.weight or 1.0, make(problem))])
            pieces = []
            for number, begin, end in parts:
                rows = tuple(a[begin:end] for a in data)
                local = make(dataclasses.replace(problem, args=(*rows, *problem.args)))
                pieces.append(Piece(number, self.weight or end - begin, local))
            return ReducedObjective(self.team, pieces)

        return objective

    def _checked_data(self) -> tuple[Any, ...] | None:
        if self.weight is not None:
            as_number("weight", self.weight, 0.0, math.inf, open_low=True, open_high=True)
        if self.deterministic and (self.data is None or self.weight is not None):
            given = "no data" if self.data is None else f"weight={self.weight!r}"
            msg = f"deterministic=True needs data, whose rows are the weight, got {given}."
            raise ValueError(msg)
        return None if self.data is None else as_data("data", self.data)
