"""Runs and batches that keep a checkpoint, and go on from it."""

from __future__ import annotations

import signal
import subprocess

import numpy as np
import pytest
from processes import command_of, variables
from sendable import distance_from_mean
from small_runs import assert_equal, batches, bowl, names_in, single

from rmsprop_nb import load, minimize, minimize_batch, minimize_minibatch, save
from rmsprop_nb._core import archive as _archive
from rmsprop_nb._core.archive import write
from rmsprop_nb._drivers import loop as _loop

TEXTBOOK = {"learning_rate": 0.05, "momentum": 0.5, "bias_correction": True}
KINDS = {  # files do not depend on the method, each of which is compiled for float32, too
    "auto": ({}, np.float64),
    "auto-float32": ({}, np.float32),
    "lbfgs": ({"method": "rmsprop-lbfgs", "memory": 3}, np.float64),
    "textbook": (TEXTBOOK, np.float64),
}


@pytest.mark.parametrize("bounds", [None, [(0.0, 3.0)] * 3], ids=["free", "bounded"])
@pytest.mark.parametrize(("options", "dtype"), KINDS.values(), ids=KINDS)
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


@pytest.mark.parametrize("bounds", [None, [(0.0, 3.0)] * 3], ids=["free", "bounded"])
@pytest.mark.parametrize("kind", ["auto", "auto-float32", "lbfgs"])
def test_run_goes_on_from_a_checkpoint_after_any_evaluation(tmp_path, monkeypatch, kind, bounds):
    options, dtype = KINDS[kind]
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
    from rmsprop_nb import load, minimize, minimize_minibatch
    from sendable import distance_from_mean

    path, kind = sys.argv[1:]
    data = np.random.default_rng(0).normal(size=1000)
    state = load(path) if os.path.exists(path) else None
    print("ready", flush=True)
    keep = {"state": state, "checkpoint": path, "checkpoint_every": 0.0}
    if kind == "minibatch":
        minimize_minibatch(distance_from_mean, np.ones(50_000), data, jac="inplace", batch_size=10, epochs=10_000,
                           learning_rate=1e-5, rng=3, maxtime=600, **keep)
    else:
        minimize(distance_from_mean, np.ones(50_000), (data,), jac="inplace",
                 options={"learning_rate": 1e-9, "maxiter": 10**9, "gtol": 0, "maxtime": 600, **keep})
"""


@pytest.mark.thorough
@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
@pytest.mark.parametrize("kind", ["minimize", "minibatch"])
def test_killed_again_and_again_it_goes_on_from_its_file(tmp_path, kind):
    path = tmp_path / "run.npz"
    step = 0
    for delay in np.random.default_rng(1).uniform(0.0, 0.1, 3):
        command = command_of(KILLED, path, kind)
        with subprocess.Popen(command, env=variables(), stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout.readline() == "ready\n"
                while not path.exists() or load(path).step < step + 10:  # it writes most of the time
                    assert process.poll() is None
                with pytest.raises(subprocess.TimeoutExpired):
                    process.wait(timeout=delay)
            finally:
                process.kill()
        assert process.returncode == -signal.SIGKILL
        state = load(path)
        assert state.step >= step + 10
        step = state.step
    assert [name for name in names_in(tmp_path) if not name.endswith(".tmp")] == ["run.npz"]
    fun, data, x0 = distance_from_mean, np.random.default_rng(0).normal(size=1000), np.ones(50_000)
    if kind == "minibatch":
        kwargs = {"jac": "inplace", "batch_size": 10, "epochs": int(state.progress.nit) + 1, "learning_rate": 1e-5}
        resumed = minimize_minibatch(fun, x0, data, state=state, **kwargs)
        whole = minimize_minibatch(fun, x0, data, rng=3, **kwargs)
        assert_equal(resumed.epoch_fun, whole.epoch_fun)
    else:
        options = {"learning_rate": 1e-9, "gtol": 0.0}
        resumed = minimize(fun, x0, (data,), jac="inplace", options={**options, "maxiter": 5, "state": state})
        whole = minimize(fun, x0, (data,), jac="inplace", options={**options, "maxiter": step + 5})
    assert_equal(resumed.x, whole.x)
    assert_equal(resumed.state.arrays.x, whole.state.arrays.x)


# -- batches ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("python", "workers"), [(False, 1), (False, 2), (False, map), (True, 1), (True, map)])
def test_batch_goes_on_from_what_had_ended(tmp_path, python, workers):
    starts = np.random.default_rng(0).normal(size=(40, 3))
    fun = (lambda *args: bowl(*args)) if python else bowl
    whole = minimize_batch(fun, starts, jac="inplace")
    assert set(whole.status) == {0}
    begun = minimize_batch(fun, starts, jac="inplace")
    begun.status[10:] = 98  # as if interrupted
    begun.success[10:] = False
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
