"""Batches in the simulator; see test_simulator.py."""

from __future__ import annotations

import numpy as np
import pytest
from objectives import decay, valley

from rmsprop_nb import Status, load, minimize_batch, schedules
from rmsprop_nb.cuda import Team, team_sum

rng = np.random.default_rng(0)


T = np.linspace(0.0, 4.0, 6)
Y = 2.0 * np.exp(-1.3 * T) + 0.5 + 0.01 * rng.normal(size=(19, 6))
STARTS = np.array([1.0, 1.0, 0.0]) + 0.1 * rng.random((19, 3))
BATCH = {"jac": "inplace", "batch_args": (rng.random(19) + 0.5, Y)}
LOWER, UPPER = STARTS + rng.normal(size=(2, 19, 3))
LOWER, UPPER = np.minimum(LOWER, UPPER), np.maximum(LOWER, UPPER)
LOWER[0], UPPER[0], UPPER[1], LOWER[2] = -np.inf, np.inf, LOWER[1], -np.inf
RUNS = {
    "textbook": {"options": {"learning_rate": 0.05, "maxiter": 12, "momentum": 0.5, "centered": True, "eps": 0.1}},
    "bias": {"options": {"learning_rate": 0.05, "maxiter": 12, "bias_correction": True, "initial_accumulator": 0.5}},
    "schedule": {"options": {"learning_rate": schedules.exponential_decay(0.1, 5, 0.5), "maxiter": 12}},
    "auto": {},
    "lbfgs": {"method": "rmsprop-lbfgs", "options": {"memory": 3}},
    "bounds": {"bounds": [(0.0, 1.5), (0.9, 1.2), (0.0, None)]},
    "boxes": {"bounds": (LOWER, UPPER)},
    "boxes_lbfgs": {"bounds": (LOWER, UPPER), "method": "rmsprop-lbfgs"},
    "boxes_textbook": {"bounds": (LOWER, UPPER), "options": {"learning_rate": 0.05, "maxiter": 12}},
    "sizes": {"options": {"x_scale": rng.uniform(0.1, 9.0, (19, 3))}, "bounds": (LOWER, UPPER)},
    "float32": {"options": {"gtol": 1e-3}, "dtype": np.float32},
    "limits": {"options": {"maxfev": 3}},
    "tests": {"options": {"ftol": 1e-3, "patience": 5}},
}


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_batches_are_those_of_the_host(run):
    run = dict(run)
    starts = STARTS.astype(run.pop("dtype", np.float64))
    expected = minimize_batch(decay, starts, (T,), **BATCH, **run)
    found = minimize_batch(decay, starts, (T,), **BATCH, **run, device="cuda")
    for name in ("x", "fun", "jac", "nit", "nfev", "status"):
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)
        assert found[name].dtype == expected[name].dtype
    assert found.best == expected.best


def test_problems_do_not_disturb_each_other():
    y = Y.copy()
    y[3] = np.nan
    found = minimize_batch(decay, STARTS, (T,), jac="inplace", batch_args=(np.ones(19), y), device="cuda")
    assert found.status[3] == Status.NONFINITE
    assert np.delete(found.success, 3).all()


def test_begun_batches_go_on():
    whole = minimize_batch(decay, STARTS, (T,), **BATCH, device="cuda")
    begun = minimize_batch(decay, STARTS, (T,), **BATCH)
    begun.status[::2] = Status.INTERRUPTED
    begun.x[::2] = np.nan
    found = minimize_batch(decay, STARTS, (T,), **BATCH, device="cuda", state=begun)
    np.testing.assert_array_equal(found.x, whole.x)


def test_one_start_is_that_of_all_problems():
    found = minimize_batch(decay, STARTS[0], (T,), **BATCH, device="cuda")
    np.testing.assert_array_equal(found.x, minimize_batch(decay, STARTS[0], (T,), **BATCH).x)


BOUNDS = {"shared": [(-1.0, 1.0)] * 5 + [(0.1, 1.0)], "own": (-rng.random((19, 6)), rng.random((19, 6)))}


@pytest.mark.parametrize("bounds", BOUNDS.values(), ids=BOUNDS)
@pytest.mark.parametrize("method", ["rmsprop", "rmsprop-lbfgs"])
def test_vectors_in_a_workspace_give_the_results_of_the_host(method, bounds):
    """There are more problems than threads, so that each column is used again."""
    starts = rng.normal(size=(19, 6))
    run = {"jac": "inplace", "method": method, "bounds": bounds, "options": {"maxiter": 8}}
    expected = minimize_batch(valley, starts, **run)
    found = minimize_batch(valley, starts, **run, device="cuda")
    for name in ("x", "fun", "jac", "nit", "nfev", "status"):
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)


def chain(x, grad, team, target):
    """Each thread adds up a part of f, and fills a part of the gradient."""
    mean = team_sum(team, sum_of_share(x, team)) / x.size
    f = 0.0
    for i in range(team.rank, x.size, team.size):
        d = x[i] - target[i]
        f += d * d
        grad[i] = d + d
    if team.rank == 0:
        f += mean * mean
    team_sum(team, 0.0)  # all have written their part of the gradient
    for i in range(team.rank, x.size, team.size):
        grad[i] += (mean + mean) / x.size
    return f


def sum_of_share(x, team):
    total = 0.0
    for i in range(team.rank, x.size, team.size):
        total += x[i]
    return total


TEAMS = {
    "textbook": {"options": {"learning_rate": 0.05, "maxiter": 4, "momentum": 0.5, "eps": 0.1}},
    "auto": {"options": {"maxiter": 3}},
    "lbfgs": {"method": "rmsprop-lbfgs", "options": {"memory": 2, "maxiter": 3, "xtol": 1e-9}},
    "bounds": {"bounds": [(-1.0, 0.5)] * 5, "options": {"maxiter": 3}},
    "boxes": {"bounds": ([[-1.0] * 5, [0.2] * 5], np.linspace(0.3, 0.9, 10).reshape(2, 5)), "options": {"maxiter": 3}},
}


@pytest.mark.parametrize("run", TEAMS.values(), ids=TEAMS)
def test_teams_find_what_one_thread_finds(run):
    """Sums are added up in another order, so not to the last digit."""
    run = {"jac": "inplace", "batch_args": (rng.normal(size=(2, 5)),), **run}
    expected = minimize_batch(chain, np.ones((2, 5)), (Team(),), **run)
    found = minimize_batch(chain, np.ones((2, 5)), (Team(),), **run, device="cuda")
    np.testing.assert_array_equal(found.status, expected.status)
    for name in ("x", "fun", "jac"):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-9, atol=1e-9, err_msg=name)


def test_team_of_one_variable_is_one_thread():
    found = minimize_batch(
        chain, np.ones((2, 1)), (Team(),), batch_args=(np.zeros((2, 1)),), jac="inplace", device="cuda"
    )
    assert found.success.all()


def test_checkpoint_has_what_the_device_found(tmp_path):
    path = tmp_path / "batch"
    found = minimize_batch(valley, np.ones((3, 2)), jac="inplace", device="cuda", checkpoint=path)
    np.testing.assert_array_equal(load(path).x, found.x)


def of_matrix(x, grad, a):
    f = x[0] - x[0]
    for i in range(x.size):
        d = x[i] - a[i, 0] * a[i, 1]
        grad[i] = d + d
        f += d * d
    return f


def test_data_may_be_matrices():
    a = rng.normal(size=(5, 2, 2))
    found = minimize_batch(of_matrix, np.zeros((5, 2)), batch_args=(a,), jac="inplace", device="cuda")
    np.testing.assert_allclose(found.x, a[:, :, 0] * a[:, :, 1], atol=1e-5)


def of_many(x, grad, a, b, c, d, e):
    f = x[0] - x[0]
    for i in range(x.size):
        r = x[i] - a[i] - b[0, 1] - c[i].imag - d[i] - e
        grad[i] = r + r
        f += r * r
    return f


def test_data_of_every_type_and_form_arrive():
    """Also what is no contiguous array, or must not be written to."""
    data = (
        rng.integers(0, 9, (70, 3)).astype(np.int8),
        rng.normal(size=(4, 2, 70)).astype(np.float16).T,
        rng.normal(size=(70, 3)) + 1j * rng.normal(size=(70, 3)),
        rng.random((70, 6))[:, ::2] > 0.5,
        rng.normal(size=(1, 70)).astype(np.float32)[0],
    )
    data[4].flags.writeable = False
    run = {"batch_args": data, "jac": "inplace", "options": {"maxiter": 2}}
    expected = minimize_batch(of_many, np.ones((70, 3)), **run)
    found = minimize_batch(of_many, np.ones((70, 3)), **run, device="cuda")
    np.testing.assert_array_equal(found.x, expected.x)


SIZES = {"auto": "auto", "one": 0.5, "shared": [0.5, 2.0, 9.0], "own": rng.uniform(0.1, 9.0, (19, 3))}


@pytest.mark.parametrize("x_scale", SIZES.values(), ids=SIZES)
def test_sizes_of_variables_are_those_of_the_host(x_scale):
    starts = STARTS.copy()
    starts[::2, 1] = -0.0
    run = {**BATCH, "options": {"x_scale": x_scale, "maxiter": 5}}
    expected = minimize_batch(decay, starts, (T,), **run)
    found = minimize_batch(decay, starts, (T,), **run, device="cuda")
    np.testing.assert_array_equal(found.x, expected.x)


@pytest.mark.parametrize(
    ("run", "message"),
    [
        ({"device": "gpu"}, "device must be 'cpu' or 'cuda', got 'gpu'"),
        ({"workers": 2}, "workers must be 1 with device='cuda'"),
        ({"jac": True}, "device='cuda' needs jac='inplace'.* got jac=True"),
        ({"jac": "2-point"}, "device='cuda' needs jac='inplace'.* got jac='2-point'"),
        ({"batch_args": (np.zeros((19, 2, 2, 2)),)}, "at most 3 axes"),
        ({"batch_args": (np.full(19, "a"),)}, "must be numbers in at most 3 axes"),
        ({"options": {"learning_rate": lambda k: 0.1, "maxiter": 10**7}}, "schedule needs maxiter of at most 1000000"),
        ({"options": {"learning_rate": lambda k: -0.1}}, "must be finite and not negative, got -0.1 at step 0"),
        ({"options": {"maxtime": 1.0}}, "maxtime"),
    ],
    ids=["device", "workers", "jac", "differences", "axes", "text", "long", "negative", "maxtime"],
)
def test_bad_batches_are_refused(run, message):
    given = {"X0": STARTS, "device": "cuda", **BATCH, **run}
    with pytest.raises(ValueError, match=message):
        minimize_batch(decay, given.pop("X0"), (T,), **given)


@pytest.mark.parametrize("args", [("text",), ([1.0],), ((1.0, {}),)], ids=["text", "list", "dict"])
def test_arguments_that_no_device_takes_are_refused(args):
    with pytest.raises(TypeError, match=r"args\[0\] must be a number, an array of numbers or a tuple of these"):
        minimize_batch(decay, STARTS, args, **BATCH, device="cuda")
