"""Plots of runs, drawn with matplotlib: ``pip install 'rmsprop_nb[plot]'``.

Every function draws into axes, new ones or yours, and returns them. Nothing is shown or saved.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import OptimizeResult

__all__ = ["plot_convergence", "plot_trajectory"]

_GRID = 200  # points along each axis of the contours
_LABELS = {"fun": "f - lowest f", "gnorm": "max-norm of the gradient"}


def plot_convergence(results: Any, *, y: str = "fun", ax: Any = None) -> Any:
    """Plot how f or the gradient decreases with the number of evaluations.

    Parameters
    ----------
    results : OptimizeResult, sequence of OptimizeResult, or dict from names to OptimizeResult
        Results of runs with the option ``history``, over mini-batches or not.
    y : {"fun", "gnorm"}, default "fun"
        "fun" plots f minus the lowest value of all runs, "gnorm" the largest component of the gradient.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default in a new figure.

    Returns
    -------
    ax : matplotlib.axes.Axes
        The axes, logarithmic in y.

    Raises
    ------
    ValueError
        If a result has no history.
    ImportError
        If matplotlib is not installed.

    Examples
    --------
    >>> from scipy.optimize import rosen, rosen_der
    >>> from rmsprop_nb import minimize
    >>> from rmsprop_nb.plotting import plot_convergence
    >>> runs = {
    ...     method: minimize(rosen, [-1.2, 1.0], method=method, jac=rosen_der, options={"history": True})
    ...     for method in ("rmsprop", "rmsprop-lbfgs")
    ... }
    >>> ax = plot_convergence(runs)                                       # doctest: +SKIP
    """
    if y not in _LABELS:
        msg = f"y must be 'fun' or 'gnorm', got {y!r}."
        raise ValueError(msg)
    named = _by_name(results)
    histories = {name: _required(result, "history", '"history": True', name) for name, result in named.items()}
    axes = _axes(ax)
    lowest = min(float(np.min(history["fun"])) for history in histories.values())
    for name, history in histories.items():
        values = history["fun"] - lowest if y == "fun" else history["gnorm"]
        shown = values > 0.0  # the lowest value itself cannot be shown on a logarithmic axis
        axes.plot(history["nfev"][shown], values[shown], label=name)
    axes.set(yscale="log", xlabel="evaluations", ylabel=_LABELS[y])
    axes.grid(alpha=0.3)
    if any(named):
        axes.legend()
    return axes


def plot_trajectory(
    fun: Callable[..., float],
    results: Any,
    *,
    args: tuple[Any, ...] = (),
    bounds: Sequence[tuple[float, float]] | None = None,
    ax: Any = None,
) -> Any:
    """Plot the paths of runs over the contours of a function of two variables.

    Parameters
    ----------
    fun : callable
        ``fun(x, *args) -> float``.
    results : OptimizeResult, sequence of OptimizeResult, or dict from names to OptimizeResult
        Results of runs in two variables with the option ``return_all``.
    args : tuple, optional
        Further arguments of `fun`.
    bounds : sequence of (min, max), optional
        Range of both axes; by default that of the runs, and a tenth more on each side.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default in a new figure.

    Returns
    -------
    ax : matplotlib.axes.Axes
        The axes.

    Raises
    ------
    ValueError
        If a result has no iterates, or has iterates that are not of two variables.
    ImportError
        If matplotlib is not installed.

    Examples
    --------
    >>> from scipy.optimize import rosen, rosen_der
    >>> from rmsprop_nb import minimize
    >>> from rmsprop_nb.plotting import plot_trajectory
    >>> result = minimize(rosen, [-1.2, 1.0], jac=rosen_der, options={"return_all": True})
    >>> ax = plot_trajectory(rosen, result)                               # doctest: +SKIP
    """
    paths = {}
    for name, result in _by_name(results).items():
        paths[name] = np.array(_required(result, "allvecs", '"return_all": True', name))
        if paths[name].ndim != 2 or paths[name].shape[1] != 2:
            msg = f"a trajectory can only be drawn for two variables, got iterates of shape {paths[name].shape}."
            raise ValueError(msg)
    axes = _axes(ax)
    spans = _spans(np.concatenate(list(paths.values()))) if bounds is None else bounds
    _draw_contours(axes, lambda x: float(fun(x, *args)), spans)
    for name, path in paths.items():
        (drawn,) = axes.plot(*path.T, marker=".", ms=3, lw=1.2, label=name)
        axes.plot(*path[-1], marker="*", ms=11, color=drawn.get_color(), mec="black", mew=0.5, zorder=3)
    axes.plot(*next(iter(paths.values()))[0], marker="o", color="black", ms=5, zorder=3)
    axes.set(xlim=spans[0], ylim=spans[1], xlabel="x[0]", ylabel="x[1]")
    if any(paths):
        axes.legend()
    return axes


def _by_name(results: Any) -> dict[str, OptimizeResult]:
    """Return results by name; a single result gets an empty name, and the plot no legend."""
    if isinstance(results, OptimizeResult):
        return {"": results}
    if isinstance(results, Mapping):
        return {str(name): result for name, result in results.items()}
    return {f"run {k}": result for k, result in enumerate(results)}


def _required(result: OptimizeResult, part: str, option: str, name: str) -> Any:
    """Return a part of a result; raise if the run did not record it."""
    if part not in result:
        which = f"result {name!r}" if name else "the result"
        msg = f"{which} must have {part}, which a run records with options={{{option}}}."
        raise ValueError(msg)
    return result[part]


def _axes(ax: Any) -> Any:
    if ax is not None:
        return ax
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        msg = "pictures need matplotlib; install it with pip install 'rmsprop_nb[plot]'."
        raise ImportError(msg) from None
    return plt.subplots(layout="constrained")[1]


def _spans(points: NDArray[Any]) -> list[tuple[float, float]]:
    """Return the range of the points along each axis, extended by a tenth on both sides."""
    spans = []
    for low, high in zip(points.min(axis=0), points.max(axis=0), strict=True):
        margin = 0.1 * (high - low) or 1.0
        spans.append((float(low - margin), float(high + margin)))
    return spans


def _draw_contours(axes: Any, fun: Callable[[NDArray[Any]], float], spans: Sequence[tuple[float, float]]) -> None:
    """Draw contours at logarithmically even levels, so that valleys show as well as their walls."""
    across, up = (np.linspace(low, high, _GRID) for low, high in spans)
    values = np.array([[fun(np.array([a, b])) for a in across] for b in up])
    finite = values[np.isfinite(values)]
    above = np.log1p(np.where(np.isfinite(values), values, finite.max()) - finite.min())
    axes.contourf(across, up, above, levels=30, cmap="Greys", alpha=0.6)
    axes.contour(across, up, above, levels=15, colors="grey", linewidths=0.4)
