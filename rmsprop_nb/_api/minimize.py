"""The front end for one problem, with SciPy's contract: `minimize`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import OptimizeResult

from rmsprop_nb._api.containers import takes_containers
from rmsprop_nb._core.bounds import as_bounds
from rmsprop_nb._core.callbacks import make_observer
from rmsprop_nb._core.names_elsewhere import explain_keywords
from rmsprop_nb._core.option_docs import with_option_docs
from rmsprop_nb._core.options import Options
from rmsprop_nb._core.result import Result, print_summary
from rmsprop_nb._core.status import Status
from rmsprop_nb._core.validate import (
    as_args,
    as_data,
    as_options,
    as_start,
    check_callable,
    check_jac,
    check_known,
    check_scipy_only,
    check_switches,
)
from rmsprop_nb._drivers.loop import as_history
from rmsprop_nb._drivers.ranks import ranks_or_alone, shared_by_ranks
from rmsprop_nb._drivers.shards import RankShare
from rmsprop_nb._drivers.solve import outcome, run, starting_state
from rmsprop_nb._methods.registry import (
    ALL_OPTION_NAMES,
    MANY_ITERATIONS,
    OPTIONS,
    message_of,
    method_name,
    option_names,
)
from rmsprop_nb._methods.run_state import RunState
from rmsprop_nb._objectives.exact import with_exact_gradient
from rmsprop_nb._objectives.problem import Problem
from rmsprop_nb._training.arrays import is_on_device


@shared_by_ranks
@explain_keywords({"here it is an option: options={{{!r}: ...}}": ALL_OPTION_NAMES})
@takes_containers
@with_option_docs
def minimize(
    fun: Callable[..., Any],
    x0: ArrayLike,
    args: tuple[Any, ...] = (),
    method: str | None = "rmsprop",
    jac: Callable[..., Any] | str | bool | None = None,
    bounds: Any = None,
    tol: float | None = None,
    callback: Callable[..., Any] | None = None,
    options: dict[str, Any] | None = None,
    *,
    comm: Any = None,
    weight: float | None = None,
    data: Any = None,
    deterministic: bool = False,
    hess: Any = None,
    hessp: Any = None,
    constraints: Any = (),
) -> OptimizeResult:
    """Minimize a function of one or more variables with RMSprop.

    The contract is that of `scipy.optimize.minimize`. When `fun` (and `jac`, if it is a function) are compiled with
    ``numba.njit``, the whole loop runs compiled; ordinary Python functions give the same numbers, more slowly.

    Parameters
    ----------
    fun : callable
        The objective, in one of the forms that `jac` selects. x has shape (n,) and the dtype of `x0`.
    x0 : array_like, shape (n,), or dict, list or tuple of arrays
        The starting point. float32 is kept, and all vectors are float32 then; other real dtypes become float64. It is
        copied. If it is an array on a CUDA device (of Numba, CuPy, PyTorch or any library with
        ``__cuda_array_interface__``), all vectors are on that device, and those that `fun` is given are of that
        library; see docs/cuda.md. Containers of arrays of any shape, such as ``{"W": W, "b": b}``, may be nested;
        `fun`, `jac` and `callback` are given such containers, and the result has them; see docs/objectives.md.
    args : tuple, optional
        Further arguments of `fun` and `jac`. Compiled functions are given arrays by reference.
    method : {"rmsprop", "rmsprop-lbfgs"}, default "rmsprop"
        See `rmsprop` and `rmsprop_lbfgs` for what they do and for their options.
    jac : callable, True, "autodiff", "2-point", "3-point", "cs", "inplace" or None, default None
        Where the gradient comes from:

        * callable: ``jac(x, *args) -> array, shape (n,)`` and ``fun(x, *args) -> float``
        * True: ``fun(x, *args) -> (f, gradient)``
        * "inplace": ``fun(x, grad, *args) -> float`` fills `grad`, without allocation
        * "autodiff": exact derivatives of a compiled ``fun(x, *args) -> float``; see docs/gradients.md
        * None: "autodiff" where that is possible, or else differences
        * "2-point", "3-point", "cs": differences or complex steps of ``fun(x, *args) -> float``
    bounds : sequence of (min, max) or scipy.optimize.Bounds, optional
        Bounds of each variable; None or infinity for no bound. The objective is never evaluated outside of them.
    %(tol)s
    callback : callable, optional
        Called after each iteration, as ``callback(xk)`` or, if its only parameter has this name, as
        ``callback(intermediate_result)`` with an `OptimizeResult` that holds ``x`` and ``fun``. x is a copy. It ends
        the run by raising StopIteration. On a CUDA device it is called every `check_every` iterations, and x is there.
    options : dict, optional
        Options of the method.
    comm : communicator of mpi4py, optional
        The ranks that share the problem, such as ``MPI.COMM_WORLD``. Each rank calls `minimize` with the same
        arguments, except for its own data; the objective is the weighted mean of what `fun` returns on the ranks. See
        Notes.
    weight : float, optional
        The weight of this rank in that mean, above 0; by default the number of rows of `data`, or 1 without `data`. It
        needs `comm`.
    data : tuple of ndarray or of scipy.sparse matrices, optional
        Arrays with the same number of rows, those of this rank; ``fun(x, *data, *args)`` should be a mean over them,
        plus terms that do not depend on them. A single array need not be wrapped.
    deterministic : bool, default False
        Return the same bits for any number of ranks, including one process without `comm`. It needs `data`: the rows of
        all ranks, N together and in the order of the ranks, are divided into 48 parts, of which part i begins at row
        i*N//48, and the mean is taken over the parts. Each rank must hold whole parts, as it does if rank k of P holds
        the rows from k*N//P to (k + 1)*N//P and P divides 48. An Allreduce is 48 times as long. On a CUDA device: round
        as the CPU does, for the same bits from the same gradients.
    hess, hessp, constraints
        What SciPy's `minimize` takes beside these: None, None and an empty sequence. Anything else is an error.

    Returns
    -------
    result : scipy.optimize.OptimizeResult
        With ``x``, ``fun``, ``jac``, ``nit``, ``nfev``, ``njev``, ``status`` (a `Status`), ``success``, ``message``,
        ``gradient`` (where gradients came from: "autodiff", "differences", "cs" or "given") and ``state``;
        ``options={"state": result.state}`` goes on where this run ended. If a test on the gradient was met,
        x is the point that met it; otherwise it is the point with the lowest f that was evaluated.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described; nothing has been computed then.
    RankError
        If another rank failed.

    Notes
    -----
    With `comm` there is one Allreduce per evaluation, and every rank gets the same result, bit for bit. If x0, bounds
    or options differ between ranks, all ranks raise an error before the first evaluation. An exception on one rank is
    raised there, and the other ranks raise a `RankError` that names it. Time limits, Ctrl-C and a callback that stops
    the run on one rank end it on all. Only rank 0 writes checkpoints, prints and shows progress. A compiled objective
    runs compiled, the loop around it does not. Start scripts with ``mpiexec -n 4 python -m mpi4py script.py``: under
    plain ``python``, an exception outside of `minimize` leaves the other ranks waiting.

    Exceptions of `fun`, `jac` and `callback` are passed on. Ctrl-C ends the run with status 98 and the best point so
    far; a run inside the objective of another one leaves it to that one.

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
    check_scipy_only(hess, hessp, constraints)
    check_switches(deterministic=deterministic)
    method = method_name(method)
    options = as_options(options)
    check_known(options, option_names(method), method)
    given = Arguments(fun, x0, args, jac, bounds, callback)
    if is_on_device(x0):
        return _on_device(given, OPTIONS[method], options, tol, (comm, data, weight), deterministic)
    if comm is None and not deterministic:
        if weight is not None:
            msg = f"weight={weight!r} counts this rank among others and needs comm; leave it out."
            raise ValueError(msg)
        if data is not None:
            given = given._replace(args=(*as_data("data", data), *as_args(args)))
        return solve(given, OPTIONS[method], options, tol)
    with ranks_or_alone(comm) as ranks:
        return solve(given, OPTIONS[method], options, tol, RankShare(ranks, weight, data, deterministic))


def _on_device(
    given: Arguments, options_type: type[Options], chosen: dict[str, Any], tol: Any, shared: Any, deterministic: bool
) -> OptimizeResult:
    if any(value is not None for value in shared):
        msg = "comm, data and weight are not for x0 on a device; leave them out, or copy x0 to the host."
        raise ValueError(msg)
    from rmsprop_nb._cuda.minimize import minimize_on_device

    if tol is not None:
        chosen.setdefault("gtol", tol)
    return minimize_on_device(given, options_type(**chosen), deterministic)


class Arguments(NamedTuple):
    """The arguments of `minimize` and of SciPy's door, as the user gave them."""

    fun: Any
    x0: Any
    args: Any
    jac: Any
    bounds: Any
    callback: Any


def solve(
    given: Arguments, options_type: type[Options], chosen: dict[str, Any], tol: Any, share: RankShare | None = None
) -> OptimizeResult:
    """Check everything, run, and make the result."""
    if tol is not None:
        chosen.setdefault("gtol", tol)
    options = options_type(**chosen)
    options.refuse(
        ("check_every",), "is for x0 on a CUDA device", "leave it out: on the host every iteration is tested"
    )
    if share is not None and share.ranks.rank != 0:
        options = options.quiet()
    check_callable("fun", given.fun)
    x = as_start(given.x0)
    lower, upper = as_bounds(given.bounds, x)
    problem = Problem(given.fun, check_jac(given.jac), as_args(given.args), lower, upper, options.own_steps(x.size))
    problem = with_exact_gradient(problem, x.size, x.dtype, () if share is None else share.example())
    iterates = [starting_state(problem, x, options).arrays.x] if options.return_all else None
    observe = make_observer(given.callback, iterates)
    if share is None:
        state, trace = run(problem, x, options, observe)
    else:
        state, trace = run(problem, x, options, observe, share.agree(x, problem, options))
        state.progress.status = int(share.ranks.end(Status(int(state.progress.status))))
    result = _result(state, options)
    result["gradient"] = problem.gradient_source
    if options.stride:
        result["history"] = as_history(trace)
    if iterates is not None:
        result["allvecs"] = iterates
    if options.disp:
        print_summary(result, float(np.max(np.abs(result.jac))))
    return result


def _result(state: RunState, options: Options) -> OptimizeResult:
    nit, nfev, calls = (int(state.record[0][name]) for name in ("nit", "nfev", "calls"))
    status, (x, f, g) = outcome(state)
    return Result(
        x=x.copy(),
        fun=f,
        jac=g.copy(),
        nit=nit,
        nfev=calls,
        njev=nfev,
        status=int(status),
        success=status.success,
        message=message_of(status, options, is_long=nit > MANY_ITERATIONS),
        state=state,
    )
