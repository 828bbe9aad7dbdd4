"""Users may keep on disk what they compile around the package's compiled functions: nothing in it is of one process."""

from __future__ import annotations

import pytest
from marks import needs_jit
from processes import run_program

pytestmark = [needs_jit, pytest.mark.thorough]

MODULE = """
import numpy as np
from numba import njit
from rmsprop_nb import jacobian, make_solver, value_and_grad


@njit
def chain(x, a):
    s = 0.0
    for i in range(x.size - 1):
        s += a * (x[i + 1] - x[i] ** 2) ** 2 + (1.0 - x[i]) ** 2
    return s


@njit
def residuals(x):
    return 10.0 * (x[1:] - x[:-1] ** 2)


forward, reverse = value_and_grad(chain, mode="forward"), value_and_grad(chain, mode="reverse")
by_size, slopes, solve = value_and_grad(chain), jacobian(residuals), make_solver(chain)


@njit(cache=True)
def gradients(x):
    g = np.zeros((3, x.size))
    return forward(x, g[0], 100.0) + reverse(x, g[1], 100.0) + by_size(x, g[2], 100.0), g, slopes(x)


@njit(cache=True)
def solution(x):
    found = solve(x, 100.0)
    return found.x, found.success
"""

PROGRAM = """
    import numpy as np, cached_callers as m
    f, g, J = m.gradients(np.linspace(-1.0, 1.0, 2000))
    assert f == 3 * m.chain(np.linspace(-1.0, 1.0, 2000), 100.0)
    np.testing.assert_allclose(g[1:], [g[0], g[0]], rtol=1e-12, atol=1e-10)
    np.testing.assert_array_equal(J[5, 5:7], [-20.0 * np.linspace(-1.0, 1.0, 2000)[5], 10.0])
    x, success = m.solution(np.array([-1.2, 1.0]))
    np.testing.assert_allclose(x, 1.0, rtol=1e-5)
    assert success
    print(*(sum(function.stats.cache_hits.values()) for function in (m.gradients, m.solution)))
"""


def test_code_from_disk_does_the_same_in_other_processes(tmp_path, monkeypatch):
    (tmp_path / "cached_callers.py").write_text(MODULE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    assert [run_program(PROGRAM).split() for _ in range(3)] == [["0", "0"], ["1", "1"], ["1", "1"]]
