"""What is compiled beforehand is there for later processes, and a long compilation says so."""

from __future__ import annotations

import types

import pytest
from marks import needs_jit
from processes import run_program, run_python

from rmsprop_nb._numba import compile_notice
from rmsprop_nb._numba.disk_cache import PackageCache

pytestmark = needs_jit

FIRST_STEPS = """
    import numpy as np
    from numba import njit
    from rmsprop_nb import curve_fit, minimize, minimize_batch
    from rmsprop_nb._drivers import first_runs

    bowl = njit(lambda x: ((x - 2.0) ** 2).sum())
    for method in ("rmsprop", "rmsprop-lbfgs"):
        minimize(bowl, np.zeros(3), method=method)
        minimize(bowl.py_func, np.zeros(3), method=method)
        minimize_batch(bowl, np.zeros((5, 3)), method=method)
    for model in (lambda x, a, b: a + b * x, njit(lambda x, a, b: a + b * x)):
        curve_fit(model, np.arange(9.0), np.arange(9.0) % 2)
    print(sum(first_runs._steps.values()), len(first_runs._COMPILED))
"""


@pytest.mark.thorough
def test_no_step_is_taken_as_python_after_compile():
    done = run_python("-m", "rmsprop_nb", "compile")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 16
    assert all(line.endswith(" s") for line in lines)
    assert run_program(FIRST_STEPS).split() == ["0", "8"]


@pytest.fixture
def kernel():
    """What Numba's events are about: a kernel that is kept on disk."""
    cache = object.__new__(PackageCache)
    return types.SimpleNamespace(data={"dispatcher": types.SimpleNamespace(_cache=cache)})


def test_long_compilation_is_announced_once(kernel, monkeypatch, caplog):
    monkeypatch.setattr(compile_notice, "PATIENCE", 0.0)
    unregistered = []
    monkeypatch.setattr(compile_notice.event, "unregister", lambda kind, listener: unregistered.append(listener))
    notice = compile_notice._Notice()
    notice.on_start(kernel)
    notice._waiting.join()
    assert "kept on disk for next time" in caplog.text
    assert unregistered == [notice]
    notice.on_end(kernel)


def test_short_compilation_and_functions_of_users_are_not_announced(kernel, monkeypatch, caplog):
    monkeypatch.setattr(compile_notice, "PATIENCE", 3600.0)
    notice = compile_notice._Notice()
    notice.on_start(kernel)
    timer = notice._waiting
    inner = types.SimpleNamespace(data={"dispatcher": types.SimpleNamespace()})
    notice.on_start(inner)  # within the other one
    notice.on_end(inner)
    assert notice._waiting is timer
    notice.on_end(kernel)
    timer.join()
    notice.on_start(inner)
    assert notice._waiting is None
    assert not caplog.text
