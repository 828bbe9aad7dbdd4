"""What the distance of a model from a point of the data costs: the terms of a fit.

``loss(value, y, weight, scale)`` returns the cost of a value of the model, its derivative by that value, and what
stands for the second derivative. A sum over the data is a sum of squares, or close to one, so J'WJ with the last of
these as W approximates its Hessian.

References
----------
B. Triggs et al., "Bundle adjustment: a modern synthesis", Vision Algorithms, 2000, section 4.3 and appendix C: robust
losses, as in `scipy.optimize.least_squares`. T. Laurence, B. Chromy, "Efficient maximum likelihood estimator fitting of
histograms", Nature Methods 7, 2010: the deviance of counts.
"""

from __future__ import annotations

import math
from typing import Any

from rmsprop_nb._numba.decorators import inline_jit

_LEAST_BEND = 2.220446049250313e-16


@inline_jit
def _linear(value, y, weight, _scale):
    r = (value - y) * weight
    return 0.5 * r * r, r * weight, weight * weight


@inline_jit
def _robust(value, y, weight, scale, rho):
    r = (value - y) * weight
    z = (r / scale) ** 2
    cost, slope, bend = rho(z)
    return 0.5 * scale * scale * cost, slope * r * weight, max(slope + 2.0 * z * bend, _LEAST_BEND) * weight * weight


@inline_jit
def _soft_l1_rho(z):
    root = math.sqrt(1.0 + z)
    return 2.0 * z / (root + 1.0), 1.0 / root, -0.5 / root**3  # 2*(root - 1), which cancels for small z


@inline_jit
def _huber_rho(z):
    if z <= 1.0:
        return z, 1.0, 0.0
    root = math.sqrt(z)
    return 2.0 * root - 1.0, 1.0 / root, -0.5 / root**3


@inline_jit
def _cauchy_rho(z):
    t = 1.0 / (1.0 + z)
    return math.log1p(z), t, -t * t


@inline_jit
def _arctan_rho(z):
    t = 1.0 / (1.0 + z * z)
    return math.atan(z), t, -2.0 * z * t * t


@inline_jit
def _soft_l1(value, y, weight, scale):
    return _robust(value, y, weight, scale, _soft_l1_rho)


@inline_jit
def _huber(value, y, weight, scale):
    return _robust(value, y, weight, scale, _huber_rho)


@inline_jit
def _cauchy(value, y, weight, scale):
    return _robust(value, y, weight, scale, _cauchy_rho)


@inline_jit
def _arctan(value, y, weight, scale):
    return _robust(value, y, weight, scale, _arctan_rho)


@inline_jit
def _poisson(value, y, weight, _scale):
    """Return half the deviance of a count; Fisher's information as the second derivative, which never is negative."""
    if value > 0.0:
        cost = value - y + (y * math.log(y / value) if y > 0.0 else 0.0)
        return weight * cost, weight * (1.0 - y / value), weight / value
    if value == 0.0 and y == 0.0:
        return 0.0, weight, 0.0
    return math.inf, 0.0, 0.0


ROBUST = {"soft_l1": _soft_l1, "huber": _huber, "cauchy": _cauchy, "arctan": _arctan}

LOSSES: dict[str, Any] = {"linear": _linear, **ROBUST, "poisson": _poisson}
"""The losses by the names that users give."""
