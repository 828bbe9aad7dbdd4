"""numba-cuda is imported by two files, so that what takes its place one day has to be fitted in there alone."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import rmsprop_nb

PACKAGE = Path(rmsprop_nb.__file__).parent
MAY_IMPORT = {"_cuda/native.py", "_cuda/memory.py"}

pytestmark = pytest.mark.house


def imported(path):
    """The dotted name of everything that a file imports: a.b.c for ``from a.b import c``."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=str(module), names=names):
                yield from (f"{module}.{alias.name}" for alias in names)


def test_two_files_import_numba_cuda():
    found = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if any(f"{name}.".startswith(("numba.cuda.", "numba_cuda.")) for name in imported(path))
    }
    assert found == MAY_IMPORT
