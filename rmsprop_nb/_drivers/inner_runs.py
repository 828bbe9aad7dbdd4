"""Runs inside the objective of another run: they leave Ctrl-C to that one, which would not notice it otherwise."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

_RUNS: set[CodeType] = set()


def answers_interrupts(run: F) -> F:
    """Mark a function that, on Ctrl-C, ends and returns what it has found so far."""
    _RUNS.add(run.__code__)
    return run


def is_inner_run() -> bool:
    """Return whether the caller was called, however indirectly, by a function that is marked.

    Nothing is counted, because Ctrl-C may come at any moment, also between counting up and down.
    """
    frame: FrameType | None = sys._getframe(1).f_back
    while frame is not None:
        if frame.f_code in _RUNS:
            return True
        frame = frame.f_back
    return False
