"""Mini-batches: both drivers give the same numbers, an epoch sees every row once, a resumed run is the same run."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
from numba import njit
from objectives import as_python
from variants import DTYPES, VARIANTS

from rmsprop_nb import Status, datasets, minimize, minimize_minibatch, schedules
from rmsprop_nb._methods.minibatch import AVERAGING_POWER
from rmsprop_nb._numba.decorators import JIT_ENABLED
from rmsprop_nb.testing import reference_rmsprop

needs_jit = pytest.mark.skipif(not JIT_ENABLED, reason="is about compiled code, and the JIT is disabled")


@njit
def ridge(x, A, b, l2):
    r = A @ x - b
    return 0.5 * np.sum(r * r) / b.size + 0.5 * l2 * np.sum(x * x)


@njit
def ridge_grad(x, A, b, l2):
    return A.T @ (A @ x - b) / b.size + l2 * x


@njit
def ridge_joint(x, A, b, l2):
    return ridge(x, A, b, l2), ridge_grad(x, A, b, l2)


@njit
def ridge_inplace(x, grad, A, b, l2):
    grad[:] = ridge_grad(x, A, b, l2)
    return ridge(x, A, b, l2)


@njit
def ridge_complex(x, A, b, l2):
    total = x[0] * 0.0
    for i in range(b.size):
        r = -b[i] + x[0] * 0.0
        for j in range(x.size):
            r += A[i, j] * x[j]
        total += 0.5 * r * r / b.size
    for j in range(x.size):
        total += 0.5 * l2 * x[j] * x[j]
    return total


FORMS = {
    "callable": (ridge, ridge_grad),
    "joint": (ridge_joint, True),
    "inplace": (ridge_inplace, "inplace"),
    "2-point": (ridge_complex, "2-point"),
    "3-point": (ridge_complex, "3-point"),
    "cs": (ridge_complex, "cs"),
}

N_ROWS, N = 103, 4
RATES = {
    "auto": {},
    "auto_constant": {"learning_rate": "auto-constant"},
    "number": {"learning_rate": 0.01},
    "each": {"learning_rate": [0.1, 0.01, 0.0, 0.02]},
    "schedule": {"learning_rate": schedules.cosine_decay(0.1, 100)},
    **{f"textbook_{name}": {"learning_rate": 0.01, "options": options} for name, options in VARIANTS.items()},
}
WAYS = {
    "accumulate": {"accumulate": 3},
    "clip_value": {"clip_value": 0.1},
    "clip_norm": {"clip_norm": 0.1},
    "bounds": {"bounds": [(-0.5, 0.5)] * N},
    "in_order": {"shuffle": False},
    "one_batch": {"batch_size": N_ROWS},
    "batch_of_one": {"batch_size": 1},
    "averaging": {"averaging": True},
    "validation": {"validation": 0.2},
    "patience": {"validation": 0.2, "patience": 1},
}


def make_data(dtype=np.float64, n_rows=N_ROWS):
    rng = np.random.default_rng(7)
    A = rng.normal(size=(n_rows, N))
    b = A @ np.array([1.0, -2.0, 0.5, 3.0]) + 0.1 * rng.normal(size=n_rows)
    return A.astype(dtype), b.astype(dtype)


def run(form="inplace", python=False, dtype=np.float64, data=None, **kwargs):
    fun, jac = FORMS[form]
    if python:
        fun, jac = as_python(fun), as_python(jac)
    kwargs = {"batch_size": 10, "epochs": 5, "rng": 3, **kwargs}
    return minimize_minibatch(fun, np.zeros(N, dtype), data or make_data(dtype), (dtype(0.01),), jac=jac, **kwargs)


def same(a, b):
    np.testing.assert_array_equal(a.x, b.x)
    np.testing.assert_array_equal(a.jac, b.jac)
    np.testing.assert_array_equal(a.epoch_fun, b.epoch_fun)
    assert (a.fun, a.nit, a.nfev, a.status) == (b.fun, b.nit, b.nfev, b.status)
    for left, right in zip(a.state.arrays, b.state.arrays, strict=True):
        np.testing.assert_array_equal(left, right)
    for name in a.state.record.dtype.names:
        if name != "first_step":  # where the last chunk began
            np.testing.assert_array_equal(a.state.record[name], b.state.record[name])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kwargs", [*RATES.values(), *WAYS.values()], ids=[*RATES, *WAYS])
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


@pytest.mark.parametrize("n_rows", [1, 2, 31, 128, 1000])
@pytest.mark.parametrize("shuffle", [False, True])
def test_every_epoch_sees_every_row_once(n_rows, shuffle):
    seen = []

    def fun(x, rows):
        seen.append(rows.copy())
        return 0.0, np.zeros(1)

    minimize_minibatch(
        fun, [0.0], np.arange(n_rows), jac=True, batch_size=16, epochs=3, shuffle=shuffle, rng=1, final_evaluation=False
    )
    epochs = np.concatenate(seen).reshape(3, n_rows)
    np.testing.assert_array_equal(np.sort(epochs), np.tile(np.arange(n_rows), (3, 1)))
    if shuffle and n_rows > 30:
        assert len({tuple(epoch) for epoch in epochs}) == 3
    elif not shuffle:
        np.testing.assert_array_equal(epochs[0], np.arange(n_rows))


def test_order_follows_from_rng():
    first, again = run(rng=5), run(rng=np.random.default_rng(5))
    same(first, again)
    assert not np.array_equal(first.x, run(rng=6).x)
    generator = np.random.default_rng(5)
    run(rng=generator)
    assert not np.array_equal(first.x, run(rng=generator).x)


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


# -- where the rows are -----------------------------------------------------------------------------------------------


def layouts(tmp_path):
    A, b = make_data()
    file = np.memmap(tmp_path / "A.bin", np.float64, "w+", shape=A.shape)
    file[:] = A
    file.flush()
    frozen = A.copy()
    frozen.flags.writeable = False
    wide = np.zeros((N_ROWS, 2 * N))
    wide[:, ::2] = A
    packed = np.zeros(N_ROWS, [("pad", np.int8), ("A", np.float64, N), ("b", np.float64)])
    packed["A"], packed["b"] = A, b
    return {
        "fortran": (np.asfortranarray(A), b),
        "strided": (wide[:, ::2], np.repeat(b, 2)[::2]),
        "reversed": (A[::-1].copy()[::-1], b[::-1].copy()[::-1]),
        "big_endian": (A.astype(">f8"), b.astype(">f8")),
        "memmap": (file, b),
        "memmap_read_only": (np.memmap(tmp_path / "A.bin", np.float64, "r", shape=A.shape), b),
        "read_only": (frozen, b),
        "unaligned": (packed["A"], packed["b"]),
        "broadcast": (A, np.broadcast_to(b, (3, N_ROWS))[1]),
    }


@needs_jit  # NumPy's own sums depend on the layout
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize(
    "name",
    [
        "fortran",
        "strided",
        "reversed",
        "big_endian",
        "memmap",
        "memmap_read_only",
        "read_only",
        "unaligned",
        "broadcast",
    ],
)
def test_layout_of_the_data_changes_nothing(tmp_path, name, shuffle):
    same(run(shuffle=shuffle), run(shuffle=shuffle, data=layouts(tmp_path)[name]))


def test_three_axes_of_any_layout():
    rng = np.random.default_rng(0)
    cube = rng.normal(size=(50, 3, 2))

    @njit
    def fun(x, cube):
        d = x - cube.sum(axis=2).sum(axis=0) / len(cube)
        return np.sum(d * d), 2.0 * d

    results = [
        minimize_minibatch(fun, np.zeros(3), a, jac=True, batch_size=7, rng=0)
        for a in (
            cube,
            np.asfortranarray(cube),
            cube[:, ::-1][:, ::-1],
            np.moveaxis(np.moveaxis(cube, 2, 1).copy(), 2, 1),
        )
    ]
    for other in results[1:]:
        same(results[0], other)


def test_integers_and_flags_as_data():
    labels = np.arange(40) % 3
    flags = labels > 0

    @njit
    def fun(x, labels, flags):
        grad = np.zeros(3)
        f = 0.0
        for k in range(labels.size):
            d = x[labels[k]] - flags[k]
            grad[labels[k]] += 2.0 * d / labels.size
            f += d * d / labels.size
        return f, grad

    kwargs = {"jac": True, "batch_size": 8, "epochs": 200, "rng": 0}
    result = minimize_minibatch(fun, np.zeros(3), (labels.astype(np.int16), flags), **kwargs)
    same(result, minimize_minibatch(as_python(fun), np.zeros(3), (labels.astype(np.int16), flags), **kwargs))
    np.testing.assert_allclose(result.x, [0.0, 1.0, 1.0], atol=1e-3)


def test_sparse_rows():
    A, b = make_data()
    A[np.abs(A) < 0.5] = 0.0

    def fun(x, A, b, l2):
        r = A @ x - b
        return 0.5 * np.mean(r**2) + 0.5 * l2 * x @ x, A.T @ r / b.size + l2 * x

    kwargs = {"args": (0.01,), "jac": True, "batch_size": 10, "rng": 0}
    dense = minimize_minibatch(fun, np.zeros(N), (A, b), **kwargs)
    for form in (scipy.sparse.csr_array, scipy.sparse.csr_matrix, scipy.sparse.coo_array):
        sparse = minimize_minibatch(fun, np.zeros(N), (form(A), b), **kwargs)
        np.testing.assert_allclose(sparse.x, dense.x, rtol=1e-9)


# -- what the options do ----------------------------------------------------------------------------------------------


def test_accumulated_batches_are_one_large_batch():
    kwargs = {"learning_rate": 0.01, "shuffle": False, "averaging": False, "epochs": 3}
    small, large = run(batch_size=10, accumulate=4, **kwargs), run(batch_size=40, **kwargs)
    np.testing.assert_allclose(small.x, large.x, rtol=1e-12)
    assert small.nfev > large.nfev


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


# -- faults -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("python", [False, True])
def test_nan_is_a_status_and_the_last_good_point_is_returned(python):
    A, b = make_data()
    b[70] = np.nan
    result = run(data=(A, b), shuffle=False, python=python, learning_rate=0.1, averaging=False)
    assert (result.status, result.success, result.nfev) == (Status.NONFINITE, False, 8)
    assert np.isfinite(result.x).all()
    assert result.x.any()


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

    spoiling = minimize_minibatch(fun, x0, data, (0.01,), jac="inplace", batch_size=10, rng=3, final_evaluation=False)
    np.testing.assert_array_equal(data[0], A)
    np.testing.assert_array_equal(x0, 0.0)
    np.testing.assert_array_equal(spoiling.x, run(epochs=10).x)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"batch_size": 0}, "batch_size must be an integer of at least 1"),
        ({"epochs": 0}, "epochs must be an integer of at least 1"),
        ({"epochs": None}, "epochs must be an integer of at least 1"),
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


# -- real data --------------------------------------------------------------------------------------------------------


@njit
def logistic_loss(w, grad, X, y, scale):
    margin = (1.0 - 2.0 * y) * (X @ w)
    p = 1.0 / (1.0 + np.exp(-margin))
    grad[:] = scale * (X.T @ ((1.0 - 2.0 * y) * p).astype(X.dtype) / y.size + 1e-3 * w)
    return scale * (np.mean(np.logaddexp(0.0, margin)) + 0.5e-3 * np.sum(w * w))


@pytest.mark.parametrize("batch_size", [8, 32, 128])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_breast_cancer_without_tuning(batch_size, dtype, scale):
    X, y = datasets.load_breast_cancer()
    X = ((X - X.mean(axis=0)) / X.std(axis=0)).astype(dtype)
    args = (dtype(scale),)
    best = minimize(
        logistic_loss, np.zeros(30), (X.astype(np.float64), y, 1.0), "rmsprop-lbfgs", "inplace", options={"gtol": 1e-9}
    )
    result = minimize_minibatch(
        logistic_loss, np.zeros(30, dtype), (X, y), args, jac="inplace", batch_size=batch_size, epochs=20, rng=11
    )
    excess = (result.fun / scale - best.fun) / (np.log(2.0) - best.fun)
    assert result.success
    assert excess < 0.02
