"""What the code does not do."""

from __future__ import annotations

import ast
from pathlib import Path

import rmsprop_nb


def test_nothing_that_is_read_is_run():
    for path in Path(rmsprop_nb.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {alias.name.partition(".")[0] for alias in node.names} | {getattr(node, "module", "")}
                assert not names & {"marshal", "shelve", "dill", "cloudpickle"}, path
                # one module tries, by a round trip in memory, whether a function can be sent to another process; the
                # other reads compiled code, which is run in any case, and only if it is what was written
                assert "pickle" not in names or path.name in ("batch_processes.py", "disk_cache.py"), path
            if isinstance(node, ast.Call):
                called = getattr(node.func, "id", getattr(node.func, "attr", ""))
                assert called not in ("eval", "exec", "__import__"), f"{path}: {called}"
                for keyword in node.keywords:
                    assert (keyword.arg, getattr(keyword.value, "value", None)) != ("allow_pickle", True), path
