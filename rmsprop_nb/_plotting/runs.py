"""Plots of runs: how they converge, and the paths that they take."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import OptimizeResult

from rmsprop_nb._core.names_elsewhere import explain_keywords
from rmsprop_nb._plotting.style import axes_or_new, ink, line_style

_GRID = 200  # points along each axis of the contours
_COARSE = 25  # of the grid on which a minimum outside of the range is looked for
_WIDENINGS = 8
_TICKS = 9
_LABELS = {"fun": "f - lowest f", "gnorm": "max-norm of the gradient"}

Spans = Sequence[tuple[float, float]]


@explain_keywords()
def plot_convergence(results: Any, *, y: str = "fun", ax: Any = None) -> Any:
    """Plot how f or the gradient decreases with the number of evaluations.

    The last point of each run is marked. The axis is logarithmic down to the smallest positive value; between that and
    0 it is linear, so that the best run is shown to its end.

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
        The axes.

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
    axes = axes_or_new(ax)
    finite = [history["fun"][np.isfinite(history["fun"])] for history in histories.values()]
    lowest = min((float(values.min()) for values in finite if values.size), default=0.0)
    drawn = []
    for k, (name, history) in enumerate(histories.items()):
        drawn.append(history["fun"] - lowest if y == "fun" else history["gnorm"])
        axes.plot(history["nfev"], drawn[-1], label=name, marker="o", ms=4, markevery=[-1], **line_style(k))
    _scale_to_zero(axes, np.concatenate(drawn))
    axes.set(xlabel="evaluations", ylabel=_LABELS[y])
    axes.grid(alpha=0.3)
    if any(named):
        axes.legend()
    return axes


def _scale_to_zero(axes: Any, values: NDArray[Any]) -> None:
    """Make the y axis logarithmic; if 0 is among the values, down to the smallest positive one, and linear below."""
    positive = values[(values > 0.0) & np.isfinite(values)]
    if not (values == 0.0).any():
        axes.set_yscale("log")
        return
    smallest, largest = (float(positive.min()), float(positive.max())) if positive.size else (1.0, 1.0)
    room = max(0.5, np.log10(largest / smallest) / _TICKS)  # decades for the linear part, about a tick
    axes.set_yscale("symlog", linthresh=smallest, linscale=room)
    axes.yaxis.get_major_locator().set_params(numticks=_TICKS)
    axes.set_ylim(bottom=-0.3 * smallest)


@explain_keywords()
def plot_trajectory(
    fun: Callable[..., float],
    results: Any,
    *,
    args: tuple[Any, ...] = (),
    bounds: Spans | None = None,
    ax: Any = None,
) -> Any:
    """Plot the paths of runs over the contours of a function of two variables.

    A circle marks the start of each run, and a star the point that it returned.

    Parameters
    ----------
    fun : callable
        ``fun(x, *args) -> float``.
    results : OptimizeResult, sequence of OptimizeResult, or dict from names to OptimizeResult
        Results of runs in two variables with the option ``return_all``.
    args : tuple, optional
        Further arguments of `fun`.
    bounds : sequence of (min, max), optional
        Range of both axes; by default that of the runs, a tenth more on each side, and as much more as brings a nearby
        minimum of `fun` into view.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default in a new figure.

    Returns
    -------
    ax : matplotlib.axes.Axes
        The axes.

    Raises
    ------
    ValueError
        If a result has no iterates, or has iterates that are not of two variables, or if `fun` is nowhere finite in the
        range.
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
    paths, ends = {}, []
    for name, result in _by_name(results).items():
        paths[name] = np.array(_required(result, "allvecs", '"return_all": True', name))
        if paths[name].ndim != 2 or paths[name].shape[1] != 2:
            msg = f"a trajectory can only be drawn for two variables, got iterates of shape {paths[name].shape}."
            raise ValueError(msg)
        ends.append(np.asarray(result.get("x", paths[name][-1])))
    axes = axes_or_new(ax)

    def value(a: float, b: float) -> float:
        return float(fun(np.array([a, b]), *args))

    spans = _with_minimum(value, _spans(np.concatenate([*paths.values(), ends]))) if bounds is None else bounds
    _draw_contours(axes, value, spans)
    for k, ((name, path), end) in enumerate(zip(paths.items(), ends, strict=True)):
        (drawn,) = axes.plot(*path.T, marker=".", ms=3, lw=1.2, label=name, **line_style(k))
        axes.plot(*end, marker="*", ms=11, color=drawn.get_color(), mec=ink(axes), mew=0.5, zorder=3)
    for path in paths.values():
        axes.plot(*path[0], marker="o", color=ink(axes), ms=5, zorder=3)
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


def _spans(points: NDArray[Any]) -> Spans:
    """Return the range of the points along each axis, extended by a tenth on both sides."""
    points = points[np.isfinite(points).all(axis=1)]
    spans = []
    for low, high in zip(points.min(axis=0), points.max(axis=0), strict=True):
        margin = 0.1 * (high - low) or 1.0
        spans.append((float(low - margin), float(high + margin)))
    return spans


def _on_grid(value: Callable[[float, float], float], spans: Spans, count: int) -> tuple[Any, Any, NDArray[Any]]:
    """Return the points along both axes and the values, infinity where there is none."""
    across, up = (np.linspace(low, high, count) for low, high in spans)
    values = np.array([[value(a, b) for a in across] for b in up])
    return across, up, np.where(np.isfinite(values), values, np.inf)


def _with_minimum(value: Callable[[float, float], float], spans: Spans) -> Spans:
    """Widen ranges until the lowest point is not at their edge; where a few steps do not lead there, leave them."""
    wider = list(spans)
    for _ in range(_WIDENINGS):
        values = _on_grid(value, wider, _COARSE)[2]
        places = np.unravel_index(np.argmin(values), values.shape)[::-1]
        edges = [(place == 0, place == _COARSE - 1) for place in places]
        if not any(map(any, edges)):
            return wider
        for k, (low, high) in enumerate(wider):
            step = 0.5 * (high - low)
            wider[k] = low - step * edges[k][0], high + step * edges[k][1]
    return spans


def _draw_contours(axes: Any, value: Callable[[float, float], float], spans: Spans) -> None:
    """Draw contours at logarithmically even levels, so that valleys show as well as their walls."""
    from matplotlib.colors import LinearSegmentedColormap

    across, up, values = _on_grid(value, spans, _GRID)
    finite = values[np.isfinite(values)]
    if not finite.size:
        msg = f"fun must be finite somewhere in the range {list(map(tuple, spans))}; pass other bounds."
        raise ValueError(msg)
    above = np.log1p(np.where(np.isfinite(values), values, finite.max()) - finite.min())
    shades = LinearSegmentedColormap.from_list("shades", [axes.get_facecolor(), ink(axes)])
    axes.contourf(across, up, above, levels=30, cmap=shades, alpha=0.35)
    axes.contour(across, up, above, levels=15, colors="grey", linewidths=0.4)
