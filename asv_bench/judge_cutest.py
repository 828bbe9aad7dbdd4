"""Judge the methods on CUTEst problems, untuned. The problems come from sif2jax (on PyPI), which needs JAX.

    python judge_cutest.py                   # with gradients, on the problems for judging: never tune anything on them
    python judge_cutest.py --no-gradient     # with f alone, on those of at most 30 variables
    python judge_cutest.py --tuning          # on those of cutest_tuning.txt, for tuning
    python judge_cutest.py --only rmsprop --tuning --failures

Prints tables in Markdown. With gradients: for how many problems the max-norm of the (projected) gradient falls to 1e-5
within 10,000 evaluations ("solved"), and for how many of these f is also within 1e-3*max(1, |f|) of the lowest value
that any method here has found ("jointly"). Without, where every method runs as its users run it, at its defaults: where
a run ended right, "honest" runs, whose status says so or says the opposite where they did not, successes that are
false, and the calls of f. A run ended right if from there a search with exact gradients lowers f by no more than 1e-6
of what the run has gained.

A problem counts as unsolved if a method takes longer than ``--seconds`` on it. With JAX_COMPILATION_CACHE_DIR set, a
second run starts faster. ``--profiles FILE`` writes the table for docs/pictures.py: the calls until f has fallen by all
but 1e-5 of the way from the start to the lowest value that any method here has found.
"""

from __future__ import annotations

import argparse
import csv
import functools
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import scipy.optimize
from cutest import LARGEST, Problem, load

from rmsprop_nb import Status, minimize

GTOL = 1e-5
F_TOLERANCE = 1e-3
RIGHT = 1e-6
TAU = 1e-5
EVALUATIONS = {True: 10_000, False: 20_000}  # with a gradient, and calls of f without
MANY = 30  # variables, the most in runs without a gradient


class End(NamedTuple):
    """The end of a run: f there and the gradient's norm, calls of fun, and what the method says of it.

    `falls` are the calls at which f became lower than ever before, and these values.
    """

    f: float
    gnorm: float
    calls: int
    success: bool
    message: str
    x: Any
    falls: list[tuple[int, float]]


class OutOfCallsError(Exception):
    """The method has used up its calls or seconds."""


# -- methods ----------------------------------------------------------------------------------------------------------


def ours(fun, problem, gradient, method):
    limits = {"maxfev": EVALUATIONS[True], "maxiter": EVALUATIONS[True], "gtol": GTOL} if gradient else {}
    result = minimize(fun, problem.x0, jac=gradient or None, bounds=problem.bounds, method=method, options=limits)
    return result.x, result.success, Status(result.status).name


def scipys(fun, problem, gradient, method, **options):
    x0 = problem.x0 if problem.bounds is None else np.clip(problem.x0, *problem.bounds.T)
    result = scipy.optimize.minimize(
        fun, x0, jac=gradient or None, bounds=problem.bounds, method=method, options=options
    )
    return result.x, bool(result.success), result.message


_MANY_CALLS = {"maxfun": 10**6, "maxiter": 10**6}
OURS = {name: functools.partial(ours, method=name) for name in ("rmsprop", "rmsprop-lbfgs")}
METHODS = {
    True: OURS
    | {
        "L-BFGS-B, ftol=0": functools.partial(scipys, method="L-BFGS-B", gtol=GTOL, ftol=0.0, **_MANY_CALLS),
        "BFGS": functools.partial(scipys, method="BFGS", gtol=GTOL, maxiter=10**6),
    },
    False: OURS
    | {
        "L-BFGS-B": functools.partial(scipys, method="L-BFGS-B"),
        "L-BFGS-B, tight": functools.partial(scipys, method="L-BFGS-B", ftol=1e-15, gtol=1e-8, **_MANY_CALLS),
        "BFGS": functools.partial(scipys, method="BFGS"),
        "Nelder-Mead": functools.partial(scipys, method="Nelder-Mead"),
        "COBYQA": functools.partial(scipys, method="COBYQA"),
    },
}


def suits(name: str, problem: Problem) -> bool:
    """Say whether a method can take the problem: BFGS knows no bounds."""
    return name != "BFGS" or problem.bounds is None


def run(method, problem, gradient, seconds):
    """Run a method on a problem within the limits."""
    fun = problem.with_gradient if gradient else problem.fun
    calls, stop, falls, lowest = 0, time.perf_counter() + seconds, [], (np.inf, problem.x0)

    def counted(x):
        nonlocal calls, lowest
        if calls >= EVALUATIONS[gradient] or time.perf_counter() > stop:
            raise OutOfCallsError
        calls += 1
        result = fun(x)
        f = result[0] if gradient else result
        if f < lowest[0]:
            lowest = f, np.array(x)
            falls.append((calls, f))
        return result

    try:
        with np.errstate(all="ignore"):
            x, success, message = method(counted, problem, gradient)
    except OutOfCallsError:
        x, success, message = lowest[1], False, "out of calls or time"
    f, g = problem.with_gradient(x)
    step = g if problem.bounds is None else x - np.clip(x - g, *problem.bounds.T)
    return End(f, float(np.abs(step).max()), calls, success, message, x, falls)


def improved(end, problem):
    """Return the lowest f that a search with exact gradients finds from the end of a run."""
    if not np.isfinite(end.f):
        return end.f
    options = {"ftol": 0.0, "gtol": 1e-12, "maxfun": 20_000, "maxiter": 20_000}
    with np.errstate(all="ignore"):
        found = scipy.optimize.minimize(
            problem.with_gradient, end.x, jac=True, bounds=problem.bounds, method="L-BFGS-B", options=options
        )
    return float(np.fmin(found.fun, end.f))  # the search itself may have met NaN


# -- tables -----------------------------------------------------------------------------------------------------------


def solved(end):
    return end.gnorm <= GTOL * (1.0 + 1e-6)


def jointly(end, best):
    return solved(end) and end.f <= best + F_TOLERANCE * max(1.0, abs(best))


def is_right(end, improved, first):
    """Say whether f at the end is a local minimum, as far as the gain of the run and rounding can tell."""
    return bool(end.f - improved <= RIGHT * (first - improved) + 1e-12 * abs(improved))


def median(calls):
    return f"{np.median(calls):.0f}" if calls else "-"


class Judged(NamedTuple):
    """What is known of a problem: its name, whether it has bounds, f at the start, and each method's end.

    `improved` is what is left to gain from each end, or None for runs with gradients.
    """

    name: str
    bounded: bool
    first: float
    ends: dict[str, End]
    improved: dict[str, float] | None


def with_gradient(problems, name):
    """Return a row: solved, solved jointly, and the median of the calls; and those that are not."""
    best = {p.name: min(end.f for end in p.ends.values()) for p in problems}
    mine = [p for p in problems if name in p.ends]
    good = [p.ends[name].calls for p in mine if solved(p.ends[name])]
    joint = [p for p in mine if jointly(p.ends[name], best[p.name])]
    return [len(good), len(joint), median(good)], [(p, best[p.name], "") for p in mine if p not in joint]


def without_gradient(problems, name):
    """Return a row: right, honest, false successes, and the median of the calls; and those that are not honest."""
    mine = [p for p in problems if name in p.ends]
    right = {p.name: is_right(p.ends[name], p.improved[name], p.first) for p in mine}
    dishonest = [p for p in mine if p.ends[name].success != right[p.name]]
    false = [p for p in dishonest if p.ends[name].success]
    calls = [p.ends[name].calls for p in mine if right[p.name]]
    row = [sum(right.values()), len(mine) - len(dishonest), len(false), median(calls)]
    wrong = [p for p in mine if not right[p.name] or p in dishonest]
    return row, [(p, p.improved[name], "FALSE" if p in false else "") for p in wrong]


TABLES = {
    True: (("solved", "jointly", "evaluations, median"), with_gradient),
    False: (("right", "honest", "false successes", "calls, median"), without_gradient),
}


def print_tables(problems, gradient, methods, failures):
    columns, judge = TABLES[gradient]
    for title, bounded in (("unconstrained", False), ("bounded", True)):
        chosen = [p for p in problems if p.bounded == bounded]
        print(f"\n| {len(chosen)} {title} problems | {' | '.join(columns)} |\n|{'---|' * (len(columns) + 1)}")
        for name in methods:
            print(f"| {name} | {' | '.join(map(str, judge(chosen, name)[0]))} |")
        for name in methods if failures else ():
            print(f"\n{name}, not so:")
            for p, best, remark in judge(chosen, name)[1]:
                end = p.ends[name]
                print(
                    f"  {p.name:12s} n={end.x.size:<5d} |g|={end.gnorm:.1e} f={end.f:.6e} best={best:.6e} "
                    f"first={p.first:.3e} calls={end.calls} {end.message} {remark}"
                )


def save_profiles(problems, methods, path):
    """Write the calls that each method needed until f had fallen far enough; none if it never did."""
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["problem", "variables", "bounded", *methods])
        for p in problems:
            falls = {name: end.falls for name, end in p.ends.items()}
            lowest = min((f for fallen in falls.values() for _, f in fallen), default=p.first)
            enough = lowest + TAU * (p.first - lowest)
            variables, bounded = next(iter(p.ends.values())).x.size, "yes" if p.bounded else "no"
            needed = [next((k for k, f in falls.get(name, ()) if f <= enough), "") for name in methods]
            rows.writerow([p.name, variables, bounded, *needed])


def main() -> None:
    names = sorted({name for methods in METHODS.values() for name in methods})
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tuning", action="store_true", help="use the list for tuning")
    parser.add_argument("--no-gradient", action="store_true", help="f alone, and no limit but the methods' own")
    parser.add_argument("--only", choices=names, action="append", help="run this method only; may be repeated")
    parser.add_argument("--seconds", type=float, default=60.0, help="limit for each method on each problem")
    parser.add_argument("--failures", action="store_true", help="list the problems that were not solved")
    parser.add_argument("--profiles", type=Path, help="where to write the table for profiles")
    arguments = parser.parse_args()
    gradient = not arguments.no_gradient
    methods = {name: METHODS[gradient][name] for name in arguments.only or METHODS[gradient]}
    problems = []
    for problem in load(arguments.tuning, LARGEST if gradient else MANY):
        first = problem.fun(problem.x0 if problem.bounds is None else np.clip(problem.x0, *problem.bounds.T))
        ends = {
            name: run(method, problem, gradient, arguments.seconds)
            for name, method in methods.items()
            if suits(name, problem)
        }
        better = None if gradient else {name: improved(end, problem) for name, end in ends.items()}
        problems.append(Judged(problem.name, problem.bounds is not None, first, ends, better))
        jax.clear_caches()
    print_tables(problems, gradient, methods, arguments.failures)
    if arguments.profiles:
        save_profiles(problems, methods, arguments.profiles)


if __name__ == "__main__":
    main()
