"""Callbacks, schedules and summaries of runs on a device; see test_simulator.py."""

from __future__ import annotations

import numpy as np
import pytest
from numba import cuda
from scipy.optimize import OptimizeResult

from rmsprop_nb import Status, minimize

X0 = np.array([3.0, -2.0, 0.5])


@cuda.jit
def bowl_gradient(x, grad):
    i = cuda.grid(1)
    if i < x.size:
        grad[i] = x[i] - 1.0


def bowl(x, grad):
    bowl_gradient[1, 8](x, grad)
    return 0.5 * float(np.sum((x.copy_to_host() - 1.0) ** 2))


def host_bowl(x, grad):
    grad[:] = x - 1.0
    return 0.5 * float(np.sum((x - 1.0) ** 2))


def run(callback=None, **options):
    options = {"learning_rate": 0.05, "maxiter": 10, "check_every": 5, **options}
    return minimize(bowl, cuda.to_device(X0), jac="inplace", callback=callback, options=options)


def test_intermediate_result_has_x_on_the_device_and_fun():
    seen = []

    def callback(intermediate_result):
        assert isinstance(intermediate_result, OptimizeResult)
        x = intermediate_result.x.copy_to_host()
        assert intermediate_result.fun == 0.5 * np.sum((x - 1.0) ** 2)
        seen.append(x)

    result = run(callback)
    assert len(seen) == 3  # at 0, 5 and 10
    np.testing.assert_array_equal(seen[0], X0)
    np.testing.assert_array_equal(seen[-1], result.x.copy_to_host())


@pytest.mark.parametrize("form", ["xk", "intermediate_result"])
def test_callback_may_stop_the_run_and_is_given_a_copy(form):
    expected = run(maxiter=0)

    def by_x(xk):
        xk.copy_to_device(np.full(3, np.nan))
        raise StopIteration

    def by_result(intermediate_result):
        by_x(intermediate_result.x)

    result = run(by_x if form == "xk" else by_result)
    assert (result.status, result.nit) == (Status.CALLBACK_STOP, 0)
    np.testing.assert_array_equal(result.x.copy_to_host(), expected.x.copy_to_host())


def test_callback_must_be_callable():
    with pytest.raises(TypeError, match="callback must be callable or None, got int"):
        run(3)


@pytest.mark.parametrize("bad", [np.nan, -0.1, None])
def test_schedule_must_give_valid_rates(bad):
    with pytest.raises(ValueError, match=r"learning_rate\(step\) must be finite and not negative, got .* at step 3"):
        run(learning_rate=lambda step: bad if step == 3 else 0.1)


@pytest.mark.parametrize("chosen", [{"maxiter": 10}, {"gtol": 0.2, "maxiter": 1000}], ids=["best", "gtol"])
def test_summary_is_that_of_the_host(chosen, capsys):
    run(**chosen)
    assert capsys.readouterr().out == ""
    run(disp=True, check_every=1, **chosen)
    found = capsys.readouterr().out
    minimize(host_bowl, X0, jac="inplace", options={"learning_rate": 0.05, "disp": True, **chosen})
    assert found == capsys.readouterr().out
