"""The update on a CUDA device, beside a copy that moves as many bytes there. Skipped where there is no device."""

from __future__ import annotations

import importlib.util

import numpy as np

from benchmarks._interleaved import compare


def skip_without_device():
    """Raise what asv takes for a skip."""
    if importlib.util.find_spec("numba_cuda") is None:
        raise NotImplementedError
    from numba import cuda

    if not cuda.is_available():
        raise NotImplementedError


class UpdateOnDevice:
    """`RMSprop.step` on an array there. Floor: a ratio of 1 where the array is larger than the cache of the device."""

    params = (("float32", "float64"), (10**3, 10**5, 10**7, 10**8))
    param_names = ("dtype", "n")
    calls = 20  # between two waits for the device

    def setup(self, dtype, n):
        skip_without_device()
        from numba import cuda

        from rmsprop_nb import RMSprop

        self.synchronize = cuda.synchronize
        self.optimizer = RMSprop(1e-3, check_finite=False)
        self.x, self.g = (cuda.to_device(np.ones(n, dtype)) for _ in range(2))
        self.state = self.optimizer.init(self.x)
        # an update moves five words an element, a copy two
        self.source, self.target = (cuda.to_device(np.ones(5 * n // 2, dtype)) for _ in range(2))

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
