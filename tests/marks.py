"""Marks that several modules of tests set."""

from __future__ import annotations

import pytest

from rmsprop_nb._numba.decorators import JIT_ENABLED

needs_jit = pytest.mark.skipif(not JIT_ENABLED, reason="is about compiled code, and the JIT is disabled")
