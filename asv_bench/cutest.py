"""CUTEst problems as NumPy functions. They come from sif2jax (on PyPI), which needs JAX.

Large problems whose size is a parameter are made small. Some are for tuning, in cutest_tuning.txt; nothing may be
tuned on the others.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import sif2jax
from jax.flatten_util import ravel_pytree

SMALL, LARGE = 100, 1000  # a problem with more variables than LARGE is made as small as SMALL, if possible
LARGEST = 6000

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_platforms", "cpu")


class Problem(NamedTuple):
    """``fun(x) -> f`` and ``with_gradient(x) -> (f, gradient)``, the start, and the bounds, if any."""

    name: str
    fun: Callable[..., Any]
    with_gradient: Callable[..., Any]
    x0: Any
    bounds: Any


def smaller(problem):
    """Return the problem with about SMALL variables, or unchanged if its size is not a parameter."""
    n = size_of(problem)
    if n <= LARGE:
        return problem
    for field in dataclasses.fields(problem):
        value = getattr(problem, field.name)
        if not field.init or not isinstance(value, int) or field.name == "y0_iD" or value < 8:
            continue
        for exponent in (1.0, 0.5):  # of the variables, or of a grid's side
            for more in range(4):
                try:
                    candidate = type(problem)(**{field.name: round(value * (SMALL / n) ** exponent) + more})
                    if 20 <= size_of(candidate) <= 3 * SMALL:
                        jax.eval_shape(candidate.objective, candidate.y0, candidate.args)
                        return candidate
                except Exception:  # noqa: BLE001, S112  # constructors raise all kinds of errors for unsuitable sizes
                    continue
    return problem


def size_of(problem):
    return sum(np.size(leaf) for leaf in jax.tree.leaves(problem.y0))


def compiled(problem, largest):
    """Return the problem on flat NumPy vectors, or None if it cannot be run."""
    try:
        problem = smaller(problem)
        if size_of(problem) > largest:
            return None
        x0, unravel = ravel_pytree(jax.tree.map(lambda a: np.asarray(a, np.float64), problem.y0))

        def objective(x):
            return problem.objective(unravel(x), problem.args)

        value = jax.jit(objective).lower(x0).compile()
        pair = jax.jit(jax.value_and_grad(objective)).lower(x0).compile()

        def fun(x):
            return float(value(np.asarray(x, np.float64)))

        def with_gradient(x):
            f, g = pair(np.asarray(x, np.float64))
            return float(f), np.asarray(g)

        with_gradient(np.asarray(x0))
        return Problem(problem.name, fun, with_gradient, np.array(x0), bounds_of(problem, x0.size))
    except Exception as error:  # noqa: BLE001  # some problems of the collection cannot be constructed
        print(f"left out: {problem.name}: {str(error)[:100]!r}", flush=True)
        return None


def bounds_of(problem, n):
    if not hasattr(problem, "bounds") or problem.bounds is None:
        return None
    lower, upper = (np.asarray(ravel_pytree(side)[0], np.float64) for side in problem.bounds)
    return np.column_stack([np.broadcast_to(lower, n), np.broadcast_to(upper, n)])


def load(tuning: bool, largest: int = LARGEST):
    """Yield the problems of one list that have at most `largest` variables."""
    text = (Path(__file__).parent / "cutest_tuning.txt").read_text(encoding="utf-8")
    names = {line for line in text.split("\n") if line and not line.startswith("#")}
    everything = (*sif2jax.unconstrained_minimisation_problems, *sif2jax.bounded_minimisation_problems)
    seen = set()
    for problem in everything:
        if (problem.name in names) == tuning and problem.name not in seen:
            seen.add(problem.name)
            made = compiled(problem, largest)
            if made is not None:
                yield made
