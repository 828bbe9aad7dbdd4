"""The documentation builds without a fault, names everything public, and its pictures can be drawn anew."""

from __future__ import annotations

import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import rmsprop_nb

DOCS = Path(__file__).resolve().parents[2] / "docs"

pytestmark = pytest.mark.house


@pytest.mark.slow
def test_builds_without_warnings(tmp_path: Path) -> None:
    for name in ("sphinx", "myst_parser", "numpydoc", "pydata_sphinx_theme"):
        pytest.importorskip(name)
    command = [sys.executable, "-m", "sphinx", "-n", "-W", "--keep-going", "-q", str(DOCS), str(tmp_path / "html")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = {path.relative_to(DOCS).with_suffix(".html") for path in DOCS.rglob("*.md") if "_build" not in path.parts}
    assert all((tmp_path / "html" / page).exists() for page in pages)
    reference = (tmp_path / "html" / "reference.html").read_text(encoding="utf-8")
    for name in public_names():
        assert f'id="{name}"' in reference, f"{name} is not in the reference"


def public_names() -> set[str]:
    modules = ("cuda", "datasets", "plotting", "schedules", "testing")
    names = {f"rmsprop_nb.{name}" for name in rmsprop_nb.__all__ if name not in (*modules, "__version__")}
    for module in modules:
        found = importlib.import_module(f"rmsprop_nb.{module}")
        names |= {f"rmsprop_nb.{module}.{name}" for name in found.__all__ if is_documented(getattr(found, name))}
    return names


def is_documented(value: object) -> bool:
    """Functions and classes have docstrings; aliases of types and tables have not."""
    return inspect.isfunction(value) or inspect.isclass(value)


def test_every_page_is_in_the_index() -> None:
    listed = re.findall(r"^[\w/-]+$", (DOCS / "index.md").read_text(encoding="utf-8"), re.MULTILINE)
    pages = {str(path.relative_to(DOCS).with_suffix("")) for path in DOCS.rglob("*.md") if "_build" not in path.parts}
    assert pages - {"index"} == set(listed)


def test_pictures_are_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.syspath_prepend(str(DOCS))
    pictures = importlib.import_module("pictures")
    monkeypatch.setattr(pictures, "PICTURES", tmp_path)
    pictures.main()
    assert [path.name for path in tmp_path.iterdir()] == ["lecture.png"]
    assert (DOCS / "pictures" / "lecture.png").exists()
    (axes,) = pictures.lecture().axes
    assert [text.get_text().split(",")[0] for text in axes.get_legend().get_texts()] == [
        "gradient descent",
        "momentum 0.8",
        "RMSprop",
    ]
