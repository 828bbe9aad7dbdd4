"""Marks that several modules of tests set."""

from __future__ import annotations

import pytest

from rmsprop_nb._numba.decorators import JIT_ENABLED

needs_jit = pytest.mark.skipif(not JIT_ENABLED, reason="is about compiled code, and the JIT is disabled")


def some(values, every, *, rest=pytest.mark.thorough):
    """Return the values of a parameter, of which all but each `every`-th one bear another mark."""
    return [value if k % every == 0 else _marked(value, rest) for k, value in enumerate(values)]


def _marked(value, mark):
    if hasattr(value, "marks"):  # what pytest.param made
        return pytest.param(*value.values, marks=[*value.marks, mark], id=value.id)
    return pytest.param(*(value if isinstance(value, tuple) else (value,)), marks=mark)
