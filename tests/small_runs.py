"""Small runs of every kind whose results and states are saved, and how two of them are compared."""

from __future__ import annotations

import numpy as np
from minibatch_runs import ridge_inplace
from numba import njit
from scipy.optimize import OptimizeResult

from rmsprop_nb import minimize, minimize_batch, minimize_minibatch, multistart
from rmsprop_nb._methods.run_state import RunState


@njit
def bowl(x, grad):
    f = 0.0
    for i in range(x.size):
        d = x[i] - i
        grad[i] = 4.0 * d**3 + 0.1 * d
        f += d**4 + 0.05 * d * d
    return f


def batches(**kwargs):
    rng = np.random.default_rng(0)
    A = rng.normal(size=(50, 3))
    kwargs = {"epochs": 4, "batch_size": 8, "rng": 1, **kwargs}
    return minimize_minibatch(ridge_inplace, np.zeros(3), (A, A @ np.ones(3)), (0.0,), jac="inplace", **kwargs)


def single(dtype=np.float64, bounds=None, method="rmsprop", **options):
    x0 = np.full(3, 5.0, dtype)
    return minimize(bowl, x0, (), method, "inplace", bounds, options={"gtol": 0.0, "maxiter": 8, **options})


RESULTS = {
    "auto": single,
    "float32": lambda: single(np.float32),
    "bounds": lambda: single(bounds=[(0, None)] * 3),
    "lbfgs": lambda: single(method="rmsprop-lbfgs"),
    "textbook": lambda: single(learning_rate=0.1, momentum=0.9, centered=True),
    "recorded": lambda: single(history=True, return_all=True),
    "minibatch": batches,
    "minibatch_textbook": lambda: batches(learning_rate=0.1, validation=0.2, patience=2, history=True),
    "batch": lambda: minimize_batch(bowl, np.arange(6.0).reshape(2, 3), jac="inplace"),
    "multistart": lambda: multistart(lambda x: np.sum((x * x - 1.0) ** 2), [(-2, 2)] * 2, 8, rng=0),
}


def names_in(directory):
    return sorted(path.name for path in directory.iterdir())


def assert_equal(a, b):
    """Same classes, same values, same bits."""
    assert type(a) is type(b)
    if isinstance(a, OptimizeResult | dict):
        a, b = dict(a), dict(b)
        assert a.keys() == b.keys()
        for name, value in a.items():
            assert_equal(value, b[name])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for left, right in zip(a, b, strict=True):
            assert_equal(left, right)
    elif isinstance(a, np.ndarray):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert a.dtype == object or a.tobytes() == b.tobytes()
        np.testing.assert_array_equal(a, b)
    elif isinstance(a, RunState):
        assert_equal(a.arrays, b.arrays)
        assert_equal(a.record, b.record)
        assert a.kind == b.kind
    elif isinstance(a, float):
        assert np.float64(a).tobytes() == np.float64(b).tobytes()
    else:
        assert a == b
