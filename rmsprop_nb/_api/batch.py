"""The front end for many problems at once: `minimize_batch`."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from typing import Any

from numpy.typing import ArrayLike

from rmsprop_nb._core.batch_arguments import as_boxes, as_rows, as_starts, check_rows
from rmsprop_nb._core.names_elsewhere import explain_keywords
from rmsprop_nb._core.option_docs import with_option_docs
from rmsprop_nb._core.options import Options
from rmsprop_nb._core.validate import (
    CHECKPOINT_SECONDS,
    as_args,
    as_checkpoint_seconds,
    as_options,
    as_workers,
    check_callable,
    check_jac,
    check_known,
    check_sizes,
    check_switches,
)
from rmsprop_nb._drivers.batch_processes import Engine
from rmsprop_nb._drivers.batch_result import BatchResult
from rmsprop_nb._drivers.batch_run import Company, OnDevice, run_batch
from rmsprop_nb._drivers.batch_threads import Job
from rmsprop_nb._methods.registry import ALL_OPTION_NAMES, OPTIONS, method_name, option_names
from rmsprop_nb._objectives.exact import with_exact_gradient
from rmsprop_nb._objectives.problem import Problem

# Options that are about a single run, and what to do instead.
_AS_ARGUMENT = "it is an argument of minimize_batch instead"
_FOR_ONE_PROBLEM = "call minimize for the problem that you want to look at"
_SINGLE_RUN_OPTIONS = {
    "check_every": "it is for x0 on a CUDA device in minimize",
    "checkpoint": _AS_ARGUMENT,
    "checkpoint_every": _AS_ARGUMENT,
    "disp": _FOR_ONE_PROBLEM,
    "history": _FOR_ONE_PROBLEM,
    "maxtime": "set maxiter or maxfev, which limit each problem",
    "parallel": "problems run side by side with workers=-1",
    "progress": _AS_ARGUMENT,
    "return_all": _FOR_ONE_PROBLEM,
    "state": _AS_ARGUMENT,
}
BATCH_OPTION_NAMES = tuple(name for name in ALL_OPTION_NAMES if name not in _SINGLE_RUN_OPTIONS)


@explain_keywords({"here it is an option: options={{{!r}: ...}}": BATCH_OPTION_NAMES})
@with_option_docs
def minimize_batch(
    fun: Callable[..., Any],
    X0: ArrayLike,
    args: tuple[Any, ...] = (),
    *,
    batch_args: tuple[Any, ...] | None = None,
    method: str | None = "rmsprop",
    jac: Callable[..., Any] | str | bool | None = None,
    bounds: Any = None,
    tol: float | None = None,
    options: dict[str, Any] | None = None,
    workers: int | Engine = 1,
    device: str = "cpu",
    progress: bool = False,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: float = CHECKPOINT_SECONDS,
    state: BatchResult | None = None,
) -> BatchResult:
    """Minimize many small problems that share an objective, each from its own start and with its own data.

    Problem b minimizes ``fun(x, *args, *rows)`` from ``X0[b]``, where the rows are ``a[b]`` for each array of
    `batch_args`. With a compiled objective everything runs in compiled code on `workers` threads. Each problem gets the
    same bits as from `minimize` alone, whatever the number of workers.

    Parameters
    ----------
    fun : callable
        The objective, in one of the forms that `jac` selects, as for `minimize`.
    X0 : array_like, shape (B, n) or (n,)
        The starting point of each problem, or one for all; then `batch_args` or `bounds` tell how many there are.
        float32 is kept. It is copied.
    args : tuple, optional
        Arguments that all problems share. They are not copied.
    batch_args : tuple of ndarray, optional
        Arrays whose first axis has length B; problem b is given row b of each, which is a number if the array has one
        axis.
    method : {"rmsprop", "rmsprop-lbfgs"}, default "rmsprop"
        As for `minimize`.
    jac : callable, True, "autodiff", "2-point", "3-point", "cs", "inplace" or None, default None
        As for `minimize`.
    bounds : sequence of (min, max), scipy.optimize.Bounds, tuple or array_like, optional
        n pairs, or a Bounds of vectors, are bounds that all problems share. Each problem has its own where bounds have
        more axes: a Bounds, or a tuple ``(lower, upper)``, of arrays that broadcast to (B, n), or an array or list of
        shape (B, n, 2). None, -inf and inf are no bound; equal bounds fix a variable.
    %(tol)s
    options : dict, optional
        Options of the method, except for those about a single run: check_every, checkpoint, checkpoint_every, disp,
        history, maxtime, parallel, progress, return_all and state. `x_scale` may have shape (B, n).
    workers : int or map-like callable, default 1
        A number of threads for a compiled objective, or of processes for a Python one; -1 means as many as there are
        processors. Otherwise a function that is called as ``map(function, iterable)``, such as the ``map`` of a
        `concurrent.futures.ProcessPoolExecutor` or of MPI's or Dask's executors; it is not closed.
    device : {"cpu", "cuda"}, default "cpu"
        Where to run. On a CUDA device each thread minimizes a problem, all in one launch; `fun` must compile for the
        device, and have the form ``jac="inplace"`` or, for up to 32 variables, exact derivatives. If the first of
        `args` is a `rmsprop_nb.cuda.Team`, each problem is shared by a block of threads. See docs/cuda.md.
    %(progress)s
    %(checkpoint)s
    %(checkpoint_every)s
    state : BatchResult, optional
        The result of the same call when it was interrupted, or ``rmsprop_nb.load(path)`` of its checkpoint. Problems
        that had ended are taken from it, and the others are run.

    Returns
    -------
    result : BatchResult
        An OptimizeResult with ``x`` and ``jac`` of shape (B, n); ``fun``, ``nit``, ``nfev``, ``njev``, ``status``,
        ``success`` and ``message`` of shape (B,); ``best``, the index of the lowest f; ``gradient``, as for `minimize`;
        and ``exceptions``, a dict from the index of a problem whose objective raised (status 8) to the exception, for
        the first ten such problems. A compiled problem is run again to find its exception; there is none if the
        objective has changed by then. ``result[i]`` is the result of problem i, ``result[:10]`` or ``result[mask]``
        that of several problems; ``for one in result`` goes over the problems, and ``result.to_frame()`` is a pandas
        table with a row for each.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described; nothing has been computed then.
    Exception
        What `fun` or `jac` raised, if it was the same for every problem (or the first 256) at its first evaluation.
    IncompleteBatchError
        If a worker process died or the map-like failed. ``error.result`` has the problems that had ended.

    Notes
    -----
    All engines give the same bits. Processes are started anew, so a script that uses them needs
    ``if __name__ == "__main__":``, and each process compiles the objective again: threads are far quicker where they
    can be used. A map-like is given at most 256 parts of the batch, each with a copy of `args`.

    A NaN, an exception or slow convergence of one problem does not affect the others. Ctrl-C ends the run, also in the
    middle of a problem, and the run in whose objective this one may be; problems that had not ended have status 98 and
    NaN for x, but for the best point of the one under way if `fun` is called from Python.

    Missing data are for the objective to leave out: a NaN in `batch_args` ends that problem with status NONFINITE.

    Examples
    --------
    >>> import numpy as np
    >>> from numba import njit
    >>> from rmsprop_nb import minimize_batch
    >>> @njit
    ... def distance(x, grad, target):
    ...     grad[:] = 2.0 * (x - target)
    ...     return np.sum((x - target) ** 2)
    >>> targets = np.arange(6.0).reshape(3, 2)
    >>> result = minimize_batch(distance, np.zeros((3, 2)), batch_args=(targets,), jac="inplace")
    >>> result.success.all(), result.x.round(4).tolist()
    (np.True_, [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]])
    >>> result[1].x.round(4).tolist(), len(result), len(result[result.fun > 1.0])
    ([2.0, 3.0], 3, 0)

    One start for all, and a box for each, which ends 1 below its target:

    >>> bounds = (-np.inf, targets - 1.0)
    >>> minimize_batch(distance, np.zeros(2), batch_args=(targets,), jac="inplace", bounds=bounds).x.tolist()
    [[-1.0, 0.0], [1.0, 2.0], [3.0, 4.0]]
    """
    check_switches(progress=progress)
    parsed = batch_options(options, method, tol)
    rows = as_rows(batch_args)
    starts = as_starts(X0, rows, bounds)
    check_rows(rows, len(starts))
    (lower, upper), boxes = as_boxes(bounds, starts)
    if not (isinstance(parsed.x_scale, str) and parsed.x_scale == "auto"):
        parsed = dataclasses.replace(parsed, x_scale=check_sizes(parsed.x_scale, starts))
    check_callable("fun", fun)
    problem = Problem(fun, check_jac(jac), as_args(args), lower, upper, parsed.own_steps(starts.shape[1]))
    engine = workers if callable(workers) else as_workers(workers)
    _check_device(device, engine, parsed)
    on_device: OnDevice | None = None
    if device == "cuda":
        from rmsprop_nb._cuda.batch import prepare

        problem, on_device = prepare(problem, starts.shape[1], starts.dtype)
    else:
        problem = with_exact_gradient(problem, starts.shape[1], starts.dtype, last=tuple(a[0] for a in rows if len(a)))
    job = Job(problem, starts, rows, parsed, boxes)
    company = Company(progress, checkpoint, as_checkpoint_seconds(checkpoint_every, checkpoint), state)
    return run_batch(job, engine, company, on_device)


def batch_options(options: dict[str, Any] | None, method: str | None, tol: float | None) -> Options:
    """Return the options of runs that do not return to Python."""
    method = method_name(method)
    chosen = as_options(options)
    _check_options(chosen, method)
    if tol is not None:
        chosen.setdefault("gtol", tol)
    return OPTIONS[method](**chosen)


def _check_options(chosen: dict[str, Any], method: str) -> None:
    """Raise for an option that the method does not have, or that is about a single run."""
    known = option_names(method)
    for name in chosen:
        if name in known and name in _SINGLE_RUN_OPTIONS:
            msg = f"Unknown option {name!r} for method {method!r} in a batch: {_SINGLE_RUN_OPTIONS[name]}."
            raise ValueError(msg)
    check_known(chosen, tuple(name for name in known if name not in _SINGLE_RUN_OPTIONS), f"{method} (in a batch)")


def _check_device(device: Any, engine: Any, options: Options) -> None:
    if not isinstance(device, str) or device not in ("cpu", "cuda"):
        index = str(device).rpartition(":")[2]
        chosen = index if index.isdecimal() else "0"
        msg = (
            f"device must be 'cpu' or 'cuda', got {device!r}; 'cuda' is the current CUDA device, and "
            f"numba.cuda.select_device({chosen}) before the call makes device {chosen} the current one."
        )
        raise ValueError(msg)
    if device != "cuda":
        return
    if engine != 1:
        msg = f"workers must be 1 with device='cuda', which runs all problems at once, got {engine!r}."
        raise ValueError(msg)
    options.refuse(("finite_diff_rel_step",), "has no meaning with device='cuda', where fun fills the gradient")
