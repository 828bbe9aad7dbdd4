"""The command ``python -m rmsprop_nb``: a demo, a benchmark of your objective, and facts about this machine."""

from __future__ import annotations

import argparse
import importlib
import inspect
import os
import platform
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

import llvmlite.binding
import numba
import numpy as np

from rmsprop_nb import __version__
from rmsprop_nb._cli.asv_suite import next_steps, write_suite
from rmsprop_nb._cli.bench import check_objective, find, report, time_objective
from rmsprop_nb._cli.compile import compile_all
from rmsprop_nb._cli.demo import DEFAULT_SETS, run_demo
from rmsprop_nb._cli.nist import show_table
from rmsprop_nb._cli.pictures import save_pictures
from rmsprop_nb._cli.relaxation import run_relaxation
from rmsprop_nb._drivers.loop import run_chunks
from rmsprop_nb._kernels.update import make_update
from rmsprop_nb._methods.descent import make_tell
from rmsprop_nb._numba.disk_cache import PackageCache
from rmsprop_nb.datasets import NIST_NAMES

THREADING_LAYERS = {"tbb": "tbbpool", "omp": "omppool", "workqueue": "workqueue"}

CUDA_PATIENCE = 60  # seconds
CUDA_PROBE = """
from rmsprop_nb._cuda.native import cuda, require_compiler
require_compiler()
found = [str(getattr(gpu, "name", "simulator")) for gpu in cuda.gpus] if cuda.is_available() else []
print("; ".join(found) or "no CUDA device, or no driver")
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("--nist", "--set", "--plot"):
        arguments = ["demo", *arguments]
    chosen = _parser().parse_args(arguments)
    if chosen.command == "info":
        print(info())
        return 0
    if chosen.command == "compile":
        compile_all((np.float64, np.float32) if chosen.float32 else (np.float64,))
        return 0
    if chosen.command == "bench":
        return _bench(chosen)
    try:
        return _demo(chosen)
    except KeyboardInterrupt:
        return 130


def _demo(chosen: argparse.Namespace) -> int:
    if chosen.part == "fits" and (chosen.nist or chosen.set is not DEFAULT_SETS):
        print("python -m rmsprop_nb demo fits: --set and --nist are for the other demo", file=sys.stderr)
        return 2
    if chosen.plot is not None:
        try:  # first of all, because this reveals a folder that cannot be written, or a missing matplotlib
            page = save_pictures(chosen.plot)
        except (ImportError, OSError) as error:
            print(f"python -m rmsprop_nb demo: --plot {chosen.plot}: {error}", file=sys.stderr)
            return 2
        print(f"{page} shows pictures of this demo.\n", flush=True)
    if chosen.part == "fits":
        return 0 if run_relaxation() else 1
    if chosen.nist:
        show_table()
        return 0
    return 0 if run_demo(dict.fromkeys(chosen.set)) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m rmsprop_nb", description="RMSprop for NumPy and SciPy users.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="{demo,bench,compile,info}")
    demo = commands.add_parser(
        "demo",
        help="compare with certified results and with SciPy; the default",
        description="Exit code: 0 on success, 1 if rmsprop_nb missed an expected result, 2 for wrong arguments.",
    )
    demo.add_argument("part", nargs="?", choices=["fits"], help="fits: a map of fits and their errors instead")
    demo.add_argument(
        "--plot",
        metavar="DIR",
        type=Path,
        help="also draw pictures into a folder, and a page of them; needs matplotlib",
    )
    which = demo.add_mutually_exclusive_group()
    which.add_argument(
        "--nist", action="store_true", help="instead, the digits of all NIST data sets from both starts, in Markdown"
    )
    which.add_argument(
        "--set",
        nargs="+",
        metavar="NAME",
        choices=NIST_NAMES,
        default=DEFAULT_SETS,
        help=f"NIST data sets to fit: {', '.join(NIST_NAMES)}",
    )
    bench = commands.add_parser(
        "bench",
        help="show where the time goes when your objective is minimized",
        description="Example: python -m rmsprop_nb bench mymodule:misfit --x0 1,1 --args mymodule:data --jac inplace. "
        "Exit code: 0 on success, 2 for wrong arguments.",
    )
    bench.add_argument("fun", metavar="module:fun", help="the objective")
    bench.add_argument("--x0", required=True, help="where to start: module:name or numbers such as 1.0,2.0")
    bench.add_argument("--args", metavar="module:name", help="a tuple of further arguments")
    bench.add_argument(
        "--jac", help="as in minimize: True, 2-point, 3-point, cs, inplace, or module:name of a function"
    )
    bench.add_argument(
        "--asv",
        metavar="DIR",
        type=Path,
        help="instead, write a benchmark suite for asv into this folder, which follows the objective over your commits",
    )
    prepare = commands.add_parser(
        "compile",
        help="compile the loops of all methods beforehand, for all later processes on this machine",
        description="Where it is kept, and how NUMBA_CACHE_DIR changes that, is said by python -m rmsprop_nb info.",
    )
    prepare.add_argument("--float32", action="store_true", help="also for x of float32")
    commands.add_parser("info", help="show versions, CPU, threads, CUDA and the cache")
    return parser


def _bench(chosen: argparse.Namespace) -> int:
    try:
        fun, x0 = find(chosen.fun), find(chosen.x0)
        args = () if chosen.args is None else find(chosen.args)
        jac = True if chosen.jac == "True" else find(chosen.jac) if ":" in (chosen.jac or "") else chosen.jac
        if chosen.asv is not None:
            check_objective(fun, x0, args, jac)
            print(next_steps(write_suite(chosen.asv, chosen.fun, chosen.x0, chosen.args, chosen.jac)))
            return 0
        timing = time_objective(fun, x0, args, jac)
    except (OSError, TypeError, ValueError) as error:
        print(f"python -m rmsprop_nb bench: {error}", file=sys.stderr)
        return 2
    print(report(timing))
    return 0


# -- info -------------------------------------------------------------------------------------------------------------


def info() -> str:
    """Describe the machine and what is installed, one line per fact."""
    facts = {
        "rmsprop_nb": __version__,
        "Python": f"{platform.python_version()} ({platform.python_implementation()}, {platform.platform()})",
        **{name: _version(name) for name in ("NumPy", "SciPy", "Numba", "llvmlite", "numba-cuda")},
        "CPU": f"{_cpu_name()} (to LLVM: {llvmlite.binding.get_host_cpu_name()})",
        "threads": f"{numba.config.NUMBA_NUM_THREADS} used by Numba, {os.cpu_count()} logical CPUs",
        "threading layers": ", ".join(filter(_has_threading_layer, THREADING_LAYERS)) or "none",
        "CUDA": _cuda(),
        "compiled code": _cache(),
    }
    return "\n".join(f"{name:18}{fact}" for name, fact in facts.items())


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "not installed"


def _cpu_name() -> str:
    """Return the maker's name of the CPU where the system has it, otherwise a more general one."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next(iter(names), "") or platform.processor() or platform.machine()


def _has_threading_layer(name: str) -> bool:
    """Return whether Numba can load it: the modules exist even where the libraries they need do not."""
    try:
        importlib.import_module(f"numba.np.ufunc.{THREADING_LAYERS[name]}")
    except ImportError:
        return False
    return True


def _cuda() -> str:
    """Ask numba-cuda in another process, because a broken driver may hang or crash it."""
    if _version("numba-cuda") == "not installed":
        return "numba-cuda is not installed"
    ask = [sys.executable, "-c", CUDA_PROBE]
    try:
        probe = subprocess.run(ask, capture_output=True, text=True, timeout=CUDA_PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        return f"numba-cuda gave no answer within {CUDA_PATIENCE} s"
    lines = (probe.stdout if probe.returncode == 0 else probe.stderr).split("\n")
    last = next(filter(None, map(str.strip, reversed(lines))), f"exit code {probe.returncode}")
    return last if probe.returncode == 0 else f"numba-cuda failed: {last}"


def _cache() -> str:
    """Say where Numba keeps the compiled code of this package: a directory for each folder that has kernels."""
    try:
        paths = [
            Path(PackageCache(inspect.unwrap(function), ()).cache_path)
            for function in (make_update, make_tell, run_chunks)
        ]
        for path in paths:
            path.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=path).close()
    except RuntimeError:
        return "no directory is writable, so every process compiles anew; set NUMBA_CACHE_DIR"
    except OSError as error:
        return f"not writable, so every process compiles anew: {error}"
    return f"below {os.path.commonpath(paths)} (writable)"


if __name__ == "__main__":
    sys.exit(main())
