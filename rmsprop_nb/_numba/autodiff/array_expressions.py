"""Array expressions that Numba has joined into one loop, with arrays of dual numbers among their operands.

In reverse mode the partial derivatives by the operands are computed forward, element by element, and an element of the
result is recorded with these alone (Griewank and Walther, Evaluating Derivatives, second edition, section 10.2:
preaccumulation of statements). So the tape has no record for each operation in the expression.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.np.ufunc import array_exprs  # type: ignore[attr-defined]

from rmsprop_nb._numba.autodiff.dual import ON_TAPE, Dual, join, split
from rmsprop_nb._numba.autodiff.operations import as_array
from rmsprop_nb._numba.autodiff.tape import HEADER_WORDS, RECORD_WORDS, make_entry, write_record

MOST_OPERANDS = 8
"""Dual operands of an expression, above which its operations are recorded one by one."""

_WORD = ir.IntType(64)


class _ScalarsAsArrays:
    """What lowers an array expression, with an array in the place of each dual number."""

    def __init__(self, lowerer: Any, context: Any) -> None:
        self._lowerer = lowerer
        self.context = context
        self.builder = lowerer.builder

    def typeof(self, name: str) -> Any:
        ty = self._lowerer.typeof(name)
        return types.Array(ty, 0, "C") if isinstance(ty, Dual) else ty

    def loadvar(self, name: str) -> Any:
        return as_array(self.context, self.builder, self._lowerer.typeof(name), self._lowerer.loadvar(name))[1]


class _Preaccumulation:
    """A compilation context in which the function for one element takes dual numbers with a partial by each operand."""

    def __init__(self, context: Any, builder: Any, width: int) -> None:
        self._context = context
        self._width = width
        self._records = _Records(builder)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def compile_subroutine(self, builder: Any, function: Any, sig: Any, **options: Any) -> Any:
        """Compile the function for one element."""
        self._sig = sig.return_type.of_width(self._width)(*map(self._forward, sig.args))
        return self._context.compile_subroutine(builder, function, self._sig, **options)

    def call_internal(self, builder: Any, description: Any, sig: Any, args: Any) -> Any:
        """Emit a call of that function, and the record of its result."""
        inputs: list[Any] = []
        entries: list[Any] = []
        for value, ty, forward in zip(args, sig.args, self._sig.args, strict=True):
            inputs.append(value)
            if isinstance(ty, Dual):
                number, entry = split(builder, value)
                partials = self._context.get_value_type(forward.partials)
                unit = ir.Constant(partials, [1.0 if k == len(entries) else 0.0 for k in range(self._width)])
                inputs[-1] = join(self._context, builder, forward, number, unit)
                entries.append(entry)
        result = self._context.call_internal(builder, description, self._sig, inputs)
        number, partials = split(builder, result)
        return join(self._context, builder, sig.return_type, number, self._recorded(builder, partials, entries))

    def finish(self) -> None:
        """Emit what comes after the loop."""
        self._records.finish()

    def _forward(self, ty: Any) -> Any:
        return ty.of_width(self._width) if isinstance(ty, Dual) else ty

    def _recorded(self, builder: Any, partials: Any, entries: Any) -> Any:
        """Emit the records of one element; return what is kept beside its value."""
        terms = []
        for k, entry in enumerate(entries):
            index, tape, factor = (builder.extract_value(entry, j) for j in range(3))
            partial = builder.extract_element(partials, ir.Constant(ir.IntType(32), k))
            if partial.type != factor.type:
                partial = builder.fpext(partial, factor.type)
            terms.append((builder.fmul(partial, factor), index, tape))
        while len(terms) > 1:
            terms = [self._records.join(*terms[:2]), *terms[2:]]
        return make_entry(self._context, builder, terms[0])


class _Records:
    """Emits records whose number is kept in a register while a loop writes them.

    The first number that is not a constant tells which tape to write to. Until then, records go to a place in the
    stack frame that has room for the record of a constant alone.
    """

    def __init__(self, builder: Any) -> None:
        self._builder = builder
        nowhere = cgutils.alloca_once(builder, _WORD, size=ir.Constant(_WORD, HEADER_WORDS + RECORD_WORDS))
        self._nowhere = builder.ptrtoint(nowhere, _WORD)
        self._tape, self._count, self._last = (cgutils.alloca_once(builder, _WORD) for _ in range(3))
        for place, value in ((self._tape, self._nowhere), (self._count, _word(0)), (self._last, _word(0))):
            builder.store(value, place)

    def join(self, a: Any, b: Any) -> Any:
        """Record the sum of two terms; return it as one term."""
        builder = self._builder
        tape = builder.or_(a[2], b[2])
        is_unknown = builder.icmp_unsigned("==", builder.load(self._tape), self._nowhere)
        with builder.if_then(builder.and_(is_unknown, builder.icmp_unsigned("!=", tape, _word(0))), likely=False):
            head = builder.inttoptr(tape, _WORD.as_pointer())
            builder.store(tape, self._tape)
            builder.store(builder.load(head), self._count)
            builder.store(builder.sub(builder.load(builder.gep(head, [_word(1)])), _word(1)), self._last)
        count, last = builder.load(self._count), builder.load(self._last)
        builder.store(builder.add(count, _word(1)), self._count)
        place = builder.select(builder.icmp_signed("<", count, last), count, last)
        write_record(builder, builder.load(self._tape), place, (a, b))
        return ir.Constant(ir.DoubleType(), 1.0), place, tape

    def finish(self) -> None:
        builder = self._builder
        builder.store(builder.load(self._count), builder.inttoptr(builder.load(self._tape), _WORD.as_pointer()))


def lower_array_expression(lowerer: Any, expr: Any) -> Any:
    """Lower an array expression that Numba has joined into one loop."""
    operands = {variable.name for variable in expr.list_vars()}
    duals = [ty for ty in (getattr(ty, "dtype", ty) for ty in map(lowerer.typeof, operands)) if isinstance(ty, Dual)]
    result = expr.ty.dtype
    is_recorded = isinstance(result, Dual) and result.width == ON_TAPE and len(duals) <= MOST_OPERANDS
    if not is_recorded:
        return array_exprs._lower_array_expr(_ScalarsAsArrays(lowerer, lowerer.context), expr)
    context = _Preaccumulation(lowerer.context, lowerer.builder, len(duals))
    array = array_exprs._lower_array_expr(_ScalarsAsArrays(lowerer, context), expr)
    context.finish()
    return array


def _word(number: int) -> Any:
    return ir.Constant(_WORD, number)
