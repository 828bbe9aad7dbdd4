"""The result of a batch, complete or not."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rmsprop_nb._core.options import Options
from rmsprop_nb._core.result import Result, RowResult, as_html, counted, elements
from rmsprop_nb._core.status import MESSAGES, Status
from rmsprop_nb._core.validate import place_of
from rmsprop_nb._drivers.batch_loop import BatchResults
from rmsprop_nb._methods.registry import message_of


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


class ProblemRows(RowResult):
    """A result with a row for each problem, whose text counts the endings."""

    _value: ClassVar[tuple[str, str]] = ("f", "fun")
    """What problems minimize: its name in texts, and its field."""

    def __repr__(self) -> str:
        lines = [self._extent(), *(f"{count:>10}  {message}" for message, count in self._endings())]
        return "\n".join(lines + [f"{name}: {text}" for name, text in self._lowest()])

    def _repr_html_(self) -> str:
        endings = ((message, str(count)) for message, count in self._endings())
        return as_html([(self._extent(), ""), *endings, *self._lowest()])

    def _extent(self) -> str:
        count, n = self.x.shape
        return f"{counted(count, 'problem')} of {counted(n, 'variable')}, {int(self.success.sum())} of them successful"

    def _lowest(self) -> list[tuple[str, str]]:
        if len(self) == 0:
            return []
        name, field = self._value
        best = _lowest(self[field])
        return [(f"lowest {name}", f"{self[field][best]:.6g} at index {best}")]


class BatchResult(ProblemRows):
    """An OptimizeResult whose fields have a row for each problem; see `minimize_batch`.

    ``result[i]`` is the result of problem i, as of `minimize`, and has the ``exception`` that its objective raised.
    """

    _of_each: ClassVar[tuple[str, ...]] = ("fun", "x", "jac", "nit", "nfev", "njev", "status", "success", "message")

    def to_tree(self) -> dict[str, Any]:
        """Return plain values and arrays; messages are those of the statuses, and exceptions become text."""
        fields = {name: value for name, value in self.items() if name not in ("message", "exceptions")}
        texts = {str(k): str(as_text(error)) for k, error in self.exceptions.items()}
        messages = {str(int(code)): str(self.message[k]) for code, k in zip(*np.unique(self.status, True), strict=True)}
        return {"class": "BatchResult", "fields": fields, "exceptions": texts, "messages": messages}

    def _picked(self, key: Any) -> Any:
        fields = self._fields_at(key) | {"gradient": self.gradient}
        if np.ndim(fields["fun"]) == 0:
            return Result(fields)
        if fields["fun"].ndim > 1:
            msg = f"an index of a batch must choose along one axis, got one that gives the shape {fields['fun'].shape}."
            raise IndexError(msg)
        return BatchResult(fields, best=_lowest(fields["fun"]) if fields["fun"].size else None)

    def _columns(self) -> list[tuple[str, Any]]:
        others = [(name, self[name]) for name in ("fun", "success", "status", "nit", "nfev", "njev")]
        return elements("x", self.x) + others


class MultistartResult(RowResult):
    """An OptimizeResult of the best of many runs, with the distinct minima; see `multistart`.

    ``result[k]`` is the result of the run that found minimum k, from the lowest up.
    """

    _of_each: ClassVar[tuple[str, ...]] = ("minima_fun", "minima")

    def to_frame(self) -> Any:
        """Return a pandas DataFrame with a row for each distinct minimum, from the lowest up."""
        return self[:].to_frame()

    def _picked(self, key: Any) -> Any:
        batch = self.batch
        runs = [
            int(np.argmax(batch.success & (batch.fun == f) & (batch.x == x).all(axis=1)))
            for f, x in zip(self.minima_fun, self.minima, strict=True)
        ]
        return batch[np.array(runs, np.intp)[key]]


def take_earlier(state: Any, results: BatchResults, bounds: tuple[NDArray[Any], NDArray[Any]]) -> dict[int, Exception]:
    """Fill in the results of an earlier run, and return its exceptions."""
    if state is None:
        return {}
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
    if bounds[0].size:
        outside = (results.x < bounds[0]) | (results.x > bounds[1])
        if outside.any():
            msg = f"state.x must be within the bounds, got {results.x[outside][0]} at {place_of(outside)}; resume with "
            msg += "the bounds that the run began with."
            raise ValueError(msg)
    return dict(state.exceptions)


def snapshot(results: BatchResults) -> BatchResults:
    """Copy results while other threads write them: the status first, because it is written last."""
    status = results.status.copy()
    return BatchResults(**{name: a.copy() for name, a in results._asdict().items() if name != "status"}, status=status)


def batch_result(
    results: BatchResults, exceptions: dict[int, Exception], options: Options, gradient: str
) -> BatchResult:
    """Make the result; each array is read once or twice, because there may be millions of problems."""
    successes, messages = _of_statuses(options)
    return BatchResult(
        x=results.x,
        fun=results.fun,
        jac=results.jac,
        nit=results.nit,
        nfev=results.nfev,
        njev=results.njev,
        status=results.status,
        success=successes[results.status],
        message=messages[results.status],
        best=_lowest(results.fun),
        gradient=gradient,
        exceptions=exceptions,
    )


def _of_statuses(options: Options) -> tuple[NDArray[np.bool_], NDArray[Any]]:
    """Return whether each status is a success, and its message, at the place of its number."""
    successes, messages = np.zeros(max(Status) + 1, bool), np.full(max(Status) + 1, None, object)
    for status in MESSAGES:
        successes[status], messages[status] = status.success, message_of(status, options)
    return successes, messages


def _lowest(fun: NDArray[np.float64]) -> int:
    """Return the index of the lowest f, the first one if no f is a number."""
    best = int(np.argmin(fun))  # of a NaN, if there is one
    return int(np.argmin(np.where(np.isnan(fun), np.inf, fun))) if np.isnan(fun[best]) else best
