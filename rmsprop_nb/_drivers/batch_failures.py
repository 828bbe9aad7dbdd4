"""An exception that all problems of a batch share: it is raised at once instead of being stored for each."""

from __future__ import annotations

import dataclasses
from typing import Any

from rmsprop_nb._core.status import Status
from rmsprop_nb._drivers.batch_loop import BatchResults
from rmsprop_nb._drivers.batch_result import as_text
from rmsprop_nb._drivers.batch_threads import KEPT_EXCEPTIONS, Job, exceptions_of
from rmsprop_nb._drivers.solve import run

WITNESSES = 256
"""Number of problems at the beginning of a batch that must all fail; a smaller batch must fail as a whole."""


class SharedError(Exception):
    """The same exception of every problem, at its first evaluation, is `error`."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


class FailureWatch:
    """Sees whether the first problems all raise the same exception at their first evaluation.

    Only these problems count, so that it does not depend on which of the others ran at the same time.

    Parameters
    ----------
    job : Job
        The problems.
    results, exceptions
        What is known so far; exceptions of compiled problems are added when they are looked for.
    counts : bool
        Whether the results of a problem that raised say how many evaluations it had, as those of a device do not.
    """

    def __init__(self, job: Job, results: BatchResults, exceptions: dict[int, Exception], *, counts: bool) -> None:
        self._job = job
        self._results = results
        self._exceptions = exceptions
        self._counts = counts
        self._undecided = True

    def check(self) -> None:
        """Raise a SharedError if it is so; called whenever problems have ended."""
        if not self._undecided:
            return
        status, evaluations = self._results.status[:WITNESSES], self._results.njev[:WITNESSES]
        if (status == Status.INTERRUPTED).any():
            self._undecided = bool(((status == Status.INTERRUPTED) | (status == Status.EXCEPTION)).all())
            return
        self._undecided = False
        if (status == Status.EXCEPTION).all() and not evaluations.any():
            self._compare()

    def _compare(self) -> None:
        """Raise if the exceptions that are kept are the same."""
        self._exceptions.update(exceptions_of(self._job, self._results, self._exceptions))
        first = range(min(len(self._results.status), KEPT_EXCEPTIONS))
        if any(k not in self._exceptions or not self._at_start(k) for k in first):
            return
        errors = [self._exceptions[k] for k in first]
        if len({str(as_text(error)) for error in errors}) == 1:
            errors[0].add_note(self._note())
            raise SharedError(errors[0])

    def _note(self) -> str:
        count = len(self._results.status)
        which = "The problem" if count == 1 else f"Each of the {count} problems"
        if count > WITNESSES:
            which = f"Each of the first {WITNESSES} problems"
        return f"{which} of this batch raised this at its first evaluation, so the batch was ended."

    def _at_start(self, k: int) -> bool:
        """Return whether problem k raises at its first evaluation."""
        if self._counts:
            return True
        options: Any = dataclasses.replace(self._job.options_of(k), maxfev=1)
        try:
            run(self._job.alone(k), self._job.starts[k], options, None)
        except Exception:  # noqa: BLE001 - what it is has been seen
            return True
        return False
