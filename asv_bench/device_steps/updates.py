"""The update of parameters on a device, beside a copy of as many bytes and beside what other libraries offer.

Vectors are taken in turn from as many sets as exceed the device's cache, so that each update reads memory.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from device_steps.timing import (
    Timer,
    is_simulated,
    medians,
    optional,
    seconds_between_events,
    seconds_until,
)

RATE, BETA, EPS = 1e-3, 0.99, 1e-8
BEYOND_CACHE = 512 * 2**20
"""Bytes of all sets together."""

Candidates = dict[str, tuple[Callable[[], object], Timer]]


def run(write: Callable[[dict[str, Any]], None]) -> None:
    """Write a row for each size and dtype, then for many arrays, then what a call costs the host."""
    sizes = (64,) if is_simulated() else (10**6, 10**7, 10**8)
    for n in sizes:
        _one_array(n, "float32", write, peers=True)
    for dtype in ("float64", "float16"):
        _one_array(sizes[-1], dtype, write, peers=False)
    for count, n in ((3, 16),) if is_simulated() else ((100, 10**4), (100, 10**6)):
        _many_arrays(count, n, write)
    _host_time(write)


def _write_times(write: Callable[[dict[str, Any]], None], what: dict[str, Any], times: dict[str, float]) -> None:
    copy = times["copy"]
    for name, seconds in times.items():
        write({**what, "candidate": name, "us": 1e6 * seconds, "share of copy's bandwidth": copy / seconds})


def _one_array(n: int, dtype: str, write: Callable[[dict[str, Any]], None], *, peers: bool) -> None:
    itemsize = np.dtype(dtype).itemsize
    moved = n * (3 * itemsize + 2 * max(itemsize, 4))
    sets = 1 if is_simulated() else max(1, -(-BEYOND_CACHE // moved))
    candidates = {**_copy(moved, sets), **_ours(n, dtype, sets)}
    times = medians(candidates)
    _write_times(write, {"n": n, "dtype": dtype, "sets": sets, "with": "numba"}, times)
    candidates.clear()
    for add in (_cupy, _torch, _jax) if peers and not is_simulated() else ():
        try:
            candidates = {**_copy(moved, sets), **add(n, sets)}
            _write_times(write, {"n": n, "dtype": dtype, "sets": sets, "with": add.__name__[1:]}, medians(candidates))
        except Exception as error:  # noqa: BLE001 - the others are measured all the same
            write({"n": n, "with": add.__name__[1:], "failed": f"{type(error).__name__}: {error}"[:500]})


def _copy(moved: int, sets: int) -> Candidates:
    """Copy as many bytes as an update reads and writes, by the driver's function: Numba's copy costs the host more."""
    from numba import cuda

    half = moved // 2
    pairs = [[cuda.device_array(half, np.uint8) for _ in range(2)] for _ in range(sets)]
    if is_simulated():
        return {"copy": (lambda: pairs[0][0].copy_to_device(pairs[0][1]), seconds_between_events)}
    from cuda.bindings import driver

    addresses = [[int(a.device_ctypes_pointer.value) for a in pair] for pair in pairs]
    turn = itertools.cycle(addresses)
    default = driver.CUstream(0)

    def copy(kept: Any = pairs) -> None:  # noqa: ARG001
        target, source = next(turn)
        driver.cuMemcpyDtoDAsync(target, source, half, default)

    return {"copy": (copy, seconds_between_events)}


def _ours(n: int, dtype: str, sets: int) -> Candidates:
    from numba import cuda

    from rmsprop_nb import RMSprop

    found: Candidates = {}
    for name, deterministic in (("rmsprop_nb", False), ("rmsprop_nb deterministic", True)):
        optimizer = RMSprop(RATE, beta=BETA, eps=EPS, check_finite=False, deterministic=deterministic)
        vectors = [[cuda.to_device(np.ones(n, dtype)) for _ in range(2)] for _ in range(sets)]
        turn = itertools.cycle([(x, g, optimizer.init(x)) for x, g in vectors])
        found[name] = (_stepper(optimizer, turn), seconds_between_events)
    return found


def _stepper(optimizer: Any, turn: Any) -> Callable[[], None]:
    def step() -> None:
        x, g, state = next(turn)
        optimizer.step(x, g, state)

    return step


# -- peers ------------------------------------------------------------------------------------------------------------


def _cupy(n: int, sets: int) -> Candidates:
    cupy = optional("cupy")
    if cupy is None:
        return {}
    kernel = cupy.ElementwiseKernel(
        "T g, T rate, T beta, T eps",
        "T x, T s",
        "s = beta * s + (1 - beta) * g * g; x -= rate * g / (sqrt(s) + eps)",
        "rmsprop",
    )
    turn = itertools.cycle([[cupy.ones(n, cupy.float32) for _ in range(3)] for _ in range(sets)])
    rate, beta, eps = map(np.float32, (RATE, BETA, EPS))

    def step() -> None:
        x, g, s = next(turn)
        kernel(g, rate, beta, eps, x, s)

    return {"cupy fused": (step, seconds_between_events)}


def _torch(n: int, sets: int) -> Candidates:
    torch = optional("torch")
    if torch is None:
        return {}
    from rmsprop_nb import RMSprop

    def tensors() -> Any:
        return torch.ones(n, device="cuda")

    parameters = [torch.nn.Parameter(tensors()) for _ in range(sets)]
    for parameter in parameters:
        parameter.grad = tensors()
    theirs = [torch.optim.RMSprop([p], lr=RATE, alpha=BETA, eps=EPS, foreach=True) for p in parameters]
    turn = itertools.cycle(theirs)
    compiled = torch.compile(_torch_update)
    vectors = itertools.cycle([[p.detach(), p.grad, torch.zeros_like(p)] for p in parameters])
    optimizer = RMSprop(RATE, beta=BETA, eps=EPS, check_finite=False)
    ours = [(p.detach(), p.grad, optimizer.init(p.detach())) for p in parameters]
    return {
        "torch foreach": (lambda: next(turn).step(), seconds_between_events),
        "torch compiled": (lambda: compiled(*next(vectors)), seconds_between_events),
        "rmsprop_nb on tensors": (_stepper(optimizer, itertools.cycle(ours)), seconds_between_events),
        "rmsprop_nb in a graph, all sets": (_graph_of(lambda: [optimizer.step(*one) for one in ours]), _per(sets)),
        "torch compiled in a graph, all sets": (
            _graph_of(lambda: [compiled(*next(vectors)) for _ in range(sets)]),
            _per(sets),
        ),
    }


def _per(sets: int) -> Timer:
    """Return a timer for a graph of `sets` updates, which gives the seconds of one of them."""
    return lambda call, count: seconds_between_events(call, count) / sets


def _torch_update(x: Any, g: Any, s: Any) -> None:
    s.mul_(BETA).addcmul_(g, g, value=1.0 - BETA)
    x.addcdiv_(g, s.sqrt().add_(EPS), value=-RATE)


def _graph_of(work: Callable[[], object]) -> Callable[[], None]:
    """Capture work in a CUDA graph with PyTorch; return its replay."""
    torch = optional("torch")
    work()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph.replay


def _jax(n: int, sets: int) -> Candidates:
    jax, optax = optional("jax"), optional("optax")
    if jax is None or optax is None or jax.default_backend() != "gpu":
        return {}
    rule = optax.rmsprop(RATE, decay=BETA, eps=EPS, eps_in_sqrt=False)

    def update(x: Any, g: Any, state: Any) -> Any:
        change, state = rule.update(g, state)
        return optax.apply_updates(x, change), state

    jitted = jax.jit(update, donate_argnums=(0, 2))
    kept = []
    for _ in range(sets):
        x = jax.numpy.ones(n, jax.numpy.float32)
        kept.append([x, jax.numpy.ones(n, jax.numpy.float32), rule.init(x)])
    turn = itertools.cycle(range(sets))

    def step() -> None:
        k = next(turn)
        x, g, state = kept[k]
        kept[k][0], kept[k][2] = jitted(x, g, state)

    return {"optax jitted": (step, seconds_until(lambda: jax.block_until_ready(kept)))}


# -- many arrays, and the host ----------------------------------------------------------------------------------------


def _many_arrays(count: int, n: int, write: Callable[[dict[str, Any]], None]) -> None:
    """Time one step on many arrays, beside one on an array of their total size and beside PyTorch's foreach."""
    from numba import cuda

    from rmsprop_nb import RMSprop

    optimizer = RMSprop(RATE, beta=BETA, eps=EPS, check_finite=False)

    def arrays(number: int, size: int) -> Any:
        x, g = ([cuda.to_device(np.ones(size, np.float32)) for _ in range(number)] for _ in "xg")
        state = optimizer.init(x)
        return lambda: optimizer.step(x, g, state)

    candidates: Candidates = {
        **_copy(20 * count * n, 1),
        "rmsprop_nb": (arrays(count, n), seconds_between_events),
        "rmsprop_nb, one array": (arrays(1, count * n), seconds_between_events),
    }
    torch = None if is_simulated() else optional("torch")
    if torch is not None:
        parameters = [torch.nn.Parameter(torch.ones(n, device="cuda")) for _ in range(count)]
        for parameter in parameters:
            parameter.grad = torch.ones_like(parameter)
        theirs = torch.optim.RMSprop(parameters, lr=RATE, alpha=BETA, eps=EPS, foreach=True)
        candidates["torch foreach"] = (theirs.step, seconds_between_events)
    _write_times(write, {"arrays": count, "n": n, "dtype": "float32"}, medians(candidates))


def _host_time(write: Callable[[dict[str, Any]], None]) -> None:
    """Time what one call costs the host, which does not wait for the device."""
    from numba import cuda

    from rmsprop_nb import RMSprop

    optimizer = RMSprop(RATE, beta=BETA, eps=EPS, check_finite=False)
    makers: dict[str, Callable[[], Any]] = {"numba": lambda: cuda.to_device(np.ones(1000, np.float32))}
    if not is_simulated():
        torch, cupy = optional("torch"), optional("cupy")
        if torch is not None:
            makers["torch"] = lambda: torch.ones(1000, device="cuda")
        if cupy is not None:
            makers["cupy"] = lambda: cupy.ones(1000, cupy.float32)
    for name, make in makers.items():
        for count in (1, 10):
            x, g = [make() for _ in range(count)], [make() for _ in range(count)]
            state = optimizer.init(x)
            optimizer.step(x, g, state)
            cuda.synchronize()
            calls = 3 if is_simulated() else 500
            began = time.perf_counter()
            for _ in range(calls):
                optimizer.step(x, g, state)
            host = (time.perf_counter() - began) / calls
            cuda.synchronize()
            write({"host time of a step": name, "arrays": count, "us": 1e6 * host})
