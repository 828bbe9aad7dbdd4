"""Depends on the inside of numba-cuda: compiled device code and the driver; other modules take `cuda` from here.

Imported only when a device is asked for, because importing numba.cuda takes as long as importing Numba.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import importlib.metadata
import importlib.util
import re
from collections.abc import Sequence
from typing import Any

from numba import config, cuda
from numba.core.errors import NumbaError

from rmsprop_nb._core.rule import times
from rmsprop_nb._kernels.float_bits import from_bits, magnitude_bits

COMPILE_ERRORS: tuple[type[Exception], ...] = (NumbaError, NotImplementedError)
"""What a compiler raises for code that it cannot compile; numba-cuda has its own classes beside Numba's."""

SIMULATED = bool(config.ENABLE_CUDASIM)
"""Whether NUMBA_ENABLE_CUDASIM was set when Numba was imported: kernels run as Python then, and arrays are NumPy's."""


def _missing_compiler() -> str:
    """Return why nothing can be compiled for a device, with the remedy; nothing if it can."""
    if importlib.util.find_spec("numba_cuda") is None:
        return (
            "CUDA needs numba-cuda, which is not installed; pip install 'rmsprop_nb[cuda13]', or [cuda12] for a driver "
            "of CUDA 12."
        )
    try:
        importlib.import_module("numba.cuda.np.arrayobj")
    except Exception as error:  # noqa: BLE001 - whatever its dependencies raise: AttributeError with too new a NumPy
        version = importlib.metadata.version
        return (
            f"numba-cuda {version('numba-cuda')} cannot be imported with NumPy {version('numpy')} and Numba "
            f"{version('numba')}: {type(error).__name__}: {error}. pip install 'rmsprop_nb[cuda13]' (or [cuda12]) "
            "chooses versions that fit."
        )
    return ""


MISSING = "" if SIMULATED else _missing_compiler()
"""Why nothing can be compiled for a device, if so: the modules can be imported, but nothing in them works."""

COMPILES = not SIMULATED and not MISSING
"""Whether there is a compiler for devices."""


def require_compiler() -> None:
    """Raise with the remedy unless kernels can be compiled, or simulated."""
    if SIMULATED and not config.DISABLE_JIT:
        msg = "the CUDA simulator runs kernels as Python: set NUMBA_DISABLE_JIT=1 beside NUMBA_ENABLE_CUDASIM=1."
        raise RuntimeError(msg)
    if MISSING:
        raise ImportError(MISSING)


def require_device() -> None:
    """Raise with the remedy unless kernels can be launched."""
    require_compiler()
    if not SIMULATED and not cuda.is_available():
        error = cuda.cuda_error() or "no device was found"
        msg = f"CUDA is not available: {error}; use device='cpu', or look at the driver with nvidia-smi."
        raise RuntimeError(msg)


def resident_threads() -> int:
    """Return the largest number of threads that can be at work on the device at the same time."""
    if SIMULATED:
        return 16  # few, so that each has to take one problem after another
    device = cuda.get_current_device()
    return int(device.MULTIPROCESSOR_COUNT * device.MAX_THREADS_PER_MULTIPROCESSOR)


def address_of(array: Any) -> int:
    """Return the address of the first element of an array on the device."""
    return int(array.ctypes.data) if SIMULATED else int(array.device_ctypes_pointer.value or 0)


def device_holding(address: int) -> int:
    """Return the number of the device that the memory at an address belongs to.

    Raises
    ------
    ValueError
        If it belongs to no device.
    """
    if SIMULATED or not address:  # arrays without elements have no memory
        return current_device()
    from numba.cuda.cudadrv.driver import CudaAPIError, binding, driver

    attribute = binding.CUpointer_attribute.CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL
    try:
        return int(driver.cuPointerGetAttribute(attribute, binding.CUdeviceptr(address)))
    except CudaAPIError as error:
        msg = f"no CUDA device has memory at {address:#x}: {error}"
        raise ValueError(msg) from error


def current_device() -> int:
    """Return the number of the device that kernels are launched on."""
    return 0 if SIMULATED else int(cuda.get_current_device().id)


def set_zero(array: Any, stream: Any) -> None:
    """Fill an array on the device with zeros, without waiting for that."""
    if SIMULATED:
        array[...] = 0
    elif array.size:
        from numba.cuda.cudadrv.driver import device_memset

        device_memset(array, 0, array.size * array.dtype.itemsize, stream or cuda.default_stream())


def release_memory() -> None:
    """Give memory that is no longer in use back to the device at once; numba-cuda waits until there is more of it."""
    if not SIMULATED:
        cuda.current_context().memory_manager.deallocations.clear()


def device_function(function: Any) -> Any:
    """Make a function callable in kernels, whether it is plain or compiled for the CPU."""
    function = getattr(function, "py_func", function)
    return function if SIMULATED else cuda.jit(device=True)(function)


def compiled_for(function: Any, arg_types: tuple[Any, ...], capability: tuple[int, int]) -> tuple[str, Any]:
    """Compile a device function; return its PTX and the type that it returns."""
    function = getattr(function, "py_func", function)
    _, arg_types = cuda.jit(device=True)(function).fold_argument_types(arg_types, {})  # *args are one, a tuple
    text, returned = cuda.compile(function, tuple(arg_types), device=True, abi="numba", cc=capability)
    return str(text), returned


def count_double(text: str) -> int:
    """Return the number of instructions in PTX that compute in double precision."""
    return len(re.findall(r"\b(?:add|sub|mul|fma|div|sqrt|rcp|neg|abs|cvt)\S*\.f64\b", text))


class PreparedLaunch:
    """A kernel, a grid, a stream and arguments, which are converted once for many launches.

    Numba converts and checks the arguments whenever a kernel is launched, which takes the host longer than a device
    needs to update a million elements. Only numbers can be changed between launches. Arrays among the arguments are
    kept alive.
    """

    def __init__(self, kernel: Any, blocks: int, threads: int, stream: Any, arguments: tuple[Any, ...]) -> None:
        self._arguments = list(arguments)
        if SIMULATED:
            self._kernel = kernel[blocks, threads, stream]
            return
        compiled, function = _loaded(kernel, tuple(map(kernel.typeof_pyval, arguments)))
        slots: list[Any] = []
        for numba_type, value in zip(compiled.argument_types, arguments, strict=True):
            compiled._prepare_args(numba_type, value, stream, [], slots)
        self._slots = [ctypes.c_int64(slot) if isinstance(slot, int) else slot for slot in slots]
        self._pointers = (ctypes.c_void_p * len(slots))(*map(ctypes.addressof, self._slots))
        from cuda.bindings import driver

        self._launch = functools.partial(
            driver.cuLaunchKernel, driver.CUfunction(function), blocks, 1, 1, threads, 1, 1, 0,
            driver.CUstream(int(stream)), ctypes.addressof(self._pointers), 0,
        )  # fmt: skip

    def set_last(self, values: Sequence[float]) -> None:
        """Set the last arguments, which are numbers and keep their types."""
        first = -len(values)
        if SIMULATED:
            self._arguments[first:] = [type(old)(new) for old, new in zip(self._arguments[first:], values, strict=True)]
            return
        for slot, value in zip(self._slots[first:], values, strict=True):
            slot.value = value

    def __call__(self) -> None:
        """Launch, without waiting for the device."""
        if SIMULATED:
            self._kernel(*self._arguments)
            return
        (error,) = self._launch()
        if error:
            msg = f"a kernel could not be launched: {error.name}."
            raise RuntimeError(msg)


def is_capturing(stream: Any) -> bool:
    """Return whether launches on this stream go into a CUDA graph instead of being carried out."""
    if SIMULATED or not stream:  # the default stream cannot be captured
        return False
    from cuda.bindings import driver

    _, found = driver.cuStreamIsCapturing(driver.CUstream(int(stream)))
    return bool(found != driver.CUstreamCaptureStatus.CU_STREAM_CAPTURE_STATUS_NONE)


def _loaded(kernel: Any, arg_types: tuple[Any, ...]) -> tuple[Any, int]:
    """Compile a kernel and load it onto the device; return it with the handle of its function."""
    try:
        compiled = kernel.compile(arg_types)
        return compiled, int(compiled._codelibrary.get_cufunc().handle)
    except Exception as error:
        if not re.search(
            r"UNSUPPORTED_PTX|NO_BINARY_FOR_GPU|INSUFFICIENT_DRIVER|PTX version|nvvmIRVersion", str(error)
        ):
            raise
        msg = (
            f"the CUDA driver cannot load what was compiled ({error}): it is older than the CUDA toolkit. Install a "
            "newer driver, or 'rmsprop_nb[cuda12]' for a driver of CUDA 12."
        )
        raise RuntimeError(msg) from error


if not COMPILES:
    exact_times = times

    def beginning(a: Any, size: Any) -> Any:
        """Return the first elements of a vector."""
        return a[:size]

else:
    from numba.cuda import cgutils, types
    from numba.cuda.core.errors import NumbaError as NumbaCudaError
    from numba.cuda.extending import intrinsic, overload
    from numba.cuda.np import arrayobj

    COMPILE_ERRORS = (*COMPILE_ERRORS, NumbaCudaError)

    @intrinsic
    def beginning(typingctx: Any, a: Any, size: Any) -> Any:  # noqa: ARG001
        """Return the first elements of a contiguous vector, and hide from the compiler how many there may be.

        It would unroll every loop over an array whose length is bounded, until registers spill.
        """
        signature = a(a, types.intp)

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            whole = context.make_array(sig.args[0])(context, builder, value=args[0])
            part = context.make_array(sig.return_type)(context, builder)
            arrayobj.populate_array(
                part, data=whole.data, shape=[args[1]], strides=cgutils.unpack_tuple(builder, whole.strides, 1),
                itemsize=whole.itemsize, meminfo=None,
            )  # fmt: skip
            return part._getvalue()

        return signature, codegen

    def exact_times(a, b):
        """Return a product that is rounded by itself and never becomes part of a fused multiply-add."""
        return a * b

    @overload(exact_times, target="cuda")
    def _exact_times(a, b):  # noqa: ARG001
        if a == types.float32:
            return lambda a, b: cuda.libdevice.fmul_rn(a, b)
        return lambda a, b: cuda.libdevice.dmul_rn(a, b)

    @overload(magnitude_bits, target="cuda")
    def _magnitude_bits(value):
        if value == types.float32:
            return lambda value: cuda.libdevice.float_as_int(abs(value))
        return lambda value: cuda.libdevice.double_as_longlong(abs(value))

    @overload(from_bits, target="cuda")
    def _from_bits(bits):
        if bits == types.int32:
            return lambda bits: cuda.libdevice.int_as_float(bits)
        return lambda bits: cuda.libdevice.longlong_as_double(bits)
