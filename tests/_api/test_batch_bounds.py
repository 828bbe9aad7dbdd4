"""Each problem of a batch has its own bounds and sizes: the same bits as one at a time, and clear errors."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from marks import needs_jit, some
from numba import njit
from scipy.optimize import Bounds

from rmsprop_nb import Status, load, minimize, minimize_batch
from rmsprop_nb._core.batch_arguments import as_boxes
from rmsprop_nb._core.validate import check_sizes
from rmsprop_nb._numba.decorators import JIT_ENABLED

pytestmark = pytest.mark.slow

RNG = np.random.default_rng(3)


def python_quartic(x, grad, target):
    f = 0.0
    for i in range(x.size):
        d = x[i] - target[i]
        grad[i] = (4.0 + i) * d**3 + np.sin(x[i])
        f += (1.0 + i / 4.0) * d**4 - np.cos(x[i])
    return f


quartic = njit(python_quartic)


@njit
def quartic_value(x, target):
    return np.sum((1.0 + np.arange(x.size) / 4.0) * (x - target) ** 4 - np.cos(x))


def boxes(count, n):
    """Boxes of every kind, one problem after another: free, bounded on a side or on both, and of a single point."""
    lower = RNG.uniform(-1.0, 0.0, (count, n)).astype(np.float32).astype(np.float64)
    upper = np.float64(lower + RNG.uniform(0.1, 1.0, (count, n)).astype(np.float32))
    lower[::5], upper[::5] = -np.inf, np.inf
    lower[1::5, ::2] = -np.inf
    upper[2::5, 1::2] = np.inf
    upper[3::5, 0] = lower[3::5, 0]
    return lower, upper


def assert_same(batch, singles):
    for k, single in enumerate(singles):
        for name in ("x", "jac", "fun", "nit", "nfev", "njev", "status"):
            np.testing.assert_array_equal(batch[name][k], single[name], err_msg=f"{name} of {k}")


METHODS = {
    "auto": ("rmsprop", {}),
    "lbfgs": ("rmsprop-lbfgs", {}),
    "textbook": ("rmsprop", {"learning_rate": 0.02, "momentum": 0.5, "maxiter": 40}),
}
GRADIENTS = {"inplace": quartic, "2-point": quartic_value, "3-point": quartic_value}


# How bounds and sizes are rounded depends neither on the method nor on the form of the gradient.
PAIRS = [("auto", np.float64), ("lbfgs", np.float64), ("textbook", np.float32)]


@pytest.mark.parametrize("n", some([3, 40], 2))
@pytest.mark.parametrize("jac", GRADIENTS)
@pytest.mark.parametrize(("name", "dtype"), some(PAIRS, 3))
def test_bits_are_those_of_each_problem_alone(name, jac, n, dtype):
    """Also of those without bounds, whose sums are added up in another order than those of infinite ones."""
    method, options = METHODS[name]
    if method == "rmsprop-lbfgs" and not JIT_ENABLED:
        pytest.skip("NumPy's dot products, which compiled code does not use, depend on how rows are aligned")
    count = 15 if JIT_ENABLED else 5
    lower, upper = boxes(count, n)
    starts, targets = RNG.normal(size=(2, count, n)).astype(dtype)
    starts[:, ::3] = 0.0  # whose size is that of the box
    run = {"method": method, "jac": jac, "options": {"maxiter": 300, **options}}
    found = minimize_batch(GRADIENTS[jac], starts, bounds=(lower, upper), batch_args=(targets,), workers=2, **run)
    assert_same(
        found,
        [
            minimize(GRADIENTS[jac], starts[k], (targets[k],), bounds=Bounds(lower[k], upper[k]), **run)
            for k in range(count)
        ],
    )
    assert ((found.x >= lower) & (found.x <= upper)).all()


def every_engine(fun, starts, **run):
    with ThreadPoolExecutor(2) as pool:
        for workers in (1, 2, map, pool.map):
            yield minimize_batch(fun, starts, workers=workers, **run)


@pytest.mark.parametrize("python", [False, True])
def test_every_engine_passes_bounds_and_sizes_on(python):
    fun = python_quartic if python else quartic
    lower, upper = boxes(10, 3)
    starts, targets, sizes = RNG.normal(size=(10, 3)), RNG.normal(size=(10, 3)), RNG.uniform(0.1, 9.0, (10, 3))
    run = {"jac": "inplace", "options": {"maxiter": 100}}
    singles = [
        minimize(
            fun, starts[k], (targets[k],), bounds=Bounds(lower[k], upper[k]), jac="inplace",
            options={"maxiter": 100, "x_scale": sizes[k]},
        )
        for k in range(10)
    ]  # fmt: skip
    run["options"]["x_scale"] = sizes
    for found in every_engine(fun, starts, bounds=(lower, upper), batch_args=(targets,), **run):
        assert_same(found, singles)


LOWER, UPPER = np.array([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]), np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
FORMS = {
    "tuple": (LOWER, UPPER),
    "tuple_of_lists": (LOWER.tolist(), UPPER.tolist()),
    "Bounds": Bounds(LOWER, UPPER),
    "pairs": np.stack([LOWER, UPPER], axis=2),
    "lists_of_pairs": np.stack([LOWER, UPPER], axis=2).tolist(),
    "one_for_each_problem": Bounds(LOWER[:, :1], UPPER),
    "one_for_all": (LOWER, [5.0, 6.0]),
    "strided": (np.asfortranarray(LOWER), np.repeat(UPPER, 2, axis=0)[::2]),
    "read_only": tuple(np.broadcast_to(a, (3, 2)) for a in (LOWER, UPPER)),
    "integers": (LOWER.astype(int), UPPER.astype(int)),
}


@pytest.mark.parametrize("bounds", FORMS.values(), ids=FORMS)
def test_every_form_of_bounds(bounds):
    x = minimize_batch(quartic, np.full((3, 2), 9.0), bounds=bounds, batch_args=(LOWER - 1.0,), jac="inplace").x
    lower, upper = (bounds.lb, bounds.ub) if isinstance(bounds, Bounds) else (LOWER, UPPER)
    assert ((x >= lower) & (x <= upper)).all()
    assert (x == lower).any()


def test_another_order_of_bounds_and_sizes_is_no_other_kernel_to_compile():
    starts = np.ones((3, 2))
    for bounds in (np.asfortranarray(LOWER), UPPER), (LOWER.T.copy().T, [5.0, 6.0]):
        _, boxes = as_boxes(bounds, starts)
        assert all(a.flags.c_contiguous for a in boxes)
    for sizes in ([0.5, 2.0], np.asfortranarray(UPPER), 2.0):
        assert check_sizes(sizes, starts).flags.c_contiguous


def test_none_is_no_bound():
    pairs = [[(None, 0.5), (0.0, None)], [(None, None), (2.0, 3.0)]]
    found = minimize_batch(quartic, np.ones((2, 2)), bounds=pairs, batch_args=(np.ones((2, 2)),), jac="inplace")
    expected = [minimize(quartic, np.ones(2), (np.ones(2),), bounds=pairs[k], jac="inplace") for k in range(2)]
    assert_same(found, expected)
    found = minimize_batch(quartic, np.ones((2, 2)), (np.ones(2),), bounds=(None, UPPER[:2]), jac="inplace")
    assert (found.x <= UPPER[:2]).all()


def test_two_pairs_are_pairs_for_two_problems_too():
    found = minimize_batch(quartic, np.ones((2, 2)), (np.zeros(2),), bounds=((0.5, 2.0), (-3.0, -1.0)), jac="inplace")
    np.testing.assert_array_equal(found.x, [[0.5, -1.0]] * 2)
    lower, upper = np.array([[0.5, -3.0], [1.0, 2.0]]), np.array([[2.0, -1.0], [2.0, 2.0]])
    for bounds in ((lower, upper), np.stack([lower, upper], axis=2), np.stack([lower, upper], axis=2).tolist()):
        found = minimize_batch(quartic, np.ones((2, 2)), (np.zeros(2),), bounds=bounds, jac="inplace")
        np.testing.assert_array_equal(found.x, [[0.5, -1.0], [1.0, 2.0]])


def test_bounds_of_float32_are_never_left():
    lower = np.array([[0.1], [0.3]])
    found = minimize_batch(quartic, np.ones((2, 1), np.float32), (np.zeros(1),), bounds=(lower, 2.0), jac="inplace")
    assert (found.x >= lower).all()
    assert found.x.dtype == np.float32


def test_a_resumed_batch_and_a_checkpoint_have_the_bounds(tmp_path):
    lower, upper = boxes(10, 3)
    run = {"bounds": (lower, upper), "batch_args": (RNG.normal(size=(10, 3)),), "jac": "inplace"}
    run["options"] = {"x_scale": RNG.uniform(0.5, 2.0, (10, 3))}
    path = tmp_path / "batch.npz"
    whole = minimize_batch(quartic, np.ones(3), checkpoint=path, **run)
    begun = load(path)
    begun.status[1::2] = Status.INTERRUPTED
    begun.x[1::2] = np.nan
    for workers in (1, map):
        resumed = minimize_batch(quartic, np.ones(3), state=begun, workers=workers, **run)
        for name in ("x", "fun", "nfev", "status"):
            np.testing.assert_array_equal(resumed[name], whole[name])


# -- sizes ------------------------------------------------------------------------------------------------------------


@needs_jit
@pytest.mark.parametrize("method", some(["rmsprop", "rmsprop-lbfgs"], 2))
@pytest.mark.parametrize("jac", GRADIENTS)
def test_sizes_of_each_problem(method, jac):
    starts, targets, sizes = RNG.normal(size=(3, 9, 4))
    sizes = np.exp(2.0 * sizes)
    found = minimize_batch(
        GRADIENTS[jac], starts, batch_args=(targets,), method=method, jac=jac, options={"x_scale": sizes}
    )
    run = {"method": method, "jac": jac}
    assert_same(
        found,
        [
            minimize(GRADIENTS[jac], starts[k], (targets[k],), options={"x_scale": sizes[k].tolist()}, **run)
            for k in range(9)
        ],
    )


def test_sizes_of_the_variables_are_shared_also_where_there_are_as_many_problems():
    run = {"jac": "inplace", "options": {"x_scale": [0.1, 10.0]}}
    found = minimize_batch(quartic, np.ones((2, 2)), (np.zeros(2),), **run)
    assert_same(found, [minimize(quartic, np.ones(2), (np.zeros(2),), **run)] * 2)


# -- one start --------------------------------------------------------------------------------------------------------


def test_one_start_is_that_of_all_problems():
    run = {"batch_args": (RNG.normal(size=(4, 3)),), "jac": "inplace"}
    start = np.array([1.0, 2.0, 3.0], np.float32)
    for found in every_engine(quartic, start, **run):
        assert found.x.shape == (4, 3)
        assert found.x.dtype == np.float32
        assert_same(found, [minimize(quartic, start, (target,), jac="inplace") for target in run["batch_args"][0]])
    found = minimize_batch(quartic, start, (np.zeros(3),), bounds=(np.arange(5.0)[:, None], np.inf), jac="inplace")
    np.testing.assert_array_equal(found.x[1:, 0], np.arange(1.0, 5.0))
    np.testing.assert_array_equal(start, [1.0, 2.0, 3.0])


# -- errors -----------------------------------------------------------------------------------------------------------

NAN, HIGH = LOWER.copy(), LOWER.copy()
NAN[2, 1], HIGH[1, 0] = np.nan, 9.0
FITS = r"must be a tuple \(lower, upper\), .* broadcast to \(3, 2\), or an array of shape \(3, 2, 2\), got "
BAD = {
    "nan": ({"bounds": (NAN, UPPER)}, "must not be NaN, got one at index 1 of problem 2; use None or -inf/inf"),
    "empty": ({"bounds": (HIGH, UPPER)}, r"lower <= upper, got \(9.0, 3.0\) at index 0 of problem 1"),
    "problems": ({"bounds": (LOWER[:2], UPPER[:2])}, FITS + r"lower bounds of shape \(2, 2\)"),
    "problems_of_one": (
        {"bounds": Bounds(LOWER, UPPER), "X0": np.ones((4, 2)), "batch_args": None},
        r"broadcast to \(4, 2\)",
    ),
    "variables": ({"bounds": (0.0, np.ones((3, 3)))}, FITS + r"upper bounds of shape \(3, 3\)"),
    "axes": ({"bounds": np.zeros((1, 3, 2, 2))}, r"must be .* got an array of shape \(1, 3, 2, 2\)"),
    "lower_and_upper_as_array": ({"bounds": np.stack([LOWER, UPPER])}, FITS + r"lower bounds of shape \(2, 3\)"),
    "text": ({"bounds": (np.full((3, 2), "a"), UPPER)}, FITS + "lower bounds of .* dtype <U1"),
    "complex": ({"bounds": (LOWER * 1j, UPPER)}, FITS + "lower bounds of .* dtype complex128"),
    "ragged": ({"bounds": ([[0.0, 1.0], [2.0], [3.0, 4.0]], UPPER)}, "got rows of unequal lengths"),
    "objects": ({"bounds": ([[None, "a"]] * 3, UPPER)}, FITS + "lower bounds of .* dtype object"),
    "one_axis": ({"bounds": Bounds([0.0] * 3, [1.0] * 3)}, r"bounds.lb must broadcast to shape \(2,\), one for each"),
    "two_vectors": ({"bounds": (np.zeros(2), np.ones(2), np.ones(2))}, "must be 2 pairs"),
    "sizes": ({"options": {"x_scale": np.ones((2, 2))}}, r"x_scale must be .*\(3, 2\), also for each .* \(2, 2\)"),
    "no_size": ({"options": {"x_scale": LOWER}}, r"x_scale must be .* got 0.0 at index 0 of problem 0"),
    "tiny": (
        {"options": {"x_scale": np.full((3, 2), 1e-60)}, "X0": np.ones((3, 2), np.float32)},
        "x_scale must be .* got 1e-60 at index 0 of problem 0",
    ),
    "ragged_sizes": ({"options": {"x_scale": [[1.0], [1.0, 2.0], [1.0]]}}, "x_scale must be 'auto', a positive"),
    "size": ({"options": {"x_scale": -1.0}, "workers": map}, "x_scale must be 'auto', a positive number.* got -1.0"),
    "textbook": ({"options": {"x_scale": UPPER, "learning_rate": 0.1}}, "x_scale has no meaning with learning_rate"),
    "unknown_number": ({"X0": np.ones(2), "batch_args": None}, "batch_args or bounds must tell how many problems"),
    "unknown_number_with_bounds": (
        {"X0": np.ones(2), "batch_args": None, "bounds": Bounds([0.0, 0.0], [1.0, 1.0])},
        "batch_args or bounds must tell how many problems",
    ),
    "no_problems": ({"X0": np.ones(2), "batch_args": (np.ones((0, 2)),)}, "must have at least one row"),
    "two_numbers": (
        {"X0": np.ones(2), "batch_args": (LOWER, np.ones(2))},
        r"batch_args\[1\] must have one row for each of the 3 problems",
    ),
    "ragged_rows": ({"batch_args": ([[1.0], [1.0, 2.0], [3.0]],)}, r"batch_args\[0\] .* unequal lengths; fill them up"),
}


@pytest.mark.parametrize(("change", "message"), BAD.values(), ids=BAD)
def test_errors_say_what_is_wrong_and_nothing_is_run(change, message):
    calls = []

    def fun(x, grad, *_):
        calls.append(x)
        grad[:] = 0.0
        return 0.0

    arguments = {"X0": np.ones((3, 2)), "batch_args": (LOWER,), "jac": "inplace", **change}
    with pytest.raises(ValueError, match=message):
        minimize_batch(fun, **arguments)
    assert not calls


@pytest.mark.parametrize(
    "bounds", [[LOWER[:2], UPPER[:2]], (LOWER[:2].tolist(), UPPER[:2].tolist())], ids=["list", "tuple"]
)
def test_bounds_that_could_be_read_in_two_ways_are_refused(bounds):
    with pytest.raises(ValueError, match=r"may be either; pass scipy.optimize.Bounds\(lower, upper\), or pairs"):
        minimize_batch(quartic, np.ones((2, 2)), bounds=bounds, batch_args=(LOWER[:2],), jac="inplace")
