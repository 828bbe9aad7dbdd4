"""The documentation builds without a fault, names everything public, and its pictures can be drawn anew."""

from __future__ import annotations

import importlib
import inspect
import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import rmsprop_nb

DOCS = Path(__file__).resolve().parents[2] / "docs"

SEARCHED = {
    "fits": ("curve fit", "covariance", "standard error", "jacobian", "bounds"),
    "gradients": ("jacobian",),
    "mini-batches": ("early stopping",),
    "accuracy": ("nan", "float32"),
    "troubleshooting": ("nan", "float32", "covariance"),
    "objectives": ("checkpoint",),
    "parallel": ("cluster",),
    "migration": ("bounds",),
}
"""What readers look for, and the page that should have it in a title, which is what the search puts first."""

pytestmark = pytest.mark.house


@pytest.mark.thorough
@pytest.mark.slow
def test_builds_without_warnings(tmp_path: Path) -> None:
    for name in ("sphinx", "myst_parser", "numpydoc", "pydata_sphinx_theme", "sphinx_copybutton"):
        pytest.importorskip(name)
    command = [sys.executable, "-m", "sphinx", "-n", "-W", "--keep-going", "-q", str(DOCS), str(tmp_path / "html")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = {path.relative_to(DOCS).with_suffix(".html") for path in DOCS.rglob("*.md") if "_build" not in path.parts}
    assert all((tmp_path / "html" / page).exists() for page in pages)
    reference = (tmp_path / "html" / "reference.html").read_text(encoding="utf-8")
    for name in public_names():
        assert f'id="{name}"' in reference, f"{name} is not in the reference"
    script = (tmp_path / "html" / "searchindex.js").read_text(encoding="utf-8")
    index = json.loads(script.removeprefix("Search.setIndex(").rstrip().removesuffix(")"))
    titles = dict.fromkeys(index["docnames"], "")
    for title, places in index["alltitles"].items():
        for page, _ in places:
            titles[index["docnames"][page]] += title.lower() + "\n"
    for page, words in SEARCHED.items():
        assert all(word in titles[page] for word in words), (page, titles[page])


def public_names() -> set[str]:
    modules = ("cuda", "datasets", "plotting", "schedules", "testing", "xarray")
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


@pytest.fixture
def pictures(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    pytest.importorskip("matplotlib")
    monkeypatch.syspath_prepend(str(DOCS))
    return importlib.import_module("pictures")


@pytest.mark.thorough
def test_pictures_are_drawn(pictures: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "PICTURES", tmp_path)
    pictures.main()
    drawn = {path.name for path in tmp_path.iterdir()}
    assert drawn == {"lecture.png", "relaxation.png", "profiles-with-gradients.svg", "profiles-without-gradients.svg"}
    assert drawn <= {path.name for path in (DOCS / "pictures").iterdir()}
    (axes,) = pictures.lecture().axes
    assert [text.get_text().split(",")[0] for text in axes.get_legend().get_texts()] == [
        "gradient descent",
        "momentum 0.8",
        "Adam",
        "RMSprop",
    ]
    maps = pictures.relaxation(size=24).axes[:4]
    assert [axes.get_title() for axes in maps][1] == "T2* / ms"


TABLE = """\
problem,variables,bounded,rmsprop,BFGS
ONE,4,no,10,20
TWO,9,no,30,
THREE,1,no,,
BOX,1,yes,8,
"""


def test_profiles_are_shares_of_all_problems(pictures: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text(TABLE, encoding="utf-8")
    ratios, bounded, calls, _ = pictures.profiles(path, gradient=False).axes
    expected = {"rmsprop": ([1.0], [2.0, 3.0]), "BFGS": ([2.0], [4.0])}
    for axes, k in ((ratios, 0), (calls, 1)):
        for line in axes.get_lines():
            steps = expected[line.get_label()][k]
            assert list(line.get_xdata()) == [steps[0], *steps, axes.get_xlim()[1]]
    shares = {line.get_label(): list(line.get_ydata()) for line in ratios.get_lines()}
    assert shares == {"rmsprop": [0.0, 2 / 3, 2 / 3], "BFGS": [0.0, 1 / 3, 1 / 3]}
    assert [line.get_label() for line in bounded.get_lines()] == ["rmsprop"]  # BFGS cannot take bounds
