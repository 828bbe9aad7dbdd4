"""Many problems at once: the same bits as one at a time, and no problem disturbs another."""

from __future__ import annotations

import numpy as np
import pytest
from marks import needs_jit
from numba import njit
from objectives import ARGS, FORMS, as_python, decay
from scipy.optimize import curve_fit

from rmsprop_nb import Status, load, minimize, minimize_batch, multistart, save, schedules
from rmsprop_nb._numba.decorators import JIT_ENABLED

RNG = np.random.default_rng(11)
STARTS = RNG.normal(size=(23, 3))
T = np.linspace(0.0, 4.0, 20)


def decays(count):
    p = np.column_stack([RNG.uniform(1, 3, count), RNG.uniform(0.5, 2, count), RNG.uniform(-0.5, 0.5, count)])
    y = p[:, :1] * np.exp(-p[:, 1:2] * T) + p[:, 2:] + 0.01 * RNG.normal(size=(count, T.size))
    return y, RNG.uniform(0.5, 2.0, count)


def assert_one_by_one(batch, singles):
    for k, single in enumerate(singles):
        np.testing.assert_array_equal(batch.x[k], single.x)
        np.testing.assert_array_equal(batch.jac[k], single.jac)
        for name in ("fun", "nit", "nfev", "njev", "status", "success"):
            assert batch[name][k] == single[name], name
        assert single.message.startswith(batch.message[k])  # and advice, if the run was long


METHODS = {
    "rmsprop": ("rmsprop", {}),
    "textbook": ("rmsprop", {"learning_rate": 0.01, "momentum": 0.5, "centered": True, "maxiter": 60}),
    "accumulator": ("rmsprop", {"learning_rate": 0.01, "initial_accumulator": 1.0, "maxiter": 60}),
    "rmsprop-lbfgs": ("rmsprop-lbfgs", {}),
}


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize(("method", "options"), METHODS.values(), ids=METHODS)
@pytest.mark.parametrize("bounds", [None, [(0.5, 1.5), (None, 2.0), (-1.0, None)]], ids=["free", "bounded"])
def test_bits_are_those_of_one_at_a_time(method, options, bounds, workers):
    if method == "rmsprop-lbfgs" and not JIT_ENABLED:
        pytest.skip("NumPy's dot products, which compiled code does not use, depend on how rows are aligned")
    y, weight = decays(23)
    batch = minimize_batch(
        decay, STARTS, (T,), batch_args=(weight, y), jac="inplace", method=method, bounds=bounds, options=options,
        workers=workers,
    )  # fmt: skip
    singles = [
        minimize(decay, STARTS[k], (T, weight[k], y[k]), method, "inplace", bounds, options=options) for k in range(23)
    ]
    assert_one_by_one(batch, singles)
    assert batch.best == np.argmin(batch.fun)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("python", [False, True])
def test_every_form(form, python):
    fun, jac = FORMS[form]
    if python:
        fun, jac = as_python(fun), as_python(jac)
    batch = minimize_batch(fun, STARTS[:5], ARGS, jac=jac)
    assert_one_by_one(batch, [minimize(fun, x0, ARGS, jac=jac) for x0 in STARTS[:5]])


@needs_jit
def test_a_hundred_thousand_decay_curves():
    y, _ = decays(100_000)
    starts = np.tile([1.0, 1.0, 0.0], (len(y), 1))
    result = minimize_batch(decay, starts, (T,), batch_args=(np.ones(len(y)), y), jac="inplace", workers=2)
    assert result.success.all()
    assert len(repr(result).splitlines()) == 3
    for k in range(0, len(y), 10_000):
        best, _ = curve_fit(lambda t, a, b, c: a * np.exp(-b * t) + c, T, y[k], p0=starts[k])
        np.testing.assert_allclose(result.x[k], best, atol=1e-4)


ROWS = {
    "float64": RNG.normal(size=(6, 3)),
    "float32": RNG.normal(size=(6, 3)).astype(np.float32),
    "fortran": np.asfortranarray(RNG.normal(size=(6, 3))),
    "strided": RNG.normal(size=(12, 6))[::2, ::2],
    "reversed": RNG.normal(size=(6, 3))[::-1],
    "read_only": np.broadcast_to(RNG.normal(size=3), (6, 3)),
    "int8": RNG.integers(-5, 5, (6, 3)).astype(np.int8),
    "matrices": RNG.normal(size=(6, 3, 1)),
    "scalar_float64": RNG.normal(size=6),
    "scalar_float32": RNG.normal(size=6).astype(np.float32),
    "scalar_int16": np.arange(6, dtype=np.int16),
    "scalar_bool": np.arange(6) % 2 == 0,
    "scalar_strided": np.arange(12.0)[::2],
    "scalar_big_endian": np.arange(6.0).astype(">f8"),
    "scalar_complex": np.arange(6) * 1j + 1.0,
}


@njit
def near(x, row):
    return np.sum((x - np.real(np.sum(np.asarray(row)))) ** 2)


@njit
def near_in_place(x, grad, row):
    """As `near`; compiled for each kind of rows, which takes a third of the time that differences take."""
    total, f = np.real(np.sum(np.asarray(row))), 0.0
    for i in range(x.size):
        grad[i] = 2.0 * (x[i] - total)
        f += (x[i] - total) ** 2
    return f


@pytest.mark.parametrize("rows", ROWS.values(), ids=ROWS)
def test_rows_of_every_kind(rows):
    starts = np.zeros((6, 2))
    batch = minimize_batch(near_in_place, starts, batch_args=(rows,), jac="inplace")
    expected = np.array([np.real(np.sum(row)) for row in rows], np.float64)
    np.testing.assert_allclose(batch.x, np.column_stack([expected, expected]), atol=1e-4)
    np.testing.assert_array_equal(starts, 0.0)


@njit
def troubled(x, grad, kind):
    grad[:] = 2.0 * x
    if kind == 1:
        return np.nan
    if kind == 2:
        raise ValueError("on purpose")
    if kind == 3:
        grad[:] = 1e-3
        return 1e-3 * np.sum(x)
    return np.sum(x * x)


@pytest.mark.parametrize(("python", "workers"), [(False, 1), (False, 3), (False, map), (True, 1), (True, map)])
def test_one_problems_trouble_is_its_own(python, workers):
    kinds = np.array([0, 1, 0, 2, 0, 3, 0, 2])
    fun = as_python(troubled) if python else troubled
    batch = minimize_batch(fun, np.ones((8, 2)), batch_args=(kinds,), jac="inplace", workers=workers)
    S = Status
    expected = [S.GTOL, S.NONFINITE, S.GTOL, S.EXCEPTION, S.GTOL, S.UNBOUNDED, S.GTOL, S.EXCEPTION]
    assert batch.status.tolist() == expected
    np.testing.assert_array_equal(batch.success, kinds == 0)
    assert sorted(batch.exceptions) == [3, 7]
    assert all(isinstance(error, ValueError) for error in batch.exceptions.values())
    np.testing.assert_allclose(batch.x[kinds == 0], 0.0, atol=1e-5)


def test_schedule_is_followed():
    run = {"jac": "inplace", "options": {"learning_rate": schedules.exponential_decay(0.1, 5, 0.5), "maxiter": 12}}
    y, weight = decays(3)
    found = minimize_batch(decay, np.ones((3, 3)), (T,), batch_args=(weight, y), **run)
    singles = [minimize(decay, np.ones(3), (T, weight[k], y[k]), **run) for k in range(3)]
    assert_one_by_one(found, singles)
    assert (found.x != 1.0).all()
    run["options"]["maxiter"] = 10**7
    with pytest.raises(ValueError, match="schedule needs maxiter of at most 1000000, got 10000000"):
        minimize_batch(decay, np.ones((3, 3)), (T,), batch_args=(weight, y), **run)


def test_float32_stays_float32():
    batch = minimize_batch(near, np.zeros((4, 2), np.float32), batch_args=(np.arange(4.0),), options={"gtol": 1e-2})
    assert batch.x.dtype == batch.jac.dtype == np.float32


def test_objective_that_scribbles_on_x():
    @njit
    def scribbling(x, grad, target):
        grad[:] = 2.0 * (x - target)
        f = np.sum((x - target) ** 2)
        x[:] = 7.0
        return f

    batch = minimize_batch(scribbling, np.zeros((3, 2)), batch_args=(np.arange(3.0),), jac="inplace")
    np.testing.assert_allclose(batch.x[:, 0], np.arange(3.0), atol=1e-5)


@needs_jit
def test_second_batch_compiles_nothing():
    from rmsprop_nb._objectives import compiled as _objective

    y, weight = decays(3)
    misses = []
    for _ in range(2):
        minimize_batch(decay, STARTS[:3], (T,), batch_args=(weight, y), jac="inplace")
        misses.append(_objective._compile_adapter.cache_info().misses)
    assert misses[0] == misses[1]


BAD = {
    "one_dimension": ({"X0": [1.0, 2.0], "batch_args": None}, ValueError, r"X0 must have shape \(B, n\)"),
    "three_dimensions": (
        {"X0": np.ones((2, 2, 2))},
        ValueError,
        r"X0 must have shape \(B, n\) .* got shape \(2, 2, 2\)",
    ),
    "no_rows": ({"X0": np.empty((0, 2))}, ValueError, "at least one row"),
    "nan": ({"X0": [[1.0, np.nan]]}, ValueError, "finite"),
    "rows": ({"batch_args": (np.ones(3),)}, ValueError, r"batch_args\[0\] must have one row for each of the 2"),
    "scalar_row": ({"batch_args": (1.0,)}, ValueError, "one row for each"),
    "method": ({"method": "adam"}, ValueError, "method must be one of"),
    "option": ({"options": {"history": True}}, ValueError, "Unknown option 'history'"),
    "workers": ({"workers": 0}, ValueError, "workers must be an integer"),
    "endless_workers": ({"workers": np.inf}, ValueError, "workers must be an integer .*, or -1 .*, got inf"),
    "sizes": ({"options": {"x_scale": [[1.0, 1.0], [1.0, 0.0]]}}, ValueError, "got 0.0 at index 1 of problem 1"),
    "no_switch": ({"progress": np.ones(2)}, ValueError, "progress must be True or False"),
    "callable": ({"fun": 3}, TypeError, "fun must be callable"),
    "jac": ({"jac": "4-point"}, ValueError, "jac must be"),
    "bounds": ({"bounds": [(0, 1)]}, ValueError, "2 pairs"),
}


@pytest.mark.parametrize(("change", "error", "message"), BAD.values(), ids=BAD)
def test_bad_input(change, error, message):
    arguments = {"fun": near, "X0": np.ones((2, 2)), "batch_args": (np.ones(2),), **change}
    with pytest.raises(error, match=message):
        minimize_batch(**arguments)


def test_resumed_batch_stays_within_its_bounds():
    starts = np.ones((3, 2))
    state = minimize_batch(near, starts, batch_args=(np.ones(3),))
    arguments = {"batch_args": (np.ones(3),), "state": state}
    with pytest.raises(ValueError, match=r"state.x must be within the bounds, got .* at index 0 of problem 0; resume"):
        minimize_batch(near, starts, bounds=[(5.0, 6.0)] * 2, **arguments)
    np.testing.assert_array_equal(minimize_batch(near, starts, bounds=[(-9.0, 9.0)] * 2, **arguments).x, state.x)


def test_messages_are_those_of_single_runs(tmp_path):
    starts = np.array([[-1.2, 1.0], [1.5, 0.5]])
    for options in ({}, {"gtol": 1e-3}, {"maxiter": 3}, {"maxiter": 3, "learning_rate": 0.1}):
        batch = minimize_batch(himmelblau, starts, options=options)
        assert batch.message.tolist() == [minimize(himmelblau, x, options=options).message for x in starts]
        assert batch.message[0] in repr(batch)
        save(tmp_path / "batch.npz", batch)
        assert load(tmp_path / "batch.npz").message.tolist() == batch.message.tolist()


def himmelblau(x):
    return (x[0] ** 2 + x[1] - 11.0) ** 2 + (x[0] + x[1] ** 2 - 7.0) ** 2


@pytest.mark.parametrize("fun", [himmelblau, njit(himmelblau)], ids=["python", "njit"])
def test_multistart_finds_all_minima(fun):
    results = [multistart(fun, [(-5, 5), (-5, 5)], 20, rng=3, workers=workers) for workers in (1, 2)]
    for result in results:
        assert len(result.minima) == 4
        assert (np.diff(result.minima_fun) >= 0).all()
        np.testing.assert_allclose(result.minima_fun, 0.0, atol=1e-8)
        assert result.batch.x.shape == (20, 2)
        assert result.nfev == result.batch.nfev.sum()
    np.testing.assert_array_equal(results[0].batch.x, results[1].batch.x)


def test_multistart_is_reproducible_and_stays_in_the_box():
    seen = []

    def fun(x):
        seen.append(x.copy())
        return np.sin(3 * x[0]) + 0.1 * x[0] ** 2

    first = multistart(fun, [(-4, 4)], 8, rng=np.random.default_rng(5))
    second = multistart(fun, [(-4, 4)], 8, rng=np.random.default_rng(5))
    np.testing.assert_array_equal(first.batch.x, second.batch.x)
    assert np.abs(seen).max() <= 4
    assert first.fun == min(first.batch.fun)


@pytest.mark.parametrize("bounds", [[(0, np.inf)], None, [(None, 1)]])
def test_multistart_needs_a_box(bounds):
    with pytest.raises((ValueError, TypeError)):
        multistart(himmelblau, bounds, 4)


@pytest.mark.parametrize(("device", "index"), [("cuda:0", 0), ("cuda:1", 1), ("gpu", 0), (["cuda"], 0)])
def test_a_device_is_chosen_before_the_call(device, index):
    with pytest.raises(ValueError, match=rf"device must be 'cpu' or 'cuda', got .*select_device\({index}\) before"):
        minimize_batch(lambda x: x @ x, [[1.0]], device=device)
