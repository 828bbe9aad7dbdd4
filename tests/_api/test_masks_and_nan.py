"""What would be lost or believed silently: masks of arrays, and NaN at the end of a run that went well."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from rmsprop_nb import Status, fit, minimize, minimize_batch, minimize_minibatch, multistart

MASKED = np.ma.MaskedArray([1.0, 2.0, 3.0, 1e9], [0, 0, 0, 1])
LIMITS = np.ma.MaskedArray([0.0, 1.0], [0, 1])


T = np.arange(4.0)


def never(*_):
    raise AssertionError


def never_a_model(t, a, b):
    raise AssertionError


REFUSED = {
    "x0": lambda: minimize(never, MASKED),
    "bounds.ub": lambda: minimize(never, np.zeros(2), bounds=SimpleNamespace(lb=0.0, ub=LIMITS)),
    "bounds": lambda: minimize(never, np.zeros(2), bounds=np.ma.stack([LIMITS, LIMITS])),
    "data": lambda: minimize(never, [0.0], data=MASKED),
    "data of minibatches": lambda: minimize_minibatch(never, [0.0], (np.ones(4), MASKED), jac=True),
    "validation": lambda: minimize_minibatch(never, [0.0], np.ones(4), validation=(MASKED,), jac=True),
    "X0": lambda: minimize_batch(never, MASKED.reshape(2, 2)),
    "batch_args[1]": lambda: minimize_batch(never, np.zeros((4, 1)), batch_args=(np.ones(4), MASKED)),
    "bounds (upper)": lambda: minimize_batch(never, np.zeros((4, 1)), bounds=(np.zeros((4, 1)), MASKED.reshape(4, 1))),
    "x_scale": lambda: minimize(never, np.zeros(2), options={"x_scale": LIMITS}),
    "finite_diff_rel_step": lambda: minimize(never, np.zeros(2), options={"finite_diff_rel_step": LIMITS}),
    "bounds of fits": lambda: fit(never_a_model, T, T, np.ones(2), bounds=(LIMITS, np.inf)),
    "bounds of starts": lambda: multistart(never, np.ma.stack([LIMITS, LIMITS]), 4),
}


@pytest.mark.parametrize(("name", "run"), REFUSED.items(), ids=REFUSED)
def test_masks_are_refused_before_anything_is_run(name, run):
    with pytest.raises(TypeError) as caught:
        run()
    assert str(caught.value).startswith(name.split(" of ")[0])
    assert "must not be a masked array, because the mask would be lost; " in str(caught.value)


def test_python_functions_may_take_masked_args():
    found = minimize(lambda x, rows: float(np.mean((x[0] - rows) ** 2)), [0.0], (MASKED,))
    np.testing.assert_allclose(found.x, [2.0], atol=1e-5)


def loss(x, rows):
    d = x[0] - rows
    return float(np.mean(d * d)), np.array([2.0 * np.mean(d)])


@pytest.mark.parametrize("patience", [None, 2])
def test_nan_on_the_validation_data_is_no_success(patience):
    run = {"jac": True, "patience": patience, "epochs": 6, "rng": 0}
    rows = np.linspace(0.0, 1.0, 64)
    found = minimize_minibatch(loss, [0.0], rows, validation=(np.full(5, np.nan),), **run)
    assert not found.success
    assert found.status == Status.NONFINITE
    assert "validation" in found.message
    assert minimize_minibatch(loss, [0.0], rows, validation=(np.full(5, 0.5),), **run).success


def test_nan_in_the_last_gradient_is_no_success():
    def kinked(x, rows):
        return (0.0, np.array([np.nan])) if x[0] == 0.0 else (float(x[0]), np.array([1.0]))

    run = {"jac": True, "bounds": [(0.0, 1.0)], "learning_rate": 5.0, "averaging": False, "batch_size": 64}
    found = minimize_minibatch(kinked, [1.0], np.ones(64), epochs=1, **run)
    assert not found.success
    assert found.status == Status.NONFINITE
    assert (found.x, found.fun, found.jac) == (1.0, 1.0, 1.0)
