"""Nested parameters of the optimizer, and arrays in every layout."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from rmsprop_nb import RMSpropState


class Layer(NamedTuple):
    weight: np.ndarray
    bias: np.ndarray


class Swapped(NamedTuple):
    bias: np.ndarray
    weight: np.ndarray


def array(*shape, dtype=np.float64, seed=0):
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(dtype)


def tree(dtype=np.float64, seed=0):
    return {
        "layers": [Layer(array(3, 4, dtype=dtype, seed=seed), array(4, dtype=dtype, seed=seed)), ()],
        "scale": array(dtype=dtype, seed=seed).reshape(()),
        "pair": (array(2, 0, dtype=dtype), array(5, 1, 2, dtype=dtype, seed=seed)),
    }


def flat(nested):
    if isinstance(nested, dict):
        return [leaf for key in sorted(nested) for leaf in flat(nested[key])]
    if isinstance(nested, list | tuple):
        return [leaf for child in nested for leaf in flat(child)]
    return [nested]


def as_bytes(*things):
    arrays = [
        a for thing in things for a in (thing.to_arrays().values() if isinstance(thing, RMSpropState) else flat(thing))
    ]
    return [np.asarray(a).tobytes() for a in arrays]


def assert_near(x, expected):
    assert x.dtype == expected.dtype
    tolerance = 8 * np.finfo(x.dtype).eps * max(1.0, np.abs(expected).max(initial=0))
    np.testing.assert_allclose(x, expected, rtol=0, atol=tolerance)


# -- layouts ----------------------------------------------------------------------------------------------------------


LAYOUTS = {
    "contiguous": lambda a: a.copy(),
    "fortran": lambda a: np.asfortranarray(a),
    "reversed": lambda a: a[::-1].copy()[::-1],
    "every other": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
    "misaligned": lambda a: misaligned(a),
    "subclass": lambda a: a.copy().view(Subclass),
    "read-only": lambda a: read_only(a),
}


class Subclass(np.ndarray):
    """Like np.memmap, an array with something more."""


def misaligned(a):
    memory = np.empty(a.nbytes + 1, np.uint8)[1:]
    result = memory.view(a.dtype).reshape(a.shape)
    result[...] = a
    return result


def read_only(a):
    result = a.copy()
    result.setflags(write=False)
    return result
