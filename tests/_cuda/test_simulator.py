"""Host logic, launches, transfers and errors of the CUDA side, in Numba's simulator; a process of its own has that."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
from processes import run_python

import rmsprop_nb
from rmsprop_nb import RMSprop, minimize, minimize_batch

SIMULATED = [f"simulated_{name}.py" for name in ("batch", "callbacks", "many_arrays", "minimize", "options", "steps")]
TESTS = [str(Path(__file__).with_name(name)) for name in (*SIMULATED, "test_on_device.py")]
TESTS.append(str(Path(__file__).parents[1] / "_training" / "test_step_on_host_and_device.py"))


@pytest.mark.house
@pytest.mark.thorough
def test_everything_in_the_simulator():
    plain = ["-o", "addopts=", "-p", "no:cacheprovider", "-p", "no:xdist", "--strict-markers", "-q", *TESTS]
    done = run_python("-m", "pytest", *plain, NUMBA_ENABLE_CUDASIM="1", NUMBA_DISABLE_JIT="1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


def test_simulator_needs_python():
    program = """if True:
        import numpy
        from numba import cuda
        from rmsprop_nb import RMSprop
        RMSprop().init(cuda.to_device(numpy.ones(2)))
    """
    done = run_python("-c", program, NUMBA_ENABLE_CUDASIM="1", NUMBA_DISABLE_JIT="0")
    assert "set NUMBA_DISABLE_JIT=1 beside NUMBA_ENABLE_CUDASIM=1" in done.stderr


def test_cpu_runs_import_no_cuda():
    program = """if True:
        import sys, numpy
        from rmsprop_nb import RMSprop, minimize, minimize_batch, minimize_minibatch
        minimize(lambda x: x @ x, [1.0])
        RMSprop().init(numpy.ones(2))
        assert not {"numba.cuda", "rmsprop_nb._cuda.native"} & set(sys.modules), "cuda was imported"
    """
    done = run_python("-c", program)
    assert done.returncode == 0, done.stderr


class OnSomeDevice:
    """What another library's array on a device looks like."""

    __cuda_array_interface__ = MappingProxyType({"shape": (2,), "typestr": "<f8", "data": (4096, False), "version": 3})


def without_device():
    from numba import cuda

    return not cuda.is_available()


@pytest.mark.parametrize(
    "run",
    [
        lambda: RMSprop().init(OnSomeDevice()),
        lambda: minimize(abs, OnSomeDevice(), jac="inplace", options={"learning_rate": 0.1}),
        lambda: minimize_batch(abs, np.zeros((2, 2)), jac="inplace", device="cuda"),
    ],
    ids=["step", "minimize", "minimize_batch"],
)
@pytest.mark.skipif("not without_device()", reason="is about machines without a CUDA device")
def test_missing_device_is_said(run):
    with pytest.raises((ImportError, RuntimeError), match=r"pip install 'rmsprop_nb\[cuda13\]'|CUDA is not available"):
        run()


def test_public_module_is_loaded_when_it_is_used():
    assert rmsprop_nb.cuda.__name__ == "rmsprop_nb.cuda"
