"""Arrays of a batch on their way to a device and back.

Problems are rows on the host, and columns on a device, where the threads of a warp then touch neighbouring words. The
device turns them, a piece at a time: it does so a thousand times as fast as the host. What it can compute by itself is
not moved at all: sizes of variables that follow from the starts, and results before there are any.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
from numba import from_dtype
from numpy.typing import NDArray

from rmsprop_nb._core.status import Status
from rmsprop_nb._cuda.native import SIMULATED, PreparedLaunch, cuda, release_memory
from rmsprop_nb._drivers.batch_loop import BatchResults

PIECE = 64 if SIMULATED else 8 * 2**20
"""Bytes that are turned at a time, or more if a problem has more."""

TILE = 2 if SIMULATED else 32
"""Rows and columns of the part of an array that a block of threads turns."""

_WIDE = TILE + 1  # its columns in different banks of shared memory
_CELLS = TILE * TILE
_BLOCK = 1 if SIMULATED else 256  # threads; those of the simulator may each make shared memory of their own

_INTERRUPTED = int(Status.INTERRUPTED)

_WORDS = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}


def word_of(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the type that numbers of a dtype are moved as, so that few kernels are compiled."""
    return np.dtype(_WORDS.get(dtype.itemsize, dtype))


# -- kernels ----------------------------------------------------------------------------------------------------------


@functools.cache
def make_turn(word: np.dtype[Any]) -> Any:
    """Make the kernel that turns rows into columns.

    ``kernel[blocks, _BLOCK](source, begin, pitch, target, target_begin, target_pitch, rows, columns)`` writes
    ``source[begin + i*pitch + j]`` to ``target[target_begin + j*target_pitch + i]``. Both are read and written along
    rows, by way of shared memory.
    """
    number = from_dtype(word)

    def turn(source, begin, pitch, target, target_begin, target_pitch, rows, columns):
        tile = cuda.shared.array((TILE, _WIDE), number)
        across = (rows + TILE - 1) // TILE
        first_row, first_column = cuda.blockIdx.x % across * TILE, cuda.blockIdx.x // across * TILE
        for k in range(cuda.threadIdx.x, _CELLS, cuda.blockDim.x):
            i, j = k // TILE, k % TILE
            if first_row + i < rows and first_column + j < columns:
                tile[i, j] = source[begin + (first_row + i) * pitch + first_column + j]
        cuda.syncthreads()
        for k in range(cuda.threadIdx.x, _CELLS, cuda.blockDim.x):
            j, i = k // TILE, k % TILE
            if first_row + i < rows and first_column + j < columns:
                target[target_begin + (first_column + j) * target_pitch + first_row + i] = tile[i, j]

    return cuda.jit(turn)


@cuda.jit
def fill_sizes(shared, starts, sizes):
    """Fill in the typical sizes: those that are `shared`, or |x| where that is 0, or 1 where x is 0 too."""
    b = cuda.grid(1)
    if b < sizes.shape[1]:
        for i in range(sizes.shape[0]):
            size = shared[i] if shared[i] > 0 else abs(starts[i, b])
            sizes[i, b] = size if size > 0 else sizes.dtype.type(1)


@cuda.jit
def fill_results(results):
    """Make results those of problems that have not been run."""
    b = cuda.grid(1)
    if b < results.status.size:
        for i in range(results.x.shape[0]):
            results.x[i, b] = results.jac[i, b] = math.nan
        results.fun[b] = math.nan
        results.nit[b] = results.nfev[b] = results.njev[b] = 0
        results.status[b] = _INTERRUPTED


# -- moving -----------------------------------------------------------------------------------------------------------


class DeviceMemory:
    """Moves the arrays of a batch; what it needs for that is given back by `close`."""

    def __init__(self) -> None:
        self._stage: Any = None

    def close(self) -> None:
        """Give back all memory that is no longer in use, which numba-cuda would keep for a while."""
        self._stage = None
        release_memory()

    def whole(self, value: Any) -> Any:
        """Copy every array to the device as it is, also within tuples."""
        if isinstance(value, tuple):
            return getattr(value, "_make", tuple)(map(self.whole, value))
        return cuda.to_device(np.ascontiguousarray(value)) if isinstance(value, np.ndarray) else value

    def columns(self, rows: NDArray[Any]) -> Any:
        """Copy an array to the device and make its first axis, the problem, the last."""
        rows = np.ascontiguousarray(rows)
        count, length = len(rows), math.prod(rows.shape[1:])
        if length == 1 or count == 1 or rows.size == 0:
            return self.whole(rows.reshape(*rows.shape[1:], count))
        target = cuda.device_array((*rows.shape[1:], count), rows.dtype)
        word = word_of(rows.dtype)
        source, flat = rows.reshape(-1).view(word), target.reshape(-1).view(word)
        for begin, end, stage in self._pieces(count, length, word):
            stage.copy_to_device(source[begin * length : end * length])
            _turn(word, stage, 0, length, flat, begin, count, end - begin, length)
        return target

    def fetch(self, columns: Any, rows: NDArray[Any]) -> None:
        """Copy an array from the device into a contiguous one of the host, whose first axis is the problem."""
        count, length = len(rows), math.prod(rows.shape[1:])
        if length == 1 or count == 1 or rows.size == 0:
            columns.reshape(rows.shape).copy_to_host(rows)
            return
        word = word_of(rows.dtype)
        target, flat = rows.reshape(-1).view(word), columns.reshape(-1).view(word)
        for begin, end, stage in self._pieces(count, length, word):
            _turn(word, flat, begin, count, stage, 0, length, length, end - begin)
            stage.copy_to_host(target[begin * length : end * length])

    def _pieces(self, count: int, length: int, word: np.dtype[Any]) -> Any:
        """Yield begin and end of some rows, and memory of the device for them."""
        step = min(count, max(1, PIECE // (length * word.itemsize)))
        size = step * length * word.itemsize
        if self._stage is None or self._stage.size < size:
            self._stage = None  # gives the smaller one back first
            self._stage = cuda.device_array(max(size, PIECE), np.uint8)
        stage = self._stage[:size].view(word)
        for begin in range(0, count, step):
            end = min(begin + step, count)
            yield begin, end, stage if end - begin == step else stage[: (end - begin) * length]

    def sizes(self, shared: NDArray[Any], starts: Any) -> Any:
        """Make the typical sizes of the variables of each problem, in the dtype of the starts."""
        sizes = cuda.device_array((len(shared), starts.shape[1]), starts.dtype)
        if sizes.size:
            PreparedLaunch(fill_sizes, *_grid_of(sizes.shape[1]), 0, (self.whole(shared), starts, sizes))()
        return sizes

    def results(self, starts: Any) -> BatchResults:
        """Make the results of problems that have not been run."""
        shape, count = starts.shape, starts.shape[1]
        results = BatchResults(
            x=cuda.device_array(shape, starts.dtype),
            fun=cuda.device_array(count, np.float64),
            jac=cuda.device_array(shape, starts.dtype),
            nit=cuda.device_array(count, np.int64),
            nfev=cuda.device_array(count, np.int64),
            njev=cuda.device_array(count, np.int64),
            status=cuda.device_array(count, np.int64),
        )
        PreparedLaunch(fill_results, *_grid_of(count), 0, (results,))()
        return results


def _turn(word: np.dtype[Any], *given: Any) -> None:
    """Launch what `make_turn` makes; the last two of its arguments are the numbers of rows and columns."""
    PreparedLaunch(make_turn(word), _blocks_of(*given[-2:]), _BLOCK, 0, given)()


def _blocks_of(rows: int, columns: int) -> int:
    return -(-rows // TILE) * -(-columns // TILE)


def _grid_of(count: int) -> tuple[int, int]:
    return -(-count // _BLOCK), _BLOCK
