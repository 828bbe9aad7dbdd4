"""Compile the loops of all methods beforehand: for the image of a container, for a cluster, or before a talk."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from rmsprop_nb._api.batch import minimize_batch
from rmsprop_nb._api.curve_fit import curve_fit
from rmsprop_nb._api.minibatch import minimize_minibatch
from rmsprop_nb._api.minimize import minimize
from rmsprop_nb._api.optimizer import RMSprop
from rmsprop_nb._drivers.first_runs import compiled_at_once
from rmsprop_nb._numba.decorators import JIT_ENABLED, shared_jit

METHODS: dict[str, dict[str, Any]] = {
    "rmsprop": {"options": {"maxiter": 2}},
    "rmsprop with a learning rate": {"options": {"maxiter": 2, "learning_rate": 0.01}},
    "rmsprop-lbfgs": {"method": "rmsprop-lbfgs", "options": {"maxiter": 2}},
}


def compile_all(dtypes: tuple[Any, ...]) -> None:
    """Compile for x of these dtypes what is not on disk yet, and print what is ready and how long it took."""
    if not JIT_ENABLED:
        print("nothing is compiled where NUMBA_DISABLE_JIT is set")
        return
    with compiled_at_once():
        for name, use in _uses(dtypes):
            start = time.perf_counter()
            use()
            print(f"{name:70s}{time.perf_counter() - start:6.1f} s", flush=True)


def _uses(dtypes: tuple[Any, ...]) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yield what there is to prepare, each with a function that uses it."""
    for dtype in dtypes:
        name, x0, rows = np.dtype(dtype).name, np.ones(2, dtype), np.ones((4, 2), dtype)
        for method, given in METHODS.items():
            for kind, fun in {"Python": _bowl.py_func, "compiled": _bowl}.items():
                yield f"minimize, {method}, {kind} objective, {name}", partial(minimize, fun, x0, jac=True, **given)
            yield f"minimize_batch, {method}, {name}", partial(minimize_batch, _bowl, rows, jac=True, **given)
        by_differences: dict[str, Any] = {"jac": "2-point", "options": {"maxiter": 2}}
        yield f"minimize, differences of a compiled value, {name}", partial(minimize, _square, x0, **by_differences)
        for rate in ("auto", 0.01):
            options: dict[str, Any] = {"jac": True, "learning_rate": rate, "batch_size": 2, "epochs": 1}
            run = partial(minimize_minibatch, _distance, x0, rows, **options)
            yield f"minimize_minibatch, learning_rate={rate!r}, {name}", run
        yield f"RMSprop.step, {name}", partial(_step, x0)
    points = np.arange(9.0)
    for kind, model in {"Python": _line.py_func, "compiled": _line}.items():
        yield f"curve_fit, {kind} model", partial(curve_fit, model, points, points % 2)
    yield "curve_fit of many curves", partial(curve_fit, _line, points, np.ones((9, 9)) + np.eye(9))


def _step(x0: Any) -> None:
    rule = RMSprop()
    params = [x0.copy()]
    rule.step(params, [x0], rule.init(params))


@shared_jit
def _bowl(x):
    return (x * x).sum(), 2 * x


@shared_jit
def _square(x):
    return (x * x).sum()


@shared_jit
def _distance(x, rows):
    difference = x - rows[0]
    return (difference * difference).sum(), 2 * difference


@shared_jit
def _line(x, a, b):
    return a + b * x
