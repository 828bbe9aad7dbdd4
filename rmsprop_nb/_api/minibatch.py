"""The front end for mini-batches: `minimize_minibatch`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import OptimizeResult

from rmsprop_nb._api.containers import takes_containers
from rmsprop_nb._core.bounds import as_bounds
from rmsprop_nb._core.callbacks import as_report
from rmsprop_nb._core.names_elsewhere import explain_keywords
from rmsprop_nb._core.option_docs import with_option_docs
from rmsprop_nb._core.validate import (
    CHECKPOINT_SECONDS,
    as_args,
    as_data,
    as_generator,
    as_options,
    as_start,
    check_callable,
    check_is_no_data,
    check_jac,
    check_switches,
    split_rows,
)
from rmsprop_nb._drivers.minibatch_options import OPTION_NAMES, MinibatchOptions
from rmsprop_nb._drivers.minibatch_solve import BatchPlan, first_state, local_targets, make_result, run, shared_targets
from rmsprop_nb._drivers.ranks import ranks_or_alone, shared_by_ranks
from rmsprop_nb._drivers.shards import problem_digest
from rmsprop_nb._methods.run_state import RunState
from rmsprop_nb._objectives.exact import with_exact_gradient
from rmsprop_nb._objectives.problem import Problem


@shared_by_ranks
@explain_keywords({"here it is an option: options={{{!r}: ...}}": OPTION_NAMES})
@takes_containers
@with_option_docs
def minimize_minibatch(
    fun: Callable[..., Any],
    x0: ArrayLike,
    data: Any,
    args: tuple[Any, ...] = (),
    *,
    batch_size: int | None = None,
    epochs: int | None = None,
    jac: Callable[..., Any] | str | bool | None = None,
    bounds: Any = None,
    learning_rate: float | str | ArrayLike | Callable[[int], float] = "auto",
    rng: Any = None,
    shuffle: bool = True,
    averaging: bool | None = None,
    validation: Any = None,
    patience: int | None = None,
    clip_value: float | None = None,
    clip_norm: float | None = None,
    accumulate: int = 1,
    callback: Callable[..., Any] | None = None,
    maxtime: float | None = None,
    history: bool | int = False,
    final_evaluation: bool = True,
    progress: bool = False,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: float = CHECKPOINT_SECONDS,
    state: RunState | None = None,
    options: dict[str, Any] | None = None,
    comm: Any = None,
    deterministic: bool = False,
) -> OptimizeResult:
    """Minimize a mean over rows of data with RMSprop, a batch of rows at a time.

    ``fun(x, *batch, *args)`` is the function that ``minimize(fun, x0, (*data, *args))`` takes: a batch holds some rows
    of each array. It should be a mean over its rows, plus terms that do not depend on them. When it is compiled with
    ``numba.njit`` the whole loop runs compiled, including the shuffling; a Python function is given the same batches.

    Parameters
    ----------
    fun : callable
        The objective, in one of the forms that `jac` selects, as for `minimize`.
    x0 : array_like, shape (n,), or dict, list or tuple of arrays
        The starting point. float32 is kept. It is copied. Containers may be nested, as in `minimize`.
    data : tuple of ndarray or of scipy.sparse matrices
        Arrays with the same number of rows N; `fun` is given the same rows of each. Only one batch at a time is copied,
        so memory-mapped arrays may be larger than memory. Sparse matrices need a Python function and become CSR. A
        single array need not be wrapped.
    args : tuple, optional
        Further arguments of `fun` and `jac`, the same for every batch.
    batch_size : int, optional
        Rows in a batch; the last one of an epoch may be smaller. By default a twentieth of the rows, but at least 16
        and at most 128.
    epochs : int, optional
        Passes over the data, including those of a run that is resumed. By default 10, or as many as it takes to make
        1000 steps.
    jac : callable, True, "autodiff", "2-point", "3-point", "cs", "inplace" or None, default None
        As for `minimize`; a callable is given the same arguments as `fun`.
    bounds : sequence of (min, max) or scipy.optimize.Bounds, optional
        x is projected onto them after every step.
    learning_rate : "auto", "auto-constant", float, array_like of shape (n,), or callable, default "auto"
        "auto" estimates the rate during the run, and lets it fall linearly to 0 at the end of the last epoch;
        "auto-constant" does not let it fall, for runs whose end is not known. A number, one number for each parameter,
        or a schedule ``step -> rate`` (see `schedules`) is the textbook rule.
    rng : None, int or numpy.random.Generator, optional
        The source of the order of rows. Not used with ``shuffle=False`` or `state`.
    shuffle : bool, default True
        Whether every epoch has its own random order of rows; otherwise rows come in the order of the data.
    averaging : bool, optional
        Whether to return an average of the iterates, with more weight on later ones, instead of the last iterate. By
        default only where the rate does not decay: with a constant number and with "auto-constant".
    validation : float or tuple of ndarray, optional
        Data that are not learnt from: arrays like `data`, or the fraction of its rows, at the end, to keep apart. `fun`
        is evaluated on them after every epoch.
    patience : int, optional
        Stop after this many epochs without a new lowest value on the validation data, and return the point that had it.
        With ``learning_rate="auto"`` the rate first falls to 0, in as many epochs.
    clip_value, clip_norm : float, optional
        Scale a gradient whose 2-norm exceeds clip_norm down to it; then clip each component to
        [-clip_value, clip_value].
    accumulate : int, default 1
        Number of batches whose gradients are averaged, weighted by rows, for one step.
    callback : callable, optional
        Called after every epoch, as ``callback(xk)`` or, if its only parameter has this name, as
        ``callback(intermediate_result)`` with ``x``, ``fun`` (the mean over the epoch's batches), ``nit`` and, if there
        are validation data, ``validation_fun``. It ends the run by raising StopIteration.
    %(maxtime)s
    %(history)s
    final_evaluation : bool, default True
        Whether to evaluate `fun` and its gradient on all the data at the point returned, which takes one more pass.
    %(progress)s
    %(checkpoint)s
    %(checkpoint_every)s
    %(state)s
    options : dict, optional
        The options listed below.
    comm : communicator of mpi4py, optional
        The ranks that share the data, such as ``MPI.COMM_WORLD``. Each rank gives its own rows, any number but at least
        one, as `data` and, if they are arrays, `validation`. Batches are drawn from the rows of all ranks, in the order
        of the ranks, and do not depend on the number of ranks; `batch_size` counts the rows of all, and `rng` is that
        of rank 0. For the rest see the Notes of `minimize`. `fun` is called from Python.
    deterministic : bool, default False
        Return the same bits for any number of ranks, including one process without `comm`. The rows are divided into 48
        parts as in `minimize`, and `fun` is called with the rows that a batch has in each: up to 48 times per batch.

    Returns
    -------
    result : scipy.optimize.OptimizeResult
        With ``x``; ``fun`` and ``jac``, the mean over all rows at x (with ``final_evaluation=False``, or after Ctrl-C,
        ``fun`` is the mean over the last full epoch's batches and there is no ``jac``); ``nit``, the epochs; ``nfev``,
        the evaluations on batches that were learnt from; ``status``, ``success``, ``message``; ``state``;
        ``epoch_fun``, the mean over each epoch's batches; ``validation_fun``, if there are validation data; and
        ``history``, if it was asked for. Success means that the run went as planned and every value was finite, and
        that an automatic rate did not lead up again: noise leaves no test of convergence.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described; nothing has been computed then.
    RankError
        If another rank failed.

    Other Parameters
    ----------------
    first_distance : float, default 1e-4
        With an automatic learning rate: the first estimate of the distance from x0 to the minimum. It should be far
        below that distance, because the estimate only grows.
    %(rule)s
    %(parallel)s
    %(finite_diff_rel_step)s

    Notes
    -----
    With an automatic learning rate, beta is 0.99 by default, eps is relative to the largest component of the gradient,
    and the options from `momentum` to `parallel` are errors. The distance to the minimum is estimated as in Prodigy
    [1]_. The average of the iterates is that of [2]_.

    References
    ----------
    .. [1] K. Mishchenko, A. Defazio, "Prodigy: An Expeditiously Adaptive Parameter-Free Learner", ICML 2024.
    .. [2] O. Shamir, T. Zhang, "Stochastic Gradient Descent for Non-smooth Optimization", ICML 2013 (averaging).

    Examples
    --------
    >>> import numpy as np
    >>> from numba import njit
    >>> from rmsprop_nb import minimize_minibatch
    >>> @njit
    ... def mean_square(x, grad, A, b):
    ...     r = A @ x - b
    ...     grad[:] = A.T @ r / b.size
    ...     return 0.5 * np.mean(r**2)
    >>> rng = np.random.default_rng(0)
    >>> A = rng.normal(size=(10_000, 3))
    >>> b = A @ np.array([1.0, -2.0, 3.0])
    >>> result = minimize_minibatch(mean_square, np.zeros(3), (A, b), jac="inplace", rng=0)
    >>> result.success, result.x.round(3)
    (True, array([ 1., -2.,  3.]))
    """
    check_switches(shuffle=shuffle, averaging=averaging, final_evaluation=final_evaluation, deterministic=deterministic)
    alone = comm is None and not deterministic
    with contextlib.nullcontext() if alone else ranks_or_alone(comm) as ranks:
        check_callable("fun", fun)
        report = as_report(callback)
        chosen = MinibatchOptions(
            learning_rate=learning_rate,
            batch_size=batch_size,
            epochs=epochs,
            averaging=averaging,
            patience=patience,
            clip_value=clip_value,
            clip_norm=clip_norm,
            accumulate=accumulate,
            maxtime=maxtime,
            history=history,
            progress=progress,
            checkpoint=checkpoint,
            checkpoint_every=checkpoint_every,
            options=as_options(options),
        )
        if ranks is not None and ranks.rank != 0:
            chosen = chosen.quiet()
        x = as_start(x0)
        problem = Problem(fun, check_jac(jac), as_args(args), *as_bounds(bounds, x), chosen.own_steps(x.size))
        whole = as_data("data", data)
        check_is_no_data(args, whole)
        rows = split_rows(whole, validation)
        problem = with_exact_gradient(problem, x.size, x.dtype, first=tuple(a[:1] for a in rows[0]))
        if patience is not None and rows[1] is None:
            msg = f"patience={patience!r} needs validation data; give validation=0.1 or arrays."
            raise ValueError(msg)
        seed = as_generator(rng).integers(0, 2**64, dtype=np.uint64)
        plan = BatchPlan(chosen.batch_size_for, bool(shuffle), bool(deterministic), seed)
        if ranks is None:
            targets = local_targets(problem, rows, plan)
        else:
            same = problem_digest(x, problem, state) | {"final_evaluation": str(bool(final_evaluation))}
            targets = shared_targets(ranks, problem, rows, plan, x.size, chosen.shared() | same)
        chosen = chosen.for_batches(targets.training.rows.batches)
        current = first_state(chosen, problem, x, targets, state)
        trace = run(chosen, current, targets, report)
        result = make_result(chosen, current, targets, trace, final_evaluation)
        result["gradient"] = problem.gradient_source
        return result
