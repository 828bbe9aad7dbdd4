"""The demo: real data with certified answers, and SciPy beside this package.

Every number is computed while it runs. No times are shown: the first run on a machine compiles, the next ones do not.
"""

from __future__ import annotations

import functools
import textwrap
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import scipy.optimize
from numpy.typing import NDArray

from rmsprop_nb._api.minimize import minimize
from rmsprop_nb._cli.models import logistic_loss
from rmsprop_nb._cli.nist import DIGITS, REASONS, SCIPYS_MAXFEV, Fit, fit_nist, fit_nist_with_scipy
from rmsprop_nb._core.status import Status
from rmsprop_nb._numba.decorators import kernel_jit
from rmsprop_nb.datasets import NIST_NAMES, load_breast_cancer, load_nist

HARD = ("BoxBOD", "MGH10")
# The others are solved from each of 100 starts that differ from NIST's start 1 by rounding, and so probably on other
# processors too.
EXPECTED = tuple(name for name in NIST_NAMES if name not in HARD)
QUICK_SETS = ("Misra1a", "ENSO", "Thurber")
DEFAULT_SETS = ("Misra1a", "Lanczos3", "Hahn1", "MGH17", "ENSO", "Thurber", "BoxBOD", "MGH10", "Bennett5")

MAXFEV = 3000  # for the logistic regression, as what follows
L2 = 1e-3
GTOL = 1e-6
TEXTBOOK = {"learning_rate": 0.01, "momentum": 0.9, "maxiter": 500}

WIDTH = 80

say = functools.partial(print, flush=True)


# -- nonlinear regression ---------------------------------------------------------------------------------------------


def _show_nist(names: Iterable[str]) -> dict[str, tuple[Fit, Fit]]:
    """Fit the sets and print the results, one after another."""
    say(f"""\
rmsprop_nb and SciPy. The first run on a machine also compiles.

NONLINEAR REGRESSION: NIST Statistical Reference Datasets, from NIST's far start

Both methods are given the model alone. rmsprop_nb.fit makes exact derivatives
of it; MINPACK, called through scipy.optimize.curve_fit with ftol and xtol of
1e-10 and at most {SCIPYS_MAXFEV} evaluations, takes differences.
* digits: correct digits of the worst parameter and of the worst standard
  deviation (sd), compared with NIST's certified values. A set is solved with {DIGITS}
  digits of every parameter.
* excess: of the residual sum of squares, relative; around 1e-11 it is rounding.
* evaluations: of the model at all points. One of rmsprop_nb gives derivatives
  too; MINPACK's differences take one for each parameter.

                             digits       excess evalua-
                         parameter   sd           tions  ended because""")
    fits = {}
    for name in names:
        problem = load_nist(name)
        hard = "; known to be hard for rmsprop_nb" if name in HARD else ""
        say(f"{name}: {problem.start1.size} parameters, {problem.difficulty} difficulty{hard}")
        fits[name] = fit_nist(name), fit_nist_with_scipy(name)
        for one in fits[name]:
            say(_nist_row(one))
    say(f"\n{_summarize_nist(fits)}")
    return fits


def _nist_row(one: Fit) -> str:
    outcome = "solved" if one.solved else "not reached"
    row = (
        f"  {one.method:10} {outcome:11} {one.digits:9.1f} {one.sd_digits:4.1f} {one.excess:7.0e}"
        f" {one.evaluations or '-':>6}  "
    )
    return row + textwrap.shorten(one.ended, WIDTH - len(row), placeholder="...")


def _summarize_nist(fits: dict[str, tuple[Fit, Fit]]) -> str:
    """Say which method solved which sets."""
    groups: dict[str, list[str]] = {"neither": [], "only MINPACK": [], "only rmsprop_nb": [], "both": []}
    for name, (ours, theirs) in fits.items():
        groups[list(groups)[2 * ours.solved + theirs.solved]].append(name)
    parts = [f"{len(groups.pop('both'))} of {len(fits)} by both methods"]
    parts += [f"{group}: {', '.join(names)}" for group, names in reversed(groups.items()) if names]
    return textwrap.fill(f"Solved {'; '.join(parts)}.", WIDTH)


# -- logistic regression ----------------------------------------------------------------------------------------------


class Run(NamedTuple):
    """The outcome of one method: the point, with f and the max-norm of the gradient there."""

    method: str
    x: NDArray[np.float64]
    f: float
    gradient: float
    evaluations: int
    ended: str


def _rmsprop(label: str, fun: Any, x0: NDArray[Any], args: tuple[Any, ...], **options: Any) -> Run:
    """Minimize with this package."""
    with np.errstate(all="ignore"):  # interpreted objectives (NUMBA_DISABLE_JIT) warn when they overflow
        result = minimize(fun, x0, args, jac="inplace", options=options)
    status = Status(result.status)
    if status is Status.INTERRUPTED:  # minimize returns its best point, but here the whole demo must end
        raise KeyboardInterrupt
    return _as_run(label, result, REASONS.get(status, status.name.lower()))


def _lbfgsb(fun: Any, x0: NDArray[Any], args: tuple[Any, ...], gtol: float) -> Run:
    """Minimize with SciPy, without the default ftol, which makes it stop early."""

    def value_and_gradient(x: NDArray[Any]) -> tuple[float, NDArray[Any]]:
        grad = np.empty_like(x)
        return fun(x, grad, *args), grad

    options = {"ftol": 0.0, "gtol": gtol, "maxfun": MAXFEV, "maxiter": MAXFEV}
    with np.errstate(all="ignore"):
        result = scipy.optimize.minimize(value_and_gradient, x0, jac=True, method="L-BFGS-B", options=options)
    statuses = {0: Status.GTOL if "GRADIENT" in result.message else Status.STALLED, 1: Status.MAXFEV}
    return _as_run("L-BFGS-B", result, REASONS[statuses.get(result.status, Status.PRECISION_LOSS)])


def _as_run(label: str, result: Any, ended: str) -> Run:
    gradient = float(np.max(np.abs(result.jac)))
    return Run(label, np.asarray(result.x), float(result.fun), gradient, int(result.nfev), ended)


@functools.cache
def _classification() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    X, y = load_breast_cancer()
    return (X - X.mean(axis=0)) / X.std(axis=0), y


def fit_logistic() -> tuple[Run, Run, Run]:
    """Fit the classifier with rmsprop, with the textbook rule and with L-BFGS-B."""
    X, y = _classification()
    fun, start, args = kernel_jit("demo logistic")(logistic_loss), np.zeros(X.shape[1] + 1), (X, y, L2)
    return (
        _rmsprop("rmsprop, auto", fun, start, args, gtol=GTOL, maxfev=MAXFEV),
        _rmsprop("rmsprop, textbook", fun, start, args, gtol=GTOL, **TEXTBOOK),
        _lbfgsb(fun, start, args, gtol=GTOL),
    )


def draw_logistic(path: str) -> None:
    """Save a picture of how rmsprop, the textbook rule and rmsprop-lbfgs converge to the classifier."""
    from matplotlib.figure import Figure

    from rmsprop_nb.plotting import plot_convergence

    X, y = _classification()
    fun, start, args = kernel_jit("demo logistic")(logistic_loss), np.zeros(X.shape[1] + 1), (X, y, L2)
    choices: dict[str, tuple[str, dict[str, Any]]] = {
        "rmsprop, auto": ("rmsprop", {"maxfev": MAXFEV}),
        "rmsprop, textbook": ("rmsprop", TEXTBOOK),
        "rmsprop-lbfgs": ("rmsprop-lbfgs", {"maxfev": MAXFEV}),
    }
    runs = {
        name: minimize(fun, start, args, method, "inplace", options={"gtol": GTOL, "history": True, **options})
        for name, (method, options) in choices.items()
    }
    figure = Figure(figsize=(7.0, 4.0), layout="constrained")
    plot_convergence(runs, ax=figure.subplots())
    figure.savefig(path)


def accuracy(w: NDArray[Any]) -> float:
    """Return the fraction of the points that the weights `w` classify correctly."""
    X, y = _classification()
    return float(np.mean((X @ w[:-1] + w[-1] > 0.0) == (y > 0.5)))


def _show_logistic() -> tuple[Run, Run, Run]:
    """Fit the classifier and print the results."""
    n_points, n_features = _classification()[0].shape
    rule = ", ".join(f"{name}={value:g}" for name, value in TEXTBOOK.items())
    say(f"""
LOGISTIC REGRESSION: breast cancer, {n_points} tumours, {n_features} standardized measurements

Mean loss + {L2:g}/2*|w|^2 from w = 0, until the gradient's max-norm <= {GTOL:g}.
* auto: learning_rate="auto", the default
* textbook: {rule}

                           loss gradient evaluations accuracy  ended because""")
    runs = fit_logistic()
    for run in runs:
        share = accuracy(run.x)
        say(f"  {run.method:17} {run.f:11.9f} {run.gradient:8.1e} {run.evaluations:11} {share:8.1%}  {run.ended}")
    return runs


# -- the whole demo ---------------------------------------------------------------------------------------------------


def run_demo(names: Iterable[str]) -> bool:
    """Print the demo for these NIST sets; return whether everything that should be solved was."""
    fits = _show_nist(names)
    auto, textbook, _ = _show_logistic()
    # a wrong answer is a failure anywhere; that a fit ends without one is no failure where it is hard
    failed = [name for name, (ours, _) in fits.items() if not ours.solved and (ours.success or name in EXPECTED)]
    if not auto.gradient <= GTOL:
        failed.append("logistic regression")
    if failed:
        say(f"\nNOT REACHED by rmsprop_nb, though it should have been: {', '.join(failed)}.")
        return False
    solved = sum(ours.solved for ours, _ in fits.values())
    say(f"\n{_conclusion(solved, len(fits), auto, textbook)}")
    return True


def _conclusion(solved: int, total: int, auto: Run, textbook: Run) -> str:
    unsolved = "" if solved == total else ", and said of the others that it had failed"
    text = (
        f"What was shown: given nothing but models, rmsprop_nb.fit reached NIST's certified parameters in {solved} of "
        f"{total} fits{unsolved}. Without a learning rate to tune, rmsprop reduced the classifier's gradient to "
        f"{auto.gradient:.0e}; a fixed learning rate left it at {textbook.gradient:.0e}. Where L-BFGS is the better "
        "choice: on smooth objectives with exact gradients, such as the classifier's, it usually needs fewer "
        'evaluations; method="rmsprop-lbfgs" is L-BFGS with RMSprop\'s scaling.'
    )
    return textwrap.fill(text, WIDTH)
