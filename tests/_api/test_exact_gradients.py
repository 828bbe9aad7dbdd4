"""Exact derivatives in the front ends: by name, by themselves, and what happens where there are none."""

from __future__ import annotations

import functools
import pickle

import numpy as np
import pytest
import scipy.optimize
from marks import needs_jit
from numba import njit

from rmsprop_nb import check_gradient, minimize, minimize_batch, minimize_minibatch, multistart, rmsprop, value_and_grad

pytestmark = needs_jit

T = np.linspace(0.0, 3.0, 20)
CURVES = np.array([2.0 * np.exp(-0.5 * T), 1.5 * np.exp(-T) + 0.1])


@njit
def misfit(p, t, y):
    return np.mean((p[0] * np.exp(-p[1] * t) - y) ** 2)


@njit
def misfit_and_gradient(p, grad, t, y):
    e = np.exp(-p[1] * t)
    r = p[0] * e - y
    grad[0] = 2.0 * np.mean(r * e)
    grad[1] = -2.0 * np.mean(r * e * t) * p[0]
    return np.mean(r**2)


@njit
def chain(x, scale=1.0):
    return scale * np.sum((x[1:] - x[:-1] ** 2) ** 2) + np.sum((1.0 - x) ** 2)


@njit
def truncating(x):
    return (x[0] - 3.0) ** 2 + 0.0 * int(x[0])


def test_by_themselves_with_the_steps_of_a_gradient_by_hand():
    args = T, CURVES[0]
    exact = minimize(misfit, [1.0, 1.0], args)
    by_hand = minimize(misfit_and_gradient, [1.0, 1.0], args, jac="inplace")
    assert (exact.gradient, by_hand.gradient) == ("autodiff", "given")
    assert (exact.nit, exact.nfev, exact.njev) == (by_hand.nit, by_hand.nfev, by_hand.njev)
    np.testing.assert_allclose(exact.x, by_hand.x, rtol=1e-12)


def test_a_function_is_compiled_once_for_all_runs():
    first = minimize(misfit, [1.0, 1.0], (T, CURVES[0]), jac="autodiff")
    again = minimize(misfit, [1.0, 1.0], (T, CURVES[0]))
    np.testing.assert_array_equal(again.x, first.x)


@pytest.mark.parametrize("n", [1, 9, 40])
def test_any_number_of_variables_and_default_arguments(n):
    result = minimize(chain, np.full(n, 0.5), jac="autodiff", options={"gtol": 1e-8})
    assert result.success
    np.testing.assert_allclose(result.x, 1.0, atol=1e-6)


def test_bounds_and_float32():
    result = minimize(chain, np.full(3, 0.5, np.float32), bounds=[(0.0, 0.9)] * 3, jac="autodiff")
    assert result.x.dtype == np.float32
    assert result.success
    np.testing.assert_allclose(result.x[-1], 0.9, atol=0.1)
    reverse = minimize(chain, np.full(40, 0.5, np.float32), jac="autodiff")
    np.testing.assert_allclose(reverse.x, 1.0, atol=1e-3)


@pytest.mark.parametrize("workers", [1, 2])
def test_batches(workers):
    batch = minimize_batch(misfit, [1.0, 1.0], (T,), batch_args=(CURVES,), workers=workers, jac="autodiff")
    assert batch.gradient == "autodiff"
    for x, y in zip(batch.x, CURVES, strict=True):
        np.testing.assert_array_equal(x, minimize(misfit, [1.0, 1.0], (T, y), jac="autodiff").x)


def test_batches_in_a_map():
    here = minimize_batch(misfit, [1.0, 1.0], (T,), batch_args=(CURVES,))
    mapped = minimize_batch(misfit, [1.0, 1.0], (T,), batch_args=(CURVES,), workers=map)
    np.testing.assert_array_equal(mapped.x, here.x)


def test_a_gradient_function_can_be_pickled():
    function = pickle.loads(pickle.dumps(value_and_grad(misfit)))
    grad, expected = np.empty((2, 2))
    x = np.array([1.0, 0.5])
    assert function(x, grad, T, CURVES[0]) == pytest.approx(misfit_and_gradient(x, expected, T, CURVES[0]))
    np.testing.assert_allclose(grad, expected, rtol=1e-14)


def test_data_in_parts_and_mini_batches():
    whole = minimize(misfit, [1.0, 1.0], data=(T, CURVES[0]), jac="autodiff")
    parts = minimize(misfit, [1.0, 1.0], data=(T, CURVES[0]), jac="autodiff", deterministic=True)
    assert parts.gradient == "autodiff"
    np.testing.assert_allclose(parts.x, whole.x, atol=1e-4)
    run = functools.partial(minimize_minibatch, x0=[1.0, 1.0], data=(T, CURVES[0]), batch_size=5, epochs=3, rng=0)
    exact, by_hand = run(misfit, jac="autodiff"), run(misfit_and_gradient, jac="inplace")
    np.testing.assert_allclose(exact.x, by_hand.x, rtol=1e-10)


def test_the_other_front_ends():
    assert multistart(chain, [(-2.0, 2.0)] * 2, 4, jac="autodiff", rng=0).success
    assert check_gradient(chain, [0.3, 0.7], "autodiff").ok
    result = scipy.optimize.minimize(chain, [0.3, 0.7], method=rmsprop)
    assert result.gradient == "autodiff"


def test_differences_where_there_are_no_exact_derivatives():
    assert minimize(truncating, [0.3]).gradient == "differences"
    assert minimize_batch(truncating, [[0.3]]).gradient == "differences"
    assert minimize(lambda x: x[0] ** 2, [0.3]).gradient == "differences"
    assert minimize(chain, [0.3], options={"finite_diff_rel_step": 1e-6}).gradient == "differences"
    assert minimize(chain, [0.3], jac="2-point").gradient == "differences"


@pytest.mark.parametrize(
    "run",
    [
        lambda fun: minimize(fun, [0.3], jac="autodiff"),
        lambda fun: minimize_batch(fun, [[0.3]], jac="autodiff"),
        lambda fun: multistart(fun, [(0.0, 1.0)], 2, jac="autodiff"),
        lambda fun: check_gradient(fun, [0.3], "autodiff"),
    ],
)
def test_refused_where_asked_by_name(run):
    with pytest.raises(TypeError, match=r"truncating cannot be differentiated: int\(\) .*line \d+"):
        run(truncating)
    with pytest.raises(TypeError, match=r"jac='autodiff' needs a fun compiled with numba\.njit"):
        run(lambda x: x[0] ** 2)


def test_arguments_that_compiled_code_cannot_take():
    with pytest.raises(TypeError, match="Numba has no type for"):
        minimize(chain, [0.3], (object(),), jac="autodiff")
