"""What leans on Numba's internals: the disk cache, calls by address, memory, threads."""

from __future__ import annotations

import contextlib
import functools
import gc
import json
import os
import shutil
import subprocess
import sys
import textwrap
import threading
import warnings
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numba
import numpy as np
import pytest
from numba import float64, int64, njit, typeof, types
from numba.core import caching
from numba.core.errors import TypingError
from numba.core.runtime import _nrt_python, rtsys

import rmsprop_nb
from rmsprop_nb import minimize
from rmsprop_nb._numba import decorators as _jit
from rmsprop_nb._numba.decorators import JIT_ENABLED, kernel_jit
from rmsprop_nb._numba.native import OBJECTIVE_SIGNATURE, call_objective, entry_address, load_vectors, pack
from rmsprop_nb._objectives import objective as _objective
from rmsprop_nb._objectives.objective import Problem, compile_objective

pytestmark = pytest.mark.skipif(not JIT_ENABLED, reason="is about compiled code, and the JIT is disabled")

PACKAGE = Path(rmsprop_nb.__file__).parent
NONE = np.empty(0)


@njit
def distance(x, grad, target):
    grad[:] = x - target
    return 0.5 * np.sum((x - target) ** 2)


@njit
def picky(x, grad, what):
    """0 is the parabola; the others are ways to fail."""
    if what == 1:
        raise ValueError("on purpose")
    if what == 2:
        raise ValueError("on purpose", what)  # the argument is known at run time only
    if what == 3:
        raise IndexError
    grad[:] = x
    return 0.5 * np.sum(x * x)


# -- the disk cache, seen by a new process ----------------------------------------------------------------------------

# Prints x, and which functions of the package were compiled rather than loaded.
PROGRAM = """
    import json, warnings
    import numpy as np
    from numba import njit
    from numba.core import event
    from rmsprop_nb import minimize

    @njit
    def fun(x, scale):
        return scale * np.sum(x ** 4)

    @njit
    def jac(x, scale):
        return 4.0 * scale * x ** 3

    with event.install_recorder("numba:compile") as recorder:
        for method, options in {runs}:
            result = minimize(fun, [3.0, -2.0], (0.25,), method, jac, options=options)
    compiled = [e.data["dispatcher"].py_func for _, e in recorder.buffer if e.is_start]
    print(json.dumps([result.x.tolist(), [(f.__module__, f.__qualname__) for f in compiled]]))
"""
TEXTBOOK = ("rmsprop", {"learning_rate": 0.1, "maxiter": 2})
EVERY_KIND = [TEXTBOOK, ("rmsprop", {}), ("rmsprop-lbfgs", {})]


def new_process(runs, package=PACKAGE, **environment):
    """Run PROGRAM; return x, the functions of the package that were compiled, and what went to stderr."""
    # no bytecode: Python would take a file that was changed within the same second, to the same length, for the old one
    environment = {**os.environ, "PYTHONPATH": str(package.parent), "PYTHONDONTWRITEBYTECODE": "1", **environment}
    command = [sys.executable, "-P", "-c", textwrap.dedent(PROGRAM.format(runs=runs))]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=True)
    x, compiled = json.loads(done.stdout)
    return x, {f"{module}.{name}" for module, name in compiled if module.startswith("rmsprop_nb.")}, done.stderr


def copied_package(directory):
    target = directory / "rmsprop_nb"
    shutil.copytree(PACKAGE, target, ignore=shutil.ignore_patterns("__pycache__"))
    return target


def test_new_process_with_a_new_objective_compiles_no_kernel():
    for method, options in EVERY_KIND:
        minimize(distance, [1.0], (np.zeros(1),), method, "inplace", options=options)
    _, compiled, complaints = new_process(EVERY_KIND)
    assert complaints == ""
    assert {name.rpartition(".")[2] for name in compiled} == {"adapter", "_store"}


@pytest.mark.parametrize("n", [1, 3, 40])
def test_function_with_a_signature_of_its_own_gets_what_it_takes(n):
    """Any layout, and an integer as a real number: what a call would convert, code made part of the caller gets too."""

    def scaled(x, grad, scale):
        grad[:] = scale * x
        f = 0.0
        for i in range(x.size):  # in this order, compiled or not: a line search makes rounding of f larger
            f += scale * x[i] * x[i]
        return 0.5 * f

    results = [
        minimize(fun, np.arange(1.0, n + 1.0), (2,), jac="inplace", options={"maxiter": 3})
        for fun in (njit("f8(f8[:], f8[:], f8)")(scaled), scaled)
    ]
    np.testing.assert_allclose(results[0].x, results[1].x, rtol=1e-12)
    assert results[0].nfev == results[1].nfev


@pytest.mark.slow
def test_change_in_another_file_is_no_reason_to_run_old_code(tmp_path):
    package = copied_package(tmp_path)
    cache = {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    before, compiled, _ = new_process([TEXTBOOK], package, **cache)
    assert len(compiled) > 4  # all kernels
    assert len(new_process([TEXTBOOK], package, **cache)[1]) == 2  # adapter and _store: the cache is in use
    # The rule has a file of its own; the kernels, with Numba's stamps, are in other files. Same length, same date.
    rule = package / "_core/rule.py"
    stamp, text = rule.stat(), rule.read_text()
    assert "u = g / denominator" in text
    rule.write_text(text.replace("u = g / denominator", "u = g * denominator"))
    os.utime(rule, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    after, compiled_again, _ = new_process([TEXTBOOK], package, **cache)
    assert compiled_again == compiled
    assert after != before


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="other variables say there where a user's cache is")
def test_no_place_for_a_cache_is_a_warning_and_no_error(tmp_path):
    package = copied_package(tmp_path)
    file = tmp_path / "file"
    file.touch()  # below a file even root can write nothing
    for directory in [package, *filter(Path.is_dir, package.iterdir())]:
        (directory / "__pycache__").touch()
    nowhere = dict.fromkeys(("NUMBA_CACHE_DIR", "XDG_CACHE_HOME", "HOME"), str(file / "below"))
    x, _, complaints = new_process([TEXTBOOK], package, **nowhere)
    assert np.isfinite(x).all()
    assert "RuntimeWarning: No directory for compiled code can be written" in complaints
    assert "set NUMBA_CACHE_DIR" in complaints


# -- the disk cache, seen by one kernel -------------------------------------------------------------------------------


@pytest.fixture
def cache_dir(tmp_path, monkeypatch):
    monkeypatch.setattr(caching.config, "CACHE_DIR", str(tmp_path))
    return tmp_path


def make_kernel(factor):
    """Make a kernel anew, as a new process would."""

    @kernel_jit("times", factor)
    def times(a):
        return factor * a

    return times


def hits(kernel):
    return sum(kernel.stats.cache_hits.values())


def test_closures_are_told_apart_by_their_key(cache_dir):
    for expected_hits in (0, 1):
        for factor in (2.0, 3.0):
            kernel = make_kernel(factor)
            assert kernel(1.0) == factor
            assert hits(kernel) == expected_hits


DAMAGE = {
    "empty": lambda content: b"",
    "cut": lambda content: content[: len(content) // 2],
    "overwritten": lambda content: bytes(range(256)) * 4,
}


@pytest.mark.parametrize("ending", ["nbi", "nbc"])
@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damaged_cache_file_is_compiled_again(damage, ending, cache_dir):
    make_kernel(2.0)(1.0)
    [path] = cache_dir.rglob(f"*.{ending}")
    path.write_bytes(damage(path.read_bytes()))
    assert make_kernel(2.0)(1.0) == 2.0
    repaired = make_kernel(2.0)
    assert repaired(1.0) == 2.0
    assert hits(repaired) == 1


def test_cache_of_another_version_of_numba_is_compiled_again(cache_dir):
    make_kernel(2.0)(1.0)
    [path] = cache_dir.rglob("*.nbi")
    content = path.read_bytes()
    version = numba.__version__.encode()
    assert version in content
    path.write_bytes(content.replace(version, version[:-1] + b"x", 1))
    again = make_kernel(2.0)
    assert again(1.0) == 2.0
    assert hits(again) == 0
    repaired = make_kernel(2.0)
    assert repaired(1.0) == 2.0
    assert hits(repaired) == 1


@pytest.mark.slow
def test_processes_that_start_together_compile_at_the_same_time(tmp_path):
    cache = {"NUMBA_CACHE_DIR": str(tmp_path)}
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: new_process([TEXTBOOK], **cache), range(2))
    assert first[0] == second[0]
    assert len(first[1] | second[1]) > 4  # all kernels
    x, compiled, complaints = new_process([TEXTBOOK], **cache)
    assert x == first[0]
    assert complaints == ""
    assert len(compiled) == 2  # adapter and _store: what the two have left is whole


def test_full_disk_is_no_error(cache_dir, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(caching.IndexDataCacheFile, "_save_data", full)
    assert make_kernel(2.0)(1.0) == 2.0


def test_processes_that_fill_the_cache_together_do_not_mix_up_their_kernels(cache_dir, monkeypatch):
    """Two processes compile two variants at the same time; the second saves between two steps of the first."""
    file_class = caching.IndexDataCacheFile
    save_data = file_class._save_data

    def interrupted_by_the_other(self, name, data):
        with monkeypatch.context() as other:
            other.setattr(file_class, "_load_index", lambda self: {})  # it had looked before the first one saved
            other.setattr(file_class, "_save_data", save_data)
            make_kernel(3.0)(1.0)
        save_data(self, name, data)

    with monkeypatch.context() as first:
        first.setattr(file_class, "_save_data", interrupted_by_the_other)
        make_kernel(2.0)(1.0)
    assert [make_kernel(factor)(1.0) for factor in (2.0, 3.0)] == [2.0, 3.0]


def test_missing_cache_is_said_once(monkeypatch):
    def no_place(*_):
        raise RuntimeError("no locator available")

    monkeypatch.setattr(_jit, "PackageCache", no_place)
    _jit._warn_without_cache.cache_clear()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for factor in (5.0, 6.0):
            assert make_kernel(factor)(1.0) == factor
    assert [w.category for w in said] == [RuntimeWarning]


# -- calls by address -------------------------------------------------------------------------------------------------


@njit
def call_many(address, x, g, data, count):
    total = 0.0
    for _ in range(count):
        total += call_objective(address, x, g, data)
    return total


def adapter_of(function, args):
    objective = compile_objective(Problem(function, "inplace", args, NONE, NONE, None), np.dtype(np.float64))
    assert objective is not None
    return objective


@pytest.mark.parametrize(
    ("what", "error", "args"),
    [(1, ValueError, ("on purpose",)), (2, ValueError, ("on purpose", 2)), (3, IndexError, ())],
)
def test_exceptions_leave_the_loop_and_the_next_call_works(what, error, args):
    x, g = np.array([3.0, 4.0]), np.zeros(2)
    good, bad = adapter_of(picky, (0,)), adapter_of(picky, (what,))
    for _ in range(3):
        with pytest.raises(error) as raised:
            call_many(bad.address, x, g, bad.data, 5)
        assert raised.value.args == args
        assert call_many(good.address, x, g, good.data, 5) == 5 * 12.5
    np.testing.assert_array_equal(g, x)


def test_address_is_that_of_the_documented_signature():
    vector = types.Array(float64, 1, "C")
    assert float64(int64, int64, int64, int64) == OBJECTIVE_SIGNATURE

    @njit(OBJECTIVE_SIGNATURE)
    def adapter(x_address, g_address, size, data):
        x, g = load_vectors(x_address, g_address, size, vector)
        g[0] = 2.0 * x[-1]
        return x.sum() + data + 100.0 * size

    g = np.zeros(3)
    assert call_many(entry_address(adapter), np.array([0.5, 1.0, 2.0]), g, 7, 2) == 621.0
    assert list(g) == [4.0, 0.0, 0.0]


@pytest.mark.parametrize("x", [np.zeros(4)[::2], np.zeros((2, 2)), 1.0], ids=["strided", "matrix", "number"])
def test_an_objective_is_called_with_contiguous_vectors_only(x):
    with pytest.raises(TypingError, match="contiguous vectors"):
        call_many(0, x, np.zeros(2), 0, 0)
    with pytest.raises(TypingError, match="contiguous vectors"):
        call_many(0, np.zeros(2), x, 0, 0)


def test_types_that_are_kept_are_those_that_numba_finds():
    big = np.zeros((4, 6))
    frozen = np.zeros(3)
    frozen.flags.writeable = False
    odd = np.zeros(25, np.uint8)[1:].view(np.float64)
    arrays = [
        big,
        big.T,
        big[:, ::2],
        big[0],
        big[:1],
        big[:0],
        frozen,
        odd,
        big.astype(np.float32),
        big > 0,
        big[..., None],
    ]
    values = [
        1.0,
        2,
        2**40,
        2**63,
        True,
        None,
        1j,
        np.float32(1),
        np.float64(1),
        np.int8(1),
        np.int64(1),
        (1, distance),
    ]
    values += [(), (1.0,), (1.0, (big, 1)), (big, (frozen, (None,)))]
    for _ in range(2):  # found, and found again
        for value in (*arrays, *values):
            assert pack((value,))[2] == typeof((value,))
            assert pack((value, 0.5, big))[2] == typeof((value, 0.5, big))


# -- memory -----------------------------------------------------------------------------------------------------------


def resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@contextlib.contextmanager
def allocation_stats():
    """Numba's counters, which are off by default."""
    enabled = _nrt_python.memsys_stats_enabled()
    _nrt_python.memsys_enable_stats()
    yield rtsys.get_allocation_stats
    if not enabled:
        _nrt_python.memsys_disable_stats()


@njit
def allocating(x, rows, pair):
    return np.sum((x - rows.sum(axis=0)) ** 2) + pair[1].size


@njit
def allocating_grad(x, rows, pair):
    if x[0] > 1e3:
        raise ValueError("far away")
    return 2.0 * (x - rows.sum(axis=0))


def test_repeated_calls_leave_nothing_behind():
    rng = np.random.default_rng(0)

    def once(start):
        args = (rng.normal(size=(50, 100)), (1, np.zeros(1000)))
        return minimize(allocating, np.full(100, start), args, jac=allocating_grad, options={"maxfev": 3})

    def fails():
        with pytest.raises(ValueError, match="far away"):
            once(1e4)

    def repeat(count):
        for k in range(count):
            fails() if k % 10 == 0 else once(1.0)
        gc.collect()

    repeat(100)
    with allocation_stats() as stats:
        before = stats()
        repeat(200)
        after = stats()
    assert after.mi_alloc > before.mi_alloc  # the objective does allocate
    assert after.mi_alloc - before.mi_alloc == after.mi_free - before.mi_free
    assert after.alloc - before.alloc == after.free - before.free
    if not Path("/proc/self/statm").exists():
        return
    resident = resident_bytes()
    repeat(10_000)  # keeping the arrays would take 500 MB, keeping the vectors of each run 100 MB
    assert resident_bytes() - resident < 5e6


class Weak(np.ndarray):
    """An array that can be watched."""


def test_args_live_as_long_as_the_objective_and_no_longer():
    arrays = [np.zeros(1000), np.arange(1000.0)]
    # the memory belongs to the bases: what must be kept is whatever keeps these alive
    watchers = [weakref.ref(a) for a in arrays]
    words, references, _ = pack(((1, arrays[0][::2]), arrays[1]))
    del arrays
    gc.collect()
    assert [w() is not None for w in watchers] == [True, True]
    del words, references
    gc.collect()
    assert [w() is not None for w in watchers] == [False, False]


def test_temporary_args_survive_the_run():
    n = 1000
    junk = []

    def churn(xk):
        gc.collect()
        junk.append(np.full(2 * n, np.nan))  # would be put where the argument was

    options = {"learning_rate": 0.1, "gtol": 0.0, "maxiter": 5}
    result = minimize(distance, np.zeros(n), np.full(2 * n, 3.0)[::2], jac="inplace", callback=churn, options=options)
    assert result.nit == len(junk) == 5
    np.testing.assert_array_equal(result.jac, result.x - 3.0)


# -- threads ----------------------------------------------------------------------------------------------------------


def in_threads(work, count):
    outcomes = [None] * count

    def store(k):
        outcomes[k] = work(k)

    threads = [threading.Thread(target=store, args=(k,)) for k in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


def test_threads_may_compile_the_same_objective_at_the_same_time():
    @njit
    def fresh(x, grad, target):
        return distance(x, grad, target)

    def work(k):
        return minimize(fresh, np.zeros(3), (np.full(3, float(k)),), jac="inplace")

    for k, result in enumerate(in_threads(work, 8)):
        assert result.success
        np.testing.assert_allclose(result.x, k, atol=1e-5)


def test_exception_in_one_thread_is_no_business_of_the_others():
    def work(k):
        outcomes = set()
        for _ in range(50):
            try:
                outcomes.add(minimize(picky, [3.0, float(k + 1)], (k % 3,), jac="inplace").success)
            except ValueError as error:
                outcomes.add(error.args)
        return outcomes

    expected = [{True}, {("on purpose",)}, {("on purpose", 2)}]
    assert in_threads(work, 9) == expected * 3


# -- more objectives than are kept ------------------------------------------------------------------------------------


def test_forgotten_adapters_are_made_again(monkeypatch):
    few = functools.lru_cache(maxsize=2)(_objective._compile_adapter.__wrapped__)
    monkeypatch.setattr(_objective, "_compile_adapter", few)

    def make(k):
        @njit
        def towards_k(x, grad):
            grad[0] = x[0] - k
            return 0.5 * (x[0] - k) ** 2

        return towards_k

    objectives = [make(float(k)) for k in range(4)]
    first = minimize(objectives[0], [9.0], jac="inplace", options={"maxfev": 2})
    for _ in range(2):
        for k, objective in enumerate(objectives):
            assert minimize(objective, [9.0], jac="inplace").x == pytest.approx([k], abs=1e-5)
            gc.collect()  # what was forgotten is really gone
    assert few.cache_info().misses > len(objectives)
    rest = minimize(objectives[0], [9.0], jac="inplace", options={"state": first.state})
    assert rest.x == minimize(objectives[0], [9.0], jac="inplace").x


def test_objective_goes_on_working_when_its_adapter_is_forgotten_meanwhile(monkeypatch):
    one = functools.lru_cache(maxsize=1)(_objective._compile_adapter.__wrapped__)
    monkeypatch.setattr(_objective, "_compile_adapter", one)
    inner = []

    def another(xk):
        if len(inner) < 2:
            inner.append(minimize(picky, [3.0, 1.0], (0,), jac="inplace").success)
            gc.collect()

    result = minimize(distance, np.zeros(3), (np.arange(3.0),), jac="inplace", callback=another)
    assert inner
    assert all(inner)
    np.testing.assert_allclose(result.x, np.arange(3.0), atol=1e-5)
