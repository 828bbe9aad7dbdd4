"""Comparable times: measured in turns, in one process and on one core, and condensed to medians.

A busy machine slows everything that runs at the same moment, so the ratio of two neighbouring samples is stable where
the times themselves are not.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import timeit
from collections.abc import Callable, Iterator, Mapping

__all__ = ["Candidate", "compare", "one_core", "per_evaluation", "samples"]

Candidate = Callable[[], object]

ROUNDS = 11
SHORTEST_SAMPLE = 2e-3  # seconds: far above the resolution of the clock, well below a time slice of the scheduler


@contextlib.contextmanager
def one_core() -> Iterator[None]:
    """Pin this thread and those it starts to one core, so that thread pools made here are no faster than one thread."""
    if not hasattr(os, "sched_setaffinity"):  # macOS and Windows: the scheduler decides
        yield
        return
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def samples(candidates: Mapping[str, Candidate], rounds: int = ROUNDS) -> dict[str, list[float]]:
    """Return seconds per call, for each candidate and round. Each candidate is called once before it is timed."""
    timers = {name: timeit.Timer(candidate) for name, candidate in candidates.items()}
    numbers = {name: _calls_per_sample(timer) for name, timer in timers.items()}
    seconds: dict[str, list[float]] = {name: [] for name in timers}
    order = list(timers)
    for _ in range(rounds):
        for name in order:
            seconds[name].append(timers[name].timeit(numbers[name]) / numbers[name])
        order.append(order.pop(0))  # so that none always finds the cache as the same other one left it
    return seconds


def _calls_per_sample(timer: timeit.Timer) -> int:
    timer.timeit(1)
    number = 1
    while (seconds := timer.timeit(number)) < SHORTEST_SAMPLE:
        number = max(2 * number, int(number * SHORTEST_SAMPLE / max(seconds, 1e-9)))
    return number


def compare(ours: Candidate, other: Candidate, rounds: int = ROUNDS) -> float:
    """Return our time divided by the other's, the median over all rounds. Below 1 we are faster."""
    with one_core():
        seconds = samples({"ours": ours, "other": other}, rounds)
    return statistics.median(a / b for a, b in zip(seconds["ours"], seconds["other"], strict=True))


def per_evaluation(
    ours: Callable[[int], object],
    other: Callable[[int], object],
    counts: tuple[int, int],
    rounds: int = ROUNDS,
) -> float:
    """Return the ratio of the times of one evaluation within a run; ``ours(count)`` is a run of `count` evaluations.

    The time of a run of one evaluation is subtracted, so that what a run costs before its first evaluation cancels.
    The ratio is the median over all rounds.
    """
    long, long_other = counts
    with one_core():
        seconds = samples(
            {
                "ours": lambda: ours(long),
                "ours, start": lambda: ours(1),
                "other": lambda: other(long_other),
                "other, start": lambda: other(1),
            },
            rounds,
        )
    start, start_other = (statistics.median(seconds[name]) for name in ("ours, start", "other, start"))
    return statistics.median(
        ((a - start) / (long - 1)) / ((b - start_other) / (long_other - 1))
        for a, b in zip(seconds["ours"], seconds["other"], strict=True)
    )
