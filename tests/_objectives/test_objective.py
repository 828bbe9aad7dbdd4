"""Forms of the objective: where the gradient comes from, what args may be, what is refused."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from numba import njit
from numba.typed import List
from objectives import ARGS, FORMS, X0, as_python, fun, jac

from rmsprop_nb import minimize
from rmsprop_nb._core.options import RmspropOptions
from rmsprop_nb._numba.decorators import JIT_ENABLED
from rmsprop_nb._numba.packing import Unpackable, pack
from rmsprop_nb._objectives.compiled import CompiledObjective, compile_objective
from rmsprop_nb._objectives.problem import Problem

needs_jit = pytest.mark.skipif(not JIT_ENABLED, reason="is about compiled code, and the JIT is disabled")


class Scales(NamedTuple):
    a: float
    b: np.ndarray


class Nested(NamedTuple):
    pair: tuple[int, int]
    flag: bool


def compiled(function, gradient, args, dtype=np.float64):
    none = np.empty(0, dtype)
    return compile_objective(Problem(function, gradient, args, none, none, None), np.dtype(dtype))


@njit
def parabola(x, a, b):
    return 0.5 * a * np.sum((x - b) ** 2)


@njit
def parabola_grad(x, a, b):
    return a * (x - b)


# -- where the gradient comes from ------------------------------------------------------------------------------------


@pytest.mark.parametrize("mix", ["njit fun, Python jac", "Python fun, njit jac"])
def test_mixed_kinds(mix):
    expected = minimize(fun, X0, ARGS, jac=jac)
    pair = (fun, as_python(jac)) if mix.startswith("njit") else (as_python(fun), jac)
    result = minimize(pair[0], X0, ARGS, jac=pair[1])
    np.testing.assert_array_equal(result.x, expected.x)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("python", [False, True])
def test_every_form_finds_the_minimum(form, python):
    function, gradient = FORMS[form]
    if python:
        function, gradient = as_python(function), as_python(gradient)
    result = minimize(function, X0, ARGS, jac=gradient)
    assert result.success
    np.testing.assert_allclose(result.x, 1.0, atol=1e-4)
    np.testing.assert_allclose(result.jac, jac(result.x, *ARGS), atol=1e-4)


def test_none_and_false_are_two_point_differences():
    expected = minimize(fun, X0, ARGS, jac="2-point")
    for form in (None, False):
        np.testing.assert_array_equal(minimize(fun, X0, ARGS, jac=form).x, expected.x)


@pytest.mark.parametrize(("form", "calls"), [("2-point", 3), ("3-point", 6), ("cs", 3), ("callable", 0), ("joint", 0)])
def test_evaluations_are_counted_as_they_are_made(form, calls):
    count = [0]
    function, gradient = FORMS[form]

    def counting(x, *args):
        count[0] += 1
        return function(x, *args)

    result = minimize(counting, X0, ARGS, jac=gradient, options={"maxfev": 7, "gtol": 0.0})
    assert (result.njev, result.nfev) == (7, 7 * (1 + calls))
    assert count[0] == result.nfev


@pytest.mark.parametrize("method", ["2-point", "3-point", "cs"])
def test_differences_are_accurate(method):
    x = np.array([0.3, -1e-3, 40.0])
    result = minimize(FORMS["cs"][0], x, ARGS, jac=method, options={"maxfev": 1})
    tolerance = {"2-point": 1e-6, "3-point": 1e-9, "cs": 1e-15}[method]
    np.testing.assert_allclose(result.jac, jac(x, *ARGS), rtol=tolerance, atol=tolerance * np.abs(jac(x, *ARGS)).max())


@pytest.mark.parametrize("rel_step", [1e-3, 1e-6])
def test_relative_step_is_the_users(rel_step):
    points = []

    def recording(x):
        points.append(x.copy())
        return x @ x

    minimize(recording, [2.0, 0.0], options={"finite_diff_rel_step": rel_step, "maxfev": 1})
    assert points[1][0] - 2.0 == pytest.approx(2.0 * rel_step)
    assert points[2][1] == pytest.approx(rel_step)  # relative to |x| = 0 there would be no step


def test_difference_points_stay_within_bounds():
    seen = []

    def recording(x):
        seen.append(x.copy())
        return ((x - 5.0) ** 2).sum()

    for method in ("2-point", "3-point"):
        minimize(recording, [1.0, 0.0, 0.2], jac=method, bounds=[(0, 1), (0, 1e-9), (0.2, 0.2)])
    assert (np.array(seen) >= [0, 0, 0.2]).all()
    assert (np.array(seen) <= [1, 1e-9, 0.2]).all()


@pytest.mark.parametrize(
    "drop", [lambda x: np.abs(x).sum(), lambda x: np.linalg.norm(x) ** 2, lambda x: x.real @ x.real]
)
def test_complex_step_refuses_a_real_result(drop):
    with pytest.raises(TypeError, match="imaginary part"):
        minimize(drop, [1.0, 2.0], jac="cs")


@needs_jit
def test_complex_step_refuses_a_real_result_of_a_compiled_function():
    @njit
    def drop(x):
        return np.sum(np.abs(x))

    with pytest.raises(TypeError, match="imaginary part"):
        minimize(drop, [1.0, 2.0], jac="cs")


# -- args -------------------------------------------------------------------------------------------------------------

PACKABLE = {
    "none": (),
    "scalars": (1, 2.5, True, 1j, np.float32(3), np.int8(-4), np.uint64(2**63)),
    "arrays": (np.arange(3.0), np.asfortranarray(np.ones((2, 3))), np.arange(10)[::-2], np.zeros(0), np.array(3.0)),
    "dtypes": tuple(np.ones(2, t) for t in ("f4", "i1", "u2", "c8", "c16", "?")),
    "read_only": (np.broadcast_to(1.0, 4),),
    "records": (np.zeros(2, [("a", "f8"), ("b", "i4")]),),
    "tuples": ((1, (2.0, np.ones(2))), (), (3.0, 3.0)),
    "named": (Scales(2.0, np.ones(3)), Nested((1, 2), False)),
    "nothing": (None,),
    "dates": (np.datetime64("2026-01-01"),),
}


@needs_jit
@pytest.mark.parametrize("args", PACKABLE.values(), ids=PACKABLE)
def test_packed_args_arrive_unchanged(args):
    from rmsprop_nb._numba.packing import load_args

    words, references, args_type = pack(args)
    read = njit(lambda data: load_args(data, args_type))
    back = read(words.ctypes.data)

    def compare(a, b):
        if isinstance(a, tuple):
            assert type(a) is type(b)
            assert len(a) == len(b)
            for left, right in zip(a, b, strict=True):
                compare(left, right)
        elif isinstance(a, np.ndarray):
            np.testing.assert_array_equal(a, b)
            assert (a.dtype, a.shape) == (b.dtype, b.shape)
            assert a.size == 0 or a.strides == b.strides
            assert a.ctypes.data == b.ctypes.data
        else:
            assert a == b

    compare(args, back)
    assert len(references) >= sum(isinstance(a, np.ndarray) for a in args)


@needs_jit
@pytest.mark.parametrize(
    "args",
    [([1.0, 2.0],), ("text",), ({"a": 1},), (object(),), (List([1.0]),)],
    ids=["list", "text", "dict", "object", "typed list"],
)
def test_what_cannot_be_packed_says_so(args):
    with pytest.raises(Unpackable):
        pack(args)


@needs_jit
def test_args_of_every_kind_reach_a_compiled_objective():
    @njit
    def objective(x, grad, order, a, scales, matrix, pair, helper, nothing, flag):
        s = scales.a * scales.b[0] * order[0] if nothing is None else 0.0
        t = matrix[1, 0] + pair[0] + helper(pair[1][0]) + (1.0 if flag else 0.0)
        grad[:] = s * (x - t - a)
        return 0.5 * s * np.sum((x - t - a) ** 2)

    @njit
    def double(v):
        return 2.0 * v

    args = (np.array([3], np.int16), 1, Scales(0.5, np.ones(2, np.float32)), np.asfortranarray(np.eye(2)), (4, (2.0,)),
            double, None, True)  # fmt: skip
    assert isinstance(compiled(objective, "inplace", args), CompiledObjective)
    result = minimize(objective, [1.0, 2.0], args, jac="inplace")
    assert result.success
    np.testing.assert_allclose(result.x, 0.0 + 4 + 4 + 1 + 1, atol=1e-4)


@needs_jit
@pytest.mark.parametrize("data", [List([1.0, 2.0]), "text"], ids=["typed list", "string"])
def test_args_that_do_not_pack_run_interpreted(data):
    @njit
    def objective(x, data):
        return 0.5 * np.sum((x - len(data)) ** 2)

    assert compiled(objective, "2-point", (data,)) is None
    result = minimize(objective, [1.0], (data,))
    np.testing.assert_allclose(result.x, len(data), atol=1e-5)


def test_single_argument_needs_no_tuple():
    data = np.array([1.0, 2.0])
    result = minimize(lambda x, t: np.sum((x - t) ** 2), [0.0, 0.0], data)
    np.testing.assert_allclose(result.x, data, atol=1e-5)


def test_python_args_may_be_anything():
    result = minimize(lambda x, settings: (x[0] - settings["target"]) ** 2, [0.0], ({"target": 3.0},))
    np.testing.assert_allclose(result.x, 3.0, atol=1e-5)


@needs_jit
def test_changed_contents_of_args_are_seen():
    target = np.zeros(2)
    for value in (1.0, -2.0):
        target[:] = value
        result = minimize(parabola, [5.0, 5.0], (2.0, target), jac=parabola_grad)
        np.testing.assert_allclose(result.x, value, atol=1e-5)


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


@needs_jit
@pytest.mark.parametrize("call", range(1, 6))
@pytest.mark.parametrize("options", [{}, {"learning_rate": 0.01}], ids=["auto", "textbook"])
def test_exceptions_of_compiled_functions_propagate(call, options):
    @njit
    def failing(x, grad, counter):
        counter[0] += 1
        if counter[0] == call:
            raise ValueError("on purpose")
        grad[:] = jac(x, 10.0, np.ones(3))
        return fun(x, 10.0, np.ones(3))

    x0, counter = np.array(X0), np.zeros(1)
    for _ in range(2):
        with pytest.raises(ValueError, match="on purpose"):
            minimize(failing, x0, (counter,), jac="inplace", options=options)
        counter[0] = 0
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
