"""Ctrl-C while this package has Numba compile: it comes when the compilation has ended.

An exception in the middle of a compilation can leave Numba without what it was about to register. So SIGINT is noted
while the main thread holds Numba's compiler lock, and sent again when it has let go of it. Compilations that the user's
own code starts, outside of any call of this package, are left alone.
"""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType
from typing import Any

from numba.core import event

_PACKAGE = __name__.partition(".")[0]
_KIND = "numba:compiler_lock"


class _Deferral(event.Listener):
    """Hears when a thread asks for the compiler lock and when it has let go of it, also where it holds it already."""

    def __init__(self) -> None:
        self._handler: Any = None  # the user's, while SIGINT is noted
        self._depth = 0
        self._came = False

    def on_start(self, event: Any) -> None:  # noqa: ARG002 (Numba's name)
        """Begin to note SIGINT."""
        if threading.current_thread() is not threading.main_thread():
            return
        handler = signal.getsignal(signal.SIGINT)
        if self._depth == 0 and callable(handler) and _is_ours(sys._getframe(1)):
            self._handler = handler
            signal.signal(signal.SIGINT, self._note)
        self._depth += 1

    def on_end(self, event: Any) -> None:  # noqa: ARG002 (Numba's name)
        """Let SIGINT come again."""
        if threading.current_thread() is not threading.main_thread():
            return
        self._depth -= 1
        if self._depth or self._handler is None:
            return
        handler, self._handler = self._handler, None
        signal.signal(signal.SIGINT, handler)
        if self._came:
            self._came = False
            signal.raise_signal(signal.SIGINT)

    def _note(self, *_: Any) -> None:
        self._came = True


def _is_ours(frame: FrameType | None) -> bool:
    """Return whether a function of this package, other than this one, has led to this frame."""
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if name != __name__ and name.partition(".")[0] == _PACKAGE:
            return True
        frame = frame.f_back
    return False


def defer_interrupts() -> None:
    """Defer Ctrl-C during the compilations of this package, from now on."""
    event.register(_KIND, _Deferral())
