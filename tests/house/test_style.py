"""The linter, the formatter and the type checker, so that one command covers everything."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.house


@pytest.mark.parametrize(
    "command",
    [["ruff", "check"], ["ruff", "format", "--check", "--diff"], ["mypy"]],
    ids=["ruff-check", "ruff-format", "mypy"],
)
def test_finds_no_fault(command: list[str]) -> None:
    tool = command[0]
    if importlib.util.find_spec(tool) is None:
        pytest.skip(f"{tool} is not installed; `python3 run.py test` brings it")
    run = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False)
    if run.returncode != 0:
        pytest.fail(f"{' '.join(command)}:\n{run.stdout}{run.stderr}", pytrace=False)
