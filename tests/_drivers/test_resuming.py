"""A resumed run is the uninterrupted one."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from driven_runs import CONTROLS, run
from objectives import ARGS, FORMS, X0, as_python

from rmsprop_nb import Status, load, minimize
from rmsprop_nb._core import archive
from rmsprop_nb._core.records import Arrays
from rmsprop_nb._methods.run_state import RunState


@pytest.mark.parametrize("options", CONTROLS.values(), ids=CONTROLS)
@pytest.mark.parametrize("stop", [{"maxiter": 1}, {"maxiter": 13}, {"maxfev": 1}, {"maxfev": 17}], ids=str)
def test_resumed_run_is_the_uninterrupted_one(options, stop):
    whole = run(gtol=0.0, maxfev=60, **options)
    first = run(gtol=0.0, **options, **stop)
    kept = first.state.copy()
    second = run(gtol=0.0, maxfev=60 - first.nfev, state=first.state, **options)
    np.testing.assert_array_equal(second.x, whole.x)
    assert (second.fun, first.nfev + second.nfev, first.nit + second.nit) == (whole.fun, whole.nfev, whole.nit)
    for left, right in zip(first.state.arrays, kept.arrays, strict=True):
        np.testing.assert_array_equal(left, right)  # going on leaves the old state as it was


def test_resume_refuses_what_does_not_fit():
    state = run(maxiter=3).state
    with pytest.raises(ValueError, match="resume with the options"):
        run(state=state, learning_rate=0.1)
    with pytest.raises(ValueError, match="float32"):
        run(state=state, dtype=np.float32)
    with pytest.raises(ValueError, match="other bounds"):
        run(state=state, bounds=[(0, 1)] * 3)
    with pytest.raises(TypeError, match="state must be"):
        run(state={"x": 1})


@pytest.mark.parametrize("options", CONTROLS.values(), ids=CONTROLS)
def test_resume_refuses_another_objective(options):
    first = run(maxiter=3, **options)
    with pytest.raises(ValueError, match=r"of another objective, or of other args: .* begin anew at x0=state"):
        run(state=first.state, args=(10.5, *ARGS[1:]), **options)


def test_an_objective_that_changes_from_call_to_call_can_be_resumed():
    rng = np.random.default_rng(0)

    def noisy(x):
        r = x - rng.normal(size=2)
        return r @ r, 2.0 * r

    state = minimize(noisy, [3.0, 4.0], jac=True, options={"learning_rate": 0.1, "maxiter": 5}).state
    assert minimize(noisy, [3.0, 4.0], jac=True, options={"learning_rate": 0.1, "maxiter": 5, "state": state}).nit == 5


@pytest.mark.parametrize("write", [1, 2])
def test_interrupt_while_a_checkpoint_is_written_loses_nothing(write, tmp_path, monkeypatch):
    path, count, written = tmp_path / "run.npz", itertools.count(), archive.write

    def interrupted(*arguments):
        if next(count) == write:
            raise KeyboardInterrupt
        written(*arguments)

    whole = run()
    monkeypatch.setattr(archive, "write", interrupted)
    options = {"checkpoint": path, "checkpoint_every": 1e9 if write == 1 else 0.0}
    result = run(**options)
    assert result.status == Status.INTERRUPTED
    monkeypatch.undo()
    if write == 1:  # the last one
        np.testing.assert_array_equal(result.x, whole.x)
        np.testing.assert_array_equal(load(path).arrays.x_best, whole.state.arrays.x_best)
    else:
        np.testing.assert_array_equal(run(state=load(path)).x, whole.x)


def test_resume_refuses_other_sizes():
    for options in ({}, {"x_scale": [1.0, 2.0]}):
        state = minimize(lambda x: x @ x, [1.0, 2.0], options={"maxiter": 1, **options}).state
        for same in ({}, {"x_scale": [1.0, 2.0]}):
            assert minimize(lambda x: x @ x, [1.0, 2.0], options={"state": state, **same}).success
        with pytest.raises(ValueError, match="made with other typical sizes; resume with the x_scale it began with"):
            minimize(lambda x: x @ x, [1.0, 2.0], options={"state": state, "x_scale": 3.0})


@pytest.mark.parametrize("name", Arrays._fields[:8])
def test_resume_refuses_a_state_with_vectors_of_other_sizes(name):
    state = run(maxiter=3, learning_rate=0.1, centered=True).state
    vector = getattr(state.arrays, name)
    for wrong in (vector[:-1], vector.astype(np.float32), vector.reshape(1, -1), np.empty(0)):
        changed = RunState(state.kind, state.arrays._replace(**{name: wrong}), state.record)
        with pytest.raises(ValueError, match="state"):
            run(state=changed, learning_rate=0.1, centered=True)


def test_resume_refuses_a_record_that_points_outside_of_the_memory():
    state = run(maxiter=3, method="rmsprop-lbfgs").state
    state.progress.newest = 10
    with pytest.raises(ValueError, match="unchanged state"):
        run(state=state, method="rmsprop-lbfgs")


def test_interrupt_before_the_first_value_propagates():
    def interrupted(x):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        minimize(interrupted, [1.0], jac="2-point")


@pytest.mark.parametrize("form", ["2-point", "3-point", "cs", "joint", "inplace"])
@pytest.mark.parametrize("interrupt_at", [20, 21, 22, 23])
def test_interrupted_in_python_objective_can_be_resumed(form, interrupt_at):
    calls = []
    function, gradient = FORMS[form]

    def objective(*arguments):
        calls.append(1)
        if len(calls) == interrupt_at:
            raise KeyboardInterrupt
        return function(*arguments)

    whole = minimize(as_python(function), X0, ARGS, jac=gradient)
    first = minimize(objective, X0, ARGS, jac=gradient)
    assert first.status == Status.INTERRUPTED
    second = minimize(objective, X0, ARGS, jac=gradient, options={"state": first.state})
    np.testing.assert_array_equal(second.x, whole.x)
