"""An exception of the objective or a callback, at any call, reaches the caller and harms nothing."""

from __future__ import annotations

import numpy as np
import pytest
from numba import njit
from refusals import tried
from sendable import counting_bowl

from rmsprop_nb import Status, minimize, minimize_batch
from rmsprop_nb._drivers.batch_threads import KEPT_EXCEPTIONS

compiled_bowl = njit(counting_bowl)
RUNS = {
    "textbook": {"options": {"learning_rate": 0.01}},
    "auto": {},
    "lbfgs": {"method": "rmsprop-lbfgs", "bounds": [(-3, 3)] * 4},
}


@pytest.mark.parametrize("call", range(1, 21))
@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_exception_at_any_call_reaches_the_caller_and_harms_nothing(run, call):
    x0 = np.array([3.0, -2.0, 0.5, 2.9])
    for fun in (compiled_bowl, counting_bowl):
        before, counts = x0.copy(), np.array([0, call])
        _, refusal = tried(lambda fun=fun, counts=counts: minimize(fun, x0, (counts,), jac="inplace", **run))
        assert refusal == ("on purpose" if counts[0] == call else "")
        assert counts[0] <= call
        np.testing.assert_array_equal(x0, before)
        assert minimize(fun, x0, (np.array([0, 0]),), jac="inplace", **{**run, "tol": 10.0}).success


@pytest.mark.parametrize("call", range(1, 21))
def test_exception_of_a_callback_or_a_batch_at_any_call(call):
    seen = []

    def callback(x):
        seen.append(x)
        if len(seen) == call:
            raise OSError("on purpose")

    nobody = np.array([0, 0])
    with pytest.raises(OSError, match="on purpose"):
        minimize(
            compiled_bowl, np.full(4, 3.0), (nobody,), jac="inplace", callback=callback,
            options={"learning_rate": 0.01, "maxiter": 30},
        )  # fmt: skip
    assert len(seen) == call
    counts = np.zeros((3, 2), np.int64)
    counts[1, 1] = call
    found = minimize_batch(counting_bowl, np.full((3, 2), 3.0), batch_args=(counts,), jac="inplace")
    assert found.success[[0, 2]].all()
    assert found.status[1] in (Status.EXCEPTION, Status.GTOL)
    assert (found.status[1] == Status.EXCEPTION) == (1 in found.exceptions)


@pytest.mark.parametrize("fun", [compiled_bowl, counting_bowl], ids=["threads", "processes"])
def test_exception_at_any_call_on_another_worker(fun):
    """Problem k raises at call k: none of the others notices."""
    counts = np.stack([np.zeros(21, np.int64), np.arange(21)], axis=1)
    run = {"jac": "inplace", "options": {"learning_rate": 0.01, "maxfev": 30}}
    found = minimize_batch(fun, np.full((21, 4), 3.0), batch_args=(counts,), workers=2, **run)
    assert found.status.tolist() == [Status.MAXFEV] + [Status.EXCEPTION] * 20
    assert found.nfev.tolist() == [30, *range(20)]
    # a compiled problem is run again to see what it raised, and this one does not raise again
    kept = range(1, 1 + KEPT_EXCEPTIONS) if fun is counting_bowl else ()
    assert {k: str(error) for k, error in found.exceptions.items()} == dict.fromkeys(kept, "on purpose")
    assert np.isfinite(found.x).all()
    alone = minimize(fun, np.full(4, 3.0), (np.array([0, 0]),), **run)
    np.testing.assert_array_equal(found.x[0], alone.x)
