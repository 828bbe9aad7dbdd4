"""What holds for any input: random problems, bounds, options, splits and chunks."""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from numba import njit
from scipy.optimize import Bounds

from rmsprop_nb import Status, minimize
from rmsprop_nb._drivers import loop as _loop
from rmsprop_nb._numba.decorators import JIT_ENABLED
from rmsprop_nb.testing import reference_rmsprop

METHODS = st.sampled_from(["rmsprop", "rmsprop-lbfgs"])
DTYPES = st.sampled_from([np.float32, np.float64])


def examples(count):
    """So many examples as a rule, and in proportion under a profile that asks for more."""
    return settings(max_examples=count * max(1, settings.default.max_examples // 100))


@njit
def quadratic(x, grad, A, center, lower, upper, outside):
    """Half of d.Ad for d = x - center; counts the points outside of the box."""
    total = 0.0
    for i in range(x.size):
        slope = 0.0
        for j in range(x.size):
            slope += A[i, j] * (x[j] - center[j])
        grad[i] = slope
        total += slope * (x[i] - center[i])
        if x[i] < lower[i] or x[i] > upper[i]:
            outside[0] += 1
    return 0.5 * total


@njit
def bumpy(x, grad, scale, k):
    """Curved, not convex, bounded below, every term of its own; multiplied by `scale` at the very end."""
    total = 0.0
    for i in range(x.size):
        wave = np.sin(3.0 * x[i] + i)
        total += scale * (k[i] * (x[i] * x[i] + wave))
        grad[i] = scale * (k[i] * (2.0 * x[i] + 3.0 * np.cos(3.0 * x[i] + i)))
    return total


class Quadratic(NamedTuple):
    """A convex problem whose curvature is between 1 and `condition`."""

    A: Any
    center: Any
    x0: Any
    lower: Any
    upper: Any
    diagonal: bool

    @property
    def args(self):
        return self.A, self.center, self.lower, self.upper, np.zeros(1, np.int64)

    def gradient(self, x):
        """In double precision, with a bound on the rounding error that the objective's own arithmetic makes."""
        A, d = self.A.astype(np.float64), x.astype(np.float64) - self.center.astype(np.float64)
        return A @ d, (x.size + 3) * np.finfo(self.A.dtype).eps * (np.abs(A) @ np.abs(d))

    def projected(self, x, g):
        """The vector whose largest element the test on the gradient looks at."""
        x = x.astype(np.float64)
        return np.clip(-g, self.lower - x, self.upper - x)


def numbers(low, high, n, width=32):
    return st.lists(st.floats(low, high, width=width), min_size=n, max_size=n).map(np.array)


@st.composite
def boxes(draw, n, center):
    """Bounds of every kind; some hold a variable fixed, some lie exactly at the unbounded minimum."""
    lower, upper = np.full(n, -np.inf), np.full(n, np.inf)
    for i in range(n):
        a, b = sorted(draw(st.tuples(st.floats(-8, 8, width=32), st.floats(-8, 8, width=32))))
        kind = draw(st.sampled_from(["none", "lower", "upper", "both", "equal", "touching"]))
        if kind in ("lower", "both", "equal"):
            lower[i] = a
        if kind in ("upper", "both"):
            upper[i] = b
        if kind == "equal":
            upper[i] = a
        if kind == "touching":
            lower[i] = center[i]
    return lower, upper


@st.composite
def quadratics(draw, diagonal=None, bounded=True):
    n, dtype = draw(st.integers(1, 8)), draw(DTYPES)
    spectrum = 10.0 ** draw(numbers(0.0, draw(st.floats(0.0, 6.0)), n, width=64))
    is_diagonal = draw(st.booleans()) if diagonal is None else diagonal
    A = np.diag(spectrum)
    if not is_diagonal:
        Q, _ = np.linalg.qr(np.random.default_rng(draw(st.integers(0, 99))).normal(size=(n, n)))
        A = Q * spectrum @ Q.T
        A = 0.5 * (A + A.T)
    center, x0 = draw(numbers(-9, 9, n)).astype(dtype), draw(numbers(-20, 20, n)).astype(dtype)
    lower, upper = draw(boxes(n, center)) if bounded else (np.full(n, -np.inf), np.full(n, np.inf))
    return Quadratic(A.astype(dtype), center, x0, lower, upper, is_diagonal)


def solve(problem, method="rmsprop", args=None, **options):
    bounds = Bounds(problem.lower, problem.upper)
    args = problem.args if args is None else args
    return minimize(quadratic, problem.x0, args, method, "inplace", bounds, options=options)


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
    free = minimize(quadratic, problem.x0, problem.args, method, "inplace")
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


# -- the textbook rule ------------------------------------------------------------------------------------------------

SWITCHES = {
    "dtype": [np.float32, np.float64],
    "centered": [False, True],
    "momentum": [None, "heavy", "nesterov"],
    "lr_in_momentum": [False, True],
    "eps_inside_sqrt": [False, True],
    "bias_correction": [False, True],
    "weight_decay": [None, "coupled", "decoupled"],
}
ALL_VARIANTS = [dict(zip(SWITCHES, values, strict=True)) for values in itertools.product(*SWITCHES.values())]
# Each variant is a kernel to compile. With this start and stride any two settings meet in as few as ten.
VARIANTS = [ALL_VARIANTS[(10 + 163 * k) % len(ALL_VARIANTS)] for k in range(10)] if JIT_ENABLED else ALL_VARIANTS


def test_any_two_settings_meet_in_some_variant():
    for (a, a_values), (b, b_values) in itertools.combinations(SWITCHES.items(), 2):
        for pair in itertools.product(a_values, b_values):
            assert any((v[a], v[b]) == pair for v in VARIANTS)


class Textbook(NamedTuple):
    """Options of the rule, as `minimize` and as the reference take them."""

    dtype: Any
    rates: Any
    options: dict[str, Any]

    @property
    def for_minimize(self):
        rates = self.rates
        constant = len(set(rates)) == 1
        return {
            **self.options,
            "learning_rate": rates[0] if constant else lambda step: rates[min(step, len(rates) - 1)],
        }


@st.composite
def textbooks(draw, steps=20):
    switches = dict(draw(st.sampled_from(VARIANTS)))
    dtype, momentum, decay = (switches.pop(name) for name in ("dtype", "momentum", "weight_decay"))
    options = {
        **switches,
        "beta": draw(st.sampled_from([0.9, 0.99, 0.999]) | st.floats(0.0, 0.999)),
        "eps": draw(st.sampled_from([1e-10, 1e-8, 1e-3, 1.0])),
        "initial_accumulator": draw(st.sampled_from([0.0, 0.1, 1.0])),
    }
    if momentum is not None:
        options |= {"momentum": draw(st.floats(0.01, 0.99)), "nesterov": momentum == "nesterov"}
    if decay is not None:
        options |= {"weight_decay": draw(st.floats(1e-3, 0.5)), "decoupled_weight_decay": decay == "decoupled"}
    rate = st.floats(1e-4, 0.5)
    rates = draw(st.one_of(rate.map(lambda r: [r] * steps), st.lists(rate, min_size=steps, max_size=steps)))
    return Textbook(dtype, rates, options)


# Where 1 - beta**step cancels most: it has to be formed in double precision for float32, too.
SLOW_AVERAGE = Textbook(
    np.float32,
    [0.1] * 20,
    {"beta": 0.999, "eps": 1e-8, "bias_correction": True, "centered": False}
    | {"eps_inside_sqrt": True, "weight_decay": 0.01},  # one of VARIANTS
)


def start_and_weights(dtype, n, seed):
    rng = np.random.default_rng(seed)
    return rng.normal(0.0, 2.0, n).astype(dtype), (10.0 ** rng.uniform(0.0, 3.0, n)).astype(dtype)


@examples(60)
@given(rule=textbooks(), n=st.integers(1, 9), seed=st.integers(0, 99))
@example(SLOW_AVERAGE, 5, 4)
def test_textbook_path_is_that_of_the_reference(rule, n, seed):
    x0, k = start_and_weights(rule.dtype, n, seed)
    options = {**rule.for_minimize, "maxiter": len(rule.rates), "gtol": 0.0, "return_all": True}
    result = minimize(bumpy, x0, (rule.dtype(1.0), k), jac="inplace", options=options)
    gradients = [np.empty_like(x0) for _ in result.allvecs]
    for x, g in zip(result.allvecs, gradients, strict=True):
        bumpy(x, g, rule.dtype(1.0), k)
    # The gradients are those of the path itself, so that nothing but the rule can make a difference.
    path = list(reference_rmsprop(x0, gradients[:-1], rule.rates, **rule.options))
    assert len(path) == result.nit
    difference = np.abs(np.array(result.allvecs[1:], np.float64).reshape(-1, n) - np.array(path).reshape(-1, n))
    if not rule.options["bias_correction"]:
        assert not difference.any()
    elif not rule.options["centered"]:  # otherwise the variance of the first step is a difference of equal numbers
        way = np.abs(x0) + np.abs(np.diff(result.allvecs, axis=0)).sum(axis=0)
        units = 4.0 if rule.dtype == np.float32 else 100.0  # powers of beta are rounded in another way, in float64
        assert (difference <= units * np.finfo(rule.dtype).eps * way).all()


@examples(30)
@given(rule=textbooks(), n=st.integers(2, 9), seed=st.integers(0, 99), data=st.data())
def test_textbook_rule_treats_every_variable_alone(rule, n, seed, data):
    x0, k = start_and_weights(rule.dtype, n, seed)
    chosen = np.array(data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=n, unique=True)))
    options = {**rule.for_minimize, "maxiter": len(rule.rates), "gtol": 0.0, "return_all": True}
    center, wide = np.zeros(n, rule.dtype), np.full(n, np.inf)

    def path(index):
        args = (np.diag(k[index]), center[index], -wide[index], wide[index], np.zeros(1, np.int64))
        return np.array(minimize(quadratic, x0[index], args, jac="inplace", options=options).allvecs)

    together, alone = path(np.arange(n)), path(chosen)
    steps = min(len(together), len(alone))  # a variable that runs away ends the run of all
    np.testing.assert_array_equal(together[:steps, chosen], alone[:steps])


# -- how a run is cut up ----------------------------------------------------------------------------------------------


@st.composite
def runs(draw):
    """Anything `minimize` can be asked to do with `bumpy`: positional arguments and options."""
    seed, n, bounded = draw(st.integers(0, 99)), draw(st.integers(1, 6)), draw(st.booleans())
    rule = draw(st.none() | textbooks())
    dtype = draw(DTYPES) if rule is None else rule.dtype
    x0, k = start_and_weights(dtype, n, seed)
    method, options = "rmsprop", {}
    if rule is not None:
        options = {**rule.for_minimize}
    elif draw(st.booleans()):
        method, options = "rmsprop-lbfgs", {"memory": draw(st.integers(1, 7))}
    bounds = Bounds(-1.0, 1.5) if bounded else None
    return (bumpy, x0, (dtype(1.0), k), method, "inplace", bounds), options


def at_a_standstill():
    """A run that soon sees no more progress, and whose searches fail again and again."""
    x0, k = start_and_weights(np.float32, 1, 29)
    return (bumpy, x0, (np.float32(1.0), k), "rmsprop", "inplace", None), {}


def assert_same_end(a, b):
    np.testing.assert_array_equal(a.x, b.x)
    np.testing.assert_array_equal(a.jac, b.jac)
    assert (a.fun, a.status) == (b.fun, b.status)
    for left, right in zip(a.state.arrays, b.state.arrays, strict=True):
        np.testing.assert_array_equal(left, right)


@examples(60)
@given(run=runs(), cuts=st.lists(st.integers(1, 200), min_size=1, max_size=4))
@example(at_a_standstill(), [13])
def test_run_in_pieces_is_the_run(run, cuts):
    positional, options = run
    total = 900  # enough for the test that sees no more progress
    whole = minimize(*positional, options={**options, "gtol": 0.0, "maxfev": total})
    # Should it end by itself at the very evaluation that exhausts a piece's maxfev, the piece reports its limit.
    assume(whole.status == Status.MAXFEV or whole.nfev not in np.cumsum(cuts))
    pieces, state = [], None
    for maxfev in [*cuts, total - sum(cuts)]:
        piece = minimize(*positional, options={**options, "gtol": 0.0, "maxfev": maxfev, "state": state})
        pieces.append(piece)
        state = piece.state
        if piece.status != Status.MAXFEV:
            break
    assert_same_end(pieces[-1], whole)
    for count in ("nit", "nfev"):
        assert sum(piece[count] for piece in pieces) == whole[count]


@examples(30)
@given(run=runs(), chunks=st.lists(st.integers(1, 50), min_size=1, max_size=20), watched=st.booleans())
def test_chunks_do_not_matter(run, chunks, watched):
    positional, options = run
    callback = (lambda xk: None) if watched else None
    options = {**options, "gtol": 0.0, "maxfev": 120, "history": 3}
    expected = minimize(*positional, options=options)
    sizes = itertools.cycle(chunks)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_loop, "next_budget", lambda *_: next(sizes))
        result = minimize(*positional, callback=callback, options=options)
    assert_same_end(result, expected)
    assert (result.nit, result.nfev) == (expected.nit, expected.nfev)
    for name, column in expected.history.items():
        np.testing.assert_array_equal(result.history[name], column)
