"""The compiled loops run as Python, so that coverage sees their lines and a debugger can stop in them.

With NUMBA_DISABLE_JIT=1 there is no native code to call by its address: what calls it is replaced here by Python that
reads the same packed arguments.
"""

from __future__ import annotations

import ctypes
import itertools

import numpy as np
import pytest
from numba import types
from numba.np import numpy_support
from processes import run_python

from rmsprop_nb import Status, minimize, minimize_batch, minimize_minibatch
from rmsprop_nb._cli import bench as _bench
from rmsprop_nb._drivers import batch_loop as _batch_loop
from rmsprop_nb._drivers import batch_threads as _batch_run
from rmsprop_nb._drivers import loop as _loop
from rmsprop_nb._drivers import minibatch_loop as _minibatch_loop
from rmsprop_nb._drivers import row_order as _rows
from rmsprop_nb._drivers import solve as _solve
from rmsprop_nb._numba import packing
from rmsprop_nb._numba.decorators import JIT_ENABLED
from rmsprop_nb._objectives import compiled as _objective
from rmsprop_nb._objectives.interpreted import PythonObjective
from rmsprop_nb._objectives.problem import Problem

as_python = pytest.mark.skipif(JIT_ENABLED, reason="runs compiled code as Python, and the JIT is enabled")


@pytest.mark.slow
@pytest.mark.skipif(not JIT_ENABLED, reason="is what it starts")
def test_bodies_in_a_process_without_the_jit():
    options = ["-q", "-p", "no:cacheprovider", "-o", "addopts="]
    done = run_python("-m", "pytest", *options, __file__, NUMBA_DISABLE_JIT="1")
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout


def read(ty, address):
    """The value of this type that stands at an address."""
    if isinstance(ty, types.BaseTuple):
        offsets = packing.word_offsets(ty)
        return tuple(read(item, address + 8 * offset) for item, offset in zip(ty.types, offsets, strict=False))
    if isinstance(ty, types.Array):
        words = (ctypes.c_int64 * (2 + 2 * ty.ndim)).from_address(address)
        _, data, *rest = words
        shape, strides = tuple(rest[: ty.ndim]), tuple(rest[ty.ndim :])
        dtype = numpy_support.as_dtype(ty.dtype)
        size = dtype.itemsize + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
        return np.ndarray(shape, dtype, (ctypes.c_char * size).from_address(data), 0, strides)
    dtype = numpy_support.as_dtype(ty)
    return np.frombuffer((ctypes.c_char * dtype.itemsize).from_address(address), dtype)[0]


@pytest.fixture
def by_address(monkeypatch):
    """Objectives that are called by an address, though it is only a number here; a list of those that were made."""
    made = {}
    numbers = itertools.count(1)

    def stand_in(problem, dtype):
        words, references, args_type = packing.pack(problem.args)
        address = next(numbers)
        made[address] = PythonObjective(problem, dtype), args_type
        adapter = _objective._Adapter(None, address, launches_threads=False, enters_python=False, eps=0.0)
        return _objective.CompiledObjective(problem, adapter, words, references, packing.word_offsets(args_type))

    def call(address, x, g, data):
        objective, args_type = made[address]
        objective.args = read(args_type, data)
        return objective(x, g)

    def attempt(address, x, g, data):
        try:
            return False, call(address, x, g, data)
        except ArithmeticError:
            return True, np.nan

    for module in (_solve, _minibatch_loop, _batch_run, _bench):
        monkeypatch.setattr(module, "compile_objective", stand_in)
    for module in (_loop, _minibatch_loop, _objective, _bench):
        monkeypatch.setattr(module, "call_objective", call)
    monkeypatch.setattr(_batch_loop, "try_objective", attempt)
    monkeypatch.setattr(_rows, "copy_bytes", lambda to, source, count: ctypes.memmove(int(to), int(source), int(count)))
    return made


def bowl(x, grad, target, weight):
    if weight < 0.0:
        raise ArithmeticError("on purpose")
    grad[:] = weight * (x - target) * np.arange(1.0, x.size + 1.0)
    return float(0.5 * np.dot(grad, x - target))


TARGET = np.array([1.0, -2.0, 0.5])
RUNS = {
    "auto": {},
    "lbfgs": {"method": "rmsprop-lbfgs"},
    "bounded": {"method": "rmsprop-lbfgs", "bounds": [(-1.0, 0.7)] * 3},
    "textbook": {"options": {"learning_rate": 0.01, "momentum": 0.5, "centered": True, "maxiter": 50}},
    "bounded textbook": {"bounds": [(-1.0, 0.7)] * 3, "options": {"learning_rate": 0.01, "maxiter": 50, "history": 7}},
    "recorded": {"options": {"history": 2}},
    "schedule": {"options": {"learning_rate": lambda step: 0.1 / (1.0 + step), "maxiter": 40}},
}


def same(a, b):
    assert a.keys() == b.keys()
    for name in ("x", "fun", "jac", "nit", "nfev", "status"):
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)
    if "history" in a:
        assert a.history.keys() == b.history.keys()
        for name in a.history:
            np.testing.assert_array_equal(a.history[name], b.history[name])


@as_python
@pytest.mark.parametrize("callback", [None, lambda intermediate_result: None], ids=["", "callback"])
@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_loop(run, callback, request):
    def found():
        return minimize(bowl, np.full(3, 3.0), (TARGET, 2.0), jac="inplace", callback=callback, **run)

    expected = found()
    made = request.getfixturevalue("by_address")
    same(found(), expected)
    assert len(made) == 1


@as_python
@pytest.mark.parametrize("name", ["auto", "lbfgs", "bounded", "textbook", "bounded textbook"])
def test_batch_loop(name, request):
    starts = np.random.default_rng(0).normal(size=(7, 3))
    rows = np.random.default_rng(1).normal(size=(7, 3)), np.array([1.0, 2.0, np.nan, 0.5, -1.0, 3.0, 4.0])

    def found():
        run = {
            **RUNS[name],
            "options": {key: v for key, v in RUNS[name].get("options", {}).items() if key != "history"},
        }
        return minimize_batch(bowl, starts, batch_args=rows, jac="inplace", **run)

    expected = found()
    made = request.getfixturevalue("by_address")
    batch = found()
    same(batch, expected)
    assert batch.status[[2, 4]].tolist() == [Status.NONFINITE, Status.EXCEPTION]
    assert isinstance(batch.exceptions[4], ArithmeticError)
    assert made


@as_python
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize(
    "options", [{}, {"learning_rate": 0.01, "options": {"momentum": 0.9}}], ids=["auto", "textbook"]
)
@pytest.mark.parametrize("layout", [np.ascontiguousarray, np.asfortranarray], ids=["C", "F"])
def test_minibatch_loop(shuffle, options, layout, request):
    data = layout(np.random.default_rng(0).normal(size=(50, 3)))

    def loss(x, rows):
        d = x - np.ascontiguousarray(rows).sum(axis=0) / len(rows)
        return np.dot(d, d), 2.0 * d

    def found():
        return minimize_minibatch(
            loss, np.zeros(3), data, jac=True, batch_size=8, epochs=4, shuffle=shuffle, rng=0, history=3, **options
        )

    expected = found()
    made = request.getfixturevalue("by_address")
    same(found(), expected)
    assert made


@as_python
def test_evaluation(by_address):
    objective = _solve.compile_objective(
        Problem(bowl, "inplace", (TARGET, 2.0), np.empty(0), np.empty(0)), np.dtype(np.float64)
    )
    g, expected = np.empty(3), np.empty(3)
    assert objective(np.ones(3), g) == bowl(np.ones(3), expected, TARGET, 2.0)
    np.testing.assert_array_equal(g, expected)
