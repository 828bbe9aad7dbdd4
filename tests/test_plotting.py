"""Pictures: what is in them, and clear errors for what cannot be drawn."""

from __future__ import annotations

import io

import numpy as np
import pytest
from numba import njit
from processes import run_python
from scipy.optimize import OptimizeResult, rosen, rosen_der

from rmsprop_nb import fit, minimize
from rmsprop_nb._plotting.style import COLORS
from rmsprop_nb.plotting import plot_convergence, plot_fits, plot_profile, plot_trajectory

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")

from matplotlib.figure import Figure


@pytest.fixture(scope="module")
def runs():
    """What is drawn; made where a test needs it, because every process of the tests imports this file."""
    options = {"history": True, "return_all": True}
    return {
        method: minimize(rosen, [-1.2, 1.0], method=method, jac=rosen_der, options=options)
        for method in ("rmsprop", "rmsprop-lbfgs")
    }


@pytest.fixture
def result(runs):
    return runs["rmsprop"]


@pytest.fixture(autouse=True)
def no_figures_stay_open():
    yield
    matplotlib.pyplot.close("all")


def drawn(ax):
    """The axes, having been drawn: what fails only then fails here."""
    ax.figure.canvas.draw()
    return ax


# -- convergence ------------------------------------------------------------------------------------------------------


def visible(ax, x, y):
    """Whether points are within the axes."""
    inside = ax.transAxes.inverted().transform(ax.transData.transform(np.transpose([x, y])))
    return (inside > 0.0).all() and (inside < 1.0).all()


def test_convergence_shows_every_run_to_its_end(runs):
    ax = drawn(plot_convergence(runs))
    assert [text.get_text() for text in ax.get_legend().get_texts()] == list(runs)
    lowest = min(run.history["fun"].min() for run in runs.values())
    for line, result in zip(ax.lines, runs.values(), strict=True):
        x, y = line.get_data()
        np.testing.assert_array_equal(y, result.history["fun"] - lowest)
        np.testing.assert_array_equal(x, result.history["nfev"])
        assert line.get_markevery() == [-1]
        assert visible(ax, x, y)
    assert min(line.get_ydata()[-1] for line in ax.lines) == 0.0
    assert ax.get_yscale() == "symlog"
    assert 0.0 in ax.get_yticks()


def test_convergence_of_one_run_has_no_legend(result):
    ax = drawn(plot_convergence(result, y="gnorm"))
    assert ax.get_legend() is None
    assert ax.get_yscale() == "log"
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), result.history["gnorm"])
    assert len(drawn(plot_convergence([result, result])).lines) == 2


@pytest.mark.parametrize("values", [[3.0], [np.nan, np.nan], [2.0, np.nan, 1.0, np.inf]])
def test_convergence_of_runs_that_found_little(values):
    n = len(values)
    result = OptimizeResult(history={"fun": np.array(values), "nfev": np.arange(n) + 1.0, "gnorm": np.zeros(n)})
    finite = np.isfinite(values)
    line = drawn(plot_convergence(result)).lines[0]
    np.testing.assert_array_equal(
        line.get_ydata()[finite], np.array(values)[finite] - min(values, default=0.0, key=abs)
    )
    assert drawn(plot_convergence(result, y="gnorm")).get_ylim()[0] < 0.0


# -- axes and colours -------------------------------------------------------------------------------------------------


def test_axes_of_ones_own_are_used(result):
    ax = Figure().subplots()
    assert plot_convergence(result, ax=ax) is ax
    ax = Figure().subplots()
    assert plot_trajectory(rosen, result, ax=ax) is ax
    assert not matplotlib.pyplot.get_fignums()


def test_lines_look_different(result):
    lines = plot_convergence([result] * 12).lines
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == 12
    assert lines[0].get_color() == COLORS[0]


PICTURES = {
    "convergence": lambda runs: plot_convergence(runs),
    "trajectory": lambda runs: plot_trajectory(rosen, runs),
    "fits": lambda runs: plot_fits(decay, T, Y, FITS()),
    "profile": lambda runs: plot_profile(rosen, runs["rmsprop"], 0),
}


def colors_of(axes):
    """All colours of lines, of their edges and of areas, as red, green, blue."""
    found = {matplotlib.colors.to_rgb(axes.get_facecolor())}
    for line in axes.lines:
        found |= {matplotlib.colors.to_rgb(line.get_color()), matplotlib.colors.to_rgb(line.get_markeredgecolor())}
    for area in axes.collections:
        found |= {tuple(color[:3]) for color in area.get_facecolor().tolist()}
    return found


@pytest.mark.parametrize("draw", PICTURES.values(), ids=PICTURES)
def test_pictures_follow_dark_mode_and_can_be_saved(draw, runs):
    with matplotlib.pyplot.style.context("dark_background"):
        axes = np.ravel(draw(runs))
        found = set().union(*map(colors_of, axes))
        assert (0.0, 0.0, 0.0) in found  # the background
        assert all(matplotlib.colors.to_rgb(line.get_color()) != (0.0, 0.0, 0.0) for ax in axes for line in ax.lines)
        file = io.BytesIO()
        axes[0].figure.savefig(file, format="svg")
        assert b"</svg>" in file.getvalue()
    light = set().union(*map(colors_of, np.ravel(draw(runs))))
    assert (1.0, 1.0, 1.0) in light


# -- trajectories -----------------------------------------------------------------------------------------------------


def test_trajectory_has_the_iterates(runs, result):
    ax = drawn(plot_trajectory(rosen, runs))
    np.testing.assert_array_equal(np.transpose(ax.lines[0].get_data()), result.allvecs)
    np.testing.assert_array_equal(np.ravel(ax.lines[1].get_data()), result.allvecs[-1])
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    for run in runs.values():
        x, y = np.transpose(run.allvecs)
        assert left < x.min() < x.max() < right
        assert bottom < y.min() < y.max() < top


def test_trajectory_keeps_the_minimum_in_view():
    def cup(x):
        return float((x[0] - 3.0) ** 2 + (x[1] - 5.0) ** 2)

    path = np.array([[0.0, 0.0], [0.1, 0.3], [np.nan, np.nan], [0.2, 0.4]])
    ax = drawn(plot_trajectory(cup, OptimizeResult(x=path[1], allvecs=list(path))))
    np.testing.assert_array_equal(np.ravel(ax.lines[1].get_data()), path[1])
    assert visible(ax, [3.0, 0.0], [5.0, 0.0])
    ax = drawn(plot_trajectory(lambda x: x[0], OptimizeResult(x=path[1], allvecs=list(path))))
    np.testing.assert_allclose([ax.get_xlim(), ax.get_ylim()], [(-0.02, 0.22), (-0.04, 0.44)])


def test_trajectories_have_their_own_starts():
    paths = {"a": [[0.0, 0.0], [1.0, 1.0]], "b": [[2.0, 0.0], [1.0, 1.0]]}
    results = {name: OptimizeResult(allvecs=list(map(np.array, path))) for name, path in paths.items()}
    ax = drawn(plot_trajectory(lambda x: float(np.sum((x - 1.0) ** 2)), results))
    starts = [np.ravel(line.get_data()).tolist() for line in ax.lines if line.get_marker() == "o"]
    assert starts == [[0.0, 0.0], [2.0, 0.0]]


def test_trajectory_takes_args_and_bounds(result):
    seen = []

    def fun(x, scale):
        seen.append(scale)
        return scale * rosen(x) if x[0] < 0.5 else np.nan

    ax = drawn(plot_trajectory(fun, result, args=(3.0,), bounds=[(-1, 1), (0, 2)]))
    assert set(seen) == {3.0}
    assert (ax.get_xlim(), ax.get_ylim()) == ((-1, 1), (0, 2))


# -- fits -------------------------------------------------------------------------------------------------------------

T = np.linspace(0.0, 4.0, 25)


def decay(t, amplitude, rate):
    return amplitude * np.exp(-rate * t)


@njit
def decay_of_a_number(t, amplitude, rate):
    return 0.0 if t < 0.0 else amplitude * np.exp(-rate * t)


def sum_of_decays(t, amplitude, rate):
    """A model that depends on all points together."""
    return np.cumsum(decay(t, amplitude, rate))


Y = decay(T, 2.5, 1.3) + 0.1 * np.random.default_rng(0).normal(size=(2, 4, 25))
Y[1, 2, 7] = 4.0


def FITS():
    return fit(decay, T, Y)


def test_of_many_fits_the_median_and_the_worst_are_shown():
    found = FITS()
    axes = plot_fits(decay, T, Y, found)
    drawn(axes[0, 0])
    assert axes.shape == (2, 2)
    quality = found.chi2 / found.dof
    shown = []
    for above, below in axes.T:
        data, model = above.lines
        (index,) = np.argwhere((data.get_ydata() == Y).all(axis=-1))
        shown.append(tuple(index.tolist()))
        x, y = model.get_data()
        assert x.size > 300
        np.testing.assert_allclose(y, decay(x, *found.popt[shown[-1]]))
        np.testing.assert_allclose(below.lines[1].get_ydata(), Y[shown[-1]] - decay(T, *found.popt[shown[-1]]))
        assert f"fit {shown[-1]}, chi2/dof = {quality[shown[-1]]:.3g}" in above.get_title()
    assert shown[1] == (1, 2)
    assert (quality < quality[shown[0]]).sum() == 3
    assert axes[1, 0].get_ylabel() == "residuals"


def test_fits_of_ones_own_choice():
    given = Figure().subplots(2, 3)
    axes = plot_fits(decay, T, Y, FITS(), which=[(0, 0), (0, 3), (1, 1)], axes=given)
    assert (axes == given).all()
    assert [ax.get_title() for ax in axes[0]] == ["(0, 0)", "(0, 3)", "(1, 1)"]
    np.testing.assert_array_equal(axes[0, 1].lines[0].get_ydata(), Y[0, 3])
    with pytest.raises(ValueError, match=r"axes must have shape \(2, 1\), .*, got \(2, 3\)"):
        plot_fits(decay, T, Y[0, 0], fit(decay, T, Y[0, 0]), axes=given)


def test_one_fit_with_errors_and_points_left_out():
    sigma = np.full(25, 0.1)
    sigma[3] = np.inf
    y = Y[0, 0].copy()
    y[5] = np.nan
    found = fit(decay_of_a_number, T, y, sigma=sigma, nan_policy="omit")
    axes = plot_fits(decay_of_a_number, T, y, found, sigma=sigma)
    drawn(axes[0, 0])
    residuals = axes[1, 0].lines[1].get_ydata()
    assert np.flatnonzero(np.isnan(residuals)).tolist() == [3, 5]
    assert np.nansum(residuals**2) == pytest.approx(found.chi2)
    assert axes[1, 0].get_ylabel() == "residuals/sigma"
    bars = axes[0, 0].containers[0]
    assert bars.has_yerr
    covariance = plot_fits(decay, T, Y[0, 0], fit(decay, T, Y[0, 0]), sigma=np.diag(np.full(25, 0.25)))
    np.testing.assert_allclose(
        covariance[1, 0].lines[1].get_ydata(), (Y[0, 0] - decay(T, *fit(decay, T, Y[0, 0]).popt)) / 0.5
    )


def test_models_that_depend_on_all_points_are_drawn_at_the_data():
    y = sum_of_decays(T, 2.0, 1.0) + 0.01 * np.sin(9.0 * T)
    found = fit(sum_of_decays, T, y)
    x, curve = plot_fits(sum_of_decays, T, y, found)[0, 0].lines[1].get_data()
    np.testing.assert_array_equal(x, T)
    np.testing.assert_allclose(curve, sum_of_decays(T, *found.popt))


def test_points_of_several_numbers_are_counted():
    x = np.array([T, T**2])

    def plane(x, a, b):
        return a * x[0] + b * x[1]

    y = plane(x, 1.0, 2.0) + 0.01 * np.sin(9.0 * T)
    axes = plot_fits(plane, x, y, fit(plane, x, y))
    assert axes[1, 0].get_xlabel() == "point"
    np.testing.assert_array_equal(axes[1, 0].lines[1].get_xdata(), np.arange(25))


def test_each_fit_may_have_points_of_its_own():
    x = np.array([T, T + 1.0, T + 2.0])
    y = decay(x, 2.0, 0.5) + 0.01 * np.sin(9.0 * x)
    axes = plot_fits(decay, x, y, fit(decay, x, y), which=[2])
    np.testing.assert_array_equal(axes[0, 0].lines[0].get_xdata(), x[2])


def test_failed_fits():
    y = np.array([Y[0, 0], np.full(25, np.nan)])
    found = fit(decay, T, y, [1.0, 1.0], nan_policy="omit")
    axes = plot_fits(decay, T, y, found)
    drawn(axes[0, 0])
    assert any("failed" in ax.get_title() for ax in axes[0])
    found["chi2"][:] = np.nan
    with pytest.raises(ValueError, match="at least one fit must have a finite chi2"):
        plot_fits(decay, T, y, found)


# -- profiles ---------------------------------------------------------------------------------------------------------


def tilted(x, scale=1.0):
    """A bowl whose variables are correlated: at the best y, f is 0.75*x**2."""
    return scale * (x[0] ** 2 + x[0] * x[1] + x[1] ** 2)


def test_profiles_with_the_others_fixed_and_free():
    ax = plot_profile(tilted, [0.0, 0.0], 0, args=(2.0,), span=(-1.0, 2.0), points=7)
    assert plot_profile(tilted, [0.0, 0.0], -2, args=(2.0,), span=(-1.0, 2.0), points=7, others="free", ax=ax) is ax
    drawn(ax)
    lines = {line.get_label(): line.get_data() for line in ax.lines}
    along = np.linspace(-1.0, 2.0, 7)
    for label, factor in (("others fixed", 2.0), ("others re-optimised", 1.5)):
        np.testing.assert_array_equal(lines[label][0], along)
        np.testing.assert_allclose(lines[label][1], factor * along**2, atol=1e-8)
    assert ax.get_xlabel() == "x[0]"


def test_profile_of_a_fit_shows_its_error():
    y, sigma = Y[0, 0], np.full(25, 0.1)
    found = fit(decay, T, y, sigma=sigma, absolute_sigma=True)
    ax = plot_profile(lambda p: np.sum(((y - decay(T, *p)) / 0.1) ** 2), found, "rate", others="free", points=13)
    drawn(ax)
    x, chi2 = ax.lines[0].get_data()
    np.testing.assert_allclose(x[[0, -1]], found.popt[1] + 3.0 * found.perr[1] * np.array([-1.0, 1.0]))
    assert chi2[[4, 8]] == pytest.approx([found.chi2 + 1.0] * 2, abs=0.15)  # at one standard error
    (band,) = ax.patches
    assert band.get_width() == pytest.approx(2.0 * found.perr[1])
    assert ax.get_xlabel() == "rate"


def test_profile_of_a_single_parameter():
    ax = plot_profile(lambda x: float(x[0] ** 4), minimize(lambda x: x[0] ** 4, [0.0]), 0, others="free", points=3)
    np.testing.assert_allclose(np.transpose(ax.lines[0].get_data()), [(-1.0, 1.0), (0.0, 0.0), (1.0, 1.0)])


# -- errors -----------------------------------------------------------------------------------------------------------


def test_what_cannot_be_drawn_is_said(result):
    plain = minimize(rosen, [0.5, 0.5], jac=rosen_der)
    with pytest.raises(ValueError, match=r'the result must have history, .* with options={"history": True}'):
        plot_convergence(plain)
    with pytest.raises(ValueError, match=r"result 'b' must have allvecs"):
        plot_trajectory(rosen, {"a": result, "b": plain})
    with pytest.raises(ValueError, match="y must be 'fun' or 'gnorm', got 'x'"):
        plot_convergence(result, y="x")
    three = minimize(rosen, np.zeros(3), jac=rosen_der, options={"return_all": True})
    with pytest.raises(ValueError, match="drawn for two variables"):
        plot_trajectory(rosen, three)
    with pytest.raises(ValueError, match="fun must be finite somewhere in the range"):
        plot_trajectory(lambda x: np.nan, result)
    with pytest.raises(ValueError, match=r"result must be what rmsprop_nb\.fit returned, got tuple"):
        plot_fits(decay, T, Y, (1, 2))
    with pytest.raises(ValueError, match=r"leading axes are \(2, 4\), got one of shape \(4,\)"):
        plot_fits(decay, T, Y, FITS()[0])
    with pytest.raises(ValueError, match="others must be 'fixed' or 'free', got 'best'"):
        plot_profile(rosen, result, 0, others="best")
    with pytest.raises(ValueError, match=r"k must be an index below 2 or one of the names x\[0\], x\[1\], got 2"):
        plot_profile(rosen, result, 2)
    with pytest.raises(ValueError, match=r"x must be one vector .*, got shape \(2, 4, 2\)"):
        plot_profile(rosen, FITS(), 0)


def test_missing_matplotlib_is_said():
    program = """if True:
        import sys
        sys.modules["matplotlib"] = None
        from scipy.optimize import rosen
        from rmsprop_nb import minimize
        from rmsprop_nb.plotting import plot_convergence
        plot_convergence(minimize(rosen, [0.5, 0.5], options={"history": True}))
    """
    done = run_python("-c", program)
    assert "ImportError: pictures need matplotlib; install it with pip install 'rmsprop_nb[plot]'" in done.stderr
