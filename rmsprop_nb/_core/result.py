"""The result that the front ends return: SciPy's OptimizeResult, with a table for notebooks."""

from __future__ import annotations

import html
import sys
from typing import Any

import numpy as np
from scipy.optimize import OptimizeResult

_FIRST = ("message", "success", "status", "fun", "x", "jac", "nit", "nfev", "njev")


class Result(OptimizeResult):  # type: ignore[misc]
    """An OptimizeResult that notebooks show as a table."""

    def __repr__(self) -> str:
        shown = {name: repr(value) if isinstance(value, Result) else value for name, value in self.items()}
        # SciPy's form fails on an empty dict
        return repr(OptimizeResult({name: v for name, v in shown.items() if not isinstance(v, dict) or v}))

    def _repr_html_(self) -> str:
        names = [*(name for name in _FIRST if name in self), *(name for name in sorted(self) if name not in _FIRST)]
        return as_html({name: _as_text(self[name]) for name in names})


def as_html(rows: dict[str, str]) -> str:
    """Return a table with two columns of text."""
    cells = "".join(
        f"<tr><th style='text-align:left'>{html.escape(name)}</th>"
        f"<td style='text-align:left'><code>{html.escape(text)}</code></td></tr>"
        for name, text in rows.items()
    )
    return f"<table>{cells}</table>"


def _as_text(value: Any) -> str:
    """Return a value as text of at most a few lines."""
    if isinstance(value, dict):
        return ", ".join(f"{name}: {np.shape(item)}" for name, item in value.items())
    if isinstance(value, list):
        return f"list of {len(value)}"
    if isinstance(value, np.ndarray):
        return np.array2string(value, precision=6, threshold=8, edgeitems=3)
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def print_summary(result: OptimizeResult, gradient_norm: float) -> None:
    """Print how a run ended, in the form of SciPy's methods; the gradient itself may be on a device."""
    lines = [
        result.message,
        f"         Current function value: {result.fun:.6g}",
        f"         Gradient max-norm: {gradient_norm:.3g}",
        f"         Iterations: {result.nit}",
        f"         Function evaluations: {result.nfev}",
        f"         Gradient evaluations: {result.njev}",
    ]
    sys.stdout.write("\n".join(lines) + "\n")
