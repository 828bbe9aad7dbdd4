"""Objectives examined for a device that is not there."""

from __future__ import annotations

import math
import re
import types
from pathlib import Path

import numpy as np
import pytest
from marks import some
from numba import njit
from offline_compiler import ARCHITECTURES

from rmsprop_nb import cuda
from rmsprop_nb._cuda import objective

pytestmark = pytest.mark.thorough

T = np.linspace(0.0, 4.0, 20)
Y = np.ones((1, 20))


def misfit(p, t, y):
    f = p[0] - p[0]
    for i in range(t.size):
        f += (p[0] * math.exp(-p[1] * t[i]) - y[i]) ** 2
    return f


@njit
def with_half(p, grad, t, y):
    f = p[0] - p[0]
    for i in range(t.size):
        r = p[0] - y[i]
        f += 0.5 * r * r
        grad[1 - 1] = r * t[i]
    return f


def checked(fun, dtype=np.float32, n=2, **how):
    return cuda.check(fun, np.ones(n, dtype), (T.astype(dtype),), batch_args=(Y.astype(dtype),), **how)


@pytest.mark.parametrize("method", some(["rmsprop-lbfgs", "rmsprop"], 2, rest=pytest.mark.exhaustive))
def test_what_a_kernel_takes(method):
    report = checked(misfit, method=method)
    assert report.capability in ARCHITECTURES
    assert 32 < report.registers <= 255
    assert report.spilled_bytes == report.float64_instructions == 0
    assert str(report.registers) in str(report)
    assert checked(misfit, np.float64, method=method).float64_instructions > 20


def test_the_example_of_the_page(capsys):
    text = (Path(__file__).resolve().parents[2] / "docs" / "cuda.md").read_text(encoding="utf-8")
    pattern = r"^```py\n(def misfit_alone.*?)^fits = .*?^```py\n(.*?)^```$.*?^```text\n(.*?)^```$"
    function, call, printed = re.search(pattern, text, re.MULTILINE | re.DOTALL).groups()
    exec(function + call, {"np": np, "math": math, "t": T, "curves": np.ones((3, 20))})  # noqa: S102
    assert capsys.readouterr().out.splitlines()[1] == printed.splitlines()[1]


@pytest.mark.exhaustive
def test_many_variables_are_in_columns():
    report = checked(lambda p, g, t, y: g[0], np.float64, n=40, jac="inplace", capability=(8, 0))
    assert report.capability == (8, 0)
    assert report.spilled_bytes == 0


def test_numbers_that_make_double_precision_are_named():
    report = checked(with_half, jac="inplace")
    line = with_half.py_func.__code__.co_firstlineno + 5
    assert report.float64_instructions > 0
    assert report.literals == f"0.5 in line {line}"
    assert f"0.5 in line {line}" in str(report)
    assert not checked(with_half, np.float64, jac="inplace").literals


def test_a_function_without_source_has_no_literals():
    typed = types.FunctionType(compile("0.5 * 2.0", "<prompt>", "eval"), {})
    assert objective.literals_of(typed) == ""


@pytest.mark.parametrize(
    ("how", "error", "said"),
    [
        ({"fun": None}, TypeError, "fun must be callable"),
        ({"jac": "2-point"}, ValueError, "got jac='2-point'"),
        ({"method": "adam"}, ValueError, "method must be one of"),
        ({"options": {"learningrate": 1}}, ValueError, "learningrate"),
        ({"fun": lambda p, t, y: p * p}, TypeError, "array expressions"),
        ({"capability": (3, 0)}, TypeError, "3.0 is not supported"),
    ],
)
def test_what_cannot_be_checked(how, error, said):
    with pytest.raises(error, match=said):
        checked(**{"fun": misfit} | how)
