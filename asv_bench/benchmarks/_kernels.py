"""The update kernel as the benchmarks call it, and the loops that set its limits."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numba import get_num_threads, njit

from benchmarks._package import update_kernel
from rmsprop_nb import RMSprop

__all__ = [
    "BETA",
    "EPS",
    "PLAIN",
    "RATE",
    "VARIANTS",
    "Vectors",
    "divide_by_root",
    "repeated",
    "same_traffic",
    "step_call",
    "update_call",
]

Options = Mapping[str, Any]

VARIANTS: dict[str, Options] = {  # options of RMSprop
    "plain": {},
    "eps inside": {"eps_inside_sqrt": True},
    "weight decay": {"weight_decay": 1e-12},
    "momentum": {"momentum": 0.9},
    "centered": {"centered": True},
    "centered, momentum": {"centered": True, "momentum": 0.9},
}
PLAIN = VARIANTS["plain"]

# Repeated calls must not change what is timed. With these numbers x stays where it is, and S does not settle at g*g:
# all quotients would be 1 there, for which some dividers take a short cut.
RATE, BETA, EPS = 1e-12, 1.0 - 1e-7, 1e-8


class Vectors(NamedTuple):
    """The arrays of an update. State that a variant does not use has size 0."""

    x: np.ndarray
    g: np.ndarray
    square_avg: np.ndarray
    grad_avg: np.ndarray
    momentum_buffer: np.ndarray

    @classmethod
    def random(cls, n: int, dtype: str, options: Options = PLAIN) -> Vectors:
        rng = np.random.default_rng(0)
        real = np.dtype(dtype).type
        return cls(
            rng.standard_normal(n, dtype=real),
            rng.standard_normal(n, dtype=real),
            rng.random(n, dtype=real) + real(1.0),
            np.zeros(n if "centered" in options else 0, real),
            np.zeros(n if "momentum" in options else 0, real),
        )


def optimizer(**options: Any) -> RMSprop:
    return RMSprop(RATE, beta=BETA, eps=EPS, **options)


def update_call(options: Options, vectors: Vectors, parallel: bool = False) -> functools.partial[None]:
    """Return the update as a call without arguments, compiled."""
    kernel = update_kernel(optimizer(**options).variant, parallel)
    call = functools.partial(kernel, *vectors, *_scalars(options, vectors, get_num_threads() if parallel else 1))
    call()
    return call


def step_call(vectors: Vectors, **options: Any) -> functools.partial[None]:
    """Return the same update as users make it, by `RMSprop.step`, with x, g and S from `vectors`."""
    rule = optimizer(**options)
    state = rule.init(vectors.x)
    state.square_avg[...] = vectors.square_avg
    call = functools.partial(rule.step, vectors.x, vectors.g, state)
    call()
    return call


def _scalars(options: Options, vectors: Vectors, blocks: int = 1) -> tuple[Any, ...]:
    dtype = vectors.x.dtype
    return dtype.type(RATE), 1.0, optimizer(**options).hyper(dtype), blocks


@njit(error_model="numpy")
def divide_by_root(x, g, s):
    """Take one square root and one division per element: the arithmetic that no RMSprop can avoid or hide."""
    for i in range(x.size):
        x[i] = g[i] / np.sqrt(s[i])


@njit(error_model="numpy")
def same_traffic(x, g, s, small):
    """Read x, g and S and write x and S, as the update does, with hardly any arithmetic."""
    for i in range(x.size):
        s[i] += small * g[i]
        x[i] -= small * g[i]


@njit(error_model="numpy")
def _repeat_floor(times, x, g, s):
    for _ in range(times):
        divide_by_root(x, g, s)


@functools.cache
def _make_repeat(variant: Any) -> Any:
    update = update_kernel(variant)

    @njit(error_model="numpy")
    def repeat(times, x, g, square_avg, grad_avg, momentum_buffer, rate, correction, hyper, blocks):
        for _ in range(times):
            update(x, g, square_avg, grad_avg, momentum_buffer, rate, correction, hyper, blocks)

    return repeat


def repeated(options: Options, vectors: Vectors, times: int) -> tuple[functools.partial[None], functools.partial[None]]:
    """Return the update and its arithmetic floor, each repeated in compiled code.

    A call from Python takes longer than an update of a short vector.
    """
    repeat = _make_repeat(optimizer(**options).variant)
    ours = functools.partial(repeat, times, *vectors, *_scalars(options, vectors))
    floor = functools.partial(_repeat_floor, times, np.empty_like(vectors.x), vectors.g, vectors.square_avg)
    ours()
    floor()
    return ours, floor
