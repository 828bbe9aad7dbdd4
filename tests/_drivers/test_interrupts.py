"""Ctrl-C at any moment: the best point so far is returned, or KeyboardInterrupt; nothing is harmed.

Interrupts come at counted evaluations and at counted lines, not after some time: what is tested is the same on every
machine, however busy it is. They come in a process of their own, because an interrupt may also come where Python can
only say that it ignored it; one process runs all kinds, one after another, because it imports and compiles for long.
"""

from __future__ import annotations

import contextlib
import os
import threading
import types
from concurrent.futures import ThreadPoolExecutor

import pytest
from marks import needs_jit
from processes import run_program

from rmsprop_nb._drivers import batch_processes, batch_threads

pytestmark = [needs_jit, pytest.mark.skipif(os.name == "nt", reason="sends signals to itself")]

# Objectives that send SIGINT at evaluation counts[1] of theirs, and everything that can be run with them.
RUNS = """
    import ctypes, itertools, linecache, os, signal, sys
    import numpy as np
    from numba import njit
    from rmsprop_nb import Status, minimize, minimize_batch, minimize_minibatch
    from rmsprop_nb._drivers import batch_threads, first_runs, loop, minibatch_loop

    PROCESS, SIGINT = os.getpid(), int(signal.SIGINT)
    kill = ctypes.CDLL(None).kill
    kill.argtypes, kill.restype = [ctypes.c_int, ctypes.c_int], ctypes.c_int

    def valley(x, counts):
        counts[0] += 1
        if counts[0] == counts[1]:
            kill(PROCESS, SIGINT)
        f, g = 0.0, np.empty(x.size)
        for i in range(x.size):
            g[i] = 2.0 * (i + 1) * (x[i] - 1.0)
            f += 0.5 * g[i] * (x[i] - 1.0)
        return f, g

    def loss(x, rows, counts):
        counts[0] += 1
        if counts[0] == counts[1]:
            kill(PROCESS, SIGINT)
        f, g = 0.0, np.zeros(x.size)
        for row in rows:
            for i in range(x.size):
                g[i] += 2.0 * (x[i] - row[i]) / len(rows)
                f += (x[i] - row[i]) ** 2 / len(rows)
        return f, g

    start, starts, rows = np.full(20, 3.0), np.full((400, 20), 3.0), np.linspace(-1.0, 1.0, 4000).reshape(200, 20)
    given = [a.copy() for a in (start, starts, rows)]
    compiled, compiled_loss = njit(valley), njit(loss)
    minibatch = {"jac": True, "batch_size": 8, "epochs": 6, "rng": 0}

    def options(maxiter):
        return {"jac": True, "options": {"learning_rate": 1e-4, "maxiter": maxiter}}

    def single(fun, at, maxiter):
        return minimize(fun, start, (np.array([0, at]),), **options(maxiter))

    def batch(fun, at, maxiter, size=400, **kwargs):
        counts = np.zeros((size, 2), np.int64)
        counts[7, 1] = at
        return minimize_batch(fun, starts[:size], batch_args=(counts,), **options(maxiter), **kwargs)

    iterations = 3000  # of a problem of a batch: enough that other threads are still running when one is told

    def as_python(fun, at):
        first_runs._COMPILED.clear()
        first_runs.STEPS = 10**9
        try:
            return single(fun, at, 30)
        finally:
            first_runs.STEPS = 0

    first_runs.STEPS = 0
    loop.is_compiled = lambda *_: False
    KINDS = {
        "compiled": lambda at: single(compiled, at, 300),
        "steps as Python": lambda at: as_python(compiled, at),
        "interpreted": lambda at: single(valley, at, 300),
        "batch": lambda at: batch(compiled, at, iterations),
        "threads": lambda at: batch(compiled, at, iterations, workers=2),
        "one by one": lambda at: batch(valley, at, 20, size=20),
        "minibatch": lambda at: minimize_minibatch(compiled_loss, start, rows, (np.array([0, at]),), **minibatch),
        "interpreted minibatch": lambda at: minimize_minibatch(loss, start, rows, (np.array([0, at]),), **minibatch),
    }

    def check(result):
        x, f, status = np.atleast_2d(result.x), np.atleast_1d(result.fun), np.atleast_1d(result.status)
        begun = np.isfinite(f)
        assert begun.all() or (status[~begun] == Status.INTERRUPTED).all(), (kind, f[~begun], status[~begun])
        if "minibatch" not in kind:
            nobody = np.zeros(2, np.int64)
            np.testing.assert_allclose(f[begun], [compiled(point, nobody)[0] for point in x[begun]], rtol=1e-12)
            assert (f[begun] <= compiled(start, nobody)[0]).all()
        return bool((status == Status.INTERRUPTED).any())

    def outcome(interrupted_run):
        try:
            result = interrupted_run()
        except KeyboardInterrupt:
            found = "raised"
        else:
            found = "returned" if check(result) else "whole"
        for array, before in zip((start, starts, rows), given):
            assert array.tobytes() == before.tobytes()
        return found
"""

AT_EVALUATIONS = """
    for kind, run in KINDS.items():
        whole = run(0)
        print(*(outcome(lambda at=at: run(at)) for at in map(int, sys.argv[1:])))
        assert run(0).x.tobytes() == whole.x.tobytes(), kind
"""

# The lines of the package's own Python code are counted by a trace function, which sends the signal at one of them. A
# line that begins a with statement is also where it ends, and Python sees no signal between its body and its end.
AT_LINES = """
    for module in (loop, minibatch_loop):
        module.next_budget = lambda budget, *_: min(2 * budget, 32)  # for as many lines in every run
    batch_threads.next_budget = lambda budget, *_: min(2 * budget, 1024)
    iterations = 300  # the lines are the same
    package = os.path.dirname(os.path.dirname(loop.__file__))

    def with_interrupt_at(line):
        def trace(frame, event, _):
            if not frame.f_code.co_filename.startswith(package):
                return None
            of_with = linecache.getline(frame.f_code.co_filename, frame.f_lineno).lstrip().startswith("with ")
            if event == "line" and not of_with and next(lines) == line:
                signal.raise_signal(signal.SIGINT)
            return trace

        lines = itertools.count(1)
        sys.settrace(trace)
        try:
            return run(0)
        finally:
            sys.settrace(None)
            with_interrupt_at.count = next(lines) - 1

    for kind, run in KINDS.items():
        whole = run(0)
        assert with_interrupt_at(0).x.tobytes() == whole.x.tobytes(), kind
        moments = np.linspace(1, with_interrupt_at.count, 60).astype(int)
        print(*(outcome(lambda line=line: with_interrupt_at(line)) for line in moments))
        assert run(0).x.tobytes() == whole.x.tobytes(), kind
"""

KINDS = [
    "compiled",
    "steps as Python",
    "interpreted",
    "batch",
    "threads",
    "one by one",
    "minibatch",
    "interpreted minibatch",
]


@pytest.fixture(scope="module")
def outcomes():
    """What came of the interrupts at evaluations and at lines, for each kind."""
    evaluations = [1, 2, 3, 5, 8, 13, 17, 18, 19, 20]
    lines = run_program(RUNS + AT_EVALUATIONS + AT_LINES, *evaluations, NUMBA_NUM_THREADS="2").splitlines()
    assert len(lines) == 2 * len(KINDS)
    return dict(zip(KINDS, zip(lines[: len(KINDS)], lines[len(KINDS) :], strict=True), strict=True))


@pytest.mark.thorough
@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_interrupt_at_any_time(kind, outcomes):
    at_evaluations, at_lines = map(str.split, outcomes[kind])
    if kind in ("interpreted", "steps as Python"):
        assert at_evaluations.pop(0) == "raised"  # there was no point yet
    if kind == "threads":
        assert set(at_evaluations) <= {"returned", "whole"}  # the other threads may be faster than the one that is told
        assert "returned" in at_evaluations
    else:
        assert set(at_evaluations) == {"returned"}
    assert len(at_lines) == 60
    assert at_lines[0] == "raised"
    assert "returned" in at_lines or kind == "threads"  # whose own lines are few while the others run


# Runs that would last for hours.
ENDLESS = """
    for kind, fun in {"compiled": compiled, "interpreted": valley}.items():
        for at in (3, 1000, 10_000):
            result = single(fun, at, 10**12)
            assert check(result), kind
            assert not result.success, kind
            assert result.fun < compiled(start, np.zeros(2, np.int64))[0]
            print(result.nfev >= at - 1)
    for workers in (1, 2, map):
        counts = np.array([[0, 10**12], [0, 10**5], [0, 10**12]])
        counts[0, 1] = 0 if workers == 2 else 10**5
        endless = {"learning_rate": 1e-12, "gtol": 0.0, "maxiter": 10**12}
        result = minimize_batch(compiled, starts[:3], batch_args=(counts,), workers=workers, jac=True, options=endless)
        assert (result.status == Status.INTERRUPTED).all()
        print(workers is map or 10**5 <= counts[:, 0].max() < 10**10)  # a map is given copies
"""

# The third evaluation of an outer run is interrupted inside an inner one.
NESTED = """
    def is_seen_by_the_outer_run(inner):
        calls = []

        def outer(z):
            calls.append(inner(0 if len(calls) != 2 else 8))
            return float((z[0] - 1.0) ** 2)

        result = minimize(outer, [3.0], jac="2-point", options={"learning_rate": 0.01, "maxiter": 30})
        return result.status == Status.INTERRUPTED and len(calls) == 2

    for name, inner in KINDS.items():
        if name not in ("batch", "threads"):
            print(is_seen_by_the_outer_run(inner))
    for workers in (1, 2, map):
        print(is_seen_by_the_outer_run(lambda at: batch(compiled, at, 20, size=20, workers=workers)))
"""

# What had ended when Ctrl-C came is kept, and what had not is no success.
KEPT = """
    from rmsprop_nb import multistart

    calls = itertools.count(1)

    def told(x):
        if next(calls) == 200:
            signal.raise_signal(signal.SIGINT)
        return float(np.sum((x - 1.0) ** 2))

    result = multistart(told, [(-1.0, 3.0)] * 3, 256, rng=0)
    ended = result.batch.status != Status.INTERRUPTED
    print(result.status == Status.INTERRUPTED, not result.success, 0 < ended.sum() < 256)

    whole = minimize_minibatch(compiled_loss, start, rows, (np.zeros(2, np.int64),), **minibatch)
    for fun in (loss, compiled_loss):
        counts = np.array([0, whole.nfev + 1])  # in the last pass over the rows
        found = minimize_minibatch(fun, start, rows, (counts,), **minibatch)
        assert counts[0] >= counts[1]
        resumed = minimize_minibatch(fun, start, rows, (np.zeros(2, np.int64),), state=found.state, **minibatch)
        print(found.nit == 6, found.status == Status.INTERRUPTED, resumed.x.tobytes() == whole.x.tobytes())
"""


def test_ctrl_c_returns_the_best_point():
    assert run_program(RUNS + ENDLESS, NUMBA_NUM_THREADS="2").split() == ["True"] * 9


def test_ctrl_c_in_an_inner_run_ends_the_outer_one():
    assert run_program(RUNS + NESTED, NUMBA_NUM_THREADS="2").split() == ["True"] * (len(KINDS) + 1)


def test_ctrl_c_loses_nothing_that_had_ended():
    assert run_program(RUNS + KEPT).split() == ["True"] * 9


def test_ctrl_c_while_a_thread_is_started_waits_for_it(monkeypatch):
    """The thread runs then, and the pool does not know of it."""
    began, ended = threading.Event(), []

    class Pool(ThreadPoolExecutor):
        def submit(self, function, *arguments):
            threading.Thread(target=function, args=arguments).start()
            began.wait()
            raise KeyboardInterrupt

    def work():
        for begin, _ in ranges:
            began.set()
            while not ranges.stopped:
                pass
            ended.append((begin, sum(range(10**6))))  # takes a moment

    monkeypatch.setattr(batch_threads, "ThreadPoolExecutor", Pool)
    ranges = batch_threads._Ranges(100, 2, lambda count: None)
    batch_threads._on_threads(work, 2, ranges)
    assert [begin for begin, _ in ended] == [0]


def test_ctrl_c_while_parts_are_handed_to_processes_cancels_them(monkeypatch):
    told = []

    class Pool(contextlib.nullcontext):
        def __init__(self, *_, **__):
            super().__init__(self)

        def submit(self, *_):
            raise KeyboardInterrupt

        def shutdown(self, **how):
            told.append(how)

    monkeypatch.setattr(batch_processes, "ProcessPoolExecutor", Pool)
    job = types.SimpleNamespace(part=lambda which: which)
    with pytest.raises(KeyboardInterrupt):
        list(batch_processes._by_processes(2, job, [slice(0, 4)]))
    assert told == [{"wait": True, "cancel_futures": True}]
