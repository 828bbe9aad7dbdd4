"""What happens beside a long run: checkpoints on the disk and a progress bar, both between two chunks of the loop."""

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

from rmsprop_nb._core import archive
from rmsprop_nb._core.validate import CHECKPOINT_SECONDS, as_checkpoint_seconds, as_count, as_number


@dataclasses.dataclass(frozen=True, kw_only=True)
class Watched:
    """What every run has that goes on for long: a limit of time, what to record, where to keep the state."""

    maxtime: float | None = None
    history: bool | int = False
    progress: bool = False
    checkpoint: str | os.PathLike[str] | None = None
    checkpoint_every: float = CHECKPOINT_SECONDS

    @property
    def seconds(self) -> float:
        """The time limit."""
        return math.inf if self.maxtime is None else as_number("maxtime", self.maxtime, 0.0, math.inf)

    @property
    def checkpoint_seconds(self) -> float:
        """Time between two checkpoints."""
        return as_checkpoint_seconds(self.checkpoint_every, self.checkpoint)

    @property
    def stride(self) -> int:
        """Every which iteration or batch is recorded; 0 for none."""
        return as_count("history", int(self.history), 0)

    def quiet(self) -> Self:
        """The same without what rank 0 does for all ranks of a run: it keeps the checkpoints and shows the progress."""
        return dataclasses.replace(self, progress=False, checkpoint=None, checkpoint_every=CHECKPOINT_SECONDS)

    def shared(self) -> dict[str, str]:
        """What ranks that share a run must have in common, as text."""
        own = {field.name for field in dataclasses.fields(Watched)} | {"disp", "return_all", "state"}
        return {f.name: _as_text(getattr(self, f.name)) for f in dataclasses.fields(self) if f.name not in own}


def _as_text(value: Any) -> str:
    """The text of a value; that of a function does not say where it stands in memory."""
    return getattr(value, "__qualname__", type(value).__name__) if callable(value) else repr(value)


def progress_bar(total: int | None, unit: str) -> Any:
    """Make a bar of tqdm; None for an unknown total."""
    try:
        from tqdm.auto import tqdm
    except ImportError:
        msg = "progress=True needs tqdm; install it with pip install 'rmsprop_nb[progress]'."
        raise ImportError(msg) from None
    return tqdm(total=total, unit=unit)


class Keeper:
    """Writes what `make_tree` returns to a file: now, when it is due, and at the end. Without a path it does nothing.

    That a later file cannot be written never ends the run: the disk may have room again.
    """

    def __init__(
        self, path: str | os.PathLike[str] | None, every: float, make_tree: Callable[[], Mapping[str, Any]]
    ) -> None:
        self._path = None if path is None else Path(os.path.realpath(path))  # the program may change its directory
        self._every = every
        self._make_tree = make_tree
        if self._path is not None:
            archive.write(self._path, make_tree())  # a path that cannot be written is found out at once
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
        """Write if the last time is long enough ago."""
        if self._path is not None and time.monotonic() - self._written >= self._every:
            self.write()


@contextlib.contextmanager
def watching(state: Any, options: Watched, *, total: int | None, unit: str) -> Iterator[Callable[[], None] | None]:
    """Give the function to call between chunks, or None if nothing is to be done.

    The state is saved at the start, every so many seconds, and at the end, whatever ends the run.
    """
    every = options.checkpoint_seconds
    if not options.progress and options.checkpoint is None:
        yield None
        return
    p = state.progress
    keeper = Keeper(options.checkpoint, every, lambda: archive.as_tree(state))
    bar = progress_bar(total, unit) if options.progress else None

    def on_chunk() -> None:
        if bar is not None:
            bar.update(int(p.nit) - bar.n)
            bar.set_postfix(f=f"{float(p.f):.6g}", refresh=False)
        keeper.write_if_due()

    try:
        yield on_chunk
    finally:
        keeper.write()
        if bar is not None:
            bar.update(int(p.nit) - bar.n)
            bar.close()
