"""Runs compiled PTX without a GPU: every thread of a grid is one place in NumPy arrays.

The subset is what Numba's compiler makes of this project's kernels: no textures, no shuffles. Threads that have taken
different branches are run lowest instruction first, as far as they stay together. Every access to memory is checked:
its bounds, its alignment, and whether another thread has touched the same place without a barrier in between (a race).
A barrier waits for the threads of a block that have not ended, which must all come to the same one.

PTX is described in NVIDIA's "Parallel Thread Execution ISA". Arithmetic is IEEE except for ``.approx``, which a device
computes with fewer digits; a device may also join ``mul`` and ``add`` without ``.rn``, which is not done here.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from typing import Any

import numpy as np
from ptx_arithmetic import (
    ARITHMETIC,
    COMPARE,
    WIDER,
    WORDS,
    as_type,
    flushed,
    fused_32,
    fused_64,
    fused_odd,
    round_down,
)
from ptx_memory import FIRST_REGION, LOCAL, SECTOR, SHARED, Memory
from ptx_text import TYPES, Function, Instruction, Module, PTXError, module_of


@dataclasses.dataclass(frozen=True)
class Launch:
    """What a run has counted."""

    instructions: Counter[str]
    requests: int
    sectors: int
    bytes: int
    spread: tuple[float, ...]  # for each array, sectors over the fewest that could hold what a warp asked for

    @property
    def sectors_over_least(self) -> float:
        """Sectors that were moved over those that hold what was asked for; 1 if access is coalesced."""
        return self.sectors * SECTOR / self.bytes


def run(text: str, blocks: int, threads: int, args: Any, reachable: Any = ()) -> Launch:
    """Run the kernel of a PTX text, as ``kernel[blocks, threads](*args)``; contiguous arrays are changed in place.

    Arrays that are `reachable` have the addresses of `address_in`.
    """
    module = module_of(text)
    arrays: list[np.ndarray] = []
    numbers = list(_flattened(args, arrays))
    entry = module.functions[module.entry]
    if len(numbers) != len(entry.params):
        raise PTXError(f"the kernel takes {len(entry.params)} numbers, got {len(numbers)}")
    count = blocks * threads
    memory = Memory(arrays, reachable, blocks, count, module)
    index = np.arange(count)
    special = {"%tid.x": index % threads, "%ctaid.x": index // threads, "%ntid.x": threads, "%nctaid.x": blocks}
    frame = Frame(module, entry, memory, special, count)
    for name, number in zip(entry.params, numbers, strict=True):
        frame.params[name] = np.full(count, number)
    with np.errstate(all="ignore"):
        frame.run(index)
    spread = tuple(moved / max(memory.least[region], 1) for region, moved in memory.moved.items())
    return Launch(frame.executed, memory.requests, memory.sectors, memory.bytes, spread)


def _flattened(value: Any, arrays: list[np.ndarray]) -> Any:
    """What a kernel is given for an argument of Numba's; arrays get an address and are appended."""
    if isinstance(value, tuple):
        for item in value:
            yield from _flattened(item, arrays)
    elif isinstance(value, np.ndarray):
        if not value.flags.c_contiguous:
            raise PTXError("arrays must be contiguous")
        address = np.uint64((FIRST_REGION + len(arrays)) << 32)
        arrays.append(value)
        yield from (0, 0, value.size, value.itemsize, address, *value.shape, *value.strides)
    else:
        yield value


class Frame:
    """A function while it runs, with its registers."""

    def __init__(self, module: Module, function: Function, memory: Memory, special: dict[str, Any], count: int) -> None:
        self.module, self.function, self.memory, self.special, self.count = module, function, memory, special, count
        self.params: dict[str, np.ndarray] = {}
        self.registers: dict[str, np.ndarray] = {}
        self.executed: Counter[str] = Counter()
        self.active = np.empty(0, np.int64)

    def run(self, threads: np.ndarray) -> None:
        """Run for these threads, to the end of each."""
        code, joins = self.function.code, set(self.function.labels.values())
        end = len(code)
        pc = np.full(self.count, end)
        pc[threads] = 0
        waiting = np.zeros(self.count, bool)
        while (pc < end).any():
            if not (~waiting & (pc < end)).any():
                raise PTXError("threads wait at a barrier for others that do not come")
            at = int(pc[~waiting & (pc < end)].min())
            self.active = threads[(pc[threads] == at) & ~waiting[threads]]
            while True:
                instruction = code[at]
                self.executed[instruction.op] += 1
                if instruction.op in ("bra", "ret", "bar"):
                    taken = self._guarded(instruction)
                    pc[self.active] = at + 1
                    if instruction.op == "bar":
                        waiting[taken] = True
                    else:
                        pc[taken] = end if instruction.op == "ret" else self.function.labels[instruction.args[0]]
                    if instruction.op != "bra":
                        self._pass_barrier(pc, waiting, pc < end)
                    break
                self._execute(instruction)
                at += 1
                if at in joins or at == end:
                    pc[self.active] = at
                    break

    def _pass_barrier(self, pc: np.ndarray, waiting: np.ndarray, lives: np.ndarray) -> None:
        """Let the blocks go on of which every thread waits that has not ended."""
        size = self.memory.block_size
        passes = ~(lives & ~waiting).reshape(-1, size).any(1) & waiting.reshape(-1, size).any(1)
        places = np.where(waiting, pc, -1).reshape(-1, size)[passes]
        if ((places >= 0) & (places != places.max(axis=1, keepdims=True))).any():
            raise PTXError("barrier that not all threads of a block come to")
        self.memory.barriers[passes] += 1
        waiting[np.repeat(passes, size)] = False

    def _guarded(self, instruction: Instruction) -> np.ndarray:
        """The active threads for which the guard holds."""
        if instruction.guard is None:
            return self.active
        holds = self.get(instruction.guard.lstrip("!"), np.bool_)
        return self.active[~holds if instruction.guard[0] == "!" else holds]

    def _execute(self, instruction: Instruction) -> None:
        everybody = self.active
        self.active = self._guarded(instruction)
        try:
            if self.active.size:
                execute = getattr(self, f"_{instruction.op}", None)
                if execute is not None:
                    execute(instruction)
                elif instruction.op in ARITHMETIC:
                    self._arithmetic(instruction)
                else:
                    raise PTXError("this interpreter does not know the instruction")
        except PTXError as error:
            raise PTXError(f"{error}: {instruction.text}, thread {self.active[0]}") from None
        finally:
            self.active = everybody

    # operands

    def get(self, operand: str, dtype: Any) -> np.ndarray:
        """Value of an operand for the active threads."""
        dtype = np.dtype(dtype)
        if operand in self.registers:
            return as_type(self.registers[operand][self.active], dtype)
        if operand in self.special:
            value = self.special[operand]
            return np.broadcast_to(value, self.count)[self.active].astype(dtype)
        if operand[:2] in ("0f", "0d"):
            words = np.array(int(f"0x{operand[2:]}", 0), np.uint32 if operand[1] == "f" else np.uint64)
            return np.full(self.active.size, words.view(np.float32 if operand[1] == "f" else np.float64)[()], dtype)
        if re.fullmatch(r"-?\d+|0x[0-9a-fA-F]+", operand):
            bits = int(operand, 0) % 2 ** (8 * dtype.itemsize)
            return np.full(self.active.size, bits, WORDS[dtype.itemsize]).view(dtype)
        if operand in self.module.shared:
            address = (SHARED << 32) + self.module.shared[operand]
            return np.full(self.active.size, address, np.uint64).astype(dtype)
        if operand.startswith("__local_depot"):
            return np.full(self.active.size, LOCAL << 32, np.uint64)
        raise PTXError(f"the operand {operand} has no value")

    def set(self, register: str, values: np.ndarray) -> None:
        """Set a register for the active threads."""
        if register == "_":
            return
        prefix = re.match(r"%[a-zA-Z]+", register)[0]  # type: ignore[index]
        kept = np.dtype(self.function.registers[prefix])
        if register not in self.registers:
            self.registers[register] = np.zeros(self.count, kept)
        if values.dtype.kind in "iu" and values.itemsize < kept.itemsize:
            values = values.astype(np.dtype(f"{values.dtype.kind}{kept.itemsize}"))
        self.registers[register][self.active] = as_type(values, kept)

    def _address(self, operand: str) -> np.ndarray:
        match = re.fullmatch(r"\[\s*([%\w$.]+)\s*(?:\+\s*(-?\d+))?\s*\]", operand)
        if match is None:
            raise PTXError(f"cannot read the address {operand}")
        return self.get(match[1], np.uint64) + np.uint64(int(match[2] or 0) % 2**64)

    # memory

    def _ld(self, i: Instruction) -> None:
        if "param" in i.modifiers:
            name = re.match(r"\[([\w$]+)", i.args[1])[1]  # type: ignore[index]
            values = self.params[name][self.active]
            self.set(
                i.args[0], as_type(values, np.dtype(i.type)) if values.dtype.kind == "f" else values.astype(i.type)
            )
            return
        names = _items(i.args[0])
        found = self.memory.load(self._address(i.args[1]), i.type, len(names), self.active)
        for k, name in enumerate(names):
            self.set(name, np.ascontiguousarray(found[:, k]))

    def _st(self, i: Instruction) -> None:
        values = [self.get(name, i.type) for name in _items(i.args[1])]
        if "param" in i.modifiers:
            name = re.match(r"\[([\w$]+)", i.args[0])[1]  # type: ignore[index]
            self.params.setdefault(name, np.zeros(self.count, i.type))[self.active] = values[0]
            return
        self.memory.store(self._address(i.args[0]), np.stack(values, 1), self.active)

    def _atom(self, i: Instruction) -> None:
        operation = {"max": max, "min": min, "add": np.add}[next(m for m in i.modifiers if m in ("max", "min", "add"))]
        where, values = (i.args[1], i.args[2]) if i.op == "atom" else (i.args[0], i.args[1])
        before = self.memory.atomic(self._address(where), self.get(values, i.type), operation)
        if i.op == "atom":
            self.set(i.args[0], before)

    _red = _atom

    def _call(self, i: Instruction) -> None:
        returned, name, given = i.args
        function = self.module.functions[name]
        callee = Frame(self.module, function, self.memory, self.special, self.count)
        for formal, actual in zip(function.params, _items(given), strict=True):
            callee.params[formal] = self.params[actual]
        callee.run(self.active)
        self.executed += callee.executed
        for formal, actual in zip(("func_retval0",), _items(returned), strict=True):
            self.params[actual] = callee.params[formal]

    # moves and conversions

    def _mov(self, i: Instruction) -> None:
        target, source = i.args
        size = np.dtype(i.type).itemsize
        if target[0] == "{":
            parts = self.get(source, WORDS[size]).view(WORDS[size // 2]).reshape(-1, 2)
            for k, name in enumerate(_items(target)):
                self.set(name, np.ascontiguousarray(parts[:, k]))
        elif source[0] == "{":
            parts = [self.get(name, WORDS[size // 2]) for name in _items(source)]
            self.set(target, np.stack(parts, 1).view(WORDS[size])[:, 0])
        else:
            self.set(target, self.get(source, i.type))

    def _cvta(self, i: Instruction) -> None:
        self.set(i.args[0], self.get(i.args[1], np.uint64))

    def _cvt(self, i: Instruction) -> None:
        to, of = (TYPES[m] for m in i.modifiers if m in TYPES)
        values = self.get(i.args[1], of)
        rounding = {"rni": np.rint, "rzi": np.trunc, "rmi": np.floor, "rpi": np.ceil}
        for name in rounding.keys() & set(i.modifiers):
            values = rounding[name](values)
        if np.dtype(of).kind == "f" and np.dtype(to).kind in "iu":
            limits = np.iinfo(to)
            clipped = np.clip(np.nan_to_num(values.astype(np.float64)), float(limits.min), float(limits.max))
            values = np.where(clipped >= float(limits.max), limits.max, clipped.astype(to))
        if "sat" in i.modifiers:
            values = np.clip(np.nan_to_num(values, nan=0.0), 0, 1)
        self.set(i.args[0], values.astype(to))

    # arithmetic

    def _arithmetic(self, i: Instruction) -> None:
        values = [self.get(a, i.type) for a in i.args[1:]]
        if "ftz" in i.modifiers:
            values = [flushed(v) for v in values]
        result = np.asarray(ARITHMETIC[i.op](*values)).astype(i.type)
        self.set(i.args[0], flushed(result) if "ftz" in i.modifiers else result)

    def _mul(self, i: Instruction) -> None:
        a, b = (self.get(name, i.type) for name in i.args[1:])
        if "wide" in i.modifiers:
            wide = WIDER[i.type]
            a, b = a.astype(wide), b.astype(wide)
        elif "hi" in i.modifiers:
            bits = 8 * a.itemsize
            high = [(int(p) * int(q) >> bits) % 2**bits for p, q in zip(a, b, strict=True)]
            self.set(i.args[0], np.array(high, WORDS[a.itemsize]).view(a.dtype))
            return
        self.set(i.args[0], a * b)

    def _fma(self, i: Instruction) -> None:
        a, b, c = (self.get(name, i.type) for name in i.args[1:])
        if a.dtype == np.float32:
            self.set(i.args[0], round_down(fused_odd(a, b, c)) if "rm" in i.modifiers else fused_32(a, b, c))
        else:
            self.set(i.args[0], fused_64(a, b, c))

    def _mad(self, i: Instruction) -> None:
        a, b = (self.get(name, i.type) for name in i.args[1:3])
        wide = WIDER[i.type] if "wide" in i.modifiers else i.type
        self.set(i.args[0], a.astype(wide) * b.astype(wide) + self.get(i.args[3], wide))

    def _shl(self, i: Instruction) -> None:
        values, by = self.get(i.args[1], i.type), self.get(i.args[2], np.uint32)
        bits = 8 * values.itemsize
        shifted = values << np.minimum(by, bits - 1).astype(values.dtype)
        self.set(i.args[0], np.where(by >= bits, values.dtype.type(0), shifted))

    def _shr(self, i: Instruction) -> None:
        values, by = self.get(i.args[1], i.type), self.get(i.args[2], np.uint32)
        bits = 8 * values.itemsize
        shifted = values >> np.minimum(by, bits - 1).astype(values.dtype)
        keeps_sign = values.dtype.kind == "i"
        self.set(i.args[0], shifted if keeps_sign else np.where(by >= bits, values.dtype.type(0), shifted))

    def _bfi(self, i: Instruction) -> None:
        bits, into = (self.get(name, i.type) for name in i.args[1:3])
        at, count = (self.get(name, np.uint32).astype(i.type) for name in i.args[3:])
        one = bits.dtype.type(1)
        mask = ((one << count) - one) << at
        self.set(i.args[0], (into & ~mask) | ((bits << at) & mask))

    def _prmt(self, i: Instruction) -> None:
        """Four bytes out of eight; the form that copies signs is not used."""
        a, b, choice = (self.get(name, np.uint32) for name in i.args[1:])
        eight = np.stack([a, b], 1).view(np.uint8)
        picked = [(choice >> np.uint32(4 * k)) & np.uint32(0xF) for k in range(4)]
        if any((p > 7).any() for p in picked):
            raise PTXError("prmt that copies signs")
        chosen = np.stack([np.take_along_axis(eight, p[:, None].astype(np.int64), 1)[:, 0] for p in picked], 1)
        self.set(i.args[0], chosen.view(np.uint32)[:, 0])

    def _setp(self, i: Instruction) -> None:
        a, b = (self.get(name, i.type) for name in i.args[1:3])
        unordered = np.isnan(a) | np.isnan(b) if a.dtype.kind == "f" else np.zeros(a.size, bool)
        name = i.modifiers[0]
        if name in ("num", "nan"):
            holds = unordered if name == "nan" else ~unordered
        else:
            compare = {"lo": "lt", "ls": "le", "hi": "gt", "hs": "ge"}.get(name, name)
            also = len(compare) == 3 and a.dtype.kind == "f"  # ltu: or unordered
            holds = COMPARE[compare[:2]](a, b)
            holds = holds | unordered if also else holds & ~unordered
        if i.modifiers[1] in ("and", "or", "xor"):
            other = self.get(i.args[3].lstrip("!"), np.bool_)
            other = ~other if i.args[3][0] == "!" else other
            holds = {"and": np.logical_and, "or": np.logical_or, "xor": np.logical_xor}[i.modifiers[1]](holds, other)
        self.set(i.args[0], holds)

    def _selp(self, i: Instruction) -> None:
        chosen = self.get(i.args[3], np.bool_)
        self.set(i.args[0], np.where(chosen, self.get(i.args[1], i.type), self.get(i.args[2], i.type)))

    def _testp(self, i: Instruction) -> None:
        test = {"nan": np.isnan, "infinite": np.isinf, "finite": np.isfinite}[i.modifiers[0]]
        self.set(i.args[0], test(self.get(i.args[1], i.type)))


def _items(text: str) -> list[str]:
    """The names within braces or parentheses, or the name itself."""
    return [name.strip() for name in text.strip("{}() ").split(",") if name.strip()]
