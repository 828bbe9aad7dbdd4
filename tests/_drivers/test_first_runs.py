"""Before the loop of a method is compiled, steps run as Python: with the same numbers, and until it pays to compile."""

from __future__ import annotations

import numpy as np
import pytest
from driven_runs import CONTROLS, THREE, run, same
from marks import needs_jit
from numba import njit
from objectives import FORMS
from scipy.optimize import rosen, rosen_der
from variants import dtypes_in_turn

from rmsprop_nb import minimize
from rmsprop_nb._drivers import first_runs
from rmsprop_nb._drivers import loop as _loop

pytestmark = needs_jit


@pytest.fixture
def as_python(monkeypatch):
    """``as_python(steps)``: nothing has been compiled yet, and after so many steps it will be."""

    def begin(steps):
        monkeypatch.setattr(first_runs, "STEPS", steps)
        monkeypatch.setattr(first_runs, "_COMPILED", set())
        monkeypatch.setattr(first_runs, "_steps", first_runs.Counter())
        monkeypatch.setattr(first_runs, "is_compiled", lambda *_: False)

    return begin


@pytest.mark.parametrize("python", [False, True])
@pytest.mark.parametrize(("options", "dtype"), dtypes_in_turn(CONTROLS))
def test_steps_as_python_give_the_same_numbers(python, options, dtype, as_python):
    expected = run(python=python, dtype=dtype, **options)
    as_python(10**9)
    found = run(python=python, dtype=dtype, **options)
    assert sum(first_runs._steps.values()) == found.njev
    same(found, expected)
    for name in set(found.state.record.dtype.names) - {"first_step"}:
        np.testing.assert_array_equal(found.state.record[name], expected.state.record[name], name)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("options", THREE.values(), ids=THREE)
def test_every_form(form, options, as_python):
    expected = run(form, bounds=[(-2, 0.5), (None, 0.1), (0.2, None)], **options)
    as_python(10**9)
    same(run(form, bounds=[(-2, 0.5), (None, 0.1), (0.2, None)], **options), expected)


@pytest.mark.parametrize("jac", [rosen_der, None], ids=["exact", "differences"])
@pytest.mark.parametrize("n", [4, 9, 33, 64])
@pytest.mark.parametrize("method", ["rmsprop", "rmsprop-lbfgs"])
def test_sums_over_many_variables(method, n, jac, as_python):
    x0 = np.linspace(-1.2, 1.0, n)
    expected = minimize(rosen, x0, jac=jac, method=method, options={"maxiter": 60})
    as_python(10**9)
    same(minimize(rosen, x0, jac=jac, method=method, options={"maxiter": 60}), expected)


@pytest.mark.parametrize("steps", [1, 7, 25])
@pytest.mark.parametrize("options", THREE.values(), ids=THREE)
def test_goes_over_to_compiled_code_in_the_middle(options, steps, as_python, monkeypatch):
    expected = run(**options)
    as_python(steps)
    monkeypatch.setattr(_loop, "next_budget", lambda *_: 3)
    same(run(**options), expected)
    assert len(first_runs._COMPILED) == 1
    assert steps <= sum(first_runs._steps.values()) < steps + 3


def test_long_vectors_are_compiled_at_once(as_python):
    as_python(10**9)
    minimize(rosen, np.zeros(first_runs.LARGEST_SIZE + 1), jac=rosen_der, options={"maxiter": 3})
    assert not first_runs._steps


@njit
def bowl(x, grad):
    grad[0] = x[0] - 1.0
    return 0.5 * grad[0] ** 2


@pytest.mark.parametrize("fun", [bowl, bowl.py_func], ids=["compiled", "interpreted"])
def test_code_on_disk_is_used_at_once(fun, monkeypatch):
    """Whatever an earlier process, or test, has left there is found."""
    options = {"learning_rate": 0.1, "maxiter": 5}
    monkeypatch.setattr(first_runs, "STEPS", 0)
    monkeypatch.setattr(first_runs, "_COMPILED", set())
    minimize(fun, [3.0], jac="inplace", options=options)
    monkeypatch.setattr(first_runs, "STEPS", 10**9)
    monkeypatch.setattr(first_runs, "_COMPILED", set())
    minimize(fun, [3.0], jac="inplace", options=options)
    assert len(first_runs._COMPILED) == 1
    assert not first_runs._steps or sum(first_runs._steps.values()) == 0


def test_nothing_is_kept_of_a_step_that_is_interrupted(as_python):
    as_python(10**9)
    whole = minimize(rosen, [-1.2, 1.0], jac=rosen_der)
    algorithm = first_runs.Algorithm(("interrupted",), Step(), Step())
    state = whole.state.copy()
    steps = first_runs.as_python(algorithm)
    with pytest.raises(KeyboardInterrupt):
        steps.tell(state.arrays, state.record, 0.0)
    assert state.record == whole.state.record
    for left, right in zip(state.arrays, whole.state.arrays, strict=True):
        np.testing.assert_array_equal(left, right)


class Step:
    """Changes everything before it is interrupted."""

    @staticmethod
    def py_func(arrays, record, *_):
        for array in arrays:
            array[...] = -1.0
        record.nit = 77
        raise KeyboardInterrupt
