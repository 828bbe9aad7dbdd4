"""Arithmetic with values and partial derivatives, as LLVM code."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core.typing.templates import signature

from rmsprop_nb._numba.autodiff.dual import cast_partials, split, spread


def plain_signature(context: Any, key: Any, args: tuple[Any, ...]) -> Any:
    """Return the signature that Numba itself has for a function of plain numbers or arrays, None if it has none."""
    function = context.resolve_value_type(key)
    return function.get_call_type(context, args, {})


def call_plain(context: Any, builder: Any, key: Any, tys: tuple[Any, ...], values: Any) -> tuple[Any, Any]:
    """Emit Numba's own code for a function of plain numbers; return the value and its type."""
    function = context.typing_context.resolve_value_type(key)
    sig = function.get_call_type(context.typing_context, tys, {})
    implementation = context.get_function(function, sig)
    cast = [context.cast(builder, *item) for item in zip(values, tys, sig.args, strict=True)]
    context.add_linking_libs(getattr(implementation, "libs", ()))
    return implementation(builder, cast), sig.return_type


class Emitter:
    """What rules of differentiation are written with.

    Numbers are LLVM values of type `real`. Partial derivatives are LLVM vectors, or None where all are zero: nothing is
    emitted for those, and an infinite factor does not turn them into NaN.
    """

    def __init__(self, context: Any, builder: Any, dual: Any) -> None:
        self.context = context
        self.builder = builder
        self.dual = dual
        self.real = dual.real
        self._vector = context.get_value_type(dual.partials)

    def const(self, number: float) -> Any:
        return self.context.get_constant(self.real, number)

    def add(self, a: Any, b: Any) -> Any:
        return self.builder.fadd(a, b)

    def sub(self, a: Any, b: Any) -> Any:
        return self.builder.fsub(a, b)

    def mul(self, a: Any, b: Any) -> Any:
        return self.builder.fmul(a, b)

    def div(self, a: Any, b: Any) -> Any:
        return self.builder.fdiv(a, b)

    def neg(self, a: Any) -> Any:
        return self.builder.fsub(ir.Constant(a.type, -0.0), a)  # compilers for devices know no fneg

    def call(self, function: Any, *values: Any) -> Any:
        """Return what one of Numba's own functions gives for numbers of this type."""
        result, ty = call_plain(self.context, self.builder, function, (self.real,) * len(values), values)
        return self.context.cast(self.builder, result, ty, self.real)

    def compiled(self, function: Any, *values: Any) -> Any:
        """Return what a Python function gives that Numba compiles."""
        sig = signature(self.real, *(self.real,) * len(values))
        return self.context.compile_internal(self.builder, function, sig, values)

    def holds(self, comparison: str, a: Any, b: Any) -> Any:
        """Return whether a comparison holds; with NaN only "!=" does."""
        compare = self.builder.fcmp_unordered if comparison == "!=" else self.builder.fcmp_ordered
        return compare(comparison, a, b)

    def either(self, condition: Any, a: Any, b: Any) -> Any:
        """Return a if the condition holds, or else b; both are numbers, or both partial derivatives."""
        return self.builder.select(condition, a, b)

    def sign(self, a: Any) -> Any:
        """Return -1, 0 or 1, and NaN for NaN."""
        zero = self.const(0.0)
        one = self.either(self.holds(">", a, zero), self.const(1.0), a)
        return self.either(self.holds("<", a, zero), self.const(-1.0), one)

    def scale(self, factor: Any, partials: Any) -> Any:
        """Multiply partial derivatives by a number."""
        return None if partials is None else self.builder.fmul(self._all(factor), partials)

    def scale_where_any(self, factor: Any, partials: Any) -> Any:
        """Multiply partial derivatives by a number that may be infinite or NaN; those that are 0 stay 0.

        A variable on which an operand does not depend has no part in its infinite slope.
        """
        if partials is None:
            return None
        is_zero = self.builder.fcmp_ordered("==", partials, self.zeros())
        return self.builder.select(is_zero, self.zeros(), self.scale(factor, partials))

    def plus(self, p: Any, q: Any) -> Any:
        """Add partial derivatives."""
        if p is None or q is None:
            return q if p is None else p
        return self.builder.fadd(p, q)

    def minus(self, p: Any, q: Any) -> Any:
        """Subtract partial derivatives."""
        if q is None:
            return p
        return self.builder.fsub(self._all(self.const(-0.0)) if p is None else p, q)

    def finish(self, partials: Any) -> Any:
        """Return what is kept beside the value of a number."""
        return partials

    def zeros(self) -> Any:
        return ir.Constant(self._vector, None)

    def _all(self, number: Any) -> Any:
        """Return a vector of equal numbers."""
        return spread(self.builder, number, self._vector)

    def parts(self, ty: Any, value: Any) -> tuple[Any, Any]:
        """Return the value as a number of this type, and its partial derivatives."""
        if isinstance(ty, type(self.dual)):
            number, partials = split(self.builder, value)
            partials = cast_partials(self.context, self.builder, partials, ty, self.dual)
            return self.context.cast(self.builder, number, ty.real, self.real), partials
        return self.context.cast(self.builder, value, ty, self.real), None


def literal_power(e: Emitter, base: Any, exponent: int) -> Any:
    """Return a power with an exponent that the compiler knows, by the multiplications that Numba emits for one."""
    result, square, left = e.const(1.0), base, abs(exponent)
    while left:
        if left & 1:
            result = e.mul(result, square)
        left >>= 1
        if left:
            square = e.mul(square, square)
    return e.div(e.const(1.0), result) if exponent < 0 else result
