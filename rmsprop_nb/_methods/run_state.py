"""The state of a run: its checks, and its form as plain arrays.

Compiled code checks no index. So a state from a file or from the user goes through `RunState.checked_copy` before a run
relies on it: every vector has the length that the method needs, and every counter a value that the method could have
left.
"""

from __future__ import annotations

import json
import operator
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rmsprop_nb._core.records import PROGRESS_DTYPE, apart
from rmsprop_nb._core.settings import Variant
from rmsprop_nb._methods import minibatch
from rmsprop_nb._methods.method import LARGEST_COUNT, dtype_of
from rmsprop_nb._methods.registry import kind_of

_RECORD_TYPES = (np.uint64, np.int64, np.float64)


class RunState:
    """Everything that a run needs to be resumed: pass it as ``options={"state": result.state}``.

    Attributes
    ----------
    kind : tuple
        The method and its parameters; a run can only be resumed by the same.
    arrays : Arrays or MinibatchArrays
        The vectors: the current point, its gradient, the averages, the best point so far.
    schedule : ndarray, float64
        The numbers that a schedule with memory had in its attribute `state`; of size 0 without one.
    step : int
        Number of updates made since the first start, over all resumed runs.
    """

    def __init__(
        self,
        kind: tuple[Any, ...],
        arrays: Any,
        record: NDArray[Any] | None = None,
        schedule: NDArray[np.float64] | None = None,
    ) -> None:
        self.kind = kind
        self.arrays = arrays
        self.record = np.zeros(1, PROGRESS_DTYPE) if record is None else record
        self.schedule = np.empty(0) if schedule is None else schedule

    @property
    def progress(self) -> Any:
        """The record with attributes, which are slow: in a loop use ``record[0]["nit"]``."""
        return self.record.view(np.recarray)[0]

    @property
    def step(self) -> int:
        """Number of updates made since the first start."""
        return int(self.progress.step)

    def copy(self) -> RunState:
        """Return an independent copy."""
        return RunState(
            self.kind, type(self.arrays)(*map(apart, self.arrays)), self.record.copy(), self.schedule.copy()
        )

    def checked_copy(self) -> RunState:
        """Return an independent copy that compiled code may rely on; a ValueError if no run could have left it."""
        kind = kind_of(self.kind)
        form, dtype = kind.layout(*self.kind[1:]).form, kind.record
        vectors = self.arrays if isinstance(self.arrays, tuple) and len(self.arrays) == len(form._fields) else ()
        if not vectors or not all(isinstance(a, np.ndarray) for a in (*vectors, self.record)):
            msg = f"state.arrays must be {form.__name__} of NumPy arrays, as the run left it."
            raise ValueError(msg)
        if self.record.dtype != dtype or self.record.shape != (1,):
            msg = "state.record is not as the run left it; resume with an unchanged state."
            raise ValueError(msg)
        schedule = np.array(self.schedule)
        if schedule.ndim != 1 or schedule.dtype != np.float64:
            msg = f"state.schedule must be a vector of float64, got shape {schedule.shape} and dtype {schedule.dtype}."
            raise ValueError(msg)
        copied = RunState(self.kind, form(*map(apart, vectors)), np.array(self.record), schedule)
        _check_vectors(self.kind, copied.arrays)
        _check_counters(copied)
        return copied

    def for_other_data(self) -> RunState:
        """Return a copy of the state of a run over mini-batches that goes on with other data, or other batches.

        The batches of an epoch that has not ended are forgotten, and so is the lowest loss so far; what the rule knows
        of the gradients is kept. `minimize_minibatch` counts the epochs on.

        Raises
        ------
        ValueError
            If it is the state of another run.
        """
        if self.kind[0] != minibatch.KIND.name:
            msg = f"for_other_data is for states of minimize_minibatch; this is {self!r}: begin anew at result.x."
            raise ValueError(msg)
        copied = self.checked_copy()
        copied.kind = minibatch.for_any_data(self.kind)
        p, arrays = copied.progress, copied.arrays
        p.batch = p.rows = p.accumulated = p.weight = p.since_best = 0
        p.f_sum, p.f_best = 0.0, np.inf
        arrays.g[:] = 0.0
        arrays.x_best[:] = arrays.x
        return copied

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return everything as plain arrays, which are not copied.

        "algorithm" is JSON: the kind of the state, and the names of the numbers in the record, which has an array for
        each of their types. "schedule" is what a schedule remembers. The other arrays are the vectors.
        """
        numbers = {
            _type_name(t): [n for n in self.record.dtype.names or () if self.record.dtype[n] == t]
            for t in _RECORD_TYPES
        }
        kind = [item._asdict() if isinstance(item, Variant) else item for item in self.kind]
        arrays = dict(zip(self.arrays._fields, self.arrays, strict=True))
        arrays["schedule"] = self.schedule
        arrays["algorithm"] = np.array(json.dumps({"kind": kind, "record": numbers}, default=operator.index))
        for t in _RECORD_TYPES:
            names = numbers[_type_name(t)]
            arrays[_type_name(t)] = np.array([self.record[name][0] for name in names], dtype=t)
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any]) -> RunState:
        """Make a state from the result of `to_arrays`; raise a ValueError if no run could have left it."""
        kind, names = _read_algorithm(arrays.get("algorithm"))
        described = kind_of(kind)
        form, dtype = described.layout(*kind[1:]).form, described.record
        types = [_type_name(t) for t in _RECORD_TYPES]
        unknown = set(arrays) ^ {"algorithm", "schedule", *types, *form._fields}
        if unknown:
            msg = f"a state of {kind[0]!r} has other arrays: {min(unknown)!r} is missing or unknown."
            raise ValueError(msg)
        record = np.zeros(1, dtype)
        for name, t in zip(types, _RECORD_TYPES, strict=True):
            expected = [field for field in dtype.names or () if dtype[field] == t]
            values = np.asarray(arrays[name])
            if names.get(name) != expected or values.shape != (len(expected),) or values.dtype != t:
                msg = f"the record of a state has other numbers of type {name}; was it made by another version?"
                raise ValueError(msg)
            for field, value in zip(expected, values, strict=True):
                record[field] = value
        vectors = form(**{name: np.asarray(arrays[name]) for name in form._fields})
        return cls(kind, vectors, record, np.asarray(arrays["schedule"])).checked_copy()

    def __repr__(self) -> str:
        x = self.arrays.x
        return f"<RunState: {self.kind[0]}, n={x.size}, {x.dtype}, step {self.step}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return RunState, (self.kind, self.arrays, self.record, self.schedule)


def _type_name(dtype: Any) -> str:
    return f"record_{np.dtype(dtype).name}"


# -- the algorithm ----------------------------------------------------------------------------------------------------


def _read_algorithm(text: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Read the kind and the names of the numbers of the record from JSON."""
    try:
        described = json.loads(str(np.asarray(text)))
        kind, names = described["kind"], dict(described["record"])
        read = tuple(Variant(**item) if isinstance(item, dict) else item for item in kind)
    except (ValueError, TypeError, KeyError, RecursionError):
        msg = "a state must say which algorithm it is of, in the form of this version of rmsprop_nb."
        raise ValueError(msg) from None
    return read, names


# -- the vectors ------------------------------------------------------------------------------------------------------


def _check_vectors(kind: tuple[Any, ...], arrays: Any) -> None:
    """Check that every vector has a size that the method knows, and the dtype of x, and that x is within the bounds."""
    x = arrays.x
    if x.ndim != 1 or x.size == 0 or x.dtype not in (np.float32, np.float64) or not x.dtype.isnative:
        msg = f"state.arrays.x must be a vector of float32 or float64, got shape {x.shape} and dtype {x.dtype}."
        raise ValueError(msg)
    shapes = kind_of(kind).layout(*kind[1:]).shapes(x.size)
    for name, found in zip(arrays._fields, arrays, strict=True):
        dtype = dtype_of(name, x.dtype)
        fits = found.shape in shapes[name] if name in shapes else found.ndim == 1
        if not fits or found.dtype != dtype or not found.dtype.isnative:
            wanted = " or ".join(map(str, shapes.get(name, ["(epochs,)"])))
            msg = (
                f"state.arrays.{name} must have shape {wanted} and dtype {dtype}, as the run left it, got shape "
                f"{found.shape} and dtype {found.dtype}."
            )
            raise ValueError(msg)
    _check_box(arrays)


def _check_box(arrays: Any) -> None:
    lower, upper = arrays.lower, arrays.upper
    points = [getattr(arrays, name) for name in ("x", "x_best") if getattr(arrays, name).size]
    if lower.size != upper.size or not (lower <= upper).all():
        msg = "state.arrays.lower must not be above state.arrays.upper; resume with an unchanged state."
        raise ValueError(msg)
    if lower.size and any((point < lower).any() or (point > upper).any() for point in points):
        msg = "state.arrays.x must be within the bounds of its run; resume with an unchanged state."
        raise ValueError(msg)


# -- the counters -----------------------------------------------------------------------------------------------------


def _check_counters(state: RunState) -> None:
    """Check that the method could have left every integer of the record; compiled code uses some as an index."""
    record, ranges = state.record, kind_of(state.kind).ranges(*state.kind[1:])
    for name in record.dtype.names or ():
        if record.dtype[name] != np.int64:
            continue  # any real number and any seed is safe
        value = int(record[name][0])
        allowed = ranges.get(name, range(LARGEST_COUNT))
        if value not in allowed:
            rule = f"in {sorted(allowed)}" if isinstance(allowed, set) else f"from 0 to {len(allowed) - 1}"
            msg = (
                f"state.record is not as the run left it: {name} must be {rule}, got {value}; resume with an unchanged "
                "state."
            )
            raise ValueError(msg)
