"""What objectives may return and raise, and in which dtype they compute."""

from __future__ import annotations

import gc

import numpy as np
import pytest
from marks import needs_jit
from numba import njit, objmode
from objectives import ARGS, FORMS, X0, fun, jac

from rmsprop_nb import minimize, minimize_batch
from rmsprop_nb._core.options import RmspropOptions
from rmsprop_nb._numba.decorators import JIT_ENABLED
from rmsprop_nb._objectives.compiled import compile_objective
from rmsprop_nb._objectives.problem import Problem

# -- what functions return --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.float32(2.0), 2, np.array(2.0), np.array([2.0]), np.array([[2]]), True])
def test_fun_may_return_any_one_number(value):
    result = minimize(lambda x: value, [1.0], jac=lambda x: np.zeros(1))
    assert result.fun == float(np.asarray(value).item())


@pytest.mark.parametrize("value", [np.ones(2), [1.0, 2.0], None, "1", 1j, np.array([]), object()])
def test_fun_must_return_one_real_number(value):
    with pytest.raises(TypeError, match="fun must return one real number"):
        minimize(lambda x: value, [1.0], jac=lambda x: np.zeros(1))


@pytest.mark.parametrize("gradient", [np.zeros(1), np.zeros(3), np.zeros((2, 1)), np.zeros((1, 2)), 0.0, [], [1.0]])
@pytest.mark.parametrize("form", ["callable", "joint"])
def test_gradient_of_wrong_shape(gradient, form):
    function = (lambda x: (1.0, gradient)) if form == "joint" else (lambda x: 1.0)
    with pytest.raises(ValueError, match=r"must return a gradient of shape \(2,\)"):
        minimize(function, [1.0, 2.0], jac=True if form == "joint" else lambda x: gradient)


@needs_jit
@pytest.mark.parametrize("length", [0, 1, 3, 1000])
def test_compiled_gradient_of_wrong_length(length):
    short = njit(lambda x: np.zeros(length))
    with pytest.raises(ValueError, match="one derivative for each element"):
        minimize(njit(lambda x: x[0]), [1.0, 2.0], jac=short)


@needs_jit
@pytest.mark.parametrize("gradient", [lambda x: np.zeros((2, 1)), lambda x: (0.0, 0.0, 0.0), lambda x: 1j * x])
def test_compiled_gradient_that_is_none(gradient):
    with pytest.raises((ValueError, TypeError), match=r"must return a (real )?gradient"):
        minimize(njit(lambda x: x[0]), [1.0, 2.0], jac=njit(gradient))


def test_gradient_may_change_its_length_and_dtype_between_calls():
    calls = []

    def growing(x):
        calls.append(1)
        return np.zeros(len(calls) + 1) + 1.0

    with pytest.raises(ValueError, match=r"got shape \(3,\)"):
        minimize(lambda x: x.sum(), [1.0, 2.0], jac=growing)

    dtypes = iter([np.float32, np.float64, np.int64, np.float16] * 50)
    result = minimize(lambda x: x @ x, [4.0, 2.0], jac=lambda x: (2 * x).astype(next(dtypes)), options={"gtol": 1e-2})
    assert result.nit > 0


def test_gradient_may_be_a_list_and_integer():
    result = minimize(lambda x: abs(x[0]) + x[1] ** 2, [3.0, 0.0], jac=lambda x: [1, 0], options={"maxfev": 1})
    np.testing.assert_array_equal(result.jac, [1.0, 0.0])


def test_complex_gradient_is_refused():
    with pytest.raises(TypeError, match="must return a real gradient"):
        minimize(lambda x: 1.0, [1.0], jac=lambda x: np.array([1j]))


def test_joint_form_must_return_a_pair():
    with pytest.raises(TypeError, match=r"the pair \(f, gradient\)"):
        minimize(lambda x: 1.0, [1.0], jac=True)


@needs_jit
def test_arrays_that_an_objmode_block_keeps_stay_valid():
    kept = []

    @njit
    def fun(x, grad, weights):
        with objmode():
            kept.append((x, weights))
        grad[:] = weights * (x - 1.0)
        return 0.5 * np.sum(weights * (x - 1.0) ** 2)

    def run(n, **kwargs):
        minimize(fun, np.zeros(n), (np.full(n, 2.0),), jac="inplace", options={"maxiter": 3}, **kwargs)
        minimize_batch(fun, np.zeros((2, n)), (np.full(n, 2.0),), jac="inplace", options={"maxiter": 3})

    run(1000)
    points = [x.copy() for x, _ in kept]
    gc.collect()
    junk = [np.full(1000, 777.0) for _ in range(100)]
    for (x, weights), point in zip(kept, points, strict=True):
        np.testing.assert_array_equal(x, point)
        assert (weights == 2.0).all()
    assert (points[0] == 0.0).all()
    assert len(junk) == 100


@needs_jit
def test_only_code_that_enters_python_is_called_from_there():
    @njit
    def raises(x, grad):
        if x[0] > 100.0:
            raise ValueError("too large")
        grad[:] = x
        return 0.5 * np.sum(x * x)

    @njit
    def prints(x, grad):
        print(x[0])  # noqa: T201
        return raises(x, grad)

    @njit
    def asks(x, grad):
        with objmode(f="float64"):
            f = 0.0
        return f + raises(x, grad)

    for objective, is_compiled in ((raises, True), (prints, True), (asks, False)):
        problem = Problem(objective, "inplace", (), np.empty(0), np.empty(0), np.empty(0))
        assert (compile_objective(problem, np.float64) is not None) == is_compiled


def test_keeping_references_changes_nothing():
    kept = []

    def objective(x, grad):
        grad[:] = 2 * (x - 1)
        kept.append((x, grad))
        for old, _ in kept[:-1]:
            old[:] = np.nan
        return ((x - 1) ** 2).sum()

    np.testing.assert_allclose(minimize(objective, [3.0, 4.0], jac="inplace").x, 1.0, atol=1e-6)


# -- exceptions -------------------------------------------------------------------------------------------------------


class PrivateError(Exception):
    pass


@pytest.mark.parametrize("call", range(1, 6))
@pytest.mark.parametrize("where", ["fun", "jac", "callback"])
def test_exceptions_of_python_functions_propagate(call, where):
    count = [0]

    def counted(name):
        if name == where:
            count[0] += 1
            if count[0] == call:
                raise PrivateError(name)

    def objective(x):
        counted("fun")
        return fun(x, *ARGS)

    def gradient(x):
        counted("jac")
        return jac(x, *ARGS)

    x0 = np.array(X0)
    with pytest.raises(PrivateError, match=where) as raised:
        minimize(objective, x0, jac=gradient, callback=lambda xk: counted("callback"))
    assert raised.traceback[-1].name == "counted"
    np.testing.assert_array_equal(x0, X0)


@njit
def failing(x, grad, counts):
    """Raises at call ``counts[1]``."""
    counts[0] += 1
    if counts[0] == counts[1]:
        raise ValueError("on purpose")
    grad[:] = jac(x, 10.0, np.ones(3))
    return fun(x, 10.0, np.ones(3))


@needs_jit
@pytest.mark.parametrize("call", range(1, 6))
@pytest.mark.parametrize("options", [{}, {"learning_rate": 0.01}], ids=["auto", "textbook"])
def test_exceptions_of_compiled_functions_propagate(call, options):
    x0, counts = np.array(X0), np.array([0, call])
    for _ in range(2):
        with pytest.raises(ValueError, match="on purpose"):
            minimize(failing, x0, (counts,), jac="inplace", options=options)
        counts[0] = 0
        np.testing.assert_array_equal(x0, X0)
    assert minimize(fun, x0, ARGS, jac=jac).success


def test_typing_errors_of_a_compiled_function_reach_the_user():
    if not JIT_ENABLED:
        pytest.skip("is about compiled code, and the JIT is disabled")
    from numba.core.errors import TypingError

    @njit
    def wrong(x):
        return x.no_such_attribute

    with pytest.raises(TypingError, match="no_such_attribute"):
        minimize(wrong, [1.0])


# -- dtype ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("python", [False, True])
@pytest.mark.parametrize("options", [{}, {"learning_rate": 0.01}], ids=["auto", "textbook"])
def test_float32_stays_float32(form, python, options):
    seen = set()
    function, gradient = FORMS[form]

    def watching(x, *args):
        seen.add(x.dtype)
        return function(x, *args)

    result = minimize(
        watching if python else function,
        np.array(X0, np.float32),
        ARGS,
        jac=gradient,
        options={"maxiter": 30, **options},
    )
    assert result.x.dtype == result.jac.dtype == np.float32
    assert all(a.dtype == np.float32 for a in result.state.arrays if a.size)
    if python:
        assert seen == {np.dtype(np.complex128 if form == "cs" else np.float32)}


def test_hyper_parameters_are_formed_in_double():
    hyper = RmspropOptions(learning_rate=0.1).hyper(np.float32)
    assert hyper.one_minus_beta == np.float32(0.1)
    assert hyper.one_minus_beta != np.float32(1) - np.float32(0.9)
    assert {type(value) for value in hyper} == {np.float32}
