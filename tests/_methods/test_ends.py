"""Numbers that run out: every run ends, with the status that is defined for it."""

from __future__ import annotations

import numpy as np
import pytest
from numba import njit

from rmsprop_nb import Status, minimize
from rmsprop_nb._numba.decorators import JIT_ENABLED

ENDS = {
    "constant": (lambda x: (5.0, 0.0 * x), {}, Status.GTOL),
    "linear": (lambda x: (float(-x.sum()), -np.ones_like(x)), {}, Status.UNBOUNDED),
    "NaN at the start": (lambda x: (np.nan, x), {}, Status.NONFINITE),
    "infinite at the start": (lambda x: (np.inf, x), {}, Status.NONFINITE),
    "too steep": (lambda x: (1e300, np.full_like(x, 1e200)), {}, Status.NONFINITE),
    "underflow of the square": (
        lambda x: (float(1e-170 * x.sum()), np.full_like(x, 1e-170)),
        {"gtol": 1e-5},
        Status.GTOL,
    ),
    "eps 0": (lambda x: (float(x @ x), 2.0 * x), {"learning_rate": 0.5, "eps": 0.0, "maxiter": 9}, Status.MAXITER),
    "beta 0": (lambda x: (float(x @ x), 2.0 * x), {"learning_rate": 0.5, "beta": 0.0, "maxiter": 9}, Status.MAXITER),
    "beta near 1": (
        lambda x: (float(x @ x), 2.0 * x),
        {"learning_rate": 1e-9, "beta": 1.0 - 1e-16, "maxiter": 9},
        Status.MAXITER,
    ),
}


@pytest.mark.parametrize(("fun", "options", "status"), ENDS.values(), ids=ENDS)
def test_ends_that_are_defined(fun, options, status):
    with np.errstate(all="ignore"):
        found = minimize(fun, [1.0, 2.0], jac=True, options=options)
    assert found.status == status
    assert np.isfinite(found.x).all()


def test_a_step_has_discontinuities_for_breakfast():
    found = minimize(lambda x: (float(np.floor(abs(x[0]))), np.sign(x)), [9.5], jac=True, options={"maxfev": 500})
    assert found.status in (Status.PRECISION_LOSS, Status.MAXFEV, Status.GTOL)
    assert found.fun <= 9.0


@pytest.mark.slow
@pytest.mark.skipif(not JIT_ENABLED, reason="takes long in Python")
def test_ten_million_iterations():
    @njit
    def valley(x, grad):
        grad[0] = x[0]
        return 0.5 * x[0] * x[0]

    options = {"learning_rate": 1e-9, "maxiter": 10**7, "gtol": 0.0}
    found = minimize(valley, [1.0], jac="inplace", options=options)
    assert (found.nit, found.nfev, found.status) == (10**7, 10**7 + 1, Status.MAXITER)
    assert found.x[0] == pytest.approx(1.0 - 1e-2, abs=1e-4)


def quartic(x):
    return (x**4 + np.exp(x)).sum(), 4.0 * x**3 + np.exp(x)


def valley(x):
    """Rosenbrock's function."""
    a, b = x[1] - x[0] ** 2, 1.0 - x[0]
    return 100.0 * a * a + b * b, np.array([-400.0 * x[0] * a - 2.0 * b, 200.0 * a])


def steep(x):
    """Right, but so steep that the first steps are far too long."""
    return 1e8 * ((x - 1.0) @ (x - 1.0)), 2e8 * (x - 1.0)


@pytest.mark.parametrize("method", ["rmsprop", "rmsprop-lbfgs"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("fun", [lambda x: (x @ x, 2.0 * x), quartic, valley, steep])
def test_gradient_of_the_wrong_sign_is_said_at_once(fun, dtype, method):
    x0 = np.array([1.5, -0.5], dtype)
    wrong = minimize(lambda x: (fun(x)[0], -fun(x)[1]), x0, jac=True, method=method)
    assert wrong.status == Status.WRONG_GRADIENT
    assert wrong.nfev <= 20
    np.testing.assert_array_equal(wrong.x, x0)
    assert minimize(fun, x0, jac=True, method=method).success


def test_gradient_of_another_size_is_no_wrong_one():
    for factor in (0.01, 100.0):
        found = minimize(lambda x, c=factor: (x @ x, c * x), [1.5, -0.5], jac=True)
        assert found.success
        np.testing.assert_allclose(found.x, 0.0, atol=1e-3)
