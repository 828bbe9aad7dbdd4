#!/usr/bin/env python3
"""How many instructions is one evaluation in the compiled loop?  ``python asv_bench/instructions.py`` prints JSON.

Callgrind (of Valgrind) counts them, so they hardly vary from run to run, whatever else the machine does. It takes about
a minute. Code is made for one fixed processor, which Valgrind can imitate. The process counted runs each method with
two numbers of evaluations; the difference is free of everything that a run does once. Numbers of different versions of
Python and Numba do not compare.
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
LONG = {"textbook": 21_000, "auto": 21_000, "lbfgs": 11_000}  # evaluations: below those that the method would end with
PROCESSORS = {"x86_64": "haswell"}


def inside() -> None:
    """Run under callgrind, and have it write down the count after each run."""
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
    """Instructions an evaluation, for each method."""
    processor = PROCESSORS.get(platform.machine(), "generic")
    environment = {**os.environ, "NUMBA_CPU_NAME": processor, "NUMBA_CPU_FEATURES": "", "PYTHONHASHSEED": "0"}
    with tempfile.TemporaryDirectory(prefix="rmsprop_nb-callgrind-") as scratch:
        python = [sys.executable, __file__, "--inside"]
        subprocess.run([*python, "--warm-up"], env=environment, check=True)  # compiling under Valgrind takes for ever
        valgrind = ["valgrind", "--quiet", "--tool=callgrind", "--instr-atstart=no"]
        log = ["--log-file=valgrind.log", "--callgrind-out-file=counts"]
        subprocess.run([*valgrind, *log, *python], env=environment, cwd=scratch, check=True)
        totals = dict(read(path) for path in Path(scratch).glob("counts.*"))
    return {
        method: round((totals[f"{method} {long}"] - totals[f"{method} {SHORT}"]) / (long - SHORT), 1)
        for method, long in LONG.items()
    }


def read(path: Path) -> tuple[str, int]:
    """Name and total of one dump."""
    text = path.read_text()
    name = re.search(r"^desc: Trigger: .*?dump (.+)$", text, re.MULTILINE)
    total = re.search(r"^summary: (\d+)", text, re.MULTILINE)
    return (name[1].strip() if name else ""), int(total[1]) if total else 0


if __name__ == "__main__":
    if "--inside" in sys.argv:
        inside()
    else:
        print(json.dumps(instructions()))
