"""Arrays of any dtype, layout and kind are taken or refused, and never read past their end."""

from __future__ import annotations

import tempfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from refusals import tried

from rmsprop_nb import RMSprop, Status, minimize, minimize_minibatch
from rmsprop_nb._training.arrays import as_reals

DTYPES = [np.float32, np.float64, ">f8", np.float16, np.int32, np.complex64, np.bool_, "U3", object]


class Tagged(np.ndarray):
    """A subclass."""


@st.composite
def hostile_arrays(draw):
    """Arrays of any dtype, layout and kind, with values that run out."""
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(st.sampled_from([(), (0,), (1,), (3,), (2, 3), (3, 1, 2)]))
    values = draw(st.sampled_from([0.0, 1.0, -2.5, 1e-310, 1e-40, 1e19, 1e160, 1e308, np.inf, -np.inf, np.nan]))
    with np.errstate(all="ignore"):
        array = np.full(shape, values).astype(dtype) if dtype not in (np.int32,) else np.full(shape, 7, dtype)
    layout = draw(
        st.sampled_from(
            ["plain", "fortran", "reversed", "strided", "broadcast", "frozen", "subclass", "masked", "memmap"]
        )
    )
    if layout == "fortran":
        array = np.asfortranarray(array)
    elif layout == "reversed" and array.ndim:
        array = array[::-1]
    elif layout == "strided" and array.ndim:
        array = np.repeat(array, 2, axis=0)[::2]
    elif layout == "broadcast" and array.size:
        array = np.broadcast_to(array.ravel()[0], shape)
    elif layout == "frozen":
        array.flags.writeable = False
    elif layout == "subclass":
        array = array.view(Tagged)
    elif layout == "masked":
        array = np.ma.masked_array(array, mask=False)
    elif layout == "memmap" and array.size and dtype is not object:
        with tempfile.TemporaryFile() as file:
            mapped = np.memmap(file, array.dtype, "w+", shape=array.shape)
        mapped[...] = array
        array = mapped
    return array


MANY = settings(max_examples=4 * settings.default.max_examples)


def unchanged(before, after):
    assert np.asarray(after).tobytes() == np.asarray(before).tobytes()


@given(x=hostile_arrays(), g=hostile_arrays(), momentum=st.sampled_from([0.0, 0.9]))
@MANY
def test_a_step_is_taken_or_refused(x, g, momentum):
    optimizer = RMSprop(0.1, momentum=momentum)
    before_x, before_g = x.copy(), g.copy()

    def step():
        state = optimizer.init(x)
        optimizer.step(x, g, state)
        return state

    state, refusal = tried(step)
    unchanged(before_g, g)
    if refusal:
        unchanged(before_x, x)
        return
    before_x, before_g, x, g = (as_reals(np.asarray(a)) for a in (before_x, before_g, x, g))
    assert x.dtype in (np.float32, np.float64, np.float16)
    assert g.dtype in (x.dtype, state.square_avg.dtype)
    assert x.shape == g.shape == state.square_avg.shape
    real = np.float32 if x.dtype == np.float16 else x.dtype.type
    gradient = np.asarray(before_g).astype(real)
    with np.errstate(all="ignore"):
        s = real(1.0 - 0.9) * gradient * gradient
        expected = np.asarray(before_x).astype(real) - real(0.1) * (gradient / (np.sqrt(s) + real(1e-8)))
        expected = expected.astype(x.dtype)
    np.testing.assert_allclose(
        np.asarray(x), expected, rtol=max(1e-6, float(np.finfo(x.dtype).eps) if x.dtype == np.float16 else 0.0)
    )
    assert np.isfinite(np.asarray(state.square_avg)).all()


@st.composite
def windows(draw):
    """Two arrays of the same length that look at one buffer, and may see the same of it."""
    buffer, size = np.linspace(1.0, 2.0, 12), draw(st.integers(1, 4))
    views = []
    for _ in range(2):
        step = draw(st.sampled_from([1, 2, -1, -2]))
        first = draw(st.integers(0, 11 - abs(step) * (size - 1)))
        views.append(buffer[first : first + abs(step) * (size - 1) + 1][::step])
    return buffer, *views


@given(windows())
@MANY
def test_windows_on_one_buffer_are_kept_apart(drawn):
    buffer, x, g = drawn
    before, expected, slope = buffer.copy(), x.copy(), g.copy()
    optimizer = RMSprop(0.1)
    optimizer.step(expected, slope, optimizer.init(expected))
    _, refusal = tried(lambda: optimizer.step(x, g, optimizer.init(x)))
    if np.shares_memory(x, g):
        assert "must not share memory" in refusal
        unchanged(before, buffer)
        return
    assert not refusal
    np.testing.assert_array_equal(x, expected)
    np.testing.assert_array_equal(g, slope)


def test_what_an_objective_keeps_or_resizes_is_its_own():
    kept = []

    def keeps(x):
        kept.append(x)
        return float(np.sum((x - 1.0) ** 2)), 2.0 * (x - 1.0)

    assert minimize(keeps, np.zeros(2), jac=True).success
    assert len({x.tobytes() for x in kept}) == len(kept) > 1

    def resizes(x, grad, which):
        grad[:] = 2.0 * (x - 1.0)
        f = float(np.sum((x - 1.0) ** 2))
        (x, grad)[which].resize(1000, refcheck=False)
        return f

    assert minimize(resizes, np.zeros(2), (0,), jac="inplace").success
    with pytest.raises(ValueError, match="shape"):
        minimize(resizes, np.zeros(2), (1,), jac="inplace")


@given(x0=hostile_arrays(), method=st.sampled_from(["rmsprop", "rmsprop-lbfgs"]))
@MANY
def test_a_run_begins_or_is_refused(x0, method):
    before = x0.copy()

    def fun(x):
        return float(np.sum((x - 1.0) ** 2)), 2.0 * (x - 1.0)

    found, refusal = tried(lambda: minimize(fun, x0, jac=True, method=method, tol=1e-5))
    unchanged(before, x0)
    if refusal:
        assert "x0" in refusal
        return
    assert found.x.shape == (x0.size,)
    assert found.x.dtype == (np.float32 if x0.dtype == np.float32 else np.float64)
    assert found.success == (found.status in (0, 10, 11, 12))
    if found.success:
        assert np.isfinite(found.x).all()
        assert np.abs(found.jac).max() <= 1e-5


@given(
    g=st.one_of(hostile_arrays(), st.floats(), st.none()),
    call=st.integers(1, 4),
    jac=st.sampled_from([True, "inplace"]),
)
@MANY
def test_any_gradient_is_taken_or_refused(g, call, jac):
    """Gradients that change their shape or dtype from one call to the next, or are no gradients at all."""
    calls = []

    def value(x):
        return float(np.sum((x - 1.0) ** 2)), 2.0 * (x - 1.0)

    def fun(x, *grad):
        calls.append(x)
        f, usual = value(x)
        given_now = g if len(calls) == call else usual
        if jac is True:
            return f, given_now
        grad[0][:] = given_now
        return f

    found, refusal = tried(lambda: minimize(fun, np.zeros(3), jac=jac, options={"maxfev": 20, "gtol": 1e-5}))
    if not refusal:
        assert np.isfinite(found.x).all()
        assert not found.success or np.abs(found.jac).max() <= 1e-5


@given(data=hostile_arrays(), batch=st.integers(1, 5))
@MANY
def test_any_data_are_taken_or_refused(data, batch):
    before = data.copy()

    def fun(x, rows):
        mean = np.mean(rows, axis=0, dtype=float) if rows.dtype.kind in "fiub" else 0.0
        d = x - np.resize(mean, x.size)
        return float(0.5 * d @ d), d

    run = {"jac": True, "batch_size": batch, "epochs": 2, "rng": 0}
    found, refusal = tried(lambda: minimize_minibatch(fun, np.zeros(2), data, **run))
    unchanged(before, data)
    if refusal:
        assert "data" in refusal
    else:
        assert found.success == bool(np.isfinite(found.fun) and np.isfinite(found.x).all() and found.status != 3)


@given(
    hnp.arrays(np.float64, 3, elements=st.floats(width=64)),
    st.integers(0, 3),
    st.sampled_from([True, "2-point", "3-point"]),
    st.sampled_from([np.float32, np.float64]),
    st.sampled_from([float, np.float32, np.round]),
)
@MANY
def test_any_values_have_a_status(values, call, jac, dtype, rounded):
    """At one call f and its gradient are anything; f may be of single precision, or a whole number."""
    calls = []

    def fun(x):
        calls.append(1)
        f, g = (float(values[0]), values[1:]) if len(calls) == call + 1 else (float(x @ x), 2.0 * x)
        return (f, g) if jac is True else rounded(f)

    with np.errstate(all="ignore"):
        found = minimize(fun, np.array([1.0, -2.0], dtype), jac=jac, options={"maxfev": 50, "gtol": 1e-5})
    assert found.status in {int(status) for status in Status}
    if found.success:
        assert np.isfinite(found.fun)
        assert jac is not True or np.abs(found.jac).max() <= 1e-5
    assert np.isfinite(found.x).all()
    assert found.x.dtype == dtype
