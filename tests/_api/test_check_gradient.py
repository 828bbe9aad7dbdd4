"""The check of a gradient: right ones pass in any units, and each usual fault is named."""

from __future__ import annotations

import numpy as np
import pytest
from numba import njit
from scipy.optimize import Bounds, rosen, rosen_der

from rmsprop_nb import check_gradient

X = np.random.default_rng(0).normal(size=6)
MATRIX = np.random.default_rng(1).normal(size=(6, 6))


def quadratic(x):
    return x @ MATRIX @ x / 2.0


def gradient(x):
    return (MATRIX + MATRIX.T) @ x / 2.0


@njit
def inplace(x, grad, c):
    f = 0.0
    for i in range(x.size):
        grad[i] = c * np.exp(x[i])
        f += c * np.exp(x[i])
    return f


@pytest.mark.parametrize("x_unit", [1e-12, 1.0, 1e9])
@pytest.mark.parametrize("f_unit", [1e-15, 1.0, 1e20])
def test_right_gradient_passes_in_any_units(x_unit, f_unit):
    found = check_gradient(
        lambda x: f_unit * rosen(x / x_unit), X * x_unit, lambda x: f_unit * rosen_der(x / x_unit) / x_unit
    )
    assert found.ok
    assert not found.wrong.any()
    assert repr(found) == "0 of 6 elements of the gradient are wrong."
    assert (np.abs(found.gradient - found.differences) <= 10 * found.error).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_form_of_a_gradient_can_be_checked(dtype):
    x = X.astype(dtype)
    assert check_gradient(inplace, x, "inplace", (2.0,)).ok
    assert check_gradient(lambda x: (quadratic(x), gradient(x)), x, True).ok
    assert check_gradient(lambda x: (x**3).sum(), x, "cs").ok
    assert check_gradient(njit(lambda x: (x**3).sum()), x, njit(lambda x: 3.0 * x**2)).ok


def test_zeros_and_huge_values_are_no_faults():
    assert check_gradient(lambda x: 1e6 + x @ x, np.array([0.0, 1e-3, 1e3]), lambda x: 2.0 * x).ok
    assert check_gradient(lambda x: 3.0, np.ones(2), np.zeros_like).ok


FAULTS = {
    "sign": (lambda x: -gradient(x), "every element has the opposite sign", 6),
    "factor": (lambda x: 2.0 * gradient(x), "every element is 2 times what it should be", 6),
    "order": (lambda x: np.roll(gradient(x), 1), "the elements are in another order", 6),
    "one element": (lambda x: gradient(x) + np.array([0, 0, 1e-2, 0, 0, 0]), "", 1),
    "transposed": (lambda x: MATRIX @ x, "", 6),
    "NaN": (lambda x: gradient(x) * np.array([1, 1, 1, np.nan, 1, 1]), "", 1),
}


@pytest.mark.parametrize(("wrong", "fault", "count"), FAULTS.values(), ids=FAULTS)
def test_faults_are_found_and_named(wrong, fault, count):
    found = check_gradient(quadratic, X, wrong)
    assert not found.ok
    assert found.wrong.sum() == count
    assert repr(found).startswith(f"{count} of 6 elements of the gradient are wrong.")
    assert ("Likely fault" in repr(found)) == bool(fault)
    assert fault in repr(found)
    assert len(repr(found).splitlines()) == 2 + count + bool(fault)


@pytest.mark.parametrize("length", [1e-12, 1e-6, 1e-3, 1e3, 1e6])
@pytest.mark.parametrize("x", [0.0, 1.0])
def test_f_may_vary_over_any_distance(length, x):
    def fun(x):
        return np.exp(-0.5 * ((x[0] - 0.3 * length) / length) ** 2)

    def derivative(x):
        return -fun(x) * (x - 0.3 * length) / length**2

    point = [x * length]
    assert check_gradient(fun, point, derivative).ok
    assert not check_gradient(fun, point, lambda x: -derivative(x)).ok


def test_fast_oscillation_is_no_fault():
    assert check_gradient(lambda x: np.sin(1e7 * x[0]), [1.0], lambda x: 1e7 * np.cos(1e7 * x)).ok
    assert check_gradient(
        lambda x: np.sin(10 * (x[0] - 738000)), [738000.3], lambda x: 10 * np.cos(10 * (x - 738000))
    ).ok


def test_gradient_is_taken_once():
    calls = []
    check_gradient(quadratic, X, lambda x: calls.append(1) or gradient(x))
    assert len(calls) == 1


def test_what_cannot_be_told_is_said_and_is_not_ok():
    found = check_gradient(lambda x: 1e30 + x @ x, X, lambda x: 2.0 * x)
    assert (found.verdict, found.ok, found.wrong.any()) == ("undecided", False, False)
    assert found.undecided.all()
    assert "6 are undecided" in repr(found)
    assert check_gradient(quadratic, X, gradient).verdict == "right"
    assert check_gradient(quadratic, X, lambda x: -gradient(x)).verdict == "wrong"


@pytest.mark.parametrize("place", [0.0, 1e-9, 1e-3, 0.4, 0.5, 1.0 - 1e-9, 1.0])
def test_steps_stay_within_bounds(place):
    lower, upper = np.array([-1.0, 1e-6, 3e5]), np.array([1.0, 2e-6, 4e5])

    def inside(x):
        assert (lower <= x).all()
        assert (x <= upper).all()
        return np.sin(x[0]) + np.log(1e6 * x[1]) * x[0] + np.sqrt(x[2])

    def slopes(x):
        return np.array([np.cos(x[0]) + np.log(1e6 * x[1]), x[0] / x[1], 0.5 / np.sqrt(x[2])])

    x = np.clip(lower + place * (upper - lower), lower, upper)
    assert check_gradient(inside, x, slopes, bounds=Bounds(lower, upper)).ok
    wrong = check_gradient(inside, x, lambda x: slopes(x) * [1, 1, 1.1], bounds=list(zip(lower, upper, strict=True)))
    assert wrong.wrong.tolist() == [False, False, True]


def test_variable_without_room_is_undecided():
    found = check_gradient(quadratic, X, gradient, bounds=[(None, None)] * 5 + [(X[5], X[5])])
    assert found.undecided.tolist() == [False] * 5 + [True]


@pytest.mark.parametrize(
    ("x", "bounds", "message"),
    [
        ([[1.0]], None, "x must have one dimension"),
        ([np.nan], None, "x must be finite"),
        ([2.0], [(0, 1)], r"x must be within the bounds, got 2.0 at index 0"),
        ([2.0], [(0, 1), (0, 1)], "one for each variable"),
    ],
)
def test_errors_name_its_own_arguments(x, bounds, message):
    with pytest.raises(ValueError, match=message):
        check_gradient(lambda x: x @ x, x, lambda x: 2.0 * x, bounds=bounds)


@pytest.mark.parametrize("jac", [None, "2-point", "3-point"])
def test_differences_are_no_gradient_to_check(jac):
    with pytest.raises(ValueError, match="gives no gradient to check; pass the function"):
        check_gradient(quadratic, X, jac)


def test_point_must_be_in_the_domain():
    with pytest.raises(ValueError, match="fun must be finite at x, got nan"):
        check_gradient(lambda x: np.nan, X, gradient)
