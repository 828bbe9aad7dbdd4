"""The CUDA side on a device. Where there is none these are skipped; the simulator runs them too, but for the last."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numba import njit
from objectives import bowl, decay

from rmsprop_nb import RMSprop, minimize, minimize_batch

pytest.importorskip("numba_cuda", reason="numba-cuda is not installed")
from numba import config, cuda

from rmsprop_nb.cuda import Team, device_rule

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not cuda.is_available(), reason="there is no CUDA device"),
    pytest.mark.filterwarnings("ignore:.*Grid size"),  # of the tests' own small kernels
]
on_real_device = pytest.mark.skipif(bool(config.ENABLE_CUDASIM), reason="the simulator has no streams and is slow")

OPTIONS = {
    "plain": {},
    "eps inside": {"eps_inside_sqrt": True, "initial_accumulator": 1.0},
    "centered": {"centered": True, "bias_correction": True},
    "decay": {"weight_decay": 0.01},
    "decoupled": {"weight_decay": 0.01, "decoupled_weight_decay": True},
    "nesterov": {"momentum": 0.9, "nesterov": True, "lr_in_momentum": True},
    "clipped": {"clip_value": 0.5, "maximize": True},
}
DTYPES = ("float32", "float64")


def compare_steps(options, dtype, n, begin=0, stream=0, steps=3):
    """Take the same steps on host and device, with arrays that begin so many elements after aligned ones."""
    rng = np.random.default_rng(n)
    optimizer = RMSprop(0.01, deterministic=True, **options)
    x = rng.normal(size=n + begin).astype(dtype)
    device = cuda.to_device(x, stream=stream)[begin:]
    if stream:
        device = device.bind(stream)
    x = x[begin:].copy()
    state, device_state = optimizer.init(x), optimizer.init(device)
    for _ in range(steps):
        g = rng.normal(size=n).astype(dtype)
        optimizer.step(x, g, state)
        optimizer.step(device, cuda.to_device(g, stream=stream), device_state)
    found = device_state.to_arrays()  # waits for all streams
    np.testing.assert_array_equal(device.copy_to_host(), x)
    for name, array in state.to_arrays().items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_deterministic_steps_have_the_bits_of_the_cpu(options, dtype):
    for n in (1, 4, 5, 37):
        compare_steps(options, dtype, n)


@pytest.mark.parametrize("dtype", DTYPES)
def test_arrays_may_begin_anywhere(dtype):
    compare_steps({}, dtype, 37, begin=1)


class Bfloat16:
    """An array that describes its numbers as PyTorch does; Numba cannot copy those of ml_dtypes to a device."""

    def __init__(self, array):
        self.dtype, self.words = array.dtype, cuda.to_device(array.view(np.uint16))
        self.__cuda_array_interface__ = {**self.words.__cuda_array_interface__, "typestr": "<V2"}

    def copy_to_host(self):
        return self.words.copy_to_host().view(self.dtype)


def on_device(array, stream=0):
    if array.dtype.name == "bfloat16" and not config.ENABLE_CUDASIM:
        return Bfloat16(array)
    return cuda.to_device(array, stream=stream)


def compare_many(dtypes, sizes, stream=0, steps=3, **options):
    """Take the same steps on host and device with an array of each dtype and size, at rates of their own."""
    rng = np.random.default_rng(0)
    names = [f"{dtype}_{n}" for dtype in dtypes for n in sizes]
    per_block = {name: {"learning_rate": 0.01 * (1 + k)} for k, name in enumerate(names)}
    optimizer = RMSprop(0.1, deterministic=True, per_block=per_block, **options)

    def arrays():
        return {f"{dtype}_{n}": rng.normal(size=n).astype(dtype) for dtype in dtypes for n in sizes}

    def there(tree):
        moved = {name: on_device(array, stream) for name, array in tree.items()}
        return {name: array.bind(stream) for name, array in moved.items()} if stream else moved

    x = arrays()
    device = there(x)
    state, device_state = optimizer.init(x), optimizer.init(device)
    for _ in range(steps):
        g = arrays()
        optimizer.step(x, g, state)
        optimizer.step(device, there(g), device_state)
    found = device_state.to_arrays()  # waits for all streams
    for name, array in state.to_arrays().items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)
    for name, array in x.items():
        np.testing.assert_array_equal(device[name].copy_to_host(), array, err_msg=name)


def test_many_arrays_in_one_launch_have_the_bits_of_the_cpu():
    compare_many([np.float32, np.float64], (5, 37))
    compare_many([np.float16], (1, 37), momentum=0.9, centered=True, bias_correction=True, accumulate_steps=2, steps=4)


def test_bfloat16_has_the_bits_of_the_cpu():
    compare_many([pytest.importorskip("ml_dtypes").bfloat16], (1, 37))


def test_bad_gradients_of_many_arrays_are_named():
    x = {name: cuda.to_device(np.ones(n, np.float16)) for name, n in (("a", 3), ("b", 40))}
    bad = np.ones(40, np.float16)
    bad[35] = np.nan
    optimizer = RMSprop(0.1)
    state = optimizer.init(x)
    with pytest.raises(FloatingPointError, match=r"grads\['b'\] must be finite, got nan at index 35"):
        optimizer.step(x, {"a": cuda.to_device(np.ones(3, np.float16)), "b": cuda.to_device(bad)}, state)
    assert (x["a"].copy_to_host() == 1).all()


def compare_batches(count, method):
    t = np.linspace(0.0, 4.0, 6)
    curves = np.random.default_rng(0).uniform(1.0, 3.0, (count, 1)) * np.exp(-0.7 * t)
    starts = np.tile([1.0, 1.0, 0.0], (count, 1))
    expected, found = (
        minimize_batch(
            decay, starts, (t,), batch_args=(np.ones(count), curves), jac="inplace", method=method, device=device
        )
        for device in ("cpu", "cuda")
    )
    # what is near a minimum amplifies rounding: f and the status say more than the path
    np.testing.assert_array_equal(found.success, expected.success)
    np.testing.assert_allclose(found.fun, expected.fun, rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(found.x, expected.x, atol=1e-4)


@pytest.mark.parametrize("method", ["rmsprop", "rmsprop-lbfgs"])
def test_batches_end_as_on_the_cpu(method):
    compare_batches(12, method)


@njit
def decay_alone(p, t, y):
    s = 0.0
    for i in range(t.size):
        r = p[0] * math.exp(-p[1] * t[i]) - y[i]
        if math.isnan(r):
            raise ValueError("a point is missing")
        s += r * r
    return s


@pytest.mark.skipif(bool(config.ENABLE_CUDASIM), reason="the simulator compiles no derivatives")
def test_batches_with_exact_derivatives_end_as_on_the_cpu():
    t, count = np.linspace(0.0, 4.0, 9), 40
    curves = np.random.default_rng(0).uniform(1.0, 3.0, (count, 1)) * np.exp(-0.7 * t)
    curves[7, 3] = np.nan
    expected, found = (
        minimize_batch(decay_alone, np.ones((count, 2)), (t,), batch_args=(curves,), device=device)
        for device in ("cpu", "cuda")
    )
    assert found.gradient == expected.gradient == "autodiff"
    np.testing.assert_array_equal(found.status, expected.status)
    np.testing.assert_allclose(found.x, expected.x, rtol=1e-6)
    assert str(found.exceptions[7]) == "a point is missing"


@njit
def shared_bowl(x, grad, team):
    f = x[0] - x[0]
    for i in range(team.rank, x.size, team.size):
        f += x[i] * x[i]
        grad[i] = x[i] + x[i]
    return f


@pytest.mark.parametrize("method", ["rmsprop", "rmsprop-lbfgs"])
def test_vectors_may_be_in_a_workspace(method):
    starts = np.random.default_rng(0).normal(size=(20, 40))
    found = minimize_batch(bowl, starts, jac="inplace", method=method, device="cuda")
    assert found.success.all()
    np.testing.assert_allclose(found.x, 0.0, atol=1e-5)


def test_blocks_may_share_a_problem():
    starts = np.random.default_rng(0).normal(size=(2, 5))
    found = minimize_batch(shared_bowl, starts, (Team(),), jac="inplace", device="cuda")
    assert found.success.all()
    np.testing.assert_allclose(found.x, 0.0, atol=1e-5)


def test_single_problem_converges():
    @cuda.jit
    def slope(x, grad):
        i = cuda.grid(1)
        if i < x.size:
            grad[i] = x[i] - x.dtype.type(1)

    def bowl(x, grad):
        slope[1, 32](x, grad)
        return 0.0

    x0 = cuda.to_device(np.zeros(20, np.float32))
    result = minimize(bowl, x0, jac="inplace", options={"learning_rate": 1e-2, "gtol": 0.1, "check_every": 20})
    assert result.success
    assert np.abs(result.x.copy_to_host() - 1.0).max() <= 0.1
    np.testing.assert_array_equal(x0.copy_to_host(), np.zeros(20))


def test_rule_in_a_kernel_of_ones_own():
    rule = device_rule(beta=0.9, deterministic=True)

    @cuda.jit
    def step(x, g, s, rate):
        i = cuda.grid(1)
        if i < x.size:
            zero = x.dtype.type(0)
            x[i], s[i], _, _ = rule(x[i], g[i], s[i], zero, zero, rate, zero)

    x, g = np.random.default_rng(0).normal(size=(2, 20)).astype(np.float32)
    found, s = cuda.to_device(x), cuda.to_device(np.zeros(20, np.float32))
    step[1, 32](found, cuda.to_device(g), s, np.float32(0.01))
    optimizer = RMSprop(0.01)
    optimizer.step(x, g, optimizer.init(x))
    np.testing.assert_array_equal(found.copy_to_host(), x)


@on_real_device
@pytest.mark.parametrize("dtype", DTYPES)
def test_large_steps_on_streams_have_the_bits_of_the_cpu(dtype):
    for stream in (0, cuda.stream()):
        compare_steps({}, dtype, 1_000_003, stream=stream, steps=20)


@on_real_device
def test_large_steps_of_many_arrays_on_streams_have_the_bits_of_the_cpu():
    for stream in (0, cuda.stream()):
        compare_many([np.float32, np.float16], (1, 1000, 100_003, 1_000_003), stream=stream, steps=20)


@on_real_device
def test_clip_norm_is_that_of_the_cpu():
    rng = np.random.default_rng(0)
    x, g = ({name: rng.normal(size=n).astype(np.float32) for name, n in (("a", 1000), ("b", 1_000_003))} for _ in "xg")
    optimizer = RMSprop(0.01, clip_norm=1.0)
    device = {name: cuda.to_device(a) for name, a in x.items()}
    optimizer.step(device, {name: cuda.to_device(a) for name, a in g.items()}, optimizer.init(device))
    optimizer.step(x, g, optimizer.init(x))
    for name, a in x.items():
        np.testing.assert_allclose(device[name].copy_to_host(), a, rtol=1e-5, atol=1e-6)


@on_real_device
def test_arrays_on_another_device_are_refused():
    if len(cuda.gpus) < 2:
        pytest.skip("there is one CUDA device")
    with cuda.gpus[1]:
        there = cuda.to_device(np.ones(3))
    with pytest.raises(ValueError, match="params must be on the current CUDA device, 0, but is on device 1"):
        RMSprop().init(there)


@on_real_device
def test_memory_of_the_host_is_refused():
    class Fake:
        values = np.ones(3)
        __cuda_array_interface__ = {**values.__array_interface__, "version": 3, "stream": None}  # noqa: RUF012

    with pytest.raises(ValueError, match="no CUDA device has memory at"):
        RMSprop().init(Fake())


@on_real_device
@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_tensors_of_half_precision(name):
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("PyTorch sees no CUDA device")
    g = torch.linspace(-1.0, 1.0, 100_003, device="cuda").to(getattr(torch, name))
    if not hasattr(g, "__cuda_array_interface__"):
        pytest.skip("this PyTorch does not describe bfloat16")
    x, optimizer = torch.ones_like(g), RMSprop(0.01, deterministic=True)
    state = optimizer.init(x)
    expected = np.ones(g.shape[0], np.float32)
    host_state = optimizer.init(expected)
    for _ in range(5):
        optimizer.step(x, g, state)
        optimizer.step(expected, g.float().cpu().numpy(), host_state)
        expected[:] = torch.from_numpy(expected).to(g.dtype).float().numpy()
    np.testing.assert_array_equal(x.float().cpu().numpy(), expected)


@on_real_device
def test_large_batches_end_as_on_the_cpu():
    compare_batches(100_000, "rmsprop")


@on_real_device
@pytest.mark.parametrize("dtype", DTYPES)
def test_large_problems_shared_by_blocks(dtype):
    starts = np.random.default_rng(0).normal(size=(1000, 4001)).astype(dtype)
    found = minimize_batch(shared_bowl, starts, (Team(),), jac="inplace", device="cuda")
    assert found.success.all()


@on_real_device
@pytest.mark.parametrize("args", [(), (Team(),)], ids=["threads", "blocks"])
def test_objective_that_raises_ends_its_problem_alone(args):
    @njit
    def raises_below_zero(x, grad, *args):
        if x[0] < 0.0:
            raise ValueError
        for i in range(x.size):
            grad[i] = x[i] - 1.0
        return (x[0] - 1.0) ** 2 / 2.0

    starts = np.full((5000, 40), 2.0)
    starts[7] = -1.0
    found = minimize_batch(raises_below_zero, starts, args, jac="inplace", device="cuda", options={"maxiter": 3})
    np.testing.assert_array_equal(np.flatnonzero(found.status == 8), [7])
    assert isinstance(found.exceptions[7], ValueError)
    assert not np.isnan(np.delete(found.x, 7, 0)).any()


@on_real_device
def test_tensors_on_a_stream_of_their_own():
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("PyTorch sees no CUDA device")
    x = torch.zeros(1_000_003, device="cuda")
    optimizer = RMSprop(0.01, deterministic=True, check_finite=False)
    expected = np.zeros(x.shape[0], np.float32)
    state, host_state = optimizer.init(x), optimizer.init(expected)
    torch.cuda.synchronize()  # the zeros were made on another stream
    with torch.cuda.stream(torch.cuda.Stream()):
        for _ in range(20):
            optimizer.step(x, 2.0 * x - 1.0, state)
        found = x.cpu().numpy()
    for _ in range(20):
        optimizer.step(expected, np.float32(2) * expected - np.float32(1), host_state)
    np.testing.assert_array_equal(found, expected)
