"""The front end for global minima, by minimizing from many starts: `multistart`."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sized
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import OptimizeResult
from scipy.stats import qmc

from rmsprop_nb._api.batch import BATCH_OPTION_NAMES, minimize_batch
from rmsprop_nb._core.bounds import as_bounds
from rmsprop_nb._core.names_elsewhere import explain_keywords
from rmsprop_nb._core.option_docs import with_option_docs
from rmsprop_nb._core.status import MESSAGES, Status
from rmsprop_nb._core.validate import as_count, as_generator, as_number
from rmsprop_nb._drivers.batch_processes import Engine
from rmsprop_nb._drivers.batch_result import MultistartResult

MOST_STARTS = 2**30
"""The number of points of a Sobol sequence of SciPy."""


@explain_keywords({"here it is an option: options={{{!r}: ...}}": BATCH_OPTION_NAMES})
@with_option_docs
def multistart(
    fun: Callable[..., Any],
    bounds: Any,
    n_starts: int,
    args: tuple[Any, ...] = (),
    *,
    method: str | None = "rmsprop",
    jac: Callable[..., Any] | str | bool | None = None,
    tol: float | None = None,
    options: dict[str, Any] | None = None,
    workers: int | Engine = 1,
    rng: Any = None,
    distance: float = 1e-4,
) -> MultistartResult:
    """Search for a global minimum by minimizing from many starting points in a box.

    Parameters
    ----------
    fun : callable
        The objective, as for `minimize`.
    bounds : sequence of (min, max) or scipy.optimize.Bounds
        The box, finite on all sides. Starting points are drawn from it, and minima are sought within it.
    n_starts : int
        Number of starting points; a power of two spreads them best.
    args : tuple, optional
        Further arguments of `fun` and `jac`.
    method : {"rmsprop", "rmsprop-lbfgs"}, default "rmsprop"
        As for `minimize`.
    jac : callable, True, "autodiff", "2-point", "3-point", "cs", "inplace" or None, default None
        As for `minimize`.
    %(tol)s
    options : dict, optional
        As for `minimize_batch`.
    workers : int or map-like callable, default 1
        As for `minimize_batch`.
    rng : int, numpy.random.Generator or None, default None
        The source of the starting points; the same state of a generator gives the same result.
    distance : float, default 1e-4
        Minima that are closer than this, relative to the sides of the box, count as one.

    Returns
    -------
    result : MultistartResult
        An OptimizeResult with ``x``, ``fun``, ``jac``, ``status``, ``success`` and ``message`` of the best run;
        ``nfev``, ``nit`` and ``njev`` summed over all runs; ``minima`` and ``minima_fun``, the distinct minima of
        successful runs from the lowest up; and ``batch``, the result of `minimize_batch`. ``result[k]`` is the result
        of the run that found minimum k, ``len(result)`` the number of minima, and ``result.to_frame()`` a table.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described; nothing has been computed then.
    Exception
        What `fun` or `jac` raised, if it was the same from every start (or the first 256) at the first evaluation.

    Notes
    -----
    The starting points are a scrambled Sobol sequence (`scipy.stats.qmc.Sobol`).

    Examples
    --------
    >>> import numpy as np
    >>> from rmsprop_nb import multistart
    >>> himmelblau = lambda x: (x[0] ** 2 + x[1] - 11) ** 2 + (x[0] + x[1] ** 2 - 7) ** 2
    >>> result = multistart(himmelblau, [(-5, 5), (-5, 5)], 16, rng=1)
    >>> len(result), [one.success for one in result]
    (4, [True, True, True, True])
    """
    count = as_count("n_starts", n_starts, 1, least=1)
    if count > MOST_STARTS:
        msg = f"n_starts must be at most {MOST_STARTS}, as many points as a Sobol sequence has, got {n_starts!r}."
        raise ValueError(msg)
    least = as_number("distance", distance, 0.0, math.inf)
    lower, upper = _as_box(bounds)
    generator = as_generator(rng)
    sides = upper - lower
    starts = lower + sides * _sobol(len(lower), count, generator)
    batch = minimize_batch(
        fun, starts, args, method=method, jac=jac, bounds=list(zip(lower, upper, strict=True)), tol=tol,
        options=options, workers=workers,
    )  # fmt: skip
    kept = _distinct(batch, np.where(sides > 0.0, sides, 1.0), least)
    best = batch.best
    status = Status(int(batch.status[best]))
    message = batch.message[best]
    if (batch.status == Status.INTERRUPTED).any():
        status, message = Status.INTERRUPTED, MESSAGES[Status.INTERRUPTED]
    return MultistartResult(
        x=batch.x[best],
        fun=float(batch.fun[best]),
        jac=batch.jac[best],
        nit=int(batch.nit.sum()),
        nfev=int(batch.nfev.sum()),
        njev=int(batch.njev.sum()),
        status=int(status),
        success=status.success,
        message=message,
        gradient=batch.gradient,
        minima=batch.x[kept],
        minima_fun=batch.fun[kept],
        batch=batch,
    )


def _as_box(bounds: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if bounds is None:
        msg = "bounds must be a box that starts are drawn from, got None; give a pair (min, max) for each variable."
        raise ValueError(msg)
    size = np.size(bounds.lb) if hasattr(bounds, "lb") else len(bounds) if isinstance(bounds, Sized) else 0
    lower, upper = as_bounds(bounds, np.zeros(size))
    if lower.size == 0 or not (np.isfinite(lower).all() and np.isfinite(upper).all()):
        msg = "bounds must be finite for every variable: starts are drawn from the box."
        raise ValueError(msg)
    return lower, upper


def _sobol(n: int, count: int, generator: np.random.Generator) -> NDArray[np.float64]:
    """Draw the first points of a scrambled Sobol sequence."""
    seed = {"rng": generator} if "rng" in inspect.signature(qmc.Sobol).parameters else {"seed": generator}
    sampler = qmc.Sobol(n, **seed)
    points: NDArray[np.float64] = sampler.random_base2((count - 1).bit_length())
    return points[:count]


def _distinct(batch: OptimizeResult, sides: NDArray[np.float64], distance: float) -> list[int]:
    """Return the indices of successful runs, lowest f first, that ended away from all earlier ones."""
    kept: list[int] = []
    for k in np.argsort(batch.fun, kind="stable"):
        apart = (np.abs(batch.x[k] - batch.x[kept]) > distance * sides).any(axis=1)
        if batch.success[k] and apart.all():
            kept.append(int(k))
    return kept
