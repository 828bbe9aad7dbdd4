"""Sums of squares of any residuals, with SciPy's contract: `least_squares`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import OptimizeResult

from rmsprop_nb._api.fit import FIT_OPTION_NAMES, check_jacobian, fit_method, fit_options
from rmsprop_nb._core.batch_arguments import as_rows, as_starts, check_rows
from rmsprop_nb._core.fit_arguments import Boxes, as_guesses
from rmsprop_nb._core.names_elsewhere import explain_keywords
from rmsprop_nb._core.result import Result, elements
from rmsprop_nb._core.status import Status
from rmsprop_nb._core.validate import (
    as_args,
    as_array,
    as_count,
    as_number,
    as_options,
    as_workers,
    check_callable,
    refuse_mask,
)
from rmsprop_nb._drivers.batch_processes import Engine
from rmsprop_nb._drivers.batch_result import BatchResult, ProblemRows
from rmsprop_nb._drivers.batch_run import Company, run_batch
from rmsprop_nb._drivers.batch_threads import Job
from rmsprop_nb._methods.levenberg_marquardt import LevenbergMarquardtOptions
from rmsprop_nb._objectives.fit_objective import FitObjective, arrange, choose
from rmsprop_nb._objectives.losses import LOSSES
from rmsprop_nb._objectives.residuals import Terms

_STATUSES = {Status.MAXFEV: 0, Status.MAXITER: 0, Status.GTOL: 1, Status.FTOL: 2, Status.ROUNDING: 2, Status.XTOL: 3}
_FAILED = -1


@explain_keywords({"here it is an option: options={{{!r}: ...}}": FIT_OPTION_NAMES})
def least_squares(
    fun: Callable[..., Any],
    x0: ArrayLike,
    jac: Callable[..., Any] | str | None = None,
    bounds: Any = (-np.inf, np.inf),
    method: str | None = None,
    ftol: float | None = 1e-10,
    xtol: float | None = 1e-8,
    gtol: float | None = 1e-8,
    x_scale: str | None = None,
    loss: str = "linear",
    f_scale: float = 1.0,
    diff_step: Any = None,
    tr_solver: Any = None,
    tr_options: Any = None,
    jac_sparsity: Any = None,
    max_nfev: int | None = None,
    verbose: int = 0,
    args: tuple[Any, ...] = (),
    kwargs: dict[str, Any] | None = None,
    callback: Any = None,
    workers: int | Engine = 1,
    *,
    batch_args: tuple[Any, ...] | None = None,
    options: dict[str, Any] | None = None,
) -> OptimizeResult:
    """Minimize a sum of squares, or of other costs, of residuals.

    The arguments and the result are those of `scipy.optimize.least_squares`. With `batch_args` or an x0 with two axes
    many problems are solved, each with its own start and data.

    Parameters
    ----------
    fun : callable
        ``fun(x, *args, **kwargs) -> residuals, shape (m,)``.
    x0 : array_like, shape (n,) or (B, n)
        The first guess, or one for each problem.
    jac : callable, "autodiff", "2-point", "3-point", "cs" or None, default None
        ``jac(x, *args, **kwargs) -> array, shape (m, n)``, or what makes it. None is exact derivatives of a compiled
        `fun` where they exist, and otherwise differences.
    bounds : 2-tuple of array_like or scipy.optimize.Bounds, optional
        Lower and upper bounds: numbers, or arrays of shape (n,) or (B, n). Equal bounds fix a variable.
    method : {"rmsprop-lm", "rmsprop", "rmsprop-lbfgs"}, default "rmsprop-lm"
        As for `fit`.
    ftol, xtol, gtol : float or None
        As the options of `fit`; they do not depend on units, so `gtol` is a cosine. None turns a test off.
    x_scale : {None, "jac"}, optional
        The method finds the scale of the variables by itself, as SciPy's do with "jac".
    loss : {"linear", "soft_l1", "huber", "cauchy", "arctan"}, default "linear"
        The cost is ``0.5*sum(f_scale**2*rho((fun/f_scale)**2))``, with rho as in SciPy.
    f_scale : float, default 1.0
        The residual from which on robust losses take it for an outlier.
    diff_step, tr_solver, tr_options, jac_sparsity
        What SciPy's function takes beside these. Anything but its default is an error.
    max_nfev : int, optional
        Limit of evaluations, each with its derivatives; by default 200*(n + 1).
    verbose : int, default 0
        Must be 0.
    args : tuple, optional
        Further arguments of `fun` and `jac`.
    kwargs : dict, optional
        Further arguments by name. Compiled functions take none.
    callback : None
        As `diff_step`.
    workers : int or map-like callable, default 1
        For many problems, as for `minimize_batch`.
    batch_args : tuple of ndarray, optional
        Arrays whose first axis has length B; problem b is given row b of each, after `args`.
    options : dict, optional
        Further options of the method.

    Returns
    -------
    result : scipy.optimize.OptimizeResult
        ``x``, ``cost``, ``fun`` (the residuals at x), ``jac``, ``grad``, ``optimality``, ``active_mask``, ``nfev``,
        ``njev``, ``nit``, ``status`` (-1 to 3, as in SciPy), ``message``, ``success`` and ``jacobian``, where
        derivatives came from. With many problems there is a row for each, and neither ``fun`` nor ``jac``, but
        ``exceptions``, as for `minimize_batch`; ``result[i]`` is the result of problem i, and ``result.to_frame()`` a
        table.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described; nothing has been computed then.
    Exception
        What `fun` or `jac` raised.

    Notes
    -----
    ``jac`` and ``grad`` are those of the residuals themselves where the loss is linear; otherwise rows of ``jac`` are
    weighted, as in SciPy.

    Examples
    --------
    >>> import numpy as np
    >>> from numba import njit
    >>> from rmsprop_nb import least_squares
    >>> @njit
    ... def rosenbrock(x):
    ...     return np.array([10.0 * (x[1] - x[0] ** 2), 1.0 - x[0]])
    >>> result = least_squares(rosenbrock, [-1.2, 1.0])
    >>> result.success, result.x.round(6).tolist()
    (True, [1.0, 1.0])
    """
    check_callable("fun", fun)
    _check_names(x_scale, loss)
    _check_scipy_only(
        diff_step=diff_step, tr_solver=tr_solver, tr_options=tr_options, jac_sparsity=jac_sparsity, verbose=verbose,
        callback=callback,
    )  # fmt: skip
    method = fit_method(method)
    rows = as_rows(batch_args)
    refuse_mask("x0", x0, "pass x0.filled(...)")
    start = np.atleast_1d(as_array("x0", x0))
    many = start.ndim == 2 or bool(rows)
    starts = as_starts(start if many else start[np.newaxis], rows, None, "x0").astype(np.float64)
    check_rows(rows, len(starts))
    n = starts.shape[1]
    starts, boxes = as_guesses(starts if many else starts[0], bounds, (len(starts),) if many else (), n)
    tests = {"ftol": 0.0 if ftol is None else ftol, "xtol": 0.0 if xtol is None else xtol, "gtol": gtol}
    tests["maxfev"] = None if max_nfev is None else as_count("max_nfev", max_nfev, 0, least=1)
    parsed = fit_options(method, tests | as_options(options), n)
    scale = as_number("f_scale", f_scale, 0.0, np.inf, open_low=True, open_high=True)
    terms = Terms(loss, isinstance(parsed, LevenbergMarquardtOptions))
    jac = check_jacobian(jac)
    kwargs = as_options(kwargs, "kwargs")
    if kwargs:
        fun = functools.partial(fun, **kwargs)
        jac = functools.partial(jac, **kwargs) if callable(jac) else jac
    objective = _objective(fun, jac, starts, boxes, (as_args(args), rows), terms, scale)
    job = Job(objective.problem, starts, objective.rows, parsed, boxes if boxes.lower.ndim > 1 else None)
    found = run_batch(job, workers if callable(workers) else as_workers(workers), Company())
    result = _result(found, boxes, objective.source)
    if many:
        return result
    if found.exceptions:
        raise found.exceptions[0]
    alone = result[0]
    alone["fun"], alone["jac"] = objective.residuals(0, alone.x), objective.weighted_jacobian(0, alone.x)
    return alone


class LeastSquaresResult(ProblemRows):
    """An OptimizeResult whose fields have a row for each problem; see `least_squares`.

    ``result[i]`` is the result of problem i.
    """

    _value: ClassVar[tuple[str, str]] = ("cost", "cost")
    _of_each: ClassVar[tuple[str, ...]] = (
        *("cost", "x", "grad", "optimality", "active_mask", "nfev", "njev", "nit", "status", "message", "success"),
    )

    def _picked(self, key: Any) -> Any:
        fields = self._fields_at(key) | {"jacobian": self.jacobian}
        return LeastSquaresResult(fields) if np.ndim(fields["cost"]) else Result(fields)

    def _columns(self) -> list[tuple[str, Any]]:
        others = [(name, self[name]) for name in ("cost", "optimality", "success", "status", "nit", "nfev", "njev")]
        return elements("x", self.x) + others


def _check_names(x_scale: Any, loss: Any) -> None:
    if not (x_scale is None or (isinstance(x_scale, str) and x_scale == "jac")):
        msg = f"x_scale must be None or 'jac', got {x_scale!r}; the method finds the scale of the variables by itself."
        raise ValueError(msg)
    known = [name for name in LOSSES if name != "poisson"]
    if not isinstance(loss, str) or loss not in known:
        msg = f"loss must be one of {', '.join(map(repr, known))}, got {loss!r}."
        raise ValueError(msg)


def _check_scipy_only(**given: Any) -> None:
    for name, value in given.items():
        if value is not None and not (name == "verbose" and isinstance(value, int) and value == 0):
            msg = f"{name} has no meaning for these methods, got {value!r}; leave it out."
            raise ValueError(msg)


def _objective(
    fun: Any,
    jac: Any,
    starts: NDArray[np.float64],
    boxes: Boxes,
    data: tuple[tuple[Any, ...], tuple[NDArray[Any], ...]],
    terms: Terms,
    scale: float,
) -> FitObjective:
    """Return the objective of each problem; its residuals are compared with nothing, and have no errors."""
    none, own = np.empty(0), boxes.lower.ndim > 1
    parts = {"y": (none, False), "sigma": (none, False), "scale": (scale, False)}
    arranged = arrange(parts | {"lower": (boxes.lower, own), "upper": (boxes.upper, own)}, *data)
    return FitObjective(choose(fun, jac, starts.shape[1], arranged, terms), arranged, boxes, terms)


def _result(found: BatchResult, boxes: Boxes, jacobian: str) -> LeastSquaresResult:
    """Make the result of many problems, with SciPy's fields and codes."""
    x, n = found.x, found.x.shape[1]
    grad = np.ascontiguousarray(found.jac[:, :n])
    at_lower, at_upper = (x == bound if bound.size else np.zeros(x.shape, bool) for bound in boxes)
    held = (at_lower & (grad > 0.0)) | (at_upper & (grad < 0.0))
    status = np.array([_STATUSES.get(Status(code), _FAILED) for code in found.status])
    return LeastSquaresResult(
        x=x,
        cost=found.fun,
        grad=grad,
        optimality=np.max(np.abs(np.where(held, 0.0, grad)), axis=1),
        active_mask=np.where(at_lower, -1, np.where(at_upper, 1, 0)),
        nfev=found.nfev,
        njev=found.njev,
        nit=found.nit,
        status=status,
        message=found.message,
        success=found.success,
        jacobian=jacobian,
        exceptions=found.exceptions,
    )
