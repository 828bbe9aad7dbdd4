"""Machine code of the update, and of what is around it: no spills, wide access, few instructions."""

from __future__ import annotations

import pytest
from arrays_in_memory import REALS, VARIANTS, many_signature, single_signature
from numba import cuda, float32, float64, int32, uint64
from offline_compiler import ARCHITECTURES, machine_code

from rmsprop_nb._cuda.memory import ITEMSIZE, real_of, width_of
from rmsprop_nb._cuda.reduce import make_add, make_largest, make_sum_of_squares
from rmsprop_nb._cuda.update import Formats, make_table_update, make_update
from rmsprop_nb.cuda import device_rule

pytestmark = pytest.mark.thorough

KERNELS = {  # most instructions an element, on sm_90, of those that compute in float32
    ("plain", "float32", False): 42,
    ("plain", "float64", False): None,
    ("deterministic", "float32", False): 42,
    ("everything", "float32", False): 90,
    ("everything", "float64", False): None,
    ("plain", "float32", True): 42,
    ("plain", "float16", True): 42,
    ("plain", "bfloat16", True): 46,  # rounding takes some
}


def some_pairs(kernels):
    """Each kernel for sm_90, whose instructions are counted, and for one or two others, each of which has some."""
    return [
        pytest.param(kernel, capability, id=f"{name}-{capability}")
        for k, (name, kernel) in enumerate(kernels.items())
        for a, capability in enumerate(ARCHITECTURES)
        if capability == (9, 0) or a % 5 == k % 5
    ]


UPDATES = {"-".join([*kernel[:2], *(["many"] if kernel[2] else [])]): kernel for kernel in KERNELS}


@pytest.mark.parametrize(("kernel", "capability"), some_pairs(UPDATES))
def test_machine_code_of_the_update(kernel, capability):
    kind, number_format, many = kernel
    variant = VARIANTS["everything" if kind == "everything" else "plain"]
    real, width = REALS[str(real_of(number_format))], width_of(number_format)
    make, signature = (make_table_update, many_signature) if many else (make_update, single_signature)
    code = machine_code(
        make(variant, Formats(number_format, number_format), False, kind == "deterministic"),
        signature(real),
        capability,
    )
    assert code.spilled == code.stack == 0
    assert not any(opcode.startswith(("LDL", "STL", "LD.", "ST.")) for opcode in code.opcodes)
    whole = code.loops[0]
    loads = sum(count for opcode, count in whole.items() if opcode.startswith("LDG.E.128"))
    stores = sum(count for opcode, count in whole.items() if opcode.startswith("STG.E.128"))
    averages = (
        (1 + variant.centered + variant.momentum) * ITEMSIZE[str(real_of(number_format))] // ITEMSIZE[number_format]
    )
    assert loads in (2 + averages, 2 * (2 + averages))  # some compilers unroll the loop once
    assert stores == loads // (2 + averages) * (1 + averages)
    assert not any(opcode.startswith(("LDG", "STG")) and "128" not in opcode for opcode in whole)
    if real == float32:
        assert code.double == 0
        if capability == (9, 0):
            assert whole.total() * (2 + averages) / loads / width <= KERNELS[kernel]


TABLES = int32[:, ::1], uint64, uint64[:, ::1]
AROUND = {
    "largest": (make_largest("float32"), (*TABLES, int32[::1])),
    "squares": (make_sum_of_squares("float16"), (*TABLES, float64[::1])),
    "add": (make_add("bfloat16"), TABLES),
}


@pytest.mark.parametrize(("kernel", "capability"), some_pairs({name: (name, *of) for name, of in AROUND.items()}))
def test_machine_code_of_what_is_around_the_update(kernel, capability):
    name, function, arg_types = kernel
    code = machine_code(function, arg_types, capability)
    assert code.spilled == code.stack == 0
    assert not any(opcode.startswith(("LDL", "STL", "LD.", "ST.")) for opcode in code.opcodes)
    assert (code.double > 0) == (name == "squares")  # which adds up in double precision on purpose


@pytest.mark.parametrize("capability", ARCHITECTURES[::3], ids=str)
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
