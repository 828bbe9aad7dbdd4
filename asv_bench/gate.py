#!/usr/bin/env python3
"""Has a change made the library slower?  ``python asv_bench/gate.py BASE [HEAD]``

Runs a short fixed list of ratios and counts on two commits, with the interpreter and the benchmarks of this checkout,
and exits with 1 if one of them grew beyond its factor (2 if it could not be measured). HEAD is the working tree unless
a commit is given. The sources of a commit are laid out in a temporary directory and found through PYTHONPATH, so
nothing is installed and the repository is not touched; each side has a cache of compiled code of its own.

Times are ratios against a floor that is timed in turns with them, and the two commits take turns as well. What
exceeds --factor is measured once more before it counts. Counts (instructions in the vectorised loop, evaluations,
vectors held) are the same at every run and are held to a narrow factor. With --callgrind, Valgrind also counts the
instructions of an evaluation in the compiled loop, which takes a minute for each side.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import re
import statistics
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent

DEFAULT_FACTOR = 1.25
FACTORS = {"count": 1.02, "callgrind": 1.05}  # by the first word of a name; callgrind's counts vary by some 2 %
ROUNDS = 3

Results = dict[str, float]


# -- comparing --------------------------------------------------------------------------------------------------------


def regressions(base: Mapping[str, float], head: Mapping[str, float], factor: float = DEFAULT_FACTOR) -> list[str]:
    """Names of what is worse in `head` by more than its factor, or no longer measured there. Lower is better."""
    return [name for name in base if not head.get(name, math.nan) <= base[name] * allowed(name, factor)]


def allowed(name: str, factor: float) -> float:
    """Growth that is tolerated: counts hardly vary, times do."""
    return FACTORS.get(name.partition(":")[0], factor)


def medians(rounds: list[Results]) -> Results:
    """Median of each number over the rounds that have it."""
    names = dict.fromkeys(name for results in rounds for name in results)
    return {name: statistics.median(r[name] for r in rounds if name in r) for name in names}


# -- what is measured, in a process of its own ------------------------------------------------------------------------


def times() -> dict[str, Callable[[], float]]:
    """The ratios of the list: benchmarks of ratios.py with fixed parameters."""
    from benchmarks import ratios

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
    ]
    return {_name(*item): lambda item=item: _track(*item) for item in chosen}


def _name(benchmark: type, method: str, *params: Any) -> str:
    return f"time: {benchmark.__name__}.{method}({', '.join(map(str, params))})"


def _track(benchmark: type, method: str, *params: Any) -> float:
    instance = benchmark()
    getattr(instance, "setup", lambda *_: None)(*params)
    return float(getattr(instance, method)(*params))


def counts() -> dict[str, Callable[[], float]]:
    """What is the same at every run."""
    from benchmarks import _kernels, convergence, loop

    def instructions(variant: str, dtype: str) -> float:
        return instructions_per_element(assembly(_kernels.VARIANTS[variant], dtype))

    table: dict[str, Callable[[], float]] = {
        f"count: instructions an element of the vectorised update ({variant}, {dtype})": (
            lambda variant=variant, dtype=dtype: instructions(variant, dtype)
        )
        for variant in ("plain", "centered, momentum")
        for dtype in ("float32", "float64")
    }
    for method in ("rmsprop", "rmsprop-lbfgs"):
        table[f"count: evaluations for all problems ({method})"] = lambda method=method: float(
            sum(convergence.solve(method, p.fun, p.x0, p.jac).nfev for p in convergence.PROBLEMS)
        )
    for method in loop.METHODS:
        table[f"count: vectors held ({method})"] = lambda method=method: _track(loop.Memory, "track_vectors", method)
    return table


def assembly(variant: Any, dtype: str) -> str:
    """Machine code of an update, compiled anew with the options that the library chose for it."""
    from benchmarks._kernels import Vectors, update_call
    from numba import jit

    call = update_call(variant, Vectors.random(8, dtype, variant))
    fresh = jit(**call.func.targetoptions)(call.func.py_func)
    fresh(*call.args)
    return "\n".join(fresh.inspect_asm().values())


PACKED_ROOT = re.compile(r"^\s+(?:v?sqrtp([sd])\s.*%([xyz])mm|fsqrt\s+v\d+\.(\d)[sd])", re.MULTILINE)
PACKED_DIVISION = re.compile(r"^\s+(?:v?divp[sd]\s|fdiv\s+v\d+\.\d[sd])", re.MULTILINE)
INSTRUCTION = re.compile(r"^\s+[a-z]", re.MULTILINE)
LABEL = re.compile(r"^[.\w$]+:.*$", re.MULTILINE)


def instructions_per_element(text: str) -> float:
    """Instructions an element takes in the loop that takes roots and divides several at a time; infinity without one.

    x86 and 64-bit ARM. The loop is the stretch between two labels with the most packed square roots.
    """
    loops = [block for block in LABEL.split(text) if PACKED_ROOT.search(block) and PACKED_DIVISION.search(block)]
    if not loops:
        return math.inf
    loop = max(loops, key=lambda block: len(PACKED_ROOT.findall(block)))
    elements = sum(map(_lanes, PACKED_ROOT.findall(loop)))
    return round(len(INSTRUCTION.findall(loop)) / elements, 3)


def _lanes(match: tuple[str, str, str]) -> int:
    precision, width, arm_lanes = match
    if arm_lanes:
        return int(arm_lanes)
    return {"x": 16, "y": 32, "z": 64}[width] // (4 if precision == "s" else 8)


def measure(tree: str) -> Results:
    """Measure the package in `tree`, the one that is imported here."""
    import rmsprop_nb

    if not Path(rmsprop_nb.__file__).is_relative_to(Path(tree).resolve()):
        sys.exit(f"gate.py: measured would be {rmsprop_nb.__file__}, not {tree}")
    return {name: function() for name, function in (times() | counts()).items()}


# -- two commits ------------------------------------------------------------------------------------------------------


class Side:
    """One of the two: its sources, its cache, what was measured."""

    def __init__(self, commit: str | None, directory: Path) -> None:
        self.tree = HERE.parent if commit is None else extract(commit, directory / "tree")
        self.cache = directory / "cache"
        self.rounds: list[Results] = []

    def run(self) -> None:
        """Measure once, in a new process."""
        self.rounds.append(self.results_of(__file__, "--measure", str(self.tree)))

    def count_instructions(self) -> None:
        """Let callgrind count; once is enough."""
        counted = self.results_of(str(HERE / "instructions.py"))
        self.rounds.append({f"callgrind: instructions an evaluation ({name}, n=10)": n for name, n in counted.items()})

    def results_of(self, *script: str) -> Results:
        """Run a script on this side's sources, and read the JSON it prints."""
        environment = {**os.environ, "PYTHONPATH": str(self.tree), "NUMBA_CACHE_DIR": str(self.cache)}
        command = [sys.executable, "-W", "ignore", *script]
        done = subprocess.run(command, env=environment, cwd=self.cache.parent, stdout=subprocess.PIPE, check=False)
        if done.returncode != 0:
            print("gate.py: the benchmarks do not run on", self.tree, file=sys.stderr)
            sys.exit(2)
        return dict(json.loads(done.stdout.splitlines()[-1]))


def extract(commit: str, directory: Path) -> Path:
    """Lay out the package as it is in `commit`."""
    command = ["git", "-C", str(HERE.parent), "archive", "--format=tar", commit, "rmsprop_nb"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    if done.returncode != 0:
        sys.exit(2)
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(directory, filter="data")
    return directory


def in_turns(base: Side, head: Side, rounds: int) -> None:
    for _ in range(rounds):
        base.run()
        head.run()


def report(base: Results, head: Results, worse: list[str], factor: float) -> None:
    print(f"{'base':>9} {'head':>9} {'growth':>7} {'allowed':>7}")
    for name, before in base.items():
        after = head.get(name, math.nan)
        growth = after / before if before and math.isfinite(before) else math.nan
        mark = "  <-- REGRESSION" if name in worse else ""
        print(f"{before:9.3f} {after:9.3f} {growth:7.2f} {allowed(name, factor):7.2f}  {name}{mark}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", nargs="?", help="commit to compare with")
    parser.add_argument("head", nargs="?", help="commit to judge (default: the working tree)")
    parser.add_argument("--factor", type=float, default=DEFAULT_FACTOR, help="growth of a time that is tolerated")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="processes for each side")
    parser.add_argument("--callgrind", action="store_true", help="count instructions with Valgrind as well")
    parser.add_argument("--measure", metavar="TREE", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure)))
        return 0
    if options.base is None:
        parser.error("BASE is missing: the commit to compare with")
    with tempfile.TemporaryDirectory(prefix="rmsprop_nb-gate-") as scratch:
        sides = []
        for name, commit in (("base", options.base), ("head", options.head)):
            directory = Path(scratch, name)
            directory.mkdir()
            sides.append(Side(commit, directory))
        if options.callgrind:
            for side in sides:
                side.count_instructions()
        return judge(*sides, options.rounds, options.factor)


def judge(base: Side, head: Side, rounds: int, factor: float) -> int:
    """Measure, once more if something seems to be worse, and say what is."""
    in_turns(base, head, rounds)
    suspects = regressions(medians(base.rounds), medians(head.rounds), factor)
    if any(name.startswith("time:") for name in suspects):
        print("measured once more:", *suspects, sep="\n  ", flush=True)
        in_turns(base, head, rounds)
    before, after = medians(base.rounds), medians(head.rounds)
    worse = regressions(before, after, factor)
    report(before, after, worse, factor)
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
