"""Trees of arrays in a file: an .npz without pickle, written at once or not at all, and read with suspicion."""

from __future__ import annotations

import contextlib
import json
import math
import os
import secrets
import shutil
import zipfile
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

__all__ = ["read", "write"]

FORMAT = 1
_STRUCTURE = "structure"
_MEMBER_OVERHEAD = 4096


def write(path: str | os.PathLike[str], tree: Any) -> None:
    """Write a tree of dicts with string keys, lists, tuples, arrays, numbers, strings and None.

    A file that is there is replaced only when the new one is complete and on the disk; on an error it is as it was.
    """
    arrays: dict[str, NDArray[Any]] = {}
    structure = json.dumps({"format": FORMAT, "tree": _encode(tree, "", arrays)})
    arrays[_STRUCTURE] = np.array(structure)
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    # Not tempfile: its files are for the owner alone, and a checkpoint is as readable as any other file.
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    try:
        with os.fdopen(descriptor, "wb") as file:
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


def _write_members(file: BinaryIO, arrays: dict[str, NDArray[Any]]) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def _sync_directory(directory: Path) -> None:
    """Bring the new name to the disk, where the system lets a directory be opened."""
    with contextlib.suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _encode(value: Any, name: str, arrays: dict[str, NDArray[Any]]) -> Any:
    """JSON for a tree; arrays go into `arrays`, and their names into the JSON."""
    if isinstance(value, np.ndarray):
        if value.dtype.hasobject:
            msg = f"only arrays of numbers can be saved, got dtype {value.dtype} at {name or 'the top'}."
            raise TypeError(msg)
        key = name or "array"
        while key in arrays or key == _STRUCTURE:
            key += "_"
        arrays[key] = value
        return {"array": key}
    if isinstance(value, dict):
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


def read(path: str | os.PathLike[str]) -> Any:
    """Return the tree that `write` wrote.

    Raises
    ------
    OSError
        If the file cannot be opened.
    ValueError
        If it is not such a file, is damaged, or is of a later version.
    """
    try:
        with Path(path).open("rb") as file, zipfile.ZipFile(file) as archive:
            size = os.fstat(file.fileno()).st_size
            arrays = {member.filename: _read_member(archive, member, size) for member in archive.infolist()}
        structure = json.loads(str(arrays.pop(f"{_STRUCTURE}.npy")))
        version = structure["format"]
        if version != FORMAT:
            msg = f"its format is {version!r}, and this version of rmsprop_nb reads format {FORMAT}"
            raise ValueError(msg)
        tree = _decode(structure["tree"], arrays)
        if arrays:
            msg = f"it has a member {next(iter(arrays))!r} that its structure does not name"
            raise ValueError(msg)
    except OSError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, EOFError, RecursionError, MemoryError,
            NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:  # fmt: skip
        msg = f"path must be a file that rmsprop_nb has written, complete and unchanged; {str(path)!r} is not: {error}."
        raise ValueError(msg) from error
    return tree


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, file_size: int) -> NDArray[Any]:
    """Read one array; nothing larger than the file itself is ever asked of the memory."""
    if member.compress_type != zipfile.ZIP_STORED or member.file_size > file_size:
        msg = f"its member {member.filename!r} is compressed or larger than the file"
        raise ValueError(msg)
    with archive.open(member) as file:
        shape, fortran_order, dtype = _read_header(file)
        count = math.prod(shape)
        data = file.read()
    if dtype.hasobject or min(shape, default=0) < 0 or count * dtype.itemsize != len(data):
        msg = f"its member {member.filename!r} has {len(data)} bytes for shape {shape} and dtype {dtype}"
        raise ValueError(msg)
    flat = np.frombuffer(bytearray(data), dtype, count) if count and dtype.itemsize else np.empty(count, dtype)
    return flat.reshape(shape, order="F" if fortran_order else "C")


def _read_header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    stream: BinaryIO = file
    version = np.lib.format.read_magic(stream)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        msg = f"it has an array in version {version} of NumPy's format"
        raise ValueError(msg)
    return readers[version](stream, max_header_size=_MEMBER_OVERHEAD)


def _decode(node: Any, arrays: dict[str, NDArray[Any]]) -> Any:
    """Undo `_encode`; every array is taken out of `arrays` once."""
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
    msg = f"its structure has {form!r}, which is unknown"
    raise ValueError(msg)
