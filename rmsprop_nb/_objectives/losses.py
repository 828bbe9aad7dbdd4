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

import functools
import math
from typing import Any

from rmsprop_nb._numba.decorators import inline_jit

_LEAST_BEND = 2.220446049250313e-16


@inline_jit
def _linear(value, y, weight, _scale):
    r = (value - y) * weight
    return 0.5 * r * r, r * weight, weight * weight


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
def _poisson(value, y, weight, _scale):
    """Return half the deviance of a count; Fisher's information as the second derivative, which never is negative."""
    if value > 0.0:
        cost = value - y + (y * math.log(y / value) if y > 0.0 else 0.0)
        return weight * cost, weight * (1.0 - y / value), weight / value
    if value == 0.0 and y == 0.0:
        return 0.0, weight, 0.0
    return math.inf, 0.0, 0.0


_RHO = {"soft_l1": _soft_l1_rho, "huber": _huber_rho, "cauchy": _cauchy_rho, "arctan": _arctan_rho}

LOSSES = ("linear", *_RHO, "poisson")
"""The losses by the names that users give."""


def is_robust(name: str) -> bool:
    """Return whether a loss makes less of outliers."""
    return name in _RHO


@functools.cache
def loss_function(name: str, for_steps: bool) -> Any:
    """Return the loss with this name.

    The second derivative of a robust loss is 0 or below for outliers. For covariances it is taken to be next to nothing
    there, as in SciPy. Steps would be far too long with that where most points are outliers, as they may be at the
    start: `for_steps` it is at least a tenth of what reweighted least squares take.
    """
    if name not in _RHO:
        return {"linear": _linear, "poisson": _poisson}[name]
    rho, share = _RHO[name], 0.1 if for_steps else 0.0

    @inline_jit
    def loss(value, y, weight, scale):
        r = (value - y) * weight
        z = (r / scale) ** 2
        cost, slope, bend = rho(z)
        bend = max(slope + 2.0 * z * bend, share * slope, _LEAST_BEND)
        return 0.5 * scale * scale * cost, slope * r * weight, bend * weight * weight

    return loss
