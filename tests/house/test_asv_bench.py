"""The benchmarks in asv_bench run, and asv finds them. Nothing here asserts a time."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import inspect
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SUITE = Path(__file__).resolve().parents[2] / "asv_bench"
# A test module can be collected away from a checkout, where there is no suite.
MODULES = sorted(path.stem for path in (SUITE / "benchmarks").glob("[a-z]*.py"))
KINDS = ("time_", "timeraw_", "track_", "peakmem_")

LARGE_SIZES = ("n", "in_memory", "many")  # attributes of benchmarks
# The setup of the first takes long, the next two solve many problems, and the others need a peer or a CUDA device.
LEFT_OUT = (
    "FirstResult",
    "MoreWild",
    "Solved",
    "RunOverQuantecon",
    "UpdateOnDevice",
    "ManyArraysOnDevice",
    "GradientOverJax",
)

pytestmark = [pytest.mark.house, pytest.mark.thorough]


@pytest.fixture(autouse=True)
def suite(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the suite importable, and its measurements as short as they can be; no program is run twice."""
    monkeypatch.syspath_prepend(str(SUITE))
    interleaved = importlib.import_module("benchmarks._interleaved")
    samples = interleaved.samples
    monkeypatch.setattr(interleaved, "SHORTEST_SAMPLE", 0.0)
    monkeypatch.setattr(interleaved, "samples", lambda candidates, rounds=1: samples(candidates, 1))
    startup = importlib.import_module("benchmarks.startup")
    monkeypatch.setattr(startup, "python", functools.cache(startup.python))


def classes(module: ModuleType) -> list[type]:
    return [c for _, c in inspect.getmembers(module, inspect.isclass) if c.__module__ == module.__name__ and runs(c)]


def runs(benchmark: type) -> list[str]:
    return [name for name in dir(benchmark) if name.startswith(KINDS)]


def smallest(benchmark: Any) -> tuple[Any, ...]:
    """Return the first value of each parameter: sizes rise, and optional peers never come first."""
    params = getattr(benchmark, "params", ())
    return tuple(next(iter(values)) for values in params)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODULES)
def test_every_benchmark_runs_once(name: str) -> None:
    module = importlib.import_module(f"benchmarks.{name}")
    assert classes(module), f"{name} has no benchmarks"
    for benchmark in classes(module):
        for method in runs(benchmark):
            if benchmark.__name__ not in LEFT_OUT:
                run_once(benchmark, method)


def run_once(benchmark: Any, method: str) -> None:
    params = smallest(benchmark)
    instance = benchmark()
    for name in LARGE_SIZES:
        if hasattr(benchmark, name):
            setattr(instance, name, 100)
    getattr(instance, "setup", lambda *_: None)(*params)
    try:
        value = getattr(instance, method)(*params)
    finally:
        getattr(instance, "teardown", lambda *_: None)(*params)
    if method.startswith("timeraw_"):  # what asv runs in a new process
        for code in (value,) if isinstance(value, str) else value:
            compile(textwrap.dedent(code), method, "exec")
    if method.startswith("track_"):
        assert isinstance(value, float | int)
        assert hasattr(getattr(benchmark, method), "unit"), f"{benchmark.__name__}.{method} has no unit"


@pytest.mark.parametrize("name", MODULES)
def test_every_class_says_its_floor_and_names_its_parameters(name: str) -> None:
    for benchmark in classes(importlib.import_module(f"benchmarks.{name}")):
        text = " ".join(filter(None, [benchmark.__doc__, importlib.import_module(f"benchmarks.{name}").__doc__]))
        assert "loor" in text or name == "convergence", f"{benchmark.__name__} does not say what its limit is"
        params: Any = getattr(benchmark, "params", ())
        assert len(params) == len(getattr(benchmark, "param_names", ()))
        assert all(len(set(values)) == len(values) for values in params)


def test_missing_peers_skip() -> None:
    peers = importlib.import_module("benchmarks._peers")
    with pytest.raises(NotImplementedError):
        peers.optional("a_library_that_nobody_has")


def test_every_bundled_problem_is_tracked() -> None:
    convergence = importlib.import_module("benchmarks.convergence")
    assert set(convergence.NAMES) == {problem.name for problem in convergence.PROBLEMS}


def test_asv_finds_all_benchmarks() -> None:
    if importlib.util.find_spec("asv") is None:
        pytest.skip("asv is not installed; the dependency group bench has it")
    discovery = (
        "import json, sys; from asv_runner.discovery import disc_benchmarks, update_sys_path;"
        "update_sys_path('benchmarks');"
        "print(json.dumps([b.name for b in disc_benchmarks('benchmarks')]))"
    )
    command = [sys.executable, "-W", "error", "-c", discovery]
    environment = {**os.environ, "PYTHONPATH": str(SUITE.parent)}
    run = subprocess.run(command, cwd=SUITE, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    found = set(json.loads(run.stdout.splitlines()[-1]))
    modules = [importlib.import_module(f"benchmarks.{name}") for name in MODULES]
    ours = {
        f"{module.__name__.removeprefix('benchmarks.')}.{c.__name__}.{method}"
        for module in modules
        for c in classes(module)
        for method in runs(c)
    }
    assert found == ours


def asv(home: Path, *arguments: str) -> str:
    """Run a command of asv on the installed environment, and return what it prints."""
    if importlib.util.find_spec("asv") is None:
        pytest.skip("asv is not installed; the dependency group bench has it")
    environment = {**os.environ, "HOME": str(home), "ASV_PYTHONPATH": str(SUITE.parent)}
    command = [sys.executable, "-m", "asv", *arguments]
    run = subprocess.run(command, cwd=SUITE, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


def test_asv_checks_the_suite(tmp_path: Path) -> None:
    assert "No problems found" in asv(tmp_path, "check", "--environment", f"existing:{sys.executable}")


@pytest.mark.slow
def test_asv_runs_and_keeps_a_quick_pass(tmp_path: Path) -> None:
    """Run what users type, on the working tree, with a directory of its own for the results."""
    util = pytest.importorskip("asv.util")
    places = {"repo": SUITE.parent, "benchmark_dir": SUITE / "benchmarks"}
    places |= {f"{kind}_dir": tmp_path / kind for kind in ("results", "html", "env")}
    config = tmp_path / "asv.conf.json"
    settings = util.load_json(str(SUITE / "asv.conf.json"), js_comments=True)
    config.write_text(json.dumps(settings | {name: str(place) for name, place in places.items()}))
    asv(tmp_path, "machine", "--yes")
    names = [
        r"^loop.Start.*'textbook'",
        r"^convergence.Problems.*'rmsprop', 'booth'",
        r"^ratios.VariantOver.*'centered', 'float32'",
    ]
    only = [option for name in names for option in ("--bench", name)]
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=SUITE, capture_output=True, text=True, check=False)
    if commit.returncode != 0:
        pytest.skip("this is no git checkout, and asv measures commits")
    where = ["--config", str(config), "--environment", f"existing:{sys.executable}"]
    printed = asv(tmp_path, "run", *where, "--quick", "--set-commit-hash", commit.stdout.strip(), *only)
    assert "failed" not in printed
    kept = [path for path in (tmp_path / "results").glob("*/*.json") if path.name != "machine.json"]
    assert len(kept) == 1
    results = json.loads(kept[0].read_text())["results"]
    assert {name.partition(".")[0] for name in results} == {"loop", "convergence", "ratios"}
    asv(tmp_path, "publish", "--config", str(config))
    assert (tmp_path / "html" / "index.html").exists()
