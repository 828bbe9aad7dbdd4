"""Arrays in memory that kernels reach by address, and the signatures of these kernels."""

from __future__ import annotations

import numpy as np
from numba import float32, float64, int32, uint64
from ptx_memory import address_in

from rmsprop_nb._core.settings import Hyper, Variant
from rmsprop_nb._cuda.memory import ITEMSIZE, real_of
from rmsprop_nb._kernels.update import make_update as make_host_update

SIZES = (0, 1, 3, 4, 5, 1023, 1024, 1025)
VARIANTS = {
    "plain": Variant(),
    "eps inside": Variant(eps_inside_sqrt=True),
    "bias": Variant(bias_correction=True, centered=True),
    "decay": Variant(weight_decay=True),
    "decoupled": Variant(weight_decay=True, decoupled_weight_decay=True),
    "momentum": Variant(momentum=True),
    "nesterov": Variant(momentum=True, nesterov=True, lr_in_momentum=True),
    "everything": Variant(True, True, True, True, True, True, True, True),
}
REALS = {"float32": float32, "float64": float64}
RATE, CORRECTION = 0.01, 0.5


def hyper_of(real):
    return Hyper.of(real, 0.9, 1e-8, 0.9, 0.01)


def to_memory(values, number_format):
    """Numbers of a format that all are exactly the same in it, as bytes of which each begins at a multiple of 16."""
    if number_format == "bfloat16":
        return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    return values.astype(number_format)


def from_memory(stored, number_format):
    if number_format == "bfloat16":
        return (stored.astype(np.uint32) << 16).view(np.float32)
    return stored.astype(real_of(number_format))


def rounded(values, number_format):
    """To nearest, ties to even, in the format; by exact arithmetic where NumPy has no such number."""
    if number_format != "bfloat16":
        return values.astype(number_format).astype(values.dtype)
    values = values.astype(np.float64)
    unit = np.maximum(np.frexp(values)[1] - 8, -133)  # the exponent of the last place
    return np.ldexp(np.rint(np.ldexp(values, -unit)), unit).astype(np.float32)


class Arrays:
    """x, g and the averages of an array of n elements; they begin a few elements after an aligned address."""

    def __init__(self, variant, n, formats, begin=0, seed=0):
        rng = np.random.default_rng([n, seed])
        self.n, self.begin, self.formats = n, begin, (*formats, *[str(real_of(formats[0]))] * 3)

        def normal(used=True):
            return rng.normal(size=n if used else 0)

        values = normal(), normal(), rng.random(n), 0.1 * normal(variant.centered), normal(variant.momentum)
        self.host = [rounded(v.astype(real_of(f)), f) for v, f in zip(values, self.formats, strict=True)]
        self.device = [
            np.concatenate([np.zeros(begin, to_memory(h, f).dtype), to_memory(h, f)])
            for h, f in zip(self.host, self.formats, strict=True)
        ]

    def addresses(self, first):
        """Where they are, if the first is the first-th of those that can be reached."""
        return [address_in(first + k, self.begin * ITEMSIZE[f]) for k, f in enumerate(self.formats)]

    def found(self):
        return [from_memory(d[self.begin :], f) for d, f in zip(self.device, self.formats, strict=True)]

    def expected(self, variant, hyper, rate=RATE, scale=None, limit=None):
        """What the update on the CPU makes of them, with parameters rounded once, at the end."""
        arrays = [h.copy() for h in self.host]
        make_host_update(variant)(*arrays, rate, CORRECTION, hyper, 1, None, scale, limit)
        arrays[0] = rounded(arrays[0], self.formats[0])
        return arrays


def compare(found, expected, message):
    for name, a, b in zip("xgsmb", found, expected, strict=True):
        np.testing.assert_array_equal(a, b, err_msg=f"{name}, {message}")


def single_signature(real):
    return (*[uint64] * 6, *[real] * 9)


def many_signature(real):
    return (int32[:, ::1], uint64, uint64, uint64[:, ::1], real[:, ::1], real, real)
