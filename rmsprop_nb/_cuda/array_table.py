"""Many arrays on a CUDA device in one launch: the tables in which kernels find them, and the launches.

A table is sent when something in it changes, a few bytes an array, and the host does not wait for that.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rmsprop_nb._core.settings import Variant
from rmsprop_nb._cuda.arrays import to_host
from rmsprop_nb._cuda.memory import real_of
from rmsprop_nb._cuda.native import SIMULATED, cuda
from rmsprop_nb._cuda.reduce import make_add, make_largest, make_sum_of_squares
from rmsprop_nb._cuda.update import ADDRESSES, BLOCK, NUMBERS, make_many_update

_CHUNK = 32 if SIMULATED else 4096  # elements: small enough that a million of them keep a large device busy
_MOST_CHUNKS = 4096  # about; longer chunks then, so that a reduction brings back little
_IN_FLIGHT = 4  # copies of a table that may be on their way before the host waits for the first


class Many:
    """Vectors on the device that are worked on together; all are computed with in one dtype.

    Work is ordered by streams alone: a table is overwritten on the stream on which the next kernel reads it, and
    whoever goes on with a state on another stream has to order the two, for the state as for its tables.
    """

    def __init__(self, sizes: Sequence[int], real: Any) -> None:
        self.real = np.dtype(real)
        self._length = np.uint64(_CHUNK * max(1, -(-sum(sizes) // (_CHUNK * _MOST_CHUNKS))))
        counts = [-(-size // int(self._length)) for size in sizes]
        self._begins = list(itertools.accumulate(counts, initial=0))
        rows = np.repeat(np.arange(len(sizes)), counts)
        parts = np.concatenate([np.arange(count) for count in counts])
        self._chunks = cuda.to_device(np.stack([rows, parts], axis=1).astype(np.int32))
        cuda.synchronize()  # the streams of later launches do not wait for the one that copies
        self._sizes = sizes
        self._addresses = _Mirror((len(sizes), len(ADDRESSES)), np.uint64)
        self._left: dict[Any, Any] = {}  # what reductions leave, read before the next one begins
        self._numbers = _Mirror((len(sizes), len(NUMBERS)), self.real)

    def find(self, addresses: Sequence[Sequence[int]], stream: Any) -> None:
        """Say where the arrays are: for each what `ADDRESSES` names, without the size; what is left out is 0."""
        table = np.zeros((len(self._sizes), len(ADDRESSES)), np.uint64)
        for row, given, size in zip(table, addresses, self._sizes, strict=True):
            row[: len(given)] = given
            row[-1] = size
        self._addresses.send(table, stream)

    def largest(self, number_format: str, stream: Any) -> list[float]:
        """Largest absolute value of each gradient, NaN if there is one; waits for the device."""
        bits = self._reduced(make_largest(number_format), np.dtype(f"i{self.real.itemsize}"), stream).view(self.real)
        return [float(bits[begin:end].max(initial=0.0)) for begin, end in itertools.pairwise(self._begins)]

    def sum_of_squares(self, number_format: str, stream: Any) -> float:
        """Sum of the squares of all gradients, in double precision; waits for the device."""
        return math.fsum(self._reduced(make_sum_of_squares(number_format), np.dtype(np.float64), stream))

    def _reduced(self, kernel: Any, dtype: Any, stream: Any) -> NDArray[Any]:
        """What a reduction finds in each chunk."""
        if not self._begins[-1]:
            return np.empty(0, dtype)
        if dtype not in self._left:
            self._left[dtype] = cuda.device_array(self._begins[-1], dtype)
        found = self._left[dtype]
        kernel[self._begins[-1], BLOCK, stream](self._chunks, self._length, self._addresses.there, found)
        return to_host(found, stream)

    def add(self, number_format: str, stream: Any) -> None:
        """Add the gradients to their sums."""
        if self._begins[-1]:
            kernel = make_add(number_format)
            kernel[self._begins[-1], BLOCK, stream](self._chunks, self._length, self._addresses.there)

    def set_numbers(self, numbers: Sequence[Sequence[float]], stream: Any) -> None:
        """Say for each array what `NUMBERS` names."""
        self._numbers.send(np.array(numbers, self.real), stream)

    def update(
        self,
        variant: Variant,
        formats: tuple[str, str],
        rows: range,
        scale: float | None,
        limit: float | None,
        stream: Any,
        *,
        deterministic: bool,
    ) -> None:
        """Apply the rule to these arrays, in one launch."""
        first, last = self._begins[rows.start], self._begins[rows.stop]
        if first == last:
            return
        adjusts = scale is not None or limit is not None
        kernel = make_many_update(variant, formats, adjusts, deterministic)
        kernel[last - first, BLOCK, stream](
            self._chunks,
            np.uint64(first),
            self._length,
            self._addresses.there,
            self._numbers.there,
            real_of(formats[0]).type(1.0 if scale is None else scale),
            real_of(formats[0]).type(math.inf if limit is None else limit),
        )


class _Mirror:
    """A small array on the device, kept equal to one on the host.

    A copy that the host does not wait for reads memory of the host later, which must not change until then: so there
    are several pages of it, each with an event that says when it has been read.
    """

    def __init__(self, shape: tuple[int, ...], dtype: Any) -> None:
        self.there = cuda.device_array(shape, dtype)
        self._pages = itertools.cycle([(cuda.pinned_array(shape, dtype), cuda.event()) for _ in range(_IN_FLIGHT)])
        self._sent = b""

    def send(self, values: NDArray[Any], stream: Any) -> None:
        """Send what is not there yet."""
        wanted = values.tobytes()
        if wanted == self._sent:
            return
        self._sent = b""  # if something interrupts, nobody knows
        page, was_read = next(self._pages)
        was_read.synchronize()
        page[...] = values
        stream = stream or cuda.default_stream()  # without one, the copy would wait for the kernels before it
        self.there.copy_to_device(page, stream=stream)
        was_read.record(stream)
        self._sent = wanted
