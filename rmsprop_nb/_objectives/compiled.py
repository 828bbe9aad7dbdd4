"""Compiled ``fun`` and ``jac`` combined into one evaluation that compiled loops call by its address.

The evaluation is a small compiled adapter around the user's functions, which fills g and returns f.
"""

from __future__ import annotations

import contextlib
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

from rmsprop_nb._numba.calls import (
    OBJECTIVE_SIGNATURE,
    call_inlined,
    call_objective,
    enters_python,
    entry_address,
    launches_threads,
    load_vectors,
    return_type,
)
from rmsprop_nb._numba.code_cache import cached_by_code
from rmsprop_nb._numba.decorators import adapter_jit, inline_jit, kernel_jit, user_jit
from rmsprop_nb._numba.packing import Unpackable, load_args, pack, word_offsets
from rmsprop_nb._numba.thread_safety import objective_in_turn
from rmsprop_nb._objectives.finite_differences import complex_step, differences
from rmsprop_nb._objectives.problem import IN_PLACE, MATRIX, Problem, learn_precision

logger = logging.getLogger("rmsprop_nb")

_VALUE = "value"
"""The form of adapters that give f alone, for differences."""

_SINGLE, _DOUBLE = (types.Array(real, 1, "C") for real in (float32, float64))

# What is packed for differences: the address of the value, the steps, the bounds, and the user's args.
_BEFORE_ARGS = {
    real: types.Tuple((types.int64, types.Tuple((_DOUBLE, _DOUBLE, real)), types.UniTuple(real, 2)))
    for real in (_SINGLE, _DOUBLE)
}
# Of its arrays a run replaces all but the user's own steps.
_STEP, _, _SIZES, _LOWER, _UPPER, _ARGS = word_offsets(types.UniTuple(_DOUBLE, 5), start=1)


class _Adapter(NamedTuple):
    """A compiled adapter and its properties."""

    dispatcher: Any  # keeps the code at `address` in memory
    address: int
    launches_threads: bool
    enters_python: bool
    eps: float  # of the type of f


class CompiledObjective:
    """An evaluation that compiled code calls by its address.

    Attributes
    ----------
    address, data : int
        Addresses of the adapter and of its packed arguments, valid while this object exists.
    launches_threads : bool
        Whether the user's functions have parallel loops.
    words : ndarray of int64
        The packed arguments.
    offsets : list of int
        Offset in `words` of each of the user's args, and of their end.
    """

    def __init__(
        self, problem: Problem, adapter: _Adapter, words: NDArray[np.int64], references: list[Any], offsets: list[int]
    ) -> None:
        self._problem = problem
        self.address = adapter.address
        self.launches_threads = adapter.launches_threads
        self.data = int(words.ctypes.data)
        self.words = words
        self.offsets = offsets
        self._adapter = adapter
        self._references = references
        self._followed: Any = None

    def follow(self, arrays: Any, record: NDArray[Any]) -> None:
        """Let the run with these vectors and this record control the differences."""
        learn_precision(self._problem, self._adapter.eps, record["rel_step"], record)
        if self._problem.by_differences:
            self.words[:] = self.words_for(arrays, record)
            self._followed = arrays, record  # keeps alive what the words point to

    def words_for(self, arrays: Any, record: NDArray[Any]) -> NDArray[np.int64]:
        """Return a copy of the packed arguments for a run with these vectors, which the caller must keep."""
        words = self.words.copy()
        if self._problem.by_differences:
            for offset, array in zip(
                (_STEP, _SIZES, _LOWER, _UPPER),
                (record["rel_step"], arrays.x_scale, arrays.lower, arrays.upper),
                strict=True,
            ):
                words[offset + 1 : offset + 3] = array.ctypes.data, array.size
        return words

    def __call__(self, x: NDArray[Any], g: NDArray[Any]) -> float:
        """Fill g with the gradient at x and return f."""
        with self.in_turn():
            return float(_evaluate(self.address, x, g, self.data))

    def in_turn(self) -> AbstractContextManager[Any]:
        """Return the context in which compiled code that calls the adapter must run: parallel functions take turns."""
        return objective_in_turn() if self.launches_threads else contextlib.nullcontext()


@kernel_jit("evaluate")
def _evaluate(address, x, g, data):
    return call_objective(address, x, g, data)


def compile_objective(problem: Problem, dtype: Any) -> CompiledObjective | None:
    """Compile the evaluation; return None if Numba cannot compile the functions or take their arguments."""
    functions = [problem.fun, problem.jac] if callable(problem.jac) else [problem.fun]
    if not all(map(is_jitted, functions)):
        return None
    try:
        words, references, args_type = pack(problem.args)
        array_type = _SINGLE if dtype == np.float32 else _DOUBLE
        form = _VALUE if problem.by_differences else problem.jac
        adapter = _compile_adapter(problem.fun, form, args_type, array_type)
        if problem.by_differences:
            words, references, _ = pack(_for_differences(problem, adapter, dtype))
            adapter = adapter._replace(address=entry_address(_difference_entry(array_type)))
    except (Unpackable, NumbaError, NotImplementedError, RuntimeError) as error:  # the last: no other types allowed
        logger.debug("the loop runs interpreted, because the objective cannot be compiled into it: %s", error)
        return None
    if adapter.enters_python:  # and may keep arrays there, which must outlive the run, or launch threads
        logger.debug("the loop runs interpreted, because the objective has objmode blocks")
        return None
    offsets = word_offsets(args_type, start=_ARGS if problem.by_differences else 0)
    return CompiledObjective(problem, adapter, words, references, offsets)


def _for_differences(problem: Problem, value: _Adapter, dtype: Any) -> tuple[Any, ...]:
    """Return what is packed for differences of the values that an adapter gives."""
    control = np.array([problem.rel_step(float(np.finfo(dtype).eps))])
    steps, bounds = (control, problem.own_steps, np.empty(0, dtype)), (problem.lower, problem.upper)
    return np.int64(value.address), steps, bounds, problem.args


@functools.cache
def _difference_entry(array_type: Any) -> Any:
    """Compile what takes differences of any value, which it calls by address: once, and kept on disk."""
    before_args, by_differences = _BEFORE_ARGS[array_type], user_jit(differences)

    @kernel_jit("differences", str(array_type.dtype), allocates=True)
    def entry(x_address, g_address, size, data):
        x, g = load_vectors(x_address, g_address, size, size, array_type)
        address, steps, bounds = load_args(data, before_args)
        return by_differences(_value_at, x, g, steps, bounds, (address, data + 8 * _ARGS))

    entry.compile(OBJECTIVE_SIGNATURE)
    return entry


@inline_jit
def _value_at(x, address, data):
    return call_objective(address, x, x, data)


@cached_by_code
def _compile_adapter(fun: Any, jac: Any, args_type: Any, array_type: Any) -> _Adapter:
    """Compile the adapter and find its address; cached, so that a second run of the same objective compiles nothing."""
    if jac == "cs":
        returned = return_type(fun, (types.Array(types.complex128, 1, "C"), *args_type.types))
        if returned is None:
            msg = (
                f"jac='cs' needs a fun that takes complex x, got one compiled for {_signatures(fun)} alone; compile it "
            )
            msg += "without signatures, or use jac='2-point'."
            raise TypeError(msg)
        if not isinstance(returned, types.Complex):
            msg = "fun drops the imaginary part"
            raise Unpackable(msg)  # the interpreted evaluation reports it to the user
    adapter = adapter_jit(OBJECTIVE_SIGNATURE)(_make_adapter(fun, jac, args_type, array_type))
    eps = _eps_of(fun, jac, args_type, array_type)
    return _Adapter(adapter, entry_address(adapter), launches_threads(adapter), enters_python(adapter), eps)


def _signatures(fun: Any) -> str:
    return " and ".join(f"({', '.join(map(str, signature.args))})" for signature in fun.nopython_signatures)


def _eps_of(fun: Any, jac: Any, args_type: Any, array_type: Any) -> float:
    """Return the relative precision of the values of fun, by their type."""
    vectors = (array_type, array_type) if jac in IN_PLACE else (array_type,)
    returned = return_type(fun, (*vectors, *args_type.types))
    value = returned.types[0] if isinstance(returned, types.BaseTuple) else returned
    return float(np.finfo(np.float32).eps) if value == float32 else 0.0


def _make_adapter(fun: Any, jac: Any, args_type: Any, array_type: Any) -> Callable[..., Any]:
    """Build ``adapter(x, g, size, data) -> f``, which takes addresses, around the user's functions."""
    if jac == "inplace":
        return lambda x, g, size, data: call_inlined(
            fun, (*load_vectors(x, g, size, size, array_type), *load_args(data, args_type))
        )
    if jac == MATRIX:
        return lambda x, g, size, data: call_inlined(
            fun, (*load_vectors(x, g, size, size + size * (size + 1) // 2, array_type), *load_args(data, args_type))
        )
    if jac == "cs":
        return _make_complex_adapter(fun, args_type, array_type)
    if jac is True:
        return _make_joint_adapter(fun, args_type, array_type)
    if callable(jac):
        return _make_pair_adapter(fun, jac, args_type, array_type)
    return lambda x, g, size, data: call_inlined(
        fun, (load_vectors(x, g, size, size, array_type)[0], *load_args(data, args_type))
    )


def _make_joint_adapter(fun: Any, args_type: Any, array_type: Any) -> Callable[..., Any]:
    def adapter(x_address, g_address, size, data):
        x, g = load_vectors(x_address, g_address, size, size, array_type)
        f, gradient = fun(x, *load_args(data, args_type))
        _store(gradient, g)
        return f

    return adapter


def _make_pair_adapter(fun: Any, jac: Any, args_type: Any, array_type: Any) -> Callable[..., Any]:
    def adapter(x_address, g_address, size, data):
        x, g = load_vectors(x_address, g_address, size, size, array_type)
        args = load_args(data, args_type)
        for i in range(x.size):  # fun may overwrite x, and jac must see the original
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
        x, g = load_vectors(x_address, g_address, size, size, array_type)
        return by_complex_step(fun, x, g, load_args(data, args_type))

    return adapter


@inline_jit
def _store(gradient, g):
    """Copy the user's gradient and check its length, because compiled code does not check bounds."""
    if gradient.size != g.size:
        raise ValueError("jac must return one derivative for each element of x, but the lengths differ.")  # noqa: EM101
    for i in range(g.size):
        g[i] = gradient[i]
