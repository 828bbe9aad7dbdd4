"""The update kernels against the plain NumPy reference."""

from __future__ import annotations

import re

import numpy as np
import pytest
from marks import needs_jit
from numba import jit, njit
from variants import DTYPES, SIZES, VARIANTS

from rmsprop_nb._core.options import RmspropOptions
from rmsprop_nb._kernels import vectors
from rmsprop_nb._kernels.update import make_parallel_update, make_update
from rmsprop_nb.testing import reference_rmsprop


@njit
def norms(a, b):
    return vectors.max_abs(a), vectors.max_abs_difference(a, b), vectors.dot(a, b)


@njit
def projected_max_abs(x, g, x_scale, lower, upper):
    return vectors.projected_max_abs(x, g, x_scale, lower, upper)


@njit
def clip(x, lower, upper):
    vectors.clip(x, lower, upper)


def gradients(n, steps, dtype):
    rng = np.random.default_rng(20)
    scales = 10.0 ** rng.uniform(-3, 3, n)
    return [(scales * rng.normal(size=n)).astype(dtype) for _ in range(steps)]


def run_kernel(x0, grads, rates, options, *, parallel=False, blocks=1):
    chosen = RmspropOptions(learning_rate=0.01, **options)
    kernel = (make_parallel_update if parallel else make_update)(chosen.variant)
    x = x0.copy()
    state = [np.full_like(x, chosen.initial_accumulator), np.zeros_like(x), np.zeros_like(x)]
    hyper = chosen.hyper(x.dtype)
    for k, (g, rate) in enumerate(zip(grads, rates, strict=True)):
        kernel(x, g, *state, rate, 1.0 - float(hyper.beta) ** (k + 1), hyper, blocks)
    return x, state


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_kernel_equals_reference(options, dtype, n):
    x0 = np.random.default_rng(1).normal(size=n).astype(dtype)
    grads = gradients(n, 12, dtype)
    rates = np.linspace(0.1, 0.01, 12)
    x, _ = run_kernel(x0, grads, rates, options)
    *_, expected = reference_rmsprop(x0, grads, rates, **options)
    assert x.dtype == dtype
    np.testing.assert_allclose(
        x, expected, rtol=0, atol=8 * np.finfo(dtype).eps * max(1.0, np.abs(expected).max(initial=0))
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [1, 37, 1000])
@pytest.mark.parametrize("blocks", [1, 2, 7])
def test_parallel_is_serial_bit_for_bit(n, dtype, blocks):
    x0 = np.random.default_rng(2).normal(size=n).astype(dtype)
    grads, rates = gradients(n, 5, dtype), [0.1] * 5
    for options in (VARIANTS["plain"], VARIANTS["everything"]):
        serial, serial_state = run_kernel(x0, grads, rates, options)
        parallel, parallel_state = run_kernel(x0, grads, rates, options, parallel=True, blocks=blocks)
        np.testing.assert_array_equal(serial, parallel)
        for a, b in zip(serial_state, parallel_state, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("dtype", DTYPES)
def test_constant_gradient_in_closed_form(dtype):
    # S0 = 0, eps = 0, constant g: x_t = x_0 - rate*sign(g)*sum 1/sqrt(1 - beta**k)
    g = np.array([3.0, -0.02], dtype)
    x, _ = run_kernel(np.zeros(2, dtype), [g] * 20, [0.01] * 20, {"eps": 0.0})
    expected = -0.01 * np.sign(g) * sum(1 / np.sqrt(1 - 0.9**k) for k in range(1, 21))
    np.testing.assert_allclose(x, expected, rtol=100 * np.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", DTYPES)
def test_scaling_the_objective_changes_nothing_without_eps(dtype):
    grads, rates = gradients(50, 10, dtype), [0.1] * 10
    x0 = np.zeros(50, dtype)
    x, _ = run_kernel(x0, grads, rates, {"eps": 0.0})
    scaled, _ = run_kernel(x0, [g * dtype(1024) for g in grads], rates, {"eps": 0.0})  # a power of two: exact
    np.testing.assert_array_equal(x, scaled)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("beta", [0.9, 0.99])
def test_centered_variance_never_goes_negative(dtype, beta):
    # a constant gradient makes S - m*m a rounding error of either sign
    g = np.random.default_rng(3).normal(size=1000).astype(dtype)
    x, _ = run_kernel(np.zeros(1000, dtype), [g] * 400, [1e-3] * 400, {"centered": True, "beta": beta})
    assert np.isfinite(x).all()


@needs_jit
def test_zero_gradient_without_eps_is_ieee_and_not_an_exception():
    x, _ = run_kernel(np.ones(3), [np.array([1.0, 0.0, 2.0])], [0.1], {"eps": 0.0})
    assert np.isnan(x[1])
    assert np.isfinite(x[[0, 2]]).all()


@needs_jit
@pytest.mark.thorough
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_kernel_is_vectorised_in_its_own_precision(options, dtype):
    run_kernel(np.zeros(8, dtype), gradients(8, 1, dtype), [0.1], options)
    kernel = make_update(RmspropOptions(learning_rate=0.01, **options).variant)
    signature = next(sig for sig in kernel.signatures if sig[0].dtype.name == np.dtype(dtype).name)
    fresh = jit(**kernel.targetoptions)(kernel.py_func)  # Numba has no assembly of what it read from the disk
    fresh.compile(signature)
    assembly = fresh.inspect_asm(signature)
    if "xmm" not in assembly:
        pytest.skip("reads x86-64 assembly, and this is another machine")
    letter = "s" if dtype == np.float32 else "d"
    assert re.search(rf"\bv?sqrtp{letter}\b", assembly)
    assert re.search(rf"\bv?divp{letter}\b", assembly)
    if dtype == np.float32:
        assert not re.search(r"\bv?(sqrt|div)[ps]d\b.*ymm", assembly), "float32 arithmetic was widened"


@needs_jit
def test_second_call_compiles_nothing():
    run_kernel(np.zeros(5), gradients(5, 2, np.float64), [0.1] * 2, {})
    kernel = make_update(RmspropOptions(learning_rate=0.01).variant)
    before = len(kernel.signatures)
    run_kernel(np.ones(1000), gradients(1000, 2, np.float64), [0.2] * 2, {"beta": 0.5})
    assert len(kernel.signatures) == before


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", SIZES)
def test_reductions_equal_numpy(n, dtype):
    rng = np.random.default_rng(4)
    a, b = rng.normal(size=(2, n)).astype(dtype)
    lower, upper = np.full(n, -0.5, dtype), np.full(n, 0.25, dtype)
    largest, largest_difference, product = norms(a, b)
    assert largest == np.abs(a).max(initial=0)
    assert largest_difference == np.abs(a.astype(float) - b).max(initial=0)
    assert product == pytest.approx(a.astype(float) @ b.astype(float), rel=1e-13)
    clipped = a.copy()
    clip(clipped, lower, upper)
    np.testing.assert_array_equal(clipped, np.clip(a, lower, upper))
    step = np.abs(clipped - np.clip(clipped.astype(float) - b, lower, upper)).max(initial=0)
    projected = projected_max_abs(clipped, b, a[:0], lower, upper)
    assert step * (1.0 - 1e-12) <= projected <= np.abs(b).max(initial=0)


def test_projected_norm_sees_a_gradient_that_is_small_beside_x():
    x, g, no_bound = np.array([1e3, 1.0]), np.array([1e-15, 0.0]), np.full(2, np.inf)
    assert projected_max_abs(x, g, x[:0], -no_bound, no_bound) == 1e-15
    assert projected_max_abs(x, g, x[:0], x, no_bound) == 0.0


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("where", [0, 16, 36])
def test_norms_show_nan_and_infinity(dtype, where):
    a = np.random.default_rng(5).normal(size=37).astype(dtype)
    bounds = np.full(37, -1, dtype), np.full(37, 1, dtype)
    a[where] = -np.inf
    assert vectors.largest(a) == np.inf
    a[where] = np.nan
    assert np.isnan(vectors.largest(a))
    assert np.isnan(projected_max_abs(np.zeros(37, dtype), a, a[:0], *bounds))
