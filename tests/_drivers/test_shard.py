"""Rows as blocks, on one process; mpi_ranks.py does the same on many."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
from minibatch_runs import python_ridge

from rmsprop_nb import minimize, minimize_minibatch
from rmsprop_nb._drivers.shards import PARTS, parts_of

RNG = np.random.default_rng(0)
A = RNG.normal(size=(101, 3))
B = A @ np.array([1.0, -2.0, 3.0]) + 0.1 * RNG.normal(size=101)
DATA = (A, B)


def test_data_are_args_that_come_first():
    expected = minimize(python_ridge, np.zeros(3), (*DATA, 1e-3), jac=True)
    found = minimize(python_ridge, np.zeros(3), 1e-3, jac=True, data=DATA)
    np.testing.assert_array_equal(found.x, expected.x)
    assert found.nfev == expected.nfev


@pytest.mark.parametrize("kind", [np.asarray, np.asfortranarray, scipy.sparse.csr_array])
def test_sum_over_blocks_is_the_sum_over_rows(kind):
    expected = minimize(python_ridge, np.zeros(3), (*DATA, 1e-3), jac=True)
    found = minimize(python_ridge, np.zeros(3), 1e-3, jac=True, data=(kind(A), B), deterministic=True)
    np.testing.assert_allclose(found.x, expected.x, atol=1e-6)
    assert found.status == expected.status


@pytest.mark.parametrize("rows", [1, 2, 47, 48, 49, 101])
@pytest.mark.parametrize("shuffle", [True, False])
def test_every_row_of_a_batch_is_evaluated_once(rows, shuffle):
    seen = []

    def fun(x, row):
        seen.append(row.copy())
        return float(np.mean(row)), np.ones(1)

    run = {"jac": True, "batch_size": 20, "epochs": 2, "rng": 1, "shuffle": shuffle, "learning_rate": 0.1}
    found = minimize_minibatch(fun, [0.0], np.arange(rows), **run, deterministic=True, final_evaluation=False)
    epochs = np.concatenate(seen).reshape(2, rows)
    np.testing.assert_array_equal(np.sort(epochs), np.tile(np.arange(rows), (2, 1)))
    expected = minimize_minibatch(fun, [0.0], np.arange(rows), **run, final_evaluation=False)
    np.testing.assert_allclose(found.epoch_fun, expected.epoch_fun, rtol=1e-12)


@pytest.mark.parametrize("rows", [1, 47, 48, 101, 4800])
@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 6, 8, 12, 16, 24, 48])
def test_usual_cuts_fall_between_blocks(rows, ranks):
    if rows < ranks:
        return
    cuts = np.arange(ranks + 1) * rows // ranks
    parts = [parts_of(rank, list(np.diff(cuts)), True) for rank in range(ranks)]
    assert sum(part.end - part.begin for here in parts for part in here) == rows
    numbers = [part.number for here in parts for part in here]
    assert numbers == sorted(set(numbers))
    assert len(numbers) == min(rows, PARTS)


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (lambda: minimize(python_ridge, np.zeros(3), (*DATA, 0.0), jac=True, deterministic=True), "got no data"),
        (
            lambda: minimize(python_ridge, np.zeros(3), 0.0, jac=True, data=DATA, weight=2.0, deterministic=True),
            r"got weight=2\.0",
        ),
        (lambda: minimize(python_ridge, np.zeros(3), 0.0, jac=True, data=(A, B[:3])), "same number of rows"),
    ],
    ids=["no data", "weight", "lengths"],
)
def test_bad_arguments_are_refused(run, message):
    with pytest.raises(ValueError, match=message):
        run()


def test_a_rank_must_hold_whole_blocks():
    with pytest.raises(ValueError, match="an end of rank 1 at row 49 of all; 48 and 50 would do"):
        parts_of(0, [33, 16, 52], True)
