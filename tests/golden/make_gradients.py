"""Values and gradients of the objectives in gradient_cases.py as JAX computes them, for the tests of exact derivatives.

    python make_gradients.py         # runs JAX in float64, rewrites gradients.json beside this file

It needs jax; tests read gradients.json. The functions are run as they stand, with JAX's functions in the place of
NumPy's and math's; buffers that they fill are replaced at every write. Numbers are `float.hex` strings.
"""

from __future__ import annotations

import importlib.metadata
import json
import math
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from gradient_cases import CASES

jax.config.update("jax_enable_x64", True)

GOLDEN = Path(__file__).with_name("gradients.json")
BUFFERS = {"zeros", "empty", "zeros_like", "empty_like"}
NAMES = {"asin": "arcsin", "acos": "arccos", "atan": "arctan", "atan2": "arctan2", "fabs": "abs", "pow": "power"}
NAMES |= {"asinh": "arcsinh", "acosh": "arccosh", "atanh": "arctanh"}


class Buffer:
    """An array of JAX that can be written to."""

    def __init__(self, array: Any) -> None:
        self.array = jnp.asarray(array)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.array, name)

    def __getitem__(self, index: Any) -> Any:
        return self.array[index]

    def __setitem__(self, index: Any, value: Any) -> None:
        self.array = self.array.at[index].set(as_array(value))

    def copy(self) -> Buffer:
        """Return a buffer of its own."""
        return Buffer(self.array)


for name in ("add", "radd", "sub", "rsub", "mul", "rmul", "pow", "truediv"):
    operator = f"__{name}__"
    setattr(Buffer, operator, lambda self, other, operator=operator: getattr(self.array, operator)(as_array(other)))


def as_array(value: Any) -> Any:
    """Return what JAX takes: arrays in the place of buffers and lists."""
    if isinstance(value, Buffer):
        return value.array
    return jnp.array(value) if isinstance(value, list) else value


class Numpy:
    """The functions of jax.numpy under their names in NumPy, and buffers that can be filled."""

    linalg = jnp.linalg
    pi = np.pi

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name in BUFFERS:
            return lambda like: Buffer(np.zeros(getattr(like, "shape", like)))
        return lambda *args, **kwargs: getattr(jnp, name)(*map(as_array, args), **kwargs)


class Math(Numpy):
    """The functions of JAX under their names in math."""

    e = math.e
    erf = staticmethod(jax.scipy.special.erf)
    erfc = staticmethod(jax.scipy.special.erfc)
    lgamma = staticmethod(jax.scipy.special.gammaln)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return getattr(jnp, NAMES.get(name, name))


def derivatives(function: Callable[..., Any], x: np.ndarray, args: tuple[Any, ...]) -> tuple[Any, Any]:
    """Return f and its gradient."""
    names = {**function.__globals__, "np": Numpy(), "math": Math()}
    own = types.FunctionType(function.__code__, names)
    writes = "copy" in function.__code__.co_names

    def of(z: Any) -> Any:
        return own(Buffer(z) if writes else z, *args)

    return jax.value_and_grad(of)(jnp.asarray(x))


def main() -> None:
    """Write the file."""
    lines = []
    for name, (function, x, args) in CASES.items():
        f, gradient = derivatives(function, x, args)
        numbers = [float(number).hex() for number in (f, *gradient)]
        lines.append(f"{json.dumps(name)}: {json.dumps(numbers)}")
    versions = {library: importlib.metadata.version(library) for library in ("jax", "jaxlib", "numpy")}
    text = ",\n".join([f'"versions": {json.dumps(versions)}', *lines])
    GOLDEN.write_text(f"{{\n{text}\n}}\n")


if __name__ == "__main__":
    main()
