"""Checkpoints: what is loaded equals what was saved, a crash loses nothing, and no file can do harm."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import os
import signal
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numba import njit
from scipy.optimize import OptimizeResult

from rmsprop_nb import RMSprop, load, minimize, minimize_batch, minimize_minibatch, multistart, save
from rmsprop_nb._api import checkpoint as _checkpoint
from rmsprop_nb._core import archive as _archive
from rmsprop_nb._core.archive import read, write
from rmsprop_nb._drivers import loop as _loop
from rmsprop_nb._methods.run_state import RunState


@njit
def bowl(x, grad):
    f = 0.0
    for i in range(x.size):
        d = x[i] - i
        grad[i] = 4.0 * d**3 + 0.1 * d
        f += d**4 + 0.05 * d * d
    return f


@njit
def mean_square(x, grad, A, b):
    r = A @ x - b
    grad[:] = A.T @ r / b.size
    return 0.5 * np.mean(r * r)


def batches(**kwargs):
    rng = np.random.default_rng(0)
    A = rng.normal(size=(50, 3))
    kwargs = {"epochs": 4, "batch_size": 8, "rng": 1, **kwargs}
    return minimize_minibatch(mean_square, np.zeros(3), (A, A @ np.ones(3)), jac="inplace", **kwargs)


def single(dtype=np.float64, bounds=None, method="rmsprop", **options):
    x0 = np.full(3, 5.0, dtype)
    return minimize(bowl, x0, (), method, "inplace", bounds, options={"gtol": 0.0, "maxiter": 8, **options})


RESULTS = {
    "auto": single,
    "float32": lambda: single(np.float32),
    "bounds": lambda: single(bounds=[(0, None)] * 3),
    "lbfgs": lambda: single(method="rmsprop-lbfgs"),
    "textbook": lambda: single(learning_rate=0.1, momentum=0.9, centered=True),
    "recorded": lambda: single(history=True, return_all=True),
    "minibatch": batches,
    "minibatch_textbook": lambda: batches(learning_rate=0.1, validation=0.2, patience=2, history=True),
    "batch": lambda: minimize_batch(bowl, np.arange(6.0).reshape(2, 3), jac="inplace"),
    "multistart": lambda: multistart(lambda x: np.sum((x * x - 1.0) ** 2), [(-2, 2)] * 2, 8, rng=0),
}


def names_in(directory):
    return sorted(path.name for path in directory.iterdir())


def assert_equal(a, b):
    """Same classes, same values, same bits."""
    assert type(a) is type(b)
    if isinstance(a, OptimizeResult | dict):
        assert set(a) == set(b)
        for name in a:
            assert_equal(a[name], b[name])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for left, right in zip(a, b, strict=True):
            assert_equal(left, right)
    elif isinstance(a, np.ndarray):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert a.dtype == object or a.tobytes() == b.tobytes()
        np.testing.assert_array_equal(a, b)
    elif isinstance(a, RunState):
        assert_equal(a.arrays, b.arrays)
        assert_equal(a.record, b.record)
        assert a.kind == b.kind
    elif isinstance(a, float):
        assert np.float64(a).tobytes() == np.float64(b).tobytes()
    else:
        assert a == b


@pytest.mark.parametrize("make", RESULTS.values(), ids=RESULTS)
def test_results_come_back(tmp_path, make):
    result = make()
    save(tmp_path / "result.npz", result)
    assert_equal(load(tmp_path / "result.npz"), result)


@pytest.mark.parametrize("name", [name for name in RESULTS if name not in ("batch", "multistart")])
def test_states_come_back(tmp_path, name):
    state = RESULTS[name]().state
    save(str(tmp_path / "state"), state)
    assert_equal(load(str(tmp_path / "state")), state)
    assert names_in(tmp_path) == ["state"]


def test_optimizer_state_comes_back(tmp_path):
    params = {"W": np.ones((2, 3)), "b": [np.ones(2, np.float32)]}
    grads = {"W": np.full((2, 3), 0.5), "b": [np.ones(2, np.float32)]}
    optimizer = RMSprop(momentum=0.9, centered=True)
    state = optimizer.init(params)
    optimizer.step(params, grads, state)
    save(tmp_path / "a.npz", state)
    loaded = load(tmp_path / "a.npz")
    twin = {"W": params["W"].copy(), "b": [params["b"][0].copy()]}
    optimizer.step(params, grads, state)
    optimizer.step(twin, grads, loaded)
    np.testing.assert_array_equal(params["W"], twin["W"])
    np.testing.assert_array_equal(params["b"][0], twin["b"][0])


def test_exceptions_of_a_batch_come_back_as_text(tmp_path):
    def fun(x):
        if x[0] > 1:
            raise KeyError("no such x")
        return x @ x

    save(tmp_path / "a", minimize_batch(fun, [[0.5], [2.0]]))
    (error,) = load(tmp_path / "a").exceptions.values()
    assert isinstance(error, RuntimeError)
    assert str(error) == "KeyError: 'no such x'"
    save(tmp_path / "a", load(tmp_path / "a"))
    assert str(load(tmp_path / "a").exceptions[1]) == str(error)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("bounds", [None, [(0.0, 3.0)] * 3], ids=["free", "bounded"])
@pytest.mark.parametrize(
    "options",
    [{}, {"method": "rmsprop-lbfgs"}, {"learning_rate": 0.05, "momentum": 0.5, "bias_correction": True}],
    ids=["auto", "lbfgs", "textbook"],
)
def test_run_from_a_file_is_the_run_that_did_not_stop(tmp_path, options, bounds, dtype):
    save(tmp_path / "a", single(dtype, bounds, maxiter=3, **options).state)
    resumed = single(dtype, bounds, maxiter=5, state=load(tmp_path / "a"), **options)
    assert_equal(resumed.x, single(dtype, bounds, maxiter=8, **options).x)


def test_minibatch_run_from_a_file(tmp_path):
    batches(epochs=2, learning_rate=0.1, checkpoint=tmp_path / "a")
    assert_equal(batches(epochs=4, learning_rate=0.1, state=load(tmp_path / "a")).x, batches(learning_rate=0.1).x)


# -- checkpoints of a run ---------------------------------------------------------------------------------------------


def test_checkpoint_is_written_while_the_run_goes_on(tmp_path):
    steps = []

    def fun(x):
        steps.append(load(tmp_path / "a").step)
        return np.sum((x - 1.0) ** 2), 2.0 * (x - 1.0)

    options = {"learning_rate": 0.01, "maxiter": 10, "checkpoint": tmp_path / "a", "checkpoint_every": 0.0}
    result = minimize(fun, np.zeros(2), jac=True, options=options, callback=lambda xk: None)  # chunks of one iteration
    assert steps == [0, *range(10)]
    assert load(tmp_path / "a").step == result.state.step == 10


def test_checkpoint_is_written_when_fun_raises(tmp_path):
    calls = []

    def fun(x):
        calls.append(x)
        if len(calls) == 5:
            raise RuntimeError
        return np.sum((x - 1.0) ** 2), 2.0 * (x - 1.0)

    options = {"learning_rate": 0.01, "maxiter": 10, "checkpoint": tmp_path / "a"}
    with pytest.raises(RuntimeError):
        minimize(fun, np.zeros(2), jac=True, options=options)
    resumed = minimize(fun, np.zeros(2), jac=True, options={**options, "maxiter": 7, "state": load(tmp_path / "a")})
    whole = minimize(fun, np.zeros(2), jac=True, options=options)
    assert_equal(resumed.state.arrays.x, whole.state.arrays.x)


def test_path_that_cannot_be_written_is_found_out_first(tmp_path):
    def never(*args):
        raise AssertionError

    with pytest.raises(FileNotFoundError):
        minimize(never, np.zeros(2), jac=True, options={"checkpoint": tmp_path / "nowhere" / "a"})
    with pytest.raises(FileNotFoundError):
        minimize_minibatch(never, np.zeros(2), np.zeros(3), jac=True, checkpoint=tmp_path / "nowhere" / "a")
    with pytest.raises(ValueError, match="checkpoint_every must be"):
        minimize(never, np.zeros(2), jac=True, options={"checkpoint": tmp_path / "a", "checkpoint_every": -1})
    with pytest.raises(ValueError, match="checkpoint_every=5 has no meaning without checkpoint"):
        minimize(never, np.zeros(2), jac=True, options={"checkpoint_every": 5})
    with pytest.raises(ValueError, match="checkpoint_every=5 has no meaning without checkpoint"):
        minimize_minibatch(never, np.zeros(2), np.zeros(3), jac=True, checkpoint_every=5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("bounds", [None, [(0.0, 3.0)] * 3], ids=["free", "bounded"])
@pytest.mark.parametrize("options", [{}, {"method": "rmsprop-lbfgs", "memory": 3}], ids=["auto", "lbfgs"])
def test_run_goes_on_from_a_checkpoint_after_any_evaluation(tmp_path, monkeypatch, options, bounds, dtype):
    whole = single(dtype, bounds, maxiter=12, **options)
    kept = []

    def write_and_keep(path, tree):
        write(path, tree)
        kept.append(path.read_bytes())

    monkeypatch.setattr(_loop, "next_budget", lambda *_: 1)  # back in Python after every evaluation
    with monkeypatch.context() as patch:
        patch.setattr(_archive, "write", write_and_keep)
        single(dtype, bounds, maxiter=12, checkpoint=tmp_path / "a", checkpoint_every=0.0, **options)
    assert len(kept) == whole.nfev + 2  # at the start, after each evaluation, at the end
    for content in kept[:-2]:
        (tmp_path / "b").write_bytes(content)
        state = load(tmp_path / "b")
        resumed = single(dtype, bounds, maxiter=12 - state.step, state=state, **options)
        assert_equal(resumed.x, whole.x)
        assert_equal(resumed.state.arrays, whole.state.arrays)


def test_checkpoint_that_cannot_be_written_does_not_end_the_run(tmp_path):
    directory = tmp_path / "removed"
    directory.mkdir()
    calls = []

    def fun(x):
        calls.append(x)
        if len(calls) == 3:
            (directory / "a").unlink()
            directory.rmdir()
        return np.sum((x - 1.0) ** 2), 2.0 * (x - 1.0)

    options = {"learning_rate": 0.01, "maxiter": 10, "checkpoint": directory / "a"}
    with pytest.warns(RuntimeWarning, match=r"The checkpoint .* could not be written"):
        result = minimize(fun, np.zeros(2), jac=True, options=options)
    assert result.nit == 10


def test_checkpoint_stays_where_it_was_begun(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)

    def fun(x):
        monkeypatch.chdir(tmp_path / "elsewhere")
        return np.sum((x - 1.0) ** 2), 2.0 * (x - 1.0)

    minimize(fun, np.zeros(2), jac=True, options={"learning_rate": 0.01, "maxiter": 10, "checkpoint": "a"})
    assert names_in(tmp_path) == ["a", "elsewhere"]
    assert names_in(tmp_path / "elsewhere") == []


KILLED = """
    import os, sys
    import numpy as np
    from numba import njit
    from rmsprop_nb import load, minimize, minimize_minibatch

    @njit
    def bowl(x, grad, a):
        d = x - np.mean(a)
        grad[:] = 2.0 * d
        return np.sum(d * d)

    path, kind = sys.argv[1:]
    data = np.random.default_rng(0).normal(size=1000)
    state = load(path) if os.path.exists(path) else None
    print("ready", flush=True)
    keep = {"state": state, "checkpoint": path, "checkpoint_every": 0.0}
    if kind == "minibatch":
        minimize_minibatch(bowl, np.ones(50_000), data, jac="inplace", batch_size=10, epochs=10_000,
                           learning_rate=1e-5, rng=3, **keep)
    else:
        minimize(bowl, np.ones(50_000), (data,), jac="inplace",
                 options={"learning_rate": 1e-9, "maxiter": 10**9, "gtol": 0, **keep})
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
@pytest.mark.parametrize("kind", ["minimize", "minibatch"])
def test_killed_again_and_again_it_goes_on_from_its_file(tmp_path, kind):
    @njit
    def bowl(x, grad, a):
        d = x - np.mean(a)
        grad[:] = 2.0 * d
        return np.sum(d * d)

    path = tmp_path / "run.npz"
    program, step = textwrap.dedent(KILLED), 0
    for delay in np.random.default_rng(1).uniform(0.0, 0.1, 5):
        process = subprocess.Popen([sys.executable, "-c", program, path, kind], stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline() == "ready\n"
        while not path.exists() or load(path).step < step + 10:  # it writes most of the time: every load is a test
            assert process.poll() is None
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=delay)
        process.kill()
        assert process.wait() == -signal.SIGKILL
        process.stdout.close()
        state = load(path)
        assert state.step >= step + 10
        step = state.step
    assert [name for name in names_in(tmp_path) if not name.endswith(".tmp")] == ["run.npz"]
    data, x0 = np.random.default_rng(0).normal(size=1000), np.ones(50_000)
    if kind == "minibatch":
        kwargs = {"jac": "inplace", "batch_size": 10, "epochs": int(state.progress.nit) + 1, "learning_rate": 1e-5}
        resumed = minimize_minibatch(bowl, x0, data, state=state, **kwargs)
        whole = minimize_minibatch(bowl, x0, data, rng=3, **kwargs)
        assert_equal(resumed.epoch_fun, whole.epoch_fun)
    else:
        options = {"learning_rate": 1e-9, "gtol": 0.0}
        resumed = minimize(bowl, x0, (data,), jac="inplace", options={**options, "maxiter": 5, "state": state})
        whole = minimize(bowl, x0, (data,), jac="inplace", options={**options, "maxiter": step + 5})
    assert_equal(resumed.x, whole.x)
    assert_equal(resumed.state.arrays.x, whole.state.arrays.x)


# -- the file ---------------------------------------------------------------------------------------------------------


def test_file_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    write(path, {"old": np.arange(3)})
    before = path.read_bytes()

    def fail(*args, **kwargs):
        args[0].write(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(np.lib.format, "write_array", fail)
        with pytest.raises(OSError, match="No space left"):
            write(path, {"new": np.arange(5)})
    with pytest.raises(TypeError, match="set cannot be saved"):
        write(path, {"new": {1, 2}})
    with pytest.raises(TypeError, match="only arrays of numbers"):
        write(path, {"new": np.array([object()])})
    with pytest.raises(TypeError, match="only dicts with string keys"):
        write(path, {"new": {1: 2}})
    assert path.read_bytes() == before
    assert names_in(tmp_path) == ["a.npz"]


@pytest.mark.skipif(os.name != "posix", reason="needs resource limits")
def test_full_disk(tmp_path):
    script = """
        import resource, signal, sys
        import numpy as np
        from rmsprop_nb._core.archive import write
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
        write(sys.argv[1], {"a": np.zeros(100)})
        try:
            write(sys.argv[1], {"a": np.zeros(10_000)})
        except OSError as error:
            print(error.errno)
    """
    path = tmp_path / "a.npz"
    out = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(path)], capture_output=True, text=True, check=True
    )
    assert out.stdout.strip() == "27"
    assert read(path)["a"].shape == (100,)
    assert names_in(tmp_path) == ["a.npz"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_only_regular_files_are_replaced(tmp_path):
    (tmp_path / "link").symlink_to("/dev/full")
    for path in (tmp_path, tmp_path / "link"):
        with pytest.raises(OSError, match="Not a regular file"):
            write(path, {})
    assert names_in(tmp_path) == ["link"]


def test_what_a_killed_process_left_is_removed_when_it_is_old(tmp_path):
    left = [tmp_path / name for name in (".a.01234567.tmp", ".a.89abcdef.tmp", ".ab.01234567.tmp", ".a.other.tmp")]
    for path in left:
        path.write_bytes(b"half")
    for path in (left[0], *left[2:]):
        os.utime(path, (0, 0))
    write(tmp_path / "a", {})
    assert names_in(tmp_path) == sorted(["a", *(path.name for path in left[1:])])


@pytest.mark.skipif(os.name != "posix", reason="is about POSIX permissions")
def test_permissions_and_links(tmp_path):
    mask = os.umask(0o027)
    try:
        write(tmp_path / "a", {})
    finally:
        os.umask(mask)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640
    (tmp_path / "a").chmod(0o600)
    (tmp_path / "link").symlink_to(tmp_path / "a")
    write(tmp_path / "link", {"x": 1})
    assert (tmp_path / "link").is_symlink()
    assert read(tmp_path / "a") == {"x": 1}
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o600


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3) | st.tuples(inner, inner) | st.dictionaries(st.text(max_size=3), inner)
        ),
        max_leaves=10,
    )
)
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_trees_come_back(tmp_path, tree):
    write(tmp_path / "a", tree)
    assert read(tmp_path / "a") == tree


def test_arrays_come_back(tmp_path):
    arrays = [
        np.array(3.5), np.zeros((0, 3)), np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.array([np.nan, -np.inf, -0.0]),
        np.array([True, False]), np.array([1 + 2j]), np.array(["x", "yz"]), np.arange(3, dtype=">i4"),
    ]  # fmt: skip
    tree = {"structure": arrays, "a/b": {"c": arrays[0]}, "a": {"b/c": arrays[3]}, "file": arrays[1]}
    tree |= {"allow_pickle": arrays[2], "\0": arrays[0], "\ud800": arrays[1], "a\\b": arrays[3], "ä": arrays[2]}
    write(tmp_path / "a", tree)
    assert_equal(read(tmp_path / "a"), tree)


# -- what files may not do --------------------------------------------------------------------------------------------


def good_bytes(tmp_path):
    path = tmp_path / "good.npz"
    if not path.exists():
        save(path, single(maxiter=3, method="rmsprop-lbfgs").state)
    return path.read_bytes()


@given(data=st.data())
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_file_is_an_error_or_harmless(tmp_path, data):
    content = bytearray(good_bytes(tmp_path))
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    for _ in range(data.draw(st.integers(1, 4))):
        if content:
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "bad.npz"
    path.write_bytes(content)
    try:
        state = load(path)
        single(maxiter=1, method="rmsprop-lbfgs", state=state)
    except ValueError:
        pass


def rewritten(tmp_path, change):
    """The good file with its members changed, checksums and all."""
    good_bytes(tmp_path)
    with zipfile.ZipFile(tmp_path / "good.npz") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    with zipfile.ZipFile(tmp_path / "bad.npz", "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return tmp_path / "bad.npz"


def as_npy(array, **kwargs):
    buffer = io.BytesIO()
    np.save(buffer, array, **kwargs)
    return buffer.getvalue()


def header(text):
    text = text.ljust(118) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


@given(data=st.data())
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_number_in_a_state_can_harm(tmp_path, data):
    state = single(maxiter=3, method="rmsprop-lbfgs").state
    for name in data.draw(st.lists(st.sampled_from(state.record.dtype.names), min_size=1, max_size=4)):
        integer = state.record.dtype[name].kind == "i"
        near, any_size = st.integers(-2, 12), st.integers(-(2**63), 2**63 - 1)
        state.record[name] = data.draw(near | any_size if integer else st.floats())
    save(tmp_path / "a.npz", state)
    with contextlib.suppress(ValueError):
        single(maxiter=2, maxfev=100, method="rmsprop-lbfgs", state=load(tmp_path / "a.npz"))


KINDS = {name: RESULTS[name] for name in ("auto", "lbfgs", "textbook", "minibatch")}


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
def test_every_counter_has_its_range(tmp_path, make):
    """In a state made by hand, or in a file: compiled code indexes with some of them."""
    state = make().state
    counters = [name for name in state.record.dtype.names if state.record.dtype[name] == np.int64]
    limits = {"pairs": 11, "newest": 10, "phase": 4, "pending": 2, "fresh": 2, "status": 50, "batch": 7}
    for name in counters:
        for value in (-2, 2**63 - 1, limits.get(name, 2**62)):
            changed = state.copy()
            changed.record[name] = value
            save(tmp_path / "a.npz", changed)
            for refuse in (changed.checked_copy, lambda: load(tmp_path / "a.npz")):
                with pytest.raises(ValueError, match=f"state.record is not as the run left it: {name} must be"):
                    refuse()


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
def test_every_vector_has_its_length(tmp_path, make):
    state = make().state
    for name, vector in zip(state.arrays._fields, state.arrays, strict=True):
        wrongs = [np.zeros(2), np.zeros((1, 3)), np.zeros(3, np.float16), np.zeros(3, complex), np.array(1.0)]
        if vector.size and not name.endswith("_fun"):
            wrongs += [vector[:-1], vector.astype(np.float32), vector.astype(">f8")]
        if name.endswith("_fun"):
            wrongs = wrongs[1:]
        for wrong in wrongs:
            changed = RunState(state.kind, state.arrays._replace(**{name: wrong}), state.record)
            save(tmp_path / "a.npz", changed)
            for refuse in (changed.checked_copy, lambda: load(tmp_path / "a.npz")):
                with pytest.raises(ValueError, match=r"state.arrays\.(\w+) must"):
                    refuse()


def test_state_made_by_hand_is_checked():
    state = single(maxiter=3, bounds=[(0.0, 9.0)] * 3).state
    arrays = state.arrays
    for kind, vectors, record, message in (
        (("newton",), arrays, state.record, "state.kind must be"),
        (["rmsprop"], arrays, state.record, "state.kind must be"),
        (("rmsprop-lbfgs", -1), arrays, state.record, "state.kind must be"),
        (("rmsprop-lbfgs", 3), arrays, state.record, "state.arrays.steps must have shape"),
        (("textbook", (False,) * 8), arrays, state.record, "state.kind must be"),
        (state.kind, arrays[:-1], state.record, "state.arrays must be Arrays"),
        (state.kind, [*arrays], state.record, "state.arrays must be Arrays"),
        (state.kind, arrays._replace(g=[1.0, 2.0, 3.0]), state.record, "state.arrays must be Arrays"),
        (state.kind, arrays, np.zeros(2, state.record.dtype), "state.record is not as"),
        (state.kind, arrays, batches().state.record, "state.record is not as"),
        (state.kind, arrays._replace(x=np.full(3, 10.0)), state.record, "within the bounds"),
        (state.kind, arrays._replace(lower=np.full(3, 10.0)), state.record, "must not be above"),
        (state.kind, arrays._replace(lower=np.full(3, np.nan)), state.record, "must not be above"),
        (state.kind, arrays._replace(lower=np.empty(0)), state.record, "must not be above"),
    ):
        with pytest.raises(ValueError, match=message):
            RunState(kind, vectors, record).checked_copy()
    without_best = batches().state
    without_best.record["f_best"] = 1.0
    with pytest.raises(ValueError, match="f_best must be inf without x_best"):
        without_best.checked_copy()
    strided = arrays._replace(g=np.repeat(arrays.g, 2)[::2])
    assert RunState(state.kind, strided, state.record).checked_copy().arrays.g.flags.c_contiguous


VECTOR = "{'descr': '<f8', 'fortran_order': False, 'shape': (%d,), }"
HARMFUL = {
    "pickle": lambda m: m.update({"arrays/x.npy": as_npy(np.array([{}]), allow_pickle=True)}),
    "bomb": lambda m: m.update({"arrays/x.npy": header(VECTOR % 2**40)}),
    "negative": lambda m: m.update({"arrays/x.npy": header(VECTOR % -1)}),
    "code": lambda m: m.update({"arrays/x.npy": header("__import__('os').abort()")}),
    "no_array": lambda m: m.update({"arrays/x.npy": b"text"}),
    "integers": lambda m: m.update({"arrays/x.npy": as_npy(np.arange(3))}),
    "missing": lambda m: m.pop("arrays/x.npy"),
    "unknown": lambda m: m.update({"arrays/y.npy": as_npy(np.arange(3.0))}),
    "other_record": lambda m: m.update({"arrays/record_int64.npy": as_npy(np.zeros(15, np.int64))}),
    "record_of_floats": lambda m: m.update({"arrays/record_int64.npy": as_npy(np.zeros(16))}),
    "no_algorithm": lambda m: m.pop("arrays/algorithm.npy"),
    "other_algorithm": lambda m: m.update({"arrays/algorithm.npy": as_npy(np.array('{"kind": ["x"], "record": {}}'))}),
    "no_text": lambda m: m.update({"structure.npy": header("{'descr': '<U1', 'fortran_order': False, 'shape': (), }")
                                   + b"\xff" * 4}),
    "no_truth": lambda m: m.update({"arrays/x.npy": header(VECTOR.replace("<f8", "|b1") % 1) + b"\x02"}),
    "empty_items": lambda m: m.update({"arrays/x.npy": header(VECTOR.replace("<f8", "<U0") % 2**40)}),
    "too_large": lambda m: m.update({"arrays/x.npy": header(VECTOR.replace("%d", "0, %d") % 10**40)}),
    "many_axes": lambda m: m.update({"arrays/x.npy": header(VECTOR.replace("%d", "1, " * 99 + "%d") % 0)}),
    "tall_tale": lambda m: m.update({"structure.npy": as_npy(np.array('{"format": 1, "tree": {"array": "x"}}'))}),
    "no_structure": lambda m: m.pop("structure.npy"),
    "no_json": lambda m: m.update({"structure.npy": as_npy(np.array("{"))}),
    "later": lambda m: m.update({"structure.npy": as_npy(np.array(json.dumps({"format": 99, "tree": {"value": 1}})))}),
    "other_class": lambda m: m.update(
        {"structure.npy": as_npy(np.array(json.dumps({"format": 1, "tree": {"dict": {"class": {"value": "Popen"}}}})))}
    ),
    "deep": lambda m: m.update(
        {"structure.npy": as_npy(np.array('{"format": 1, "tree": ' + '{"list": [' * 20000 + "]}" * 20000 + "}"))}
    ),
}  # fmt: skip


@pytest.mark.parametrize("change", HARMFUL.values(), ids=HARMFUL)
def test_harmful_file_is_refused(tmp_path, change):
    with pytest.raises(ValueError, match="path must be a file that rmsprop_nb has written"):
        load(rewritten(tmp_path, change))


@given(data=st.data())
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_forged_file_is_an_error_or_harmless(tmp_path, data):
    """Bytes changed within members, and members exchanged, with checksums that are right."""

    def change(members):
        names = sorted(members)
        name = data.draw(st.sampled_from(names))
        content = bytearray(members[data.draw(st.sampled_from([name, name, name, *names]))])
        for _ in range(data.draw(st.integers(0, 3))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        members[name] = bytes(content)

    try:
        state = load(rewritten(tmp_path, change))
        single(maxiter=2, maxfev=50, method="rmsprop-lbfgs", state=state)
    except ValueError:
        pass


def test_two_names_for_the_same_bytes_are_refused(tmp_path):
    good_bytes(tmp_path)
    content = (tmp_path / "good.npz").read_bytes()
    with zipfile.ZipFile(tmp_path / "good.npz") as archive, zipfile.ZipFile(tmp_path / "bad.npz", "w") as bad:
        bad.fp.write(content[: archive.start_dir])
        large = max(archive.infolist(), key=lambda member: member.file_size)
        bad.filelist += [*archive.infolist(), *[copy.copy(large) for _ in range(3)]]
        bad.start_dir, bad._didModify = archive.start_dir, True
        for k, member in enumerate(bad.filelist[-3:]):
            member.filename = f"another{k}.npy"
    with pytest.raises(ValueError, match=r"larger than the file|[Oo]verlap|differ"):
        load(tmp_path / "bad.npz")


SHORT = {
    "x": lambda m: m.update({"arrays/x.npy": as_npy(np.arange(2.0))}),
    "metric": lambda m: m.update({"arrays/metric.npy": as_npy(np.arange(1.0))}),
    "pairs": lambda m: m.update({"arrays/steps.npy": as_npy(np.zeros((3, 3)))}),
    "single": lambda m: m.update({"arrays/g.npy": as_npy(np.zeros(3, np.float32))}),
    "big_endian": lambda m: m.update({"arrays/g.npy": as_npy(np.zeros(3, ">f8"))}),
}


@pytest.mark.parametrize("change", SHORT.values(), ids=SHORT)
def test_state_whose_vectors_do_not_fit_is_refused(tmp_path, change):
    with pytest.raises(ValueError, match=r"state\b.* (for|must|bounds)|vectors"):
        single(method="rmsprop-lbfgs", state=load(rewritten(tmp_path, change)))


def test_compressed_members_are_refused(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", structure=np.zeros(10**6))
    with pytest.raises(ValueError, match="is compressed"):
        load(tmp_path / "a.npz")


def test_results_that_do_not_fit_together_are_refused(tmp_path):
    one, many, global_ = single(return_all=True, history=True), RESULTS["batch"](), RESULTS["multistart"]()
    for result, change in (
        (one, {"x": 3.0}), (one, {"jac": np.zeros(2)}), (one, {"fun": np.zeros(3)}), (one, {"status": "done"}),
        (one, {"allvecs": [np.zeros(2)]}), (one, {"history": {"nit": np.zeros(3), "fun": np.zeros(2)}}),
        (one, {"state": np.zeros(3)}), (global_, {"minima": np.zeros((2, 5))}), (global_, {"minima_fun": np.zeros(99)}),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"result\."):
            save(tmp_path / "a", OptimizeResult({**result, **change}))
    assert names_in(tmp_path) == []
    for change in (
        {"fun": np.zeros(3)}, {"x": np.zeros(2)}, {"best": 2}, {"best": -1}, {"status": np.zeros(2)}, {"jac": 3.0},
        {"status": np.array([0, 55])}, {"success": np.zeros(2, np.int64)}, {"further": 1},
    ):  # fmt: skip
        save(tmp_path / "b", type(many)({**many, **change}))
        with pytest.raises(ValueError, match="path must be a file"):
            load(tmp_path / "b")


def test_another_class_of_states_is_one_line(tmp_path, monkeypatch):
    class Momentum:
        def __init__(self, velocity):
            self.velocity = velocity

        def to_arrays(self):
            return {"velocity": self.velocity}

        @classmethod
        def from_arrays(cls, arrays):
            return cls(arrays["velocity"])

    with pytest.raises(TypeError, match="obj must be"):
        save(tmp_path / "a", Momentum(np.arange(3.0)))
    monkeypatch.setitem(_checkpoint.STATES, "Momentum", Momentum)
    save(tmp_path / "a", Momentum(np.arange(3.0)))
    np.testing.assert_array_equal(load(tmp_path / "a").velocity, np.arange(3.0))


def test_errors_of_the_system_are_its_own(tmp_path):
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "nothing")
    with pytest.raises(TypeError, match="obj must be a state or a result"):
        save(tmp_path / "a", 3)


# -- batches ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("python", "workers"), [(False, 1), (False, 2), (False, map), (True, 1), (True, map)])
def test_batch_goes_on_from_what_had_ended(tmp_path, python, workers):
    starts = np.random.default_rng(0).normal(size=(40, 3))
    fun = (lambda *args: bowl(*args)) if python else bowl
    whole = minimize_batch(fun, starts, jac="inplace")
    assert set(whole.status) == {0}
    begun = minimize_batch(fun, starts, jac="inplace")
    begun.status[10:] = 98  # as if interrupted
    begun.x[10:] = np.nan
    begun.x[3] = 7.0  # shows that what had ended is not run again
    save(tmp_path / "a", begun)
    resumed = minimize_batch(fun, starts, jac="inplace", workers=workers, state=load(tmp_path / "a"))
    assert (resumed.x[3] == 7.0).all()
    resumed.x[3] = whole.x[3]
    assert_equal(resumed, whole)


@pytest.mark.parametrize("python", [False, True])
def test_batch_keeps_a_checkpoint(tmp_path, python):
    starts = np.random.default_rng(0).normal(size=(40, 3))
    fun = (lambda *args: bowl(*args)) if python else bowl
    path = tmp_path / "a"
    result = minimize_batch(fun, starts, jac="inplace", checkpoint=path, checkpoint_every=0.0)
    assert_equal(load(path), result)


def test_interrupted_batch_goes_on(tmp_path):
    starts = np.random.default_rng(0).normal(size=(10, 3))
    calls = []

    def fun(x, grad):
        calls.append(1)
        if len(calls) == 100:
            raise KeyboardInterrupt
        return bowl(x, grad)

    path = tmp_path / "a"
    first = minimize_batch(fun, starts, jac="inplace", checkpoint=path)
    assert 0 < (first.status == 98).sum() < 10
    assert_equal(load(path), first)
    assert_equal(
        minimize_batch(bowl, starts, jac="inplace", state=load(path)).x, minimize_batch(bowl, starts, jac="inplace").x
    )


def test_state_of_another_batch_is_refused():
    result = minimize_batch(bowl, np.zeros((4, 3)), jac="inplace")
    with pytest.raises(ValueError, match=r"state\.x must have shape \(5, 3\)"):
        minimize_batch(bowl, np.zeros((5, 3)), jac="inplace", state=result)
    with pytest.raises(ValueError, match=r"state\.x must have shape"):
        minimize_batch(bowl, np.zeros((4, 3), np.float32), jac="inplace", state=result)
    with pytest.raises(TypeError, match="state must be the result"):
        minimize_batch(bowl, np.zeros((4, 3)), jac="inplace", state=3)
