#!/usr/bin/env python3
"""Draw the pictures of the pages: ``python docs/pictures.py``. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.optimize import OptimizeResult

from rmsprop_nb import minimize
from rmsprop_nb.plotting import plot_trajectory

PICTURES = Path(__file__).resolve().parent / "pictures"
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


def lecture() -> Figure:
    """Draw gradient descent, momentum and RMSprop on the bowl."""
    options = {"learning_rate": 0.4, "beta": 0.9, "maxiter": STEPS, "return_all": True}
    paths = {
        "gradient descent, alpha = 0.038": path(lambda _, g: -0.038 * g),
        "momentum 0.8, alpha = 0.02": path(lambda v, g: 0.8 * v - 0.02 * g),
        "RMSprop, alpha = 0.4": minimize(bowl, START, jac=slope, options=options),
    }
    figure = Figure(figsize=(8.0, 3.2), layout="constrained")
    axes = plot_trajectory(bowl, paths, bounds=[(-10.0, 3.0), (-2.0, 2.0)], ax=figure.subplots())
    axes.set(xlabel="W", ylabel="b")
    return figure


def main() -> None:
    """Write the pictures; the contours would make large SVG files."""
    PICTURES.mkdir(exist_ok=True)
    lecture().savefig(PICTURES / "lecture.png", dpi=120, metadata={"Software": None})


if __name__ == "__main__":
    main()
