"""Batches in other processes: the same bits from every engine, and nothing lost when one fails."""

from __future__ import annotations

import importlib.util
import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from objectives import distance
from processes import run_python
from sendable import bowl, sometimes_dies, sometimes_raises

from rmsprop_nb import IncompleteBatchError, Status, minimize_batch, multistart

pytestmark = pytest.mark.thorough

STARTS = np.random.default_rng(0).normal(size=(40, 3))
TARGETS = np.random.default_rng(1).normal(size=(40, 3))


def same(a, b):
    for name in ("x", "fun", "jac", "nit", "nfev", "njev", "status"):
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)
    assert list(a.message) == list(b.message)
    assert a.best == b.best


def new_processes(count):
    return ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn"))


def test_python_objective_has_the_same_bits_everywhere():
    run = {"jac": True, "batch_args": (TARGETS,), "options": {"maxiter": 30}}
    alone = minimize_batch(bowl, STARTS, **run)
    same(minimize_batch(bowl, STARTS, workers=2, **run), alone)
    with new_processes(2) as pool, ThreadPoolExecutor(2) as threads:
        for engine in (map, threads.map, pool.map):
            same(minimize_batch(bowl, STARTS, workers=engine, **run), alone)


def test_compiled_objective_has_the_same_bits_everywhere():
    run = {"jac": "inplace", "batch_args": (TARGETS,)}
    alone = minimize_batch(distance, STARTS, **run)
    with new_processes(1) as pool:
        for engine in (map, pool.map):
            same(minimize_batch(distance, STARTS, workers=engine, **run), alone)


def test_more_problems_than_parts():
    starts = np.random.default_rng(0).normal(size=(1000, 2))
    run = {"jac": "inplace", "batch_args": (np.arange(2000.0).reshape(1000, 2),)}
    same(minimize_batch(distance, starts, workers=map, **run), minimize_batch(distance, starts, **run))


def test_multistart_takes_a_map():
    def found(workers):
        return multistart(lambda x: bowl(x, 0.3), [(-1, 1)] * 2, 8, jac=True, rng=0, workers=workers)

    np.testing.assert_array_equal(found(map).x, found(1).x)
    np.testing.assert_array_equal(found(map).batch.x, found(1).batch.x)


def test_exceptions_come_back_from_other_processes():
    result = minimize_batch(sometimes_raises, np.zeros((6, 1)), batch_args=(np.arange(6.0),), jac=True, workers=2)
    assert result.status.tolist() == [0, 0, Status.EXCEPTION, Status.EXCEPTION, 0, 0]
    assert repr(result.exceptions[2]) == "ValueError('on purpose')"
    assert str(result.exceptions[3]) == "OddError: odd"


def test_dead_process_is_told_and_what_had_ended_is_kept():
    targets = np.arange(100.0)
    with pytest.raises(IncompleteBatchError, match=r"^\d+ of 100 problems have no result") as caught:
        minimize_batch(sometimes_dies, np.zeros((100, 1)), batch_args=(targets,), jac=True, workers=2)
    begun = caught.value.result
    missing = begun.status == Status.INTERRUPTED
    assert missing[77]
    assert not missing.all()
    assert np.isnan(begun.x[missing]).all()
    assert "terminated abruptly" in str(caught.value.__cause__)
    whole = minimize_batch(bowl, np.zeros((100, 1)), batch_args=(targets,), jac=True)
    same(minimize_batch(bowl, np.zeros((100, 1)), batch_args=(targets,), jac=True, state=begun), whole)


def failing(function, jobs):
    for k, job in enumerate(jobs):
        if k == 3:
            raise ConnectionError("gone")
        yield function(job)


def short(function, jobs):
    return [function(job) for job, _ in zip(jobs, range(3), strict=False)]


@pytest.mark.parametrize("engine", [failing, short])
def test_engine_that_fails_loses_nothing(engine, tmp_path):
    run = {"jac": True, "batch_args": (np.arange(10.0),)}
    with pytest.raises(IncompleteBatchError, match=r"^7 of 10 problems have no result.*: 3-9\.") as caught:
        minimize_batch(bowl, np.zeros((10, 1)), workers=engine, checkpoint=tmp_path / "a", **run)
    resumed = minimize_batch(bowl, np.zeros((10, 1)), workers=map, state=caught.value.result, **run)
    same(resumed, minimize_batch(bowl, np.zeros((10, 1)), **run))
    again = pickle.loads(pickle.dumps(caught.value))
    np.testing.assert_array_equal(again.result.x, caught.value.result.x)


def test_engine_that_gives_something_else_is_refused():
    with pytest.raises(IncompleteBatchError) as caught:
        minimize_batch(bowl, np.zeros((2, 1)), batch_args=(np.zeros(2),), jac=True, workers=lambda f, jobs: [3, 4])
    assert str(caught.value.__cause__) == "workers must return what the function returns, as map does, got int."


def test_ctrl_c_returns_what_had_ended():
    def interrupted(function, jobs):
        yield function(next(iter(jobs)))
        raise KeyboardInterrupt

    result = minimize_batch(bowl, np.zeros((5, 1)), batch_args=(np.zeros(5),), jac=True, workers=interrupted)
    assert result.status.tolist() == [0, 98, 98, 98, 98]


def test_what_cannot_be_sent_is_said_first():
    with pytest.raises(TypeError, match=r"^fun must be a function at the top of a module.*joblib"):
        minimize_batch(lambda x: bowl(x, 0.0), np.zeros((2, 1)), jac=True, workers=2)
    with pytest.raises(TypeError, match=r"^jac must be a function at the top of a module"):
        minimize_batch(bowl, np.zeros((2, 1)), jac=lambda x: x, workers=2)


@pytest.mark.house
@pytest.mark.parametrize("engine", ["processes", "joblib", "dask"])
def test_example_runs(engine):
    if engine != "processes" and importlib.util.find_spec(engine) is None:
        pytest.skip(f"{engine} is not installed")
    example = Path(__file__).parents[2] / "examples" / "many_problems.py"
    done = run_python(example, engine)
    assert done.returncode == 0, done.stderr
    assert "one after the other: True" in done.stdout
