#!/usr/bin/env python3
"""Count the instructions of an evaluation in the compiled loop: ``python asv_bench/instructions.py`` prints JSON.

Valgrind's callgrind counts them, so they hardly vary between runs, whatever else the machine does. It takes about a
minute. Code is compiled for one fixed processor, which Valgrind can simulate. Each method runs with two numbers of
evaluations, whose difference is free of everything that a run does once. Counts for different versions of Python and
Numba cannot be compared.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from pathlib import Path

N = 10
SHORT = 1000
LONG = {"textbook": 21_000, "auto": 21_000, "lbfgs": 11_000}  # evaluations, fewer than the method would make by itself
PROCESSORS = {"x86_64": "haswell"}


def inside() -> None:
    """Run all methods under callgrind, and let it write a count after each run."""
    from benchmarks._problems import limited

    runs = {method: limited(method, N) for method in LONG}
    for run in runs.values():
        run(2)
    if "--warm-up" in sys.argv:
        return
    control("--instr=on")
    for method, run in runs.items():
        run(2)
        control("--zero")
        for count in (SHORT, LONG[method]):
            run(count)
            control(f"--dump={method} {count}")


def control(command: str) -> None:
    subprocess.run(["callgrind_control", command, str(os.getpid())], capture_output=True, check=True)


def instructions() -> dict[str, float]:
    """Return the instructions per evaluation of each method."""
    processor = PROCESSORS.get(platform.machine(), "generic")
    environment = {**os.environ, "NUMBA_CPU_NAME": processor, "NUMBA_CPU_FEATURES": "", "PYTHONHASHSEED": "0"}
    with tempfile.TemporaryDirectory(prefix="rmsprop_nb-callgrind-") as scratch:
        python = [sys.executable, __file__, "--inside"]
        subprocess.run([*python, "--warm-up"], env=environment, check=True)  # compiling under Valgrind takes very long
        valgrind = ["valgrind", "--quiet", "--tool=callgrind", "--instr-atstart=no"]
        log = ["--log-file=valgrind.log", "--callgrind-out-file=counts"]
        subprocess.run([*valgrind, *log, *python], env=environment, cwd=scratch, check=True)
        totals = dict(read(path) for path in Path(scratch).glob("counts.*"))
    return {
        method: round((totals[f"{method} {long}"] - totals[f"{method} {SHORT}"]) / (long - SHORT), 1)
        for method, long in LONG.items()
    }


def read(path: Path) -> tuple[str, int]:
    """Return the name and the total of one dump."""
    text = path.read_text()
    name = re.search(r"^desc: Trigger: .*?dump (.+)$", text, re.MULTILINE)
    total = re.search(r"^summary: (\d+)", text, re.MULTILINE)
    return (name[1].strip() if name else ""), int(total[1]) if total else 0


if __name__ == "__main__":
    if "--inside" in sys.argv:
        inside()
    else:
        print(json.dumps(instructions()))
