"""A whole batch: where its problems run, and what accompanies them."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable
from typing import Any, NamedTuple

from numba.extending import is_jitted

from rmsprop_nb._core.progress import CheckpointWriter, progress_bar
from rmsprop_nb._core.validate import CHECKPOINT_SECONDS
from rmsprop_nb._drivers.batch_failures import FailureWatch, SharedError
from rmsprop_nb._drivers.batch_loop import BatchResults
from rmsprop_nb._drivers.batch_processes import Engine, check_sendable, run_elsewhere
from rmsprop_nb._drivers.batch_result import BatchResult, IncompleteBatchError, batch_result, snapshot, take_earlier
from rmsprop_nb._drivers.batch_threads import Job, exceptions_of, run_here


class Company(NamedTuple):
    """What accompanies a batch, as the user gave it and checked: a progress bar, checkpoints, an earlier result."""

    progress: bool = False
    checkpoint: str | os.PathLike[str] | None = None
    checkpoint_every: float = CHECKPOINT_SECONDS
    state: BatchResult | None = None


OnDevice = Callable[[Job, BatchResults, Callable[[int], None]], None]
"""Runs the problems on a device, and calls the last argument with the number of those that have ended."""


def run_batch(job: Job, engine: Engine | int, company: Company, on_device: OnDevice | None = None) -> BatchResult:
    """Run all problems that have no result yet, and return the results of all.

    Parameters
    ----------
    job : Job
        The problems.
    engine : int or map-like
        What runs them, unless `on_device` does.
    company : Company
        What accompanies them.
    on_device : callable, optional
        See `OnDevice`.

    Raises
    ------
    Exception
        What the objective raised, if it was the same for every problem at its first evaluation.
    IncompleteBatchError
        If what ran the problems failed.
    """
    results = job.empty_results()
    exceptions = take_earlier(company.state, results, job.bounds)
    objective = None if callable(engine) or on_device else job.compiled()
    if objective is None and is_jitted(job.problem.fun) and not callable(engine):
        engine = 1  # compiled functions that call Python hold what other threads or processes would wait for
    if objective is None and not callable(engine) and engine > 1:
        check_sendable(job.problem)
    watch = FailureWatch(job, results, exceptions, counts=on_device is None)
    as_result = functools.partial(
        batch_result, exceptions=exceptions, options=job.options, gradient=job.problem.gradient_source
    )
    writer = CheckpointWriter(
        company.checkpoint, company.checkpoint_every, lambda: as_result(snapshot(results)).to_tree()
    )
    count = len(job.starts)
    with progress_bar(count, "problem") if company.progress else contextlib.nullcontext() as bar:

        def on_done(count: int) -> None:
            if bar is not None:
                bar.update(count)
            watch.check()
            writer.write_if_due()

        failure: BaseException | None = None
        try:
            failure = _run(job, objective, engine, on_device, results, exceptions, on_done)
        except SharedError as error:
            failure = error
        finally:
            if not isinstance(failure, SharedError):  # a resumed batch would not run these problems again
                writer.write()
    if isinstance(failure, SharedError):
        raise failure.error
    result = as_result(results)
    if failure is not None:
        raise IncompleteBatchError(result) from failure
    return result


def _run(
    job: Job,
    objective: Any,
    engine: Engine | int,
    on_device: OnDevice | None,
    results: BatchResults,
    exceptions: dict[int, Exception],
    on_done: Callable[[int], None],
) -> BaseException | None:
    """Run the problems where they are to run; return the error that kept some of them from being run."""
    if on_device is not None:
        on_device(job, results, on_done)
        exceptions.update(exceptions_of(job, results, exceptions))
    elif callable(engine) or (objective is None and engine > 1):
        return run_elsewhere(job, engine, results, exceptions, on_done)
    else:
        run_here(job, objective, engine, results, exceptions, on_done)
    return None
