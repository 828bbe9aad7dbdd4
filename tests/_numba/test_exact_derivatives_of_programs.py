"""Exact derivatives of random expressions, as programs of a machine with a stack, in both modes."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from marks import needs_jit
from numba import njit

from rmsprop_nb import value_and_grad

pytestmark = needs_jit

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


@functools.cache
def program_gradient(mode):
    return value_and_grad(njit(run_program), mode=mode)


@functools.cache
def compiled_program():
    return njit(run_program)


@st.composite
def programs(draw):
    """Draw a program that leaves one number on the stack."""
    code, numbers, height = [], [], 0
    for _ in range(draw(st.integers(1, 25))):
        op = draw(st.sampled_from([name for name in OPERATIONS if ARITY.get(name, 0) <= height]))
        code.append(OPERATIONS.index(op))
        numbers.append(float(draw(st.integers(-3, 3))) if op in ("x", "constant") else 0.0)
        height += 1 - ARITY.get(op, 0)
    while height > 1:
        code.append(OPERATIONS.index("*"))
        numbers.append(0.0)
        height -= 1
    return np.array(code), np.array(numbers)


@given(programs(), st.lists(st.floats(-2.0, 2.0), min_size=1, max_size=6))
def test_random_expressions_as_by_complex_steps(program, x):
    x = np.array(x)
    gradient = np.empty_like(x)
    f = program_gradient("forward")(x, gradient, *program)
    with np.errstate(all="ignore"):
        assert f == pytest.approx(compiled_program()(x, *program), rel=1e-15, abs=1e-300, nan_ok=True)
        expected = [run_program(x + 1e-30j * unit, *program).imag / 1e-30 for unit in np.eye(x.size)]
    assume(not np.abs(expected).max() > 1e12)  # on the way to such a derivative, that step is no small one
    np.testing.assert_allclose(gradient, expected, rtol=1e-9, atol=1e-12 * max(1.0, np.abs(expected).max()))


@given(programs(), st.lists(st.floats(-2.0, 2.0), min_size=1, max_size=6))
def test_random_expressions_in_both_modes(program, x):
    x = np.array(x)
    forward, backward = np.empty((2, x.size))
    f = program_gradient("forward")(x, forward, *program)
    assert program_gradient("reverse")(x, backward, *program) == f
    np.testing.assert_allclose(backward, forward, rtol=1e-11, atol=1e-13 * max(1.0, np.abs(forward).max()))
