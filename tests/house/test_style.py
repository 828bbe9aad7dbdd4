"""The linter, the formatter, the type checker and the rule of imports, so that one command covers everything."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

LINT_IMPORTS = "from importlinter.cli import lint_imports_command; lint_imports_command()"

pytestmark = pytest.mark.house


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        pytest.param("ruff", ["-m", "ruff", "check"], id="ruff-check"),
        pytest.param("ruff", ["-m", "ruff", "format", "--check", "--diff"], id="ruff-format"),
        pytest.param("mypy", ["-m", "mypy"], id="mypy", marks=pytest.mark.thorough),
        pytest.param("importlinter", ["-c", LINT_IMPORTS, "--no-cache"], id="lint-imports"),
    ],
)
def test_finds_no_fault(tool: str, arguments: list[str]) -> None:
    if importlib.util.find_spec(tool) is None:
        pytest.skip(f"{tool} is not installed; `python3 run.py lint` brings it")
    run = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    if run.returncode != 0:
        pytest.fail(f"{' '.join(arguments)}:\n{run.stdout}{run.stderr}", pytrace=False)
