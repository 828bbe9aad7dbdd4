"""Exact gradients of objectives that are compiled for a device."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from batch_jobs import OPTIONS, compiled, found_by, make_job
from numba import cuda, njit, typeof
from offline_compiler import ARCHITECTURES, machine_code, ptx, standing_in
from ptx_interpreter import run

from rmsprop_nb import minimize_batch, value_and_grad
from rmsprop_nb._core.options import RmspropOptions
from rmsprop_nb._cuda.batch import with_gradient
from rmsprop_nb._cuda.derivatives import gradient_on_device
from rmsprop_nb._cuda.objective import check_objective
from rmsprop_nb._drivers.batch_threads import Job
from rmsprop_nb._objectives.problem import Problem
from rmsprop_nb.cuda import Team

pytestmark = pytest.mark.thorough

NONE = np.empty(0)


@njit
def half_square(a):
    return a * a / 2


@njit
def chain(x, a):
    s = 0.0
    for i in range(x.size - 1):
        s += a[0] * (x[i + 1] - x[i] ** 2) ** 2 + half_square(a[1] - x[i])
    return s


@njit
def elementary(x, a):
    s = math.exp(-x[0]) + math.log(1.5 + x[1] * x[1]) + math.sqrt(abs(x[2])) + math.tanh(x[0]) + math.erf(x[2])
    s += math.atan2(x[0], x[1]) + math.hypot(x[1], x[2]) + x[1] ** 2.5 + a[1] ** x[2] + math.pow(x[0], 1.5)
    s += max(x[0], x[1]) + min(x[0], 1.0) + math.log1p(x[0]) + math.expm1(x[1]) + math.asin(x[2] * a[0] / 10)
    s += x[0] // 1 + x[2] % 0.7 + math.floor(x[1]) + math.copysign(x[0], -1.0) + math.acosh(2.0 + x[0])
    u, v = x[1], x[0]
    for i in range(x.size):
        if x[i] > a[0] and not math.isnan(x[i]):
            s += x[i] * a[1] - a[1] / x[i]
        else:
            u, v = v, u - x[i] * x[i]
    return s + u * 2 - v / 3


@njit
def decay(p, t, scale, y):
    s = 0.0
    for i in range(t.size):
        s += half_square(scale * (p[0] * math.exp(-p[1] * t[i]) + p[2] - y[i]))
    return s


def kernel_for(fun, n, dtype):
    evaluate = cuda.jit(device=True)(gradient_on_device(fun, n, dtype == np.float32))

    @cuda.jit
    def kernel(x, grad, f, a):
        f[0] = evaluate(x, grad, a)

    return kernel


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(("fun", "n"), [(elementary, 3), (chain, 1), (chain, 6), (chain, 9), (chain, 20)])
def test_values_and_gradients_are_those_of_the_cpu(fun, n, dtype):
    x, a = np.linspace(0.4, 1.3, n).astype(dtype), np.array([0.5, 2.0], dtype)
    grad, f, expected = np.full_like(x, np.nan), np.zeros(1, dtype), np.empty_like(x)
    run(ptx(kernel_for(fun, n, dtype), tuple(map(typeof, (x, grad, f, a)))), 1, 1, (x, grad, f, a))
    expected_f = value_and_grad(fun, mode="forward")(x, expected, a)
    rounding = 20 * float(np.finfo(dtype).eps)
    assert f[0] == pytest.approx(expected_f, rel=rounding)
    np.testing.assert_allclose(grad, expected, rtol=rounding, atol=rounding * np.abs(expected).max())


@pytest.mark.parametrize("capability", ARCHITECTURES, ids=str)
@pytest.mark.parametrize(("fun", "n"), [(chain, 8), (chain, 5), (elementary, 3)])
def test_registers_are_not_spilled(fun, n, capability):
    arguments = (np.ones(n), np.ones(n), np.ones(1), np.ones(2))
    code = machine_code(kernel_for(fun, n, np.float64), tuple(map(typeof, arguments)), capability)
    assert code.spilled == 0
    assert n > 5 or code.stack == 0


@pytest.mark.slow
def test_a_batch_ends_where_that_with_a_gradient_by_hand_does():
    options = dataclasses.replace(OPTIONS["auto"], maxiter=8)
    by_hand = make_job(options, count=8)
    problem = with_gradient(Problem(decay, None, by_hand.problem.args, NONE, NONE), 3, np.float64)
    assert problem.gradient_source == "autodiff"
    exact = dataclasses.replace(by_hand, problem=problem)
    found = []
    for job in (by_hand, exact):
        text, arguments = compiled(job, 8, "local")
        run(text, 1, 8, arguments)
        found.append(found_by(arguments))
    np.testing.assert_allclose(found[1].x, found[0].x, rtol=1e-9)
    np.testing.assert_array_equal(found[1].nfev, found[0].nfev)


def as_index(x, a):
    return x[0] * a[int(x[1])]


def kept_in_args(x, a):
    a[0] = x[0]
    return a[0] * a[0]


def array_expression(x, a):
    return np.sum(x * x)


@pytest.mark.parametrize(
    ("fun", "named"),
    [
        (as_index, "as_index cannot be differentiated: .*drops its derivatives"),
        (kept_in_args, "kept_in_args cannot be differentiated: .*would drop"),
        (array_expression, "array expressions"),
    ],
)
def test_what_has_no_derivatives_on_a_device_is_named(fun, named):
    problem = with_gradient(Problem(njit(fun), "autodiff", (np.ones(2),), NONE, NONE), 2, np.float64)
    job = Job(problem, np.ones((2, 2)), (), RmspropOptions())
    with standing_in((9, 0)), pytest.raises(TypeError, match=named):
        check_objective(job, "C", (9, 0))


@pytest.mark.parametrize(
    ("jac", "args", "n", "named"),
    [
        ("2-point", (), 2, "got jac='2-point'"),
        (True, (), 2, "got jac=True"),
        ("autodiff", (), 33, "33 variables"),
        (None, (Team(),), 2, "threads of a team"),
    ],
)
def test_a_device_has_no_other_gradients(jac, args, n, named):
    with pytest.raises(ValueError, match=f"device='cuda' needs jac='inplace'.*{named}"):
        minimize_batch(chain, np.ones((3, n)), args, jac=jac, device="cuda")
