"""Minimization inside compiled code."""

from __future__ import annotations

import numpy as np
import pytest
from marks import needs_jit
from numba import njit, prange
from numba.core.errors import TypingError
from scipy.optimize import Bounds

from rmsprop_nb import Status, make_solver, minimize, minimize_batch

pytestmark = [needs_jit, pytest.mark.thorough]


@njit
def decay(p, t, y, weight):
    s = 0.0
    for i in range(t.size):
        if np.isnan(y[i]):
            raise ValueError("a point is missing")
        s += weight * (p[0] * np.exp(-p[1] * t[i]) - y[i]) ** 2
    return s


@njit
def bowl(x, grad, centre):
    grad[:] = 2.0 * (x - centre)
    return np.sum((x - centre) ** 2)


T = np.linspace(0.0, 3.0, 15)
RNG = np.random.default_rng(0)
CURVES = RNG.uniform(1.0, 3.0, (6, 1)) * np.exp(-RNG.uniform(0.5, 1.5, (6, 1)) * T) + 0.01 * RNG.normal(size=(6, 15))

solve_decay = make_solver(decay, method="rmsprop-lbfgs")
solve_bowl = make_solver(bowl, jac="inplace")


@njit(parallel=True)
def fit_all(starts, t, curves):
    found, successes = np.empty_like(starts), np.zeros(len(starts), np.bool_)
    for i in prange(len(starts)):
        result = solve_decay(starts[i], t, curves[i], 1.0)
        found[i], successes[i] = result.x, result.success
    return found, successes


def test_a_parallel_loop_finds_what_a_batch_finds():
    starts = np.ones((6, 2))
    found, successes = fit_all(starts, T, CURVES)
    expected = minimize_batch(decay, starts, (T,), batch_args=(CURVES, np.ones(6)), method="rmsprop-lbfgs")
    assert successes.all()
    np.testing.assert_array_equal(found, expected.x)


def test_from_python_it_is_minimize():
    result = solve_decay(np.ones(2), T, CURVES[0], 2.0)
    expected = minimize(decay, np.ones(2), (T, CURVES[0], 2.0), method="rmsprop-lbfgs")
    np.testing.assert_array_equal(result.x, expected.x)
    np.testing.assert_array_equal(result.jac, expected.jac)
    assert (result.fun, result.nit, result.nfev, result.status) == (
        expected.fun, expected.nit, expected.njev, expected.status,
    )  # fmt: skip


def test_many_variables_and_other_types_of_the_same_solver():
    for n, centre in ((3, np.arange(3.0)), (50, np.arange(50.0)), (3, 7)):
        result = solve_bowl(np.ones(n), np.broadcast_to(centre, n) if n == 50 else centre)
        assert result.success
        np.testing.assert_allclose(result.x, np.broadcast_to(centre, n), atol=1e-6)


def test_what_the_objective_raises_comes_out_and_the_solver_goes_on():
    broken = CURVES[0].copy()
    broken[3] = np.nan
    with pytest.raises(ValueError, match="a point is missing"):
        solve_decay(np.ones(2), T, broken, 1.0)
    assert solve_decay(np.ones(2), T, CURVES[1], 1.0).success


@pytest.mark.parametrize("x0", [np.array([np.nan, 1.0]), np.array([np.inf, 1.0])])
def test_a_start_that_is_not_finite(x0):
    with pytest.raises(ValueError, match="x0 must be finite"):
        solve_bowl(x0, 1.0)


@pytest.mark.parametrize("bounds", [[(2.0, None), (None, 0.5)], Bounds([2.0, -np.inf], [np.inf, 0.5])])
def test_bounds_sizes_and_float32(bounds):
    options = {"x_scale": [2.0, 0.5]}
    solve = make_solver(bowl, jac="inplace", bounds=bounds, options=options, dtype=np.float32)
    result = solve(np.zeros(2), np.ones(2, np.float32))
    assert result.x.dtype == np.float32
    np.testing.assert_allclose(result.x, [2.0, 0.5])
    with pytest.raises(ValueError, match="as many elements as bounds"):
        solve(np.zeros(3), np.ones(3, np.float32))


def test_limits_and_schedules_hold():
    solve = make_solver(bowl, jac="inplace", options={"learning_rate": lambda k: 0.1 / (1 + k), "maxiter": 5})
    result = solve(np.zeros(2), 1.0)
    expected = minimize(
        bowl, np.zeros(2), (1.0,), jac="inplace", options={"learning_rate": lambda k: 0.1 / (1 + k), "maxiter": 5}
    )
    assert result.status == Status.MAXITER
    assert not result.success
    np.testing.assert_array_equal(result.x, expected.x)


@pytest.mark.parametrize(
    ("how", "error", "said"),
    [
        ({"fun": lambda x: 0.0}, TypeError, "compiled with numba.njit"),
        ({"fun": 3}, TypeError, "fun must be callable"),
        ({"jac": "2-point"}, ValueError, "jac must be 'autodiff' or 'inplace'"),
        ({"dtype": np.float16}, ValueError, "dtype must be float64 or float32"),
        ({"options": {"disp": True}}, ValueError, "disp"),
        ({"options": {"x_scale": -1.0}}, ValueError, "x_scale must be"),
        ({"options": {"x_scale": [1.0, 2.0, 3.0]}, "bounds": [(0, 1)] * 2}, ValueError, "x_scale must be"),
        ({"bounds": [(1.0, 0.0)]}, ValueError, "lower <= upper"),
        ({"method": "bfgs"}, ValueError, "method must be one of"),
        ({"maxiter": 3}, TypeError, "options"),
    ],
)
def test_wrong_arguments(how, error, said):
    with pytest.raises(error, match=said):
        make_solver(**{"fun": bowl, "jac": "inplace"} | how)


@njit
def with_index(x, a):
    return a[int(x[0])] * x[1]


def test_what_cannot_be_differentiated_is_named_at_the_first_call():
    with pytest.raises(TypingError, match="drops its derivatives"):
        make_solver(with_index)(np.ones(2), np.ones(3))
