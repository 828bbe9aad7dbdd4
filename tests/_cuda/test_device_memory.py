"""The compiled kernels around a batch without a device: arrays turned, and what is filled in before a launch."""

from __future__ import annotations

import numpy as np
import pytest
from numba import typeof
from offline_compiler import ARCHITECTURES, machine_code, ptx
from ptx_interpreter import run

from rmsprop_nb._cuda.batch_memory import _BLOCK, TILE, _blocks_of, fill_results, fill_sizes, make_turn, word_of
from rmsprop_nb._drivers.batch_loop import BatchResults

pytestmark = pytest.mark.thorough

SHAPES = [(1, 40), (70, 3), (33, 64), (64, 20)]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.complex128], ids=str)
@pytest.mark.parametrize(("count", "length"), SHAPES, ids=str)
def test_rows_become_columns_and_columns_rows(count, length, dtype):
    rows = np.arange(1, count * length + 1).reshape(count, length).astype(dtype)
    word = word_of(rows.dtype)
    assert word.itemsize == rows.itemsize
    source = rows.reshape(-1).view(word)
    columns, back = np.zeros((length, count + 5), word), np.zeros((count, length), word)
    given = source, 0, length, columns.reshape(-1), 3, count + 5, count, length
    text = ptx(make_turn(word), tuple(map(typeof, given)))
    run(text, _blocks_of(count, length), _BLOCK, given)
    np.testing.assert_array_equal(columns[:, 3:-2].view(dtype), rows.T)
    assert not columns[:, :3].any()
    assert not columns[:, -2:].any()
    given = columns.reshape(-1), 3, count + 5, back.reshape(-1), 0, length, length, count
    run(text, _blocks_of(length, count), _BLOCK, given)
    np.testing.assert_array_equal(back.view(dtype), rows)


def test_turning_touches_no_more_sectors_than_it_needs():
    rows = np.arange(64.0 * 64).reshape(64, 64)
    given = rows.reshape(-1), 0, 64, np.zeros(64 * 64), 0, 64, 64, 64
    counted = run(ptx(make_turn(rows.dtype), tuple(map(typeof, given))), _blocks_of(64, 64), _BLOCK, given)
    assert [spread for spread in counted.spread if spread] == [1.0, 1.0]


@pytest.mark.parametrize("capability", ARCHITECTURES, ids=str)
def test_machine_code_of_turning(capability):
    """Of the shortest and the longest words by turns."""
    word = np.dtype((np.uint8, np.uint64)[ARCHITECTURES.index(capability) % 2])
    flat = np.zeros(1, word)
    code = machine_code(make_turn(word), tuple(map(typeof, (flat, 0, 1, flat, 0, 1, 1, 1))), capability)
    assert code.spilled == code.stack == 0
    assert TILE * (TILE + 1) * 16 < 48 * 1024  # of shared memory, for the largest numbers


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=str)
def test_sizes_and_results_are_filled_in(dtype):
    starts = np.array([[-2.0, 0.0, 3.0], [0.5, -0.0, 1e-40]], dtype)
    shared, sizes = np.array([0.0, 0.0], dtype), np.zeros_like(starts)
    text = ptx(fill_sizes, tuple(map(typeof, (shared, starts, sizes))))
    run(text, 1, _BLOCK, (shared, starts, sizes))
    np.testing.assert_array_equal(sizes, np.array([[2.0, 1.0, 3.0], [0.5, 1.0, 1e-40]], dtype))
    shared[1] = 7.0
    run(text, 1, _BLOCK, (shared, starts, sizes))
    np.testing.assert_array_equal(sizes, np.array([[2.0, 1.0, 3.0], [7.0, 7.0, 7.0]], dtype))
    expected = [np.moveaxis(a, 0, -1).copy() for a in BatchResults.empty(starts.T.copy(), starts.shape[0])]
    results = BatchResults(*map(np.ones_like, expected))
    run(ptx(fill_results, (typeof(results),)), 1, _BLOCK, (results,))
    for name, a, b in zip(results._fields, results, expected, strict=True):
        np.testing.assert_array_equal(a, b, err_msg=name)
