"""The result of a batch, complete or not."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rmsprop_nb._core.result import Result, as_html
from rmsprop_nb._core.status import MESSAGES, Status
from rmsprop_nb._drivers.batch_loop import BatchResults


class LoadedError(RuntimeError):
    """An exception that was saved; only its text is left."""


def as_text(error: Exception) -> LoadedError:
    """Keep the text of an exception; a loaded one is returned as it is."""
    return error if isinstance(error, LoadedError) else LoadedError(f"{type(error).__name__}: {error}")


class IncompleteBatchError(RuntimeError):
    """Some problems of a batch could not be run, because a worker failed.

    Attributes
    ----------
    result : BatchResult
        The result so far; problems without a result have status 98. ``minimize_batch(...,
        state=error.result)`` runs them.
    """

    def __init__(self, result: BatchResult) -> None:
        missing = np.flatnonzero(result.status == Status.INTERRUPTED)
        super().__init__(
            f"{len(missing)} of {len(result.status)} problems have no result, because what ran them failed: "
            f"{_ranges(missing)}. The others are in error.result; state=error.result runs those that are missing."
        )
        self.result = result

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.result,)


def _ranges(numbers: NDArray[np.intp]) -> str:
    """Format increasing numbers as ranges, "0-3, 7"; the first ten of them."""
    runs = np.split(numbers, np.flatnonzero(np.diff(numbers) > 1) + 1)
    shown = [f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs[:10]]
    return ", ".join(shown) + (", ..." if len(runs) > 10 else "")


class BatchResult(Result):
    """An OptimizeResult whose fields have a row for each problem; see `minimize_batch`."""

    def to_tree(self) -> dict[str, Any]:
        """Return plain values and arrays; messages follow from the status, and exceptions become text."""
        fields = {name: value for name, value in self.items() if name not in ("message", "exceptions")}
        texts = {str(k): str(as_text(error)) for k, error in self.exceptions.items()}
        return {"class": "BatchResult", "fields": fields, "exceptions": texts}

    def __repr__(self) -> str:
        count, n = self.x.shape
        statuses, counts = np.unique(self.status, return_counts=True)
        lines = [f"{count} problems of {n} variables, {int(self.success.sum())} of them successful"]
        lines += [f"{k:>10}  {MESSAGES[Status(int(status))]}" for status, k in zip(statuses, counts, strict=True)]
        lines += [f"lowest f: {self.fun[self.best]:.6g} at index {self.best}"]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        first, *rest, lowest = map(str.strip, repr(self).split("\n"))
        counts = {message: count for count, message in (line.split("  ", 1) for line in rest)}
        return as_html({first: "", **counts, "lowest f": lowest.removeprefix("lowest f: ")})


def earlier_results(state: Any, starts: NDArray[Any]) -> tuple[BatchResults, dict[int, Exception]]:
    """Make the arrays of results, and fill in those of an earlier run."""
    results = BatchResults.empty(starts)
    if state is None:
        return results, {}
    if not isinstance(state, BatchResult):
        msg = f"state must be the result of an earlier minimize_batch, got {type(state).__name__}."
        raise TypeError(msg)
    found = (state.x, state.fun, state.jac, state.nit, state.nfev, state.njev, state.status)
    for name, old, new in zip(BatchResults._fields, found, results, strict=True):
        if old.shape != new.shape or old.dtype != new.dtype:
            msg = (
                f"state.{name} must have shape {new.shape} and dtype {new.dtype}, got {old.shape} and {old.dtype}; "
                "resume with the X0 that the run began with."
            )
            raise ValueError(msg)
        new[:] = old
    return results, dict(state.exceptions)


def snapshot(results: BatchResults) -> BatchResults:
    """Copy results while other threads write them: the status first, because it is written last."""
    status = results.status.copy()
    return BatchResults(**{name: a.copy() for name, a in results._asdict().items() if name != "status"}, status=status)


def batch_result(results: BatchResults, exceptions: dict[int, Exception], gradient: str) -> BatchResult:
    codes, which = np.unique(results.status, return_inverse=True)
    statuses = [Status(int(code)) for code in codes]
    fun = np.where(np.isnan(results.fun), np.inf, results.fun)
    return BatchResult(
        x=results.x,
        fun=results.fun,
        jac=results.jac,
        nit=results.nit,
        nfev=results.nfev,
        njev=results.njev,
        status=results.status,
        success=np.array([status.success for status in statuses])[which],
        message=np.array([MESSAGES[status] for status in statuses], dtype=object)[which],
        best=int(np.argmin(fun)),
        gradient=gradient,
        exceptions=exceptions,
    )
