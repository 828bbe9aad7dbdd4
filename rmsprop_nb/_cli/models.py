"""Objectives over the bundled data, written the way a user would write them.

All have the allocation-free form ``fun(x, grad, *args) -> f``, which fills grad. Far from the data the exponentials
overflow: then f or grad is inf or NaN, nothing raises, and a line search takes a shorter step.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numba import config, njit
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float64]
Point: TypeAlias = tuple[float, tuple[float, ...]]
"""Value of a model at one point, and its partial derivatives with respect to the parameters."""

# Compiled, math's functions overflow to inf. Interpreted, they raise, so NumPy's functions replace them there.
arctan, cos, exp, log, sin = (
    (np.arctan, np.cos, np.exp, np.log, np.sin)
    if config.DISABLE_JIT
    else (math.atan, math.cos, math.exp, math.log, math.sin)
)


# -- regression -------------------------------------------------------------------------------------------------------


@functools.cache
def nist_objective(name: str) -> Any:
    """Compile the residual sum of squares of a problem of `rmsprop_nb.datasets`.

    Parameters
    ----------
    name : str
        One of `rmsprop_nb.datasets.NIST_NAMES`.

    Returns
    -------
    fun : Numba function
        ``fun(b, grad, x, y) -> f`` for parameters `b` and gradient `grad` of shape (n_parameters,) and points `x`, `y`
        of shape (n_points,). The same name gives the same function, so it compiles once per process.

    Raises
    ------
    ValueError
        If there is no problem with that name.

    Examples
    --------
    >>> import numpy as np
    >>> from rmsprop_nb._cli.models import nist_objective
    >>> from rmsprop_nb.datasets import load_nist
    >>> problem, fun = load_nist("Misra1a"), nist_objective("Misra1a")
    >>> grad = np.empty(2)
    >>> rss = fun(problem.certified, grad, problem.x, problem.y)
    >>> bool(np.isclose(rss, problem.certified_rss, rtol=1e-9))
    True
    """
    if name not in _MODELS:
        msg = f"name must be one of {', '.join(_MODELS)}, got {name!r}."
        raise ValueError(msg)
    return njit(error_model="numpy")(_sum_of_squares(_MODELS[name]))


def _sum_of_squares(model: Callable[[Array, float], Point]) -> Callable[..., float]:
    """Make ``fun(b, grad, x, y) -> f`` from a model of one point."""
    model = njit(error_model="numpy")(model)

    def sum_of_squares(b: Array, grad: Array, x: Array, y: Array) -> float:
        total = 0.0
        for j in range(grad.size):
            grad[j] = 0.0
        for i in range(x.size):
            # float64 for data of any type, so that all partial derivatives have one type and can be indexed
            value, partials = model(b, np.float64(x[i]))
            residual = value - y[i]
            total += residual * residual
            for j in range(len(partials)):
                grad[j] += 2.0 * residual * partials[j]
        return total

    return sum_of_squares


def exponential_rise(b: Array, x: float) -> Point:
    """``b1*(1 - exp(-b2*x))``."""
    decay = exp(-b[1] * x)
    return b[0] * (1.0 - decay), (1.0 - decay, b[0] * x * decay)


def chwirut(b: Array, x: float) -> Point:
    """``exp(-b1*x)/(b2 + b3*x)``."""
    denominator = b[1] + b[2] * x
    value = exp(-b[0] * x) / denominator
    return value, (-x * value, -value / denominator, -x * value / denominator)


def lanczos(b: Array, x: float) -> Point:
    """``b1*exp(-b2*x) + b3*exp(-b4*x) + b5*exp(-b6*x)``."""
    p, q, r = exp(-b[1] * x), exp(-b[3] * x), exp(-b[5] * x)
    return b[0] * p + b[2] * q + b[4] * r, (p, -b[0] * x * p, q, -b[2] * x * q, r, -b[4] * x * r)


def gauss(b: Array, x: float) -> Point:
    """``b1*exp(-b2*x) + b3*exp(-((x - b4)/b5)**2) + b6*exp(-((x - b7)/b8)**2)``."""
    decay = exp(-b[1] * x)
    u, v = (x - b[3]) / b[4], (x - b[6]) / b[7]
    p, q = exp(-u * u), exp(-v * v)
    du, dv = 2.0 * b[2] * p * u / b[4], 2.0 * b[5] * q * v / b[7]
    return b[0] * decay + b[2] * p + b[5] * q, (decay, -b[0] * x * decay, p, du, du * u, q, dv, dv * v)


def danwood(b: Array, x: float) -> Point:
    """``b1*x**b2``."""
    power = x ** b[1]
    return b[0] * power, (power, b[0] * power * log(x))


def kirby2(b: Array, x: float) -> Point:
    """``(b1 + b2*x + b3*x**2)/(1 + b4*x + b5*x**2)``."""
    p = 1.0 / (1.0 + x * (b[3] + x * b[4]))
    value = p * (b[0] + x * (b[1] + x * b[2]))
    return value, (p, x * p, x * x * p, -value * x * p, -value * x * x * p)


def cubic_over_cubic(b: Array, x: float) -> Point:
    """``(b1 + b2*x + b3*x**2 + b4*x**3)/(1 + b5*x + b6*x**2 + b7*x**3)``."""
    p = 1.0 / (1.0 + x * (b[4] + x * (b[5] + x * b[6])))
    value = p * (b[0] + x * (b[1] + x * (b[2] + x * b[3])))
    px, pxx, pxxx = p * x, p * x * x, p * x * x * x
    return value, (p, px, pxx, pxxx, -value * px, -value * pxx, -value * pxxx)


def mgh17(b: Array, x: float) -> Point:
    """``b1 + b2*exp(-x*b4) + b3*exp(-x*b5)``."""
    p, q = exp(-x * b[3]), exp(-x * b[4])
    return b[0] + b[1] * p + b[2] * q, (1.0, p, q, -b[1] * x * p, -b[2] * x * q)


def roszman1(b: Array, x: float) -> Point:
    """``b1 - b2*x - arctan(b3/(x - b4))/pi``."""
    u = x - b[3]
    p = 1.0 / (math.pi * (u * u + b[2] * b[2]))
    return b[0] - b[1] * x - arctan(b[2] / u) / math.pi, (1.0, -x, -u * p, -b[2] * p)


def enso(b: Array, x: float) -> Point:
    """``b1 + b2*cos(t/12) + b3*sin(t/12) + b5*cos(t/b4) + b6*sin(t/b4) + b8*cos(t/b7) + b9*sin(t/b7)``, t = 2*pi*x."""
    t = 2.0 * math.pi * x
    c1, s1, c2, s2, c3, s3 = cos(t / 12.0), sin(t / 12.0), cos(t / b[3]), sin(t / b[3]), cos(t / b[6]), sin(t / b[6])
    value = b[0] + b[1] * c1 + b[2] * s1 + b[4] * c2 + b[5] * s2 + b[7] * c3 + b[8] * s3
    d4 = (b[4] * s2 - b[5] * c2) * t / (b[3] * b[3])
    d7 = (b[7] * s3 - b[8] * c3) * t / (b[6] * b[6])
    return value, (1.0, c1, s1, d4, c2, s2, d7, c3, s3)


def mgh09(b: Array, x: float) -> Point:
    """``b1*(x**2 + x*b2)/(x**2 + x*b3 + b4)``."""
    p = 1.0 / (x * x + x * b[2] + b[3])
    ratio = (x * x + x * b[1]) * p
    value = b[0] * ratio
    return value, (ratio, b[0] * x * p, -value * x * p, -value * p)


def rat43(b: Array, x: float) -> Point:
    """``b1/(1 + exp(b2 - b3*x))**(1/b4)``."""
    u = 1.0 + exp(b[1] - b[2] * x)
    power = u ** (-1.0 / b[3])
    value = b[0] * power
    slope = value / b[3] * (1.0 - 1.0 / u)
    return value, (power, -slope, x * slope, value * log(u) / (b[3] * b[3]))


def mgh10(b: Array, x: float) -> Point:
    """``b1*exp(b2/(x + b3))``."""
    u = x + b[2]
    p = exp(b[1] / u)
    value = b[0] * p
    return value, (p, value / u, -value * b[1] / (u * u))


def bennett5(b: Array, x: float) -> Point:
    """``b1*(b2 + x)**(-1/b3)``."""
    u = b[1] + x
    power = u ** (-1.0 / b[2])
    value = b[0] * power
    return value, (power, -value / (b[2] * u), value * log(u) / (b[2] * b[2]))


_MODELS: dict[str, Callable[[Array, float], Point]] = {
    "Misra1a": exponential_rise,
    "Chwirut2": chwirut,
    "Lanczos3": lanczos,
    "Gauss1": gauss,
    "DanWood": danwood,
    "Kirby2": kirby2,
    "Hahn1": cubic_over_cubic,
    "MGH17": mgh17,
    "Roszman1": roszman1,
    "ENSO": enso,
    "MGH09": mgh09,
    "Thurber": cubic_over_cubic,
    "BoxBOD": exponential_rise,
    "Rat43": rat43,
    "MGH10": mgh10,
    "Bennett5": bennett5,
}


# -- classification ---------------------------------------------------------------------------------------------------


def logistic_loss(w: Array, grad: Array, X: Array, y: Array, l2: float) -> float:
    """Return the mean logistic loss with a penalty of ``l2/2*|w|**2``.

    Parameters
    ----------
    w : ndarray, shape (n_features + 1,)
        Weights; the last one is the bias and is not penalized.
    grad : ndarray, shape (n_features + 1,)
        Filled with the gradient.
    X : ndarray, shape (n_points, n_features)
        Features.
    y : ndarray, shape (n_points,)
        Classes, 0 or 1.
    l2 : float
        Strength of the penalty.

    Returns
    -------
    loss : float
        The loss at `w`.

    Examples
    --------
    >>> import numpy as np
    >>> from rmsprop_nb._cli.models import logistic_loss
    >>> grad = np.empty(2)
    >>> round(logistic_loss(np.zeros(2), grad, np.array([[1.0], [3.0]]), np.array([0.0, 1.0]), 0.1), 4)
    0.6931
    >>> grad.tolist()
    [-0.5, 0.0]
    """
    n_points, n_features = X.shape
    loss = 0.0
    for j in range(n_features + 1):
        grad[j] = 0.0
    for i in range(n_points):
        z = w[n_features]
        for j in range(n_features):
            z += X[i, j] * w[j]
        sign = 2.0 * y[i] - 1.0
        margin = sign * z
        small = math.exp(-abs(margin))  # never overflows
        loss += math.log1p(small) + max(-margin, 0.0)
        # derivative of the loss with respect to z; for a large margin it is tiny, and p - y would cancel
        slope = -sign * (small if margin > 0.0 else 1.0) / (1.0 + small) / n_points
        for j in range(n_features):
            grad[j] += slope * X[i, j]
        grad[n_features] += slope
    loss /= n_points
    for j in range(n_features):
        loss += 0.5 * l2 * w[j] * w[j]
        grad[j] += l2 * w[j]
    return float(loss)
