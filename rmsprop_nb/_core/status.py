"""Why a run ended: the codes, and the messages that go with them."""

from __future__ import annotations

from enum import IntEnum


class Status(IntEnum):
    """Why a run ended.

    ``GTOL``, ``FTOL``, ``XTOL`` and ``F_TARGET`` are tests the user asked for; with mini-batches, where no test can
    tell noise from progress, ``EPOCHS`` and ``EARLY_STOP`` say that the run went as planned. These count as success,
    and no others. The codes 0 to 3 mean what they mean for SciPy's BFGS, and 99 what it means for every SciPy method.
    """

    RUNNING = -1
    GTOL = 0
    MAXITER = 1
    PRECISION_LOSS = 2
    NONFINITE = 3
    UNBOUNDED = 4
    MAXFEV = 5
    MAXTIME = 6
    STALLED = 7
    EXCEPTION = 8
    FTOL = 10
    XTOL = 11
    F_TARGET = 12
    EPOCHS = 13
    EARLY_STOP = 14
    INTERRUPTED = 98
    CALLBACK_STOP = 99

    @property
    def success(self) -> bool:
        """Whether a convergence test was met, or a run over mini-batches went as planned."""
        return Status.FTOL <= self <= Status.EARLY_STOP or self is Status.GTOL


MESSAGES: dict[Status, str] = {
    Status.GTOL: "Converged: the gradient's max-norm is at most gtol.",
    Status.MAXITER: "Maximum number of iterations has been reached.",
    Status.PRECISION_LOSS: "No further progress is possible at this precision; the gradient is still above gtol.",
    Status.NONFINITE: "The objective or its gradient is NaN, infinite, or too large to be squared.",
    Status.UNBOUNDED: "The objective appears to be unbounded below.",
    Status.MAXFEV: "Maximum number of function evaluations has been reached.",
    Status.MAXTIME: "Maximum run time has been reached.",
    Status.STALLED: "No improvement of the objective in the last `patience` iterations.",
    Status.EXCEPTION: "The objective raised an exception.",
    Status.FTOL: "Converged: the relative change of the objective is at most ftol.",
    Status.XTOL: "Converged: the relative change of x is at most xtol.",
    Status.F_TARGET: "Converged: the objective has reached f_target.",
    Status.EPOCHS: "All epochs have been run.",
    Status.EARLY_STOP: "Stopped early: no improvement on the validation data in the last `patience` epochs.",
    Status.INTERRUPTED: "Interrupted from the keyboard; the best point so far is returned.",
    Status.CALLBACK_STOP: "`callback` raised `StopIteration`.",
}
