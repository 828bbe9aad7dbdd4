"""Gradients by differences and complex steps, as runs of the textbook rule take them. ratios.py divides by SciPy's."""

from __future__ import annotations

from numba import njit

from benchmarks._problems import limited, rosen
from benchmarks.loop import nanoseconds_per_evaluation

FORMS = ("2-point", "3-point", "cs")

compiled_rosen = njit(rosen)


def called_from_python(x, steepness):
    return compiled_rosen(x, steepness)


OBJECTIVES = {"compiled": compiled_rosen, "interpreted": called_from_python}


def run_by_differences(loop, form, n):
    """Return ``run(count)`` in the compiled or the interpreted loop, warmed up; the objective is compiled in both."""
    run = limited("textbook", n, OBJECTIVES[loop], form)
    run(2)
    return run


def calls_per_evaluation(form, n):
    """Return how many times the objective is called for its value and its gradient."""
    return 1 + n * (2 if form == "3-point" else 1)


class Evaluation:
    """An evaluation with its gradient. Floor: n + 1 (2-point, cs) or 2*n + 1 (3-point) calls of the objective."""

    params = (tuple(OBJECTIVES), FORMS, (2, 10, 100))
    param_names = ("loop", "form", "n")

    def setup(self, loop, form, n):
        self.run = run_by_differences(loop, form, n)
        self.count = 10_000 // n if loop == "compiled" else 100

    def track_evaluation(self, loop, form, n):
        return nanoseconds_per_evaluation(self.run, self.count)

    track_evaluation.unit = "ns/evaluation"
