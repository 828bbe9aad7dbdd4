"""Colours, lines and axes that all plots share.

The colours are those of M. Okabe and K. Ito, "Color universal design", which people with any kind of colour vision can
tell apart, without the black and the yellow of that set: these vanish on a dark or a light background. What is black
elsewhere takes the colour of the labels, and follows the style of the figure.
"""

from __future__ import annotations

from typing import Any

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_LINES = ("-", "--", ":", "-.")


def line_style(k: int) -> dict[str, Any]:
    """Return the look of line k; lines of the same colour differ in their dashes."""
    return {"color": COLORS[k % len(COLORS)], "linestyle": _LINES[k // len(COLORS) % len(_LINES)]}


def ink(axes: Any) -> Any:
    """Return the colour of the labels: black, or white in dark mode."""
    return axes.xaxis.label.get_color()


def pyplot() -> Any:
    """Return matplotlib's module for new figures; raise if it is not installed."""
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        msg = "pictures need matplotlib; install it with pip install 'rmsprop_nb[plot]'."
        raise ImportError(msg) from None
    return plt


def axes_or_new(ax: Any) -> Any:
    """Return the axes, or those of a new figure."""
    return pyplot().subplots(layout="constrained")[1] if ax is None else ax
