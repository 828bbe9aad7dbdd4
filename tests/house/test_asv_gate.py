"""The gate of asv_bench tells slower from faster, on whatever layout of the package. Nothing here asserts a time."""

from __future__ import annotations

import importlib
import math
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

SUITE = Path(__file__).resolve().parents[2] / "asv_bench"

pytestmark = pytest.mark.house


@pytest.fixture(autouse=True)
def suite(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the suite importable."""
    monkeypatch.syspath_prepend(str(SUITE))


@pytest.fixture
def gate() -> ModuleType:
    return importlib.import_module("gate")


@pytest.fixture
def machine_code() -> ModuleType:
    return importlib.import_module("machine_code")


BEFORE = {"time: update": 1.05, "time: loop": 2.0, "count: instructions": 2.25, "callgrind: loop": 800.0}


def test_gate_lets_noise_and_improvements_pass(gate: ModuleType) -> None:
    after = {"time: update": 1.05 * 1.2, "time: loop": 1.0, "count: instructions": 2.25, "callgrind: loop": 820.0}
    assert gate.regressions(BEFORE, after, factor=1.25) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("time: update", 1.05 * 3.8),
        ("time: loop", 2.6),
        ("count: instructions", 2.5),
        ("count: instructions", math.inf),
    ],
)
def test_gate_stops_what_is_slower(gate: ModuleType, name: str, value: float) -> None:
    assert gate.regressions(BEFORE, BEFORE | {name: value}, factor=1.25) == [name]


def test_gate_stops_what_can_no_longer_be_measured(gate: ModuleType) -> None:
    after = {name: value for name, value in BEFORE.items() if name != "time: loop"}
    assert gate.regressions(BEFORE, after) == ["time: loop"]
    assert gate.regressions(BEFORE, BEFORE | {"time: loop": math.nan}) == ["time: loop"]


def test_gate_uses_the_middle_of_several_rounds(gate: ModuleType) -> None:
    rounds = [{"time: loop": value} for value in (2.0, 90.0, 2.1)]
    assert gate.medians(rounds) == {"time: loop": 2.1}


X86 = """
.LBB0_4:
\tvmulps\t(%rax), %ymm1, %ymm2
\tvsqrtps\t%ymm2, %ymm3
\tvdivps\t%ymm3, %ymm2, %ymm3
\tjne\t.LBB0_4
.LBB0_5:
\tvsqrtss\t%xmm2, %xmm2, %xmm3
\tvdivss\t%xmm3, %xmm2, %xmm3
"""

ARM = """
.LBB0_4:
\tfmul\tv1.4s, v1.4s, v0.4s
\tfsqrt\tv2.4s, v1.4s
\tfdiv\tv2.4s, v1.4s, v2.4s
\tb.ne\t.LBB0_4
"""


def test_gate_counts_instructions_of_the_vectorised_loop(machine_code: ModuleType) -> None:
    assert machine_code.instructions_per_element(X86) == 4 / 8
    assert machine_code.instructions_per_element(X86.replace("ymm", "zmm").replace("ps\t", "pd\t")) == 4 / 8
    assert machine_code.instructions_per_element(ARM) == 4 / 4
    assert machine_code.instructions_per_element(X86.replace("ps\t", "ss\t")) == math.inf


def test_gate_finds_the_vectorised_loop_of_this_checkout(machine_code: ModuleType) -> None:
    kernels = importlib.import_module("benchmarks._kernels")
    assembly = machine_code.update_assembly(kernels.VARIANTS["plain"], "float32")
    if machine_code.instructions_per_element(assembly) == math.inf:
        pytest.fail("the update does not take roots and divide several elements at a time")


def test_gate_measures_what_the_suite_has() -> None:
    gate_list = importlib.import_module("gate_list")
    assert len(gate_list.times()) >= 10
    assert all(name.startswith("count:") for name in gate_list.counts())


# -- commits of other layouts -----------------------------------------------------------------------------------------


def test_every_private_name_is_found_in_its_newest_place() -> None:
    package = importlib.import_module("benchmarks._package")
    for name, (newest, *_) in package.PLACES.items():
        module, attribute = newest.split(":")
        assert hasattr(importlib.import_module(f"rmsprop_nb.{module}"), attribute), f"{name} is not at {newest}"
        assert package.private(name)


def test_private_names_are_found_in_older_places(monkeypatch: pytest.MonkeyPatch) -> None:
    package = importlib.import_module("benchmarks._package")
    places = ("no_such_module:minimize", "_api.minimize:no_such_name", "_api.minimize:minimize")
    monkeypatch.setitem(package.PLACES, "minimize", places)
    assert package.private("minimize").__name__ == "minimize"
    monkeypatch.setitem(package.PLACES, "minimize", places[:2])
    with pytest.raises(LookupError, match=r"no_such_module:minimize, _api\.minimize:no_such_name; add its place"):
        package.private("minimize")


def test_only_one_file_imports_private_modules() -> None:
    private = re.compile(r"^\s*(?:from|import) rmsprop_nb[._a-z]*\._", re.MULTILINE)
    assert not [path.name for path in SUITE.rglob("*.py") if private.search(path.read_text(encoding="utf-8"))]


def test_gate_says_if_there_is_nothing_to_measure() -> None:
    with pytest.raises(SystemExit, match="nothing has 'no such thing' in its name"):
        importlib.import_module("gate_list").measure(str(SUITE.parent), "no such thing")


@pytest.mark.thorough
@pytest.mark.slow
@pytest.mark.parametrize("commit", ["6564025", "HEAD"])
def test_gate_compares_the_working_tree_with_a_commit(commit: str) -> None:
    """The first is the last commit with all modules in one folder."""
    known = subprocess.run(
        ["git", "cat-file", "-e", f"{commit}^{{commit}}"], cwd=SUITE, capture_output=True, check=False
    )
    if known.returncode != 0:
        pytest.skip(f"this checkout does not have commit {commit}")
    only = "instructions per element of the vectorised update (plain, float32)"
    command = [sys.executable, str(SUITE / "gate.py"), commit, "--rounds", "1", "--only", only]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert only in run.stdout
