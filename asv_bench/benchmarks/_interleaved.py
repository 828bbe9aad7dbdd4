"""Times that may be compared: measured in turns in one process, on one core, and condensed to medians.

A busy machine slows everything that runs at the same moment, so a ratio of neighbouring samples stays put where the
times themselves do not.
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
SHORTEST_SAMPLE = 2e-3  # seconds: far above the resolution of the clock, well below a slice of the scheduler


@contextlib.contextmanager
def one_core() -> Iterator[None]:
    """Keep this thread, and those it starts, on one core: thread pools made here hold one thread's worth of work."""
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
    """Seconds per call of each candidate in each round. Every candidate has been called before it is timed."""
    timers = {name: timeit.Timer(candidate) for name, candidate in candidates.items()}
    numbers = {name: _calls_per_sample(timer) for name, timer in timers.items()}
    seconds: dict[str, list[float]] = {name: [] for name in timers}
    order = list(timers)
    for _ in range(rounds):
        for name in order:
            seconds[name].append(timers[name].timeit(numbers[name]) / numbers[name])
        order.append(order.pop(0))  # nobody always runs in the cache that the same neighbour left
    return seconds


def _calls_per_sample(timer: timeit.Timer) -> int:
    timer.timeit(1)
    number = 1
    while (seconds := timer.timeit(number)) < SHORTEST_SAMPLE:
        number = max(2 * number, int(number * SHORTEST_SAMPLE / max(seconds, 1e-9)))
    return number


def compare(ours: Candidate, other: Candidate, rounds: int = ROUNDS) -> float:
    """Median over the rounds of our time divided by the other's: below 1 is faster than the other."""
    with one_core():
        seconds = samples({"ours": ours, "other": other}, rounds)
    return statistics.median(a / b for a, b in zip(seconds["ours"], seconds["other"], strict=True))


def per_evaluation(
    ours: Callable[[int], object],
    other: Callable[[int], object],
    counts: tuple[int, int],
    rounds: int = ROUNDS,
) -> float:
    """Median ratio of the time of one evaluation inside a run, where ``ours(count)`` runs for `count` of them.

    What a run costs before its first evaluation cancels: the time of a run of one evaluation is subtracted.
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
