"""A whole run as one compiled function, to be called from the user's own compiled code."""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import numpy as np
from numba import typeof
from numpy.typing import NDArray

from rmsprop_nb._core.options import Options
from rmsprop_nb._core.records import PROGRESS_DTYPE, ROOM, Arrays
from rmsprop_nb._core.status import Status
from rmsprop_nb._core.validate import MANY
from rmsprop_nb._drivers.solve import algorithm_of, batch_settings
from rmsprop_nb._methods.method import Algorithm
from rmsprop_nb._methods.points import start_run, store_point
from rmsprop_nb._methods.registry import method_of
from rmsprop_nb._numba.calls import try_objective
from rmsprop_nb._numba.decorators import inline_jit, kernel_jit, shared_jit, user_jit
from rmsprop_nb._numba.stacked_args import objective_and_data
from rmsprop_nb._objectives.problem import Problem

_RUNNING = int(Status.RUNNING)
_SUCCESSES = tuple(int(status) for status in Status if status.success)


class Solution(NamedTuple):
    """What a run in compiled code returns.

    Attributes
    ----------
    x : ndarray, shape (n,)
        The solution.
    fun : float
        The value there.
    jac : ndarray, shape (n,)
        The gradient there.
    nit, nfev : int
        Iterations, and evaluations of f and its gradient.
    status : int
        The code of a `Status`.
    success : bool
        Whether the status is a success.
    """

    x: NDArray[Any]
    fun: float
    jac: NDArray[Any]
    nit: int
    nfev: int
    status: int
    success: bool


def make_solve(both: Any, problem: Problem, options: Options, x: NDArray[Any]) -> Any:
    """Compile ``solve(x0, *args) -> Solution``.

    Parameters
    ----------
    both : compiled function
        ``both(x, grad, *args) -> f``
    problem : Problem
        The bounds.
    options : Options
        Those of the run, checked.
    x : ndarray
        An example of x0, which tells the dtype.
    """
    settings, new_vectors = batch_settings(options, x, problem.sampling), _vectors_of(options, x.dtype)
    run, objective_of = _make_run(algorithm_of(options, parallel=False)), objective_and_data(both, typeof(x))
    lower, upper, sizes = problem.lower, problem.upper, _own_sizes(options, x.dtype)
    f_eps, f_noise, first_square_avg = float(np.finfo(x.dtype).eps), options.noise, options.first_square_avg
    successes, not_finite = _SUCCESSES, "x0 must be finite."
    wrong_size = "x0 must have as many elements as bounds and x_scale."

    def solve(x0, *args):
        n = x0.size
        if (lower.size > 0 and lower.size != n) or (sizes.size > 1 and sizes.size != n):
            raise ValueError(wrong_size)
        for i in range(n):
            if not math.isfinite(x0[i]):
                raise ValueError(not_finite)
        arrays, record = new_vectors(n, lower, upper), np.zeros(1, PROGRESS_DTYPE)
        start_run(arrays, x0, first_square_avg)
        _set_sizes(arrays, sizes)
        p = record[0]
        p.status = _RUNNING
        p.f, p.f_best, p.f_eps, p.f_noise = math.nan, math.inf, f_eps, f_noise
        address, data = objective_of(args)
        if run(arrays, record, settings, address, data):
            both(arrays.x_eval, arrays.g_eval, *args)  # raises again, what was lost on the way
        x, g = np.empty_like(arrays.x), np.empty_like(arrays.x)
        f = store_point(p, arrays, x, g)
        success = False
        for status in successes:
            success = success or p.status == status
        return Solution(x, f, g, p.nit, p.nfev, p.status, success)

    return shared_jit(solve)


@functools.cache
def _make_run(algorithm: Algorithm) -> Any:
    """Compile ``run(arrays, record, settings, address, data) -> raised``: from a new record to its end."""
    ask, tell = algorithm.ask, algorithm.tell

    @kernel_jit("inner solve", *algorithm.name)
    def run(arrays, record, settings, address, data):
        p = record[0]
        while p.status == _RUNNING:
            ask(arrays, record, settings)
            raised, f = try_objective(address, arrays.x_eval, arrays.g_eval, data)
            if raised:
                return True
            tell(arrays, record, f, settings)
        return False

    return run


def _own_sizes(options: Any, dtype: Any) -> NDArray[Any]:
    """Return the user's sizes of the variables, one or many; none where they follow from x0, or have no meaning."""
    own = getattr(options, "x_scale", "auto")
    return np.empty(0, dtype) if isinstance(own, str) else np.atleast_1d(np.asarray(own)).astype(dtype)


def _vectors_of(options: Options, dtype: Any) -> Any:
    """Return a function for compiled code that makes the vectors of a run, apart from each other as elsewhere."""
    layout = method_of(options).layout(*options.kind[1:])
    grad_avg, momentum_buffer, direction, metric, x_scale = (
        name in (*layout.vectors, *layout.given)
        for name in ("grad_avg", "momentum_buffer", "direction", "metric", "x_scale")
    )
    memory, room = layout.memory, ROOM // np.dtype(dtype).itemsize

    @user_jit
    def vector(n):
        return np.zeros(n + room, dtype)[:n]

    @user_jit
    def new_vectors(n, lower, upper):
        return Arrays(
            vector(n), vector(n), vector(n), vector(n), vector(n), vector(n), vector(n),
            vector(n * grad_avg), vector(n * momentum_buffer), vector(n * direction), vector(n * metric),
            vector(n * x_scale), lower.copy(), upper.copy(),
            np.zeros((memory, n), dtype), np.zeros((memory, n), dtype), np.zeros((memory, 2)),
        )  # fmt: skip

    return new_vectors


@inline_jit
def _set_sizes(arrays, sizes):
    """Set the typical sizes of the variables to the given ones, or to those that `typical_sizes` says."""
    x, x_scale, lower, upper = arrays.x, arrays.x_scale, arrays.lower, arrays.upper
    logs, known = 0.0, 0
    for i in range(x_scale.size):
        if sizes.size:
            x_scale[i] = sizes[i % sizes.size]
            continue
        size = abs(x[i])
        if size == 0 and lower.size:
            size = _room(lower[i], upper[i])
        if size > 0:
            logs += math.log(size)
            known += 1
        x_scale[i] = size if size > 0 else 1
    if x_scale.size >= MANY and not sizes.size:
        x_scale[:] = math.exp(logs / max(known, 1))


@inline_jit
def _room(lower, upper):
    """Return the width of a box, or the size of its finite end; 0 without one."""
    if math.isfinite(upper - lower):
        return upper - lower
    return abs(lower) if math.isfinite(lower) else abs(upper) if math.isfinite(upper) else 0 * lower
