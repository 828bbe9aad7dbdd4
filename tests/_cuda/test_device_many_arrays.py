"""Updates and reductions of many arrays in one launch, run by an interpreter."""

from __future__ import annotations

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
    hyper_of,
    many_signature,
    to_memory,
)
from numba import float32, float64, int32, int64, uint64
from offline_compiler import ptx
from ptx_interpreter import run
from ptx_memory import address_in

from rmsprop_nb._core.settings import Hyper, Variant
from rmsprop_nb._cuda.memory import ITEMSIZE, real_of
from rmsprop_nb._cuda.reduce import make_add, make_largest, make_sum_of_squares
from rmsprop_nb._cuda.update import ADDRESSES, BLOCK, ArrayRow, Formats, make_table_update

pytestmark = pytest.mark.thorough

LENGTH = 512  # of a chunk


def chunks_of(sizes):
    return np.array([(row, part) for row, n in enumerate(sizes) for part in range(-(-n // LENGTH))], np.int32)


def table_of(arrays, first=0):
    """A table of addresses, and what is reached by it; the size of an array comes last."""
    rows = [ArrayRow(*a.addresses(5 * k + first), size=a.n) for k, a in enumerate(arrays)]
    return np.array(rows, np.uint64), [d for a in arrays for d in a.device]


@pytest.mark.parametrize("formats", [*((f, f) for f in ITEMSIZE), ("bfloat16", "float32")], ids="-".join)
@pytest.mark.parametrize("name", ["plain", "everything"])
def test_arrays_of_all_sizes_in_one_launch_have_the_bits_of_the_cpu(name, formats):
    variant, real = VARIANTS[name], real_of(formats[0])
    arrays = [Arrays(variant, n, formats, begin, seed=1) for n in SIZES for begin in (0, 1, 8)]
    rates = [0.01 * (1 + k) for k in range(len(arrays))]
    hypers = [Hyper.of(real, 0.9 - 0.01 * k, 1e-3 * k, 0.9, 0.01) for k in range(len(arrays))]
    numbers = np.array([(rate, CORRECTION, *hyper) for rate, hyper in zip(rates, hypers, strict=True)], real)
    expected = [a.expected(variant, h, rate=r) for a, h, r in zip(arrays, hypers, rates, strict=True)]
    addresses, memory = table_of(arrays)
    chunks = chunks_of([a.n for a in arrays])
    text = ptx(make_table_update(variant, Formats(*formats), False, True), many_signature(REALS[str(real)]))
    begun = 7  # a launch takes some of the chunks
    for first, count in ((0, begun), (begun, len(chunks) - begun)):
        places = chunks, np.uint64(first), np.uint64(LENGTH), addresses, numbers
        run(text, count, 64, (*places, real.type(1.0), real.type(np.inf)), memory)
    for a, made in zip(arrays, expected, strict=True):
        compare(a.found(), made, f"n={a.n}, begin={a.begin}")


def test_clipped_gradients_of_many_arrays():
    arrays = [Arrays(Variant(), n, ("float16", "float16")) for n in (5, 1025)]
    hyper = hyper_of("float32")
    expected = [a.expected(Variant(), hyper, scale=-0.5, limit=0.7) for a in arrays]
    addresses, memory = table_of(arrays)
    numbers = np.array([(RATE, CORRECTION, *hyper)] * 2, np.float32)
    chunks = chunks_of([5, 1025])
    text = ptx(make_table_update(Variant(), Formats("float16", "float16"), True, True), many_signature(float32))
    places = chunks, np.uint64(0), np.uint64(LENGTH), addresses, numbers
    run(text, len(chunks), 64, (*places, np.float32(-0.5), np.float32(0.7)), memory)
    for a, made in zip(arrays, expected, strict=True):
        compare(a.found(), made, f"n={a.n}")


@pytest.mark.parametrize("number_format", ITEMSIZE)
def test_reductions(number_format):
    real = real_of(number_format)
    bits = np.dtype(f"i{real.itemsize}")
    tables = int32[:, ::1], uint64, uint64[:, ::1]
    largest = ptx(make_largest(number_format), (*tables, (int64 if bits.itemsize == 8 else int32)[::1]))
    squares = ptx(make_sum_of_squares(number_format), (*tables, float64[::1]))
    arrays = [Arrays(Variant(), n, (number_format,) * 2, n % 2) for n in SIZES]
    addresses, memory = table_of(arrays)
    chunks = chunks_of(SIZES)
    given = chunks, np.uint64(LENGTH), addresses
    parts = [arrays[row].host[1][part * LENGTH : (part + 1) * LENGTH] for row, part in chunks]
    found, sums = np.full(len(chunks), -1, bits), np.full(len(chunks), np.nan)
    run(largest, len(chunks), BLOCK, (*given, found), memory)
    np.testing.assert_array_equal(found.view(real), [np.abs(part).max() for part in parts])
    run(squares, len(chunks), BLOCK, (*given, sums), memory)
    np.testing.assert_allclose(sums, [np.sum(part.astype(np.float64) ** 2) for part in parts], rtol=1e-14)
    memory[5 * 7 + 1][1000:1002] = to_memory(np.array([np.nan, np.inf]), number_format)  # in the last array
    run(largest, len(chunks), BLOCK, (*given, found), memory)
    assert np.isnan(found.view(real)).tolist() == [part[1] == 1 and part[0] == 7 for part in chunks.tolist()]


@pytest.mark.parametrize("number_format", ITEMSIZE)
def test_gradients_are_added_up(number_format):
    real = real_of(number_format)
    add = ptx(make_add(number_format), (int32[:, ::1], uint64, uint64[:, ::1]))
    arrays = [Arrays(Variant(), n, (number_format,) * 2, n % 2) for n in SIZES]
    totals = [np.ones(n, real) for n in SIZES]
    addresses, memory = table_of(arrays)
    addresses[:, ADDRESSES.gradient_sum] = [address_in(len(memory) + k) for k in range(len(totals))]
    chunks = chunks_of(SIZES)
    run(add, len(chunks), BLOCK, (chunks, np.uint64(LENGTH), addresses), [*memory, *totals])
    for a, total in zip(arrays, totals, strict=True):
        np.testing.assert_array_equal(total, np.ones(1, real) + a.host[1])
