"""Arrays on a device as other libraries describe them, without a device."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("numba_cuda", reason="numba-cuda is not installed")
from numba import config, cuda

if config.ENABLE_CUDASIM:
    pytest.skip("the simulator's arrays have no interface", allow_module_level=True)
from numba.cuda.cudadrv.driver import Stream

from rmsprop_nb._cuda import arrays as _cuda_arrays
from rmsprop_nb._cuda.arrays import check_vector, copy_like, device_array, device_vector
from rmsprop_nb._cuda.memory import format_of, real_of


class OnStream:
    """An array on a device as CuPy's are: its interface names a stream."""

    def __init__(self, shape, stream=None, typestr="<f4", strides=None, address=4096):
        self.__cuda_array_interface__ = {
            "shape": shape,
            "typestr": typestr,
            "strides": strides,
            "data": (address, False),
            "version": 3,
            "stream": stream,
        }


class Tensor(OnStream):
    """An array as PyTorch's are: the interface names none."""

    device = "cuda:0"


@pytest.fixture(autouse=True)
def described(monkeypatch):
    """Arrays are taken from their interface as numba-cuda does, but for what needs a driver; device 1 is far up."""
    from numba.cuda.cudadrv.devicearray import DeviceNDArray

    def as_cuda_array(array, sync):
        assert not sync
        interface = array.__cuda_array_interface__
        dtype = np.dtype(interface["typestr"])
        strides = interface["strides"] or np.empty(interface["shape"], dtype).strides
        memory = SimpleNamespace(device_ctypes_pointer=SimpleNamespace(value=interface["data"][0]))
        stream = cuda.external_stream(interface["stream"]) if interface["stream"] else 0
        return DeviceNDArray(interface["shape"], strides, dtype, stream, memory)

    monkeypatch.setattr(cuda, "external_stream", lambda handle: Stream(handle, external=True))
    monkeypatch.setattr(cuda, "as_cuda_array", as_cuda_array)
    monkeypatch.setattr(_cuda_arrays, "require_device", lambda: None)
    monkeypatch.setattr(_cuda_arrays, "current_device", lambda: 0)
    monkeypatch.setattr(_cuda_arrays, "device_holding", lambda address: int(address >= 2**40))


@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_vectors_keep_the_stream_of_the_caller(shape):
    found = device_vector(OnStream(shape, 77), "params", writes=True)
    assert (found.shape, found.address) == (shape, 4096)
    assert int(found.stream) == int(device_array(OnStream(shape, 77), "x0").stream) == 77
    assert device_vector(OnStream(shape), "params").stream == 0


@pytest.mark.parametrize(("current", "expected"), [(99, 99), (0, 0)])
def test_tensors_are_on_the_stream_where_pytorch_works(monkeypatch, current, expected):
    asked = []

    def current_stream(device):
        asked.append(device)
        return SimpleNamespace(cuda_stream=current)

    torch = SimpleNamespace(Tensor=Tensor, cuda=SimpleNamespace(current_stream=current_stream))
    monkeypatch.setitem(sys.modules, "torch", torch)
    assert int(device_vector(Tensor((3,)), "x0").stream) == expected
    assert int(device_array(Tensor((3,)), "x0").stream) == expected
    assert int(device_vector(OnStream((3,), 5), "x0").stream) == 5
    assert asked == ["cuda:0"] * 2


class Immutable(OnStream):
    """An array as JAX's are: whatever its library makes of it is read-only."""

    def __init__(self, shape):
        super().__init__(shape, None)
        self.__cuda_array_interface__["data"] = (4096, True)

    def copy(self):
        return Immutable(self.__cuda_array_interface__["shape"])


def test_immutable_arrays_are_never_written(monkeypatch):
    with pytest.raises(ValueError, match="params must be writeable"):
        device_vector(Immutable((3,)), "params", writes=True)
    made = SimpleNamespace(copy_to_device=lambda source, stream: sources.append(source.shape))
    sources = []
    monkeypatch.setattr(cuda, "device_array", lambda shape, dtype, stream: made)
    assert copy_like(Immutable((3,))) is made
    assert sources == [(3,)]


def test_arrays_of_another_device_are_refused():
    message = (
        r"grads\['b'\] must be on the current CUDA device, 0, but is on device 1; work within 'with numba.cuda.gpus"
    )
    with pytest.raises(ValueError, match=message):
        device_vector(OnStream((3,), address=2**40), "grads['b']")


def test_arrays_must_be_contiguous():
    assert device_vector(OnStream((2, 1), strides=(4, 64)), "grads").size == 2
    with pytest.raises(ValueError, match=r"grads must be contiguous \(C order\), got strides \(8,\) for shape \(3,\)"):
        device_vector(OnStream((3,), strides=(8,)), "grads")


FORMATS = {
    "<f4": "float32",
    "<f8": "float64",
    "<f2": "float16",
    "<V2": "bfloat16",
    ">f4": None,
    "<i2": None,
    "<V4": None,
}


@pytest.mark.parametrize(("typestr", "expected"), FORMATS.items())
def test_formats(typestr, expected):
    """PyTorch and ml_dtypes describe bfloat16 as two bytes without a meaning."""
    assert format_of(np.dtype(typestr)) == expected
    if expected is None:
        with pytest.raises(TypeError, match="params must be float32, float64, float16 or bfloat16, got dtype"):
            device_vector(OnStream((2,), typestr=typestr), "params")
    else:
        assert device_vector(OnStream((2,), typestr=typestr), "params").format == expected
        assert real_of(expected) == (np.float64 if expected == "float64" else np.float32)


def test_ml_dtypes_describes_bfloat16_so():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    assert format_of(np.dtype(ml_dtypes.bfloat16)) == "bfloat16"
    assert format_of(np.dtype(ml_dtypes.float8_e4m3fn)) is None


def test_what_does_not_fit_is_said():
    found = device_vector(OnStream((3,), typestr="<V2"), "grads")
    check_vector(found, (3,), "bfloat16", "grads", "params")
    with pytest.raises(TypeError, match="grads must be float32 like params, got bfloat16"):
        check_vector(found, (3,), "float32", "grads", "params")
    with pytest.raises(ValueError, match=r"grads must have shape \(2,\), that of params, got \(3,\)"):
        check_vector(found, (2,), "bfloat16", "grads", "params")
    with pytest.raises(TypeError, match="x0 must be float32 or float64, got bfloat16"):
        device_array(OnStream((3,), typestr="<V2"), "x0")


def test_the_driver_is_asked_where_memory_is(monkeypatch):
    """The question as numba-cuda hands it to the driver, which is not there."""
    from numba.cuda.cudadrv import driver as module

    from rmsprop_nb._cuda import native as _cuda_native

    asked = []

    def answer(attribute, pointer):
        asked.append((attribute, int(pointer)))
        if int(pointer) == 4096:
            return 1
        raise module.CudaAPIError(1, "invalid value")

    monkeypatch.setattr(module, "driver", SimpleNamespace(cuPointerGetAttribute=answer))
    assert _cuda_native.device_holding(4096) == 1
    assert asked == [(module.binding.CUpointer_attribute.CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, 4096)]
    with pytest.raises(ValueError, match="no CUDA device has memory at 0x2000"):
        _cuda_native.device_holding(8192)
