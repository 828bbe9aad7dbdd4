"""Everything that leans on Numba's internals, in one place.

Two things need them. A compiled loop calls the user's objective by the address of its native entry, so that the loop
itself is compiled once and cached on disk instead of once for every objective; and the disk cache is keyed by the
whole package, because Numba's own key knows only the file a function stands in.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import logging
from pathlib import Path
from typing import Any

import numpy as np
from llvmlite import ir
from numba import typeof, types
from numba.core import cgutils
from numba.core.caching import FunctionCache, IndexDataCacheFile
from numba.core.errors import NumbaError, TypingError
from numba.extending import intrinsic
from numba.np import arrayobj, numpy_support
from numpy.typing import NDArray

_WORD = 8

logger = logging.getLogger("rmsprop_nb")


class Unpackable(TypeError):
    """An argument has no layout that compiled code could read without Python."""


# -- calling an objective by address ----------------------------------------------------------------------------------


# Vectors go in as addresses and a length: words in registers, where two arrays of Numba's are fifteen on the stack.
OBJECTIVE_SIGNATURE = types.float64(types.intp, types.intp, types.intp, types.intp)
"""Signature of an adapter: ``(address of x, address of grad, size, address of the packed args) -> f``."""


def entry_address(dispatcher: Any) -> int:
    """Address of the native entry compiled for `OBJECTIVE_SIGNATURE`; valid while `dispatcher` is alive."""
    compiled = dispatcher.overloads[OBJECTIVE_SIGNATURE.args]
    return int(compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name))


def launches_threads(dispatcher: Any) -> bool:
    """Whether the code compiled for `OBJECTIVE_SIGNATURE` has parallel loops, in itself or in what it calls."""
    compiled = dispatcher.overloads[OBJECTIVE_SIGNATURE.args]
    with contextlib.suppress(NameError):
        return compiled.library._final_module.get_function("numba_parallel_for") is not None
    return False


@intrinsic
def load_vectors(typingctx: Any, x: Any, g: Any, size: Any, array_type_ref: Any) -> Any:
    """Make arrays of the two vectors that an adapter is given; they own nothing, the caller holds them."""
    array_type = array_type_ref.instance_type
    signature = types.UniTuple(array_type, 2)(x, g, size, array_type_ref)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        stride = context.get_constant(types.intp, context.get_abi_sizeof(context.get_data_type(array_type.dtype)))
        arrays = [_array(context, builder, array_type, address, [args[2]], [stride], stride) for address in args[:2]]
        return context.make_tuple(builder, sig.return_type, arrays)

    return signature, codegen


def return_type(dispatcher: Any, arg_types: tuple[Any, ...]) -> Any:
    """Type that a compiled function returns for these argument types; compiles it if need be."""
    dispatcher.compile(arg_types)
    return dispatcher.overloads[arg_types].signature.return_type


@intrinsic
def call_inlined(typingctx: Any, fun: Any, args: Any) -> Any:
    """Call a compiled function, and make its code part of the caller's: a call may cost more than a small objective."""
    call = fun.get_call_type(typingctx, args.types, {})
    signature = call.return_type(fun, args)

    def codegen(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        items = zip(cgutils.unpack_tuple(builder, values[1]), args.types, call.args, strict=True)
        cast = [context.cast(builder, value, given, wanted) for value, given, wanted in items]
        result = context.get_function(fun, call)(builder, cast)
        entry = fun.dispatcher.overloads[call.args].fndesc.llvm_func_name
        for instruction in itertools.chain.from_iterable(block.instructions for block in builder.function.blocks):
            if isinstance(instruction, ir.CallInstr) and instruction.callee.name == entry:
                instruction.attributes.add("alwaysinline")
        return result

    return signature, codegen


@intrinsic
def call_objective(typingctx: Any, address: Any, x: Any, g: Any, data: Any) -> Any:
    """Call the adapter at `address`; an exception raised in it leaves the calling loop as an exception."""
    signature = types.float64(types.intp, _vector(x), _vector(g), types.intp)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        status, result = _emit_call(context, builder, sig, args)
        with cgutils.if_unlikely(builder, status.is_error):
            context.call_conv.return_status_propagate(builder, status)
        return result

    return signature, codegen


@intrinsic
def try_objective(typingctx: Any, address: Any, x: Any, g: Any, data: Any) -> Any:
    """Call the adapter at `address` and return ``(raised, f)``; the exception itself is dropped."""
    signature = types.Tuple((types.boolean, types.float64))(types.intp, _vector(x), _vector(g), types.intp)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        status, result = _emit_call(context, builder, sig, args)
        raised = context.cast(builder, status.is_error, types.boolean, types.boolean)
        return context.make_tuple(builder, sig.return_type, [raised, result])

    return signature, codegen


def _vector(ty: Any) -> Any:
    """The type itself, if its elements lie side by side, as an adapter takes for granted."""
    if not (isinstance(ty, types.Array) and ty.ndim == 1 and ty.layout == "C"):
        msg = f"an objective takes contiguous vectors, not {ty}"
        raise TypingError(msg)
    return ty


def _emit_call(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    parameters = OBJECTIVE_SIGNATURE.args
    entry_type = context.call_conv.get_function_type(types.float64, parameters)
    entry = builder.inttoptr(args[0], entry_type.as_pointer())
    x, g = (arrayobj.make_array(sig.args[k])(context, builder, args[k]) for k in (1, 2))
    words = [*(builder.ptrtoint(array.data, context.get_value_type(types.intp)) for array in (x, g)), x.nitems, args[3]]
    return context.call_conv.call_function(builder, entry, types.float64, parameters, words)


@intrinsic
def copy_bytes(typingctx: Any, target: Any, source: Any, count: Any) -> Any:
    """Copy `count` bytes from address `source` to address `target`."""
    signature = types.void(types.intp, types.intp, types.intp)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        byte = context.get_value_type(types.voidptr)
        to, from_ = (builder.inttoptr(address, byte) for address in args[:2])
        cgutils.raw_memcpy(builder, to, from_, args[2], 1)
        return context.get_dummy_value()

    return signature, codegen


# -- packing args: Python writes words, compiled code reads them back --------------------------------------------------


@functools.lru_cache(maxsize=1024)
def _scalar_dtype(ty: Any) -> Any:
    """The dtype of a number or the like; None for other types. Numba takes long to say."""
    scalar = isinstance(ty, types.Number | types.Boolean | types.NPDatetime | types.NPTimedelta)
    return numpy_support.as_dtype(ty) if scalar else None


def _is_constant(ty: Any) -> bool:
    """Whether the type alone says everything, as for None and for compiled functions."""
    return isinstance(ty, types.NoneType | types.Dispatcher)


@functools.lru_cache(maxsize=1024)
def _words(ty: Any) -> int:
    """Number of 8-byte words that a value of type `ty` takes."""
    if isinstance(ty, types.BaseTuple):
        return sum(map(_words, ty.types))
    if isinstance(ty, types.Array):
        return 2 + 2 * ty.ndim
    if (dtype := _scalar_dtype(ty)) is not None:
        return -(-dtype.itemsize // _WORD)
    if _is_constant(ty):
        return 0
    msg = f"values of Numba type {ty} cannot be packed"
    raise Unpackable(msg)


def pack(args: tuple[Any, ...]) -> tuple[NDArray[np.int64], list[Any], Any]:
    """Lay `args` out for `load_args`.

    Arrays go in by pointer, so that compiled code sees later changes of their contents.

    Returns
    -------
    words : ndarray of int64
        The packed values.
    references : list
        Objects that own the memory pointed to; they must live as long as the words are used.
    args_type : numba type
        The type to read them back with.

    Raises
    ------
    Unpackable
        If Numba has no type for an argument, or the type is not a scalar, array, tuple, None or compiled function.
    """
    args_type = _type_of(args)
    words = np.zeros(max(_words(args_type), 1), np.int64)
    references: list[Any] = []
    _pack_into(words, args_type, args, references)
    return words, references, args_type


def _type_of(args: tuple[Any, ...]) -> Any:
    """Numba's type of `args`, which takes long to find, and is looked up when args like these were seen before."""
    key = _type_key(args)
    found = _TYPES.get(key) if key is not None else None
    if found is not None:
        return found
    try:
        found = typeof(args)
    except (ValueError, NumbaError) as error:
        raise Unpackable(str(error)) from error
    if key is not None and len(_TYPES) < _MOST_TYPES:
        _TYPES[key] = found
    return found


_TYPES: dict[Any, Any] = {}
_MOST_TYPES = 1024


def _type_key(value: Any) -> Any:
    """What the type of a value depends on, for the values that are met most; None for any other."""
    if type(value) is tuple:
        keys = tuple(map(_type_key, value))
        return None if None in keys else keys
    if type(value) is np.ndarray and value.dtype.isbuiltin == 1:
        flags = value.flags
        return value.dtype.str, value.ndim, flags.c_contiguous, flags.f_contiguous, flags.aligned, flags.writeable
    return type(value) if type(value) in (float, bool, np.float64, np.float32) else None


def word_offsets(args_type: Any, start: int = 0) -> list[int]:
    """Offset in words of each item of a packed tuple, and of its end."""
    return list(itertools.accumulate(map(_words, args_type.types), initial=start))


def _pack_into(words: NDArray[np.int64], ty: Any, value: Any, references: list[Any]) -> None:
    if (dtype := _scalar_dtype(ty)) is not None:
        words.view(np.uint8)[: dtype.itemsize].view(dtype)[0] = value
    elif isinstance(ty, types.BaseTuple):
        start = 0
        for item_type, item in zip(ty.types, value, strict=True):
            stop = start + _words(item_type)
            _pack_into(words[start:stop], item_type, item, references)
            start = stop
    elif isinstance(ty, types.Array):
        words[:] = [value.itemsize, value.ctypes.data, *value.shape, *value.strides]
        references.append(value)
    else:
        references.append(value)


@intrinsic
def load_args(typingctx: Any, data: Any, args_type_ref: Any) -> Any:
    """Read the packed args at address `data` back as a tuple."""
    args_type = args_type_ref.instance_type
    signature = args_type(data, args_type_ref)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _load(context, builder, args_type, args[0], 0)

    return signature, codegen


def _load(context: Any, builder: Any, ty: Any, base: Any, offset: int) -> Any:
    """Emit code that reads a value of type `ty` at `offset` words from `base`."""
    if isinstance(ty, types.BaseTuple):
        items = []
        for item_type in ty.types:
            items.append(_load(context, builder, item_type, base, offset))
            offset += _words(item_type)
        return context.make_tuple(builder, ty, items)
    if isinstance(ty, types.Array):
        return _load_array(context, builder, ty, base, offset)
    if _is_constant(ty):
        return context.get_dummy_value()
    model = context.data_model_manager[ty]
    return model.load_from_data_pointer(builder, _pointer(context, builder, base, offset, model.get_data_type()))


def _pointer(context: Any, builder: Any, base: Any, offset: int, llvm_type: Any) -> Any:
    address = builder.add(base, context.get_constant(types.intp, offset * _WORD))
    return builder.inttoptr(address, llvm_type.as_pointer())


def _load_array(context: Any, builder: Any, ty: Any, base: Any, offset: int) -> Any:
    intp = context.get_value_type(types.intp)
    words = [builder.load(_pointer(context, builder, base, offset + k, intp)) for k in range(2 + 2 * ty.ndim)]
    itemsize, address, *rest = words
    return _array(context, builder, ty, address, rest[: ty.ndim], rest[ty.ndim :], itemsize)


def _array(context: Any, builder: Any, ty: Any, address: Any, shape: Any, strides: Any, itemsize: Any) -> Any:
    """Build an array that owns nothing: no reference counts are touched, the caller holds the real array."""
    array = arrayobj.make_array(ty)(context, builder)
    data = builder.inttoptr(address, context.get_data_type(ty.dtype).as_pointer())
    arrayobj.populate_array(array, data=data, shape=shape, strides=strides, itemsize=itemsize, meminfo=None)
    return array._getvalue()


# -- the disk cache ---------------------------------------------------------------------------------------------------


@functools.cache
def package_digest() -> str:
    """Hash of the package's sources: a kernel compiled from an older rule must not be loaded."""
    digest = hashlib.sha256()
    package = Path(__file__).parents[1]
    for path in sorted(package.rglob("*.py")):
        digest.update(path.relative_to(package).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


class PackageCache(FunctionCache):
    """Numba's disk cache with keys and files of ours.

    Numba keys a closure by the pickled contents of its cells, which for a compiled function change from process to
    process, so that the cache never hits; and it does not notice a change in another file of the package. All closures
    of a function share an index that numbers their files, and two processes that write at once can take the same
    number: here every kernel has files of its own. What cannot be read is compiled again, what cannot be written is not
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
            logger.warning("a damaged file in the cache of compiled code is written again: %r", error)
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep a kernel on disk if that is possible."""
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
