"""The compiled CUDA code without a device: what it computes, by an interpreter of PTX, and its machine code."""

from __future__ import annotations

import math
import re
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from cuda_offline import ARCHITECTURES, machine_code, ptx
from numba import cuda, float32, float64, types
from numba.cuda.cudadrv.driver import Stream
from ptx_interpreter import PTXError, run

from rmsprop_nb import _cuda_arrays
from rmsprop_nb._cpu import make_update as make_host_update
from rmsprop_nb._cuda_native import WIDTH
from rmsprop_nb._cuda_update import add_to, largest_bits, make_update, sum_of_squares
from rmsprop_nb._types import Hyper, Variant
from rmsprop_nb.cuda import device_rule

SIZES = (0, 1, 3, 4, 5, 1023, 1024, 1025)
VARIANTS = {
    "plain": Variant(),
    "eps inside": Variant(eps_inside_sqrt=True),
    "bias": Variant(bias_correction=True, centered=True),
    "decay": Variant(weight_decay=True),
    "decoupled": Variant(weight_decay=True, decoupled_weight_decay=True),
    "momentum": Variant(momentum=True),
    "nesterov": Variant(momentum=True, nesterov=True, lr_in_momentum=True),
    "everything": Variant(True, True, True, True, True, True, True, True),
}
REALS = {"float32": float32, "float64": float64}


def signature(real):
    return (*[real[::1]] * 5, *[real] * 9)


def vectors(variant, n, dtype):
    rng = np.random.default_rng(n)

    def normal(used=True):
        return rng.normal(size=n if used else 0).astype(dtype)

    return [normal(), normal(), rng.random(n).astype(dtype), 0.1 * normal(variant.centered), normal(variant.momentum)]


# -- the update: what it computes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", REALS)
@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_deterministic_update_has_the_bits_of_the_cpu(variant, dtype):
    compare_updates(variant, dtype, deterministic=True, adjusts=False)


@pytest.mark.parametrize("dtype", REALS)
def test_clipped_update_has_the_bits_of_the_cpu(dtype):
    compare_updates(Variant(), dtype, deterministic=True, adjusts=True)


@pytest.mark.parametrize("dtype", REALS)
@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_update_is_that_of_the_cpu_but_for_fused_operations(variant, dtype):
    compare_updates(variant, dtype, deterministic=False, adjusts=False)


def compare_updates(variant, dtype, deterministic, adjusts):
    real = np.dtype(dtype).type
    hyper = Hyper.of(dtype, 0.9, 1e-8, 0.9, 0.01)
    scale, limit = (-0.5, 0.7) if adjusts else (1.0, math.inf)
    host = make_host_update(variant)
    for wide in (True, False):
        kernel = make_update(variant, np.dtype(dtype).itemsize, wide, adjusts, deterministic)
        text = ptx(kernel, signature(REALS[dtype]))
        assert ("fma." in text) != deterministic
        for n in SIZES:
            expected, found = vectors(variant, n, dtype), vectors(variant, n, dtype)
            before = [a.copy() for a in found]
            host(*expected, 0.01, 0.5, hyper, 1, None, *((scale, limit) if adjusts else (None, None)))
            run(text, 3, 64, (*found, real(0.01), real(0.5), real(scale), real(limit), *hyper))
            for name, a, b, old in zip("xgsmb", found, expected, before, strict=True):
                if deterministic:
                    np.testing.assert_array_equal(a, b, err_msg=f"{name}, n={n}")
                else:  # ulps of what was added up, more where that may cancel and is divided by; S has no signs
                    cancels = variant.centered or variant.weight_decay
                    most = 1 + variant.weight_decay if name == "s" else 32 if cancels else 4
                    ulp = np.spacing(np.maximum(np.abs(b), 0.0 if name == "s" else np.abs(old) + 1.0))
                    assert (np.abs(a - b) <= most * ulp).all(), f"{name}, n={n}"


@pytest.mark.slow
def test_large_update_has_the_bits_of_the_cpu():
    variant, n = Variant(), 100_003
    expected, found = vectors(variant, n, "float32"), vectors(variant, n, "float32")
    hyper = Hyper.of("float32", 0.9, 1e-8)
    make_host_update(variant)(*expected, 0.01, 1.0, hyper, 1)
    numbers = map(np.float32, (0.01, 1.0, 1.0, math.inf))
    counted = run(
        ptx(make_update(variant, 4, True, False, True), signature(float32)), 4, 256, (*found, *numbers, *hyper)
    )
    np.testing.assert_array_equal(found[0], expected[0])
    assert counted.sectors_over_least < 1.01


def test_threads_of_a_warp_read_neighbours():
    numbers = (*map(np.float32, (0.01, 1.0, 1.0, math.inf)), *Hyper.of("float32", 0.9, 1e-8))
    for wide in (True, False):
        text = ptx(make_update(Variant(), 4, wide, False, False), signature(float32))
        counted = run(text, 2, 128, (*vectors(Variant(), 2048, "float32"), *numbers))
        assert counted.sectors_over_least == 1.0


@pytest.mark.parametrize("dtype", REALS)
def test_reductions(dtype):
    rng = np.random.default_rng(0)
    bits = types.int32 if dtype == "float32" else types.int64
    largest = ptx(largest_bits, (REALS[dtype][::1], bits[::1]))
    squares = ptx(sum_of_squares, (REALS[dtype][::1], float64[::1]))
    add = ptx(add_to, (REALS[dtype][::1],) * 2)
    for n in (0, 1, 100, 1025):
        g = rng.normal(size=n).astype(dtype)
        found, sums = np.zeros(1, f"i{g.itemsize}"), np.zeros(128)
        run(largest, 2, 64, (g, found))
        assert found.view(dtype)[0] == np.abs(g).max(initial=0.0)
        run(squares, 2, 64, (g, sums))
        np.testing.assert_allclose(sums.sum(), np.sum(g.astype(np.float64) ** 2), rtol=1e-14)
        total = np.ones(n, dtype)
        run(add, 2, 64, (total, g))
        np.testing.assert_array_equal(total, g + np.ones(1, dtype))
        if n:
            g[n // 2] = np.nan
            run(largest, 2, 64, (g, found))
            assert np.isnan(found.view(dtype)[0])


# -- arrays of other libraries ----------------------------------------------------------------------------------------


class OnStream:
    """An array on a device as CuPy's are: its interface names a stream."""

    def __init__(self, shape, stream, typestr="<f4"):
        self.__cuda_array_interface__ = {
            "shape": shape,
            "typestr": typestr,
            "data": (4096, False),
            "version": 3,
            "stream": stream,
        }


class Tensor(OnStream):
    """An array as PyTorch's are: the interface names none."""

    device = "cuda:0"


@pytest.fixture
def described(monkeypatch):
    """Arrays are taken from their interface as numba-cuda does, but for what needs a driver."""
    from numba.cuda.cudadrv.devicearray import DeviceNDArray

    def as_cuda_array(array, sync):
        assert not sync
        interface = array.__cuda_array_interface__
        dtype = np.dtype(interface["typestr"])
        strides = np.empty(interface["shape"], dtype).strides
        memory = SimpleNamespace(device_ctypes_pointer=SimpleNamespace(value=interface["data"][0]))
        stream = cuda.external_stream(interface["stream"]) if interface["stream"] else 0
        return DeviceNDArray(interface["shape"], strides, dtype, stream, memory)

    monkeypatch.setattr(cuda, "external_stream", lambda handle: Stream(handle, external=True))
    monkeypatch.setattr(cuda, "as_cuda_array", as_cuda_array)
    monkeypatch.setattr(_cuda_arrays, "require_device", lambda: None)


@pytest.mark.usefixtures("described")
@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_vectors_keep_the_stream_of_the_caller(shape):
    found = _cuda_arrays.device_vector(OnStream(shape, 77), shape, np.float32, "params", writes=True)
    assert found.shape == (math.prod(shape),)
    assert int(_cuda_arrays.stream_of(found)) == 77
    assert _cuda_arrays.stream_of(_cuda_arrays.device_vector(OnStream(shape, None), shape, np.float32, "params")) == 0


@pytest.mark.usefixtures("described")
@pytest.mark.parametrize(("current", "expected"), [(99, 99), (0, 0)])
def test_tensors_are_on_the_stream_where_pytorch_works(monkeypatch, current, expected):
    asked = []

    def current_stream(device):
        asked.append(device)
        return SimpleNamespace(cuda_stream=current)

    torch = SimpleNamespace(Tensor=Tensor, cuda=SimpleNamespace(current_stream=current_stream))
    monkeypatch.setitem(sys.modules, "torch", torch)
    found = _cuda_arrays.device_array(Tensor((3,), None), "x0")
    assert int(_cuda_arrays.stream_of(found)) == expected
    assert int(_cuda_arrays.stream_of(_cuda_arrays.device_array(OnStream((3,), 5), "x0"))) == 5
    assert asked == ["cuda:0"]


class Immutable(OnStream):
    """An array as JAX's are: whatever its library makes of it is read-only."""

    def __init__(self, shape):
        super().__init__(shape, None)
        self.__cuda_array_interface__["data"] = (4096, True)

    def copy(self):
        return Immutable(self.__cuda_array_interface__["shape"])


@pytest.mark.usefixtures("described")
def test_immutable_arrays_are_never_written(monkeypatch):
    with pytest.raises(ValueError, match="params must be writeable"):
        _cuda_arrays.device_array(Immutable((3,)), "params", writes=True)
    made = SimpleNamespace(copy_to_device=lambda source, stream: sources.append(source.shape))
    sources = []
    monkeypatch.setattr(cuda, "device_array", lambda shape, dtype, stream: made)
    assert _cuda_arrays.copy_like(Immutable((3,))) is made
    assert sources == [(3,)]


# -- the update: its machine code -------------------------------------------------------------------------------------

MOST_INSTRUCTIONS = {"plain": 42, "deterministic": 42, "everything": 90}  # an element, of float32 on sm_90


@pytest.mark.parametrize("capability", ARCHITECTURES, ids=str)
@pytest.mark.parametrize("dtype", REALS)
@pytest.mark.parametrize("kind", MOST_INSTRUCTIONS)
def test_machine_code_of_the_update(kind, dtype, capability):
    variant = VARIANTS["everything" if kind == "everything" else "plain"]
    itemsize = np.dtype(dtype).itemsize
    kernel = make_update(variant, itemsize, True, False, kind == "deterministic")
    code = machine_code(kernel, signature(REALS[dtype]), capability)
    assert code.spilled == code.stack == 0
    assert not any(opcode.startswith(("LDL", "STL")) for opcode in code.opcodes)
    whole = code.loops[0]
    loads = sum(count for opcode, count in whole.items() if opcode.startswith("LDG.E.128"))
    stores = sum(count for opcode, count in whole.items() if opcode.startswith("STG.E.128"))
    arrays = 3 + variant.centered + variant.momentum
    assert loads in (arrays, 2 * arrays)  # some compilers unroll the loop once
    assert stores == loads // arrays * (arrays - 1)
    if dtype == "float32":
        assert code.double == 0
        if capability == (9, 0):
            assert whole.total() * arrays / loads / WIDTH[itemsize] <= MOST_INSTRUCTIONS[kind]


@pytest.mark.parametrize("capability", ARCHITECTURES, ids=str)
def test_machine_code_of_what_is_around_the_update(capability):
    kernels = {
        "largest": (largest_bits, (float32[::1], types.int32[::1])),
        "squares": (sum_of_squares, (float32[::1], float64[::1])),
        "add": (add_to, (float32[::1],) * 2),
    }
    for name, (kernel, arg_types) in kernels.items():
        code = machine_code(kernel, arg_types, capability)
        assert code.spilled == code.stack == 0, name
        assert not any(opcode.startswith(("LDL", "STL", "LD.", "ST.")) for opcode in code.opcodes), name
        assert (code.double > 0) == (name == "squares"), name  # which adds up in double precision on purpose


@pytest.mark.parametrize("capability", ARCHITECTURES, ids=str)
def test_machine_code_of_the_rule_in_a_kernel_of_ones_own(capability):
    rule = device_rule(beta=0.99, momentum=0.9)

    @cuda.jit
    def step(x, g, s, b, rate):
        i = cuda.grid(1)
        if i < x.size:
            zero = x.dtype.type(0)
            x[i], s[i], _, b[i] = rule(x[i], g[i], s[i], zero, b[i], rate, zero)

    code = machine_code(step, (*[float32[::1]] * 4, float32), capability)
    assert code.spilled == code.stack == code.double == 0


# -- the interpreter itself finds what it is there to find -------------------------------------------------------------


def test_interpreter_finds_access_out_of_bounds():
    text = ptx(add_to, (float32[::1],) * 2)
    with pytest.raises(PTXError, match="out of bounds"):
        run(text, 1, 32, (np.ones(6, np.float32), np.ones(8, np.float32)))  # add_to goes by the length of the second


def test_interpreter_finds_misaligned_access():
    text = ptx(make_update(Variant(), 4, True, False, False), signature(float32))
    shifted = re.sub(r"(ld\.global\.v4\.f32[^\[]*\[%rd\d+)", r"\1+4", text)
    assert shifted != text
    numbers = (*map(np.float32, (0.01, 1.0, 1.0, math.inf)), *Hyper.of("float32", 0.9, 1e-8))
    with pytest.raises(PTXError, match="misaligned"):
        run(shifted, 1, 32, (*vectors(Variant(), 64, "float32"), *numbers))


def test_interpreter_finds_races():
    @cuda.jit
    def all_write(a):
        a[0] = cuda.grid(1)

    with pytest.raises(PTXError, match="race"):
        run(ptx(all_write, (types.int64[::1],)), 1, 32, (np.zeros(1, np.int64),))
