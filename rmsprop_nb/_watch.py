"""What happens beside a long run: checkpoints on the disk and a progress bar, both between two chunks of the loop."""

from __future__ import annotations

import contextlib
import os
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rmsprop_nb import _archive
from rmsprop_nb._run_state import RunState

__all__ = ["progress_bar", "watching"]


def progress_bar(total: int | None, unit: str) -> Any:
    """Make a bar of tqdm; None for an unknown total."""
    try:
        from tqdm.auto import tqdm
    except ImportError:
        msg = "progress=True needs tqdm; install it with pip install 'rmsprop_nb[progress]'."
        raise ImportError(msg) from None
    return tqdm(total=total, unit=unit)


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
    keeper = None if checkpoint is None else _Keeper(state, checkpoint, every)
    bar = progress_bar(total, unit) if progress else None

    def on_chunk() -> None:
        if bar is not None:
            bar.update(int(p.nit) - bar.n)
            bar.set_postfix(f=f"{float(p.f):.6g}", refresh=False)
        if keeper is not None and keeper.due:
            keeper.save()

    try:
        yield on_chunk
    finally:
        if keeper is not None:
            keeper.save()
        if bar is not None:
            bar.update(int(p.nit) - bar.n)
            bar.close()


class _Keeper:
    """Saves the state of a run, and never ends the run because that failed: the disk may have room again later."""

    def __init__(self, state: RunState, path: str | os.PathLike[str], every: float) -> None:
        self._state = state
        self._path = Path(os.path.realpath(path))  # the program may change its directory
        self._every = every
        _archive.write(self._path, _archive.as_tree(state))  # a path that cannot be written is found out at once
        self._saved = time.monotonic()

    @property
    def due(self) -> bool:
        return time.monotonic() - self._saved >= self._every

    def save(self) -> None:
        try:
            _archive.write(self._path, _archive.as_tree(self._state))
        except OSError as error:
            msg = f"The checkpoint {str(self._path)!r} could not be written, and holds an earlier state: {error}."
            warnings.warn(msg, RuntimeWarning, stacklevel=2)
        self._saved = time.monotonic()
