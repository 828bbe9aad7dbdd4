"""Compiled kernels on disk, keyed by the sources of the whole package.

Numba's own key covers only the file in which a function is defined. This module depends on Numba's internals.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import pickle
import uuid
from pathlib import Path
from typing import Any

import numba
from numba.core.caching import FunctionCache
from numba.core.serialize import dumps

logger = logging.getLogger("rmsprop_nb")

DIGEST_SIZE = hashlib.sha256().digest_size


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


class _KernelFile:
    """A kernel on disk: a digest of what follows, and the pickled key and code.

    Machine code that a disk has damaged would be run as it is, so nothing is unpickled that the digest does not match.
    Each kernel has a file of its own, which is written under another name: processes may write at the same time.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self, key: Any) -> Any:
        """Return the code that was kept under a key, or None; raise ValueError if the file is not as it was written."""
        try:
            content = self.path.read_bytes()
        except OSError:
            return None
        digest, kept = content[:DIGEST_SIZE], content[DIGEST_SIZE:]
        if hashlib.sha256(kept).digest() != digest:
            msg = f"{self.path} is damaged."
            raise ValueError(msg)
        found, code = pickle.loads(kept)
        if found != key:
            msg = f"{self.path} has the code of another kernel."
            raise ValueError(msg)
        return code

    def save(self, key: Any, code: Any) -> None:
        """Keep code under a key."""
        kept = dumps((key, code))
        new = self.path.with_name(f"{self.path.name}.{uuid.uuid4().hex[:16]}")
        try:
            new.write_bytes(hashlib.sha256(kept).digest() + kept)
            new.replace(self.path)
        except OSError:
            new.unlink(missing_ok=True)
            raise


class PackageCache(FunctionCache):
    """Numba's disk cache with our own keys and files.

    Numba keys a closure by the pickled contents of its cells. For a compiled function they differ between processes, so
    the cache never hits. It also does not notice a change in another file of the package. A kernel that cannot be read
    is compiled again, and one that cannot be written is not kept.
    """

    def __init__(self, py_func: Any, key: tuple[Any, ...]) -> None:
        super().__init__(py_func)
        self._key = repr(key)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return the kernel from disk, or None."""
        try:
            return super().load_overload(sig, target_context)
        except Exception as error:  # noqa: BLE001 - what another version wrote can raise anything
            logger.warning("a file in the cache of compiled code cannot be used and will be written again: %s", error)
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep a kernel on disk if possible."""
        try:
            super().save_overload(sig, data)
        except OSError as error:
            logger.warning("compiled code cannot be kept on disk: %s", error)

    def holds(self, sig: Any, target_context: Any) -> bool:
        """Return whether there is a file for a kernel; what is in it is not looked at."""
        self._choose_file(sig, target_context.codegen())
        return self._cache_file.path.exists()

    def _load_overload(self, sig: Any, target_context: Any) -> Any:
        self._choose_file(sig, target_context.codegen())
        return super()._load_overload(sig, target_context)

    def _save_overload(self, sig: Any, data: Any) -> None:
        self._choose_file(sig, data.codegen)
        super()._save_overload(sig, data)

    def _choose_file(self, sig: Any, codegen: Any) -> None:
        name = hashlib.sha256(repr(self._index_key(sig, codegen)).encode()).hexdigest()[:16]
        self._cache_file = _KernelFile(Path(self._cache_path, f"{self._impl.filename_base}-{name}.nbc"))

    def _index_key(self, sig: Any, codegen: Any) -> tuple[Any, ...]:
        return sig, codegen.magic_tuple(), self._key, package_digest(), numba.__version__
