"""Memory of a simulated device: every access is checked, and counted."""

from __future__ import annotations

from typing import Any

import numpy as np
from ptx_text import Module, PTXError

WARP = 32
SECTOR = 32
GRAIN = 2  # bytes, to which races are told apart
LOCAL = 1  # region of the local memory, of which each thread has its own
SHARED = 2  # of which each block has its own
FIRST_REGION = 16
FIRST_REACHABLE = 4096  # regions of arrays that are no arguments
NOBODY, SEVERAL = -1, -2  # which thread has touched a word: none yet, or more than one


def address_in(k: int, offset: int = 0) -> int:
    """Address of a byte in the k-th array that a kernel is given no argument for, but may reach."""
    return (FIRST_REACHABLE + k << 32) + offset


class Memory:
    """The arrays that a kernel was given or may reach, each in its own region, and what threads have themselves."""

    def __init__(self, arrays: list[np.ndarray], reachable: Any, blocks: int, threads: int, module: Module) -> None:
        regions = [*enumerate(arrays, FIRST_REGION), *enumerate(reachable, FIRST_REACHABLE)]
        self.regions = {k: a.reshape(-1).view(np.uint8) for k, a in regions}
        self.moved = dict.fromkeys(self.regions, 0)  # sectors of each array, and the fewest that would have done
        self.least = dict.fromkeys(self.regions, 0)
        self.block_size = threads // blocks
        self.shared_bytes = -(-module.shared_bytes // 8) * 8
        self.regions[SHARED] = np.zeros(self.shared_bytes * blocks, np.uint8)
        grains = {k: -(-b.size // GRAIN) for k, b in self.regions.items()}
        self.owners = {k: np.full(count, NOBODY) for k, count in grains.items()}
        self.last_block = {k: np.zeros(count, np.int64) for k, count in grains.items()}  # of who has touched it
        self.moment = {k: np.zeros(count, np.int64) for k, count in grains.items()}  # how many barriers were before
        self.written = {k: np.zeros(count, bool) for k, count in grains.items()}
        self.barriers = np.zeros(blocks, np.int64)
        self.local = np.zeros((threads, max(max(f.local_bytes for f in module.functions.values()), 1)), np.uint8)
        self.requests = self.sectors = self.bytes = 0

    def load(self, where: np.ndarray, dtype: Any, width: int, threads: np.ndarray) -> np.ndarray:
        """Read `width` elements for each thread; shape (threads, width)."""
        return self._access(where, np.dtype(dtype), width, threads, None)

    def store(self, where: np.ndarray, values: np.ndarray, threads: np.ndarray) -> None:
        """Write ``values[t]`` for each thread."""
        self._access(where, values.dtype, values.shape[1], threads, np.ascontiguousarray(values))

    def _access(self, where: np.ndarray, dtype: Any, width: int, threads: np.ndarray, values: Any) -> Any:
        size = dtype.itemsize * width
        if (where % np.uint64(size)).any():
            raise PTXError(f"misaligned access of {size} bytes")
        regions, offsets = (where >> np.uint64(32)).astype(np.int64), (where & np.uint64(0xFFFFFFFF)).astype(np.int64)
        found = np.zeros((threads.size, size), np.uint8)
        for region in np.unique(regions):
            here = regions == region
            memory = self.local if region == LOCAL else self.regions.get(int(region))
            if memory is None:
                raise PTXError(f"access to an address in no array, {int(where[here][0]):#x}")
            room = self.shared_bytes if region == SHARED else memory.shape[-1]
            if offsets[here].min() < 0 or offsets[here].max() + size > room:
                raise PTXError(f"out of bounds: {size} bytes at {offsets[here].max()} of {room}")
            if region == SHARED:
                offsets = np.where(here, offsets + threads // self.block_size * self.shared_bytes, offsets)
            bytes_of = offsets[here][:, None] + np.arange(size)
            place = (threads[here][:, None], bytes_of) if region == LOCAL else bytes_of
            if region >= FIRST_REGION:
                self._count(int(region), offsets[here], size, threads[here])
            if region != LOCAL:
                self._look_for_race(int(region), offsets[here], size, threads[here], values is not None)
            if values is None:
                found[here] = memory[place]
            else:
                memory[place] = values.view(np.uint8).reshape(threads.size, size)[here]
        return found.view(dtype) if values is None else None

    def _count(self, region: int, offsets: np.ndarray, size: int, threads: np.ndarray) -> None:
        """Requests of warps, and the sectors of 32 bytes that they touch."""
        warps = threads // WARP
        distinct = np.unique(np.unique(warps * 2**40 + offsets) // 2**40, return_counts=True)[1]
        sectors = np.unique(warps * 2**40 + offsets // SECTOR).size
        self.moved[region] += sectors
        self.least[region] += int(np.sum(-(-distinct * size // SECTOR)))
        self.requests += distinct.size
        self.sectors += sectors
        self.bytes += size * threads.size

    def _look_for_race(self, region: int, offsets: np.ndarray, size: int, threads: np.ndarray, writes: bool) -> None:
        grains = -(-size // GRAIN)
        words = (offsets[:, None] // GRAIN + np.arange(grains)).reshape(-1)
        who = np.repeat(threads, grains)
        block = who // self.block_size
        owner, written = self.owners[region], self.written[region]
        last_block, moment = self.last_block[region], self.moment[region]
        past = words[(last_block[words] == block) & (moment[words] < self.barriers[block])]  # a barrier was in between
        owner[past] = NOBODY
        written[past] = False
        others = (owner[words] != NOBODY) & (owner[words] != who)
        if (others & (written[words] | writes)).any() or (writes and np.unique(words).size < np.unique(who).size):
            raise PTXError(f"race: two threads touch the same place of region {region}, and one writes")
        owner[words] = np.where(others, SEVERAL, who)
        if not writes and np.unique(words).size < words.size:
            distinct, first, count = np.unique(words, return_index=True, return_counts=True)
            owner[distinct] = np.where(count > 1, SEVERAL, owner[words[first]])
        last_block[words], moment[words] = block, self.barriers[block]
        written[words] |= writes

    def atomic(self, where: np.ndarray, values: np.ndarray, operation: Any) -> np.ndarray:
        """Combine one value after another with what stands there; return what stood there before."""
        before = np.empty_like(values)
        for k, (address, value) in enumerate(zip(where.tolist(), values, strict=True)):
            memory = self.regions[address >> 32]
            offset = address & 0xFFFFFFFF
            if offset % values.itemsize or offset + values.itemsize > memory.size:
                raise PTXError("misaligned or out of bounds: an atomic operation")
            cell = memory[offset : offset + values.itemsize].view(values.dtype)
            before[k] = cell[0]
            cell[0] = operation(cell[0], value)
        return before
