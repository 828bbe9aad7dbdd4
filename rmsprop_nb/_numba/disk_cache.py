"""Compiled kernels on disk, keyed by the sources of the whole package.

Numba's own key covers only the file in which a function is defined. This module depends on Numba's internals.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
from pathlib import Path
from typing import Any

from numba.core.caching import FunctionCache, IndexDataCacheFile

logger = logging.getLogger("rmsprop_nb")


@functools.cache
def package_digest() -> str:
    """Return a hash of all sources of the package, so that no kernel compiled from an older version is loaded."""
    return digest_of(Path(__file__).parents[1])


def digest_of(package: Path) -> str:
    """Return a hash of the sources in a directory and below, and of their names."""
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(path.relative_to(package).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


class PackageCache(FunctionCache):
    """Numba's disk cache with our own keys and files.

    Numba keys a closure by the pickled contents of its cells. For a compiled function they differ between processes, so
    the cache never hits. It also does not notice a change in another file of the package. All closures of a function
    share an index that numbers their files, and two processes that write at once can take the same number; here every
    kernel has its own files. A kernel that cannot be read is compiled again, and one that cannot be written is not
    kept.
    """

    def __init__(self, py_func: Any, key: tuple[Any, ...]) -> None:
        super().__init__(py_func)
        self._key = repr(key)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return the kernel from disk, or None."""
        try:
            return super().load_overload(sig, target_context)
        except Exception as error:  # noqa: BLE001 - a damaged pickle can raise anything
            logger.warning("a file in the cache of compiled code is damaged and will be written again: %r", error)
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep a kernel on disk if possible."""
        try:
            super().save_overload(sig, data)
        except OSError as error:
            logger.warning("compiled code cannot be kept on disk: %s", error)

    def _load_overload(self, sig: Any, target_context: Any) -> Any:
        self._choose_file(sig, target_context.codegen())
        return super()._load_overload(sig, target_context)

    def _save_overload(self, sig: Any, data: Any) -> None:
        self._choose_file(sig, data.codegen)
        with contextlib.suppress(OSError):
            Path(self._cache_file._index_path).unlink()  # a damaged index would be read before it is written
        super()._save_overload(sig, data)

    def _choose_file(self, sig: Any, codegen: Any) -> None:
        name = hashlib.sha256(repr(self._index_key(sig, codegen)).encode()).hexdigest()[:16]
        self._cache_file = IndexDataCacheFile(
            cache_path=self._cache_path,
            filename_base=f"{self._impl.filename_base}-{name}",
            source_stamp=package_digest(),
        )

    def _index_key(self, sig: Any, codegen: Any) -> tuple[Any, ...]:
        return sig, codegen.magic_tuple(), self._key
