"""The demo: fits with certified results, many fits in one call, and training, with SciPy beside this package.

Every number is computed while it runs. Times are shown as ratios, of what has been compiled by then.
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
from rmsprop_nb._cli.nist import DIGITS, REASONS, Fit, fit_nist, fit_nist_with_scipy
from rmsprop_nb._cli.relaxation import ECHO_TIMES, SAMPLE, brain_slice, fit_maps, seconds_per_fit
from rmsprop_nb._core.status import Status
from rmsprop_nb._numba.decorators import kernel_jit
from rmsprop_nb.datasets import NIST_NAMES, load_breast_cancer, load_nist

HARD = ("BoxBOD", "MGH10")
# The others are solved from each of 100 starts that differ from NIST's start 1 by rounding, and so probably on other
# processors too.
EXPECTED = tuple(name for name in NIST_NAMES if name not in HARD)
DEFAULT_SETS = ("Misra1a", "BoxBOD", "Lanczos2", "Lanczos3", "Hahn1", "Thurber")  # three models: each is compiled

MAXFEV = 3000  # for the logistic regression, as what follows
L2 = 1e-3
GTOL = 1e-6
TEXTBOOK: dict[str, Any] = {"learning_rate": 0.01, "momentum": 0.9, "maxiter": 500}

WIDTH = 80

say = functools.partial(print, flush=True)


# -- one fit after another --------------------------------------------------------------------------------------------


def _show_nist(names: Iterable[str]) -> dict[str, tuple[Fit, Fit]]:
    """Fit the sets and print the results, one after another."""
    say(f"""\
rmsprop_nb and SciPy. The first run on a machine also compiles.

FITS: NIST's data sets with certified results, from NIST's far start

* n: number of parameters
* digits: correct digits of the worst parameter and of the worst standard error
  (se). A set is solved with {DIGITS} digits of every parameter.
* evals: evaluations of the model at all points. One of rmsprop_nb.fit gives
  exact derivatives, too. SciPy's curve_fit (MINPACK, ftol = xtol = 1e-10) takes
  one more for each parameter.

               rmsprop_nb         MINPACK
             n digits  se  evals  digits  se  evals  rmsprop_nb ended because""")
    fits = {}
    for name in names:
        fits[name] = fit_nist(name), fit_nist_with_scipy(name)
        say(_nist_row(name, *fits[name]))
    say(f"\n{_summarize_nist(fits)}")
    return fits


def _nist_row(name: str, ours: Fit, theirs: Fit) -> str:
    cells = [f"{_digits(one)} {one.evaluations or '-':>6}" for one in (ours, theirs)]
    return f"  {name:9} {load_nist(name).start1.size:2} {'  '.join(cells)}  {ours.ended}"


def _digits(one: Fit) -> str:
    return f"{one.digits:6.1f} {one.sd_digits:4.1f}" if one.success else "failed    -"


def _summarize_nist(fits: dict[str, tuple[Fit, Fit]]) -> str:
    """Say which method solved which sets."""
    groups: dict[str, list[str]] = {"neither": [], "only MINPACK": [], "only rmsprop_nb": [], "both": []}
    for name, (ours, theirs) in fits.items():
        groups[list(groups)[2 * ours.solved + theirs.solved]].append(name)
    parts = [f"{len(groups.pop('both'))} of {len(fits)} by both methods"]
    parts += [f"{group}: {', '.join(names)}" for group, names in reversed(groups.items()) if names]
    return textwrap.fill(f"Solved {'; '.join(parts)}.", WIDTH)


# -- many fits --------------------------------------------------------------------------------------------------------


def _show_batch() -> bool:
    """Fit the pixels of a slice and print how well and how fast; return whether every fit succeeded."""
    truth = brain_slice()
    maps = fit_maps(truth.images)
    inside = truth.tissue >= 0
    off = np.abs(maps.t2star - truth.t2star)[inside]
    fitted, near = np.isfinite(off).sum(), np.mean(off < 2.0 * maps.t2star_error[inside])
    ours, theirs = seconds_per_fit(truth.images)
    say(f"""
MANY FITS: S0*exp(-TE/T2*) in every pixel of a synthetic slice of a brain

{fitted} of {inside.sum()} fits to {ECHO_TIMES.size} noisy points succeeded, in one call; {near:.1%} of the
true T2* are within two standard errors.
* measured: rmsprop_nb, on one thread, with all pixels; a loop over SciPy's
  curve_fit, from the same starts, with {SAMPLE} of them
* a million fits at these rates: the loop takes {theirs / ours:.0f} times as long""")
    return bool(fitted == inside.sum())


# -- training ---------------------------------------------------------------------------------------------------------


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


def training_problem() -> tuple[Any, NDArray[np.float64], tuple[Any, ...]]:
    """Return the loss of the classifier, which fills its gradient, where to start, and its further arguments."""
    X, y = _classification()
    return kernel_jit("demo logistic")(logistic_loss), np.zeros(X.shape[1] + 1), (X, y, L2)


def fit_logistic() -> tuple[Run, Run, Run]:
    """Fit the classifier with rmsprop, with the textbook rule and with L-BFGS-B."""
    problem = training_problem()
    return (
        _rmsprop("rmsprop, auto", *problem, gtol=GTOL, maxfev=MAXFEV),
        _rmsprop("rmsprop, textbook", *problem, gtol=GTOL, **TEXTBOOK),
        _lbfgsb(*problem, gtol=GTOL),
    )


def accuracy(w: NDArray[Any]) -> float:
    """Return the fraction of the points that the weights `w` classify correctly."""
    X, y = _classification()
    return float(np.mean((X @ w[:-1] + w[-1] > 0.0) == (y > 0.5)))


def _show_logistic() -> tuple[Run, Run, Run]:
    """Fit the classifier and print the results."""
    n_points, n_features = _classification()[0].shape
    rule = ", ".join(f"{name}={value:g}" for name, value in TEXTBOOK.items())
    say(f"""
TRAINING: a logistic regression, {n_points} tumours, {n_features} measurements

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
    # a wrong answer is a failure anywhere; that a fit ends without one is no failure where it is hard
    failed = [name for name, (ours, _) in fits.items() if not ours.solved and (ours.success or name in EXPECTED)]
    if not _show_batch():
        failed.append("many fits")
    auto, *_ = _show_logistic()
    if not auto.gradient <= GTOL:
        failed.append("logistic regression")
    if failed:
        say(f"\nNOT REACHED by rmsprop_nb, though it should have been: {', '.join(failed)}.")
    return not failed
