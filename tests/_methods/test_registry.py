"""A method is one record: what a new one needs, shown by a method that only this file knows."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from numba import njit

from rmsprop_nb import load, minimize, minimize_batch, multistart, save
from rmsprop_nb._core.options import Options
from rmsprop_nb._core.settings import Hyper
from rmsprop_nb._cuda.batch import launch_of
from rmsprop_nb._drivers.batch_threads import Job
from rmsprop_nb._methods import registry
from rmsprop_nb._methods.descent import average_squares, first_step, make_tell, moved_to, search_method, set_metric
from rmsprop_nb._methods.method import COMMON
from rmsprop_nb._numba.decorators import inline_jit
from rmsprop_nb._objectives.problem import Problem


@dataclasses.dataclass(frozen=True, kw_only=True)
class SteepestOptions(Options):
    """Options of a method that goes down along -g/M, without a memory."""

    beta: float = 0.9

    @property
    def kind(self) -> tuple[Any, ...]:
        return ("steepest",)

    def hyper(self, dtype: Any) -> Hyper:
        return Hyper.of(dtype, self.beta, 1e-3)


@inline_jit
def choose_direction(arrays, p, settings, accepted, moved):
    floor = average_squares(arrays, arrays.g_eval if accepted else arrays.g, settings, not accepted)
    set_metric(arrays, floor)
    slope = 0.0
    for i in range(arrays.x.size):
        if moved:
            arrays.x[i] = moved_to(arrays, i, arrays.x.dtype.type(p.a))
        if accepted:
            arrays.g[i] = arrays.g_eval[i]
        arrays.direction[i] = -arrays.g[i] / arrays.metric[i]
        slope += arrays.g[i] * arrays.direction[i]
    if not moved:
        p.a = first_step(arrays, p, accepted, settings.team)
    return slope


@pytest.fixture
def steepest(monkeypatch):
    method = search_method(
        "steepest", tell=make_tell("steepest", choose_direction), options=SteepestOptions, curvature=0.5
    )
    monkeypatch.setitem(registry._BY_NAME, method.name, method)
    monkeypatch.setitem(registry._KINDS, method.name, method)
    monkeypatch.setitem(registry.OPTIONS, method.method, method.options)
    return method


@njit
def ellipse(x, grad, center):
    grad[0], grad[1] = 2.0 * (x[0] - center), 20.0 * x[1]
    return (x[0] - center) ** 2 + 10.0 * x[1] ** 2


@pytest.mark.thorough
@pytest.mark.slow
def test_record_is_all_that_a_method_needs(steepest, tmp_path):
    """One problem, compiled and as Python, a state that is saved, a batch, and a kernel for a device."""
    given = {"method": "steepest", "jac": "inplace"}
    result = minimize(ellipse, [3.0, 1.0], (1.0,), **given)
    assert result.success
    np.testing.assert_allclose(result.x, [1.0, 0.0], atol=1e-5)
    interpreted = minimize(ellipse.py_func, [3.0, 1.0], (1.0,), **given)
    assert (interpreted.x.tolist(), interpreted.nfev) == (result.x.tolist(), result.nfev)

    begun = minimize(ellipse, [3.0, 1.0], (1.0,), **given, options={"maxiter": 2})
    save(tmp_path / "state", begun.state)
    resumed = minimize(ellipse, [3.0, 1.0], (1.0,), **given, options={"state": load(tmp_path / "state")})
    assert resumed.x.tolist() == result.x.tolist()

    batch = minimize_batch(ellipse, [[3.0, 1.0], [0.0, 2.0]], batch_args=(np.array([1.0, 5.0]),), **given)
    assert batch.x[0].tolist() == result.x.tolist()
    assert batch.success.all()

    none = np.empty(0)
    problem = Problem(ellipse, "inplace", (1.0,), none, none)
    launch = launch_of(Job(problem, np.zeros((4, 2)), (), SteepestOptions()))
    assert launch.shape.layout.vectors == (*COMMON, "direction", "metric")


def test_unknown_option_of_it_is_refused(steepest):
    with pytest.raises(ValueError, match="memory"):
        minimize(ellipse, [3.0, 1.0], (1.0,), method="steepest", jac="inplace", options={"memory": 3})


def test_state_of_another_method_is_refused(steepest):
    state = minimize(ellipse, [3.0, 1.0], (1.0,), jac="inplace", options={"maxiter": 1}).state
    with pytest.raises(ValueError, match="this is one of method='steepest'"):
        minimize(ellipse, [3.0, 1.0], (1.0,), method="steepest", jac="inplace", options={"state": state})


@pytest.mark.parametrize("method", ["RMSprop-LBFGS", "rmsprop_lbfgs", "rmsproplbfgs", " RMSprop L-BFGS"])
def test_case_and_separators_of_a_name_do_not_matter(method):
    assert registry.method_name(method) == "rmsprop-lbfgs"


def test_no_name_is_the_default():
    assert registry.method_name(None) == registry.method_name("RMSprop") == "rmsprop"


@pytest.mark.parametrize("method", ["L-BFGS-B", "BFGS", "lbfgs", "Newton-CG", "trust-constr"])
def test_methods_for_smooth_objectives_are_nearest_to_lbfgs(method):
    with pytest.raises(
        ValueError, match=f"got '{method}'; the nearest is 'rmsprop-lbfgs', and scipy.optimize.minimize"
    ):
        registry.method_name(method)


@pytest.mark.parametrize("method", ["Nelder-Mead", "adam", "sgd", "", "Powell"])
def test_other_methods_are_nearest_to_rmsprop(method):
    with pytest.raises(ValueError, match=r"one of 'rmsprop', 'rmsprop-lbfgs', got .* the nearest is 'rmsprop', and"):
        registry.method_name(method)


@pytest.mark.parametrize("method", [3, ["rmsprop"], minimize])
def test_a_method_is_a_name(method):
    with pytest.raises(ValueError, match="give one of these names"):
        registry.method_name(method)


def test_batches_and_many_starts_take_any_spelling():
    def fun(x):
        return x @ x

    assert minimize_batch(fun, [[1.0]], method="RMSprop_LBFGS").success.all()
    assert multistart(fun, [(-1, 1)], 1, method="RMSPROP", rng=0).success
    with pytest.raises(ValueError, match="the nearest is 'rmsprop-lbfgs'"):
        multistart(fun, [(-1, 1)], 1, method="L-BFGS-B", rng=0)
