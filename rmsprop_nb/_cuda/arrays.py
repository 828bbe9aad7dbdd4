"""Arrays on a CUDA device, of any library: checked, and as the vectors that kernels take."""

from __future__ import annotations

import math
import sys
import weakref
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rmsprop_nb._cuda.memory import ITEMSIZE, format_of
from rmsprop_nb._cuda.native import SIMULATED, cuda, current_device, device_holding, require_device, set_zero
from rmsprop_nb._training.arrays import Span, is_on_device

_REALS = ("float32", "float64")


class DeviceVector(NamedTuple):
    """The memory of an array on the device, as a vector."""

    address: int
    shape: tuple[int, ...]
    format: str  # of its numbers, see `rmsprop_nb._cuda.memory`
    stream: Any  # that its library works on; 0 is the default one

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def extent(self) -> tuple[int, int]:
        """Where the memory begins and ends."""
        return self.address, self.address + self.size * ITEMSIZE[self.format]

    def span(self, path: str, *, is_written: bool) -> Span:
        """Return the same with what is needed to find common memory."""
        return Span(*self.extent, is_written, path)


def device_vector(array: Any, path: str, *, writes: bool = False) -> DeviceVector:
    """Find the memory of an array on the device.

    Raises
    ------
    TypeError
        If it is not on a device, or its numbers are not floating-point numbers that the kernels know.
    ValueError
        If it is not contiguous, is to be written and cannot, or is not on the current device.
    """
    interface = _interface(array)
    if interface is None:
        kind = type(array).__name__
        msg = f"{path} must be on the device like the other arrays, got {kind}; move it with numba.cuda.to_device."
        raise TypeError(msg)
    shape, strides, (address, read_only) = interface["shape"], interface.get("strides"), interface["data"]
    number_format = format_of(np.dtype(interface["typestr"]))
    if number_format is None:
        kind = np.dtype(interface["typestr"])
        msg = f"{path} must be float32, float64, float16 or bfloat16, got dtype {kind}; convert it first."
        raise TypeError(msg)
    if strides is not None and not _is_contiguous(array):
        msg = f"{path} must be contiguous (C order), got strides {strides} for shape {shape}; copy it."
        raise ValueError(msg)
    if writes and read_only:
        msg = f"{path} must be writeable, because it is changed in place, got a read-only array; pass a copy."
        raise ValueError(msg)
    check_device(address, path)
    stream = interface.get("stream")
    stream = cuda.external_stream(stream) if stream else _current_stream_of_torch(array)
    return DeviceVector(address or 0, tuple(shape), number_format, stream)


def marks_of(arrays: Iterable[Any]) -> list[Any]:
    """Return what says in which memory arrays are, and how they lie there: equal marks, equal vectors, no new checks.

    Marks do not keep the memory alive. They take a fraction of the time of `device_vector`, which matters where a step
    takes the device a few microseconds.
    """
    torch = sys.modules.get("torch")
    tensor = () if torch is None else torch.Tensor
    marks = [current_device()]
    if torch is not None and torch.cuda.is_initialized():
        marks.append(torch.cuda.current_stream().cuda_stream)
    marks.extend(_mark_of_tensor(a) if isinstance(a, tensor) else _mark(a) for a in arrays)
    return marks


def _mark(a: Any) -> Any:
    if a is None:
        return None
    if getattr(a, "__cuda_ndarray__", False):  # Numba's stay where they are made
        return id(a), weakref.ref(a), a.stream  # an id may be given again, when the reference is dead
    return getattr(a, "__cuda_array_interface__", None) or object()  # an object is like no other


def _mark_of_tensor(a: Any) -> Any:
    if not a.is_cuda:
        return object()
    return a.data_ptr(), a.dtype, a.shape, a.stride(), a.device, a.requires_grad, a.is_contiguous()


def _interface(array: Any) -> Any:
    """Return the ``__cuda_array_interface__`` of an array, None if it is not on a device.

    Arrays of the simulator have no such attribute, so it is put together here.
    """
    if not SIMULATED:
        return getattr(array, "__cuda_array_interface__", None)
    if not is_on_device(array):
        return None
    contiguous, address = array.is_c_contiguous(), array.ctypes.data
    strides = None if contiguous else array.strides
    return {"shape": array.shape, "strides": strides, "typestr": array.dtype.str, "data": (address, False)}


def _is_contiguous(array: Any) -> bool:
    return not SIMULATED and bool(cuda.as_cuda_array(array, sync=False).is_c_contiguous())


def check_device(address: int, path: str) -> None:
    """Raise unless the memory is on the device that kernels are launched on."""
    holds, current = device_holding(address), current_device()
    if holds != current:
        msg = (
            f"{path} must be on the current CUDA device, {current}, but is on device {holds}; work within "
            f"'with numba.cuda.gpus[{holds}]:', or move it."
        )
        raise ValueError(msg)


def _current_stream_of_torch(array: Any) -> Any:
    """Return the stream on which PyTorch works now if the array is a tensor, whose interface does not name one."""
    torch = sys.modules.get("torch")  # imported by whatever made a tensor
    if torch is None or not isinstance(array, torch.Tensor):
        return 0
    handle = torch.cuda.current_stream(array.device).cuda_stream
    return cuda.external_stream(handle) if handle else 0


def check_vector(found: DeviceVector, shape: tuple[int, ...], number_format: str, path: str, other: str) -> None:
    """Raise unless a vector has the shape and the format of `other`, which are given."""
    if found.shape != shape:
        msg = f"{path} must have shape {shape}, that of {other}, got {found.shape}."
        raise ValueError(msg)
    if found.format != number_format:
        msg = f"{path} must be {number_format} like {other}, got {found.format}; convert it first."
        raise TypeError(msg)


def device_array(array: Any, path: str) -> Any:
    """Return an array of float32 or float64 on the device as Numba's, which shares its memory."""
    require_device()
    found = device_vector(array, path)
    if found.format not in _REALS:
        msg = f"{path} must be float32 or float64, got {found.format}; convert it first."
        raise TypeError(msg)
    shared = array if SIMULATED else cuda.as_cuda_array(array, sync=False)
    if not SIMULATED and not shared.stream:
        shared.stream = found.stream
    return shared


def device_zeros(size: int, dtype: Any, stream: Any = 0) -> Any:
    """Make a vector of zeros on the device."""
    made = cuda.device_array(size, dtype, stream=stream)
    set_zero(made, stream)
    return made


def host_values(found: DeviceVector, array: Any) -> NDArray[Any]:
    """Copy the numbers of an array, with the vector that was found for it, to the host; half precision to float32."""
    shared = array if SIMULATED else cuda.as_cuda_array(array, sync=False)
    values = to_host(shared, found.stream).reshape(-1)
    if found.format == "bfloat16":
        return (values.view(np.uint16).astype(np.uint32) << np.uint32(16)).view(np.float32)
    return values.astype(np.float32) if found.format == "float16" else values


def to_host(array: Any, stream: Any) -> NDArray[Any]:
    """Copy to the host what kernels on this stream leave in an array."""
    found: NDArray[Any] = array.copy_to_host(stream=stream)
    if stream:
        stream.synchronize()
    return found


def copy_like(array: Any) -> Any:
    """Copy an array on the device with its own library, or as Numba's if that makes read-only arrays, as JAX does."""
    for name in ("clone", "copy"):  # PyTorch's, and CuPy's
        if hasattr(array, name) and not SIMULATED:
            copied = getattr(array, name)()
            if not copied.__cuda_array_interface__["data"][1]:
                return copied
    found = device_array(array, "x0")
    copied = cuda.device_array(found.shape, found.dtype, stream=stream_of(found))
    copied.copy_to_device(found, stream=stream_of(found))
    return copied


def stream_of(array: Any) -> Any:
    """Return the stream that an array's library works on if its interface names one, otherwise the default one."""
    return 0 if SIMULATED else array.stream
