"""SciPy's contract: the same assertions for SciPy's own method and for ours, through both doors."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import scipy.optimize
from scipy.optimize import Bounds, OptimizeResult, OptimizeWarning, rosen, rosen_der

import rmsprop_nb
from rmsprop_nb import Status, minimize_batch, rmsprop, rmsprop_lbfgs


def scipys_own(fun, x0, **kwargs):
    return scipy.optimize.minimize(fun, x0, method="L-BFGS-B", **kwargs)


def through_scipys_door(fun, x0, **kwargs):
    return scipy.optimize.minimize(fun, x0, method=rmsprop, **kwargs)


def lbfgs_through_scipys_door(fun, x0, **kwargs):
    return scipy.optimize.minimize(fun, x0, method=rmsprop_lbfgs, **kwargs)


def our_lbfgs(fun, x0, **kwargs):
    return rmsprop_nb.minimize(fun, x0, method="rmsprop-lbfgs", **kwargs)


DOORS = {
    "L-BFGS-B": scipys_own,
    "rmsprop through SciPy": through_scipys_door,
    "rmsprop": rmsprop_nb.minimize,
    "rmsprop-lbfgs through SciPy": lbfgs_through_scipys_door,
    "rmsprop-lbfgs": our_lbfgs,
}
OURS = {name: door for name, door in DOORS.items() if name != "L-BFGS-B"}
X0 = [1.3, 0.7, 0.8, 1.9, 1.2]

all_doors = pytest.mark.parametrize("minimize", DOORS.values(), ids=DOORS)
our_doors = pytest.mark.parametrize("minimize", OURS.values(), ids=OURS)


@all_doors
def test_result_has_scipys_fields(minimize):
    result = minimize(rosen, X0, jac=rosen_der)
    assert isinstance(result, OptimizeResult)
    assert result.success is True
    assert result.status == 0
    assert isinstance(result.message, str)
    assert isinstance(result.fun, float)
    assert {type(result[name]) for name in ("nit", "nfev", "njev", "status")} == {int}
    assert result.x.shape == result.jac.shape == (5,)
    np.testing.assert_allclose(result.x, 1.0, atol=1e-3)
    assert result.fun == rosen(result.x)
    np.testing.assert_array_equal(result.jac, rosen_der(result.x))
    assert "success: True" in repr(result)


@all_doors
@pytest.mark.parametrize("x0", [X0, tuple(X0), np.array(X0), np.array(X0)[::-1], np.array([1, 2, 3, 4, 5])], ids=repr)
def test_start_may_be_any_real_sequence(minimize, x0):
    before = np.array(x0)
    assert minimize(rosen, x0, jac=rosen_der).success
    np.testing.assert_array_equal(before, x0)


@all_doors
def test_scalar_start_becomes_a_vector(minimize):
    result = minimize(lambda x: ((x - 3.0) ** 2).sum(), 1.0, jac=lambda x: 2 * (x - 3.0))
    assert result.x.shape == (1,)
    np.testing.assert_allclose(result.x, 3.0, atol=1e-4)


@all_doors
def test_read_only_start(minimize):
    x0 = np.array(X0)
    x0.flags.writeable = False
    assert minimize(rosen, x0, jac=rosen_der).success


@all_doors
def test_two_dimensional_start_is_refused(minimize):
    with pytest.raises(ValueError, match="one dimension"):
        minimize(rosen, np.ones((2, 2)), jac=rosen_der)


@all_doors
def test_jac_true(minimize):
    result = minimize(lambda x: (rosen(x), rosen_der(x)), X0, jac=True)
    assert result.success


@all_doors
@pytest.mark.parametrize("jac", [None, "2-point", "3-point"])
def test_gradient_by_differences(minimize, jac):
    result = minimize(rosen, [1.3, 0.7], jac=jac)
    np.testing.assert_allclose(result.x, 1.0, atol=1e-4)


@all_doors
def test_args(minimize):
    def fun(x, a, b):
        return a * ((x - b) ** 2).sum()

    result = minimize(fun, [0.0, 0.0], args=(2.0, 3.0), jac=lambda x, a, b: 2 * a * (x - b))
    np.testing.assert_allclose(result.x, 3.0, atol=1e-5)


@all_doors
def test_tol_is_a_tolerance_on_the_gradient(minimize):
    loose, tight = (minimize(rosen, X0, jac=rosen_der, tol=tol) for tol in (1e-1, 1e-9))
    assert np.abs(tight.jac).max() < np.abs(loose.jac).max()
    assert tight.nit > loose.nit


@all_doors
def test_maxiter(minimize):
    result = minimize(rosen, X0, jac=rosen_der, options={"maxiter": 3})
    assert (result.success, result.status, result.nit) == (False, 1, 3)


@all_doors
def test_callback_with_x(minimize):
    seen = []
    result = minimize(rosen, X0, jac=rosen_der, callback=lambda xk: seen.append(xk))
    assert len(seen) == result.nit
    assert len({id(x) for x in seen}) == len(seen)
    np.testing.assert_allclose(seen[-1], result.x)


@all_doors
def test_callback_receives_copies(minimize):
    def spoil(xk):
        xk[:] = np.nan

    assert minimize(rosen, X0, jac=rosen_der, callback=spoil).success


@all_doors
def test_callback_with_intermediate_result(minimize):
    seen = []

    def callback(intermediate_result):
        assert isinstance(intermediate_result, OptimizeResult)
        assert intermediate_result.fun == rosen(intermediate_result.x)
        seen.append(intermediate_result.fun)

    result = minimize(rosen, X0, jac=rosen_der, callback=callback)
    assert len(seen) == result.nit
    assert seen[-1] == pytest.approx(result.fun)


@all_doors
@pytest.mark.parametrize("form", ["xk", "intermediate_result"])
def test_stop_iteration_in_the_callback_ends_the_run(minimize, form):
    calls = []

    def by_x(xk):
        calls.append(1)
        if len(calls) == 2:
            raise StopIteration

    def by_result(intermediate_result):
        by_x(intermediate_result.x)

    result = minimize(rosen, X0, jac=rosen_der, callback=by_x if form == "xk" else by_result)
    assert (result.success, result.status, result.nit) == (False, 99, 2)
    assert "StopIteration" in result.message


@our_doors
def test_stop_iteration_in_the_objective_is_an_error(minimize):
    def fun(x):
        raise StopIteration

    with pytest.raises(StopIteration):
        minimize(fun, X0, jac=rosen_der)


@all_doors
def test_exceptions_propagate(minimize):
    def fun(x):
        msg = "on purpose"
        raise RuntimeError(msg)

    with pytest.raises(RuntimeError, match="on purpose"):
        minimize(fun, X0, jac=rosen_der)


@all_doors
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_objective_that_is_not_finite_is_no_success(minimize, bad):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # SciPy's own arithmetic
        result = minimize(lambda x: bad, X0, jac=lambda x: np.full(5, bad))
    assert not result.success


@our_doors  # SciPy's L-BFGS-B calls this a success, with fun=nan
def test_nan_after_the_start_is_no_success(minimize):
    calls = []

    def fun(x):
        calls.append(1)
        return rosen(x) if len(calls) < 4 else np.nan

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        result = minimize(fun, X0, jac=rosen_der)
    assert not result.success
    assert np.isfinite(result.x).all()


@all_doors
def test_objective_is_never_called_twice_at_a_point(minimize):
    seen = set()

    def fun(x):
        key = x.tobytes()
        assert key not in seen
        seen.add(key)
        return rosen(x)

    result = minimize(fun, X0, jac=rosen_der)
    assert len(seen) == result.nfev


@all_doors
@pytest.mark.parametrize(
    "bounds",
    [[(0.0, 0.5)] * 5, [(None, 0.5)] * 5, [(-np.inf, 0.5)] * 5, Bounds([0.0] * 5, [0.5] * 5), Bounds(0.0, 0.5)],
    ids=repr,
)
def test_bounds(minimize, bounds):
    seen = []

    def fun(x):
        seen.append(x.copy())
        return ((x - 1.0) ** 2).sum()

    result = minimize(fun, [0.2, 0.1, 0.4, 0.0, 0.5], jac=lambda x: 2 * (x - 1.0), bounds=bounds)
    assert result.success
    np.testing.assert_allclose(result.x, 0.5)
    assert np.max(seen) <= 0.5


@all_doors
def test_start_outside_the_bounds_is_moved_into_them(minimize):
    seen = []

    def fun(x):
        seen.append(x.copy())
        return (x**2).sum()

    result = minimize(fun, [5.0, -5.0], jac=lambda x: 2 * x, bounds=[(1, 2), (-2, 3)])
    assert result.success
    np.testing.assert_allclose(result.x, [1.0, 0.0], atol=1e-5)
    np.testing.assert_array_equal(seen[0], [2.0, -2.0])


@all_doors
@pytest.mark.parametrize("bounds", [[(0, 1)] * 4, [(1, 0)] * 5, Bounds([0.0] * 3, [1.0] * 3)], ids=repr)
def test_impossible_bounds_are_refused(minimize, bounds):
    with pytest.raises(ValueError, match="bound"):
        minimize(rosen, X0, jac=rosen_der, bounds=bounds)


def test_unknown_options_warn_at_scipys_door_and_raise_at_ours():
    with pytest.warns(OptimizeWarning, match="Unknown solver options: lr"):
        result = scipy.optimize.minimize(rosen, X0, jac=rosen_der, method=rmsprop, options={"lr": 1})
    assert result.success
    with pytest.warns(OptimizeWarning, match="Unknown solver options: lr"):
        scipy.optimize.minimize(rosen, X0, jac=rosen_der, method="L-BFGS-B", options={"lr": 1})
    with pytest.raises(
        ValueError, match=r"Unknown option 'lr' for method 'rmsprop'; here it is called 'learning_rate'. Known"
    ):
        rmsprop_nb.minimize(rosen, X0, jac=rosen_der, options={"lr": 1})


@pytest.mark.parametrize("extra", [{"hess": lambda x: np.eye(5)}, {"hessp": lambda x, p: p}])
def test_second_derivatives_are_refused(extra):
    with pytest.raises(ValueError, match="second derivatives"):
        scipy.optimize.minimize(rosen, X0, jac=rosen_der, method=rmsprop, **extra)


@pytest.mark.parametrize(
    "constraints", [{"type": "eq", "fun": lambda x: x[0]}, [{"type": "ineq", "fun": lambda x: x[0]}], object()]
)
def test_constraints_are_refused(constraints):
    with pytest.raises(ValueError, match="no constraints"):
        scipy.optimize.minimize(rosen, X0, jac=rosen_der, method=rmsprop, constraints=constraints)


def test_both_doors_give_the_same_numbers():
    ours = rmsprop_nb.minimize(rosen, X0, jac=rosen_der, options={"gtol": 1e-7})
    scipys = scipy.optimize.minimize(rosen, X0, jac=rosen_der, method=rmsprop, options={"gtol": 1e-7})
    np.testing.assert_array_equal(ours.x, scipys.x)
    assert (ours.nit, ours.nfev, ours.status) == (scipys.nit, scipys.nfev, scipys.status)


def test_jac_true_at_scipys_door_sees_through_the_memo():
    calls = []

    def fun(x):
        calls.append(x.copy())
        return rosen(x), rosen_der(x)

    result = scipy.optimize.minimize(fun, X0, jac=True, method=rmsprop)
    assert result.success
    assert len(calls) == result.nfev


def test_textbook_options_through_scipys_door():
    result = scipy.optimize.minimize(
        rosen, X0, jac=rosen_der, method=rmsprop, options={"learning_rate": 1e-3, "momentum": 0.9, "maxiter": 50}
    )
    assert (result.nit, result.status) == (50, Status.MAXITER)


SCIPY = tuple(map(int, scipy.__version__.split(".")[:2]))
SEED = {"rng": 1} if SCIPY >= (1, 15) else {"seed": 1}
BOX = [(-2.0, 2.0)] * 2


@pytest.mark.parametrize("jac", [None, rosen_der, True])
def test_basinhopping(jac):
    fun = (lambda x: (rosen(x), rosen_der(x))) if jac is True else rosen
    kwargs = {"method": rmsprop, "jac": jac, "options": {"gtol": 1e-6}}
    result = scipy.optimize.basinhopping(fun, [0.0, 0.0], niter=3, minimizer_kwargs=kwargs, **SEED)
    np.testing.assert_allclose(result.x, 1.0, atol=1e-4)


def test_dual_annealing():
    kwargs = {"method": rmsprop, "jac": rosen_der, "bounds": BOX}
    result = scipy.optimize.dual_annealing(rosen, BOX, maxiter=20, minimizer_kwargs=kwargs, **SEED)
    np.testing.assert_allclose(result.x, 1.0, atol=1e-4)


@pytest.mark.skipif(SCIPY < (1, 17), reason="this SciPy polishes with its own methods only")
def test_differential_evolution_polish():
    used = []

    def polish(fun, x0, **kwargs):
        used.append(1)
        return scipy.optimize.minimize(fun, x0, method=rmsprop, **kwargs)

    result = scipy.optimize.differential_evolution(rosen, BOX, maxiter=5, polish=polish, **SEED)
    assert used
    np.testing.assert_allclose(result.x, 1.0, atol=1e-3)


def test_keyboard_interrupt_passes_scipys_door():
    calls = []

    def fun(x):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return rosen(x)

    with pytest.raises(KeyboardInterrupt):
        scipy.optimize.minimize(fun, X0, jac=rosen_der, method=rmsprop)
    calls.clear()
    assert rmsprop_nb.minimize(fun, X0, jac=rosen_der).status == Status.INTERRUPTED


def test_disp_prints_a_summary(capsys):
    rmsprop_nb.minimize(rosen, X0, jac=rosen_der)
    assert capsys.readouterr().out == ""
    rmsprop_nb.minimize(rosen, X0, jac=rosen_der, options={"disp": True})
    out = capsys.readouterr().out
    assert "Converged" in out
    assert "Iterations" in out


def test_notebooks_show_a_table():
    result = rmsprop_nb.minimize(rosen, [0.5, 0.5], jac=rosen_der, options={"history": True, "return_all": True})
    table = result._repr_html_()
    result["note"] = "<b>bold</b>"
    assert "&lt;b&gt;bold&lt;/b&gt;" in result._repr_html_()
    for name in ("message", "fun", "x", "nfev", "history", "allvecs"):
        assert f">{name}</th>" in table
    assert result.message.replace("'", "&#x27;") in table
    assert table.count("<tr>") == table.count("</tr>") == len(result) - 1


def test_notebooks_show_a_table_of_a_batch():
    table = minimize_batch(lambda x: x @ x, np.ones((3, 2)))._repr_html_()
    assert "3 problems of 2 variables" in table
    assert "Converged" in table
    assert table.count("<tr>") == 3
