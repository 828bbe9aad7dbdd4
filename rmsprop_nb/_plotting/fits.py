"""Plots of fits, and of functions along one parameter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import scipy.optimize
from numpy.typing import ArrayLike, NDArray

from rmsprop_nb._core.fit_arguments import Curves, as_curves
from rmsprop_nb._core.names_elsewhere import explain_keywords
from rmsprop_nb._core.validate import as_count
from rmsprop_nb._plotting.style import COLORS, axes_or_new, ink, line_style, pyplot

_SMOOTH = 300  # points of the curve of a model
_WIDE = 3.0  # standard errors to both sides
_OTHERS = {"fixed": "others fixed", "free": "others re-optimised"}


@explain_keywords()
def plot_fits(
    f: Callable[..., Any],
    xdata: Any,
    ydata: ArrayLike,
    result: Any,
    *,
    sigma: ArrayLike | None = None,
    which: Sequence[Any] | None = None,
    axes: Any = None,
) -> Any:
    """Plot data with the fitted curve, and residuals below; of many fits, the median and the worst.

    The worst fit has the largest chi2 per degree of freedom; fits whose chi2 is not finite are left out. The residuals
    are ydata - f, divided by `sigma` if it is given.

    Parameters
    ----------
    f : callable
        The model, as for `rmsprop_nb.fit`.
    xdata, ydata
        The data, as for `rmsprop_nb.fit`. If there is more than one number for each point, or an object, the points are
        counted along the axis.
    result : FitResult
        What `rmsprop_nb.fit` returned for these data.
    sigma : array_like, optional
        The standard deviations of the data or their covariance, as for `rmsprop_nb.fit`; they are drawn as error bars.
    which : sequence of int or tuple of int, optional
        Indices of the fits to draw, in place of the median and the worst.
    axes : ndarray of matplotlib.axes.Axes, shape (2, number of fits), optional
        Where to draw; by default in a new figure.

    Returns
    -------
    axes : ndarray of matplotlib.axes.Axes, shape (2, number of fits)
        The axes: data and curves in the first row, residuals in the second.

    Raises
    ------
    ValueError
        If the result is not of `fit`, or of other data, or no fit has a finite chi2.
    ImportError
        If matplotlib is not installed.

    Examples
    --------
    >>> import numpy as np
    >>> from rmsprop_nb import fit
    >>> from rmsprop_nb.plotting import plot_fits
    >>> def decay(t, amplitude, rate):
    ...     return amplitude * np.exp(-rate * t)
    >>> t = np.linspace(0.0, 4.0, 30)
    >>> y = decay(t, 2.5, 1.3) + 0.1 * np.random.default_rng(0).normal(size=(8, 30))
    >>> axes = plot_fits(decay, t, y, fit(decay, t, y))                   # doctest: +SKIP
    """
    curves = as_curves(xdata, ydata, sigma, check_finite=False, nan_policy="omit")
    _check_result(result, curves)
    chosen = _median_and_worst(result) if which is None else [(str(k), k) for k in which]
    if axes is None:
        size, ratios = (1.0 + 4.5 * len(chosen), 5.0), {"height_ratios": (3, 1)}
        _, axes = pyplot().subplots(
            2, len(chosen), sharex="col", squeeze=False, layout="constrained", figsize=size, gridspec_kw=ratios
        )
    axes = np.reshape(axes, (2, -1))
    if axes.shape[1] != len(chosen):
        msg = f"axes must have shape (2, {len(chosen)}), a column for each fit to draw, got {axes.shape}."
        raise ValueError(msg)
    for column, (title, index) in zip(axes.T, chosen, strict=True):
        _draw_fit(column, f, curves, index, result[index] if result.shape else result)
        column[0].set_title(title)
    axes[0, 0].set_ylabel("data")
    axes[1, 0].set_ylabel("residuals" if sigma is None else "residuals/sigma")
    axes[0, 0].legend()
    return axes


def _check_result(result: Any, curves: Curves) -> None:
    if not hasattr(result, "popt") or not hasattr(result, "chi2"):
        msg = f"result must be what rmsprop_nb.fit returned, got {type(result).__name__}."
        raise ValueError(msg)
    if result.shape != curves.lead:
        msg = f"result must be of these data, whose leading axes are {curves.lead}, got one of shape {result.shape}."
        raise ValueError(msg)


def _median_and_worst(result: Any) -> list[tuple[str, Any]]:
    """Return titles and indices of the fits to draw."""
    if not result.shape:
        return [(_quality(result), ())]
    quality = np.ravel(result.chi2 / np.maximum(result.dof, 1))
    order = np.argsort(quality, kind="stable")[: int(np.isfinite(quality).sum())]
    if not order.size:
        msg = "at least one fit must have a finite chi2; pass `which` to see fits without one."
        raise ValueError(msg)
    chosen = []
    for name, place in {"median": order[(len(order) - 1) // 2], "worst": order[-1]}.items():
        index = tuple(map(int, np.unravel_index(place, result.shape)))
        shown = index[0] if len(index) == 1 else index
        chosen.append((f"{name} of {quality.size}: fit {shown}, {_quality(result[index])}", index))
    return chosen[-1:] if chosen[0][1] == chosen[-1][1] else chosen


def _quality(one: Any) -> str:
    failed = "" if one.success else ", failed"
    return f"chi2/dof = {one.chi2 / one.dof:.3g}{failed}" if one.dof > 0 else f"chi2 = {one.chi2:.3g}{failed}"


def _draw_fit(column: Any, f: Callable[..., Any], curves: Curves, index: Any, one: Any) -> None:
    """Draw the data and the curve of a fit into the first axes, and its residuals into the second."""
    above, below = column
    row = int(np.arange(len(curves.y)).reshape(curves.lead)[index])
    points = curves.points[row] if curves.own_points else curves.points
    errors = _errors(curves, row)
    y = curves.y[row] if errors is None else np.where(np.isfinite(errors), curves.y[row], np.nan)
    fitted = _values(f, points, one.popt)
    is_line = isinstance(points, np.ndarray) and points.ndim == 1
    across = points if is_line else np.arange(y.size)
    data = {"fmt": ".", "ms": 5, "color": COLORS[0], "ecolor": COLORS[5], "elinewidth": 1.0}
    above.errorbar(
        across, y, None if errors is None else np.where(np.isfinite(errors), errors, np.nan), label="data", **data
    )
    above.plot(*_curve(f, across, fitted, one.popt, smooth=is_line), color=COLORS[1], label="model", zorder=3)
    below.axhline(0.0, color=ink(below), lw=0.8)
    below.plot(across, (y - fitted) / (1.0 if errors is None else errors), ".", ms=5, color=COLORS[0])
    below.set_xlabel("x" if is_line else "point")


def _errors(curves: Curves, row: int) -> NDArray[np.float64] | None:
    """Return the standard deviations of the data of a fit, or None."""
    if curves.covariance.size:
        return np.sqrt(np.diag(curves.covariance))
    if not curves.sigma.size:
        return None
    return curves.sigma[row] if curves.sigma.ndim > 1 else curves.sigma


def _values(f: Callable[..., Any], points: Any, parameters: NDArray[Any]) -> NDArray[Any]:
    """Return the values of a model, which may take single points if it is compiled."""
    try:
        return np.asarray(f(points, *parameters), np.float64)
    except Exception:
        if not hasattr(f, "py_func"):
            raise
        return np.array([f(point, *parameters) for point in np.moveaxis(points, -1, 0)], np.float64)


def _curve(
    f: Callable[..., Any], across: NDArray[Any], fitted: NDArray[Any], parameters: NDArray[Any], *, smooth: bool
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the points of a smooth curve, or those of the data if the model depends on all points together."""
    order = np.argsort(across, kind="stable")
    coarse = across[order], fitted[order]
    finite = across[np.isfinite(across)]
    if not smooth or not finite.size:
        return coarse
    points = np.union1d(np.linspace(finite.min(), finite.max(), _SMOOTH), finite).astype(across.dtype)
    try:
        values = _values(f, points, parameters)
        same = np.allclose(values[np.searchsorted(points, finite)], fitted[np.isfinite(across)], equal_nan=True)
    except (ValueError, IndexError):  # of a model that is made for as many points as there are data
        return coarse
    return (points, values) if same else coarse


@explain_keywords()
def plot_profile(
    fun: Callable[..., float],
    x: Any,
    k: int | str,
    *,
    args: tuple[Any, ...] = (),
    others: str = "fixed",
    span: tuple[float, float] | None = None,
    points: int = 41,
    ax: Any = None,
) -> Any:
    """Plot a function, such as f or chi2, along one of its parameters.

    With ``others="fixed"`` the other parameters stay as they are: a section through the function, which is too narrow
    where parameters are correlated. With ``others="free"`` the function is minimized over them at each point by
    `scipy.optimize.minimize`, from the parameters found at the point before: a profile, as of a likelihood.

    Parameters
    ----------
    fun : callable
        ``fun(x, *args) -> float``, for x of shape (n,).
    x : array_like, shape (n,), or OptimizeResult
        The minimum through which the line goes, or a result of `rmsprop_nb.minimize` or, of one data set, of
        `rmsprop_nb.fit`; then the standard error is shown as a band.
    k : int or str
        The index of the parameter, or its name if x is a result of `rmsprop_nb.fit`.
    args : tuple, optional
        Further arguments of `fun`.
    others : {"fixed", "free"}, default "fixed"
        Whether the other parameters keep their values or are optimised again.
    span : tuple of float, optional
        Range of the parameter; by default three standard errors to each side, and where they are not known half of its
        value, or 1 if that is 0.
    points : int, default 41
        The number of values of the parameter.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default in a new figure. The two kinds can be drawn into the same axes.

    Returns
    -------
    ax : matplotlib.axes.Axes
        The axes.

    Raises
    ------
    ValueError
        If an argument is not as described.
    ImportError
        If matplotlib is not installed.

    Examples
    --------
    >>> from scipy.optimize import rosen, rosen_der
    >>> from rmsprop_nb import minimize
    >>> from rmsprop_nb.plotting import plot_profile
    >>> result = minimize(rosen, [-1.2, 1.0], jac=rosen_der)
    >>> ax = plot_profile(rosen, result, 0)                               # doctest: +SKIP
    >>> ax = plot_profile(rosen, result, 0, others="free", ax=ax)         # doctest: +SKIP
    """
    if others not in _OTHERS:
        msg = f"others must be 'fixed' or 'free', got {others!r}."
        raise ValueError(msg)
    center, names, errors = _parameters(x)
    place = _place(k, names)
    count = as_count("points", points, 41, least=2)
    error = errors[place] if np.isfinite(errors[place]) and errors[place] > 0.0 else None
    low, high = _span(center[place], error) if span is None else span
    along = np.linspace(low, high, count)

    def value(p: NDArray[Any]) -> float:
        return float(fun(p, *args))

    values = _section(value, center, place, along) if others == "fixed" else _profile(value, center, place, along)
    axes = axes_or_new(ax)
    axes.plot(along, values, label=_OTHERS[others], **line_style(list(_OTHERS).index(others)))
    axes.plot(center[place], value(center), marker="o", ms=5, color=ink(axes), zorder=3)
    if error is not None:
        axes.axvspan(center[place] - error, center[place] + error, color=COLORS[5], alpha=0.2, lw=0.0)
    axes.set(xlabel=names[place], ylabel="f")
    axes.legend()
    return axes


def _parameters(x: Any) -> tuple[NDArray[np.float64], list[str], NDArray[np.float64]]:
    """Return the parameters, their names and their standard errors, which may be unknown."""
    found = x["popt"] if hasattr(x, "popt") else x["x"] if hasattr(x, "nfev") else x
    center = np.array(found, np.float64)
    if center.ndim != 1 or center.size == 0:
        msg = f"x must be one vector of parameters or a result that has one, got shape {center.shape}."
        raise ValueError(msg)
    names = list(getattr(x, "names", [f"x[{i}]" for i in range(center.size)]))
    return center, names, np.asarray(getattr(x, "perr", np.full(center.size, np.nan)))


def _place(k: Any, names: list[str]) -> int:
    if isinstance(k, str) and k in names:
        return names.index(k)
    if isinstance(k, int | np.integer) and -len(names) <= k < len(names):
        return int(k) % len(names)
    msg = f"k must be an index below {len(names)} or one of the names {', '.join(names)}, got {k!r}."
    raise ValueError(msg)


def _span(center: float, error: float | None) -> tuple[float, float]:
    half = _WIDE * error if error is not None else 0.5 * abs(center) or 1.0
    return center - half, center + half


def _section(
    value: Callable[[NDArray[Any]], float], center: NDArray[Any], place: int, along: NDArray[Any]
) -> NDArray[Any]:
    """Return the values on a line through the centre."""
    rows = np.tile(center, (along.size, 1))
    rows[:, place] = along
    return np.array([value(row) for row in rows])


def _profile(
    value: Callable[[NDArray[Any]], float], center: NDArray[Any], place: int, along: NDArray[Any]
) -> NDArray[Any]:
    """Return the lowest values that the other parameters allow, found from the centre outwards."""
    if center.size == 1:
        return _section(value, center, place, along)
    sizes = np.where(np.delete(center, place) == 0.0, 1.0, np.abs(np.delete(center, place)))
    begin = int(np.argmin(np.abs(along - center[place])))
    found = np.empty(along.size)
    for order in (range(begin, along.size), range(begin - 1, -1, -1)):
        scaled = np.delete(center, place) / sizes
        for i in order:
            at = along[i]
            best = scipy.optimize.minimize(
                lambda u, at=at: value(np.insert(u * sizes, place, at)), scaled, method="BFGS"
            )
            scaled, found[i] = best.x, best.fun
    return found
