"""The check of a gradient: right ones pass in any units, and each usual fault is named."""

from __future__ import annotations

import numpy as np
import pytest
from numba import njit
from scipy.optimize import rosen, rosen_der

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


def test_what_cannot_be_told_is_said():
    found = check_gradient(lambda x: 1e12 + x @ x, X, lambda x: 2.0 * x)
    assert found.ok
    assert "tell little" in repr(found)


@pytest.mark.parametrize("jac", [None, "2-point", "3-point"])
def test_differences_are_no_gradient_to_check(jac):
    with pytest.raises(ValueError, match="gives no gradient to check; pass the function"):
        check_gradient(quadratic, X, jac)


def test_point_must_be_in_the_domain():
    with pytest.raises(ValueError, match="fun must be finite at x, got nan"):
        check_gradient(lambda x: np.nan, X, gradient)
