"""Reverse mode: numbers that record on a tape how they were made, for gradients by many variables.

A tape is an array of words. The first is the number of records, the second the number that there is room for. A record
has 24 bytes: the indices of two numbers and the derivatives by them. Index 0 stands for constants; the variables come
next. A full tape goes on counting, so that a longer one can be made.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.errors import RequireLiteralValue
from numba.core.typing.templates import signature
from numba.extending import intrinsic

from rmsprop_nb._numba.autodiff.dual import Dual, Entry, split
from rmsprop_nb._numba.autodiff.emitter import Emitter
from rmsprop_nb._numba.decorators import inline_jit, user_jit

HEADER_WORDS = 2
RECORD_WORDS = 3

ANY_INDICES = 0
"""Stands for the distance between the numbers of a record of many terms whose indices are behind its factors."""

NO_FACTORS = -1
"""Stands for the distance where it is 1 and all factors are 1, so that no places come before."""

_WORD = ir.IntType(64)
_HALF = ir.IntType(32)
_DOUBLE = ir.DoubleType()


class TapeEmitter(Emitter):
    """Makes records: partial derivatives are lists of terms, each a factor and the place of the number it multiplies.

    A number with one term needs no record: the factor is kept beside its value.
    """

    def parts(self, ty: Any, value: Any) -> tuple[Any, Any]:
        if not isinstance(ty, Dual):
            return self.context.cast(self.builder, value, ty, self.real), None
        number, entry = split(self.builder, value)
        index, tape, factor = (self.builder.extract_value(entry, k) for k in range(3))
        factor = self.context.cast(self.builder, factor, types.float64, self.real)
        return self.context.cast(self.builder, number, ty.real, self.real), [(factor, index, tape)]

    def scale(self, factor: Any, partials: Any) -> Any:
        return None if partials is None else [(self.mul(factor, own), *place) for own, *place in partials]

    def scale_where_any(self, factor: Any, partials: Any) -> Any:
        return self.scale(factor, partials)  # variables are kept apart here

    def plus(self, p: Any, q: Any) -> Any:
        return q if p is None else p if q is None else [*p, *q]

    def minus(self, p: Any, q: Any) -> Any:
        return self.plus(p, None if q is None else [(self.neg(own), *place) for own, *place in q])

    def zeros(self) -> Any:
        return []

    def either(self, condition: Any, a: Any, b: Any) -> Any:
        if not isinstance(a, list):
            return super().either(condition, a, b)
        select, zero = self.builder.select, self.const(0.0)
        if len(a) == len(b) == 1:
            return [tuple(select(condition, p, q) for p, q in zip(a[0], b[0], strict=True))]
        kept = [(select(condition, own, zero), *place) for own, *place in a]
        return kept + [(select(condition, zero, own), *place) for own, *place in b]

    def finish(self, partials: Any) -> Any:
        """Emit the records of a number with several terms; return what is kept beside its value."""
        if not partials:
            return None
        while len(partials) > 1:
            partials = [self._joined(*partials[:2]), *partials[2:]]
        factor, index, tape = partials[0]
        factor = self.context.cast(self.builder, factor, self.real, types.float64)
        return make_entry(self.context, self.builder, (factor, index, tape))

    def _joined(self, a: Any, b: Any) -> Any:
        """Make one term of two: they need a record only if they are of two numbers and neither is a constant."""
        builder, nothing = self.builder, ir.Constant(_WORD, 0)
        are = [builder.icmp_unsigned("!=", index, nothing) for _, index, _ in (a, b)]
        own = [builder.select(is_some, term[0], self.const(0.0)) for is_some, term in zip(are, (a, b), strict=True)]
        tape = builder.or_(a[2], b[2])
        both = builder.and_(builder.and_(*are), builder.icmp_unsigned("!=", a[1], b[1]))
        factor, index, before = self.add(*own), builder.or_(a[1], b[1]), builder.block
        with builder.if_then(both):
            made = self._write(tape, (a, b))
            after = builder.block
        results = []
        for without, with_record in ((factor, self.const(1.0)), (index, made)):
            phi = builder.phi(without.type)
            phi.add_incoming(without, before)
            phi.add_incoming(with_record, after)
            results.append(phi)
        return (*results, tape)

    def _write(self, tape: Any, terms: Any) -> Any:
        builder = self.builder
        head = builder.inttoptr(tape, _WORD.as_pointer())
        count = builder.load(head)
        builder.store(builder.add(count, ir.Constant(_WORD, 1)), head)
        last = builder.sub(builder.load(builder.gep(head, [ir.Constant(_WORD, 1)])), ir.Constant(_WORD, 1))
        place = builder.select(builder.icmp_signed("<", count, last), count, last)
        numbers = [(self.context.cast(builder, own, self.real, types.float64), index) for own, index, _ in terms]
        write_record(builder, tape, place, numbers)
        return place


def write_record(builder: Any, tape: Any, place: Any, terms: Any) -> None:
    """Emit stores of the factors of two terms, and of the indices that follow them, to a place on a tape."""
    word = builder.add(builder.mul(place, ir.Constant(_WORD, RECORD_WORDS)), ir.Constant(_WORD, HEADER_WORDS))
    address = builder.add(tape, builder.mul(word, ir.Constant(_WORD, 8)))
    indices = builder.inttoptr(address, _HALF.as_pointer())
    factors = builder.inttoptr(builder.add(address, ir.Constant(_WORD, 8)), _DOUBLE.as_pointer())
    for k, (factor, index, *_) in enumerate(terms):
        builder.store(builder.trunc(index, _HALF), builder.gep(indices, [ir.Constant(_WORD, k)]))
        builder.store(factor, builder.gep(factors, [ir.Constant(_WORD, k)]))


def make_entry(context: Any, builder: Any, term: Any) -> Any:
    """Emit what is kept beside the value of a number that is one term."""
    factor, index, tape = term
    entry = ir.Constant(context.get_value_type(Entry()), ir.Undefined)
    for k, word in enumerate((index, tape, factor)):
        entry = builder.insert_value(entry, word, k)
    return entry


@intrinsic
def on_tape(typingctx: Any, value: Any, index: Any, tape: Any, dtype: Any) -> Any:
    """Return a variable with this index on the tape at an address."""
    dual = dtype.dtype

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        llvm_type = context.get_value_type(dual)
        result = builder.insert_value(
            ir.Constant(llvm_type, ir.Undefined), context.cast(builder, args[0], sig.args[0], dual.real), 0
        )
        for k, item in enumerate((args[1], args[2], context.get_constant(types.float64, 1.0))):
            result = builder.insert_value(result, item, (1, k))
        return result

    return signature(dual, value, types.intp, types.intp, dtype), codegen


@intrinsic
def index_of(typingctx: Any, result: Any) -> Any:
    """Return the index of a number on its tape, 0 if it is a constant."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        if not isinstance(result, Dual):
            return ir.Constant(_WORD, 0)
        return builder.extract_value(args[0], (1, 0))

    return types.intp(result), codegen


@intrinsic
def factor_of(typingctx: Any, result: Any) -> Any:
    """Return the derivative of a number by the one at its index."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        if not isinstance(result, Dual):
            return context.get_constant(types.float64, 0.0)
        return builder.extract_value(args[0], (1, 2))

    return types.float64(result), codegen


@intrinsic
def address_of_length(typingctx: Any, first: Any) -> Any:
    """Return the address of a word that compiled code keeps: how many records the last tapes needed, `first` to begin.

    It is part of the code, and so also of code that is kept on disk. Threads may write it at once.
    """
    if not isinstance(first, types.IntegerLiteral):
        raise RequireLiteralValue(first)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        word = cgutils.add_global_variable(builder.module, _WORD, builder.module.get_unique_name("length_of_tape"))
        word.linkage = "internal"
        word.initializer = ir.Constant(_WORD, first.literal_value)
        return builder.ptrtoint(word, _WORD)

    return types.intp(first), codegen


@intrinsic
def load_word(typingctx: Any, address: Any) -> Any:
    """Return the word at an address."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.load(builder.inttoptr(args[0], _WORD.as_pointer()))

    return types.intp(types.intp), codegen


@intrinsic
def store_word(typingctx: Any, address: Any, value: Any) -> Any:
    """Put a word at an address."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        builder.store(args[1], builder.inttoptr(args[0], _WORD.as_pointer()))
        return context.get_dummy_value()

    return types.void(types.intp, types.intp), codegen


@inline_jit
def backward(tape, adjoints, root, factor, n, grad):
    """Go back over the records from the one at `root`, and fill the gradient by n variables."""
    words = tape[HEADER_WORDS:]
    indices = words.view(np.int32)
    factors = words.view(np.float64)
    adjoints[root] = factor
    k = root
    while k > n:
        adjoint = adjoints[k]
        if indices[6 * k] < 0:  # many terms: see many_terms
            size, first, stride = -words[3 * k], words[3 * k + 1], words[3 * k + 2]
            k -= places_of(size, stride)
            if adjoint == 0.0:
                pass
            elif stride == NO_FACTORS:
                for j in range(size):
                    adjoints[first + j] += adjoint
            elif stride == ANY_INDICES:
                for j in range(size):
                    adjoints[indices[6 * k + 2 * size + j]] += adjoint * factors[3 * k + j]
            elif stride == 1:
                add_row(adjoints[first : first + size], adjoint, factors[3 * k : 3 * k + size])
            else:
                for j in range(size):
                    adjoints[first + j * stride] += adjoint * factors[3 * k + j]
        elif adjoint != 0.0:
            adjoints[indices[6 * k]] += adjoint * factors[3 * k + 1]
            adjoints[indices[6 * k + 1]] += adjoint * factors[3 * k + 2]
        k -= 1
    for i in range(n):
        grad[i] = adjoints[1 + i]


@inline_jit
def places_of(size, stride):
    """Return how many places the terms take that stand before their record."""
    if stride == NO_FACTORS:
        return 0
    words = size + (size + 1) // 2 if stride == ANY_INDICES else size
    return (words + RECORD_WORDS - 1) // RECORD_WORDS


@user_jit
def add_row(adjoints, adjoint, factors):
    """Add a multiple of one vector to another; by itself, so that it is compiled to instructions for many elements."""
    for j in range(adjoints.size):
        adjoints[j] += adjoint * factors[j]
