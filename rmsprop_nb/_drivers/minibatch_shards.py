"""Mini-batches of rows that are spread over ranks: what of each batch is here, and the mean over all that are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rmsprop_nb._drivers.minibatch_loop import Target
from rmsprop_nb._drivers.ranks import Piece, ReducedObjective, Team
from rmsprop_nb._drivers.row_order import Order, Rows
from rmsprop_nb._drivers.shards import Part
from rmsprop_nb._objectives.interpreted import PythonObjective
from rmsprop_nb._objectives.problem import Problem


class Shard(Order):
    """One rank's part of data that are spread over ranks; order and batches are those of all the rows.

    Parameters
    ----------
    local : Rows
        The rows that are here.
    first : int
        Place of the first of them among all.
    n_rows : int
        Number of all rows.
    parts : list of Part
        What is here.
    """

    def __init__(self, local: Rows, first: int, n_rows: int, batch_size: int, parts: list[Part]) -> None:
        super().__init__(n_rows, batch_size, local.shuffle)
        self.local = local
        self.parts = parts
        self._first = first

    def batch(self, seed: Any, epoch: int, batch: int) -> Iterator[tuple[int, tuple[Any, ...]]]:
        """Yield what is here of each part of a batch: the part's number, and the rows."""
        if self.shuffle:
            places = self.drawn(seed, epoch, batch) - self._first
        else:
            begin, count = self.span(batch)
            places = np.arange(begin, begin + count) - self._first
        for part, begin, end in self.parts:
            here = places[(places >= begin) & (places < end)]
            if here.size:
                yield part, tuple(a[here] for a in self.local.data)

    def whole(self) -> Iterator[tuple[int, Rows]]:
        """Yield each part, as rows to be passed over."""
        for part, begin, end in self.parts:
            yield part, Rows(tuple(a[begin:end] for a in self.local.data), self.batch_size, shuffle=False)


class SharedTarget(NamedTuple):
    """What `Target` is, for data that are spread over ranks. The objective of this rank alone is `local`."""

    rows: Shard
    args: tuple[Any, ...]
    local: PythonObjective
    team: Team
    objective: ReducedObjective
    feed: None = None

    def load(self, seed: Any, epoch: int, batch: int) -> int:
        """Put a batch before the objective and return the number of rows that it has everywhere."""
        parts = self.rows.batch(seed, epoch, batch)
        self.objective.pieces = [Piece(part, rows[0].shape[0], self._on(rows)) for part, rows in parts]
        return self.rows.span(batch)[1]

    def mean(self, x: NDArray[Any], with_gradient: bool) -> tuple[float, NDArray[Any]]:
        """Mean over the rows of all ranks of f, and of the gradient if that is asked for."""
        for part, rows in self.rows.whole():
            f, g = Target(rows, self.args, self.local).mean(x, with_gradient)
            self.team.put(part, rows.n_rows, f, g)
        mean = np.empty(x.size if with_gradient else 0, x.dtype)
        return self.team.mean(mean), mean

    def _on(self, rows: tuple[Any, ...]) -> Any:
        def evaluate(x: NDArray[Any], g: NDArray[Any]) -> float:
            self.local.args = (*rows, *self.args)
            return self.local(x, g)

        return evaluate


def make_shared_target(problem: Problem, shard: Shard, team: Team) -> SharedTarget:
    """Bind the objective to data that are spread over ranks."""
    return SharedTarget(shard, problem.args, PythonObjective(problem), team, ReducedObjective(team))
