"""What happens beside a long run: checkpoints on the disk and a progress bar, both between two chunks of the loop."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

from rmsprop_nb import _archive
from rmsprop_nb._types import RunState

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
    if checkpoint is not None:
        _archive.write(checkpoint, state.to_tree())  # a path that cannot be written is found out at once
    bar = progress_bar(total, unit) if progress else None
    saved = time.monotonic()

    def on_chunk() -> None:
        nonlocal saved
        if bar is not None:
            bar.update(int(p.nit) - bar.n)
            bar.set_postfix(f=f"{float(p.f):.6g}", refresh=False)
        if checkpoint is not None and time.monotonic() - saved >= every:
            _archive.write(checkpoint, state.to_tree())
            saved = time.monotonic()

    try:
        yield on_chunk
    finally:
        if checkpoint is not None:
            _archive.write(checkpoint, state.to_tree())
        if bar is not None:
            bar.update(int(p.nit) - bar.n)
            bar.close()
