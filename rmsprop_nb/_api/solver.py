"""Minimization inside the user's own compiled code: `make_solver`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from numba.extending import is_jitted
from numpy.typing import DTypeLike

from rmsprop_nb._api.batch import BATCH_OPTION_NAMES, batch_options
from rmsprop_nb._core.bounds import as_bounds
from rmsprop_nb._core.names_elsewhere import explain_keywords
from rmsprop_nb._core.option_docs import with_option_docs
from rmsprop_nb._core.validate import check_callable
from rmsprop_nb._drivers.inner_solve import make_solve
from rmsprop_nb._numba.autodiff.gradients import gradient_by_size
from rmsprop_nb._objectives.problem import Problem


@explain_keywords({"here it is an option: options={{{!r}: ...}}": BATCH_OPTION_NAMES})
@with_option_docs
def make_solver(
    fun: Callable[..., Any],
    *,
    method: str | None = "rmsprop",
    jac: str | None = None,
    bounds: Any = None,
    tol: float | None = None,
    options: dict[str, Any] | None = None,
    dtype: DTypeLike = np.float64,
) -> Any:
    """Return a compiled function that minimizes, to be called from your own compiled functions and parallel loops.

    Parameters
    ----------
    fun : function compiled with numba.njit
        ``fun(x, *args) -> float``; with ``jac="inplace"``, ``fun(x, grad, *args) -> float``.
    method : {"rmsprop", "rmsprop-lbfgs"}, default "rmsprop"
        As for `minimize`.
    jac : {"autodiff", "inplace"}, optional
        "autodiff", the default, gives exact derivatives of `fun`; with "inplace" it fills its gradient.
    bounds : sequence of (min, max) or scipy.optimize.Bounds, optional
        For x of this length, as for `minimize`.
    %(tol)s
    options : dict, optional
        Options of the method, as for `minimize_batch`.
    dtype : dtype, optional
        float64 (the default) or float32, the dtype of x in the run.

    Returns
    -------
    solve : compiled function
        ``solve(x0, *args) -> Solution``, for x0 of shape (n,), can be called from Python and from compiled functions,
        in threads and in ``prange``. The Solution is a named tuple of ``x``, ``fun``, ``jac`` (the gradient), ``nit``,
        ``nfev`` (evaluations), ``status`` (the code of a `Status`) and ``success``. What `fun` raises, `solve` raises.
        While it runs, Ctrl-C has to wait.

    Raises
    ------
    TypeError
        If `fun` is not compiled.
    numba.TypingError
        At the first call, if `fun` contains what cannot be differentiated; it names the construct and its line.
    ValueError
        If an argument is not one of those above. `solve` raises it if x0 is not finite, or has another length than the
        bounds.

    Examples
    --------
    >>> import numpy as np
    >>> from numba import njit
    >>> from rmsprop_nb import make_solver
    >>> @njit
    ... def distance(x, target):
    ...     return np.sum((x - target) ** 4)
    >>> solve = make_solver(distance, method="rmsprop-lbfgs")
    >>> @njit
    ... def smallest(targets):
    ...     found = np.empty(len(targets))
    ...     for i in range(len(targets)):  # or prange, with parallel=True
    ...         found[i] = solve(np.zeros(2), targets[i]).fun
    ...     return found
    >>> smallest(np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])).round(6)
    array([0., 0., 0.])
    """
    check_callable("fun", fun)
    if not is_jitted(fun):
        msg = f"make_solver needs a function compiled with numba.njit, got {fun!r}. Compile it, or use minimize."
        raise TypeError(msg)
    if jac not in (None, "autodiff", "inplace"):
        msg = f"jac must be 'autodiff' or 'inplace', got {jac!r}; minimize has differences."
        raise ValueError(msg)
    real = np.dtype(dtype)
    if real not in (np.dtype(np.float64), np.dtype(np.float32)):
        msg = f"dtype must be float64 or float32, got {real}."
        raise ValueError(msg)
    parsed = batch_options(options, method, tol)
    lower, upper = _box(bounds, real)
    example = np.zeros(max(lower.size, 1), real)
    problem = Problem(fun, "inplace", (), lower, upper)
    both = fun if jac == "inplace" else gradient_by_size(fun)
    return make_solve(both, problem, _checked_sizes(parsed, example), example)


def _box(bounds: Any, dtype: Any) -> tuple[Any, Any]:
    if bounds is None:
        return np.empty(0, dtype), np.empty(0, dtype)
    n = np.size(bounds.lb + bounds.ub) if hasattr(bounds, "lb") else len(bounds)
    return as_bounds(bounds, np.zeros(n, dtype))


def _checked_sizes(options: Any, example: Any) -> Any:
    own = getattr(options, "x_scale", "auto")
    if isinstance(own, str):
        return options
    sizes = np.asarray(own)
    wrong = sizes.dtype.kind not in "fiu" or sizes.ndim > 1 or not (np.isfinite(sizes) & (sizes > 0)).all()
    if wrong or (sizes.ndim == 1 and example.size > 1 and sizes.size not in (1, example.size)):
        msg = f"x_scale must be 'auto', a positive number, or a positive number for each variable, got {own!r}."
        raise ValueError(msg)
    return dataclasses.replace(options, x_scale=sizes)
