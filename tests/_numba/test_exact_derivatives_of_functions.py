"""What a function may contain whose exact derivatives are wanted, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from derivatives import CASES, derivatives
from marks import needs_jit
from numba import njit

from rmsprop_nb import jacobian, value_and_grad

pytestmark = needs_jit


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


@pytest.mark.thorough
def test_array_functions_as_by_differences():
    x, data = np.array([0.7, 0.4, 1.3]), np.linspace(0.0, 2.0, 5)
    f, grad = derivatives(pieces, x, data)
    assert f == pytest.approx(pieces(x, data), rel=1e-14)
    for i, unit in enumerate(np.eye(3)):
        slope = (pieces(x + 1e-6 * unit, data) - pieces(x - 1e-6 * unit, data)) / 2e-6
        assert grad[i] == pytest.approx(slope, rel=1e-7)


def test_the_function_is_left_alone():
    function = njit(CASES["garch"][0])
    _, x, args = CASES["garch"]
    value_and_grad(function)(x, np.empty(3), *args)
    assert not function.signatures


def test_args_may_be_read_only_and_share_memory_with_x():
    def scalar_product(x, a):
        return np.sum(x * a)

    x = np.array([1.0, 2.0])
    f, grad = derivatives(scalar_product, x, x)
    np.testing.assert_array_equal(grad, [1.0, 2.0])
    x.flags.writeable = False
    assert value_and_grad(njit(scalar_product))(x, grad, x) == f


def test_parallel_and_declared_functions():
    def cubes(x):
        return np.sum(x**3)

    x, grad = np.array([1.0, 2.0]), np.empty(2)
    for decorate in (njit(parallel=True), njit("float64(float64[::1])"), njit(fastmath=True)):
        assert value_and_grad(decorate(cubes))(x, grad) == 9.0
        np.testing.assert_array_equal(grad, [3.0, 12.0])


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


def product(x):
    return x[0] * x[1]


def test_arguments_of_the_functions_themselves():
    with pytest.raises(TypeError, match=r"value_and_grad needs a function compiled with numba\.njit"):
        value_and_grad(product)
    with pytest.raises(ValueError, match="chunk must be at most 16, got 17"):
        jacobian(njit(product), chunk=17)
    function = value_and_grad(njit(product))
    with pytest.raises(ValueError, match="grad must have as many elements as x"):
        function(np.ones(2), np.ones(3))
    with pytest.raises(TypeError, match="an array with one dimension"):
        function(np.ones((2, 2)), np.ones(2))
