"""Exact derivatives against those of JAX, complex steps and gradients written by hand."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from marks import needs_jit
from numba import njit

from rmsprop_nb import testing, value_and_grad
from rmsprop_nb._numba.autodiff.gradients import width_for

pytestmark = needs_jit

GOLDEN = Path(__file__).parents[1] / "golden"
JAX = json.loads((GOLDEN / "gradients.json").read_text())


def load_cases():
    spec = importlib.util.spec_from_file_location("gradient_cases", GOLDEN / "gradient_cases.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["gradient_cases"] = module
    spec.loader.exec_module(module)
    return module.CASES


CASES = load_cases()


def derivatives(function, x, *args, chunk=4):
    """Return f and its gradient, from a function that is not compiled yet."""
    x = np.asarray(x)
    gradient = np.full_like(x, np.nan)
    return value_and_grad(njit(function), chunk=chunk)(x, gradient, *args), gradient


def test_there_are_many_objectives_and_all_have_golden_values():
    assert len(CASES) >= 50
    assert set(JAX) == {"versions", *CASES}


@pytest.mark.parametrize("name", CASES)
def test_as_jax(name):
    function, x, args = CASES[name]
    f, *gradient = map(float.fromhex, JAX[name])
    found, grad = derivatives(function, x, *args, chunk=width_for(x.size))
    np.testing.assert_allclose(found, f, rtol=1e-13)
    np.testing.assert_allclose(grad, gradient, rtol=1e-13, atol=1e-13 * np.max(np.abs(gradient)))


@pytest.mark.parametrize("problem", testing.PROBLEMS, ids=lambda problem: problem.name)
def test_as_written_by_hand(problem):
    x = np.array(problem.x0)
    for point in (x, x + 0.3):
        grad = np.empty_like(point)
        f = value_and_grad(njit(problem.fun))(point, grad)
        expected = np.asarray(problem.jac(point))
        np.testing.assert_allclose(f, problem.fun(point), rtol=1e-14)
        np.testing.assert_allclose(grad, expected, rtol=1e-12, atol=1e-13 * max(1.0, np.abs(expected).max()))


# -- random expressions, as programs of a machine with a stack --------------------------------------------------------

OPERATIONS = ("x", "constant", "+", "-", "*", "/", "sin", "exp", "tanh", "log", "sqrt", "**3", "neg", "max", "if")
ARITY = {name: 2 if name in ("+", "-", "*", "/", "max", "if") else 1 for name in OPERATIONS[2:]}


def run_program(x, code, numbers):
    """Run a program: each operation takes its operands from the stack and puts its result there."""
    stack = np.empty(code.size + 1, x.dtype)
    top = -1
    for k in range(code.size):
        op = code[k]
        if op == 0:
            top += 1
            stack[top] = x[int(numbers[k]) % x.size]
        elif op == 1:
            top += 1
            stack[top] = numbers[k]
        elif op == 2:
            top -= 1
            stack[top] = stack[top] + stack[top + 1]
        elif op == 3:
            top -= 1
            stack[top] = stack[top] - stack[top + 1]
        elif op == 4:
            top -= 1
            stack[top] = stack[top] * stack[top + 1]
        elif op == 5:
            top -= 1
            stack[top] = stack[top] / (1.0 + stack[top + 1] * stack[top + 1])
        elif op == 6:
            stack[top] = np.sin(stack[top])
        elif op == 7:
            stack[top] = np.exp(-stack[top] * stack[top])
        elif op == 8:
            stack[top] = np.tanh(stack[top])
        elif op == 9:
            stack[top] = np.log(1.0 + stack[top] * stack[top])
        elif op == 10:
            stack[top] = np.sqrt(1.0 + stack[top] * stack[top])
        elif op == 11:
            stack[top] = stack[top] ** 3
        elif op == 12:
            stack[top] = -stack[top]
        elif op == 13:
            top -= 1
            if np.real(stack[top + 1]) > np.real(stack[top]):
                stack[top] = stack[top + 1]
        else:
            top -= 1
            stack[top] = stack[top] * 2.0 if np.real(stack[top + 1]) > 0.0 else stack[top + 1]
    return stack[top]
