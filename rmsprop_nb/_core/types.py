"""What is passed between the rooms: exit codes, the rule's constants and switches, the state of a run."""

from __future__ import annotations

from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


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


class Variant(NamedTuple):
    """The switches of the rule. They are compile-time constants: a kernel moves only the state it needs."""

    centered: bool = False
    momentum: bool = False
    nesterov: bool = False
    eps_inside_sqrt: bool = False
    bias_correction: bool = False
    weight_decay: bool = False
    decoupled_weight_decay: bool = False
    lr_in_momentum: bool = False


class Hyper(NamedTuple):
    """The numbers of the rule, cast to the parameters' dtype so that a float32 kernel stays float32.

    ``one_minus_beta`` is formed in double precision and then rounded, as PyTorch and optax do: in float32 it is not
    ``1 - beta``.
    """

    beta: Any
    one_minus_beta: Any
    eps: Any
    momentum: Any
    weight_decay: Any

    @classmethod
    def of(cls, dtype: Any, beta: float, eps: float, momentum: float = 0.0, weight_decay: float = 0.0) -> Hyper:
        """Cast the hyper-parameters to `dtype`."""
        return cls(*map(np.dtype(dtype).type, (beta, 1.0 - beta, eps, momentum, weight_decay)))


class StoppingTests(NamedTuple):
    """The limits that compiled code checks at every iteration. A test that is off holds a value it cannot meet."""

    gtol: float
    ftol: float
    xtol: float
    f_target: float
    maxiter: int
    maxfev: int
    patience: int
    largest_gradient: float  # its square must not overflow: S = inf would make every later step zero


class Settings(NamedTuple):
    """What a run is given besides its state."""

    hyper: Hyper
    tests: StoppingTests
    rates: NDArray[Any]  # learning rates of the next steps; the last one holds for all that follow
    curvature: float  # fraction of the slope that a line search may leave
    blocks: int  # pieces of a vector worked on at the same time
    team: Any = None  # the threads that share a vector, a Team; see _team


class MinibatchSettings(NamedTuple):
    """What a run over mini-batches is given besides its state; clipping that is off has an infinite limit."""

    hyper: Hyper
    rates: NDArray[Any]
    largest_gradient: float
    clip_value: float
    clip_norm: float
    accumulate: int  # batches to a step
    batches: int  # in an epoch
    epochs: int
    horizon: int  # steps over which an automatic rate falls to 0, or 0 if it does not
    averaging: bool
    blocks: int


class Arrays(NamedTuple):
    """The vectors of a run, all of one floating dtype and contiguous; unused ones have size 0.

    The user's function is given ``x_eval`` and may scribble on it: no later computation reads it.
    """

    x: NDArray[Any]
    g: NDArray[Any]
    x_eval: NDArray[Any]
    g_eval: NDArray[Any]
    x_best: NDArray[Any]
    g_best: NDArray[Any]
    square_avg: NDArray[Any]
    grad_avg: NDArray[Any]
    momentum_buffer: NDArray[Any]
    metric: NDArray[Any]
    lower: NDArray[Any]
    upper: NDArray[Any]
    steps: NDArray[Any]  # (memory, n): the last steps, and the changes of the gradient over them
    gradient_changes: NDArray[Any]
    pair_sums: NDArray[Any]  # (memory, 2), float64: s.y of each pair, and what the first loop leaves for the second


class MinibatchArrays(NamedTuple):
    """The vectors of a run over mini-batches, as in `Arrays`; unused ones have size 0."""

    x: NDArray[Any]
    g: NDArray[Any]  # sum of the gradients of the batches of an unfinished step
    x_eval: NDArray[Any]
    g_eval: NDArray[Any]
    x_avg: NDArray[Any]
    x_best: NDArray[Any]
    square_avg: NDArray[Any]
    grad_avg: NDArray[Any]
    momentum_buffer: NDArray[Any]
    start: NDArray[Any]
    inner_avg: NDArray[Any]
    own_distance: NDArray[Any]
    lower: NDArray[Any]
    upper: NDArray[Any]
    scale: NDArray[Any]  # of the learning rate of each parameter
    epoch_fun: NDArray[np.float64]
    validation_fun: NDArray[np.float64]


class Phase(IntEnum):
    """What the next evaluation is for."""

    START = 0
    ITERATE = 1
    SEARCH = 2
    TAKE_BEST = 3


_COUNTERS = [
    "status",
    "phase",
    "pending",
    "nit",
    "nfev",
    "step",
    "first_step",
    "since_best",
    "trials",
    "restarts",
    "pairs",
    "newest",
    "stagnation",
]
_FLAGS = ["bracketed", "has_best", "fresh"]
_REALS = ["f", "f_best", "f_prev", "f_mark", "gnorm", "gnorm_mark", "dx", "rate", "f_floor"]
_SEARCH = ["a", "slope0", "lo", "f_lo", "slope_lo", "hi", "f_hi", "slope_hi", "width", "a_best", "f_trial_best"]

# One record holds every scalar of a run, so that a run can stop after any evaluation, be saved, and go on.
PROGRESS_DTYPE = np.dtype(
    [(name, np.int64) for name in _COUNTERS + _FLAGS] + [(name, np.float64) for name in _REALS + _SEARCH]
)


MINIBATCH_DTYPE = np.dtype(
    [("seed", np.uint64)]
    + [
        (name, np.int64)
        for name in [
            "status",
            "nit",
            "nfev",
            "step",
            "first_step",
            "batch",
            "accumulated",
            "weight",
            "rows",
            "since_best",
        ]
    ]
    + [
        (name, np.float64)
        for name in ["f", "f_batch", "f_sum", "f_best", "gnorm", "rate", "distance", "distance_before"]
    ]
)
