"""Neither the units of x and f nor a constant added to f change the default path or how it ends."""

from __future__ import annotations

import numpy as np
import pytest
from numba import njit
from scipy.optimize import linprog, rosen

from rmsprop_nb import Status, minimize, minimize_batch

METHODS = ["rmsprop", "rmsprop-lbfgs"]
T = np.linspace(0.0, 5.0, 40)
START = np.array([2.0, 1.0, 0.1])


@njit
def misfit(p, t, y, unit, shift):
    """A decay, with its three parameters in units of their own."""
    f = 0.0
    for i in range(t.size):
        r = p[0] * unit[0] * np.exp(-p[1] * unit[1] * t[i]) + p[2] * unit[2] - y[i]
        f += r * r
    return f * unit[3] + shift


@njit
def misfit_of_row(p, t, unit, y):
    return misfit(p, t, y, unit, 0.0)


def decays(count):
    rng = np.random.default_rng(1)
    true = np.column_stack([rng.uniform(1, 3, count), rng.uniform(0.2, 2, count), rng.uniform(0, 0.3, count)])
    return true, true[:, :1] * np.exp(-true[:, 1:2] * T) + true[:, 2:]


@pytest.mark.parametrize("jac", [None, "3-point"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("exponents", [(60, 0, 0, 0), (0, -60, 7, 0), (0, 0, 0, 60), (-20, 31, -9, -60)])
def test_powers_of_two_change_nothing(method, jac, exponents):
    _, (y,) = decays(1)
    unit = 2.0 ** np.array(exponents)
    plain = minimize(misfit, START, (T, y, np.ones(4), 0.0), method, jac)
    scaled = minimize(misfit, START / unit[:3], (T, y, unit, 0.0), method, jac)
    assert plain.success
    assert (scaled.status, scaled.nit, scaled.nfev) == (plain.status, plain.nit, plain.nfev)
    np.testing.assert_array_equal(scaled.x * unit[:3], plain.x)
    assert scaled.fun == plain.fun * unit[3]


@pytest.mark.parametrize("method", METHODS)
def test_fits_end_right_in_any_units(method):
    true, y = decays(100)
    for y_unit in (1e-6, 1.0, 1e6):
        for t_unit in (1e-9, 1.0, 1e3):
            starts = np.tile(START, (100, 1)) * [y_unit, 1 / t_unit, y_unit]
            rows = (y * y_unit,)
            found = minimize_batch(misfit_of_row, starts, (T * t_unit, np.ones(4)), batch_args=rows, method=method)
            assert found.success.all()
            np.testing.assert_allclose(found.x * [1 / y_unit, t_unit, 1 / y_unit], true, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_constant_added_to_f_changes_no_answer(method):
    true, (y,) = decays(1)
    for shift in (-10.0, 10.0):
        found = minimize(misfit, START, (T, y, np.ones(4), shift), method)
        assert found.success
        np.testing.assert_allclose(found.x, true[0], rtol=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_values_in_single_precision_are_no_reason_to_stay_at_the_start(method):
    _, (y,) = decays(1)
    single = T.astype(np.float32)

    def fun(p):
        p = p.astype(np.float32)
        r = p[0] * np.exp(-p[1] * single) + p[2] - y.astype(np.float32) + np.float32(0.1) * np.sin(9 * single)
        return r @ r

    found = minimize(fun, START, method=method)
    right = minimize(lambda p: float(np.sum((p[0] * np.exp(-p[1] * T) + p[2] - y + 0.1 * np.sin(9 * T)) ** 2)), START)
    assert right.success
    np.testing.assert_allclose(found.x, right.x, rtol=5e-3)


@pytest.mark.parametrize("method", METHODS)
def test_values_of_seven_digits_are_measured(method):
    def fun(p):
        return float(f"{10.0 + (p[0] - 3.0) ** 2 + 4.0 * (p[1] + 1.0) ** 2:.7g}")

    found = minimize(fun, [1.0, 1.0], method=method)
    assert found.nfev <= 500
    np.testing.assert_allclose(found.x, [3.0, -1.0], atol=2e-2)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("seed", range(4))
def test_noise_is_no_gradient_that_is_as_good_as_it_can_be(method, seed):
    rng = np.random.default_rng(seed)
    start = rng.normal(size=3)

    def exact(x):
        return 5.0 + np.sum((x - 1.0) ** 2 * [1.0, 2.0, 3.0])

    for noisy in (lambda x: exact(x) + 1e-6 * rng.normal(), lambda x: (exact(x) - 5.0) * (1.0 + 1e-6 * rng.normal())):
        found = minimize(noisy, start, method=method)
        assert not found.success or exact(found.x) - 5.0 <= 2e-5 * (exact(start) - 5.0)


AT_MINIMUM = {
    "a valley": (rosen, np.ones(2)),
    "ten variables": (rosen, np.ones(10)),
    "a quadratic": (lambda x: (x[0] - 3.0) ** 2 + 4.0 * (x[0] + x[1]) ** 2, np.array([3.0, -3.0])),
    "curvature that changes": (lambda x: np.sum(np.exp(3.0 * (x - 1.0)) - 3.0 * (x - 1.0) - 1.0), np.ones(2)),
    "no curvature": (lambda x: np.sum((x - 1.0) ** 4), np.ones(2)),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shift", [0.0, -3.0, 1e-6])
@pytest.mark.parametrize(("fun", "x"), AT_MINIMUM.values(), ids=AT_MINIMUM)
def test_start_at_a_minimum_ends_soon_with_success(fun, x, shift, method):
    for f_unit, x_unit, off in [(1.0, 1.0, 0.0), (1e12, 1e-9, 0.0), (1e-12, 1e6, 0.0), (1.0, 1.0, 2.3e-16)]:
        start = x * x_unit * (1.0 + off)
        found = minimize(lambda z, f=f_unit, u=x_unit: f * (fun(z / u) + shift), start, method=method)
        assert found.success
        assert found.nfev <= (60 * (x.size + 3) if shift != 1e-6 else 450 * x.size)
        np.testing.assert_allclose(found.x, x * x_unit, rtol=1e-6 if fun(x + 0.01) > 1e-6 else 1e-3)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("offset", [1e-16, 4e-16, 1e-15, 1e-14])
def test_start_within_rounding_of_a_minimum_ends_soon_with_success(offset, method):
    rng = np.random.default_rng(0)
    A = rng.normal(size=(6, 6))
    hessian, x = A @ A.T + np.eye(6), rng.normal(size=6)
    for _ in range(5):
        start = x * (1.0 + offset * rng.normal(size=6))
        found = minimize(lambda z: (z - x) @ hessian @ (z - x), start, method=method)
        assert found.success
        assert found.njev <= 100


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("bounds", [None, [(0.0, None), (1e-9, None)]])
def test_variable_that_becomes_far_smaller_than_its_typical_size(bounds, method):
    """Differences by steps of its typical size would be wrong all over."""
    c = T[1:] * 1e-4
    rates = 3.0 * c / (5e-5 + c) + 0.01 * np.sin(3e5 * c)

    def misfit_of_rates(p):
        return np.sum((p[0] * c / (np.abs(p[1]) + c) - rates) ** 2)

    found = minimize(misfit_of_rates, [1.0, 1.0], method=method, bounds=bounds)
    right = minimize(lambda p: misfit_of_rates(p * [1.0, 1e-4]), [3.0, 0.5])
    assert found.success
    np.testing.assert_allclose(found.x, right.x * [1.0, 1e-4], rtol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_variable_too_small_for_any_step_is_no_success(method):
    found = minimize(
        lambda x: (x[0] - 1.0) ** 2 + np.log(x[1] / 3e-9) ** 2, [2.0, 1.0], bounds=[(None, None), (1e-12, None)],
        method=method,
    )  # fmt: skip
    assert not found.success or found.fun <= 1e-6


def test_non_smooth_minimum_ends_soon_and_without_false_success():
    rng = np.random.default_rng(4)
    X = rng.normal(size=(100, 8))
    y = X @ np.array([2, -1, 0, 0, 0, 0.5, 0, 0.0]) + 0.3 * rng.normal(size=100)

    def lasso(b):
        return 0.5 * np.sum((y - X @ b) ** 2) + 5.0 * np.sum(np.abs(b))

    for method, calls in zip(METHODS, (100_000, 15_000), strict=True):
        found = minimize(lasso, np.ones(8), method=method)
        assert found.status == Status.PRECISION_LOSS or found.fun <= 21.087153
        assert found.nfev <= calls
        assert found.fun <= 21.13


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("seed", range(3))
def test_kink_across_all_variables_is_no_success(method, seed):
    """Differences that straddle it must not pass for a gradient that is as good as it can be."""
    rng = np.random.default_rng(seed)
    A = rng.normal(size=(30, 4))
    b = A @ [1.0, 2.0, 3.0, 4.0] + rng.standard_t(2, size=30)

    def largest(x):
        return np.abs(A @ x - b).max()

    found = minimize(largest, np.ones(4), method=method)
    above = np.column_stack([np.vstack([A, -A]), -np.ones(60)])
    lowest = linprog([0, 0, 0, 0, 1], above, np.concatenate([b, -b]), bounds=[(None, None)] * 5).fun
    assert not found.success or found.fun <= lowest * (1.0 + 1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_bound_that_is_near_in_numbers_hides_no_gradient(method):
    def fun(x):
        return float((x[0] / 1e-6 - 1.0) ** 2), np.array([2e6 * (x[0] / 1e-6 - 1.0)])

    for options in ({}, {"gtol": 1e-5}):
        found = minimize(fun, [3e-6], jac=True, bounds=[(0.0, None)], method=method, options=options)
        assert not found.success or abs(found.x[0] - 1e-6) <= 1e-10


def test_given_sizes_are_those_of_a_scaled_problem():
    sizes = np.array([2.0, 0.5, 4.0])
    _, (y,) = decays(1)
    options = {"x_scale": sizes, "gtol": 0.0, "maxiter": 5}
    given = minimize(misfit, START, (T, y, np.ones(4), 0.0), options=options, jac="3-point")
    unit = np.append(sizes, 1.0)
    options = {"x_scale": 1.0, "gtol": 0.0, "maxiter": 5}
    scaled = minimize(misfit, START / sizes, (T, y, unit, 0.0), options=options, jac="3-point")
    np.testing.assert_array_equal(scaled.x * sizes, given.x)


@pytest.mark.parametrize("bad", ["size", 0.0, -1.0, np.nan, [1.0, 2.0], [1.0, 1.0, np.inf]])
def test_bad_sizes_are_refused(bad):
    with pytest.raises(ValueError, match="x_scale must be 'auto', a positive number, or positive numbers of shape"):
        minimize(lambda x: x @ x, np.ones(3), options={"x_scale": bad})


@pytest.mark.parametrize("bad", [[0.1, 0.1], "0.1", [[0.1, 0.1, 0.1]], [0.1, 2.0, 0.1]])
def test_bad_steps_are_refused(bad):
    with pytest.raises(ValueError, match="finite_diff_rel_step must be a number"):
        minimize(lambda x: x @ x, np.ones(3), options={"finite_diff_rel_step": bad})


def test_each_variable_has_its_own_step():
    points = []

    def fun(x):
        points.append(x.copy())
        return float(x @ x)

    minimize(fun, [2.0, 4.0], options={"finite_diff_rel_step": [1e-3, 1e-5], "maxfev": 1})
    np.testing.assert_allclose(points[1] - points[0], [2e-3, 0.0], atol=1e-12)
    np.testing.assert_allclose(points[2] - points[0], [0.0, 4e-5], atol=1e-12)
