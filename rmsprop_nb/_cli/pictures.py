"""Pictures of what the demo shows, and a page of them: ``python -m rmsprop_nb demo --plot DIR``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from rmsprop_nb._api.minimize import minimize
from rmsprop_nb._cli.demo import GTOL, MAXFEV, TEXTBOOK, training_problem
from rmsprop_nb._cli.models import nist_model
from rmsprop_nb._cli.nist import fit_nist
from rmsprop_nb._cli.relaxation import brain_slice, draw_maps, fit_maps
from rmsprop_nb.datasets import load_nist
from rmsprop_nb.plotting import plot_convergence

FITTED = ("Misra1a", "Lanczos3", "Hahn1", "Thurber")


def draw_fits(figure: Any) -> None:
    """Draw data sets of NIST with the curves that were fitted to them."""
    for axes, name in zip(figure.subplots(2, 2).flat, FITTED, strict=True):
        problem, found = load_nist(name), fit_nist(name)
        x = np.linspace(problem.x.min(), problem.x.max(), 200)
        axes.plot(problem.x, problem.y, ".", color="0.6")
        axes.plot(x, nist_model(name)(x, *found.b))
        axes.set_title(f"{name}: {found.digits:.1f} correct digits", fontsize="medium")


def draw_slice(figure: Any) -> None:
    """Draw the maps of the fits in all pixels."""
    draw_maps(fit_maps(brain_slice().images), figure)


def draw_training(figure: Any) -> None:
    """Draw how rmsprop, the textbook rule and rmsprop-lbfgs converge to the classifier."""
    problem = training_problem()
    choices: dict[str, tuple[str, dict[str, Any]]] = {
        "rmsprop, auto": ("rmsprop", {"maxfev": MAXFEV}),
        "rmsprop, textbook": ("rmsprop", TEXTBOOK),
        "rmsprop-lbfgs": ("rmsprop-lbfgs", {"maxfev": MAXFEV}),
    }
    runs = {
        name: minimize(*problem, method, "inplace", options={"gtol": GTOL, "history": True, **options})
        for name, (method, options) in choices.items()
    }
    plot_convergence(runs, ax=figure.subplots())


PICTURES: dict[str, tuple[str, Callable[[Any], None]]] = {
    "fits": ("Fits of data sets of NIST, from far starts", draw_fits),
    "maps": ("A decay fitted in every pixel of a slice, with standard errors", draw_slice),
    "training": ("A logistic regression: how three methods converge", draw_training),
}


def save_pictures(folder: Path) -> Path:
    """Draw the pictures into a folder, which is made if there is none; return the page that shows them."""
    from matplotlib.figure import Figure

    folder.mkdir(parents=True, exist_ok=True)
    shown = ""
    for name, (caption, draw) in PICTURES.items():
        figure = Figure(figsize=(8.0, 6.0), layout="constrained")
        draw(figure)
        figure.savefig(folder / f"{name}.png")
        shown += f"<h2>{caption}</h2>\n<img src='{name}.png' alt='{caption}'>\n"
    page = folder / "index.html"
    page.write_text(f"<!DOCTYPE html>\n<meta charset='utf-8'>\n<title>rmsprop_nb</title>\n{shown}", encoding="utf-8")
    return page
