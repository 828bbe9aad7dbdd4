"""Plots of runs and fits, drawn with matplotlib: ``pip install 'rmsprop_nb[plot]'``.

Every function draws into axes, new ones or yours, and returns them. Nothing is shown or saved. The colours can be told
apart with any kind of colour vision, on light and on dark backgrounds.
"""

from __future__ import annotations

from rmsprop_nb._plotting.fits import plot_fits, plot_profile
from rmsprop_nb._plotting.runs import plot_convergence, plot_trajectory

__all__ = ["plot_convergence", "plot_fits", "plot_profile", "plot_trajectory"]


def __dir__() -> list[str]:
    return sorted(__all__)
