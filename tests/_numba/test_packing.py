"""Packed arguments: their types, and how long they live."""

from __future__ import annotations

import contextlib
import gc
import os
import weakref
from pathlib import Path

import numpy as np
import pytest
from marks import needs_jit
from numba import njit, typeof
from numba.core.runtime import _nrt_python, rtsys
from objectives import distance

from rmsprop_nb import minimize
from rmsprop_nb._numba.packing import pack

pytestmark = needs_jit


def test_types_that_are_kept_are_those_that_numba_finds():
    big = np.zeros((4, 6))
    frozen = np.zeros(3)
    frozen.flags.writeable = False
    odd = np.zeros(25, np.uint8)[1:].view(np.float64)
    arrays = [
        big,
        big.T,
        big[:, ::2],
        big[0],
        big[:1],
        big[:0],
        frozen,
        odd,
        big.astype(np.float32),
        big > 0,
        big[..., None],
    ]
    values = [
        1.0,
        2,
        2**40,
        2**63,
        True,
        None,
        1j,
        np.float32(1),
        np.float64(1),
        np.int8(1),
        np.int64(1),
        (1, distance),
    ]
    values += [(), (1.0,), (1.0, (big, 1)), (big, (frozen, (None,)))]
    for _ in range(2):  # found, and found again
        for value in (*arrays, *values):
            assert pack((value,))[2] == typeof((value,))
            assert pack((value, 0.5, big))[2] == typeof((value, 0.5, big))


def resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@contextlib.contextmanager
def allocation_stats():
    """Numba's counters, which are off by default."""
    enabled = _nrt_python.memsys_stats_enabled()
    _nrt_python.memsys_enable_stats()
    yield rtsys.get_allocation_stats
    if not enabled:
        _nrt_python.memsys_disable_stats()


@njit
def allocating(x, rows, pair):
    return np.sum((x - rows.sum(axis=0)) ** 2) + pair[1].size


@njit
def allocating_grad(x, rows, pair):
    if x[0] > 1e3:
        raise ValueError("far away")
    return 2.0 * (x - rows.sum(axis=0))


@pytest.mark.usefixtures("others_stay")
def test_repeated_calls_leave_nothing_behind():
    rng = np.random.default_rng(0)

    def once(start):
        args = (rng.normal(size=(50, 100)), (1, np.zeros(1000)))
        return minimize(allocating, np.full(100, start), args, jac=allocating_grad, options={"maxfev": 3})

    def fails():
        with pytest.raises(ValueError, match="far away"):
            once(1e4)

    def repeat(count):
        for k in range(count):
            fails() if k % 10 == 0 else once(1.0)
        gc.collect()

    repeat(100)
    with allocation_stats() as stats:
        before = stats()
        repeat(200)
        after = stats()
    assert after.mi_alloc > before.mi_alloc  # the objective does allocate
    assert after.mi_alloc - before.mi_alloc == after.mi_free - before.mi_free
    assert after.alloc - before.alloc == after.free - before.free
    if not Path("/proc/self/statm").exists():
        return
    resident = resident_bytes()
    repeat(1_000)  # keeping the arrays would take 50 MB, keeping the vectors of each run 10 MB
    assert resident_bytes() - resident < 5e6


class Weak(np.ndarray):
    """An array that can be watched."""


@pytest.mark.usefixtures("others_stay")
def test_args_live_as_long_as_the_objective_and_no_longer():
    arrays = [np.zeros(1000), np.arange(1000.0)]
    # the memory belongs to the bases: what must be kept is whatever keeps these alive
    watchers = [weakref.ref(a) for a in arrays]
    words, references, _ = pack(((1, arrays[0][::2]), arrays[1]))
    del arrays
    gc.collect()
    assert [w() is not None for w in watchers] == [True, True]
    del words, references
    gc.collect()
    assert [w() is not None for w in watchers] == [False, False]


@pytest.mark.usefixtures("others_stay")
def test_temporary_args_survive_the_run():
    n = 1000
    junk = []

    def churn(xk):
        gc.collect()
        junk.append(np.full(2 * n, np.nan))  # would be put where the argument was

    options = {"learning_rate": 0.1, "gtol": 0.0, "maxiter": 5}
    result = minimize(distance, np.zeros(n), np.full(2 * n, 3.0)[::2], jac="inplace", callback=churn, options=options)
    assert result.nit == len(junk) == 5
    np.testing.assert_array_equal(result.jac, result.x - 3.0)
