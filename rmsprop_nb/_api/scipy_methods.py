"""The methods as functions that SciPy calls: ``scipy.optimize.minimize(..., method=rmsprop_nb.rmsprop)``."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from numpy.typing import ArrayLike
from scipy.optimize import OptimizeResult, OptimizeWarning

from rmsprop_nb._api.minimize import Arguments, solve
from rmsprop_nb._core.names_elsewhere import advice
from rmsprop_nb._core.option_docs import with_option_docs
from rmsprop_nb._core.status import Status
from rmsprop_nb._core.validate import check_scipy_only
from rmsprop_nb._methods.registry import OPTIONS, option_names


@with_option_docs
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

    The same function serves as ``minimizer_kwargs={"method": rmsprop_nb.rmsprop}`` of `scipy.optimize.basinhopping`
    and `scipy.optimize.dual_annealing`. Its keyword arguments are the options of method "rmsprop" of
    `rmsprop_nb.minimize`.

    Parameters
    ----------
    fun, x0, args
        As for `minimize`.
    jac
        As for `minimize`. SciPy passes None to this function when its caller asked for "2-point", "3-point" or "cs";
        the gradient is taken by two-point differences then.
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
        On Ctrl-C, as with SciPy's own methods.

    Other Parameters
    ----------------
    learning_rate : "auto", float or callable, default "auto"
        A positive number, or a schedule ``step -> rate`` with step counted from 0, is the textbook rule. "auto" is
        RMSprop with momentum whose learning rate and momentum are chosen automatically (see Notes). There beta is 0.99
        by default, eps is relative to the largest sqrt(S), and the options from `momentum` to `parallel` are errors.
    %(rule)s
    %(parallel)s
    check_every : int, optional
        For x0 on a CUDA device, and an error elsewhere: f and the gradient's max-norm are brought to the host and
        tested after this many iterations, 32 by default.
    %(stopping_and_recording)s

    Notes
    -----
    The textbook rule, element by element [1]_::

        S <- beta*S + (1 - beta)*g*g            x <- x - learning_rate*g/(sqrt(S) + eps)

    With learning_rate="auto"::

        S <- beta*S + (1 - beta)*g*g            M = sqrt(S) + eps*max(sqrt(S))
        v <- mu*v - g/M                         x <- x + a*v

    where a comes from a line search for the Wolfe conditions [2]_, and mu is the momentum of Dai and Kou's conjugate
    gradient method [3]_ in the metric M, or 0 where successive gradients are far from orthogonal [5]_. With bounds the
    search follows the projection of the line onto the box [4]_.

    References
    ----------
    .. [1] G. Hinton, N. Srivastava, K. Swersky, "Neural Networks for Machine Learning", Coursera 2012, lecture 6e.
    .. [2] W. W. Hager, H. Zhang, SIAM J. Optim. 16 (2005), 170-192, section 4.
    .. [3] Y.-H. Dai, C.-X. Kou, SIAM J. Optim. 23 (2013), 296-320.
    .. [4] M. W. Ferry, P. E. Gill, E. Wong, M. Zhang, Optim. Methods Softw. 39 (2024), 1-30.
    .. [5] M. J. D. Powell, Math. Program. 12 (1977), 241-254.

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
    arguments = Arguments(fun, x0, args, jac, bounds, callback)
    return _enter_from_scipy("rmsprop", arguments, hess, hessp, constraints, tol, options)


@with_option_docs
def rmsprop_lbfgs(
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
    """Minimize with L-BFGS on RMSprop's diagonal, through SciPy: ``method=rmsprop_nb.rmsprop_lbfgs``.

    For smooth objectives without noise. It needs fewer evaluations than `rmsprop`, and 2*memory more vectors.

    Parameters
    ----------
    fun, x0, args, jac, hess, hessp, bounds, constraints, callback, tol
        As for `rmsprop`.
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
        On Ctrl-C, as with SciPy's own methods.

    Other Parameters
    ----------------
    memory : int, default 10
        Number of steps that are remembered.
    beta : float, default 0.99
        Decay of the average of squared gradients, in [0, 1).
    eps : float, default 1e-3
        Added to sqrt(S), relative to the largest sqrt(S).
    %(stopping_and_recording)s

    Notes
    -----
    The two-loop recursion of L-BFGS [1]_ with the initial inverse Hessian ``gamma/M``, where M is the diagonal that
    RMSprop divides by::

        S <- beta*S + (1 - beta)*g*g            M = sqrt(S) + eps*max(sqrt(S))

    and gamma is such that the newest gradient change is mapped to a step of the right length. The line search is that
    of `rmsprop`, with a weaker condition on the slope. L-BFGS does most of the work here, hence the name.

    References
    ----------
    .. [1] J. Nocedal, S. Wright, "Numerical Optimization", 2nd ed., Springer 2006, algorithm 7.4.

    Examples
    --------
    >>> from rmsprop_nb import minimize
    >>> from scipy.optimize import rosen, rosen_der
    >>> result = minimize(rosen, [1.3, 0.7, 0.8], jac=rosen_der, method="rmsprop-lbfgs")
    >>> result.success, result.x.round(4)
    (True, array([1., 1., 1.]))
    """
    arguments = Arguments(fun, x0, args, jac, bounds, callback)
    return _enter_from_scipy("rmsprop-lbfgs", arguments, hess, hessp, constraints, tol, options)


def _enter_from_scipy(
    method: str, arguments: Arguments, hess: Any, hessp: Any, constraints: Any, tol: Any, options: dict[str, Any]
) -> OptimizeResult:
    check_scipy_only(hess, hessp, constraints)
    known = option_names(method)
    unknown = [name for name in options if name not in known]
    if unknown:
        explained = [f"{name}{_in_brackets(advice(name, known))}" for name in unknown]
        warnings.warn(f"Unknown solver options: {', '.join(explained)}", OptimizeWarning, stacklevel=4)
    chosen = {name: value for name, value in options.items() if name in known}
    fun, jac = _unwrap_memoized(arguments.fun, arguments.jac)
    result = solve(arguments._replace(fun=fun, jac=jac), OPTIONS[method], chosen, tol)
    if result.status == Status.INTERRUPTED:
        raise KeyboardInterrupt
    return result


def _in_brackets(text: str) -> str:
    return text and f" ({text})"


def _unwrap_memoized(fun: Any, jac: Any) -> tuple[Any, Any]:
    """Undo what SciPy does for ``jac=True``, so that a compiled fun is recognised as such."""
    memoized = getattr(jac, "__self__", None)
    if memoized is not None and memoized is fun and callable(getattr(fun, "fun", None)):
        return fun.fun, True
    return fun, jac
