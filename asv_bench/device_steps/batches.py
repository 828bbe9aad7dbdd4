"""Batches of fits on a device: fits a second with and without the transfers, beside the CPU's cores and JAX.

Every configuration has a process of its own. They compile at the same time, wait for each other, and then measure one
after another, so that nothing computes beside what is measured.
"""

from __future__ import annotations

import os
import re
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from benchmarks._package import private
from numba import cuda, float32, float64
from numpy.typing import NDArray

from device_steps.models import MODELS, Model, chain
from device_steps.timing import is_simulated, optional, seconds_between_events

Write = Callable[[dict[str, Any]], None]

_AUTO = {"maxiter": 3 if is_simulated() else 2000}
_TEXTBOOK = {"learning_rate": 0.01, "maxiter": 3 if is_simulated() else 300, "gtol": 0.0}


class Configuration(NamedTuple):
    """A model, or a number of variables that the threads of a block share, and how it is minimized."""

    model: str
    method: str
    dtype: str
    counts: tuple[int, ...]
    options: dict[str, Any] = _AUTO


_COUNTS = (10**4, 10**5, 10**6)
CONFIGURATIONS = {
    re.sub(r"\W+", "-", f"{model} {method} {dtype}"): Configuration(model, method, dtype, _COUNTS)
    for dtype, models in (("float32", tuple(MODELS)), ("float64", ("decay, n = 3", "Gaussian, n = 6")))
    for model in models
    for method in ("rmsprop", "rmsprop-lbfgs")
}
CONFIGURATIONS["decay-textbook"] = Configuration("decay, n = 2", "rmsprop", "float32", _COUNTS, _TEXTBOOK)
CONFIGURATIONS["decay-ten-million"] = Configuration("decay, n = 2", "rmsprop-lbfgs", "float32", (10**7,))
CONFIGURATIONS["jax"] = Configuration("", "", "float32", (10**5, 10**6))
for _method in ("rmsprop", "rmsprop-lbfgs"):
    CONFIGURATIONS[f"blocks-{_method}"] = Configuration("", _method, "float32", (100, 1000, 4000))


def run(name: str, write: Write) -> None:
    """Compile, wait for the other configurations, and measure."""
    one = CONFIGURATIONS[name]
    if name == "jax":
        _peer(one, write)
    elif name.startswith("blocks"):
        _blocks(one, write)
    else:
        _fits(MODELS[one.model], one, write)


def _wait_for_turn() -> None:
    """Say that everything is compiled, and wait until the other processes have measured."""
    turn = os.environ.get("DEVICE_REPORT_TURN")
    if turn is None:
        return
    Path(turn).with_suffix(".ready").touch()
    while not Path(turn).exists() and not _is_late():
        time.sleep(0.05)


def _is_late() -> bool:
    return time.time() > float(os.environ.get("DEVICE_REPORT_DEADLINE", "inf"))


# -- what is launched -------------------------------------------------------------------------------------------------


class _CompiledError(Exception):
    """Nothing was launched."""


class Launches:
    """Stands in for the launch of kernels of batches: compiles without launching, or times the launches by events."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._launch = private("launch_batch")
        self._module: Any = sys.modules[self._launch.__module__]
        self._module._launch = self._timed

    def compile(self, call: Callable[[], object]) -> None:
        """Compile what a call would launch."""
        if is_simulated():
            return
        self._module._launch = self._compiled
        try:
            call()
        except _CompiledError:
            pass
        finally:
            self._module._launch = self._timed

    @staticmethod
    def _compiled(kernel: Any, grid: Any, arguments: Any) -> None:  # noqa: ARG004
        kernel.compile(tuple(map(kernel.typeof_pyval, arguments)))
        raise _CompiledError

    def _timed(self, kernel: Any, grid: Any, arguments: Any) -> None:
        self.seconds += seconds_between_events(lambda: self._launch(kernel, grid, arguments), 1)


# -- fits -------------------------------------------------------------------------------------------------------------


def _fits(model: Model, one: Configuration, write: Write) -> None:
    from rmsprop_nb import minimize_batch

    def minimized(problems: Any, device: str) -> Any:
        starts, points, data, _ = problems
        return minimize_batch(
            model.fun,
            starts,
            (points,),
            batch_args=(data,),
            jac="inplace",
            method=one.method,
            device=device,
            options=one.options,
        )

    few, began = model.problems(8, one.dtype), time.perf_counter()
    launches = Launches()
    launches.compile(lambda: minimized(few, "cuda"))
    minimized(few, "cpu")
    evaluations = Evaluations(model, one.dtype)
    evaluations.compile()
    write({"compiled, s": time.perf_counter() - began})
    _wait_for_turn()
    minimized(few, "cuda")
    for count in (4,) if is_simulated() else one.counts:
        if _is_late():
            return
        problems = model.problems(count, one.dtype)
        row = _measured(lambda: minimized(problems, "cuda"), launches, 2 if count >= 10**6 else 3)  # noqa: B023
        row |= evaluations.floor(problems, row.pop("calls"), row["kernel, s"])
        right = np.abs(row.pop("x") / problems[3] - 1.0).max(1) < 0.5
        write({**one._asdict(), "count": count, **row, "near the truth": float(right.mean())})
    if one.counts[0] < 10**7 and not _is_late():
        count = 4 if is_simulated() else 10**5 if model.truth.size <= 3 else 10**4
        problems = model.problems(count, one.dtype)
        began = time.perf_counter()
        found = minimized(problems, "cpu")
        what = {"count": count, "device": f"cpu, {os.cpu_count()} cores"}
        rate = count / (time.perf_counter() - began)
        accuracy = {"success": float(found.success.mean()), "evaluations": float(found.njev.mean())}
        write({**one._asdict(), **what, "fits/s": rate, **accuracy})


def _measured(minimized: Callable[[], Any], launches: Launches, rounds: int) -> dict[str, Any]:
    walls, kernels = [], []
    for _ in range(rounds):
        launches.seconds = 0.0
        began = time.perf_counter()
        found = minimized()
        walls.append(time.perf_counter() - began)
        kernels.append(launches.seconds)
    wall, kernel, count = min(walls), statistics.median(kernels), len(found.fun)
    return {
        "whole call, s": wall,
        "kernel, s": kernel,
        "fits/s": count / wall,
        "fits/s, kernel": count / max(kernel, 1e-9),
        "success": float(found.success.mean()),
        "evaluations": float(found.njev.mean()),
        "most evaluations": int(found.njev.max()),
        "calls": found.njev,
        "x": found.x,
    }


def _wall(call: Callable[[], object], rounds: int) -> float:
    seconds = []
    for _ in range(rounds):
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


class Evaluations:
    """A kernel that evaluates as often as the fits did, and does nothing else: the floor of a batch."""

    def __init__(self, model: Model, dtype: str) -> None:
        self.model, self.dtype = model, np.dtype(dtype)
        fun = model.fun if is_simulated() else cuda.jit(device=True)(model.fun.py_func)
        n, real = model.truth.size, float64 if dtype == "float64" else float32
        tiny = self.dtype.type(1e-30)

        def evaluate(starts, points, data, calls, found):
            x, g = cuda.local.array(n, real), cuda.local.array(n, real)
            b = cuda.grid(1)
            if b < starts.shape[1]:
                for i in range(n):
                    x[i] = starts[i, b]
                f = x[0] - x[0]
                for _ in range(calls[b]):
                    f += fun(x, g, points, data[:, b])
                    x[0] += g[0] * tiny
                found[b] = f

        self.kernel = cuda.jit(evaluate)

    def _arguments(self, problems: Any, calls: NDArray[Any]) -> Any:
        starts, points, data, _ = problems
        arrays = (np.ascontiguousarray(starts.T), points, np.ascontiguousarray(data.T), calls.astype(np.int32))
        return (*map(cuda.to_device, arrays), cuda.device_array(len(starts), self.dtype))

    def compile(self) -> None:
        """Compile without launching."""
        if not is_simulated():
            few = self._arguments(self.model.problems(8, str(self.dtype)), np.ones(8))
            self.kernel.compile(tuple(map(self.kernel.typeof_pyval, few)))

    def floor(self, problems: Any, calls: NDArray[Any], seconds: float) -> dict[str, float]:
        """Time `calls` evaluations of each problem; return that time, and its share of `seconds`."""
        arguments, threads = self._arguments(problems, calls), 4 if is_simulated() else 128
        grid = -(-len(calls) // threads), threads
        found = [seconds_between_events(lambda: self.kernel[grid](*arguments), 1) for _ in range(3)]
        return {"evaluations alone, s": min(found), "share of the floor": min(found) / seconds}


# -- blocks that share a problem --------------------------------------------------------------------------------------


def _blocks(one: Configuration, write: Write) -> None:
    from rmsprop_nb import minimize_batch
    from rmsprop_nb.cuda import Team

    def minimized(starts: Any, device: str) -> Any:
        return minimize_batch(
            chain, starts, (Team(),), jac="inplace", method=one.method, device=device, options=one.options
        )

    rng = np.random.default_rng(0)
    few = rng.uniform(0.5, 1.5, (2, 8)).astype(one.dtype)
    launches = Launches()
    launches.compile(lambda: minimized(few, "cuda"))
    minimized(few, "cpu")
    _wait_for_turn()
    minimized(few, "cuda")
    for n in (4,) if is_simulated() else one.counts:
        if _is_late():
            return
        starts = rng.uniform(0.5, 1.5, (2 if is_simulated() else 1000, n)).astype(one.dtype)
        row = _measured(lambda: minimized(starts, "cuda"), launches, 2)  # noqa: B023
        del row["calls"], row["x"]
        some = starts if is_simulated() else starts[:200]
        cpu = _wall(lambda: minimized(some, "cpu"), 1)  # noqa: B023
        what = {**one._asdict(), "model": f"chained Rosenbrock, blocks, n = {n}", "count": len(starts)}
        write({**what, **row, f"fits/s, {os.cpu_count()} cores": len(some) / cpu})


# -- JAX --------------------------------------------------------------------------------------------------------------


def _peer(one: Configuration, write: Write) -> None:
    """Fit with optax under vmap: 1,000 steps with a rate that decays, as nothing says when a fit is done."""
    jax, optax = optional("jax"), optional("optax")
    if jax is None or optax is None or jax.default_backend() != "gpu":
        write({"peer": "jax", "failed": "no JAX for this device"})
        _wait_for_turn()
        return
    jnp = jax.numpy

    def gaussian(p: Any, t: Any) -> Any:
        u, v = (t - p[1]) / p[3], (t - p[2]) / p[4]
        return (p[0] * jnp.exp(-(u**2)[:, None] - (v**2)[None, :]) + p[5]).ravel()

    curves = {"decay, n = 3": lambda p, t: p[0] * jnp.exp(-p[1] * t) + p[2], "Gaussian, n = 6": gaussian}
    steps = 1000
    rule = optax.rmsprop(optax.exponential_decay(0.05, steps, 2e-3), decay=0.9)
    work = []
    for name, curve in curves.items():
        points = jnp.asarray(MODELS[name].points, jnp.float32)

        def fit(start: Any, data: Any, curve: Any = curve, points: Any = points) -> Any:
            slope = jax.grad(lambda p: jnp.sum((curve(p, points) - data) ** 2))

            def step(_: Any, carried: Any) -> Any:
                p, state = carried
                change, state = rule.update(slope(p), state)
                return optax.apply_updates(p, change), state

            return jax.lax.fori_loop(0, steps, step, (start, rule.init(start)))[0]

        fitted = jax.jit(jax.vmap(fit))
        for count in one.counts:
            starts, _, data, truth = MODELS[name].problems(count, "float32")
            starts, data = jnp.asarray(starts), jnp.asarray(data)
            work.append((name, count, fitted.lower(starts, data).compile(), starts, data, truth))
    _wait_for_turn()
    for name, count, fitted, starts, data, truth in work:
        if _is_late():
            return
        found = np.asarray(fitted(starts, data))
        seconds = _wall(lambda: fitted(starts, data).block_until_ready(), 3)  # noqa: B023
        right = np.abs(found / truth - 1.0).max(1) < 0.5
        write(
            {
                "peer": "optax.rmsprop under vmap",
                "model": name,
                "count": count,
                "steps": steps,
                "fits/s, kernel": count / seconds,
                "near the truth": float(right.mean()),
            }
        )
