"""Batches as compiled CUDA code, without a device: what it computes, by an interpreter of PTX, and its machine code."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from cuda_offline import ARCHITECTURES, device_of, machine_code, ptx
from numba import float32, njit, typeof
from ptx_interpreter import run

from rmsprop_nb import _cuda_batch, minimize_batch
from rmsprop_nb._batch_loop import BatchResults
from rmsprop_nb._batch_run import Job
from rmsprop_nb._cuda_native import count_double
from rmsprop_nb._objective import Problem
from rmsprop_nb._options import LbfgsOptions, RmspropOptions


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


def make_job(options, dtype=np.float64, count=256):
    rng = np.random.default_rng(0)
    t = np.linspace(0.0, 4.0, 6).astype(dtype)
    y = (2.0 * np.exp(-1.3 * t) + 0.5 + 0.01 * rng.normal(size=(count, 6))).astype(dtype)
    none = np.empty(0, dtype)
    starts = np.tile(np.array([1.0, 1.0, 0.0], dtype), (count, 1))
    return Job(Problem(misfit, "inplace", (t,), none, none, None), starts, (np.ones(count, dtype), y), options)


def compiled_batch(job):
    arguments = (*_cuda_batch.arguments(job), tuple(BatchResults.empty(job.starts)))
    return ptx(_cuda_batch.kernel_for(job), tuple(map(typeof, arguments))), arguments


BATCHES = {
    "textbook": (RmspropOptions(learning_rate=0.05, maxiter=20), "rmsprop", {"learning_rate": 0.05, "maxiter": 20}),
    "auto": (RmspropOptions(), "rmsprop", {}),
    "lbfgs": (LbfgsOptions(memory=4), "rmsprop-lbfgs", {"memory": 4}),
}


@pytest.mark.parametrize(("options", "method", "chosen"), BATCHES.values(), ids=BATCHES)
def test_batch_finds_what_the_cpu_finds(options, method, chosen):
    job = make_job(options)
    text, arguments = compiled_batch(job)
    counted = run(text, 2, 128, arguments)
    found = BatchResults(*arguments[-1])
    expected = minimize_batch(
        misfit, job.starts, job.problem.args, batch_args=job.rows, jac="inplace", method=method, options=chosen
    )
    # rounding differs, and what is near a minimum amplifies it: f and the status say more than the path
    np.testing.assert_array_equal(found.status, expected.status)
    np.testing.assert_allclose(found.fun, expected.fun, rtol=1e-5, atol=1e-12)
    np.testing.assert_allclose(found.x, expected.x, atol=1e-3)
    assert abs(found.nfev.mean() / expected.nfev.mean() - 1.0) < 0.02
    assert counted.sectors_over_least < 2.0


def test_batch_of_float32_converges():
    job = make_job(RmspropOptions(gtol=1e-3), np.float32, 64)
    text, arguments = compiled_batch(job)
    run(text, 1, 64, arguments)
    found = BatchResults(*arguments[-1])
    assert (found.status == 0).all()
    assert found.x.dtype == np.float32
    assert (np.abs(found.jac) <= 1e-3).all()


@pytest.mark.parametrize("capability", [ARCHITECTURES[0], ARCHITECTURES[-1]], ids=str)
def test_vectors_of_a_textbook_batch_stay_in_registers(capability):
    job = make_job(RmspropOptions(learning_rate=0.05), np.float32)
    _, arguments = compiled_batch(job)
    code = machine_code(_cuda_batch.kernel_for(job), tuple(map(typeof, arguments)), capability)
    assert code.spilled == code.stack == 0


@pytest.mark.filterwarnings("error")
def test_objective_of_float32_that_computes_in_float64_is_warned_of():
    @njit
    def with_literals(x, grad):
        grad[0] = 0.3 + 0.1 * x[0]
        return x[0] * x[0]

    @njit
    def without(x, grad):
        grad[0] = x[0] + x[0]
        return x[0] * x[0]

    none = np.empty(0, np.float32)
    starts = np.ones((2, 1), np.float32)
    jobs = [
        Job(Problem(f, "inplace", (), none, none, None), starts, (), RmspropOptions()) for f in (with_literals, without)
    ]
    with device_of((9, 0)):
        with pytest.warns(RuntimeWarning, match=r"fun computes in float64 \(\d+ instructions\)"):
            _cuda_batch.warn_of_double(jobs[0], (9, 0))
        with warnings.catch_warnings():
            _cuda_batch.warn_of_double(jobs[1], (9, 0))
        assert count_double(misfit, (float32[::1],) * 2 + (float32[::1], float32, float32[::1]), (9, 0)) == 0
