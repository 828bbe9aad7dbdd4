"""Arrays on a CUDA device, of whatever library: checked, and as the vectors that kernels take."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numba import cuda
from numpy.typing import NDArray

from rmsprop_nb._arrays import check_like, is_on_device
from rmsprop_nb._cuda_native import SIMULATED, require_device
from rmsprop_nb._cuda_update import BLOCK, grid, largest_bits

__all__ = ["copy_like", "device_array", "device_vector", "device_zeros", "largest_of", "stream_of", "to_host"]

_FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


def device_array(array: Any, place: str, *, writes: bool = False) -> Any:
    """Return an array on the device as Numba's, which shares its memory.

    Raises
    ------
    TypeError
        If it is not on a device, or not float32 or float64.
    ValueError
        If it is not contiguous, or is to be written and cannot.
    """
    if not is_on_device(array):
        kind = type(array).__name__
        msg = f"{place} must be on the device like the other arrays, got {kind}; move it with numba.cuda.to_device."
        raise TypeError(msg)
    require_device()
    found = array if SIMULATED else cuda.as_cuda_array(array, sync=False)
    if np.dtype(found.dtype) not in _FLOATS:
        msg = f"{place} must be float32 or float64, got dtype {found.dtype}; convert it first."
        raise TypeError(msg)
    if not found.is_c_contiguous():
        msg = f"{place} must be contiguous (C order), got strides {found.strides} for shape {found.shape}; copy it."
        raise ValueError(msg)
    if writes and not SIMULATED and array.__cuda_array_interface__["data"][1]:
        msg = f"{place} must be writeable, because it is changed in place, got a read-only array; pass a copy."
        raise ValueError(msg)
    if not SIMULATED and not found.stream:
        found.stream = _current_stream_of_torch(array)
    return found


def _current_stream_of_torch(array: Any) -> Any:
    """The stream on which PyTorch works now, if the array is a tensor: its interface does not name one."""
    torch = sys.modules.get("torch")  # who has a tensor has imported it
    if torch is None or not isinstance(array, torch.Tensor):
        return 0
    handle = torch.cuda.current_stream(array.device).cuda_stream
    return cuda.external_stream(handle) if handle else 0


def device_vector(array: Any, shape: tuple[int, ...], dtype: Any, place: str, *, writes: bool = False) -> Any:
    """Return an array on the device as a vector, after checking that it has this shape and dtype."""
    found = device_array(array, place, writes=writes)
    check_like(found, shape, dtype, place, "the params of init")
    return found.ravel()  # reshape would forget the stream


def device_zeros(size: int, dtype: Any, stream: Any = 0) -> Any:
    """Make a vector of zeros on the device."""
    return cuda.to_device(np.zeros(size, dtype), stream=stream)


def to_host(array: Any, stream: Any) -> NDArray[Any]:
    """Copy to the host what kernels on this stream leave in an array."""
    found: NDArray[Any] = array.copy_to_host(stream=stream)
    if stream:
        stream.synchronize()
    return found


def copy_like(array: Any) -> Any:
    """Copy an array on the device by the library that it is of, or as Numba's if those cannot be written, as JAX's."""
    for name in ("clone", "copy"):  # PyTorch's, and CuPy's
        if hasattr(array, name) and not SIMULATED:
            copied = getattr(array, name)()
            if not copied.__cuda_array_interface__["data"][1]:
                return copied
    found = device_array(array, "x0")
    copied = cuda.device_array(found.shape, found.dtype, stream=stream_of(found))
    copied.copy_to_device(found, stream=stream_of(found))
    return copied


def largest_of(vector: Any, stream: Any) -> float:
    """Largest absolute value of a vector, NaN if there is one; waits for the device."""
    dtype = np.dtype(vector.dtype)
    bits = device_zeros(1, np.dtype(f"i{dtype.itemsize}"), stream)
    largest_bits[grid(vector.size), BLOCK, stream](vector, bits)
    return float(to_host(bits, stream).view(dtype)[0])


def stream_of(array: Any) -> Any:
    """The stream that an array's library works on, where its interface says so; otherwise the default one."""
    return 0 if SIMULATED else array.stream
