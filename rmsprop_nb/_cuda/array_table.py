"""Many arrays on a CUDA device in one launch: the tables in which kernels find them, and the launches.

A table is sent when something in it changes, a few bytes for each array, and the host does not wait for that.
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
from rmsprop_nb._cuda.native import SIMULATED, PreparedLaunch, cuda
from rmsprop_nb._cuda.reduce import make_add, make_largest, make_sum_of_squares
from rmsprop_nb._cuda.update import BLOCK, ArrayRow, ChunkRow, Formats, NumberRow, make_table_update
from rmsprop_nb._training.step import sum_of_parts

_CHUNK = 32 if SIMULATED else 4096  # elements: small enough that a million of them keep a large device busy
_MOST_CHUNKS = 16384  # about; beyond that chunks become longer, so that a reduction brings back little
_IN_FLIGHT = 4  # copies of a table that may be under way before the host waits for the first


class ArrayTable:
    """Vectors on the device that are worked on together; all are computed with in one dtype.

    Work is ordered by streams alone: a table is overwritten on the stream on which the next kernel reads it. Code that
    continues with a state on another stream has to order the two streams, for the state as for its tables.
    """

    def __init__(self, sizes: Sequence[int], real: Any) -> None:
        self.real = np.dtype(real)
        self._chunk_length = np.uint64(_CHUNK * max(1, -(-sum(sizes) // (_CHUNK * _MOST_CHUNKS))))
        counts = [-(-size // int(self._chunk_length)) for size in sizes]
        self._first_chunks = list(itertools.accumulate(counts, initial=0))  # of each array, and the number of chunks
        rows = np.repeat(np.arange(len(sizes)), counts)
        positions = np.concatenate([np.arange(count) for count in counts])
        self._chunks = cuda.to_device(np.stack(ChunkRow(rows, positions), axis=1).astype(np.int32))
        cuda.synchronize()  # the streams of later launches do not wait for the one that copies
        self._addresses = _Mirror((len(sizes), len(ArrayRow._fields)), np.uint64)
        self._numbers = _Mirror((len(sizes), len(NumberRow._fields)), self.real)
        self._partial_results: dict[Any, Any] = {}  # of reductions, by dtype; read before the next one begins
        self._launches: dict[Any, PreparedLaunch] = {}

    @property
    def chunk_count(self) -> int:
        """Number of chunks of all arrays together."""
        return self._first_chunks[-1]

    def set_addresses(self, rows: Sequence[ArrayRow] | NDArray[np.uint64], stream: Any) -> None:
        """Send where the arrays are, which have the sizes that the table was made for."""
        self._addresses.send(np.asarray(rows, np.uint64), stream)

    def set_numbers(self, rows: Sequence[NumberRow] | NDArray[Any], stream: Any) -> None:
        """Send the numbers of the next update."""
        self._numbers.send(np.asarray(rows, self.real), stream)

    def largest(self, number_format: str, stream: Any) -> list[float]:
        """Return the largest absolute value of each gradient, NaN if there is one; waits for the device."""
        bits = self._reduced(make_largest(number_format), np.dtype(f"i{self.real.itemsize}"), stream).view(self.real)
        return [float(bits[begin:end].max(initial=0.0)) for begin, end in itertools.pairwise(self._first_chunks)]

    def sum_of_squares(self, number_format: str, stream: Any, scale: float = 1.0) -> float:
        """Return the sum of squares of all gradients times `scale`, in double precision; waits for the device."""
        return sum_of_parts(self._reduced(make_sum_of_squares(number_format, scale), np.dtype(np.float64), stream))

    def _reduced(self, kernel: Any, dtype: Any, stream: Any) -> NDArray[Any]:
        """Return what a reduction finds in each chunk."""
        if not self.chunk_count:
            return np.empty(0, dtype)
        if dtype not in self._partial_results:
            self._partial_results[dtype] = cuda.device_array(self.chunk_count, dtype)
        found = self._partial_results[dtype]
        self._prepared(kernel, range(self.chunk_count), stream, self._chunk_length, self._addresses.on_device, found)()
        return to_host(found, stream)

    def add(self, number_format: str, stream: Any) -> None:
        """Add the gradients to their sums."""
        if self.chunk_count:
            kernel, chunks = make_add(number_format), range(self.chunk_count)
            self._prepared(kernel, chunks, stream, self._chunk_length, self._addresses.on_device)()

    def update(
        self,
        variant: Variant,
        formats: Formats,
        rows: range,
        scale: float | None,
        limit: float | None,
        stream: Any,
        *,
        deterministic: bool,
    ) -> None:
        """Apply the rule to the arrays of these rows, in one launch."""
        chunks = range(self._first_chunks[rows.start], self._first_chunks[rows.stop])
        if not chunks:
            return
        adjusts = scale is not None or limit is not None
        kernel = make_table_update(variant, formats, adjusts, deterministic)
        numbers = tuple(map(self.real.type, (1.0 if scale is None else scale, math.inf if limit is None else limit)))
        places = self._addresses.on_device, self._numbers.on_device
        launch = self._prepared(kernel, chunks, stream, np.uint64(chunks.start), self._chunk_length, *places, *numbers)
        if adjusts:
            launch.set_last(numbers)
        launch()

    def _prepared(self, kernel: Any, chunks: range, stream: Any, *arguments: Any) -> PreparedLaunch:
        """Return the launch of a kernel that takes the chunks and these arguments, a block for each of `chunks`."""
        key = kernel, chunks, int(stream)
        if key not in self._launches:
            self._launches[key] = PreparedLaunch(kernel, len(chunks), BLOCK, stream, (self._chunks, *arguments))
        return self._launches[key]


class _Mirror:
    """A small array on the device, kept equal to one on the host.

    A copy that the host does not wait for reads memory of the host later, which must not change until then: so there
    are several pages of it, each with an event that says when it has been read.
    """

    def __init__(self, shape: tuple[int, ...], dtype: Any) -> None:
        self.on_device = cuda.device_array(shape, dtype)
        self._pages = itertools.cycle([(cuda.pinned_array(shape, dtype), cuda.event()) for _ in range(_IN_FLIGHT)])
        self._sent = b""

    def send(self, values: NDArray[Any], stream: Any) -> None:
        """Send these values unless they are on the device already."""
        wanted = values.tobytes()
        if wanted == self._sent:
            return
        self._sent = b""  # an interrupt from here on leaves it unknown what is there
        page, was_read = next(self._pages)
        was_read.synchronize()
        page[...] = values
        stream = stream or cuda.default_stream()  # without one, the copy would wait for the kernels before it
        self.on_device.copy_to_device(page, stream=stream)
        was_read.record(stream)
        self._sent = wanted
