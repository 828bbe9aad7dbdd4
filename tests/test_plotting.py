"""Pictures: what is in them, and clear errors for what cannot be drawn."""

from __future__ import annotations

import numpy as np
import pytest
from processes import run_python
from scipy.optimize import rosen, rosen_der

from rmsprop_nb import minimize
from rmsprop_nb.plotting import plot_convergence, plot_trajectory

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


def test_convergence_has_a_line_for_every_run(runs):
    ax = drawn(plot_convergence(runs))
    assert [text.get_text() for text in ax.get_legend().get_texts()] == list(runs)
    for line, result in zip(ax.lines, runs.values(), strict=True):
        lowest = min(run.history["fun"].min() for run in runs.values())
        x, y = line.get_data()
        np.testing.assert_array_equal(y, (result.history["fun"] - lowest)[result.history["fun"] > lowest])
        assert set(x) <= set(result.history["nfev"])
    assert ax.get_yscale() == "log"


def test_convergence_of_one_run_has_no_legend(result):
    ax = drawn(plot_convergence(result, y="gnorm"))
    assert ax.get_legend() is None
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), result.history["gnorm"])
    assert len(drawn(plot_convergence([result, result])).lines) == 2


def test_axes_of_ones_own_are_used(result):
    ax = Figure().subplots()
    assert plot_convergence(result, ax=ax) is ax
    ax = Figure().subplots()
    assert plot_trajectory(rosen, result, ax=ax) is ax
    assert not matplotlib.pyplot.get_fignums()


def test_trajectory_has_the_iterates(runs, result):
    ax = drawn(plot_trajectory(rosen, runs))
    np.testing.assert_array_equal(np.transpose(ax.lines[0].get_data()), result.allvecs)
    np.testing.assert_array_equal(np.ravel(ax.lines[1].get_data()), result.allvecs[-1])
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    for run in runs.values():
        x, y = np.transpose(run.allvecs)
        assert left < x.min() < x.max() < right
        assert bottom < y.min() < y.max() < top


def test_trajectory_takes_args_and_bounds(result):
    seen = []

    def fun(x, scale):
        seen.append(scale)
        return scale * rosen(x) if x[0] < 0.5 else np.nan

    ax = drawn(plot_trajectory(fun, result, args=(3.0,), bounds=[(-1, 1), (0, 2)]))
    assert set(seen) == {3.0}
    assert (ax.get_xlim(), ax.get_ylim()) == ((-1, 1), (0, 2))


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
