"""Fits of curves with the contract of SciPy's `curve_fit`."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import OptimizeWarning

from rmsprop_nb._api.fit import FIT_OPTION_NAMES, fit
from rmsprop_nb._core.names_elsewhere import explain_keywords
from rmsprop_nb._core.status import Status
from rmsprop_nb._core.validate import as_options, check_switches
from rmsprop_nb._drivers.batch_processes import Engine
from rmsprop_nb._drivers.fit_result import FitResult

_SCIPYS = ("ftol", "gtol", "maxfev", "max_nfev", "xtol")
_PASSED_ON = ("loss", "f_scale", "progress", "options")
_WITHOUT_USE = ("diag", "factor", "x_scale")


@explain_keywords(
    {"here it is an option: options={{{!r}: ...}}": FIT_OPTION_NAMES}, (*_SCIPYS, *_PASSED_ON, *_WITHOUT_USE)
)
def curve_fit(
    f: Callable[..., Any],
    xdata: Any,
    ydata: ArrayLike,
    p0: ArrayLike | None = None,
    sigma: ArrayLike | None = None,
    absolute_sigma: bool = False,
    check_finite: bool | None = None,
    bounds: Any = (-np.inf, np.inf),
    method: str | None = None,
    jac: Callable[..., Any] | str | None = None,
    *,
    full_output: bool = False,
    nan_policy: str | None = None,
    workers: int | Engine = 1,
    **kwargs: Any,
) -> tuple[Any, ...]:
    """Fit a curve to data, with the arguments and the return values of `scipy.optimize.curve_fit`.

    `fit` does the same and returns more.

    Parameters
    ----------
    f, xdata, ydata, p0, sigma, absolute_sigma
        As for `fit`; `ydata` may have leading axes.
    check_finite : bool, optional
        As for `fit`. By default True, unless `nan_policy` is given.
    bounds, method, jac
        As for `fit`.
    full_output : bool, default False
        Return three more things.
    nan_policy, workers
        As for `fit`.
    **kwargs
        ``ftol``, ``xtol``, ``gtol``, ``maxfev`` (or ``max_nfev``), ``loss`` and ``f_scale``, as for `fit`.

    Returns
    -------
    popt : ndarray, shape (..., n)
        The parameters. With leading axes, they are NaN where a fit failed.
    pcov : ndarray, shape (..., n, n)
        Their covariances, infinite where they could not be estimated.
    infodict : dict
        If `full_output` is set: ``nfev``, the number of evaluations, and for one data set ``fvec``, the residuals.
    mesg : str or ndarray of str
        If `full_output` is set: why the fit ended.
    ier : int or ndarray of int
        If `full_output` is set: 1 to 4 for success, as in SciPy.

    Raises
    ------
    RuntimeError
        If the fit of one data set fails.
    TypeError, ValueError
        If an argument is not as described.

    Warns
    -----
    scipy.optimize.OptimizeWarning
        If covariances could not be estimated, or some of many fits failed; once for all data sets.

    Examples
    --------
    >>> import numpy as np
    >>> from numba import njit
    >>> from rmsprop_nb import curve_fit
    >>> @njit
    ... def line(x, slope, height):
    ...     return slope * x + height
    >>> popt, pcov = curve_fit(line, [0.0, 1.0, 2.0, 3.0], [1.0, 3.1, 4.9, 7.0])
    >>> popt.round(2).tolist(), np.sqrt(np.diag(pcov)).round(3).tolist()
    ([1.98, 1.03], [0.042, 0.079])
    """
    check_switches(full_output=full_output)
    limits, others = _scipys_keywords(kwargs)
    checked = nan_policy is None if check_finite is None else check_finite
    result = fit(
        f, xdata, ydata, p0, sigma, absolute_sigma, checked, bounds, method, jac,
        nan_policy=nan_policy, options=limits, workers=workers, **others,
    )  # fmt: skip
    _warn(result)
    popt = result.popt if not result.shape else np.where(result.success[..., np.newaxis], result.popt, np.nan)
    if not full_output:
        return popt, result.pcov
    info: dict[str, Any] = {"nfev": result.nfev}
    if not result.shape:
        info["fvec"] = result.residuals
    codes = {Status.FTOL: 1, Status.XTOL: 2, Status.GTOL: 4, Status.ROUNDING: 1}
    ier = np.vectorize(lambda status: codes.get(Status(status), 5), otypes=[int])(result.status)
    return popt, result.pcov, info, result.message, ier if result.shape else int(ier)


def _warn(result: FitResult) -> None:
    """Raise if the fit of one data set failed; warn of what is wrong with some of many."""
    if not result.shape and not result.success:
        msg = f"Optimal parameters not found: {result.message}"
        raise RuntimeError(msg)
    failed = int(np.sum(~np.asarray(result.success)))
    if failed:
        msg = f"{failed} of {np.size(result.success)} fits failed; rmsprop_nb.fit returns which, and why."
        warnings.warn(msg, OptimizeWarning, stacklevel=4)
    if (np.isinf(result.pcov).any(axis=(-2, -1)) & result.success).any():
        warnings.warn("Covariance of the parameters could not be estimated", OptimizeWarning, stacklevel=4)


def _scipys_keywords(kwargs: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the options and the arguments of `fit` among the keywords that SciPy's curve_fit takes."""
    limits: dict[str, Any] = {name: kwargs.pop(name) for name in ("ftol", "xtol", "gtol") if name in kwargs}
    for name in ("maxfev", "max_nfev"):
        if kwargs.get(name) is not None:
            limits["maxfev"] = kwargs[name]
        kwargs.pop(name, None)
    others: dict[str, Any] = {name: kwargs.pop(name) for name in _PASSED_ON if name in kwargs}
    limits |= as_options(others.pop("options", None))
    if kwargs.get("x_scale") in (None, "jac") and not isinstance(kwargs.get("x_scale"), np.ndarray):
        kwargs.pop("x_scale", None)
    if kwargs:
        name = next(iter(kwargs))
        msg = f"curve_fit has no argument {name!r}: the method finds the scale of the parameters itself. Leave it out."
        raise TypeError(msg)
    return limits, others
