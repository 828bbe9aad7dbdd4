"""A word to those who wait: compilations that take long, and are kept on disk, say so once in a process."""

from __future__ import annotations

import logging
import threading
from typing import Any

from numba.core import event

from rmsprop_nb._numba.disk_cache import PackageCache

logger = logging.getLogger("rmsprop_nb")

PATIENCE = 1.0
"""Seconds that a compilation may take without a word."""

_KIND = "numba:compile"


class _Notice(event.Listener):
    """Sets a timer when a kernel begins to compile; others that compile within it set none."""

    def __init__(self) -> None:
        self._waiting: threading.Timer | None = None
        self._kernel: Any = None

    def on_start(self, event: Any) -> None:
        """Begin to wait."""
        kernel = event.data["dispatcher"]
        if self._waiting is None and isinstance(getattr(kernel, "_cache", None), PackageCache):
            self._kernel = kernel
            self._waiting = threading.Timer(PATIENCE, self._say)
            self._waiting.daemon = True
            self._waiting.start()

    def on_end(self, event: Any) -> None:
        """End to wait."""
        if self._waiting is not None and event.data["dispatcher"] is self._kernel:
            self._waiting.cancel()
            self._waiting = self._kernel = None

    def _say(self) -> None:
        event.unregister(_KIND, self)
        logger.warning(
            "compiling for this machine, which takes some seconds; the code is kept on disk for next time. "
            "'python -m rmsprop_nb compile' prepares all of it."
        )


def announce_compilations() -> None:
    """Announce the first compilation of a kernel that takes long, from now on."""
    event.register(_KIND, _Notice())
