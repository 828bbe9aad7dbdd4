"""Models and an objective for the bundled data, written the way a user would write them.

Far from the data the exponentials overflow: then a value is inf or NaN, nothing raises, and a fit takes a shorter step.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numba import njit
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float64]

# -- regression -------------------------------------------------------------------------------------------------------

_MODELS: dict[str, Any] = {}


def nist_model(name: str) -> Any:
    """Return the model of a problem of `rmsprop_nb.datasets`, compiled at its first call.

    Parameters
    ----------
    name : str
        One of `rmsprop_nb.datasets.NIST_NAMES`.

    Returns
    -------
    f : Numba function
        ``f(x, b1, b2, ...)`` gives the value at one x, or at an array of them. For Nelson x is two numbers, or two
        arrays. Data sets with the same formula have the same function.

    Raises
    ------
    ValueError
        If there is no problem with that name.

    Examples
    --------
    >>> from rmsprop_nb import fit
    >>> from rmsprop_nb._cli.models import nist_model
    >>> from rmsprop_nb.datasets import load_nist
    >>> problem = load_nist("Misra1a")
    >>> result = fit(nist_model("Misra1a"), problem.x, problem.y, problem.start1)
    >>> result.names, (result.popt / problem.certified).round(6).tolist()
    (['b1', 'b2'], [1.0, 1.0])
    """
    if name not in _MODELS:
        msg = f"name must be one of {', '.join(_MODELS)}, got {name!r}."
        raise ValueError(msg)
    return _MODELS[name]


def _model_of(*names: str) -> Callable[[Callable[..., Any]], Any]:
    """Enter a model, compiled, under the names of the data sets that it is for."""

    def enter(function: Callable[..., Any]) -> Any:
        compiled = njit(error_model="numpy")(function)
        _MODELS.update(dict.fromkeys(names, compiled))
        return compiled

    return enter


@_model_of("Misra1a", "BoxBOD")
def exponential_rise(x, b1, b2):
    return b1 * (1.0 - np.exp(-b2 * x))


@_model_of("Misra1b")
def misra1b(x, b1, b2):
    return b1 * (1.0 - (1.0 + 0.5 * b2 * x) ** -2.0)


@_model_of("Misra1c")
def misra1c(x, b1, b2):
    return b1 * (1.0 - (1.0 + 2.0 * b2 * x) ** -0.5)


@_model_of("Misra1d")
def misra1d(x, b1, b2):
    return b1 * b2 * x / (1.0 + b2 * x)


@_model_of("Chwirut1", "Chwirut2")
def chwirut(x, b1, b2, b3):
    return np.exp(-b1 * x) / (b2 + b3 * x)


@_model_of("Lanczos1", "Lanczos2", "Lanczos3")
def three_decays(x, b1, b2, b3, b4, b5, b6):
    return b1 * np.exp(-b2 * x) + b3 * np.exp(-b4 * x) + b5 * np.exp(-b6 * x)


@_model_of("Gauss1", "Gauss2", "Gauss3")
def two_peaks(x, b1, b2, b3, b4, b5, b6, b7, b8):
    return b1 * np.exp(-b2 * x) + b3 * np.exp(-(((x - b4) / b5) ** 2)) + b6 * np.exp(-(((x - b7) / b8) ** 2))


@_model_of("DanWood")
def power(x, b1, b2):
    return b1 * x**b2


@_model_of("Kirby2")
def square_over_square(x, b1, b2, b3, b4, b5):
    return (b1 + x * (b2 + x * b3)) / (1.0 + x * (b4 + x * b5))


@_model_of("Hahn1", "Thurber")
def cubic_over_cubic(x, b1, b2, b3, b4, b5, b6, b7):
    return (b1 + x * (b2 + x * (b3 + x * b4))) / (1.0 + x * (b5 + x * (b6 + x * b7)))


@_model_of("Nelson")
def nelson(x, b1, b2, b3):
    return b1 - b2 * x[0] * np.exp(-b3 * x[1])


@_model_of("MGH17")
def two_decays(x, b1, b2, b3, b4, b5):
    return b1 + b2 * np.exp(-x * b4) + b3 * np.exp(-x * b5)


@_model_of("Roszman1")
def roszman1(x, b1, b2, b3, b4):
    return b1 - b2 * x - np.arctan(b3 / (x - b4)) / np.pi


@_model_of("ENSO")
def enso(x, b1, b2, b3, b4, b5, b6, b7, b8, b9):
    t = 2.0 * np.pi * x
    year = b2 * np.cos(t / 12.0) + b3 * np.sin(t / 12.0)
    return b1 + year + b5 * np.cos(t / b4) + b6 * np.sin(t / b4) + b8 * np.cos(t / b7) + b9 * np.sin(t / b7)


@_model_of("MGH09")
def mgh09(x, b1, b2, b3, b4):
    return b1 * (x**2 + x * b2) / (x**2 + x * b3 + b4)


@_model_of("Rat42")
def rat42(x, b1, b2, b3):
    return b1 / (1.0 + np.exp(b2 - b3 * x))


@_model_of("MGH10")
def mgh10(x, b1, b2, b3):
    return b1 * np.exp(b2 / (x + b3))


@_model_of("Eckerle4")
def eckerle4(x, b1, b2, b3):
    return b1 / b2 * np.exp(-0.5 * ((x - b3) / b2) ** 2)


@_model_of("Rat43")
def rat43(x, b1, b2, b3, b4):
    return b1 / (1.0 + np.exp(b2 - b3 * x)) ** (1.0 / b4)


@_model_of("Bennett5")
def bennett5(x, b1, b2, b3):
    return b1 * (b2 + x) ** (-1.0 / b3)


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
