"""A callback is called in the same way, and a schedule asked in the same way, by every kind of run."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import OptimizeResult

from rmsprop_nb import minimize, minimize_batch, minimize_minibatch
from rmsprop_nb._core.callbacks import as_report, asks_to_stop, make_observer
from rmsprop_nb._core.rates import scheduled_rate, scheduled_rates


def bowl(x):
    return x @ x, 2.0 * x


def bowl_of_rows(x, rows):
    return bowl(x)


def seen_by(signature):
    """A callback with a parameter of that name, and the list of what it is given."""
    seen = []
    if signature == "intermediate_result":
        return seen, lambda intermediate_result: seen.append(intermediate_result)
    return seen, lambda xk: seen.append(xk)


RUNS = {
    "minimize": lambda callback: minimize(bowl, [3.0, 4.0], jac=True, callback=callback),
    "textbook": lambda callback: minimize(
        bowl, [3.0, 4.0], jac=True, callback=callback, options={"learning_rate": 0.1, "maxiter": 3}
    ),
    "minibatch": lambda callback: minimize_minibatch(
        bowl_of_rows, [3.0, 4.0], np.arange(5.0), jac=True, epochs=3, callback=callback
    ),
}


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_every_run_gives_an_intermediate_result_by_name_and_x_otherwise(run):
    points, by_x = seen_by("xk")
    results, by_result = seen_by("intermediate_result")
    run(by_x)
    run(by_result)
    assert len(points) == len(results) > 0
    for x, result in zip(points, results, strict=True):
        assert isinstance(result, OptimizeResult)
        assert isinstance(result.fun, float)
        np.testing.assert_array_equal(result.x, x)


def test_more_fields_are_in_the_intermediate_result():
    results, by_result = seen_by("intermediate_result")
    as_report(by_result)(np.ones(1), 2.0, nit=3)
    assert (results[0].fun, results[0].nit) == (2.0, 3)
    points, by_x = seen_by("xk")
    as_report(by_x)(1.5, 2.0, nit=3)
    assert points == [1.5]


def test_function_that_does_not_tell_its_parameters_is_given_x():
    points = []
    as_report(points.append)(np.ones(1), 2.0)
    as_report(max)([3.0, 4.0], 2.0)  # whose signature inspect does not know
    assert len(points) == 1


def test_observer_keeps_copies_and_says_when_to_stop():
    def stop(xk):
        xk[:] = np.nan
        raise StopIteration

    iterates = []
    observe = make_observer(stop, iterates)
    assert observe(np.ones(2), 0.0) is True
    np.testing.assert_array_equal(iterates, [[1.0, 1.0]])
    assert make_observer(None, iterates)(np.ones(2), 0.0) is False
    assert make_observer(None) is None
    assert asks_to_stop(None, np.ones(2), 0.0) is False


def test_stop_iteration_of_the_objective_on_validation_data_is_an_error():
    def fun(x, rows):
        if rows[0] < 0.0:
            raise StopIteration
        return bowl(x)

    with pytest.raises(StopIteration):
        minimize_minibatch(fun, [1.0], np.arange(4.0), jac=True, validation=np.array([-1.0]))


SCHEDULES = {
    "nan": (lambda step: np.nan, "got nan at step"),
    "negative": (lambda step: -0.1, "got -0.1 at step"),
    "none": (lambda step: None, "got None at step"),
    "text": (lambda step: "fast", "got 'fast' at step"),
    "vector": (lambda step: np.ones(2), r"got array\(\[1., 1.\]\) at step"),
}


@pytest.mark.parametrize(("schedule", "message"), SCHEDULES.values(), ids=SCHEDULES)
def test_every_run_checks_what_a_schedule_returns(schedule, message):
    for run in (
        lambda: minimize(bowl, [3.0], jac=True, options={"learning_rate": schedule}),
        lambda: minimize_batch(bowl, [[3.0]], jac=True, options={"learning_rate": schedule, "maxiter": 2}).exceptions,
        lambda: minimize_minibatch(bowl_of_rows, [3.0], np.arange(5.0), jac=True, learning_rate=schedule),
        lambda: scheduled_rate(schedule, 0),
        lambda: scheduled_rates(schedule, 7, 2, np.float32),
    ):
        with pytest.raises(ValueError, match=rf"learning_rate\(step\) must be finite and not negative, {message}"):
            run()


def test_the_first_invalid_rate_is_named():
    with pytest.raises(ValueError, match="got -1 at step 9"):
        scheduled_rates({7: 0.1, 8: 0, 9: -1, 10: None}.get, 7, 4, np.float64)
    with pytest.raises(ValueError, match="got None at step 10"):
        scheduled_rates({7: 0.1, 8: 0, 9: 1, 10: None}.get, 7, 4, np.float64)


@pytest.mark.parametrize("rate", [0.125, np.float32(0.125), np.array(0.125), 1, True])
def test_a_rate_may_be_any_number(rate):
    assert scheduled_rate(lambda step: rate, 0) == float(rate)
    rates = scheduled_rates(lambda step: rate, 0, 3, np.float32)
    assert rates.dtype == np.float32
    assert (rates == float(rate)).all()
