"""Leans on numba-cuda: what compiled device code needs and its public functions do not give.

Imported only when somebody asks for a device, because importing numba.cuda takes as long as importing Numba.
"""

from __future__ import annotations

import importlib.util
import re
from typing import Any

from numba import config, cuda
from numba.core.errors import NumbaError

from rmsprop_nb._native import from_bits, magnitude_bits
from rmsprop_nb._rule import times

__all__ = [
    "SIMULATED",
    "WIDTH",
    "address_of",
    "beginning",
    "compiled_for",
    "count_double",
    "device_function",
    "exact_times",
    "load_wide",
    "require_compiler",
    "require_device",
    "resident_threads",
    "store_wide",
]

COMPILE_ERRORS: tuple[type[Exception], ...] = (NumbaError, NotImplementedError)
"""What a compiler raises for code that it cannot compile; numba-cuda has classes of its own beside Numba's."""

SIMULATED = bool(config.ENABLE_CUDASIM)
"""Whether NUMBA_ENABLE_CUDASIM was set when Numba was imported: kernels run as Python then, and arrays are NumPy's."""

COMPILES = importlib.util.find_spec("numba_cuda") is not None
"""Whether there is a compiler for devices; without one the modules can be imported, and nothing in them be used."""

WIDTH = {4: 4, 8: 2}
"""Elements of so many bytes that one 128-bit access moves."""


def require_compiler() -> None:
    """Raise with the remedy unless kernels can be compiled, or simulated."""
    if SIMULATED and not config.DISABLE_JIT:
        msg = "the CUDA simulator runs kernels as Python: set NUMBA_DISABLE_JIT=1 beside NUMBA_ENABLE_CUDASIM=1."
        raise RuntimeError(msg)
    if not SIMULATED and not COMPILES:
        msg = (
            "CUDA needs numba-cuda, which is not installed; pip install 'rmsprop_nb[cuda13]', or [cuda12] for a driver "
            "of CUDA 12."
        )
        raise ImportError(msg)


def require_device() -> None:
    """Raise with the remedy unless kernels can be launched."""
    require_compiler()
    if not SIMULATED and not cuda.is_available():
        error = cuda.cuda_error() or "no device was found"
        msg = f"CUDA is not available: {error}; use device='cpu', or look at the driver with nvidia-smi."
        raise RuntimeError(msg)


def resident_threads() -> int:
    """Most threads that the device has at work at the same time."""
    if SIMULATED:
        return 16  # few, so that they have to take one problem after another
    device = cuda.get_current_device()
    return int(device.MULTIPROCESSOR_COUNT * device.MAX_THREADS_PER_MULTI_PROCESSOR)


def address_of(array: Any) -> int:
    """Address of the first element of an array on the device."""
    return int(array.ctypes.data) if SIMULATED else int(array.device_ctypes_pointer.value or 0)


def device_function(function: Any) -> Any:
    """Make a function callable in kernels, whether it is plain or compiled for the CPU."""
    function = getattr(function, "py_func", function)
    return function if SIMULATED else cuda.jit(device=True)(function)


def compiled_for(function: Any, arg_types: tuple[Any, ...], capability: tuple[int, int]) -> tuple[str, Any]:
    """PTX of a device function, and the type that it returns."""
    text, returned = cuda.compile(
        getattr(function, "py_func", function), arg_types, device=True, abi="numba", cc=capability
    )
    return str(text), returned


def count_double(text: str) -> int:
    """Number of instructions in PTX that compute in double precision."""
    return len(re.findall(r"\b(?:add|sub|mul|fma|div|sqrt|rcp|neg|abs|cvt)\S*\.f64\b", text))


if SIMULATED or not COMPILES:
    exact_times = times

    def load_wide(a: Any, j: Any) -> tuple[Any, ...]:
        """Return elements ``WIDTH*j, ...`` of a contiguous array."""
        width = WIDTH[a.dtype.itemsize]
        return tuple(a[width * int(j) + k] for k in range(width))

    def store_wide(a: Any, j: Any, values: tuple[Any, ...]) -> None:
        """Store what `load_wide` loads."""
        for k, value in enumerate(values):
            a[len(values) * int(j) + k] = value

    def beginning(a: Any, size: Any) -> Any:
        """Return the first elements of a vector."""
        return a[:size]

else:
    from llvmlite import ir
    from numba.cuda import cgutils, types
    from numba.cuda.core.errors import NumbaError as NumbaCudaError
    from numba.cuda.extending import intrinsic, overload
    from numba.cuda.np import arrayobj

    COMPILE_ERRORS = (*COMPILE_ERRORS, NumbaCudaError)

    def _vector_pointer(context: Any, builder: Any, array_type: Any, array: Any, j: Any, width: int) -> Any:
        base = context.make_array(array_type)(context, builder, value=array).data
        vector = ir.VectorType(context.get_data_type(array_type.dtype), width)
        return builder.gep(builder.bitcast(base, vector.as_pointer(getattr(base.type, "addrspace", 0))), [j]), vector

    @intrinsic
    def load_wide(typingctx: Any, a: Any, j: Any) -> Any:  # noqa: ARG001
        """Return elements ``WIDTH*j, ...`` of a contiguous array by one 128-bit access, aligned to 16 bytes."""
        count = WIDTH[a.dtype.bitwidth // 8]
        signature = types.UniTuple(a.dtype, count)(a, j)

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            pointer, _ = _vector_pointer(context, builder, sig.args[0], args[0], args[1], count)
            vector = builder.load(pointer, align=16)
            items = [builder.extract_element(vector, ir.Constant(ir.IntType(32), k)) for k in range(count)]
            return context.make_tuple(builder, sig.return_type, items)

        return signature, codegen

    @intrinsic
    def store_wide(typingctx: Any, a: Any, j: Any, values: Any) -> Any:  # noqa: ARG001
        """Store what `load_wide` loads."""
        signature = types.void(a, j, values)

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            pointer, vector_type = _vector_pointer(context, builder, sig.args[0], args[0], args[1], values.count)
            vector = ir.Constant(vector_type, ir.Undefined)
            for k, item in enumerate(cgutils.unpack_tuple(builder, args[2], values.count)):
                vector = builder.insert_element(vector, item, ir.Constant(ir.IntType(32), k))
            builder.store(vector, pointer, align=16)
            return context.get_dummy_value()

        return signature, codegen

    @intrinsic
    def beginning(typingctx: Any, a: Any, size: Any) -> Any:  # noqa: ARG001
        """Return the first elements of a contiguous vector, of which the compiler cannot tell how many there may be.

        It unrolls every loop over an array whose length is bounded, until registers spill.
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

    def exact_times(a, b):  # type: ignore[no-untyped-def]
        """Product that is rounded by itself and never becomes part of a fused multiply-add."""
        return a * b

    @overload(exact_times, target="cuda")
    def _exact_times(a, b):  # type: ignore[no-untyped-def]  # noqa: ARG001
        if a == types.float32:
            return lambda a, b: cuda.libdevice.fmul_rn(a, b)
        return lambda a, b: cuda.libdevice.dmul_rn(a, b)

    @overload(magnitude_bits, target="cuda")
    def _magnitude_bits(value):  # type: ignore[no-untyped-def]
        if value == types.float32:
            return lambda value: cuda.libdevice.float_as_int(abs(value))
        return lambda value: cuda.libdevice.double_as_longlong(abs(value))

    @overload(from_bits, target="cuda")
    def _from_bits(bits):  # type: ignore[no-untyped-def]
        if bits == types.int32:
            return lambda bits: cuda.libdevice.int_as_float(bits)
        return lambda bits: cuda.libdevice.longlong_as_double(bits)
