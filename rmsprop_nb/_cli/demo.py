"""The demo: real data with certified answers, and SciPy's L-BFGS-B on the same objectives.

Every number is computed while it runs. No times are shown: the first run on a machine compiles, the next ones do not.
"""

from __future__ import annotations

import functools
import math
import statistics
import textwrap
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import scipy.optimize
from numpy.typing import NDArray

from rmsprop_nb._api.minimize import minimize
from rmsprop_nb._cli.models import logistic_loss, nist_objective
from rmsprop_nb._core.status import Status
from rmsprop_nb._numba.decorators import kernel_jit
from rmsprop_nb.datasets import load_breast_cancer, load_nist

# Solved from each of 100 starts that differ from NIST's start 1 by rounding, and so probably on other processors too.
EXPECTED = ("Misra1a", "Chwirut2", "Gauss1", "DanWood", "Roszman1", "ENSO", "BoxBOD", "Rat43")
QUICK_SETS = ("Misra1a", "ENSO", "Rat43")
DEFAULT_SETS = (*EXPECTED, "Hahn1", "MGH10")

DIGITS = 4  # correct digits with which a set counts as solved
MOST_DIGITS = 11  # as many as NIST certifies
MAXFEV = 3000
PATIENCE = 20  # iterations without a lower f: rmsprop's counterpart of L-BFGS-B's ftol=0

L2 = 1e-3
GTOL = 1e-6  # for the logistic regression
TEXTBOOK = {"learning_rate": 0.01, "momentum": 0.9, "maxiter": 500}

_REASONS = {
    Status.GTOL: "gradient <= gtol",
    Status.STALLED: "f falls no further",
    Status.PRECISION_LOSS: "no further progress",
    Status.MAXFEV: "out of evaluations",
    Status.MAXITER: "out of iterations",
}

WIDTH = 80

say = functools.partial(print, flush=True)


class Run(NamedTuple):
    """The outcome of one method: the point, with f and the max-norm of the gradient there."""

    method: str
    x: NDArray[np.float64]
    f: float
    gradient: float
    evaluations: int
    ended: str


class Fit(NamedTuple):
    """A run on a NIST set, compared with the certified results."""

    run: Run
    digits: float  # agreement of the worst parameter
    excess: float  # of the residual sum of squares, relative
    reached: int  # evaluations until DIGITS digits agreed, 0 if they never did

    @property
    def solved(self) -> bool:
        """Whether enough digits agree."""
        return self.digits >= DIGITS


# -- the two methods --------------------------------------------------------------------------------------------------


def _rmsprop(label: str, fun: Any, x0: NDArray[Any], args: tuple[Any, ...], **options: Any) -> Run:
    """Minimize with this package."""
    with np.errstate(all="ignore"):  # interpreted objectives (NUMBA_DISABLE_JIT) warn when they overflow
        result = minimize(fun, x0, args, jac="inplace", options=options)
    status = Status(result.status)
    if status is Status.INTERRUPTED:  # minimize returns its best point, but here the whole demo must end
        raise KeyboardInterrupt
    return _as_run(label, result, _REASONS.get(status, status.name.lower()))


def _lbfgsb(fun: Any, x0: NDArray[Any], args: tuple[Any, ...], gtol: float) -> Run:
    """Minimize with SciPy, without the default ftol, which makes it stop early."""

    def value_and_gradient(x: NDArray[Any]) -> tuple[float, NDArray[Any]]:
        grad = np.empty_like(x)
        return fun(x, grad, *args), grad

    options = {"ftol": 0.0, "gtol": gtol, "maxfun": MAXFEV, "maxiter": MAXFEV}
    with np.errstate(all="ignore"):
        result = scipy.optimize.minimize(value_and_gradient, x0, jac=True, method="L-BFGS-B", options=options)
    statuses = {0: Status.GTOL if "GRADIENT" in result.message else Status.STALLED, 1: Status.MAXFEV}
    return _as_run("L-BFGS-B", result, _REASONS[statuses.get(result.status, Status.PRECISION_LOSS)])


def _as_run(label: str, result: Any, ended: str) -> Run:
    gradient = float(np.max(np.abs(result.jac)))
    return Run(label, np.asarray(result.x), float(result.fun), gradient, int(result.nfev), ended)


# -- nonlinear regression ---------------------------------------------------------------------------------------------


@functools.cache
def _scaled_objective(name: str) -> Any:
    """Compile the residual sum of squares as a function of u = b/scale.

    Its last two arguments are b, an array for the parameters, and log: the number of evaluations, and the number of the
    first one close to the certified parameters.
    """
    rss = nist_objective(name)
    close = 10.0**-DIGITS

    @kernel_jit("demo", name, DIGITS)
    def scaled(u, grad, scale, x, y, certified, b, log):
        worst = 0.0
        for j in range(u.size):
            b[j] = u[j] * scale[j]
            worst = max(worst, abs(b[j] / certified[j] - 1.0))
        log[0] += 1
        if log[1] == 0 and worst <= close:
            log[1] = log[0]
        f = rss(b, grad, x, y)
        for j in range(u.size):
            grad[j] *= scale[j]
        return f

    return scaled


def fit_nist(name: str) -> tuple[Fit, Fit]:
    """Fit a set from NIST's start 1 with rmsprop and with L-BFGS-B, each until f falls no further."""
    problem = load_nist(name)
    fun, scale, start = _scaled_objective(name), np.abs(problem.start1), np.sign(problem.start1)
    fits = []
    for method in (
        functools.partial(_rmsprop, "rmsprop", gtol=0.0, patience=PATIENCE, maxfev=MAXFEV),
        functools.partial(_lbfgsb, gtol=0.0),
    ):
        log = np.zeros(2, np.int64)
        run = method(fun, start, (scale, problem.x, problem.y, problem.certified, np.empty_like(scale), log))
        excess = run.f / problem.certified_rss - 1.0
        fits.append(Fit(run, agreement(run.x * scale, problem.certified), excess, int(log[1])))
    return fits[0], fits[1]


def agreement(b: NDArray[Any], certified: NDArray[Any]) -> float:
    """Count the correct digits of the worst parameter."""
    error = float(np.max(np.abs(b / certified - 1.0)))
    return min(max(-math.log10(error), 0.0), MOST_DIGITS) if error > 0.0 else float(MOST_DIGITS)


def _show_nist(names: Iterable[str]) -> dict[str, tuple[Fit, Fit]]:
    """Fit the sets and print the results, one after another."""
    say(f"""\
rmsprop_nb and SciPy's L-BFGS-B. The first run on a machine also compiles.

NONLINEAR REGRESSION: NIST Statistical Reference Datasets, from NIST's far start

The residual sum of squares (RSS) is minimized over the parameters divided by
their starts until it falls no further (rmsprop: for {PATIENCE} iterations), with at
most {MAXFEV} evaluations. An evaluation gives the RSS and its gradient; both
methods call the same function.
* digits: correct digits of the worst parameter, compared with NIST's certified
  value. With {DIGITS} a set is solved.
* excess: (RSS - certified RSS)/certified RSS; around 1e-11 it is rounding.
* gradient: max-norm at the end. If it is small where a set was not reached, the
  run ended at a local minimum or on a plateau.
* evaluations: until {DIGITS} digits were correct, and until the end.

                        digits excess gradient evaluations  ended because
                                               to {DIGITS}    end""")
    fits = {}
    for name in names:
        problem = load_nist(name)
        hard = "" if name in EXPECTED else "; known to be hard for rmsprop"
        say(f"{name}: {problem.start1.size} parameters, {problem.difficulty} difficulty{hard}")
        fits[name] = fit_nist(name)
        for fit in fits[name]:
            say(_nist_row(fit))
    say(f"\n{_summarize_nist(fits)}")
    return fits


def _nist_row(fit: Fit) -> str:
    run, outcome = fit.run, "solved" if fit.solved else "not reached"
    return (
        f"  {run.method:9} {outcome:11} {fit.digits:6.1f} {fit.excess:6.0e} {run.gradient:8.0e}"
        f" {fit.reached or '-':>5} {run.evaluations:6}  {run.ended}"
    )


def _summarize_nist(fits: dict[str, tuple[Fit, Fit]]) -> str:
    """Say which method solved which sets, and how the numbers of evaluations compare."""
    groups: dict[str, list[str]] = {"neither": [], "only L-BFGS-B": [], "only rmsprop": [], "both": []}
    for name, (ours, theirs) in fits.items():
        groups[list(groups)[2 * ours.solved + theirs.solved]].append(name)
    both = [fits[name] for name in groups.pop("both")]
    parts = [f"{len(both)} of {len(fits)} by both methods"]
    parts += [f"{group}: {', '.join(names)}" for group, names in reversed(groups.items()) if names]
    text = f"Solved {'; '.join(parts)}."
    if both:
        ratio = statistics.median(ours.reached / theirs.reached for ours, theirs in both)
        text += f" Evaluations to {DIGITS} digits on sets solved by both, rmsprop / L-BFGS-B: {ratio:.1f} (median)."
    return textwrap.fill(text, WIDTH)


# -- logistic regression ----------------------------------------------------------------------------------------------


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
    failed = [name for name, (ours, _) in fits.items() if name in EXPECTED and not ours.solved]
    if not auto.gradient <= GTOL:
        failed.append("logistic regression")
    if failed:
        say(f"\nNOT REACHED by rmsprop, though it should have been: {', '.join(failed)}.")
        return False
    solved = sum(ours.solved for ours, _ in fits.values())
    say(f"\n{_conclusion(solved, len(fits), auto, textbook)}")
    return True


def _conclusion(solved: int, total: int, auto: Run, textbook: Run) -> str:
    text = (
        f"What was shown: without a learning rate to tune, rmsprop reached NIST's certified parameters in {solved} of "
        f"{total} fits, and reduced the classifier's gradient to {auto.gradient:.0e}; a fixed learning rate left it at "
        f"{textbook.gradient:.0e}. Where L-BFGS is the better choice: on smooth objectives with exact gradients, such "
        'as all of these, it usually needs fewer evaluations; method="rmsprop-lbfgs" is L-BFGS with RMSprop\'s scaling.'
    )
    return textwrap.fill(text, WIDTH)
