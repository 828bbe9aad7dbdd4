"""One problem on the device, in the simulator; see test_simulator.py."""

from __future__ import annotations

import numpy as np
import pytest
from device_trees import to_host
from numba import cuda

from rmsprop_nb import Status, minimize, schedules


@cuda.jit
def bowl_gradient(x, grad, scale):
    i = cuda.grid(1)
    if i < x.size:
        grad[i] = scale[i] * (x[i] - 1.0)


def bowl(x, grad, scale):
    bowl_gradient[1, 8](x, grad, scale)
    return cuda.to_device(np.array([0.5 * np.sum(to_host(scale) * (to_host(x) - 1.0) ** 2)]))


def host_bowl(x, grad, scale):
    grad[:] = scale * (x - 1.0)
    return 0.5 * np.sum(scale * (x - 1.0) ** 2)


SCALE = np.array([1.0, 2.0, 3.0])
X0 = np.array([3.0, -2.0, 0.5])
SINGLE = {
    "plain": {"learning_rate": 0.01, "maxiter": 40},
    "momentum": {"learning_rate": 0.01, "maxiter": 40, "momentum": 0.5, "centered": True, "eps": 0.1},
    "bias": {"learning_rate": schedules.exponential_decay(0.1, 10, 0.5), "maxiter": 17, "bias_correction": True},
    "gtol": {"learning_rate": 0.05, "gtol": 0.2},
    "f_target": {"learning_rate": 0.05, "f_target": 5.0},
    "maxfev": {"learning_rate": 0.05, "maxfev": 7},
}


@pytest.mark.parametrize("options", SINGLE.values(), ids=SINGLE)
def test_single_run_is_that_of_the_host(options):
    x0 = cuda.to_device(X0)
    expected = minimize(host_bowl, X0, (SCALE,), jac="inplace", options=options)
    found = minimize(bowl, x0, (cuda.to_device(SCALE),), jac="inplace", options={**options, "check_every": 1})
    np.testing.assert_array_equal(to_host(x0), X0)
    np.testing.assert_array_equal(to_host(found.x), expected.x)
    np.testing.assert_array_equal(to_host(found.jac), expected.jac)
    for name in ("fun", "nit", "nfev", "njev", "status", "success", "message"):
        assert found[name] == expected[name], name


def test_host_looks_every_so_many_iterations():
    options = {"learning_rate": 0.05, "gtol": 0.2}
    every = minimize(bowl, cuda.to_device(X0), (cuda.to_device(SCALE),), jac="inplace", options=options)
    each = minimize(host_bowl, X0, (SCALE,), jac="inplace", options=options)
    assert every.success
    assert every.nit == -(-each.nit // 32) * 32


def test_single_run_ends_for_what_the_user_does():
    args, options = (cuda.to_device(SCALE),), {"learning_rate": 0.01, "check_every": 5}
    seen = []

    def callback(x):
        seen.append(to_host(x))
        if len(seen) == 3:
            raise StopIteration

    found = minimize(bowl, cuda.to_device(X0), args, jac="inplace", options=options, callback=callback)
    assert (found.status, found.nit) == (Status.CALLBACK_STOP, 10)
    np.testing.assert_array_equal(seen[0], X0)
    found = minimize(bowl, cuda.to_device(X0), args, jac="inplace", options={**options, "maxtime": 0.0})
    assert found.status == Status.MAXTIME
    nan = cuda.to_device(np.full(3, np.nan))
    assert minimize(bowl, cuda.to_device(X0), (nan,), jac="inplace", options=options).status == Status.NONFINITE

    def raising(x, grad, scale):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        minimize(raising, cuda.to_device(X0), args, jac="inplace", options=options)


@pytest.mark.parametrize(
    ("run", "message"),
    [
        ({"jac": True}, "jac must be 'inplace' with x0 on a device"),
        ({"bounds": [(0, 1)] * 3}, "bounds are not for x0 on a device"),
        ({"options": {}}, "needs method='rmsprop' with a learning_rate that is a number"),
        ({"method": "rmsprop-lbfgs", "options": {}}, "needs method='rmsprop'"),
        ({"options": {"learning_rate": 0.1, "history": True}}, "history is not for x0 on a device"),
        ({"options": {"learning_rate": 0.1, "check_every": 0}}, "check_every"),
        ({"x0": cuda.to_device(np.zeros((2, 2)))}, "x0 must have one dimension"),
        ({"data": SCALE}, "comm, data and weight are not for x0 on a device"),
    ],
    ids=["jac", "bounds", "auto", "lbfgs", "history", "check_every", "shape", "data"],
)
def test_bad_single_runs_are_refused(run, message):
    given = {"x0": cuda.to_device(X0), "jac": "inplace", "options": {"learning_rate": 0.1}, **run}
    with pytest.raises((ValueError, TypeError), match=message):
        minimize(bowl, given.pop("x0"), (cuda.to_device(SCALE),), **given)
