"""The data that ship and the functions for them, against NIST's certified results and independent derivatives."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib.resources import files
from typing import Any

import numpy as np
import pytest
from numba import njit
from scipy.optimize import approx_fprime

from rmsprop_nb._cli.models import _MODELS, logistic_loss, nist_model
from rmsprop_nb.datasets import NIST_NAMES, NistProblem, _parse_nist, load_breast_cancer, load_digits, load_nist

# points, parameters and difficulty on NIST's page of each data set
SHAPES = {
    "Misra1a": (14, 2, "lower"),
    "Chwirut2": (54, 3, "lower"),
    "Chwirut1": (214, 3, "lower"),
    "Lanczos3": (24, 6, "lower"),
    "Gauss1": (250, 8, "lower"),
    "Gauss2": (250, 8, "lower"),
    "DanWood": (6, 2, "lower"),
    "Misra1b": (14, 2, "lower"),
    "Kirby2": (151, 5, "average"),
    "Hahn1": (236, 7, "average"),
    "Nelson": (128, 3, "average"),
    "MGH17": (33, 5, "average"),
    "Lanczos1": (24, 6, "average"),
    "Lanczos2": (24, 6, "average"),
    "Gauss3": (250, 8, "average"),
    "Misra1c": (14, 2, "average"),
    "Misra1d": (14, 2, "average"),
    "Roszman1": (25, 4, "average"),
    "ENSO": (168, 9, "average"),
    "MGH09": (11, 4, "higher"),
    "Thurber": (37, 7, "higher"),
    "BoxBOD": (6, 2, "higher"),
    "Rat42": (9, 3, "higher"),
    "MGH10": (16, 3, "higher"),
    "Eckerle4": (35, 3, "higher"),
    "Rat43": (15, 4, "higher"),
    "Bennett5": (154, 3, "higher"),
}

each_problem = pytest.mark.parametrize("problem", [load_nist(name) for name in NIST_NAMES], ids=NIST_NAMES)


def formula(problem: NistProblem) -> Callable[[Any], Any]:
    """Make ``f(b)``, the values that the model as NIST prints it has at all points, also for complex b."""
    printed = problem.model.removesuffix("e").rstrip(" +").partition("=")[2]
    source = re.sub(r"\bb(\d)", lambda match: f"b[{int(match[1]) - 1}]", printed.translate(str.maketrans("[]", "()")))
    code = compile(source.strip(), problem.name, "eval")
    known = {name: getattr(np, name) for name in ("arctan", "cos", "exp", "pi", "sin")}
    known |= {"x": problem.x, "x1": problem.x[0], "x2": problem.x[-1]}
    return lambda b: eval(code, known, {"b": b})


def jacobian(problem: NistProblem, b: Any) -> Any:
    """Differentiate the printed formula, exact to rounding (Squire and Trapp 1998): shape (n_points, n_parameters)."""
    function = formula(problem)
    columns = []
    for j in range(b.size):
        step = 1e-30 * abs(b[j])
        moved = b.astype(complex)
        moved[j] += 1j * step
        columns.append(function(moved).imag / step)
    return np.array(columns).T


def test_names_are_the_files_and_the_models() -> None:
    shipped = {file.name for file in files("rmsprop_nb").joinpath("data").iterdir()}
    assert shipped == {f"{name}.dat" for name in NIST_NAMES} | {"README.md", "breast_cancer.csv", "digits.csv.gz"}
    assert set(_MODELS) == set(NIST_NAMES)
    assert tuple(SHAPES) == NIST_NAMES


@each_problem
def test_file_is_parsed(problem: NistProblem) -> None:
    n_points, n_parameters, difficulty = SHAPES[problem.name]
    assert problem.y.shape == (n_points,)
    assert problem.x.shape == ((2, n_points) if problem.name == "Nelson" else (n_points,))
    assert problem.x.flags.c_contiguous
    for values in (problem.start1, problem.start2, problem.certified, problem.certified_sd):
        assert values.shape == (n_parameters,)
        assert values.dtype == np.float64
        assert np.isfinite(values).all()
    assert problem.difficulty == difficulty
    assert problem.model.startswith("log[y] = " if problem.name == "Nelson" else "y = ")
    assert problem.model.endswith("+ e")
    # the standard deviations belong to the same fit: sd**2 = rss/(n - p) * diag(inv(J'J)), of scaled columns
    J = jacobian(problem, problem.certified)
    lengths = np.linalg.norm(J, axis=0)
    variances = np.square(np.linalg.pinv(J / lengths)).sum(axis=1) * problem.certified_rss / (n_points - n_parameters)
    np.testing.assert_allclose(np.sqrt(variances) / lengths, problem.certified_sd, rtol=1e-4)


@each_problem
def test_certified_parameters_have_the_certified_sum_and_no_gradient(problem: NistProblem) -> None:
    residuals = formula(problem)(problem.certified) - problem.y
    if problem.name == "Lanczos1":  # its data are the model, rounded to 14 digits
        assert np.abs(residuals).max() < 1e-10
        return
    assert residuals @ residuals == pytest.approx(problem.certified_rss, rel=1e-10)
    # Cosine of the angle between the residuals and each column of the Jacobian: the least-squares fit has 0. Eleven
    # digits of Lanczos2's parameters give 1e-5, because its residuals are a millionth of its data.
    J = jacobian(problem, problem.certified)
    cosines = residuals @ J / np.linalg.norm(J, axis=0) / np.linalg.norm(residuals)
    assert np.abs(cosines).max() < 3e-5


def test_two_predictors_are_two_rows_and_a_logarithm_is_taken() -> None:
    """The first and the last line of Nelson's data."""
    nelson = load_nist("Nelson")
    assert nelson.x[:, [0, -1]].T.tolist() == [[1.0, 180.0], [64.0, 275.0]]
    np.testing.assert_allclose(np.exp(nelson.y[[0, -1]]), [15.0, 1.2], rtol=1e-15)


@njit(error_model="numpy")
def point_by_point(model: Any, x: Any, b: Any, values: Any) -> None:
    for i in range(values.size):
        values[i] = model(x[i], *b)


def values_of(problem: NistProblem, b: Any) -> Any:
    """Evaluate the compiled model at one point after another, as `fit` does."""
    values = np.empty(problem.y.size)
    x = np.ascontiguousarray(problem.x.T)
    with np.errstate(all="ignore"):  # interpreted code (NUMBA_DISABLE_JIT) warns
        point_by_point(nist_model(problem.name), x, tuple(b), values)
    return values


@each_problem
def test_model_is_the_printed_formula(problem: NistProblem) -> None:
    """Of points and of arrays, compiled and in Python."""
    model = nist_model(problem.name)
    for b in (problem.start1, problem.start2, problem.certified):
        expected = formula(problem)(b)
        # relative to the largest value: terms of either sign may cancel in others
        close = {"rtol": 1e-13, "atol": 1e-13 * np.abs(expected).max()}
        np.testing.assert_allclose(values_of(problem, b), expected, **close)
        np.testing.assert_allclose(getattr(model, "py_func", model)(problem.x, *b), expected, **close)


@each_problem
@pytest.mark.parametrize("factor", [-1e300, -1e3, 0.0, 1e3, 1e300])
def test_wild_parameters_do_not_raise(problem: NistProblem, factor: float) -> None:
    assert values_of(problem, factor * problem.start1).shape == problem.y.shape


def test_overflow_is_a_wall() -> None:
    assert values_of(load_nist("Misra1a"), [1.0, -1e3])[-1] == -np.inf


@pytest.mark.parametrize("function", [load_nist, nist_model])
def test_unknown_name_is_an_error(function: Callable[[str], Any]) -> None:
    with pytest.raises(ValueError, match=r"name must be one of Misra1a, .*, Bennett5, got 'misra1a'\."):
        function("misra1a")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (("10.07E0", ""), r"must have the 14 points that it states, got 13"),
        (("b2 =", "bb ="), r"must have the 2 parameters that it states, got 1"),
        (("Difficulty", ""), r"must have text that matches '.*Difficulty', got none"),
    ],
)
def test_damaged_file_is_an_error(damage: tuple[str, str], message: str) -> None:
    text = files("rmsprop_nb").joinpath("data", "Misra1a.dat").read_text(encoding="ascii")
    with pytest.raises(ValueError, match=message):
        _parse_nist(text.replace(*damage))


def test_breast_cancer_is_the_published_data() -> None:
    X, y = load_breast_cancer()
    assert X.shape == (569, 30)
    assert X.dtype == y.dtype == np.float64
    assert X.flags.c_contiguous
    assert np.bincount(y.astype(int)).tolist() == [212, 357]
    # minimum and maximum of mean radius, mean area and worst fractal dimension, as published with the data
    np.testing.assert_allclose(X.min(axis=0)[[0, 3, 29]], [6.981, 143.5, 0.055], atol=5e-4)
    np.testing.assert_allclose(X.max(axis=0)[[0, 3, 29]], [28.11, 2501.0, 0.208], atol=5e-4)


def standardized() -> tuple[Any, Any]:
    X, y = load_breast_cancer()
    return (X - X.mean(axis=0)) / X.std(axis=0), y


@pytest.mark.parametrize("function", [logistic_loss, njit(error_model="numpy")(logistic_loss)], ids=["plain", "njit"])
def test_logistic_loss_and_gradient(function: Callable[..., float]) -> None:
    X, y = standardized()
    w = np.random.default_rng(1).normal(size=31)
    grad = np.full(31, np.nan)
    loss = function(w, grad, X, y, 0.1)
    margins = (2 * y - 1) * (X @ w[:-1] + w[-1])
    assert loss == pytest.approx(np.logaddexp(0.0, -margins).mean() + 0.05 * w[:-1] @ w[:-1], rel=1e-13)
    expected = approx_fprime(w, lambda w: function(w, np.empty(31), X, y, 0.1))
    np.testing.assert_allclose(grad, expected, rtol=1e-5, atol=1e-7)


def test_logistic_loss_is_exact_for_large_margins() -> None:
    X, y, grad = np.array([[1.0], [-1.0]]), np.array([1.0, 0.0]), np.empty(2)
    for weight, loss, slope in [(50.0, np.exp(-50.0), -np.exp(-50.0)), (-1e4, 1e4, -1.0), (1e4, 0.0, 0.0)]:
        assert logistic_loss(np.array([weight, 0.0]), grad, X, y, 0.0) == pytest.approx(loss, rel=1e-14)
        np.testing.assert_allclose(grad, [slope, 0.0], rtol=1e-14)


def test_digits_are_as_published():
    X, y = load_digits()
    assert X.shape == (1797, 64)
    assert (X.min(), X.max()) == (0.0, 1.0)
    np.testing.assert_array_equal(X, np.round(16.0 * X) / 16.0)
    np.testing.assert_array_equal(np.bincount(y), [178, 182, 177, 183, 181, 182, 181, 179, 174, 180])  # scikit-learn's
