"""The state of a run: its vectors, and one record of all scalars."""

from __future__ import annotations

from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

ROOM = 512
"""Bytes between two vectors of a run: more than compiled code takes in at once.

A loop that writes one vector and sums over others takes a slower path where they are so near that a wide access might
reach from one into the next; it adds in another order, so the last bit would depend on where memory was free.
"""


def apart(a: NDArray[Any]) -> NDArray[Any]:
    """Return a contiguous copy with ROOM behind it."""
    copied = np.empty(a.size + ROOM // a.itemsize, a.dtype)[: a.size].reshape(a.shape)
    copied[...] = a
    return copied


class Arrays(NamedTuple):
    """The vectors of a run, all of one floating dtype and contiguous; unused ones have size 0.

    The user's function is given ``x_eval`` and may write to it: no later computation reads it.
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
    direction: NDArray[Any]  # of the line search
    metric: NDArray[Any]  # M, by which a search divides
    x_scale: NDArray[Any]  # the typical size of each variable
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
    REFRESH = 4  # the gradient at x, by other differences
    MEASURE = 5  # the noise of f
    COMPARE = 6  # the gradient at x by differences of twice the steps, which tells how accurate it is
    CONFIRM = 7  # the gradient near x, which tells whether the sizes of the variables are right


_COUNTERS = [
    "status",
    "phase",
    "pending",
    "nit",
    "nfev",
    "calls",
    "evaluations",
    "step",
    "first_step",
    "since_best",
    "trials",
    "contradictions",
    "restarts",
    "pairs",
    "newest",
    "mark",
    "samples",
    "comparisons",
    "verdict",
]

_FLAGS = ["bracketed", "has_best", "fresh", "measured", "compared"]

_REALS = [
    "f", "f_best", "f_start", "f_prev", "f_mark", "f_floor", "f_eps", "f_noise", "gnorm", "gain", "gain_mark", "bend",
    "unsure", "dx", "rate", "rel_step", "longer_step", "noise_0", "noise_1", "noise_2",
    "damping", "growth", "predicted",
]  # fmt: skip

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
            "observed",  # epochs that validation and the schedule know of
            "cooling_from",  # the step at which an automatic rate began to fall to 0 before its time
            "cooling_steps",  # how many steps it takes, or 0
        ]
    ]
    + [
        (name, np.float64)
        for name in ["f", "f_batch", "f_sum", "f_best", "gnorm", "rate", "distance", "distance_before", "usual"]
    ]
)
