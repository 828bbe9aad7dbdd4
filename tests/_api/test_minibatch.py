"""Mini-batches: what the options do, what is returned, what is refused."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from minibatch_runs import N_ROWS, N, make_data, ridge, ridge_grad, ridge_inplace, run, same
from numba import njit
from objectives import as_python

from rmsprop_nb import Status, load, minimize, minimize_minibatch, schedules
from rmsprop_nb._methods.minibatch import AVERAGING_POWER


def test_order_follows_from_rng():
    first, again = run(rng=5), run(rng=np.random.default_rng(5))
    same(first, again)
    assert not np.array_equal(first.x, run(rng=6).x)
    generator = np.random.default_rng(5)
    run(rng=generator)
    assert not np.array_equal(first.x, run(rng=generator).x)


def test_accumulated_batches_are_one_large_batch():
    kwargs = {"learning_rate": 0.01, "shuffle": False, "averaging": False, "epochs": 3}
    small, large = run(batch_size=10, accumulate=4, **kwargs), run(batch_size=40, **kwargs)
    np.testing.assert_allclose(small.x, large.x, rtol=1e-12)
    assert small.nfev > large.nfev


@pytest.mark.parametrize(
    ("rows", "given", "batch_size", "epochs"),
    [
        (5, {}, 5, 1000),
        (150, {}, 16, 100),
        (1000, {}, 50, 50),
        (3000, {}, 128, 42),
        (150, {"accumulate": 4}, 16, 334),
        (150, {"batch_size": 75}, 75, 500),
        (1000, {"epochs": 2}, 50, 2),
    ],
)
def test_small_data_have_smaller_batches_and_more_epochs(rows, given, batch_size, epochs):
    sizes = []

    def fun(x, A):
        sizes.append(len(A))
        return float(np.mean((x - A) ** 2)), 2.0 * np.mean(x - A, keepdims=True)

    run = {"jac": True, "rng": 0, "final_evaluation": False}
    result = minimize_minibatch(fun, [0.0], np.arange(float(rows)), **run, **given)
    assert (max(sizes), result.nit, sum(sizes)) == (batch_size, epochs, rows * epochs)
    shared = minimize_minibatch(fun, [0.0], np.arange(float(rows)), **run, **given, deterministic=True)
    assert (shared.nit, shared.nfev) == (result.nit, result.nfev)


def test_early_stopping_lets_the_automatic_rate_fall_first():
    rng = np.random.default_rng(0)
    A = rng.normal(size=(3000, 5))
    b = A @ np.arange(5.0) + rng.normal(size=3000)
    lowest = 0.5 * np.mean((A[:2700] @ np.linalg.lstsq(A[:2700], b[:2700])[0] - b[:2700]) ** 2)

    def go(**kwargs):
        run = {"jac": "inplace", "validation": 0.1, "patience": 3, "epochs": 50}
        return minimize_minibatch(ridge_inplace, np.zeros(5), (A, b), (0.0,), **run, **kwargs)

    for seed in range(5):
        result = go(rng=seed)
        assert (result.status, result.success) == (Status.EARLY_STOP, True)
        assert result.nit < 50
        assert lowest <= result.fun < lowest + 1e-3
        assert result.validation_fun[-3:].min() == result.validation_fun.min()
    for epochs in range(result.nit - 5, result.nit):
        part = go(rng=seed, callback=stop_after(epochs))
        assert part.nit == epochs
        same(go(state=part.state), result)


def stop_after(epochs):
    def callback(intermediate_result):
        if intermediate_result.nit == epochs:
            raise StopIteration

    return callback


def test_average_is_the_papers():
    points = []

    def watched(x, grad, A, b, l2):
        points.append(x.copy())
        return ridge_inplace(x, grad, A, b, l2)

    kwargs = {
        "batch_size": 10,
        "epochs": 2,
        "rng": 3,
        "jac": "inplace",
        "learning_rate": 0.01,
        "final_evaluation": False,
    }
    result = minimize_minibatch(watched, np.zeros(N), make_data(), (0.01,), **kwargs)
    average = points[0]
    for k, x in enumerate([*points[1:], result.state.arrays.x], start=1):
        average = average + (AVERAGING_POWER + 1) / (k + AVERAGING_POWER) * (x - average)
    np.testing.assert_allclose(result.x, average, rtol=1e-12)
    last = minimize_minibatch(ridge_inplace, np.zeros(N), make_data(), (0.01,), averaging=False, **kwargs)
    np.testing.assert_array_equal(last.x, result.state.arrays.x)


def test_clipping():
    def steep(x, rows):
        return 0.0, np.array([3e200, -4e200, 0.0])

    kwargs = {"jac": True, "epochs": 1, "learning_rate": 1.0, "averaging": False, "options": {"beta": 0.0, "eps": 1.0}}
    for clip, clipped in (
        ({"clip_norm": 1.0}, [0.6, -0.8, 0.0]),
        ({"clip_value": 0.5}, [0.5, -0.5, 0.0]),
        ({"clip_norm": 1.0, "clip_value": 0.7}, [0.6, -0.7, 0.0]),
    ):
        x = minimize_minibatch(steep, np.zeros(3), np.zeros(1), **clip, **kwargs, final_evaluation=False).x
        g = np.array(clipped)
        np.testing.assert_allclose(x, -g / (np.abs(g) + 1.0), rtol=1e-14)
    unclipped = minimize_minibatch(steep, np.zeros(3), np.zeros(1), **kwargs)
    assert unclipped.status == Status.NONFINITE
    np.testing.assert_array_equal(unclipped.x, 0.0)


def test_result_is_evaluated_on_all_rows():
    result = run(epochs=50)
    A, b = make_data()
    assert result.fun == pytest.approx(ridge(result.x, A, b, 0.01), rel=1e-13)
    np.testing.assert_allclose(result.jac, ridge_grad(result.x, A, b, 0.01), atol=1e-13)
    exact = np.linalg.solve(A.T @ A / N_ROWS + 0.01 * np.eye(N), A.T @ b / N_ROWS)
    np.testing.assert_allclose(result.x, exact, rtol=2e-2)
    without = run(epochs=50, final_evaluation=False)
    assert without.fun == without.epoch_fun[-1]
    assert "jac" not in without


def test_validation_data_are_looked_at_and_not_learnt_from():
    A, b = make_data()
    own = run(data=(A[:80], b[:80]), validation=(A[80:], b[80:]))
    assert own.validation_fun.shape == (5,)
    assert own.validation_fun[-1] == pytest.approx(ridge(own.x, A[80:], b[80:], 0.01), rel=1e-13)
    same(own, run(validation=23 / 103))
    np.testing.assert_array_equal(own.x, run(data=(A[:80], b[:80])).x)


def test_early_stop_returns_the_best_point():
    A, b = make_data()
    seen = []
    result = run(
        data=(A, b), validation=(A, -b), patience=3, epochs=100, learning_rate=0.1,
        callback=lambda intermediate_result: seen.append(intermediate_result),
    )  # fmt: skip
    best = int(np.argmin(result.validation_fun))
    assert (result.status, result.success, result.nit) == (Status.EARLY_STOP, True, best + 4)
    np.testing.assert_array_equal(result.x, seen[best].x)
    assert [entry.validation_fun for entry in seen] == result.validation_fun.tolist()
    assert [entry.fun for entry in seen] == result.epoch_fun.tolist()


def test_callback_may_end_the_run():
    def stop(xk):
        assert xk.shape == (N,)
        xk[:] = np.nan
        raise StopIteration

    result = run(callback=stop)
    assert (result.status, result.nit, result.success) == (Status.CALLBACK_STOP, 1, False)
    assert np.isfinite(result.x).all()


def test_history_of_batches():
    result = run(history=3, learning_rate=schedules.exponential_decay(0.1, 10, 0.5))
    np.testing.assert_array_equal(result.history["nfev"], np.arange(3, result.nfev + 1, 3))
    np.testing.assert_allclose(result.history["learning_rate"], 0.1 * 0.5 ** ((result.history["nfev"] - 1) / 10))
    assert result.history["nit"].max() == 4


def test_maxtime():
    result = run(maxtime=0.0, epochs=10**6)
    assert result.status == Status.MAXTIME
    assert not result.success


# -- going on ---------------------------------------------------------------------------------------------------------


ROWS = np.random.default_rng(0).normal(size=(512, 2)) + 3.0


class SlowerAndSlower:
    """Halve the rate after every epoch, and remember it."""

    def __init__(self):
        self.state = np.array([0.1])

    def __call__(self, _):
        return self.state[0]

    def update(self, _):
        self.state = self.state / 2.0


SCHEDULES = {
    "plateau": lambda: schedules.ReduceOnPlateau(0.1, factor=0.5, patience=0, threshold=0.01),
    "of a user": SlowerAndSlower,
}


@pytest.mark.parametrize("validation", [None, (ROWS[::7] - 0.1,)])
@pytest.mark.parametrize("make", SCHEDULES.values(), ids=SCHEDULES)
def test_schedules_with_memory_go_on_from_states_and_checkpoints(make, validation, tmp_path):
    def go(schedule, **kwargs):
        return minimize_minibatch(
            to_the_mean, np.zeros(2), (ROWS,), jac=True, rng=0, batch_size=32, learning_rate=schedule,
            validation=validation, **kwargs,
        )  # fmt: skip

    whole = go(end := make(), epochs=12)
    first = go(make(), epochs=5, checkpoint=tmp_path / "run.npz")
    for state in (first.state, load(tmp_path / "run.npz")):
        again = go(schedule := make(), epochs=12, state=state)
        np.testing.assert_array_equal(again.x, whole.x)
        np.testing.assert_array_equal(schedule.state, end.state)


def test_a_schedule_whose_state_cannot_be_kept_is_refused():
    schedule = SlowerAndSlower()
    schedule.state = {"rate": 0.1}
    with pytest.raises(TypeError, match=r"learning_rate\.state must be a vector of numbers"):
        minimize_minibatch(to_the_mean, np.zeros(2), (ROWS,), jac=True, rng=0, learning_rate=schedule)
    with pytest.raises(ValueError, match="state must be what a ReduceOnPlateau had"):
        schedules.ReduceOnPlateau(0.1).state = [1.0]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("hit", [1, 2, 3, 4])
def test_a_run_stopped_in_a_validation_goes_on_as_if_it_had_not_been(hit, error, tmp_path):
    def go(hit=0, **kwargs):
        validations = itertools.count(1)

        def loss(x, rows):
            if rows.size == 5 and next(validations) == hit:
                raise error
            d = x[0] - rows
            return float(np.mean(d * d)), np.array([2 * np.mean(d)])

        return minimize_minibatch(
            loss, [0.0], np.linspace(0, 1, 64), jac=True, validation=(np.linspace(0, 2, 5),), patience=2, epochs=6,
            rng=0, batch_size=8, **kwargs,
        )  # fmt: skip

    whole, path = go(), tmp_path / "run.npz"
    try:
        stopped = go(hit, checkpoint=path)
        assert stopped.status == Status.INTERRUPTED
    except RuntimeError:
        pass
    again = go(state=load(path))
    same(again, whole)
    np.testing.assert_array_equal(again.validation_fun, whole.validation_fun)


@pytest.mark.parametrize("rate", ["auto", 0.1])
def test_going_on_with_other_data(rate):
    def go(rows, epochs, batch_size=128, **kwargs):
        run = {"jac": True, "rng": 0, "epochs": epochs, "batch_size": batch_size, "learning_rate": rate}
        return minimize_minibatch(to_the_mean, np.zeros(2), (rows,), **run, **kwargs)

    first = go(ROWS, 3)
    with pytest.raises(ValueError, match=r"512 rows of data then, 200 now .* give state\.for_other_data\(\)"):
        go(ROWS[:200], 9, state=first.state)
    with pytest.raises(ValueError, match="4 batches in an epoch then, 16 now"):
        go(ROWS, 9, state=first.state, batch_size=32)
    state = first.state.for_other_data()
    other = go(ROWS[:200] + 1.0, 60, state=state)
    assert other.nit == 60
    np.testing.assert_allclose(other.x, (ROWS[:200] + 1.0).mean(axis=0), atol=0.05)
    assert first.state.kind != state.kind
    np.testing.assert_array_equal(go(ROWS, 9, state=state).x, go(ROWS, 9, state=first.state).x)


def test_only_states_of_mini_batches_go_on_with_other_data():
    state = minimize(lambda x: x @ x, [1.0], options={"maxiter": 1}).state
    with pytest.raises(ValueError, match=r"begin anew at result\.x"):
        state.for_other_data()
    with pytest.raises(ValueError, match=r"the textbook rule with momentum then, learning_rate='auto' now"):
        run(state=run(learning_rate=0.1, options={"momentum": 0.5}).state)
    with pytest.raises(ValueError, match=r"state is of a run of method='rmsprop' with .* this is one of minimize_mini"):
        run(state=state)


# -- faults -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("python", [False, True])
def test_nan_is_a_status_and_the_last_good_point_is_returned(python):
    A, b = make_data()
    b[70] = np.nan
    result = run(data=(A, b), shuffle=False, python=python, learning_rate=0.1, averaging=False)
    assert (result.status, result.success, result.nfev) == (Status.NONFINITE, False, 8)
    assert np.isfinite(result.x).all()
    assert result.x.any()


def to_the_mean(x, A):
    return float(np.mean((x - A) ** 2)), 2.0 * np.mean(x - A, axis=0)


def least_negative_log(x, A):
    """Have no value where x is negative."""
    with np.errstate(invalid="ignore"):
        return float(np.mean(A * x[0] - np.log(A * x[0]))), np.array([np.mean(A) - 1.0 / x[0]])


@pytest.mark.parametrize("patience", [None, 2])
@pytest.mark.parametrize("batch_size", [32, 512])
def test_steps_to_where_f_is_nan_lead_back_to_the_best_point_with_a_value(batch_size, patience):
    A = np.full(512, 0.5)
    for start, rate in ((3.0, 1.0), (2.6, 1.0), (3.0, lambda step: 0.05 if step < 4 else 50.0)):
        result = minimize_minibatch(
            least_negative_log, [start], (A,), jac=True, rng=0, learning_rate=rate, averaging=False,
            batch_size=batch_size, epochs=60, patience=patience, validation=None if patience is None else (A,),
        )  # fmt: skip
        assert (result.status, result.success) == (Status.NONFINITE, False)
        f, jac = least_negative_log(result.x, A)
        assert result.fun == pytest.approx(f, rel=1e-12)
        np.testing.assert_allclose(result.jac, jac, rtol=1e-9)
        assert f <= least_negative_log([start], A)[0]


@pytest.mark.parametrize("python", [False, True])
def test_exceptions_pass(python):
    @njit
    def fun(x, grad, rows):
        if rows[0] == 3:
            raise ValueError("row three")
        grad[:] = x
        return 0.0

    with pytest.raises(ValueError, match="row three"):
        minimize_minibatch(
            as_python(fun) if python else fun, np.ones(2), np.arange(5), jac="inplace", batch_size=1, rng=0
        )


def test_data_are_not_changed():
    A, b = make_data()
    data = A.copy(), b.copy()
    x0 = np.zeros(N)

    @njit
    def fun(x, grad, A, b, l2):
        f = ridge_inplace(x, grad, A, b, l2)
        A[:] = 0.0
        x[:] = 7.0
        return f

    given = {"batch_size": 10, "epochs": 10, "rng": 3, "final_evaluation": False}
    spoiling = minimize_minibatch(fun, x0, data, (0.01,), jac="inplace", **given)
    np.testing.assert_array_equal(data[0], A)
    np.testing.assert_array_equal(x0, 0.0)
    np.testing.assert_array_equal(spoiling.x, run(epochs=10).x)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"batch_size": 0}, "batch_size must be an integer of at least 1"),
        ({"epochs": 0}, "epochs must be an integer of at least 1"),
        ({"epochs": 1.5}, "epochs must be an integer of at least 1"),
        ({"accumulate": 0}, "accumulate must be"),
        ({"learning_rate": -1.0}, "learning_rate must be"),
        ({"learning_rate": "fast"}, "learning_rate must be"),
        ({"learning_rate": [0.1, 0.2]}, "learning_rate must have the shape"),
        ({"learning_rate": [0.1, 0.2, -1.0, 0.1]}, "learning_rate must have the shape"),
        ({"clip_norm": 0.0}, "clip_norm must be a number in"),
        ({"clip_value": -1.0}, "clip_value must be a number in"),
        ({"validation": 1.5}, "validation must be a number in"),
        ({"validation": 1e-9}, "leaves 103 of 103 rows"),
        ({"validation": (np.zeros((3, 2)), np.zeros(3))}, "validation must be arrays whose rows"),
        ({"validation": (np.zeros((3, 4)),)}, "validation must be arrays whose rows"),
        ({"patience": 2}, "patience=2 needs validation data"),
        ({"patience": 0, "validation": 0.1}, "patience must be"),
        ({"options": {"momentum": 0.9}}, "Unknown option 'momentum'"),
        ({"options": {"gtol": 0.9}, "learning_rate": 0.1}, "Unknown option 'gtol'"),
        ({"options": {"beta": 1.5}}, "beta must be a number in"),
        ({"maxtime": -1}, "maxtime must be"),
        ({"jac": "exact"}, "jac must be"),
        ({"bounds": [(0, 1)]}, "bounds must be 4 pairs"),
        ({"data": (np.zeros((3, 4)), np.zeros(2))}, r"data must be arrays with the same number of rows"),
        ({"data": (np.zeros((0, 4)), np.zeros(0))}, r"data must be arrays with the same number of rows"),
        ({"data": (np.zeros((3, 4)), 1.0)}, r"data must be arrays with the same number of rows"),
        ({"state": "here"}, "state must be the state of an earlier result"),
        ({"callback": 3}, "callback must be callable"),
    ],
)
def test_bad_arguments(kwargs, message):
    def never(*args):
        raise AssertionError

    kwargs = {"data": make_data(), "jac": True, **kwargs}
    with pytest.raises((ValueError, TypeError), match=message):
        minimize_minibatch(never, np.zeros(N), kwargs.pop("data"), **kwargs)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 20}, "resume with the data and arguments"),
        ({"learning_rate": 0.1}, "resume with the data and arguments"),
        ({"data": make_data(n_rows=90)}, "resume with the data and arguments"),
        ({"accumulate": 2}, "state.arrays.g must have shape"),
        ({"bounds": [(0, 1)] * N}, "state.arrays.lower must have shape"),
        ({"dtype": np.float32}, "state.arrays.x must have shape"),
    ],
)
def test_state_of_another_run(change, message):
    first = run(epochs=1)
    with pytest.raises(ValueError, match=message):
        run(state=first.state, **change)


@pytest.mark.parametrize(("counter", "value"), [("batch", 11), ("batch", -1), ("nit", -5), ("step", -1)])
def test_tampered_state(counter, value):
    first = run(epochs=1)
    first.state.record[counter] = value
    with pytest.raises(ValueError, match="is not as the run left it"):
        run(state=first.state)


# -- what users write -------------------------------------------------------------------------------------------------


def test_data_in_the_wrong_place_are_answered_with_the_right_call():
    A, b = make_data()
    with pytest.raises(
        TypeError, match=r"args is an array of 103 rows, .* as one tuple, data=\(X, y\); if it is meant"
    ):
        minimize_minibatch(ridge, np.zeros(N), A, b)
    with pytest.raises(TypeError, match=r"data must be a tuple of arrays, .* give tuple\(data\)"):
        minimize_minibatch(ridge, np.zeros(N), [A, b], (0.01,))
    with pytest.raises(ValueError, match=r"epochs must be at most 100000000, .* maxtime ends a run earlier"):
        run(epochs=10**13)


def test_a_run_of_a_few_steps_says_that_it_was_too_short():
    few, many = run(epochs=2, batch_size=64), run(epochs=20, batch_size=16)
    assert "There were only 4 steps, most of which went into finding the learning rate" in few.message
    assert "steps" not in many.message
    assert "steps" not in run(epochs=2, batch_size=64, learning_rate=0.1).message
