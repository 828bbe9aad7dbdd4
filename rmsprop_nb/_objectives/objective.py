"""Any ``fun`` and ``jac`` made into one thing: ``evaluate(x, g) -> f``, which fills g.

When both are compiled functions the evaluation is a small compiled adapter around them, known by its address, and a
compiled loop calls it without returning to Python. Otherwise it is a Python object that checks what the user's
functions return.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import numpy as np
from numba import float32, float64, types
from numba.core.errors import NumbaError
from numba.extending import is_jitted
from numpy.typing import NDArray

from rmsprop_nb._numba.decorators import adapter_jit, inline_jit, kernel_jit, user_jit
from rmsprop_nb._numba.native import (
    OBJECTIVE_SIGNATURE,
    Unpackable,
    call_inlined,
    call_objective,
    entry_address,
    launches_threads,
    load_args,
    load_vectors,
    pack,
    return_type,
    word_offsets,
)
from rmsprop_nb._numba.thread_safety import objective_in_turn
from rmsprop_nb._objectives.finite_differences import CALLS_PER_VARIABLE, DIFFERENCES, complex_step, default_rel_step

logger = logging.getLogger("rmsprop_nb")


@dataclasses.dataclass(frozen=True)
class Problem:
    """What the user asked to be minimized, validated.

    Attributes
    ----------
    fun : callable
        The objective, in the form that `jac` says.
    jac : callable, True, "2-point", "3-point", "cs" or "inplace"
        Where the gradient comes from.
    args : tuple
        Further arguments of both.
    lower, upper : ndarray
        Bounds in the dtype of x, of size 0 if there are none.
    rel_step : float or None
        Relative step of differences as the user gave it.
    """

    fun: Callable[..., Any]
    jac: Any
    args: tuple[Any, ...]
    lower: NDArray[Any]
    upper: NDArray[Any]
    rel_step: float | None

    @property
    def step(self) -> tuple[float, bool]:
        """Relative step of differences, and whether it is relative to x alone."""
        if self.rel_step is not None:
            return self.rel_step, True
        return default_rel_step(self.jac, self.lower.dtype), False

    def calls_per_gradient(self, n: int) -> int:
        """Number of calls of `fun` that one gradient takes, beside the one for f itself."""
        return n * CALLS_PER_VARIABLE.get(self.jac, 0) if isinstance(self.jac, str) else 0


_SINGLE, _DOUBLE = (types.Array(real, 1, "C") for real in (float32, float64))


# -- compiled ---------------------------------------------------------------------------------------------------------


class _Adapter(NamedTuple):
    """A compiled adapter, and what is known of it."""

    dispatcher: Any  # keeps the code at `address`
    address: int
    launches_threads: bool


class CompiledObjective:
    """An evaluation that compiled code calls by its address.

    Attributes
    ----------
    address, data : int
        Where the adapter and its packed arguments are. Valid while this object lives.
    launches_threads : bool
        Whether the user's functions have parallel loops.
    words : ndarray of int64
        The packed arguments.
    offsets : list of int
        Where each of the user's args begins in `words`, and where the last ends.
    """

    def __init__(self, adapter: _Adapter, words: NDArray[np.int64], references: list[Any], offsets: list[int]) -> None:
        self.address = adapter.address
        self.launches_threads = adapter.launches_threads
        self.data = int(words.ctypes.data)
        self.words = words
        self.offsets = offsets
        self._adapter = adapter
        self._references = references

    def __call__(self, x: NDArray[Any], g: NDArray[Any]) -> float:
        """Fill g with the gradient at x and return f."""
        with self.in_turn():
            return float(_evaluate(self.address, x, g, self.data))

    def in_turn(self) -> AbstractContextManager[Any]:
        """What compiled code that calls the adapter has to be run within: functions with threads of their own wait."""
        return objective_in_turn() if self.launches_threads else contextlib.nullcontext()


@kernel_jit("evaluate")
def _evaluate(address, x, g, data):
    return call_objective(address, x, g, data)


def compile_objective(problem: Problem, dtype: Any) -> CompiledObjective | None:
    """Compile the evaluation, or return None where Numba cannot: the functions or their arguments are not for it."""
    functions = [problem.fun, problem.jac] if callable(problem.jac) else [problem.fun]
    if not all(map(is_jitted, functions)):
        return None
    try:
        words, references, args_type = pack(_adapter_args(problem))
        array_type = _SINGLE if dtype == np.float32 else _DOUBLE
        adapter = _compile_adapter(problem.fun, problem.jac, args_type, array_type)
    except (Unpackable, NumbaError, NotImplementedError) as error:
        logger.debug("the loop runs interpreted, because the objective cannot be compiled into it: %s", error)
        return None
    return CompiledObjective(adapter, words, references, _offsets(problem, args_type))


def _adapter_args(problem: Problem) -> tuple[Any, ...]:
    if problem.jac in DIFFERENCES:
        return (problem.step, (problem.lower, problem.upper), problem.args)
    return problem.args


def _offsets(problem: Problem, args_type: Any) -> list[int]:
    """Where the user's args stand among those of the adapter."""
    if problem.jac in DIFFERENCES:
        return word_offsets(args_type.types[2], start=word_offsets(args_type)[2])
    return word_offsets(args_type)


@functools.lru_cache(maxsize=256)
def _compile_adapter(fun: Any, jac: Any, args_type: Any, array_type: Any) -> _Adapter:
    """Compile the adapter, and find its address; kept, so that a second run of the same objective compiles nothing."""
    if jac == "cs":
        z_type = types.Array(types.complex128, 1, "C")
        if not isinstance(return_type(fun, (z_type, *args_type.types)), types.Complex):
            msg = "fun drops the imaginary part"
            raise Unpackable(msg)  # the interpreted evaluation says it to the user
    adapter = adapter_jit(OBJECTIVE_SIGNATURE)(_make_adapter(fun, jac, args_type, array_type))
    return _Adapter(adapter, entry_address(adapter), launches_threads(adapter))


def _make_adapter(fun: Any, jac: Any, args_type: Any, array_type: Any) -> Callable[..., Any]:
    """Build ``adapter(x, g, size, data) -> f``, which is given addresses, around the user's functions."""
    if jac == "inplace":
        return lambda x, g, size, data: call_inlined(
            fun, (*load_vectors(x, g, size, array_type), *load_args(data, args_type))
        )
    if jac == "cs":
        return _make_complex_adapter(fun, args_type, array_type)
    if jac is True:
        return _make_joint_adapter(fun, args_type, array_type)
    if callable(jac):
        return _make_pair_adapter(fun, jac, args_type, array_type)
    return _make_difference_adapter(fun, DIFFERENCES[jac], args_type, array_type)


def _make_joint_adapter(fun: Any, args_type: Any, array_type: Any) -> Callable[..., Any]:
    def adapter(x_address, g_address, size, data):
        x, g = load_vectors(x_address, g_address, size, array_type)
        f, gradient = fun(x, *load_args(data, args_type))
        _store(gradient, g)
        return f

    return adapter


def _make_pair_adapter(fun: Any, jac: Any, args_type: Any, array_type: Any) -> Callable[..., Any]:
    def adapter(x_address, g_address, size, data):
        x, g = load_vectors(x_address, g_address, size, array_type)
        args = load_args(data, args_type)
        for i in range(x.size):  # fun may scribble on x, and jac is to see it as it was
            g[i] = x[i]
        f = fun(x, *args)
        for i in range(x.size):
            x[i] = g[i]
        _store(jac(x, *args), g)
        return f

    return adapter


def _make_complex_adapter(fun: Any, args_type: Any, array_type: Any) -> Callable[..., Any]:
    by_complex_step = user_jit(complex_step)

    def adapter(x_address, g_address, size, data):
        x, g = load_vectors(x_address, g_address, size, array_type)
        return by_complex_step(fun, x, g, load_args(data, args_type))

    return adapter


def _make_difference_adapter(fun: Any, python_differences: Any, args_type: Any, array_type: Any) -> Callable[..., Any]:
    differences = user_jit(python_differences)

    def adapter(x_address, g_address, size, data):
        x, g = load_vectors(x_address, g_address, size, array_type)
        step, bounds, args = load_args(data, args_type)
        return differences(fun, x, g, step, bounds, args)

    return adapter


@inline_jit
def _store(gradient, g):
    """Copy the user's gradient; compiled code checks no bounds, so its length is checked here."""
    if gradient.size != g.size:
        raise ValueError("jac must return one derivative for each element of x, but the lengths differ.")  # noqa: EM101
    for i in range(g.size):
        g[i] = gradient[i]


# -- interpreted ------------------------------------------------------------------------------------------------------


class PythonObjective:
    """An evaluation through Python, with every value checked.

    The user's functions are given copies of x, so that what they do to them, or keep, changes nothing.

    Attributes
    ----------
    args : tuple
        Further arguments of the user's functions; may be set anew between two evaluations.
    """

    def __init__(self, problem: Problem) -> None:
        self.args = problem.args
        self._problem = problem
        self._grad: NDArray[Any] | None = None

    def __call__(self, x: NDArray[Any], g: NDArray[Any]) -> float:
        """Fill g with the gradient at x and return f."""
        fun, jac, args = self._problem.fun, self._problem.jac, self.args
        if jac == "inplace":
            return self._inplace(x, g)
        if jac == "cs":
            return _as_float(complex_step(_complex_fun(fun), x, g, args))  # type: ignore[no-untyped-call]
        if jac is True:
            f, gradient = _as_pair(fun(x.copy(), *args))
            store_gradient(gradient, g, "fun")
            return _as_float(f)
        if callable(jac):
            f = _as_float(fun(x.copy(), *args))
            store_gradient(jac(x.copy(), *args), g, "jac")
            return f
        return self._differences(x, g)

    def _inplace(self, x: NDArray[Any], g: NDArray[Any]) -> float:
        if self._grad is None:
            # Elements that fun forgets to fill, or adds to without zeroing, show as NaN instead of silently wrong.
            self._grad = np.full_like(g, np.nan)
        f = _as_float(self._problem.fun(x.copy(), self._grad, *self.args))
        g[:] = self._grad
        return f

    def _differences(self, x: NDArray[Any], g: NDArray[Any]) -> float:
        problem = self._problem

        def fun(z: NDArray[Any], *args: Any) -> float:
            return _as_float(problem.fun(z.copy(), *args))

        bounds = (problem.lower, problem.upper)
        with np.errstate(all="ignore"):
            return float(DIFFERENCES[problem.jac](fun, x, g, problem.step, bounds, self.args))


def _complex_fun(fun: Callable[..., Any]) -> Callable[..., Any]:
    """`fun` for complex x, refusing a real result: it would be a gradient of zeros."""

    def checked(z: NDArray[np.complex128], *args: Any) -> complex:
        value = np.asarray(fun(z.copy(), *args))
        if value.dtype.kind != "c":
            msg = (
                f"jac='cs' needs a fun that returns a complex value for complex x, got {value.dtype}: it drops the "
                "imaginary part (abs, norm, comparisons do). Use jac='2-point' or give the gradient."
            )
            raise TypeError(msg)
        return complex(value.item())

    return checked


def _as_float(value: Any) -> float:
    """Check that the objective's value is one real number."""
    if isinstance(value, float):
        return float(value)
    array = np.asarray(value)
    if array.size != 1 or array.dtype.kind not in "fiub":
        shape = f"shape {array.shape} and dtype {array.dtype}" if array.dtype != object else f"{value!r}"
        msg = f"fun must return one real number, got {shape}."
        raise TypeError(msg)
    return float(array.item())


def _as_pair(value: Any) -> tuple[Any, Any]:
    try:
        f, gradient = value
    except (TypeError, ValueError):
        msg = f"With jac=True fun must return the pair (f, gradient), got {type(value).__name__}."
        raise TypeError(msg) from None
    return f, gradient


def store_gradient(gradient: Any, g: NDArray[Any], source: str) -> None:
    """Copy the user's gradient into g after checking its shape and dtype."""
    array = np.asarray(gradient)
    if array.shape != g.shape and not (array.ndim == 0 and g.size == 1):
        msg = f"{source} must return a gradient of shape {g.shape}, one derivative for each x, got shape {array.shape}."
        raise ValueError(msg)
    if array.dtype.kind not in "fiub":
        msg = f"{source} must return a real gradient, got dtype {array.dtype}."
        raise TypeError(msg)
    with np.errstate(over="ignore"):  # too large for float32 becomes inf, which the loop reports
        g[:] = array
