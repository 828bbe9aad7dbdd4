"""The update of one array as compiled CUDA code, run by an interpreter."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from arrays_in_memory import (
    CORRECTION,
    RATE,
    REALS,
    SIZES,
    VARIANTS,
    Arrays,
    compare,
    from_memory,
    hyper_of,
    rounded,
    single_signature,
)
from numba import cuda, float32, uint64
from offline_compiler import ptx
from ptx_interpreter import run
from ptx_memory import address_in

from rmsprop_nb._core.rule import make_rule, times
from rmsprop_nb._core.settings import Hyper, Variant
from rmsprop_nb._cuda.memory import ITEMSIZE, element_access, real_of, several_access
from rmsprop_nb._cuda.update import Formats, make_update

pytestmark = pytest.mark.thorough


def compiled_single(variant, formats, *, adjusts=False, deterministic=True):
    real = str(real_of(formats[0]))
    return ptx(make_update(variant, Formats(*formats), adjusts, deterministic), single_signature(REALS[real]))


def run_single(text, arrays, scale=1.0, limit=math.inf):
    real = real_of(arrays.formats[0]).type
    numbers = (*hyper_of(real), *map(real, (RATE, CORRECTION, scale, limit)))
    return run(text, 3, 64, (*map(np.uint64, (*arrays.addresses(0), arrays.n)), *numbers), arrays.device)


@pytest.mark.parametrize("real", REALS)
@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_deterministic_update_has_the_bits_of_the_cpu(variant, real):
    text = compiled_single(variant, (real, real))
    assert "fma." not in text
    for n in SIZES:
        for begin in (0, 1):
            arrays = Arrays(variant, n, (real, real), begin)
            run_single(text, arrays)
            compare(arrays.found(), arrays.expected(variant, hyper_of(real)), f"n={n}, begin={begin}")


@pytest.mark.parametrize("real", REALS)
def test_clipped_update_has_the_bits_of_the_cpu(real):
    text = compiled_single(Variant(), (real, real), adjusts=True)
    arrays = Arrays(Variant(), 1025, (real, real))
    run_single(text, arrays, -0.5, 0.7)
    compare(arrays.found(), arrays.expected(Variant(), hyper_of(real), scale=-0.5, limit=0.7), "clipped")


# Where nothing cancels and steps are short beside x, rounding once or twice shows in the last place alone.
MOST_ULPS = {"bias": 8, "everything": 8, "momentum": 4, "nesterov": 4}  # of the larger of x and the step; 2 for others


@pytest.mark.parametrize(("name", "real"), list(zip(VARIANTS, itertools.cycle(REALS))))
def test_update_is_that_of_the_cpu_but_for_fused_sums(name, real):
    variant = VARIANTS[name]
    text = compiled_single(variant, (real, real), deterministic=False)
    assert "fma." in text
    arrays = Arrays(variant, 4099, (real, real))
    run_single(text, arrays)
    found, expected = arrays.found(), arrays.expected(variant, hyper_of(real))
    coupled = variant.weight_decay and not variant.decoupled_weight_decay
    assert ulps(found[2], expected[2], expected[2]).max() <= (2 if coupled else 1)
    x, step = np.abs(arrays.host[0]), np.abs(expected[0] - arrays.host[0])
    assert ulps(found[0], expected[0], np.maximum(x, step)).max() <= MOST_ULPS.get(name, 2)
    if not variant.centered:  # whose variance is a difference
        short = step <= x / 8
        assert short.sum() > 400
        assert ulps(found[0], expected[0], np.maximum(x, np.abs(expected[0])))[short].max() <= 1
    if name == "bias":
        assert ulps(found[3], expected[3], np.maximum(np.abs(expected[3]), np.abs(arrays.host[1]) / 10)).max() <= 2
    if name == "momentum":
        assert ulps(found[4], expected[4], np.maximum(np.abs(expected[4]), np.abs(arrays.host[4]))).max() <= 4


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_update_is_no_further_from_the_exact_one_than_that_of_the_cpu(variant):
    hyper, rule = hyper_of("float32"), make_rule(times)
    arrays = Arrays(variant, 1025, ("float32", "float32"))
    columns = [(a if a.size else np.zeros(arrays.n)).astype(np.float64) for a in arrays.host]
    constants = (*map(np.float64, map(np.float32, (RATE, CORRECTION))), Hyper(*map(np.float64, hyper)), variant)
    exact = np.array([rule(*row, *constants) for row in zip(*columns, strict=True)]).T
    run_single(compiled_single(variant, ("float32", "float32"), deterministic=False), arrays)
    scale = np.maximum(np.abs(columns[0]), np.abs(exact[0] - columns[0])), exact[1], np.abs(columns[1]), 1.0 + exact[3]
    for name, k, column, size in zip("xsmb", (0, 2, 3, 4), exact, scale, strict=True):
        found, expected = arrays.found()[k], arrays.expected(variant, hyper)[k]
        if found.size:
            errors = [ulps(values.astype(np.float64), column, np.float32(size)) for values in (found, expected)]
            assert errors[0].mean() <= 1.02 * errors[1].mean(), name
            assert errors[0].max() <= 1.0 + errors[1].max(), name


def ulps(a, b, scale):
    return np.abs(a - b) / np.spacing(np.abs(scale))


@pytest.mark.slow
def test_large_update_has_the_bits_of_the_cpu():
    arrays = Arrays(Variant(), 100_003, ("float32", "float32"))
    counted = run_single(compiled_single(Variant(), ("float32", "float32")), arrays)
    compare(arrays.found(), arrays.expected(Variant(), hyper_of("float32")), "large")
    assert counted.sectors_over_least < 1.01


@pytest.mark.parametrize("number_format", ITEMSIZE)
def test_threads_of_a_warp_read_neighbours(number_format):
    text = compiled_single(Variant(), (number_format,) * 2, deterministic=False)
    counted = run_single(text, Arrays(Variant(), 2048, (number_format,) * 2))
    # beside eight numbers of half precision are two 128 bits of state, which touch the same sectors twice
    assert counted.sectors_over_least == (11 / 7 if ITEMSIZE[number_format] == 2 else 1.0)


@pytest.mark.parametrize("number_format", ["float16", "bfloat16"])
def test_half_precision_is_read_and_rounded_as_it_should(number_format):
    """Every number there is comes back, and whatever lies between two is rounded to nearest, ties to even."""
    load, store = several_access(number_format, 8)
    load_one, store_one = element_access(number_format)

    @cuda.jit
    def convert(halves, reals, singles):  # 8 each, and one each
        i = uint64(cuda.grid(1))
        values = load(halves, i)
        store(singles, i, values)
        for k in range(8):
            j = uint64(8) * i + uint64(k)
            reals[j] = load_one(halves, j) if j % uint64(2) else values[k]

    @cuda.jit
    def shrink(reals, halves):
        i = uint64(cuda.grid(1))
        store_one(halves, i, reals[i])

    every = np.arange(2**16).astype(np.uint16)
    reals, singles = np.zeros(2**16, np.float32), np.zeros(2**16, np.uint16)
    places = uint64, float32[::1], uint64
    run(ptx(convert, places), 64, 128, (np.uint64(address_in(0)), reals, np.uint64(address_in(1))), [every, singles])
    stored = every if number_format == "bfloat16" else every.view(np.float16)
    expected = from_memory(stored, number_format)
    np.testing.assert_array_equal(reals, expected)
    numbers = ~np.isnan(expected)
    np.testing.assert_array_equal(singles[numbers], every[numbers])
    assert np.isnan(from_memory(singles.view(stored.dtype), number_format)[~numbers]).all()

    finite = np.sort(expected[np.isfinite(expected)]).astype(np.float64)[::7]
    middles = ((finite[1:] + finite[:-1]) / 2).astype(np.float32)
    between = np.concatenate([middles, np.nextafter(middles, np.inf, dtype=np.float32), [np.inf, 3e38, 0.0, -0.0]])
    between = between.astype(np.float32)
    found = np.zeros(between.size, np.uint16)
    run(ptx(shrink, (float32[::1], uint64)), between.size, 1, (between, np.uint64(address_in(0))), [found])
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(
            from_memory(found.view(stored.dtype), number_format), rounded(between, number_format)
        )
