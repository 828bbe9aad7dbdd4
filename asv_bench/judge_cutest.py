"""Count the CUTEst problems solved without tuning. They come from sif2jax (on PyPI), which needs JAX.

    python judge_cutest.py                   # the problems for judging: never tune anything on them
    python judge_cutest.py --tuning          # those of cutest_tuning.txt, for tuning
    python judge_cutest.py --only rmsprop --tuning --failures

Prints tables in Markdown: for how many problems the max-norm of the (projected) gradient falls to 1e-5 within 10,000
evaluations ("solved"), and for how many of these f is also within 1e-3*max(1, |f|) of the lowest value that any method
here has found ("jointly"). Large problems whose size is a parameter are made small (about 100 variables). A problem
counts as unsolved if a method takes longer than ``--seconds`` on it. With JAX_COMPILATION_CACHE_DIR set, a second run
starts faster.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import scipy.optimize
import sif2jax
from jax.flatten_util import ravel_pytree

from rmsprop_nb import Status, minimize

GTOL = 1e-5
F_TOLERANCE = 1e-3
EVALUATIONS = 10_000
SMALL, LARGE = 100, 1000  # a problem with more variables than LARGE is made as small as SMALL, if possible
LARGEST = 6000

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_platforms", "cpu")


class Problem(NamedTuple):
    """``fun(x) -> (f, gradient)``, the start and the bounds, if any."""

    name: str
    fun: Callable[..., Any]
    x0: Any
    bounds: Any


class End(NamedTuple):
    """The end of a run: f and the gradient there, the number of evaluations, the message, and x."""

    f: float
    gnorm: float
    evaluations: int
    message: str
    x: Any


class OutOfTimeError(Exception):
    """The method has used up its evaluations or seconds."""


# -- problems ---------------------------------------------------------------------------------------------------------


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


def compiled(problem):
    """Return the problem on flat NumPy vectors, or None if it cannot be run."""
    try:
        problem = smaller(problem)
        if size_of(problem) > LARGEST:
            return None
        x0, unravel = ravel_pytree(jax.tree.map(lambda a: np.asarray(a, np.float64), problem.y0))

        def objective(x):
            return problem.objective(unravel(x), problem.args)

        run = jax.jit(jax.value_and_grad(objective)).lower(x0).compile()

        def fun(x):
            f, g = run(np.asarray(x, np.float64))
            return float(f), np.asarray(g)

        fun(np.asarray(x0))
        return Problem(problem.name, fun, np.array(x0), bounds_of(problem, x0.size))
    except Exception as error:  # noqa: BLE001  # some problems of the collection cannot be constructed
        print(f"left out: {problem.name}: {str(error)[:100]!r}", flush=True)
        return None


def bounds_of(problem, n):
    if not hasattr(problem, "bounds") or problem.bounds is None:
        return None
    lower, upper = (np.asarray(ravel_pytree(side)[0], np.float64) for side in problem.bounds)
    return np.column_stack([np.broadcast_to(lower, n), np.broadcast_to(upper, n)])


def load(tuning: bool):
    """Yield the problems of one list."""
    text = (Path(__file__).parent / "cutest_tuning.txt").read_text(encoding="utf-8")
    names = {line for line in text.split("\n") if line and not line.startswith("#")}
    everything = (*sif2jax.unconstrained_minimisation_problems, *sif2jax.bounded_minimisation_problems)
    seen = set()
    for problem in everything:
        if (problem.name in names) == tuning and problem.name not in seen:
            seen.add(problem.name)
            made = compiled(problem)
            if made is not None:
                yield made


# -- methods ----------------------------------------------------------------------------------------------------------


def ours(fun, problem, method):
    result = minimize(
        fun, problem.x0, jac=True, bounds=problem.bounds, method=method,
        options={"gtol": GTOL, "maxfev": EVALUATIONS, "maxiter": EVALUATIONS},
    )  # fmt: skip
    return result.x, Status(result.status).name


def l_bfgs_b(fun, problem):
    x0 = problem.x0 if problem.bounds is None else np.clip(problem.x0, *problem.bounds.T)
    result = scipy.optimize.minimize(
        fun, x0, jac=True, bounds=problem.bounds, method="L-BFGS-B",
        options={"gtol": GTOL, "ftol": 0.0, "maxfun": EVALUATIONS, "maxiter": EVALUATIONS},
    )  # fmt: skip
    return result.x, result.message


METHODS = {
    "rmsprop": functools.partial(ours, method="rmsprop"),
    "rmsprop-lbfgs": functools.partial(ours, method="rmsprop-lbfgs"),
    "L-BFGS-B, ftol=0": l_bfgs_b,
}


def run(method, problem, seconds):
    """Run a method on a problem within the limits."""
    count, stop = 0, time.perf_counter() + seconds

    def counted(x):
        nonlocal count
        if count >= EVALUATIONS or time.perf_counter() > stop:
            raise OutOfTimeError
        count += 1
        return problem.fun(x)

    try:
        with np.errstate(all="ignore"):
            x, message = method(counted, problem)
    except OutOfTimeError:
        return End(np.inf, np.inf, count, "out of time", problem.x0)
    f, g = problem.fun(x)
    step = g if problem.bounds is None else x - np.clip(x - g, *problem.bounds.T)
    return End(f, float(np.abs(step).max()), count, message, x)


# -- tables -----------------------------------------------------------------------------------------------------------


def solved(end):
    return end.gnorm <= GTOL * (1.0 + 1e-6)


def lowest(ends, name):
    """Return the lowest value that any method has found for a problem."""
    return min(found[name].f for found in ends.values())


def jointly(end, best):
    return solved(end) and end.f <= best + F_TOLERANCE * max(1.0, abs(best))


def print_tables(problems, ends, failures):
    for title, chosen in (
        ("unconstrained", [p.name for p in problems if p.bounds is None]),
        ("bounded", [p.name for p in problems if p.bounds is not None]),
    ):
        best = {name: lowest(ends, name) for name in chosen}
        print(f"\n| {len(chosen)} {title} problems | solved | jointly | evaluations, median |\n|---|---|---|---|")
        for method, found in ends.items():
            done = [name for name in chosen if solved(found[name])]
            joint = [name for name in chosen if jointly(found[name], best[name])]
            median = np.median([found[name].evaluations for name in done]) if done else np.nan
            print(f"| {method} | {len(done)} | {len(joint)} | {median:.0f} |")
        for method, found in ends.items() if failures else ():
            print(f"\n{method}, not solved jointly:")
            for name in chosen:
                if not jointly(found[name], best[name]):
                    end = found[name]
                    print(
                        f"  {name:12s} n={end.x.size:<5d} |g|={end.gnorm:.1e} f={end.f:.6e} best={best[name]:.6e} "
                        f"evaluations={end.evaluations} {end.message}"
                    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tuning", action="store_true", help="use the list for tuning")
    parser.add_argument("--only", choices=METHODS, action="append", help="run this method only; may be repeated")
    parser.add_argument("--seconds", type=float, default=60.0, help="limit for each method on each problem")
    parser.add_argument("--failures", action="store_true", help="list the problems that were not solved")
    arguments = parser.parse_args()
    methods = {name: METHODS[name] for name in arguments.only or METHODS}
    problems = []
    ends: dict[str, dict[str, End]] = {name: {} for name in methods}
    for problem in load(arguments.tuning):
        problems.append(problem._replace(fun=None))
        for name, method in methods.items():
            ends[name][problem.name] = run(method, problem, arguments.seconds)
        jax.clear_caches()
    print_tables(problems, ends, arguments.failures)


if __name__ == "__main__":
    main()
