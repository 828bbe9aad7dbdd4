"""The rules of differentiation: for each operation, the partial derivatives of its result.

A rule is given an `Emitter`, the numbers and partial derivatives of the operands (None for those that have none), and
the result. At a kink it gives the derivative that is stated in docs/gradients.md.
"""

from __future__ import annotations

import builtins
import math
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from rmsprop_nb._numba.autodiff.emitter import Emitter, literal_power

_LN2 = math.log(2.0)
_LN10 = math.log(10.0)


class Operands(NamedTuple):
    """What a rule is given beside the emitter."""

    values: tuple[Any, ...]
    partials: tuple[Any, ...]
    literals: tuple[int | None, ...]  # operands that are integers known to the compiler


Rule = Callable[[Emitter, Operands, Any], Any]
"""``rule(emitter, operands, result) -> partial derivatives of the result``"""


def _nothing(e: Emitter, x: Operands, y: Any) -> Any:
    return None


def _add(e: Emitter, x: Operands, y: Any) -> Any:
    return e.plus(*x.partials)


def _sub(e: Emitter, x: Operands, y: Any) -> Any:
    return e.minus(*x.partials)


def _mul(e: Emitter, x: Operands, y: Any) -> Any:
    (a, b), (da, db) = x.values, x.partials
    return e.plus(e.scale(b, da), e.scale(a, db))


def _div(e: Emitter, x: Operands, y: Any) -> Any:
    (_, b), (da, db) = x.values, x.partials
    inverse = e.div(e.const(1.0), b)
    return e.minus(e.scale_where_any(inverse, da), e.scale_where_any(e.mul(y, inverse), db))


def _remainder(rounding: Callable[[float], Any]) -> Rule:
    def rule(e: Emitter, x: Operands, y: Any) -> Any:
        (a, b), (da, db) = x.values, x.partials
        return da if db is None else e.minus(da, e.scale(e.call(rounding, e.div(a, b)), db))

    return rule


def _pow(e: Emitter, x: Operands, y: Any) -> Any:
    (a, b), (da, db) = x.values, x.partials
    of_base = None
    if da is not None:
        exponent = x.literals[1]
        if exponent is None:
            slope = e.mul(b, e.call(math.pow, a, e.sub(b, e.const(1.0))))
            slope = e.either(e.holds("==", b, e.const(0.0)), e.const(0.0), slope)  # 0*inf where the base is 0
            of_base = e.scale_where_any(slope, da)
        elif exponent != 0:
            scale = e.scale if exponent > 0 else e.scale_where_any
            of_base = scale(e.mul(e.const(float(exponent)), literal_power(e, a, exponent - 1)), da)
    if db is None:
        return of_base
    is_zero = e.holds("==", a, e.const(0.0))  # y*log(0) is 0*(-inf), and y does not depend on the exponent
    slope = e.mul(y, e.call(math.log, e.either(is_zero, e.const(1.0), a)))
    return e.plus(of_base, e.scale_where_any(slope, db))


def _arctan2(e: Emitter, x: Operands, y: Any) -> Any:
    (a, b), (da, db) = x.values, x.partials
    radius = e.call(math.hypot, a, b)  # its square may overflow
    return e.minus(
        e.scale_where_any(e.div(e.div(b, radius), radius), da),
        e.scale_where_any(e.div(e.div(a, radius), radius), db),
    )


def _hypot(e: Emitter, x: Operands, y: Any) -> Any:
    (a, b), (da, db) = x.values, x.partials
    return e.plus(e.scale_where_any(e.div(a, y), da), e.scale_where_any(e.div(b, y), db))


def _copysign(e: Emitter, x: Operands, y: Any) -> Any:
    (a, b), (da, _) = x.values, x.partials
    one = e.const(1.0)
    return e.scale(e.mul(e.call(math.copysign, one, a), e.call(math.copysign, one, b)), da)


def _logaddexp(function: Callable[[float], float]) -> Rule:
    def rule(e: Emitter, x: Operands, y: Any) -> Any:
        (a, b), (da, db) = x.values, x.partials
        return e.plus(
            e.scale(e.call(function, e.sub(a, y)), da),
            e.scale(e.call(function, e.sub(b, y)), db),
        )

    return rule


def _chosen(e: Emitter, x: Operands, y: Any) -> Any:
    """Give the derivatives of the operand that is the result: the first one in a tie."""
    (a, b), (da, db) = x.values, x.partials
    is_first = e.builder.or_(
        e.holds("==", a, y), e.builder.and_(e.holds("!=", a, a), e.builder.not_(e.holds("==", b, y)))
    )
    zeros = e.zeros()
    return e.either(is_first, zeros if da is None else da, zeros if db is None else db)


def _unary(slope: Callable[[Emitter, Any, Any], Any], is_finite: bool) -> Rule:
    """Make the rule of a function of one operand v with result y from its derivative."""

    def rule(e: Emitter, x: Operands, y: Any) -> Any:
        return (e.scale if is_finite else e.scale_where_any)(slope(e, x.values[0], y), x.partials[0])

    return rule


def _one_minus_square(e: Emitter, a: Any) -> Any:
    one = e.const(1.0)
    return e.mul(e.sub(one, a), e.add(one, a))


def _inverse(e: Emitter, a: Any) -> Any:
    return e.div(e.const(1.0), a)


def _arcsin_slope(e: Emitter, v: Any) -> Any:
    return _inverse(e, e.call(math.sqrt, _one_minus_square(e, v)))


def _gauss(e: Emitter, v: Any) -> Any:
    return e.mul(e.const(2.0 / math.sqrt(math.pi)), e.call(math.exp, e.neg(e.mul(v, v))))


def digamma(x):
    """Return the derivative of log(gamma(x)): recurrence up to 10, then the asymptotic series."""
    if x <= 0.0 and x == math.floor(x):
        return math.nan
    result = 0.0
    if x < 0.0:  # reflection
        result -= math.pi / math.tan(math.pi * x)
        x = 1.0 - x
    while x < 10.0:
        result -= 1.0 / x
        x += 1.0
    z = 1.0 / (x * x)
    series = z * (
        1.0 / 12
        - z * (1.0 / 120 - z * (1.0 / 252 - z * (1.0 / 240 - z * (1.0 / 132 - z * (691.0 / 32760 - z / 12.0)))))
    )
    return result + math.log(x) - 0.5 / x - series


_SLOPES: tuple[tuple[tuple[Any, ...], Callable[[Emitter, Any, Any], Any]], ...] = (
    ((operator.neg, np.negative), lambda e, v, y: e.const(-1.0)),
    ((operator.pos, np.positive), lambda e, v, y: e.const(1.0)),
    ((builtins.abs, math.fabs, np.absolute, np.fabs), lambda e, v, y: e.sign(v)),
    ((math.exp, np.exp), lambda e, v, y: y),
    ((getattr(math, "exp2", np.exp2), np.exp2), lambda e, v, y: e.mul(e.const(_LN2), y)),
    ((math.expm1, np.expm1), lambda e, v, y: e.call(math.exp, v)),
    ((math.log, np.log), lambda e, v, y: _inverse(e, v)),
    ((math.log1p, np.log1p), lambda e, v, y: _inverse(e, e.add(e.const(1.0), v))),
    ((math.log2, np.log2), lambda e, v, y: e.div(e.const(1.0 / _LN2), v)),
    ((math.log10, np.log10), lambda e, v, y: e.div(e.const(1.0 / _LN10), v)),
    ((math.sqrt, np.sqrt), lambda e, v, y: e.div(e.const(0.5), y)),
    ((np.cbrt,), lambda e, v, y: _inverse(e, e.mul(e.const(3.0), e.mul(y, y)))),
    ((np.square,), lambda e, v, y: e.mul(e.const(2.0), v)),
    ((np.reciprocal,), lambda e, v, y: e.neg(e.mul(y, y))),
    ((math.sin, np.sin), lambda e, v, y: e.call(math.cos, v)),
    ((math.cos, np.cos), lambda e, v, y: e.neg(e.call(math.sin, v))),
    ((math.tan, np.tan), lambda e, v, y: e.add(e.const(1.0), e.mul(y, y))),
    ((math.asin, np.arcsin), lambda e, v, y: _arcsin_slope(e, v)),
    ((math.acos, np.arccos), lambda e, v, y: e.neg(_arcsin_slope(e, v))),
    ((math.atan, np.arctan), lambda e, v, y: _inverse(e, e.add(e.const(1.0), e.mul(v, v)))),
    ((math.sinh, np.sinh), lambda e, v, y: e.call(math.cosh, v)),
    ((math.cosh, np.cosh), lambda e, v, y: e.call(math.sinh, v)),
    ((math.tanh, np.tanh), lambda e, v, y: _one_minus_square(e, y)),
    ((math.asinh, np.arcsinh), lambda e, v, y: _inverse(e, e.call(math.hypot, v, e.const(1.0)))),
    (
        (math.acosh, np.arccosh),
        lambda e, v, y: _inverse(e, e.call(math.sqrt, e.neg(_one_minus_square(e, v)))),
    ),
    ((math.atanh, np.arctanh), lambda e, v, y: _inverse(e, _one_minus_square(e, v))),
    ((math.erf,), lambda e, v, y: _gauss(e, v)),
    ((math.erfc,), lambda e, v, y: e.neg(_gauss(e, v))),
    ((math.gamma,), lambda e, v, y: e.mul(y, e.compiled(digamma, v))),
    ((math.lgamma,), lambda e, v, y: e.compiled(digamma, v)),
    ((math.degrees, np.degrees, np.rad2deg), lambda e, v, y: e.const(180.0 / math.pi)),
    ((math.radians, np.radians, np.deg2rad), lambda e, v, y: e.const(math.pi / 180.0)),
)

_WITH_INFINITE_SLOPES = {
    np.log,
    np.log1p,
    np.log2,
    np.log10,
    np.sqrt,
    np.cbrt,
    np.reciprocal,
    np.arcsin,
    np.arccos,
    np.arccosh,
    np.arctanh,
    math.gamma,
    math.lgamma,
}

_RULES: tuple[tuple[tuple[Any, ...], Rule], ...] = (
    ((operator.add, operator.iadd, np.add), _add),
    ((operator.sub, operator.isub, np.subtract), _sub),
    ((operator.mul, operator.imul, np.multiply), _mul),
    ((operator.truediv, operator.itruediv, np.true_divide), _div),
    ((operator.pow, operator.ipow, math.pow, np.power, builtins.pow), _pow),
    ((operator.mod, operator.imod, np.remainder), _remainder(np.floor)),
    ((np.fmod,), _remainder(np.trunc)),
    ((math.atan2, np.arctan2), _arctan2),
    ((math.hypot, np.hypot), _hypot),
    ((math.copysign, np.copysign), _copysign),
    ((np.logaddexp,), _logaddexp(np.exp)),
    ((np.logaddexp2,), _logaddexp(np.exp2)),
    ((builtins.max, builtins.min, np.maximum, np.minimum, np.fmax, np.fmin), _chosen),
    # Constant between jumps, or not numbers at all.
    ((operator.floordiv, operator.ifloordiv, np.floor_divide), _nothing),
    ((math.floor, math.ceil, math.trunc, builtins.round, np.floor, np.ceil, np.trunc, np.rint, np.sign), _nothing),
    ((operator.lt, operator.le, operator.gt, operator.ge, operator.eq, operator.ne), _nothing),
    ((np.less, np.less_equal, np.greater, np.greater_equal, np.equal, np.not_equal), _nothing),
    ((math.isnan, math.isinf, math.isfinite, np.isnan, np.isinf, np.isfinite, np.signbit), _nothing),
    ((operator.not_, builtins.bool, np.logical_and, np.logical_or, np.logical_not), _nothing),
)

RULES: dict[Any, Rule] = {key: rule for keys, rule in _RULES for key in keys} | {
    key: _unary(slope, keys[-1] not in _WITH_INFINITE_SLOPES) for keys, slope in _SLOPES for key in keys
}
"""The rule of each operator and function."""
