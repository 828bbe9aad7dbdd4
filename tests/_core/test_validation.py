"""Bad input: a clear error that names argument, rule, value and remedy, before anything is computed."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import Bounds

from rmsprop_nb import RMSprop, minimize, minimize_minibatch, schedules


def never(x):
    pytest.fail("the objective was called")


class Device:
    def __init__(self):
        self.__cuda_array_interface__ = {"shape": (1,), "typestr": "<f8", "data": (0, False), "version": 3}


BAD_STARTS = {
    "empty": ([], ValueError, "at least one element"),
    "matrix": ([[1.0, 2.0]], ValueError, r"one dimension, got shape \(1, 2\); pass x0.ravel"),
    "np_matrix": (np.array([[1.0]]), ValueError, "one dimension"),
    "complex": ([1j], TypeError, "real numbers, got dtype complex128; split"),
    "text": (["a"], TypeError, "real numbers"),
    "none": (None, TypeError, "real numbers, got dtype object"),
    "objects": ([object()], TypeError, "real numbers"),
    "dates": (np.array(["2026-01-01"], "M8[D]"), TypeError, "real numbers"),
    "half": (np.ones(2, np.float16), TypeError, r"float32 or float64, got float16; convert it"),
    "long_double": (np.ones(2, np.longdouble), TypeError, "float32 or float64"),
    "nan": ([1.0, np.nan], ValueError, "finite, got nan at index 1"),
    "inf": ([np.inf], ValueError, "finite, got inf at index 0"),
    "masked": (np.ma.array([1.0, 2.0], mask=[0, 1]), TypeError, "masked array"),
}


@pytest.mark.parametrize(("x0", "error", "message"), BAD_STARTS.values(), ids=BAD_STARTS)
def test_bad_start(x0, error, message):
    if getattr(x0, "dtype", None) == np.longdouble and np.longdouble is np.float64:
        pytest.skip("long double is double here")
    with pytest.raises(error, match=message):
        minimize(never, x0)


def test_mini_batches_start_on_the_host():
    with pytest.raises(TypeError, match="x0 must be a host array, got a CUDA array"):
        minimize_minibatch(never, Device(), np.ones(3))


BAD_OPTIONS = {
    "rate_zero": ({"learning_rate": 0.0}, "learning_rate must be"),
    "rate_negative": ({"learning_rate": -0.1}, r"positive number or a callable step -> rate, got -0.1"),
    "rate_nan": ({"learning_rate": np.nan}, "learning_rate must be"),
    "rate_text": ({"learning_rate": "fast"}, "learning_rate must be 'auto'"),
    "rate_none": ({"learning_rate": None}, "learning_rate must be"),
    "rate_vector": ({"learning_rate": [0.1, 0.2]}, "learning_rate must be"),
    "beta_one": ({"beta": 1.0}, r"beta must be a number in \[0, 1\), got 1.0"),
    "beta_negative": ({"beta": -0.1}, "beta must be"),
    "eps_negative": ({"eps": -1e-8}, "eps must be"),
    "eps_none": ({"eps": None}, "eps must be"),
    "momentum_one": ({"learning_rate": 0.1, "momentum": 1.0}, "momentum must be"),
    "accumulator": ({"learning_rate": 0.1, "initial_accumulator": -1.0}, "initial_accumulator must be"),
    "weight_decay": ({"learning_rate": 0.1, "weight_decay": -1.0}, "weight_decay must be"),
    "nesterov_alone": ({"learning_rate": 0.1, "nesterov": True}, "nesterov=True needs momentum"),
    "momentum_with_auto": ({"momentum": 0.9}, "momentum=0.9 has no meaning with learning_rate='auto'"),
    "centered_with_auto": ({"centered": True}, "centered=True has no meaning"),
    "gtol": ({"gtol": -1.0}, "gtol must be"),
    "gtol_nan": ({"gtol": np.nan}, "gtol must be"),
    "ftol": ({"ftol": -1.0}, "ftol must be"),
    "xtol": ({"xtol": "small"}, "xtol must be"),
    "f_target": ({"f_target": np.nan}, "f_target must be"),
    "maxiter": ({"maxiter": -1}, "maxiter must be an integer of at least 0"),
    "maxiter_fraction": ({"maxiter": 1.5}, "maxiter must be an integer"),
    "maxiter_text": ({"maxiter": "5"}, "maxiter must be an integer"),
    "maxfev": ({"maxfev": 0}, "maxfev must be an integer of at least 1"),
    "maxtime": ({"maxtime": -1.0}, "maxtime must be"),
    "patience": ({"patience": 0}, "patience must be"),
    "rel_step": ({"finite_diff_rel_step": 0.0}, "finite_diff_rel_step must be"),
    "history": ({"history": -1}, "history must be"),
    "history_infinite": ({"history": np.inf}, "history must be True, False or an integer of at least 0, got inf"),
    "history_nan": ({"history": np.nan}, "history must be an integer"),
    "history_fraction": ({"history": 1.5}, "history must be an integer"),
    "history_text": ({"history": "all"}, "history must be an integer"),
    "history_array": ({"history": np.array([1, 2])}, "history must be an integer"),
    "maxiter_array": ({"maxiter": np.array([1, 2])}, r"maxiter must be an integer .*, got array\(\[1, 2\]\)"),
    "maxfev_array": ({"maxfev": np.array([1, 2])}, "maxfev must be an integer"),
    "patience_array": ({"patience": np.array([1, 2])}, "patience must be an integer"),
    "gtol_huge": ({"gtol": 10**400}, "gtol must be a number"),
    "rate_huge": ({"learning_rate": 10**400}, "learning_rate must be"),
    "unknown": ({"lr": 0.1}, "Unknown option 'lr'"),
}


@pytest.mark.parametrize(("options", "message"), BAD_OPTIONS.values(), ids=BAD_OPTIONS)
def test_bad_option(options, message):
    with pytest.raises(ValueError, match=message):
        minimize(never, [1.0], options=options)


BAD_BOUNDS = {
    "too_few": ([(0, 1)], "2 pairs"),
    "not_pairs": ([(0, 1, 2), (0, 1, 2)], "2 pairs"),
    "numbers": ([0.0, 1.0], "2 pairs"),
    "crossed": ([(0, 1), (2, 1)], r"lower <= upper, got \(2.0, 1.0\) at index 1"),
    "nan": ([(np.nan, 1), (0, 1)], "must not be NaN"),
    "infinite": ([(np.inf, np.inf), (0, 1)], r"room for a finite number of float64, got \(inf, inf\) at index 0"),
    "infinite_lower": ([(0, 1), (np.inf, None)], r"got \(inf, inf\) at index 1"),
    "infinite_upper": (Bounds(-np.inf, -np.inf), r"got \(-inf, -inf\) at index 0"),
    "shape": (Bounds([0, 0, 0], [1, 1, 1]), "broadcast"),
}


@pytest.mark.parametrize(("bounds", "message"), BAD_BOUNDS.values(), ids=BAD_BOUNDS)
def test_bad_bounds(bounds, message):
    with pytest.raises(ValueError, match=message):
        minimize(never, [1.0, 1.0], bounds=bounds)


def test_bounds_beyond_all_numbers_of_float32():
    with pytest.raises(ValueError, match=r"room for a finite number of float32, got \(1e\+300, 2e\+300\) at index 0"):
        minimize(never, np.ones(1, np.float32), bounds=[(1e300, 2e300)])


@pytest.mark.parametrize("jac", ["4-point", 3, "auto", np.zeros(2)])
def test_bad_jac(jac):
    with pytest.raises(ValueError, match="jac must be a callable, True, None or one of"):
        minimize(never, [1.0], jac=jac)


def test_bad_method():
    with pytest.raises(ValueError, match="method must be one of 'rmsprop'"):
        minimize(never, [1.0], method="adam")


def test_functions_must_be_callable():
    with pytest.raises(TypeError, match="fun must be callable, got int"):
        minimize(3, [1.0])
    with pytest.raises(TypeError, match="callback must be callable"):
        minimize(never, [1.0], callback=3)


def test_infinite_limits_are_allowed():
    options = {"maxiter": np.inf, "maxfev": np.inf, "maxtime": np.inf, "f_target": -np.inf}
    assert minimize(lambda x: x @ x, [1.0], options=options).success


@pytest.mark.parametrize("bad", [np.nan, -0.1, np.inf])
def test_a_schedule_must_give_finite_rates(bad):
    with pytest.raises(ValueError, match=r"learning_rate\(step\) must be finite and not negative, got .* at step 3"):
        minimize(lambda x: x @ x, [1.0], options={"learning_rate": lambda step: bad if step == 3 else 0.1})


@pytest.mark.parametrize("rate", [np.array([0.125]), [0.125], np.array([[0.125]], np.float32)])
def test_a_schedule_may_give_an_array_of_one_element(rate):
    given = {"jac": lambda x: 2 * x, "options": {"learning_rate": lambda step: rate, "maxiter": 3}}
    expected = minimize(lambda x: x @ x, [3.0], **given | {"options": {"learning_rate": 0.125, "maxiter": 3}})
    assert minimize(lambda x: x @ x, [3.0], **given).x == expected.x
    x = np.ones(2)
    optimizer = RMSprop(lambda step: rate)
    optimizer.step(x, np.ones(2), optimizer.init(x))
    assert (x < 1.0).all()


@pytest.mark.parametrize("jac", [True, "inplace", "2-point", "3-point", "cs"])
@pytest.mark.parametrize("scale", [1e-300, 1e-60, 1e-40, 1e60])
def test_gradients_that_float32_cannot_hold_where_numpy_raises(jac, scale):
    """The user's setting is for the user's arithmetic, and not for what a run does with its results."""

    def fun(x, grad=None):
        with np.errstate(all="ignore"):
            z = x.astype(complex if jac == "cs" else float)
            if grad is not None:
                grad[:] = 2.0 * scale * z
            f = (z @ z) * scale
            return (f, 2.0 * scale * z) if jac is True else f

    with np.errstate(all="raise"):
        minimize(fun, np.ones(2, np.float32), jac=jac, options={"maxfev": 10})


def test_numbers_that_float32_cannot_hold_where_numpy_raises():
    start = np.ones(2, np.float32)
    with np.errstate(all="raise"):
        for options in ({"learning_rate": lambda step: 1e-60}, {"learning_rate": 1e-60}, {"eps": 1e-60}):
            minimize(lambda x: (float(x @ x), 2 * x), start, jac=True, options={"maxiter": 2, **options})
        minimize(lambda x: (1.0, 0 * x), start, jac=True, bounds=[(1e-60, 2)] * 2)
        optimizer = RMSprop(np.full(2, 1e-60))
        optimizer.step(start, np.ones(2, np.float32), optimizer.init(start))
        mean = minimize_minibatch(lambda x, rows: (1e-60, np.full(2, 1e-60)), start, np.ones(3), jac=True, epochs=1)
    assert mean.fun == pytest.approx(1e-60, rel=1e-12, abs=0.0)


STARTS = {
    "big_endian": np.array([3.0, 4.0]).astype(">f8"),
    "strided": np.array([3.0, 0.0, 4.0, 0.0])[::2],
    "reversed": np.array([4.0, 3.0])[::-1],
    "fortran_column": np.asfortranarray([[3.0, 1.0], [4.0, 1.0]])[:, 0],
    "broadcast": np.broadcast_to(3.5, 2),
    "read_only": np.frombuffer(np.array([3.0, 4.0]).tobytes()),
    "integers": np.array([3, 4], np.uint8),
    "booleans": [True, False],
    "subclass": np.array([3.0, 4.0]).view(np.recarray),
}


@pytest.mark.parametrize("x0", STARTS.values(), ids=STARTS)
def test_unusual_starts(x0):
    before = np.array(x0)
    result = minimize(lambda x: (x - 1.0) @ (x - 1.0), x0, jac=lambda x: 2.0 * (x - 1.0))
    assert result.success
    assert type(result.x) is np.ndarray
    assert result.x.dtype == np.float64
    np.testing.assert_array_equal(before, x0)
    assert not np.may_share_memory(result.x, np.asarray(x0))


def test_memory_mapped_start(tmp_path):
    path = tmp_path / "x0.npy"
    np.save(path, np.array([3.0, 4.0], np.float32))
    mapped = np.load(path, mmap_mode="r")
    result = minimize(lambda x: float((x - 1.0) @ (x - 1.0)), mapped, jac=lambda x: 2.0 * (x - 1.0))
    assert result.success
    assert result.x.dtype == np.float32
    np.testing.assert_array_equal(mapped, [3.0, 4.0])


def test_fixed_variable_that_float32_cannot_hold():
    start = np.array([0.5, 0.5], np.float32)
    result = minimize(lambda x: float(x @ x), start, jac=lambda x: 2 * x, bounds=[(0.1, 0.1), (None, None)])
    assert result.success
    np.testing.assert_allclose(result.x, [0.1, 0.0], atol=1e-5)


@pytest.mark.parametrize("rate", [0.125, np.float32(0.125), np.array(0.125), np.float64(0.125)])
def test_a_learning_rate_may_be_any_number(rate):
    results = [
        minimize(lambda x: x @ x, [3.0], jac=lambda x: 2 * x, options={"learning_rate": r, "maxiter": 5})
        for r in (rate, 0.125, 1)
    ]
    assert results[0].x == results[1].x != results[2].x


def test_float32_bounds_are_rounded_into_the_box():
    lower, upper = 0.1, 0.7  # neither is a float32
    seen = []

    def fun(x):
        seen.append(x.astype(np.float64))
        return float(((x - 5.0) ** 2).sum())

    minimize(fun, np.array([0.5], np.float32), bounds=[(lower, upper)])
    assert min(seen) >= lower
    assert max(seen) <= upper


SCHEDULES = {
    "constant": (schedules.constant(0.1), [0.1, 0.1, 0.1]),
    "exponential": (schedules.exponential_decay(0.1, 10, 0.5), [0.1, 0.05, 0.025]),
    "inverse_time": (schedules.inverse_time_decay(0.1, 10), [0.1, 0.05, 0.1 / 3]),
    "cosine": (schedules.cosine_decay(0.1, 10, 0.01), [0.1, 0.01, 0.01]),
}


@pytest.mark.parametrize(("schedule", "rates"), SCHEDULES.values(), ids=SCHEDULES)
def test_schedules(schedule, rates):
    np.testing.assert_allclose([schedule(step) for step in (0, 10, 20)], rates)
    history = minimize(
        lambda x: (x**4).sum(),
        [3.0],
        jac=lambda x: 4 * x**3,
        options={"learning_rate": schedule, "history": True, "maxiter": 21},
    ).history
    np.testing.assert_allclose(history["learning_rate"][1:], [schedule(step) for step in range(21)])


@pytest.mark.parametrize(
    "make",
    [
        lambda: schedules.constant(0.0),
        lambda: schedules.exponential_decay(0.1, 0, 0.5),
        lambda: schedules.inverse_time_decay(0.1, 10, -1.0),
        lambda: schedules.cosine_decay(0.1, 10, 0.2),
    ],
)
def test_bad_schedules(make):
    with pytest.raises(ValueError, match="must be"):
        make()
