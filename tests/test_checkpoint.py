"""Checkpoints: what is loaded equals what was saved, a crash loses nothing, and no file can do harm."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import textwrap
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numba import njit
from scipy.optimize import OptimizeResult

from rmsprop_nb import RMSprop, load, minimize, minimize_batch, minimize_minibatch, multistart, save
from rmsprop_nb._archive import read, write


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
    elif hasattr(a, "to_tree"):
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
    result = minimize(fun, np.zeros(2), jac=True, options=options)
    assert steps == sorted(steps)
    assert len(set(steps)) > 1
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


KILLED = """
    import sys
    import numpy as np
    from numba import njit
    from rmsprop_nb import minimize, minimize_minibatch

    @njit
    def noisy(x, grad, a):
        d = x - np.mean(a)
        grad[:] = 2.0 * d
        return np.sum(d * d)

    path, kind = sys.argv[1:]
    data = np.random.default_rng(0).normal(size=1000)
    print("ready", flush=True)
    if kind == "minibatch":
        minimize_minibatch(noisy, np.ones(500), data, jac="inplace", batch_size=10, epochs=1_000_000,
                           learning_rate=1e-5, rng=3, checkpoint=path, checkpoint_every=0.0)
    else:
        minimize(noisy, np.ones(500), (data,), jac="inplace", options={
            "learning_rate": 1e-9, "maxiter": 10**9, "gtol": 0, "checkpoint": path, "checkpoint_every": 0.0})
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
@pytest.mark.parametrize("kind", ["minimize", "minibatch"])
def test_killed_process_goes_on_from_its_file(tmp_path, kind):
    @njit
    def noisy(x, grad, a):
        d = x - np.mean(a)
        grad[:] = 2.0 * d
        return np.sum(d * d)

    data = np.random.default_rng(0).normal(size=1000)
    delays = np.random.default_rng(1).uniform(0.0, 0.05, 4)
    path = tmp_path / "run.npz"
    for delay in delays:
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(KILLED), str(path), kind], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout.readline() == "ready\n"
        while not path.exists() or load(path).step < 50:  # it writes again and again, as fast as it can
            assert process.poll() is None
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=delay)
        process.kill()
        assert process.wait() == -signal.SIGKILL
        process.stdout.close()
        state = load(path)
        path.unlink()
    if kind == "minibatch":
        epochs = state.progress.nit + 1
        kwargs = {"jac": "inplace", "batch_size": 10, "epochs": int(epochs), "learning_rate": 1e-5}
        resumed = minimize_minibatch(noisy, np.ones(500), data, state=state, **kwargs)
        whole = minimize_minibatch(noisy, np.ones(500), data, rng=3, **kwargs)
        assert_equal(resumed.x, whole.x)
        assert_equal(resumed.epoch_fun, whole.epoch_fun)
    else:
        options = {"learning_rate": 1e-9, "gtol": 0.0}
        resumed = minimize(
            noisy, np.ones(500), (data,), jac="inplace", options={**options, "maxiter": 5, "state": state}
        )
        whole = minimize(
            noisy, np.ones(500), (data,), jac="inplace", options={**options, "maxiter": resumed.state.step}
        )
        assert_equal(resumed.state.arrays.x, whole.state.arrays.x)
    left = [name for name in names_in(tmp_path) if not name.endswith(".tmp")]
    assert left == []


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
    assert path.read_bytes() == before
    assert names_in(tmp_path) == ["a.npz"]


@pytest.mark.skipif(os.name != "posix", reason="needs resource limits")
def test_full_disk(tmp_path):
    script = """
        import resource, signal, sys
        import numpy as np
        from rmsprop_nb._archive import write
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
        np.zeros(2, [("a", np.int64), ("b", np.float32)]), np.array(["x", "yz"]), np.arange(3, dtype=">i4"),
    ]  # fmt: skip
    tree = {"structure": arrays, "a/b": {"c": arrays[0]}, "a": {"b/c": arrays[3]}}
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
    name = data.draw(st.sampled_from(state.record.dtype.names))
    integer = state.record.dtype[name].kind == "i"
    state.record[name] = data.draw(st.integers(-(2**63), 2**63 - 1) if integer else st.floats())
    save(tmp_path / "a.npz", state)
    with contextlib.suppress(ValueError):
        single(maxiter=2, maxfev=100, method="rmsprop-lbfgs", state=load(tmp_path / "a.npz"))


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
    "other_record": lambda m: m.update({"record.npy": as_npy(np.zeros(1, [("status", np.int64)]))}),
    "two_records": lambda m: m.update({"record.npy": as_npy(np.zeros(2, single(maxiter=1).state.record.dtype))}),
    "no_structure": lambda m: m.pop("structure.npy"),
    "no_json": lambda m: m.update({"structure.npy": as_npy(np.array("{"))}),
    "later": lambda m: m.update({"structure.npy": as_npy(np.array(json.dumps({"format": 99, "tree": {"value": 1}})))}),
    "other_class": lambda m: m.update(
        {"structure.npy": as_npy(np.array(json.dumps({"format": 1, "tree": {"dict": {"class": {"value": "Popen"}}}})))}
    ),
    "deep": lambda m: m.update(
        {"structure.npy": as_npy(np.array('{"format": 1, "tree": ' + '{"list": [' * 5000 + "]}" * 5000 + "}"))}
    ),
}  # fmt: skip


@pytest.mark.parametrize("change", HARMFUL.values(), ids=HARMFUL)
def test_harmful_file_is_refused(tmp_path, change):
    with pytest.raises(ValueError, match="path must be a file that rmsprop_nb has written"):
        load(rewritten(tmp_path, change))


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


def test_errors_of_the_system_are_its_own(tmp_path):
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "nothing")
    with pytest.raises(TypeError, match="obj must be a state or a result"):
        save(tmp_path / "a", 3)


# -- batches ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("python", [False, True])
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
