"""What holds for any problem, bounds and options."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from random_problems import DTYPES, METHODS, Quadratic, bumpy, examples, numbers, quadratic, quadratics, solve
from scipy.optimize import Bounds

from rmsprop_nb import Status, minimize

# -- convex quadratics ------------------------------------------------------------------------------------------------


@examples(60)
@given(problem=quadratics(), method=METHODS)
def test_end_of_a_run_is_what_it_says(problem, method):
    before = [a.copy() for a in problem[:5]]
    args = problem.args
    result = solve(problem, method, args, return_all=True)

    for old, new in zip(before, problem[:5], strict=True):
        np.testing.assert_array_equal(old, new)
    assert args[-1][0] == 0  # no point outside of the box was evaluated
    points = np.array([*result.allvecs, result.x])
    assert ((points >= problem.lower) & (points <= problem.upper)).all()

    g = np.empty_like(problem.x0)
    assert result.fun == quadratic(result.x, g, *problem.args)
    np.testing.assert_array_equal(result.jac, g)
    assert result.x.dtype == problem.x0.dtype

    assert result.status in (Status.GTOL, Status.PRECISION_LOSS)
    assert result.success == (result.status == Status.GTOL)
    largest = np.abs(problem.projected(result.x, g.astype(np.float64))).max()
    assert (largest <= 1e-5) == result.success
    if problem.x0.dtype == np.float64:
        assert result.success
    start = quadratic(result.allvecs[0], g, *problem.args)
    assert result.fun <= start


@examples(40)
@given(problem=quadratics(), method=METHODS, gtol=st.floats(1e-6, 1e2))
def test_stopping_test_is_met_in_exact_arithmetic_too(problem, method, gtol):
    result = solve(problem, method, gtol=gtol)
    if result.success:
        gradient, error = problem.gradient(result.x)
        assert (np.abs(problem.projected(result.x, gradient)) <= gtol + error).all()


@examples(60)
@given(problem=quadratics(diagonal=True), method=METHODS)
def test_separable_minimum_is_the_clipped_one(problem, method):
    result = solve(problem, method)
    if result.success:
        solution = np.clip(problem.center, problem.lower, problem.upper)
        # |x - clip(x - k*(x - c))| <= gtol with k >= 1 leaves no more than gtol, and the rounding of the subtraction
        tolerance = 1e-5 + 4.0 * np.finfo(problem.x0.dtype).eps * (1.0 + np.abs(solution))
        assert (np.abs(result.x - solution) <= tolerance).all()


@examples(30)
@given(problem=quadratics(), method=METHODS, data=st.data())
def test_order_of_the_variables_does_not_matter(problem, method, data):
    order = np.array(data.draw(st.permutations(range(problem.x0.size))))
    permuted = Quadratic(
        problem.A[np.ix_(order, order)].copy(), *(a[order] for a in problem[1:5]), diagonal=problem.diagonal
    )
    results = solve(problem, method), solve(permuted, method)
    if all(r.success for r in results):
        # sums are taken in another order, so paths differ by rounding; both ends meet the same test on the gradient
        gradients = [p.gradient(r.x) for p, r in zip((problem, permuted), results, strict=True)]
        k = max(np.linalg.eigvalsh(problem.A.astype(np.float64))[0], 0.5)
        norms = [np.linalg.norm(np.abs(p.projected(r.x, g)) + e) for p, r, (g, e) in
                 zip((problem, permuted), results, gradients, strict=True)]  # fmt: skip
        largest = np.linalg.eigvalsh(problem.A.astype(np.float64))[-1]
        # strong monotonicity: |x - solution| <= (1 + L)/k * |projected gradient|
        assert np.linalg.norm(results[0].x[order] - results[1].x) <= (1.0 + largest) / k * sum(norms)


@examples(30)
@given(problem=quadratics(bounded=False), method=METHODS)
def test_infinite_bounds_are_none(problem, method):
    bounded = solve(problem, method)
    free = minimize(quadratic, problem.x0, problem.args, method, "inplace", tol=1e-5)
    np.testing.assert_array_equal(bounded.x, free.x)
    assert bounded.nfev == free.nfev


# -- scale ------------------------------------------------------------------------------------------------------------


@examples(40)
@given(
    dtype=DTYPES,
    method=METHODS,
    exponent=st.integers(-12, 12),
    n=st.integers(1, 8),
    bounded=st.booleans(),
    gtol=st.floats(1e-4, 1.0),
    data=st.data(),
)
def test_multiplying_f_by_a_power_of_two_changes_no_step(dtype, method, exponent, n, bounded, gtol, data):
    x0 = data.draw(numbers(-3, 3, n)).astype(dtype)
    k = 10.0 ** data.draw(numbers(0, 3, n)).astype(dtype)
    bounds = Bounds(-1.0, 2.0) if bounded else None
    scale = 2.0**exponent
    # The test on the gradient is absolute, so gtol goes with f.
    plain, scaled = (
        minimize(
            bumpy,
            x0,
            (dtype(factor), k),
            method,
            "inplace",
            bounds,
            options={"gtol": 0.0 if bounded else gtol * factor, "maxiter": 25, "return_all": True},
        )
        for factor in (1.0, scale)
    )
    if bounded:  # that test is on x - clip(x - g) then, which is not proportional to g, so one run may end before
        both = min(plain.nit, scaled.nit)
        np.testing.assert_array_equal(plain.allvecs[: both + 1], scaled.allvecs[: both + 1])
        return
    np.testing.assert_array_equal(plain.allvecs, scaled.allvecs)
    np.testing.assert_array_equal(scaled.jac, plain.jac * dtype(scale))
    assert scaled.fun == plain.fun * scale
    assert (scaled.status, scaled.nfev) == (plain.status, plain.nfev)
