"""Progress bars count what has been done, and do not change it."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from objectives import as_python, bowl, distance_from_mean

from rmsprop_nb import minimize, minimize_batch, minimize_minibatch

tqdm_auto = pytest.importorskip("tqdm.auto")


@pytest.fixture
def bars(monkeypatch):
    made = []

    class Bar(tqdm_auto.tqdm):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            made.append(self)

    monkeypatch.setattr(tqdm_auto, "tqdm", Bar)
    return made


def whole(bars, count):
    (bar,) = bars
    return bar.n == count and bar.disable  # closed


def options(**kwargs):
    return {"learning_rate": 0.01, "maxiter": 500, "gtol": 0.0, **kwargs}


@pytest.mark.parametrize("fun", [bowl, as_python(bowl)], ids=["compiled", "python"])
def test_minimize(bars, fun):
    plain = minimize(fun, np.ones(2), jac="inplace", options=options())
    watched = minimize(fun, np.ones(2), jac="inplace", options=options(progress=True))
    np.testing.assert_array_equal(watched.x, plain.x)
    assert whole(bars, plain.nit)
    assert bars[0].total == 500


@pytest.mark.parametrize("maxiter", [None, np.inf])
def test_unknown_total(bars, maxiter):
    minimize(bowl, np.ones(2), jac="inplace", options={"maxiter": maxiter, "progress": True})
    assert bars[0].total is None


@pytest.mark.parametrize("fun", [distance_from_mean, as_python(distance_from_mean)], ids=["compiled", "python"])
def test_minibatch(bars, fun):
    kwargs = {"jac": "inplace", "batch_size": 4, "epochs": 7, "rng": 0}
    plain = minimize_minibatch(fun, np.zeros(2), np.arange(20.0), **kwargs)
    watched = minimize_minibatch(fun, np.zeros(2), np.arange(20.0), progress=True, **kwargs)
    np.testing.assert_array_equal(watched.x, plain.x)
    assert whole(bars, 7)


@pytest.mark.parametrize(
    ("fun", "workers"), [(bowl, 1), (bowl, 2), (bowl, map), (as_python(bowl), 1), (as_python(bowl), map)]
)
def test_batch(bars, fun, workers):
    starts = np.random.default_rng(0).normal(size=(100, 2))
    plain = minimize_batch(fun, starts, jac="inplace")
    watched = minimize_batch(fun, starts, jac="inplace", workers=workers, progress=True)
    np.testing.assert_array_equal(watched.x, plain.x)
    assert whole(bars, 100)


def test_bar_is_closed_when_fun_raises(bars):
    def fun(x):
        raise RuntimeError

    with pytest.raises(RuntimeError):
        minimize(fun, np.zeros(2), options={"progress": True})
    assert whole(bars, 0)


def test_missing_tqdm_is_said_before_anything_is_computed(monkeypatch):
    def never(*args):
        raise AssertionError

    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    with pytest.raises(ImportError, match="pip install"):
        minimize(never, np.zeros(2), options={"progress": True})
    with pytest.raises(ImportError, match="pip install"):
        minimize_batch(never, np.zeros((2, 2)), progress=True)
    with pytest.raises(ImportError, match="pip install"):
        minimize_minibatch(never, np.zeros(2), np.zeros(2), progress=True)
