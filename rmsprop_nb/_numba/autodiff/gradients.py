"""Compiled functions for gradients and Jacobians: passes of dual numbers over some of the variables at a time."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types
from numba.core.compiler import Compiler
from numba.core.dispatcher import _FunctionCompiler  # type: ignore[attr-defined]
from numba.core.errors import NumbaExperimentalFeatureWarning
from numba.core.registry import CPUDispatcher

from rmsprop_nb._numba.autodiff.access import check_vector, empty_matrix, partial_of, value_of, variable
from rmsprop_nb._numba.autodiff.copies import Setting
from rmsprop_nb._numba.autodiff.dual import ON_TAPE, Dual, DualDType
from rmsprop_nb._numba.autodiff.passes import gradient_in_passes
from rmsprop_nb._numba.autodiff.refusals import CannotDifferentiateError, explain
from rmsprop_nb._numba.autodiff.tape import (
    HEADER_WORDS,
    RECORD_WORDS,
    address_of_length,
    backward,
    factor_of,
    index_of,
    load_word,
    on_tape,
    store_word,
)
from rmsprop_nb._numba.linked_code import WITHOUT_ENTRY, LinkedCompiler

FIRST_RECORDS = 1 << 10
MOST_RECORDS = 1 << 22
"""Records of 24 bytes on a tape, at first and at most."""

LARGEST_WIDTH = 16
"""Variables in one pass, at most: more partial derivatives than this do not stay in registers."""

MOST_FORWARD = 32
"""Variables up to which forward mode is taken to be faster; nothing is measured, so that runs can be repeated."""

_NARROW = 8
"""Variables up to which a pass takes exactly as many; of longer vectors, only those of 16 are fast everywhere."""

OPTIONS: dict[str, Any] = {"nopython": True, "error_model": "numpy", "nogil": True}


def width_for(n: int) -> int:
    """Return how many of n variables to take in each pass."""
    return max(n, 1) if n <= _NARROW else LARGEST_WIDTH


class _Compiler(_FunctionCompiler):
    """Compiles the passes around a copy of the function that suits the types of the arguments."""

    def __init__(self, source: Derivatives, like: Any) -> None:
        super().__init__(like.py_func, like.targetdescr, like.targetoptions, like.locals, like.pipeline_class)
        self._source = source
        self._implementation = self.py_func

    def _get_implementation(self, args: Any, kws: Any) -> Any:
        return self._implementation

    def _compile_core(self, args: Any, return_type: Any) -> Any:
        source, x = self._source, args[0]
        if not isinstance(x, types.Array) or x.ndim != 1 or not isinstance(x.dtype, types.Float | types.Integer):
            msg = f"x must be an array with one dimension of real numbers, not {x}"
            raise CannotDifferentiateError(msg)
        # What only passes arrays and numbers on need not count references, which takes as long as a small function.
        self.targetoptions["_nrt"] = not (source.passes is gradient_passes and all(map(_is_plain, args)))
        real = types.float32 if x.dtype == types.float32 else types.float64
        for dual_buffers in (False, True):
            setting = Setting(DualDType(Dual(source.width, real)), dual_buffers)
            self._implementation = source.passes(setting, source.fun, source.width)
            try:
                with warnings.catch_warnings():  # functions among args, which Numba calls experimental
                    warnings.simplefilter("ignore", NumbaExperimentalFeatureWarning)
                    return super()._compile_core(args, return_type)
            except Exception as error:  # noqa: BLE001 - Numba may fail in any way with types that it does not know
                refusal = error
            if not setting.allocates:
                break
        raise CannotDifferentiateError(explain(refusal, source.fun)) from refusal


def _is_plain(ty: Any) -> bool:
    """Return whether values of a type consist of arrays, numbers and functions."""
    if isinstance(ty, types.BaseTuple):
        return all(map(_is_plain, ty.types))
    return isinstance(ty, types.Array | types.Number | types.Boolean | types.NoneType | types.Dispatcher)


class Derivatives(CPUDispatcher):
    """A compiled function around a copy of another one that takes dual numbers.

    Attributes
    ----------
    fun : compiled function
        The function that is differentiated.
    width : int
        The number of variables in each pass.
    """

    _options = OPTIONS
    _pipeline = Compiler

    def __init__(self, passes: Callable[..., Any], fun: Any, width: int) -> None:
        self.passes = passes
        self.fun = fun
        self.width = width
        super().__init__(passes(None, fun, width), {}, dict(self._options), self._pipeline)
        self._compiler = _Compiler(self, self._compiler)  # type: ignore[has-type]

    def prepare(self, arg_types: tuple[Any, ...]) -> None:
        """Compile for these types of arguments, unless that was done before."""
        self.get_call_template(arg_types, {})

    def compile(self, sig: Any) -> Any:
        """Compile for a signature; also for a call from Python this is the package's work, which defers Ctrl-C."""
        return super().compile(sig)

    def __reduce__(self) -> Any:
        return type(self), (self.passes, self.fun, self.width)


class LinkedDerivatives(Derivatives):
    """The same for compiled callers, without an entry for Python: a call from there compiles one that has it."""

    _options = OPTIONS | WITHOUT_ENTRY
    _pipeline = LinkedCompiler

    def __call__(self, *args: Any) -> Any:
        return self._with_entry(*args)

    @functools.cached_property
    def _with_entry(self) -> Derivatives:
        return Derivatives(self.passes, self.fun, self.width)


def differentiated(setting: Setting | None, function: Any) -> tuple[Any, Any, Any]:
    if setting is None:
        return function, None, None
    return setting.copy_of(function), setting.dtype, setting.intrinsic_arguments()


def gradient_passes(setting: Setting | None, function: Any, width: int) -> Any:
    """Build ``value_and_grad(x, grad, *args) -> f``; without a setting, for its signature."""
    fun, dtype, with_copies = differentiated(setting, function)

    def value_and_grad(x, grad, *args):
        return gradient_in_passes(fun, x, grad, with_copies(args), dtype)

    return value_and_grad


def taped_passes(setting: Setting | None, function: Any, width: int, few: int = 0) -> Any:
    """Build ``value_and_grad(x, grad, *args) -> f`` in reverse mode; in forward mode for as many variables as `few`.

    A tape that is too short is made again, up to a bound on its length; past it the gradient is computed in passes over
    some of the variables, which need no memory.
    """
    fun, dtype, with_copies = differentiated(setting, function)
    forward = LinkedDerivatives(gradient_passes, function, LARGEST_WIDTH)
    most = MOST_RECORDS

    def value_and_grad(x, grad, *args):
        check_vector(grad)
        n = x.size
        if grad.size != n:
            raise ValueError("grad must have as many elements as x.")
        if n <= few:
            return forward(x, grad, *args)
        variables = np.empty(n, dtype)
        length = address_of_length(FIRST_RECORDS)
        room = max(load_word(length), 2 * n + 2)
        while True:
            tape = np.empty(HEADER_WORDS + RECORD_WORDS * room, np.int64)
            tape[0] = n + 1
            tape[1] = room
            for i in range(n):
                variables[i] = on_tape(x[i], i + 1, tape.ctypes.data, dtype)
            result = fun(variables, *with_copies(args))
            count = tape[0]
            if count <= room:
                break
            if count > most:
                return forward(x, grad, *args)
            room = count + count // 4
            store_word(length, room)
        backward(tape, np.zeros(count), index_of(result), factor_of(result), n, grad)
        return value_of(result)

    return value_and_grad


def forward_gradient(fun: Any, width: int = LARGEST_WIDTH) -> Derivatives:
    """Return the function that fills a gradient in forward mode, `width` variables a pass."""
    return Derivatives(gradient_passes, fun, width)


def reverse_gradient(fun: Any) -> Derivatives:
    """Return the function that fills a gradient in reverse mode."""
    return Derivatives(taped_passes, fun, ON_TAPE)


def gradient_by_size(fun: Any) -> Derivatives:
    """Return the function that fills a gradient in forward mode up to `MOST_FORWARD` variables, or else in reverse."""
    return Derivatives(functools.partial(taped_passes, few=MOST_FORWARD), fun, ON_TAPE)


def linked_gradient(fun: Any, n: int) -> Derivatives:
    """Return the function that fills a gradient by n variables, for compiled callers."""
    if n > MOST_FORWARD:
        return LinkedDerivatives(taped_passes, fun, ON_TAPE)
    return LinkedDerivatives(gradient_passes, fun, width_for(n))


def jacobian(fun: Any, width: int) -> Derivatives:
    """Return the function that makes a Jacobian in forward mode."""
    return Derivatives(jacobian_passes, fun, width)


def jacobian_passes(setting: Setting | None, function: Any, width: int) -> Any:
    """Build ``jacobian(x, *args) -> matrix``; without a setting, for its signature."""
    fun, dtype, with_copies = differentiated(setting, function)

    def jacobian(x, *args):
        n = x.size
        variables = np.empty(n, dtype)
        matrix = empty_matrix(0, n, dtype)
        for start in range(0, max(n, 1), width):
            for i in range(n):
                variables[i] = variable(x[i], i - start, dtype)
            result = fun(variables, *with_copies(args))
            check_vector(result)
            if start == 0:
                matrix = empty_matrix(result.size, n, dtype)
            for j in range(result.size):
                for k in range(min(width, n - start)):
                    matrix[j, start + k] = partial_of(result[j], k)
        return matrix

    return jacobian
