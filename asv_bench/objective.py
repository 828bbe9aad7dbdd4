#!/usr/bin/env python3
"""Where does the time of a run go?  ``python asv_bench/objective.py module:fun --x0 1,1 --jac inplace``

Minimizes an objective of yours with the textbook rule and the automatic methods, and says what share of the run each
part takes: your function with its gradient, RMSprop's update, the rest of the loop, and the start (checks, state,
result). Functions decorated with numba.njit run in the compiled loop, others in the interpreted one. A run that ends
after a few evaluations is mostly start. Only shares are printed: they mean the same on every machine.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import math
import statistics
import sys
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks._interleaved import one_core, samples
from benchmarks._kernels import VARIANTS, Vectors, repeated
from numba import njit

from rmsprop_nb import minimize
from rmsprop_nb._native import call_objective
from rmsprop_nb._objective import Problem, PythonObjective, compile_objective

RUNS = {
    "textbook": ("rmsprop", {"learning_rate": 1e-6}),
    "auto": ("rmsprop", {}),
    "lbfgs": ("rmsprop-lbfgs", {}),
}
SECONDS = 0.05  # that a run to be timed takes, about


@njit
def call_often(address, data, x, g, times):
    for _ in range(times):
        call_objective(address, x, g, data)


def objective_alone(fun: Any, jac: Any, x: np.ndarray, times: int) -> functools.partial[None]:
    """The function and its gradient, `times` over, compiled if it can be."""
    g = np.empty_like(x)
    problem = Problem(fun, jac, (), np.empty(0), np.empty(0), None)
    compiled = compile_objective(problem, x.dtype)
    if compiled is not None:
        call = functools.partial(call_often, compiled.address, compiled.data, x, g, times)
        call.owner = compiled  # type: ignore[attr-defined]  # the address is valid while it lives
    else:
        call = functools.partial(_repeat, functools.partial(PythonObjective(problem), x, g), times)
    call()
    return call


def _repeat(call: Any, times: int) -> None:
    for _ in range(times):
        call()


def run(fun: Any, jac: Any, x: np.ndarray, method: str, count: int) -> Any:
    name, options = RUNS[method]
    limits = {"gtol": 0.0, "maxiter": math.inf, "maxfev": count}
    return minimize(fun, x, jac=jac, method=name, options=options | limits)


def shares(fun: Any, jac: Any, x: np.ndarray, method: str) -> tuple[int, dict[str, float]]:
    """Number of evaluations of a run, and the percentage of its time that each part takes."""
    count = run(fun, jac, x, method, affordable(fun, jac, x)).nfev
    update, _ = repeated(VARIANTS["plain"], Vectors.random(x.size, str(x.dtype)), count)
    with one_core():
        seconds = samples(
            {
                "run": lambda: run(fun, jac, x, method, count),
                "start": lambda: run(fun, jac, x, method, 1),
                "objective": objective_alone(fun, jac, x, count),
                "update": update,
            }
        )
    middle = {name: statistics.median(values) for name, values in seconds.items()}
    whole = middle.pop("run")
    middle["loop"] = max(0.0, whole - sum(middle.values()))  # below zero is noise
    return count, {name: 100.0 * part / whole for name, part in middle.items()}


def affordable(fun: Any, jac: Any, x: np.ndarray) -> int:
    """Evaluations that fit into SECONDS."""
    timer = {"one": objective_alone(fun, jac, x, 1)}
    return max(2, min(100_000, int(SECONDS / statistics.median(samples(timer, rounds=3)["one"]))))


def load(path: str) -> Any:
    """Import ``module:name``."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fun", help="module:name of the objective")
    parser.add_argument("--x0", required=True, help="start, as numbers with commas between")
    parser.add_argument(
        "--jac", default="2-point", help="inplace, true, 2-point, 3-point, cs, or module:name of the gradient"
    )
    options = parser.parse_args()
    sys.path.insert(0, str(Path.cwd()))
    jac = {"true": True}.get(options.jac.lower(), options.jac)
    if isinstance(jac, str) and ":" in jac:
        jac = load(jac)
    x = np.array([float(value) for value in options.x0.split(",")])
    print("   method  evaluations  objective   update     loop    start")
    for method in RUNS:
        count, share = shares(load(options.fun), jac, x, method)
        parts = "  ".join(f"{share[name]:6.0f}%" for name in ("objective", "update", "loop", "start"))
        print(f"{method:>9}  {count:11d}    {parts}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
