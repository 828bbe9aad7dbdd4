"""Counts instructions in the machine code of the update's vectorised loop, on x86 and 64-bit ARM."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

PACKED_ROOT = re.compile(r"^\s+(?:v?sqrtp([sd])\s.*%([xyz])mm|fsqrt\s+v\d+\.(\d)[sd])", re.MULTILINE)
PACKED_DIVISION = re.compile(r"^\s+(?:v?divp[sd]\s|fdiv\s+v\d+\.\d[sd])", re.MULTILINE)
INSTRUCTION = re.compile(r"^\s+[a-z]", re.MULTILINE)
LABEL = re.compile(r"^[.\w$]+:.*$", re.MULTILINE)


def update_assembly(options: Mapping[str, Any], dtype: str) -> str:
    """Return the machine code of an update, compiled anew with the flags that the library chose for it."""
    from benchmarks._kernels import Vectors, update_call
    from numba import jit

    call = update_call(options, Vectors.random(8, dtype, options))
    fresh = jit(**call.func.targetoptions)(call.func.py_func)
    fresh(*call.args)
    return "\n".join(fresh.inspect_asm().values())


def instructions_per_element(text: str) -> float:
    """Return the instructions per element in the vectorised loop, or infinity if there is none.

    The loop is the stretch between two labels with the most packed square roots.
    """
    loops = [block for block in LABEL.split(text) if PACKED_ROOT.search(block) and PACKED_DIVISION.search(block)]
    if not loops:
        return math.inf
    loop = max(loops, key=lambda block: len(PACKED_ROOT.findall(block)))
    elements = sum(map(_lanes, PACKED_ROOT.findall(loop)))
    return round(len(INSTRUCTION.findall(loop)) / elements, 3)


def _lanes(match: tuple[str, str, str]) -> int:
    precision, width, arm_lanes = match
    if arm_lanes:
        return int(arm_lanes)
    return {"x": 16, "y": 32, "z": 64}[width] // (4 if precision == "s" else 8)
