"""States of runs that were made by hand, or changed, are checked before anything is computed from them."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_runs import RESULTS, batches, single

from rmsprop_nb import load, save
from rmsprop_nb._methods.run_state import RunState


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
    limits = {"pairs": 11, "newest": 10, "phase": 8, "verdict": 1, "pending": 2, "fresh": 2, "measured": 2}
    limits |= {"compared": 2, "status": 50, "batch": 7}
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
    without_best.arrays = without_best.arrays._replace(x_best=np.empty(0))
    with pytest.raises(ValueError, match=r"state\.arrays\.x_best must have shape"):
        without_best.checked_copy()
    strided = arrays._replace(g=np.repeat(arrays.g, 2)[::2])
    assert RunState(state.kind, strided, state.record).checked_copy().arrays.g.flags.c_contiguous
