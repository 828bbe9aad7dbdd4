"""One problem on many ranks: each holds a shard of the rows, and all take the same steps, from sums that all know.

The communicator is the user's, of mpi4py or anything else with ``Get_rank``, ``Allreduce`` and ``allgather``; nothing
here imports MPI. There is one Allreduce per evaluation. Its first number counts the ranks that are leaving: a rank that
leaves, for whatever reason, takes part in one last Allreduce, so that no other rank waits for it forever.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import signal
import threading
import traceback
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, ParamSpec, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from rmsprop_nb._core.status import Status
from rmsprop_nb._drivers.loop import StopRun
from rmsprop_nb._methods.run_state import RunState

P = ParamSpec("P")
T = TypeVar("T")

_METHODS = ("Get_rank", "Allreduce", "allgather")
_WEIGHT, _F = range(2)  # the numbers before the gradient in each part of the sum


class RankError(RuntimeError):
    """Another rank failed; the message names it and has the text of its exception."""


def digest(*arrays: NDArray[Any]) -> str:
    """Return a short text that differs for arrays that differ."""
    return ", ".join(f"{a.dtype} {list(a.shape)}" for a in arrays) + f" {_hash(arrays)}"


def _hash(arrays: Iterable[NDArray[Any]]) -> str:
    found = hashlib.sha256()
    for a in arrays:
        found.update(repr((a.shape, a.dtype.str)).encode() + np.ascontiguousarray(a).tobytes())
    return f"#{found.hexdigest()[:16]}"


def state_digest(state: Any) -> str:
    """Return the digest of a state without the point to evaluate next.

    When a run is stopped, not all ranks have chosen that point yet.
    """
    if not isinstance(state, RunState):
        return "none"
    return f"{state!r} {_hash(state.arrays._replace(x_eval=np.empty(0)))}"


class SingleProcess:
    """The communicator of a process that shares its problem with no other."""

    def Get_rank(self) -> int:
        """Return the rank of this process."""
        return 0

    def Allreduce(self, sent: NDArray[Any], received: NDArray[Any]) -> None:
        """Put the sum over all processes into `received`."""
        received[:] = sent

    def allgather(self, value: Any) -> list[Any]:
        """Return the values of all processes."""
        return [value]


class Ranks:
    """The ranks that share a problem, as a context in which the whole run happens.

    However the context ends on one rank, it ends on all: an exception is raised unchanged where it arose, and as a
    RankError elsewhere. After Ctrl-C on one rank, all stop at the next evaluation.

    The sum over ranks consists of parts. Where only one rank contributes to a part, adding the zeros of the others does
    not change its bits, and the parts are then added up in the same order everywhere.
    """

    def __init__(self, comm: Any) -> None:
        missing = [name for name in _METHODS if not callable(getattr(comm, name, None))]
        if missing:
            msg = f"comm must be a communicator such as mpi4py.MPI.COMM_WORLD, got {comm!r} without {missing[0]}."
            raise TypeError(msg)
        self._comm = comm
        self._parts = 1
        self.rank = int(comm.Get_rank())
        self._agreed = self._left = self._interrupted = False
        self._sent = self._received = np.empty(0)
        self._handler: Any = None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._handler = signal.signal(signal.SIGINT, self._on_interrupt)
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            if error is not None:
                self._leave(error)
        finally:
            if self._handler is not None:
                signal.signal(signal.SIGINT, self._handler)

    def agree(self, n: int, parts: int, same: dict[str, str], own: Any = None) -> list[Any]:
        """Raise unless `same` is the same on all ranks; return what each rank gave as `own`.

        `n` is the number of variables, and `parts` that of the parts of a sum.
        """
        found = self._comm.allgather((None, same, own))
        self._agreed = True
        self._raise_for([reason for reason, _, _ in found])
        try:
            _check_same([theirs for _, theirs, _ in found])
        except ValueError:
            self._left = True  # like all others: nobody waits
            raise
        self._parts = parts
        self._sent, self._received = np.zeros((2, 1 + parts * (2 + n)))
        return [theirs for _, _, theirs in found]

    def put(self, part: int, weight: float, f: float, gradient: NDArray[Any]) -> None:
        """Set what this rank contributes to a part of the sum."""
        sums = self._sums(self._sent)[part]
        sums[_WEIGHT], sums[_F] = weight, weight * f
        np.multiply(gradient, weight, out=sums[2 : 2 + gradient.size])

    def mean(self, out: NDArray[Any]) -> float:
        """Put the weighted mean of all gradients into `out`, and return that of all f."""
        self._comm.Allreduce(self._sent, self._received)
        self._sent[:] = 0.0
        if self._received[0] > 0.0:
            self._raise_for(self._comm.allgather(None))
        sums = self._sums(self._received).sum(axis=0) + 0.0  # turns -0.0 into 0.0, as a sum over ranks does
        out[:] = sums[2 : 2 + out.size] / sums[_WEIGHT]
        return float(sums[_F] / sums[_WEIGHT])

    def _sums(self, buffer: NDArray[Any]) -> NDArray[Any]:
        """Return the parts of a buffer, a row each; the first number of a buffer counts the ranks that are leaving."""
        return buffer[1:].reshape(self._parts, -1)

    def end(self, status: Status) -> Status:
        """Tell the other ranks that the run is over here, and return the status that holds for all."""
        try:
            self._leave(status)
        except StopRun as stop:
            return stop.status
        return status

    def begin_again(self) -> None:
        """Begin another round of evaluations, after all ranks have ended the last one."""
        self._left = False

    def raise_if_interrupted(self) -> None:
        """Raise KeyboardInterrupt if Ctrl-C was pressed."""
        if self._interrupted:
            raise KeyboardInterrupt

    def _on_interrupt(self, *_: Any) -> None:
        if self._interrupted:
            raise KeyboardInterrupt  # a second Ctrl-C does not wait for the other ranks
        self._interrupted = True

    def _leave(self, reason: BaseException | Status) -> None:
        """Leave the run and tell the others why; raise if their reason takes precedence."""
        if self._left:
            return
        self._left = True
        if not self._agreed:
            self._comm.allgather((_text(reason), {}, None))
            return
        self._sent[:] = 0.0
        self._sent[0] = 1.0
        self._comm.Allreduce(self._sent, self._received)
        found = self._comm.allgather(reason if isinstance(reason, Status) else _text(reason))
        if isinstance(reason, Status):
            self._raise_for(found)

    def _raise_for(self, reasons: list[Any]) -> None:
        """Raise for why ranks have left: an exception, Ctrl-C, or a status that only one rank could know."""
        self._left = self._left or any(reason is not None for reason in reasons)
        texts = {rank: reason for rank, reason in enumerate(reasons) if isinstance(reason, str)}
        errors = {rank: text for rank, text in texts.items() if text != "KeyboardInterrupt"}
        if errors:
            msg = "; ".join(f"rank {rank}: {text}" for rank, text in errors.items())
            raise RankError(msg)
        if texts:
            raise KeyboardInterrupt
        statuses = [reason for reason in reasons if reason is not None]
        if statuses:
            raise StopRun(max(statuses))


def shared_by_ranks(function: Callable[P, T]) -> Callable[P, T]:
    """Make a front end with an argument `comm` end on all ranks when it ends on one, whatever is wrong in its call.

    The front end is given the `Ranks` of the communicator in its place.
    """

    @functools.wraps(function)
    def call(*args: P.args, **given: P.kwargs) -> T:
        if given.get("comm") is None:
            return function(*args, **given)
        with Ranks(given["comm"]) as given["comm"]:
            return function(*args, **given)

    return call


def ranks_or_alone(ranks: Ranks | None) -> AbstractContextManager[Ranks]:
    """Return a context with ranks that were entered before, or with those of this process alone."""
    return Ranks(SingleProcess()) if ranks is None else contextlib.nullcontext(ranks)


def _check_same(found: list[dict[str, str]]) -> None:
    """Raise unless all ranks gave the same."""
    for rank, theirs in enumerate(found):
        for name in found[0] | theirs:
            first, other = (given.get(name, "nothing") for given in (found[0], theirs))
            if first != other:
                msg = f"{name} must be the same on all ranks, got {first} on rank 0 and {other} on rank {rank}."
                raise ValueError(msg)


def _text(reason: Any) -> str:
    """Return the name and the text of an exception, also of one whose text raises."""
    if isinstance(reason, KeyboardInterrupt):
        return "KeyboardInterrupt"
    return "".join(traceback.format_exception_only(reason)).strip()


class Piece(NamedTuple):
    """Some of this rank's rows: the part of the sum that they belong to, their weight, and their objective."""

    part: int
    weight: float
    evaluate: Callable[[NDArray[Any], NDArray[Any]], float]


class ReducedObjective:
    """The objective of all ranks: the weighted mean of theirs.

    Parameters
    ----------
    ranks : Ranks
        The ranks that share the problem.
    pieces : sequence of Piece, optional
        The rows of this rank; they may be replaced between two evaluations.
    """

    def __init__(self, ranks: Ranks, pieces: Sequence[Piece] = ()) -> None:
        self.pieces = pieces
        self._ranks = ranks
        self._gradient: NDArray[Any] | None = None  # of this rank alone: g is unchanged if the run ends here

    def follow(self, arrays: Any, record: NDArray[Any]) -> None:
        """Let the run with these vectors and this record control the differences."""
        for piece in self.pieces:
            piece.evaluate.follow(arrays, record)  # type: ignore[attr-defined]

    def __call__(self, x: NDArray[Any], g: NDArray[Any]) -> float:
        """Fill g with the gradient at x and return f."""
        self._ranks.raise_if_interrupted()
        if self._gradient is None:
            self._gradient = np.full_like(g, np.nan)  # shows an element that fun never fills
        for part, weight, evaluate in self.pieces:
            f = evaluate(x.copy(), self._gradient)
            self._ranks.put(part, weight, f, self._gradient)
        return self._ranks.mean(g)
