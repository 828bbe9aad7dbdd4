"""The methods as functions that SciPy calls: ``scipy.optimize.minimize(..., method=rmsprop_nb.rmsprop)``."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from numpy.typing import ArrayLike
from scipy.optimize import OptimizeResult, OptimizeWarning

from rmsprop_nb._api.minimize import Arguments, solve
from rmsprop_nb._core.status import Status
from rmsprop_nb._methods.registry import OPTIONS, option_names


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
    beta : float, optional
        Decay of the average of squared gradients, in [0, 1): 0.9, or 0.99 with learning_rate="auto". Called alpha in
        PyTorch, rho in Keras, decay in optax, and beta_2 where it stands beside momentum.
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
        S at the start, at least 0. TensorFlow 1 starts from 1. Not used with `state`, which has an S.
    weight_decay : float, default 0.0
        Add weight_decay*x to the gradient. The objective reported, and the tests on it, do not include it.
    decoupled_weight_decay : bool, default False
        Subtract learning_rate*weight_decay*x from x instead, as Keras does, where there is any weight decay.
    lr_in_momentum : bool, default False
        Multiply by the learning rate before the momentum instead of after it, as Keras and optax do. That matters only
        with momentum, and where the learning rate changes.
    gtol : float, default 1e-5
        Stop with success when the largest absolute component of the (projected) gradient is at most this.
    ftol : float, default 0.0
        Stop with success when ``|f - f_previous| <= ftol*max(|f|, |f_previous|, 1)``; 0 is off.
    xtol : float, default 0.0
        Stop with success when ``max|x - x_previous| <= xtol*max(1, max|x|)``; 0 is off.
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
        the dtype's precision, relative to max(1, \\|x\\|). As in SciPy, it is ignored with any other `jac`.
    parallel : bool, default False
        Let all Numba threads share each update of 100,000 parameters or more. The result is the same.
    check_every : int, default 32
        For x0 on a CUDA device only: after how many iterations f and the gradient's max-norm are brought to the host
        and tested, and `callback` is called.
    history : bool or int, default False
        Record every iteration, or every history-th, in ``result.history``: a dict of arrays nit, nfev, fun, gnorm and
        learning_rate.
    return_all : bool, default False
        Return the iterates, x0 first, as the list ``result.allvecs``.
    disp : bool, default False
        Print a summary at the end.
    progress : bool, default False
        Show a progress bar; needs tqdm (``pip install 'rmsprop_nb[progress]'``).
    checkpoint : str or path-like, optional
        File in which the state is kept: at the start, every `checkpoint_every` seconds and at the end. If the process
        dies, ``options={"state": rmsprop_nb.load(path)}`` goes on from there, bit for bit. A path that cannot be
        written is an error at the start, and a warning later on.
    checkpoint_every : float, default 60
        Seconds between two checkpoints.
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

    For smooth objectives without noise. It needs fewer evaluations than `rmsprop` and 2*memory more vectors.

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
        On Ctrl-C, as SciPy's own methods do.

    Other Parameters
    ----------------
    memory : int, default 10
        Number of steps remembered.
    beta : float, default 0.99
        Decay of the average of squared gradients, in [0, 1).
    eps : float, default 1e-3
        Added to sqrt(S), relative to the largest sqrt(S).
    gtol, ftol, xtol, f_target, maxiter, maxfev, maxtime, patience, finite_diff_rel_step, history, return_all, disp, \
progress, checkpoint, checkpoint_every, state
        As for `rmsprop`.

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
    if hess is not None or hessp is not None:
        msg = f"method {method!r} uses no second derivatives; leave out hess and hessp."
        raise ValueError(msg)
    if not (isinstance(constraints, (list, tuple)) and len(constraints) == 0):
        msg = f"method {method!r} takes no constraints other than bounds; use SciPy's 'SLSQP' or 'trust-constr'."
        raise ValueError(msg)
    known = option_names(method)
    unknown = [name for name in options if name not in known]
    if unknown:
        warnings.warn(f"Unknown solver options: {', '.join(unknown)}", OptimizeWarning, stacklevel=4)
    chosen = {name: value for name, value in options.items() if name in known}
    fun, jac = _unwrap_memoized(arguments.fun, arguments.jac)
    result = solve(arguments._replace(fun=fun, jac=jac), OPTIONS[method], chosen, tol)
    if result.status == Status.INTERRUPTED:
        raise KeyboardInterrupt
    return result


def _unwrap_memoized(fun: Any, jac: Any) -> tuple[Any, Any]:
    """Undo what SciPy does for ``jac=True``, so that a compiled fun is recognised as such."""
    memoized = getattr(jac, "__self__", None)
    if memoized is not None and memoized is fun and callable(getattr(fun, "fun", None)):
        return fun.fun, True
    return fun, jac
