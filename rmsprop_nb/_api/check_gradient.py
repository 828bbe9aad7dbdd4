"""The check of a gradient, element by element: `check_gradient`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rmsprop_nb._api.containers import Containers, is_container
from rmsprop_nb._core.bounds import as_bounds
from rmsprop_nb._core.names_elsewhere import explain_keywords
from rmsprop_nb._core.result import as_frame, as_html
from rmsprop_nb._core.validate import as_args, as_number, as_start, check_callable, check_jac
from rmsprop_nb._objectives.exact import with_exact_gradient
from rmsprop_nb._objectives.finite_differences import DIFFERENCES
from rmsprop_nb._objectives.interpreted import PythonObjective
from rmsprop_nb._objectives.problem import Problem

CERTAIN = 10.0  # times the expected error
KNOWN = 1e-4  # of a derivative: the error of a difference that tells what it is
LISTED = 10  # elements in the text, at most
FACTORS = (1.0, *(10.0**k for k in range(-1, -11, -1)), *(10.0**k for k in range(1, 7)))
"""Of the usual step: those to try until a difference agrees with the gradient; f may vary over any distance."""


@dataclasses.dataclass(frozen=True, repr=False)
class GradientCheck:
    """What `check_gradient` found; its text names the worst elements and the likely fault.

    Attributes
    ----------
    gradient : ndarray, shape (n,)
        The gradient that the user's function gives.
    differences : ndarray of float64, shape (n,)
        Central differences of f.
    error : ndarray of float64, shape (n,)
        The error that these differences are expected to have.
    wrong : ndarray of bool, shape (n,)
        Whether the two differ by more than that error can explain.
    undecided : ndarray of bool, shape (n,)
        Whether the two agree only because that error is large.
    place : callable
        ``place(i)`` is what the text calls element i: its index, or the way to it in containers of arrays.
    """

    gradient: NDArray[Any]
    differences: NDArray[np.float64]
    error: NDArray[np.float64]
    wrong: NDArray[np.bool_]
    undecided: NDArray[np.bool_]
    place: Callable[[int], str] = str

    @property
    def verdict(self) -> str:
        """What was found: "right", "wrong" or "undecided"."""
        if self.wrong.any():
            return "wrong"
        return "undecided" if self.undecided.any() else "right"

    @property
    def ok(self) -> bool:
        """Whether the differences confirm every element."""
        return self.verdict == "right"

    def to_frame(self) -> Any:
        """Return a pandas DataFrame with a row for each element, by the name that the text gives it."""
        names = ("gradient", "differences", "error", "wrong", "undecided")
        frame = as_frame((name, getattr(self, name)) for name in names)
        return frame.set_axis([self.place(i) for i in range(self.gradient.size)], axis=0)

    def __repr__(self) -> str:
        lines = self._findings()
        if self.wrong.any():
            lines.append(f"{'element':>10} {'gradient':>14} {'difference':>14} {'its error':>10}")
        return "\n".join([*lines, *map(self._line, self._worst())])

    def _repr_html_(self) -> str:
        elements = (
            (self.place(i), f"{self.gradient[i]:.6g}, by differences {self.differences[i]:.6g} ± {self.error[i]:.1g}")
            for i in map(int, self._worst())
        )
        return as_html([*((finding, "") for finding in self._findings()), *elements])

    def _findings(self) -> list[str]:
        lines = [f"{int(self.wrong.sum())} of {self.wrong.size} elements of the gradient are wrong."]
        if blind := int(self.undecided.sum()):
            lines.append(
                f"{blind} are undecided: there f is too rough, too curved or too flat for differences to tell."
            )
        if self.wrong.any() and (likely := _likely_fault(self.gradient.astype(np.float64), self.differences)):
            lines.append(f"Likely fault: {likely}")
        return lines

    def _worst(self) -> NDArray[np.intp]:
        excess = np.nan_to_num(np.abs(self.gradient - self.differences), nan=np.inf)
        order = np.argsort(-excess, kind="stable")
        return order[self.wrong[order]][:LISTED]

    def _line(self, i: np.intp) -> str:
        return f"{self.place(int(i)):>10} {self.gradient[i]:14.6g} {self.differences[i]:14.6g} {self.error[i]:10.1g}"


def _likely_fault(gradient: NDArray[np.float64], differences: NDArray[np.float64]) -> str:
    """Return what would explain a wrong gradient as a whole, or nothing."""
    large = np.abs(differences) > 1e-3 * np.abs(differences).max()
    ratios = gradient[large] / differences[large]
    if ratios.size and np.ptp(ratios) <= 1e-3 * abs(ratios[0]):
        if abs(ratios[0] + 1.0) <= 1e-3:
            return "every element has the opposite sign."
        if abs(ratios[0] - 1.0) > 1e-3:
            return f"every element is {ratios[0]:.4g} times what it should be."
    if np.allclose(np.sort(gradient), np.sort(differences), rtol=1e-3, atol=1e-6 * np.abs(differences).max()):
        return "the elements are in another order."
    return ""


@explain_keywords()
def check_gradient(
    fun: Callable[..., Any],
    x: ArrayLike,
    jac: Callable[..., Any] | str | bool,
    args: tuple[Any, ...] = (),
    *,
    bounds: Any = None,
    rtol: float = 1e-5,
) -> GradientCheck:
    """Compare a gradient with central differences of the function, element by element.

    It is like `scipy.optimize.check_grad`, but says which elements are wrong: those that differ by more than the
    differences can be expected to be in error. fun is called 4 times for each element, and up to 68 times for one that
    seems to be wrong, or of which the usual step tells little.

    Parameters
    ----------
    fun : callable
        The objective, as for `minimize`; compiled or plain.
    x : array_like, shape (n,), or dict, list or tuple of arrays
        Where to compare, in float32 or float64; better not at a minimum, where the gradient vanishes. A random point
        is a good choice. Containers are as in `minimize`; what is found is about all their elements, one after another.
    jac : callable, True, "inplace", "autodiff" or "cs"
        The source of the gradient, as for `minimize`.
    args : tuple, default ()
        Further arguments of `fun` and `jac`.
    bounds : sequence of (min, max) or scipy.optimize.Bounds, optional
        As for `minimize`; `fun` is not called outside of them.
    rtol : float, default 1e-5
        Relative difference that counts as none.

    Returns
    -------
    GradientCheck
        With `gradient`, `differences`, `error`, `wrong` and `undecided`, arrays of shape (n,); `verdict`, "right",
        "wrong" or "undecided"; and `ok`, whether it is "right". Printed, it names the worst elements and the likely
        fault; ``to_frame()`` is a pandas table of all elements.

    Raises
    ------
    ValueError
        If `jac` gives no gradient to check, x is not within the bounds, or x or f(x) is not finite.

    Notes
    -----
    The first step is the cube root of the precision of f times the size of the variable, which balances truncation and
    rounding [1]_; others are tried before an element is called wrong, because f may vary over far shorter or longer
    distances. The truncation error is estimated from a second step of twice the size. f and x are taken to be
    rounded in the last digit of their dtypes; where f is less precise, as with iterative solvers inside, elements may
    look wrong that are not.

    References
    ----------
    .. [1] J. Nocedal, S. Wright, "Numerical Optimization", 2nd ed., section 8.1.

    Examples
    --------
    >>> from rmsprop_nb import check_gradient
    >>> def fun(x):
    ...     return x[0] ** 2 + 3.0 * x[1]
    >>> check_gradient(fun, [2.0, 1.0], lambda x: [2.0 * x[0], -3.0])
    1 of 2 elements of the gradient are wrong.
       element       gradient     difference  its error
             1             -3              3 ...
    """
    if is_container(x):
        containers = Containers(x, "x")
        flat = {"jac": jac} | containers.arguments({"fun": fun, "jac": jac, "bounds": bounds})
        found = check_gradient(flat["fun"], flat["x0"], flat["jac"], args, bounds=flat["bounds"], rtol=rtol)
        return dataclasses.replace(found, place=containers.place)
    check_callable("fun", fun)
    form = check_jac(jac)
    if form is None or (isinstance(form, str) and form in DIFFERENCES):
        msg = f"jac={jac!r} gives no gradient to check; pass the function that returns it, True, 'inplace' or 'cs'."
        raise ValueError(msg)
    rtol = as_number("rtol", rtol, 0.0, 1.0)
    point = as_start(x, "x")
    lower, upper = as_bounds(bounds, point)
    if lower.size and not ((lower <= point) & (point <= upper)).all():
        k = int(np.flatnonzero(~((lower <= point) & (point <= upper)))[0])
        msg = f"x must be within the bounds, got {point[k]} at index {k}; use numpy.clip."
        raise ValueError(msg)
    problem = with_exact_gradient(Problem(fun, form, as_args(args), lower, upper), point.size, point.dtype)
    objective = PythonObjective(problem, point.dtype)
    gradient = np.full_like(point, np.nan)
    f = objective(point, gradient)
    if not np.isfinite(f):
        msg = f"fun must be finite at x, got {f}."
        raise ValueError(msg)
    below, above = (point - lower, upper - point) if lower.size else np.full((2, point.size), np.inf)
    known = max(KNOWN, 100.0 * objective.eps ** (2 / 3))
    differences, error = np.empty((2, point.size))
    with np.errstate(all="ignore"):
        for i in range(point.size):
            slopes = (_difference(objective, point, f, i, factor, (below[i], above[i])) for factor in FACTORS)
            differences[i], error[i] = _decided(slopes, float(gradient[i]), rtol, known)
        allowed = CERTAIN * error + rtol * np.abs(differences)
        wrong = (np.abs(gradient - differences) > allowed) | ~np.isfinite(gradient)
        told = error <= known * np.maximum(np.abs(differences), np.abs(gradient))
    return GradientCheck(gradient, differences, error, wrong, ~wrong & ~told & (gradient != differences))


def _difference(
    objective: PythonObjective, x: NDArray[Any], f: float, i: int, factor: float, room: tuple[float, float]
) -> tuple[float, float]:
    """Return a difference by element i and its expected error, for `factor` times the usual step.

    It is central, or of the same order to one side where there is no `room` below or above.
    """
    h = factor * np.cbrt(objective.eps) * (abs(float(x[i])) or 1.0)
    central = 2.0 * h <= min(room)
    if not central:
        h = min(h, max(room) / 4.0) * (1.0 if room[1] >= room[0] else -1.0)
    slopes, largest = [], abs(f)
    for step in (h, 2.0 * h):
        points = np.array([x, x])
        points[:, i] += (-step, step) if central else (step, 2.0 * step)
        values = [objective.value(point) for point in points]
        slopes.append(_slope(f, points[:, i].astype(np.float64) - np.float64(x[i]), values, central=central))
        largest = max(largest, *map(abs, values))
    error = abs(slopes[1] - slopes[0]) + objective.eps * largest / abs(h)
    return slopes[0], error if np.isfinite(error) else np.inf


def _slope(f: float, steps: NDArray[np.float64], values: list[float], *, central: bool) -> float:
    """Return the slope of the line through two points around x, or at x of the parabola through it and them."""
    near, far = steps
    if central:
        return float((values[1] - values[0]) / (far - near))
    return float(((values[0] - f) * far / near - (values[1] - f) * near / far) / (far - near))


def _decided(slopes: Iterable[tuple[float, float]], gradient: float, rtol: float, known: float) -> tuple[float, float]:
    """Return the first difference that is known well and agrees with the gradient, or else the most precise one."""
    best = np.nan, np.inf
    for slope, error in slopes:
        is_known = error <= known * max(abs(slope), abs(gradient))
        if (is_known or slope == gradient) and abs(slope - gradient) <= CERTAIN * error + rtol * abs(slope):
            return slope, error
        if error < best[1]:
            best = slope, error
    return best
