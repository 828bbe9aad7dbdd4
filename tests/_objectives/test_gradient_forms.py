"""Where the gradient comes from."""

from __future__ import annotations

import numpy as np
import pytest
from marks import needs_jit
from numba import njit
from objectives import ARGS, FORMS, X0, as_python, fun, jac

from rmsprop_nb import minimize


@pytest.mark.parametrize("mix", ["njit fun, Python jac", "Python fun, njit jac"])
def test_mixed_kinds(mix):
    expected = minimize(fun, X0, ARGS, jac=jac)
    pair = (fun, as_python(jac)) if mix.startswith("njit") else (as_python(fun), jac)
    result = minimize(pair[0], X0, ARGS, jac=pair[1])
    np.testing.assert_array_equal(result.x, expected.x)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("python", [False, True])
def test_every_form_finds_the_minimum(form, python):
    function, gradient = FORMS[form]
    if python:
        function, gradient = as_python(function), as_python(gradient)
    result = minimize(function, X0, ARGS, jac=gradient)
    assert result.success
    np.testing.assert_allclose(result.x, 1.0, atol=1e-4)
    np.testing.assert_allclose(result.jac, jac(result.x, *ARGS), atol=1e-4)


def test_none_and_false_are_two_point_differences_that_end_as_central_ones():
    plain = as_python(fun)
    expected = minimize(plain, X0, ARGS, jac="2-point", options={"maxiter": 2})
    for form in (None, False):
        begun = minimize(plain, X0, ARGS, jac=form, options={"maxiter": 2})
        np.testing.assert_array_equal(begun.x, expected.x)
        ended = minimize(plain, X0, ARGS, jac=form)
        assert ended.success
        np.testing.assert_allclose(ended.x, minimize(fun, X0, ARGS, jac="cs", tol=1e-12).x, rtol=1e-6)


@pytest.mark.parametrize(("form", "calls"), [("2-point", 3), ("3-point", 6), ("cs", 3), ("callable", 0), ("joint", 0)])
def test_evaluations_are_counted_as_they_are_made(form, calls):
    count = [0]
    function, gradient = FORMS[form]

    def counting(x, *args):
        count[0] += 1
        return function(x, *args)

    result = minimize(counting, X0, ARGS, jac=gradient, options={"maxfev": 7, "gtol": 0.0})
    assert (result.njev, result.nfev) == (7, 7 * (1 + calls))
    assert count[0] == result.nfev


@pytest.mark.parametrize("method", ["2-point", "3-point", "cs"])
def test_differences_are_accurate(method):
    x = np.array([0.3, -1e-3, 40.0])
    result = minimize(FORMS["cs"][0], x, ARGS, jac=method, options={"maxfev": 1})
    # steps are relative to the size of each variable, and so is the error that f makes
    f_error = 2.2e-16 * abs(result.fun) / np.abs(x)
    accuracy = {"2-point": f_error / 1e-8 + 1e-6, "3-point": f_error / 1e-6 + 1e-9, "cs": 1e-15}[method]
    assert (np.abs(result.jac - jac(x, *ARGS)) <= accuracy * np.abs(jac(x, *ARGS)).max()).all()


@pytest.mark.parametrize("rel_step", [1e-3, 1e-6])
def test_relative_step_is_the_users(rel_step):
    points = []

    def recording(x):
        points.append(x.copy())
        return x @ x

    minimize(recording, [2.0, 0.0], options={"finite_diff_rel_step": rel_step, "maxfev": 1})
    assert points[1][0] - 2.0 == pytest.approx(2.0 * rel_step)
    assert points[2][1] == pytest.approx(rel_step)  # relative to |x| = 0 there would be no step


def test_difference_points_stay_within_bounds():
    seen = []

    def recording(x):
        seen.append(x.copy())
        return ((x - 5.0) ** 2).sum()

    for method in ("2-point", "3-point"):
        minimize(recording, [1.0, 0.0, 0.2], jac=method, bounds=[(0, 1), (0, 1e-9), (0.2, 0.2)])
    assert (np.array(seen) >= [0, 0, 0.2]).all()
    assert (np.array(seen) <= [1, 1e-9, 0.2]).all()


@pytest.mark.parametrize(
    "drop", [lambda x: np.abs(x).sum(), lambda x: np.linalg.norm(x) ** 2, lambda x: x.real @ x.real]
)
def test_complex_step_refuses_a_real_result(drop):
    with pytest.raises(TypeError, match="imaginary part"):
        minimize(drop, [1.0, 2.0], jac="cs")


@needs_jit
def test_complex_step_refuses_a_real_result_of_a_compiled_function():
    @njit
    def drop(x):
        return np.sum(np.abs(x))

    with pytest.raises(TypeError, match="imaginary part"):
        minimize(drop, [1.0, 2.0], jac="cs")
