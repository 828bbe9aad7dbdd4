"""Mini-batches of rows that are spread over ranks: which rows of a batch are here, and means over all."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rmsprop_nb._drivers.minibatch_loop import Target
from rmsprop_nb._drivers.ranks import Piece, Ranks, ReducedObjective
from rmsprop_nb._drivers.row_order import Order, Rows
from rmsprop_nb._drivers.shards import Part
from rmsprop_nb._objectives.interpreted import PythonObjective
from rmsprop_nb._objectives.problem import Problem


class Shard(Order):
    """One rank's shard of the data; the order and the batches are those of the rows of all ranks.

    Parameters
    ----------
    local : Rows
        The rows that are here.
    first : int
        Index of the first of them among all rows.
    n_rows : int
        Number of all rows.
    batch_size : int
        Number of rows in a batch, counted over all ranks.
    parts : list of Part
        The parts that are here.
    """

    def __init__(self, local: Rows, first: int, n_rows: int, batch_size: int, parts: list[Part]) -> None:
        super().__init__(n_rows, batch_size, local.shuffle)
        self.local = local
        self.parts = parts
        self._first = first

    def batch(self, seed: Any, epoch: int, batch: int) -> Iterator[tuple[int, tuple[Any, ...]]]:
        """Yield the number of each part that has rows of the batch here, and these rows."""
        if self.shuffle:
            indices = self.drawn(seed, epoch, batch) - self._first
        else:
            begin, count = self.span(batch)
            indices = np.arange(begin, begin + count) - self._first
        for part, begin, end in self.parts:
            here = indices[(indices >= begin) & (indices < end)]
            if here.size:
                yield part, tuple(a[here] for a in self.local.data)

    def whole(self) -> Iterator[tuple[int, Rows]]:
        """Yield each part's number and rows, for a pass in order."""
        for part, begin, end in self.parts:
            yield part, Rows(tuple(a[begin:end] for a in self.local.data), self.batch_size, shuffle=False)


class SharedTarget(NamedTuple):
    """The counterpart of `Target` for rows on many ranks; `local` is the objective of this rank alone."""

    rows: Shard
    args: tuple[Any, ...]
    local: PythonObjective
    ranks: Ranks
    objective: ReducedObjective
    feed: None = None

    def load(self, seed: Any, epoch: int, batch: int) -> int:
        """Give a batch to the objective, and return its number of rows on all ranks."""
        parts = self.rows.batch(seed, epoch, batch)
        self.objective.pieces = [Piece(part, rows[0].shape[0], self._on(rows)) for part, rows in parts]
        return self.rows.span(batch)[1]

    def mean(self, x: NDArray[Any], with_gradient: bool) -> tuple[float, NDArray[Any]]:
        """Return the mean of f over the rows of all ranks, and that of the gradient if it is asked for."""
        for part, rows in self.rows.whole():
            f, g = Target(rows, self.args, self.local).mean(x, with_gradient)
            self.ranks.put(part, rows.n_rows, f, g)
        mean = np.empty(x.size if with_gradient else 0, x.dtype)
        return self.ranks.mean(mean), mean

    def _on(self, rows: tuple[Any, ...]) -> Any:
        def evaluate(x: NDArray[Any], g: NDArray[Any]) -> float:
            self.local.args = (*rows, *self.args)
            return self.local(x, g)

        return evaluate


def make_shared_target(problem: Problem, shard: Shard, ranks: Ranks) -> SharedTarget:
    """Bind the objective to data that are spread over ranks."""
    return SharedTarget(
        shard, problem.args, PythonObjective(problem, problem.lower.dtype), ranks, ReducedObjective(ranks)
    )
