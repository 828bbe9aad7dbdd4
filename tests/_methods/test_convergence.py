"""Does it find the minimum? The classical problems, bad conditioning, float32, bounds, and a real regression."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import scipy.optimize
from marks import some
from numba import njit

from rmsprop_nb import Status, datasets, minimize
from rmsprop_nb._cli.models import logistic_loss
from rmsprop_nb.testing import PROBLEMS, rosenbrock, rosenbrock_grad

GTOL = 1e-5
"""The default."""

all_problems = pytest.mark.parametrize("problem", PROBLEMS, ids=lambda p: p.name)

KINDS = {
    "python": (lambda f: f, "rmsprop"),
    "compiled": (njit, "rmsprop"),
    "lbfgs": (lambda f: f, "rmsprop-lbfgs"),
}


def by_name(name):
    return next(p for p in PROBLEMS if p.name == name)


@functools.cache
def curvatures(problem, minimum):
    """Eigenvalues of the second derivatives at a minimum, ascending, by differences of the gradient."""
    x = np.array(minimum)
    steps = np.diag(1e-5 * np.maximum(1.0, np.abs(x)))
    hessian = np.array([(problem.jac(x + h) - problem.jac(x - h)) / (2.0 * h.max()) for h in steps])
    return np.linalg.eigvalsh(0.5 * (hessian + hessian.T))


def tolerances(problem):
    """How far x and f may be from a minimum where no derivative exceeds gtol: |g|/k and |g|^2/(2k), k the curvature.

    Twice that, because the curvature is not constant.
    """
    if problem.name == "powell_singular":  # of fourth order: 40*t^3 = gtol leaves t = 6e-3, and f is 10*t^4
        return 0.05, 1e-7
    k = min(curvatures(problem, m)[0] for m in problem.minima)
    n = len(problem.x0)
    return 2.0 * np.sqrt(n) * GTOL / k, n * GTOL**2 / k + 1e-12 * abs(problem.fmin)


def distance(x, minima):
    return min(np.abs(x - np.array(m)).max() for m in minima)


# -- the problems are what they say ------------------------------------------------------------------------------------


def numerical_gradient(problem, x):
    """By complex steps, exact to rounding; by central differences where fun is not made for complex numbers."""
    fun, directions = problem.fun, np.eye(x.size)
    if problem.name == "helical_valley":  # atan2
        h = 1e-5
        return np.array([(fun(x + h * e) - fun(x - h * e)) / (2.0 * h) for e in directions]), 1e-7
    return np.array([np.imag(fun(x + 1e-20j * e)) / 1e-20 for e in directions]), 1e-12


@all_problems
def test_gradient_of_the_problem_is_right(problem):
    rng = np.random.default_rng(3)
    for x in rng.normal(problem.x0, 1.0, size=(5, len(problem.x0))):
        expected, accuracy = numerical_gradient(problem, x)
        gradient = problem.jac(x)
        np.testing.assert_allclose(gradient, expected, rtol=0.0, atol=accuracy * np.abs(gradient).max())


@all_problems
def test_minima_of_the_problem_are_minima(problem):
    assert problem.minima
    for minimum in problem.minima:
        x = np.array(minimum)
        k = curvatures(problem, minimum)
        assert k[0] > -1e-8 * k[-1]  # singular for Powell's function, positive for all others
        # coordinates are given to ten digits or more
        assert np.abs(problem.jac(x)).max() <= 1e-9 * k[-1] * np.abs(x).max()
        assert problem.fun(x) == pytest.approx(problem.fmin, rel=1e-12, abs=1e-15)


# -- the defaults solve them -------------------------------------------------------------------------------------------


@all_problems
@pytest.mark.parametrize("kind", some(KINDS, 2))
def test_every_method_reaches_a_minimum(problem, kind):
    convert, method = KINDS[kind]
    result = minimize(convert(problem.fun), problem.x0, jac=convert(problem.jac), method=method, tol=GTOL)
    assert result.status == Status.GTOL
    assert np.abs(problem.jac(result.x)).max() <= GTOL * (1.0 + 1e-6)  # njit may sum in another order
    x_tolerance, f_tolerance = tolerances(problem)
    assert distance(result.x, problem.minima) <= x_tolerance
    assert abs(result.fun - problem.fmin) <= f_tolerance


@all_problems
@pytest.mark.parametrize("method", ["rmsprop", "rmsprop-lbfgs"])
def test_float32_comes_as_close_as_it_can(problem, method):
    result = minimize(problem.fun, np.array(problem.x0, np.float32), jac=problem.jac, method=method, tol=GTOL)
    assert result.status in (Status.GTOL, Status.PRECISION_LOSS)
    assert result.x.dtype == np.float32
    # eight units in the last place of f, in exact arithmetic at the point that was found; or one in that of x, which
    # is 1/16 where Brown's function has its minimum
    spacings = [np.diag(np.spacing(np.abs(np.array(m, np.float32))).astype(np.float64)) for m in problem.minima]
    shifted = [np.array(m) + d for m, rows in zip(problem.minima, spacings, strict=True) for d in rows]
    rounding = max(map(problem.fun, shifted)) - problem.fmin
    f = problem.fun(result.x.astype(np.float64))
    assert abs(f - problem.fmin) <= 1e-6 * max(1.0, abs(problem.fmin)) + rounding


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("n", [2, 10])
@pytest.mark.parametrize("method", ["rmsprop", "rmsprop-lbfgs"])
def test_rosenbrock_from_anywhere(method, n, seed):
    x0 = np.random.default_rng(seed).uniform(-3.0, 3.0, n)
    result = minimize(rosenbrock, x0, jac=rosenbrock_grad, method=method)
    assert result.status == Status.GTOL
    # beside the minimum there is, from n = 4, a local one near (-1, 1, ..., 1) with f = 3.99
    nearest = 0.0 if result.fun < 2.0 else 3.986579
    assert n > 2 or nearest == 0.0
    assert result.fun == pytest.approx(nearest, abs=1e-6)


@pytest.mark.parametrize("log_condition", range(9))
@pytest.mark.parametrize("method", ["rmsprop", "rmsprop-lbfgs"])
def test_condition(method, log_condition):
    n = 10
    k = np.logspace(0.0, log_condition, n)
    x0 = np.random.default_rng(log_condition).normal(size=n)
    result = minimize(
        lambda x: 0.5 * np.sum(k * (x - 1.0) ** 2), x0, jac=lambda x: k * (x - 1.0), method=method, tol=GTOL
    )
    assert result.status == Status.GTOL
    np.testing.assert_array_less(np.abs(result.x - 1.0), GTOL / k * (1.0 + 1e-6) + 1e-15)
    # in exact arithmetic conjugate gradients need n iterations; gradient descent needs about the condition number
    assert result.nit <= 500


@pytest.mark.parametrize(("options", "beta"), [({}, 0.99), ({"learning_rate": 1e-3, "maxiter": 20}, 0.9)])
def test_average_is_longer_where_the_rate_chooses_itself(options, beta):
    def run(**more):
        return minimize(rosenbrock, [-1.2, 1.0], jac=rosenbrock_grad, options=options | more).x

    np.testing.assert_array_equal(run(), run(beta=beta))
    assert (run() != run(beta=0.95)).any()


# -- bounds -----------------------------------------------------------------------------------------------------------

INF = np.inf

# Problem and bounds, by where the solution is.
BOXES = {
    "upper_edge": ("rosenbrock_2", [(-2.0, 0.5), (-2.0, 2.0)]),
    "lower_edge": ("rosenbrock_2", [(-2.0, 2.0), (1.5, 2.0)]),
    "chain": ("rosenbrock_10", [(-2.0, 0.8), (None, None)] * 5),
    "chain_fixed": ("rosenbrock_10", [(0.5, 0.5), (None, 0.9)] * 5),
    "inactive": ("wood", [(-10.0, 10.0)] * 4),
    "half": ("wood", [(None, 0.5), (None, None), (1.2, None), (None, None)]),
    "all_active": ("booth", [(2.0, 5.0), (4.0, 6.0)]),
    "one_point": ("booth", [(0.25, 0.25), (0.5, 0.5)]),
    "degenerate": ("booth", [(1.0, INF), (3.0, INF)]),  # the gradient is zero at the corner
    "degenerate_upper": ("matyas", [(None, 0.0), (None, 0.0)]),
    "edge_of_the_valley": ("beale", [(0.0, 2.5), (-1.0, 1.0)]),
    "local": ("himmelblau", [(0.0, 2.5), (0.0, 4.0)]),
    "separable": ("styblinski_tang_10", [(-2.5, 0.0), (-5.0, 5.0)] * 5),
    "singular": ("powell_singular", [(0.1, 4.0), (-2.0, 2.0), (-2.0, 2.0), (-2.0, 2.0)]),
    "badly_scaled": ("scaled_quadratic_10", [(1.5, None), (None, 0.5)] * 5),
}


@pytest.mark.parametrize("method", ["rmsprop", "rmsprop-lbfgs"])
@pytest.mark.parametrize("name", BOXES)
def test_bounded_minimum_is_that_of_l_bfgs_b(name, method):
    problem, bounds = by_name(BOXES[name][0]), BOXES[name][1]
    # ftol and gtol so small that it stops only where it can do no better
    expected = scipy.optimize.minimize(
        problem.fun,
        problem.x0,
        jac=problem.jac,
        method="L-BFGS-B",
        bounds=bounds,
        options={"ftol": 0.0, "gtol": 1e-10, "maxiter": 10**4, "maxfun": 10**5},
    )
    result = minimize(problem.fun, problem.x0, jac=problem.jac, bounds=bounds, method=method, tol=GTOL)
    assert result.status == Status.GTOL
    lower = np.array([-INF if low is None else low for low, _ in bounds])
    upper = np.array([INF if high is None else high for _, high in bounds])
    assert np.abs(result.x - np.clip(result.x - problem.jac(result.x), lower, upper)).max() <= GTOL
    assert result.fun == pytest.approx(expected.fun, rel=1e-6, abs=tolerances(problem)[1])
    np.testing.assert_array_equal(result.x[lower == upper], lower[lower == upper])
    held = np.where(problem.jac(result.x) > 0.0, lower, upper)[np.abs(problem.jac(result.x)) > 1e-3]
    np.testing.assert_array_equal(result.x[np.abs(problem.jac(result.x)) > 1e-3], held)  # exactly on the bound


# -- a regression -----------------------------------------------------------------------------------------------------


@functools.cache
def tumours():
    X, y = datasets.load_breast_cancer()
    return (X - X.mean(axis=0)) / X.std(axis=0), y


def by_newton(X, y, l2):
    """Weights and bias of the logistic regression, by Newton's method in NumPy."""
    A = np.column_stack([X, np.ones(len(y))])
    penalty = np.append(np.full(X.shape[1], l2), 0.0)
    w = np.zeros(A.shape[1])
    for _ in range(30):
        p = 1.0 / (1.0 + np.exp(-A @ w))
        hessian = (A.T * (p * (1.0 - p))) @ A / len(y) + np.diag(penalty)
        w -= np.linalg.solve(hessian, A.T @ (p - y) / len(y) + penalty * w)
    f = np.mean(np.logaddexp(0.0, A @ w) - y * (A @ w)) + 0.5 * np.sum(penalty * w * w)
    return w, f, np.linalg.eigvalsh(hessian)[0]


@pytest.mark.parametrize("method", ["rmsprop", "rmsprop-lbfgs"])
@pytest.mark.parametrize("l2", [1e-1, 1e-3])
def test_logistic_regression(l2, method):
    X, y = tumours()
    w, f, k = by_newton(X, y, l2)
    result = minimize(njit(logistic_loss), np.zeros(w.size), (X, y, l2), method, "inplace")
    assert result.status == Status.GTOL
    assert result.fun == pytest.approx(f, abs=w.size * GTOL**2 / k)
    np.testing.assert_allclose(result.x, w, rtol=0.0, atol=2.0 * np.sqrt(w.size) * GTOL / k)
    assert np.mean((X @ result.x[:-1] + result.x[-1] > 0.0) == y) > 0.97


# -- features as they were measured: columns whose sizes differ by factors of 10^5 -------------------------------------


@pytest.mark.parametrize("method", ["rmsprop", "rmsprop-lbfgs"])
@pytest.mark.parametrize("l2", [1e-1, 1e-3])
def test_logistic_regression_on_raw_features(l2, method):
    X, y = datasets.load_breast_cancer()
    w, f, k = by_newton(X, y, l2)
    result = minimize(njit(logistic_loss), np.zeros(w.size), (X, y, l2), method, "inplace")
    assert result.status == Status.GTOL
    # in exact arithmetic, f is at most |g|^2/(2k) above the minimum
    assert f - 1e-12 <= result.fun <= f + w.size * GTOL**2 / k
    assert np.mean((X @ result.x[:-1] + result.x[-1] > 0.0) == y) > 0.95


@njit
def ridge_loss(w, grad, A, y, l2):
    """Half the mean squared residual, and a penalty on all weights but the last."""
    r = A @ w - y
    grad[:] = A.T @ r / y.size
    grad[:-1] += l2 * w[:-1]
    return 0.5 * (r @ r) / y.size + 0.5 * l2 * (w[:-1] @ w[:-1])


@pytest.mark.parametrize("method", ["rmsprop", "rmsprop-lbfgs"])
def test_ridge_regression_on_raw_features(method):
    X, labels = datasets.load_breast_cancer()
    A, y, l2 = np.column_stack([X, np.ones(len(X))]), labels.astype(float), 1e-3
    penalty = np.append(np.full(X.shape[1], l2), 0.0)
    # the minimum by QR, of columns of length 1
    rows = np.vstack([A / np.sqrt(y.size), np.diag(np.sqrt(penalty))])
    lengths = np.linalg.norm(rows, axis=0)
    target = np.append(y / np.sqrt(y.size), np.zeros(penalty.size))
    w = np.linalg.lstsq(rows / lengths, target)[0] / lengths
    minimum = 0.5 * np.sum((rows @ w - target) ** 2)
    result = minimize(ridge_loss, np.zeros(w.size), (A, y, l2), method, "inplace")
    assert result.status == Status.GTOL
    k = np.linalg.svd(rows, compute_uv=False)[-1] ** 2
    assert minimum - 1e-12 <= result.fun <= minimum + w.size * GTOL**2 / k


# -- many variables ---------------------------------------------------------------------------------------------------


@njit
def loaded_chain(x, grad, stiffness):
    """Springs, tied to 1 and to their neighbours; f is summed in double."""
    f = 0.0
    for i in range(x.size):
        f += 0.5 * stiffness[i] * (np.float64(x[i]) - 1.0) ** 2
        grad[i] = stiffness[i] * (np.float64(x[i]) - 1.0)
    for i in range(x.size - 1):
        stretch = np.float64(x[i + 1]) - np.float64(x[i])
        f += 0.5 * stretch**2
        grad[i + 1] += stretch
        grad[i] -= stretch
    return f


MANY = [(method, dtype, 10**5) for method in ("rmsprop", "rmsprop-lbfgs") for dtype in (np.float32, np.float64)]
MANY += [
    pytest.param(method, dtype, 10**6, marks=pytest.mark.thorough)
    for method, dtype in (("rmsprop", np.float64), ("rmsprop-lbfgs", np.float32))
    for of in (("rmsprop", np.float64), ("rmsprop-lbfgs", np.float32))
]


@pytest.mark.parametrize(("method", "dtype", "n"), MANY)
def test_many_variables(method, dtype, n):
    x0 = np.random.default_rng(5).normal(size=n).astype(dtype)
    grad, stiffness = np.empty(n, dtype), 10.0 ** (4.0 * (np.arange(n) % 1000) / 1000.0)  # over four decades
    result = minimize(loaded_chain, x0, (stiffness,), jac="inplace", method=method, tol=GTOL)
    f = loaded_chain(result.x, grad, stiffness)
    if dtype == np.float64:
        assert result.status == Status.GTOL
    # next to 1 the numbers of float32 are 6e-8 apart, which times the largest stiffness is a slope of 6e-4
    assert np.abs(grad).max() <= (GTOL if result.success else 1e-2)
    assert f <= 1e-6  # of about n*500 at the start
    assert result.status in (Status.GTOL, Status.PRECISION_LOSS)
