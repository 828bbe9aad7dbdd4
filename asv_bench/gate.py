#!/usr/bin/env python3
"""Tell whether a change has made the library slower: ``python asv_bench/gate.py BASE [HEAD]``.

Measures the ratios and counts of gate_list.py on two commits and exits with 1 if one of them has grown beyond its
factor, or with 2 if they could not be measured. HEAD is the working tree unless a commit is given. Both sides are
measured with the interpreter and the benchmarks of this checkout; what these need of the package's private modules is
found in older layouts too (benchmarks/_package.py). The sources of a commit are unpacked into a temporary directory and
found through PYTHONPATH, so nothing is installed and the repository is not touched. Each side has its own cache of
compiled code.

Times are ratios to a floor that is timed in turns with them, and the two commits take turns as well. Whatever exceeds
--factor is measured once more before it counts. Counts (instructions of the vectorised loop, modules imported,
evaluations, vectors held) hardly vary between runs, so their factor is narrow. With --callgrind, Valgrind also counts
the instructions of an evaluation in the compiled loop, which takes a minute for each side.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path

HERE = Path(__file__).resolve().parent

DEFAULT_FACTOR = 1.25
FACTORS = {"count": 1.02, "callgrind": 1.05}  # by the first word of a name; callgrind's counts vary by some 2 %
ROUNDS = 3

Results = dict[str, float]


# -- comparing --------------------------------------------------------------------------------------------------------


def regressions(base: Mapping[str, float], head: Mapping[str, float], factor: float = DEFAULT_FACTOR) -> list[str]:
    """Name what is worse in `head` by more than its factor, or no longer measured there. Lower is better."""
    return [name for name in base if not head.get(name, math.nan) <= base[name] * allowed(name, factor)]


def allowed(name: str, factor: float) -> float:
    """Return the growth that is tolerated: counts hardly vary, times do."""
    return FACTORS.get(name.partition(":")[0], factor)


def medians(rounds: list[Results]) -> Results:
    """Return the median of each number over the rounds that have it."""
    names = dict.fromkeys(name for results in rounds for name in results)
    return {name: statistics.median(r[name] for r in rounds if name in r) for name in names}


# -- two commits ------------------------------------------------------------------------------------------------------


class Side:
    """One of the two commits: its sources, its cache, and what was measured."""

    def __init__(self, commit: str | None, directory: Path) -> None:
        self.tree = HERE.parent if commit is None else extract(commit, directory / "tree")
        self.cache = directory / "cache"
        self.rounds: list[Results] = []

    def run(self, only: str) -> None:
        """Measure once, in a new process."""
        self.rounds.append(self.results_of(str(HERE / "gate_list.py"), str(self.tree), only))

    def count_instructions(self) -> None:
        """Let callgrind count; once is enough."""
        counted = self.results_of(str(HERE / "instructions.py"))
        self.rounds.append({f"callgrind: instructions per evaluation ({name}, n=10)": n for name, n in counted.items()})

    def results_of(self, *script: str) -> Results:
        """Run a script on this side's sources, and read the JSON it prints."""
        environment = {**os.environ, "PYTHONPATH": str(self.tree), "NUMBA_CACHE_DIR": str(self.cache)}
        command = [sys.executable, "-W", "ignore", *script]
        done = subprocess.run(command, env=environment, cwd=self.cache.parent, stdout=subprocess.PIPE, check=False)
        if done.returncode != 0:
            print(f"gate.py: {Path(script[0]).name} failed on {self.tree}; its error is above", file=sys.stderr)
            sys.exit(2)
        return dict(json.loads(done.stdout.splitlines()[-1]))


def extract(commit: str, directory: Path) -> Path:
    """Unpack the package as it is in `commit`."""
    command = ["git", "-C", str(HERE.parent), "archive", "--format=tar", commit, "rmsprop_nb"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    if done.returncode != 0:
        sys.exit(2)
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(directory, filter="data")
    return directory


def in_turns(base: Side, head: Side, rounds: int, only: str) -> None:
    for _ in range(rounds):
        base.run(only)
        head.run(only)


def report(base: Results, head: Results, worse: list[str], factor: float) -> None:
    print(f"{'base':>9} {'head':>9} {'growth':>7} {'allowed':>7}")
    for name, before in base.items():
        after = head.get(name, math.nan)
        growth = after / before if before and math.isfinite(before) else math.nan
        mark = "  <-- REGRESSION" if name in worse else ""
        print(f"{before:9.3f} {after:9.3f} {growth:7.2f} {allowed(name, factor):7.2f}  {name}{mark}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", help="commit to compare with")
    parser.add_argument("head", nargs="?", help="commit to judge (default: the working tree)")
    parser.add_argument("--factor", type=float, default=DEFAULT_FACTOR, help="tolerated growth of times")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="processes for each side")
    parser.add_argument("--only", metavar="TEXT", default="", help="measure only what has TEXT in its name")
    parser.add_argument("--callgrind", action="store_true", help="count instructions with Valgrind as well")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rmsprop_nb-gate-") as scratch:
        sides = []
        for name, commit in (("base", options.base), ("head", options.head)):
            directory = Path(scratch, name)
            directory.mkdir()
            sides.append(Side(commit, directory))
        if options.callgrind:
            for side in sides:
                side.count_instructions()
        return judge(*sides, options.rounds, options.only, options.factor)


def judge(base: Side, head: Side, rounds: int, only: str, factor: float) -> int:
    """Measure, once more if something seems to be worse, and report."""
    in_turns(base, head, rounds, only)
    suspects = regressions(medians(base.rounds), medians(head.rounds), factor)
    if any(name.startswith("time:") for name in suspects):
        print("measured once more:", *suspects, sep="\n  ", flush=True)
        in_turns(base, head, rounds, only)
    before, after = medians(base.rounds), medians(head.rounds)
    worse = regressions(before, after, factor)
    report(before, after, worse, factor)
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
