"""Trees of arrays in a file: an .npz without pickle, written completely or not at all, and checked when it is read.

The format is that of ``np.savez``: an uncompressed zip archive of .npy members. The member "structure" describes in
JSON the lists, dicts and numbers that the arrays belong to. `read` accepts only what `write` can have written. It
parses the headers itself, because NumPy's reader evaluates them as Python, accepts pickles and allocates memory before
it checks.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import re
import secrets
import shutil
import stat
import struct
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

FORMAT = 1
_STRUCTURE = "structure"
_PIECE = 2**20  # bytes copied at a time
_STALE_SECONDS = 3600.0  # a temporary file that has not grown for this long was left by a killed process

# Numbers and text of fixed size, as named in the header of a .npy file of version 1.0.
_DTYPE = r"[<>|](?:b1|[iu][1248]|f[248]|c8|c16|U[1-9]\d{0,8})"
_HEADER = re.compile(rf"{{'descr': '({_DTYPE})', 'fortran_order': (True|False), 'shape': \(([\d, ]*)\), }} *\n")
_MAGIC = b"\x93NUMPY\x01\x00"


def as_tree(obj: Any) -> dict[str, Any]:
    """Return the tree of an object that has a method ``to_arrays() -> dict of arrays``."""
    return {"class": type(obj).__name__, "arrays": obj.to_arrays()}


# -- writing ----------------------------------------------------------------------------------------------------------


def write(path: str | os.PathLike[str], tree: Any) -> None:
    """Write a tree of dicts with string keys, lists, tuples, arrays, numbers, strings and None.

    An existing file is replaced only when the new one is complete and on disk; after an error it is unchanged.
    """
    arrays: dict[str, NDArray[Any]] = {}
    structure = json.dumps({"format": FORMAT, "tree": _encode(tree, "", arrays)})
    arrays[_STRUCTURE] = np.array(structure)
    target = Path(os.path.realpath(os.fsdecode(path)))  # a symbolic link is kept, and the file it points to is replaced
    if target.exists() and not target.is_file():
        raise OSError(errno.EINVAL, "Not a regular file", str(target))
    _remove_stale(target)
    temporary = target.with_name(f"{_temporary_prefix(target)}{secrets.token_hex(4)}.tmp")
    try:
        # Not tempfile: only the owner can read its files, and a checkpoint should be as readable as any other file.
        with temporary.open("xb") as file:
            _write_members(file, arrays)
            file.flush()
            os.fsync(file.fileno())
        if target.exists():
            shutil.copymode(target, temporary)
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_directory(target.parent)


def _temporary_prefix(target: Path) -> str:
    """Return how the names of temporary files for this one begin; file systems limit the bytes of a name to 255."""
    return f".{os.fsencode(target.name)[:200].decode(errors='ignore')}."


def _write_members(file: BinaryIO, arrays: dict[str, NDArray[Any]]) -> None:
    """Write like ``np.savez``, but allow any array name and close the archive properly when the disk is full."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def _remove_stale(target: Path) -> None:
    """Remove temporary files left by processes that were killed while writing this file."""
    name = re.compile(re.escape(_temporary_prefix(target)) + r"[0-9a-f]{8}\.tmp")
    with contextlib.suppress(OSError):
        for path in target.parent.iterdir():
            if name.fullmatch(path.name) and time.time() - path.stat().st_mtime > _STALE_SECONDS:
                path.unlink()


def _sync_directory(directory: Path) -> None:
    """Flush the new file name to disk, on systems where a directory can be opened."""
    with contextlib.suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _encode(value: Any, name: str, arrays: dict[str, NDArray[Any]]) -> Any:
    """Return a tree as JSON-compatible objects; put its arrays into `arrays`, and their names in place of them."""
    if isinstance(value, np.ndarray):
        if not re.fullmatch(_DTYPE, value.dtype.str):
            msg = f"only arrays of numbers and text can be saved, got dtype {value.dtype} at {name or 'the top'}."
            raise TypeError(msg)
        key = name or "array"
        if not key.isprintable() or "\\" in key:  # a zip archive would return such a member name changed
            key = "array"
        while key in arrays or key == _STRUCTURE:
            key += "_"
        arrays[key] = value
        return {"array": key}
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            msg = f"only dicts with string keys can be saved, got {list(value)[:5]!r} at {name or 'the top'}."
            raise TypeError(msg)
        return {"dict": {key: _encode(item, f"{name}/{key}".lstrip("/"), arrays) for key, item in value.items()}}
    if isinstance(value, list | tuple):
        items = [_encode(item, f"{name}/{k}".lstrip("/"), arrays) for k, item in enumerate(value)]
        return {"tuple" if isinstance(value, tuple) else "list": items}
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return {"value": value}
    msg = f"{type(value).__name__} cannot be saved (at {name or 'the top'})."
    raise TypeError(msg)


# -- reading ----------------------------------------------------------------------------------------------------------


def read(path: str | os.PathLike[str]) -> Any:
    """Return the tree that `write` wrote.

    Raises
    ------
    OSError
        If the file cannot be opened or read.
    ValueError
        If it is not such a file, is damaged, or is of a later version.
    """
    with _open_regular(os.fsdecode(path)) as file, damage(path):
        arrays = _read_members(file, os.fstat(file.fileno()).st_size)
        structure = json.loads(str(arrays.pop(f"{_STRUCTURE}.npy")))
        version = structure["format"]
        if version != FORMAT:
            msg = f"its format is {version!r}, and this version of rmsprop_nb reads format {FORMAT}; update rmsprop_nb."
            raise ValueError(msg)
        tree = _decode(structure["tree"], arrays)
        if arrays:
            msg = f"it has a member {next(iter(arrays))!r} that its structure does not name."
            raise ValueError(msg)
    return tree


def _open_regular(path: str) -> BinaryIO:
    """Open a file, but no pipe, which might never have anything to read, and no device, which might have no end."""
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    raise OSError(errno.EINVAL, "Not a regular file", path)


@contextlib.contextmanager
def damage(path: Any) -> Iterator[None]:
    """Turn every exception that zipfile and json raise for a damaged file into one kind of error."""
    try:
        yield
    except KeyError as error:
        raise _damaged(path, f"it has no {error}") from error
    except OSError as error:
        if error.errno != errno.EINVAL:  # zipfile seeks to a negative position if the file says so
            raise
        raise _damaged(path, error) from error
    except (ValueError, TypeError, AttributeError, IndexError, ArithmeticError, EOFError, RecursionError,
            NotImplementedError, RuntimeError, struct.error, zipfile.BadZipFile) as error:  # fmt: skip
        raise _damaged(path, error) from error


def _damaged(path: Any, why: object) -> ValueError:
    reason = str(why).rstrip(".")
    return ValueError(
        f"path must be a file that rmsprop_nb has written, complete and unchanged; {str(path)!r} is not: {reason}."
    )


def _read_members(file: BinaryIO, file_size: int) -> dict[str, NDArray[Any]]:
    """Read every array, without ever allocating more memory than the size of the file."""
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            msg = "it is compressed."
            raise ValueError(msg)
        if sum(member.file_size for member in members) > file_size:
            msg = "its members are larger than the file."
            raise ValueError(msg)
        if len({member.filename for member in members}) != len(members):
            msg = "it has two members of the same name."
            raise ValueError(msg)
        return {member.filename: _read_member(archive, member) for member in members}


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray[Any]:
    with archive.open(member) as file:
        header = _read_header(file, member)
        if math.prod(header.shape) * header.dtype.itemsize != member.file_size - header.size:
            msg = (
                f"its member {member.filename!r} has {member.file_size - header.size} bytes, which does not match its "
                f"shape {header.shape} and dtype {header.dtype}."
            )
            raise ValueError(msg)
        array = np.empty(header.shape, header.dtype, order=header.order)
        buffer = memoryview(array.reshape(-1, order="A").view(np.uint8))  # type: ignore[arg-type]
        for begin in range(0, len(buffer), _PIECE):
            piece = buffer[begin : begin + _PIECE]
            if file.readinto(piece) != len(piece):  # type: ignore[attr-defined]
                msg = f"its member {member.filename!r} ends too early."
                raise ValueError(msg)
        file.read(1)  # zipfile verifies the checksum when it reaches the end
    _check_items(array, member)
    return array


def _check_items(array: NDArray[Any], member: zipfile.ZipInfo) -> None:
    """Refuse bytes that are not valid booleans or characters: NumPy accepts them and fails later."""
    items: Any = array.reshape(-1, order="A")
    if array.dtype.kind == "b" and (items.view(np.uint8) > 1).any():
        msg = f"its member {member.filename!r} has truth values other than 0 and 1."
        raise ValueError(msg)
    if array.dtype.kind == "U" and (items.view(f"{array.dtype.byteorder}u4") > sys.maxunicode).any():
        msg = f"its member {member.filename!r} has characters that do not exist."
        raise ValueError(msg)


class _Header(NamedTuple):
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    order: Any
    size: int


def _read_header(file: Any, member: zipfile.ZipInfo) -> _Header:
    """Parse the header of a .npy file of version 1.0."""
    start = file.read(10)
    length = int.from_bytes(start[8:], "little")
    match = _HEADER.fullmatch(file.read(length).decode("latin-1"))
    if start[:8] != _MAGIC or match is None:
        msg = f"its member {member.filename!r} is not an array of numbers or text."
        raise ValueError(msg)
    dtype, fortran_order, shape = match.groups()
    sizes = tuple(int(size) for size in shape.replace(" ", "").split(",") if size)
    return _Header(sizes, np.dtype(dtype), "F" if fortran_order == "True" else "C", 10 + length)


def _decode(node: Any, arrays: dict[str, NDArray[Any]]) -> Any:
    """Undo `_encode`; remove each array from `arrays` as it is used."""
    ((form, content),) = node.items()
    if form == "array":
        return arrays.pop(f"{content}.npy")
    if form == "dict":
        return {key: _decode(item, arrays) for key, item in content.items()}
    if form in ("list", "tuple"):
        items = [_decode(item, arrays) for item in content]
        return tuple(items) if form == "tuple" else items
    if form == "value" and (content is None or isinstance(content, bool | int | float | str)):
        return content
    msg = f"its structure has {form!r}, which is unknown."
    raise ValueError(msg)
