"""Problems with known minima, and RMSprop in plain NumPy, for the tests of this project and for your own.

The objectives are ordinary functions that Numba can compile: ``numba.njit(problem.fun)``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rmsprop_nb._core.names_elsewhere import explain_keywords
from rmsprop_nb._core.option_docs import with_option_docs

__all__ = ["PROBLEMS", "TestProblem", "reference_rmsprop"]


def __dir__() -> list[str]:
    return sorted(__all__)


Vector = NDArray[np.float64]


class TestProblem(NamedTuple):
    """A function to minimize whose lowest value is known.

    Attributes
    ----------
    name : str
        The name, with the number of variables if that can vary.
    fun, jac : callable
        ``fun(x) -> float`` and ``jac(x) -> ndarray, shape (n,)``.
    x0 : tuple of float
        The usual starting point.
    fmin : float
        The lowest value of fun, or the value at the local minimum that descent from x0 leads to.
    minima : tuple of tuple of float
        The points where fmin is attained; empty if there are too many to list.
    source : str
        The source of the function and its minima.
    """

    name: str
    fun: Callable[[Vector], float]
    jac: Callable[[Vector], Vector]
    x0: tuple[float, ...]
    fmin: float
    minima: tuple[tuple[float, ...], ...]
    source: str


TestProblem.__test__ = False  # type: ignore[attr-defined]  # the name looks like a test class to pytest


# -- reference --------------------------------------------------------------------------------------------------------


@explain_keywords()
@with_option_docs
def reference_rmsprop(
    x0: ArrayLike,
    gradients: Any,
    learning_rate: Any,
    *,
    beta: float = 0.9,
    eps: float = 1e-8,
    momentum: float = 0.0,
    nesterov: bool = False,
    centered: bool = False,
    eps_inside_sqrt: bool = False,
    bias_correction: bool = False,
    initial_accumulator: float = 0.0,
    weight_decay: float = 0.0,
    decoupled_weight_decay: bool = False,
    lr_in_momentum: bool = False,
) -> Iterator[NDArray[Any]]:
    """Yield x after each step of textbook RMSprop: slow, obvious, and independent of the compiled rule.

    Parameters
    ----------
    x0 : array_like, shape (n,)
        The starting point; its dtype, float32 or float64, is that of all arithmetic.
    gradients : iterable of array_like, or callable
        The gradient of each step, of shape (n,), or a function ``gradient(x)``, with which the iterator never ends.
    learning_rate : float or sequence of float
        The rate, or one rate for each step.
    %(rule)s

    Yields
    ------
    x : ndarray, shape (n,)
        A copy of x after the step.

    Examples
    --------
    >>> from rmsprop_nb.testing import reference_rmsprop
    >>> [x] = reference_rmsprop([1.0], [[0.5]], learning_rate=0.1)
    >>> x.round(6)
    array([0.683772])
    """
    x = np.array(x0)
    real = x.dtype.type
    s = np.full_like(x, initial_accumulator)
    m, b = np.zeros_like(x), np.zeros_like(x)
    steps = iter(lambda: gradients(x), None) if callable(gradients) else iter(gradients)
    for k, raw in enumerate(steps):
        rate = real(learning_rate if np.ndim(learning_rate) == 0 else learning_rate[k])
        correction = real(1.0 - float(real(beta)) ** (k + 1)) if bias_correction else real(1.0)
        g = np.asarray(raw, dtype=x.dtype)
        if weight_decay and not decoupled_weight_decay:
            g = g + real(weight_decay) * x
        s = real(beta) * s + real(1.0 - beta) * g * g
        v = s / correction
        if centered:
            m = real(beta) * m + real(1.0 - beta) * g
            v = np.maximum(v - (m / correction) ** 2, real(0.0))
        u = g / (np.sqrt(v + real(eps)) if eps_inside_sqrt else np.sqrt(v) + real(eps))
        if weight_decay and decoupled_weight_decay:
            x = x - rate * real(weight_decay) * x
        if momentum:
            u = rate * u if lr_in_momentum else u
            b = real(momentum) * b + u
            u = real(momentum) * b + u if nesterov else b
            x = x - (u if lr_in_momentum else rate * u)
        else:
            x = x - rate * u
        yield x.copy()


# -- problems ---------------------------------------------------------------------------------------------------------


def rosenbrock(x):
    return np.sum(100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1.0 - x[:-1]) ** 2)


def rosenbrock_grad(x):
    d = x[1:] - x[:-1] ** 2
    g = np.zeros_like(x)
    g[:-1] = -400.0 * x[:-1] * d - 2.0 * (1.0 - x[:-1])
    g[1:] += 200.0 * d
    return g


def beale(x):
    a = 1.5 - x[0] * (1.0 - x[1])
    b = 2.25 - x[0] * (1.0 - x[1] ** 2)
    c = 2.625 - x[0] * (1.0 - x[1] ** 3)
    return a * a + b * b + c * c


def beale_grad(x):
    a = 1.5 - x[0] * (1.0 - x[1])
    b = 2.25 - x[0] * (1.0 - x[1] ** 2)
    c = 2.625 - x[0] * (1.0 - x[1] ** 3)
    g = np.zeros_like(x)
    g[0] = -2.0 * (a * (1.0 - x[1]) + b * (1.0 - x[1] ** 2) + c * (1.0 - x[1] ** 3))
    g[1] = 2.0 * x[0] * (a + 2.0 * b * x[1] + 3.0 * c * x[1] ** 2)
    return g


def himmelblau(x):
    return (x[0] ** 2 + x[1] - 11.0) ** 2 + (x[0] + x[1] ** 2 - 7.0) ** 2


def himmelblau_grad(x):
    a = x[0] ** 2 + x[1] - 11.0
    b = x[0] + x[1] ** 2 - 7.0
    g = np.zeros_like(x)
    g[0] = 4.0 * x[0] * a + 2.0 * b
    g[1] = 2.0 * a + 4.0 * x[1] * b
    return g


def booth(x):
    return (x[0] + 2.0 * x[1] - 7.0) ** 2 + (2.0 * x[0] + x[1] - 5.0) ** 2


def booth_grad(x):
    a = x[0] + 2.0 * x[1] - 7.0
    b = 2.0 * x[0] + x[1] - 5.0
    g = np.zeros_like(x)
    g[0] = 2.0 * a + 4.0 * b
    g[1] = 4.0 * a + 2.0 * b
    return g


def matyas(x):
    return 0.26 * (x[0] ** 2 + x[1] ** 2) - 0.48 * x[0] * x[1]


def matyas_grad(x):
    return 0.52 * x - 0.48 * x[::-1]


def styblinski_tang(x):
    return 0.5 * np.sum(x**4 - 16.0 * x**2 + 5.0 * x)


def styblinski_tang_grad(x):
    return 0.5 * (4.0 * x**3 - 32.0 * x + 5.0)


def three_hump_camel(x):
    return 2.0 * x[0] ** 2 - 1.05 * x[0] ** 4 + x[0] ** 6 / 6.0 + x[0] * x[1] + x[1] ** 2


def three_hump_camel_grad(x):
    g = np.zeros_like(x)
    g[0] = 4.0 * x[0] - 4.2 * x[0] ** 3 + x[0] ** 5 + x[1]
    g[1] = x[0] + 2.0 * x[1]
    return g


def powell_singular(x):
    return (
        (x[0] + 10.0 * x[1]) ** 2
        + 5.0 * (x[2] - x[3]) ** 2
        + (x[1] - 2.0 * x[2]) ** 4
        + 10.0 * (x[0] - x[3]) ** 4
    )  # fmt: skip


def powell_singular_grad(x):
    a = 2.0 * (x[0] + 10.0 * x[1])
    b = 10.0 * (x[2] - x[3])
    c = 4.0 * (x[1] - 2.0 * x[2]) ** 3
    d = 40.0 * (x[0] - x[3]) ** 3
    g = np.zeros_like(x)
    g[0] = a + d
    g[1] = 10.0 * a + c
    g[2] = b - 2.0 * c
    g[3] = -b - d
    return g


def wood(x):
    return (
        100.0 * (x[1] - x[0] ** 2) ** 2
        + (1.0 - x[0]) ** 2
        + 90.0 * (x[3] - x[2] ** 2) ** 2
        + (1.0 - x[2]) ** 2
        + 10.0 * (x[1] + x[3] - 2.0) ** 2
        + 0.1 * (x[1] - x[3]) ** 2
    )


def wood_grad(x):
    a, b = x[1] - x[0] ** 2, x[3] - x[2] ** 2
    c, d = 20.0 * (x[1] + x[3] - 2.0), 0.2 * (x[1] - x[3])
    g = np.zeros_like(x)
    g[0] = -400.0 * x[0] * a - 2.0 * (1.0 - x[0])
    g[1] = 200.0 * a + c + d
    g[2] = -360.0 * x[2] * b - 2.0 * (1.0 - x[2])
    g[3] = 180.0 * b + c - d
    return g


def freudenstein_roth(x):
    a = -13.0 + x[0] + ((5.0 - x[1]) * x[1] - 2.0) * x[1]
    b = -29.0 + x[0] + ((x[1] + 1.0) * x[1] - 14.0) * x[1]
    return a * a + b * b


def freudenstein_roth_grad(x):
    a = -13.0 + x[0] + ((5.0 - x[1]) * x[1] - 2.0) * x[1]
    b = -29.0 + x[0] + ((x[1] + 1.0) * x[1] - 14.0) * x[1]
    g = np.zeros_like(x)
    g[0] = 2.0 * (a + b)
    g[1] = 2.0 * (a * (10.0 * x[1] - 3.0 * x[1] ** 2 - 2.0) + b * (3.0 * x[1] ** 2 + 2.0 * x[1] - 14.0))
    return g


def helical_valley(x):
    theta = math.atan2(x[1], x[0]) / (2.0 * math.pi)
    return 100.0 * ((x[2] - 10.0 * theta) ** 2 + (math.hypot(x[0], x[1]) - 1.0) ** 2) + x[2] ** 2


def helical_valley_grad(x):
    r = math.hypot(x[0], x[1])
    a = 200.0 * (x[2] - 10.0 * math.atan2(x[1], x[0]) / (2.0 * math.pi))
    b = 200.0 * (r - 1.0) / r
    c = 10.0 * a / (2.0 * math.pi * r * r)
    g = np.zeros_like(x)
    g[0] = c * x[1] + b * x[0]
    g[1] = -c * x[0] + b * x[1]
    g[2] = a + 2.0 * x[2]
    return g


def brown_badly_scaled(x):
    return (x[0] - 1e6) ** 2 + (x[1] - 2e-6) ** 2 + (x[0] * x[1] - 2.0) ** 2


def brown_badly_scaled_grad(x):
    a = 2.0 * (x[0] * x[1] - 2.0)
    g = np.zeros_like(x)
    g[0] = 2.0 * (x[0] - 1e6) + a * x[1]
    g[1] = 2.0 * (x[1] - 2e-6) + a * x[0]
    return g


def scaled_quadratic(x):
    """Half the sum of k_i*(x_i - 1)**2 with k from 1 to 1e6."""
    return 0.5 * np.sum(10.0 ** np.linspace(0.0, 6.0, x.size) * (x - 1.0) ** 2)


def scaled_quadratic_grad(x):
    return 10.0 ** np.linspace(0.0, 6.0, x.size) * (x - 1.0)


_MGH = "J. More, B. Garbow, K. Hillstrom, ACM Trans. Math. Softw. 7 (1981), problem "
_SURJANOVIC = "S. Surjanovic, D. Bingham, Virtual Library of Simulation Experiments, function "


def _rosenbrock(n: int) -> TestProblem:
    start = (-1.2, 1.0) * (n // 2)
    return TestProblem(f"rosenbrock_{n}", rosenbrock, rosenbrock_grad, start, 0.0, ((1.0,) * n,), f"{_MGH}1, chained")


def _styblinski_tang(n: int) -> TestProblem:
    xmin = -2.9035340277711770951
    fmin = -39.166165703771412 * n
    source = f"{_SURJANOVIC}stybtang"
    return TestProblem(
        f"styblinski_tang_{n}", styblinski_tang, styblinski_tang_grad, (-1.0,) * n, fmin, ((xmin,) * n,), source
    )


PROBLEMS: tuple[TestProblem, ...] = (
    _rosenbrock(2),
    _rosenbrock(10),
    _rosenbrock(100),
    TestProblem("beale", beale, beale_grad, (1.0, 1.0), 0.0, ((3.0, 0.5),), f"{_MGH}5"),
    TestProblem(
        "himmelblau",
        himmelblau,
        himmelblau_grad,
        (0.0, 0.0),
        0.0,
        (
            (3.0, 2.0),
            (-2.805118086952745, 3.131312518250573),
            (-3.779310253377747, -3.283185991286170),
            (3.584428340330492, -1.848126526964404),
        ),
        "D. Himmelblau, Applied Nonlinear Programming, McGraw-Hill 1972",
    ),
    TestProblem("booth", booth, booth_grad, (0.0, 0.0), 0.0, ((1.0, 3.0),), f"{_SURJANOVIC}booth"),
    TestProblem("matyas", matyas, matyas_grad, (5.0, -8.0), 0.0, ((0.0, 0.0),), f"{_SURJANOVIC}matya"),
    _styblinski_tang(2),
    _styblinski_tang(10),
    TestProblem(
        "three_hump_camel",
        three_hump_camel,
        three_hump_camel_grad,
        (0.5, -0.7),
        0.0,
        ((0.0, 0.0),),
        f"{_SURJANOVIC}camel3",
    ),
    TestProblem(
        "powell_singular", powell_singular, powell_singular_grad, (3.0, -1.0, 0.0, 1.0), 0.0, ((0.0,) * 4,), f"{_MGH}13"
    ),
    TestProblem("wood", wood, wood_grad, (-3.0, -1.0, -3.0, -1.0), 0.0, ((1.0,) * 4,), f"{_MGH}14"),
    TestProblem(
        "freudenstein_roth",
        freudenstein_roth,
        freudenstein_roth_grad,
        (0.5, -2.0),
        48.98425367924,
        ((11.41277900, -0.89680525),),
        f"{_MGH}2, local minimum",
    ),
    TestProblem(
        "helical_valley", helical_valley, helical_valley_grad, (-1.0, 0.0, 0.0), 0.0, ((1.0, 0.0, 0.0),), f"{_MGH}7"
    ),
    TestProblem(
        "brown_badly_scaled", brown_badly_scaled, brown_badly_scaled_grad, (1.0, 1.0), 0.0, ((1e6, 2e-6),), f"{_MGH}4"
    ),
    TestProblem(
        "scaled_quadratic_10",
        scaled_quadratic,
        scaled_quadratic_grad,
        (0.3, -2.0, 1.7, 4.0, -0.2) * 2,
        0.0,
        ((1.0,) * 10,),
        "diagonal, condition 1e6",
    ),
)
"""Classical problems, each as a `TestProblem`."""
