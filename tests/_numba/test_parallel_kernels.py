"""Parallel kernels and objectives under threads, forks, new processes, and within a parallel loop."""

from __future__ import annotations

import os
import sys
import textwrap
from pathlib import Path

import pytest
from marks import needs_jit, some
from processes import run_python

pytestmark = pytest.mark.thorough

PARALLEL = """
    import os, threading
    import numpy as np
    from numba import njit
    from objectives import bowl
    from rmsprop_nb import RMSprop, minimize, minimize_batch

    rounds = 10

    def run(parallel=True):
        options = {"learning_rate": 0.01, "parallel": parallel, "maxiter": 5}
        x = minimize(bowl, np.ones(100_000), jac="inplace", options=options).x
        params, optimizer = np.ones(100_000), RMSprop(0.01, workers=2 if parallel else 1)
        optimizer.step(params, x, optimizer.init(params))
        return params.sum() + x.sum()
"""
THREADS = """
    expected = run(parallel=False)
    found = []
    threads = [threading.Thread(target=lambda: found.extend(run() for _ in range(rounds))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 4 * rounds, found
"""
FORK = """
    optimizer, params = RMSprop(0.01, workers=2), np.ones(100_000)
    state = optimizer.init(params)
    optimizer.step(params, np.ones(100_000), state)
    child = os.fork()
    if child == 0:
        optimizer.step(params, np.ones(100_000), state)
        os._exit(0 if run() == expected else 7)
    assert os.waitpid(child, 0)[1] == 0
"""

# The user's own parallel loops, in threads of the user's and in those of a batch.
OBJECTIVE = """
    from numba import prange
    from rmsprop_nb import minimize_batch, minimize_minibatch

    @njit(parallel=True)
    def distance(x, target):
        total = 0.0
        for i in prange(x.size):
            total += (x[i] - target[i])**2
        return total

    @njit
    def fun(x, target):
        return distance(x, target) + x[0]**2

    @njit
    def loss(x, rows):
        return fun(x, rows[0]), 2.0 * (x - rows[0])

    rounds = 2
    X0, targets = np.ones((64, 3)), np.arange(192.0).reshape(64, 3) / 192.0

    def run(workers=2):
        single = minimize(fun, X0[0], (targets[0],))
        epochs = minimize_minibatch(loss, X0[0], targets, jac=True, batch_size=8, rng=0, epochs=2)
        return minimize_batch(fun, X0, batch_args=(targets,), workers=workers).x.sum() + single.x.sum() + epochs.x.sum()
"""
OBJECTIVE_THREADS = OBJECTIVE + THREADS.replace("parallel=False", "workers=1")
OBJECTIVE_FORK = """
    layer = os.environ["NUMBA_THREADING_LAYER"]
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if run() == expected else 7)
        except RuntimeError as refusal:
            os._exit(0 if layer == "omp" and "forked" in str(refusal) else 8)
    assert os.waitpid(child, 0)[1] == 0
"""

# Runs within a parallel loop of the user's, whose threads may not start threads of their own everywhere.
NESTED = """
    from numba import objmode, prange

    @njit(parallel=True)
    def parallel_bowl(x, grad):
        for i in prange(x.size):
            grad[i] = x[i]
        return 0.5 * np.sum(x * x)

    def refused():
        try:
            return 0.0 * minimize(parallel_bowl, np.ones(3), jac="inplace").fun
        except RuntimeError as refusal:
            assert "within a parallel loop" in str(refusal), refusal
            return 1.0

    @njit(parallel=True)
    def many(out):
        for k in prange(len(out)):
            with objmode(total="float64", no="float64"):
                total, no = run(), refused()
            out[k, 0], out[k, 1] = total, no

    @njit
    def asks_python(x, grad):
        with objmode(total="float64"):
            total = parallel_bowl(x, np.empty_like(x))
        grad[:] = x
        return total

    assert minimize_batch(asks_python, np.ones((64, 40)), jac="inplace", workers=2).success.all()

    out = np.empty((6, 2))
    assert refused() == 0.0
    many(out)
    assert (out[:, 0] == expected).all(), out
    assert (out[:, 1] == (os.environ["NUMBA_THREADING_LAYER"] == "workqueue")).all(), out
"""
SPAWN = """
    from rmsprop_nb import minimize_batch
    import sendable

    fits = [minimize_batch(sendable.bowl, np.zeros((4, 3)), (0.5,), jac=True, workers=n).x for n in (1, 2)]
    np.testing.assert_array_equal(*fits)
"""
PROGRAMS = {  # a process that forks ends with that
    "kernels": THREADS + NESTED + "{spawn}" + FORK,
    "objectives": OBJECTIVE_THREADS + OBJECTIVE_FORK,
}


@pytest.mark.slow
@needs_jit
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.parametrize("layer", some(["workqueue", "omp", "tbb"], 2, rest=pytest.mark.exhaustive))
@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_parallel_kernels_bear_threads_and_forks(layer, program):
    libraries = Path(sys.prefix) / "lib"  # where pip puts TBB, and nobody looks
    if layer == "tbb" and not list(libraries.glob("libtbb.so*")):
        pytest.skip("TBB is not installed by pip")
    if layer == "omp":
        pytest.importorskip("numba.np.ufunc.omppool")
    variables = {"NUMBA_THREADING_LAYER": layer, "NUMBA_NUM_THREADS": "2", "LD_LIBRARY_PATH": str(libraries)}
    program = program.replace("{spawn}", SPAWN if layer == "workqueue" else "")  # new processes know nothing of a layer
    done = run_python("-W", "ignore", "-c", textwrap.dedent(PARALLEL) + textwrap.dedent(program), **variables)
    assert done.returncode == 0, done.stderr
