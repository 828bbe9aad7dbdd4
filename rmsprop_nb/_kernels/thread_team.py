"""A team: the threads that work on one problem. On the CPU it is one thread, on a CUDA device it may be a block.

Each member has a share of every vector. Elementwise operations work on the share; sums and comparisons over a whole
vector go through these functions. A team of None is a single thread, and costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from numba.extending import overload


class Team(NamedTuple):
    """A thread's rank and its team's size, for an objective that a block of threads evaluates together.

    Attributes
    ----------
    rank : int
        Number of this thread, from 0.
    size : int
        Number of threads in the team.
    places : array or None
        Array that `team_sum` works with.

    Examples
    --------
    >>> from rmsprop_nb.cuda import Team
    >>> Team()
    Team(rank=0, size=1, places=None)
    """

    rank: int = 0
    size: int = 1
    places: Any = None  # an array that all threads of a block share, with one element for each


SIMULATED: dict[str, Callable[[Team, Any], Any]] = {}
"""The same operations for the threads of the simulator, which does not support overloads."""


def team_sum(team: Team | None, part: Any) -> Any:
    """Add up the parts of all threads of a team; all of them must call this, and all get the sum.

    Parameters
    ----------
    team : Team
        The team that the objective received.
    part : float
        The part of this thread.

    Returns
    -------
    total : float
        The sum of all parts, in float64, always added in the same order.

    Examples
    --------
    >>> from rmsprop_nb.cuda import Team, team_sum
    >>> team_sum(Team(), 2.5)
    2.5
    """
    return part if team is None or team.size == 1 else SIMULATED["sum"](team, part)


def team_sums(team: Team | None, parts: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return `team_sum` of each of several parts."""
    return parts if team is None else tuple(team_sum(team, part) for part in parts)


def team_largest(team: Team | None, part: Any) -> Any:
    """Return the largest part of any thread; NaN if one of them is NaN."""
    return part if team is None or team.size == 1 else SIMULATED["largest"](team, part)


for _function in (team_sum, team_largest):

    @overload(_function)
    def _alone(team, part):  # noqa: ARG001
        return lambda team, part: part  # noqa: ARG005


@overload(team_sums)
def _alone_with_several(team, parts):  # noqa: ARG001
    return lambda team, parts: parts  # noqa: ARG005
