"""Checks and measures everything on a CUDA device in one run of a few minutes: ``python asv_bench/device_report.py``.

Run it in a checkout, with the Python that has numba-cuda; the package need not be installed. Peers that are installed
(CuPy, PyTorch, JAX with optax) are measured too. Every step has processes of its own and writes each result at once,
one JSON object a line, so that what ended is kept when time runs out. With ``NUMBA_ENABLE_CUDASIM=1
NUMBA_DISABLE_JIT=1`` everything runs in the simulator, with tiny sizes; the times mean nothing then.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
TESTS = ("tests/_cuda/test_on_device.py", "tests/_training/test_step_on_host_and_device.py")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the steps that are asked for, or one of them in this process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("device_report"), help="folder for results (%(default)s)")
    parser.add_argument("--seconds", type=float, default=480.0, help="when to stop (%(default)g)")
    parser.add_argument("--only", nargs="+", choices=STEPS, default=tuple(STEPS), help="steps to run (all)")
    parser.add_argument("--inside", metavar="STEP", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    given.out.mkdir(parents=True, exist_ok=True)
    if given.inside:
        _run_inside(given.inside, given.out)
        return 0
    deadline = time.time() + given.seconds
    failed = []
    for step in given.only:
        began = time.time()
        if not STEPS[step](given.out.resolve(), deadline):
            failed.append(step)
        print(f"-- {step}: {time.time() - began:.0f} s", flush=True)
    print_tables(given.out)
    print("failed: " + (", ".join(failed) or "nothing"))
    return len(failed)


# -- processes --------------------------------------------------------------------------------------------------------


def _run_inside(step: str, out: Path) -> None:
    """Run a step, or ``batches:NAME``, in this process."""
    module, _, name = step.partition(":")
    path = out / f"{step.replace(':', '-')}.jsonl"
    run = importlib.import_module(f"device_steps.{module}").run
    with path.open("a", encoding="utf-8") as file:

        def write(row: dict[str, Any]) -> None:
            print(json.dumps(row, default=float), file=file, flush=True)

        run(name, write) if name else run(write)


def _environment(deadline: float, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    path = os.pathsep.join([str(HERE.parent), str(HERE), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    return {
        **os.environ,
        "PYTHONPATH": path,
        "DEVICE_REPORT_DEADLINE": str(deadline),
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        **(extra or {}),
    }


def _start(
    command: Sequence[str], log: Path, deadline: float, extra: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    with log.open("wb") as file:
        return subprocess.Popen(
            command, env=_environment(deadline, extra), cwd=HERE.parent, stdout=file, stderr=subprocess.STDOUT
        )


def _end(processes: Mapping[str, subprocess.Popen[bytes]], out: Path, deadline: float) -> bool:
    """Wait for processes until the deadline; return whether all succeeded, and print how the others ended."""
    good = True
    for name, process in processes.items():
        try:
            code = process.wait(max(1.0, deadline - time.time()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            code = "no time left"
        if code != 0:
            good = False
            said = (out / f"{name}.log").read_text(encoding="utf-8", errors="replace").splitlines()
            print(f"{name}: {code}", *said[-12:], sep="\n    ", flush=True)
    return good


def _inside(step: str, out: Path) -> list[str]:
    return [sys.executable, str(HERE / "device_report.py"), "--inside", step, "--out", str(out)]


def _plain(step: str) -> Callable[[Path, float], bool]:
    """Return what runs a step in one process."""

    def run(out: Path, deadline: float) -> bool:
        return _end({step: _start(_inside(step, out), out / f"{step}.log", deadline)}, out, deadline)

    return run


# -- steps that are more than one process ---------------------------------------------------------------------------


def _tests(out: Path, deadline: float) -> bool:
    """Run the tests for devices, on several cores where pytest-xdist is installed."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-m",
        "gpu",
        "-q",
        "--durations=5",
        "-o",
        "addopts=",
        "-p",
        "no:benchmark",
        *TESTS,
    ]
    if importlib.util.find_spec("xdist"):
        command += ["-n", str(min(12, os.cpu_count() or 1))]
    good = _end({"tests": _start(command, out / "tests.log", deadline)}, out, deadline)
    said = (out / "tests.log").read_text(encoding="utf-8", errors="replace").splitlines()
    with (out / "tests.jsonl").open("a", encoding="utf-8") as file:
        print(json.dumps({"tests": said[-1] if said else "nothing", "passed": good}), file=file)
    return good


def _sanitizer(out: Path, deadline: float) -> bool:
    """Watch a small run for wrong accesses and for races in shared memory, where compute-sanitizer is installed."""
    sanitizer = shutil.which("compute-sanitizer")
    if sanitizer is None:
        with (out / "sanitizer.jsonl").open("a", encoding="utf-8") as file:
            print(json.dumps({"skipped": "compute-sanitizer is not installed"}), file=file)
        return True
    processes = {}
    for tool in ("memcheck", "racecheck"):
        name = f"sanitizer-{tool}"
        command = [sanitizer, "--tool", tool, "--error-exitcode", "9", *_inside("checked", out)]
        processes[name] = _start(command, out / f"{name}.log", deadline)
    good = _end(processes, out, deadline)
    with (out / "sanitizer.jsonl").open("a", encoding="utf-8") as file:
        for name in processes:
            said = (out / f"{name}.log").read_text(encoding="utf-8", errors="replace").splitlines()
            print(json.dumps({"tool": name, "said": said[-1] if said else "nothing"}), file=file)
    return good


def _batches(out: Path, deadline: float) -> bool:
    """Start all configurations, which compile at the same time; then let one after another measure."""
    from device_steps.batches import CONFIGURATIONS

    processes, simulated = {}, os.environ.get("NUMBA_ENABLE_CUDASIM") == "1"
    with tempfile.TemporaryDirectory() as folder:
        turns = {name: Path(folder, name) for name in CONFIGURATIONS}
        for name, turn in turns.items():
            log = out / f"batches-{name}.log"
            extra = {} if simulated else {"DEVICE_REPORT_TURN": str(turn)}
            processes[name] = _start(_inside(f"batches:{name}", out), log, deadline, extra)
            if simulated:  # one process at a time is enough for this machine
                processes[name].wait()
        ready = [turn.with_suffix(".ready") for turn in turns.values()]
        while time.time() < deadline and not all(
            path.exists() or process.poll() is not None for path, process in zip(ready, processes.values(), strict=True)
        ):
            time.sleep(0.1)
        good = True
        for name, process in processes.items():
            turns[name].touch()
            good &= _end({f"batches-{name}": process}, out, min(deadline, time.time() + 60.0))
    return good


STEPS: dict[str, Callable[[Path, float], bool]] = {
    "environment": _plain("environment"),
    "tests": _tests,
    "sanitizer": _sanitizer,
    "graphs": _plain("graphs"),
    "updates": _plain("updates"),
    "batches": _batches,
}


# -- tables -----------------------------------------------------------------------------------------------------------


def print_tables(out: Path) -> None:
    """Print every result, a table for rows with the same columns."""
    for path in sorted(out.glob("*.jsonl")):
        print(f"\n## {path.stem}")
        columns: list[str] = []
        for line in path.read_text(encoding="utf-8").splitlines():
            row = {name: value for name, value in json.loads(line).items() if name not in ("counts", "options")}
            if list(row) != columns:
                columns = list(row)
                print("| " + " | ".join(columns) + " |", "|" + "---|" * len(columns), sep="\n")
            print("| " + " | ".join(map(_shown, row.values())) + " |")


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    sys.exit(main())
