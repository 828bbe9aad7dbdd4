"""Fits along a dimension of xarray's labelled arrays: ``pip install 'rmsprop_nb[xarray]'``.

`curvefit` has the arguments and the result of `xarray.DataArray.curvefit`. All pixels of a block are fitted by one call
of `rmsprop_nb.fit`; arrays of Dask are fitted block by block, when they are computed.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rmsprop_nb._api.fit import fit
from rmsprop_nb._core.names_elsewhere import explain_keywords
from rmsprop_nb._core.validate import check_callable

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["curvefit"]


def __dir__() -> list[str]:
    return sorted(__all__)


_OPTIONS = ("ftol", "gtol", "xtol")  # that kwargs may have beside `options`, as in SciPy
_OURS = ("p0", "bounds", "nan_policy")  # arguments of fit that are made here
_OF_ONE_RUN = ("checkpoint", "checkpoint_every", "state")  # blocks would share them


@explain_keywords({"here it is an argument of fit: kwargs={{{!r}: ...}}": inspect.signature(fit).parameters})
def curvefit(
    da: xr.DataArray | xr.Dataset,
    coords: Any,
    func: Callable[..., Any],
    reduce_dims: Any = None,
    skipna: bool = True,
    p0: Mapping[str, Any] | None = None,
    bounds: Mapping[str, tuple[Any, Any]] | None = None,
    param_names: Sequence[str] | None = None,
    errors: str = "raise",
    kwargs: Mapping[str, Any] | None = None,
) -> xr.Dataset:
    """Fit a curve along a dimension of a labelled array, once for each pixel of the others.

    The arguments and the result are those of `xarray.DataArray.curvefit`; standard errors are added to the result.

    Parameters
    ----------
    da : xarray.DataArray or xarray.Dataset
        The data. Arrays of Dask stay lazy: each block is fitted when it is computed.
    coords : str, DataArray or sequence of these
        Where the data were measured: coordinates of `da`, or arrays with at least one of its dimensions. With more
        than one, `func` gets an array with a row for each.
    func : callable
        The model, ``func(x, *parameters) -> array``. Compiled with ``numba.njit`` it may also be written for a single
        point, as for `fit`, and has exact derivatives.
    reduce_dims : str or iterable of hashable, optional
        Dimensions along which data are fitted together, beside those that `coords` name.
    skipna : bool, default True
        Leave out missing points. The coefficients of pixels without any data are NaN.
    p0 : dict, optional
        First guesses by the name of the parameter: numbers, or DataArrays with a guess for each pixel. By default that
        of the signature of `func`, or 1, or within the bounds.
    bounds : dict, optional
        Pairs (lower, upper) by the name of the parameter: numbers or DataArrays. Equal bounds fix a parameter.
    param_names : sequence of str, optional
        The names of the parameters, by default those of the signature of `func`.
    errors : {"raise", "ignore"}, default "raise"
        "raise" raises a RuntimeError if a fit fails; "ignore" returns NaN for its pixel.
    kwargs : dict, optional
        Further arguments of `fit`, such as ``absolute_sigma``, ``loss``, ``workers`` and ``options``, or ``ftol``,
        ``xtol``, ``gtol`` and ``maxfev`` among them. ``sigma`` may be a DataArray that has dimensions of `da`.

    Returns
    -------
    xarray.Dataset
        ``curvefit_coefficients`` with the dimension ``param``, ``curvefit_covariance`` with ``cov_i`` and ``cov_j``,
        and ``curvefit_errors``, the standard errors, with ``param``. If `da` is a Dataset, the name of each variable
        and an underscore stand in front.

    Raises
    ------
    RuntimeError
        If a fit fails, and `errors` is "raise".
    TypeError, ValueError
        If an argument is not as described, or an array of Dask has more than one chunk along a fitted dimension.
    ImportError
        If xarray is not installed.

    Examples
    --------
    >>> import numpy as np
    >>> import xarray as xr
    >>> from numba import njit
    >>> from rmsprop_nb.xarray import curvefit
    >>> @njit
    ... def decay(t, amplitude, rate):
    ...     return amplitude * np.exp(-rate * t)
    >>> time = xr.DataArray(np.linspace(0.0, 4.0, 30), dims="time")
    >>> rate = xr.DataArray([0.5, 1.0, 2.0], dims="x", coords={"x": [10, 20, 30]})
    >>> images = (3.0 * np.exp(-rate * time)).assign_coords(time=time)
    >>> fitted = curvefit(images, "time", decay, p0={"amplitude": 1.0})
    >>> fitted.curvefit_coefficients.sel(param="rate").values.round(3).tolist()
    [0.5, 1.0, 2.0]
    """
    xarray = _xarray()
    if not isinstance(da, xarray.DataArray | xarray.Dataset):
        msg = f"da must be an xarray.DataArray or Dataset, got {type(da).__name__}."
        raise TypeError(msg)
    check_callable("func", func)
    if errors not in ("raise", "ignore"):
        msg = f"errors must be 'raise' or 'ignore', got {errors!r}."
        raise ValueError(msg)
    points, reduced = _points(da, coords, reduce_dims)
    kept = [dim for dim in da.dims if dim not in reduced]
    names, defaults = _parameters(func, param_names)
    guesses, boxes = _starts_and_bounds(names, defaults, p0, bounds, kept)
    given, sigma = _fit_arguments(kwargs)
    n = len(names)
    points = [point.broadcast_like(da, exclude=kept) for point in xarray.broadcast(*points)]
    if sigma is not None:
        sigma = sigma.broadcast_like(da, exclude=kept)
    block = _Block(func, len(reduced), len(points), sigma is not None, n, bool(skipna), errors == "raise", given)
    result: xr.Dataset = xarray.Dataset()
    for prefix, data in _variables(da):
        spread = [data, *points, *([] if sigma is None else [sigma])]
        single = [*guesses, *(lower for lower, _ in boxes), *(upper for _, upper in boxes)]
        found = xarray.apply_ufunc(
            block,
            *spread,
            *single,
            input_core_dims=[reduced] * len(spread) + [[]] * len(single),
            output_core_dims=[["param"], ["cov_i", "cov_j"], ["param"]],
            exclude_dims=set(reduced),
            dask="parallelized",
            dask_gufunc_kwargs={"output_sizes": {"param": n, "cov_i": n, "cov_j": n}},
            output_dtypes=[np.float64] * 3,
        )
        for name, values in zip(("coefficients", "covariance", "errors"), found, strict=True):
            result[f"{prefix}curvefit_{name}"] = values
    result = result.assign_coords(param=names, cov_i=names, cov_j=names)
    if isinstance(da, xarray.Dataset):  # attributes of an array are not those of its fit: xarray drops them, too
        result.attrs = dict(da.attrs)
    return result


# -- arguments --------------------------------------------------------------------------------------------------------


def _xarray() -> Any:
    try:
        import xarray
    except ImportError:
        msg = "rmsprop_nb.xarray needs xarray; install it with pip install 'rmsprop_nb[xarray]'."
        raise ImportError(msg) from None
    return xarray


def _variables(da: Any) -> list[tuple[str, Any]]:
    """Return the arrays to fit, and what their names add to those of the result."""
    if hasattr(da, "data_vars"):
        return [(f"{name}_", data) for name, data in da.data_vars.items()]
    return [("", da)]


def _parameters(func: Any, param_names: Sequence[str] | None) -> tuple[list[str], dict[str, Any]]:
    """Return the names of the parameters, and the guesses that the signature has as defaults."""
    try:
        known = dict(inspect.signature(getattr(func, "py_func", func)).parameters)
    except (TypeError, ValueError):
        known = {}
    if param_names:
        names = list(param_names)
    else:
        names = list(known)[1:]
        if not names or any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in known.values()):
            msg = "param_names is needed: the signature of func does not name the parameters."
            raise ValueError(msg)
    defaults = {name: known[name].default for name in names if name in known}
    return names, {name: value for name, value in defaults.items() if value is not inspect.Parameter.empty}


def _starts_and_bounds(
    names: list[str],
    defaults: dict[str, Any],
    p0: Any,
    bounds: Any,
    kept: list[Hashable],
) -> tuple[list[Any], list[tuple[Any, Any]]]:
    """Return a guess and a pair of bounds for each parameter: numbers or DataArrays."""
    for argument, given in (("p0", p0), ("bounds", bounds)):
        if not isinstance(given, Mapping | None):
            msg = f"{argument} must be a dict by the names of the parameters, {names}, got {type(given).__name__}."
            raise TypeError(msg)
        if unknown := [name for name in given or {} if name not in names]:
            msg = f"{argument} has {unknown[0]!r}, which is no parameter; they are {names}."
            raise ValueError(msg)
    for name, pair in (bounds or {}).items():
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            msg = f"bounds[{name!r}] must be a pair (lower, upper)."
            raise ValueError(msg)
        _check_pixels(f"bounds[{name!r}]", pair, kept)
    for name, guess in (p0 or {}).items():
        _check_pixels(f"p0[{name!r}]", [guess], kept)
    boxes = [(bounds or {}).get(name, (-np.inf, np.inf)) for name in names]
    guesses = [
        (p0 or {})[name] if name in (p0 or {}) else _within(defaults.get(name, 1.0), *box)
        for name, box in zip(names, boxes, strict=True)
    ]
    return guesses, boxes


def _check_pixels(name: str, values: Sequence[Any], kept: list[Hashable]) -> None:
    for value in values:
        if unexpected := [dim for dim in getattr(value, "dims", ()) if dim not in kept]:
            msg = f"{name} has the dimension {unexpected[0]!r}; only pixels can differ, along {kept}."
            raise ValueError(msg)
        if not hasattr(value, "dims") and np.ndim(value):
            msg = f"{name} must have numbers or DataArrays, got {type(value).__name__}."
            raise TypeError(msg)


def _within(guess: Any, lower: Any, upper: Any) -> Any:
    """Return a guess within bounds, made as SciPy makes one where the default is not."""
    where = _xarray().where
    has_lower, has_upper = np.isfinite(lower), np.isfinite(upper)
    low, high = where(has_lower, lower, 0.0), where(has_upper, upper, 0.0)
    one_sided = where(has_lower, low + 1.0, where(has_upper, high - 1.0, 0.0))
    feasible = where(has_lower & has_upper, 0.5 * (low + high), one_sided)
    return where((guess < lower) | (guess > upper), feasible, guess)


def _points(da: Any, coords: Any, reduce_dims: Any) -> tuple[list[Any], list[Hashable]]:
    """Return where the data were measured, and the dimensions along which they are fitted."""
    array = _xarray().DataArray
    if isinstance(coords, str | array) or not isinstance(coords, Iterable):
        coords = [coords]
    points = [coord if isinstance(coord, array) else da[coord] for coord in coords]
    if not reduce_dims:
        reduce_dims = []
    elif isinstance(reduce_dims, str) or not isinstance(reduce_dims, Iterable):
        reduce_dims = [reduce_dims]
    chosen = {*reduce_dims, *(dim for dim in da.dims for point in points if point.equals(da[dim]))}
    if unknown := [dim for dim in chosen if dim not in da.dims]:
        msg = f"reduce_dims has {unknown[0]!r}, which is no dimension of the data; they are {tuple(da.dims)}."
        raise ValueError(msg)
    if not chosen:
        msg = "none of coords is a dimension of the data: reduce_dims must say along which dimensions to fit."
        raise ValueError(msg)
    return points, [dim for dim in da.dims if dim in chosen]


def _fit_arguments(kwargs: Mapping[str, Any] | None) -> tuple[dict[str, Any], Any]:
    """Return the arguments of `fit`, and sigma if it is an array with dimensions."""
    given = dict(kwargs or {})
    for name in (*_OURS, *_OF_ONE_RUN):
        if name in given:
            reason = "curvefit passes its own" if name in _OURS else "there is a call of fit for each block"
            msg = f"kwargs must not have {name!r}: {reason}."
            raise ValueError(msg)
    options = {name: given.pop(name) for name in _OPTIONS if name in given}
    for name in ("maxfev", "max_nfev"):
        if (limit := given.pop(name, None)) is not None:
            options["maxfev"] = limit
    if options:
        given["options"] = {**options, **(given.get("options") or {})}
    sigma: Any = given.get("sigma")
    if hasattr(sigma, "dims"):
        return given, given.pop("sigma")
    if np.ndim(sigma) > 1:
        msg = "sigma must be a number, an array along the fitted dimension, or a DataArray."
        raise ValueError(msg)
    return given, None


# -- blocks -----------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Block:
    """What is done with a block of the data: an object that can be sent to another process."""

    func: Callable[..., Any]
    n_reduced: int
    n_points: int
    has_sigma: bool
    n: int
    skipna: bool
    raises: bool
    arguments: dict[str, Any]

    def __call__(self, *arrays: Any) -> tuple[NDArray[np.float64], ...]:
        """Return coefficients, covariances and errors of all pixels of a block.

        The data come first, then the points, sigma, the guesses and the bounds. They broadcast as in NumPy: an array
        that does not depend on a dimension has no axis for it, or one of length 1.
        """
        n, spread = self.n, 1 + self.n_points + self.has_sigma
        data = [self._one_axis(np.asarray(array)) for array in arrays[:spread]]
        lead = np.broadcast_shapes(*(array.shape[:-1] for array in data), *map(np.shape, arrays[spread:]))
        count = math.prod(lead)
        y, *others = [_rows(array, lead, 1) for array in data]
        x = np.stack(np.broadcast_arrays(*others[: self.n_points]), axis=-2)
        sigma = others[-1] if self.has_sigma else np.ones((1, y.shape[1]))
        if self.skipna:
            sigma = np.where(np.isnan(sigma), np.inf, sigma)
        p0, lower, upper = (
            np.stack(np.broadcast_arrays(*(_rows(value, lead, 0) for value in arrays[k : k + n])), axis=-1)
            for k in (spread, spread + n, spread + 2 * n)
        )
        y = np.broadcast_to(y, (count, y.shape[1]))
        out = [np.full((count, *tail), np.nan) for tail in ((n,), (n, n), (n,))]
        worth = self._worth_a_fit(y, x, sigma, p0)
        if worth.any():
            chosen = slice(None) if worth.all() else worth  # a slice copies nothing
            rows = (values if len(values) == 1 else values[chosen] for values in (x, sigma, p0, lower, upper))
            for values, those in zip(out, self._fit(y[chosen], *rows), strict=True):
                values[chosen] = those
        return tuple(values.reshape(*lead, *values.shape[1:]) for values in out)

    def _one_axis(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return an array with one axis for all dimensions that are fitted, the last."""
        pixels, fitted = array.shape[: -self.n_reduced], array.shape[-self.n_reduced :]
        return array.reshape(*pixels, math.prod(fitted))

    def _worth_a_fit(self, y: Any, x: Any, sigma: Any, p0: Any) -> NDArray[np.bool_]:
        """Return which pixels have data, and a guess, unless fits without a guess are to be an error."""
        worth = np.ones(len(y), bool)
        if self.skipna:
            worth = (~np.isnan(y) & ~np.isnan(x).any(axis=-2) & np.isfinite(sigma)).any(axis=-1)
        return worth if self.raises else worth & np.isfinite(p0).all(axis=-1)

    def _fit(self, y: Any, x: Any, sigma: Any, p0: Any, lower: Any, upper: Any) -> list[NDArray[np.float64]]:
        """Fit rows; those that fail are an error or NaN."""
        given = {**self.arguments, "nan_policy": "omit" if self.skipna else None}
        if self.has_sigma:
            given["sigma"] = _shared(sigma)
        if x.shape[1] == 1:
            x = x[:, 0]
        elif x.shape[1] == len(y):  # where there are as many rows as pixels, fit would give each pixel one of them
            x = np.broadcast_to(x, (len(y), *x.shape[1:]))
        found = fit(self.func, _shared(x), y, _shared(p0), bounds=(_shared(lower), _shared(upper)), **given)
        failed = ~found.success
        if self.raises and failed.any():
            reason = found.message[np.flatnonzero(failed)[0]]
            msg = (
                f"Optimal parameters not found: {failed.sum()} of {len(y)} fits failed, the first because of this: "
                f"{reason} errors='ignore' gives NaN for such fits."
            )
            raise RuntimeError(msg)
        return [_without(found[name], failed) for name in ("popt", "pcov", "perr")]


def _rows(array: Any, lead: tuple[int, ...], behind: int) -> NDArray[Any]:
    """Return an array with one axis for all pixels in front, of length 1 if they do not differ."""
    values: NDArray[Any] = np.asarray(array)
    pixels, tail = values.shape[: values.ndim - behind], values.shape[values.ndim - behind :]
    if math.prod(pixels) == 1:
        return values.reshape(1, *tail)
    return np.broadcast_to(values, (*lead, *tail)).reshape(math.prod(lead), *tail)


def _shared(rows: NDArray[Any]) -> NDArray[Any]:
    return rows[0] if len(rows) == 1 else rows


def _without(values: NDArray[np.float64], failed: NDArray[np.bool_]) -> NDArray[np.float64]:
    values[failed] = np.nan
    return values
