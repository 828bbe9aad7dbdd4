"""Limits, values that are not finite, and other reasons to end a run."""

from __future__ import annotations

import numpy as np
import pytest
from driven_runs import run
from numba import njit
from objectives import ARGS, X0, as_python, fun, jac
from scipy.optimize import rosen, rosen_der

from rmsprop_nb import Status, minimize


@pytest.mark.parametrize("python", [False, True])
def test_limits(python):
    assert run(python=python, maxiter=0).status == Status.MAXITER
    assert run(python=python, maxiter=0).nfev == 1
    result = run(python=python, maxfev=5)
    assert (result.status, result.nfev, result.success) == (Status.MAXFEV, 5, False)
    result = run(python=python, maxiter=4)
    assert (result.status, result.nit) == (Status.MAXITER, 4)
    result = run(python=python, f_target=0.5)
    assert (result.status, result.success) == (Status.F_TARGET, True)
    assert result.fun <= 0.5
    result = run(python=python, ftol=1e-2)
    assert (result.status, result.success) == (Status.FTOL, True)
    result = run(python=python, xtol=1e-2)
    assert (result.status, result.success) == (Status.XTOL, True)
    result = run(python=python, learning_rate=0.3, patience=20, maxiter=10**5)
    assert (result.status, result.success) == (Status.STALLED, False)


@pytest.mark.parametrize("python", [False, True])
def test_maxtime(python):
    result = run(python=python, learning_rate=0.05, maxiter=10**12, gtol=0.0, maxtime=0.2)  # without, it lasts for days
    assert result.status == Status.MAXTIME


def test_best_point_is_returned():
    values = []

    def recording(x, *args):
        values.append(fun(x, *args))
        return values[-1]

    for options in ({"learning_rate": 0.2}, {"learning_rate": 1.0, "momentum": 0.9}, {"maxfev": 9}):
        values.clear()
        result = minimize(recording, X0, ARGS, jac=jac, options={"maxiter": 50, "gtol": 0.0, **options})
        assert result.fun == min(values) == fun(result.x, *ARGS)
        np.testing.assert_array_equal(result.jac, jac(result.x, *ARGS))


@njit
def bad_at_a_call(x, grad, counter, call, bad):
    counter[0] += 1
    for i in range(x.size):
        grad[i] = x[i]
    return bad if counter[0] == call else 0.5 * (x[0] * x[0] + x[1] * x[1])


@pytest.mark.parametrize("call", [1, 2, 3, 7])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("python", [False, True])
def test_textbook_stops_at_a_value_that_is_not_finite(call, bad, python):
    function = as_python(bad_at_a_call) if python else bad_at_a_call
    result = minimize(function, [3.0, 4.0], (np.zeros(1), call, bad), jac="inplace", options={"learning_rate": 0.1})
    assert (result.status, result.success, result.nfev) == (Status.NONFINITE, False, call)
    assert np.isfinite(result.x).all()
    assert result.fun == 0.5 * np.sum(result.x**2) if call > 1 else not np.isfinite(result.fun)


def test_auto_treats_values_that_are_not_finite_as_a_wall():
    def log_barrier(x):
        return (x[0] - np.log(x[0]), np.array([1.0 - 1.0 / x[0]])) if x[0] > 0 else (np.nan, np.array([np.nan]))

    result = minimize(log_barrier, [20.0], jac=True)
    assert result.success
    assert result.x == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("options", [{}, {"learning_rate": 0.1}], ids=["auto", "textbook"])
@pytest.mark.parametrize(("dtype", "huge"), [(np.float64, 1e160), (np.float32, 1e25)])
def test_gradient_too_large_to_square_is_no_convergence(options, dtype, huge):
    method, options = options.get("method", "rmsprop"), {k: v for k, v in options.items() if k != "method"}
    result = minimize(lambda x: (x.sum(), np.full(2, huge)), np.ones(2, dtype), (), method, True, options=options)
    assert (result.status, result.success) == (Status.NONFINITE, False)


def test_unbounded_below():
    result = minimize(lambda x: -(x**2).sum(), [1.0, 2.0], jac=lambda x: -2 * x)
    assert (result.status, result.success) == (Status.UNBOUNDED, False)


def test_noise_is_a_loss_of_precision_and_no_success():
    rng = np.random.default_rng(6)
    result = minimize(lambda x: (x @ x + 0.1 * rng.normal(), 2 * x + rng.normal(size=2)), [3.0, 1.0], jac=True)
    assert result.status in (Status.PRECISION_LOSS, Status.MAXITER)
    assert not result.success


def test_gradient_that_is_never_filled_is_seen():
    def forgetful(x, grad):
        grad[0] = x[0]
        return 0.5 * x @ x

    for function in (forgetful, njit(forgetful)):
        assert minimize(function, [1.0, 1.0], jac="inplace").status == Status.NONFINITE


@pytest.mark.parametrize("method", ["rmsprop", "rmsprop-lbfgs"])
def test_last_evaluation_allowed_may_still_tell_why_the_run_ends(method):
    @njit
    def rough(x, grad):
        grad[:] = 4.0 * (x - 1.0) ** 3 + 1e-7  # disagrees with f where f is flat
        return 1e6 + np.sum((x - 1.0) ** 4)

    free = minimize(rough, [3.0, 4.0], (), method, "inplace", options={"gtol": 0.0})
    assert free.status == Status.PRECISION_LOSS
    limited = minimize(rough, [3.0, 4.0], (), method, "inplace", options={"gtol": 0.0, "maxfev": free.nfev})
    assert (limited.status, limited.nfev) == (Status.PRECISION_LOSS, free.nfev)


@pytest.mark.parametrize("method", ["rmsprop", "rmsprop-lbfgs"])
def test_patience_counts_iterations_without_a_lower_value(method):
    """Every iteration here lowers f, so that even one of patience is enough."""
    found = minimize(rosen, [-1.2, 1.0], jac=rosen_der, method=method, options={"patience": 1})
    assert found.status == Status.GTOL
    plain = minimize(rosen, [-1.2, 1.0], jac=rosen_der, method=method)
    assert (found.nit, found.fun) == (plain.nit, plain.fun)


@pytest.mark.parametrize(
    "options",
    [
        {"disp": np.ones(2)},
        {"return_all": "no"},
        {"nesterov": np.array([True, False]), "momentum": 0.9, "learning_rate": 0.1},
        {"parallel": [], "learning_rate": 0.1},
    ],
)
def test_switch_is_on_or_off(options):
    with pytest.raises(ValueError, match="must be True or False, got"):
        minimize(rosen, [-1.2, 1.0], jac=rosen_der, options=options)
