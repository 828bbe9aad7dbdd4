"""A learning rate that falls when the loss no longer does: the only schedule with a state."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rmsprop_nb._core.names_elsewhere import explain_keywords
from rmsprop_nb._core.validate import as_number


def check_positive(**arguments: float) -> None:
    """Raise unless every argument is positive and finite."""
    for name, value in arguments.items():
        as_number(name, value, 0.0, math.inf, open_low=True, open_high=True)


@explain_keywords()
class ReduceOnPlateau:
    """A schedule that lowers the rate when the loss no longer falls.

    `minimize_minibatch` calls `update` after every epoch, with the value on the validation data if there are any, and
    otherwise with the mean over the epoch's batches. With `minimize`, call it in a callback. In your own loop, call it
    whenever you know a loss.

    Parameters
    ----------
    learning_rate : float
        First rate; positive.
    factor : float, default 0.1
        Factor that the rate is multiplied by; between 0 and 1.
    patience : int, default 10
        Number of updates without improvement that are tolerated; the next one lowers the rate.
    threshold : float, default 1e-4
        A loss below ``best - threshold*|best|`` is an improvement; not negative.
    cooldown : int, default 0
        Number of updates after a reduction that are not counted.
    least : float, default 0.0
        Lowest rate; from 0 to `learning_rate`.

    Attributes
    ----------
    rate : float
        The current rate; ``schedule(step)`` returns it for every step.
    best : float
        Lowest loss so far.
    waiting, cooling : int
        Number of updates without improvement, and number of updates left in the cooldown.
    state : ndarray, shape (4,)
        These four as numbers, which the states and checkpoints of runs keep: a run that is resumed sets them. Any
        schedule that has such a vector of numbers is treated in this way.

    Raises
    ------
    ValueError
        If an argument is out of its range.

    Notes
    -----
    The rule is that of PyTorch's ReduceLROnPlateau in its default mode, except for a negative best loss: there,
    repeating it would count as an improvement.

    Examples
    --------
    >>> from rmsprop_nb import schedules
    >>> schedule = schedules.ReduceOnPlateau(0.1, factor=0.5, patience=1)
    >>> [schedule.update(loss) for loss in (3.0, 2.0, 2.0, 2.0, 1.0)]
    [0.1, 0.1, 0.1, 0.05, 0.05]
    >>> schedule(1000)
    0.05

    With `minimize`:

    >>> from rmsprop_nb import minimize
    >>> schedule = schedules.ReduceOnPlateau(0.1, factor=0.5, patience=1)
    >>> def tell(intermediate_result):
    ...     schedule.update(intermediate_result.fun)
    >>> result = minimize(lambda x: abs(x[0] - 0.3), [1.0], callback=tell, options={"learning_rate": schedule})
    >>> result.fun < 1e-6
    True
    """

    def __init__(
        self,
        learning_rate: float,
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        cooldown: int = 0,
        least: float = 0.0,
    ) -> None:
        check_positive(learning_rate=learning_rate)
        as_number("factor", factor, 0.0, 1.0, open_low=True, open_high=True)
        for name, value in (("patience", patience), ("threshold", threshold), ("cooldown", cooldown), ("least", least)):
            as_number(name, value, 0.0, math.inf, open_high=True)
        if least > learning_rate:
            msg = f"least must be at most learning_rate={learning_rate!r}, got {least!r}: the rate is never raised."
            raise ValueError(msg)
        self._factor, self._patience, self._threshold = factor, patience, threshold
        self._cooldown, self._least = cooldown, least
        self.rate = learning_rate
        self.best = math.inf
        self.waiting = 0
        self.cooling = 0

    @property
    def state(self) -> NDArray[np.float64]:
        """What the schedule remembers."""
        return np.array([self.rate, self.best, self.waiting, self.cooling], dtype=np.float64)

    @state.setter
    def state(self, numbers: ArrayLike) -> None:
        remembered = np.array(numbers, dtype=np.float64)
        if remembered.shape != (4,) or not (0.0 <= remembered[0] < math.inf and (remembered[2:] >= 0.0).all()):
            msg = f"state must be what a ReduceOnPlateau had in its attribute of this name, got {numbers!r}."
            raise ValueError(msg)
        self.rate, self.best = float(remembered[0]), float(remembered[1])
        self.waiting, self.cooling = int(remembered[2]), int(remembered[3])

    def __call__(self, step: int) -> float:  # noqa: ARG002 - it is a schedule
        """Return the current rate."""
        return self.rate

    def update(self, loss: float) -> float:
        """Record a loss and return the resulting rate.

        Parameters
        ----------
        loss : float
            The loss; NaN is not an improvement.

        Returns
        -------
        rate : float
            The rate after the update.

        Examples
        --------
        >>> from rmsprop_nb import schedules
        >>> schedules.ReduceOnPlateau(0.1).update(1.0)
        0.1
        """
        if loss < self.best - self._threshold * (abs(self.best) if math.isfinite(self.best) else 0.0):
            self.best = loss
            self.waiting = 0
        else:
            self.waiting += 1
        if self.cooling > 0:
            self.cooling -= 1
            self.waiting = 0
        if self.waiting > self._patience:
            self.rate = max(self.rate * self._factor, self._least)
            self.cooling = self._cooldown
            self.waiting = 0
        return self.rate
