"""What needs NUMBA_ENABLE_CUDASIM=1 and NUMBA_DISABLE_JIT=1 before Numba is imported; see test_simulator.py."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest
from numba import cuda

from rmsprop_nb import RMSprop, RMSpropState, Status, load, minimize, minimize_batch, schedules
from rmsprop_nb.cuda import Team, device_rule, team_sum

rng = np.random.default_rng(0)
PARAMS = {"W": rng.normal(size=(3, 4)), "b": [rng.normal(size=5).astype(np.float32), np.array(2.0)]}


def mapped(change, tree):
    if isinstance(tree, dict):
        return {name: mapped(change, item) for name, item in tree.items()}
    return [mapped(change, item) for item in tree] if isinstance(tree, list) else change(tree)


def flat(tree):
    return [leaf for item in tree.values() for leaf in (item if isinstance(item, list) else [item])]


def to_host(a):
    return a.copy_to_host() if hasattr(a, "copy_to_host") else a


def gradients():
    return mapped(lambda a: np.asarray(rng.normal(size=a.shape), a.dtype), PARAMS)


# -- steps of the optimizer -------------------------------------------------------------------------------------------

OPTIONS = {
    "plain": {},
    "centered": {"centered": True, "eps": 1e-3},
    "momentum": {"momentum": 0.9},
    "nesterov": {"momentum": 0.9, "nesterov": True, "lr_in_momentum": True},
    "keras": {"eps_inside_sqrt": True, "weight_decay": 0.1, "decoupled_weight_decay": True},
    "bias_correction": {"bias_correction": True, "weight_decay": 0.1, "centered": True, "eps": 1e-3},
    "clip_value": {"clip_value": 0.1, "maximize": True, "initial_accumulator": 1.0},
    "clip_norm": {"clip_norm": 1.0},
    "accumulate": {"accumulate_steps": 2, "clip_norm": 0.5},
    "schedule": {"learning_rate": schedules.cosine_decay(0.1, 8)},
    "blocks": {"per_block": {"b": {"learning_rate": 0.5, "eps": 1e-2}}, "deterministic": True},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_steps_are_those_of_the_host(options):
    optimizer = RMSprop(**{"learning_rate": 0.1, **options})
    host = mapped(np.copy, PARAMS)
    device = mapped(cuda.to_device, PARAMS)
    host_state, device_state = optimizer.init(host), optimizer.init(device)
    for _ in range(4):
        grads = gradients()
        optimizer.step(host, grads, host_state)
        optimizer.step(device, mapped(cuda.to_device, grads), device_state)
    for a, b in zip(flat(host), flat(device), strict=True):
        np.testing.assert_allclose(to_host(b), a, rtol=1e-12 if options.get("clip_norm") else 0.0)
    for name, array in host_state.to_arrays().items():
        found = device_state.to_arrays()[name]
        assert found.dtype == array.dtype
        if array.dtype.kind == "f":
            np.testing.assert_allclose(found, array, rtol=1e-6 if options.get("clip_norm") else 0.0)


def test_state_goes_from_host_to_device_and_back():
    optimizer = RMSprop(0.1, momentum=0.9)
    x = {"x": rng.normal(size=7)}
    grads = {"x": rng.normal(size=7)}
    state = optimizer.init(x)
    optimizer.step(x, grads, state)
    device, device_state = {"x": cuda.to_device(x["x"])}, RMSpropState.from_arrays(state.to_arrays()).to_device()
    kept = device_state.copy()
    optimizer.step(x, grads, state)
    optimizer.step(device, {"x": cuda.to_device(grads["x"])}, device_state)
    np.testing.assert_array_equal(to_host(device["x"]), x["x"])
    assert device_state.step == 2
    assert kept.step == 1
    assert not np.array_equal(kept.to_arrays()["square_avg/x"], device_state.to_arrays()["square_avg/x"])


def vector(*values, dtype=np.float64):
    return cuda.to_device(np.array(values, dtype))


BAD_STEPS = {
    "host gradient": (lambda x: np.zeros(3), TypeError, r"grads must be on the device .* got ndarray; move it with"),
    "dtype": (lambda x: vector(1, 2, 3, dtype=np.float32), TypeError, "grads must be float64 like the params of init"),
    "half": (lambda x: cuda.to_device(np.zeros(3, np.float16)), TypeError, "grads must be float64 like .* got float16"),
    "integers": (lambda x: cuda.to_device(np.zeros(3, int)), TypeError, "float16 or bfloat16, got dtype int64"),
    "shape": (lambda x: vector(1, 2), ValueError, r"grads must have shape \(3,\)"),
    "strides": (lambda x: cuda.to_device(np.zeros(6))[::2], ValueError, r"contiguous \(C order\), got strides"),
    "same memory": (lambda x: x, ValueError, "must not share memory"),
    "NaN": (lambda x: vector(1, np.nan, 2), FloatingPointError, r"grads must be finite, got nan at index 1"),
    "too large": (lambda x: vector(1, 2, -1e200), FloatingPointError, "at most .* at index 2"),
}


@pytest.mark.parametrize(("make", "error", "message"), BAD_STEPS.values(), ids=BAD_STEPS)
def test_bad_gradients_change_nothing(make, error, message):
    optimizer = RMSprop(0.1)
    x = vector(1.0, 2.0, 3.0)
    state = optimizer.init(x)
    with pytest.raises(error, match=message):
        optimizer.step(x, make(x), state)
    np.testing.assert_array_equal(to_host(x), [1.0, 2.0, 3.0])
    np.testing.assert_array_equal(to_host(state.square_avg), np.zeros(3))
    assert state.step == 0


def test_what_is_not_for_a_device_is_refused():
    x = vector(1.0, 2.0)
    with pytest.raises(NotImplementedError, match="learning_rate must be a number or a schedule on a device"):
        RMSprop([0.1, 0.2]).init(x)
    with pytest.raises(TypeError, match=r"params\['b'\] must be on the device like the other arrays"):
        RMSprop().init({"a": x, "b": np.zeros(2)})
    with pytest.raises(TypeError, match=r"params\['b'\] must be a host array like the others"):
        RMSprop().init({"a": np.zeros(2), "b": x})
    state = RMSprop(momentum=0.9).init(x)
    with pytest.raises(ValueError, match="state must be of these options"):
        RMSprop().step(x, vector(1.0, 1.0), state)
    with pytest.raises(TypeError, match="params must be a host array"):
        RMSprop().step(x, vector(1.0, 1.0), RMSprop().init(np.zeros(2)))


# -- batches ----------------------------------------------------------------------------------------------------------


def misfit(p, grad, t, weight, y):
    f = zero = p[0] - p[0]
    for i in range(grad.size):
        grad[i] = zero
    for i in range(t.size):
        e = math.exp(-p[1] * t[i])
        r = p[0] * e + p[2] - y[i]
        f += weight * r * r
        grad[0] += weight * (r + r) * e
        grad[1] -= weight * (r + r) * p[0] * t[i] * e
        grad[2] += weight * (r + r)
    return f


T = np.linspace(0.0, 4.0, 6)
Y = 2.0 * np.exp(-1.3 * T) + 0.5 + 0.01 * rng.normal(size=(19, 6))
STARTS = np.array([1.0, 1.0, 0.0]) + 0.1 * rng.random((19, 3))
BATCH = {"jac": "inplace", "batch_args": (rng.random(19) + 0.5, Y)}
RUNS = {
    "textbook": {"options": {"learning_rate": 0.05, "maxiter": 12, "momentum": 0.5, "centered": True, "eps": 0.1}},
    "bias": {"options": {"learning_rate": 0.05, "maxiter": 12, "bias_correction": True, "initial_accumulator": 0.5}},
    "schedule": {"options": {"learning_rate": schedules.exponential_decay(0.1, 5, 0.5), "maxiter": 12}},
    "auto": {},
    "lbfgs": {"method": "rmsprop-lbfgs", "options": {"memory": 3}},
    "bounds": {"bounds": [(0.0, 1.5), (0.9, 1.2), (0.0, None)]},
    "float32": {"options": {"gtol": 1e-3}, "dtype": np.float32},
    "limits": {"options": {"maxfev": 3}},
    "tests": {"options": {"ftol": 1e-3, "patience": 5}},
}


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_batches_are_those_of_the_host(run):
    run = dict(run)
    starts = STARTS.astype(run.pop("dtype", np.float64))
    expected = minimize_batch(misfit, starts, (T,), **BATCH, **run)
    found = minimize_batch(misfit, starts, (T,), **BATCH, **run, device="cuda")
    for name in ("x", "fun", "jac", "nit", "nfev", "status"):
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)
        assert found[name].dtype == expected[name].dtype
    assert found.best == expected.best


def test_problems_do_not_disturb_each_other():
    y = Y.copy()
    y[3] = np.nan
    found = minimize_batch(misfit, STARTS, (T,), jac="inplace", batch_args=(np.ones(19), y), device="cuda")
    assert found.status[3] == Status.NONFINITE
    assert np.delete(found.success, 3).all()


def test_begun_batches_go_on():
    whole = minimize_batch(misfit, STARTS, (T,), **BATCH, device="cuda")
    begun = minimize_batch(misfit, STARTS, (T,), **BATCH)
    begun.status[::2] = Status.INTERRUPTED
    begun.x[::2] = np.nan
    found = minimize_batch(misfit, STARTS, (T,), **BATCH, device="cuda", state=begun)
    np.testing.assert_array_equal(found.x, whole.x)


def valley(x, grad):
    f = x[0] - x[0]
    for i in range(x.size):
        f += (i + 1) * x[i] * x[i]
        grad[i] = 2 * (i + 1) * x[i]
    return f


@pytest.mark.parametrize("method", ["rmsprop", "rmsprop-lbfgs"])
def test_vectors_in_a_workspace_give_the_results_of_the_host(method):
    """There are more problems than threads, so that each column is used again."""
    starts = rng.normal(size=(19, 6))
    run = {"jac": "inplace", "method": method, "bounds": [(-1.0, 1.0)] * 5 + [(0.1, 1.0)], "options": {"maxiter": 8}}
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
        minimize_batch(misfit, given.pop("X0"), (T,), **given)


@pytest.mark.parametrize("args", [("text",), ([1.0],), ((1.0, {}),)], ids=["text", "list", "dict"])
def test_arguments_that_no_device_takes_are_refused(args):
    with pytest.raises(TypeError, match=r"args\[0\] must be a number, an array of numbers or a tuple of these"):
        minimize_batch(misfit, STARTS, args, **BATCH, device="cuda")


# -- one problem on the device ----------------------------------------------------------------------------------------


@cuda.jit
def bowl_gradient(x, grad, scale):
    i = cuda.grid(1)
    if i < x.size:
        grad[i] = scale[i] * (x[i] - 1.0)


def bowl(x, grad, scale):
    bowl_gradient[1, 8](x, grad, scale)
    return cuda.to_device(np.array([0.5 * np.sum(to_host(scale) * (to_host(x) - 1.0) ** 2)]))


def host_bowl(x, grad, scale):
    grad[:] = scale * (x - 1.0)
    return 0.5 * np.sum(scale * (x - 1.0) ** 2)


SCALE = np.array([1.0, 2.0, 3.0])
X0 = np.array([3.0, -2.0, 0.5])
SINGLE = {
    "plain": {"learning_rate": 0.01, "maxiter": 40},
    "momentum": {"learning_rate": 0.01, "maxiter": 40, "momentum": 0.5, "centered": True, "eps": 0.1},
    "bias": {"learning_rate": schedules.exponential_decay(0.1, 10, 0.5), "maxiter": 17, "bias_correction": True},
    "gtol": {"learning_rate": 0.05, "gtol": 0.2},
    "f_target": {"learning_rate": 0.05, "f_target": 5.0},
    "maxfev": {"learning_rate": 0.05, "maxfev": 7},
}


@pytest.mark.parametrize("options", SINGLE.values(), ids=SINGLE)
def test_single_run_is_that_of_the_host(options):
    x0 = cuda.to_device(X0)
    expected = minimize(host_bowl, X0, (SCALE,), jac="inplace", options=options)
    found = minimize(bowl, x0, (cuda.to_device(SCALE),), jac="inplace", options={**options, "check_every": 1})
    np.testing.assert_array_equal(to_host(x0), X0)
    np.testing.assert_array_equal(to_host(found.x), expected.x)
    np.testing.assert_array_equal(to_host(found.jac), expected.jac)
    for name in ("fun", "nit", "nfev", "njev", "status", "success", "message"):
        assert found[name] == expected[name], name


def test_host_looks_every_so_many_iterations():
    options = {"learning_rate": 0.05, "gtol": 0.2}
    every = minimize(bowl, cuda.to_device(X0), (cuda.to_device(SCALE),), jac="inplace", options=options)
    each = minimize(host_bowl, X0, (SCALE,), jac="inplace", options=options)
    assert every.success
    assert every.nit == -(-each.nit // 32) * 32


def test_single_run_ends_for_what_the_user_does():
    args, options = (cuda.to_device(SCALE),), {"learning_rate": 0.01, "check_every": 5}
    seen = []

    def callback(x):
        seen.append(to_host(x))
        if len(seen) == 3:
            raise StopIteration

    found = minimize(bowl, cuda.to_device(X0), args, jac="inplace", options=options, callback=callback)
    assert (found.status, found.nit) == (Status.CALLBACK_STOP, 10)
    np.testing.assert_array_equal(seen[0], X0)
    found = minimize(bowl, cuda.to_device(X0), args, jac="inplace", options={**options, "maxtime": 0.0})
    assert found.status == Status.MAXTIME
    nan = cuda.to_device(np.full(3, np.nan))
    assert minimize(bowl, cuda.to_device(X0), (nan,), jac="inplace", options=options).status == Status.NONFINITE

    def raising(x, grad, scale):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        minimize(raising, cuda.to_device(X0), args, jac="inplace", options=options)


@pytest.mark.parametrize(
    ("run", "message"),
    [
        ({"jac": True}, "jac must be 'inplace' with x0 on a device"),
        ({"bounds": [(0, 1)] * 3}, "bounds are not for x0 on a device"),
        ({"options": {}}, "needs method='rmsprop' with a learning_rate that is a number"),
        ({"method": "rmsprop-lbfgs", "options": {}}, "needs method='rmsprop'"),
        ({"options": {"learning_rate": 0.1, "history": True}}, "history is not for x0 on a device"),
        ({"options": {"learning_rate": 0.1, "check_every": 0}}, "check_every"),
        ({"x0": cuda.to_device(np.zeros((2, 2)))}, "x0 must have one dimension"),
        ({"data": SCALE}, "comm, data and weight are not for x0 on a device"),
    ],
    ids=["jac", "bounds", "auto", "lbfgs", "history", "check_every", "shape", "data"],
)
def test_bad_single_runs_are_refused(run, message):
    given = {"x0": cuda.to_device(X0), "jac": "inplace", "options": {"learning_rate": 0.1}, **run}
    with pytest.raises((ValueError, TypeError), match=message):
        minimize(bowl, given.pop("x0"), (cuda.to_device(SCALE),), **given)


# -- the rule in a kernel of one's own --------------------------------------------------------------------------------


def test_rule_in_a_kernel_of_ones_own():
    rule = device_rule(dtype=np.float64, beta=0.9, momentum=0.5)

    @cuda.jit
    def step(x, g, s, b, rate):
        i = cuda.grid(1)
        if i < x.size:
            x[i], s[i], _, b[i] = rule(x[i], g[i], s[i], 0.0, b[i], rate, 1.0)

    x, g = rng.normal(size=(2, 5))
    optimizer = RMSprop(0.1, beta=0.9, momentum=0.5)
    expected, state = x.copy(), optimizer.init(x)
    arrays = [cuda.to_device(a) for a in (x, g, np.zeros(5), np.zeros(5))]
    for _ in range(3):
        step[1, 8](*arrays, 0.1)
        optimizer.step(expected, g, state)
    np.testing.assert_array_equal(to_host(arrays[0]), expected)
    with pytest.raises(ValueError, match="dtype must be float32 or float64, got float16"):
        device_rule(dtype=np.float16)
    with pytest.raises(ValueError, match="beta"):
        device_rule(beta=2.0)


# -- the page on it ---------------------------------------------------------------------------------------------------


def test_examples_of_the_page_run():
    page = Path(__file__).resolve().parents[2] / "docs" / "cuda.md"
    text = page.read_text(encoding="utf-8")
    namespace = {"__name__": "__page__"}
    blocks = list(re.finditer(r"^```py\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
    assert len(blocks) >= 3
    for block in blocks:
        exec(compile("\n" * text.count("\n", 0, block.start(1)) + block[1], page, "exec"), namespace)  # noqa: S102
    np.testing.assert_allclose(to_host(namespace["x"]), 0.9)
    assert (to_host(namespace["params"]["W"]) == 0.75).all()
    assert (to_host(namespace["params"]["b"]) == 0.5).all()
