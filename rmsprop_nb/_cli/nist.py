"""Fits of NIST's data sets with this package and with SciPy, compared with the certified results."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import scipy.optimize
from numpy.typing import NDArray

from rmsprop_nb._api.fit import fit
from rmsprop_nb._cli.models import nist_model
from rmsprop_nb._core.status import Status
from rmsprop_nb.datasets import NIST_NAMES, load_nist

DIGITS = 4  # correct digits with which a set counts as solved
MOST_DIGITS = 11  # as many as NIST certifies
SCIPYS_MAXFEV = 20_000  # for curve_fit: its own limit is too small for some sets
TIGHT = {"ftol": 1e-10, "xtol": 1e-10}  # for curve_fit: its own tolerances leave fewer digits than fit's ftol of 1e-10

REASONS = {
    Status.GTOL: "gradient <= gtol",
    Status.FTOL: "chi2 falls no further",
    Status.XTOL: "b changes no further",
    Status.ROUNDING: "as far as rounding allows",
    Status.STALLED: "f falls no further",
    Status.PRECISION_LOSS: "no further progress",
    Status.MAXFEV: "out of evaluations",
    Status.MAXITER: "out of iterations",
}
_CODES = {
    "lm": {1: Status.FTOL, 2: Status.XTOL, 3: Status.FTOL, 4: Status.GTOL},
    "trf": {1: Status.GTOL, 2: Status.FTOL, 3: Status.XTOL, 4: Status.FTOL},
}


class Fit(NamedTuple):
    """The outcome of one method on a NIST set, compared with the certified results."""

    method: str
    b: NDArray[np.float64]
    sd: NDArray[np.float64]
    digits: float  # agreement of the worst parameter
    sd_digits: float  # agreement of the worst standard deviation
    evaluations: int  # 0 where the method does not tell
    success: bool  # what the method says of itself
    ended: str

    @property
    def solved(self) -> bool:
        """Whether enough digits agree."""
        return self.digits >= DIGITS


def fit_nist(name: str, start: str = "start1") -> Fit:
    """Fit a set with this package, from NIST's start 1 or 2."""
    problem = load_nist(name)
    with np.errstate(all="ignore"):  # interpreted models (NUMBA_DISABLE_JIT) warn when they overflow
        result = fit(nist_model(name), problem.x, problem.y, p0=getattr(problem, start))
    status = Status(result.status)
    if status is Status.INTERRUPTED:  # fit returns its best point, but here the whole demo must end
        raise KeyboardInterrupt
    ended = REASONS.get(status, status.name.lower())
    return _compared("rmsprop_nb", name, result.popt, result.perr, result.nfev, bool(result.success), ended)


def fit_nist_with_scipy(
    name: str, start: str = "start1", method: str = "lm", tolerances: dict[str, float] = TIGHT
) -> Fit:
    """Fit a set with SciPy's curve_fit, whose method "lm" is MINPACK's, from NIST's start 1 or 2."""
    problem, model = load_nist(name), nist_model(name)
    model = getattr(model, "py_func", model)
    options = tolerances | {"maxfev" if method == "lm" else "max_nfev": SCIPYS_MAXFEV}
    label = "MINPACK" if method == "lm" else method.upper()
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore", scipy.optimize.OptimizeWarning)
            b, covariance, info, _, code = scipy.optimize.curve_fit(
                model, problem.x, problem.y, getattr(problem, start), method=method, full_output=True, **options
            )
    except RuntimeError as error:
        nothing = np.full(problem.certified.size, np.nan)
        ended = f"RuntimeError: {str(error).removeprefix('Optimal parameters not found: ')}"
        return _compared(label, name, nothing, nothing, 0, False, ended)
    ended = REASONS[_CODES[method][code]]
    return _compared(label, name, b, np.sqrt(np.diag(covariance)), int(info["nfev"]), True, ended)


def _compared(label: str, name: str, b: Any, sd: Any, evaluations: int, success: bool, ended: str) -> Fit:
    certified = load_nist(name)
    digits, sd_digits = agreement(b, certified.certified), agreement(sd, certified.certified_sd)
    return Fit(label, b, sd, digits, sd_digits, evaluations, success, ended)


def agreement(b: NDArray[Any], certified: NDArray[Any]) -> float:
    """Count the correct digits of the worst element."""
    error = float(np.max(np.abs(b / certified - 1.0)))
    return -math.log10(max(error, 10.0**-MOST_DIGITS)) if error < 1.0 else 0.0


def show_table(names: Iterable[str] = NIST_NAMES) -> None:
    """Print the table of docs/nist.md: correct digits from both starts."""
    print("| set | start | `fit`: parameters | sd | MINPACK: parameters | sd | TRF: parameters | sd |")
    print("|---|---|---|---|---|---|---|---|")
    solved, by_default = np.zeros(6, int), np.zeros(4, int)
    for name in names:
        for start in ("start1", "start2"):
            fits = fit_nist(name, start), *_fits_with_scipy(name, start, TIGHT)
            digits = [(one.digits, one.sd_digits) if one.success else (math.nan, math.nan) for one in fits]
            cells = np.ravel(digits)
            solved += cells >= DIGITS
            fits_by_default = _fits_with_scipy(name, start, {})
            by_default += [number >= DIGITS for one in fits_by_default for number in (one.digits, one.sd_digits)]
            print(f"| {name} | {start[-1]} | {' | '.join('failed' if np.isnan(d) else f'{d:.1f}' for d in cells)} |")
    print(f"| {DIGITS} digits or more | | {' | '.join(map(str, solved))} |")
    print(f"| the same, SciPy's default tolerances | | | | {' | '.join(map(str, by_default))} |")


def _fits_with_scipy(name: str, start: str, tolerances: dict[str, float]) -> tuple[Fit, Fit]:
    minpack, trf = (fit_nist_with_scipy(name, start, method, tolerances) for method in ("lm", "trf"))
    return minpack, trf
