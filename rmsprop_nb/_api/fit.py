"""Fits of curves with errors, one or many: `fit`."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rmsprop_nb._core.fit_arguments import Curves, as_curves, as_guesses, parameter_names
from rmsprop_nb._core.names_elsewhere import explain_keywords
from rmsprop_nb._core.option_docs import with_option_docs
from rmsprop_nb._core.options import Options
from rmsprop_nb._core.status import MESSAGES, Status
from rmsprop_nb._core.validate import (
    CHECKPOINT_SECONDS,
    as_checkpoint_seconds,
    as_number,
    as_options,
    as_workers,
    check_callable,
    check_known,
    check_switches,
)
from rmsprop_nb._drivers.batch_processes import Engine
from rmsprop_nb._drivers.batch_result import BatchResult
from rmsprop_nb._drivers.batch_run import Company, run_batch
from rmsprop_nb._drivers.batch_threads import Job
from rmsprop_nb._drivers.fit_result import FitResult, inverse_by_qr, inverse_matrices
from rmsprop_nb._methods.levenberg_marquardt import LevenbergMarquardtOptions
from rmsprop_nb._methods.registry import FIT_OPTIONS, method_name, option_names
from rmsprop_nb._objectives.curves import curve_objective
from rmsprop_nb._objectives.fit_objective import FitObjective
from rmsprop_nb._objectives.losses import LOSSES, is_robust
from rmsprop_nb._objectives.residuals import Terms

JACOBIANS = ("autodiff", "2-point", "3-point", "cs")

_SCIPYS_METHODS = ("lm", "trf", "dogbox")
_NOT_FOR_FITS = (
    *("checkpoint", "checkpoint_every", "check_every", "disp", "f_noise", "finite_diff_rel_step", "history"),
    *("maxtime", "parallel", "patience", "progress", "return_all", "state", "x_scale", "f_target"),
)
_EVALUATIONS = 200  # for each parameter and one more, as many as SciPy's curve_fit takes without derivatives


FIT_OPTION_NAMES = tuple(
    sorted({name for method in FIT_OPTIONS for name in option_names(method) if name not in _NOT_FOR_FITS})
)


@explain_keywords({"here it is an option: options={{{!r}: ...}}": FIT_OPTION_NAMES})
@with_option_docs
def fit(
    f: Callable[..., Any],
    xdata: Any,
    ydata: ArrayLike,
    p0: ArrayLike | None = None,
    sigma: ArrayLike | None = None,
    absolute_sigma: bool = False,
    check_finite: bool = True,
    bounds: Any = (-np.inf, np.inf),
    method: str | None = None,
    jac: Callable[..., Any] | str | None = None,
    *,
    nan_policy: str | None = None,
    loss: str = "linear",
    f_scale: float = 1.0,
    options: dict[str, Any] | None = None,
    workers: int | Engine = 1,
    progress: bool = False,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: float = CHECKPOINT_SECONDS,
    state: BatchResult | None = None,
) -> FitResult:
    """Fit a curve to data: find parameters and their errors, for one data set or many.

    The arguments are those of `scipy.optimize.curve_fit`. With ``ydata`` of shape (..., m) each of its last axes is
    fitted by itself; a compiled `f` is fitted in compiled code on `workers` threads.

    Parameters
    ----------
    f : callable
        The model, ``f(xdata, *parameters) -> array, shape (m,)``. Compiled with ``numba.njit`` it may also be written
        for a single point: ``f(x, *parameters) -> float``.
    xdata : array_like, shape (m,) or (k, m), or object
        Where the data were measured. With the leading axes of `ydata` in front, each data set has its own. A Python
        function may be given any object, which all data sets share.
    ydata : array_like, shape (..., m)
        The data. Masked elements are left out.
    p0 : array_like, shape (n,) or (..., n), optional
        The first guess of the parameters, one for all data sets or one for each. By default 1, or within the bounds;
        then the signature of `f` tells how many parameters there are.
    sigma : float or array_like, shape (m,), (..., m) or (m, m), optional
        The standard deviations of the data; a point whose sigma is infinite is left out. For one data set it may be
        their covariance matrix.
    absolute_sigma : bool, default False
        Take `sigma` as it is. Otherwise only the ratios of its elements matter, and covariances are scaled so that
        chi2 is the number of degrees of freedom.
    check_finite : bool, default True
        Raise a ValueError if data contain NaN or infinity. Without the check, NaN in `ydata` are left out.
    bounds : 2-tuple of array_like or scipy.optimize.Bounds, optional
        Lower and upper bounds: numbers, or arrays of shape (n,) or (..., n). Equal bounds fix a parameter, which has
        variance 0 then.
    method : {"rmsprop-lm", "rmsprop", "rmsprop-lbfgs"}, default "rmsprop-lm"
        Levenberg-Marquardt in RMSprop's metric, or one of the methods of `minimize`. SciPy's names, "lm", "trf" and
        "dogbox", stand for the default.
    jac : callable, "autodiff", "2-point", "3-point", "cs" or None, default None
        The derivatives: ``jac(xdata, *parameters) -> array, shape (m, n)``, or how to make them. None is exact
        derivatives of a compiled `f` where they exist, and otherwise differences.
    nan_policy : {None, "raise", "omit"}, optional
        "omit" leaves out points where `xdata` or `ydata` is NaN.
    loss : str, default "linear"
        What a residual costs: "linear", its square; "soft_l1", "huber", "cauchy" or "arctan", less for outliers, as in
        `scipy.optimize.least_squares`; "poisson", the deviance of counts, whose expected value the model is.
    f_scale : float, default 1.0
        The residual, divided by its sigma, from which on robust losses take it for an outlier.
    options : dict, optional
        Options of the method: ``ftol`` (1e-10), ``xtol`` (1e-8), ``gtol`` (off), ``maxiter``, ``maxfev``
        (200*(n + 1)) and ``beta`` (0.9) of the default; see Notes.
    workers : int or map-like callable, default 1
        Threads for a compiled `f`, or processes, as for `minimize_batch`.
    %(progress)s
    %(checkpoint)s
    %(checkpoint_every)s
    state : BatchResult, optional
        ``rmsprop_nb.load(path)`` of a checkpoint of the same call: fits that had ended are taken from it.

    Returns
    -------
    result : FitResult
        With the leading axes of `ydata`: ``popt`` (..., n), ``pcov`` (..., n, n), ``perr`` (..., n), the standard
        errors, ``chi2`` (twice the sum of what residuals cost), ``dof``, ``status``, ``success``, ``message``, ``nfev``
        and ``nit``; with leading axes ``exceptions``, a dict from the index of a data set for which `f` raised to the
        exception, for the first ten; ``names`` of the parameters; ``jacobian``, where derivatives came from
        ("autodiff", "2-point", "3-point", "cs" or "given"). ``result[i]`` is the result of data set i, and
        ``result.to_frame()`` a table.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described; nothing has been computed then.
    Exception
        What `f` raised, if it was the same for every data set at its first evaluation.

    Notes
    -----
    A fit ends with success when a step without damping would gain at most ``ftol`` of chi2, that is when parameters are
    within ``sqrt(ftol*dof)`` of their standard errors from the minimum; when that step is at most ``xtol`` of the
    parameters, which exact data need; when the cosine between residuals and every column of J is at most ``gtol``; or
    as far as rounding lets it go. None of these depends on units.

    Covariances are infinite where the data do not determine the parameters, and where a fit failed. A data set with
    fewer points than free parameters has status 17.

    References
    ----------
    J. More, "The Levenberg-Marquardt algorithm: implementation and theory", Numerical Analysis, 1978.

    Examples
    --------
    >>> import numpy as np
    >>> from numba import njit
    >>> from rmsprop_nb import fit
    >>> @njit
    ... def decay(t, amplitude, rate, offset):
    ...     return amplitude * np.exp(-rate * t) + offset
    >>> t = np.linspace(0.0, 4.0, 30)
    >>> rng = np.random.default_rng(0)
    >>> y = decay(t, 2.5, 1.3, 0.5) + 0.01 * rng.normal(size=(3, 30))  # three data sets
    >>> result = fit(decay, t, y, p0=[1.0, 1.0, 0.0])
    >>> result.success.all(), result.popt.round(1).tolist()
    (np.True_, [[2.5, 1.3, 0.5], [2.5, 1.3, 0.5], [2.5, 1.3, 0.5]])
    >>> bool((abs(result.popt - [2.5, 1.3, 0.5]) < 4.0 * result.perr).all())
    True
    """
    check_callable("f", f)
    check_switches(progress=progress, absolute_sigma=absolute_sigma, check_finite=check_finite)
    method = fit_method(method)
    curves = as_curves(xdata, ydata, sigma, bool(check_finite), nan_policy)
    names = parameter_names(f, p0)
    n = len(names)
    parsed = fit_options(method, options, n)
    starts, boxes = as_guesses(p0, bounds, curves.lead, n)
    _check_loss(loss, curves)
    scale = as_number("f_scale", f_scale, 0.0, np.inf, open_low=True, open_high=True)
    engine = workers if callable(workers) else as_workers(workers)
    company = Company(progress, checkpoint, as_checkpoint_seconds(checkpoint_every, checkpoint), state)

    jac = check_jacobian(jac)

    def objective_for(options: Options, terms: Terms, starts: NDArray[np.float64]) -> tuple[FitObjective, Job]:
        objective = curve_objective(f, jac, curves, starts, boxes, terms, scale)
        own = boxes if boxes.lower.ndim > 1 else None
        return objective, Job(objective.problem, starts, objective.rows, options, own)

    is_default = isinstance(parsed, LevenbergMarquardtOptions)
    objective, job = objective_for(parsed, Terms(loss, is_default), starts)
    found = run_batch(job, engine, company)
    if found.exceptions and not curves.lead:
        raise found.exceptions[0]
    matrices = found.jac[:, n:]
    if is_robust(loss) or not is_default:  # what was minimized has no J'J for covariances: one evaluation that has
        last = Terms(loss, True, for_steps=False)
        objective, job = objective_for(LevenbergMarquardtOptions(maxfev=1), last, found.x)
        matrices = run_batch(job, engine, Company()).jac[:, n:]
    fixed = (
        np.broadcast_to(boxes.lower == boxes.upper, starts.shape) if boxes.lower.size else np.zeros(starts.shape, bool)
    )
    return _result(found, matrices, objective, curves, fixed, names, absolute_sigma or loss == "poisson")


# -- arguments --------------------------------------------------------------------------------------------------------


def fit_method(method: Any) -> str:
    """Return the name of the method; SciPy's names stand for the default."""
    if isinstance(method, str) and method in _SCIPYS_METHODS:
        method = None
    return method_name(method, FIT_OPTIONS)


def fit_options(method: str, options: dict[str, Any] | None, n: int) -> Options:
    """Return the options of a method for fits of n parameters."""
    chosen = as_options(options)
    known = tuple(name for name in option_names(method) if name not in _NOT_FOR_FITS)
    check_known(chosen, known, f"{method} (for fits)")
    if FIT_OPTIONS[method] is LevenbergMarquardtOptions and chosen.get("maxfev") is None:
        chosen["maxfev"] = _EVALUATIONS * (n + 1)
    return FIT_OPTIONS[method](**chosen)


def check_jacobian(jac: Any) -> Any:
    """Return `jac` if it is a callable or a name of what makes derivatives."""
    if jac is None or callable(jac) or (isinstance(jac, str) and jac in JACOBIANS):
        return jac
    msg = f"jac must be a callable, None or one of {', '.join(map(repr, JACOBIANS))}, got {jac!r}."
    raise ValueError(msg)


def _check_loss(loss: Any, curves: Curves) -> None:
    if not isinstance(loss, str) or loss not in LOSSES:
        msg = f"loss must be one of {', '.join(map(repr, LOSSES))}, got {loss!r}."
        raise ValueError(msg)
    if loss == "poisson":
        if (curves.y < 0.0).any():
            msg = "ydata must not be negative with loss='poisson', which is for counts."
            raise ValueError(msg)
        if curves.sigma.size and (np.isfinite(curves.sigma) & (curves.sigma != 1.0)).any():
            msg = "sigma has no meaning with loss='poisson', which knows the errors of counts; inf leaves a point out."
            raise ValueError(msg)
    if loss != "linear" and curves.covariance.size:
        msg = f"sigma must be errors of single points with loss={loss!r}, not a covariance."
        raise ValueError(msg)


# -- results ----------------------------------------------------------------------------------------------------------


def _result(
    found: BatchResult,
    matrices: NDArray[np.float64],
    objective: FitObjective,
    curves: Curves,
    fixed: NDArray[np.bool_],
    names: list[str],
    absolute: bool,
) -> FitResult:
    """Make the result, with covariances."""
    free = np.count_nonzero(~fixed, axis=1)
    used = curves.used()
    status, success, message = found.status, found.success, found.message
    if (short := used < np.maximum(free, 1)).any():
        status, success, message = status.copy(), success & ~short, message.copy()
        status[short], message[short] = Status.UNDETERMINED, MESSAGES[Status.UNDETERMINED]
    dof, chi2 = used - free, 2.0 * found.fun
    pcov, trusted = inverse_matrices(np.ascontiguousarray(matrices), np.ascontiguousarray(fixed))
    for k in np.flatnonzero(~trusted):
        pcov[k] = inverse_by_qr(objective.weighted_jacobian(int(k), found.x[k]), fixed[k]) if success[k] else np.inf
    if not absolute:
        with np.errstate(divide="ignore", invalid="ignore"):
            pcov *= np.where(dof > 0, chi2 / dof, np.inf)[:, np.newaxis, np.newaxis]
    pcov[~success | ((dof <= 0) & (not absolute))] = np.inf
    perr = np.sqrt(np.einsum("kii->ki", pcov))
    lead, n = curves.lead, len(names)
    fields: dict[str, Any] = {
        "popt": found.x.reshape(*lead, n),
        "perr": perr.reshape(*lead, n),
        "pcov": pcov.reshape(*lead, n, n),
    }
    single = {"chi2": chi2, "dof": dof, "status": status, "success": success, "message": message}
    for name, values in (single | {"nfev": found.nfev, "nit": found.nit}).items():
        fields[name] = values.reshape(lead) if lead else values.item()
    if lead:
        fields["exceptions"] = {_index(k, lead): error for k, error in found.exceptions.items()}
    else:
        fields["residuals"] = objective.residuals(0, found.x[0])
    return FitResult(fields, names=names, jacobian=objective.source)


def _index(k: int, lead: tuple[int, ...]) -> Any:
    """Return the index of fit k, an int where there is one leading axis."""
    index = tuple(int(i) for i in np.unravel_index(k, lead))
    return index[0] if len(index) == 1 else index
