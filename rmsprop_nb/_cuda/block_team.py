"""Sums and largest values over the threads of a block, by a tree whose order is always the same.

The slots of shared memory in which threads leave their parts for each other belong to the kernel, because a device
function with its own shared memory cannot be linked into a kernel twice.
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
"""Largest number of threads that share a problem; a power of two, like every size of a team."""


@cuda.jit(device=True)
def block_sum(team, part):
    """Return the sum of the parts of all threads of a block."""
    slots, rank, half = team.places, team.rank, team.size // 2
    slots[rank] = part
    cuda.syncthreads()
    while half > 0:
        if rank < half:
            slots[rank] += slots[rank + half]
        cuda.syncthreads()
        half //= 2
    total = slots[0]
    cuda.syncthreads()  # all have read it before the next part is written
    return total


@cuda.jit(device=True)
def block_largest(team, part):
    """Return the largest of the parts of all threads of a block; NaN if there is one."""
    slots, rank, half = team.places, team.rank, team.size // 2
    slots[rank] = part
    cuda.syncthreads()
    while half > 0:
        if rank < half:
            other = slots[rank + half]
            if other > slots[rank] or math.isnan(other):
                slots[rank] = other
        cuda.syncthreads()
        half //= 2
    largest = slots[0]
    cuda.syncthreads()
    return largest


def make_evaluate_together(evaluate: Any) -> Any:
    """Make ``f(x, g, team, args, rows, b)``, which returns whether no thread has raised, and the sum of all parts of f.

    A thread in which the objective raises has ended, and barriers no longer wait for it. So each leaves a mark after it
    has evaluated, in a second row of slots.
    """

    def evaluate_together(x, g, team, args, rows, b):
        marks = team.places[team.size :]
        marks[team.rank] = 0.0
        cuda.syncthreads()  # all threads have written their parts of x and g
        part = evaluate(x, g, team, args, rows, b)
        marks[team.rank] = 1.0
        total = block_sum(team, part)  # after this the gradient is complete
        none_raised = True
        for k in range(team.size):
            none_raised = none_raised and marks[k] == 1.0
        cuda.syncthreads()
        return none_raised, total

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
