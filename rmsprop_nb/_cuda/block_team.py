"""Sums and largest values over the threads of a block, by a tree whose order is always the same.

The places through which threads hand on their parts belong to the kernel, because a device function with shared memory
of its own cannot be linked into a kernel twice.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import types

from rmsprop_nb._cuda.native import COMPILES, SIMULATED, cuda
from rmsprop_nb._kernels.thread_team import SIMULATED as SIMULATED_TEAM
from rmsprop_nb._kernels.thread_team import team_largest, team_sum, team_sums

LARGEST_TEAM = 2 if SIMULATED else 128
"""Most threads to a problem; a power of two, as every size of a team is."""


@cuda.jit(device=True)
def block_sum(team, part):
    """Sum over the threads of a block."""
    places, rank, half = team.places, team.rank, team.size // 2
    places[rank] = part
    cuda.syncthreads()
    while half > 0:
        if rank < half:
            places[rank] += places[rank + half]
        cuda.syncthreads()
        half //= 2
    total = places[0]
    cuda.syncthreads()  # before somebody writes the next part
    return total


@cuda.jit(device=True)
def block_largest(team, part):
    """Largest value over the threads of a block; NaN if there is one."""
    places, rank, half = team.places, team.rank, team.size // 2
    places[rank] = part
    cuda.syncthreads()
    while half > 0:
        if rank < half:
            other = places[rank + half]
            if other > places[rank] or math.isnan(other):
                places[rank] = other
        cuda.syncthreads()
        half //= 2
    largest = places[0]
    cuda.syncthreads()
    return largest


def make_evaluate_together(evaluate: Any) -> Any:
    """Make ``f(x, g, team, args, rows, b) -> (whether all threads live, sum of what evaluate returns)``.

    A thread in which the objective raises is gone, and barriers no longer wait for it. So each says after it has
    evaluated that it is there, in a second row of places.
    """

    def evaluate_together(x, g, team, args, rows, b):
        present = team.places[team.size :]
        present[team.rank] = 0.0
        cuda.syncthreads()  # x and g are whole
        part = evaluate(x, g, team, args, rows, b)
        present[team.rank] = 1.0
        total = block_sum(team, part)  # the gradient is whole after this
        lives = True
        for k in range(team.size):
            lives = lives and present[k] == 1.0
        cuda.syncthreads()
        return lives, total

    return cuda.jit(device=True)(evaluate_together)


if SIMULATED:
    SIMULATED_TEAM.update(sum=block_sum, largest=block_largest)
elif COMPILES:
    from rmsprop_nb._cuda.native import overload

    @overload(team_sum, target="cuda")
    def _team_sum(team, part):  # noqa: ARG001
        if isinstance(team, types.NoneType):
            return lambda team, part: part  # noqa: ARG005
        return lambda team, part: block_sum(team, part)

    @overload(team_largest, target="cuda")
    def _team_largest(team, part):
        if isinstance(team, types.NoneType):
            return lambda team, part: part  # noqa: ARG005
        if part == types.float32:
            return lambda team, part: np.float32(block_largest(team, part))
        return lambda team, part: block_largest(team, part)

    @overload(team_sums, target="cuda")
    def _team_sums(team, parts):
        if isinstance(team, types.NoneType):
            return lambda team, parts: parts  # noqa: ARG005
        if len(parts) == 1:
            return lambda team, parts: (block_sum(team, parts[0]),)
        return lambda team, parts: (block_sum(team, parts[0]), *team_sums(team, parts[1:]))
