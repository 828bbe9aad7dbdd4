"""`least_squares` has SciPy's signature, result and codes; many problems at once are each problem by itself."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import scipy.optimize
from curves import T, noisy
from marks import some
from numba import njit

from rmsprop_nb import least_squares


@njit
def rosenbrock(x):
    return np.array([10.0 * (x[1] - x[0] ** 2), 1.0 - x[0]])


@njit
def rosenbrock_jac(x):
    return np.array([[-20.0 * x[0], 10.0], [-1.0, 0.0]])


@njit
def residuals(x, t, y):
    return x[0] * np.exp(-x[1] * t) + x[2] - y


FORMS = {
    "autodiff": (rosenbrock, None, "autodiff"),
    "given": (rosenbrock, rosenbrock_jac, "given"),
    "Python": (rosenbrock.py_func, None, "2-point"),
    "Python, given": (rosenbrock.py_func, rosenbrock_jac.py_func, "given"),
    "3-point": (rosenbrock, "3-point", "3-point"),
    "cs": (rosenbrock.py_func, "cs", "cs"),
}


@pytest.mark.parametrize(("fun", "jac", "source"), FORMS.values(), ids=FORMS)
def test_every_form_gives_scipys_result(fun, jac, source):
    ours = least_squares(fun, [-1.2, 1.0], jac)
    theirs = scipy.optimize.least_squares(rosenbrock.py_func, [-1.2, 1.0], rosenbrock_jac.py_func)
    assert ours.success
    assert ours.jacobian == source
    assert set(theirs) <= set(ours)
    np.testing.assert_allclose(ours.x, theirs.x, rtol=1e-7)
    for name in ("fun", "grad", "cost", "optimality"):
        np.testing.assert_allclose(ours[name], theirs[name], atol=1e-6)
    np.testing.assert_allclose(ours.jac, theirs.jac, rtol=1e-6)
    assert type(ours.success) is bool
    assert ours.status in (1, 2, 3)


def test_bounds_are_scipys():
    bounds = ([-np.inf, 1.5], np.inf)
    ours = least_squares(rosenbrock, [-1.2, 2.0], bounds=bounds, ftol=1e-14)
    theirs = scipy.optimize.least_squares(rosenbrock.py_func, [-1.2, 2.0], bounds=bounds, ftol=1e-14, xtol=1e-14)
    np.testing.assert_allclose(ours.x, theirs.x, rtol=1e-6)
    assert ours.active_mask.tolist() == theirs.active_mask.tolist() == [0, -1]
    assert ours.optimality < 1e-5


@pytest.mark.parametrize("loss", some(["cauchy", "linear", "soft_l1", "huber", "arctan"], 5))
def test_losses_are_scipys(loss):
    y = noisy()
    y[4] += 3.0
    given = {"args": (T, y), "loss": loss, "f_scale": 0.1}
    ours = least_squares(residuals, [1.0, 1.0, 0.0], ftol=1e-14, **given)
    theirs = scipy.optimize.least_squares(residuals.py_func, [1.0, 1.0, 0.0], ftol=1e-14, xtol=1e-14, **given)
    np.testing.assert_allclose(ours.x, theirs.x, rtol=1e-6)
    assert ours.cost == pytest.approx(theirs.cost, rel=1e-9)
    np.testing.assert_allclose(ours.jac, theirs.jac, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(ours.fun, theirs.fun, atol=1e-6)


@pytest.mark.parametrize("method", ["rmsprop", "rmsprop-lbfgs"])
def test_other_methods_find_it(method):
    result = least_squares(
        residuals, [1.0, 1.0, 0.0], args=(T, noisy()), method=method, ftol=None, xtol=None, gtol=None
    )
    np.testing.assert_allclose(result.x, least_squares(residuals, [1.0, 1.0, 0.0], args=(T, noisy())).x, rtol=1e-5)


def test_many_problems_are_each_problem_alone():
    y = noisy(6)
    many = least_squares(residuals, [1.0, 1.0, 0.0], args=(T,), batch_args=(y,), workers=2)
    assert many.x.shape == (6, 3)
    assert many.success.all()
    assert "fun" not in many
    for k in range(6):
        alone = least_squares(residuals, [1.0, 1.0, 0.0], args=(T, y[k]))
        for name in ("x", "cost", "grad", "nfev", "status", "active_mask"):
            np.testing.assert_array_equal(many[name][k], alone[name])
    starts = np.random.default_rng(0).uniform(0.5, 1.5, (6, 3))
    own = least_squares(residuals, starts, args=(T, y[0]), bounds=(starts - 0.1, np.inf))
    assert (own.x >= starts - 0.1).all()


def test_keywords_reach_a_python_function():
    def shifted(x, target=0.0):
        return x - target

    assert least_squares(shifted, [0.0, 1.0], kwargs={"target": 3.0}).x.round(8).tolist() == [3.0, 3.0]
    assert least_squares(lambda x: x[0] - 2.0, 1.0).x.round(8).tolist() == [2.0]


def test_limits_and_failures_have_scipys_codes():
    limited = least_squares(rosenbrock, [-1.2, 1.0], max_nfev=3)
    assert (limited.success, limited.status, limited.nfev) == (False, 0, 3)
    assert least_squares(rosenbrock, [np.sqrt(1e308), 1.0]).status == -1


def test_wrong_derivatives_are_no_success():
    result = least_squares(rosenbrock, [-1.2, 1.0], lambda x: -rosenbrock_jac.py_func(x))
    assert (result.success, result.status) == (False, -1)
    assert "jac may not be its derivatives" in result.message


@pytest.mark.parametrize(
    ("message", "given"),
    [
        ("loss must be one of", {"loss": "poisson"}),
        ("x_scale must be None or 'jac'", {"x_scale": [1.0, 2.0]}),
        ("verbose has no meaning", {"verbose": 2}),
        ("tr_solver has no meaning", {"tr_solver": "lsmr"}),
        ("bounds must be a pair", {"bounds": [(0, 1), (0, 1), (0, 1)]}),
        ("p0 must be within the bounds", {"bounds": (2.0, 3.0)}),
        ("method must be one of", {"method": "nobody's"}),
        ("jac must return a row", {"jac": lambda x: np.ones((3, 2))}),
        ("one axis", {"fun": lambda x: np.ones((2, 2))}),
    ],
)
def test_bad_input_is_refused(message, given):
    with pytest.raises(ValueError, match=message):
        least_squares(**{"fun": rosenbrock.py_func, "x0": [-1.2, 1.0]} | given)


def test_signature_is_scipys():
    ours, theirs = (list(inspect.signature(f).parameters) for f in (least_squares, scipy.optimize.least_squares))
    assert ours[: len(theirs)] == theirs
