"""The same work done by other libraries. Each function returns a call without arguments, warmed up.

All libraries are optional: one that is not installed raises NotImplementedError, which asv takes as a skip.
"""

from __future__ import annotations

import importlib
import types
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

from benchmarks._kernels import BETA, EPS, RATE, Vectors
from benchmarks._problems import STEEP, rosen, start

__all__ = ["LOOPS", "UPDATES", "jax_gradients", "quantecon_run"]


def optional(name: str) -> Any:
    """Import a peer, or skip the benchmark."""
    try:
        return importlib.import_module(name)
    except ImportError:
        raise NotImplementedError(name) from None


# -- one update -------------------------------------------------------------------------------------------------------


def numpy_update(v: Vectors) -> Callable[[], None]:
    """Use NumPy without temporaries."""
    x, g, s = v[:3]
    real = x.dtype.type
    rate, beta, one_minus_beta, eps = real(RATE), real(BETA), real(1.0 - BETA), real(EPS)
    buffer = np.empty_like(x)

    def step() -> None:
        np.multiply(g, g, out=buffer)
        np.multiply(buffer, one_minus_beta, out=buffer)
        np.multiply(s, beta, out=s)
        np.add(s, buffer, out=s)
        np.sqrt(s, out=buffer)
        np.add(buffer, eps, out=buffer)
        np.divide(g, buffer, out=buffer)
        np.multiply(buffer, rate, out=buffer)
        np.subtract(x, buffer, out=x)

    step()
    return step


def torch_update(v: Vectors, foreach: bool = True) -> Callable[[], None]:
    """Use PyTorch's optimizer on one thread."""
    torch = optional("torch")
    torch.set_num_threads(1)
    parameter = torch.nn.Parameter(torch.from_numpy(v.x))
    parameter.grad = torch.from_numpy(v.g)
    optimizer = torch.optim.RMSprop([parameter], lr=RATE, alpha=BETA, eps=EPS, foreach=foreach)
    optimizer.step()
    optimizer.state[parameter]["square_avg"].copy_(torch.from_numpy(v.square_avg))
    return optimizer.step


def torch_for_update(v: Vectors) -> Callable[[], None]:
    """Use PyTorch's optimizer with a loop over parameters instead of foreach."""
    return torch_update(v, foreach=False)


def torch_compiled_update(v: Vectors) -> Callable[[], None]:
    """Write the formula in PyTorch, and let torch.compile fuse it into one loop."""
    torch = optional("torch")
    torch.set_num_threads(1)
    x, g, s = map(torch.from_numpy, v[:3])

    @torch.compile
    def update(x: Any, g: Any, s: Any) -> None:
        s.mul_(BETA).addcmul_(g, g, value=1.0 - BETA)
        x.addcdiv_(g, s.sqrt().add_(EPS), value=-RATE)

    def step() -> None:
        with torch.no_grad():
            update(x, g, s)

    step()
    return step


def optax_update(v: Vectors) -> Callable[[], None]:
    """Use optax, jitted, with donated buffers and eps outside the root as in ours."""
    jax, optax = optional("jax"), optional("optax")
    jax.config.update("jax_enable_x64", True)
    transform = optax.rmsprop(RATE, decay=BETA, eps=EPS, eps_in_sqrt=False)

    def update(x: Any, state: Any, g: Any) -> Any:
        step, state = transform.update(g, state, x)
        return optax.apply_updates(x, step), state

    jitted = jax.jit(update, donate_argnums=(0, 1))
    g = jax.numpy.array(v.g)
    x = jax.numpy.array(v.x)
    held = [x, jax.tree.map(lambda leaf: jax.numpy.array(v.square_avg, leaf.dtype), transform.init(x))]

    def step() -> None:
        held[:] = jitted(held[0], held[1], g)
        held[0].block_until_ready()

    step()
    return step


UPDATES = {
    "numpy out=": numpy_update,
    "torch foreach": torch_update,
    "torch for": torch_for_update,
    "torch compiled": torch_compiled_update,
    "optax jitted": optax_update,
}


# -- a whole loop: each function returns ``run(count)``, a run of `count` evaluations ---------------------------------


def numpy_loop(n: int) -> Callable[[int], None]:
    """Loop in Python around NumPy."""
    from benchmarks.loop import python_valley

    v = Vectors.random(n, "float64")

    def run(count: int) -> None:
        x, g, s = start(n), v.g, np.zeros(n)
        for _ in range(count):
            python_valley(x, g, STEEP)
            s *= 0.9
            s += 0.1 * g * g
            x -= 1e-3 * g / (np.sqrt(s) + EPS)

    return run


def torch_loop(n: int) -> Callable[[int], None]:
    """Loop as users of PyTorch do, with autograd and the optimizer."""
    torch = optional("torch")
    torch.set_num_threads(1)

    def run(count: int) -> None:
        x = torch.nn.Parameter(torch.from_numpy(start(n)))
        optimizer = torch.optim.RMSprop([x], lr=1e-3, alpha=0.9, eps=EPS)
        for _ in range(count):
            optimizer.zero_grad()
            d, e = x[1:] - x[:-1] ** 2, 1.0 - x[:-1]
            (STEEP * (d * d).sum() + (e * e).sum()).backward()
            optimizer.step()

    run(2)
    return run


def jax_loop(n: int) -> Callable[[int], None]:
    """Run `jax.lax.while_loop` around the objective, the rule written out, and a test on the gradient."""
    jnp = optional("jax").numpy

    def update(g: Any, s: Any, x: Any) -> Any:
        s = 0.9 * s + 0.1 * g * g
        return x - 1e-3 * g / (jnp.sqrt(s) + EPS), s

    return _while_loop(n, jnp.zeros_like, update)


def optax_loop(n: int) -> Callable[[int], None]:
    """Run the same loop with optax's RMSprop."""
    optax = optional("optax")
    transform = optax.rmsprop(1e-3, decay=0.9, eps=EPS, eps_in_sqrt=False)

    def update(g: Any, state: Any, x: Any) -> Any:
        step, state = transform.update(g, state, x)
        return optax.apply_updates(x, step), state

    return _while_loop(n, transform.init, update)


def _while_loop(n: int, init: Callable[[Any], Any], update: Callable[..., Any]) -> Callable[[int], None]:
    jax = optional("jax")
    jax.config.update("jax_enable_x64", True)
    jnp = jax.numpy

    def valley(x: Any) -> Any:
        d, e = x[1:] - x[:-1] ** 2, 1.0 - x[:-1]
        return STEEP * jnp.sum(d * d) + jnp.sum(e * e)

    def body(carry: Any) -> Any:
        x, state, _, k = carry
        g = jax.grad(valley)(x)
        x, state = update(g, state, x)
        return x, state, jnp.max(jnp.abs(g)), k + 1

    @jax.jit
    def loop(x: Any, count: Any) -> Any:
        begin = (x, init(x), jnp.inf, 0)
        return jax.lax.while_loop(lambda carry: (carry[3] < count) & (carry[2] > 0.0), body, begin)

    def run(count: int) -> None:
        loop(jnp.array(start(n)), count)[0].block_until_ready()

    run(2)
    return run


# -- gradients --------------------------------------------------------------------------------------------------------


def jax_gradients(fun: Any, count: int, x: np.ndarray, *args: Any) -> Callable[[], float]:
    """Evaluate a function and its gradient `count` times in one jitted loop: the same source, with JAX's arrays."""
    jax = optional("jax")
    jax.config.update("jax_enable_x64", True)
    pair = jax.value_and_grad(types.FunctionType(fun.py_func.__code__, {"np": jax.numpy}))

    def body(_: Any, carry: Any) -> Any:
        total, x = carry
        f, g = pair(x, *args)
        return total + f, x + 1e-300 * g  # no evaluation may be left out because it is the same as the last one

    loop = jax.jit(lambda x: jax.lax.fori_loop(0, count, body, (0.0, x))[0])

    def run() -> float:
        return float(loop(x))

    run()
    return run


# -- a whole run of another compiled library ---------------------------------------------------------------------------


def quantecon_run(x0: np.ndarray, steepness: float) -> Callable[[], float]:
    """Use QuantEcon's compiled Nelder-Mead simplex, which maximizes -f; the run returns the lowest f found."""
    nelder_mead = optional("quantecon.optimize").nelder_mead
    compiled = njit(error_model="numpy")(rosen)

    @njit(error_model="numpy")
    def negative(x: Any, steepness: Any) -> Any:
        return -compiled(x, steepness)

    def run() -> float:
        return -nelder_mead(negative, x0, args=(steepness,), tol_f=1e-12, tol_x=1e-12, max_iter=100_000).fun

    run()
    return run


LOOPS = {"numpy": numpy_loop, "torch": torch_loop, "jax while_loop": jax_loop, "optax while_loop": optax_loop}
