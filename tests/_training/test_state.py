"""The optimizer's state in files and copies."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from nested_arrays import as_bytes, tree

from rmsprop_nb import RMSprop, RMSpropState


@pytest.mark.parametrize("through", ["arrays", "npz", "pickle", "copy", "deepcopy"])
def test_a_saved_state_goes_on_bit_for_bit(through, tmp_path):
    params, optimizer = tree(np.float32), RMSprop(momentum=0.9, centered=True, bias_correction=True, accumulate_steps=2)
    state = optimizer.init(params)
    for seed in range(3):
        optimizer.step(params, tree(np.float32, seed), state)
    if through == "npz":
        np.savez(tmp_path / "state.npz", **state.to_arrays())
        with np.load(tmp_path / "state.npz", allow_pickle=False) as file:
            again = RMSpropState.from_arrays(file)
    else:
        again = {
            "arrays": lambda: RMSpropState.from_arrays(state.to_arrays()),
            "pickle": lambda: pickle.loads(pickle.dumps(state)),
            "copy": state.copy,
            "deepcopy": lambda: copy.deepcopy(state),
        }[through]()
    assert (again.step, again.accumulated) == (1, 1)
    other = copy.deepcopy(params)
    for seed in range(3, 6):
        optimizer.step(params, tree(np.float32, seed), state)
        optimizer.step(other, tree(np.float32, seed), again)
    assert as_bytes(params, state) == as_bytes(other, again)
    assert again.square_avg["layers"][0]._fields == ("weight", "bias")
    assert repr(state) == "<RMSpropState: 5 arrays, 27 parameters, step 3>"


def test_names_in_files_are_unambiguous():
    params = {"a/b": np.ones(1), "a": {"b": np.ones(1), "~1": np.ones(1)}}
    assert {name for name in RMSprop().init(params).to_arrays() if "/" in name} == {
        "square_avg/a~1b", "square_avg/a/b", "square_avg/a/~01",
    }  # fmt: skip
    assert "square_avg" in RMSprop().init(np.ones(2)).to_arrays()


BAD_ARRAYS = {
    "no structure": (lambda a: a.pop("structure"), "must have the entry 'structure'"),
    "no average": (lambda a: a.pop("square_avg/W"), "must have the entry 'square_avg/W'"),
    "unknown": (lambda a: a.update(extra=np.ones(1)), "got 'extra'"),
    "no JSON": (lambda a: a.update(structure=np.array("{")), "structure must describe nested"),
    "other JSON": (lambda a: a.update(structure=np.array('{"set": []}')), "structure must describe nested"),
    "code": (
        lambda a: a.update(structure=np.array('{"name": "a b", "fields": {"W": null}}')),
        "structure must describe",
    ),
    "step": (lambda a: a.update(step=np.array(-1)), "step must be an integer of at least 0"),
    "real step": (lambda a: a.update(step=np.array(1.0)), "step must be an integer of at least 0"),
    "shape": (lambda a: a.update({"momentum_buffer/W": np.ones(3)}), "momentum_buffer/W must have shape"),
    "dtype": (lambda a: a.update({"momentum_buffer/W": np.ones(2, np.float32)}), "momentum_buffer/W must have shape"),
    "half": (lambda a: a.update({"square_avg/W": np.ones(2, np.float16)}), "square_avg/W must be float32 or float64"),
    "nan": (lambda a: a.update({"square_avg/W": np.full(2, np.nan)}), "square_avg/W must be finite"),
    "negative": (lambda a: a.update({"square_avg/W": np.full(2, -1.0)}), "must not be negative"),
}


@pytest.mark.parametrize(("change", "message"), BAD_ARRAYS.values(), ids=BAD_ARRAYS)
def test_damaged_files_are_refused(change, message):
    arrays = RMSprop(momentum=0.5).init({"W": np.ones(2)}).to_arrays()
    change(arrays)
    with pytest.raises(ValueError, match=message):
        RMSpropState.from_arrays(arrays)


def test_files_of_the_other_byte_order_are_read():
    arrays = RMSprop(initial_accumulator=0.25).init(np.ones(2)).to_arrays()
    arrays["square_avg"] = arrays["square_avg"].astype(">f8")
    x, state = np.ones(2), RMSpropState.from_arrays(arrays)
    RMSprop().step(x, np.ones(2), state)
    assert state.square_avg.tolist() == pytest.approx([0.325, 0.325])
