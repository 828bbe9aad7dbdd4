"""The compiled kernels of batches without a device: what they compute, what they touch, and their machine code."""

from __future__ import annotations

import dataclasses
import functools
import math
import re

import numpy as np
import pytest
from numba import cuda, njit, typeof
from offline_compiler import ARCHITECTURES, device_of, machine_code, ptx
from ptx_interpreter import PTXError, run

from rmsprop_nb import Status, minimize_batch
from rmsprop_nb._core.options import LbfgsOptions, RmspropOptions
from rmsprop_nb._cuda import batch as _cuda_batch
from rmsprop_nb._cuda import native as _cuda_native
from rmsprop_nb._cuda.objective import check_objective
from rmsprop_nb._drivers.batch_loop import BatchResults
from rmsprop_nb._drivers.batch_threads import Job
from rmsprop_nb._objectives.objective import Problem
from rmsprop_nb.cuda import Team, team_sum

TEXTBOOK = RmspropOptions(learning_rate=0.05, maxiter=20)
OPTIONS = {"textbook": TEXTBOOK, "auto": RmspropOptions(), "lbfgs": LbfgsOptions(memory=4)}
METHODS = {
    "textbook": ("rmsprop", {"learning_rate": 0.05, "maxiter": 20}),
    "auto": ("rmsprop", {}),
    "lbfgs": ("rmsprop-lbfgs", {"memory": 4}),
}
FORMS = {"local": 32, "columns": 0}  # and up to how many variables vectors are local then


@njit
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


@njit
def bowl(x, grad):
    f = x[0] - x[0]
    for i in range(x.size):
        f += x[i] * x[i]
        grad[i] = x[i] + x[i]
    return f


def make_job(options, dtype=np.float64, count=256):
    rng = np.random.default_rng(0)
    t = np.linspace(0.0, 4.0, 6).astype(dtype)
    y = (2.0 * np.exp(-1.3 * t) + 0.5 + 0.01 * rng.normal(size=(count, 6))).astype(dtype)
    starts = np.tile(np.array([1.0, 1.0, 0.0], dtype), (count, 1))
    return Job(problem_of(misfit, dtype, t), starts, (np.ones(count, dtype), y), options)


def problem_of(fun, dtype, *args):
    none = np.empty(0, dtype)
    return Problem(fun, "inplace", args, none, none, None)


def bowls(n, options, dtype=np.float64, count=4):
    starts = (0.5 + 0.01 * np.arange(count * n).reshape(count, n)).astype(dtype)
    return Job(problem_of(bowl, dtype), starts, (), options)


def planned(job, threads, form=None):
    """The kernel for a job and what it is given; `form` is that of the vectors, if it is not left to the size."""
    with pytest.MonkeyPatch.context() as patch:
        if form is not None:
            patch.setattr(_cuda_batch, "LOCAL_SIZE", FORMS[form])
        plan = _cuda_batch.plan_of(job)
    arguments = _cuda_batch.arguments(job, BatchResults.empty(job.starts))
    if plan.columns:
        arguments = (*arguments, _cuda_batch.workspace(plan, threads, np.zeros))
    return plan, arguments


def compiled(job, threads, form=None):
    plan, arguments = planned(job, threads, form)
    return text_of(plan.kernel, tuple(map(typeof, arguments))), arguments


@functools.cache
def text_of(kernel, arg_types):
    return ptx(kernel, arg_types)


def found_by(arguments):
    return BatchResults(*(np.moveaxis(a, -1, 0) for a in arguments[6]))


# -- what is computed -------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIONS)
def test_batch_finds_what_the_cpu_finds(name):
    job = make_job(OPTIONS[name])
    text, arguments = compiled(job, 256, "local")
    run(text, 2, 128, arguments)
    found = found_by(arguments)
    method, options = METHODS[name]
    expected = minimize_batch(
        misfit, job.starts, job.problem.args, batch_args=job.rows, jac="inplace", method=method, options=options
    )
    # rounding differs, and what is near a minimum amplifies it: f and the status say more than the path
    np.testing.assert_array_equal(found.status, expected.status)
    np.testing.assert_allclose(found.fun, expected.fun, rtol=1e-5, atol=1e-12)
    np.testing.assert_allclose(found.x, expected.x, atol=1e-3)
    assert abs(found.nfev.mean() / expected.nfev.mean() - 1.0) < 0.02


@pytest.mark.parametrize("name", ["textbook", "auto"])
def test_vectors_in_a_workspace_have_the_bits_of_local_ones(name):
    """Also when threads take one problem after another."""
    job = make_job(dataclasses.replace(OPTIONS[name], maxiter=6), count=5)
    text, local = compiled(job, 8, "local")
    run(text, 1, 8, local)
    text, columns = compiled(job, 3, "columns")
    run(text, 1, 3, columns)
    for field, a, b in zip(BatchResults._fields, found_by(columns), found_by(local), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=field)


def test_batch_of_float32_converges():
    job = make_job(RmspropOptions(gtol=1e-3), np.float32, 64)
    text, arguments = compiled(job, 64)
    run(text, 1, 64, arguments)
    found = found_by(arguments)
    assert (found.status == 0).all()
    assert found.x.dtype == np.float32
    assert (np.abs(found.jac) <= 1e-3).all()


@pytest.mark.parametrize("form", FORMS)
def test_warps_touch_no_more_sectors_than_they_need(form):
    """As long as the problems of a warp are at the same place: starts, data, results and columns."""
    for dtype in (np.float32, np.float64):
        job = make_job(RmspropOptions(learning_rate=1e-3, gtol=0.0, maxiter=3), dtype)
        text, arguments = compiled(job, 128, form)
        counted = run(text, 2 if form == "local" else 1, 128, arguments)
        assert (found_by(arguments).status == Status.MAXITER).all()
        touched = [spread for spread in counted.spread if spread]
        assert len(touched) == (12 if form == "local" else 13)
        assert touched == [1.0] * len(touched)


@njit
def raises_below_zero(x, grad):
    if x[0] < 0.0:
        raise ValueError
    grad[0] = x[0] + x[0] - 2.0
    return (x[0] - 1.0) ** 2


@pytest.mark.parametrize("form", FORMS)
def test_objective_that_raises_ends_its_thread(form):
    """The problems that the thread had before it are not begun; they are run by another launch."""
    none = np.empty(0)
    starts = np.array([[2.0], [-1.0], [3.0], [4.0], [5.0], [6.0]])
    job = Job(Problem(raises_below_zero, "inplace", (), none, none, None), starts, (), TEXTBOOK)
    text, arguments = compiled(job, 2, form)
    run(text, 6 // 2 if form == "local" else 1, 2, arguments)
    ended, raised, waiting = int(Status.MAXITER), int(Status.EXCEPTION), int(Status.INTERRUPTED)
    expected = [ended, raised, ended, ended, ended, ended]
    if form == "columns":
        expected[3::2] = [waiting, waiting]
    found = found_by(arguments)
    np.testing.assert_array_equal(found.status, expected)
    np.testing.assert_array_equal(np.isnan(found.x[:, 0]), found.status != ended)


# -- a block of threads for each problem ------------------------------------------------------------------------------


@njit
def chain(x, grad, team, target):
    """Needs a sum over all variables before any part of the gradient is known."""
    total = x[0] - x[0]
    for i in range(team.rank, x.size, team.size):
        total += x[i]
    mean = team_sum(team, total) / x.size
    f = mean * mean if team.rank == 0 else 0.0
    for i in range(team.rank, x.size, team.size):
        d = x[i] - target[i]
        f += d * d
        grad[i] = d + d + (mean + mean) / x.size
    return f


@njit
def raises_in_one_thread(x, grad, team):
    f = x[0] - x[0]
    for i in range(team.rank, x.size, team.size):
        if x[i] < 0.0:
            raise ValueError
        grad[i] = x[i]
        f += x[i] * x[i] / 2.0
    return f


def team_job(fun, starts, rows, options):
    return Job(problem_of(fun, np.float64, Team()), starts, rows, options)


def test_team_finds_what_one_thread_finds():
    """Without races, and with them when there are no barriers."""
    starts, target = np.ones((2, 9)), np.random.default_rng(0).normal(size=(2, 9))
    job = team_job(chain, starts, (target,), RmspropOptions(maxiter=4))
    plan, arguments = planned(job, 8)
    assert plan.team == 8  # the largest power of two that leaves every thread a variable
    text = text_of(plan.kernel, tuple(map(typeof, arguments)))
    run(text, 1, 8, arguments)
    found = found_by(arguments)
    expected = minimize_batch(chain, starts, (Team(),), batch_args=(target,), jac="inplace", options={"maxiter": 4})
    np.testing.assert_array_equal(found.status, expected.status)
    np.testing.assert_array_equal(found.nfev, expected.nfev)
    np.testing.assert_allclose(found.x, expected.x, rtol=1e-8, atol=1e-8)
    _, arguments = planned(job, 8)
    with pytest.raises(PTXError, match="race"):
        run(re.sub(r"bar\.sync[^;]*;", "", text), 1, 8, arguments)


def test_team_in_which_one_raises_ends():
    starts = np.ones((3, 4))
    starts[1, 2] = -1.0
    job = team_job(raises_in_one_thread, starts, (), TEXTBOOK)
    plan, arguments = planned(job, 4)
    run(text_of(plan.kernel, tuple(map(typeof, arguments))), 1, 4, arguments)
    found = found_by(arguments)
    np.testing.assert_array_equal(found.status, [Status.MAXITER, Status.EXCEPTION, Status.INTERRUPTED])
    np.testing.assert_array_equal(np.isnan(found.x).any(1), [False, True, True])
    code = machine_code(plan.kernel, tuple(map(typeof, arguments)), (9, 0))
    assert code.spilled == code.stack == 0


# -- exceptions -------------------------------------------------------------------------------------------------------


def test_what_was_raised_on_a_device_is_found_out_on_the_host(monkeypatch):
    def run_on_device(job, results, on_done):
        results.status[:] = Status.GTOL, Status.EXCEPTION

    monkeypatch.setattr(_cuda_batch, "run_on_device", run_on_device)
    found = minimize_batch(raises_below_zero, [[2.0], [-1.0]], jac="inplace", device="cuda")
    assert found.exceptions.keys() == {1}
    assert isinstance(found.exceptions[1], ValueError)


# -- machine code -----------------------------------------------------------------------------------------------------


KERNELS = [
    ("textbook", 16, np.float32),
    ("textbook", 32, np.float64),
    ("textbook", 33, np.float32),
    ("auto", 32, np.float64),
    ("textbook", 33, np.float64),
    ("lbfgs", 32, np.float32),
    ("textbook", 16, np.float64),
]


@pytest.mark.parametrize(("capability", "of"), list(zip(ARCHITECTURES, KERNELS, strict=True)), ids=str)
def test_no_kernel_spills(capability, of):
    """At the sizes where the form of the vectors changes."""
    name, n, dtype = of
    plan, arguments = planned(bowls(n, OPTIONS[name], dtype), 128)
    assert plan.columns == (n == 33)
    code = machine_code(plan.kernel, tuple(map(typeof, arguments)), capability)
    assert code.spilled == 0
    if plan.columns or n == 16:
        assert code.stack == 0  # nothing is in local memory
    else:
        assert code.stack <= plan.shape.bytes + 512  # the vectors, and what else has an index


# -- objectives -------------------------------------------------------------------------------------------------------


@njit
def half_square(a):
    return a * a / (a - a + 2)


def curve_of(rate):
    def decay(x, grad, data):
        t, y = data  # a tuple of arrays
        f = x[0] - x[0]
        grad[:] = f
        for i in range(len(t)):
            e = math.exp(-rate * t[i])  # a constant from outside
            r = x[0] * e - y[i]
            f += half_square(r)
            grad[0] += r * e
        return f

    return decay


def tail(x, grad, a):
    rest, slope = x[1:], grad[1:]
    f = half_square(x[0] - a[0, 0])
    grad[0] = x[0] - a[0, 0]
    for i, v in enumerate(rest):
        slope[i] = v - a[0, 1] if abs(v) < 1.0e3 else v
        f += half_square(slope[i])
    return f


DATA = np.linspace(0.0, 1.0, 4), np.array([2.0, 1.0, 0.5, 0.2])
MATRIX = np.array([[1.0, -2.0]])
OBJECTIVES = ((curve_of(2.0), (DATA,)), (tail, (MATRIX,)), (misfit, (DATA[0], 2.0, DATA[1])), (bowl, ()))


@functools.cache
def all_objectives():
    """A kernel that evaluates each of them at the same point, and its arguments."""
    of_curve, of_tail, of_misfit, of_bowl = (_cuda_native.device_function(fun) for fun, _ in OBJECTIVES)

    @cuda.jit
    def evaluate(x, grads, f, data, matrix):
        f[0] = of_curve(x, grads[0], data)
        f[1] = of_tail(x, grads[1], matrix)
        f[2] = of_misfit(x, grads[2], data[0], 2.0, data[1])
        f[3] = of_bowl(x, grads[3])

    return evaluate, (np.array([0.7, -0.3, 0.2]), np.zeros((4, 3)), np.zeros(4), DATA, MATRIX)


def test_objectives_of_all_kinds_have_the_values_of_the_cpu():
    kernel, arguments = all_objectives()
    x, grads, f, *_ = arguments
    run(ptx(kernel, tuple(map(typeof, arguments))), 1, 1, arguments)
    for k, (fun, args) in enumerate(OBJECTIVES):
        grad = np.zeros(3)
        assert f[k] == pytest.approx(getattr(fun, "py_func", fun)(x, grad, *args), rel=1e-14)
        np.testing.assert_allclose(grads[k], grad, rtol=1e-14)


@pytest.mark.parametrize("capability", ARCHITECTURES, ids=str)
def test_machine_code_of_objectives(capability):
    kernel, arguments = all_objectives()
    code = machine_code(kernel, tuple(map(typeof, arguments)), capability)
    assert code.spilled == code.stack == 0


def checked(fun, dtype=np.float64, args=()):
    job = Job(problem_of(fun, dtype, *args), np.ones((2, 2), dtype), (), RmspropOptions())
    with device_of((9, 0)):
        check_objective(job, "C", (9, 0))


@pytest.mark.filterwarnings("error")
def test_objective_of_float32_that_computes_in_float64_is_warned_of():
    def with_literals(x, grad):
        grad[0] = 0.3 + 0.1 * x[0]
        return x[0] * x[0]

    with pytest.warns(RuntimeWarning, match=r"fun computes in float64 \(\d+ instructions\)"):
        checked(with_literals, np.float32)
    checked(with_literals, np.float64)
    checked(bowl, np.float32)


def of_exp(x, grad):
    return np.exp(x[0])


def of_dot(x, grad):
    return np.dot(x, grad)


def of_matmul(x, grad):
    return x @ grad


def of_expression(x, grad):
    grad[:] = 2.0 * x
    return x[0]


def of_copy(x, grad):
    grad[:] = x
    return x[0]


def of_zeros(x, grad):
    return np.zeros(2)[0]


def of_list(x, grad):
    parts = [x[0], x[1]]
    return parts[0]


def of_dict(x, grad):
    parts = {1: x[0]}
    return parts[1]


def of_string(x, grad):
    return x[0] + len(f"{x.size}")


def of_try(x, grad):
    try:
        return x[0]
    except ValueError:
        return x[1]


@njit
def exp_of(a):
    return np.exp(a)


def of_helper(x, grad):
    return exp_of(x[0])


LACKING = {
    of_exp: r"no np\.exp\b",
    of_dot: r"no np\.dot\b",
    of_matmul: "no @",
    of_expression: "no array expressions",
    of_copy: r"no .*copies of arrays by slices.*\(test_device_batch.py, line \d+\)",
    of_zeros: r"no np\.zeros\b",
    of_list: r"no lists.*\(test_device_batch.py, line \d+\)",
    of_dict: "no lists, dicts",
    of_string: "no strings",
    of_try: "no try and except",
    of_helper: r"no np\.exp\b",
}


@pytest.mark.parametrize("fun", LACKING, ids=lambda fun: fun.__name__)
def test_constructs_that_a_device_lacks_are_named(fun):
    with pytest.raises(TypeError, match=f"fun cannot be compiled for the device, which has {LACKING[fun]}"):
        checked(fun)


def test_objective_must_return_a_number():
    def forgets(x, grad):
        grad[0] = x[0]

    with pytest.raises(
        TypeError, match="fun must return f, a number, with jac='inplace'; on the device it returns none"
    ):
        checked(forgets)
    with pytest.raises(TypeError, match="cannot be compiled for the device"):
        checked(bowl, args=(1.0,))
