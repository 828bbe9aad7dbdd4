"""The update on a CUDA device, relative to a copy of as many bytes. Skipped where there is no device."""

from __future__ import annotations

import importlib.util

import numpy as np

from benchmarks._interleaved import compare


def skip_without_device():
    """Raise NotImplementedError, which asv takes as a skip, if there is no device."""
    if importlib.util.find_spec("numba_cuda") is None:
        raise NotImplementedError
    from numba import cuda

    if not cuda.is_available():
        raise NotImplementedError


class UpdateOnDevice:
    """`RMSprop.step` on an array on the device. Floor: a ratio of 1 for arrays larger than the device's cache."""

    params = (("float16", "float32", "float64"), (10**3, 10**5, 10**7, 10**8))
    param_names = ("dtype", "n")
    calls = 20  # before each wait for the device

    def setup(self, dtype, n):
        skip_without_device()
        from numba import cuda

        from rmsprop_nb import RMSprop

        self.synchronize = cuda.synchronize
        self.optimizer = RMSprop(1e-3, check_finite=False)
        self.x, self.g = (cuda.to_device(np.ones(n, dtype)) for _ in range(2))
        self.state = self.optimizer.init(self.x)
        # an update reads x, g and S and writes x and S, where S is float32 at least; a copy reads and writes each byte
        moved = 3 * np.dtype(dtype).itemsize + 2 * max(np.dtype(dtype).itemsize, 4)
        self.source, self.target = (cuda.to_device(np.ones(moved * n // 2, np.uint8)) for _ in range(2))

    def updates(self):
        for _ in range(self.calls):
            self.optimizer.step(self.x, self.g, self.state)
        self.synchronize()

    def copies(self):
        for _ in range(self.calls):
            self.target.copy_to_device(self.source)
        self.synchronize()

    def time_update(self, dtype, n):
        self.updates()

    def track_update_over_copy(self, dtype, n):
        return compare(self.updates, self.copies)


class ManyArraysOnDevice:
    """`RMSprop.step` on many arrays on the device, relative to one of their total size.

    Floor: a ratio of 1, since both are one launch.
    """

    params = ((10, 100), (10**3, 10**5))
    param_names = ("arrays", "n")
    calls = 20

    def setup(self, arrays, n):
        skip_without_device()
        from numba import cuda

        from rmsprop_nb import RMSprop

        self.synchronize = cuda.synchronize
        self.optimizer = RMSprop(1e-3, check_finite=False)
        self.small, self.large = (
            [[cuda.to_device(np.ones(size, np.float32)) for _ in range(count)] for _ in range(2)]
            for count, size in ((arrays, n), (1, arrays * n))
        )
        self.states = [self.optimizer.init(x) for x, _ in (self.small, self.large)]

    def step_many(self):
        for _ in range(self.calls):
            self.optimizer.step(*self.small, self.states[0])
        self.synchronize()

    def step_one(self):
        for _ in range(self.calls):
            self.optimizer.step(*self.large, self.states[1])
        self.synchronize()

    def time_many(self, arrays, n):
        self.step_many()

    def track_many_over_one(self, arrays, n):
        return compare(self.step_many, self.step_one)
