"""How many evaluations a solution takes. The numbers are the same on every machine, up to rounding."""

from __future__ import annotations

import math

import numpy as np
import scipy.optimize

from rmsprop_nb import minimize
from rmsprop_nb.testing import PROBLEMS

METHODS = ("rmsprop", "rmsprop-lbfgs", "scipy L-BFGS-B")

# Written out, because asv would mix up results if the parameters depended on the commit.
NAMES = (
    "rosenbrock_2",
    "rosenbrock_10",
    "rosenbrock_100",
    "beale",
    "himmelblau",
    "booth",
    "matyas",
    "styblinski_tang_2",
    "styblinski_tang_10",
    "three_hump_camel",
    "powell_singular",
    "wood",
    "freudenstein_roth",
    "helical_valley",
    "brown_badly_scaled",
    "scaled_quadratic_10",
)

GTOL = 1e-6
MAXFEV = 20_000


def solve(method, fun, x0, jac, maxfev=MAXFEV):
    """Run until the gradient is below GTOL; SciPy's other test, on f, is switched off."""
    with np.errstate(all="ignore"):
        if method.startswith("scipy"):
            options = {"gtol": GTOL, "ftol": 0.0, "maxiter": maxfev, "maxfun": maxfev, "maxcor": 10}
            return scipy.optimize.minimize(fun, x0, jac=jac, method="L-BFGS-B", options=options)
        options = {"gtol": GTOL, "maxiter": math.inf, "maxfev": maxfev}
        return minimize(fun, x0, jac=jac, method=method, options=options)


def is_lowest(f, lowest, first):
    """Say whether f is the known minimum, as far as its size and that of the first value allow."""
    return bool(f - lowest <= 1e-6 * max(1.0, abs(lowest), 1e-6 * abs(first)))


class Problems:
    """Floor: none is known; L-BFGS-B without its early stop serves as a comparison."""

    params = (METHODS, NAMES)
    param_names = ("method", "problem")

    def setup(self, method, name):
        problems = {problem.name: problem for problem in PROBLEMS}
        if name not in problems:
            raise NotImplementedError
        self.problem = problems[name]

    def track_evaluations(self, method, name):
        """Count evaluations of f with its gradient; NaN if the minimum was not found."""
        p = self.problem
        result = solve(method, p.fun, p.x0, p.jac)
        return result.nfev if is_lowest(result.fun, p.fmin, p.fun(np.array(p.x0))) else math.nan

    track_evaluations.unit = "evaluations"


class Solved:
    """Percentage of all problems left unsolved: lower is better, as everywhere in this suite."""

    params = (METHODS,)
    param_names = ("method",)

    def track_unsolved(self, method):
        found = [
            is_lowest(solve(method, p.fun, p.x0, p.jac).fun, p.fmin, p.fun(np.array(p.x0)))
            for p in PROBLEMS
            if p.name in NAMES
        ]
        return 100.0 * found.count(False) / len(found)

    track_unsolved.unit = "% unsolved"


class MoreWild:
    """Problems of J. More and S. Wild, SIAM J. Optim. 20 (2009), from optimagic; gradients by differences.

    A problem is solved if f falls by all but 1e-5 of the way to the best known value, their test with tau = 1e-5.
    """

    params = (METHODS,)
    param_names = ("method",)
    timeout = 600

    def setup(self, method):
        try:
            from optimagic.benchmarking.get_benchmark_problems import get_benchmark_problems
        except ImportError:
            raise NotImplementedError from None
        self.problems = list(get_benchmark_problems("more_wild").values())

    def track_unsolved(self, method):
        return 100.0 * sum(not self.lowers(method, problem) for problem in self.problems) / len(self.problems)

    track_unsolved.unit = "% unsolved"

    @staticmethod
    def lowers(method, problem):
        residuals, x0 = problem["noise_free_fun"], np.asarray(problem["inputs"]["params"], dtype=float)

        def fun(x):
            value = residuals(x)
            return float(getattr(value, "value", np.dot(value, value) if np.ndim(value) else value))

        lowest = float(problem["solution"]["value"])
        best = solve(method, fun, x0, "3-point", maxfev=5000).fun
        return fun(x0) - best >= (1.0 - 1e-5) * (fun(x0) - lowest)
