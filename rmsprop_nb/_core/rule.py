"""The RMSprop rule for one element: the only place that contains its formula.

    g <- g + weight_decay*x                                  (weight decay, coupled form)
    S <- beta*S + (1 - beta)*g*g                             (square_avg; S starts at initial_accumulator)
    m <- beta*m + (1 - beta)*g                               (grad_avg, centered form only)
    d <- sqrt(S) + eps       or  sqrt(S + eps)               (S - m*m instead of S when centered)
    u <- g/d
    b <- momentum*b + u;  u <- b                             (momentum; nesterov: u <- momentum*b + u)
    x <- x - learning_rate*u

Plain RMSprop is G. Hinton, N. Srivastava, K. Swersky, "Neural Networks for Machine Learning", Coursera 2012, lecture
6e; the centered form is A. Graves, "Generating Sequences With Recurrent Neural Networks", arXiv:1308.0850, eq. 38-45.

The function is plain Python, with scalars in and scalars out, so that the CPU, the CUDA device and the CUDA simulator
run the same source. It contains no literal numbers, because a literal would turn float32 arithmetic into float64.
Products that are added to something are written as calls, because a device otherwise rounds ``a*b + c`` only once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from rmsprop_nb._core.settings import Hyper, Variant


def times(a: Any, b: Any) -> Any:
    """Return the product of two numbers."""
    return a * b


def make_rule(product: Callable[[Any, Any], Any]) -> Callable[..., tuple[Any, Any, Any, Any]]:
    """Make the rule with a function that multiplies: `times`, or one that rounds differently."""

    def rms_rule(
        x: Any, g: Any, s: Any, m: Any, b: Any, rate: Any, correction: Any, hyper: Hyper, variant: Variant
    ) -> tuple[Any, Any, Any, Any]:
        """Return the new ``(x, s, m, b)`` of one element; `correction` is ``1 - beta**step``."""
        real = type(g)
        if variant.weight_decay and not variant.decoupled_weight_decay:
            g = g + product(hyper.weight_decay, x)
        s = product(hyper.beta, s) + product(hyper.one_minus_beta * g, g)
        v = s / correction if variant.bias_correction else s
        if variant.centered:
            m = product(hyper.beta, m) + product(hyper.one_minus_beta, g)
            mean = m / correction if variant.bias_correction else m
            v = max(v - product(mean, mean), real(0))  # rounding can make the variance negative, and its root NaN
        if variant.eps_inside_sqrt:  # noqa: SIM108 - two formulas, two lines
            denominator = real(math.sqrt(v + hyper.eps))
        else:
            denominator = real(math.sqrt(v)) + hyper.eps
        u = g / denominator
        if variant.weight_decay and variant.decoupled_weight_decay:
            x = x - product(rate * hyper.weight_decay, x)
        if not variant.momentum:
            return x - product(rate, u), s, m, b
        if variant.lr_in_momentum:
            u = product(rate, u)
        b = product(hyper.momentum, b) + u
        if variant.nesterov:  # noqa: SIM108
            u = product(hyper.momentum, b) + u
        else:
            u = b
        if not variant.lr_in_momentum:
            u = product(rate, u)
        return x - u, s, m, b

    return rms_rule
