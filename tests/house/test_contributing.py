"""What CONTRIBUTING.md and the workflows say of the checkout is true: jobs, files and markers that they name exist."""

from __future__ import annotations

import re
import runpy
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
CONTRIBUTING = ROOT / "CONTRIBUTING.md"
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PAGES = [ROOT / "README.md", CONTRIBUTING, *sorted((ROOT / "docs").rglob("*.md"))]

pytestmark = [pytest.mark.house, pytest.mark.skipif(not CONTRIBUTING.exists(), reason="this is no checkout")]


def jobs() -> set[str]:
    script = runpy.run_path(str(ROOT / "run.py"))
    return script["JOBS"].keys() | script["SCRATCH_JOBS"].keys()


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def flow_list(workflow: str, key: str) -> list[str]:
    """Return what stands as ``key: [a, "b"]`` in a workflow."""
    (found,) = re.findall(rf"^ +{key}: \[(.*)\]$", (ROOT / ".github/workflows" / workflow).read_text(), re.MULTILINE)
    return [name.strip('" ') for name in found.split(",")]


def test_jobs_that_are_named_exist() -> None:
    pages = [*PAGES, *WORKFLOWS, ROOT / ".ci" / "run"]
    named = {
        job for page in pages for job in re.findall(r"python3? run\.py ([a-z]+)", page.read_text(encoding="utf-8"))
    }
    named |= set(flow_list("tests.yml", "job"))
    assert named <= jobs()


def test_workflows_run_what_a_change_must_pass() -> None:
    assert "run.py ci" in (ROOT / ".ci" / "run").read_text()
    assert flow_list("tests.yml", "job") == ["thorough", "wheel", "oldest"]
    assert "python run.py test" in (ROOT / ".github/workflows/tests.yml").read_text()


def test_classifiers_claim_no_python_that_the_workflows_leave_out() -> None:
    prefix = "Programming Language :: Python :: 3."
    claimed = [name for name in project()["project"]["classifiers"] if name.startswith(prefix)]
    pythons = flow_list("tests.yml", "python")
    assert {f"3.{name.removeprefix(prefix)}" for name in claimed} <= set(pythons)
    assert project()["project"]["requires-python"] == f">={pythons[0]}"


def test_files_that_are_named_exist() -> None:
    text = CONTRIBUTING.read_text(encoding="utf-8")
    named = re.findall(r"\]\(([\w./-]+)\)", text) + re.findall(r"`([\w./-]+(?:\.py|\.toml|/))`", text)
    assert len(named) > 5
    missing = [name for name in named if not (ROOT / name).exists() and not (ROOT / "rmsprop_nb" / name).exists()]
    assert not missing


def test_markers_that_are_named_are_those_that_exist() -> None:
    text = CONTRIBUTING.read_text(encoding="utf-8").partition("Mark a test")[2]
    markers = {marker.partition(":")[0] for marker in project()["tool"]["pytest"]["ini_options"]["markers"]}
    assert set(re.findall(r"`(\w+)`", text)) == markers


def test_folders_of_tests_are_those_of_the_package() -> None:
    folders = {path.name for path in (ROOT / "tests").glob("_[a-z]*") if path.is_dir()}
    assert folders <= {path.name for path in (ROOT / "rmsprop_nb").iterdir()}


def test_bug_reports_bring_the_versions() -> None:
    form = (ROOT / ".github/ISSUE_TEMPLATE/bug.yml").read_text(encoding="utf-8")
    assert "`python -m rmsprop_nb info`" in form
