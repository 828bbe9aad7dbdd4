"""What is loaded equals what was saved."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import OptimizeResult
from small_runs import RESULTS, assert_equal, names_in, single

from rmsprop_nb import RMSprop, load, minimize_batch, save
from rmsprop_nb._api import checkpoint as _checkpoint


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
