"""Threads that compile and run at the same time."""

from __future__ import annotations

import threading

import numpy as np
from marks import needs_jit
from numba import njit
from objectives import distance, picky

from rmsprop_nb import minimize

pytestmark = needs_jit


def in_threads(work, count):
    outcomes = [None] * count

    def store(k):
        outcomes[k] = work(k)

    threads = [threading.Thread(target=store, args=(k,)) for k in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


def test_threads_may_compile_the_same_objective_at_the_same_time():
    @njit
    def fresh(x, grad, target):
        return distance(x, grad, target)

    def work(k):
        return minimize(fresh, np.zeros(3), (np.full(3, float(k)),), jac="inplace")

    for k, result in enumerate(in_threads(work, 8)):
        assert result.success
        np.testing.assert_allclose(result.x, k, atol=1e-5)


def test_exception_in_one_thread_is_no_business_of_the_others():
    def work(k):
        outcomes = set()
        for _ in range(50):
            try:
                outcomes.add(minimize(picky, [3.0, float(k + 1)], (k % 3,), jac="inplace").success)
            except ValueError as error:
                outcomes.add(error.args)
        return outcomes

    expected = [{True}, {("on purpose",)}, {("on purpose", 2)}]
    assert in_threads(work, 9) == expected * 3
