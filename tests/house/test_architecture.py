"""The table in docs/architecture.md against the imports that the modules really make."""

from __future__ import annotations

import ast
import graphlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "rmsprop_nb"
DOCUMENT = "docs/architecture.md"

LONGEST_MODULE = 400
# Parts of an outside package that a module may use only if its row names them.
COSTLY_PARTS = ("numba.cuda", "scipy.optimize")
COMPILERS = {f"numba.{name}" for name in ("cfunc", "guvectorize", "jit", "njit", "stencil", "vectorize")}
MAY_COMPILE = {"_jit", "_models"}
# What `import rmsprop_nb` must leave alone, however it is installed.
HEAVY = {"matplotlib", "mpi4py", "numba", "numba.cuda", "scipy", "tqdm"}

pytestmark = pytest.mark.house


class Row(NamedTuple):
    layer: int
    may_import: frozenset[str]
    outside: frozenset[str]


def read_table() -> dict[str, Row]:
    document = ROOT / DOCUMENT
    if not document.exists():  # collected away from a checkout
        return {}
    table = {}
    for line in document.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if len(cells) == 5 and cells[0].isdecimal():
            layer, file, _, may_import, outside = cells
            table[file.strip("`")] = Row(int(layer), names(may_import), names(outside))
    return table


def names(cell: str) -> frozenset[str]:
    return frozenset(re.findall(r"`([^`]+)`", cell))


def imports(tree: ast.AST) -> Iterator[str]:
    """Yield the dotted name of everything imported, wherever the import stands: a.b.c for ``from a.b import c``."""
    for node in ast.walk(tree):
        match node:
            case ast.Import():
                yield from (alias.name for alias in node.names)
            case ast.ImportFrom(module=module, level=level):
                origin = ".".join(filter(None, [PACKAGE if level else "", module]))
                yield from (f"{origin}.{alias.name}" for alias in node.names)
            case ast.Call(
                func=ast.Attribute(attr="import_module") | ast.Name(id="import_module" | "__import__"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield PACKAGE + name if name.startswith(".") else name


def attributes(tree: ast.AST, package: str) -> Iterator[str]:
    """Yield ``package.name`` for every attribute that is taken of the package itself, under whatever alias."""
    aliases = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
        if alias.name == package
    }
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id=owner), attr=name) if owner in aliases:
                yield f"{package}.{name}"


def own_modules(imported: Iterator[str]) -> set[str]:
    """Return the modules of this package among the names; a name that is no module comes from ``__init__``."""
    paths = [name.split(".")[1:] for name in imported if name.split(".")[0] == PACKAGE]
    return {path[0] if path and path[0] in MODULES else "__init__" for path in paths}


def outside_packages(imported: Iterator[str]) -> set[str]:
    known = {PACKAGE, *sys.stdlib_module_names}
    foreign = [name for name in imported if name.split(".")[0] not in known]
    return {
        next((part for part in COSTLY_PARTS if f"{name}.".startswith(f"{part}.")), name.split(".")[0])
        for name in foreign
    }


def listed(found: set[str] | frozenset[str]) -> str:
    return ", ".join(f"`{name}`" for name in sorted(found)) or "nothing"


TABLE = read_table()
MODULES = {path.stem: path for path in sorted((ROOT / PACKAGE).glob("*.py"))}
TREES = {module: ast.parse(path.read_text(encoding="utf-8")) for module, path in MODULES.items()}

each_module = pytest.mark.parametrize("module", [module for module in MODULES if module in TABLE])


def test_table_has_a_row_for_each_module_and_no_other() -> None:
    missing, left_over = MODULES.keys() - TABLE.keys(), TABLE.keys() - MODULES.keys()
    assert not missing, f"{DOCUMENT} has no row for {listed(missing)}"
    assert not left_over, f"{DOCUMENT} has a row for {listed(left_over)}, which does not exist"


def test_table_only_allows_imports_that_go_down() -> None:
    upward = {
        f"{module} -> {other}"
        for module, row in TABLE.items()
        for other in row.may_import
        if TABLE[other].layer > row.layer
    }
    assert not upward, f"{DOCUMENT} allows imports that go up: {listed(upward)}"
    graph = graphlib.TopologicalSorter({module: row.may_import for module, row in TABLE.items()})
    graph.prepare()  # raises on a circle


@each_module
def test_module_imports_only_what_its_row_allows(module: str) -> None:
    row, tree = TABLE[module], TREES[module]
    forbidden = own_modules(imports(tree)) - row.may_import
    assert not forbidden, f"{module} imports {listed(forbidden)}; {DOCUMENT} allows it {listed(row.may_import)}"


@each_module
def test_module_uses_only_the_outside_packages_its_row_names(module: str) -> None:
    row, tree = TABLE[module], TREES[module]
    forbidden = outside_packages(imports(tree)) - row.outside
    assert not forbidden, f"{module} uses {listed(forbidden)}; {DOCUMENT} allows it {listed(row.outside)}"


@pytest.mark.parametrize("module", sorted(MODULES.keys() - MAY_COMPILE))
def test_compile_options_are_chosen_in_one_place(module: str) -> None:
    tree = TREES[module]
    found = COMPILERS & {*imports(tree), *attributes(tree, "numba")}
    assert not found, f"{module} uses {listed(found)}; take a decorator of _jit"


@pytest.mark.parametrize("module", MODULES)
def test_module_is_short(module: str) -> None:
    lines = len(MODULES[module].read_text(encoding="utf-8").splitlines())
    assert lines <= LONGEST_MODULE, f"{module} has {lines} lines, {LONGEST_MODULE} at most: split it"


def test_import_is_quiet() -> None:
    code = f"import sys, {PACKAGE}; print(*sorted(set(sys.modules) & {HEAVY}))"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(run.stdout.split())
    assert not loaded, f"import {PACKAGE} also imports {listed(loaded)}"
