"""The package's jit decorators: the only place where compile options are chosen."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

from numba import config, njit
from numba.core.compiler import Compiler
from numba.core.registry import CPUDispatcher

from rmsprop_nb._numba.compile_interrupts import defer_interrupts
from rmsprop_nb._numba.compile_notice import announce_compilations
from rmsprop_nb._numba.disk_cache import PackageCache
from rmsprop_nb._numba.linked_code import WITHOUT_ENTRY, LinkedCompiler, ReductionCompiler
from rmsprop_nb._numba.packing import load_args, pack

JIT_ENABLED = not config.DISABLE_JIT

defer_interrupts()
announce_compilations()

# error_model="numpy": by default Numba tests every division, so the loop stays scalar, and an eps of 0 would raise in
# the middle of an update. No fastmath: results are IEEE except where a sum may be reordered. No reference counts
# (_nrt): kernels allocate and keep nothing, and counting twelve arrays at every call costs more than a small update.
_OPTIONS: dict[str, Any] = {"error_model": "numpy", "nogil": True, "forceinline": True}


class _Internal(CPUDispatcher):
    """A function that is compiled for compiled code alone; a call from Python runs it as Python."""

    def __call__(self, *args: Any) -> Any:
        return self.py_func(*args)


class _Pinned(_Internal):
    """A function whose last digits depend on the compiler: a call from Python runs compiled code, too."""

    def __call__(self, *args: Any) -> Any:
        words, _, args_type = pack(args)
        return _entry(self, args_type)(words.ctypes.data)


@functools.cache
def _entry(function: _Pinned, args_type: Any) -> Any:
    """Make a way into compiled code from Python; the arguments are packed, which compiles faster than any other way."""

    @kernel_jit("entry", function.py_func.__module__, function.py_func.__qualname__, args_type)
    def entry(data: Any) -> Any:
        return function(*load_args(data, args_type))

    return entry


def _inlined(function: Any, kind: type[_Internal] = _Internal, pipeline: Any = LinkedCompiler, **options: Any) -> Any:
    return _internal(function, pipeline, kind, **_OPTIONS, _nrt=False, **options)


def _internal(function: Any, pipeline: type[Compiler], kind: type[_Internal] = _Internal, **options: Any) -> Any:
    if not JIT_ENABLED:
        return function
    return kind(py_func=function, targetoptions=WITHOUT_ENTRY | options, pipeline_class=pipeline)


def inline_jit(function: Any) -> Any:
    """Compile a scalar function or a loop that is inlined into a kernel, with its constants folded in."""
    return _inlined(function)


def pinned_jit(function: Any) -> Any:
    """Compile as `inline_jit` does a function of which Python would compute other last digits."""
    return _inlined(function, _Pinned)


def reduction_jit(function: Any) -> Any:
    """Compile a function with sums: they vectorise only if the additions may be reordered."""
    return _inlined(function, _Pinned, ReductionCompiler, fastmath={"reassoc"})


def user_jit(function: Any) -> Any:
    """Compile a function around a user's objective, for each objective anew, for compiled code alone."""
    return _internal(function, LinkedCompiler, error_model="numpy", nogil=True)


shared_jit = njit(error_model="numpy", nogil=True)
"""Decorator for functions around a user's that Python calls, too: compiled for each of them anew."""


def kernel_jit(*key: Any, parallel: bool = False, allocates: bool = False) -> Callable[[Callable[..., Any]], Any]:
    """Compile a kernel and keep it on disk under `key`, which must contain everything its closure depends on."""

    def decorate(function: Callable[..., Any]) -> Any:
        dispatcher = njit(**_OPTIONS, parallel=parallel, _nrt=parallel or allocates, no_cfunc_wrapper=True)(function)
        if JIT_ENABLED:
            _enable_cache(dispatcher, key)
        return dispatcher

    return decorate


def _enable_cache(dispatcher: Any, key: tuple[Any, ...]) -> None:
    try:
        dispatcher._cache = PackageCache(dispatcher.py_func, key)
    except RuntimeError:  # no directory is writable: compile in every process
        _warn_without_cache()


def is_compiled(kernel: Any, *args: Any) -> bool:
    """Return whether a kernel has been compiled for arguments of these types, in this process or on disk."""
    signature = tuple(map(kernel.typeof_pyval, args))
    if signature in kernel.overloads:
        return True
    return isinstance(kernel._cache, PackageCache) and kernel._cache.holds(signature, kernel.targetctx)


@functools.cache
def _warn_without_cache() -> None:
    """Warn once per process."""
    warnings.warn(
        "No directory for compiled code can be written to, so it is compiled anew in every process; "
        "set NUMBA_CACHE_DIR to a private directory.",
        RuntimeWarning,
        stacklevel=4,
    )


def adapter_jit(signature: Any) -> Callable[[Callable[..., Any]], Any]:
    """Compile the adapter around a user's objective, eagerly and for one signature; it is called by its native entry.

    It is not cached: an entry would be written for every objective and never be found again.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        adapter = _internal(function, Compiler, error_model="numpy", nogil=True)
        adapter.compile(signature)
        adapter.disable_compile()
        return adapter

    return decorate
