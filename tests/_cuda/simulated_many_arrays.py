"""Many arrays in one launch, and half precision, in the simulator; see test_simulator.py."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from device_trees import to_host
from numba import cuda
from simulated_steps import OPTIONS

from rmsprop_nb import RMSprop, schedules
from rmsprop_nb._cuda import array_table
from rmsprop_nb._cuda import arrays as _cuda_arrays
from rmsprop_nb._cuda import step_plan as _cuda_step_plan

ml_dtypes = pytest.importorskip("ml_dtypes")
HALVES = {"float16": np.dtype(np.float16), "bfloat16": np.dtype(ml_dtypes.bfloat16)}
SIZES = (0, 1, 31, 33, 70)  # a chunk is of 32 in the simulator


def arrays(dtype, seed, sizes=SIZES):
    rng = np.random.default_rng(seed)
    return {f"a{n}": rng.normal(size=n).astype(dtype) for n in sizes}


def on_device(tree):
    return {name: cuda.to_device(array) for name, array in tree.items()}


def compare_steps(optimizer, params, gradients):
    host = {name: array.copy() for name, array in params.items()}
    device = on_device(params)
    state, device_state = optimizer.init(host), optimizer.init(device)
    for grads in gradients:
        optimizer.step(host, grads, state)
        optimizer.step(device, on_device(grads), device_state)
    for name, array in host.items():
        found = to_host(device[name])
        assert found.dtype == array.dtype
        np.testing.assert_array_equal(found, array, err_msg=name)
    kept = device_state.to_arrays()
    for name, array in state.to_arrays().items():
        np.testing.assert_array_equal(kept[name], array, err_msg=name)


def exact(options):
    """The options whose results on the device are those of the host to the last bit: norms are added up differently."""
    return {k: v for k, v in options.items() if k not in ("clip_norm", "per_block")}


@pytest.mark.parametrize("half", HALVES.values(), ids=HALVES)
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_half_precision_is_that_of_the_host(options, half):
    optimizer = RMSprop(**{"learning_rate": 0.1, "eps": 1e-3, **exact(options)})
    gradients = [arrays(half, seed, (5, 33)) for seed in (1, 2)]
    compare_steps(optimizer, arrays(half, 0, (5, 33)), gradients)


def test_gradients_may_be_of_float32():
    compare_steps(RMSprop(0.1), arrays(np.float16, 0), [arrays(np.float32, 1)])


def test_numbers_too_large_become_infinite():
    x = cuda.to_device(np.array([60000.0, 1.0], np.float16))
    optimizer = RMSprop(5e4)
    optimizer.step(x, cuda.to_device(np.array([-1.0, 0.0], np.float16)), optimizer.init(x))
    assert np.isinf(to_host(x)).tolist() == [True, False]


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("half", HALVES.values(), ids=HALVES)
def test_bad_gradients_of_half_precision_are_named(half, value):
    params, grads = arrays(half, 0), arrays(half, 1)
    grads["a70"][64] = value
    device, optimizer = on_device(params), RMSprop(0.1)
    state = optimizer.init(device)
    with pytest.raises(FloatingPointError, match=rf"grads\['a70'\] must be finite, got {value} at index 64"):
        optimizer.step(device, on_device(grads), state)
    for name, array in params.items():
        np.testing.assert_array_equal(to_host(device[name]), array)


@pytest.fixture
def launches(monkeypatch):
    """The variants, formats and rows of updates of many arrays, as they are launched; None for an update of one."""
    seen = []

    def many(self, variant, formats, rows, *args, **options):
        seen.append((variant, formats, list(rows)))
        return update(self, variant, formats, rows, *args, **options)

    def single(*args, **options):
        seen.append(None)
        return one(*args, **options)

    update, one = array_table.ArrayTable.update, _cuda_step_plan.prepare_update
    monkeypatch.setattr(array_table.ArrayTable, "update", many)
    monkeypatch.setattr(_cuda_step_plan, "prepare_update", single)
    return seen


def test_one_launch_takes_arrays_of_all_rates(launches):
    per_block = {"a33": {"learning_rate": 0.5, "eps": 1e-2, "beta": 0.5}, "a70": {"learning_rate": lambda step: 0.2}}
    compare_steps(RMSprop(0.1, per_block=per_block), arrays(np.float32, 0), [arrays(np.float32, k) for k in (1, 2)])
    assert [(formats, rows) for _, formats, rows in launches] == [(("float32",) * 2, [0, 1, 2, 3, 4])] * 2


def test_other_variants_and_dtypes_take_a_launch_each(launches):
    optimizer = RMSprop(0.1, per_block={"a1": {"weight_decay": 0.1}, "a70": {"weight_decay": 0.1}})
    params, grads = ({**arrays(np.float64, k), "h": np.ones(3, np.float16)} for k in (0, 1))
    compare_steps(optimizer, params, [grads])
    assert sorted((variant.weight_decay, rows) for variant, _, rows in filter(None, launches)) == [
        (False, [0, 1, 2]),
        (True, [3, 4]),
    ]
    assert launches.count(None) == 1  # the only one of float16


@pytest.fixture
def sent(monkeypatch):
    """Counts tables that are sent."""
    seen = []
    monkeypatch.setattr(type(cuda.event()), "record", lambda event, stream: seen.append(stream))
    return seen


def test_tables_are_sent_when_they_change(sent):
    rate = {"now": 0.1}
    optimizer = RMSprop(lambda step: rate["now"])
    params, grads, others = (on_device(arrays(np.float32, k)) for k in range(3))
    state = optimizer.init(params)
    counts = []
    for given in (grads, grads, others, others, others):
        optimizer.step(params, given, state)
        counts.append(len(sent))
        if len(counts) == 3:
            rate["now"] = 0.2
    assert counts == [2, 2, 3, 4, 4]  # addresses and numbers; nothing; addresses; numbers; nothing


def test_copies_on_their_way_are_not_overwritten(monkeypatch):
    """The host may be far ahead of the device: it waits before it writes where a copy may still read."""
    log = []

    def event():
        number = len([entry for entry in log if entry[0] == "made"])
        log.append(("made", number))
        return SimpleNamespace(
            synchronize=lambda: log.append(("waits", number)), record=lambda stream: log.append(("sent", number))
        )

    monkeypatch.setattr(cuda, "event", event)
    mirror = array_table._Mirror((2,), np.float64)
    made = len(log)
    assert made > 1
    for k in range(made + 1):
        mirror.send(np.full(2, float(k)), 0)
        np.testing.assert_array_equal(to_host(mirror.on_device), [k, k])
    mirror.send(np.full(2, float(made)), 0)
    order = [*range(made), 0]
    assert log[made:] == [entry for k in order for entry in (("waits", k), ("sent", k))]


def test_interrupted_copies_are_sent_again(monkeypatch):
    mirror = array_table._Mirror((2,), np.float64)
    mirror.send(np.ones(2), 0)
    copy = type(mirror.on_device).copy_to_device

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(type(mirror.on_device), "copy_to_device", interrupted)
    with pytest.raises(KeyboardInterrupt):
        mirror.send(np.zeros(2), 0)
    monkeypatch.setattr(type(mirror.on_device), "copy_to_device", copy)
    mirror.send(np.ones(2), 0)
    np.testing.assert_array_equal(to_host(mirror.on_device), [1, 1])


def test_large_arrays_have_longer_chunks():
    for size in (1, 5000, 10**6):
        table = array_table.ArrayTable([size, 3], np.float32)
        assert table.chunk_count <= array_table._MOST_CHUNKS + 2
        assert int(table._chunk_length) % 16 == 0
        assert int(table._chunk_length) * table._first_chunks[1] >= size


def test_arrays_of_another_device_are_refused(monkeypatch):
    monkeypatch.setattr(_cuda_arrays, "device_holding", lambda address: 1)
    with pytest.raises(ValueError, match=r"params\['a0'\] must be on the current CUDA device, 0, but is on device 1"):
        RMSprop().init(on_device(arrays(np.float32, 0)))


def test_a_state_of_another_device_is_refused(monkeypatch):
    optimizer, params, grads = RMSprop(), on_device(arrays(np.float32, 0)), on_device(arrays(np.float32, 1))
    state = optimizer.init(params)
    monkeypatch.setattr(_cuda_arrays, "current_device", lambda: 1)
    with pytest.raises(ValueError, match=r"state of params\['a0'\] must be on the current CUDA device, 1, but is on"):
        optimizer.step(params, grads, state)


def test_memory_is_looked_at_again_when_arrays_change():
    optimizer, params, grads = RMSprop(0.1), on_device(arrays(np.float32, 0)), on_device(arrays(np.float32, 1))
    state = optimizer.init(params)
    optimizer.step(params, grads, state)
    with pytest.raises(ValueError, match=r"must not share memory"):
        optimizer.step(params, {**grads, "a70": params["a70"]}, state)
    with pytest.raises(ValueError, match=r"must not share memory with state of params\['a33'\]"):
        optimizer.step(params, {**grads, "a33": state.square_avg["a33"]}, state)


def test_schedules_reach_every_array():
    optimizer = RMSprop(schedules.cosine_decay(0.1, 8), bias_correction=True)
    compare_steps(optimizer, arrays(np.float64, 0), [arrays(np.float64, k) for k in range(1, 5)])
