"""Ctrl-C at any moment: the best point so far is returned, or KeyboardInterrupt; nothing is harmed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap

import pytest
from marks import needs_jit

from rmsprop_nb import Status

# In a process of its own: an interrupt may also come where Python can only say that it ignored it.
PROGRAM = """
    import signal, sys, time
    import numpy as np
    from numba import njit
    from rmsprop_nb import Status, minimize, minimize_batch, minimize_minibatch

    def valley(x):
        return np.sum((x - 1.0)**2 * np.arange(1.0, x.size + 1.0)), 2.0 * (x - 1.0) * np.arange(1.0, x.size + 1.0)

    def loss(x, rows):
        d = x - rows.sum(axis=0) / len(rows)
        return np.sum(d * d), 2.0 * d

    start, starts, rows = np.full(20, 3.0), np.full((400, 20), 3.0), np.linspace(-1.0, 1.0, 20_000).reshape(1000, 20)
    given = [a.copy() for a in (start, starts, rows)]
    slow = {"learning_rate": 1e-4, "maxiter": 3000}
    fast = {"learning_rate": 1e-4, "maxiter": 20}
    compiled, compiled_loss = njit(valley), njit(loss)
    RUNS = {
        "compiled": lambda: minimize(compiled, start, jac=True, options=slow),
        "interpreted": lambda: minimize(valley, start, jac=True, options=slow),
        "batch": lambda: minimize_batch(compiled, starts, jac=True, options=slow),
        "threads": lambda: minimize_batch(compiled, starts, jac=True, options=slow, workers=2),
        "one by one": lambda: minimize_batch(valley, starts, jac=True, options=fast),
        "minibatch": lambda: minimize_minibatch(compiled_loss, start, rows, jac=True, batch_size=8, rng=0, epochs=20),
    }
    run = RUNS[sys.argv[1]]

    def check(result):
        x, f, status = np.atleast_2d(result.x), np.atleast_1d(result.fun), np.atleast_1d(result.status)
        begun = np.isfinite(f)
        assert begun.all() or (status[~begun] == Status.INTERRUPTED).all()
        if sys.argv[1] != "minibatch":
            np.testing.assert_allclose(f[begun], [compiled(point)[0] for point in x[begun]], rtol=1e-12)
            assert (f[begun] <= compiled(start)[0]).all()
        return (status == Status.INTERRUPTED).any()

    whole = run()
    begin = time.perf_counter()
    run()
    duration = time.perf_counter() - begin
    rng = np.random.default_rng(int(sys.argv[2]))
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    raised = returned = 0
    while raised + returned < 12:
        result = None
        try:
            signal.setitimer(signal.ITIMER_REAL, duration * rng.uniform(1e-3, 1.1))
            result = run()
            signal.setitimer(signal.ITIMER_REAL, 0)
        except KeyboardInterrupt:
            raised += result is None
        if result is not None:
            returned += bool(check(result))
        for array, before in zip((start, starts, rows), given):
            assert array.tobytes() == before.tobytes()
    again = run()
    assert again.x.tobytes() == whole.x.tobytes()
    print(raised, "raised,", returned, "returned")
    assert returned >= 3  # others came before there was a point to return
"""


@pytest.mark.slow
@needs_jit
@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no timers that interrupt")
@pytest.mark.parametrize("run", ["compiled", "interpreted", "batch", "threads", "one by one", "minibatch"])
def test_interrupt_at_any_time(run):
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM), run, "0"],
        env={**os.environ, "NUMBA_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr


INTERRUPT = """
    import os, signal, threading, time
    import numpy as np
    from numba import njit
    from rmsprop_nb import minimize, Status, rmsprop
    @njit
    def fun(x, grad):
        grad[:] = np.cos(x)
        return np.sum(np.sin(x)) + 3.0
    objective = fun if {compiled} else (lambda x, grad: fun(x, grad))
    options = dict(learning_rate=0.5, gtol=0.0, maxiter=10**12)
    minimize(objective, [1.0, 2.0], jac="inplace", options=dict(options, maxiter=10))
    sent = []
    def interrupt():
        sent.append(time.perf_counter())
        os.kill(os.getpid(), signal.SIGINT)
    threading.Timer(0.3, interrupt).start()
    result = minimize(objective, [1.0, 2.0], jac="inplace", options=options)
    print(time.perf_counter() - sent[0], result.status, result.fun < 3.0 + np.sin([1.0, 2.0]).sum(), result.success)
"""


@pytest.mark.skipif(os.name == "nt", reason="sends SIGINT")
@pytest.mark.parametrize("compiled", [True, False])
def test_ctrl_c_returns_the_best_point(compiled):
    program = textwrap.dedent(INTERRUPT.format(compiled=compiled))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=True)
    seconds, status, better, success = done.stdout.split()
    assert float(seconds) < 30.0  # the run would last for hours
    assert (int(status), better, success) == (Status.INTERRUPTED, "True", "False")
