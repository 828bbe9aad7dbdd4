#!/usr/bin/env python3
"""Draw the pictures of the pages: ``python docs/pictures.py``. Needs matplotlib."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.optimize import OptimizeResult

from rmsprop_nb import minimize
from rmsprop_nb._cli.relaxation import brain_slice, draw_maps, fit_maps
from rmsprop_nb.plotting import plot_trajectory

PICTURES = Path(__file__).resolve().parent / "pictures"
PROFILES = Path(__file__).resolve().parent / "profiles"
START = np.array([-9.0, 1.5])
STEPS = 30


def bowl(x: NDArray[np.float64]) -> float:
    """Return f of a bowl that is flat along the first axis and steep along the second."""
    return float(0.5 * x[0] ** 2 + 25.0 * x[1] ** 2)


def slope(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the gradient of the bowl."""
    return np.array([x[0], 50.0 * x[1]])


def path(step: Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]) -> OptimizeResult:
    """Return the points that a rule visits; it takes the velocity and the gradient, and returns the new velocity."""
    x, velocity = START.copy(), np.zeros(2)
    points = [x]
    for _ in range(STEPS):
        velocity = step(velocity, slope(x))
        x = x + velocity
        points.append(x)
    return OptimizeResult(allvecs=points)


def adam(alpha: float, beta_1: float = 0.9, beta_2: float = 0.999) -> OptimizeResult:
    """Return the points that Adam visits (Kingma and Ba, ICLR 2015, algorithm 1)."""
    x, m, v = START.copy(), np.zeros(2), np.zeros(2)
    points = [x]
    for t in range(1, STEPS + 1):
        g = slope(x)
        m = beta_1 * m + (1.0 - beta_1) * g
        v = beta_2 * v + (1.0 - beta_2) * g**2
        x = x - alpha * (m / (1.0 - beta_1**t)) / (np.sqrt(v / (1.0 - beta_2**t)) + 1e-8)
        points.append(x)
    return OptimizeResult(allvecs=points)


def lecture() -> Figure:
    """Draw gradient descent, momentum, Adam and RMSprop on the bowl."""
    options = {"learning_rate": 0.4, "beta": 0.9, "maxiter": STEPS, "return_all": True}
    paths = {
        "gradient descent, alpha = 0.038": path(lambda _, g: -0.038 * g),
        "momentum 0.8, alpha = 0.02": path(lambda v, g: 0.8 * v - 0.02 * g),
        "Adam, alpha = 0.4": adam(0.4),
        "RMSprop, alpha = 0.4": minimize(bowl, START, jac=slope, options=options),
    }
    figure = Figure(figsize=(8.0, 3.2), layout="constrained")
    axes = plot_trajectory(bowl, paths, bounds=[(-10.0, 3.0), (-2.0, 2.0)], ax=figure.subplots())
    axes.set(xlabel="W", ylabel="b")
    return figure


# -- profiles ---------------------------------------------------------------------------------------------------------

STYLES: dict[str, dict[str, Any]] = {
    "rmsprop": {"color": "C0", "lw": 2.2},
    "rmsprop-lbfgs": {"color": "C1", "lw": 2.2},
    "L-BFGS-B": {"color": "C2"},
    "L-BFGS-B, tight": {"color": "C2", "ls": "--"},
    "L-BFGS-B, ftol=0": {"color": "C2"},
    "BFGS": {"color": "C3"},
    "Nelder-Mead": {"color": "C4"},
    "COBYQA": {"color": "C5"},
}
"""How the line of each method looks, the same in all pictures."""


class Row(NamedTuple):
    """A problem, and the calls that each method needed; infinity if it did not get there."""

    variables: int
    bounded: bool
    calls: dict[str, float]


def read(path: Path) -> list[Row]:
    """Read what ``judge_cutest.py --profiles`` has written."""
    with path.open(encoding="utf-8", newline="") as file:
        return [
            Row(
                int(line["variables"]),
                line["bounded"] == "yes",
                {name: float(line[name] or math.inf) for name in line if name in STYLES},
            )
            for line in csv.DictReader(file)
        ]


def draw_shares(axes: Any, values: Iterable[float], **style: Any) -> None:
    """Draw which share of the values is at most x; those that are infinite count too."""
    ordered = np.sort(list(values))
    x, first = np.unique(ordered, return_index=True)
    shares = np.append(first[1:], ordered.size)[np.isfinite(x)] / ordered.size
    x = x[np.isfinite(x)]
    right = axes.get_xlim()[1]
    axes.step([x[0], *x, max(right, x[-1])], [0.0, *shares, shares[-1]], where="post", **style)


def profiles(path: Path, gradient: bool) -> Figure:
    """Draw performance profiles above data profiles, of unconstrained problems on the left and bounded ones beside."""
    figure = Figure(figsize=(9.0, 6.2), layout="constrained")
    (above, below), rows = figure.subplots(2, 2, sharey=True, sharex="row"), read(path)
    above[0].set(xscale="log", xlim=(1.0, 100.0), ylabel="share of the problems")
    below[0].set(xscale="log", xlim=(1.0, 1e4 if gradient else 1e3), ylabel="share of the problems", ylim=(0.0, 1.0))
    counted = "evaluations" if gradient else "calls"
    for k, title in enumerate(("unconstrained", "bounded")):
        chosen = [row for row in rows if row.bounded == (k == 1)]
        fewest = [min(row.calls.values()) for row in chosen]
        above[k].set(title=f"{len(chosen)} {title} problems", xlabel=f"{counted}, relative to the fewest of any method")
        below[k].set_xlabel("evaluations of f and its gradient" if gradient else "calls of f / (n + 1)")
        for name in chosen[0].calls:
            calls = [row.calls[name] for row in chosen]
            if math.isinf(min(calls)):  # a method that cannot take bounds
                continue
            style = {"lw": 1.2, "label": name, **STYLES[name]}
            ratios = [c / f if math.isfinite(f) else math.inf for c, f in zip(calls, fewest, strict=True)]
            draw_shares(above[k], ratios, **style)
            units = [1 if gradient else row.variables + 1 for row in chosen]
            draw_shares(below[k], [c / u for c, u in zip(calls, units, strict=True)], **style)
    for axes in figure.axes:
        axes.grid(alpha=0.3)
    above[0].legend(fontsize="small", loc="lower right")
    return figure


# -- maps -------------------------------------------------------------------------------------------------------------


def relaxation(size: int = 96) -> Figure:
    """Draw the parameters of a decay in each pixel of a slice of a brain, and their errors."""
    figure = Figure(figsize=(8.0, 7.0), layout="constrained")
    draw_maps(fit_maps(brain_slice(size).images), figure)
    return figure


def save(figure: Figure, name: str) -> None:
    """Write an SVG whose bytes depend only on what is drawn."""
    with rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
        figure.savefig(PICTURES / f"{name}.svg", metadata={"Date": None})


def main() -> None:
    """Write the pictures; the contours and the maps would make large SVG files."""
    PICTURES.mkdir(exist_ok=True)
    for draw, dpi in ((lecture, 120), (relaxation, 80)):
        draw().savefig(PICTURES / f"{draw.__name__}.png", dpi=dpi, metadata={"Software": None})
    for name, gradient in (("with-gradients", True), ("without-gradients", False)):
        save(profiles(PROFILES / f"{name}.csv", gradient), f"profiles-{name}")


if __name__ == "__main__":
    main()
