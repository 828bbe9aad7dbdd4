"""The digest that keeps stale kernels from being loaded: every file of the package counts."""

from __future__ import annotations

import shutil
from pathlib import Path

import rmsprop_nb
from rmsprop_nb._numba.disk_cache import digest_of, package_digest


def test_change_in_any_file_makes_old_kernels_invalid(tmp_path: Path) -> None:
    package = tmp_path / "rmsprop_nb"
    shutil.copytree(Path(rmsprop_nb.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    assert digest_of(package) == package_digest()
    files = sorted(package.rglob("*.py"))
    assert {path.parent.name for path in files} >= {"rmsprop_nb", "_core", "_kernels", "_methods"}
    seen = {package_digest()}
    for path in files:
        before = path.read_bytes()
        path.write_bytes(before + b"#")
        seen.add(digest_of(package))
        path.write_bytes(before)
    assert len(seen) == len(files) + 1


def test_name_of_a_file_counts(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1\n")
    before = digest_of(tmp_path)
    (tmp_path / "a.py").rename(tmp_path / "b.py")
    assert digest_of(tmp_path) != before
