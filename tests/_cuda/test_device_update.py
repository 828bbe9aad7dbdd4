"""The update as compiled CUDA code, without a device: what it computes, by an interpreter, and its machine code."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numba import cuda, float32, float64, int32, int64, uint64
from offline_compiler import ARCHITECTURES, machine_code, ptx
from ptx_interpreter import address_in, run

from rmsprop_nb._core.rule import make_rule, times
from rmsprop_nb._core.types import Hyper, Variant
from rmsprop_nb._cuda.memory import ITEMSIZE, element_access, real_of, several_access, width_of
from rmsprop_nb._cuda.reduce import make_add, make_largest, make_sum_of_squares
from rmsprop_nb._cuda.update import BLOCK, make_many_update, make_update
from rmsprop_nb._kernels.update import make_update as make_host_update
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
RATE, CORRECTION = 0.01, 0.5


def hyper_of(real):
    return Hyper.of(real, 0.9, 1e-8, 0.9, 0.01)


# -- arrays in memory that kernels reach by address -------------------------------------------------------------------


def to_memory(values, number_format):
    """Numbers of a format that all are exactly the same in it, as bytes of which each begins at a multiple of 16."""
    if number_format == "bfloat16":
        return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    return values.astype(number_format)


def from_memory(stored, number_format):
    if number_format == "bfloat16":
        return (stored.astype(np.uint32) << 16).view(np.float32)
    return stored.astype(real_of(number_format))


def rounded(values, number_format):
    """To nearest, ties to even, in the format; by exact arithmetic where NumPy has no such number."""
    if number_format != "bfloat16":
        return values.astype(number_format).astype(values.dtype)
    values = values.astype(np.float64)
    unit = np.maximum(np.frexp(values)[1] - 8, -133)  # the exponent of the last place
    return np.ldexp(np.rint(np.ldexp(values, -unit)), unit).astype(np.float32)


class Arrays:
    """x, g and the averages of an array of n elements; the elements begin so many after an aligned place."""

    def __init__(self, variant, n, formats, begin=0, seed=0):
        rng = np.random.default_rng([n, seed])
        self.n, self.begin, self.formats = n, begin, (*formats, *[str(real_of(formats[0]))] * 3)

        def normal(used=True):
            return rng.normal(size=n if used else 0)

        values = normal(), normal(), rng.random(n), 0.1 * normal(variant.centered), normal(variant.momentum)
        self.host = [rounded(v.astype(real_of(f)), f) for v, f in zip(values, self.formats, strict=True)]
        self.device = [
            np.concatenate([np.zeros(begin, to_memory(h, f).dtype), to_memory(h, f)])
            for h, f in zip(self.host, self.formats, strict=True)
        ]

    def addresses(self, first):
        """Where they are, if the first is the first-th of those that can be reached."""
        return [address_in(first + k, self.begin * ITEMSIZE[f]) for k, f in enumerate(self.formats)]

    def found(self):
        return [from_memory(d[self.begin :], f) for d, f in zip(self.device, self.formats, strict=True)]

    def expected(self, variant, hyper, rate=RATE, scale=None, limit=None):
        """What the update on the CPU makes of them, with parameters rounded once, at the end."""
        arrays = [h.copy() for h in self.host]
        make_host_update(variant)(*arrays, rate, CORRECTION, hyper, 1, None, scale, limit)
        arrays[0] = rounded(arrays[0], self.formats[0])
        return arrays


def compare(found, expected, message):
    for name, a, b in zip("xgsmb", found, expected, strict=True):
        np.testing.assert_array_equal(a, b, err_msg=f"{name}, {message}")


# -- one array --------------------------------------------------------------------------------------------------------


def single_signature(real):
    return (*[uint64] * 6, *[real] * 9)


def compiled_single(variant, formats, *, adjusts=False, deterministic=True):
    real = str(real_of(formats[0]))
    return ptx(make_update(variant, formats, adjusts, deterministic), single_signature(REALS[real]))


def run_single(text, arrays, scale=1.0, limit=math.inf):
    real = real_of(arrays.formats[0]).type
    numbers = (*map(real, (RATE, CORRECTION, scale, limit)), *hyper_of(real))
    return run(text, 3, 64, (*map(np.uint64, (*arrays.addresses(0), arrays.n)), *numbers), arrays.device)


@pytest.mark.parametrize("real", REALS)
@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_deterministic_update_has_the_bits_of_the_cpu(variant, real):
    text = compiled_single(variant, (real, real))
    assert "fma." not in text
    for n in SIZES:
        for begin in (0, 1):
            arrays = Arrays(variant, n, (real, real), begin)
            run_single(text, arrays)
            compare(arrays.found(), arrays.expected(variant, hyper_of(real)), f"n={n}, begin={begin}")


@pytest.mark.parametrize("real", REALS)
def test_clipped_update_has_the_bits_of_the_cpu(real):
    text = compiled_single(Variant(), (real, real), adjusts=True)
    arrays = Arrays(Variant(), 1025, (real, real))
    run_single(text, arrays, -0.5, 0.7)
    compare(arrays.found(), arrays.expected(Variant(), hyper_of(real), scale=-0.5, limit=0.7), "clipped")


# Where nothing cancels and steps are short beside x, rounding once or twice shows in the last place alone.
MOST_ULPS = {"bias": 8, "everything": 8, "momentum": 4, "nesterov": 4}  # of the larger of x and the step; 2 for others


@pytest.mark.parametrize("real", REALS)
@pytest.mark.parametrize("name", VARIANTS)
def test_update_is_that_of_the_cpu_but_for_fused_sums(name, real):
    variant = VARIANTS[name]
    text = compiled_single(variant, (real, real), deterministic=False)
    assert "fma." in text
    arrays = Arrays(variant, 4099, (real, real))
    run_single(text, arrays)
    found, expected = arrays.found(), arrays.expected(variant, hyper_of(real))
    coupled = variant.weight_decay and not variant.decoupled_weight_decay
    assert ulps(found[2], expected[2], expected[2]).max() <= (2 if coupled else 1)
    x, step = np.abs(arrays.host[0]), np.abs(expected[0] - arrays.host[0])
    assert ulps(found[0], expected[0], np.maximum(x, step)).max() <= MOST_ULPS.get(name, 2)
    if not variant.centered:  # whose variance is a difference
        short = step <= x / 8
        assert short.sum() > 400
        assert ulps(found[0], expected[0], np.maximum(x, np.abs(expected[0])))[short].max() <= 1
    if name == "bias":
        assert ulps(found[3], expected[3], np.maximum(np.abs(expected[3]), np.abs(arrays.host[1]) / 10)).max() <= 2
    if name == "momentum":
        assert ulps(found[4], expected[4], np.maximum(np.abs(expected[4]), np.abs(arrays.host[4]))).max() <= 4


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_update_is_no_further_from_the_exact_one_than_that_of_the_cpu(variant):
    hyper, rule = hyper_of("float32"), make_rule(times)
    arrays = Arrays(variant, 1025, ("float32", "float32"))
    columns = [(a if a.size else np.zeros(arrays.n)).astype(np.float64) for a in arrays.host]
    constants = (*map(np.float64, map(np.float32, (RATE, CORRECTION))), Hyper(*map(np.float64, hyper)), variant)
    exact = np.array([rule(*row, *constants) for row in zip(*columns, strict=True)]).T
    run_single(compiled_single(variant, ("float32", "float32"), deterministic=False), arrays)
    scale = np.maximum(np.abs(columns[0]), np.abs(exact[0] - columns[0])), exact[1], np.abs(columns[1]), 1.0 + exact[3]
    for name, k, column, size in zip("xsmb", (0, 2, 3, 4), exact, scale, strict=True):
        found, expected = arrays.found()[k], arrays.expected(variant, hyper)[k]
        if found.size:
            errors = [ulps(values.astype(np.float64), column, np.float32(size)) for values in (found, expected)]
            assert errors[0].mean() <= 1.02 * errors[1].mean(), name
            assert errors[0].max() <= 1.0 + errors[1].max(), name


def ulps(a, b, scale):
    return np.abs(a - b) / np.spacing(np.abs(scale))


@pytest.mark.slow
def test_large_update_has_the_bits_of_the_cpu():
    arrays = Arrays(Variant(), 100_003, ("float32", "float32"))
    counted = run_single(compiled_single(Variant(), ("float32", "float32")), arrays)
    compare(arrays.found(), arrays.expected(Variant(), hyper_of("float32")), "large")
    assert counted.sectors_over_least < 1.01


@pytest.mark.parametrize("number_format", ITEMSIZE)
def test_threads_of_a_warp_read_neighbours(number_format):
    text = compiled_single(Variant(), (number_format,) * 2, deterministic=False)
    counted = run_single(text, Arrays(Variant(), 2048, (number_format,) * 2))
    # beside eight numbers of half precision are two 128 bits of state, which touch the same sectors twice
    assert counted.sectors_over_least == (11 / 7 if ITEMSIZE[number_format] == 2 else 1.0)


# -- numbers of half precision ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("number_format", ["float16", "bfloat16"])
def test_half_precision_is_read_and_rounded_as_it_should(number_format):
    """Every number there is comes back, and whatever lies between two is rounded to nearest, ties to even."""
    load, store = several_access(number_format, 8)
    load_one, store_one = element_access(number_format)

    @cuda.jit
    def convert(halves, reals, singles):  # 8 each, and one each
        i = uint64(cuda.grid(1))
        values = load(halves, i)
        store(singles, i, values)
        for k in range(8):
            j = uint64(8) * i + uint64(k)
            reals[j] = load_one(halves, j) if j % uint64(2) else values[k]

    @cuda.jit
    def shrink(reals, halves):
        i = uint64(cuda.grid(1))
        store_one(halves, i, reals[i])

    every = np.arange(2**16).astype(np.uint16)
    reals, singles = np.zeros(2**16, np.float32), np.zeros(2**16, np.uint16)
    places = uint64, float32[::1], uint64
    run(ptx(convert, places), 64, 128, (np.uint64(address_in(0)), reals, np.uint64(address_in(1))), [every, singles])
    stored = every if number_format == "bfloat16" else every.view(np.float16)
    expected = from_memory(stored, number_format)
    np.testing.assert_array_equal(reals, expected)
    numbers = ~np.isnan(expected)
    np.testing.assert_array_equal(singles[numbers], every[numbers])
    assert np.isnan(from_memory(singles.view(stored.dtype), number_format)[~numbers]).all()

    finite = np.sort(expected[np.isfinite(expected)]).astype(np.float64)[::7]
    middles = ((finite[1:] + finite[:-1]) / 2).astype(np.float32)
    between = np.concatenate([middles, np.nextafter(middles, np.inf, dtype=np.float32), [np.inf, 3e38, 0.0, -0.0]])
    between = between.astype(np.float32)
    found = np.zeros(between.size, np.uint16)
    run(ptx(shrink, (float32[::1], uint64)), between.size, 1, (between, np.uint64(address_in(0))), [found])
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(
            from_memory(found.view(stored.dtype), number_format), rounded(between, number_format)
        )


# -- many arrays ------------------------------------------------------------------------------------------------------

LENGTH = 512  # of a chunk


def many_signature(real):
    return (int32[:, ::1], uint64, uint64, uint64[:, ::1], real[:, ::1], real, real)


def chunks_of(sizes):
    return np.array([(row, part) for row, n in enumerate(sizes) for part in range(-(-n // LENGTH))], np.int32)


def table_of(arrays, first=0):
    """A table of addresses, and what is reached by it; the size of an array comes last."""
    rows = [[*a.addresses(5 * k + first), 0, a.n] for k, a in enumerate(arrays)]
    return np.array(rows, np.uint64), [d for a in arrays for d in a.device]


@pytest.mark.parametrize("formats", [*((f, f) for f in ITEMSIZE), ("bfloat16", "float32")], ids="-".join)
@pytest.mark.parametrize("name", ["plain", "everything"])
def test_arrays_of_all_sizes_in_one_launch_have_the_bits_of_the_cpu(name, formats):
    variant, real = VARIANTS[name], real_of(formats[0])
    arrays = [Arrays(variant, n, formats, begin, seed=1) for n in SIZES for begin in (0, 1, 8)]
    rates = [0.01 * (1 + k) for k in range(len(arrays))]
    hypers = [Hyper.of(real, 0.9 - 0.01 * k, 1e-3 * k, 0.9, 0.01) for k in range(len(arrays))]
    numbers = np.array([(rate, CORRECTION, *hyper) for rate, hyper in zip(rates, hypers, strict=True)], real)
    expected = [a.expected(variant, h, rate=r) for a, h, r in zip(arrays, hypers, rates, strict=True)]
    addresses, memory = table_of(arrays)
    chunks = chunks_of([a.n for a in arrays])
    text = ptx(make_many_update(variant, formats, False, True), many_signature(REALS[str(real)]))
    begun = 7  # a launch takes some of the chunks
    for first, count in ((0, begun), (begun, len(chunks) - begun)):
        places = chunks, np.uint64(first), np.uint64(LENGTH), addresses, numbers
        run(text, count, 64, (*places, real.type(1.0), real.type(np.inf)), memory)
    for a, made in zip(arrays, expected, strict=True):
        compare(a.found(), made, f"n={a.n}, begin={a.begin}")


def test_clipped_gradients_of_many_arrays():
    arrays = [Arrays(Variant(), n, ("float16", "float16")) for n in (5, 1025)]
    hyper = hyper_of("float32")
    expected = [a.expected(Variant(), hyper, scale=-0.5, limit=0.7) for a in arrays]
    addresses, memory = table_of(arrays)
    numbers = np.array([(RATE, CORRECTION, *hyper)] * 2, np.float32)
    chunks = chunks_of([5, 1025])
    text = ptx(make_many_update(Variant(), ("float16",) * 2, True, True), many_signature(float32))
    places = chunks, np.uint64(0), np.uint64(LENGTH), addresses, numbers
    run(text, len(chunks), 64, (*places, np.float32(-0.5), np.float32(0.7)), memory)
    for a, made in zip(arrays, expected, strict=True):
        compare(a.found(), made, f"n={a.n}")


@pytest.mark.parametrize("number_format", ITEMSIZE)
def test_reductions(number_format):
    real = real_of(number_format)
    bits = np.dtype(f"i{real.itemsize}")
    tables = int32[:, ::1], uint64, uint64[:, ::1]
    largest = ptx(make_largest(number_format), (*tables, (int64 if bits.itemsize == 8 else int32)[::1]))
    squares = ptx(make_sum_of_squares(number_format), (*tables, float64[::1]))
    arrays = [Arrays(Variant(), n, (number_format,) * 2, n % 2) for n in SIZES]
    addresses, memory = table_of(arrays)
    chunks = chunks_of(SIZES)
    given = chunks, np.uint64(LENGTH), addresses
    parts = [arrays[row].host[1][part * LENGTH : (part + 1) * LENGTH] for row, part in chunks]
    found, sums = np.full(len(chunks), -1, bits), np.full(len(chunks), np.nan)
    run(largest, len(chunks), BLOCK, (*given, found), memory)
    np.testing.assert_array_equal(found.view(real), [np.abs(part).max() for part in parts])
    run(squares, len(chunks), BLOCK, (*given, sums), memory)
    np.testing.assert_allclose(sums, [np.sum(part.astype(np.float64) ** 2) for part in parts], rtol=1e-14)
    memory[5 * 7 + 1][1000:1002] = to_memory(np.array([np.nan, np.inf]), number_format)  # in the last array
    run(largest, len(chunks), BLOCK, (*given, found), memory)
    assert np.isnan(found.view(real)).tolist() == [part[1] == 1 and part[0] == 7 for part in chunks.tolist()]


@pytest.mark.parametrize("number_format", ITEMSIZE)
def test_gradients_are_added_up(number_format):
    real = real_of(number_format)
    add = ptx(make_add(number_format), (int32[:, ::1], uint64, uint64[:, ::1]))
    arrays = [Arrays(Variant(), n, (number_format,) * 2, n % 2) for n in SIZES]
    totals = [np.ones(n, real) for n in SIZES]
    addresses, memory = table_of(arrays)
    addresses[:, 5] = [address_in(len(memory) + k) for k in range(len(totals))]
    chunks = chunks_of(SIZES)
    run(add, len(chunks), BLOCK, (chunks, np.uint64(LENGTH), addresses), [*memory, *totals])
    for a, total in zip(arrays, totals, strict=True):
        np.testing.assert_array_equal(total, np.ones(1, real) + a.host[1])


# -- machine code -----------------------------------------------------------------------------------------------------

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


@pytest.mark.parametrize("capability", ARCHITECTURES, ids=str)
@pytest.mark.parametrize(("kind", "number_format", "many"), KERNELS, ids=lambda v: "many" if v is True else v)
def test_machine_code_of_the_update(kind, number_format, many, capability):
    variant = VARIANTS["everything" if kind == "everything" else "plain"]
    real, width = REALS[str(real_of(number_format))], width_of(number_format)
    make, signature = (make_many_update, many_signature) if many else (make_update, single_signature)
    code = machine_code(
        make(variant, (number_format,) * 2, False, kind == "deterministic"), signature(real), capability
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
            assert whole.total() * (2 + averages) / loads / width <= KERNELS[kind, number_format, many]


@pytest.mark.parametrize("capability", ARCHITECTURES, ids=str)
def test_machine_code_of_what_is_around_the_update(capability):
    tables = int32[:, ::1], uint64, uint64[:, ::1]
    kernels = {
        "largest": (make_largest("float32"), (*tables, int32[::1])),
        "squares": (make_sum_of_squares("float16"), (*tables, float64[::1])),
        "add": (make_add("bfloat16"), tables),
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
