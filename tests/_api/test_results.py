"""Results of every front end: printed, as tables for notebooks and for pandas, and by problem."""

from __future__ import annotations

import copy
import html.parser
import pickle
import sys

import numpy as np
import pytest
from scipy.optimize import rosen, rosen_der

from rmsprop_nb import (
    RMSprop,
    check_gradient,
    curve_fit,
    fit,
    least_squares,
    load,
    minimize,
    minimize_batch,
    minimize_minibatch,
    multistart,
    save,
)
from rmsprop_nb._core.result import Result

X = np.arange(5.0)
NOISE = 0.01 * np.sin(9.0 * X)
BOX = [(0.0, 3.0), (0.0, 3.0)]


def bowl(x):
    return float(np.sum((x - 1.0) ** 2))


def broken(x):
    return np.nan


def by_kind(x, kind):
    """Solvable for kind 0, NaN for kind 1, and an error for kind 2."""
    if kind == 2.0:
        msg = "<b>on purpose</b>"
        raise ValueError(msg)
    return bowl(x) if kind == 0.0 else np.nan


def line(x, slope, height):
    return slope * x + height


def line_or_error(x, slope, height):
    """A model that raises for the third data set, whose first point is at 100."""
    if x[0] == 100.0:
        msg = "<b>on purpose</b>"
        raise ValueError(msg)
    return slope * x + height


def residuals(x, goal=1.0):
    return np.array([x[0] - goal, 2.0 * x[1]])


def two_wells(x):
    return float((x[0] ** 2 - 1.0) ** 2 + 0.3 * x[0])


def tree(p):
    return float(np.sum(p["W"] ** 2) + p["b"] ** 2)


def pair(p):
    return float(np.sum(p[0] ** 2) + np.sum(p[1] ** 2))


def mean_distance(x, rows):
    return float(np.mean((x - rows) ** 2))


def batch_of_kinds():
    return minimize_batch(by_kind, np.zeros((4, 2)), batch_args=(np.array([0.0, 1.0, 2.0, 0.0]),))


def fits_of_kinds():
    x = np.array([X, X, X + 100.0, X])
    return fit(line_or_error, x, [X, np.full(5, np.nan), X, 2.0 * X + NOISE], [1.0, 0.0], nan_policy="omit")


def map_of_fits():
    x = np.array([[X, X, X], [X, X + 100.0, X]])
    return fit(line_or_error, x, np.ones((2, 3, 5)) * X + NOISE, [1.0, 0.0])


class OnDevice:
    """Stands for an array on a device, whose text has several lines."""

    def __repr__(self):
        return "<array on\na device>"


RESULTS = {
    "one": lambda: minimize(rosen, [-1.2, 1.0], jac=rosen_der, options={"history": True, "return_all": True}),
    "one, NaN": lambda: minimize(broken, [1.0]),
    "one, stopped": lambda: minimize(rosen, [-1.2, 1.0], options={"maxiter": 0}),
    "dict": lambda: minimize(tree, {"W": np.ones((2, 3)), "b": 1.0}, options={"return_all": True}),
    "list": lambda: minimize(pair, [np.ones(2), np.ones((2, 2))]),
    "tuple": lambda: minimize(pair, (np.ones(2), np.ones(300))),
    "batch": lambda: minimize_batch(bowl, np.zeros((3, 2))),
    "batch of one": lambda: minimize_batch(bowl, np.zeros((1, 1))),
    "batch of kinds": batch_of_kinds,
    "batch of NaN": lambda: minimize_batch(broken, np.zeros((3, 2))),
    "batch, empty": lambda: batch_of_kinds()[:0],
    "mini-batches": lambda: minimize_minibatch(mean_distance, np.zeros(2), np.ones((8, 2)), epochs=2, history=True),
    "mini-batches, NaN": lambda: minimize_minibatch(lambda x, rows: np.nan, np.zeros(2), np.ones((8, 2)), epochs=1),
    "multistart": lambda: multistart(two_wells, [(-2.0, 2.0)], 8, rng=0),
    "multistart, NaN": lambda: multistart(broken, BOX, 4, rng=0),
    "fit": lambda: fit(line, X, 2.0 * X + NOISE),
    "fit, no data": lambda: fit(line, X, np.full(5, np.nan), nan_policy="omit"),
    "fit, all fixed": lambda: fit(line, X, X, [1.0, 1.0], bounds=([1.0, 1.0], [1.0, 1.0])),
    "fits": lambda: fit(line, X, np.ones((2, 3, 5)) * X + NOISE),
    "fits of kinds": fits_of_kinds,
    "fits, empty": lambda: fits_of_kinds()[:0],
    "curve_fit": lambda: curve_fit(line, X, 2.0 * X + NOISE, full_output=True),
    "curve_fit, many": lambda: curve_fit(line, X, np.ones((2, 5)) * X + NOISE, full_output=True),
    "least_squares": lambda: least_squares(residuals, [0.0, 1.0]),
    "least_squares, many": lambda: least_squares(residuals, np.zeros((3, 2)), batch_args=(np.arange(3.0),)),
    "least_squares, NaN": lambda: least_squares(lambda x: x * np.nan, np.zeros((3, 2))),
    "check": lambda: check_gradient(bowl, np.full(3, 2.0), lambda x: 2.0 * (x - 1.0)),
    "check, wrong": lambda: check_gradient(bowl, np.full(3, 2.0), lambda x: -2.0 * (x - 1.0)),
    "check, NaN": lambda: check_gradient(bowl, np.full(3, 2.0), lambda x: x * np.nan),
    "check of a dict": lambda: check_gradient(
        tree, {"W": np.ones((2, 3)), "<b>": 0.0, "b": 2.0}, lambda p: {name: 3.0 * x for name, x in p.items()}
    ),
    "state": lambda: RMSprop().init({"W": np.zeros((2, 3)), "b": np.zeros(1)}),
    "on a device": lambda: Result(x=OnDevice(), fun=0.5, jac=OnDevice(), message="<b>&</b>", success=True),
}


class Tags(html.parser.HTMLParser):
    """Checks that tags close in order, and collects the text of each cell."""

    def __init__(self):
        super().__init__()
        self.open, self.seen, self.cells = [], set(), []

    def handle_starttag(self, tag, attrs):  # noqa: ARG002
        self.open.append(tag)
        self.seen.add(tag)
        if tag in ("th", "td"):
            self.cells.append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.cells[-1] += data


def cells_of(result):
    tags = Tags()
    tags.feed(result._repr_html_())
    assert not tags.open
    assert tags.seen == {"table", "tr", "th", "td", "code"}
    return tags.cells


@pytest.mark.filterwarnings("ignore::scipy.optimize.OptimizeWarning")
@pytest.mark.parametrize("make", RESULTS.values(), ids=RESULTS)
def test_every_result_can_be_printed(make):
    result = make()
    text = repr(result)
    assert text
    assert str(result) == text
    assert f"{result}" == text
    assert len(text) < 5000
    if hasattr(result, "message"):
        messages = {result.message} if isinstance(result.message, str) else set(np.ravel(result.message))
        assert all(message in text for message in messages)


@pytest.mark.parametrize(
    "make", [make for name, make in RESULTS.items() if name not in ("curve_fit", "curve_fit, many", "state")]
)
def test_notebooks_show_every_result_as_a_small_table(make):
    result = make()
    cells = cells_of(result)
    assert len(cells) % 2 == 0
    assert len("".join(cells)) < 3000
    if isinstance(getattr(result, "message", None), str):
        assert result.message in cells


# -- texts ------------------------------------------------------------------------------------------------------------


def test_text_of_batches():
    assert repr(minimize_batch(bowl, np.zeros((1, 1)))).startswith("1 problem of 1 variable, 1 of them successful\n")
    lines = repr(batch_of_kinds()).splitlines()
    assert [line.split()[0] for line in lines] == ["4", "2", "1", "1", "lowest"]
    assert repr(batch_of_kinds()[:0]) == "0 problems of 2 variables, 0 of them successful"
    assert (
        repr(least_squares(residuals, np.zeros((3, 2)), batch_args=(np.arange(3.0),)))
        .splitlines()[-1]
        .startswith("lowest cost: 0 at index 0")
    )


def test_endings_of_fits_that_are_as_frequent_as_others_are_all_shown():
    text = repr(fits_of_kinds()[:3])
    assert text.count("\n           1  ") == 3


def test_a_parameter_may_have_the_name_of_a_field():
    def model(x, message, chi2):
        return message * x + chi2

    found = fit(model, X, 2.0 * X + 1.0 + NOISE)
    assert repr(found).count("message  ") == repr(found).count("chi2  ") == 2
    pytest.importorskip("pandas")
    assert list(found.to_frame().columns).count("chi2") == 2
    np.testing.assert_array_equal(found.to_frame()["chi2"].to_numpy()[0], [found.popt[1], found.chi2])


def test_long_lists_of_points_are_not_printed():
    found = RESULTS["one"]()
    assert f"allvecs: list of {len(found.allvecs)} points" in repr(found)


def test_values_in_containers_are_shown():
    assert "W: shape (2, 3), b: " in dict(zip(*[iter(cells_of(RESULTS["dict"]()))] * 2, strict=True))["x"]


# -- results of single problems ---------------------------------------------------------------------------------------


def assert_same(one, other, *, but=()):
    assert set(one) == set(other) - set(but)
    for name, value in one.items():
        np.testing.assert_array_equal(value, other[name], err_msg=name)
        assert type(value) is type(other[name]), name


def test_problems_of_a_batch():
    batch = minimize_batch(bowl, np.array([[0.0, 0.0], [4.0, -3.0], [9.0, 1.5]]))
    assert len(batch) == 3
    for k, (x0, one) in enumerate(zip([[0.0, 0.0], [4.0, -3.0], [9.0, 1.5]], batch, strict=True)):
        assert_same(one, minimize(bowl, x0), but=["state"])
        assert_same(one, batch[k - 3])
    with pytest.raises(IndexError):
        batch[3]
    with pytest.raises(IndexError):
        batch[0, 1]
    with pytest.raises(IndexError, match="along one axis"):
        batch[[[0, 1]]]
    with pytest.raises(KeyError):
        batch["foo"]


def test_results_of_problems_are_copies():
    batch = minimize_batch(bowl, np.zeros((3, 2)))
    batch[1].x[:] = 7.0
    batch[:2].fun[:] = 7.0
    assert (batch.x[1] == 1.0).all()
    assert (batch.fun < 1.0).all()


def test_several_problems_of_a_batch():
    batch = batch_of_kinds()
    chosen = batch[[3, 2, 1]]
    assert type(chosen) is type(batch)
    assert chosen.best == 0
    np.testing.assert_array_equal(chosen.status, batch.status[[3, 2, 1]])
    assert chosen.exceptions == {1: batch.exceptions[2]}
    assert chosen[1].exception is batch.exceptions[2]
    assert "exception" not in chosen[0]
    assert batch[batch.success].fun.shape == (2,)
    assert len(batch[:0]) == 0
    assert batch[:0]
    assert [one.success for one in batch] == [True, False, False, True]


def test_several_problems_go_on(tmp_path):
    batch = batch_of_kinds()
    save(tmp_path / "some.npz", batch[1:])
    again = load(tmp_path / "some.npz")
    assert again.best == 2
    assert str(again.exceptions[1]) == "ValueError: <b>on purpose</b>"
    np.testing.assert_array_equal(again.x, batch.x[1:])


def test_data_sets_of_fits():
    y = 2.0 * X + np.array([[[0.0], [1.0], [2.0]], [[3.0], [4.0], [5.0]]]) + NOISE
    fits = fit(line, X, y)
    assert len(fits) == 2
    assert_same(fits[1, 2], fit(line, X, y[1, 2]), but=["residuals"])
    assert_same(fits[1][2], fits[1, 2])
    assert [row.shape for row in fits] == [(3,), (3,)]
    np.testing.assert_array_equal(fits[..., 0].popt, fits.popt[:, 0])
    np.testing.assert_array_equal(fits[fits.popt[..., 1] > 2.5].popt, fits.popt[1])
    assert fits[0].jacobian == fits.jacobian
    with pytest.raises(IndexError):
        fits[0, 0, 0]


def test_exceptions_of_data_sets():
    fits = map_of_fits()
    error = fits.exceptions[1, 1]
    assert fits[1].exceptions == {1: error}
    assert fits[1, 1].exception is error
    assert fits[:, 1:].exceptions == {(1, 0): error}
    assert fits[0].exceptions == {}
    assert "exception" not in fits[0, 0]


def test_problems_of_least_squares():
    many = least_squares(residuals, np.zeros((3, 2)), batch_args=(np.arange(3.0),))
    assert_same(many[2], least_squares(residuals, np.zeros(2), args=(2.0,)), but=["fun", "jac"])
    assert [one.x[0] for one in many[1:]] == pytest.approx([1.0, 2.0])


def test_minima_of_many_starts(tmp_path):
    found = multistart(two_wells, [(-2.0, 2.0)], 8, rng=0)
    assert len(found) == len(found.minima) == 2
    for x, f, one in zip(found.minima, found.minima_fun, found, strict=True):
        assert (one.x, one.fun, one.success) == (x, f, True)
        assert one.nfev < found.nfev
    assert found[0].fun == found.fun
    with pytest.raises(IndexError):
        found[2]
    save(tmp_path / "found.npz", found)
    assert_same(load(tmp_path / "found.npz")[1], found[1])
    nothing = multistart(broken, BOX, 4, rng=0)
    assert len(nothing) == 0
    assert list(nothing) == []
    assert nothing


@pytest.mark.parametrize("name", ["batch", "fits", "least_squares, many", "multistart"])
def test_results_are_still_dicts(name):
    found = RESULTS[name]()
    assert dict(found).keys() == {**found}.keys() == set(dir(found)) == set(found.keys())
    assert "success" in found
    for again in (copy.copy(found), copy.deepcopy(found), pickle.loads(pickle.dumps(found))):
        assert type(again) is type(found)
        assert repr(again) == repr(found)


# -- tables -----------------------------------------------------------------------------------------------------------


def test_frames():
    pytest.importorskip("pandas")
    batch = batch_of_kinds()
    frame = batch.to_frame()
    assert list(frame.columns) == ["x[0]", "x[1]", "fun", "success", "status", "nit", "nfev", "njev"]
    np.testing.assert_array_equal(frame[["x[0]", "x[1]"]], batch.x)
    np.testing.assert_array_equal(frame["nfev"], batch.nfev)
    assert batch[:0].to_frame().shape == (0, 8)
    fits = RESULTS["fits"]()
    assert fits.to_frame().loc[(1, 2), "slope error"] == fits.perr[1, 2, 0]
    assert fits[0].to_frame().index.tolist() == [0, 1, 2]
    assert fits[0, 0].to_frame().shape == (1, 9)
    many = RESULTS["least_squares, many"]()
    np.testing.assert_array_equal(many.to_frame()["cost"], many.cost)
    found = RESULTS["multistart"]()
    np.testing.assert_array_equal(found.to_frame()["x[0]"], found.minima[:, 0])
    assert multistart(broken, BOX, 4, rng=0).to_frame().shape == (0, 8)
    checked = RESULTS["check of a dict"]()
    assert checked.to_frame().loc["['W'][1, 2]", "gradient"] == 3.0


def test_missing_pandas_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"to_frame needs pandas; install it with pip install pandas\."):
        minimize_batch(bowl, np.zeros((3, 2))).to_frame()
