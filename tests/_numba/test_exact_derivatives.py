"""Exact derivatives against those of JAX, complex steps and gradients written by hand."""

from __future__ import annotations

import functools
import importlib.util
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from marks import needs_jit
from numba import njit

from rmsprop_nb import jacobian, testing, value_and_grad
from rmsprop_nb._numba.autodiff.gradients import width_for

pytestmark = needs_jit

GOLDEN = Path(__file__).parents[1] / "golden"
JAX = json.loads((GOLDEN / "gradients.json").read_text())


def load_cases():
    spec = importlib.util.spec_from_file_location("gradient_cases", GOLDEN / "gradient_cases.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["gradient_cases"] = module
    spec.loader.exec_module(module)
    return module


CASES = load_cases().CASES
wave = load_cases().wave


def derivatives(function, x, *args, chunk=4):
    """Return f and its gradient, from a function that is not compiled yet."""
    x = np.asarray(x)
    gradient = np.full_like(x, np.nan)
    return value_and_grad(njit(function), chunk=chunk)(x, gradient, *args), gradient


def test_there_are_many_objectives_and_all_have_golden_values():
    assert len(CASES) >= 50
    assert set(JAX) == {"versions", *CASES}


@pytest.mark.parametrize("name", CASES)
def test_as_jax(name):
    function, x, args = CASES[name]
    f, *gradient = map(float.fromhex, JAX[name])
    found, grad = derivatives(function, x, *args, chunk=width_for(x.size))
    np.testing.assert_allclose(found, f, rtol=1e-13)
    np.testing.assert_allclose(grad, gradient, rtol=1e-13, atol=1e-13 * np.max(np.abs(gradient)))


@pytest.mark.parametrize("problem", testing.PROBLEMS[::5], ids=lambda problem: problem.name)
def test_as_written_by_hand(problem):
    x = np.array(problem.x0)
    for point in (x, x + 0.3):
        grad = np.empty_like(point)
        f = value_and_grad(njit(problem.fun))(point, grad)
        expected = np.asarray(problem.jac(point))
        np.testing.assert_allclose(f, problem.fun(point), rtol=1e-14)
        np.testing.assert_allclose(grad, expected, rtol=1e-12, atol=1e-13 * max(1.0, np.abs(expected).max()))


# -- random expressions, as programs of a machine with a stack --------------------------------------------------------

OPERATIONS = ("x", "constant", "+", "-", "*", "/", "sin", "exp", "tanh", "log", "sqrt", "**3", "neg", "max", "if")
ARITY = {name: 2 if name in ("+", "-", "*", "/", "max", "if") else 1 for name in OPERATIONS[2:]}


def run_program(x, code, numbers):
    """Run a program: each operation takes its operands from the stack and puts its result there."""
    stack = np.empty(code.size + 1, x.dtype)
    top = -1
    for k in range(code.size):
        op = code[k]
        if op == 0:
            top += 1
            stack[top] = x[int(numbers[k]) % x.size]
        elif op == 1:
            top += 1
            stack[top] = numbers[k]
        elif op == 2:
            top -= 1
            stack[top] = stack[top] + stack[top + 1]
        elif op == 3:
            top -= 1
            stack[top] = stack[top] - stack[top + 1]
        elif op == 4:
            top -= 1
            stack[top] = stack[top] * stack[top + 1]
        elif op == 5:
            top -= 1
            stack[top] = stack[top] / (1.0 + stack[top + 1] * stack[top + 1])
        elif op == 6:
            stack[top] = np.sin(stack[top])
        elif op == 7:
            stack[top] = np.exp(-stack[top] * stack[top])
        elif op == 8:
            stack[top] = np.tanh(stack[top])
        elif op == 9:
            stack[top] = np.log(1.0 + stack[top] * stack[top])
        elif op == 10:
            stack[top] = np.sqrt(1.0 + stack[top] * stack[top])
        elif op == 11:
            stack[top] = stack[top] ** 3
        elif op == 12:
            stack[top] = -stack[top]
        elif op == 13:
            top -= 1
            if np.real(stack[top + 1]) > np.real(stack[top]):
                stack[top] = stack[top + 1]
        else:
            top -= 1
            stack[top] = stack[top] * 2.0 if np.real(stack[top + 1]) > 0.0 else stack[top + 1]
    return stack[top]


@functools.cache
def program_gradient(mode):
    return value_and_grad(njit(run_program), mode=mode)


@st.composite
def programs(draw):
    """Draw a program that leaves one number on the stack."""
    code, numbers, height = [], [], 0
    for _ in range(draw(st.integers(1, 25))):
        op = draw(st.sampled_from([name for name in OPERATIONS if ARITY.get(name, 0) <= height]))
        code.append(OPERATIONS.index(op))
        numbers.append(float(draw(st.integers(-3, 3))) if op in ("x", "constant") else 0.0)
        height += 1 - ARITY.get(op, 0)
    while height > 1:
        code.append(OPERATIONS.index("*"))
        numbers.append(0.0)
        height -= 1
    return np.array(code), np.array(numbers)


@given(programs(), st.lists(st.floats(-2.0, 2.0), min_size=1, max_size=6))
def test_random_expressions_as_by_complex_steps(program, x):
    x = np.array(x)
    gradient = np.empty_like(x)
    f = program_gradient("forward")(x, gradient, *program)
    with np.errstate(all="ignore"):
        assert f == pytest.approx(run_program(x, *program), rel=1e-13, abs=1e-300)
        expected = [run_program(x + 1e-30j * unit, *program).imag / 1e-30 for unit in np.eye(x.size)]
    np.testing.assert_allclose(gradient, expected, rtol=1e-9, atol=1e-12 * max(1.0, np.abs(expected).max()))


# -- IEEE arithmetic, kinks, float32 ----------------------------------------------------------------------------------


def x_log_x(x):
    return x[0] * math.log(x[0]) + x[1]


def roots(x):
    return math.sqrt(x[0]) + np.linalg.norm(x) + x[1] ** 2


def overflowing(x):
    return math.exp(x[0]) * x[1]


def kinks(x):
    return abs(x[0]) + max(x[0], 0.0) + min(0.0, x[1]) + np.maximum(x[1], x[0]) + np.sign(x[0]) + math.floor(x[1])


@pytest.mark.parametrize(
    ("function", "x", "f", "gradient"),
    [
        (x_log_x, [0.0, 1.0], np.nan, [np.nan, np.nan]),
        (roots, [0.0, 0.0], 0.0, [np.inf, 0.0]),  # x[1] has no part in an infinite slope
        (overflowing, [800.0, 1.0], np.inf, [np.nan, np.nan]),
        (overflowing, [np.nan, 1.0], np.nan, [np.nan, np.nan]),
        (kinks, [0.0, 0.0], 0.0, [1.0, 1.0]),
        (kinks, [2.5, 3.0], 12.0, [2.0, 1.0]),
    ],
)
def test_at_edges(function, x, f, gradient):
    x = np.array(x)
    grad = np.empty(2)
    found = value_and_grad(njit(error_model="numpy")(function))(x, grad)
    np.testing.assert_array_equal(found, f)
    np.testing.assert_array_equal(grad, gradient)


def test_float32_is_computed_in_float32():
    function, x, args = CASES["gaussian_peak"]
    rounded = tuple(a.astype(np.float32) for a in args)
    f, grad = derivatives(function, x.astype(np.float32), *rounded)
    exact = derivatives(function, x.astype(np.float32).astype(float), *(a.astype(float) for a in rounded))
    assert grad.dtype == np.float32
    assert f != exact[0]
    np.testing.assert_allclose(f, exact[0], rtol=1e-6)
    np.testing.assert_allclose(grad, exact[1], rtol=1e-5, atol=1e-6)


def test_a_mixture_of_precisions_is_promoted_as_in_the_function():
    def mixed(x, a):
        return np.sum(x * a) + x[0] ** 3

    x, a = np.array([0.1, 0.2], np.float32), np.array([0.3, 0.7])
    f, grad = derivatives(mixed, x, a)
    assert f == njit(mixed)(x, a)
    np.testing.assert_allclose(grad, a + 3 * np.array([x[0], 0.0]) ** 2, rtol=1e-6)


# -- what a function may contain --------------------------------------------------------------------------------------


@njit
def power(x, n):
    return 1.0 if n == 0 else x * power(x, n - 1)


@njit
def filled(n):
    return np.ones(n)


def nested(x, inner, scale):
    def local(value):
        return value * scale

    buffer = filled(x.size)
    for i, value in enumerate(x):
        buffer[i] *= local(value)
    return inner(buffer, 2) + power(x[0], 3)


@njit
def squares(x, exponent):
    out = np.zeros_like(x)
    out[:] = x**exponent
    return np.sum(out)


@pytest.mark.filterwarnings("ignore:First-class function type")  # of Numba, for any function in *args
def test_functions_that_call_functions():
    f, grad = derivatives(nested, [1.5, 2.0], squares, 3.0)
    assert f == 9.0 * (1.5**2 + 2.0**2) + 1.5**3
    np.testing.assert_allclose(grad, [18 * 1.5 + 3 * 1.5**2, 36.0])


def pieces(x, data):
    rows = np.array([[x[0], 1.0], [0.0, x[1]]])
    s = np.sum(rows @ rows.T) + np.sum(np.concatenate((x, x[::-1])) ** 2) + np.median(x) + np.std(x)
    s += np.sum(np.sort(x) * np.arange(x.size)) + x[np.argmax(x)] + np.interp(x[0], data, data**2)
    s += np.sum(x[x > 0.0]) + (x[0] if x[1] > 0.0 else 0.0) + np.sum(np.full(3, x[1])) + np.sum(np.cumprod(x))
    return s + np.sum(np.vstack((x, x)).sum(axis=0)) + x.mean() + x.prod() + x.max() - x.min() + np.var(x)


def test_array_functions_as_by_differences():
    x, data = np.array([0.7, 0.4, 1.3]), np.linspace(0.0, 2.0, 5)
    f, grad = derivatives(pieces, x, data)
    assert f == pytest.approx(pieces(x, data), rel=1e-14)
    for i, unit in enumerate(np.eye(3)):
        slope = (pieces(x + 1e-6 * unit, data) - pieces(x - 1e-6 * unit, data)) / 2e-6
        assert grad[i] == pytest.approx(slope, rel=1e-7)


def test_chunks_give_the_same_bits():
    function, x, args = CASES["discrete_boundary_value"]
    expected = derivatives(function, x, *args, chunk=8)[1]
    for chunk in (1, 5):
        np.testing.assert_array_equal(derivatives(function, x, *args, chunk=chunk)[1], expected)


def test_the_function_is_left_alone():
    function = njit(CASES["garch"][0])
    _, x, args = CASES["garch"]
    value_and_grad(function)(x, np.empty(3), *args)
    assert not function.signatures


def test_args_may_be_read_only_and_share_memory_with_x():
    def product(x, a):
        return np.sum(x * a)

    x = np.array([1.0, 2.0])
    f, grad = derivatives(product, x, x)
    np.testing.assert_array_equal(grad, [1.0, 2.0])
    x.flags.writeable = False
    assert value_and_grad(njit(product))(x, grad, x) == f


def test_parallel_and_declared_functions():
    def cubes(x):
        return np.sum(x**3)

    x, grad = np.array([1.0, 2.0]), np.empty(2)
    for decorate in (njit(parallel=True), njit("float64(float64[::1])"), njit(fastmath=True)):
        assert value_and_grad(decorate(cubes))(x, grad) == 9.0
        np.testing.assert_array_equal(grad, [3.0, 12.0])


# -- Jacobians --------------------------------------------------------------------------------------------------------


def test_jacobian():
    def residuals(p, t, y):
        return p[0] * np.exp(-p[1] * t) - y

    p, t = np.array([2.0, 0.5]), np.linspace(0.0, 1.0, 6)
    matrix = jacobian(njit(residuals), chunk=1)(p, t, t)
    e = np.exp(-0.5 * t)
    np.testing.assert_allclose(matrix, np.stack([e, -2.0 * t * e], axis=1), rtol=1e-14)


def test_jacobian_of_a_constant_and_of_a_buffer():
    def parts(x):
        out = np.zeros(3)
        out[1] = x[0] * x[1]
        return out

    x = np.array([2.0, 3.0])
    np.testing.assert_array_equal(jacobian(njit(parts))(x), [[0.0, 0.0], [3.0, 2.0], [0.0, 0.0]])
    np.testing.assert_array_equal(jacobian(njit(lambda x: np.ones(2)))(x), np.zeros((2, 2)))


# -- what is refused --------------------------------------------------------------------------------------------------


def to_integer(x):
    return 1.0 * int(x[0])


def to_numpy_integer(x):
    return 1.0 * np.int64(x[0])


def into_argument(x, a):
    a[0] = x[0]
    return a[0]


def added_to_argument(x, a):
    a += x
    return a[0]


def into_list(x):
    items = [0.0, 0.0]
    items[0] = x[0]
    return items[0]


def as_integers(x):
    return 1.0 * x.astype(np.int64)[0]


def solved(x):
    return np.linalg.solve(np.eye(2), x)[0]


def returns_pair(x):
    return x[0], x[1]


PLAIN_ARRAY = "array of plain numbers .* make the array inside the function"


@pytest.mark.parametrize(
    ("function", "args", "message"),
    [
        (to_integer, (), r"int\(\) .* drops its derivatives; .* math.floor"),
        (to_numpy_integer, (), "int64 has no derivative"),
        (into_argument, (np.zeros(2),), PLAIN_ARRAY),
        (added_to_argument, (np.zeros(2),), PLAIN_ARRAY),
        (into_list, (), "list that was made of plain numbers"),
        (as_integers, (), "astype.int64.* would drop"),
        (solved, (), "solve has no derivative"),
        (returns_pair, (), "must return one real number, not"),
    ],
)
def test_refused_by_name(function, args, message):
    with pytest.raises(TypeError, match=rf"{function.__name__} cannot be differentiated: .*{message}") as info:
        derivatives(function, [1.0, 2.0], *args)
    if function is not returns_pair:
        lines = function.__code__.co_firstlineno, function.__code__.co_firstlineno + 4
        assert any(f"{Path(__file__).name}, line {line})" in str(info.value) for line in range(*lines))


def test_arguments_of_the_functions_themselves():
    with pytest.raises(TypeError, match=r"value_and_grad needs a function compiled with numba\.njit"):
        value_and_grad(x_log_x)
    with pytest.raises(ValueError, match="chunk must be at most 8, got 9"):
        jacobian(njit(x_log_x), chunk=9)
    function = value_and_grad(njit(x_log_x))
    with pytest.raises(ValueError, match="grad must have as many elements as x"):
        function(np.ones(2), np.ones(3))
    with pytest.raises(TypeError, match="an array with one dimension"):
        function(np.ones((2, 2)), np.ones(2))


# -- reverse mode -----------------------------------------------------------------------------------------------------


def reverse(function, x, *args):
    gradient = np.full_like(x, np.nan)
    return value_and_grad(njit(function), mode="reverse")(x, gradient, *args), gradient


IN_REVERSE = ["huber_loss", "clipped", "powers", "elementary"]


@pytest.mark.parametrize("name", IN_REVERSE)
def test_reverse_mode_as_jax(name):
    function, x, args = CASES[name]
    f, *gradient = map(float.fromhex, JAX[name])
    found, grad = reverse(function, x, *args)
    np.testing.assert_allclose(found, f, rtol=1e-13)
    np.testing.assert_allclose(grad, gradient, rtol=1e-13, atol=1e-13 * np.max(np.abs(gradient)))


@given(programs(), st.lists(st.floats(-2.0, 2.0), min_size=1, max_size=6))
def test_random_expressions_in_both_modes(program, x):
    x = np.array(x)
    forward, backward = np.empty((2, x.size))
    f = program_gradient("forward")(x, forward, *program)
    assert program_gradient("reverse")(x, backward, *program) == f
    np.testing.assert_allclose(backward, forward, rtol=1e-11, atol=1e-13 * max(1.0, np.abs(forward).max()))


def repeated(x, times):
    s = 0.0
    for _ in range(times):
        for i in range(x.size):
            s = 0.5 * s + x[i] * x[i - 1]
    return s


def test_a_tape_grows_and_past_its_bound_gives_way_to_forward_mode(monkeypatch):
    x = np.linspace(0.1, 1.0, 20)
    expected = derivatives(repeated, x, 500)[1]
    in_reverse = value_and_grad(njit(repeated), mode="reverse")
    gradient = np.empty_like(x)
    for times in (1, 500, 2, 500):
        in_reverse(x, gradient, times)
    np.testing.assert_allclose(gradient, expected, rtol=1e-13)
    monkeypatch.setattr("rmsprop_nb._numba.autodiff.gradients.MOST_RECORDS", 5000)
    bounded = value_and_grad(njit(repeated), mode="reverse")
    bounded(x, gradient, 500)
    np.testing.assert_allclose(gradient, derivatives(repeated, x, 500, chunk=8)[1], rtol=1e-15)


def test_reverse_mode_in_float32_and_of_constants():
    def squares_and_more(x, a):
        return np.sum(x * x * a) + np.float32(3.0) * x[0]

    x = np.linspace(0.5, 1.0, 5).astype(np.float32)
    f, grad = reverse(squares_and_more, x, x)
    assert f == derivatives(squares_and_more, x, x)[0]
    np.testing.assert_allclose(grad, 2.0 * x * x + 3.0 * (np.arange(5) == 0), rtol=1e-6)
    np.testing.assert_array_equal(reverse(lambda x: 2.0, x)[1], 0.0)
    np.testing.assert_array_equal(reverse(lambda x: x[1], x)[1], [0.0, 1.0, 0.0, 0.0, 0.0])


def products(x, M, b):
    hidden = np.tanh(M @ x)
    chosen = np.zeros(6)
    chosen[2] = x[1]
    s = np.dot(b[:5], hidden) + (M @ chosen)[1] + np.dot(x, b)
    return s + np.trace(M[:3, :2].copy() @ x.reshape((2, 3)))


def test_products_with_constant_matrices():
    x, M, b = wave(6), wave(30, 2.0).reshape(5, 6), wave(6, 3.0)
    in_reverse = value_and_grad(njit(products), mode="reverse")
    grad = np.empty(6)
    assert in_reverse(x, grad, M, b) == pytest.approx(products(x, M, b), rel=1e-14)
    for i, unit in enumerate(np.eye(6)):
        slope = (products(x + 1e-6 * unit, M, b) - products(x - 1e-6 * unit, M, b)) / 2e-6
        assert grad[i] == pytest.approx(slope, rel=1e-6)
    with pytest.raises(ValueError, match="inner dimensions"):
        in_reverse(x, grad, np.ones((2, 3)), b)
