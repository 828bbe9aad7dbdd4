"""Data whose rows are spread over ranks: which rows are here, and to which part of the sum over ranks they belong.

Results that have the same bits for any number of ranks need sums that do. Where that is asked for, all rows are divided
into PARTS parts, whatever the number of ranks. Each part is evaluated by itself, and `Ranks` adds the parts up in their
order. So a rank must hold whole parts.
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
from rmsprop_nb._drivers.ranks import Piece, Ranks, ReducedObjective, digest, state_digest
from rmsprop_nb._objectives.problem import Problem

PARTS = 48
"""Number of parts; shards that begin at rank*rows//ranks hold whole parts for every number of ranks that divides it."""


class Part(NamedTuple):
    """A part of the sum over ranks and the range of its rows, which are all here, counted from the first row here."""

    number: int
    begin: int
    end: int


def parts_in_all(deterministic: bool) -> int:
    """Return the number of parts of a sum over ranks."""
    return PARTS if deterministic else 1


def parts_of(rank: int, counts: list[int], deterministic: bool) -> list[Part]:
    """Return the parts that a rank holds; `counts` are the numbers of rows of all ranks."""
    if not deterministic:
        return [Part(0, 0, counts[rank])]
    ends = np.cumsum([0, *counts])
    edges = np.arange(PARTS + 1) * int(ends[-1]) // PARTS
    inside = np.flatnonzero(~np.isin(ends, edges))
    if inside.size:
        k = int(inside[0])
        near = np.searchsorted(edges, ends[k])
        msg = (
            f"data must be whole parts of all rows on every rank for deterministic=True, where part i begins at row "
            f"i*{ends[-1]}//{PARTS}, got an end of rank {k - 1} at row {ends[k]} of all; {edges[near - 1]} and "
            f"{edges[near]} would do."
        )
        raise ValueError(msg)
    first, last = ends[rank], ends[rank + 1]
    ranges = enumerate(pairwise(edges))
    return [Part(k, int(a - first), int(b - first)) for k, (a, b) in ranges if first <= a < b <= last]


def problem_digest(x: NDArray[Any], problem: Problem, state: Any) -> dict[str, str]:
    """Return, as text, what must be the same on all ranks of every run."""
    bounds = digest(problem.lower, problem.upper) if problem.lower.size else "none"
    return {"x0": digest(x), "bounds": bounds, "state": state_digest(state)}


class RankShare(NamedTuple):
    """What this rank contributes to a problem that ranks share."""

    ranks: Ranks
    weight: float | None
    data: Any
    deterministic: bool

    def agree(
        self, x: NDArray[Any], problem: Problem, options: Options
    ) -> Callable[[Callable[[Problem], Any]], ReducedObjective]:
        """Agree with the other ranks on what to run; return a function that makes the objective of all ranks."""
        data = self._checked_data()
        same = {"the function": "minimize", "method": str(options.kind[0])} | options.shared()
        same |= problem_digest(x, problem, options.state)
        same |= {"data": "none" if data is None else "arrays", "deterministic": str(bool(self.deterministic))}
        rows = 0 if data is None else data[0].shape[0]
        counts = self.ranks.agree(x.size, parts_in_all(self.deterministic), same, rows)
        parts = [] if data is None else parts_of(self.ranks.rank, counts, self.deterministic)

        def objective(make: Callable[[Problem], Any]) -> ReducedObjective:
            if data is None:
                return ReducedObjective(self.ranks, [Piece(0, self.weight or 1.0, make(problem))])
            pieces = []
            for number, begin, end in parts:
                rows = tuple(a[begin:end] for a in data)
                local = make(dataclasses.replace(problem, args=(*rows, *problem.args)))
                pieces.append(Piece(number, self.weight or end - begin, local))
            return ReducedObjective(self.ranks, pieces)

        return objective

    def example(self) -> tuple[Any, ...]:
        """Return data of the types that the objective is given before its other arguments."""
        return () if self.data is None else tuple(a[:1] for a in as_data("data", self.data))

    def _checked_data(self) -> tuple[Any, ...] | None:
        if self.weight is not None:
            as_number("weight", self.weight, 0.0, math.inf, open_low=True, open_high=True)
        if self.deterministic and (self.data is None or self.weight is not None):
            given = "no data" if self.data is None else f"weight={self.weight!r}"
            msg = f"deterministic=True needs data, whose rows are the weight, got {given}."
            raise ValueError(msg)
        return None if self.data is None else as_data("data", self.data)
