"""The front end: SciPy's contract on the outside, the loop on the inside. The one file that knows scipy.optimize."""

from __future__ import annotations

import dataclasses
import inspect
import sys
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import OptimizeResult, OptimizeWarning

from rmsprop_nb._loop import TRACE_COLUMNS
from rmsprop_nb._objective import Problem
from rmsprop_nb._options import RmspropOptions
from rmsprop_nb._solve import run, starting_state
from rmsprop_nb._types import MESSAGES, RunState, Status
from rmsprop_nb._validate import as_args, as_bounds, as_start, check_jac, check_known

__all__ = ["METHODS", "minimize", "rmsprop"]

_FORMS = ("2-point", "3-point", "cs", "inplace")


class Method(NamedTuple):
    """A method of `minimize`: its options and the function that runs it."""

    options: type
    solve: Callable[..., OptimizeResult]


def minimize(
    fun: Callable[..., Any],
    x0: ArrayLike,
    args: tuple[Any, ...] = (),
    method: str = "rmsprop",
    jac: Callable[..., Any] | str | bool | None = None,
    bounds: Any = None,
    tol: float | None = None,
    callback: Callable[..., Any] | None = None,
    options: dict[str, Any] | None = None,
) -> OptimizeResult:
    """Minimize a function of one or more variables with RMSprop.

    The contract is that of `scipy.optimize.minimize`. When `fun` (and `jac`, if it is a function) are compiled with
    ``numba.njit``, the whole loop runs compiled; ordinary Python functions give the same numbers, slower.

    Parameters
    ----------
    fun : callable
        The objective, in one of the forms that `jac` selects. x has shape (n,) and the dtype of `x0`.
    x0 : array_like, shape (n,)
        Where to start. float32 is kept and all vectors stay float32; other real dtypes become float64. It is copied.
    args : tuple, optional
        Further arguments of `fun` and `jac`. Arrays are passed by reference to compiled functions.
    method : {"rmsprop"}, default "rmsprop"
        See `rmsprop` for its options.
    jac : callable, True, "2-point", "3-point", "cs", "inplace" or None, default None
        Where the gradient comes from:

        * callable: ``jac(x, *args) -> array, shape (n,)`` and ``fun(x, *args) -> float``
        * True: ``fun(x, *args) -> (f, gradient)``
        * "inplace": ``fun(x, grad, *args) -> float`` fills `grad`, without allocation
        * "2-point" (or None), "3-point", "cs": differences or complex steps of ``fun(x, *args) -> float``
    bounds : sequence of (min, max) or scipy.optimize.Bounds, optional
        Bounds of each variable; None or infinity for no bound. Every evaluated point is within them.
    tol : float, optional
        The same as the option ``gtol``.
    callback : callable, optional
        Called after each iteration, ``callback(xk)`` or, if its only parameter is named so,
        ``callback(intermediate_result)`` with an `OptimizeResult` that holds ``x`` and ``fun``. It receives copies, and
        ends the run by raising StopIteration.
    options : dict, optional
        Options of the method.

    Returns
    -------
    result : scipy.optimize.OptimizeResult
        With ``x``, ``fun``, ``jac``, ``nit``, ``nfev``, ``njev``, ``status`` (a `Status`), ``success``, ``message`` and
        ``state``, with which ``options={"state": result.state}`` goes on where this run ended. If a test on the
        gradient was met, x is the point that met it; otherwise it is the point of the lowest f evaluated.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described; nothing has been computed then.

    Notes
    -----
    Exceptions of `fun`, `jac` and `callback` are passed on. Ctrl-C ends the run with status 98 and the best point so
    far.

    Examples
    --------
    >>> from numba import njit
    >>> from rmsprop_nb import minimize
    >>> @njit
    ... def rosen(x):
    ...     return 100.0 * (x[1] - x[0] ** 2) ** 2 + (1.0 - x[0]) ** 2
    >>> @njit
    ... def rosen_grad(x):
    ...     d = x[1] - x[0] ** 2
    ...     return np.array([-400.0 * x[0] * d - 2.0 * (1.0 - x[0]), 200.0 * d])
    >>> result = minimize(rosen, [-1.2, 1.0], jac=rosen_grad)
    >>> result.success, result.x.round(4)
    (True, array([1., 1.]))
    """
    if method not in METHODS:
        msg = f"method must be one of {', '.join(map(repr, METHODS))}, got {method!r}."
        raise ValueError(msg)
    options = dict(options or {})
    chosen = METHODS[method]
    check_known(options, _known(chosen.options), method)
    if tol is not None:
        options.setdefault("gtol", tol)
    return chosen.solve(fun, x0, args, jac, bounds, callback, chosen.options(**options))


def rmsprop(
    fun: Callable[..., Any],
    x0: ArrayLike,
    args: tuple[Any, ...] = (),
    jac: Callable[..., Any] | str | bool | None = None,
    hess: Any = None,
    hessp: Any = None,
    bounds: Any = None,
    constraints: Any = (),
    callback: Callable[..., Any] | None = None,
    tol: float | None = None,
    **options: Any,
) -> OptimizeResult:
    """Minimize with RMSprop through SciPy: ``scipy.optimize.minimize(..., method=rmsprop_nb.rmsprop)``.

    The same function serves ``minimizer_kwargs={"method": rmsprop_nb.rmsprop}`` of `scipy.optimize.basinhopping` and
    `scipy.optimize.dual_annealing`. Its keyword arguments are the options of method "rmsprop" of
    `rmsprop_nb.minimize`.

    Parameters
    ----------
    fun, x0, args
        As for `minimize`.
    jac
        As for `minimize`. SciPy passes None here when its caller asked for "2-point", "3-point" or "cs": the gradient
        is then taken by two-point differences.
    hess, hessp : None
        RMSprop uses no second derivatives; anything else is an error.
    bounds
        As for `minimize`.
    constraints : sequence
        Must be empty.
    callback, tol
        As for `minimize`.
    **options
        The options listed below. An unknown one gives an OptimizeWarning and is ignored, as in SciPy.

    Returns
    -------
    result : scipy.optimize.OptimizeResult
        As for `minimize`.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described; nothing has been computed then.
    KeyboardInterrupt
        On Ctrl-C, as SciPy's own methods do.

    Other Parameters
    ----------------
    learning_rate : "auto", float or callable, default "auto"
        "auto": RMSprop with momentum whose learning rate and momentum choose themselves (see Notes). A positive number,
        or a schedule ``step -> rate`` with step counted from 0: the textbook rule and nothing else.
    beta : float, default 0.9
        Decay of the average of squared gradients, in [0, 1). Called alpha in PyTorch, rho in Keras, decay in optax, and
        beta_2 where it stands beside momentum.
    eps : float, default 1e-8
        Keeps the division safe. Added to sqrt(S); with learning_rate="auto" relative to the largest sqrt(S).
    momentum : float, optional
        Heavy-ball momentum in [0, 1) of the textbook rule; none by default.
    nesterov : bool, default False
        Look-ahead form of the momentum.
    centered : bool, default False
        Divide by the root of the estimated variance of the gradient instead of its mean square.
    eps_inside_sqrt : bool, default False
        Divide by sqrt(S + eps), as Keras, optax and TensorFlow do.
    bias_correction : bool, default False
        Divide the averages by 1 - beta**step.
    initial_accumulator : float, default 0.0
        S at the start, at least 0. TensorFlow 1 starts from 1.
    weight_decay : float, default 0.0
        Add weight_decay*x to the gradient. The objective reported, and the tests on it, do not include it.
    decoupled_weight_decay : bool, default False
        Subtract learning_rate*weight_decay*x from x instead, as Keras does.
    lr_in_momentum : bool, default False
        Multiply by the learning rate before the momentum instead of after it, as Keras and optax do; that matters only
        when the learning rate changes.
    gtol : float, default 1e-5
        Stop with success when the largest absolute component of the (projected) gradient is at most this.
    ftol : float, default 0.0
        Stop with success when |f - f_previous| <= ftol*max(|f|, |f_previous|, 1); 0 is off.
    xtol : float, default 0.0
        Stop with success when max|x - x_previous| <= xtol*max(1, max|x|); 0 is off.
    f_target : float, optional
        Stop with success when f is at most this.
    maxiter : int, default 15000
        Limit of iterations. Infinity is allowed.
    maxfev : int, optional
        Limit of evaluations of the objective with its gradient; those that difference gradients make within one
        evaluation are not limited by it.
    maxtime : float, optional
        Limit of the run time in seconds.
    patience : int, optional
        Stop, without success, after this many iterations without a new lowest f.
    finite_diff_rel_step : float, optional
        Step of difference gradients relative to \\|x\\|. By default the square root (2-point) or cube root (3-point) of
        the dtype's precision, relative to max(1, \\|x\\|).
    parallel : bool, default False
        Let all Numba threads share each update of 100,000 parameters or more. The result is the same.
    history : bool or int, default False
        Record every iteration, or every history-th, in ``result.history``: a dict of arrays nit, nfev, fun, gnorm and
        learning_rate.
    return_all : bool, default False
        Return the iterates, x0 first, as the list ``result.allvecs``.
    disp : bool, default False
        Print a summary at the end.
    state : RunState, optional
        ``result.state`` of an earlier run with the same options and bounds, which then goes on as if it had not
        stopped: x0 gives only shape and dtype. Limits count from here.

    Notes
    -----
    The textbook rule, element by element [1]_::

        S <- beta*S + (1 - beta)*g*g            x <- x - learning_rate*g/(sqrt(S) + eps)

    With learning_rate="auto"::

        S <- beta*S + (1 - beta)*g*g            M = sqrt(S) + eps*max(sqrt(S))
        v <- mu*v - g/M                         x <- x + a*v

    where a comes from a line search for the Wolfe conditions [2]_ and mu is the momentum of Dai and Kou's conjugate
    gradient method [3]_ in the metric M. With bounds the search follows the projection of the line onto the box [4]_.

    References
    ----------
    .. [1] G. Hinton, N. Srivastava, K. Swersky, "Neural Networks for Machine Learning", Coursera 2012, lecture 6e.
    .. [2] W. W. Hager, H. Zhang, SIAM J. Optim. 16 (2005), 170-192, section 4.
    .. [3] Y.-H. Dai, C.-X. Kou, SIAM J. Optim. 23 (2013), 296-320.
    .. [4] M. W. Ferry, P. E. Gill, E. Wong, M. Zhang, Optim. Methods Softw. 39 (2024), 1-30.

    Examples
    --------
    >>> import scipy.optimize
    >>> from rmsprop_nb import rmsprop
    >>> result = scipy.optimize.minimize(
    ...     scipy.optimize.rosen, [1.3, 0.7], jac=scipy.optimize.rosen_der, method=rmsprop, options={"gtol": 1e-6}
    ... )
    >>> result.success, result.x.round(4)
    (True, array([1., 1.]))
    """
    if hess is not None or hessp is not None:
        msg = "method 'rmsprop' uses no second derivatives; leave out hess and hessp."
        raise ValueError(msg)
    if not (isinstance(constraints, (list, tuple)) and len(constraints) == 0):
        msg = "method 'rmsprop' takes no constraints other than bounds; use SciPy's 'SLSQP' or 'trust-constr'."
        raise ValueError(msg)
    known = _known(RmspropOptions)
    unknown = [name for name in options if name not in known]
    if unknown:
        warnings.warn(f"Unknown solver options: {', '.join(unknown)}", OptimizeWarning, stacklevel=3)
    chosen = {name: value for name, value in options.items() if name in known}
    if tol is not None:
        chosen.setdefault("gtol", tol)
    fun, jac = _unwrap_memoized(fun, jac)
    result = _solve_rmsprop(fun, x0, args, jac, bounds, callback, RmspropOptions(**chosen))
    if result.status == Status.INTERRUPTED:
        raise KeyboardInterrupt
    return result


def _known(options: type) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(options))


def _unwrap_memoized(fun: Any, jac: Any) -> tuple[Any, Any]:
    """Undo what SciPy does to ``jac=True``, so that a compiled fun is recognised as one."""
    memoized = getattr(jac, "__self__", None)
    if memoized is not None and memoized is fun and callable(getattr(fun, "fun", None)):
        return fun.fun, True
    return fun, jac


def _solve_rmsprop(
    fun: Any, x0: Any, args: Any, jac: Any, bounds: Any, callback: Any, options: RmspropOptions
) -> OptimizeResult:
    if not callable(fun):
        msg = f"fun must be callable, got {type(fun).__name__}."
        raise TypeError(msg)
    if callback is not None and not callable(callback):
        msg = f"callback must be callable or None, got {type(callback).__name__}."
        raise TypeError(msg)
    x = as_start(x0)
    lower, upper = as_bounds(bounds, x)
    problem = Problem(fun, check_jac(jac, _FORMS), as_args(args), lower, upper, options.rel_step)
    visited = [starting_state(problem, x, options).arrays.x] if options.return_all else None
    state, trace = run(problem, x, options, _observer(callback, visited))
    result = _result(problem, state)
    if options.stride:
        result["history"] = dict(zip(TRACE_COLUMNS, trace.T, strict=True))
    if visited is not None:
        result["allvecs"] = visited
    if options.disp:
        _print_summary(result)
    return result


def _observer(callback: Any, visited: list[NDArray[Any]] | None) -> Callable[[NDArray[Any], float], None] | None:
    """What is to be done after every iteration: keep x, call the user's callback."""
    report = _callback_in_scipy_form(callback)
    if visited is None:
        return report

    def on_iteration(x: NDArray[Any], f: float) -> None:
        visited.append(x.copy())
        if report is not None:
            report(x, f)

    return on_iteration


def _callback_in_scipy_form(callback: Any) -> Callable[[NDArray[Any], float], None] | None:
    """``callback(intermediate_result)`` is recognised, as in SciPy, by the name of its only parameter."""
    if callback is None:
        return None
    if set(inspect.signature(callback).parameters) == {"intermediate_result"}:
        return lambda x, f: callback(intermediate_result=OptimizeResult(x=x, fun=f))
    return lambda x, f: callback(x)  # noqa: ARG005


def _result(problem: Problem, state: RunState) -> OptimizeResult:
    """Choose the point to return: the one that met the test on the gradient, otherwise the best."""
    p, arrays = state.progress, state.arrays
    status = Status(int(p.status))
    if status is Status.GTOL or not np.isfinite(p.f_best):
        x, f, g = arrays.x, p.f, arrays.g_eval
    else:
        x, f, g = arrays.x_best, p.f_best, arrays.g_best
    return OptimizeResult(
        x=x.copy(),
        fun=float(f),
        jac=g.copy(),
        nit=int(p.nit),
        nfev=int(p.nfev) * (1 + problem.calls_per_gradient(x.size)),
        njev=int(p.nfev),
        status=int(status),
        success=status.success,
        message=MESSAGES[status],
        state=state,
    )


def _print_summary(result: OptimizeResult) -> None:
    lines = [
        result.message,
        f"         Current function value: {result.fun:.6g}",
        f"         Gradient max-norm: {np.max(np.abs(result.jac)):.3g}",
        f"         Iterations: {result.nit}",
        f"         Function evaluations: {result.nfev}",
        f"         Gradient evaluations: {result.njev}",
    ]
    sys.stdout.write("\n".join(lines) + "\n")


METHODS: dict[str, Method] = {"rmsprop": Method(RmspropOptions, _solve_rmsprop)}
