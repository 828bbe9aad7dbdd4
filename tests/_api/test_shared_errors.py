"""What all problems of a batch raise at their first evaluation is raised; what some raise stays with these."""

from __future__ import annotations

import numpy as np
import pytest
from numba import njit

from rmsprop_nb import Status, load, minimize_batch, multistart
from rmsprop_nb._drivers.batch_failures import WITNESSES


def lame(x, grad, target):
    """Raise for problems whose target is negative, saying which if it is below -1."""
    if -1.0 <= target < 0.0:
        raise ValueError("no data")
    if target < -1.0:
        raise ValueError("no data for " + str(target))
    grad[:] = 2.0 * (x - target)
    return np.sum((x - target) ** 2)


@njit
def compiled_lame(x, grad, target):
    if target < 0.0:
        raise ValueError("no data")
    grad[:] = 2.0 * (x - target)
    return np.sum((x - target) ** 2)


FUNCTIONS = [lame, compiled_lame]
ENGINES = [1, 2, map]


def engines(numbers):
    """Every engine for every function and number; for processes, which take long to start, only the last number."""
    ids = {lame: "python", compiled_lame: "compiled"}
    return [
        pytest.param(fun, workers, number, id=f"{ids[fun]}-{workers}-{number}")
        for fun in FUNCTIONS
        for workers in ENGINES
        for number in (numbers[-1:] if (fun, workers) == (lame, 2) else numbers)
    ]


@pytest.mark.parametrize(("fun", "workers", "count"), engines([1, 5, 3 * WITNESSES]))
def test_what_all_problems_raise_is_raised(fun, workers, count, tmp_path):
    path = tmp_path / "batch.npz"
    with pytest.raises(ValueError, match="no data") as caught:
        minimize_batch(
            fun, np.zeros((count, 2)), batch_args=(-np.ones(count),), jac="inplace", workers=workers, checkpoint=path
        )
    (note,) = caught.value.__notes__
    assert f" {min(count, WITNESSES)} " in note or count == 1
    assert (load(path).status == Status.INTERRUPTED).all()  # so that it can go on when the function is mended


@pytest.mark.parametrize(("fun", "workers", "good"), engines([0, 7, WITNESSES - 1]))
def test_what_all_but_one_raise_stays_with_these(fun, workers, good):
    targets = -np.ones(WITNESSES)
    targets[good] = 1.0
    found = minimize_batch(fun, np.zeros((WITNESSES, 2)), batch_args=(targets,), jac="inplace", workers=workers)
    assert np.flatnonzero(found.success).tolist() == [good]
    assert (np.delete(found.status, good) == Status.EXCEPTION).all()
    assert len(found.exceptions) == 10


def test_different_exceptions_stay_with_their_problems():
    found = minimize_batch(lame, np.zeros((4, 1)), batch_args=(-np.arange(2.0, 6.0),), jac="inplace")
    assert [str(found.exceptions[k]) for k in range(4)] == [f"no data for {-k:.1f}" for k in range(2, 6)]


@njit
def fails_later(x, grad, target):
    grad[:] = 2.0 * (x - target)
    if x[0] != 0.0:
        raise ValueError("later")
    return np.sum((x - target) ** 2)


@pytest.mark.parametrize("workers", ENGINES)
def test_what_problems_raise_later_stays_with_them(workers):
    found = minimize_batch(fails_later, np.zeros((4, 1)), batch_args=(np.ones(4),), jac="inplace", workers=workers)
    assert (found.status == Status.EXCEPTION).all()
    assert (found.nfev > 0).all()


def test_wrong_arguments_end_a_large_batch_at_once():
    calls = []

    def fun(x, missing):  # pragma: no cover
        calls.append(x)

    def counting(*args):
        calls.append(args)
        return fun(*args)

    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        minimize_batch(counting, np.zeros((100_000, 2)))
    assert len(calls) == WITNESSES


@pytest.mark.parametrize("workers", ENGINES)
def test_what_every_start_raises_is_raised(workers):
    with pytest.raises(ValueError, match="no data"):
        multistart(compiled_lame, [(-1, 1)] * 2, 8, (-1.0,), jac="inplace", workers=workers)


def test_nan_in_the_data_of_a_problem_is_its_own_trouble():
    targets = np.arange(12.0).reshape(6, 2)
    targets[3, 1] = np.nan
    for fun in (njit(distance), distance):
        found = minimize_batch(fun, np.zeros(2), batch_args=(targets,), jac="inplace")
        assert found.status[3] == Status.NONFINITE
        assert np.delete(found.success, 3).all()


def distance(x, grad, target):
    grad[:] = 2.0 * (x - target)
    return np.sum((x - target) ** 2)
