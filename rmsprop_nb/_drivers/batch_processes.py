"""The problems of a batch run in other processes: in a pool, or by a map-like that the user passes."""

from __future__ import annotations

import multiprocessing
import pickle
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rmsprop_nb._core.status import Status
from rmsprop_nb._drivers.batch_loop import BatchResults
from rmsprop_nb._drivers.batch_result import as_text
from rmsprop_nb._drivers.batch_threads import KEPT_EXCEPTIONS, Job, run_here
from rmsprop_nb._drivers.inner_runs import is_inner_run
from rmsprop_nb._objectives.problem import Problem

Engine = Callable[[Callable[[Job], Any], Iterable[Job]], Iterable[Any]]
"""A callable with the signature of ``map``."""

Which = NDArray[np.intp]
Outcome = tuple[BatchResults, dict[int, Exception]]

# Parts are small, because problems take different times, but few: each is sent with the args that all share.
_MOST_PARTS = 256
_PARTS_PER_PROCESS = 8


def check_sendable(problem: Problem) -> None:
    """Raise unless the objective can be sent to another process."""
    for name, function in (("fun", problem.fun), ("jac", problem.jac)):
        # A function defined in a notebook or at the prompt can be pickled, but the other process does not find it.
        interactive = not hasattr(sys.modules["__main__"], "__file__")
        if (interactive and getattr(function, "__module__", "") == "__main__") or not _pickles(function):
            msg = (
                f"{name} must be a function at the top of a module to run in other processes, got {function!r}; move "
                "it there, compile it with numba.njit so that workers are threads, or give workers a map-like that "
                "sends closures, such as joblib's."
            )
            raise TypeError(msg)


def _pickles(thing: Any) -> bool:
    try:
        pickle.loads(pickle.dumps(thing))
    except Exception:  # noqa: BLE001 - objects raise what they like
        return False
    return True


def run_elsewhere(
    job: Job,
    engine: Engine | int,
    results: BatchResults,
    exceptions: dict[int, Exception],
    on_done: Callable[[int], None],
) -> BaseException | None:
    """Run the problems that have no result yet; return the error that kept some of them from being run."""
    pending = np.flatnonzero(results.status == Status.INTERRUPTED)
    on_done(len(results.status) - len(pending))
    most = _MOST_PARTS if callable(engine) else _PARTS_PER_PROCESS * engine
    parts = np.array_split(pending, min(len(pending), most)) if len(pending) else []
    failure = None
    try:
        outcomes = _by_engine(engine, job, parts) if callable(engine) else _by_processes(engine, job, parts)
        for which, outcome in outcomes:
            if isinstance(outcome, BaseException):
                failure = failure or outcome
                continue
            _merge(which, outcome, results, exceptions)
            if (outcome[0].status == Status.INTERRUPTED).any():  # Ctrl-C was answered there
                raise KeyboardInterrupt
            on_done(len(which))
    except KeyboardInterrupt:
        if is_inner_run():
            raise
        return None
    except Exception as error:  # noqa: BLE001 - an engine may raise anything, and what it has finished is kept
        return error
    return failure


def run_part(job: Job) -> Outcome:
    """Run a part; called in the other process."""
    results = job.empty_results()
    exceptions: dict[int, Exception] = {}
    run_here(job, job.compiled(), 1, results, exceptions, lambda _: None)
    return results, {k: error if _pickles(error) else as_text(error) for k, error in exceptions.items()}


def _by_engine(engine: Engine, job: Job, parts: list[Which]) -> Iterator[tuple[Which, Outcome]]:
    for which, outcome in zip(parts, engine(run_part, map(job.part, parts)), strict=True):
        if not (isinstance(outcome, tuple) and len(outcome) == 2 and isinstance(outcome[0], BatchResults)):
            msg = f"workers must return what the function returns, as map does, got {type(outcome).__name__}."
            raise TypeError(msg)
        yield which, outcome


def _by_processes(workers: int, job: Job, parts: list[Which]) -> Iterator[tuple[Which, Outcome | BaseException]]:
    """Yield the results as they come.

    The processes are spawned, because a fork after compiled threads have run can hang. multiprocessing.Pool is not
    used, because it waits for ever for a process that has died.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(parts)) or 1, mp_context=context) as pool:
        try:
            futures: dict[Future[Outcome], Which] = {pool.submit(run_part, job.part(which)): which for which in parts}
            for future in as_completed(futures):
                yield futures[future], future.exception() or future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _merge(which: Which, outcome: Outcome, results: BatchResults, exceptions: dict[int, Exception]) -> None:
    found, raised = outcome
    for name, values in found._asdict().items():
        getattr(results, name)[which] = values
    exceptions.update({int(which[k]): error for k, error in raised.items()})
    for k in sorted(exceptions)[KEPT_EXCEPTIONS:]:  # parts come in any order; keep the exceptions of the first problems
        del exceptions[k]
