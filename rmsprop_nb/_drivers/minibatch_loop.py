"""The loop over mini-batches, and passes over the data that only evaluate.

Both are compiled around a compiled objective and run in Python around a Python one. The results are the same, because
the order of rows, the steps and the sums are.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rmsprop_nb._core.settings import MinibatchSettings
from rmsprop_nb._core.status import Status
from rmsprop_nb._drivers.loop import LARGEST_CHUNK, Advance, next_budget, next_recorded, record_argument
from rmsprop_nb._drivers.row_order import Feed, Rows, load_batch
from rmsprop_nb._kernels.vectors import copy
from rmsprop_nb._methods.run_state import RunState
from rmsprop_nb._numba.calls import call_objective
from rmsprop_nb._numba.decorators import kernel_jit
from rmsprop_nb._objectives.compiled import compile_objective
from rmsprop_nb._objectives.interpreted import PythonObjective
from rmsprop_nb._objectives.problem import Problem

_RUNNING = int(Status.RUNNING)


class MinibatchAlgorithm(NamedTuple):
    """The function that takes in the gradient of a batch, and a name under which the loop around it is kept on disk."""

    name: tuple[Any, ...]
    tell: Any


class Target(NamedTuple):
    """An objective and the rows it is evaluated on.

    With a `feed` the objective is a CompiledObjective; without, it is a PythonObjective and `args` follow those of the
    batch.
    """

    rows: Rows
    args: tuple[Any, ...]
    objective: Any
    feed: Feed | None = None

    def load(self, seed: Any, epoch: int, batch: int) -> int:
        """Pass a batch to a Python objective, and return its number of rows."""
        rows, count = self.rows.batch(seed, epoch, batch)
        self.objective.args = (*rows, *self.args)
        return count

    def mean(self, x: NDArray[Any], with_gradient: bool) -> tuple[float, NDArray[Any]]:
        """Return the mean of f over all rows, and of the gradient if asked for; each batch is weighted by its rows.

        For an objective that is a mean over its rows this is the objective on all the data at once, without holding
        them in memory.
        """
        return _mean_over_rows(self, x, with_gradient)


def make_target(problem: Problem, rows: Rows, dtype: Any) -> Target:
    """Bind the objective, whose args follow those of the batch, to the data; compiled if that is possible."""
    if all(isinstance(a, np.ndarray) for a in rows.data):
        compiled = compile_objective(dataclasses.replace(problem, args=(*rows.buffers(), *problem.args)), dtype)
        if compiled is not None:
            return Target(rows, problem.args, compiled, rows.feed(compiled))
    return Target(rows, problem.args, PythonObjective(problem, dtype))


def make_advance(algorithm: MinibatchAlgorithm, state: RunState, target: Any) -> Advance:
    """Make the function that runs some batches; see `rmsprop_nb._drivers.loop.run_chunks`.

    The target is a `Target`, or anything with the same `feed`, `objective` and `load`.
    """
    return _interpreted(algorithm, state, target) if target.feed is None else _compiled(algorithm, state, target)


def _compiled(algorithm: MinibatchAlgorithm, state: RunState, target: Target) -> Advance:
    run = _make_compiled_loop(algorithm)
    arrays, record, objective, feed = state.arrays, record_argument(state), target.objective, target.feed

    def advance(settings: MinibatchSettings, budget: int, pause: bool, trace: NDArray[np.float64], stride: int) -> int:
        return int(run(objective.address, objective.data, arrays, record, settings, feed, budget, pause, trace, stride))

    return advance


@functools.cache
def _make_compiled_loop(algorithm: MinibatchAlgorithm) -> Any:
    tell = algorithm.tell

    @kernel_jit("minibatch loop", *algorithm.name)
    def run(address, data, arrays, record, settings, feed, budget, pause, trace, stride):
        p = record[0]
        p.first_step = p.step
        recorded = 0
        due = next_recorded(p.nfev, stride)
        for _ in range(budget):
            count = load_batch(feed, p.seed, p.nit, p.batch)
            copy(arrays.x, arrays.x_eval)
            f = call_objective(address, arrays.x_eval, arrays.g_eval, data)
            nit = p.nit
            tell(arrays, record, f, count, settings)
            if stride > 0 and p.nfev >= due:
                due += stride
                trace[recorded, 0] = nit
                trace[recorded, 1] = p.nfev
                trace[recorded, 2] = p.f_batch
                trace[recorded, 3] = p.gnorm
                trace[recorded, 4] = p.rate
                recorded += 1
            if p.status != _RUNNING or (pause and p.nit != nit):
                break
        return recorded

    return run


def _interpreted(algorithm: MinibatchAlgorithm, state: RunState, target: Any) -> Advance:
    tell, objective = algorithm.tell, target.objective
    arrays, record = state.arrays, record_argument(state)
    p = state.record[0]

    def advance(settings: MinibatchSettings, budget: int, pause: bool, trace: NDArray[np.float64], stride: int) -> int:
        recorded = 0
        p["first_step"] = p["step"]
        for _ in range(budget):
            nit = int(p["nit"])
            count = target.load(p["seed"], nit, int(p["batch"]))
            arrays.x_eval[:] = arrays.x
            f = objective(arrays.x_eval, arrays.g_eval)
            tell(arrays, record, f, count, settings)
            if stride and p["nfev"] % stride == 0:
                trace[recorded] = nit, p["nfev"], p["f_batch"], p["gnorm"], p["rate"]
                recorded += 1
            if p["status"] != _RUNNING or (pause and p["nit"] != nit):
                break
        return recorded

    return advance


# -- passes over the data ---------------------------------------------------------------------------------------------


class _Sums(NamedTuple):
    """A point, and the sums over rows there: of f (one number) and, unless `g` is of size 0, of the gradient."""

    x: NDArray[Any]
    x_eval: NDArray[Any]
    g_eval: NDArray[Any]
    f: NDArray[np.float64]
    g: NDArray[np.float64]


def _mean_over_rows(target: Target, x: NDArray[Any], with_gradient: bool) -> tuple[float, NDArray[Any]]:
    sums = _Sums(x, np.empty_like(x), np.empty_like(x), np.zeros(1), np.zeros(x.size if with_gradient else 0))
    add = _add_interpreted if target.feed is None else _add_compiled
    begin, budget = 0, 1
    while begin < target.rows.batches:
        start = time.perf_counter()
        end = min(begin + budget, target.rows.batches)
        add(target, sums, begin, end)
        budget = next_budget(budget, time.perf_counter() - start, LARGEST_CHUNK)
        begin = end
    n_rows = target.rows.n_rows
    with np.errstate(over="ignore", under="ignore"):
        return float(sums.f[0]) / n_rows, (sums.g / n_rows).astype(x.dtype)


def _add_compiled(target: Target, sums: _Sums, begin: int, end: int) -> None:
    assert target.feed is not None
    feed = target.feed._replace(shuffle=False)
    with target.objective.in_turn():
        _add_batches(target.objective.address, target.objective.data, feed, sums, begin, end)


@kernel_jit("add batches")
def _add_batches(address, data, feed, sums, begin, end):
    for batch in range(begin, end):
        count = load_batch(feed, np.uint64(0), 0, batch)
        copy(sums.x, sums.x_eval)
        sums.f[0] += count * call_objective(address, sums.x_eval, sums.g_eval, data)
        for i in range(sums.g.size):
            sums.g[i] += count * np.float64(sums.g_eval[i])


def _add_interpreted(target: Target, sums: _Sums, begin: int, end: int) -> None:
    for number in range(begin, end):
        batch, count = target.rows.slice(number)
        target.objective.args = (*batch, *target.args)
        sums.x_eval[:] = sums.x
        sums.f[0] += count * target.objective(sums.x_eval, sums.g_eval)
        if sums.g.size:
            sums.g[:] += count * sums.g_eval.astype(np.float64)
