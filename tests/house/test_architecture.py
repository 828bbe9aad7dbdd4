"""What import-linter cannot see of the architecture, and the page that describes it.

The import rules between folders are contracts in pyproject.toml, which test_style.py has checked.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "rmsprop_nb"
PAGE = ROOT / "docs" / "architecture.md"

LONGEST_MODULE = 400
COMPILERS = {f"numba.{name}" for name in ("cfunc", "guvectorize", "jit", "njit", "stencil", "vectorize")}
MAY_COMPILE = {"_cli/models.py", "_numba/decorators.py"}
KNOW_NUMBA_CUDA = {"_cuda/derivatives.py", "_cuda/memory.py", "_cuda/native.py"}
# What `import rmsprop_nb` must leave alone, however it is installed.
HEAVY = {"matplotlib", "mpi4py", "numba", "numba.cuda", "numpy", "scipy", "tqdm", "xarray"}

MODULES = {path.relative_to(PACKAGE).as_posix(): path for path in sorted(PACKAGE.rglob("*.py"))}
FOLDERS = sorted({module.split("/")[0] for module in MODULES if "/" in module})

pytestmark = [pytest.mark.house, pytest.mark.skipif(not PAGE.exists(), reason="looks at a checkout")]


def imported(tree: ast.AST) -> Iterator[str]:
    """Yield the dotted name of everything imported, wherever the import is: a.b.c for ``from a.b import c``."""
    for node in ast.walk(tree):
        match node:
            case ast.Import():
                yield from (alias.name for alias in node.names)
            case ast.ImportFrom(module=module):
                yield from (f"{module}.{alias.name}" for alias in node.names)


def attributes_of_numba(tree: ast.AST) -> Iterator[str]:
    """Yield ``numba.name`` for every attribute that is taken of the package itself, under whatever alias."""
    imports = [alias for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    aliases = {alias.asname or alias.name for alias in imports if alias.name == "numba"}
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id=owner), attr=name) if owner in aliases:
                yield f"numba.{name}"


@pytest.mark.parametrize("module", sorted(MODULES.keys() - MAY_COMPILE))
def test_compile_options_are_chosen_in_one_place(module: str) -> None:
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    found = COMPILERS & {*imported(tree), *attributes_of_numba(tree)}
    assert not found, f"{module} uses {found}; take a decorator of _numba/decorators.py"


@pytest.mark.parametrize("module", sorted(MODULES.keys() - KNOW_NUMBA_CUDA))
def test_numba_cuda_is_known_to_few_files(module: str) -> None:
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    found = {name for name in imported(tree) if re.match(r"numba[._]cuda\b", name)}
    assert not found, f"{module} imports {found}; take it from _cuda/native.py"


@pytest.mark.parametrize("module", MODULES)
def test_module_is_short(module: str) -> None:
    lines = len(MODULES[module].read_text(encoding="utf-8").splitlines())
    assert lines <= LONGEST_MODULE, f"{module} has {lines} lines, {LONGEST_MODULE} at most: split it"


def test_import_is_quiet() -> None:
    code = f"import sys, rmsprop_nb; print(*sorted(set(sys.modules) & {HEAVY}))"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.split() == []


@pytest.mark.parametrize("folder", FOLDERS)
def test_page_and_folder_say_what_it_is_for(folder: str) -> None:
    assert f"`{folder}/`" in PAGE.read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(MODULES[f"{folder}/__init__.py"].read_text(encoding="utf-8")))


def test_page_names_files_that_exist() -> None:
    named = re.findall(r"`((?:_\w+|tests|docs|asv_bench)/[\w./*]+)`", PAGE.read_text(encoding="utf-8"))
    assert len(named) > 10
    assert [name for name in named if not (any(PACKAGE.glob(name)) or any(ROOT.glob(name)))] == []
