"""Times on a device: events around many calls, in turns, condensed to medians."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

ROUNDS = 7
SHORTEST_SAMPLE = 20e-3
"""Seconds between two events: far above what an event and an empty queue cost."""


def is_simulated() -> bool:
    """Return whether the simulator stands in for a device; it has no events, and its times mean nothing."""
    return os.environ.get("NUMBA_ENABLE_CUDASIM") == "1"


def seconds_between_events(call: Callable[[], object], count: int) -> float:
    """Return the seconds that the default stream needs for `count` calls."""
    from numba import cuda

    if is_simulated():
        began = time.perf_counter()
        for _ in range(count):
            call()
        return time.perf_counter() - began
    first, last = cuda.event(), cuda.event()
    first.record()
    for _ in range(count):
        call()
    last.record()
    last.synchronize()
    return float(cuda.event_elapsed_time(first, last)) / 1e3


def seconds_until(wait: Callable[[], object]) -> Callable[[Callable[[], object], int], float]:
    """Return a timer by the clock, for libraries with streams of their own; `wait` waits for all that was asked for."""

    def timer(call: Callable[[], object], count: int) -> float:
        wait()
        began = time.perf_counter()
        for _ in range(count):
            call()
        wait()
        return time.perf_counter() - began

    return timer


Timer = Callable[[Callable[[], object], int], float]


def medians(candidates: Mapping[str, tuple[Callable[[], object], Timer]], rounds: int = ROUNDS) -> dict[str, float]:
    """Return the median seconds of one call of each candidate; they are timed in turns, after two calls of each."""
    counts = {}
    for name, (call, timer) in candidates.items():
        timer(call, 2)
        counts[name] = max(1, int(SHORTEST_SAMPLE / max(timer(call, 3) / 3, 1e-7)))
    if is_simulated():
        counts, rounds = dict.fromkeys(candidates, 1), 1
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, (call, timer) in candidates.items():
            seconds[name].append(timer(call, counts[name]) / counts[name])
    return {name: statistics.median(found) for name, found in seconds.items()}


def optional(name: str) -> Any:
    """Import a peer; None if it is not installed, or cannot be used here."""
    import importlib

    try:
        return importlib.import_module(name)
    except Exception:  # noqa: BLE001 - a broken installation of a peer is no reason to measure nothing
        return None
