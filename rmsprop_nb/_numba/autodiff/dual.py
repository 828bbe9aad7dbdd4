"""The type of a dual number: a value and its partial derivatives by some of the variables.

The partial derivatives are one LLVM vector, so an operation on all of them is one instruction to compile and to run.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core.datamodel.models import PrimitiveModel, StructModel
from numba.core.imputils import lower_cast
from numba.core.typeconv import Conversion
from numba.extending import register_model, typeof_impl

PLAIN = types.Float | types.Integer | types.Boolean
"""The classes of types of plain numbers, which have no derivatives."""


ON_TAPE = -1
"""Stands for the number of partial derivatives where numbers are recorded on a tape instead."""


class Dual(types.Type):
    """The Numba type of a number of type `real` with `width` partial derivatives, or `ON_TAPE`.

    It is no types.Number: NumPy's rules for arrays would take it for one that they know.
    """

    def __init__(self, width: int, real: Any) -> None:
        self.width = width
        self.real = real
        super().__init__(name=f"Recorded({real})" if width == ON_TAPE else f"Dual({width} x {real})")

    @property
    def is_internal(self) -> bool:
        """Whether Numba may join operations with arrays into one loop, as it does for types of its own."""
        return True

    @property
    def partials(self) -> Any:
        """The type of the partial derivatives, or of what stands for them."""
        return Entry() if self.width == ON_TAPE else Partials(self.width, self.real)

    def of(self, real: Any) -> Any:
        """Return the type with as many partial derivatives and values of type `real`."""
        return Dual(self.width, real)

    def of_width(self, width: int) -> Any:
        """Return the type with values of the same type and as many partial derivatives."""
        return Dual(width, self.real)

    def unify(self, typingctx: Any, other: Any) -> Any:
        """Return the type of a variable that holds this type and another one in turn."""
        if isinstance(other, PLAIN) or (isinstance(other, Dual) and other.width == self.width):
            real = typingctx.unify_types(self.real, plain(other))
            return self.of(real) if isinstance(real, types.Float) else None
        return None

    def can_convert_from(self, typingctx: Any, other: Any) -> Any:
        """Return how well a value of another type can become one of this type; None if it cannot."""
        if isinstance(other, PLAIN):
            return Conversion.safe
        if isinstance(other, Dual) and other.width == self.width:
            return Conversion.safe if other.real.bitwidth <= self.real.bitwidth else Conversion.unsafe
        return None


class Partials(types.Type):
    """The Numba type of the partial derivatives of a dual number."""

    def __init__(self, width: int, real: Any) -> None:
        self.width = width
        self.real = real
        super().__init__(name=f"Partials({width} x {real})")


class Entry(types.Type):
    """The Numba type of what a number on a tape is a function of: an index, the tape's address, and the derivative."""

    def __init__(self) -> None:
        super().__init__(name="Entry")


@register_model(Entry)
class _EntryModel(StructModel):
    def __init__(self, dmm: Any, fe_type: Any) -> None:
        super().__init__(dmm, fe_type, [("index", types.int64), ("tape", types.int64), ("factor", types.float64)])


@register_model(Partials)
class _PartialsModel(PrimitiveModel):
    """A vector in registers, an array in memory: what allocates arrays aligns them less than LLVM would a vector."""

    def __init__(self, dmm: Any, fe_type: Any) -> None:
        real = dmm.lookup(fe_type.real).get_value_type()
        super().__init__(dmm, fe_type, ir.VectorType(real, fe_type.width))
        self._in_memory = ir.ArrayType(real, fe_type.width)
        self._align = fe_type.real.bitwidth // 8

    def get_data_type(self) -> Any:
        return self._in_memory

    def as_data(self, builder: Any, value: Any) -> Any:
        array = ir.Constant(self._in_memory, ir.Undefined)
        for k in range(self._in_memory.count):
            array = builder.insert_value(array, builder.extract_element(value, _index(k)), k)
        return array

    def from_data(self, builder: Any, value: Any) -> Any:
        vector = ir.Constant(self.get_value_type(), ir.Undefined)
        for k in range(self._in_memory.count):
            vector = builder.insert_element(vector, builder.extract_value(value, k), _index(k))
        return vector

    def as_return(self, builder: Any, value: Any) -> Any:
        return self.as_data(builder, value)

    def from_return(self, builder: Any, value: Any) -> Any:
        return self.from_data(builder, value)

    def load_from_data_pointer(self, builder: Any, ptr: Any, align: Any = None) -> Any:
        vector = builder.bitcast(ptr, self.get_value_type().as_pointer())
        return builder.load(vector, align=align or self._align)


@register_model(Dual)
class _DualModel(StructModel):
    def __init__(self, dmm: Any, fe_type: Any) -> None:
        super().__init__(dmm, fe_type, [("value", fe_type.real), ("partials", fe_type.partials)])


class DualDType:
    """An object that compiled functions can pass as a dtype, for arrays of dual numbers."""

    def __init__(self, dual: Any) -> None:
        self.dual = dual


@typeof_impl.register(DualDType)
def _typeof_dtype(value: Any, c: Any) -> Any:
    return types.DType(value.dual)


def is_dual(ty: Any) -> bool:
    """Return whether a type is a dual number or an array of them."""
    return isinstance(ty.dtype if isinstance(ty, types.Array) else ty, Dual)


def plain(ty: Any) -> Any:
    """Return the type of the values: the same one without derivatives."""
    if isinstance(ty, types.Array):
        return ty.copy(dtype=plain(ty.dtype)) if is_dual(ty) else ty
    return ty.real if isinstance(ty, Dual) else ty


def with_partials(ty: Any, width: int) -> Any:
    """Return the dual type for a type of values; integers and booleans pass as they are."""
    if isinstance(ty, types.Array):
        return ty.copy(dtype=with_partials(ty.dtype, width))
    return Dual(width, ty) if isinstance(ty, types.Float) else ty


def width_of(tys: Any) -> int:
    """Return the number of partial derivatives of those among the types that have any, 0 if none has."""
    return max((getattr(getattr(ty, "dtype", ty), "width", 0) for ty in tys if is_dual(ty)), default=0)


def split(builder: Any, value: Any) -> tuple[Any, Any]:
    """Emit code that takes a dual number apart into its value and its partial derivatives."""
    return builder.extract_value(value, 0), builder.extract_value(value, 1)


def join(context: Any, builder: Any, ty: Any, value: Any, partials: Any) -> Any:
    """Emit code that makes a dual number; its derivatives are zero if `partials` is None."""
    llvm_type = context.get_value_type(ty)
    if partials is None:
        partials = ir.Constant(llvm_type.elements[1], None)
    dual = builder.insert_value(ir.Constant(llvm_type, ir.Undefined), value, 0)
    return builder.insert_value(dual, partials, 1)


def spread(builder: Any, number: Any, vector: Any) -> Any:
    """Emit a vector of this LLVM type whose elements are all the same number."""
    undefined = ir.Constant(vector, ir.Undefined)
    mask = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), None)
    return builder.shuffle_vector(builder.insert_element(undefined, number, _index(0)), undefined, mask)


def cast_partials(context: Any, builder: Any, partials: Any, from_: Any, to: Any) -> Any:
    """Emit code that rounds or extends the partial derivatives to another type of numbers."""
    if from_.real == to.real or to.width == ON_TAPE:
        return partials
    wider = to.real.bitwidth > from_.real.bitwidth
    return (builder.fpext if wider else builder.fptrunc)(partials, context.get_value_type(to.partials))


@lower_cast(types.Float, Dual)
@lower_cast(types.Integer, Dual)
@lower_cast(types.Boolean, Dual)
def _cast_plain(context: Any, builder: Any, fromty: Any, toty: Any, val: Any) -> Any:
    return join(context, builder, toty, context.cast(builder, val, fromty, toty.real), None)


@lower_cast(Dual, Dual)
def _cast_dual(context: Any, builder: Any, fromty: Any, toty: Any, val: Any) -> Any:
    value, partials = split(builder, val)
    value = context.cast(builder, value, fromty.real, toty.real)
    return join(context, builder, toty, value, cast_partials(context, builder, partials, fromty, toty))


def _index(k: int) -> Any:
    return ir.Constant(ir.IntType(32), k)
