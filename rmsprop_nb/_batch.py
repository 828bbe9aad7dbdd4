"""Many problems at once: `minimize_batch`."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rmsprop_nb._batch_loop import Batch, BatchResults, RowArgs, Worker, make_batch_loop
from rmsprop_nb._batch_result import BatchResult, batch_result, begun, snapshot
from rmsprop_nb._minimize import FORMS, METHODS, known_options, outcome
from rmsprop_nb._objective import CompiledObjective, Problem, compile_objective
from rmsprop_nb._solve import AnyOptions, algorithm_of, run, settings_of, starting_state
from rmsprop_nb._types import Status
from rmsprop_nb._validate import (
    CHECKPOINT_SECONDS,
    as_args,
    as_bounds,
    as_checkpoint_seconds,
    as_start,
    as_workers,
    check_callable,
    check_jac,
    check_known,
)
from rmsprop_nb._watch import Keeper, progress_bar

__all__ = ["BatchResult", "minimize_batch"]

_KEPT_EXCEPTIONS = 10

# Options that are about watching one run.
_SINGLE_RUN_OPTIONS = (
    "checkpoint", "checkpoint_every", "disp", "history", "maxtime", "parallel", "progress", "return_all", "state",
)  # fmt: skip


def minimize_batch(
    fun: Callable[..., Any],
    X0: ArrayLike,
    args: tuple[Any, ...] = (),
    *,
    batch_args: tuple[Any, ...] | None = None,
    method: str = "rmsprop",
    jac: Callable[..., Any] | str | bool | None = None,
    bounds: Any = None,
    tol: float | None = None,
    options: dict[str, Any] | None = None,
    workers: int = 1,
    progress: bool = False,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: float = CHECKPOINT_SECONDS,
    state: BatchResult | None = None,
) -> BatchResult:
    """Minimize many small problems that share an objective, each from its own start and with its own data.

    Problem b minimizes ``fun(x, *args, *rows)`` from ``X0[b]``, where the rows are ``a[b]`` for each array of
    `batch_args`. With a compiled objective everything runs in compiled code on `workers` threads; each problem gets the
    same bits as `minimize` gives it alone, whatever the number of workers.

    Parameters
    ----------
    fun : callable
        The objective, in one of the forms that `jac` selects, as for `minimize`.
    X0 : array_like, shape (B, n)
        A start for each problem. float32 is kept. It is copied.
    args : tuple, optional
        Arguments that all problems share. They are not copied.
    batch_args : tuple of ndarray, optional
        Arrays whose first axis has length B; problem b is given row b of each, a number if the array has one axis.
    method : {"rmsprop", "rmsprop-lbfgs"}, default "rmsprop"
        As for `minimize`.
    jac : callable, True, "2-point", "3-point", "cs", "inplace" or None, default None
        As for `minimize`.
    bounds : sequence of (min, max) or scipy.optimize.Bounds, optional
        Bounds that all problems share.
    tol : float, optional
        The same as the option ``gtol``.
    options : dict, optional
        Options of the method, but for those about one run: checkpoint, checkpoint_every, disp, history, maxtime,
        parallel, progress, return_all and state.
    workers : int, default 1
        Threads for a compiled objective; -1 for as many as there are processors. Other objectives run one by one.
    progress : bool, default False
        Show a progress bar; needs tqdm (``pip install 'rmsprop_nb[progress]'``).
    checkpoint : str or path-like, optional
        File in which the problems that have ended are kept: every `checkpoint_every` seconds and at the end.
    checkpoint_every : float, default 60
        Seconds between two checkpoints.
    state : BatchResult, optional
        A result of the same call that was interrupted, or ``rmsprop_nb.load(path)`` of its checkpoint: problems that
        had ended are taken from it, the others are run.

    Returns
    -------
    result : BatchResult
        An OptimizeResult with ``x`` and ``jac`` of shape (B, n); ``fun``, ``nit``, ``nfev``, ``njev``, ``status``,
        ``success`` and ``message`` of shape (B,); ``best``, the index of the lowest f; and ``exceptions``, a dict from
        the index of a problem whose objective raised (status 8) to the exception, for the first ten.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described; nothing has been computed then.

    Notes
    -----
    A NaN, an exception or slow convergence of one problem does not disturb the others. Ctrl-C ends the run; problems
    that had not begun have status 98 and NaN for x.

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
    """
    if method not in METHODS:
        msg = f"method must be one of {', '.join(map(repr, METHODS))}, got {method!r}."
        raise ValueError(msg)
    chosen = dict(options or {})
    known = tuple(name for name in known_options(METHODS[method]) if name not in _SINGLE_RUN_OPTIONS)
    check_known(chosen, known, f"{method} (in a batch)")
    if tol is not None:
        chosen.setdefault("gtol", tol)
    parsed = METHODS[method](**chosen)
    starts = _as_starts(X0)
    rows = _as_rows(batch_args, len(starts))
    lower, upper = as_bounds(bounds, starts[0])
    check_callable("fun", fun)
    first_args = (*as_args(args), *(row[0] for row in rows))
    problem = Problem(fun, check_jac(jac, FORMS), first_args, lower, upper, parsed.rel_step)
    count = as_workers(workers)
    calls = problem.calls_per_gradient(starts.shape[1])
    every = as_checkpoint_seconds(checkpoint_every, checkpoint)
    results, exceptions = begun(state, starts)
    objective = compile_objective(problem, starts.dtype)
    keeper = Keeper(checkpoint, every, lambda: batch_result(calls, snapshot(results), exceptions).to_tree())
    with progress_bar(len(starts), "problem") if progress else contextlib.nullcontext() as bar:

        def on_done(count: int) -> None:
            if bar is not None:
                bar.update(count)
            keeper.write_if_due()

        try:
            if objective is not None:
                _run_compiled(problem, objective, starts, rows, parsed, count, results, on_done)
                exceptions.update(_exceptions(problem, starts, rows, as_args(args), parsed, results, exceptions))
            else:
                _run_one_by_one(problem, starts, rows, as_args(args), parsed, results, exceptions, on_done)
        finally:
            keeper.write()
    return batch_result(calls, results, exceptions)


def _as_starts(X0: Any) -> NDArray[Any]:
    array = np.asarray(X0)
    if array.ndim != 2 or array.shape[0] == 0:
        msg = f"X0 must have shape (B, n) with at least one row, one start for each problem, got shape {array.shape}."
        raise ValueError(msg)
    return as_start(array.reshape(-1)).reshape(array.shape)


def _as_rows(batch_args: Any, count: int) -> tuple[NDArray[Any], ...]:
    if batch_args is None:
        return ()
    if not isinstance(batch_args, tuple):
        batch_args = (batch_args,)
    rows = tuple(np.asarray(a) for a in batch_args)
    for k, a in enumerate(rows):
        if a.ndim == 0 or a.shape[0] != count:
            msg = f"batch_args[{k}] must have one row for each of the {count} problems, got shape {a.shape}."
            raise ValueError(msg)
    return rows


# -- compiled ---------------------------------------------------------------------------------------------------------


def _run_compiled(
    problem: Problem,
    objective: CompiledObjective,
    starts: NDArray[Any],
    rows: tuple[NDArray[Any], ...],
    options: AnyOptions,
    workers: int,
    results: BatchResults,
    on_done: Callable[[int], None],
) -> None:
    new = starting_state(problem, starts[0], options)
    batch = Batch(
        address=objective.address,
        rows=_row_args(objective, rows),
        starts=starts,
        new=new.arrays,
        new_record=new.record,
        settings=settings_of(options, starts[0]),
        results=results,
    )
    loop = make_batch_loop(algorithm_of(options, parallel=False))
    blocks = _Blocks(len(starts), workers, on_done)

    def work() -> None:
        own = new.copy()
        words = objective.words.copy()
        worker = Worker(own.arrays, own.record, words, int(words.ctypes.data))
        for begin, end in blocks:
            loop(batch, worker, begin, end)

    _on_threads(work, workers, blocks)


def _on_threads(work: Callable[[], None], workers: int, blocks: _Blocks) -> None:
    """Run `work` on so many threads; on Ctrl-C let each finish its block."""
    try:
        if workers == 1:
            work()
            return
        with ThreadPoolExecutor(workers) as pool:
            futures = [pool.submit(work) for _ in range(workers)]
            try:
                for future in futures:
                    future.result()
            except BaseException:
                blocks.stop()
                raise
    except KeyboardInterrupt:
        blocks.stop()


class _Blocks:
    """Hands out ranges of problems to threads: small ones, because problems differ in length."""

    def __init__(self, count: int, workers: int, on_done: Callable[[int], None]) -> None:
        self._count = count
        self._on_done = on_done
        self._size = max(1, min(256, count // (16 * workers)))
        self._next = 0
        self._lock = threading.Lock()

    def __iter__(self) -> Iterator[tuple[int, int]]:
        while True:
            with self._lock:
                begin, self._next = self._next, self._next + self._size
            if begin >= self._count:
                return
            end = min(begin + self._size, self._count)
            yield begin, end
            with self._lock:
                self._on_done(end - begin)

    def stop(self) -> None:
        """Hand out no more."""
        with self._lock:
            self._next = self._count


def _row_args(objective: CompiledObjective, rows: tuple[NDArray[Any], ...]) -> RowArgs:
    """Say which words of the packed arguments change from problem to problem, and how."""
    offsets = objective.offsets[-1 - len(rows) : -1] if rows else []
    slots: list[int] = []
    first: list[int] = []
    stride: list[int] = []
    scalar_slots: list[int] = []
    scalars: list[NDArray[np.int64]] = []
    for offset, row in zip(offsets, rows, strict=True):
        if row.ndim > 1:
            slots.append(offset + 1)  # the second word of a packed array is its address
            first.append(row.ctypes.data)
            stride.append(row.strides[0])
        else:
            for k, words in enumerate(_words_of_scalars(row)):
                scalar_slots.append(offset + k)
                scalars.append(words)
    return RowArgs(
        slots=np.array(slots, np.int64),
        first=np.array(first, np.int64),
        stride=np.array(stride, np.int64),
        scalar_slots=np.array(scalar_slots, np.int64),
        scalars=np.array(scalars, np.int64) if scalars else np.empty((0, 0), np.int64),
    )


def _words_of_scalars(row: NDArray[Any]) -> NDArray[np.int64]:
    """The values of an array as packed words, shape (words of one value, B)."""
    dtype = row.dtype.newbyteorder("=")
    size = -(-dtype.itemsize // 8) * 8
    padded = np.zeros((row.size, size), np.uint8)
    padded[:, : dtype.itemsize] = np.ascontiguousarray(row, dtype).view(np.uint8).reshape(row.size, dtype.itemsize)
    return padded.view(np.int64).T


# -- interpreted ------------------------------------------------------------------------------------------------------


def _run_one_by_one(
    problem: Problem,
    starts: NDArray[Any],
    rows: tuple[NDArray[Any], ...],
    args: tuple[Any, ...],
    options: AnyOptions,
    results: BatchResults,
    exceptions: dict[int, Exception],
    on_done: Callable[[int], None],
) -> None:
    try:
        for k, start in enumerate(starts):
            if results.status[k] != Status.INTERRUPTED:
                on_done(1)
                continue
            try:
                state, _ = run(_with_rows(problem, args, rows, k), start, options, None)
            except Exception as error:  # noqa: BLE001 - whatever the user's function raises ends its own problem only
                results.status[k] = Status.EXCEPTION
                if len(exceptions) < _KEPT_EXCEPTIONS:
                    exceptions[k] = error
                on_done(1)
                continue
            status, point = outcome(state)
            results.nit[k], results.nfev[k] = state.progress.nit, state.progress.nfev
            results.x[k], results.fun[k], results.jac[k] = point
            results.status[k] = status
            on_done(1)
            if status is Status.INTERRUPTED:
                break
    except KeyboardInterrupt:
        pass


def _with_rows(problem: Problem, args: tuple[Any, ...], rows: tuple[NDArray[Any], ...], k: int) -> Problem:
    return dataclasses.replace(problem, args=(*args, *(row[k] for row in rows)))


def _exceptions(
    problem: Problem,
    starts: NDArray[Any],
    rows: tuple[NDArray[Any], ...],
    args: tuple[Any, ...],
    options: AnyOptions,
    results: BatchResults,
    known: dict[int, Exception],
) -> Iterator[tuple[int, Exception]]:
    """Compiled code only knows that the objective raised: run the problem again to see what."""
    failed = np.flatnonzero(results.status == Status.EXCEPTION)[:_KEPT_EXCEPTIONS]
    for k in (int(k) for k in failed if k not in known):
        try:
            run(_with_rows(problem, args, rows, k), starts[k], options, None)
        except Exception as error:  # noqa: BLE001
            yield k, error
