"""What gate.py measures on each commit. It runs ``python gate_list.py TREE TEXT``, which prints JSON.

TREE holds the package. Only what has TEXT in its name is measured, in upper or lower case.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

Measurements = dict[str, Callable[[], float]]


def times() -> Measurements:
    """Return the ratios of times: benchmarks with fixed parameters."""
    from benchmarks import ratios, startup

    chosen = [
        (ratios.UpdateOverFloor, "track_in_cache", "float32"),
        (ratios.UpdateOverFloor, "track_in_cache", "float64"),
        (ratios.UpdateOverFloor, "track_in_memory", "float32"),
        (ratios.UpdateOverPeer, "track_time", "numpy out=", "float64", 10),
        (ratios.VariantOverPlain, "track_in_cache", "centered, momentum", "float64"),
        (ratios.LoopOverHand, "track_evaluation", "textbook", 2),
        (ratios.LoopOverHand, "track_evaluation", "textbook", 100),
        (ratios.LoopOverHand, "track_evaluation", "auto", 10),
        (ratios.LoopOverHand, "track_evaluation", "lbfgs", 10),
        (ratios.InterpretedOverObjective, "track_evaluation", "textbook", 2),
        (ratios.OverScipy, "track_start", "auto", 10),
        (ratios.Differences, "track_over_calls", "2-point", 10),
        (startup.ImportOverFloor, "track_time", "rmsprop_nb"),
        (startup.ImportOverFloor, "track_time", "minimize"),
        *((startup.NewObjectiveOverNumba, "track_ratio", use) for use in ("exact", "differences", "fit")),
    ]
    return {_name(*item): lambda item=item: _track(*item) for item in chosen}


def _name(benchmark: type, method: str, *params: Any) -> str:
    return f"time: {benchmark.__name__}.{method}({', '.join(map(str, params))})"


def _track(benchmark: type, method: str, *params: Any) -> float:
    instance = benchmark()
    getattr(instance, "setup", lambda *_: None)(*params)
    return float(getattr(instance, method)(*params))


def counts() -> Measurements:
    """Return the counts, which are the same at every run."""
    return instructions() | evaluations() | vectors() | modules()


def instructions() -> Measurements:
    from benchmarks._kernels import VARIANTS
    from machine_code import instructions_per_element, update_assembly

    return {
        f"count: instructions per element of the vectorised update ({variant}, {dtype})": (
            lambda variant=variant, dtype=dtype: instructions_per_element(update_assembly(VARIANTS[variant], dtype))
        )
        for variant in ("plain", "centered, momentum")
        for dtype in ("float32", "float64")
    }


def evaluations() -> Measurements:
    from benchmarks import convergence

    return {
        f"count: evaluations for all problems ({method})": lambda method=method: float(
            sum(convergence.solve(method, p.fun, p.x0, p.jac).nfev for p in convergence.PROBLEMS)
        )
        for method in ("rmsprop", "rmsprop-lbfgs")
    }


def vectors() -> Measurements:
    from benchmarks import loop

    return {
        f"count: vectors held ({method})": lambda method=method: _track(loop.Memory, "track_vectors", method)
        for method in loop.METHODS
    }


def modules() -> Measurements:
    from benchmarks import startup

    return {
        f"count: further modules loaded by {ours!r}": lambda name=name: _track(
            startup.ImportOverFloor, "track_modules", name
        )
        for name, (ours, _) in startup.IMPORTS.items()
    }


def measure(tree: str, only: str) -> dict[str, float]:
    """Measure the package in `tree`, which must be the one that is imported here."""
    import rmsprop_nb

    if not Path(rmsprop_nb.__file__).is_relative_to(Path(tree).resolve()):
        sys.exit(f"gate_list.py: {rmsprop_nb.__file__} was imported, which is not in {tree}")
    chosen = {name: function for name, function in (times() | counts()).items() if only.lower() in name.lower()}
    if not chosen:
        sys.exit(f"gate_list.py: nothing has {only!r} in its name")
    return {name: function() for name, function in chosen.items()}


if __name__ == "__main__":
    print(json.dumps(measure(*sys.argv[1:])))
