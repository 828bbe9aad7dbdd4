"""The update kernel as the benchmarks call it, and the loops that say how fast it could be."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np
from numba import get_num_threads, njit

from rmsprop_nb._core.settings import Hyper, Variant
from rmsprop_nb._kernels.update import make_parallel_update, make_update

__all__ = [
    "BETA",
    "EPS",
    "RATE",
    "VARIANTS",
    "Vectors",
    "divide_by_root",
    "repeated",
    "same_traffic",
    "step_call",
    "update_call",
]

VARIANTS = {
    "plain": Variant(),
    "eps inside": Variant(eps_inside_sqrt=True),
    "weight decay": Variant(weight_decay=True),
    "momentum": Variant(momentum=True),
    "centered": Variant(centered=True),
    "centered, momentum": Variant(centered=True, momentum=True),
}

# However many calls are made, they must not change what is timed: with these numbers x stays where it is and S does
# not settle at g*g, where all quotients would be 1 and some dividers take a short cut.
RATE, BETA, EPS = 1e-12, 1.0 - 1e-7, 1e-8


class Vectors(NamedTuple):
    """The arrays of an update. State that a variant does not use has size 0."""

    x: np.ndarray
    g: np.ndarray
    square_avg: np.ndarray
    grad_avg: np.ndarray
    momentum_buffer: np.ndarray

    @classmethod
    def random(cls, n: int, dtype: str, variant: Variant = VARIANTS["plain"]) -> Vectors:
        rng = np.random.default_rng(0)
        real = np.dtype(dtype).type
        return cls(
            rng.standard_normal(n, dtype=real),
            rng.standard_normal(n, dtype=real),
            rng.random(n, dtype=real) + real(1.0),
            np.zeros(n if variant.centered else 0, real),
            np.zeros(n if variant.momentum else 0, real),
        )


def update_call(variant: Variant, vectors: Vectors, parallel: bool = False) -> functools.partial[None]:
    """Return the update as a call without arguments, compiled."""
    kernel = make_parallel_update(variant) if parallel else make_update(variant)
    call = functools.partial(kernel, *vectors, *_scalars(vectors, get_num_threads() if parallel else 1))
    call()
    return call


def step_call(vectors: Vectors, **options: Any) -> functools.partial[None]:
    """Return the same update as a user makes it, by `RMSprop.step`, with x and g as they are and S as in `vectors`."""
    from rmsprop_nb import RMSprop  # not above: older commits, to which the gate compares, have none

    optimizer = RMSprop(RATE, beta=BETA, eps=EPS, **options)
    state = optimizer.init(vectors.x)
    state.square_avg[...] = vectors.square_avg
    call = functools.partial(optimizer.step, vectors.x, vectors.g, state)
    call()
    return call


def _scalars(vectors: Vectors, blocks: int = 1) -> tuple[Any, ...]:
    dtype = vectors.x.dtype
    return dtype.type(RATE), 1.0, Hyper.of(dtype, BETA, EPS, momentum=0.9, weight_decay=1e-12), blocks


@njit(error_model="numpy")
def divide_by_root(x, g, s):
    """One square root and one division for each element: the arithmetic of RMSprop that nothing can hide."""
    for i in range(x.size):
        x[i] = g[i] / np.sqrt(s[i])


@njit(error_model="numpy")
def same_traffic(x, g, s, small):
    """Read x, g and S, write x and S, as the update does, with next to no arithmetic."""
    for i in range(x.size):
        s[i] += small * g[i]
        x[i] -= small * g[i]


@njit(error_model="numpy")
def _repeat_floor(times, x, g, s):
    for _ in range(times):
        divide_by_root(x, g, s)


@functools.cache
def _make_repeat(variant: Variant) -> Any:
    update = make_update(variant)

    @njit(error_model="numpy")
    def repeat(times, x, g, square_avg, grad_avg, momentum_buffer, rate, correction, hyper, blocks):
        for _ in range(times):
            update(x, g, square_avg, grad_avg, momentum_buffer, rate, correction, hyper, blocks)

    return repeat


def repeated(variant: Variant, vectors: Vectors, times: int) -> tuple[functools.partial[None], functools.partial[None]]:
    """The update, and its arithmetic floor, `times` over in compiled code: calls from Python would hide a short one."""
    ours = functools.partial(_make_repeat(variant), times, *vectors, *_scalars(vectors))
    floor = functools.partial(_repeat_floor, times, np.empty_like(vectors.x), vectors.g, vectors.square_avg)
    ours()
    floor()
    return ours, floor
