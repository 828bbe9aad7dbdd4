"""The README and the pages beside it: their commands are there and their examples run.

A ``python`` block is run as it stands, in one namespace with those before it; a ``pycon`` block is a doctest.
"""

from __future__ import annotations

import doctest
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
PAGES = [README, *sorted(page for page in (ROOT / "docs").rglob("*.md") if "_build" not in page.parts)]
TEXT = README.read_text(encoding="utf-8") if README.exists() else ""
BLOCK = re.compile(r"^```(?P<language>python|pycon)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
OPTIONAL = ("dask", "xarray")

pytestmark = pytest.mark.house


@pytest.mark.parametrize("command", ["python3 run.py demo", "python3 run.py test"])
def test_names_the_commands_of_a_newcomer(command: str) -> None:
    assert re.search(rf"^{command}\b", TEXT, re.MULTILINE)


def as_case(page: Path) -> Any:
    """Return the page as a parameter: those beside README and quick start take long together."""
    marks = () if page.stem in ("README", "quick-start") else (pytest.mark.thorough,)
    return pytest.param(page, id=f"{page.parent.name}/{page.name}", marks=marks)


@pytest.mark.parametrize("page", [as_case(page) for page in PAGES])
def test_examples_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {"__name__": "__readme__"}
    text, missing = page.read_text(encoding="utf-8"), ""
    for block in BLOCK.finditer(text):
        line = text.count("\n", 0, block.start("code"))
        if block["language"] == "python":
            # newlines in front, so that a traceback shows the page's own line numbers
            code = compile("\n" * line + block["code"], page, "exec")
            try:
                exec(code, namespace)  # noqa: S102
            except ModuleNotFoundError as error:
                if error.name not in OPTIONAL:
                    raise
                missing = f"all but the block at line {line}, which needs {error.name}, has run"
        else:
            run_doctest(block["code"], namespace, page, line)
    if missing:
        pytest.skip(missing)


def run_doctest(code: str, namespace: dict[str, Any], page: Path, line: int) -> None:
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    example = doctest.DocTestParser().get_doctest(code, namespace, page.name, str(page), line)
    report: list[str] = []
    failed = doctest.DocTestRunner(optionflags=flags).run(example, out=report.append, clear_globs=False).failed
    namespace.update(example.globs)
    assert not failed, "".join(report)
