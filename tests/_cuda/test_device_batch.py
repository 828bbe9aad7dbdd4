"""The compiled kernels of batches without a device: what they compute, what they touch, and their machine code."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest
from batch_jobs import (
    FORMS,
    OPTIONS,
    TEXTBOOK,
    bowls,
    boxed,
    compiled,
    found_by,
    make_job,
    planned,
    problem_of,
    text_of,
)
from marks import some
from numba import njit, typeof
from objectives import decay
from offline_compiler import machine_code
from ptx_interpreter import run
from ptx_text import PTXError

from rmsprop_nb import Status, minimize_batch
from rmsprop_nb._core.options import RmspropOptions
from rmsprop_nb._cuda import batch as _cuda_batch
from rmsprop_nb._drivers.batch_loop import BatchResults
from rmsprop_nb._drivers.batch_threads import Job
from rmsprop_nb._objectives.problem import Problem
from rmsprop_nb.cuda import Team, team_sum

pytestmark = pytest.mark.thorough

METHODS = {
    "textbook": ("rmsprop", {"learning_rate": 0.05, "maxiter": 20}),
    "auto": ("rmsprop", {}),
    "lbfgs": ("rmsprop-lbfgs", {"memory": 4}),
}


# -- what is computed -------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["auto", "lbfgs"])
def test_batch_finds_what_the_cpu_finds(name):
    job = make_job(OPTIONS[name])
    text, arguments = compiled(job, 256, "local")
    run(text, 2, 128, arguments)
    found = found_by(arguments)
    method, options = METHODS[name]
    expected = minimize_batch(
        decay, job.starts, job.problem.args, batch_args=job.rows, jac="inplace", method=method, options=options
    )
    # rounding differs, and what is near a minimum amplifies it: f and the status say more than the path
    np.testing.assert_array_equal(found.status, expected.status)
    np.testing.assert_allclose(found.fun, expected.fun, rtol=1e-5, atol=1e-12)
    np.testing.assert_allclose(found.x, expected.x, atol=1e-3)
    assert abs(found.nfev.mean() / expected.nfev.mean() - 1.0) < 0.02


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "form", "dtype"), [("textbook", "local", np.float32), ("auto", "columns", np.float64)]
)
def test_each_problem_stays_in_its_own_box(name, form, dtype):
    job = boxed(make_job(OPTIONS[name], dtype, count=20))
    lower, upper = job.boxes
    upper[3] = lower[3]
    lower[4], upper[4] = -np.inf, np.inf
    blocks, threads = (3, 8) if form == "local" else (1, 12)
    text, arguments = compiled(job, threads, form)
    run(text, blocks, threads, arguments)
    found = found_by(arguments)
    method, options = METHODS[name]
    expected = minimize_batch(
        decay, job.starts, job.problem.args, batch_args=job.rows, jac="inplace", method=method, options=options,
        bounds=job.boxes,
    )  # fmt: skip
    np.testing.assert_array_equal(found.status, expected.status)
    np.testing.assert_allclose(found.x, expected.x, atol=1e-3)
    assert ((found.x >= lower) & (found.x <= upper)).all()
    assert ((found.x == lower) | (found.x == upper))[5:].any()


def test_vectors_in_a_workspace_have_the_bits_of_local_ones():
    """Also when threads take one problem after another. The kernels are those of other tests here."""
    job = make_job(dataclasses.replace(TEXTBOOK, maxiter=6), count=5)
    text, local = compiled(job, 8, "local")
    run(text, 1, 8, local)
    text, columns = compiled(job, 3, "columns")
    run(text, 1, 3, columns)
    for field, a, b in zip(BatchResults._fields, found_by(columns), found_by(local), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=field)


@pytest.mark.parametrize("form", FORMS)
def test_warps_touch_no_more_sectors_than_they_need(form):
    """As long as the problems of a warp are at the same place: starts, data, results and columns, and boxes."""
    options = RmspropOptions(learning_rate=1e-3, gtol=0.0, maxiter=3)
    arrays = 13 if form == "local" else 14
    boxed_dtype = np.float32 if form == "local" else np.float64
    assert touched(boxed(make_job(options, boxed_dtype)), form) > arrays  # it reads all that a job without boxes does
    assert touched(make_job(options), form) == arrays


def touched(job, form):
    """How many arrays a run touches, each in as few sectors as could be."""
    text, arguments = compiled(job, 128, form)
    counted = run(text, 2 if form == "local" else 1, 128, arguments)
    assert (found_by(arguments).status == Status.MAXITER).all() or job.boxes is not None
    spread = [spread for spread in counted.spread if spread]
    assert spread == [1.0] * len(spread)
    return len(spread)


@njit
def raises_below_zero(x, grad):
    if x[0] < 0.0:
        raise ValueError
    grad[0] = x[0] + x[0] - 2.0
    return (x[0] - 1.0) ** 2


@pytest.mark.parametrize("form", FORMS)
def test_objective_that_raises_ends_its_thread(form):
    """Other threads take the other problems; if none is left, these are not begun, and run by another launch."""
    none = np.empty(0)
    ended, raised, waiting = int(Status.MAXITER), int(Status.EXCEPTION), int(Status.INTERRUPTED)
    one = [2.0, -1.0, 3.0, 4.0, 5.0, 6.0], [ended, raised, ended, ended, ended, ended]
    all_threads = [2.0, -1.0, 3.0, -4.0, 5.0, 6.0], [ended, raised, ended, raised, waiting, waiting]
    for starts, expected in (one, all_threads):
        job = Job(Problem(raises_below_zero, "inplace", (), none, none), np.array([starts]).T, (), TEXTBOOK)
        text, arguments = compiled(job, 2, form)
        run(text, 1, 2, arguments)
        found = found_by(arguments)
        np.testing.assert_array_equal(found.status, expected)
        np.testing.assert_array_equal(np.isnan(found.x[:, 0]), found.status != ended)


def test_what_was_raised_on_a_device_is_found_out_on_the_host(monkeypatch):
    def run_on_device(job, results, on_done):
        results.status[:] = Status.GTOL, Status.EXCEPTION

    monkeypatch.setattr(_cuda_batch, "run_on_device", run_on_device)
    found = minimize_batch(raises_below_zero, [[2.0], [-1.0]], jac="inplace", device="cuda")
    assert found.exceptions.keys() == {1}
    assert isinstance(found.exceptions[1], ValueError)


@njit
def raises_later(x, grad, start):
    if x[0] != start:
        raise ValueError
    grad[0] = x[0] + x[0] - 2.0
    return (x[0] - 1.0) ** 2


def test_only_what_is_raised_at_the_first_evaluation_ends_a_batch(monkeypatch):
    """A device does not tell how many evaluations a problem had that raised."""

    def run_on_device(job, results, on_done):
        results.status[:] = Status.EXCEPTION
        on_done(2)

    monkeypatch.setattr(_cuda_batch, "run_on_device", run_on_device)
    with pytest.raises(ValueError, match="Each of the 2 problems of this batch raised this"):
        minimize_batch(raises_below_zero, [[-2.0], [-1.0]], jac="inplace", device="cuda")
    starts = np.array([[-2.0], [-1.0]])
    found = minimize_batch(raises_later, starts, batch_args=(starts[:, 0],), jac="inplace", device="cuda")
    assert found.exceptions.keys() == {0, 1}


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
    launch, arguments = planned(job, 8)
    assert launch.team == 8  # the largest power of two that leaves every thread a variable
    text = text_of(launch.kernel, tuple(map(typeof, arguments)))
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
    launch, arguments = planned(job, 4)
    run(text_of(launch.kernel, tuple(map(typeof, arguments))), 1, 4, arguments)
    found = found_by(arguments)
    np.testing.assert_array_equal(found.status, [Status.MAXITER, Status.EXCEPTION, Status.INTERRUPTED])
    np.testing.assert_array_equal(np.isnan(found.x).any(1), [False, True, True])
    code = machine_code(launch.kernel, tuple(map(typeof, arguments)), (9, 0))
    assert code.spilled == code.stack == 0


# -- machine code -----------------------------------------------------------------------------------------------------


BOXED = [("auto", 16, np.float64), ("textbook", 33, np.float32)]


@pytest.mark.exhaustive
@pytest.mark.parametrize("of", BOXED, ids=str)
def test_no_kernel_with_a_box_for_each_problem_spills(of):
    name, n, dtype = of
    launch, arguments = planned(boxed(bowls(n, OPTIONS[name], dtype)), 128)
    assert machine_code(launch.kernel, tuple(map(typeof, arguments)), (9, 0)).spilled == 0


# For sm_100 the linker takes 20 s over a search whose vectors are local, but not over one whose vectors are columns.
KERNELS = [
    ((7, 5), ("textbook", 16, np.float32)),
    ((8, 6), ("textbook", 33, np.float32)),
    ((8, 9), ("textbook", 32, np.float64)),
    ((8, 0), ("lbfgs", 32, np.float64)),
    ((9, 0), ("auto", 32, np.float32)),
    ((10, 0), ("auto", 33, np.float64)),
    ((12, 0), ("textbook", 10, np.float64)),
]


@pytest.mark.parametrize(("capability", "of"), some(KERNELS, 4, rest=pytest.mark.exhaustive), ids=str)
def test_no_kernel_spills(capability, of):
    """At the sizes where the form of the vectors changes."""
    name, n, dtype = of
    launch, arguments = planned(bowls(n, OPTIONS[name], dtype), 128)
    assert launch.columns == (n == 33)
    code = machine_code(launch.kernel, tuple(map(typeof, arguments)), capability)
    assert code.spilled == 0
    if launch.columns or n <= 16:
        assert code.stack == 0  # nothing is in local memory
    else:
        assert code.stack <= launch.shape.bytes + 512  # the vectors, and what else has an index


@pytest.mark.exhaustive
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=str)
def test_small_searches_leave_registers_for_others(dtype):
    """Three blocks of a multiprocessor can be at work; what is spilled for that is next to nothing."""
    launch, arguments = planned(make_job(OPTIONS["auto"], dtype), 128)
    code = machine_code(launch.kernel, tuple(map(typeof, arguments)), (9, 0))
    assert code.registers <= 65536 // 3 // 128
    assert code.spilled <= 400
    assert code.stack <= launch.shape.bytes + 64
