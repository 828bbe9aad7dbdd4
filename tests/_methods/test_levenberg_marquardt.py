"""Levenberg-Marquardt in RMSprop's metric: states, units, bounds, and success only where it is deserved."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.optimize
from numba import njit

from rmsprop_nb import Status, fit, least_squares, load, save
from rmsprop_nb._core.fit_arguments import Boxes
from rmsprop_nb._drivers.solve import outcome, run
from rmsprop_nb._methods.levenberg_marquardt import LevenbergMarquardtOptions
from rmsprop_nb._objectives.fit_objective import FitObjective, arrange, choose
from rmsprop_nb._objectives.residuals import Terms


@njit
def powell(x):
    """Have no exponentials, whose last bits differ between compiled code and NumPy."""
    r = np.empty(4)
    r[0] = x[0] + 10.0 * x[1]
    r[1] = 2.0 * (x[2] - x[3])
    r[2] = (x[1] - 2.0 * x[2]) ** 2 - 0.1
    r[3] = 3.0 * (x[0] - x[3]) ** 2 + 0.5
    return r


@njit
def powell_jac(x):
    J = np.zeros((4, 4))
    J[0, 0], J[0, 1], J[1, 2], J[1, 3] = 1.0, 10.0, 2.0, -2.0
    J[2, 1] = 2.0 * (x[1] - 2.0 * x[2])
    J[2, 2] = -2.0 * J[2, 1]
    J[3, 0] = 6.0 * (x[0] - x[3])
    J[3, 3] = -J[3, 0]
    return J


START = np.array([3.0, -1.0, 0.0, 1.0])
LIMITS = {"upper": np.array([9.0, 9.0, 0.2, 9.0])}


def problem_of(fun, jac, upper=()):
    none, upper = np.empty(0), np.asarray(upper, float)
    boxes = Boxes(np.full(upper.size, -np.inf), upper)
    parts = {"y": (none, False), "sigma": (none, False), "scale": (1.0, False)}
    arranged = arrange(parts | {"lower": (boxes.lower, False), "upper": (boxes.upper, False)})
    terms = Terms("linear", True)
    return FitObjective(choose(fun, jac, 4, arranged, terms), arranged, boxes, terms).problem


@pytest.mark.parametrize("upper", [(), LIMITS["upper"]], ids=["free", "bounded"])
def test_compiled_interpreted_and_resumed_runs_are_the_same(upper, tmp_path):
    problem = problem_of(powell, powell_jac, upper)
    state, _ = run(problem, START, LevenbergMarquardtOptions(), None)
    status, (x, f, _) = outcome(state)
    assert status.success
    assert f == pytest.approx(0.5 * np.sum(powell(x) ** 2), rel=1e-14)

    interpreted, _ = run(
        problem_of(powell.py_func, powell_jac.py_func, upper), START, LevenbergMarquardtOptions(), None
    )
    np.testing.assert_array_equal(interpreted.arrays.x, x)
    assert interpreted.progress.nfev == state.progress.nfev

    for most in range(1, int(state.progress.nfev)):
        part, _ = run(problem, START, LevenbergMarquardtOptions(maxfev=most), None)
        assert outcome(part)[0] is Status.MAXFEV
        save(tmp_path / "part", part)
        options = LevenbergMarquardtOptions(state=load(tmp_path / "part"))
        np.testing.assert_array_equal(run(problem, START, options, None)[0].arrays.x, x)


def test_units_change_nothing():
    """Powers of two, which round nothing: the same steps, whatever parameters and residuals are measured in."""
    plain = least_squares(powell, START)
    rng = np.random.default_rng(0)
    for _ in range(5):
        units, height = 2.0 ** rng.integers(-60, 60, 4), 2.0 ** int(rng.integers(-60, 60))
        scaled = least_squares(lambda x, u=units, h=height: h * powell(x * u), START / units,
                               lambda x, u=units, h=height: h * powell_jac(x * u) * u)  # fmt: skip
        exact = least_squares(powell, START, powell_jac)
        np.testing.assert_array_equal(scaled.x * units, exact.x)
        assert (scaled.nfev, scaled.status, scaled.cost) == (exact.nfev, exact.status, exact.cost * height**2)
    assert plain.success


def test_a_straight_line_is_found_at_once():
    t = np.linspace(0.0, 1.0, 20)
    y = 3.0 + 2.0 * t + np.random.default_rng(1).normal(size=20)
    result = fit(lambda t, a, b: a + b * t, t, y, jac="cs")
    np.testing.assert_allclose(result.popt, np.polyfit(t, y, 1)[::-1], rtol=1e-7)
    assert result.nfev <= 5


@njit
def peak(t, height, centre, width):
    return height * np.exp(-0.5 * ((t - centre) / width) ** 2)


@pytest.mark.parametrize("centre", [0.0, 1e6, 1.7e9])
@pytest.mark.parametrize("xtol", [0.0, 1e-8])
def test_a_large_origin_hides_nothing(centre, xtol):
    """As of time stamps: a step that is small beside the origin may be large beside the width."""
    t = centre + np.linspace(-4.0, 4.0, 64)  # rounds nothing
    y = 2.0 * np.exp(-0.5 * (np.linspace(-4.0, 4.0, 64) - 0.25) ** 2) + 0.01 * np.random.default_rng(0).normal(size=64)
    result = fit(peak, t, y, [1.0, centre, 1.5], options={"xtol": xtol})
    assert result.success
    assert (np.abs(result.popt - [2.0, centre + 0.25, 1.0]) < 5.0 * result.perr).all()
    assert result.perr.max() < 0.02


@pytest.mark.parametrize("unit", [1e-300, 1e-100, 1e100])
def test_success_does_not_come_from_underflow(unit):
    t = np.linspace(-4.0, 4.0, 64)
    result = fit(peak, t, unit * peak.py_func(t, 2.0, 0.25, 1.0), [unit, 0.0, 1.5])
    assert not result.success or np.allclose(result.popt, [2.0 * unit, 0.25, 1.0], rtol=1e-6)
    assert result.success == (unit != 1e-300)


def test_a_start_at_the_solution_ends_there():
    t = np.linspace(0.0, 3.0, 20)
    result = fit(peak, t, peak.py_func(t, 2.0, 0.3, 1.1), [2.0, 0.3, 1.1])
    assert result.success
    np.testing.assert_allclose(result.popt, [2.0, 0.3, 1.1], rtol=1e-12)


def test_exact_data_end_by_the_size_of_the_step():
    t = np.linspace(0.0, 3.0, 20)
    result = fit(njit(lambda t, a, k: a * np.exp(-k * t)), t, 2.0 * np.exp(-1.5 * t), [1.0, 1.0])
    assert result.status in (Status.XTOL, Status.GTOL, Status.ROUNDING)
    np.testing.assert_allclose(result.popt, [2.0, 1.5], rtol=1e-12)


@pytest.mark.parametrize("seed", range(8))
def test_bounds_give_what_scipy_gives(seed):
    rng = np.random.default_rng(seed)
    A, b = rng.normal(size=(12, 5)), rng.normal(size=12)
    lower = rng.uniform(-0.3, 0.0, 5)
    upper = lower + rng.uniform(0.05, 0.6, 5)
    expected = scipy.optimize.lsq_linear(A, b, (lower, upper), tol=1e-14)
    result = least_squares(lambda x: A @ x - b, 0.5 * (lower + upper), lambda x: A, (lower, upper), ftol=1e-14)
    assert result.success
    np.testing.assert_allclose(result.x, expected.x, atol=1e-7)
    assert (result.x >= lower).all()
    assert (result.x <= upper).all()
    np.testing.assert_array_equal(result.active_mask, expected.active_mask)


def test_no_evaluation_is_outside_of_the_bounds():
    def watched(x):
        assert (x >= [-1.3, 0.9]).all()
        assert (x <= [2.0, 1.2]).all()
        return np.array([10.0 * (x[1] - x[0] ** 2), 1.0 - x[0]])

    assert least_squares(watched, [-1.2, 1.0], bounds=([-1.3, 0.9], [2.0, 1.2])).success


# -- success only where it is deserved --------------------------------------------------------------------------------


def test_a_plateau_is_no_minimum():
    """NIST's BoxBOD from its far start: the first step goes to where the model has no slope."""
    t, y = np.array([1.0, 2.0, 3.0, 5.0, 7.0, 10.0]), np.array([109.0, 149.0, 149.0, 191.0, 213.0, 224.0])
    result = fit(njit(lambda t, a, b: a * (1.0 - np.exp(-b * t))), t, y, [1.0, 1.0])
    assert not result.success or np.allclose(result.popt, [213.80940889, 0.54723748454], rtol=1e-6)


def test_a_function_that_cannot_be_evaluated_is_no_success():
    result = least_squares(lambda x: 0.0 * x + np.nan, [1.0])
    assert (result.success, result.status) == (False, -1)
    assert "NaN" in result.message


def test_values_that_are_not_finite_end_a_step_and_not_the_fit():
    result = least_squares(njit(lambda x: np.array([np.log(x[0]) + 3.0, 0.0])), [5.0])
    assert result.success
    assert result.x[0] == pytest.approx(np.exp(-3.0))


def test_a_kink_is_no_success():
    result = least_squares(lambda x: np.array([abs(x[0] - 1.0) + 1.0]), [3.0], max_nfev=500)
    assert not result.success


@pytest.mark.parametrize("seed", range(20))
@np.errstate(all="ignore")
def test_success_means_that_nothing_is_left_to_gain(seed):
    """Random curves with few points and much noise: where it says success, SciPy finds nothing lower nearby."""
    rng = np.random.default_rng(seed)
    t = np.sort(rng.uniform(0.0, 3.0, 8))
    y = rng.normal(size=8)

    def residuals(p):
        return p[0] * np.exp(-p[1] * t) + p[2] * np.cos(p[3] * t) - y

    result = least_squares(residuals, rng.normal(size=4), jac="3-point")
    if result.success:
        polished = scipy.optimize.least_squares(
            residuals, result.x, jac="3-point", x_scale="jac", ftol=1e-15, xtol=1e-15
        )
        assert result.cost <= polished.cost * (1.0 + 1e-6) + 1e-20


@pytest.mark.parametrize("n", [1, 8, 9, 20])
def test_any_number_of_parameters(n):
    """Up to 8 partial derivatives are carried along at once."""
    t = np.linspace(-1.0, 1.0, 60)
    coefficients = np.random.default_rng(n).normal(size=n)

    @njit
    def series(t, *c):
        value = 0.0 * t
        for k in range(len(c)):
            value = value * 0.9 * t + c[k]
        return value

    powers = [(0.9 * t) ** (n - 1 - k) for k in range(n)]
    result = fit(series, t, np.tensordot(coefficients, powers, 1), np.zeros(n))
    assert result.success
    assert result.jacobian == "autodiff"
    assert result.chi2 < 1e-12
