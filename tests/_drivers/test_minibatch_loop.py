"""Mini-batches: both drivers give the same numbers, and a resumed run is the same run."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from marks import needs_jit, some
from minibatch_runs import FORMS, N_ROWS, RATES, WAYS, N, make_data, ridge, ridge_grad, ridge_inplace, run, same
from variants import VARIANTS, dtypes_in_turn

from rmsprop_nb import Status, minimize, minimize_minibatch
from rmsprop_nb.testing import reference_rmsprop


@pytest.mark.parametrize(("kwargs", "dtype"), some(dtypes_in_turn(RATES | WAYS), 2))
def test_compiled_is_interpreted_bit_for_bit(kwargs, dtype):
    same(run(dtype=dtype, **kwargs), run(python=True, dtype=dtype, **kwargs))


@pytest.mark.parametrize("form", FORMS)
def test_every_form_has_both_drivers(form):
    compiled = run(form)
    same(compiled, run(form, python=True))
    np.testing.assert_allclose(compiled.x, run().x, rtol=1e-3)


@needs_jit
def test_compiled_objective_is_run_compiled(monkeypatch):
    def refuse(*args):
        raise AssertionError

    monkeypatch.setattr("rmsprop_nb._drivers.minibatch_loop._interpreted", refuse)
    for form in FORMS:
        run(form)
    with pytest.raises(AssertionError):
        run(python=True)


@pytest.mark.parametrize("name", VARIANTS)
def test_textbook_rule_is_the_reference(name):
    A, b = make_data()
    gradients, points = [], []

    def watched(x, A, b, l2):
        points.append(x)
        gradients.append(ridge_grad(x, A, b, l2))
        return ridge(x, A, b, l2), gradients[-1]

    minimize_minibatch(
        watched, np.zeros(N), (A, b), (0.01,), jac=True, batch_size=10, epochs=2, learning_rate=0.01,
        options=VARIANTS[name], rng=0, final_evaluation=False,
    )  # fmt: skip
    path = list(reference_rmsprop(np.zeros(N), gradients, 0.01, **VARIANTS[name]))
    np.testing.assert_allclose(points[1:], path[:-1], rtol=1e-12, atol=1e-14)


def test_whole_data_as_one_batch_is_minimize():
    x0, data, options = np.ones(N), make_data(), {"momentum": 0.5}
    result = minimize_minibatch(
        ridge, x0, data, (0.01,), jac=ridge_grad, batch_size=N_ROWS, epochs=20, learning_rate=0.01, shuffle=False,
        averaging=False, options=options,
    )  # fmt: skip
    expected = minimize(
        ridge, x0, (*data, 0.01), jac=ridge_grad, options={"learning_rate": 0.01, "maxiter": 20, "gtol": 0, **options}
    )
    np.testing.assert_array_equal(result.x, expected.state.arrays.x)
    assert result.fun == pytest.approx(expected.fun, rel=1e-14)


@pytest.mark.parametrize("chunk", [1, 3, 7])
@pytest.mark.parametrize("python", [False, True])
@pytest.mark.parametrize("kwargs", [{}, RATES["schedule"], WAYS["accumulate"]], ids=["auto", "schedule", "accumulate"])
def test_interrupted_run_goes_on_bit_for_bit(kwargs, python, chunk):
    stops = iter(range(chunk, 10**6, chunk))
    stop = next(stops)
    whole = run(python=python, **kwargs)

    class StopHere(Exception):
        pass

    count = 0

    def fun(x, grad, A, b, l2):
        nonlocal count
        count += 1
        if count > stop:
            raise KeyboardInterrupt
        return ridge_inplace(x, grad, A, b, l2)

    state, result = None, None
    while result is None or result.status == Status.INTERRUPTED:
        count = 0
        result = minimize_minibatch(
            fun, np.zeros(N), make_data(), (0.01,), jac="inplace", batch_size=10, epochs=5, rng=3, state=state,
            final_evaluation=False, **kwargs,
        )  # fmt: skip
        state = result.state
    np.testing.assert_array_equal(result.x, whole.x)
    np.testing.assert_array_equal(result.epoch_fun, whole.epoch_fun)


def test_more_epochs_for_a_finished_run():
    kwargs = {"learning_rate": 0.01}
    first = run(epochs=2, **kwargs)
    same(run(epochs=5, **kwargs), run(epochs=5, state=first.state, **kwargs))
    done = run(epochs=2, state=first.state, **kwargs)
    assert done.nit == 2
    np.testing.assert_array_equal(done.x, first.x)


def nelbo(v, draws, t, y):
    """Return the negative evidence bound of a straight line with unknown noise, and its heavy-tailed gradient."""
    mean, log_scale = v[:3], v[3:]
    scale = np.exp(log_scale)
    a, b, log_noise = (mean + scale * draws).T
    r = y - a[:, None] - b[:, None] * t
    with np.errstate(over="ignore"):
        q = np.exp(2.0 * log_noise)
        f = (r**2).sum(1) / (2.0 * q) + 7.0 * log_noise + (a**2 + b**2) / 2e4 - log_noise + np.log(1.0 + q / 25.0)
        g = np.c_[
            a / 1e4 - r.sum(1) / q,
            b / 1e4 - (r * t).sum(1) / q,
            6.0 - (r**2).sum(1) / q + 2.0 * q / 25.0 / (1.0 + q / 25.0),
        ]
        return f.mean() - log_scale.sum(), np.r_[g.mean(0), (g * draws).mean(0) * scale - 1.0]


@pytest.mark.parametrize("seed", some(range(4), 4))
@pytest.mark.parametrize(("rows", "batch_size", "epochs"), [(10_000, 10, 5), (20_000, 10, 3), (5_000, 5, 3)])
def test_automatic_rate_bears_heavy_tails(rows, batch_size, epochs, seed):
    t, y = np.array([1.1, 2.9, 3.3, 4.7, 5.8, 6.0, 6.4]), np.array([79.0, 58, 67, 37, 46, 33, 30])
    draws = np.random.default_rng(3).normal(size=(rows, 3))
    kwargs = {"jac": True, "rng": seed, "batch_size": batch_size, "epochs": epochs}
    result = minimize_minibatch(nelbo, np.zeros(6), (draws,), (t, y), **kwargs)
    assert result.success
    assert result.fun < 18.6  # the lowest value is 18.3


def test_a_run_that_ends_higher_than_it_was_is_no_success():
    calls = itertools.count()

    def rises(x, rows):
        higher = 100.0 if next(calls) > 40 else 0.0
        return float(x @ x) + higher, 2.0 * x

    result = minimize_minibatch(rises, np.ones(2), np.ones(80), jac=True, batch_size=8, epochs=8, rng=0)
    assert not result.success
    assert result.status == Status.STALLED
    assert "automatic learning rate" in result.message
