"""What a run takes besides its state: the switches and numbers of the rule, limits, learning rates."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


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
    """The limits that compiled code checks at every iteration. A test that is off has a value that is never met."""

    gtol: float
    gain_tol: float  # of what has been gained, for what can still be gained; on where gtol is off
    guessed_sizes: bool  # whether that is by sizes of the variables which are to be confirmed
    ftol: float
    xtol: float
    f_target: float
    maxiter: int
    maxfev: int
    patience: int
    largest_gradient: float  # its square must not overflow: S = inf would make every later step zero


class Sampling(NamedTuple):
    """How the objective makes a gradient.

    With differences, the error of f is their error too; where they are adaptive, a run chooses between forward and
    central ones.
    """

    calls: int = 0  # of fun for each variable
    differences: bool = False
    adaptive: bool = False


EXACT = Sampling()


class Settings(NamedTuple):
    """What a run takes besides its state."""

    hyper: Hyper
    tests: StoppingTests
    rates: NDArray[Any]  # learning rates of the next steps; the last one holds for all that follow
    curvature: float  # fraction of the slope that a line search may leave
    pieces: int  # of a vector, updated at the same time
    sampling: Sampling = EXACT
    team: Any = None  # the threads that share a vector, a Team; see _team


class MinibatchSettings(NamedTuple):
    """What a run over mini-batches takes besides its state; clipping that is off has an infinite limit."""

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
    keeps_lowest: bool  # whether x_best is where the epoch of the lowest mean ended, not where validation was best
    pieces: int  # of a vector, updated at the same time
