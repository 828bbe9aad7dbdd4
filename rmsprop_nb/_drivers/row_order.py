"""Batches of rows: their order, and how they are passed to the objective.

The order of an epoch is a keyed permutation that is computed, not stored: the row at any position follows from the
seed, the epoch and the position. So shuffling takes no memory, a run can be resumed in the middle of an epoch, and
every driver and machine sees the same batches.

The permutation is a Feistel network (M. Luby, C. Rackoff, SIAM J. Comput. 17, 1988) over the next power of two, with
rows beyond the last one passed over by cycle walking (J. Black, P. Rogaway, CT-RSA 2002); R. Mitchell, D. Stokes,
E. Frank, G. Holmes, "Bandwidth-Optimal Random Shuffling for GPUs", ACM Trans. Parallel Comput. 9 (2022), show that such
shuffles are good. The round function is the finalizer of SplitMix64 (G. Steele, D. Lea, C. Flood, OOPSLA 2014).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rmsprop_nb._numba.calls import copy_bytes, prefetch
from rmsprop_nb._numba.decorators import inline_jit, kernel_jit
from rmsprop_nb._objectives.compiled import CompiledObjective

ROUNDS = 8
_LEAST_BITS = np.uint64(7)  # with this number of rounds, fewer bits are not random enough
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MULTIPLIER_1 = np.uint64(0xBF58476D1CE4E5B9)
_MULTIPLIER_2 = np.uint64(0x94D049BB133111EB)
_AHEAD, _LINE, _PREFETCHED = 8, 64, 1024  # rows that are fetched early; bytes of a line, and of a row at most
_U1, _U27, _U30, _U31 = (np.uint64(k) for k in (1, 27, 30, 31))


@inline_jit
def _mix(z):
    z = (z ^ (z >> _U30)) * _MULTIPLIER_1
    z = (z ^ (z >> _U27)) * _MULTIPLIER_2
    return z ^ (z >> _U31)


@inline_jit
def _permuted(position, key, right_bits, left_mask, right_mask):
    """One pass of the network."""
    left, right = position >> right_bits, position & right_mask
    for _ in range(ROUNDS // 2):
        key = key + _GOLDEN
        left = left ^ (_mix(right + key) & left_mask)
        key = key + _GOLDEN
        right = right ^ (_mix(left + key) & right_mask)
    return (left << right_bits) | right


@kernel_jit("draw")
def draw(indices, begin, count, seed, epoch, n_rows):
    """Set ``indices[:count]`` to the rows at positions `begin`, ... of this epoch's order."""
    n = np.uint64(n_rows)
    bits = _LEAST_BITS
    while (n - _U1) >> bits > np.uint64(0):
        bits = bits + _U1
    right_bits = bits - (bits >> _U1)
    right_mask = (_U1 << right_bits) - _U1
    left_mask = (_U1 << (bits - right_bits)) - _U1
    key = _mix(np.uint64(seed) + (np.uint64(epoch) + _U1) * _GOLDEN)
    for k in range(count):  # without a branch, which would be mispredicted for every other row
        indices[k] = _permuted(np.uint64(begin + k), key, right_bits, left_mask, right_mask)
    for k in range(count):
        row = np.uint64(indices[k])
        while row >= n:
            row = _permuted(row, key, right_bits, left_mask, right_mask)
        indices[k] = row


class Feed(NamedTuple):
    """How compiled code lays a batch out among the packed arguments; one entry for each array of the data.

    Row `row` of array a is at ``sources[a] + row*strides[a]``, as ``pieces[a]`` pieces of ``piece_bytes[a]``, the next
    ``piece_strides[a]`` further on. It is copied into a buffer, unless ``buffers[a]`` is 0: then the objective is given
    the rows in place. The words ``address_slots[a]`` and ``length_slots[a]`` of the packed arguments are the
    address and the number of rows of the batch.
    """

    n_rows: int
    batch_size: int
    shuffle: bool
    indices: NDArray[np.int64]
    words: NDArray[np.int64]
    address_slots: NDArray[np.int64]
    length_slots: NDArray[np.int64]
    sources: NDArray[np.int64]
    strides: NDArray[np.int64]
    pieces: NDArray[np.int64]
    piece_bytes: NDArray[np.int64]
    piece_strides: NDArray[np.int64]
    buffers: NDArray[np.int64]


@inline_jit
def load_batch(feed, seed, epoch, batch):
    """Put a batch before the objective and return its number of rows."""
    begin = batch * feed.batch_size
    count = min(feed.batch_size, feed.n_rows - begin)
    if feed.shuffle:
        draw(feed.indices, begin, count, seed, epoch, feed.n_rows)
    else:
        for k in range(count):
            feed.indices[k] = begin + k
    for a in range(feed.sources.size):
        feed.words[feed.length_slots[a]] = count
        if feed.buffers[a] == 0:
            feed.words[feed.address_slots[a]] = feed.sources[a] + begin * feed.strides[a]
        else:
            _copy_rows(feed, a, count)
    return count


@inline_jit
def _copy_rows(feed, a, count):
    target, size, first, stride = feed.buffers[a], feed.piece_bytes[a], feed.sources[a], feed.strides[a]
    for k in range(count):
        if k + _AHEAD < count:
            ahead = first + feed.indices[k + _AHEAD] * stride
            for offset in range(0, min(size, _PREFETCHED), _LINE):
                prefetch(ahead + offset)
        source = first + feed.indices[k] * stride
        for _ in range(feed.pieces[a]):
            copy_bytes(target, source, size)
            target += size
            source += feed.piece_strides[a]


class Order:
    """Which rows are in which batch."""

    def __init__(self, n_rows: int, batch_size: int, shuffle: bool) -> None:
        self.n_rows = n_rows
        self.batch_size = min(batch_size, n_rows)
        self.shuffle = shuffle
        self._indices = np.empty(self.batch_size, np.int64)

    @property
    def batches(self) -> int:
        """Number of batches in an epoch."""
        return -(-self.n_rows // self.batch_size)

    def span(self, batch: int) -> tuple[int, int]:
        """Return the first position of a batch in the order, and its number of rows."""
        begin = batch * self.batch_size
        return begin, min(self.batch_size, self.n_rows - begin)

    def drawn(self, seed: Any, epoch: int, batch: int) -> NDArray[np.int64]:
        """Return the rows of a batch; they are valid until the next call."""
        begin, count = self.span(batch)
        indices = self._indices[:count]
        with np.errstate(over="ignore"):  # the generator's arithmetic is modulo 2**64
            draw(indices, begin, count, seed, epoch, self.n_rows)
        return indices


class Rows(Order):
    """The data of a problem, to be handed out in batches.

    Parameters
    ----------
    data : tuple of ndarray or scipy.sparse.csr_array
        Arrays with the same number of rows; nothing is copied.
    batch_size : int
        Rows in a batch; the last one of an epoch may be smaller.
    shuffle : bool
        Whether each epoch has an order of its own.
    """

    def __init__(self, data: tuple[Any, ...], batch_size: int, shuffle: bool) -> None:
        super().__init__(int(data[0].shape[0]), batch_size, shuffle)
        self.data = data
        self._buffers: tuple[NDArray[Any], ...] = ()

    def buffers(self) -> tuple[NDArray[Any], ...]:
        """Room for one batch, of the types that a compiled objective is given."""
        if not self._buffers:
            shapes = [(self.batch_size, *a.shape[1:]) for a in self.data]
            natives = [a.dtype.newbyteorder("=") for a in self.data]
            self._buffers = tuple(map(np.zeros, shapes, natives))
        return self._buffers

    def feed(self, objective: CompiledObjective) -> Feed:
        """Say how compiled code gets at the rows; the objective was compiled for `buffers`."""
        buffers = self.buffers()
        arrays = [_in_pieces(a) for a in self.data]
        direct = [not self.shuffle and _as_compiled_code_wants(a) for a in arrays]
        self.data = tuple(arrays)  # kept alive while their addresses are used
        layouts = [_pieces(a) for a in arrays]
        offsets = np.array(objective.offsets[: len(arrays)], np.int64)

        def words(values: Any) -> NDArray[np.int64]:
            return np.array(list(values), np.int64)

        return Feed(
            n_rows=self.n_rows,
            batch_size=self.batch_size,
            shuffle=self.shuffle,
            indices=self._indices,
            words=objective.words,
            address_slots=offsets + 1,  # the second word of a packed array is its address, its shape follows
            length_slots=offsets + 2,
            sources=words(a.ctypes.data for a in arrays),
            strides=words(a.strides[0] for a in arrays),
            pieces=words(layout[0] for layout in layouts),
            piece_bytes=words(layout[1] for layout in layouts),
            piece_strides=words(layout[2] for layout in layouts),
            buffers=words(0 if there else b.ctypes.data for there, b in zip(direct, buffers, strict=True)),
        )

    def batch(self, seed: Any, epoch: int, batch: int) -> tuple[tuple[Any, ...], int]:
        """Return a batch for a Python objective, and its number of rows."""
        if not self.shuffle:
            return self.slice(batch)
        indices = self.drawn(seed, epoch, batch)
        return tuple(a[indices] for a in self.data), indices.size

    def slice(self, batch: int) -> tuple[tuple[Any, ...], int]:
        """Return the batch that stands at this place of the data."""
        begin, count = self.span(batch)
        return tuple(a[begin : begin + count] for a in self.data), count


def _in_pieces(a: NDArray[Any]) -> NDArray[Any]:
    """Return the array if its rows can be copied piece by piece, otherwise a contiguous copy in native byte order."""
    if not a.dtype.isnative:
        return a.astype(a.dtype.newbyteorder("="))
    rows_contiguous = a.ndim == 1 or a.shape[0] == 0 or a[0].flags.c_contiguous
    return a if rows_contiguous or a.ndim == 2 else np.ascontiguousarray(a)


def _pieces(a: NDArray[Any]) -> tuple[int, int, int]:
    """Return the number of pieces in a row, their bytes, and the distance from one to the next."""
    if a.ndim == 1 or a[0].flags.c_contiguous:
        return 1, a.itemsize * int(np.prod(a.shape[1:])), 0
    return a.shape[1], a.itemsize, a.strides[1]


def _as_compiled_code_wants(a: NDArray[Any]) -> bool:
    """Whether a compiled objective may be given rows of the array itself, though it might write into them."""
    return bool(a.flags.c_contiguous and a.flags.aligned and a.flags.writeable)
