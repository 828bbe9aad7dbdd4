"""Exact derivatives of compiled functions for the user's own code: `value_and_grad` and `jacobian`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba.extending import is_jitted

from rmsprop_nb._core.names_elsewhere import explain_keywords
from rmsprop_nb._core.validate import as_count, check_callable
from rmsprop_nb._numba.autodiff.gradients import (
    LARGEST_WIDTH,
    forward_gradient,
    gradient_by_size,
    reverse_gradient,
)
from rmsprop_nb._numba.autodiff.gradients import jacobian as jacobian_function


@explain_keywords()
def value_and_grad(fun: Callable[..., Any], *, mode: str | None = None, chunk: int | None = None) -> Any:
    """Return a compiled function that gives f and fills its gradient with exact derivatives.

    `fun` is not changed, and need not be written for this: it is compiled once more, for numbers that carry their
    partial derivatives. See docs/gradients.md for what it may contain.

    Parameters
    ----------
    fun : function compiled with numba.njit
        ``fun(x, *args) -> float``, for an array x with one dimension.
    mode : {"forward", "reverse"}, optional
        "forward" computes the derivatives by some of the variables at a time, in as many passes over `fun` as that
        takes, and without memory. "reverse" records what `fun` computes and goes back over it once, for 24 bytes an
        operation with two operands; past 100 MB it changes to "forward". By default it is "forward" for up to 32
        variables and "reverse" for more, and always "forward" if `chunk` is given; to name one mode saves half of the
        time to compile.
    chunk : int, default 8
        The number of variables in one pass of forward mode, from 1 to 16. Few variables are fastest with as many as
        there are, and many with 16.

    Returns
    -------
    vg : compiled function
        ``vg(x, grad, *args) -> f``, to be called from Python or from compiled functions. `grad` is filled. x and `args`
        are as for `fun`; nothing is differentiated by `args`. With float32 x, computations are in float32 as in `fun`.

    Raises
    ------
    TypeError
        If `fun` is not compiled. Also at the first call, if `fun` contains what cannot be differentiated; it names the
        construct and its line.

    Examples
    --------
    >>> import numpy as np
    >>> from numba import njit
    >>> from rmsprop_nb import value_and_grad
    >>> @njit
    ... def fun(x, a):
    ...     return np.sum(a * x**2)
    >>> vg = value_and_grad(fun)
    >>> grad = np.empty(2)
    >>> vg(np.array([1.0, 2.0]), grad, np.array([3.0, 4.0]))
    19.0
    >>> grad
    array([ 6., 16.])
    """
    width = _width("value_and_grad", fun, 8 if chunk is None else chunk)
    if mode not in (None, "forward", "reverse"):
        msg = f"mode must be 'forward' or 'reverse', got {mode!r}."
        raise ValueError(msg)
    if mode is None and chunk is None:
        return gradient_by_size(fun)
    return reverse_gradient(fun) if mode == "reverse" else forward_gradient(fun, width=width)


@explain_keywords()
def jacobian(fun: Callable[..., Any], *, chunk: int = 8) -> Any:
    """Return a compiled function that gives the exact Jacobian of a function that returns an array.

    Parameters
    ----------
    fun : function compiled with numba.njit
        ``fun(x, *args) -> array, shape (m,)``, for an array x of shape (n,).
    chunk : int, default 8
        As for `value_and_grad`.

    Returns
    -------
    jac : compiled function
        ``jac(x, *args) -> array, shape (m, n)``, to be called from Python or from compiled functions. It is what
        `scipy.optimize.least_squares` takes as `jac`.

    Raises
    ------
    TypeError
        As for `value_and_grad`.

    Examples
    --------
    >>> import numpy as np
    >>> from numba import njit
    >>> from rmsprop_nb import jacobian
    >>> @njit
    ... def residuals(p, t, y):
    ...     return p[0] * np.exp(-p[1] * t) - y
    >>> jac = jacobian(residuals)
    >>> jac(np.array([2.0, 0.0]), np.array([1.0, 3.0]), np.array([2.0, 1.0]))
    array([[ 1., -2.],
           [ 1., -6.]])
    """
    return jacobian_function(fun, _width("jacobian", fun, chunk))


def _width(name: str, fun: Any, chunk: Any) -> int:
    """Check the arguments and return the number of variables in a pass."""
    check_callable("fun", fun)
    if not is_jitted(fun):
        msg = f"{name} needs a function compiled with numba.njit, got {fun!r}. Compile it, or give the gradient."
        raise TypeError(msg)
    width = as_count("chunk", chunk, 1)
    if width > LARGEST_WIDTH:
        msg = f"chunk must be at most {LARGEST_WIDTH}, got {width}."
        raise ValueError(msg)
    return width
