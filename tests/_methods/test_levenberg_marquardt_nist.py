"""Fits of all 27 nonlinear regressions of NIST from both starts, by the models alone, against the certified results."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
from marks import some

from rmsprop_nb import Status, fit
from rmsprop_nb._cli.models import nist_model
from rmsprop_nb._numba.decorators import JIT_ENABLED
from rmsprop_nb.datasets import NIST_NAMES, load_nist

pytestmark = pytest.mark.slow

CASES = [(name, start) for name in NIST_NAMES for start in ("start1", "start2")]
# BoxBOD's start 1 leads to a plateau, where chi2 depends on b1 alone; MGH10's to a valley that takes 6000 evaluations.
UNSOLVED = {("BoxBOD", "start1"): Status.PRECISION_LOSS, ("MGH10", "start1"): Status.MAXFEV}
SOLVED = [case for case in CASES if case not in UNSOLVED]
NEED_EXACT_DERIVATIVES = [("BoxBOD", "start1"), ("MGH17", "start1")]  # interpreted models have differences

each_solved = pytest.mark.parametrize(("name", "start"), some(SOLVED, 5), ids=["-".join(case) for case in SOLVED])


@functools.cache
def fitted(name: str, start: str) -> Any:
    if not JIT_ENABLED and (name, start) in NEED_EXACT_DERIVATIVES:
        pytest.skip("differences lead elsewhere")
    problem = load_nist(name)
    with np.errstate(all="ignore"):  # interpreted models (NUMBA_DISABLE_JIT) warn when they overflow
        return fit(nist_model(name), problem.x, problem.y, p0=getattr(problem, start))


def test_all_but_two_are_there() -> None:
    assert (len(CASES), len(SOLVED)) == (54, 52)


@each_solved
def test_parameters_have_four_digits(name: str, start: str) -> None:
    result = fitted(name, start)
    assert result.success
    np.testing.assert_allclose(result.popt, load_nist(name).certified, rtol=1e-4)


@each_solved
def test_residual_sum_is_certified(name: str, start: str) -> None:
    if name == "Lanczos1":  # the data are the model, rounded to 14 digits: what is left is rounding
        assert fitted(name, start).chi2 < 1e-24
    else:
        assert fitted(name, start).chi2 == pytest.approx(load_nist(name).certified_rss, rel=1e-6)


@each_solved
def test_standard_deviations_have_four_digits(name: str, start: str) -> None:
    problem, result = load_nist(name), fitted(name, start)
    assert result.dof == problem.y.size - problem.certified.size
    if name == "Lanczos1":  # they are multiples of the square root of its residual sum; see above
        result = result | {"perr": result.perr * np.sqrt(problem.certified_rss / result.chi2)}
    np.testing.assert_allclose(result["perr"], problem.certified_sd, rtol=1e-4)


@pytest.mark.parametrize(("name", "start"), UNSOLVED)
def test_fits_that_fail_say_so(name: str, start: str) -> None:
    result = fitted(name, start)
    assert not result.success
    assert result.status == UNSOLVED[name, start]
    assert np.isinf(result.pcov).all()
    assert result.chi2 > 2.0 * load_nist(name).certified_rss


def test_with_patience_the_valley_of_mgh10_leads_to_the_certified_parameters() -> None:
    problem = load_nist("MGH10")
    result = fit(nist_model("MGH10"), problem.x, problem.y, p0=problem.start1, options={"maxfev": 20_000})
    assert result.success
    np.testing.assert_allclose(result.popt, problem.certified, rtol=1e-4)
