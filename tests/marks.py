"""Marks that several modules of tests set."""

from __future__ import annotations

import pytest

from rmsprop_nb._numba.decorators import JIT_ENABLED

needs_jit = pytest.mark.skipif(not JIT_ENABLED, reason="is about compiled code, and the JIT is disabled")


def some(values, every, *, rest=pytest.mark.thorough):
    """Return the values of a parameter, of which all but each `every`-th one bear another mark."""
    return [value if k % every == 0 else pytest.param(*_as_tuple(value), marks=rest) for k, value in enumerate(values)]


def _as_tuple(value):
    return value if isinstance(value, tuple) else (value,)
