"""Real data included in the package: problems with certified answers, and two classification tasks.

Nothing is downloaded. Sources and licences are in ``data/README.md``, beside the files.
"""

from __future__ import annotations

import gzip
import re
from importlib.resources import files
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rmsprop_nb._core.names_elsewhere import explain_keywords

__all__ = ["NIST_NAMES", "NistProblem", "load_breast_cancer", "load_digits", "load_nist"]


def __dir__() -> list[str]:
    return sorted(__all__)


NIST_NAMES: tuple[str, ...] = (
    *("Misra1a", "Chwirut2", "Chwirut1", "Lanczos3", "Gauss1", "Gauss2", "DanWood", "Misra1b"),  # lower difficulty
    *("Kirby2", "Hahn1", "Nelson", "MGH17", "Lanczos1", "Lanczos2", "Gauss3", "Misra1c"),  # average
    *("Misra1d", "Roszman1", "ENSO"),
    *("MGH09", "Thurber", "BoxBOD", "Rat42", "MGH10", "Eckerle4", "Rat43", "Bennett5"),  # higher
)
"""Names that `load_nist` accepts: all of NIST's nonlinear regressions, in NIST's order of difficulty."""

# "  b1 =   500         250           2.3894212918E+02  2.7070075241E+00"
_PARAMETER_ROW = re.compile(r"^ *b\d+ *= +(\S+) +(\S+) +(\S+) +(\S+) *$", re.MULTILINE)
_NUMBER = r" *([-+.\dE]+)"


class NistProblem(NamedTuple):
    """A nonlinear regression problem of the NIST Statistical Reference Datasets.

    The task is to find the parameters b that minimize the residual sum of squares of `model` over the points.

    Attributes
    ----------
    name : str
        NIST's name for the data set.
    model : str
        Formula as NIST prints it; the e at the end is the error.
    difficulty : str
        ``"lower"``, ``"average"`` or ``"higher"``.
    x : ndarray of float64, shape (n_points,) or (2, n_points)
        Predictor. Nelson has two, a row for each.
    y : ndarray of float64, shape (n_points,)
        Response: what stands on the left of `model`, which for Nelson is the logarithm of the data.
    start1, start2 : ndarray of float64, shape (n_parameters,)
        NIST's two starting points: one far from the solution, one closer to it.
    certified : ndarray of float64, shape (n_parameters,)
        The least-squares parameters, correct to 11 digits.
    certified_sd : ndarray of float64, shape (n_parameters,)
        Their standard deviations.
    certified_rss : float
        The residual sum of squares at `certified`.
    """

    name: str
    model: str
    difficulty: str
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    start1: NDArray[np.float64]
    start2: NDArray[np.float64]
    certified: NDArray[np.float64]
    certified_sd: NDArray[np.float64]
    certified_rss: float


@explain_keywords()
def load_nist(name: str) -> NistProblem:
    """Read a nonlinear regression problem with certified parameters.

    Parameters
    ----------
    name : str
        One of `NIST_NAMES`.

    Returns
    -------
    problem : NistProblem
        Points, starting values and certified results; the caller may change the arrays.

    Raises
    ------
    ValueError
        If there is no problem with that name.

    References
    ----------
    NIST/ITL StRD, Nonlinear Regression, https://www.itl.nist.gov/div898/strd/nls/nls_main.shtml

    Examples
    --------
    >>> from rmsprop_nb.datasets import load_nist
    >>> problem = load_nist("Misra1a")
    >>> problem.model
    'y = b1*(1-exp[-b2*x]) + e'
    >>> problem.x.shape, problem.start1.tolist(), problem.certified_rss
    ((14,), [500.0, 0.0001], 0.12455138894)
    """
    if name not in NIST_NAMES:
        msg = f"name must be one of {', '.join(NIST_NAMES)}, got {name!r}."
        raise ValueError(msg)
    return _parse_nist(_read(f"{name}.dat"))


def load_breast_cancer() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Read the Breast Cancer Wisconsin (Diagnostic) data: 569 tumours, 30 measurements each.

    The columns differ in scale by up to five orders of magnitude and are returned as measured; standardize them for a
    well-scaled problem.

    Returns
    -------
    X : ndarray of float64, shape (569, 30)
        Measurements of the cell nuclei.
    y : ndarray of float64, shape (569,)
        1 for a benign tumour, 0 for a malignant one.

    References
    ----------
    W. Wolberg, O. Mangasarian, N. Street, W. Street, "Breast Cancer Wisconsin (Diagnostic)", UCI Machine Learning
    Repository, 1993, https://doi.org/10.24432/C5DW2B. CC BY 4.0.

    Examples
    --------
    >>> from rmsprop_nb.datasets import load_breast_cancer
    >>> X, y = load_breast_cancer()
    >>> X.shape, int(y.sum())
    ((569, 30), 357)
    """
    rows = np.loadtxt(_read("breast_cancer.csv").splitlines(), delimiter=",", skiprows=1)
    return np.ascontiguousarray(rows[:, :-1]), rows[:, -1].copy()


def load_digits() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Read images of handwritten digits.

    Returns
    -------
    X : ndarray of float64, shape (1797, 64)
        Images of 8 x 8 pixels, row by row; values from 0 to 1, in sixteenths.
    y : ndarray of int64, shape (1797,)
        The digits.

    References
    ----------
    E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998,
    https://doi.org/10.24432/C50P49. CC BY 4.0.

    Examples
    --------
    >>> from rmsprop_nb.datasets import load_digits
    >>> X, y = load_digits()
    >>> X.shape, y[:5]
    ((1797, 64), array([0, 1, 2, 3, 4]))
    """
    packed = files("rmsprop_nb").joinpath("data", "digits.csv.gz").read_bytes()
    rows = np.loadtxt(gzip.decompress(packed).decode("ascii").splitlines(), delimiter=",")
    return rows[:, :-1] / 16.0, rows[:, -1].astype(np.int64)


def _read(file: str) -> str:
    return files("rmsprop_nb").joinpath("data", file).read_text(encoding="ascii")


def _parse_nist(text: str) -> NistProblem:
    """Parse a file by its words, not by its line numbers; check the counts that it states."""
    header, _, points = text.rpartition("Data:")
    table = np.array(_PARAMETER_ROW.findall(header), dtype=np.float64)
    predictors = int(_find(r"^\s+(\d+) Predictor", header))
    row = rf"^{_NUMBER}{rf' {_NUMBER}' * predictors} *$"
    data = np.array(re.findall(row, points, re.MULTILINE), dtype=np.float64)
    # Roszman1 defines pi first, and ENSO's formula takes three lines
    model = " ".join(_find(r"^\s+((?:y|log\[y\])\s+=.*?\+\s*e)\s*$", header).split())
    name = _find(r"Dataset Name:\s+(\S+)", header)
    _check_count(name, "parameters", len(table), int(_find(r"^\s+(\d+) Parameters", header)))
    _check_count(name, "points", len(data), int(_find(r"Number of Observations:\s+(\d+)", header)))
    return NistProblem(
        name=name,
        model=model,
        difficulty=_find(r"(Lower|Average|Higher) Level of Difficulty", header).lower(),
        x=data[:, 1].copy() if predictors == 1 else data[:, 1:].T.copy(),
        y=np.log(data[:, 0]) if model.startswith("log[y]") else data[:, 0].copy(),
        start1=table[:, 0].copy(),
        start2=table[:, 1].copy(),
        certified=table[:, 2].copy(),
        certified_sd=table[:, 3].copy(),
        certified_rss=float(_find(r"Residual Sum of Squares:\s+(\S+)", header)),
    )


def _find(pattern: str, text: str) -> str:
    match = re.search(pattern, text, re.MULTILINE | re.DOTALL)
    if match is None:
        msg = f"A NIST data file must have text that matches {pattern!r}, got none; reinstall rmsprop_nb."
        raise ValueError(msg)
    return match[1]


def _check_count(name: str, what: str, found: int, stated: int) -> None:
    if found != stated:
        msg = f"{name}.dat must have the {stated} {what} that it states, got {found}; reinstall rmsprop_nb."
        raise ValueError(msg)
