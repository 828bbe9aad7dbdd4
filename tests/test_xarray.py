"""Fits along a dimension: the numbers, names and coordinates of xarray's own curvefit, and its treatment of Dask."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from marks import needs_jit
from numba import njit
from processes import run_python

from rmsprop_nb.xarray import curvefit

xr = pytest.importorskip("xarray", reason="xarray is not installed")

TIMES = np.linspace(0.1, 4.0, 25)
P0 = {"amplitude": 2.0, "rate": 1.0}


@njit
def decay(t, amplitude, rate):
    return amplitude * np.exp(-rate * t)


PLAIN = getattr(decay, "py_func", decay)


@njit
def plane(points, height, across, up):
    return height + across * points[0] + up * points[1]


def along(values):
    """An array of the measured points."""
    return xr.DataArray(values, dims="time")


def images(shape=(4, 5), seed=0):
    """Decays with noise, pixel by pixel; the dimension that is fitted comes first."""
    rng = np.random.default_rng(seed)
    dims = ("y", "x")[-len(shape) :]
    amplitude, rate = (xr.DataArray(rng.uniform(*span, shape), dims=dims) for span in ((2.0, 4.0), (0.5, 2.0)))
    clean = amplitude * np.exp(-rate * along(TIMES))
    noisy = (clean + 0.01 * rng.normal(size=clean.shape)).transpose("time", ...)
    own = {"time": TIMES, "x": 10.0 * np.arange(shape[-1]), "scan": 7}
    return noisy.assign_coords(own).assign_attrs(units="V").rename("signal")


def compare(ours, theirs):
    """Values to 1e-6, covariances to 1e-5, and everything else exactly; errors are ours alone."""
    extra = [name for name in ours if "curvefit_errors" in name]
    rest = ours.drop_vars(extra)
    assert list(rest.data_vars) == list(theirs.data_vars)
    assert ours.attrs == theirs.attrs
    for name, expected in theirs.data_vars.items():
        found = rest[name]
        assert found.dims == expected.dims
        assert found.dtype == expected.dtype
        xr.testing.assert_identical(found.coords.to_dataset(), expected.coords.to_dataset())
        if "coefficients" in name:
            np.testing.assert_allclose(found, expected, rtol=1e-6)
        else:  # some covariances are 0 but for rounding
            sizes = np.sqrt(np.einsum("...ii->...i", expected.values))
            both_sizes = sizes[..., np.newaxis] * sizes[..., np.newaxis, :]
            np.testing.assert_allclose(found / both_sizes, expected / both_sizes, rtol=1e-5, atol=1e-5)
    for name in extra:
        covariance = ours[name.replace("errors", "covariance")].values
        np.testing.assert_allclose(ours[name], np.sqrt(np.einsum("...ii->...i", covariance)), rtol=1e-12)
        assert ours[name].dims[-1] == "param"


TIGHT = {"ftol": 1e-14, "xtol": 1e-14}  # by default both end within a small part of the standard errors


def both(data, coords, func, *, theirs=None, ours=None, **arguments):
    """Compare a fit with xarray's own; return ours."""
    plain = getattr(func, "py_func", func)
    found = curvefit(data, coords, func, kwargs={**TIGHT, **(ours or {})}, **arguments)
    compare(found, data.curvefit(coords, plain, kwargs={**TIGHT, **(theirs or {})}, **arguments))
    return found


# -- the same as xarray -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("func", [pytest.param(decay, marks=needs_jit), PLAIN], ids=["compiled", "plain"])
@pytest.mark.parametrize("shape", [(4, 5), (5,)])
def test_array_is_fitted_as_xarray_does(func, shape):
    found = both(images(shape), "time", func)
    assert found.curvefit_coefficients.dims == (*("y", "x")[-len(shape) :], "param")


def test_one_curve_is_fitted_as_xarray_does():
    both(images().isel(x=0, y=1), "time", decay)
    both(images().isel(x=0, y=1), along(TIMES), decay, reduce_dims="time")


def test_dataset_has_a_prefix_for_each_variable():
    data = xr.Dataset({"a": images(), "b": images((5,), seed=1)}, attrs={"who": "me"})
    found = both(data, "time", decay)
    assert {"a_curvefit_coefficients", "a_curvefit_errors", "b_curvefit_covariance"} <= set(found)
    assert found.b_curvefit_coefficients.dims == ("x", "param")


def test_more_dimensions_are_fitted_together():
    found = both(images(), "time", decay, reduce_dims="y")
    assert found.curvefit_coefficients.dims == ("x", "param")
    assert both(images(), ["time"], decay, reduce_dims=["y", "x"]).curvefit_coefficients.dims == ("param",)


@pytest.mark.parametrize("pixels", [2, 3])
def test_points_may_have_several_coordinates(pixels):
    """Also where there are as many pixels as coordinates."""
    rng = np.random.default_rng(3)
    across, up = xr.DataArray(np.arange(4.0), dims="x"), xr.DataArray(np.arange(5.0), dims="y")
    slope = xr.DataArray(rng.normal(size=pixels), dims="k")
    data = 1.0 + slope * across - 2.0 * up + xr.DataArray(0.1 * rng.normal(size=(pixels, 4, 5)), dims=("k", "x", "y"))
    both(data.assign_coords(x=across, y=up), ["x", "y"], plane)


def test_each_pixel_may_have_points_of_its_own():
    data = images()
    shifted = along(TIMES) + xr.DataArray(np.linspace(0.0, 0.3, 5), dims="x")
    both(data, shifted, decay, reduce_dims="time")
    both(data.assign_coords(when=shifted), "when", decay, reduce_dims="time")


def test_missing_points_are_left_out():
    data = images()
    data[3, 1, 2] = data[:4, 0, 0] = np.nan
    data[:, 2, 2] = np.nan
    found = both(data, "time", decay)
    assert np.isnan(found.curvefit_coefficients[2, 2]).all()
    assert np.isnan(found.curvefit_coefficients).sum() == 2
    times = TIMES.copy()
    times[5] = np.nan
    both(images(), along(times), decay, reduce_dims="time")


def test_missing_points_are_an_error_without_skipna():
    data = images()
    both(data, "time", decay, skipna=False)
    data[3, 1, 2] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        curvefit(data, "time", decay, skipna=False)


def test_guesses_and_bounds_are_numbers():
    both(images(), "time", decay, p0={"rate": 1.2}, bounds={"rate": (0.9, 1.4), "amplitude": (0.0, np.inf)})


def test_guesses_and_bounds_are_arrays():
    data = images()
    guess = data.isel(time=0).drop_vars("time")
    lower = xr.DataArray(np.linspace(0.1, 0.9, 5), dims="x", coords={"x": data.x})
    both(data, "time", decay, p0={"amplitude": guess}, bounds={"rate": (lower, lower + 1.0)})
    both(data, "time", decay, p0={"amplitude": guess.isel(x=0, drop=True)}, bounds={"rate": (lower, np.inf)})
    other = xr.Dataset({"all": data, "one": data.isel(x=0, drop=True)})  # one lacks a dimension that a bound has
    assert both(other, "time", decay, bounds={"rate": (lower, 9.0)}).one_curvefit_errors.dims == ("y", "x", "param")


def test_signature_has_guesses_and_names():
    def model(t, amplitude=2.5, rate=0.8):
        return amplitude * np.exp(-rate * t)

    def open_ended(t, *parameters):
        return parameters[0] * np.exp(-parameters[1] * t)

    assert both(images((3,)), "time", model).param.values.tolist() == ["amplitude", "rate"]
    both(images((3,)), "time", model, bounds={"amplitude": (3.0, 5.0), "rate": (-np.inf, 0.7)})
    found = both(images((3,)), "time", open_ended, param_names=["a", "b"], p0={"b": 0.5})
    assert found.cov_i.values.tolist() == ["a", "b"]


# -- more than xarray -------------------------------------------------------------------------------------------------


def test_arguments_of_fit_are_passed_on():
    data = images((3,))
    given = {"sigma": np.full(TIMES.size, 0.02), "absolute_sigma": True}
    both(data, "time", decay, theirs=given, ours=given | {"workers": 2, "maxfev": 50})
    assert np.isnan(curvefit(data, "time", decay, errors="ignore", kwargs={"maxfev": 2}).curvefit_errors).all()


def test_sigma_may_have_dimensions():
    data = images((3,))
    sigma = 0.01 * (1.0 + xr.DataArray(np.arange(3.0), dims="x")) * (1.0 + along(TIMES))
    sigma[1, 4] = np.nan
    found = curvefit(data, "time", decay, kwargs={"sigma": sigma, "absolute_sigma": True})
    for k in range(3):
        given = {"sigma": sigma.values[k], "absolute_sigma": True}
        if k == 1:
            given["sigma"] = np.delete(given["sigma"], 4)
        one = data.isel(x=k, drop=k != 1)
        one = one.drop_isel(time=4) if k == 1 else one
        compare(found.isel(x=k, drop=k != 1), one.curvefit("time", PLAIN, kwargs=TIGHT | given))
    one_sigma = sigma.isel(x=0)
    again = curvefit(data, "time", decay, kwargs={"sigma": one_sigma, "absolute_sigma": True})
    xr.testing.assert_identical(again.isel(x=0), found.isel(x=0))


def test_equal_bounds_fix_a_parameter():
    found = curvefit(images((3,)), "time", decay, bounds={"rate": (1.0, 1.0)})
    assert (found.curvefit_coefficients.sel(param="rate") == 1.0).all()
    assert (found.curvefit_errors.sel(param="rate") == 0.0).all()


# -- fits that fail ---------------------------------------------------------------------------------------------------


def few_points(data):
    """The data, with one point for two parameters in one pixel."""
    data = data.copy()
    data[1:, 0, 1] = np.nan
    return data


def test_failed_fits_are_nan_or_an_error():
    data = few_points(images())
    found = curvefit(data, "time", decay, errors="ignore")
    for values in found.data_vars.values():
        assert np.isnan(values[0, 1]).all()
        assert np.isfinite(values).sum() == values.size - values[0, 1].size
    with pytest.raises(RuntimeError, match=r"parameters not found: 1 of 20 fits .* errors='ignore' gives NaN"):
        curvefit(data, "time", decay)
    limit = {"maxfev": 3}
    ours = curvefit(images((3,)), "time", decay, errors="ignore", kwargs=limit)
    compare(ours, images((3,)).curvefit("time", PLAIN, errors="ignore", kwargs=limit))


def test_guess_that_is_missing_is_a_failure_where_there_are_data():
    data = images()
    data[:, 2, 2] = np.nan
    guess = data.isel(time=0, drop=True)
    xr.testing.assert_allclose(
        curvefit(data, "time", decay, p0={"amplitude": guess}), curvefit(data, "time", decay), rtol=1e-5
    )
    guess[0, 1] = np.nan
    found = curvefit(data, "time", decay, p0={"amplitude": guess}, errors="ignore")
    assert np.isnan(found.curvefit_errors.values).all(-1).sum() == 2
    with pytest.raises(ValueError, match="p0 must be finite"):
        curvefit(data, "time", decay, p0={"amplitude": guess})


def test_nothing_to_fit_gives_an_empty_or_missing_result():
    assert curvefit(images().isel(x=slice(0)), "time", decay).curvefit_covariance.shape == (4, 0, 2, 2)
    assert np.isnan(curvefit(images() * np.nan, "time", decay).curvefit_covariance).all()


# -- Dask -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def dask():
    return pytest.importorskip("dask", reason="dask is not installed")


def test_chunks_give_the_bits_of_the_whole(dask):
    data = few_points(images((7, 9)))
    guess = {"amplitude": data.isel(time=0, drop=True), "rate": xr.DataArray(np.full(7, 0.9), dims="y")}
    whole = curvefit(data, "time", decay, p0=guess, errors="ignore")
    lazy = curvefit(data.chunk(y=3, x=4), "time", decay, p0=guess, errors="ignore")
    assert lazy.curvefit_coefficients.chunks == ((3, 3, 1), (4, 4, 1), (2,))
    assert lazy.curvefit_errors.dtype == float
    xr.testing.assert_identical(lazy.compute(scheduler="threads", num_workers=2), whole)
    both_lazy = {name: values.chunk() for name, values in guess.items()}
    lazy = curvefit(data.chunk(y=3, x=4), "time", decay, p0=both_lazy, errors="ignore")
    xr.testing.assert_identical(lazy.compute(scheduler="sync"), whole)


def test_chunked_sets_and_errors_are_those_of_xarray(dask):
    data = xr.Dataset({"a": images().chunk(x=2), "b": images((5,), seed=1)})
    compare(curvefit(data, "time", decay).compute(), data.compute().curvefit("time", PLAIN, kwargs=TIGHT))
    sigma = (0.01 * (1.0 + along(TIMES))).assign_coords(time=TIMES)
    given = {"sigma": sigma, "absolute_sigma": True}
    found = curvefit(data.a, "time", decay, kwargs=given)
    xr.testing.assert_identical(found.compute(), curvefit(data.a.compute(), "time", decay, kwargs=given))


def test_nothing_is_fitted_before_it_is_asked_for(dask):
    calls = []

    def model(t, amplitude, rate):
        calls.append(1)
        return amplitude * np.exp(-rate * t)

    lazy = curvefit(images().chunk(y=2, x=2), "time", model)
    assert not calls
    lazy.curvefit_coefficients.isel(x=0, y=0).compute(scheduler="sync")
    assert 0 < len(calls) < 200  # the fits of one block of 4 pixels


def test_failure_in_a_chunk_is_raised(dask):
    lazy = curvefit(few_points(images()).chunk(x=2), "time", decay)
    with pytest.raises(RuntimeError, match="Optimal parameters not found: 1 of 8 fits"):
        lazy.compute(scheduler="sync")


def test_chunks_along_the_fitted_dimension_are_an_error(dask):
    with pytest.raises(ValueError, match=r"dimension time .* consists of multiple chunks.*rechunk"):
        curvefit(images().chunk(time=10), "time", decay)


def test_work_can_be_sent_to_another_process(dask):
    lazy = curvefit(images((3,)).chunk(x=2), "time", _plain)
    again = pickle.loads(pickle.dumps(lazy))
    xr.testing.assert_identical(again.compute(scheduler="sync"), lazy.compute(scheduler="sync"))


def _plain(t, amplitude, rate):
    return amplitude * np.exp(-rate * t)


# -- arguments --------------------------------------------------------------------------------------------------------


def test_wrong_arguments_are_named():
    data = images((3,))
    wrong = xr.DataArray(np.ones(TIMES.size), dims="time")
    for error, match, arguments in [
        (ValueError, "errors must be 'raise' or 'ignore'", {"errors": "warn"}),
        (ValueError, "p0 has 'rat', which is no parameter", {"p0": {"rat": 1.0}}),
        (ValueError, "bounds has 'rat', which is no parameter", {"bounds": {"rat": (0, 1)}}),
        (TypeError, "p0 must be a dict", {"p0": [1.0, 1.0]}),
        (TypeError, r"p0\['rate'\] must have numbers or DataArrays", {"p0": {"rate": [1.0]}}),
        (ValueError, r"bounds\['rate'\] must be a pair", {"bounds": {"rate": 3.0}}),
        (ValueError, r"p0\['rate'\] has the dimension 'time'", {"p0": {"rate": wrong}}),
        (ValueError, r"bounds\['rate'\] has the dimension 'time'", {"bounds": {"rate": (0.0, wrong)}}),
        (ValueError, "reduce_dims has 'z', which is no dimension", {"reduce_dims": "z"}),
        (ValueError, "kwargs must not have 'p0': curvefit passes its own", {"kwargs": {"p0": [1.0, 1.0]}}),
        (ValueError, "kwargs must not have 'state'", {"kwargs": {"state": None}}),
        (ValueError, "sigma must be a number", {"kwargs": {"sigma": np.ones((3, TIMES.size))}}),
        (TypeError, "workerz", {"kwargs": {"workerz": 2}}),
        (ValueError, "outside|within the bounds", {"p0": {"rate": 3.0}, "bounds": {"rate": (0.0, 1.0)}}),
    ]:
        with pytest.raises(error, match=match):
            curvefit(data, "time", decay, **arguments)
    with pytest.raises(TypeError, match="da must be an xarray"):
        curvefit(data.values, "time", decay)
    with pytest.raises(ValueError, match="param_names is needed"):
        curvefit(data, "time", lambda t, *parameters: t)
    with pytest.raises(ValueError, match="reduce_dims must say"):
        curvefit(data, along(TIMES[::-1]), decay)


def test_missing_xarray_is_said():
    program = """if True:
        import sys
        sys.modules["xarray"] = None
        import rmsprop_nb
        rmsprop_nb.xarray.curvefit(None, "t", abs)
    """
    done = run_python("-c", program)
    assert (
        "ImportError: rmsprop_nb.xarray needs xarray; install it with pip install 'rmsprop_nb[xarray]'" in done.stderr
    )
