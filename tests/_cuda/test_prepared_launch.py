"""Arguments as a prepared launch hands them to the driver, which is replaced here, since there may be none."""

from __future__ import annotations

import ctypes
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("numba_cuda", reason="numba-cuda is not installed")
pytest.importorskip("cuda.bindings")
from cuda.bindings import driver
from numba import typeof

from rmsprop_nb._cuda.native import SIMULATED, PreparedLaunch

pytestmark = pytest.mark.skipif(SIMULATED, reason="the simulator has no driver")


@pytest.fixture
def launched(monkeypatch):
    """What the driver is told: function, grid, block, stream, and the arguments of the types that are expected."""
    seen = []

    def launch(function, gx, gy, gz, bx, by, bz, shared, stream, pointers, extra):
        kinds = ctypes.c_uint64, ctypes.c_float, ctypes.c_double, ctypes.c_double
        addresses = (ctypes.c_void_p * len(kinds)).from_address(pointers)
        values = [kind.from_address(at).value for kind, at in zip(kinds, addresses, strict=True)]
        seen.append((int(function), (gx, gy, gz), (bx, by, bz), int(stream), values))
        return (driver.CUresult.CUDA_SUCCESS,)

    monkeypatch.setattr(driver, "cuLaunchKernel", launch)
    return seen


class Kernel:
    """A compiled kernel, as far as it can be had without a device."""

    def typeof_pyval(self, value):
        return typeof(value)

    def compile(self, types):
        from numba.cuda.dispatcher import _Kernel

        compiled = object.__new__(_Kernel)
        compiled.extensions = []
        library = SimpleNamespace(get_cufunc=lambda: SimpleNamespace(handle=77))
        return SimpleNamespace(argument_types=types, _prepare_args=compiled._prepare_args, _codelibrary=library)


def test_arguments_reach_the_driver_and_the_last_can_be_set(launched):
    launch = PreparedLaunch(Kernel(), 3, 64, 0, (np.uint64(2**63), np.float32(0.5), (0.25, 2.0)))
    launch()
    launch.set_last((np.float32(1.5), 4))
    launch()
    assert launched == [
        (77, (3, 1, 1), (64, 1, 1), 0, [2**63, 0.5, 0.25, 2.0]),
        (77, (3, 1, 1), (64, 1, 1), 0, [2**63, 0.5, 1.5, 4.0]),
    ]


def test_a_launch_that_fails_raises(monkeypatch):
    launch = PreparedLaunch(Kernel(), 1, 1, 0, (1.0,))
    monkeypatch.setattr(launch, "_launch", lambda: (driver.CUresult.CUDA_ERROR_INVALID_CONTEXT,))
    with pytest.raises(RuntimeError, match="could not be launched: CUDA_ERROR_INVALID_CONTEXT"):
        launch()


def test_attributes_of_a_device_exist():
    assert hasattr(driver.CUdevice_attribute, "CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT")
    assert hasattr(driver.CUdevice_attribute, "CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR")
