"""Parameters may be arrays of any layout in any nesting, as long as they share no memory."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nested_arrays import LAYOUTS, array, flat
from variants import DTYPES

from rmsprop_nb import RMSprop, RMSpropState
from rmsprop_nb._kernels.update import PARALLEL_MIN_SIZE


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
