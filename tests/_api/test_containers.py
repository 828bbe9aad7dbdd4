"""Parameters in containers: a run is that of the vector that holds all arrays, bit for bit."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from marks import needs_jit, some
from numba import njit
from scipy.optimize import Bounds

from rmsprop_nb import check_gradient, minimize, minimize_minibatch

A = np.array([1.0, -2.0, 0.5])


class Layer(NamedTuple):
    W: np.ndarray
    b: np.ndarray
    c: float


def value(p, a):
    W, b, c = p
    return 0.5 * np.sum((W @ a - 1.0) ** 2) + np.sum((b - 2.0) ** 2) + (c - 3.0) ** 4


def slopes(p, a):
    W, b, c = p
    return Layer(np.outer(W @ a - 1.0, a), 2.0 * (b - 2.0), 4.0 * (c - 3.0) ** 3)


def pair(p, a):
    return value(p, a), slopes(p, a)


def inplace(p, grad, a):
    W, b, c = slopes(p, a)
    grad.W[:], grad.b[:] = W, b
    grad.c[...] = c
    return value(p, a)


def unpacked(x):
    return Layer(x[:6].reshape(2, 3), x[6:8], x[8])


def packed(g):
    return np.concatenate([g.W.ravel(), g.b, [g.c]])


def flat_value(x, a):
    return value(unpacked(x), a)


def flat_slopes(x, a):
    return packed(slopes(unpacked(x), a))


def start(dtype=np.float64):
    return Layer(np.arange(6.0, dtype=dtype).reshape(2, 3), np.zeros(2, dtype), dtype(1.0))


FLAT = np.array([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 0.0, 0.0, 1.0])


def same(nested, flat):
    np.testing.assert_array_equal(packed(nested.x), flat.x)
    np.testing.assert_array_equal(packed(nested.jac), flat.jac)
    assert isinstance(nested.x, Layer)
    assert isinstance(nested.jac, Layer)
    assert (nested.fun, nested.nit, nested.nfev, nested.status) == (flat.fun, flat.nit, flat.nfev, flat.status)


@pytest.mark.parametrize("dtype", some([np.float64, np.float32], 2))
@pytest.mark.parametrize("form", some(["value", "pair", "inplace", "callable", "cs"], 3))
def test_every_form_of_the_gradient(form, dtype):
    fun, jac = {
        "value": (value, "3-point"),
        "pair": (pair, True),
        "inplace": (inplace, "inplace"),
        "callable": (value, slopes),
        "cs": (value, "cs"),
    }[form]
    flat_jac = {"value": "3-point", "cs": "cs"}.get(form, flat_slopes)
    a, tol = A.astype(dtype), 1e-3
    nested = minimize(fun, start(dtype), a, jac=jac, tol=tol)
    same(nested, minimize(flat_value, FLAT.astype(dtype), a, jac=flat_jac, tol=tol))
    assert nested.x.W.dtype == dtype


@pytest.mark.thorough
@needs_jit
@pytest.mark.slow
def test_compiled_functions():
    compiled = njit(value)
    gradient = njit(slopes)

    @njit
    def both(p, a):
        return compiled(p, a), gradient(p, a)

    @njit
    def fills(p, grad, a):
        W, b, c = p
        grad[0][:] = np.outer(W @ a - 1.0, a)
        grad[1][:] = 2.0 * (b - 2.0)
        grad[2][0] = 4.0 * (c[0] - 3.0) ** 3
        return 0.5 * np.sum((W @ a - 1.0) ** 2) + np.sum((b - 2.0) ** 2) + (c[0] - 3.0) ** 4

    expected = minimize(flat_value, FLAT, A, jac=flat_slopes)
    for found in (minimize(both, start(), A, jac=True), minimize(compiled, start(), A, jac=gradient)):
        np.testing.assert_allclose(packed(found.x), expected.x, rtol=1e-6)
        assert (found.gradient, found.success) == ("given", True)
    exact = minimize(compiled, start(), A)
    np.testing.assert_allclose(packed(exact.x), expected.x, rtol=1e-6)
    assert exact.gradient == "autodiff"
    W, b, c = start()
    filled = minimize(fills, [W, b, np.array([c])], A, jac="inplace")
    assert isinstance(filled.x, list)
    np.testing.assert_allclose(np.concatenate([part.ravel() for part in filled.x]), expected.x, rtol=1e-6)
    with pytest.raises(TypeError, match=r"jac='inplace' fills arrays, and x0 has a number"):
        minimize(fills, start(), A, jac="inplace")

    @njit
    def turned(p, a):
        return compiled(p, a), (p.W.T.copy(), p.b, p.c)

    with pytest.raises(ValueError, match="an array of a gradient has another shape"):
        minimize(turned, start(), A, jac=True)


@needs_jit
def test_code_around_a_compiled_function_is_made_once():
    compiled = njit(value)
    minimize(compiled, start(), A, jac="2-point")
    from rmsprop_nb._numba.nested_arrays import of_vector

    before = of_vector.cache_info().misses
    minimize(compiled, start(), A, jac="2-point")
    assert of_vector.cache_info().misses == before


def test_nested_dicts_and_lists():
    x0 = {"layers": [{"W": np.zeros((2, 2))}, (np.ones(3), 2.0)], "scale": np.float64(4.0)}

    def fun(p):
        first, (b, c) = p["layers"]
        return np.sum((first["W"] - [[1.0, 2.0], [3.0, 4.0]]) ** 2) + np.sum((b + c) ** 2) + (p["scale"] - 5.0) ** 2

    found = minimize(fun, x0, tol=1e-6)
    np.testing.assert_allclose(found.x["layers"][0]["W"], [[1.0, 2.0], [3.0, 4.0]], atol=1e-4)
    assert isinstance(found.x["layers"][1], tuple)
    assert found.x["scale"] == pytest.approx(5.0)
    assert "scale" in repr(found)
    np.testing.assert_array_equal(x0["layers"][0]["W"], 0.0)


@pytest.mark.parametrize(
    "bounds",
    [
        Layer((0.0, 0.4), (None, [1.0, 3.0]), (None, None)),
        [(0.0, 0.4), (-np.inf, [1.0, 3.0]), (None, np.inf)],
        Bounds([0.0] * 6 + [-np.inf] * 3, [0.4] * 6 + [1.0, 3.0, np.inf]),
    ],
    ids=["pairs", "list", "Bounds"],
)
def test_bounds(bounds):
    flat = Bounds([0.0] * 6 + [-np.inf] * 3, [0.4] * 6 + [1.0, 3.0, np.inf])
    same(
        minimize(pair, start(), A, jac=True, bounds=bounds), minimize(flat_value, FLAT, A, jac=flat_slopes, bounds=flat)
    )


def test_bounds_with_ends_in_dicts():
    found = minimize(
        lambda p: float((p["a"] - 1.0) @ (p["a"] - 1.0)), {"a": np.zeros(2)}, bounds=Bounds(-1, {"a": 0.5})
    )
    np.testing.assert_array_equal(found.x["a"], 0.5)


def test_options_for_each_variable_and_what_is_observed():
    seen, results = [], []

    def observed(xk):
        seen.append(xk)

    def with_result(intermediate_result):
        results.append(intermediate_result)

    options = {"x_scale": Layer(2.0, [1.0, 3.0], 0.5), "return_all": True, "maxiter": 4}
    flat = minimize(
        flat_value, FLAT, A, jac=flat_slopes, options=options | {"x_scale": [2.0] * 6 + [1.0, 3.0, 0.5]}
    )  # fmt: skip
    found = minimize(pair, start(), A, jac=True, callback=observed, options=options)
    same(found, flat)
    same(minimize(pair, start(), A, jac=True, callback=with_result, options=options), flat)
    for x, theirs, mine, result in zip(flat.allvecs[1:], found.allvecs[1:], seen, results, strict=True):
        for nested in (theirs, mine, result.x):
            np.testing.assert_array_equal(packed(nested), x)


def test_a_run_goes_on_with_its_state():
    whole = minimize(pair, start(), A, jac=True, options={"maxiter": 9})
    begun = minimize(pair, start(), A, jac=True, options={"maxiter": 5})
    resumed = minimize(pair, start(), A, jac=True, options={"maxiter": 4, "state": begun.state})
    np.testing.assert_array_equal(packed(resumed.x), packed(whole.x))


@pytest.mark.parametrize("learning_rate", ["auto", Layer(0.1, 0.2, 0.3)], ids=str)
def test_minibatches(learning_rate):
    rows = np.random.default_rng(0).normal(size=(40, 3))

    def fun(p, a):
        r = a @ p.W.T - 1.0
        return 0.5 * np.mean(r**2) + np.sum((p.b - 2.0) ** 2), Layer(r.T @ a / r.size, 2.0 * (p.b - 2.0), 0.0 * p.c)

    def flat(x, a):
        f, g = fun(unpacked(x), a)
        return f, packed(g)

    run = {"jac": True, "batch_size": 8, "epochs": 3, "rng": 0}
    rates = learning_rate if learning_rate == "auto" else [0.1] * 6 + [0.2, 0.2, 0.3]
    nested = minimize_minibatch(fun, start(), rows, learning_rate=learning_rate, **run)
    same(nested, minimize_minibatch(flat, FLAT, rows, learning_rate=rates, **run))


@pytest.mark.parametrize(
    ("x0", "error", "text"),
    [
        ({"W": np.zeros(2), "b": None}, TypeError, r"x0\['b'\] must be real numbers, got dtype object"),
        ({"W": np.array([1.0, np.nan])}, ValueError, r"x0\['W'\] must be finite, got nan at index 1"),
        ([np.zeros(2), np.zeros(0)], ValueError, r"x0\[1\] must have at least one element"),
        ({"W": np.ma.masked_array([1.0, 2.0], [1, 0])}, TypeError, r"x0\['W'\] must not be a masked array"),
        ({1: np.zeros(2)}, TypeError, r"the keys of x0 must be strings, got 1"),
        ({}, ValueError, "x0 must have at least one array, got empty containers"),
    ],
)
def test_what_is_no_array_is_named(x0, error, text):
    with pytest.raises(error, match=text):
        minimize(lambda p: 0.0, x0)


@pytest.mark.parametrize(
    ("gradient", "text"),
    [
        ({"W": np.zeros((3, 2)), "b": np.zeros(2)}, r"the gradient\['W'\] must have the shape \(2, 3\) of x0\['W'\]"),
        ({"W": np.zeros((2, 3))}, "the gradient must be a dict with the keys 'W', 'b', as in x0"),
        (np.zeros(8), "the gradient must be a dict .* got ndarray"),
    ],
)
def test_gradients_must_be_like_x0(gradient, text):
    with pytest.raises(ValueError, match=text):
        minimize(lambda p: (0.0, gradient), {"W": np.zeros((2, 3)), "b": np.zeros(2)}, jac=True)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"bounds": [(0.0, 1.0)] * 3}, "bounds must be a dict with the keys 'W', 'b', as in x0"),
        ({"bounds": {"W": 1.0, "b": (0.0, 1.0)}}, r"bounds\['W'\] must be a pair \(lower, upper\)"),
        ({"bounds": {"W": (0.0, [1.0, 2.0]), "b": (0.0, 1.0)}}, r"bounds\['W'\] must be a number, or an array of"),
        ({"options": {"x_scale": {"W": 1.0}}}, "x_scale must be a dict with the keys 'W', 'b', as in x0"),
        ({"jac": True}, "fun must return"),
    ],
)
def test_what_goes_with_x0_must_be_like_it(given, text):
    with pytest.raises((TypeError, ValueError), match=text):
        minimize(lambda p: 0.0, {"W": np.zeros((2, 3)), "b": np.zeros(2)}, **given)


@needs_jit
def test_compiled_functions_take_no_dicts():
    with pytest.raises(TypeError, match="x0 has a dict, which the compiled fun cannot take; use a named tuple"):
        minimize(njit(value), {"W": np.zeros((2, 3))}, A)


def test_gradients_in_containers_are_checked_and_their_elements_named():
    def fun(p):
        return float(np.sum(p["W"] ** 2) + np.sum(p["b"]))

    def wrong(p):
        g = {"W": 2.0 * p["W"], "b": np.ones(2)}
        g["W"][1, 2] += 1.0
        return g

    x = {"W": np.arange(6.0).reshape(2, 3), "b": np.zeros(2)}
    found = check_gradient(fun, x, wrong)
    assert "['W'][1, 2]" in repr(found)
    assert found.wrong.sum() == 1
    assert check_gradient(fun, x, lambda p: {"W": 2.0 * p["W"], "b": np.ones(2)}).ok
    with pytest.raises(TypeError, match=r"x\['b'\] must be real numbers"):
        check_gradient(fun, {"W": np.zeros(2), "b": None}, wrong)
