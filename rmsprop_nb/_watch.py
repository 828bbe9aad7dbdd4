"""What happens beside a long run: checkpoints on the disk and a progress bar, both between two chunks of the loop."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from rmsprop_nb import _archive
from rmsprop_nb._types import RunState

__all__ = ["Keeper", "progress_bar", "watching"]


def progress_bar(total: int | None, unit: str) -> Any:
    """Make a bar of tqdm; None for an unknown total."""
    try:
        from tqdm.auto import tqdm
    except ImportError:
        msg = "progress=True needs tqdm; install it with pip install 'rmsprop_nb[progress]'."
        raise ImportError(msg) from None
    return tqdm(total=total, unit=unit)


class Keeper:
    """Writes what `make_tree` returns to a file: now, every so many seconds, and whenever it is told to.

    Without a path it does nothing.
    """

    def __init__(
        self, path: str | os.PathLike[str] | None, every: float, make_tree: Callable[[], Mapping[str, Any]]
    ) -> None:
        self._path = path
        self._every = every
        self._make_tree = make_tree
        self.write()  # a path that cannot be written is found out at once

    def write(self) -> None:
        """Write now."""
        if self._path is not None:
            _archive.write(self._path, self._make_tree())
        self._written = time.monotonic()

    def write_if_due(self) -> None:
        """Write if the last time is long enough ago."""
        if self._path is not None and time.monotonic() - self._written >= self._every:
            self.write()


@contextlib.contextmanager
def watching(
    state: RunState,
    *,
    total: int | None,
    unit: str,
    progress: bool,
    checkpoint: str | os.PathLike[str] | None,
    every: float,
) -> Iterator[Callable[[], None] | None]:
    """Give the function to call between chunks, or None if nothing is to be done.

    The state is saved at the start, every so many seconds, and at the end, whatever ends the run.
    """
    if not progress and checkpoint is None:
        yield None
        return
    p = state.progress
    keeper = Keeper(checkpoint, every, state.to_tree)
    bar = progress_bar(total, unit) if progress else None

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
