"""Why a run ended: the codes and their messages."""

from __future__ import annotations

from enum import IntEnum


class Status(IntEnum):
    """The reason why a run ended.

    ``GTOL``, ``FTOL``, ``XTOL`` and ``F_TARGET`` are the user's convergence tests; ``ROUNDING`` means that the point is
    as good as the precision of f, its gradient and x can tell. With mini-batches no test can tell noise from progress;
    there, ``EPOCHS`` and ``EARLY_STOP`` mean that the run went as planned. Only these seven count as success. The codes
    0 to 3 mean the same as for SciPy's BFGS, and 99 the same as for every SciPy method.
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
    ROUNDING = 15
    WRONG_GRADIENT = 16
    UNDETERMINED = 17
    INTERRUPTED = 98
    CALLBACK_STOP = 99

    @property
    def success(self) -> bool:
        """Whether a convergence test was met, or a run over mini-batches went as planned."""
        return Status.FTOL <= self <= Status.ROUNDING or self is Status.GTOL


MESSAGES: dict[Status, str] = {
    Status.GTOL: "Converged: beside what has been gained, next to nothing is left to gain.",
    Status.MAXITER: "Maximum number of iterations has been reached.",
    Status.PRECISION_LOSS: (
        "No further progress is possible at this precision, though the gradient is not small: f may have a kink or "
        "noise there, or the gradient may not be that of fun, which rmsprop_nb.check_gradient can tell."
    ),
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
    Status.EARLY_STOP: "Stopped early: the loss on the validation data had not fallen for `patience` epochs.",
    Status.ROUNDING: "Converged as far as the precision of f, of its gradient and of x can tell.",
    Status.WRONG_GRADIENT: (
        "f rises from x0 where the gradient says that it falls: the gradient may not be that of fun, which "
        "rmsprop_nb.check_gradient can tell, or f has a kink at x0."
    ),
    Status.UNDETERMINED: "There are fewer points than parameters to be found.",
    Status.INTERRUPTED: "Interrupted from the keyboard; the best point so far is returned.",
    Status.CALLBACK_STOP: "`callback` raised `StopIteration`.",
}

GTOL_MESSAGE = "Converged: the gradient is at most gtol."
"""The message of GTOL where the user, or the textbook rule, has a gtol."""
