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

__all__ = ["Launch", "Module", "PTXError", "address_in", "run"]

WARP = 32
SECTOR = 32
GRAIN = 2  # bytes, to which races are told apart
LOCAL = 1  # region of the local memory, of which each thread has its own
SHARED = 2  # of which each block has its own
FIRST_REGION = 16
FIRST_REACHABLE = 4096  # regions of arrays that are no arguments
NOBODY, SEVERAL = -1, -2  # who has touched a place

TYPES = {
    "pred": np.bool_, "b8": np.uint8, "b16": np.uint16, "b32": np.uint32, "b64": np.uint64,
    "u8": np.uint8, "u16": np.uint16, "u32": np.uint32, "u64": np.uint64,
    "s8": np.int8, "s16": np.int16, "s32": np.int32, "s64": np.int64,
    "f16": np.float16, "f32": np.float32, "f64": np.float64,
}  # fmt: skip
WORDS = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}
WIDER = {np.int16: np.int32, np.uint16: np.uint32, np.int32: np.int64, np.uint32: np.uint64}


class PTXError(Exception):
    """The code does what it must not, or what this interpreter does not know."""


# -- reading ----------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Instruction:
    """``@guard op.modifiers args``."""

    guard: str | None
    op: str
    modifiers: tuple[str, ...]
    args: tuple[str, ...]
    text: str

    @property
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
    body = re.sub(r"(?m)^\s*[{}]\s*$", "", body)
    body = re.sub(r"([$\w]+:)(?=\s)", r";\1", body)
    return [re.sub(r"\s+", " ", part).strip() for part in body.split(";") if part.strip()]


def _instruction(text: str) -> Instruction:
    match = re.match(r"(?:@(!?%\w+)\s+)?([a-z][\w]*)((?:\.\w+)*)\s*(.*)$", text)
    if match is None:
        raise PTXError(f"cannot read {text!r}")
    args = tuple(a.strip() for a in re.findall(r"(?:\{[^}]*\}|\([^)]*\)|\[[^\]]*\]|[^,])+", match[4]) if a.strip())
    return Instruction(match[1], match[2], tuple(match[3].split(".")[1:]), args, text)


# -- memory -----------------------------------------------------------------------------------------------------------


def address_in(k: int, offset: int = 0) -> int:
    """Address of a byte in the k-th array that a kernel is given no argument for, but may reach."""
    return (FIRST_REACHABLE + k << 32) + offset


class Memory:
    """The arrays that a kernel was given or may reach, each in its own region, and what threads have themselves."""

    def __init__(self, arrays: list[np.ndarray], reachable: Any, blocks: int, threads: int, module: Module) -> None:
        regions = [*enumerate(arrays, FIRST_REGION), *enumerate(reachable, FIRST_REACHABLE)]
        self.regions = {k: a.reshape(-1).view(np.uint8) for k, a in regions}
        self.moved = dict.fromkeys(self.regions, 0)  # sectors of each array, and the fewest that would have done
        self.least = dict.fromkeys(self.regions, 0)
        self.block_size = threads // blocks
        self.shared_bytes = -(-module.shared_bytes // 8) * 8
        self.regions[SHARED] = np.zeros(self.shared_bytes * blocks, np.uint8)
        grains = {k: -(-b.size // GRAIN) for k, b in self.regions.items()}
        self.owners = {k: np.full(count, NOBODY) for k, count in grains.items()}
        self.last_block = {k: np.zeros(count, np.int64) for k, count in grains.items()}  # of who has touched it
        self.moment = {k: np.zeros(count, np.int64) for k, count in grains.items()}  # how many barriers were before
        self.written = {k: np.zeros(count, bool) for k, count in grains.items()}
        self.barriers = np.zeros(blocks, np.int64)
        self.local = np.zeros((threads, max(max(f.local_bytes for f in module.functions.values()), 1)), np.uint8)
        self.requests = self.sectors = self.bytes = 0

    def load(self, where: np.ndarray, dtype: Any, width: int, threads: np.ndarray) -> np.ndarray:
        """Read `width` elements for each thread; shape (threads, width)."""
        return self._access(where, np.dtype(dtype), width, threads, None)

    def store(self, where: np.ndarray, values: np.ndarray, threads: np.ndarray) -> None:
        """Write ``values[t]`` for each thread."""
        self._access(where, values.dtype, values.shape[1], threads, np.ascontiguousarray(values))

    def _access(self, where: np.ndarray, dtype: Any, width: int, threads: np.ndarray, values: Any) -> Any:
        size = dtype.itemsize * width
        if (where % np.uint64(size)).any():
            raise PTXError(f"misaligned access of {size} bytes")
        regions, offsets = (where >> np.uint64(32)).astype(np.int64), (where & np.uint64(0xFFFFFFFF)).astype(np.int64)
        found = np.zeros((threads.size, size), np.uint8)
        for region in np.unique(regions):
            here = regions == region
            memory = self.local if region == LOCAL else self.regions.get(int(region))
            if memory is None:
                raise PTXError(f"access to an address in no array, {int(where[here][0]):#x}")
            room = self.shared_bytes if region == SHARED else memory.shape[-1]
            if offsets[here].min() < 0 or offsets[here].max() + size > room:
                raise PTXError(f"out of bounds: {size} bytes at {offsets[here].max()} of {room}")
            if region == SHARED:
                offsets = np.where(here, offsets + threads // self.block_size * self.shared_bytes, offsets)
            bytes_of = offsets[here][:, None] + np.arange(size)
            place = (threads[here][:, None], bytes_of) if region == LOCAL else bytes_of
            if region >= FIRST_REGION:
                self._count(int(region), offsets[here], size, threads[here])
            if region != LOCAL:
                self._look_for_race(int(region), offsets[here], size, threads[here], values is not None)
            if values is None:
                found[here] = memory[place]
            else:
                memory[place] = values.view(np.uint8).reshape(threads.size, size)[here]
        return found.view(dtype) if values is None else None

    def _count(self, region: int, offsets: np.ndarray, size: int, threads: np.ndarray) -> None:
        """Requests of warps, and the sectors of 32 bytes that they touch."""
        warps = threads // WARP
        distinct = np.unique(np.unique(warps * 2**40 + offsets) // 2**40, return_counts=True)[1]
        sectors = np.unique(warps * 2**40 + offsets // SECTOR).size
        self.moved[region] += sectors
        self.least[region] += int(np.sum(-(-distinct * size // SECTOR)))
        self.requests += distinct.size
        self.sectors += sectors
        self.bytes += size * threads.size

    def _look_for_race(self, region: int, offsets: np.ndarray, size: int, threads: np.ndarray, writes: bool) -> None:
        grains = -(-size // GRAIN)
        words = (offsets[:, None] // GRAIN + np.arange(grains)).reshape(-1)
        who = np.repeat(threads, grains)
        block = who // self.block_size
        owner, written = self.owners[region], self.written[region]
        last_block, moment = self.last_block[region], self.moment[region]
        past = words[(last_block[words] == block) & (moment[words] < self.barriers[block])]  # a barrier was in between
        owner[past] = NOBODY
        written[past] = False
        others = (owner[words] != NOBODY) & (owner[words] != who)
        if (others & (written[words] | writes)).any() or (writes and np.unique(words).size < np.unique(who).size):
            raise PTXError(f"race: two threads touch the same place of region {region}, and one writes")
        owner[words] = np.where(others, SEVERAL, who)
        if not writes and np.unique(words).size < words.size:
            distinct, first, count = np.unique(words, return_index=True, return_counts=True)
            owner[distinct] = np.where(count > 1, SEVERAL, owner[words[first]])
        last_block[words], moment[words] = block, self.barriers[block]
        written[words] |= writes

    def atomic(self, where: np.ndarray, values: np.ndarray, operation: Any) -> np.ndarray:
        """Combine one value after another with what stands there; return what stood there before."""
        before = np.empty_like(values)
        for k, (address, value) in enumerate(zip(where.tolist(), values, strict=True)):
            memory = self.regions[address >> 32]
            offset = address & 0xFFFFFFFF
            if offset % values.itemsize or offset + values.itemsize > memory.size:
                raise PTXError("misaligned or out of bounds: an atomic operation")
            cell = memory[offset : offset + values.itemsize].view(values.dtype)
            before[k] = cell[0]
            cell[0] = operation(cell[0], value)
        return before


# -- running ----------------------------------------------------------------------------------------------------------


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
    module = Module(text)
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
            return _as_type(self.registers[operand][self.active], dtype)
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
        self.registers[register][self.active] = _as_type(values, kept)

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
                i.args[0], _as_type(values, np.dtype(i.type)) if values.dtype.kind == "f" else values.astype(i.type)
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
            values = [_flushed(v) for v in values]
        result = np.asarray(ARITHMETIC[i.op](*values)).astype(i.type)
        self.set(i.args[0], _flushed(result) if "ftz" in i.modifiers else result)

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
            self.set(i.args[0], _round_down(_fused_odd(a, b, c)) if "rm" in i.modifiers else fused_32(a, b, c))
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


def _as_type(values: np.ndarray, dtype: Any) -> np.ndarray:
    """The same bits as another type; the lower ones where that is smaller."""
    if values.dtype == dtype:
        return values
    if values.itemsize == dtype.itemsize:
        return values.view(dtype)
    if values.dtype == np.bool_ or dtype == np.bool_ or values.dtype.kind == "f":
        return values.astype(dtype)
    words = values.view(WORDS[values.itemsize]).astype(WORDS[dtype.itemsize])
    return words.view(dtype)


def _flushed(values: np.ndarray) -> np.ndarray:
    """Subnormal numbers become zero."""
    return np.where(np.abs(values) < np.finfo(values.dtype).smallest_normal, np.copysign(values * 0, values), values)


def _fused_odd(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """``a*b + c`` of float32 in float64, rounded to odd so that a second rounding does no harm.

    S. Boldo, G. Melquiond, "Emulation of FMA and correctly rounded sums: proved algorithms using rounding to odd", IEEE
    Trans. Computers 57 (2008).
    """
    product, c = a.astype(np.float64) * b.astype(np.float64), c.astype(np.float64)
    total = product + c
    part = total - product
    error = (product - (total - part)) + (c - part)
    bits = total.view(np.int64)
    even = np.isfinite(total) & (error != 0) & (bits % 2 == 0)
    return np.where(even, np.where((error > 0) == (total > 0), bits + 1, bits - 1), bits).view(np.float64)


def fused_32(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """``a*b + c`` of float32, rounded once."""
    return _fused_odd(a, b, c).astype(np.float32)


def _round_down(exact: np.ndarray) -> np.ndarray:
    nearest = exact.astype(np.float32)
    return np.where(nearest > exact, np.nextafter(nearest, np.float32(-np.inf)), nearest)


def fused_64(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """``a*b + c`` of float64 with the error of the product (T. J. Dekker, Numer. Math. 18, 1971), rounded twice."""
    product = a * b
    a_high, b_high = (v * 134217729.0 - (v * 134217729.0 - v) for v in (a, b))
    a_low, b_low = a - a_high, b - b_high
    error = ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low
    total = product + c
    part = total - product
    rest = (product - (total - part)) + (c - part)
    fused = total + (error + rest)
    return np.where(np.isfinite(fused), fused, total)


COMPARE = {
    "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal,
}  # fmt: skip


def _quotient(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a / b if a.dtype.kind == "f" else np.trunc(a / b)


ARITHMETIC = {
    "add": np.add,
    "sub": np.subtract,
    "div": _quotient,
    "rem": np.fmod,
    "min": lambda a, b: np.fmin(a, b) if a.dtype.kind == "f" else np.minimum(a, b),
    "max": lambda a, b: np.fmax(a, b) if a.dtype.kind == "f" else np.maximum(a, b),
    "neg": np.negative,
    "abs": np.abs,
    "not": np.invert,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "sqrt": np.sqrt,
    "rcp": np.reciprocal,
    "rsqrt": lambda a: 1.0 / np.sqrt(a.astype(np.float64)),
    "ex2": lambda a: np.exp2(a.astype(np.float64)),
    "lg2": lambda a: np.log2(a.astype(np.float64)),
    "copysign": lambda a, b: np.copysign(b, a),
}
