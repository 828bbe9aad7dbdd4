"""The list of objectives whose exact derivatives are compared with those of JAX, and the data that they share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

CASES: dict[str, tuple[Callable[..., Any], np.ndarray, tuple[Any, ...]]] = {}


def case(x: Any, *args: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """List a function with a point and arguments."""

    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        CASES[function.__name__] = function, np.array(x, float), args
        return function

    return add


def wave(n: int, scale: float = 1.0) -> np.ndarray:
    """Return n numbers between -scale and scale without a pattern."""
    return scale * np.sin(1.7 * np.arange(1.0, n + 1.0) ** 1.3)


T = np.linspace(0.1, 2.0, 12)
Y = 2.0 * np.exp(-0.7 * T) + 0.05 * wave(12)
A = wave(24).reshape(6, 4)
B = wave(6, 2.0)
LABELS = np.sign(wave(6) + 0.1)
X4 = wave(4)
X6 = wave(6)
