"""Promises that docs/trust.md lists: faults at every call, forks and threads, hostile arrays, numbers that run out."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tempfile
import textwrap
import warnings
from pathlib import Path

import numpy as np
import pytest
import sendable
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numba import njit

import rmsprop_nb
from rmsprop_nb import RMSprop, Status, minimize, minimize_batch, minimize_minibatch
from rmsprop_nb._drivers.batch_threads import KEPT_EXCEPTIONS
from rmsprop_nb._numba.decorators import JIT_ENABLED

# -- an exception at every call ---------------------------------------------------------------------------------------


@njit
def compiled_bowl(x, grad, counts):
    counts[0] += 1
    if counts[0] == counts[1]:
        raise ValueError("on purpose")
    for i in range(x.size):
        grad[i] = (i + 1.0) * (x[i] - 1.0)
    return 0.5 * np.sum(grad * (x - 1.0))


def python_bowl(x, grad, counts):
    counts[0] += 1
    if counts[0] == counts[1]:
        raise ValueError("on purpose")
    grad[:] = np.arange(1.0, x.size + 1) * (x - 1.0)
    return float(0.5 * np.sum(grad * (x - 1.0)))


RUNS = {
    "textbook": {"options": {"learning_rate": 0.01}},
    "auto": {},
    "lbfgs": {"method": "rmsprop-lbfgs", "bounds": [(-3, 3)] * 4},
}


@pytest.mark.parametrize("call", range(1, 21))
@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_exception_at_any_call_reaches_the_caller_and_harms_nothing(run, call):
    x0 = np.array([3.0, -2.0, 0.5, 2.9])
    for fun in (compiled_bowl, python_bowl):
        before, counts = x0.copy(), np.array([0, call])
        _, refusal = tried(lambda fun=fun, counts=counts: minimize(fun, x0, (counts,), jac="inplace", **run))
        assert refusal == ("on purpose" if counts[0] == call else "")
        assert counts[0] <= call
        np.testing.assert_array_equal(x0, before)
        assert minimize(fun, x0, (np.array([0, 0]),), jac="inplace", **{**run, "tol": 10.0}).success


@pytest.mark.parametrize("call", range(1, 21))
def test_exception_of_a_callback_or_a_batch_at_any_call(call):
    seen = []

    def callback(x):
        seen.append(x)
        if len(seen) == call:
            raise OSError("on purpose")

    nobody = np.array([0, 0])
    with pytest.raises(OSError, match="on purpose"):
        minimize(
            compiled_bowl, np.full(4, 3.0), (nobody,), jac="inplace", callback=callback,
            options={"learning_rate": 0.01, "maxiter": 30},
        )  # fmt: skip
    assert len(seen) == call
    counts = np.zeros((3, 2), np.int64)
    counts[1, 1] = call
    found = minimize_batch(python_bowl, np.full((3, 2), 3.0), batch_args=(counts,), jac="inplace")
    assert found.success[[0, 2]].all()
    assert found.status[1] in (Status.EXCEPTION, Status.GTOL)
    assert (found.status[1] == Status.EXCEPTION) == (1 in found.exceptions)


@pytest.mark.parametrize("fun", [compiled_bowl, sendable.counting_bowl], ids=["threads", "processes"])
def test_exception_at_any_call_on_another_worker(fun):
    """Problem k raises at call k: none of the others notices."""
    counts = np.stack([np.zeros(21, np.int64), np.arange(21)], axis=1)
    run = {"jac": "inplace", "options": {"learning_rate": 0.01, "maxfev": 30}}
    found = minimize_batch(fun, np.full((21, 4), 3.0), batch_args=(counts,), workers=2, **run)
    assert found.status.tolist() == [Status.MAXFEV] + [Status.EXCEPTION] * 20
    assert found.nfev.tolist() == [30, *range(20)]
    # a compiled problem is run again to see what it raised, and this one does not raise again
    kept = range(1, 1 + KEPT_EXCEPTIONS) if fun is sendable.counting_bowl else ()
    assert {k: str(error) for k, error in found.exceptions.items()} == dict.fromkeys(kept, "on purpose")
    assert np.isfinite(found.x).all()
    alone = minimize(fun, np.full(4, 3.0), (np.array([0, 0]),), **run)
    np.testing.assert_array_equal(found.x[0], alone.x)


# -- threads and forks ------------------------------------------------------------------------------------------------

PARALLEL = """
    import os, threading
    import numpy as np
    from numba import njit
    from rmsprop_nb import RMSprop, minimize

    rounds = 10

    @njit
    def bowl(x, grad):
        for i in range(x.size):
            grad[i] = x[i]
        return 0.5 * np.sum(x * x)

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
    "kernels": THREADS + NESTED + SPAWN + FORK,
    "objectives": OBJECTIVE_THREADS + OBJECTIVE_FORK,
}


@pytest.mark.slow
@pytest.mark.skipif(not JIT_ENABLED, reason="is about compiled code, and the JIT is disabled")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.parametrize("layer", ["workqueue", "omp", "tbb"])
@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_parallel_kernels_bear_threads_and_forks(layer, program):
    libraries = Path(sys.prefix) / "lib"  # where pip puts TBB, and nobody looks
    if layer == "tbb" and not list(libraries.glob("libtbb.so*")):
        pytest.skip("TBB is not installed by pip")
    if layer == "omp":
        pytest.importorskip("numba.np.ufunc.omppool")
    code = textwrap.dedent(PARALLEL) + textwrap.dedent(program)
    environment = {
        **os.environ,
        "NUMBA_THREADING_LAYER": layer,
        "NUMBA_NUM_THREADS": "2",
        "PYTHONPATH": str(Path(__file__).parents[1]),  # for those that are sent to other processes
        "LD_LIBRARY_PATH": str(libraries),
    }
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr


# -- hostile arrays ---------------------------------------------------------------------------------------------------

DTYPES = [np.float32, np.float64, ">f8", np.float16, np.int32, np.complex64, np.bool_, "U3", object]


class Tagged(np.ndarray):
    """A subclass."""


@st.composite
def hostile_arrays(draw):
    """Arrays of any dtype, layout and kind, with values that run out."""
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(st.sampled_from([(), (0,), (1,), (3,), (2, 3), (3, 1, 2)]))
    values = draw(st.sampled_from([0.0, 1.0, -2.5, 1e-310, 1e-40, 1e19, 1e160, 1e308, np.inf, -np.inf, np.nan]))
    with np.errstate(all="ignore"):
        array = np.full(shape, values).astype(dtype) if dtype not in (np.int32,) else np.full(shape, 7, dtype)
    layout = draw(
        st.sampled_from(["plain", "fortran", "reversed", "strided", "broadcast", "frozen", "subclass", "memmap"])
    )
    if layout == "fortran":
        array = np.asfortranarray(array)
    elif layout == "reversed" and array.ndim:
        array = array[::-1]
    elif layout == "strided" and array.ndim:
        array = np.repeat(array, 2, axis=0)[::2]
    elif layout == "broadcast" and array.size:
        array = np.broadcast_to(array.ravel()[0], shape)
    elif layout == "frozen":
        array.flags.writeable = False
    elif layout == "subclass":
        array = array.view(Tagged)
    elif layout == "memmap" and array.size and dtype is not object:
        with tempfile.TemporaryFile() as file:
            mapped = np.memmap(file, array.dtype, "w+", shape=array.shape)
        mapped[...] = array
        array = mapped
    return array


MANY = settings(max_examples=4 * settings.default.max_examples)
REFUSALS = (TypeError, ValueError, FloatingPointError)


def tried(run):
    """What `run` returns, and how it refuses."""
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore", np.exceptions.ComplexWarning)  # of the user's own assignment
            return run(), ""
    except REFUSALS as error:
        assert str(error)  # noqa: PT017
        return None, str(error)


def unchanged(before, after):
    assert np.asarray(after).tobytes() == np.asarray(before).tobytes()


@given(x=hostile_arrays(), g=hostile_arrays(), momentum=st.sampled_from([0.0, 0.9]))
@MANY
def test_a_step_is_taken_or_refused(x, g, momentum):
    optimizer = RMSprop(0.1, momentum=momentum)
    before_x, before_g = x.copy(), g.copy()

    def step():
        state = optimizer.init(x)
        optimizer.step(x, g, state)
        return state

    state, refusal = tried(step)
    unchanged(before_g, g)
    if refusal:
        unchanged(before_x, x)
        return
    assert x.dtype in (np.float32, np.float64, np.float16)
    assert g.dtype in (x.dtype, state.square_avg.dtype)
    assert x.shape == g.shape == state.square_avg.shape
    real = np.float32 if x.dtype == np.float16 else x.dtype.type
    gradient = np.asarray(before_g).astype(real)
    with np.errstate(all="ignore"):
        s = real(1.0 - 0.9) * gradient * gradient
        expected = np.asarray(before_x).astype(real) - real(0.1) * (gradient / (np.sqrt(s) + real(1e-8)))
        expected = expected.astype(x.dtype)
    np.testing.assert_allclose(
        np.asarray(x), expected, rtol=max(1e-6, float(np.finfo(x.dtype).eps) if x.dtype == np.float16 else 0.0)
    )
    assert np.isfinite(np.asarray(state.square_avg)).all()


@st.composite
def windows(draw):
    """Two arrays of the same length that look at one buffer, and may see the same of it."""
    buffer, size = np.linspace(1.0, 2.0, 12), draw(st.integers(1, 4))
    views = []
    for _ in range(2):
        step = draw(st.sampled_from([1, 2, -1, -2]))
        first = draw(st.integers(0, 11 - abs(step) * (size - 1)))
        views.append(buffer[first : first + abs(step) * (size - 1) + 1][::step])
    return buffer, *views


@given(windows())
@MANY
def test_windows_on_one_buffer_are_kept_apart(drawn):
    buffer, x, g = drawn
    before, expected, slope = buffer.copy(), x.copy(), g.copy()
    optimizer = RMSprop(0.1)
    optimizer.step(expected, slope, optimizer.init(expected))
    _, refusal = tried(lambda: optimizer.step(x, g, optimizer.init(x)))
    if np.shares_memory(x, g):
        assert "must not share memory" in refusal
        unchanged(before, buffer)
        return
    assert not refusal
    np.testing.assert_array_equal(x, expected)
    np.testing.assert_array_equal(g, slope)


def test_what_an_objective_keeps_or_resizes_is_its_own():
    kept = []

    def keeps(x):
        kept.append(x)
        return float(np.sum((x - 1.0) ** 2)), 2.0 * (x - 1.0)

    assert minimize(keeps, np.zeros(2), jac=True).success
    assert len({x.tobytes() for x in kept}) == len(kept) > 1

    def resizes(x, grad, which):
        grad[:] = 2.0 * (x - 1.0)
        f = float(np.sum((x - 1.0) ** 2))
        (x, grad)[which].resize(1000, refcheck=False)
        return f

    assert minimize(resizes, np.zeros(2), (0,), jac="inplace").success
    with pytest.raises(ValueError, match="shape"):
        minimize(resizes, np.zeros(2), (1,), jac="inplace")


@given(x0=hostile_arrays(), method=st.sampled_from(["rmsprop", "rmsprop-lbfgs"]))
@MANY
def test_a_run_begins_or_is_refused(x0, method):
    before = x0.copy()

    def fun(x):
        return float(np.sum((x - 1.0) ** 2)), 2.0 * (x - 1.0)

    found, refusal = tried(lambda: minimize(fun, x0, jac=True, method=method))
    unchanged(before, x0)
    if refusal:
        assert "x0" in refusal
        return
    assert found.x.shape == (x0.size,)
    assert found.x.dtype == (np.float32 if x0.dtype == np.float32 else np.float64)
    assert found.success == (found.status in (0, 10, 11, 12))
    if found.success:
        assert np.isfinite(found.x).all()
        assert np.abs(found.jac).max() <= 1e-5


@given(
    g=st.one_of(hostile_arrays(), st.floats(), st.none()),
    call=st.integers(1, 4),
    jac=st.sampled_from([True, "inplace"]),
)
@MANY
def test_any_gradient_is_taken_or_refused(g, call, jac):
    """Gradients that change their shape or dtype from one call to the next, or are no gradients at all."""
    calls = []

    def value(x):
        return float(np.sum((x - 1.0) ** 2)), 2.0 * (x - 1.0)

    def fun(x, *grad):
        calls.append(x)
        f, usual = value(x)
        given_now = g if len(calls) == call else usual
        if jac is True:
            return f, given_now
        grad[0][:] = given_now
        return f

    found, refusal = tried(lambda: minimize(fun, np.zeros(3), jac=jac, options={"maxfev": 20}))
    if not refusal:
        assert np.isfinite(found.x).all()
        assert not found.success or np.abs(found.jac).max() <= 1e-5


@given(data=hostile_arrays(), batch=st.integers(1, 5))
@MANY
def test_any_data_are_taken_or_refused(data, batch):
    before = data.copy()

    def fun(x, rows):
        mean = np.mean(rows, axis=0, dtype=float) if rows.dtype.kind in "fiub" else 0.0
        d = x - np.resize(mean, x.size)
        return float(0.5 * d @ d), d

    run = {"jac": True, "batch_size": batch, "epochs": 2, "rng": 0}
    found, refusal = tried(lambda: minimize_minibatch(fun, np.zeros(2), data, **run))
    unchanged(before, data)
    if refusal:
        assert "data" in refusal
    else:
        assert found.success == bool(np.isfinite(found.fun) and np.isfinite(found.x).all() and found.status != 3)


@given(hnp.arrays(np.float64, 3, elements=st.floats(width=64)), st.integers(0, 3))
@MANY
def test_any_values_have_a_status(values, call):
    calls = []

    def fun(x):
        calls.append(1)
        return (float(values[0]), values[1:]) if len(calls) == call + 1 else (float(x @ x), 2.0 * x)

    with np.errstate(all="ignore"):
        found = minimize(fun, [1.0, -2.0], jac=True, options={"maxfev": 50})
    assert found.status in {int(status) for status in Status}
    assert not found.success or (np.isfinite(found.fun) and np.abs(found.jac).max() <= 1e-5)
    assert np.isfinite(found.x).all()


# -- numbers that run out ---------------------------------------------------------------------------------------------

ENDS = {
    "constant": (lambda x: (5.0, 0.0 * x), {}, Status.GTOL),
    "linear": (lambda x: (float(-x.sum()), -np.ones_like(x)), {}, Status.UNBOUNDED),
    "NaN at the start": (lambda x: (np.nan, x), {}, Status.NONFINITE),
    "infinite at the start": (lambda x: (np.inf, x), {}, Status.NONFINITE),
    "too steep": (lambda x: (1e300, np.full_like(x, 1e200)), {}, Status.NONFINITE),
    "underflow of the square": (lambda x: (float(1e-170 * x.sum()), np.full_like(x, 1e-170)), {}, Status.GTOL),
    "eps 0": (lambda x: (float(x @ x), 2.0 * x), {"learning_rate": 0.5, "eps": 0.0, "maxiter": 9}, Status.MAXITER),
    "beta 0": (lambda x: (float(x @ x), 2.0 * x), {"learning_rate": 0.5, "beta": 0.0, "maxiter": 9}, Status.MAXITER),
    "beta near 1": (
        lambda x: (float(x @ x), 2.0 * x),
        {"learning_rate": 1e-9, "beta": 1.0 - 1e-16, "maxiter": 9},
        Status.MAXITER,
    ),
}


@pytest.mark.parametrize(("fun", "options", "status"), ENDS.values(), ids=ENDS)
def test_ends_that_are_defined(fun, options, status):
    with np.errstate(all="ignore"):
        found = minimize(fun, [1.0, 2.0], jac=True, options=options)
    assert found.status == status
    assert np.isfinite(found.x).all()


def test_a_step_has_discontinuities_for_breakfast():
    found = minimize(lambda x: (float(np.floor(abs(x[0]))), np.sign(x)), [9.5], jac=True, options={"maxfev": 500})
    assert found.status in (Status.PRECISION_LOSS, Status.MAXFEV, Status.GTOL)
    assert found.fun <= 9.0


@pytest.mark.slow
@pytest.mark.skipif(not JIT_ENABLED, reason="takes long in Python")
def test_ten_million_iterations():
    @njit
    def valley(x, grad):
        grad[0] = x[0]
        return 0.5 * x[0] * x[0]

    options = {"learning_rate": 1e-9, "maxiter": 10**7, "gtol": 0.0}
    found = minimize(valley, [1.0], jac="inplace", options=options)
    assert (found.nit, found.nfev, found.status) == (10**7, 10**7 + 1, Status.MAXITER)
    assert found.x[0] == pytest.approx(1.0 - 1e-2, abs=1e-4)


# -- what the code does not do ----------------------------------------------------------------------------------------


def test_nothing_that_is_read_is_run():
    for path in Path(rmsprop_nb.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {alias.name.partition(".")[0] for alias in node.names} | {getattr(node, "module", "")}
                assert not names & {"marshal", "shelve", "dill", "cloudpickle"}, path
                # one module tries, by a round trip in memory, whether a function can be sent to another process
                assert "pickle" not in names or path.name == "_map_like.py", path
            if isinstance(node, ast.Call):
                called = getattr(node.func, "id", getattr(node.func, "attr", ""))
                assert called not in ("eval", "exec", "__import__"), f"{path}: {called}"
                for keyword in node.keywords:
                    assert (keyword.arg, getattr(keyword.value, "value", None)) != ("allow_pickle", True), path
