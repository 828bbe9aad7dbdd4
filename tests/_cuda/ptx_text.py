"""PTX as text, read into functions and instructions."""

from __future__ import annotations

import dataclasses
import functools
import re
from typing import Any

import numpy as np

TYPES = {
    "pred": np.bool_, "b8": np.uint8, "b16": np.uint16, "b32": np.uint32, "b64": np.uint64,
    "u8": np.uint8, "u16": np.uint16, "u32": np.uint32, "u64": np.uint64,
    "s8": np.int8, "s16": np.int16, "s32": np.int32, "s64": np.int64,
    "f16": np.float16, "f32": np.float32, "f64": np.float64,
}  # fmt: skip


class PTXError(Exception):
    """The code does what it must not, or what this interpreter does not know."""


@dataclasses.dataclass(frozen=True)
class Instruction:
    """``@guard op.modifiers args``."""

    guard: str | None
    op: str
    modifiers: tuple[str, ...]
    args: tuple[str, ...]
    text: str

    @functools.cached_property
    def type(self) -> Any:
        """The last type among the modifiers: that of the operands, or of the result of a conversion."""
        return next((TYPES[m] for m in reversed(self.modifiers) if m in TYPES), None)


@dataclasses.dataclass
class Function:
    """An entry, or a function that is called."""

    params: list[str]
    code: list[Instruction]
    labels: dict[str, int]
    registers: dict[str, Any]  # prefix of a name, and what is kept in it
    local_bytes: int


@functools.cache
def module_of(text: str) -> Module:
    """The module that a text is, which runs do not change; kernels are run more than once."""
    return Module(text)


class Module:
    """The functions of a PTX text; the kernel is the only `entry`."""

    def __init__(self, text: str) -> None:
        text = re.sub(r"//[^\n]*", "", text)
        self.shared, self.shared_bytes = _shared(text)
        self.functions: dict[str, Function] = {}
        self.entry = ""
        for match in re.finditer(r"\.(entry|func)\b([^{;]*)\{", text):
            body = text[match.end() : _closing(text, match.end())]
            head = re.sub(r"^\s*\([^)]*\)", "", match[2])  # what a function returns
            name = re.match(r"\s*([\w$]+)", head)[1]  # type: ignore[index]
            self.functions[name] = _function(re.findall(r"\.param[^,)]*?([\w$]+)\s*(?:\[\d+\])?\s*[,)]", head), body)
            if match[1] == "entry":
                self.entry = name


def _shared(text: str) -> tuple[dict[str, int], int]:
    """Where the variables in shared memory begin, and how many bytes there are."""
    places, end = {}, 0
    for align, name, size in re.findall(r"\.shared\s+\.align\s+(\d+)\s+\.b8\s+([\w$]+)\[(\d+)\]", text):
        begin = -(-end // int(align)) * int(align)
        places[name], end = begin, begin + int(size)
    return places, end


def _closing(text: str, start: int) -> int:
    depth = 1
    for match in re.compile(r"[{}]").finditer(text, start):
        depth += 1 if match[0] == "{" else -1
        if depth == 0:
            return match.start()
    raise PTXError("a brace is not closed")


def _function(params: list[str], body: str) -> Function:
    function = Function(params, [], {}, {}, 0)
    for statement in _statements(body):
        label = re.match(r"([$\w]+):\s*", statement)
        if label:
            function.labels[label[1]] = len(function.code)
            statement = statement[label.end() :]
        if declared := re.match(r"\.reg\s+\.(\w+)\s+(%[a-zA-Z]+)", statement):
            function.registers[declared[2]] = TYPES[declared[1]]
        elif local := re.match(r"\.local[^;]*\[(\d+)\]", statement):
            function.local_bytes = int(local[1])
        elif statement and not statement.startswith("."):
            function.code.append(_instruction(statement))
    return function


def _statements(body: str) -> list[str]:
    """Statements without semicolons. Braces that open a scope go, those of a vector stay; labels are kept apart."""
    body = re.sub(r"([{,(]\s*)%temp", r"\1_", body)  # an unused half
    body = re.sub(r"(?m)^[ \t]*[{}][ \t]*$", "", body)  # on a line: \s would try every run of empty lines again
    body = re.sub(r"(?<![$\w])([$\w]+:)(?=\s)", r";\1", body)  # from the beginning of a name alone: some are long
    return [re.sub(r"\s+", " ", part).strip() for part in body.split(";") if part.strip()]


def _instruction(text: str) -> Instruction:
    match = re.match(r"(?:@(!?%\w+)\s+)?([a-z][\w]*)((?:\.\w+)*)\s*(.*)$", text)
    if match is None:
        raise PTXError(f"cannot read {text!r}")
    args = tuple(a.strip() for a in re.findall(r"(?:\{[^}]*\}|\([^)]*\)|\[[^\]]*\]|[^,])+", match[4]) if a.strip())
    return Instruction(match[1], match[2], tuple(match[3].split(".")[1:]), args, text)
