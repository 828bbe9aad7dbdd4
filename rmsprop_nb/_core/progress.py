"""What accompanies a long run: checkpoints and a progress bar, both between two chunks of the loop."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np

from rmsprop_nb._core import archive
from rmsprop_nb._core.rates import memory_of, remind
from rmsprop_nb._core.validate import CHECKPOINT_SECONDS, as_checkpoint_seconds, as_count, as_number


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Options of every run that may take long: a time limit, what to record, and where to save the state."""

    maxtime: float | None = None
    history: bool | int = False
    progress: bool = False
    checkpoint: str | os.PathLike[str] | None = None
    checkpoint_every: float = CHECKPOINT_SECONDS

    @property
    def seconds(self) -> float:
        """The time limit in seconds."""
        return math.inf if self.maxtime is None else as_number("maxtime", self.maxtime, 0.0, math.inf)

    @property
    def checkpoint_seconds(self) -> float:
        """The seconds between two checkpoints."""
        return as_checkpoint_seconds(self.checkpoint_every, self.checkpoint)

    @property
    def stride(self) -> int:
        """The number of iterations or batches from one record to the next; 0 records none."""
        switch = isinstance(self.history, (bool, np.bool_))
        stride = as_count("history", int(self.history) if switch else self.history, -1)
        if stride == -1 and self.history is not None:
            msg = f"history must be True, False or an integer of at least 0, got {self.history!r}."
            raise ValueError(msg)
        return max(stride, 0)

    def quiet(self) -> Self:
        """Return a copy without checkpoints and progress, which rank 0 alone takes care of."""
        return dataclasses.replace(self, progress=False, checkpoint=None, checkpoint_every=CHECKPOINT_SECONDS)

    def shared(self) -> dict[str, str]:
        """Return the options that must be the same on all ranks of a run, as text."""
        free = {field.name for field in dataclasses.fields(RunOptions)} | {"disp", "return_all", "state"}
        return {f.name: _as_text(getattr(self, f.name)) for f in dataclasses.fields(self) if f.name not in free}


def _as_text(value: Any) -> str:
    """Return a value as text; a function as its name, because its address differs from rank to rank."""
    if isinstance(value, np.ndarray):
        value = value.tolist()  # NumPy leaves out numbers of large arrays
    return getattr(value, "__qualname__", type(value).__name__) if callable(value) else repr(value)


def progress_bar(total: int | None, unit: str) -> Any:
    """Make a progress bar of tqdm; the total is None if it is not known."""
    try:
        from tqdm.auto import tqdm
    except ImportError:
        msg = "progress=True needs tqdm; install it with pip install 'rmsprop_nb[progress]'."
        raise ImportError(msg) from None
    return tqdm(total=total, unit=unit)


class CheckpointWriter:
    """Writes what `make_tree` returns to a file: at once, when it is due, and when asked to; without a path, nothing.

    A later checkpoint that cannot be written is a warning and does not end the run, because the next one may succeed.
    """

    def __init__(
        self, path: str | os.PathLike[str] | None, every: float, make_tree: Callable[[], Mapping[str, Any]]
    ) -> None:
        # the whole path, because the program may change its directory
        self._path = None if path is None else Path(os.path.realpath(os.fsdecode(path)))
        self._every = every
        self._make_tree = make_tree
        if self._path is not None:
            archive.write(self._path, make_tree())  # raises now if the path cannot be written
        self._written = time.monotonic()

    def write(self) -> None:
        """Write now."""
        if self._path is None:
            return
        try:
            archive.write(self._path, self._make_tree())
        except OSError as error:
            msg = f"The checkpoint {str(self._path)!r} could not be written, and holds an earlier state: {error}."
            warnings.warn(msg, RuntimeWarning, stacklevel=2)
        self._written = time.monotonic()

    def write_if_due(self) -> None:
        """Write if the last checkpoint is old enough."""
        if self._path is not None and time.monotonic() - self._written >= self._every:
            self.write()


@contextlib.contextmanager
def schedule_remembered(state: Any, schedule: Any) -> Iterator[Callable[[], Any]]:
    """Give a schedule the memory that the state has of it; yield the function that returns the state as it is now."""
    remind(schedule, state.schedule)
    _ = memory_of(schedule)  # raises now if it cannot be kept

    def current() -> Any:
        state.schedule = memory_of(schedule)
        return state

    try:
        yield current
    finally:
        current()


@contextlib.contextmanager
def checkpoints_and_progress(
    state: Any, options: RunOptions, schedule: Any, *, total: int | None, unit: str
) -> Iterator[Callable[[], None] | None]:
    """Yield the function to call between chunks, or None if there is nothing to do.

    The state is saved at the start, every `checkpoint_every` seconds, and at the end, whatever ends the run. It has the
    memory of the schedule in it.
    """
    every = options.checkpoint_seconds
    is_alone = not options.progress and options.checkpoint is None
    if is_alone and schedule is None:  # as nearly always, and a short run takes some hundred microseconds
        yield None
        return
    with schedule_remembered(state, schedule) as current:
        if is_alone:
            yield None
            return
        writer = CheckpointWriter(options.checkpoint, every, lambda: archive.as_tree(current()))
        yield from _saved_and_shown(state, options, writer, total, unit)


def _saved_and_shown(
    state: Any, options: RunOptions, writer: CheckpointWriter, total: int | None, unit: str
) -> Iterator[Callable[[], None]]:
    p = state.progress
    bar = progress_bar(total, unit) if options.progress else None

    def on_chunk() -> None:
        if bar is not None:
            bar.update(int(p.nit) - bar.n)
            bar.set_postfix(f=f"{float(p.f):.6g}", refresh=False)
        writer.write_if_due()

    try:
        yield on_chunk
    finally:
        try:
            writer.write()
        except KeyboardInterrupt:
            writer.write()  # once more, from the beginning: what has been computed is not lost
            raise
        finally:
            if bar is not None:
                bar.update(int(p.nit) - bar.n)
                bar.close()
