"""What callers of SciPy's minimize pass and expect, beyond our own arguments."""

from __future__ import annotations

import numpy as np
import pytest
from numba import njit
from scipy.optimize import rosen, rosen_der

from rmsprop_nb import minimize, minimize_batch


@pytest.mark.parametrize("none", [(), [], {}, None, np.array([])])
def test_keywords_at_their_defaults_are_accepted(none):
    assert minimize(rosen, [0.5, 0.5], hess=None, hessp=None, constraints=none).success


@pytest.mark.parametrize(
    ("keyword", "remedy"),
    [
        ({"hess": np.eye(2)}, "leave out hess"),
        ({"hessp": lambda x, p: p}, "leave out hess"),
        ({"constraints": {"type": "eq", "fun": sum}}, "'SLSQP' or 'trust-constr'"),
    ],
)
def test_keywords_that_mean_something_else_are_answered(keyword, remedy):
    with pytest.raises(ValueError, match=remedy):
        minimize(rosen, [0.5, 0.5], **keyword)


@pytest.mark.parametrize("method", [None, "RMSprop", "rmsprop_lbfgs"])
def test_methods_may_be_spelled_as_scipy_allows(method):
    assert minimize(rosen, [0.5, 0.5], method=method).success


@pytest.mark.parametrize("compiled", [False, True])
def test_forgotten_jac_is_said(compiled):
    def pair(x):
        return (x**2).sum(), 2.0 * x

    fun = njit(pair) if compiled else pair
    with pytest.raises(TypeError, match=r"if it is \(f, gradient\), pass jac=True, in place of any other jac"):
        minimize(fun, [5.0, 2.0])
    assert minimize(fun, [5.0, 2.0], jac=True).success
    with pytest.raises(TypeError, match="one real number, got a pair"):
        minimize(lambda x: list(pair(x)), [5.0, 2.0], jac="cs")
    with pytest.raises(TypeError, match="one real number, got 3 values"):
        minimize(lambda x: (1.0, 2.0, 3.0), [5.0, 2.0])


@njit
def with_default(x, grad, scale=2.0):
    grad[:] = scale * x
    return 0.5 * scale * np.sum(x * x)


@njit
def alone(x, shift, scale=2.0):
    return scale * np.sum((x - shift) ** 2)


@njit("c16(c16[:])")
def with_types(x):
    return (x * x).sum()


def test_default_arguments_are_those_of_a_call():
    one = minimize(with_default, [3.0], jac="inplace", options={"maxiter": 1})
    np.testing.assert_array_equal(one.x, minimize(with_default, [3.0], (2.0,), jac="inplace", options={"maxiter": 1}).x)
    for jac in ("cs", "3-point", None):
        assert minimize(alone, [3.0], (1.0,), jac=jac).x == pytest.approx(1.0)
    assert minimize(with_types, [3.0], jac="cs").success
    found = minimize_batch(alone, np.zeros((3, 1)), batch_args=(np.arange(3.0),))
    np.testing.assert_allclose(found.x[:, 0], np.arange(3.0), atol=1e-6)


def test_long_runs_are_told_of_the_other_method():
    short, long = ({"maxiter": 5}, {"maxiter": 5, "learning_rate": 1e-3})
    advice = 'method="rmsprop-lbfgs" may take far fewer'
    x0 = np.full(4, 2.0)
    assert advice in minimize(rosen, x0, jac=rosen_der, options=short).message
    assert advice not in minimize(rosen, x0, jac=rosen_der, options=long).message
    assert advice not in minimize(rosen, x0, (), "rmsprop-lbfgs", rosen_der, options=short).message
    assert advice not in minimize(rosen, x0, jac=rosen_der).message
