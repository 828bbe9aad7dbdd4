"""The interpreter of PTX finds what it is there to find."""

from __future__ import annotations

import re

import numpy as np
import pytest
from numba import cuda, float32, types, uint64
from offline_compiler import ptx
from ptx_interpreter import run
from ptx_memory import address_in
from ptx_text import PTXError

from rmsprop_nb._core.settings import Hyper, Variant
from rmsprop_nb._cuda.update import Formats, make_update


@cuda.jit
def add(total, g):
    i = cuda.grid(1)
    if i < g.size:
        total[i] += g[i]


def test_access_out_of_bounds():
    with pytest.raises(PTXError, match="out of bounds"):
        run(ptx(add, (float32[::1],) * 2), 1, 32, (np.ones(6, np.float32), np.ones(8, np.float32)))


def updated(change=lambda text: text, n=64, given=64):
    text = ptx(make_update(Variant(), Formats("float32", "float32"), False, False), (*[uint64] * 6, *[float32] * 9))
    numbers = (*Hyper.of("float32", 0.9, 1e-8), *map(np.float32, (0.01, 1.0, 1.0, np.inf)))
    arrays = [np.ones(given, np.float32) for _ in range(3)]
    places = [*map(address_in, range(3)), 0, 0, n]
    return run(change(text), 1, 32, (*map(np.uint64, places), *numbers), arrays)


def test_access_out_of_bounds_by_address():
    updated()
    with pytest.raises(PTXError, match="out of bounds"):
        updated(given=60)


def test_misaligned_access():
    def shifted(text):
        changed = re.sub(r"(ld\.global\.v4\.f32[^\[]*\[%rd\d+)", r"\1+4", text)
        assert changed != text
        return changed

    with pytest.raises(PTXError, match="misaligned"):
        updated(shifted)


def test_races():
    @cuda.jit
    def all_write(a):
        a[0] = cuda.grid(1)

    with pytest.raises(PTXError, match="race"):
        run(ptx(all_write, (types.int64[::1],)), 1, 32, (np.zeros(1, np.int64),))


@cuda.jit
def reverse(a):
    shared = cuda.shared.array(32, float32)
    i = cuda.threadIdx.x
    shared[i] = a[cuda.grid(1)]
    cuda.syncthreads()
    a[cuda.grid(1)] = shared[31 - i]


def test_shared_memory_is_that_of_a_block():
    a = np.arange(64, dtype=np.float32)
    run(ptx(reverse, (float32[::1],)), 2, 32, (a,))
    np.testing.assert_array_equal(a, [*range(31, -1, -1), *range(63, 31, -1)])


def test_races_in_shared_memory():
    text = ptx(reverse, (float32[::1],))
    without = re.sub(r"bar\.sync\s+0;", "", text)
    assert without != text
    with pytest.raises(PTXError, match="race"):
        run(without, 2, 32, (np.zeros(64, np.float32),))


def test_barriers_wait_for_threads_that_have_not_ended():
    @cuda.jit
    def some(a):
        i = cuda.threadIdx.x
        if i >= 7:
            return
        a[i] = i
        cuda.syncthreads()
        a[i + 7] = a[6 - i]

    a = np.zeros(32, np.float32)
    run(ptx(some, (float32[::1],)), 1, 32, (a,))
    np.testing.assert_array_equal(a[:14], [*range(7), *range(6, -1, -1)])


def test_barriers_that_some_threads_do_not_come_to():
    @cuda.jit
    def some(a):
        i = cuda.threadIdx.x
        if i < 7:
            cuda.syncthreads()
            a[i] = 1.0
        else:
            a[i] = 2.0
            cuda.syncthreads()

    with pytest.raises(PTXError, match="barrier"):
        run(ptx(some, (float32[::1],)), 1, 32, (np.zeros(32, np.float32),))
