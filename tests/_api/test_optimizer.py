"""The optimizer object: against the reference, minimize and other libraries, and against everything that cannot be."""

from __future__ import annotations

import copy
import itertools
import json
import math
import pickle
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from variants import DTYPES, VARIANTS

from rmsprop_nb import RMSprop, RMSpropState, minimize, schedules
from rmsprop_nb._kernels.update import PARALLEL_MIN_SIZE
from rmsprop_nb._training.host_step import _global_norm
from rmsprop_nb._training.presets import NAMES_ELSEWHERE, PRESETS
from rmsprop_nb.testing import reference_rmsprop

GOLDEN = json.loads((Path(__file__).parents[1] / "golden/golden.json").read_text())
RULE_OPTIONS = ("beta", "eps", "momentum", "nesterov", "centered", "eps_inside_sqrt", "bias_correction",
                "initial_accumulator", "weight_decay", "decoupled_weight_decay", "lr_in_momentum")  # fmt: skip


class Layer(NamedTuple):
    weight: np.ndarray
    bias: np.ndarray


class Swapped(NamedTuple):
    bias: np.ndarray
    weight: np.ndarray


def array(*shape, dtype=np.float64, seed=0):
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(dtype)


def tree(dtype=np.float64, seed=0):
    return {
        "layers": [Layer(array(3, 4, dtype=dtype, seed=seed), array(4, dtype=dtype, seed=seed)), ()],
        "scale": array(dtype=dtype, seed=seed).reshape(()),
        "pair": (array(2, 0, dtype=dtype), array(5, 1, 2, dtype=dtype, seed=seed)),
    }


def flat(nested):
    if isinstance(nested, dict):
        return [leaf for key in sorted(nested) for leaf in flat(nested[key])]
    if isinstance(nested, list | tuple):
        return [leaf for child in nested for leaf in flat(child)]
    return [nested]


def as_bytes(*things):
    arrays = [
        a for thing in things for a in (thing.to_arrays().values() if isinstance(thing, RMSpropState) else flat(thing))
    ]
    return [np.asarray(a).tobytes() for a in arrays]


def assert_near(x, expected):
    assert x.dtype == expected.dtype
    tolerance = 8 * np.finfo(x.dtype).eps * max(1.0, np.abs(expected).max(initial=0))
    np.testing.assert_allclose(x, expected, rtol=0, atol=tolerance)


# -- numbers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_steps_equal_the_reference(options, dtype):
    params = tree(dtype)
    grads = [tree(dtype, seed) for seed in range(1, 9)]
    rates = np.linspace(0.1, 0.02, len(grads))
    expected = [
        list(reference_rmsprop(x.ravel(), [flat(g)[k].ravel() for g in grads], rates, **options))[-1].reshape(x.shape)
        for k, x in enumerate(flat(params))
    ]
    optimizer = RMSprop(lambda step: rates[step], **options)
    state = optimizer.init(params)
    for g in grads:
        before = as_bytes(g)
        assert optimizer.step(params, g, state) is None
        assert as_bytes(g) == before
    assert state.step == len(grads)
    for x, y in zip(flat(params), expected, strict=True):
        assert_near(x, y)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_steps_equal_those_of_minimize_bit_for_bit(options, dtype):
    def gradient(x):
        return np.sin(3 * x) + x

    x = array(7, dtype=dtype)
    rate = schedules.cosine_decay(0.1, 9)
    run = minimize(
        lambda x: float((0.5 * x * x - np.cos(3 * x) / 3).sum()), x, jac=gradient,
        options={"learning_rate": rate, "maxiter": 12, "return_all": True, **options},
    )  # fmt: skip
    optimizer = RMSprop(rate, **options)
    state = optimizer.init(x)
    for there in run.allvecs:
        np.testing.assert_array_equal(x, there)
        optimizer.step(x, gradient(x), state)
    assert len(run.allvecs) > 5


@pytest.mark.parametrize("library", PRESETS)
def test_presets_run_as_the_libraries_did(library):
    for case in GOLDEN["cases"]:
        if case["library"] == library.rstrip("1") and "raw_ops" not in case["api"]:
            run_golden(library, case)


def run_golden(library, case):
    dtype = case["dtype"]
    x, gradients = (np.array(unhex(GOLDEN["inputs"][dtype][name]), dtype) for name in ("x0", "gradients"))
    rate = case["learning_rate"]
    preset = RMSprop.preset(library)
    changed = {name: case[name] for name in RULE_OPTIONS if case[name] != getattr(preset, name)}
    if case["name"].endswith("_default"):
        # a value rounded to float32 by the library, and only for that dtype, is its own default all the same
        assert all(case[name] == pytest.approx(getattr(preset, name), rel=1e-7) for name in changed)
        changed = {}
        if library in ("torch", "keras"):
            assert preset.learning_rate == pytest.approx(rate, rel=1e-7)
    if not (isinstance(rate, float) and rate == preset.learning_rate):
        changed["learning_rate"] = (lambda step: rate[step]) if isinstance(rate, list) else rate
    optimizer = RMSprop.preset(library, **changed)
    state = optimizer.init(x)
    recorded = dict(zip(GOLDEN["steps"], case["x"], strict=True))
    for step, g in enumerate(gradients, start=1):
        optimizer.step(x, g, state)
        if step in recorded:
            y = np.array(unhex(recorded[step]), dtype)
            ulps = 8 if not case["centered"] else {"float64": 16, "float32": 64}[dtype]
            assert np.abs(x - y).max() <= ulps * np.spacing(np.abs(y).max()), case["name"]


def unhex(numbers):
    return float.fromhex(numbers) if isinstance(numbers, str) else [unhex(number) for number in numbers]


def test_presets_place_the_formula_as_the_libraries_do():
    for case in GOLDEN["cases"]:
        if case["name"] in ("torch_default", "optax_default", "keras_default", "tf1_default"):
            preset = RMSprop.preset({"tensorflow": "tensorflow1"}.get(case["library"], case["library"]))
            for name in RULE_OPTIONS:
                assert getattr(preset, name) == pytest.approx(case[name], rel=1e-7), case["name"]


def test_presets_say_what_an_option_is_called_here():
    assert RMSprop.preset("torch", momentum=0.9).momentum == 0.9
    for name, here in NAMES_ELSEWHERE.items():
        with pytest.raises(TypeError, match=f"'{name}'; here it is called '{here}'"):
            RMSprop.preset("torch", **{name: 0.5})
    with pytest.raises(TypeError, match="unknown option 'betta'"):
        RMSprop.preset("keras", betta=0.5)
    with pytest.raises(ValueError, match="library must be one of 'torch'"):
        RMSprop.preset("jax")


def test_tensorflow1_rounds_schedules_too():
    optimizer = RMSprop.preset("tensorflow1", learning_rate=schedules.constant(0.1))
    assert optimizer.learning_rate(0) == float(np.float32(0.1))
    assert optimizer.beta == float(np.float32(0.9))


# -- what is done to gradients ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_maximize_goes_the_other_way(dtype):
    x, y, g = array(5, dtype=dtype), array(5, dtype=dtype), array(5, dtype=dtype, seed=1)
    up, down = RMSprop(maximize=True, weight_decay=0.1), RMSprop(weight_decay=0.1)
    up.step(x, g, up.init(x))
    down.step(y, -g, down.init(y))
    np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("dtype", DTYPES)
def test_clip_value_clips_each_element(dtype):
    x, y, g = array(50, dtype=dtype), array(50, dtype=dtype), array(50, dtype=dtype, seed=1)
    clipping, plain = RMSprop(clip_value=0.5), RMSprop()
    clipping.step(x, g, clipping.init(x))
    plain.step(y, np.clip(g, -0.5, 0.5), plain.init(y))
    np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1.0, 1e-15, 1e15])
def test_clip_norm_scales_all_arrays_together(dtype, size):
    grads = [dtype(size) * array(3, 2, dtype=dtype), dtype(size) * array(4, dtype=dtype)]
    norm = math.hypot(*map(float, np.concatenate([g.ravel() for g in grads])))
    for bound in (0.25 * norm, 4 * norm):
        clipping, plain = RMSprop(clip_norm=bound, eps=0.0), RMSprop(eps=0.0)
        x, y = ([np.zeros_like(g) for g in grads] for _ in range(2))
        state, plain_state = clipping.init(x), plain.init(y)
        clipping.step(x, grads, state)
        plain.step(y, [g * dtype(min(1.0, bound / norm)) for g in grads], plain_state)
        for a, b in zip(flat(state.square_avg), flat(plain_state.square_avg), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5)


@pytest.mark.parametrize("size", [0.0, 1e-320, 1e-200, 1.0, 1e200, 1e307, np.inf, np.nan])
def test_global_norm_neither_overflows_nor_underflows(size):
    vectors = [np.array([3.0 * size, 0.0]), np.array([4.0 * size]), np.ones(0)]
    with np.errstate(over="ignore"):  # without the JIT, NumPy tells of the overflow
        norm = _global_norm(vectors)
    assert norm == pytest.approx(5.0 * size, rel=1e-3 if 0 < size < 1e-300 else 1e-15, nan_ok=True)


def test_clipping_takes_gradients_too_large_to_be_squared():
    for options in ({"clip_value": 1.0}, {"clip_norm": 1.0}):
        x, optimizer = np.zeros(2), RMSprop(**options)
        with np.errstate(over="ignore"):
            optimizer.step(x, np.array([1e200, 0.0]), optimizer.init(x))
        assert np.isfinite(x).all()
        assert x[0] < 0
        with pytest.raises(FloatingPointError, match="finite"):
            optimizer.step(x, np.array([np.inf, 0.0]), optimizer.init(x))


@pytest.mark.parametrize("dtype", DTYPES)
def test_accumulation_updates_with_the_mean(dtype):
    x, y = array(3, 4, dtype=dtype), array(3, 4, dtype=dtype)
    grads = [array(3, 4, dtype=dtype, seed=k) for k in range(1, 10)]
    optimizer, plain = RMSprop(accumulate_steps=3, momentum=0.5, clip_norm=2.0), RMSprop(momentum=0.5, clip_norm=2.0)
    state, plain_state = optimizer.init(x), plain.init(y)
    for k, g in enumerate(grads, start=1):
        before = x.copy()
        optimizer.step(x, g, state)
        assert state.step == k // 3
        assert state.accumulated == k % 3
        if k % 3:
            np.testing.assert_array_equal(x, before)
        else:
            plain.step(y, sum(grads[k - 3 : k]) / dtype(3), plain_state)
            assert_near(x, y)
    assert not state.gradient_sum.any()


# -- options of blocks ------------------------------------------------------------------------------------------------


def test_blocks_have_options_of_their_own():
    params = {"W": array(3, 2), "b": array(2), "deep": [{"W": array(2)}, array(3)]}
    expected = copy.deepcopy(params)
    grads = {"W": array(3, 2, seed=1), "b": array(2, seed=1), "deep": [{"W": array(2, seed=1)}, array(3, seed=1)]}
    optimizer = RMSprop(
        0.01,
        weight_decay=0.1,
        per_block={
            "b": {"weight_decay": 0.0, "learning_rate": 0.5},
            "deep": {"momentum": 0.9, "beta": 0.5},
            "deep/0": {"beta": 0.7, "learning_rate": lambda step: 0.2},
        },
    )
    state = optimizer.init(params)
    assert state.momentum_buffer["W"] is None
    assert state.momentum_buffer["deep"][1].shape == (3,)
    for _ in range(3):
        optimizer.step(params, grads, state)
    for x, y, g, options in [
        (params["W"], expected["W"], grads["W"], {"learning_rate": 0.01, "weight_decay": 0.1}),
        (params["b"], expected["b"], grads["b"], {"learning_rate": 0.5}),
        (params["deep"][1], expected["deep"][1], grads["deep"][1],
         {"learning_rate": 0.01, "weight_decay": 0.1, "momentum": 0.9, "beta": 0.5}),
        (params["deep"][0]["W"], expected["deep"][0]["W"], grads["deep"][0]["W"],
         {"learning_rate": 0.2, "weight_decay": 0.1, "momentum": 0.9, "beta": 0.7}),
    ]:  # fmt: skip
        alone = RMSprop(**options)
        alone_state = alone.init(y)
        for _ in range(3):
            alone.step(y, g, alone_state)
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("dtype", DTYPES)
def test_each_element_may_have_its_rate(dtype):
    rates = np.array([[0.0, 0.1, 0.2], [0.3, 0.4, 0.5]]).T
    x, g = array(3, 2, dtype=dtype), array(3, 2, dtype=dtype, seed=1)
    expected = x.copy()
    for k, rate in np.ndenumerate(rates):
        if rate:
            *_, expected[k] = (v[0] for v in reference_rmsprop(np.array([x[k]]), [[g[k]]] * 3, rate))
    for optimizer in (RMSprop(rates), RMSprop(0.7, per_block={"": {"learning_rate": rates}})):
        y = x.copy()
        state = optimizer.init(y)
        for _ in range(3):
            optimizer.step(y, g, state)
        np.testing.assert_allclose(y, expected, rtol=1e-6)
        assert y[0, 0] == x[0, 0]
    with pytest.raises(ValueError, match=r"learning_rate must be a number or have shape \(2,\), that of params"):
        RMSprop(rates).init(np.zeros(2))


# -- any array --------------------------------------------------------------------------------------------------------

LAYOUTS = {
    "contiguous": lambda a: a.copy(),
    "fortran": lambda a: np.asfortranarray(a),
    "reversed": lambda a: a[::-1].copy()[::-1],
    "every other": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
    "misaligned": lambda a: misaligned(a),
    "subclass": lambda a: a.copy().view(Subclass),
    "read-only": lambda a: read_only(a),
}


class Subclass(np.ndarray):
    """Like np.memmap, an array with something more."""


def misaligned(a):
    memory = np.empty(a.nbytes + 1, np.uint8)[1:]
    result = memory.view(a.dtype).reshape(a.shape)
    result[...] = a
    return result


def read_only(a):
    result = a.copy()
    result.setflags(write=False)
    return result


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("of_x", "of_g"), list(itertools.product(list(LAYOUTS)[:-1], LAYOUTS)))
def test_layout_of_memory_changes_nothing(of_x, of_g, dtype):
    expected, g = array(4, 6, dtype=dtype), array(4, 6, dtype=dtype, seed=1)
    x = LAYOUTS[of_x](expected)
    neighbours = None if x.base is None else np.asarray(x.base).copy()
    optimizer = RMSprop(0.1, momentum=0.9)
    state, expected_state = optimizer.init(x), optimizer.init(expected)
    for k in (1, 2):
        optimizer.step(x, LAYOUTS[of_g](dtype(k) * g), state)
        optimizer.step(expected, dtype(k) * g, expected_state)
    np.testing.assert_array_equal(x, expected)
    if of_x == "every other":
        np.testing.assert_array_equal(x.base[..., 1::2].reshape(4, 6), neighbours[..., 1::2].reshape(4, 6))


def test_views_of_one_array_may_be_parameters():
    buffer, copies = array(4, 3), array(4, 3)
    params, apart = {"W": buffer[:, :2], "b": buffer[:, 2]}, {"W": copies[:, :2].copy(), "b": copies[:, 2].copy()}
    grads = {"W": array(4, 2, seed=1), "b": array(4, seed=1)}
    optimizer = RMSprop(0.1)
    state, apart_state = optimizer.init(params), optimizer.init(apart)
    for _ in range(2):
        optimizer.step(params, grads, state)
        optimizer.step(apart, grads, apart_state)
    np.testing.assert_array_equal(buffer, np.column_stack([apart["W"], apart["b"]]))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("options", [{}, {"clip_norm": 1.0, "centered": True}, {"clip_value": 0.5, "maximize": True}])
def test_threads_change_nothing(options, dtype):
    n = PARALLEL_MIN_SIZE + 7
    x, y, g = array(n, dtype=dtype), array(n, dtype=dtype), array(n, dtype=dtype, seed=1)
    threads, one = RMSprop(workers=-1, **options), RMSprop(**options)
    state, one_state = threads.init(x), one.init(y)
    for _ in range(2):
        threads.step(x, g, state)
        one.step(y, g, one_state)
    np.testing.assert_array_equal(x, y)
    g[n // 2] = np.nan
    with pytest.raises(FloatingPointError, match=f"at index {n // 2}"):
        threads.step(x, g, state)


shapes = st.lists(st.integers(0, 4), max_size=3).map(tuple)
leaf = st.tuples(shapes, st.sampled_from(DTYPES), st.sampled_from(["contiguous", "fortran", "every other", "reversed"]))
keys = st.text(alphabet="ab/~'é", max_size=3)
trees = st.recursive(
    leaf,
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: ("list", items))
        | st.lists(inner, max_size=3).map(lambda items: ("tuple", items))
        | st.dictionaries(keys, inner, max_size=3).map(lambda items: ("dict", items))
    ),
    max_leaves=6,
)


def grown(plan, seed, layouts=True):
    match plan:
        case ("list", items):
            return [grown(item, seed + k, layouts) for k, item in enumerate(items)]
        case ("tuple", items):
            return tuple(grown(item, seed + k, layouts) for k, item in enumerate(items))
        case ("dict", items):
            return {key: grown(item, seed + k, layouts) for k, (key, item) in enumerate(items.items())}
    shape, dtype, layout = plan
    fresh = array(*shape, dtype=dtype, seed=seed).reshape(shape)
    return LAYOUTS[layout](fresh) if layouts and shape else fresh


@given(plan=trees, momentum=st.sampled_from([0.0, 0.9]))
def test_any_nesting_of_any_arrays(plan, momentum):
    params, plain, grads = grown(plan, 0), grown(plan, 0, layouts=False), grown(plan, 100)
    optimizer = RMSprop(0.1, momentum=momentum)
    if not flat(params):
        with pytest.raises(ValueError, match="at least one array"):
            optimizer.init(params)
        return
    state = optimizer.init(params)
    for _ in range(2):
        optimizer.step(params, grads, state)
        state = RMSpropState.from_arrays(state.to_arrays())
    for x, y, g in zip(flat(params), flat(plain), flat(grads), strict=True):
        alone = optimizer.init(y)
        for _ in range(2):
            optimizer.step(y, g, alone)
        np.testing.assert_array_equal(x, y)
    assert [a.shape for a in flat(state.square_avg)] == [a.shape for a in flat(params)]


@given(sizes=st.tuples(*[st.integers(1, 5)] * 3), starts=st.tuples(*[st.integers(0, 12)] * 3), step=st.integers(1, 3))
def test_common_memory_is_refused_exactly(sizes, starts, step):
    memory = np.arange(40.0)
    w, b, g = (memory[a : a + n * step : step] for a, n in zip(starts, sizes, strict=True))
    grads = (g, np.ones_like(b))
    params = (w, b)
    if w.shape != g.shape:
        grads = (np.ones_like(w), g) if b.shape == g.shape else (np.ones_like(w), np.ones_like(b))
    clash = np.shares_memory(w, b) or any(np.shares_memory(x, g) for x in params for g in grads)
    optimizer = RMSprop()
    state = optimizer.init((w.copy(), b.copy()))
    before = memory.copy()
    if clash:
        with pytest.raises(ValueError, match="must not share memory"):
            optimizer.step(params, grads, state)
        np.testing.assert_array_equal(memory, before)
    else:
        optimizer.step(params, grads, state)


# -- nothing is written unless all is well ----------------------------------------------------------------------------


def pair(dtype=np.float64):
    return {"W": [array(2, 3, dtype=dtype), array(4, dtype=dtype)], "b": array(3, dtype=dtype)}


def with_leaf(nested, value):
    return nested | {"W": [nested["W"][0], value]}


def spoiled(value):
    g = array(4)
    g[2] = value
    return g


BAD_GRADS = {
    "structure": (lambda g: {"W": g["W"]}, ValueError, r"grads must be a dict with the keys 'W', 'b'"),
    "deeper structure": (lambda g: g | {"W": g["W"][:1]}, ValueError, r"grads\['W'\] must be a list or tuple of 2.*1"),
    "array for list": (lambda g: g | {"W": g["W"][0]}, ValueError, r"grads\['W'\] must be a list or tup.*ndarray"),
    "list for array": (lambda g: with_leaf(g, [1.0] * 4), TypeError, r"grads\['W'\]\[1\] must be a NumPy.*got list"),
    "none": (lambda g: with_leaf(g, None), TypeError, r"grads\['W'\]\[1\] must be a NumPy array, got NoneType"),
    "shape": (lambda g: with_leaf(g, np.ones(3)), ValueError, r"grads\['W'\]\[1\] must have shape \(4,\).*got \(3,\)"),
    "other shape": (lambda g: with_leaf(g, np.ones((4, 1))), ValueError, r"must have shape \(4,\)"),
    "single": (lambda g: with_leaf(g, np.ones(4, np.float32)), TypeError, r"must be float64 like params\['W'\]\[1\]"),
    "integers": (lambda g: with_leaf(g, np.ones(4, int)), TypeError, "must be float64"),
    "byte order": (lambda g: with_leaf(g, np.ones(4, ">f8")), TypeError, "must be float64.*'>f8'"),
    "masked": (lambda g: with_leaf(g, np.ma.ones(4)), TypeError, "masked"),
    "nan": (lambda g: with_leaf(g, spoiled(np.nan)), FloatingPointError, r"\[1\] must be finite, got nan at index 2"),
    "infinite": (lambda g: with_leaf(g, spoiled(-np.inf)), FloatingPointError, "must be finite, got -inf"),
    "too large": (lambda g: with_leaf(g, spoiled(1e152)), FloatingPointError, "at most 1.34e\\+151 in size.*clip"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "error", "message"), BAD_GRADS.values(), ids=BAD_GRADS)
@pytest.mark.parametrize("accumulate_steps", [1, 2])
def test_bad_gradients_change_nothing(change, error, message, accumulate_steps):
    params, grads = pair(), pair()
    optimizer = RMSprop(momentum=0.9, centered=True, accumulate_steps=accumulate_steps)
    state = optimizer.init(params)
    for _ in range(3):
        optimizer.step(params, grads, state)
    before = as_bytes(params, state)
    with pytest.raises(error, match=message):
        optimizer.step(params, change(grads), state)
    assert as_bytes(params, state) == before


def overlapping(shape):
    return np.lib.stride_tricks.as_strided(np.zeros(10), shape, (8, 8))


BAD_PARAMS = {
    "structure": (lambda p: [p["W"], p["b"]], ValueError, "params must be a dict"),
    "shape": (lambda p: with_leaf(p, np.ones(5)), ValueError, r"params\['W'\]\[1\] must have shape \(4,\)"),
    "dtype": (lambda p: with_leaf(p, np.ones(4, np.float32)), TypeError, r"params\['W'\]\[1\] must be float64 like"),
    "half": (lambda p: with_leaf(p, np.ones(4, np.float16)), TypeError, r"\['W'\]\[1\] must be float64 like"),
    "byte order": (lambda p: with_leaf(p, np.ones(4, ">f8")), TypeError, "native byte order"),
    "complex": (lambda p: with_leaf(p, np.ones(4, complex)), TypeError, "must be float32, float64 or float16.*astype"),
    "read-only": (lambda p: with_leaf(p, read_only(np.ones(4))), ValueError, "must be writeable"),
    "scalar": (lambda p: with_leaf(p, np.float64(1)), TypeError, "must be a NumPy array, got float64"),
    "itself": (lambda p: p | {"W": [overlapping((2, 3)), p["W"][1]]}, ValueError, "share no memory, got strides"),
    "twice": (lambda p: p | {"b": p["W"][0][0]}, ValueError, r"\['b'\] must not share memory with params\['W'\]\[0\]"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "error", "message"), BAD_PARAMS.values(), ids=BAD_PARAMS)
def test_bad_parameters_change_nothing(change, error, message):
    params, grads = pair(), pair()
    optimizer = RMSprop()
    state = optimizer.init(params)
    optimizer.step(params, grads, state)
    bad = change(params)
    before = as_bytes(bad, params, state)
    with pytest.raises(error, match=message):
        optimizer.step(bad, grads, state)
    assert as_bytes(bad, params, state) == before


def test_memory_of_the_state_is_its_own():
    x, optimizer = np.zeros(600), RMSprop(momentum=0.5)
    state = optimizer.init(x)
    for stolen in (state.square_avg, state.momentum_buffer):
        with pytest.raises(ValueError, match="params must not share memory with state of params"):
            optimizer.step(stolen, np.ones(600), state)
        with pytest.raises(ValueError, match="grads must not share memory with state of params"):
            optimizer.step(x, stolen, state)
    with pytest.raises(ValueError, match="grads must not share memory with params"):
        optimizer.step(x, x, state)
    optimizer.step(x, np.ones(600), state)
    with pytest.raises(ValueError, match="grads must not share memory with params"):
        optimizer.step(x, x[::-1], state)
    shared = np.ones(2)  # gradients are only read
    two = [np.zeros(2), np.zeros(2)]
    optimizer.step(two, [shared, shared], optimizer.init(two))


def test_arrays_changed_since_the_last_step_are_looked_at_again():
    x, g, optimizer = np.zeros(4), np.ones(4), RMSprop()
    state = optimizer.init(x)
    optimizer.step(x, g, state)
    x.setflags(write=False)
    with pytest.raises(ValueError, match="writeable"):
        optimizer.step(x, g, state)
    x.setflags(write=True)
    optimizer.step(x, g, state)
    with pytest.raises(ValueError, match="cannot resize"):  # NumPy refuses while anybody holds a weak reference
        g.resize(2, refcheck=False)


@pytest.mark.parametrize("rate", [-1.0, np.nan, np.inf])
def test_bad_rate_of_a_schedule_changes_nothing(rate):
    x, optimizer = np.ones(3), RMSprop(lambda step: rate if step else 0.1, accumulate_steps=2)
    state = optimizer.init(x)
    for _ in range(3):
        optimizer.step(x, np.ones(3), state)
    before = as_bytes(x, state)
    with pytest.raises(ValueError, match=r"learning_rate\(step\) must be finite and not negative.*at step 1"):
        optimizer.step(x, np.ones(3), state)
    assert as_bytes(x, state) == before


def test_without_the_check_nothing_is_looked_for():
    x, optimizer = np.ones(3), RMSprop(check_finite=False)
    state = optimizer.init(x)
    optimizer.step(x, np.array([1.0, np.nan, 1.0]), state)
    assert np.isnan(x).tolist() == [False, True, False]


def test_state_of_other_parameters_or_options_is_refused():
    x, plain, other = np.ones(3), RMSprop(), RMSprop(momentum=0.9)
    with pytest.raises(ValueError, match="it has no momentum_buffer, and they need one"):
        other.step(x, np.ones(3), plain.init(x))
    with pytest.raises(ValueError, match="it has a momentum_buffer, and they have no use for it"):
        plain.step(x, np.ones(3), other.init(x))
    with pytest.raises(ValueError, match="no gradient_sum"):
        RMSprop(accumulate_steps=2).step(x, np.ones(3), plain.init(x))
    with pytest.raises(ValueError, match=r"params must have shape \(4,\)"):
        plain.step(x, np.ones(3), plain.init(np.ones(4)))
    with pytest.raises(
        ValueError, match="params must be a dict with the keys 'x', as in the params of init, got ndarray"
    ):
        plain.step(x, np.ones(3), plain.init({"x": x}))
    with pytest.raises(TypeError, match="state must be an RMSpropState"):
        plain.step(x, np.ones(3), None)
    state = plain.init(x)
    RMSprop(0.5, eps=1e-3).step(x, np.ones(3), state)  # numbers may change from step to step
    assert state.step == 1


def test_state_that_was_put_together_by_hand_is_refused():
    state = RMSprop().init(np.ones(3))
    [leaf] = state._leaves
    for wrong in (np.ones(2), np.ones((3, 1)), np.ones(6)[::2]):
        made = RMSpropState(state._structure, (leaf._replace(square_avg=wrong),))
        with pytest.raises(ValueError, match="state must be made by init or from_arrays"):
            RMSprop().step(np.ones(3), np.ones(3), made)


def test_containers_are_matched_by_what_they_mean():
    optimizer = RMSprop()
    layer = Layer(np.ones((2, 2)), np.ones(2))
    state = optimizer.init(layer)
    optimizer.step(layer, [np.ones((2, 2)), np.ones(2)], state)
    assert isinstance(state.square_avg, Layer)
    with pytest.raises(ValueError, match="grads must be a Layer of 2"):
        optimizer.step(layer, Swapped(np.ones(2), np.ones((2, 2))), state)
    with pytest.raises(ValueError, match=r"grads\.bias|grads\[1\]|must have shape"):
        optimizer.step(layer, Layer(np.ones((2, 2)), np.ones(3)), state)
    params = {"a": np.ones(2), "b": np.ones(3)}
    state = optimizer.init(params)
    optimizer.step(params, {"b": np.ones(3), "a": np.ones(2)}, state)  # whatever the order of the keys
    with pytest.raises(TypeError, match="keys of params must be strings, got 3; use '3'"):
        optimizer.init({3: np.ones(1)})
    with pytest.raises(ValueError, match="at least one array"):
        optimizer.init({"a": []})


# -- options ----------------------------------------------------------------------------------------------------------

BAD_OPTIONS = {
    "auto": ({"learning_rate": "auto"}, ValueError, "learning_rate must be a positive number or a callable"),
    "rate": ({"learning_rate": -0.1}, ValueError, "learning_rate must be a positive number"),
    "rates": ({"learning_rate": [0.1, -0.1]}, ValueError, "learning_rate must be finite and not negative"),
    "beta": ({"beta": 1.0}, ValueError, "beta must be a number in"),
    "eps": ({"eps": -1.0}, ValueError, "eps must be a number in"),
    "momentum": ({"momentum": 1.0}, ValueError, "momentum must be a number in"),
    "nesterov": ({"nesterov": True}, ValueError, "nesterov=True needs momentum"),
    "accumulator": ({"initial_accumulator": -1.0}, ValueError, "initial_accumulator must be a number in"),
    "weight_decay": ({"weight_decay": np.nan}, ValueError, "weight_decay must be a number in"),
    "clip_value": ({"clip_value": 0.0}, ValueError, "clip_value must be a number in"),
    "clip_norm": ({"clip_norm": np.inf}, ValueError, "clip_norm must be a number in"),
    "both": ({"clip_norm": 1.0, "clip_value": 1.0}, ValueError, "must not be given together"),
    "accumulate": ({"accumulate_steps": 0}, ValueError, "accumulate_steps must be an integer of at least 1"),
    "never": ({"accumulate_steps": np.inf}, ValueError, "accumulate_steps must be an integer of at least 1, got inf"),
    "workers": ({"workers": 0}, ValueError, "workers must be an integer of at least 1"),
    "blocks": ({"per_block": {"b": 0.1}}, TypeError, "per_block must map names of arrays to options"),
    "option of block": ({"per_block": {"b": {"workers": 2}}}, ValueError, r"per_block\['b'\].*got 'workers'"),
    "value of block": ({"per_block": {"b": {"beta": 2}}}, ValueError, "beta must be a number in"),
}


@pytest.mark.parametrize(("options", "error", "message"), BAD_OPTIONS.values(), ids=BAD_OPTIONS)
def test_bad_options_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        RMSprop(**options)


def test_options_of_a_block_that_is_not_there_are_refused():
    with pytest.raises(ValueError, match="per_block names 'c', which is not in params; there are 'W', 'b'"):
        RMSprop(per_block={"c": {}}).init({"W": np.ones(1), "b": np.ones(1)})


def test_options_do_not_change():
    rates, blocks = np.array([0.1, 0.2]), {"b": {"eps": 1e-3}}
    optimizer = RMSprop(rates, per_block=blocks)
    rates[:] = -1
    blocks["b"]["eps"] = -1
    assert optimizer.learning_rate.tolist() == [0.1, 0.2]
    assert optimizer.per_block["b"]["eps"] == 1e-3
    with pytest.raises(AttributeError):
        optimizer.beta = 0.5
    assert repr(RMSprop(0.1, momentum=0.9)) == "RMSprop(learning_rate=0.1, momentum=0.9)"
    assert pickle.loads(pickle.dumps(optimizer)).per_block == optimizer.per_block


# -- the state in files -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("through", ["arrays", "npz", "pickle", "copy", "deepcopy"])
def test_a_saved_state_goes_on_bit_for_bit(through, tmp_path):
    params, optimizer = tree(np.float32), RMSprop(momentum=0.9, centered=True, bias_correction=True, accumulate_steps=2)
    state = optimizer.init(params)
    for seed in range(3):
        optimizer.step(params, tree(np.float32, seed), state)
    if through == "npz":
        np.savez(tmp_path / "state.npz", **state.to_arrays())
        with np.load(tmp_path / "state.npz", allow_pickle=False) as file:
            again = RMSpropState.from_arrays(file)
    else:
        again = {
            "arrays": lambda: RMSpropState.from_arrays(state.to_arrays()),
            "pickle": lambda: pickle.loads(pickle.dumps(state)),
            "copy": state.copy,
            "deepcopy": lambda: copy.deepcopy(state),
        }[through]()
    assert (again.step, again.accumulated) == (1, 1)
    other = copy.deepcopy(params)
    for seed in range(3, 6):
        optimizer.step(params, tree(np.float32, seed), state)
        optimizer.step(other, tree(np.float32, seed), again)
    assert as_bytes(params, state) == as_bytes(other, again)
    assert again.square_avg["layers"][0]._fields == ("weight", "bias")
    assert repr(state) == "<RMSpropState: 5 arrays, 27 parameters, step 3>"


def test_names_in_files_are_unambiguous():
    params = {"a/b": np.ones(1), "a": {"b": np.ones(1), "~1": np.ones(1)}}
    assert {name for name in RMSprop().init(params).to_arrays() if "/" in name} == {
        "square_avg/a~1b", "square_avg/a/b", "square_avg/a/~01",
    }  # fmt: skip
    assert "square_avg" in RMSprop().init(np.ones(2)).to_arrays()


BAD_ARRAYS = {
    "no structure": (lambda a: a.pop("structure"), "must have the entry 'structure'"),
    "no average": (lambda a: a.pop("square_avg/W"), "must have the entry 'square_avg/W'"),
    "unknown": (lambda a: a.update(extra=np.ones(1)), "got 'extra'"),
    "no JSON": (lambda a: a.update(structure=np.array("{")), "structure must describe nested"),
    "other JSON": (lambda a: a.update(structure=np.array('{"set": []}')), "structure must describe nested"),
    "code": (
        lambda a: a.update(structure=np.array('{"name": "a b", "fields": {"W": null}}')),
        "structure must describe",
    ),
    "step": (lambda a: a.update(step=np.array(-1)), "step must be an integer of at least 0"),
    "real step": (lambda a: a.update(step=np.array(1.0)), "step must be an integer of at least 0"),
    "shape": (lambda a: a.update({"momentum_buffer/W": np.ones(3)}), "momentum_buffer/W must have shape"),
    "dtype": (lambda a: a.update({"momentum_buffer/W": np.ones(2, np.float32)}), "momentum_buffer/W must have shape"),
    "half": (lambda a: a.update({"square_avg/W": np.ones(2, np.float16)}), "square_avg/W must be float32 or float64"),
    "nan": (lambda a: a.update({"square_avg/W": np.full(2, np.nan)}), "square_avg/W must be finite"),
    "negative": (lambda a: a.update({"square_avg/W": np.full(2, -1.0)}), "must not be negative"),
}


@pytest.mark.parametrize(("change", "message"), BAD_ARRAYS.values(), ids=BAD_ARRAYS)
def test_damaged_files_are_refused(change, message):
    arrays = RMSprop(momentum=0.5).init({"W": np.ones(2)}).to_arrays()
    change(arrays)
    with pytest.raises(ValueError, match=message):
        RMSpropState.from_arrays(arrays)


def test_files_of_the_other_byte_order_are_read():
    arrays = RMSprop(initial_accumulator=0.25).init(np.ones(2)).to_arrays()
    arrays["square_avg"] = arrays["square_avg"].astype(">f8")
    x, state = np.ones(2), RMSpropState.from_arrays(arrays)
    RMSprop().step(x, np.ones(2), state)
    assert state.square_avg.tolist() == pytest.approx([0.325, 0.325])
