"""The results that the front ends return: SciPy's OptimizeResult, with a table for notebooks, and rows of many."""

from __future__ import annotations

import collections
import html
import math
import sys
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

import numpy as np
from scipy.optimize import OptimizeResult

_FIRST = ("message", "success", "status", "fun", "x", "jac", "nit", "nfev", "njev")


class Result(OptimizeResult):  # type: ignore[misc]
    """An OptimizeResult that notebooks show as a table."""

    def __repr__(self) -> str:
        shown = {name: repr(value) if isinstance(value, Result) else value for name, value in self.items()}
        if "allvecs" in shown:
            shown["allvecs"] = f"list of {len(self.allvecs)} points"
        # SciPy's form fails on an empty dict
        return repr(OptimizeResult({name: v for name, v in shown.items() if not isinstance(v, dict) or v}))

    def _repr_html_(self) -> str:
        names = [*(name for name in _FIRST if name in self), *sorted(self.keys() - set(_FIRST))]
        return as_html((name, as_text(self[name])) for name in names)


class RowResult(Result):
    """A result with a row for each of many problems.

    ``result[i]`` is the result of problem i; a slice, a mask or a list of indices gives a result of several problems.
    Iteration goes over the problems, and `to_frame` makes a table of them.
    """

    _of_each: ClassVar[tuple[str, ...]] = ()
    """The fields with a row for each problem, the first with nothing but that."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The axes along which there are problems."""
        return tuple(np.shape(self[self._of_each[0]]))

    def __len__(self) -> int:
        """Return the length of the first axis of `shape`, or the number of fields of a single result."""
        return self.shape[0] if self.shape else super().__len__()

    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> Iterator[Any]:
        """Iterate over the results of the problems, or over the names of the fields of a single result."""
        return (self[k] for k in range(len(self))) if self.shape else super().__iter__()

    def __getitem__(self, key: Any) -> Any:
        """Return a field by its name, or the result of one or several problems by an index into `shape`."""
        return super().__getitem__(key) if isinstance(key, str) else self._picked(key)

    def to_frame(self) -> Any:
        """Return a pandas DataFrame with a row for each problem, and a level of the index for each axis of `shape`."""
        lengths = self.shape or (1,)
        columns = [(name, np.reshape(values, math.prod(lengths))) for name, values in self._columns()]
        return as_frame(columns, lengths if len(lengths) > 1 else None)

    def _picked(self, key: Any) -> Any:
        raise NotImplementedError

    def _columns(self) -> Iterable[tuple[str, Any]]:
        raise NotImplementedError

    def _fields_at(self, key: Any) -> dict[str, Any]:
        """Return copies of the rows of some problems, with their exceptions: of one problem, its own if it has one."""
        indices = key if isinstance(key, tuple) else (key,)
        fields: dict[str, Any] = {}
        for name in self._of_each:
            whole = (slice(None),) * (self[name].ndim - len(self.shape))  # so that ... stands for axes of problems
            value = self[name][(*indices, *whole)]
            fields[name] = value.copy() if isinstance(value, np.ndarray) else as_python(value)
        errors = self._exceptions_at(key)
        if np.ndim(fields[self._of_each[0]]):
            return fields | ({"exceptions": errors} if "exceptions" in self else {})
        return fields | ({"exception": errors[()]} if errors else {})

    def _exceptions_at(self, key: Any) -> dict[Any, Exception]:
        """Return the exceptions of some problems, by their indices among these."""
        if not self.get("exceptions"):
            return {}
        places = np.arange(math.prod(self.shape)).reshape(self.shape)[key]
        found: dict[Any, Exception] = {}
        for old, error in self.exceptions.items():
            place = np.ravel_multi_index(old if isinstance(old, tuple) else (old,), self.shape)
            for new in np.argwhere(places == place).tolist():
                found[new[0] if len(new) == 1 else tuple(new)] = error
        return found

    def _endings(self) -> list[tuple[str, int]]:
        """Return each message and how many problems ended with it, the most frequent first."""
        return collections.Counter(np.ravel(self.message).tolist()).most_common()


def as_python(value: Any) -> Any:
    """Return a number of NumPy as one of Python, and anything else as it is."""
    return value.item() if isinstance(value, np.generic) else value


def as_html(rows: Iterable[tuple[str, str]]) -> str:
    """Return a table with two columns of text."""
    cells = "".join(
        f"<tr><th style='text-align:left'>{html.escape(name)}</th>"
        f"<td style='text-align:left'><code>{html.escape(text)}</code></td></tr>"
        for name, text in rows
    )
    return f"<table>{cells}</table>"


def as_frame(columns: Iterable[tuple[str, Any]], shape: tuple[int, ...] | None = None) -> Any:
    """Return a DataFrame of columns, which may share names, with a level of its index for each axis of `shape`."""
    try:
        import pandas as pd
    except ImportError:
        msg = "to_frame needs pandas; install it with pip install pandas."
        raise ImportError(msg) from None
    names, values = zip(*columns, strict=True)
    index = None if shape is None else pd.MultiIndex.from_product([range(length) for length in shape])
    return pd.DataFrame(dict(enumerate(values)), index=index).set_axis(list(names), axis=1)


def elements(name: str, vectors: Any) -> list[tuple[str, Any]]:
    """Return the columns of vectors, one in each row, by names such as ``x[0]``."""
    return [(f"{name}[{k}]", column) for k, column in enumerate(np.transpose(vectors))]


def counted(count: int, what: str) -> str:
    """Return a number with what it counts: ``1 problem``, ``2 problems``."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def as_text(value: Any) -> str:
    """Return a value as text of at most a few lines."""
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_inside(item)}" for name, item in value.items())
    if isinstance(value, list | tuple):
        return f"{type(value).__name__} of {len(value)}"
    if isinstance(value, np.ndarray):
        return np.array2string(value, precision=6, threshold=8, edgeitems=3)
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def _inside(value: Any) -> str:
    """Return what is in a container as text: numbers as they are, and the shape of an array."""
    return f"shape {value.shape}" if np.ndim(value) and hasattr(value, "shape") else as_text(value)


def print_summary(result: OptimizeResult, gradient_norm: float) -> None:
    """Print how a run ended, in the form of SciPy's methods; the gradient itself may be on a device."""
    lines = [
        result.message,
        f"         Current function value: {result.fun:.6g}",
        f"         Gradient max-norm: {gradient_norm:.3g}",
        f"         Iterations: {result.nit}",
        f"         Function evaluations: {result.nfev}",
        f"         Gradient evaluations: {result.njev}",
    ]
    sys.stdout.write("\n".join(lines) + "\n")
