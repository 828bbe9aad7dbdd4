"""What a method is: one record of all that tells it from the others.

Whatever depends on the method reads it here: which functions step, which vectors a run has, what a state may hold. So a
new method is a file with a record, and a line in the registry.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rmsprop_nb._core.options import Options
from rmsprop_nb._core.records import PROGRESS_DTYPE, ROOM, Arrays, MinibatchArrays, Phase
from rmsprop_nb._core.settings import Variant
from rmsprop_nb._core.status import Status

LARGEST_COUNT = 2**62  # no run gets there, and adding to it does not overflow

_LINE = 64  # bytes of a line of the cache, at which a vector begins

_GRADIENTS = ("g", "g_eval", "g_best")

_DOUBLE = ("pair_sums", "epoch_fun", "validation_fun")  # float64 whatever the dtype of x

Shape = tuple[int, ...]


class Algorithm(NamedTuple):
    """A pair of compiled functions, and a name under which the loop around them is kept on disk."""

    name: tuple[Any, ...]
    ask: Any
    tell: Any


class Layout(NamedTuple):
    """The vectors of a run."""

    form: type[Arrays | MinibatchArrays]
    vectors: tuple[str, ...]  # those with an element for each variable
    given: tuple[str, ...] = ()  # those that the problem gives and nothing changes
    optional: tuple[str, ...] = ("lower", "upper")  # those of the same length, or of size 0
    memory: int = 0  # how many pairs of steps and gradient changes are kept
    matrix: bool = False  # whether the lower triangle of a matrix, row by row, comes after each gradient

    def shapes(self, n: int) -> dict[str, tuple[Shape, ...]]:
        """Return the shapes that each vector may have for `n` variables; those that are not named have one axis."""
        pairs = {"steps": (self.memory, n), "gradient_changes": (self.memory, n), "pair_sums": (self.memory, 2)}
        allowed: dict[str, tuple[Shape, ...]] = {}
        for name in self.form._fields:
            if name in pairs:
                allowed[name] = (pairs[name],)
            elif name in self.optional:
                allowed[name] = (n,), (0,)
            elif not name.endswith("_fun"):
                length = self.gradient_length(n) if name in _GRADIENTS else n
                allowed[name] = ((length if name in (*self.vectors, *self.given) else 0,),)
        return allowed

    def gradient_length(self, n: int) -> int:
        """Return the length of what an evaluation fills for `n` variables."""
        return n + (n * (n + 1) // 2 if self.matrix else 0)

    def zeros(self, n: int, dtype: Any, *, optional: bool = False) -> dict[str, NDArray[Any]]:
        """Make the vectors, filled with zeros, in one piece of memory; without `optional`, those have size 0."""
        places, length = _places(self, n, dtype, optional)
        memory = np.zeros(length, np.uint8)
        return {name: np.ndarray(shape, made_of, memory, offset) for name, shape, made_of, offset in places}


@functools.lru_cache(maxsize=64)
def _places(
    layout: Layout, n: int, dtype: Any, optional: bool
) -> tuple[tuple[tuple[str, Shape, np.dtype[Any], int], ...], int]:
    """Return shape, dtype and offset of each vector, and the length of all; looked up, because many runs are short."""
    places, end = [], 0
    for name, shapes in layout.shapes(n).items():
        shape, made_of = shapes[0 if optional else -1], dtype_of(name, dtype)
        places.append((name, shape, made_of, end))
        end += -(-math.prod(shape) * made_of.itemsize // _LINE) * _LINE + ROOM
    return tuple(places), end


def dtype_of(vector: str, dtype: Any) -> np.dtype[Any]:
    """Return the dtype of a vector in a run where x has `dtype`."""
    return np.dtype(np.float64 if vector in _DOUBLE else dtype)


COMMON = ("x", "g", "x_eval", "g_eval", "x_best", "g_best", "square_avg")
"""The vectors of every run but those over mini-batches."""


def layout(*vectors: str, given: tuple[str, ...] = (), memory: int = 0, matrix: bool = False) -> Layout:
    """Make the layout of a run that has these vectors beside the common ones."""
    return Layout(Arrays, (*COMMON, *vectors), given, memory=memory, matrix=matrix)


@dataclasses.dataclass(frozen=True)
class Kind:
    """What the state of a run can be: ``state.kind`` is a name and parameters.

    Attributes
    ----------
    name : str
        First item of the kind.
    parameters : tuple of callable
        For each further item, whether a value of it is valid.
    layout : callable
        ``layout(*parameters)`` returns the vectors.
    ranges : callable
        ``ranges(*parameters)`` returns what the integers of the record may be; any that is not named counts something.
    record : dtype
        Of the scalars.
    """

    name: str
    parameters: tuple[Callable[[Any], bool], ...]
    layout: Callable[..., Layout]
    ranges: Callable[..., Mapping[str, range | set[int]]]
    record: np.dtype[Any] = PROGRESS_DTYPE

    def has(self, parameters: tuple[Any, ...]) -> bool:
        """Return whether a state of this kind can have these parameters."""
        return len(parameters) == len(self.parameters) and all(
            valid(value) for valid, value in zip(self.parameters, parameters, strict=True)
        )


@dataclasses.dataclass(frozen=True)
class Method(Kind):
    """Step control for `minimize` and its relatives.

    Attributes
    ----------
    method : str
        The name that users give; methods that share it share the class of options, which chooses among them.
    options : type
        Class of the options.
    algorithm : callable
        ``algorithm(*parameters, parallel)`` returns an `Algorithm`; `parallel` says whether updates use threads.
    curvature : float
        Fraction of the slope that a line search may leave.
    advice : str
        What users may try if a run takes long.
    messages : dict
        Messages that differ from those of other methods, by status.
    """

    method: str = ""
    options: type[Options] = Options
    algorithm: Callable[..., Algorithm] = Algorithm
    curvature: float = 0.0
    advice: str = ""
    messages: Mapping[Status, str] = dataclasses.field(default_factory=dict)


def ranges_of(layout: Layout, *phases: Phase) -> dict[str, range | set[int]]:
    """Return what the integers of a record may be, for a method that goes through these phases after the start."""
    ranges: dict[str, range | set[int]] = {"phase": {int(phase) for phase in (Phase.START, *phases)}}
    ranges |= dict.fromkeys(("pending", "bracketed", "has_best", "fresh", "measured", "compared"), range(2))
    return ranges | {
        "status": {int(status) for status in Status},
        "pairs": range(layout.memory + 1),
        "newest": range(max(layout.memory, 1)),
        "verdict": {int(Status.GTOL), int(Status.ROUNDING)},
    }


def is_count(value: Any) -> bool:
    """Return whether this is a number of things, at least one."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and 1 <= int(value) < LARGEST_COUNT


def is_variant(value: Any) -> bool:
    """Return whether this is a variant of the rule."""
    return isinstance(value, Variant) and all(isinstance(switch, bool) for switch in value)
