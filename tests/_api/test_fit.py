"""Fits of one curve and of many, against SciPy's curve_fit and against each curve by itself."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.optimize
from curves import START, TRUE, T, decay, decay_jac, decay_of_a_number, decay_of_an_array, noisy, plane, saturation
from numba import njit

from rmsprop_nb import Status, fit, load

TIGHT = {"ftol": 1e-15, "xtol": 1e-15, "gtol": 1e-15}
EXACT = {"ftol": 1e-15}


def scipys(y, t=T, **given):
    return scipy.optimize.curve_fit(decay.py_func, t, y, START, jac=decay_jac.py_func, **TIGHT, **given)


def close(result, expected, rtol=1e-6):
    popt, pcov = expected
    np.testing.assert_allclose(result.popt, popt, rtol=1e-7)
    np.testing.assert_allclose(result.pcov, pcov, rtol=rtol)
    np.testing.assert_allclose(result.perr, np.sqrt(np.diag(pcov)), rtol=rtol)


# -- one curve --------------------------------------------------------------------------------------------------------

MODELS = {
    "number or array": (decay, None, "autodiff"),
    "number": (decay_of_a_number, None, "autodiff"),
    "array": (decay_of_an_array, None, "autodiff"),
    "Python": (decay.py_func, None, "2-point"),
    "3-point": (decay, "3-point", "3-point"),
    "2-point of numbers": (decay_of_a_number, "2-point", "2-point"),
    "cs": (decay, "cs", "cs"),
    "cs of Python": (decay.py_func, "cs", "cs"),
    "given": (decay, decay_jac, "given"),
    "given as Python": (decay, decay_jac.py_func, "given"),
    "Python, given": (decay.py_func, decay_jac.py_func, "given"),
}


@pytest.mark.parametrize(("f", "jac", "source"), MODELS.values(), ids=MODELS)
def test_every_form_of_a_model_finds_what_scipy_finds(f, jac, source):
    y = noisy()
    result = fit(f, T, y, START, jac=jac, options=EXACT)
    assert result.success
    assert result.jacobian == source
    close(result, scipys(y), 1e-5 if source == "2-point" else 1e-6)
    assert result.names == ["amplitude", "rate", "offset"]
    np.testing.assert_allclose(result.chi2, np.sum((decay.py_func(T, *result.popt) - y) ** 2))
    assert result.dof == 27
    assert result.nfev < 12


@pytest.mark.parametrize("method", ["rmsprop", "rmsprop-lbfgs", "RMSprop LM"])
def test_every_method_finds_it(method):
    y = noisy()
    result = fit(decay, T, y, START, method=method)
    assert result.success
    np.testing.assert_allclose(result.popt, scipys(y)[0], rtol=1e-5)
    np.testing.assert_allclose(result.pcov, scipys(y)[1], rtol=1e-3)


@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize("f", [decay, decay.py_func])
def test_errors_of_the_data_are_weights(absolute, f):
    y, sigma = noisy(), np.random.default_rng(1).uniform(0.5, 2.0, T.size)
    result = fit(f, T, y, START, sigma, absolute, options=EXACT)
    close(result, scipys(y, sigma=sigma, absolute_sigma=absolute), 1e-5)
    one = fit(f, T, y, START, 0.3, absolute, options=EXACT)
    close(one, scipys(y, sigma=np.full(T.size, 0.3), absolute_sigma=absolute), 1e-5)


@pytest.mark.parametrize("f", [decay, decay.py_func])
def test_data_may_have_a_covariance(f):
    y = noisy()
    covariance = 0.01 * np.exp(-np.abs(T[:, np.newaxis] - T) / 0.3) + 0.001 * np.eye(T.size)
    close(fit(f, T, y, START, covariance, options=EXACT), scipys(y, sigma=covariance), 1e-4 if f is not decay else 1e-6)


@pytest.mark.parametrize("loss", ["soft_l1", "huber", "cauchy", "arctan"])
def test_robust_losses_are_scipys(loss):
    y = noisy()
    y[5] += 5.0
    result = fit(decay, T, y, START, loss=loss, f_scale=0.1, options=EXACT)
    assert result.success
    close(result, scipys(y, loss=loss, f_scale=0.1, method="trf"), 1e-5)


def test_counts_have_the_likelihood_of_counts():
    counts = np.random.default_rng(2).poisson(decay.py_func(T, 30.0, 1.0, 2.0)).astype(float)
    result = fit(decay, T, counts, [20.0, 0.5, 5.0], loss="poisson", options=EXACT)

    def likelihood(p):
        model = decay.py_func(T, *p)
        return np.sum(model - counts * np.log(model))

    best = scipy.optimize.minimize(
        likelihood, [20.0, 0.5, 5.0], method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-13}
    )
    assert result.success
    np.testing.assert_allclose(result.popt, best.x, rtol=1e-5)
    J = decay_jac.py_func(T, *result.popt)
    fisher = J.T @ (J / decay.py_func(T, *result.popt)[:, np.newaxis])
    np.testing.assert_allclose(result.pcov, np.linalg.inv(fisher), rtol=1e-6)


@pytest.mark.parametrize("f", [plane, plane.py_func])
def test_xdata_may_have_rows(f):
    points = np.random.default_rng(3).normal(size=(2, 40))
    y = plane.py_func(points, 1.0, 2.0, 3.0)
    result = fit(f, points, y)
    assert result.success
    np.testing.assert_allclose(result.popt, [1.0, 2.0, 3.0])


def test_a_python_model_may_be_given_anything():
    y = noisy()
    result = fit(lambda data, *p: decay.py_func(data["times"], *p), {"times": T}, y, START)
    np.testing.assert_allclose(result.popt, scipys(y)[0], rtol=1e-5)
    assert result.names == ["p0", "p1", "p2"]


def test_a_model_of_the_mean_is_no_model_of_points():
    """Called with a number it would run, but mean something else."""

    @njit
    def centred(t, height, slope):
        return height + slope * (t - np.atleast_1d(t).mean())

    result = fit(centred, T, 3.0 + 2.0 * (T - T.mean()))
    np.testing.assert_allclose(result.popt, [3.0, 2.0])


def test_what_cannot_be_differentiated_takes_differences():
    @njit
    def solved(t, a, b):
        return np.linalg.solve(np.array([[a, 0.0], [0.0, 1.0]]), np.array([1.0, b])).sum() + 0.0 * t

    with pytest.raises(TypeError, match="cannot be differentiated"):
        fit(solved, T, noisy(), [1.0, 1.0], jac="autodiff")
    assert fit(solved, T, noisy(), [1.0, 1.0]).jacobian == "2-point"


# -- bounds and what the data do not determine ------------------------------------------------------------------------


def test_bounds_are_kept():
    y = noisy()
    lower, upper = [0.0, 0.0, 0.6], [5.0, 5.0, 5.0]
    result = fit(decay, T, y, [1.0, 1.0, 0.7], bounds=(lower, upper), options=EXACT)
    expected = scipy.optimize.curve_fit(decay.py_func, T, y, [1.0, 1.0, 0.7], bounds=(lower, upper), **TIGHT)
    assert result.success
    assert result.popt[2] == 0.6
    np.testing.assert_allclose(result.popt, expected[0], rtol=1e-6)
    np.testing.assert_allclose(result.pcov, expected[1], rtol=1e-4)


def test_equal_bounds_fix_a_parameter():
    y = noisy()
    result = fit(decay, T, y, [1.0, 1.0, 0.5], bounds=([-np.inf, 0.0, 0.5], [np.inf, 9.0, 0.5]), options=EXACT)
    popt, pcov = scipy.optimize.curve_fit(lambda t, a, k: decay.py_func(t, a, k, 0.5), T, y, START[:2], **TIGHT)
    np.testing.assert_allclose(result.popt, [*popt, 0.5], rtol=1e-7)
    np.testing.assert_allclose(result.pcov[:2, :2], pcov, rtol=1e-5)
    assert result.dof == 28
    assert not result.pcov[2].any()
    assert result.perr[2] == 0.0


def test_parameters_that_the_data_do_not_determine_have_infinite_errors():
    @njit
    def twice(t, a, b):
        return (a + b) * t

    result = fit(twice, T, 2.0 * T + 0.1 * noisy())
    assert np.isinf(result.perr).all()
    few = fit(decay, T[:3], noisy()[:3], START)
    assert few.dof == 0
    assert np.isinf(few.perr).all()


def test_ill_conditioned_errors_are_those_of_the_qr_decomposition():
    """J'J alone would leave them few digits."""

    @njit
    def cubic(t, a, b, c, d):
        return a + t * (b + t * (c + t * d))

    t = np.linspace(100.0, 101.0, 40)
    y = cubic.py_func(t - 100.0, 1.0, 2.0, 3.0, 4.0) + 0.01 * np.random.default_rng(4).normal(size=40)
    result = fit(cubic, t, y, [1.0, 1.0, 1.0, 1.0])
    powers = t[:, np.newaxis] ** np.arange(4.0)
    sizes = np.linalg.norm(powers, axis=0)
    inverse = np.linalg.inv(np.linalg.qr(powers / sizes, mode="r"))
    expected = np.sqrt(np.sum(inverse**2, axis=1) * result.chi2 / 36.0) / sizes
    np.testing.assert_allclose(result.perr, expected, rtol=1e-4)


# -- many curves ------------------------------------------------------------------------------------------------------


def test_leading_axes_are_those_of_the_result():
    y = noisy(2, 3)
    result = fit(decay, T, y, START)
    assert result.shape == (2, 3)
    assert result.popt.shape == (2, 3, 3)
    assert result.pcov.shape == (2, 3, 3, 3)
    assert result.success.all()
    for k in np.ndindex(2, 3):
        alone = fit(decay, T, y[k], START)
        for name in ("popt", "pcov", "perr", "chi2", "nfev", "status", "dof", "nit"):
            np.testing.assert_array_equal(result[name][k], alone[name])
            np.testing.assert_array_equal(result[k][name], alone[name])
    assert result[1].popt.tolist() == result.popt[1].tolist()
    assert len(result) == 2


def test_each_curve_may_have_everything_of_its_own():
    rng = np.random.default_rng(5)
    t = T * rng.uniform(0.8, 1.2, (4, 1))
    y = decay.py_func(t, *TRUE) + 0.05 * rng.normal(size=t.shape)
    sigma, start = rng.uniform(0.5, 2.0, t.shape), START + rng.uniform(0.0, 0.5, (4, 3))
    lower = np.array([[-np.inf, 0.0, low] for low in (-np.inf, 0.4, 0.6, 0.0)])
    start = np.maximum(start, lower)
    result = fit(decay, t, y, start, sigma, bounds=(lower, np.inf))
    for k in range(4):
        alone = fit(decay, t[k], y[k], start[k], sigma[k], bounds=(lower[k], np.inf))
        np.testing.assert_allclose(result.popt[k], alone.popt, rtol=1e-12)
        np.testing.assert_allclose(result.pcov[k], alone.pcov, rtol=1e-9)


def test_each_curve_may_have_rows_of_predictors_of_its_own():
    points = np.random.default_rng(6).normal(size=(5, 2, 40))
    y = np.array([plane.py_func(p, k, 2.0, 3.0) for k, p in enumerate(points)])
    np.testing.assert_allclose(fit(plane, points, y).popt, [[k, 2.0, 3.0] for k in range(5)], atol=1e-8)


@pytest.mark.parametrize("f", [decay, decay.py_func], ids=["compiled", "Python"])
def test_missing_points_are_left_out(f):
    y = noisy(4)
    expected = [
        fit(f, np.delete(T, gone), np.delete(y[k], gone), START) for k, gone in enumerate(([], [3, 7], [0], []))
    ]
    holes, sigma = y.copy(), np.ones_like(y)
    holes[1, [3, 7]] = np.nan
    sigma[2, 0] = np.inf
    result = fit(f, T, holes, START, sigma, nan_policy="omit")
    mask = np.isnan(holes)
    mask[2, 0] = True
    masked = fit(f, T, np.ma.array(np.where(mask, 1e9, y), mask=mask), START)
    for found in (result, masked):
        for k in range(4):
            np.testing.assert_allclose(found.popt[k], expected[k].popt, rtol=1e-12)
            np.testing.assert_allclose(found.pcov[k], expected[k].pcov, rtol=1e-9)
            assert found.dof[k] == expected[k].dof
    gap = np.where(np.arange(T.size) == 0, np.nan, T)
    np.testing.assert_allclose(fit(f, gap, y, START, nan_policy="omit").popt[2], expected[2].popt, rtol=1e-12)


def test_a_curve_with_fewer_points_than_parameters_is_no_success():
    y = noisy(3)
    y[1, 2:] = np.nan
    y[2] = np.nan
    result = fit(decay, T, y, START, nan_policy="omit")
    assert result.success.tolist() == [True, False, False]
    assert result.status.tolist()[1:] == [Status.UNDETERMINED, Status.UNDETERMINED]
    assert np.isinf(result.pcov[1:]).all()
    assert "fewer points" in result[1].message


@pytest.mark.parametrize("f", [decay, saturation], ids=["threads", "processes"])
def test_workers_change_nothing(f):
    y = noisy(40)[:, ::-1] if f is saturation else noisy(40)
    one, more = fit(f, T, y), fit(f, T, y, workers=2)
    np.testing.assert_array_equal(one.popt, more.popt)
    np.testing.assert_array_equal(one.pcov, more.pcov)


def test_other_dtypes_are_not_copied_and_change_little():
    y = noisy(3)
    np.testing.assert_allclose(fit(decay, T, y.astype(np.float32), START).popt, fit(decay, T, y, START).popt, rtol=1e-5)
    whole = np.round(100.0 * y).astype(int)
    np.testing.assert_array_equal(fit(decay, T, whole, START).popt, fit(decay, T, whole.astype(float), START).popt)
    strided = np.repeat(y, 2, axis=1)[:, ::2]
    np.testing.assert_allclose(fit(decay, T, strided, START).popt, fit(decay, T, y, START).popt, rtol=1e-12)


def test_a_checkpoint_is_taken_up(tmp_path):
    y = noisy(5)
    result = fit(decay, T, y, START, checkpoint=tmp_path / "fits.npz")
    state = load(tmp_path / "fits.npz")
    state.status[2:] = Status.INTERRUPTED
    resumed = fit(decay, T, y, START, state=state)
    np.testing.assert_array_equal(resumed.popt, result.popt)
    np.testing.assert_array_equal(resumed.pcov, result.pcov)
    with pytest.raises(ValueError, match="state"):
        fit(decay, T, noisy(4), START, state=state)


# -- the result -------------------------------------------------------------------------------------------------------


def test_results_can_be_read():
    many, one = fit(decay, T, noisy(2, 3), START), fit(decay, T, noisy(), START)
    assert "6, of shape (2, 3); 6 of them successful" in repr(many)
    assert "amplitude  2.5" in repr(one)
    assert "27 degrees of freedom" in one._repr_html_()
    with pytest.raises(IndexError, match="one data set"):
        one[0]


def test_results_become_frames():
    pytest.importorskip("pandas")
    result = fit(decay, T, noisy(2, 3), START)
    frame = result.to_frame()
    assert frame.shape == (6, 11)
    assert frame.loc[(1, 2), "rate error"] == result.perr[1, 2, 1]
    assert fit(decay, T, noisy(), START).to_frame()["amplitude"].size == 1


# -- errors -----------------------------------------------------------------------------------------------------------

Y = noisy()
WRONG = {
    "ydata must not contain infs or NaNs": {"ydata": np.where(T > 3.0, np.nan, Y)},
    "xdata must not contain infs or NaNs": {"xdata": np.where(T > 3.0, np.inf, T)},
    "ydata must have at least one axis": {"ydata": []},
    "ydata must be an array of real numbers": {"ydata": Y + 1j},
    "sigma must have shape": {"sigma": np.ones(7)},
    "sigma must be above 0": {"sigma": np.zeros(T.size)},
    "sigma must be positive definite": {"sigma": -np.eye(T.size)},
    "p0 must have shape": {"p0": np.ones((2, 3))},
    "p0 must have 3 elements": {"p0": [1.0, 1.0]},
    "p0 must have 3 elements, one": {"p0": [1.0, 1.0, 1.0, 1.0]},
    "ydata must not contain infs": {"ydata": np.where(T > 3.0, np.inf, Y), "nan_policy": "omit"},
    "p0 must be finite": {"p0": [1.0, np.nan, 0.0]},
    "p0 must be within the bounds": {"bounds": (2.0, 3.0)},
    "bounds must be a pair": {"bounds": [(0, 1), (0, 1), (0, 1)]},
    "bounds must have lower <= upper": {"bounds": (0.0, -1.0), "p0": None},
    "method must be one of": {"method": "newton"},
    "jac must be a callable, None or one of": {"jac": "4-point"},
    "nan_policy must be": {"nan_policy": "propagate"},
    "loss must be one of": {"loss": "l1"},
    "f_scale must be": {"f_scale": 0.0},
    "must not be negative with loss='poisson'": {"loss": "poisson", "ydata": -Y},
    "sigma has no meaning with loss='poisson'": {"loss": "poisson", "sigma": 2.0},
    "Unknown option 'memory'": {"options": {"memory": 3}},
    "workers must be": {"workers": 0},
    "checkpoint_every=3 has no meaning": {"checkpoint_every": 3},
}


@pytest.mark.parametrize(("message", "given"), WRONG.items(), ids=WRONG)
def test_bad_input_is_refused(message, given):
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        fit(**{"f": decay, "xdata": T, "ydata": Y, "p0": START} | given)


def test_xdata_of_another_length_is_refused():
    with pytest.raises(ValueError, match="as many values"):
        fit(decay, T[:-1], Y, START)
    with pytest.raises(ValueError, match=r"xdata must have shape \(30,\)"):
        fit(decay, T[:-1], noisy(2), START)
    with pytest.raises(ValueError, match="as many values"):
        fit(decay.py_func, T[:-1], Y, START)


def test_a_signature_that_tells_nothing_needs_p0():
    with pytest.raises(ValueError, match="p0 is needed"):
        fit(lambda t, *p: t, T, Y)
    with pytest.raises(TypeError, match="f must be"):
        fit(3, T, Y)


def test_an_exception_of_the_model_is_raised():
    def broken(t, a):
        raise RuntimeError("the model is broken")

    with pytest.raises(RuntimeError, match="the model is broken"):
        fit(broken, T, Y)
    with pytest.raises(RuntimeError, match="the model is broken"):
        fit(broken, T, noisy(3))


def test_exceptions_of_some_curves_are_kept():
    def choosy(t, a):
        if t[0] < 0.0:
            raise RuntimeError("no negative times")
        return a * t

    t = np.array([[T, T], [-1.0 - T, T]])
    result = fit(choosy, t, 2.0 * t)
    assert result.success.tolist() == [[True, True], [False, True]]
    assert "no negative times" in str(result.exceptions[1, 0])
    assert list(fit(choosy, t[:, 0], 2.0 * t[:, 0]).exceptions) == [1]
