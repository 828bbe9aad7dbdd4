"""`curve_fit` has SciPy's signature, meaning, return values and kinds of errors."""

from __future__ import annotations

import inspect
import warnings

import numpy as np
import pytest
import scipy.optimize
from curves import START, T, decay, decay_jac, noisy
from numba import njit

from rmsprop_nb import curve_fit


@njit
def line(x, slope, height):
    return slope * x + height


def both(f, *args, **given):
    return curve_fit(f, *args, **given), scipy.optimize.curve_fit(f.py_func, *args, **given)


COVARIANCE = 0.01 * np.exp(-np.abs(T[:, np.newaxis] - T)) + 0.001 * np.eye(T.size)
CALLS = {
    "defaults": {},
    "p0": {"p0": START},
    "p0 as a list": {"p0": [1, 1, 0]},
    "sigma": {"p0": START, "sigma": np.linspace(0.5, 2.0, T.size)},
    "sigma is a number": {"p0": START, "sigma": 0.3, "absolute_sigma": True},
    "absolute sigma": {"p0": START, "sigma": np.linspace(0.5, 2.0, T.size), "absolute_sigma": True},
    "covariance": {"p0": START, "sigma": COVARIANCE},
    "absolute covariance": {"p0": START, "sigma": COVARIANCE, "absolute_sigma": True},
    "bounds": {"bounds": (0.0, [3.0, 2.0, 1.0])},
    "bounds that are reached": {"bounds": ([0.0, 0.0, 0.6], [3.0, 2.0, 1.0])},
    "one-sided bounds": {"bounds": (0.0, np.inf)},
    "Bounds": {"bounds": scipy.optimize.Bounds([0.0, 0.0, 0.0], [3.0, 2.0, 1.0])},
    "trf": {"p0": START, "method": "trf"},
    "dogbox": {"p0": START, "method": "dogbox", "bounds": (-1.0, 9.0)},
    "lm": {"p0": START, "method": "lm"},
    "3-point": {"p0": START, "method": "trf", "jac": "3-point"},
    "loss": {"p0": START, "method": "trf", "loss": "huber", "f_scale": 0.05},
    "tolerances": {"p0": START, "ftol": 1e-12, "xtol": 1e-12, "gtol": 1e-12},
    "maxfev": {"p0": START, "maxfev": 500},
    "max_nfev": {"p0": START, "method": "trf", "max_nfev": 500},
    "x_scale": {"p0": START, "method": "trf", "x_scale": "jac"},
    "check_finite": {"p0": START, "check_finite": False},
    "nan_policy": {"p0": START, "nan_policy": "omit"},
}


@pytest.mark.parametrize("given", CALLS.values(), ids=CALLS)
def test_calls_give_what_scipy_gives(given):
    y = noisy()
    if "nan_policy" in given:
        y[[3, 8]] = np.nan
    (popt, pcov), (expected, covariance) = both(decay, T, y, **given)
    np.testing.assert_allclose(popt, expected, rtol=2e-5)
    np.testing.assert_allclose(pcov, covariance, rtol=1e-3)  # SciPy's derivatives are differences


def test_data_may_be_lists_and_of_any_real_type():
    for x, y in (([0, 1, 2, 3], [1, 3, 5, 8]), (np.arange(4, dtype=np.int8), np.array([1, 3, 5, 8], np.float32))):
        (popt, pcov), (expected, covariance) = both(line, x, y)
        np.testing.assert_allclose(popt, expected, rtol=1e-6)
        np.testing.assert_allclose(pcov, covariance, rtol=1e-5)


def test_jac_is_scipys():
    y = noisy()
    popt, pcov = curve_fit(decay, T, y, START, jac=decay_jac)
    expected, covariance = scipy.optimize.curve_fit(decay.py_func, T, y, START, jac=decay_jac.py_func)
    np.testing.assert_allclose(popt, expected, rtol=1e-6)
    np.testing.assert_allclose(pcov, covariance, rtol=1e-5)


def test_full_output_is_scipys():
    y = noisy()
    ours, theirs = both(decay, T, y, START, full_output=True)
    assert len(ours) == len(theirs) == 5
    np.testing.assert_allclose(ours[2]["fvec"], theirs[2]["fvec"], atol=1e-6)
    assert isinstance(ours[2]["nfev"], int)
    assert isinstance(ours[3], str)
    assert ours[4] in (1, 2, 3, 4)


ERRORS = {
    "no data": (ValueError, {"xdata": [], "ydata": []}),
    "NaN": (ValueError, {"ydata": np.full(T.size, np.nan)}),
    "infinite x": (ValueError, {"xdata": np.full(T.size, np.inf)}),
    "sigma of another length": (ValueError, {"sigma": np.ones(4)}),
    "sigma not positive definite": (ValueError, {"sigma": np.zeros((T.size, T.size))}),
    "p0 outside": (ValueError, {"bounds": (2.0, 3.0)}),
    "empty box": (ValueError, {"bounds": (1.0, -1.0)}),
    "bounds of another length": (ValueError, {"bounds": ([0.0, 0.0], [1.0, 1.0])}),
    "method": (ValueError, {"method": "nobody's"}),
    "nan_policy": (ValueError, {"nan_policy": "propagate"}),
    "loss": (ValueError, {"loss": "nobody's", "method": "trf"}),
    "args": ((ValueError, TypeError), {"args": (3.0,)}),
    "no convergence": (RuntimeError, {"maxfev": 2}),
    "unknown": (TypeError, {"nobody": 3}),
}


@pytest.mark.parametrize(("kind", "given"), ERRORS.values(), ids=ERRORS)
def test_errors_are_of_scipys_kinds(kind, given):
    call = {"xdata": T, "ydata": noisy(), "p0": START} | given
    with pytest.raises(kind):
        curve_fit(decay, **call)
    with pytest.raises(kind):
        scipy.optimize.curve_fit(decay.py_func, **call)


def test_covariances_that_cannot_be_estimated_are_infinite_with_a_warning():
    for f in (curve_fit, scipy.optimize.curve_fit):
        with pytest.warns(scipy.optimize.OptimizeWarning, match="could not be estimated"):
            popt, pcov = f(line.py_func, [0.0, 1.0], [1.0, 3.0])
        np.testing.assert_allclose(popt, [2.0, 1.0])
        assert np.isinf(pcov).all()


def test_many_fits_warn_once():
    y = noisy(5)
    y[1:3] = np.inf
    with pytest.warns(scipy.optimize.OptimizeWarning, match="2 of 5 fits failed") as caught:
        popt, pcov = curve_fit(decay, T, y, START, check_finite=False)
    assert len(caught) == 1
    assert np.isnan(popt[1:3]).all()
    assert np.isinf(pcov[1:3]).all()
    assert np.isfinite(popt[[0, 3, 4]]).all()


def test_leading_axes_are_taken():
    y = noisy(2, 2)
    popt, pcov, info, message, ier = curve_fit(decay, T, y, START, full_output=True, workers=2)
    assert (popt.shape, pcov.shape, info["nfev"].shape, message.shape, ier.shape) == (
        (2, 2, 3),
        (2, 2, 3, 3),
        *[(2, 2)] * 3,
    )
    assert set(ier.ravel()) <= {1, 2, 3, 4}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(popt[1, 0], curve_fit(decay, T, y[1, 0], START)[0])


def test_signature_begins_as_scipys():
    ours, theirs = (list(inspect.signature(f).parameters) for f in (curve_fit, scipy.optimize.curve_fit))
    assert ours[: theirs.index("kwargs")] == theirs[:-1]


@pytest.mark.parametrize("name", ["x_scale", "diag", "factor", "epsfcn"])
def test_what_has_no_meaning_is_refused(name):
    with pytest.raises(TypeError, match=name):
        curve_fit(decay, T, noisy(), START, **{name: [1.0, 1.0, 1.0]})


@pytest.mark.parametrize("jac", [None, "3-point"])
@pytest.mark.parametrize("wiggle", [0.0, 0.1])
@pytest.mark.parametrize("true", [(0.0, 10.0), (-10.0, 0.0), (0.0, 0.0, -1.0), (-10.0, 1e-3, 0.0), (0.0, 1.0, 0.0)])
def test_parameters_that_vanish_at_the_minimum(true, wiggle, jac):
    """Steps of differences that are relative to a parameter vanish with it."""
    x = np.arange(9.0)
    model = (lambda x, a, b: a + b * x) if len(true) == 2 else lambda x, a, b, c: a + b * x + c * x * x
    y = model(x, *true) + wiggle * (x % 2)
    popt, _ = curve_fit(model, x, y, jac=jac)
    expected = np.polynomial.polynomial.polyfit(x, y, len(true) - 1)
    np.testing.assert_allclose(popt, expected, atol=1e-6)
