"""Before the loop of a method is compiled, steps run as Python: with the same numbers, and until it pays to compile."""

from __future__ import annotations

import numpy as np
import pytest
from driven_runs import CONTROLS, THREE, run, same
from marks import needs_jit
from numba import njit
from objectives import FORMS
from scipy.optimize import Bounds, rosen, rosen_der
from variants import dtypes_in_turn

from rmsprop_nb import Status, fit, minimize, minimize_batch
from rmsprop_nb._drivers import batch_loop, first_runs
from rmsprop_nb._drivers import loop as _loop

pytestmark = needs_jit


@pytest.fixture
def as_python(monkeypatch):
    """Call it to begin as in a new process with nothing on disk, where loops are compiled after `steps` evaluations."""

    def begin(steps):
        monkeypatch.setattr(first_runs, "STEPS", steps)
        monkeypatch.setattr(first_runs, "_COMPILED", set())
        monkeypatch.setattr(first_runs, "_steps", first_runs.Counter())
        monkeypatch.setattr(_loop, "is_compiled", lambda *_: False)
        monkeypatch.setattr(batch_loop, "is_compiled", lambda *_: False)

    return begin


@pytest.mark.exhaustive
@pytest.mark.thorough
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


@pytest.mark.thorough
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


@pytest.mark.thorough
@pytest.mark.parametrize("steps", [1, 50, 10**9])
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("options", THREE.values(), ids=THREE)
def test_batches(options, workers, steps, as_python):
    method, options = options.get("method"), {k: v for k, v in options.items() if k != "method"} | {"maxiter": 40}
    starts = np.random.default_rng(1).normal(size=(30, 3))
    boxes = Bounds(np.full((30, 3), -np.inf), np.where(np.arange(30)[:, None] % 2, np.inf, 0.5))

    def run_all():
        return minimize_batch(
            valley,
            starts,
            args=(2.0,),
            method=method,
            jac="inplace",
            bounds=boxes,
            workers=workers,
            options=options,
            batch_args=(weights,),
        )

    weights = np.linspace(1.0, 3.0, 30)
    expected = run_all()
    as_python(steps)
    found = run_all()
    for name in ("x", "fun", "jac", "nit", "nfev", "status"):
        np.testing.assert_array_equal(found[name], expected[name], name)
    if steps == 10**9:
        assert sum(first_runs._steps.values()) == found.njev.sum()
    else:
        assert len(first_runs._COMPILED) == 1


def test_problem_that_raises(as_python):
    as_python(10**9)
    starts = np.array([[1.0, 2.0], [-5.0, 1.0], [2.0, 2.0]])
    batch = minimize_batch(picky, starts, jac="inplace")
    assert [status == Status.EXCEPTION for status in batch.status] == [False, True, False]
    assert "too low" in str(batch.exceptions[1])


@pytest.mark.thorough
def test_fits(as_python):
    x = np.linspace(0.0, 3.0, 40)
    y = np.exp(-x) * np.linspace(1.0, 2.0, 6)[:, None] + 0.01 * np.sin(40.0 * x)
    expected = fit(decay, x, y, p0=[1.0, 0.5])
    as_python(10**9)
    found = fit(decay, x, y, p0=[1.0, 0.5])
    assert sum(first_runs._steps.values()) > 6
    for name in ("popt", "pcov", "chi2", "nfev", "status"):
        np.testing.assert_array_equal(found[name], expected[name], name)


@njit
def valley(x, grad, a, weight):
    f = 0.0
    for i in range(x.size):
        grad[i] = weight * (a * (x[i] - i) + (x[i] - i) ** 3)
        f += weight * (0.5 * a * (x[i] - i) ** 2 + 0.25 * (x[i] - i) ** 4)
    return f


@njit
def picky(x, grad):
    if x[0] < -4.0:
        raise ValueError("too low")
    grad[0], grad[1] = x[0] - 1.0, x[1] - 1.0
    return 0.5 * (grad[0] ** 2 + grad[1] ** 2)


@njit
def decay(x, a, b):
    return a * np.exp(-b * x)


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
    steps = first_runs.as_python(algorithm, "interrupted")
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
