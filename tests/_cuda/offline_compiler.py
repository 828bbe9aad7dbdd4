"""CUDA kernels compiled without a device or a driver: to PTX, and on to machine code with what it needs."""

from __future__ import annotations

import dataclasses
import re
import shutil
import subprocess
import sysconfig
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from numba import config

pytest.importorskip("numba_cuda", reason="numba-cuda is not installed")
if config.ENABLE_CUDASIM or config.DISABLE_JIT:
    pytest.skip("the simulator compiles nothing, and neither does Numba with the JIT disabled", allow_module_level=True)

from numba import cuda

from rmsprop_nb._cuda.offline import linked, standing_in, usage

ARCHITECTURES = ((7, 5), (8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (12, 0))


def ptx(kernel, arg_types, capability=(9, 0)):
    """The kernel as text for a virtual machine."""
    with standing_in(capability):
        return cuda.compile(kernel.py_func, arg_types, device=False, abi="numba", cc=capability)[0]


@dataclasses.dataclass(frozen=True)
class MachineCode:
    """A kernel as a device runs it."""

    registers: int
    spilled: int
    stack: int
    opcodes: Counter[str]
    loops: list[Counter[str]]

    @property
    def double(self) -> int:
        """Number of instructions in double precision."""
        is_double = re.compile(r"D(ADD|MUL|FMA|SETP|MNMX)|(?!LD|ST).*F64")
        return sum(count for opcode, count in self.opcodes.items() if is_double.match(opcode))


def machine_code(kernel, arg_types, capability):
    """Compile and link as numba-cuda does when it launches, and take the result apart."""
    pytest.importorskip("cuda.bindings.nvjitlink")
    cubin, said = linked(kernel, arg_types, capability)
    registers, stack, spilled = usage(said)
    instructions = _instructions(_disassembled(cubin))
    return MachineCode(
        registers=registers,
        spilled=spilled,
        stack=stack,
        opcodes=Counter(opcode for _, opcode, _ in instructions),
        loops=_loops(instructions),
    )


def _disassembled(cubin):
    path = shutil.which("nvdisasm", path=str(Path(sysconfig.get_path("purelib")) / "nvidia" / "cu13" / "bin"))
    path = path or shutil.which("nvdisasm")
    if path is None:
        pytest.skip("there is no nvdisasm")
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "kernel.cubin"
        file.write_bytes(cubin)
        return subprocess.run([path, "-c", "-ndf", str(file)], capture_output=True, text=True, check=True).stdout


def _instructions(text):
    """``(labels, opcode, operands)`` of each instruction."""
    found, labels = [], []
    for line in text.splitlines():
        if label := re.match(r"(\.L_[\w$]+):", line.strip()):
            labels.append(label[1])
        elif match := re.match(r"\s*/\*[0-9a-f]{4,5}\*/\s+(?:@!?U?P\w+\s+)?(?!NOP)([\w.]+)\s*([^;]*);", line):
            found.append((tuple(labels), match[1], match[2]))
            labels = []
    return found


def _loops(instructions):
    """Opcodes of the innermost loops, in the order in which they stand."""
    place = {label: k for k, (labels, _, _) in enumerate(instructions) for label in labels}
    spans = []
    for k, (_, opcode, operands) in enumerate(instructions):
        target = re.search(r"\.L_[\w$]+", operands) if opcode.startswith("BRA") else None
        if target and place.get(target[0], k) < k:  # a label behind the last instruction has no place
            spans.append((place[target[0]], k))
    innermost = [a for a in spans if not any(b != a and a[0] <= b[0] and b[1] <= a[1] for b in spans)]
    return [Counter(opcode for _, opcode, _ in instructions[begin : end + 1]) for begin, end in sorted(innermost)]
