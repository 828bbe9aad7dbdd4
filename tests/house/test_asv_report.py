"""The page of benchmarks has the words that its script writes, and keeps its history."""

from __future__ import annotations

import importlib
import re
import subprocess
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

SUITE = Path(__file__).resolve().parents[2] / "asv_bench"

pytestmark = pytest.mark.house


@pytest.fixture
def report(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    pytest.importorskip("asv", reason="the dependency group bench has it")
    monkeypatch.syspath_prepend(str(SUITE))
    return importlib.import_module("report")


@pytest.fixture
def page(report: ModuleType) -> str:
    return report.PAGE.read_text(encoding="utf-8")


def test_the_page_has_the_words_of_the_template(report: ModuleType, page: str) -> None:
    text = re.escape(report.TEMPLATE.read_text(encoding="utf-8"))
    assert re.fullmatch(re.sub(r"\\{\w+\\}", r"[\\s\\S]+", text), page)


def test_the_page_has_the_headings_of_the_tables(report: ModuleType, page: str) -> None:
    found = dict(re.findall(r"^## (.+)\n\n`(\w+\.\w+\.\w+)`$", page, re.MULTILINE))
    assert found
    for title, benchmark in found.items():
        assert report.TABLES[benchmark] == title


def test_every_table_is_of_a_benchmark(report: ModuleType) -> None:
    for name in [*report.TABLES, *(benchmark for benchmark, _ in report.HISTORY.values())]:
        module, benchmark, method = name.split(".")
        assert hasattr(getattr(importlib.import_module(f"benchmarks.{module}"), benchmark), method)


def test_history_keeps_the_rows_of_the_page(report: ModuleType, page: str) -> None:
    assert "\n".join(report.history([], page)) + "\n" == page[page.index("| commit |") :]


def test_history_adds_commits_and_replaces_those_measured_again(
    report: ModuleType, page: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rows(results: Any, benchmark: str) -> list[Any]:
        return [report.Row(("'rmsprop'",), results.unsolved)] if benchmark.startswith("convergence") else []

    monkeypatch.setattr(report, "rows", rows)
    log = subprocess.run(["git", "rev-parse", "HEAD"], cwd=SUITE, capture_output=True, text=True, check=False)
    if log.returncode != 0:
        pytest.skip("this is no git checkout, which knows the dates of commits")
    before, newest = list(report.history_rows(page)), log.stdout.strip()
    first = report.history([SimpleNamespace(commit_hash=newest, unsolved=1.5)], page)
    assert len(first) == 2 + len(before) + 1
    assert first[-1].startswith(f"| `{newest[:8]}` |")
    assert first[-1].endswith("|  |  |  |  |  | 1.5 |")
    again = report.history([SimpleNamespace(commit_hash=newest, unsolved=2.5)], "\n".join(first))
    assert again[:-1] == first[:-1]
    assert again[-1].endswith(" 2.5 |")
